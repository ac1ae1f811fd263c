//! `/v1/embeddings`, Ollama's `/api/embed` and `/v1/rerank`: texts and pictures to vectors, and which text answers a query.

use crate::app::for_pictures;
use crate::error::Refusal;
use crate::http::base64;
use crate::own::tokens::{ID, ids, known};
use crate::routes::{Call, Reply};
use crate::schema::{Field, NAME, Shape, TEXT, accepted, ignored, optional, required};
use crate::tasks::vectors::{self, ITEM, Item};
use kun_engine::{EmbedOptions, Embedding, Fitting, LoadedEncoder, Purpose, RankOptions, Resident};
use serde_json::{Value, json};

const IDS: Shape = Shape::List { of: &ID, least: 1, most: 1 << 16 };
/// Texts of one request.
pub(crate) const MOST_TEXTS: usize = 2048;

pub(crate) const FIELDS: &[&[Field]] = &[&[
    required("model", NAME, "Which model"),
    required(
        "input",
        Shape::Either(&[
            &TEXT,
            &Shape::List { of: &TEXT, least: 1, most: MOST_TEXTS },
            &IDS,
            &Shape::List { of: &IDS, least: 1, most: MOST_TEXTS },
            &Shape::List { of: &Shape::Either(&[&TEXT, &ITEM]), least: 1, most: MOST_TEXTS },
        ]),
        "A text, token ids of the model, or a list of either; or a list of texts and, for models of them, pictures",
    ),
    optional("encoding_format", Shape::Word(&["float", "base64"]), "Numbers, or little-endian f32 in base64"),
    optional(
        "dimensions",
        Shape::Integer { least: 1, most: 1 << 16 },
        "Only the first so many elements, for models trained to be cut",
    ),
    optional("truncate", Shape::Bool, "Cut texts that are too long, instead of refusing them"),
    optional(
        "input_type",
        Shape::Text { most: 64 },
        "`query` or `document`, for models trained with prompts",
    ),
    optional("prompt_name", Shape::Text { most: 64 }, "The same, by the name in the model's files"),
    accepted("user", "Whoever the caller asks for"),
]];
pub(crate) const OLLAMA: &[&[Field]] = &[&[
    required("model", NAME, "Which model"),
    optional(
        "input",
        Shape::Either(&[&TEXT, &Shape::List { of: &TEXT, least: 0, most: MOST_TEXTS }]),
        "A text or a list",
    ),
    optional("prompt", TEXT, "A text, for /api/embeddings"),
    optional("truncate", Shape::Bool, "Cut texts that are too long; default true"),
    optional("dimensions", Shape::Integer { least: 1, most: 1 << 16 }, "Only the first so many elements"),
    ignored("options", "Nothing is sampled"),
    ignored("keep_alive", "Set at the start of the server"),
]];
pub(crate) const RERANK: &[&[Field]] = &[&[
    required("model", NAME, "Which model"),
    required("query", TEXT, "What is asked"),
    required(
        "documents",
        Shape::List {
            of: &Shape::Either(&[&TEXT, &Shape::Object(&[&[required("text", TEXT, "The text")]])]),
            least: 1,
            most: MOST_TEXTS,
        },
        "Texts, or objects with a `text`",
    ),
    optional("top_n", Shape::Integer { least: 1, most: 1 << 31 }, "Only so many best"),
    optional("instruction", TEXT, "What the query wants of a document, for models that are told"),
    optional("return_documents", Shape::Bool, "Give the texts back too"),
    optional("truncate", Shape::Bool, "Cut texts that are too long; default true"),
    ignored("max_chunks_per_doc", "Texts are not cut into chunks"),
    ignored("max_tokens_per_doc", "Ask for `truncate`"),
    accepted("user", "Whoever the caller asks for"),
]];

pub(crate) fn fitting(truncate: bool) -> Fitting {
    if truncate { Fitting::Truncate } else { Fitting::Refuse }
}

