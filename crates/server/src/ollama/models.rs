//! Models by Ollama's API: listed, described, fetched, removed.

use super::VERSION;
use crate::App;
use crate::error::{Dialect, Kind, Refusal};
use crate::hex;
use crate::http::keys::sha256;
use crate::http::sse;
use crate::own::models::require_admin;
use crate::routes::{Call, Reply, json_response};
use kun_engine::{Fit, ModelKind, Resident};
use kun_hub::{Progress, StoredModel};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn version(_call: Call) -> Reply {
    Box::pin(async { Ok(json_response(&json!({ "version": VERSION }))) })
}

pub(crate) fn tags(call: Call) -> Reply {
    Box::pin(async move {
        let models = Call::blocking(move || {
            Ok(call.app.listed().iter().map(|model| entry(&call.app, model)).collect::<Vec<_>>())
        })
        .await?;
        Ok(json_response(&json!({ "models": models })))
    })
}

/// A model as Ollama lists it.
fn entry(app: &App, model: &StoredModel) -> Value {
    json!({
        "name": model.name,
        "model": model.name,
        "modified_at": timestamp(UNIX_EPOCH + Duration::from_secs(model.modified_unix_s)),
        "size": model.bytes,
        "digest": digest(model),
        "details": details(&model.path, app.facts(&model.path).as_deref()),
    })
}

/// 64 digits, whose first twelve Ollama's own client shows: of the file, or, where a model is many, of what tells it from others.
fn digest(model: &StoredModel) -> String {
    model.sha256.clone().unwrap_or_else(|| {
        let StoredModel { name, revision, bytes, modified_unix_s, .. } = model;
        let what = format!("{name}\n{revision:?}\n{bytes}\n{modified_unix_s}");
        hex::encode(&sha256(what.as_bytes()))
    })
}

fn details(path: &Path, fit: Option<&Fit>) -> Value {
    // The name of a folder may hold a dot of its own.
    let ending = path.extension().and_then(|ending| ending.to_str());
    let in_folder = if fit.is_some() { "safetensors" } else { "onnx" };
    let format = ending.filter(|ending| ["gguf", "onnx"].contains(ending)).unwrap_or(in_folder);
    let info = fit.map(|fit| &fit.model);
    let architecture = info.map_or("", |info| &info.architecture);
    json!({
        "parent_model": "",
        "format": format,
        "family": architecture,
        "families": info.map_or(Vec::new(), |info| vec![&info.architecture]),
        "parameter_size": info.map_or(String::new(), |info| in_words(info.parameters)),
        "quantization_level": info.map_or("", |info| &info.quantization).to_ascii_uppercase(),
    })
}

/// A number of parameters as Ollama writes it: `134.52M`, `1.2B`.
fn in_words(parameters: u64) -> String {
    match parameters as f64 {
        n if n >= 1e9 => format!("{:.1}B", n / 1e9),
        n => format!("{:.2}M", n / 1e6),
    }
}

pub(crate) fn running(call: Call) -> Reply {
    Box::pin(async move {
        let models = Call::blocking(move || {
            let listed = call.app.listed();
            let loaded = call.app.library.shelves().into_iter().filter(|shelf| shelf.model.is_some());
            let described = loaded.filter_map(|shelf| {
                let listed = listed.iter().find(|model| model.path == shelf.path)?;
                let mut model = entry(&call.app, listed);
                let left =
                    shelf.keep_alive.map_or(Duration::from_secs(1 << 32), |t| t.saturating_sub(shelf.idle));
                model["size"] = json!(shelf.memory_bytes);
                model["expires_at"] = json!(timestamp(SystemTime::now() + left));
                model["size_vram"] = json!(0);
                let fit = call.app.facts(&shelf.path);
                model["context_length"] = json!(fit.map_or(0, |fit| fit.context_tokens));
                Some(model)
            });
            Ok(described.collect::<Vec<Value>>())
        })
        .await?;
        Ok(json_response(&json!({ "models": models })))
    })
}

/// The model named by either field.
fn named(call: &Call) -> Result<String, Refusal> {
    let name = call.text("model").or_else(|| call.text("name"));
    name.map(str::to_owned).ok_or_else(|| Refusal::invalid("model", "Missing required parameter: `model`"))
}

