//! The verbs of the model store.

use super::App;
use crate::args::{ListArgs, PullArgs, RemoveArgs, ShowArgs, VerifyArgs};
use crate::exit::{FAILED, Quiet, outcome};
use crate::terminal::human_bytes;
use kun_engine::{Fit, LoadOptions};
use kun_hub::{HubError, ModelPath};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Fetches each model.
pub fn pull(app: &App, args: &PullArgs) -> anyhow::Result<()> {
    let mut done = Vec::new();
    for name in &args.models {
        let model = app.fetch(name)?;
        if !args.json {
            app.output.line(&model.path.display().to_string())?;
        }
        done.push(place(&model));
    }
    if args.json { app.output.json(&done) } else { Ok(()) }
}

pub(super) fn place(model: &ModelPath) -> Value {
    json!({ "name": model.name, "path": model.path, "source": model.source, "license": model.license })
}

/// Lists the store.
pub fn list(app: &App, args: &ListArgs) -> anyhow::Result<()> {
    let models = app.hub().list()?;
    if args.json {
        let rows: Vec<_> = models
            .iter()
            .map(|m| {
                json!({
                    "name": m.name,
                    "path": m.path,
                    "bytes": m.bytes,
                    "revision": m.revision,
                    "modified_unix_s": m.modified_unix_s,
                })
            })
            .collect();
        return app.output.json(&rows);
    }
    if models.is_empty() {
        app.messages.note("No models yet; `kun pull smollm2` fetches one.");
        return Ok(());
    }
    let width = models.iter().map(|m| m.name.chars().count()).max().unwrap_or(0).max(4);
    app.output.line(&format!("{:width$}  {:>10}  CHANGED", "NAME", "SIZE"))?;
    for m in &models {
        let age = age(m.modified_unix_s);
        app.output.line(&format!("{:width$}  {:>10}  {age}", m.name, human_bytes(m.bytes)))?;
    }
    Ok(())
}

/// Time since then, in the largest whole unit.
fn age(modified_unix_s: u64) -> String {
    let then = UNIX_EPOCH.checked_add(Duration::from_secs(modified_unix_s));
    let passed = then.and_then(|then| SystemTime::now().duration_since(then).ok()).unwrap_or_default();
    let minutes = passed.as_secs() / 60;
    match minutes {
        0 => "now".to_owned(),
        1..60 => format!("{minutes} min ago"),
        60..1440 => format!("{} h ago", minutes / 60),
        _ => format!("{} days ago", minutes / 1440),
    }
}

/// Describes a model of this disk, or what the catalogue says of one that is not here.
pub fn show(app: &App, args: &ShowArgs) -> anyhow::Result<()> {
    let hub = app.hub();
    let Some(model) = hub.locate(&args.model)? else {
        let name = kun_hub::ModelName::parse(&args.model)?;
        let known = hub.catalog().find(&name).ok();
        return known
            .map_or_else(|| Err(not_here(&args.model).into()), |(entry, _)| announce(app, args, entry));
    };
    let networks = super::onnx::networks(&model.path);
    if !networks.is_empty() {
        return super::onnx::show_all(app, &model, &networks, args.json);
    }
    let fit = app.engine.fit(&model.path, &LoadOptions::default())?;
    if args.json {
        return app.output.json(&description(&model, &fit));
    }
    let info = &fit.model;
    let license = model.license.as_deref().or(info.license.as_deref()).unwrap_or("not stated");
    let rows = [
        ("name", model.name.clone()),
        ("title", info.name.clone().unwrap_or_default()),
        ("source", model.source.clone()),
        ("path", model.path.display().to_string()),
        ("licence", license.to_owned()),
        ("architecture", info.architecture.clone()),
        ("kind", fit.kind.name().to_owned()),
        ("parameters", human_count(info.parameters)),
        ("weights", format!("{} ({})", human_bytes(info.weights_bytes), info.quantization)),
        ("window", format!("{} tokens", info.context_tokens)),
        ("vocabulary", format!("{} tokens", info.vocab_size)),
        ("layers", format!("{} of width {}", info.layers, info.width)),
        ("heads", format!("{} ({} for keys and values) of {}", info.heads, info.kv_heads, info.head_dim)),
    ];
    for (label, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        app.output.line(&format!("{label:<13} {value}"))?;
    }
    Ok(())
}

