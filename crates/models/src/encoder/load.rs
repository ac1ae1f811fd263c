//! Files to an encoder's graph and weights.

use crate::decoder::DecoderConfig;
use crate::encoder::head::{Head, Pooling};
use crate::encoder::{EncoderConfig, Positions, Settings, describe, sentence, settings::wrong};
use crate::metadata::{Format, Metadata};
use crate::registry;
use crate::weights::Declared;
use crate::{ModelError, ModelInfo};
use kun_formats::{HfConfig, ModelFiles};
use kun_graph::{Graph, WeightSource};
use kun_tensor::DType;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How an encoder is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncoderOptions {
    /// Give float matrices as this type; `None`: f32.
    pub precision: Option<DType>,
    /// Leave out the head of a classifier and give the mean of the tokens instead.
    pub without_head: bool,
}

/// What the engine wants to know of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderInfo {
    /// As of every model.
    pub model: ModelInfo,
    /// What comes out.
    pub head: Head,
    /// Elements of a row of the output.
    pub output_width: usize,
    /// Longest text, special tokens included.
    pub max_tokens: usize,
    /// The position of a text's first token.
    pub first_position: usize,
    /// Kinds of token types; 0: none are read.
    pub token_types: usize,
    /// The row that stands for a text, if one does.
    pub row: Option<Pooling>,
    /// Names of the labels, by index.
    pub labels: Vec<String>,
    /// The kind of classification, as the configuration calls it.
    pub problem_type: Option<String>,
    /// What is put before a text, by purpose (`query`, `document`, ..).
    pub prompts: BTreeMap<String, String>,
    /// The purpose unless another is named.
    pub default_prompt: Option<String>,
}

/// An encoder ready for a backend.
pub struct Encoder {
    /// See [`crate::encoder`].
    pub graph: Graph,
    /// By the graph's weight names.
    pub weights: Box<dyn WeightSource>,
    /// The description.
    pub info: EncoderInfo,
}

/// Most labels that a file may name.
const MAX_LABELS: usize = 1 << 16;

/// What the files say, before any weight is looked at.
struct Described {
    kind: Kind,
    head: Head,
    labels: Vec<String>,
    max_tokens: usize,
    problem_type: Option<String>,
}

/// Whose layers they are.
enum Kind {
    Encoder(Box<EncoderConfig>),
    Decoder(Box<DecoderConfig>),
}

/// Describes the encoder in `files`.
///
/// # Errors
/// [`ModelError`].
pub fn load(files: Arc<ModelFiles>, options: &EncoderOptions) -> Result<Encoder, ModelError> {
    let meta = Metadata::new(&files)?;
    let described = described(&files, &meta, options)?;
    let precision = match meta.format() {
        // Files that are quantised stay so.
        Format::Gguf => options.precision,
        Format::HuggingFace => Some(options.precision.unwrap_or(DType::F32)),
    };
    let mut declared = Declared::new(&meta, precision, false)?;
    let (graph, numbers) = match &described.kind {
        Kind::Encoder(config) => {
            let root = root(&meta, config);
            let graph = super::graph::build(config, &described.head, &root, &mut declared)?;
            check_complete(&declared, config, &root)?;
            (graph, Numbers::of_encoder(config))
        }
        Kind::Decoder(config) => {
            let graph = super::decoder::build(config, &described.head, &meta, &mut declared)?;
            (graph, Numbers::of_decoder(config))
        }
    };
    let output_width = match &described.head {
        Head::Embedding { dense, .. } => dense.last().map_or(numbers.width, |dense| dense.to),
        Head::Sequence { labels } | Head::Tokens { labels } => *labels,
        Head::Span => 2,
    };
    let row = match (&described.head, &described.kind) {
        (Head::Embedding { pooling, .. }, _) => Some(*pooling),
        (Head::Sequence { .. }, Kind::Encoder(config)) => Some(config.head_names.pooling),
        _ => None,
    };
    let folder = match files.as_ref() {
        ModelFiles::HuggingFace { config, .. } => Some(config),
        ModelFiles::Gguf(_) => None,
    };
    let classifies = matches!(described.head, Head::Sequence { .. } | Head::Tokens { .. });
    let default_prompt = folder.and_then(|folder| folder.sentence.get("default_prompt_name"));
    let info = EncoderInfo {
        model: ModelInfo {
            architecture: meta.architecture().to_owned(),
            name: meta.name().map(str::to_owned),
            license: meta.license().map(str::to_owned),
            parameters: declared.parameters(),
            weights_bytes: declared.bytes(),
            quantization: declared.commonest_type().map(|dtype| dtype.name().to_owned()).unwrap_or_default(),
            context_tokens: numbers.context_tokens,
            vocab_size: numbers.vocab_size,
            width: numbers.width,
            layers: numbers.layers,
            heads: numbers.heads,
            kv_heads: numbers.kv_heads,
            head_dim: numbers.head_dim,
        },
        output_width,
        max_tokens: described.max_tokens,
        first_position: numbers.first_position,
        token_types: numbers.token_types,
        row: row.filter(|pooling| pooling.operation().is_none()),
        labels: if classifies { described.labels } else { Vec::new() },
        head: described.head,
        problem_type: described.problem_type,
        prompts: folder.map(|folder| prompts(folder)).unwrap_or_default(),
        default_prompt: default_prompt.and_then(Value::as_str).map(str::to_owned),
    };
    let weights = Box::new(declared.into_source(Arc::clone(&files)));
    Ok(Encoder { graph, weights, info })
}

