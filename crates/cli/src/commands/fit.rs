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
        "kind": fit.kind.name(),
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
    let longest = if fit.kv_bytes_per_token > 0 { "context" } else { "text" };
    let verdict = match (fits(fit), fit.max_context_tokens) {
        (true, Some(most)) => format!("fits; the longest {longest} that does is {most} tokens"),
        (true, None) => "fits".to_owned(),
        (false, Some(most)) => {
            format!("does not fit with this context; {most} tokens do: --context {most}")
        }
        (false, None) => "does not fit at any context".to_owned(),
    };
    let bytes = |bytes: usize| human_bytes(bytes as u64);
    let cache = match (fit.memory.kv_bytes, fit.kv_bytes_per_token) {
        (0, _) => String::new(),
        (all, 0) => format!("{} for the answers that run at once", bytes(all)),
        (all, each) => {
            format!("{} for {} tokens, {} each", bytes(all), fit.context_tokens, human_bytes(each))
        }
    };
    let rows = [
        ("weights", bytes(fit.memory.weights_bytes)),
        ("KV cache", cache),
        ("workspace", bytes(fit.memory.workspace_bytes)),
        ("needed", human_bytes(needed_bytes(fit))),
        ("available", human_bytes(fit.available_bytes)),
        ("verdict", verdict),
    ];
    let rows = rows.iter().filter(|(_, value)| !value.is_empty());
    let lines: String = rows.map(|(label, value)| format!("{label:<10} {value}\n")).collect();
    format!("{name}\n{lines}")
}