/// What the catalogue says of a model that is not on this disk.
fn announce(app: &App, args: &ShowArgs, entry: &kun_hub::CatalogEntry) -> anyhow::Result<()> {
    let sources: Vec<String> = entry.sources().collect();
    if args.json {
        return app.output.json(&json!({
            "name": entry.name, "title": entry.title, "task": entry.task, "license": entry.license,
            "parameters": entry.parameters, "bytes": entry.bytes, "sources": sources, "path": null,
        }));
    }
    let mut rows = vec![
        ("name", entry.name.clone()),
        ("title", entry.title.clone()),
        ("task", entry.task.clone()),
        ("licence", entry.license.clone()),
        ("parameters", human_count(entry.parameters)),
        ("download", human_bytes(entry.bytes)),
    ];
    rows.extend(sources.into_iter().map(|source| ("source", source)));
    rows.push(("path", format!("not on this disk; `kun pull {}` fetches it", entry.name)));
    for (label, value) in rows {
        app.output.line(&format!("{label:<13} {value}"))?;
    }
    Ok(())
}

fn not_here(name: &str) -> HubError {
    let why = format!("it is not on this disk; `kun pull {name}` fetches it");
    HubError::NotFound { name: name.to_owned(), why }
}

fn description(model: &ModelPath, fit: &Fit) -> Value {
    let info = &fit.model;
    let mut document = place(model);
    let more = json!({
        "title": info.name,
        "architecture": info.architecture,
        "kind": fit.kind.name(),
        "parameters": info.parameters,
        "quantization": info.quantization,
        "weights_bytes": info.weights_bytes,
        "context_tokens": info.context_tokens,
        "vocab_size": info.vocab_size,
        "layers": info.layers,
        "width": info.width,
        "heads": info.heads,
        "kv_heads": info.kv_heads,
        "head_dim": info.head_dim,
    });
    if let (Some(document), Value::Object(more)) = (document.as_object_mut(), more) {
        document.extend(more);
        if document["license"].is_null() {
            document["license"] = json!(info.license);
        }
    }
    document
}

/// `134.5 M`.
pub fn human_count(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.1} k", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", count as f64 / 1e6),
        _ => format!("{:.2} G", count as f64 / 1e9),
    }
}

/// Removes each model.
pub fn remove(app: &App, args: &RemoveArgs) -> anyhow::Result<()> {
    let hub = app.hub();
    for name in &args.models {
        let freed = hub.remove(name)?;
        app.messages.note(&format!("Removed {name}: {} freed.", human_bytes(freed)));
    }
    Ok(())
}

/// Checks each model, or all of them.
pub fn verify(app: &App, args: &VerifyArgs) -> anyhow::Result<()> {
    let hub = app.hub();
    let names = match args.models.as_slice() {
        [] => hub.list()?.into_iter().map(|m| m.name).collect(),
        names => names.to_vec(),
    };
    let mut rows = Vec::new();
    let mut all_good = true;
    for name in &names {
        let (files, bad, error) = match hub.verify(name) {
            Ok((files, bad)) => (files, bad, None),
            // With one name its own exit code says more.
            Err(error) if names.len() == 1 => return Err(error.into()),
            Err(error) => (0, Vec::new(), Some(anyhow::Error::from(error))),
        };
        all_good &= bad.is_empty() && error.is_none();
        if let Some(error) = &error {
            app.messages.error(error, outcome(error).hint.as_deref());
        }
        if !args.json && error.is_none() {
            let verdict = if bad.is_empty() { "good" } else { "DIFFERS" };
            app.output.line(&format!("{name}: {files} files, {verdict}"))?;
            for path in &bad {
                app.output.line(&format!("  {}", path.display()))?;
            }
        }
        rows.push(json!({
            "name": name,
            "files": files,
            "differing": bad,
            "error": error.map(|e| format!("{e:#}")),
        }));
    }
    if args.json {
        app.output.json(&rows)?;
    }
    if all_good { Ok(()) } else { Err(Quiet(FAILED).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_ages_are_short() {
        assert_eq!(human_count(260_032), "260.0 k");
        assert_eq!(human_count(134_515_008), "134.5 M");
        assert_eq!(human_count(8_030_261_248), "8.03 G");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(age(now), "now");
        assert_eq!(age(now - 7300), "2 h ago");
        assert_eq!(age(now - 3 * 86_400), "3 days ago");
        assert_eq!(age(u64::MAX), "now");
    }
}