/// Numbers that both kinds of layers have.
struct Numbers {
    width: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    context_tokens: usize,
    first_position: usize,
    token_types: usize,
}

impl Numbers {
    fn of_encoder(c: &EncoderConfig) -> Numbers {
        Numbers {
            width: c.width,
            layers: c.layers.len(),
            heads: c.heads,
            kv_heads: c.heads,
            head_dim: c.head_dim(),
            vocab_size: c.vocab_size,
            context_tokens: c.context_tokens,
            first_position: match c.positions {
                Positions::Learned { first, .. } | Positions::LearnedAndBuckets { first, .. } => first,
                _ => 0,
            },
            token_types: c.token_types,
        }
    }

    fn of_decoder(c: &DecoderConfig) -> Numbers {
        Numbers {
            width: c.width,
            layers: c.layers.len(),
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
            vocab_size: c.vocab_size,
            context_tokens: c.context_tokens,
            first_position: 0,
            token_types: 0,
        }
    }
}

fn described(
    files: &ModelFiles,
    meta: &Metadata<'_>,
    options: &EncoderOptions,
) -> Result<Described, ModelError> {
    let folder = match files {
        ModelFiles::Gguf(gguf) => {
            let (config, _, head) = super::gguf::describe_gguf(gguf, meta.architecture())?;
            let max_tokens = config.context_tokens;
            let kind = Kind::Encoder(Box::new(config));
            return Ok(Described { kind, head, labels: Vec::new(), max_tokens, problem_type: None });
        }
        ModelFiles::HuggingFace { config, .. } => config,
    };
    let settings = Settings::new(&folder.config)?;
    let problem_type = settings.get("problem_type").and_then(Value::as_str).map(str::to_owned);
    if !super::knows(settings.architecture()) && registry::knows(settings.architecture()) {
        let config = registry::describe(meta)?;
        let head = sentence::head(folder, config.width)?.ok_or_else(|| {
            wrong("modules.json", "missing: a model that chats embeds only as a sentence-transformers folder")
        })?;
        let max_tokens = max_tokens(folder, config.context_tokens);
        let kind = Kind::Decoder(Box::new(config));
        return Ok(Described { kind, head, labels: Vec::new(), max_tokens, problem_type });
    }
    let config = describe(&settings)?;
    let labels = labels(folder)?;
    let head = head(folder, &config, labels.len(), options)?;
    let max_tokens = max_tokens(folder, config.context_tokens);
    Ok(Described { kind: Kind::Encoder(Box::new(config)), head, labels, max_tokens, problem_type })
}

