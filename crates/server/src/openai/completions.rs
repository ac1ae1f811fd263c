//! `/v1/completions`: raw prompts, also as token ids, also scored.

use crate::answer::{Answers, Delivery, Step};
use crate::error::{Dialect, Refusal};
use crate::http::sse;
use crate::openai::chat::{Counts, Head, reason_word};
use crate::openai::sampling::{self, SAMPLING};
use crate::own::tokens::{ID, ids};
use crate::routes::{Call, Reply};
use crate::schema::{Field, MAX_LOGPROBS, Shape, TEXT, optional, required};
use axum::response::Response;
use kun_engine::{Canceller, LoadedModel, Piece, Prompt, TokenLogprob};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const IDS: Shape = Shape::List { of: &ID, least: 1, most: 1 << 20 };

pub(crate) const FIELDS: &[&[Field]] = &[
    &[
        required(
            "prompt",
            Shape::Either(&[
                &TEXT,
                &Shape::List { of: &TEXT, least: 1, most: 128 },
                &IDS,
                &Shape::List { of: &IDS, least: 1, most: 128 },
            ]),
            "A text, token ids, or a list of either",
        ),
        optional("stream", Shape::Bool, "Answer piece by piece, as server-sent events"),
        optional(
            "stream_options",
            Shape::Object(&[&[optional("include_usage", Shape::Bool, "One more chunk with the counts")]]),
            "With `stream`",
        ),
        optional(
            "max_tokens",
            Shape::Integer { least: 0, most: 1 << 31 },
            "Most tokens of an answer; default 16; 0 with echo",
        ),
        optional("echo", Shape::Bool, "Give the prompt back too, scored if `logprobs` is set"),
        optional(
            "logprobs",
            Shape::Integer { least: 0, most: MAX_LOGPROBS as i64 },
            "Log-probabilities, also of so many likeliest tokens",
        ),
        optional("suffix", TEXT, "What follows the gap to be filled, for models that know how"),
        optional("best_of", Shape::Integer { least: 1, most: 1 }, "1: answers are not ranked"),
    ],
    SAMPLING,
];

/// Tokens of an answer unless asked otherwise; OpenAI's own default.
const DEFAULT_TOKENS: usize = 16;

/// One choice in the making.
#[derive(Clone, Debug, Default)]
struct Choice {
    text: String,
    logprobs: Logprobs,
    reason: Option<&'static str>,
}

/// The legacy shape of log-probabilities: lists side by side.
#[derive(Clone, Debug, Default)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
    /// Where the next token's text starts, in characters.
    offset: usize,
}

impl Logprobs {
    fn push(&mut self, token: String, own: Option<f32>, top: Option<Vec<(String, f32)>>) {
        let characters = token.chars().count();
        self.text_offset.push(self.offset);
        self.offset += characters;
        self.tokens.push(token);
        self.token_logprobs.push(own);
        self.top_logprobs.push(top.map(|top| top.into_iter().map(|(text, l)| (text, json!(l))).collect()));
    }

    fn push_picked(&mut self, own: &TokenLogprob, top: &[TokenLogprob]) {
        let text = |token: &TokenLogprob| String::from_utf8_lossy(&token.bytes).into_owned();
        let top = top.iter().map(|token| (text(token), token.logprob)).collect();
        self.push(text(own), Some(own.logprob), Some(top));
    }

    fn json(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        })
    }
}

