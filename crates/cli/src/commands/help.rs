//! `kun help` and `kun --version`.

use super::App;
use crate::args::{self, HelpArgs};
use crate::exit::Misuse;
use crate::topics;
use serde_json::json;

/// Explains a verb or a topic.
pub fn help(app: &App, args: &HelpArgs) -> anyhow::Result<()> {
    let mut command = args::command();
    command.build();
    let mut found = &mut command;
    for (depth, word) in args.topic.iter().enumerate() {
        if depth == 0
            && let Some(text) = topics::find(word)
        {
            return Ok(app.output.write(text)?);
        }
        found = match found.find_subcommand_mut(word) {
            Some(sub) => sub,
            None => return Err(unknown(word)),
        };
    }
    Ok(app.output.write(&found.render_long_help().to_string())?)
}

fn unknown(word: &str) -> anyhow::Error {
    let topics: Vec<_> = topics::ALL.iter().map(|(name, _)| *name).collect();
    Misuse(format!("no verb or topic `{word}`; topics are {}", topics.join(", "))).into()
}

/// The version, alone or with what the build can do.
pub fn version(app: &App, json: bool) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if !json {
        return Ok(app.output.line(&format!("kun {version}"))?);
    }
    let machine = kun_engine::machine::describe();
    app.output.json(&json!({
        "version": version,
        "build": {
            "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
            "target_arch": std::env::consts::ARCH,
            "target_os": std::env::consts::OS,
        },
        "features": Vec::<&str>::new(),
        "kernels": machine.isa_levels,
        "chosen_kernels": machine.isa,
    }))
}
