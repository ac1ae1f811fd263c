//! Anthropic's API: messages and the count of their tokens.

use crate::answer::{Answers, Delivery, Step, random_id};
use crate::app::Chosen;
use crate::error::{Dialect, Refusal};
use crate::http::sse;
use crate::openai::chat::{Counts, Message, thoughts_need_a_model};
use crate::openai::sampling::{self, TEMPERATURE, TOP_K, TOP_P};
use crate::openai::tools::{call_id, word_choice};
use crate::routes::{Call, Reply};
use crate::schema::{
    COUNT, Field, MAX_MESSAGES, MAX_TOOLS, NAME, STOPS, Shape, TEXT, TEXT_ALONE, accepted, ignored, optional,
    required,
};
use axum::response::Response;
use kun_engine::{
    ChatMessage, FinishReason, GenerateRequest, Piece, Prompt, Role, Tool, ToolCall, ToolChoice, ToolUse,
};
use serde_json::{Value, json};

const TEXT_BLOCK: Shape = Shape::Object(&[&[
    required(
        "type",
        Shape::Kind { words: &["text"], refused: &["image", "document"], why: TEXT_ALONE },
        "`text`",
    ),
    required("text", TEXT, "Text"),
    accepted("cache_control", "Prompts are cached by themselves"),
    ignored("citations", "Not read"),
]]);
const RESULT: Shape = Shape::Either(&[&TEXT, &Shape::List { of: &TEXT_BLOCK, least: 0, most: 1024 }]);
const BLOCK: Shape = Shape::Object(&[&[
    required(
        "type",
        Shape::Kind {
            words: &["text", "tool_use", "tool_result", "thinking", "redacted_thinking"],
            refused: &["image", "document", "container_upload"],
            why: TEXT_ALONE,
        },
        "The kind of block",
    ),
    optional("text", TEXT, "Text"),
    optional("thinking", TEXT, "What the assistant thought"),
    optional("id", NAME, "Of a call"),
    optional("name", NAME, "The tool that is called"),
    optional("input", Shape::AnyObject, "The arguments of a call"),
    optional("tool_use_id", NAME, "The call that this answers"),
    optional("content", RESULT, "What a tool answered"),
    accepted("is_error", "Whether the tool failed: its text says so"),
    accepted("signature", "Not checked"),
    ignored("data", "Not read"),
    accepted("cache_control", "Prompts are cached by themselves"),
    ignored("citations", "Not read"),
]]);
const MESSAGE: Shape = Shape::Object(&[&[
    required("role", Shape::Word(&["user", "assistant", "system"]), "Who speaks"),
    required(
        "content",
        Shape::Either(&[&TEXT, &Shape::List { of: &BLOCK, least: 0, most: 1024 }]),
        "What is said",
    ),
]]);
const TOOL: Shape = Shape::Object(&[&[
    required("name", Shape::Text { most: 64 }, "Letters, digits, `_`, `-` and `.`"),
    optional("type", Shape::Word(&["custom"]), "`custom`: tools that run at the server do not exist here"),
    optional("description", TEXT, "For the model"),
    required("input_schema", Shape::JsonSchema, "JSON schema of the arguments"),
    accepted("cache_control", "Prompts are cached by themselves"),
    accepted("strict", "Always so"),
    accepted("eager_input_streaming", "Always so"),
]]);

/// What a prompt is made of.
const PROMPT: &[Field] = &[
    optional("model", NAME, "Which model; none: the default one"),
    required(
        "messages",
        Shape::List { of: &MESSAGE, least: 1, most: MAX_MESSAGES },
        "The conversation so far",
    ),
    optional(
        "system",
        Shape::Either(&[&TEXT, &Shape::List { of: &TEXT_BLOCK, least: 0, most: 64 }]),
        "Instructions before the conversation",
    ),
    optional("tools", Shape::List { of: &TOOL, least: 0, most: MAX_TOOLS }, "Tools that the model may call"),
    optional(
        "tool_choice",
        Shape::Object(&[&[
            required(
                "type",
                Shape::Word(&["auto", "any", "tool", "none"]),
                "Whether and what must be called",
            ),
            optional("name", NAME, "With `tool`"),
            optional("disable_parallel_tool_use", Shape::Bool, "At most one call"),
        ]]),
        "Whether and what the model must call",
    ),
    optional(
        "thinking",
        Shape::Object(&[&[
            required(
                "type",
                Shape::Word(&["enabled", "disabled", "adaptive"]),
                "Whether the model thinks first",
            ),
            ignored("budget_tokens", "Bounded by max_tokens alone"),
            ignored("display", "Thoughts are always shown"),
        ]]),
        "Whether a model that can think before it answers does so",
    ),
    accepted("cache_control", "Prompts are cached by themselves"),
    ignored("betas", "Not read"),
];