/// The name that the encoder has inside a model with a head, if it has one there.
fn root(meta: &Metadata<'_>, config: &EncoderConfig) -> String {
    let rooted = format!("{}.", config.names.root);
    let words = format!("{rooted}{}.weight", config.names.words);
    if meta.tensors().get(&words).is_some() { rooted } else { String::new() }
}

/// What stands on top: as `modules.json` says, or as the name of the class in `architectures` does.
fn head(
    folder: &HfConfig,
    config: &EncoderConfig,
    labels: usize,
    options: &EncoderOptions,
) -> Result<Head, ModelError> {
    let class = folder.config.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    let class = class.filter(|_| !options.without_head).unwrap_or("");
    let classifier = if class.ends_with("ForSequenceClassification") {
        Some(Head::Sequence { labels })
    } else if class.ends_with("ForTokenClassification") {
        Some(Head::Tokens { labels })
    } else if class.ends_with("ForQuestionAnswering") {
        Some(Head::Span)
    } else {
        None
    };
    if let Some(head) = classifier {
        return Ok(head);
    }
    let sentence = sentence::head(folder, config.width)?;
    Ok(sentence.unwrap_or(Head::Embedding { pooling: Pooling::Mean, dense: Vec::new(), normalize: true }))
}

/// Names of the labels; without names, numbers.
fn labels(folder: &HfConfig) -> Result<Vec<String>, ModelError> {
    let Some(names) = folder.config.get("id2label").and_then(Value::as_object) else {
        let count = folder.config.get("num_labels").and_then(Value::as_u64).unwrap_or(2);
        let count = usize::try_from(count).ok().filter(|count| (1..=MAX_LABELS).contains(count));
        let count = count.ok_or_else(|| wrong("num_labels", format!("not within 1 to {MAX_LABELS}")))?;
        return Ok((0..count).map(|index| format!("LABEL_{index}")).collect());
    };
    if names.is_empty() || names.len() > MAX_LABELS {
        return Err(wrong("id2label", format!("{} labels, not within 1 to {MAX_LABELS}", names.len())));
    }
    (0..names.len())
        .map(|index| {
            let name = names.get(&index.to_string()).and_then(Value::as_str);
            let gap = || wrong("id2label", format!("{} labels, but none for {index}", names.len()));
            name.map(str::to_owned).ok_or_else(gap)
        })
        .collect()
}

/// The least that any file says.
fn max_tokens(folder: &HfConfig, context_tokens: usize) -> usize {
    let stated = folder.sentence_transformer.get("max_seq_length").and_then(Value::as_u64);
    // The tokenizer's own limit counts only where no other is stated; some say 10^30 for none.
    let own = folder.tokenizer_config.get("model_max_length").and_then(Value::as_u64);
    let limit = stated.or(own).and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    limit.map_or(context_tokens, |limit| limit.min(context_tokens))
}

fn prompts(folder: &HfConfig) -> BTreeMap<String, String> {
    let prompts = folder.sentence.get("prompts").and_then(Value::as_object);
    let text = |(name, text): (&String, &Value)| Some((name.clone(), text.as_str()?.to_owned()));
    prompts.into_iter().flatten().filter_map(text).collect()
}

/// Makes sure that every tensor of the files has its place: one left over would have changed the answers. Heads for other
/// purposes and what is only kept for training may be left out.
fn check_complete(declared: &Declared<'_>, config: &EncoderConfig, root: &str) -> Result<(), ModelError> {
    let heads = [config.head_names.sequence, config.head_names.tokens, config.head_names.span];
    let spare = declared.unused().find(|name| {
        let inner = name.strip_prefix(root).unwrap_or(name);
        let known = config.ignored.iter().any(|start| inner.starts_with(start) || name.starts_with(start));
        let head = heads.iter().any(|head| name.starts_with(&format!("{head}.")))
            || config.head_names.before.is_some_and(|dense| inner.starts_with(dense.name));
        let bookkeeping = inner.ends_with("position_ids") || inner.ends_with("inv_freq");
        !(known || head || bookkeeping)
    });
    match spare {
        None => Ok(()),
        Some(name) => Err(ModelError::Tensor {
            name: name.to_owned(),
            what: "has no place in this architecture as described".to_owned(),
        }),
    }
}