pub(crate) fn create(mut call: Call) -> Reply {
    Box::pin(async move {
        let max_tokens = call.count("max_tokens").unwrap_or(DEFAULT_TOKENS);
        let echo = call.flag("echo");
        if max_tokens == 0 && !echo {
            return Err(Refusal::invalid("max_tokens", "`max_tokens` is 0, at least 1 unless `echo` is set")
                .code("invalid_value"));
        }
        if max_tokens == 0 && call.flag("stream") {
            let what = "`stream` is set, but `max_tokens` is 0: there is nothing to stream";
            return Err(Refusal::invalid("stream", what).code("invalid_value"));
        }
        if !call.flag("stream") {
            call.without_effect(&["stream_options"], sampling::WHOLE);
        }
        let count = call.count("n").unwrap_or(1);
        let logprobs = call.count("logprobs");
        let prompts = prompts(&call)?;
        // Scoring alone takes one place for all prompts, one after the other.
        let places = if max_tokens == 0 { 1 } else { prompts.len() * count };
        let (chosen, permits) = call.decoder(places).await?;
        // Ids are worked out here once: the scores of an echo and the answer must speak of the same tokens.
        let suffix = call.text("suffix").filter(|suffix| !suffix.is_empty()).map(str::to_owned);
        let model = chosen.model.clone();
        let prompts = Call::blocking(move || {
            prompts
                .into_iter()
                .map(|prompt| encode(&model, prompt, suffix.as_deref()))
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
        let mut choices = Vec::new();
        for prompt in &prompts {
            let mut choice = Choice::default();
            if echo {
                echo_prompt(&mut choice, &chosen.model, prompt, logprobs).await?;
            }
            choices.extend((0..count).map(|_| choice.clone()));
        }
        let head = Head::new("cmpl", &chosen);
        if max_tokens == 0 {
            let counts = Counts { prompt: prompts.iter().map(Vec::len).sum(), ..Counts::default() };
            choices.iter_mut().for_each(|choice| choice.reason = Some("length"));
            return Ok(document(&call, &head, &choices, counts, logprobs.is_some()));
        }
        let mut requests = Vec::new();
        for prompt in &prompts {
            for index in 0..count as u64 {
                let mut request = sampling::request(&call, Prompt::Tokens(prompt.clone()))?;
                request.max_tokens = Some(max_tokens);
                request.logprobs = logprobs;
                request.sampling.seed = request.sampling.seed.map(|seed| seed.wrapping_add(index));
                requests.push(request);
            }
        }
        let delivery = Delivery::streamed(call.flag("stream"));
        let answers = Answers::start(&call, &chosen, permits, requests, delivery).await?;
        if call.flag("stream") {
            return Ok(stream(&call, head, answers, choices, count));
        }
        let (choices, counts) = collect(answers, choices, count).await?;
        Ok(document(&call, &head, &choices, counts, logprobs.is_some()))
    })
}

fn prompts(call: &Call) -> Result<Vec<Prompt>, Refusal> {
    let prompts = match call.get("prompt") {
        Some(Value::String(text)) => vec![Prompt::Text(text.clone())],
        Some(Value::Array(items)) if items.iter().all(Value::is_number) => {
            vec![Prompt::Tokens(ids(call.get("prompt")))]
        }
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| match item.as_str() {
                Some(text) => Prompt::Text(text.to_owned()),
                None => Prompt::Tokens(ids(Some(item))),
            })
            .collect(),
        _ => Vec::new(),
    };
    if prompts.len() * call.count("n").unwrap_or(1) > 128 {
        return Err(Refusal::invalid("n", "more than 128 answers in one request").code("invalid_value"));
    }
    Ok(prompts)
}

fn encode(model: &LoadedModel, prompt: Prompt, suffix: Option<&str>) -> Result<Vec<u32>, Refusal> {
    let ids = match (prompt, suffix) {
        (Prompt::Text(text), Some(suffix)) => model.fill_in_the_middle(&text, suffix)?.ok_or_else(|| {
            Refusal::invalid("suffix", "This model was not taught to fill a gap.").code("model_not_supported")
        })?,
        (Prompt::Text(text), None) => model.tokenize(&text)?,
        (Prompt::Tokens(_), Some(_)) => {
            let what = "`suffix` needs a `prompt` of text, not of token ids";
            return Err(Refusal::invalid("suffix", what).code("invalid_value"));
        }
        (Prompt::Tokens(ids), None) => ids,
        (Prompt::Chat(_), _) => Vec::new(),
    };
    if ids.is_empty() {
        return Err(Refusal::invalid("prompt", "The prompt is empty.").code("invalid_value"));
    }
    Ok(ids)
}

/// Puts the prompt, and its scores if asked for, at the beginning of a choice.
async fn echo_prompt(
    choice: &mut Choice,
    model: &Arc<LoadedModel>,
    prompt: &[u32],
    logprobs: Option<usize>,
) -> Result<(), Refusal> {
    choice.text = model.detokenize(prompt);
    let Some(top) = logprobs else { return Ok(()) };
    let text = |id: u32| String::from_utf8_lossy(&model.token_bytes(id)).into_owned();
    choice.logprobs.push(text(prompt[0]), None, None);
    if prompt.len() < 2 {
        return Ok(());
    }
    let canceller = CancelOnDrop(Canceller::default());
    let (model2, ids, stop) = (model.clone(), prompt.to_vec(), canceller.0.clone());
    let scores = Call::blocking(move || Ok(model2.score_top(&ids, 1, top, &stop)?)).await?;
    for (id, score) in prompt[1..].iter().zip(scores) {
        let top = score.top.iter().map(|(id, logprob)| (text(*id), *logprob)).collect();
        choice.logprobs.push(text(*id), Some(score.logprob), Some(top));
    }
    Ok(())
}

/// A raw continuation is text alone.
fn text_of(pieces: Vec<Piece>) -> String {
    pieces
        .into_iter()
        .filter_map(|piece| if let Piece::Text(text) = piece { Some(text) } else { None })
        .collect()
}

struct CancelOnDrop(Canceller);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn collect(
    mut answers: Answers,
    mut choices: Vec<Choice>,
    count: usize,
) -> Result<(Vec<Choice>, Counts), Refusal> {
    let mut counts = Counts::default();
    while let Some((index, step)) = answers.next().await {
        let choice = &mut choices[index];
        match step? {
            Step::Pieces { pieces, logprob } => {
                choice.text.push_str(&text_of(pieces));
                if let Some((own, top)) = logprob {
                    choice.logprobs.push_picked(&own, &top);
                }
            }
            Step::End { reason, usage, .. } => {
                choice.reason = Some(reason_word(reason, 0));
                counts.completion += usage.completion_tokens;
                // A prompt counts once, however many answers it has.
                if index % count == 0 {
                    counts.prompt += usage.prompt_tokens;
                    counts.cached += usage.cached_tokens;
                }
            }
        }
    }
    Ok((choices, counts))
}

fn document(call: &Call, head: &Head, choices: &[Choice], counts: Counts, logprobs: bool) -> Response {
    let choices: Vec<Value> = choices
        .iter()
        .enumerate()
        .map(|(index, choice)| {
            json!({
                "index": index,
                "text": choice.text,
                "logprobs": logprobs.then(|| choice.logprobs.json()),
                "finish_reason": choice.reason.unwrap_or("stop"),
            })
        })
        .collect();
    call.json(json!({
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
        "choices": choices,
        "usage": counts.json(),
    }))
}

fn stream(call: &Call, head: Head, mut answers: Answers, choices: Vec<Choice>, count: usize) -> Response {
    let (stream, response) = sse::events(call.app.options.limits.write_stall_time);
    let include_usage = call
        .get("stream_options")
        .and_then(|options| options.get("include_usage"))
        .is_some_and(|on| on == true);
    let warnings = call.warnings.clone();
    let asked = call.count("logprobs").is_some();
    let write = async move {
        let chunk = |choices: Value| {
            let mut chunk = json!({
                "id": head.id,
                "object": "text_completion",
                "created": head.created,
                "model": head.model,
                "choices": choices,
            });
            if include_usage {
                chunk["usage"] = Value::Null;
            }
            chunk
        };
        let choice = |index: usize, text: &str, logprobs: Value, reason: Option<&str>| json!([{ "index": index, "text": text, "logprobs": logprobs, "finish_reason": reason }]);
        let mut warned = warnings.0.is_empty();
        let mut offsets = Vec::new();
        for (index, echoed) in choices.iter().enumerate() {
            offsets.push(echoed.logprobs.offset);
            if !echoed.text.is_empty() || !warned {
                let logprobs = if asked { echoed.logprobs.json() } else { Value::Null };
                let mut first = chunk(choice(index, &echoed.text, logprobs, None));
                warnings.attach(&mut first);
                warned = true;
                stream.data(&first).await?;
            }
        }
        let mut counts = Counts::default();
        loop {
            let next = tokio::select! {
                next = answers.next() => next,
                () = stream.gone() => return Err(sse::Gone),
            };
            let Some((index, step)) = next else { break };
            match step {
                Ok(Step::Pieces { pieces, logprob }) => {
                    let text = text_of(pieces);
                    if text.is_empty() && logprob.is_none() {
                        continue;
                    }
                    let logprobs = logprob.map_or(Value::Null, |(own, top)| {
                        let mut one = Logprobs { offset: offsets[index], ..Logprobs::default() };
                        one.push_picked(&own, &top);
                        offsets[index] = one.offset;
                        one.json()
                    });
                    stream.data(&chunk(choice(index, &text, logprobs, None))).await?;
                }
                Ok(Step::End { reason, usage, .. }) => {
                    counts.completion += usage.completion_tokens;
                    if index % count == 0 {
                        counts.prompt += usage.prompt_tokens;
                        counts.cached += usage.cached_tokens;
                    }
                    stream.data(&chunk(choice(index, "", Value::Null, Some(reason_word(reason, 0))))).await?;
                }
                Err(refusal) => {
                    stream.data(&refusal.body(Dialect::OpenAi)).await?;
                    return Ok(());
                }
            }
        }
        if include_usage {
            let mut last = chunk(json!([]));
            last["usage"] = counts.json();
            stream.data(&last).await?;
        }
        stream.done().await
    };
    tokio::spawn(write);
    response
}