pub(crate) const COUNT_FIELDS: &[&[Field]] = &[PROMPT];
pub(crate) const FIELDS: &[&[Field]] = &[
    PROMPT,
    &[
        required("max_tokens", COUNT, "Most tokens of the answer"),
        optional("stream", Shape::Bool, "Answer piece by piece, as server-sent events"),
        TEMPERATURE,
        TOP_P,
        TOP_K,
        optional("stop_sequences", STOPS, "Texts that end the answer and are not part of it"),
        accepted("metadata", "Whoever the caller asks for"),
        ignored("service_tier", "There is one tier"),
        ignored("container", "There are none"),
        ignored("mcp_servers", "None is called"),
        ignored("context_management", "Nothing is cut"),
        ignored("output_config", "Not read"),
    ],
];

pub(crate) fn create(mut call: Call) -> Reply {
    Box::pin(async move {
        let (chosen, permits) = call.decoder(1).await?;
        let mut request = request(&call)?;
        request.stop = sampling::texts(call.get("stop_sequences"));
        let last = call.get("messages").and_then(Value::as_array).and_then(|all| all.last());
        if last.is_some_and(|message| message["role"] == "assistant") {
            call.warnings.add("The last message is the assistant's: it is not continued, a new one begins");
        }
        thoughts_need_a_model(&mut call, &chosen, &request, &["thinking"]);
        let delivery = Delivery::streamed(call.flag("stream"));
        let answers = Answers::start(&call, &chosen, permits, vec![request], delivery).await?;
        let id = format!("msg_{}", random_id());
        if call.flag("stream") {
            Ok(stream(&call, id, &chosen, answers))
        } else {
            whole(&call, &id, &chosen, answers).await
        }
    })
}

pub(crate) fn count(call: Call) -> Reply {
    Box::pin(async move {
        let (app, name) = (call.app.clone(), call.model());
        let request = request(&call)?;
        let tokens =
            call.in_place(move || Ok(app.decoder(&name)?.model.chat_tokens(&request)?.len())).await?;
        Ok(call.json(json!({ "input_tokens": tokens })))
    })
}

fn request(call: &Call) -> Result<GenerateRequest, Refusal> {
    let mut messages = Vec::new();
    let system = text_of(call.get("system").unwrap_or(&Value::Null));
    if !system.is_empty() {
        messages.push(ChatMessage::new(Role::System, system));
    }
    for message in call.get("messages").and_then(Value::as_array).into_iter().flatten() {
        read_message(message, &mut messages);
    }
    let mut request = sampling::request(call, Prompt::Chat(messages))?;
    request.tools = tools(call);
    let thinking = call.get("thinking").map(|thinking| thinking["type"] != "disabled");
    // Anthropic's clients ask for thoughts; unasked there are none.
    request.template_variables = vec![("enable_thinking".to_owned(), thinking.unwrap_or(false))];
    Ok(request)
}

