//! Tasks of language through a model that chats.

use super::App;
use crate::args::EncodeArgs;
use kun_engine::LoadOptions;

/// The default chat model if it is on this disk, else the default embedder.
pub fn default_model(app: &App) -> anyhow::Result<String> {
    let hub = app.hub();
    let chat = hub.catalog().default_chat();
    let name = if hub.locate(chat)?.is_some() { chat } else { hub.catalog().default_embed() };
    Ok(name.to_owned())
}

/// As for any chat model.
pub fn load_options(args: &EncodeArgs) -> LoadOptions {
    LoadOptions {
        threads: args.threads,
        max_memory_bytes: args.max_memory,
        no_mmap: args.no_mmap,
        output_rows: Some(64),
        ..LoadOptions::default()
    }
}
