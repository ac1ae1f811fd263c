//! Files to an encoder's graph and weights.

use crate::decoder::DecoderConfig;
use crate::encoder::head::{Head, Judge, Pooling, Scorer};
use crate::encoder::{EncoderConfig, Positions, Settings, describe, sentence, settings::wrong};
use crate::metadata::{Format, Metadata};
use crate::names::{self, Part};
use crate::registry;
use crate::weights::Declared;
use crate::{ModelError, ModelInfo};
use kun_formats::{Gguf, HfConfig, ModelFiles};
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
    /// Makes a ranking model of a decoder that has no head of its own.
    pub judge: Option<Judge>,
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
    /// It ranks a document that stands within an instruction, as Qwen3-Reranker does, not one beside the query.
    pub instructed: bool,
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
pub(super) const MAX_LABELS: usize = 1 << 16;

/// What the files say, before any weight is looked at.
struct Described {
    kind: Kind,
    head: Head,
    scorer: Option<Scorer>,
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
            let head = (&described.head, described.scorer.as_ref());
            let graph = super::decoder::build(config, head, &meta, &mut declared)?;
            check_decoder(&declared)?;
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
        (Head::Sequence { .. }, Kind::Decoder(_)) => Some(Pooling::Last),
        _ => None,
    };
    let folder = match files.as_ref() {
        ModelFiles::HuggingFace { config, .. } => Some(config),
        ModelFiles::Gguf(_) => None,
    };
    let classifies = matches!(described.head, Head::Sequence { .. } | Head::Tokens { .. });
    let default_prompt = folder.and_then(|folder| folder.sentence.get("default_prompt_name"));
    // Of other decoders, those that rank were trained on pairs.
    let judges = matches!(described.scorer, Some(Scorer::Difference { .. }));
    let ranks = described.scorer.is_some() && described.head == Head::Sequence { labels: 1 };
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
        instructed: judges || (ranks && meta.architecture() == "qwen3"),
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
        ModelFiles::Gguf(gguf) if !super::gguf::knows(meta.architecture()) => {
            return described_decoder_gguf(gguf, meta, options);
        }
        ModelFiles::Gguf(gguf) => {
            let (config, _, head) = super::gguf::describe_gguf(gguf, meta.architecture())?;
            let max_tokens = config.context_tokens;
            let labels = numbered(&head);
            let kind = Kind::Encoder(Box::new(config));
            return Ok(Described { kind, head, scorer: None, labels, max_tokens, problem_type: None });
        }
        ModelFiles::HuggingFace { config, .. } => config,
    };
    let settings = Settings::new(&folder.config)?;
    let problem_type = settings.get("problem_type").and_then(Value::as_str).map(str::to_owned);
    if !super::knows(settings.architecture()) && registry::knows(settings.architecture()) {
        let config = registry::describe(meta)?;
        let (head, scorer, labels) = decoder_head(folder, meta, &config, options)?;
        let max_tokens = max_tokens(folder, config.context_tokens);
        let max_tokens = if scorer.is_some() { max_tokens.min(MAX_RANKED_TOKENS) } else { max_tokens };
        let kind = Kind::Decoder(Box::new(config));
        return Ok(Described { kind, head, scorer, labels, max_tokens, problem_type });
    }
    let config = describe(&settings)?;
    let labels = labels(folder)?;
    let head = head(folder, &config, labels.len(), options)?;
    let max_tokens = max_tokens(folder, config.context_tokens);
    let kind = Kind::Encoder(Box::new(config));
    Ok(Described { kind, head, scorer: None, labels, max_tokens, problem_type })
}

/// Longest text of a decoder that ranks: the length that Qwen3-Reranker's authors read, whose memory is bounded.
const MAX_RANKED_TOKENS: usize = 8192;

