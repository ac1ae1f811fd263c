//! Tokenizer and chat template as the files of a model describe them.

use crate::EngineError;
use kun_formats::gguf::{Array, Value};
use kun_formats::{HfConfig, Metadata, ModelFiles};
use kun_text::{Tokenizer, TokenizerError, Vocabulary};

/// What the files say about text.
#[derive(Debug)]
pub(crate) struct TextDescription {
    pub(crate) tokenizer: TokenizerSource,
    /// The chat template's source, if the model brings one.
    pub(crate) template: Option<String>,
    /// Text of the beginning token, for templates.
    pub(crate) bos_token: String,
    /// Text of the end token.
    pub(crate) eos_token: String,
    /// Tokens that end an answer, besides those that the tokenizer knows.
    pub(crate) end_tokens: Vec<u32>,
}

/// What a tokenizer is built from.
#[derive(Debug, Default)]
pub(crate) enum TokenizerSource {
    /// Nothing is left to build from.
    #[default]
    Taken,
    /// A GGUF file's metadata.
    Vocabulary(Box<Vocabulary>),
    /// A folder's `tokenizer.json` and `tokenizer_config.json`.
    Folder(Box<HfConfig>),
}

impl TokenizerSource {
    /// Builds the tokenizer.
    ///
    /// # Errors
    /// [`TokenizerError`].
    pub(crate) fn build(self) -> Result<Tokenizer, TokenizerError> {
        match self {
            TokenizerSource::Taken => {
                Err(TokenizerError::Invalid { what: "its description was taken already".to_owned() })
            }
            TokenizerSource::Vocabulary(vocabulary) => Tokenizer::from_vocabulary(*vocabulary),
            TokenizerSource::Folder(config) => {
                let settings = (!config.tokenizer_config.is_null()).then_some(&config.tokenizer_config);
                Tokenizer::from_json(&config.tokenizer_json, settings)
            }
        }
    }
}

impl TextDescription {
    /// Reads the description out of `files`; large arrays that only the tokenizer needs are moved, not copied.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`] if there is none; [`EngineError::Format`] if a field has the wrong type.
    pub(crate) fn take(files: &mut ModelFiles) -> Result<TextDescription, EngineError> {
        match files {
            ModelFiles::Gguf(gguf) => from_gguf(&mut gguf.metadata),
            ModelFiles::HuggingFace { config, .. } => from_folder(config),
        }
    }
}

fn from_gguf(metadata: &mut Metadata) -> Result<TextDescription, EngineError> {
    let Some(model) = metadata.optional_str("tokenizer.ggml.model")? else {
        return Err(missing("the file has no `tokenizer.ggml.model`"));
    };
    let model = model.to_owned();
    let id = |name: &str| metadata.optional_u32(&format!("tokenizer.ggml.{name}_token_id"));
    let flag = |name: &str| metadata.optional_bool(&format!("tokenizer.ggml.{name}"));
    let mut vocabulary = Vocabulary {
        model,
        pre: metadata.optional_str("tokenizer.ggml.pre")?.unwrap_or_default().to_owned(),
        // The number of tokens is still asked for when the model is described: a copy.
        tokens: metadata.strings("tokenizer.ggml.tokens")?.to_vec(),
        bos: id("bos")?,
        eos: id("eos")?,
        eot: id("eot")?,
        unk: id("unknown")?,
        // The format's own spelling.
        sep: id("seperator")?.or(id("separator")?),
        pad: id("padding")?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
        types: metadata.optional_i32s("tokenizer.ggml.token_type")?.map(Into::into).unwrap_or_default(),
        scores: metadata.optional_f32s("tokenizer.ggml.scores")?.map(Into::into).unwrap_or_default(),
        merges: Vec::new(),
        remove_extra_whitespaces: flag("remove_extra_whitespaces")?,
        charsmap: match metadata.entries.get("tokenizer.ggml.precompiled_charsmap") {
            Some(Value::Array(Array::U8(bytes))) => bytes.clone(),
            Some(Value::Array(Array::I8(bytes))) => bytes.iter().map(|byte| byte.cast_unsigned()).collect(),
            _ => Vec::new(),
        },
    };
    let template = metadata.optional_str("tokenizer.chat_template")?.map(str::to_owned);
    metadata.optional_strings("tokenizer.ggml.merges")?;
    if let Some(Value::Array(Array::String(merges))) = metadata.entries.remove("tokenizer.ggml.merges") {
        vocabulary.merges = merges;
    }
    let text =
        |id: Option<u32>| id.and_then(|i| vocabulary.tokens.get(i as usize)).cloned().unwrap_or_default();
    Ok(TextDescription {
        template,
        bos_token: text(vocabulary.bos),
        eos_token: text(vocabulary.eos),
        end_tokens: Vec::new(),
        tokenizer: TokenizerSource::Vocabulary(Box::new(vocabulary)),
    })
}

fn from_folder(config: &mut HfConfig) -> Result<TextDescription, EngineError> {
    if config.tokenizer_json.is_empty() {
        return Err(missing("the folder has no `tokenizer.json`"));
    }
    let token = |name: &str| {
        let value = config.tokenizer_config.get(name).or_else(|| config.special_tokens.get(name));
        let text = value.and_then(|v| v.as_str().or_else(|| v.get("content")?.as_str()));
        text.unwrap_or_default().to_owned()
    };
    let (bos_token, eos_token) = (token("bos_token"), token("eos_token"));
    let template = config.chat_template.take().or_else(|| named_template(config));
    let mut end_tokens = Vec::new();
    for file in [&config.generation, &config.config] {
        let Some(value) = file.get("eos_token_id") else { continue };
        let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        end_tokens.extend(ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()));
    }
    let config = HfConfig {
        tokenizer_json: std::mem::take(&mut config.tokenizer_json),
        tokenizer_config: config.tokenizer_config.clone(),
        ..HfConfig::default()
    };
    let tokenizer = TokenizerSource::Folder(Box::new(config));
    Ok(TextDescription { tokenizer, template, bos_token, eos_token, end_tokens })
}

/// `chat_template` of `tokenizer_config.json`: a text, or a list of which the one named `default` is for chat.
fn named_template(config: &HfConfig) -> Option<String> {
    let value = config.tokenizer_config.get("chat_template")?;
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let named = |name: &str| {
        let entry =
            value.as_array()?.iter().find(|e| e.get("name").and_then(|n| n.as_str()) == Some(name))?;
        entry.get("template")?.as_str()
    };
    named("default").map(str::to_owned)
}

fn missing(what: &str) -> EngineError {
    EngineError::Tokenizer(TokenizerError::Invalid { what: what.to_owned() })
}
