//! `kun fit`: memory before anything is loaded.

use super::App;
use crate::args::FitArgs;
use crate::exit::{DOES_NOT_FIT, Quiet};
use crate::terminal::human_bytes;
use kun_engine::Fit;
use serde_json::json;

/// Prints what the model needs and what is there.
pub fn fit(app: &App, args: &FitArgs) -> anyhow::Result<()> {
    let model = app.fetch(&args.model)?;
    let fit = app.engine.fit(&model.path, &args.load.options())?;
    if args.json {
        app.output.json(&document(&model.name, &fit))?;
    } else {
        app.output.write(&table(&model.name, &fit))?;
    }
    if fits(&fit) { Ok(()) } else { Err(Quiet(DOES_NOT_FIT).into()) }
}

fn needed_bytes(fit: &Fit) -> u64 {
    let memory = &fit.memory;
    (memory.weights_bytes + memory.kv_bytes + memory.workspace_bytes) as u64
}

fn fits(fit: &Fit) -> bool {
    needed_bytes(fit) <= fit.available_bytes
}

fn document(name: &str, fit: &Fit) -> serde_json::Value {
    json!({
        "model": name,
        "fits": fits(fit),
        "context_tokens": fit.context_tokens,
        "weights_bytes": fit.memory.weights_bytes,
        "kv_bytes": fit.memory.kv_bytes,
        "workspace_bytes": fit.memory.workspace_bytes,
        "needed_bytes": needed_bytes(fit),
        "available_bytes": fit.available_bytes,
        "kv_bytes_per_token": fit.kv_bytes_per_token,
        "max_context_tokens": fit.max_context_tokens,
        "model_context_tokens": fit.model.context_tokens,
    })
}

fn table(name: &str, fit: &Fit) -> String {
    let verdict = match (fits(fit), fit.max_context_tokens) {
        (true, Some(most)) => format!("fits; the longest context that does is {most} tokens"),
        (true, None) => "fits".to_owned(),
        (false, Some(most)) => {
            format!("does not fit with this context; {most} tokens do: --context {most}")
        }
        (false, None) => "does not fit at any context".to_owned(),
    };
    let rows = [
        ("weights", human_bytes(fit.memory.weights_bytes as u64)),
        (
            "KV cache",
            format!(
                "{} for {} tokens, {} each",
                human_bytes(fit.memory.kv_bytes as u64),
                fit.context_tokens,
                human_bytes(fit.kv_bytes_per_token)
            ),
        ),
        ("workspace", human_bytes(fit.memory.workspace_bytes as u64)),
        ("needed", human_bytes(needed_bytes(fit))),
        ("available", human_bytes(fit.available_bytes)),
        ("verdict", verdict),
    ];
    let lines: String = rows.iter().map(|(label, value)| format!("{label:<10} {value}\n")).collect();
    format!("{name}\n{lines}")
}