/// The texts of `input`; token ids become the text that they spell.
fn texts(encoder: &LoadedEncoder, input: &Value) -> Result<Vec<String>, Refusal> {
    let tokenizer = encoder.tokenizer();
    // Clients such as LangChain count with another model's vocabulary unless told not to.
    let spelt = |value: &Value| {
        let ids = ids(Some(value));
        known(&ids, tokenizer.vocab_size(), "input")?;
        Ok::<_, Refusal>(tokenizer.decode(&ids))
    };
    let texts: Vec<String> = match input {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) if items.first().is_some_and(Value::is_number) => vec![spelt(input)?],
        Value::Array(items) => {
            let text = |(index, item): (usize, &Value)| match item {
                Value::String(text) => Ok(text.clone()),
                Value::Array(_) => spelt(item),
                item => match Item::read(item, &format!("input[{index}]"))? {
                    Item::Text(text) => Ok(text),
                    Item::Picture(_) => {
                        let what = format!("`input[{index}]` is a picture; this model reads texts");
                        Err(Refusal::invalid("input", what).code("model_not_supported"))
                    }
                },
            };
            items.iter().enumerate().map(text).collect::<Result<_, Refusal>>()?
        }
        _ => Vec::new(),
    };
    match texts.iter().position(String::is_empty) {
        Some(index) => {
            Err(Refusal::invalid("input", format!("`input[{index}]` is empty")).code("invalid_value"))
        }
        None => Ok(texts),
    }
}

/// Embeds texts away from the threads that serve connections; one place in the queue for the whole request. `None` by a model
/// that turns pictures into vectors.
async fn embed(call: &Call, input: Value, options: EmbedOptions) -> Result<Option<Vec<Embedding>>, Refusal> {
    let (app, name) = (call.app.clone(), call.model());
    call.in_place(move || {
        let found = app.locate(&name)?;
        // What is loaded needs no look at its files: a short text is answered within two milliseconds.
        let reads = matches!(app.library.loaded(&found.path), Some(Resident::Encoder(_)));
        if !reads && vectors::is_for_vectors(&found.path) {
            return Ok(None);
        }
        let encoder = app.encoder_at(&name, &found)?;
        let texts = texts(&encoder, &input)?;
        let embeddings = encoder.embed(&texts, &options)?;
        Ok(Some(embeddings.into_iter().collect::<Result<Vec<_>, _>>()?))
    })
    .await
}

/// [`embed`] for routes that take texts alone.
async fn embed_texts(call: &Call, input: Value, options: EmbedOptions) -> Result<Vec<Embedding>, Refusal> {
    embed(call, input, options).await?.ok_or_else(|| for_pictures(&call.model()))
}

pub(crate) fn create(mut call: Call) -> Reply {
    Box::pin(async move {
        let purpose = call.text("prompt_name").or_else(|| call.text("input_type"));
        let options = EmbedOptions {
            purpose: purpose.map_or(Purpose::Default, |name| Purpose::Named(name.to_owned())),
            fitting: fitting(call.flag("truncate")),
            dimensions: call.count("dimensions"),
        };
        let base64 = call.text("encoding_format") == Some("base64");
        let input = call.get("input").cloned().unwrap_or_default();
        let (vectors, tokens) = match embed(&call, input, options).await? {
            None => beside_pictures(&mut call).await?,
            Some(embeddings) => {
                for (index, embedding) in embeddings.iter().enumerate() {
                    if let Some(cut) = embedding.truncated {
                        let what =
                            format!("`input[{index}]` was cut from {} to {} tokens", cut.tokens, cut.kept);
                        call.warnings.add(what);
                    }
                }
                let tokens = embeddings.iter().map(|embedding| embedding.tokens).sum();
                (embeddings.into_iter().map(|embedding| embedding.vector).collect(), tokens)
            }
        };
        let data: Vec<Value> = vectors
            .iter()
            .enumerate()
            .map(|(index, vector)| {
                let vector = if base64 { json!(base64_of(vector)) } else { json!(vector) };
                json!({ "object": "embedding", "index": index, "embedding": vector })
            })
            .collect();
        Ok(call.json(json!({
            "object": "list",
            "data": data,
            "model": call.model(),
            "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
        })))
    })
}

