//! `kun config show`.

use super::App;
use crate::args::{ConfigShowArgs, ConfigVerb};
use serde_json::json;

/// Prints the settings.
pub fn config(app: &App, verb: &ConfigVerb) -> anyhow::Result<()> {
    let ConfigVerb::Show(args) = verb;
    let settings = app.files.settings();
    if args.json {
        let rows: serde_json::Map<_, _> = settings
            .into_iter()
            .map(|s| (s.name, json!({ "value": s.value, "origin": s.origin.to_string() })))
            .collect();
        return app.output.json(&rows);
    }
    for setting in settings {
        let value = setting.value.unwrap_or_else(|| "unset".to_owned());
        app.output.line(&line(&setting.name, &value, args, &setting.origin.to_string()))?;
    }
    Ok(())
}

fn line(name: &str, value: &str, args: &ConfigShowArgs, origin: &str) -> String {
    if args.origin { format!("{name:<22} {value:<16} {origin}") } else { format!("{name:<22} {value}") }
}
