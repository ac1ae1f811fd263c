//! Answers sources once to warm up and once measured, and prints the seconds: see `benches/compare_seq2seq.py`.

use kun_engine::seq2seq::{Beginning, Generation};
use kun_engine::{Engine, LoadOptions};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, folder, request] = args.as_slice() else { return Err("usage: FOLDER REQUEST".into()) };
    let request: serde_json::Value = serde_json::from_str(request)?;
    let count = |key: &str| -> Result<usize, Box<dyn Error>> {
        Ok(usize::try_from(request[key].as_u64().ok_or("a number is missing")?)?)
    };
    let sources: Vec<Vec<u32>> = serde_json::from_value(request["sources"].clone())?;
    let options = LoadOptions { threads: Some(count("threads")?), ..LoadOptions::default() };
    let model = Engine::new().load_seq2seq(Path::new(folder), &options)?;
    let generation = Generation {
        num_beams: count("beams")?,
        min_new_tokens: count("new_tokens")?,
        max_new_tokens: Some(count("new_tokens")?),
        ..model.generation().clone()
    };
    let mut seconds = 0.0;
    for _ in 0..2 {
        let started = Instant::now();
        for answer in model.generate(&sources, Beginning::default(), &generation, None, &Arc::default()) {
            if answer?.tokens.len() != count("new_tokens")? + 1 {
                return Err("an answer of another length".into());
            }
        }
        seconds = started.elapsed().as_secs_f64();
    }
    println!("{seconds}");
    Ok(())
}