/// One message becomes one for its text and calls, and one for each answer of a tool.
fn read_message(message: &Value, messages: &mut Vec<ChatMessage>) {
    let role = match message["role"].as_str() {
        Some("assistant") => Role::Assistant,
        Some("system") => Role::System,
        _ => Role::User,
    };
    let Some(blocks) = message["content"].as_array() else {
        messages.push(ChatMessage::new(role, text_of(&message["content"])));
        return;
    };
    let mut own = ChatMessage::new(role, "");
    let text = |block: &Value, name: &str| block[name].as_str().unwrap_or_default().to_owned();
    for block in blocks {
        match block["type"].as_str() {
            Some("text") => {
                if !own.content.is_empty() {
                    own.content.push('\n');
                }
                own.content.push_str(&text(block, "text"));
            }
            Some("thinking") => own.reasoning.push_str(&text(block, "thinking")),
            Some("tool_use") => own.calls.push(ToolCall {
                id: text(block, "id"),
                name: text(block, "name"),
                arguments: block
                    .get("input")
                    .filter(|input| input.is_object())
                    .cloned()
                    .unwrap_or_else(|| json!({})),
            }),
            Some("tool_result") => {
                let id = text(block, "tool_use_id");
                let mut calls = messages.iter().flat_map(|message| &message.calls);
                let name = calls.rfind(|call| call.id == id).map(|call| call.name.clone());
                let mut answer = ChatMessage::new(Role::Tool, text_of(&block["content"]));
                answer.answers = Some((id, name.unwrap_or_default()));
                messages.push(answer);
            }
            _ => {}
        }
    }
    if !own.content.is_empty() || !own.calls.is_empty() || blocks.is_empty() {
        messages.push(own);
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

fn tools(call: &Call) -> Option<ToolUse> {
    let given = call.get("tools").and_then(Value::as_array).into_iter().flatten();
    let tools: Vec<Tool> = given
        .map(|tool| Tool {
            name: tool["name"].as_str().unwrap_or_default().to_owned(),
            description: tool["description"].as_str().map(str::to_owned),
            parameters: tool["input_schema"].clone(),
        })
        .collect();
    let choice = call.get("tool_choice");
    let parallel = choice.is_none_or(|choice| choice["disable_parallel_tool_use"] != true);
    let choice = match choice.and_then(|choice| choice["type"].as_str()) {
        Some("tool") => ToolChoice::Named(
            choice.and_then(|choice| choice["name"].as_str()).unwrap_or_default().to_owned(),
        ),
        Some(word) => word_choice(word),
        None => ToolChoice::Auto,
    };
    // What must be called although there is nothing to call is refused later.
    let nothing = tools.is_empty() && matches!(choice, ToolChoice::Auto | ToolChoice::None);
    (!nothing).then_some(ToolUse { tools, choice, parallel })
}

/// Why an answer ended, and the stop text that ended it.
fn stop_reason(reason: FinishReason, calls: usize, stop_text: Option<&str>) -> Value {
    let reason = match reason {
        FinishReason::Length => "max_tokens",
        FinishReason::Stop | FinishReason::Cancelled if calls > 0 => "tool_use",
        FinishReason::Stop | FinishReason::Cancelled if stop_text.is_some() => "stop_sequence",
        FinishReason::Stop | FinishReason::Cancelled => "end_turn",
    };
    json!({ "stop_reason": reason, "stop_sequence": stop_text })
}

fn usage(counts: &Counts) -> Value {
    json!({
        "input_tokens": counts.prompt - counts.cached,
        "cache_read_input_tokens": counts.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": counts.completion,
    })
}

async fn whole(call: &Call, id: &str, chosen: &Chosen, mut answers: Answers) -> Result<Response, Refusal> {
    let mut message = Message::default();
    let (mut counts, mut why) = (Counts::default(), Value::Null);
    while let Some((_, step)) = answers.next().await {
        match step? {
            Step::Pieces { pieces, .. } => pieces.into_iter().for_each(|piece| message.add(piece)),
            Step::End { reason: end, calls, usage, thoughts } => {
                counts.add(&usage, thoughts);
                why = stop_reason(end, calls, usage.stop_text.as_deref());
            }
        }
    }
    let mut content = Vec::new();
    if !message.reasoning.is_empty() {
        content.push(json!({ "type": "thinking", "thinking": message.reasoning, "signature": "" }));
    }
    if !message.text.trim().is_empty() || message.calls.is_empty() {
        content.push(json!({ "type": "text", "text": message.text }));
    }
    for (id, name, arguments) in &message.calls {
        let input: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
        content.push(
            json!({ "type": "tool_use", "id": id.replace("call_", "toolu_"), "name": name, "input": input }),
        );
    }
    Ok(call.json(json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": chosen.name,
        "content": content,
        "stop_reason": why["stop_reason"],
        "stop_sequence": why["stop_sequence"],
        "usage": usage(&counts),
    })))
}

