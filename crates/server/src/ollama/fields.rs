//! The fields of Ollama's requests.

use crate::schema::{
    Field, MAX_MESSAGES, MAX_TOOLS, NAME, STOP, Shape, TEXT, TEXT_ALONE, accepted, ignored, optional,
    required,
};

const OPTIONS: Shape = Shape::Object(&[&[
    optional("temperature", Shape::Number { least: 0.0, most: 100.0 }, "Default 0.8"),
    optional("top_k", Shape::Integer { least: 0, most: 1 << 20 }, "Default 40"),
    optional("top_p", Shape::Number { least: 0.0, most: 1.0 }, "Default 0.9"),
    optional("min_p", Shape::Number { least: 0.0, most: 1.0 }, "Default 0"),
    optional("typical_p", Shape::Number { least: 0.0, most: 1.0 }, "Default 1"),
    optional("seed", Shape::Integer { least: i64::MIN, most: i64::MAX }, "Makes sampling repeatable"),
    optional("num_predict", Shape::Integer { least: -2, most: 1 << 31 }, "Most tokens; negative: no limit"),
    optional("repeat_penalty", Shape::Number { least: 0.01, most: 10.0 }, "Default 1.1"),
    optional(
        "repeat_last_n",
        Shape::Integer { least: -1, most: 1 << 20 },
        "How far the repeat penalty looks back",
    ),
    optional("presence_penalty", Shape::Number { least: -2.0, most: 2.0 }, "Subtracted once"),
    optional("frequency_penalty", Shape::Number { least: -2.0, most: 2.0 }, "Subtracted for each occurrence"),
    optional("stop", STOP, "Texts that end the answer"),
    ignored("num_ctx", "Set at the start of the server"),
    ignored("num_keep", "Nothing is cut"),
    ignored("num_batch", "Set at the start of the server"),
    ignored("num_thread", "Set at the start of the server"),
    ignored("num_gpu", "Set at the start of the server"),
    ignored("use_mmap", "Set at the start of the server"),
]]);
const CALL: Shape = Shape::Object(&[&[
    accepted("id", "Not used"),
    accepted("type", "`function`"),
    required(
        "function",
        Shape::Object(&[&[
            required("name", NAME, "The tool"),
            optional("arguments", Shape::AnyObject, "The arguments"),
            accepted("index", "Its place"),
            ignored("description", "Not read"),
        ]]),
        "The call",
    ),
]]);
const MESSAGE: Shape = Shape::Object(&[&[
    required("role", Shape::Word(&["system", "user", "assistant", "tool"]), "Who speaks"),
    optional("content", TEXT, "What is said"),
    optional("thinking", TEXT, "What the assistant thought"),
    optional("tool_calls", Shape::List { of: &CALL, least: 0, most: 128 }, "Calls that the assistant made"),
    optional("tool_name", NAME, "With a tool's answer: the tool"),
    optional("name", NAME, "The same, by an older name"),
    optional("images", Shape::Nothing(TEXT_ALONE), "None: text alone"),
    accepted("tool_call_id", "Not used"),
]]);
const TOOL: Shape = Shape::Object(&[&[
    accepted("type", "`function`"),
    required(
        "function",
        Shape::Object(&[&[
            required("name", Shape::Text { most: 64 }, "The tool"),
            optional("description", TEXT, "For the model"),
            optional("parameters", Shape::JsonSchema, "JSON schema of the arguments"),
            accepted("strict", "Always so"),
        ]]),
        "The tool",
    ),
    ignored("items", "Not read"),
]]);
const SHARED: &[Field] = &[
    required("model", NAME, "Which model"),
    optional("stream", Shape::Bool, "One JSON document a line; default true"),
    optional(
        "format",
        Shape::Either(&[&Shape::Word(&["", "json"]), &Shape::JsonSchema]),
        "The form of the answer",
    ),
    optional("options", OPTIONS, "Sampling"),
    optional(
        "keep_alive",
        Shape::Either(&[&NAME, &Shape::Number { least: -1e9, most: 1e9 }]),
        "How long the model stays loaded; 0 lets it go, negative keeps it",
    ),
    optional(
        "think",
        Shape::Either(&[&Shape::Bool, &Shape::Word(&["low", "medium", "high"])]),
        "Whether a model that can think before it answers does so",
    ),
    ignored("logprobs", "Ask /v1/chat/completions"),
    ignored("top_logprobs", "Ask /v1/chat/completions"),
];
pub(crate) const CHAT: &[&[Field]] = &[
    SHARED,
    &[
        optional(
            "messages",
            Shape::List { of: &MESSAGE, least: 0, most: MAX_MESSAGES },
            "The conversation so far; none: only load",
        ),
        optional(
            "tools",
            Shape::List { of: &TOOL, least: 0, most: MAX_TOOLS },
            "Tools that the model may call",
        ),
    ],
];
pub(crate) const GENERATE: &[&[Field]] = &[
    SHARED,
    &[
        optional("prompt", TEXT, "A question; none: only load"),
        optional("system", TEXT, "Instructions before it"),
        optional("raw", Shape::Bool, "Continue the prompt as it is"),
        optional("suffix", TEXT, "What follows the gap to be filled"),
        optional("images", Shape::Nothing(TEXT_ALONE), "None: text alone"),
        ignored("template", "A request cannot bring a template"),
        ignored("context", "Send the conversation to /api/chat"),
    ],
];
pub(crate) const SHOW: &[&[Field]] = &[&[
    optional("model", NAME, "Which model"),
    optional("name", NAME, "The same, by an older name"),
    ignored("verbose", "Not read"),
]];
pub(crate) const PULL: &[&[Field]] = &[&[
    optional("model", NAME, "Which model"),
    optional("name", NAME, "The same, by an older name"),
    optional("stream", Shape::Bool, "Tell the progress, one JSON document a line; default true"),
    accepted("insecure", "Never so"),
]];