pub(crate) fn show(call: Call) -> Reply {
    Box::pin(async move {
        let name = named(&call)?;
        let app = call.app.clone();
        let answer = Call::blocking(move || {
            let found = app.locate(&name)?;
            let listed = app.listed().into_iter().find(|model| model.path == found.path);
            let fit = app.facts(&found.path);
            let loaded = app.library.loaded(&found.path);
            let thinks = matches!(loaded, Some(Resident::Decoder(model)) if model.thinks());
            let (mut about, mut can) = (json!({}), Vec::new());
            if let Some(fit) = &fit {
                let info = &fit.model;
                about = json!({
                    "general.architecture": info.architecture,
                    "general.parameter_count": info.parameters,
                    format!("{}.context_length", info.architecture): info.context_tokens,
                    format!("{}.embedding_length", info.architecture): info.width,
                });
                match fit.kind {
                    ModelKind::Generates => can.extend(["completion", "tools"]),
                    ModelKind::Embeds => can.push("embedding"),
                    _ => {}
                }
                // As far as is known without loading the model.
                can.extend(thinks.then_some("thinking"));
            }
            let stated = fit.as_ref().and_then(|fit| fit.model.license.clone());
            Ok(json!({
                "license": found.license.or(stated),
                "modelfile": "",
                "parameters": "",
                "template": "",
                "details": details(&found.path, fit.as_deref()),
                "model_info": about,
                "capabilities": can,
                "modified_at": timestamp(
                    UNIX_EPOCH + Duration::from_secs(listed.map_or(0, |model| model.modified_unix_s)),
                ),
            }))
        })
        .await?;
        Ok(call.json(answer))
    })
}

/// Milliseconds are enough: `2026-01-02T03:04:05.678Z`.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date (Howard Hinnant's `civil_from_days`), for days since 1970.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

pub(crate) fn delete(call: Call) -> Reply {
    Box::pin(async move {
        require_admin(&call)?;
        let name = named(&call)?;
        let app = call.app.clone();
        Call::blocking(move || {
            let found = app.locate(&name)?;
            app.library.unload(&found.path);
            Ok(app.hub.remove(&found.name)?)
        })
        .await?;
        Ok(json_response(&json!({ "status": "success" })))
    })
}

/// Fetches a model into the store, telling how far it is.
pub(crate) fn pull(call: Call) -> Reply {
    Box::pin(async move {
        require_admin(&call)?;
        let name = named(&call)?;
        // Paths and addresses are for the command line: a page must not choose what this machine connects to.
        match kun_hub::ModelName::parse(&name)? {
            kun_hub::ModelName::Path(_) | kun_hub::ModelName::Url(_) => {
                return Err(Refusal::invalid(
                    "model",
                    "Only names of models can be fetched, not paths or addresses.",
                ));
            }
            _ => {}
        }
        let (sender, mut progress) = tokio::sync::mpsc::channel::<Value>(16);
        let app = call.app.clone();
        let fetch = tokio::task::spawn_blocking(move || {
            let (mut file, mut done, mut all) = (String::new(), 0, None);
            let mut told = Instant::now();
            app.hub.fetch(&name, &mut |event| {
                match event {
                    Progress::Note(note) => {
                        let _ = sender.blocking_send(json!({ "status": note }));
                        return;
                    }
                    Progress::Start { name, resumed_bytes, total_bytes } => {
                        (file, done, all) = (name, resumed_bytes, total_bytes)
                    }
                    Progress::Advance(bytes) => {
                        done += bytes;
                        if told.elapsed() < Duration::from_millis(100) {
                            return;
                        }
                        told = Instant::now();
                    }
                    Progress::Finish => {}
                }
                let mut step = json!({ "status": format!("pulling {file}"), "completed": done });
                if let Some(all) = all {
                    step["total"] = json!(all);
                }
                let _ = sender.blocking_send(step);
            })
        });
        let finish = |result: Result<
            Result<kun_hub::ModelPath, kun_hub::HubError>,
            tokio::task::JoinError,
        >| match result {
            Ok(Ok(_)) => Ok(json!({ "status": "success" })),
            Ok(Err(error)) => Err(Refusal::from(error)),
            Err(_) => Err(Refusal::new(Kind::Internal, "Fetching failed.")),
        };
        if call.get("stream").and_then(Value::as_bool) == Some(false) {
            let drain = async { while progress.recv().await.is_some() {} };
            let (result, ()) = tokio::join!(fetch, drain);
            return finish(result).map(|answer| call.json(answer));
        }
        let (stream, response) = sse::lines(call.app.options.limits.write_stall_time);
        tokio::spawn(async move {
            while let Some(step) = progress.recv().await {
                stream.line(&step).await?;
            }
            let last = finish(fetch.await).unwrap_or_else(|refusal| refusal.body(Dialect::Ollama));
            stream.line(&last).await
        });
        Ok(response)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_one_that_exists() {
        let format = |path: &str| details(Path::new(path), None)["format"].clone();
        assert_eq!(format("a/model.gguf"), "gguf");
        assert_eq!(format("a/package-0.1.0"), "onnx");
        assert_eq!(details(Path::new("a"), None)["families"], json!([]));
    }
}