/// The content block that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
    Tool(usize),
}

fn stream(call: &Call, id: String, chosen: &Chosen, mut answers: Answers) -> Response {
    let (stream, response) = sse::events_with_ping(call.app.options.limits.write_stall_time);
    let (model, warnings) = (chosen.name.clone(), call.warnings.clone());
    let prompt_tokens = answers.prompt_tokens();
    let write = async move {
        let mut start = json!({ "type": "message_start", "message": {
            "id": id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": { "input_tokens": prompt_tokens, "output_tokens": 0 },
        }});
        warnings.attach(&mut start);
        stream.event("message_start", &start).await?;
        stream.event("ping", &json!({ "type": "ping" })).await?;
        let mut blocks = Blocks { open: None, count: 0 };
        loop {
            let next = tokio::select! {
                next = answers.next() => next,
                () = stream.gone() => return Err(sse::Gone),
            };
            match next {
                None => return Ok(()),
                Some((_, Ok(Step::Pieces { pieces, .. }))) => {
                    for piece in pieces {
                        blocks.piece(&stream, piece).await?;
                    }
                }
                Some((_, Ok(Step::End { reason, calls, usage: end, thoughts }))) => {
                    if blocks.count == 0 {
                        blocks.open(&stream, Block::Text, json!({ "type": "text", "text": "" })).await?;
                    }
                    blocks.close(&stream).await?;
                    let mut counts = Counts::default();
                    counts.add(&end, thoughts);
                    let delta = stop_reason(reason, calls, end.stop_text.as_deref());
                    let last = json!({ "type": "message_delta", "delta": delta, "usage": usage(&counts) });
                    stream.event("message_delta", &last).await?;
                    stream.event("message_stop", &json!({ "type": "message_stop" })).await?;
                }
                Some((_, Err(refusal))) => {
                    stream.event("error", &refusal.body(Dialect::Anthropic)).await?;
                    return Ok(());
                }
            }
        }
    };
    tokio::spawn(write);
    response
}

/// The content blocks of a stream.
struct Blocks {
    open: Option<Block>,
    count: usize,
}

impl Blocks {
    async fn piece(&mut self, stream: &sse::Stream, piece: Piece) -> Result<(), sse::Gone> {
        let (block, start, delta) = match piece {
            Piece::Text(text) => (
                Block::Text,
                json!({ "type": "text", "text": "" }),
                Some(json!({ "type": "text_delta", "text": text })),
            ),
            Piece::Reasoning(text) => (
                Block::Thinking,
                json!({ "type": "thinking", "thinking": "", "signature": "" }),
                Some(json!({ "type": "thinking_delta", "thinking": text })),
            ),
            Piece::Call { index, name } => {
                let id = call_id().replace("call_", "toolu_");
                (Block::Tool(index), json!({ "type": "tool_use", "id": id, "name": name, "input": {} }), None)
            }
            Piece::Arguments { index, text } => (
                Block::Tool(index),
                Value::Null,
                Some(json!({ "type": "input_json_delta", "partial_json": text })),
            ),
        };
        if self.open != Some(block) {
            self.close(stream).await?;
            self.open(stream, block, start).await?;
        }
        if let Some(delta) = delta {
            let event = json!({ "type": "content_block_delta", "index": self.count - 1, "delta": delta });
            stream.event("content_block_delta", &event).await?;
        }
        Ok(())
    }

    async fn open(&mut self, stream: &sse::Stream, block: Block, start: Value) -> Result<(), sse::Gone> {
        let event = json!({ "type": "content_block_start", "index": self.count, "content_block": start });
        self.open = Some(block);
        self.count += 1;
        stream.event("content_block_start", &event).await
    }

    async fn close(&mut self, stream: &sse::Stream) -> Result<(), sse::Gone> {
        if self.open.take().is_none() {
            return Ok(());
        }
        let event = json!({ "type": "content_block_stop", "index": self.count - 1 });
        stream.event("content_block_stop", &event).await
    }
}
