//! `config.json` and its neighbours in a Hugging Face model folder.

/// A model folder's JSON files, parsed with bounded depth and size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HfConfig {
    /// `config.json`.
    pub config: serde_json::Value,
    /// `generation_config.json`, or null.
    pub generation: serde_json::Value,
    /// `tokenizer_config.json`, or null.
    pub tokenizer_config: serde_json::Value,
    /// `special_tokens_map.json`, or null.
    pub special_tokens: serde_json::Value,
    /// `tokenizer.json`, as stored; empty if absent.
    pub tokenizer_json: Vec<u8>,
    /// `chat_template.jinja`, if the folder has one.
    pub chat_template: Option<String>,
}
