//! Fields that shape an answer, shared by the routes that generate text.

use crate::error::Refusal;
use crate::routes::Call;
use crate::schema::{Field, MAX_ANSWERS, MAX_BIASES, NAME, STOP, Shape, accepted, ignored, optional};
use kun_engine::{Class, GenerateRequest, Prompt, SamplingOptions};
use serde_json::Value;

const BIAS: Shape = Shape::Number { least: -100.0, most: 100.0 };

// Fields that several families share.
pub(crate) const TEMPERATURE: Field = optional(
    "temperature",
    Shape::Number { least: 0.0, most: 2.0 },
    "0 always picks the likeliest token; default 1",
);
pub(crate) const TOP_P: Field = optional(
    "top_p",
    Shape::Number { least: 0.0, most: 1.0 },
    "Keep the likeliest tokens that reach this probability",
);
pub(crate) const TOP_K: Field = optional(
    "top_k",
    Shape::Integer { least: 0, most: 1 << 20 },
    "Keep so many likeliest tokens; 0 keeps all",
);
pub(crate) const SEED: Field = optional(
    "seed",
    Shape::Integer { least: i64::MIN, most: i64::MAX },
    "The same seed gives the same answer",
);

/// Sampling by OpenAI's names and by those that local servers share.
pub(crate) const SAMPLING: &[Field] = &[
    optional("model", NAME, "Which model; none: the default one"),
    TEMPERATURE,
    TOP_P,
    TOP_K,
    optional(
        "min_p",
        Shape::Number { least: 0.0, most: 1.0 },
        "Keep tokens at least this fraction as likely as the likeliest",
    ),
    optional("typical_p", Shape::Number { least: 0.0, most: 1.0 }, "Locally typical sampling"),
    optional(
        "repetition_penalty",
        Shape::Number { least: 0.01, most: 10.0 },
        "Makes tokens already seen less likely",
    ),
    optional(
        "frequency_penalty",
        Shape::Number { least: -2.0, most: 2.0 },
        "Subtracted for each occurrence in the answer",
    ),
    optional(
        "presence_penalty",
        Shape::Number { least: -2.0, most: 2.0 },
        "Subtracted once for tokens in the answer",
    ),
    optional(
        "logit_bias",
        Shape::Map { of: &BIAS, most: MAX_BIASES },
        "Token ids to what is added to their logits",
    ),
    SEED,
    optional("stop", STOP, "Texts that end the answer and are not part of it"),
    optional("n", Shape::Integer { least: 1, most: MAX_ANSWERS as i64 }, "Answers"),
    optional("ignore_eos", Shape::Bool, "Go on at end-of-text tokens"),
    optional("priority", Shape::Word(&["interactive", "bulk"]), "Bulk work waits for interactive work"),
    accepted("deterministic", "Always so: an answer does not depend on what else runs"),
    accepted("user", "Whoever the caller asks for"),
    ignored("metadata", "Nothing is stored"),
    ignored("store", "Nothing is stored"),
    ignored("service_tier", "There is one tier"),
];

/// Why `stream_options` of a whole answer do nothing.
pub(crate) const WHOLE: &str = "nothing is streamed";

/// The request that the fields describe.
pub(crate) fn request(call: &Call, prompt: Prompt) -> Result<GenerateRequest, Refusal> {
    let default = SamplingOptions::default();
    let mut bias = Vec::new();
    for (id, value) in call.get("logit_bias").and_then(Value::as_object).into_iter().flatten() {
        let id = id.parse().map_err(|_| {
            Refusal::invalid("logit_bias", "the names in `logit_bias` must be token ids".to_owned())
                .code("invalid_value")
        })?;
        bias.push((id, value.as_f64().unwrap_or(0.0) as f32));
    }
    let sampling = SamplingOptions {
        temperature: call.float("temperature").unwrap_or(1.0),
        top_k: call.count("top_k").unwrap_or(0),
        top_p: call.float("top_p").unwrap_or(1.0),
        min_p: call.float("min_p").unwrap_or(0.0),
        typical_p: call.float("typical_p").unwrap_or(1.0),
        repetition_penalty: call.float("repetition_penalty").unwrap_or(1.0),
        frequency_penalty: call.float("frequency_penalty").unwrap_or(0.0),
        presence_penalty: call.float("presence_penalty").unwrap_or(0.0),
        logit_bias: bias,
        seed: call.get("seed").and_then(crate::schema::integer).map(|seed| seed as u64),
        ..default
    };
    let most = [call.count("max_tokens"), call.count("max_completion_tokens")].into_iter().flatten().min();
    let class = if call.text("priority") == Some("bulk") { Class::Bulk } else { Class::Interactive };
    Ok(GenerateRequest {
        sampling,
        max_tokens: most,
        stop: texts(call.get("stop")),
        ignore_end: call.flag("ignore_eos"),
        class,
        tenant: call.tenant,
        ..GenerateRequest::new(prompt)
    })
}

/// A text or a list of texts; empty ones mean nothing.
pub(crate) fn texts(value: Option<&Value>) -> Vec<String> {
    let one = value.and_then(Value::as_str).map(str::to_owned);
    let many =
        value.and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned));
    one.into_iter().chain(many).filter(|text| !text.is_empty()).collect()
}