/// Vectors by a model of pictures, or of pictures and texts, and tokens of the texts.
async fn beside_pictures(call: &mut Call) -> Result<(Vec<Vec<f32>>, usize), Refusal> {
    let name = call.model();
    if call.get("dimensions").is_some() {
        let what = format!("Vectors of `{name}` cannot be cut");
        return Err(Refusal::invalid("dimensions", what).code("invalid_value"));
    }
    let why = "this model was not trained with prompts, and refuses texts that are too long";
    call.without_effect(&["input_type", "prompt_name", "truncate"], why);
    let list = match call.get("input") {
        Some(Value::Array(items)) => items.as_slice(),
        one => one.map(std::slice::from_ref).unwrap_or_default(),
    };
    let read = |(index, item): (usize, &Value)| Item::read(item, &format!("input[{index}]"));
    let items = list.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    vectors::embed(call, &name, items).await
}

/// Ollama's `/api/embed`.
pub(crate) fn ollama(mut call: Call) -> Reply {
    Box::pin(async move {
        call.without_effect(&["prompt"], "texts are sent as `input` here");
        let input = call.get("input").cloned().unwrap_or_else(|| json!([]));
        if input.as_array().is_some_and(Vec::is_empty) {
            return Ok(call.json(json!({ "model": call.model(), "embeddings": [] })));
        }
        let started = std::time::Instant::now();
        let embeddings = embed_texts(&call, input, ollama_options(&call)).await?;
        let tokens: usize = embeddings.iter().map(|embedding| embedding.tokens).sum();
        let vectors: Vec<&Vec<f32>> = embeddings.iter().map(|embedding| &embedding.vector).collect();
        Ok(call.json(json!({
            "model": call.model(),
            "embeddings": vectors,
            "total_duration": started.elapsed().as_nanos() as u64,
            "load_duration": 0,
            "prompt_eval_count": tokens,
        })))
    })
}

/// Ollama's older `/api/embeddings`.
pub(crate) fn ollama_one(mut call: Call) -> Reply {
    Box::pin(async move {
        call.without_effect(&["input"], "the text is sent as `prompt` here");
        let prompt = call.text("prompt").unwrap_or_default().to_owned();
        let embeddings = embed_texts(&call, json!(prompt), ollama_options(&call)).await?;
        Ok(call.json(json!({ "embedding": embeddings.first().map(|embedding| &embedding.vector) })))
    })
}

fn ollama_options(call: &Call) -> EmbedOptions {
    let truncate = call.get("truncate").and_then(Value::as_bool).unwrap_or(true);
    EmbedOptions {
        fitting: fitting(truncate),
        dimensions: call.count("dimensions"),
        ..EmbedOptions::default()
    }
}

pub(crate) fn rerank(call: Call) -> Reply {
    Box::pin(async move {
        let (app, name) = (call.app.clone(), call.model());
        let query = call.text("query").unwrap_or_default().to_owned();
        let documents: Vec<String> = call
            .get("documents")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|document| {
                document.as_str().or_else(|| document["text"].as_str()).unwrap_or_default().to_owned()
            })
            .collect();
        let options = RankOptions {
            fitting: fitting(call.get("truncate").and_then(Value::as_bool).unwrap_or(true)),
            instruction: call.text("instruction").map(str::to_owned),
        };
        let texts = documents.clone();
        let scores = call
            .in_place(move || {
                let scores = app.encoder(&name)?.rank(&query, &texts, &options)?;
                Ok(scores.into_iter().collect::<Result<Vec<_>, _>>()?)
            })
            .await?;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].score.total_cmp(&scores[*a].score).then(a.cmp(b)));
        order.truncate(call.count("top_n").unwrap_or(usize::MAX));
        let results: Vec<Value> = order
            .into_iter()
            .map(|index| {
                let mut result = json!({ "index": index, "relevance_score": scores[index].score });
                if call.flag("return_documents") {
                    result["document"] = json!({ "text": documents[index] });
                }
                result
            })
            .collect();
        Ok(call.json(json!({
            "id": format!("rerank-{}", crate::answer::random_id()),
            "model": call.model(),
            "results": results,
        })))
    })
}

/// Little-endian f32 in base64.
fn base64_of(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    base64::encode(&bytes)
}

#[cfg(test)]
mod tests {
    use super::base64_of;

    #[test]
    fn vectors_are_written_as_openai_reads_them() {
        // Python: base64.b64encode(struct.pack("<2f", 1.0, -2.5))
        assert_eq!(base64_of(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(base64_of(&[0.5]), "AAAAPw==");
        assert_eq!(base64_of(&[1.0, 2.0, 3.0]), "AACAPwAAAEAAAEBA");
    }
}