/// What stands on a decoder: a classifier, the tokens that `modules.json` compares, an embedding, or what is asked for.
fn decoder_head(
    folder: &HfConfig,
    meta: &Metadata<'_>,
    config: &DecoderConfig,
    options: &EncoderOptions,
) -> Result<(Head, Option<Scorer>, Vec<String>), ModelError> {
    if class(folder).ends_with("ForSequenceClassification") {
        let labels = labels(folder)?;
        let head = Head::Sequence { labels: labels.len() };
        return Ok((head, Some(Scorer::Rows("score.weight".to_owned())), labels));
    }
    let judge = match sentence::judge(folder)? {
        Some(judge) => Some(judge),
        None => match sentence::head(folder, config.width)? {
            Some(head) => return Ok((head, None, Vec::new())),
            None => options.judge,
        },
    };
    let judge = judge.ok_or_else(|| {
        wrong("modules.json", "missing: a model that chats embeds only as a sentence-transformers folder")
    })?;
    let head = Head::Sequence { labels: 1 };
    let labels = numbered(&head);
    Ok((head, Some(difference(meta, config, judge)), labels))
}

/// The rows that make the logits of two tokens.
fn difference(meta: &Metadata<'_>, config: &DecoderConfig, judge: Judge) -> Scorer {
    let part = if config.tied_embeddings { Part::TokenEmbedding } else { Part::Output };
    let table = meta.tensor_name(part, names::Kind::Weight).unwrap_or_default();
    let row = |id: u32| usize::try_from(id).unwrap_or(usize::MAX - 1);
    Scorer::Difference { table, yes: row(judge.yes), no: judge.no.map(row) }
}

/// A decoder in a GGUF file that says how its rows are pooled, or one that is to judge.
fn described_decoder_gguf(
    gguf: &Gguf,
    meta: &Metadata<'_>,
    options: &EncoderOptions,
) -> Result<Described, ModelError> {
    let config = registry::describe(meta)?;
    let (head, scorer) = match super::gguf::pooled(gguf, meta.architecture())? {
        Some(super::gguf::Pooled::By(pooling)) => {
            (Head::Embedding { pooling, dense: Vec::new(), normalize: true }, None)
        }
        Some(super::gguf::Pooled::Ranked(labels)) => {
            let table = super::gguf::CLASSIFIER.to_owned();
            // Qwen3-Reranker's two rows stand for yes and no.
            let scorer = match labels {
                2 => Scorer::Difference { table, yes: 0, no: Some(1) },
                _ => Scorer::Rows(table),
            };
            (Head::Sequence { labels: if labels == 2 { 1 } else { labels } }, Some(scorer))
        }
        None => match options.judge {
            Some(judge) => (Head::Sequence { labels: 1 }, Some(difference(meta, &config, judge))),
            None => {
                let key = format!("{}.pooling_type", meta.architecture());
                return Err(wrong(&key, "missing: the model chats, and gives no vectors"));
            }
        },
    };
    let max_tokens = if scorer.is_some() { MAX_RANKED_TOKENS } else { usize::MAX };
    Ok(Described {
        labels: numbered(&head),
        max_tokens: config.context_tokens.min(max_tokens),
        kind: Kind::Decoder(Box::new(config)),
        head,
        scorer,
        problem_type: None,
    })
}

/// Labels without names.
fn numbered(head: &Head) -> Vec<String> {
    let count = match head {
        Head::Sequence { labels } | Head::Tokens { labels } => *labels,
        _ => 0,
    };
    (0..count).map(|index| format!("LABEL_{index}")).collect()
}

/// The class that the folder was made for.
pub(super) fn class(folder: &HfConfig) -> &str {
    let class = folder.config.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    class.unwrap_or_default()
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
    let class = if options.without_head { "" } else { class(folder) };
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

/// Makes sure that every tensor of a decoder's files has its place; its own head may be left out.
fn check_decoder(declared: &Declared<'_>) -> Result<(), ModelError> {
    const HEADS: [&str; 6] = ["lm_head.", "output.", "score.", "cls.", "rope_freqs.", "model.embed_tokens."];
    let spare = declared.unused().find(|name| {
        let head = HEADS.iter().any(|head| name.starts_with(head));
        !(head || names::gguf::may_be_ignored(name) || names::hf::may_be_ignored(name))
    });
    spare.map_or(Ok(()), |name| Err(spare_tensor(name)))
}

fn spare_tensor(name: &str) -> ModelError {
    let what = "has no place in this architecture as described".to_owned();
    ModelError::Tensor { name: name.to_owned(), what }
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
    spare.map_or(Ok(()), |name| Err(spare_tensor(name)))
}
