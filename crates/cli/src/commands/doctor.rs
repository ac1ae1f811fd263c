//! `kun doctor`: this machine and this installation, for people and bug reports.

use super::App;
use super::bench::limits_line;
use crate::args::DoctorArgs;
use crate::config::HubSettings;
use crate::exit::Misuse;
use crate::terminal::human_bytes;
use kun_evals::speed::{self, Machine};
use serde_json::json;
use std::path::Path;

/// Measures the machine for about a second and prints what was found.
pub fn doctor(app: &App, args: &DoctorArgs) -> anyhow::Result<()> {
    if args.threads == Some(0) {
        return Err(Misuse("--threads must be at least 1".to_owned()).into());
    }
    let machine = speed::machine(args.threads);
    let hub = app.hub_settings();
    let folders = folders(app, &hub);
    if args.json {
        return app.output.json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine,
            "folders": folders.iter().map(|(name, path)| ((*name).to_owned(), json!(path))).collect::<serde_json::Map<_, _>>(),
            "offline": hub.options.offline,
            "loosened_defaults": hub.loosened,
        }));
    }
    let mut text = machine_lines(&machine);
    for (name, path) in folders.iter().filter_map(|(name, path)| Some((name, (*path)?))) {
        let state = if path.exists() { "" } else { " (not there yet)" };
        text.push_str(&row(name, &format!("{}{state}", path.display())));
    }
    if hub.loosened.is_empty() {
        text.push_str(&row("loosened", "no default is loosened"));
    }
    for what in &hub.loosened {
        text.push_str(&row("loosened", what));
    }
    Ok(app.output.write(&text)?)
}

fn row(name: &str, value: &str) -> String {
    format!("{:<14}{value}\n", name.replace('_', " "))
}

fn machine_lines(machine: &Machine) -> String {
    let memory = machine.available_bytes.map_or("unknown".to_owned(), human_bytes);
    [
        row("kun", env!("CARGO_PKG_VERSION")),
        row("processor", machine.cpu.as_deref().unwrap_or("unknown")),
        row("cores", &format!("{} ({} hardware threads)", machine.cores, machine.threads)),
        row("kernels", &format!("{} (built in: {})", machine.isa, machine.isa_levels.join(", "))),
        row("memory", &format!("{memory} available")),
        row("measured", &limits_line(&machine.limits)),
    ]
    .concat()
}

type Named<'a> = (&'static str, Option<&'a Path>);

fn folders<'a>(app: &'a App, hub: &'a HubSettings) -> [Named<'a>; 4] {
    [
        ("model_cache", Some(hub.options.cache_dir.as_path())),
        ("own_models", Some(hub.options.data_dir.as_path())),
        ("settings", app.folders.config.as_deref()),
        ("state", app.folders.state.as_deref()),
    ]
}
