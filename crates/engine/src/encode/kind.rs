//! What kind of model a file or folder holds.

use crate::EngineError;
use kun_tensor::storage::Access;
use std::path::Path;

/// Whether the model at `path` is one that [`crate::Engine::load_encoder`] loads, with [`crate::EncodeOptions::ranks`] where
/// it is a decoder whose name says that it ranks: nothing in its files tells Qwen3-Reranker from a model that chats.
///
/// # Errors
/// [`EngineError::Format`] for what is no model.
pub fn is_encoder(path: &Path) -> Result<bool, EngineError> {
    Ok(kun_models::encoder::is_encoder(&kun_formats::open(path, Access::Mapped)?) || is_named_reranker(path))
}

/// The name of the file or folder; in a cache, that of the repository above its revisions.
fn is_named_reranker(path: &Path) -> bool {
    let mut names = path.iter().rev().map(|name| name.to_string_lossy().to_ascii_lowercase());
    let own = names.next().is_some_and(|name| name.contains("rerank"));
    own || names.take(3).any(|name| name.starts_with("models--") && name.contains("rerank"))
}

#[cfg(test)]
mod tests {
    use super::is_named_reranker;
    use std::path::Path;

    #[test]
    fn names_say_whether_a_decoder_ranks() {
        for (path, ranks) in [
            ("/models/Qwen3-Reranker-0.6B", true),
            ("/models/qwen3-reranker-0.6b-q8_0.gguf", true),
            ("/hub/models--Qwen--Qwen3-Reranker-0.6B/snapshots/0123abc", true),
            ("/rerankers/qwen3-0.6b", false),
            ("/hub/models--Qwen--Qwen3-0.6B/snapshots/0123abc", false),
        ] {
            assert_eq!(is_named_reranker(Path::new(path)), ranks, "{path}");
        }
    }
}
