//! What the page shows, and the loading and letting go of models.

use crate::error::{Kind, Refusal};
use crate::routes::{Call, Reply, json_response};
use crate::schema::{Field, NAME, required};
use kun_engine::Resident;
use serde_json::{Value, json};

pub(crate) const NAMED: &[&[Field]] = &[&[required("model", NAME, "Which model")]];

pub(crate) fn status(call: Call) -> Reply {
    Box::pin(async move {
        let status = Call::blocking(move || Ok(describe(&call))).await?;
        Ok(json_response(&status))
    })
}

fn describe(call: &Call) -> Value {
    let app = &call.app;
    let names = app.names();
    let shelves = app.library.shelves();
    let models: Vec<Value> = shelves
        .iter()
        .map(|shelf| {
            let name = names.get(&shelf.path).cloned().unwrap_or_default();
            let pages = match &shelf.model {
                Some(Resident::Decoder(model)) => {
                    let pages = model.pages();
                    json!({ "in_use": pages.in_use, "cached": pages.cached, "free": pages.free })
                }
                _ => Value::Null,
            };
            json!({
                "name": name,
                "progress": shelf.progress,
                "memory_bytes": shelf.memory_bytes,
                "idle_s": shelf.idle.as_secs(),
                "pages": pages,
            })
        })
        .collect();
    let catalog: Vec<Value> = app
        .hub
        .catalog()
        .models()
        .iter()
        .map(|entry| json!({ "name": entry.name, "title": entry.title, "task": entry.task, "bytes": entry.bytes }))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "admin": call.admin,
        "default_model": app.default_model(),
        "in_flight": app.in_flight(),
        "slots": app.slots(),
        "memory": {
            "used_bytes": shelves.iter().map(|shelf| shelf.memory_bytes).sum::<u64>(),
            "budget_bytes": app.library.budget_bytes(),
        },
        "models": models,
        "catalog": catalog,
    })
}

/// Loading and letting go is for callers on this machine.
pub(crate) fn require_admin(call: &Call) -> Result<(), Refusal> {
    if call.admin {
        return Ok(());
    }
    Err(Refusal::new(Kind::Forbidden, "Models are managed from the server's own machine.")
        .code("not_permitted"))
}

pub(crate) fn load(call: Call) -> Reply {
    Box::pin(async move {
        require_admin(&call)?;
        let (app, name) = (call.app.clone(), call.model());
        let bytes = Call::blocking(move || app.load(&name)).await?;
        Ok(call.json(json!({ "model": call.model(), "status": "loaded", "memory_bytes": bytes })))
    })
}

pub(crate) fn unload(call: Call) -> Reply {
    Box::pin(async move {
        require_admin(&call)?;
        let (app, name) = (call.app.clone(), call.model());
        let was = Call::blocking(move || Ok(app.library.unload(&app.locate(&name)?.path))).await?;
        Ok(call.json(json!({ "model": call.model(), "status": "available", "was_loaded": was })))
    })
}
