//! Fetches one model by name and prints where it is: `cargo run -p kun-hub --example pull -- smollm2`.

use std::io::Write;

use kun_hub::{Hub, HubOptions, Progress};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "smollm2".to_owned());
    let hub = Hub::new(HubOptions::from_environment(|variable| std::env::var(variable).ok()));
    let mut here = 0;
    let found = hub.fetch(&name, &mut |event| match event {
        Progress::Note(line) => eprintln!("{line}"),
        Progress::Start { name, resumed_bytes, total_bytes } => {
            here = resumed_bytes;
            eprintln!("{name}: {total_bytes:?} bytes, {resumed_bytes} here already");
        }
        Progress::Advance(bytes) => {
            here += bytes;
            eprint!("\r{here}");
            let _ = std::io::stderr().flush();
        }
        Progress::Finish => eprintln!(" done"),
    })?;
    println!("{}\n{} ({})", found.path.display(), found.name, found.source);
    Ok(())
}
