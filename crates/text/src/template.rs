//! Chat templates: a conversation to the text that a model was trained on.
//!
//! Templates are Jinja, and come with the model file: hostile until shown otherwise. They run in an interpreter
//! of our own, for two properties that an embedded engine cannot be given from outside. Every step and every
//! byte is charged *before* it is spent, so that doubling a string or comparing a list that holds itself a
//! thousand times ends in an error; and every string knows which of its characters came from the template and
//! which from a user, through slicing, joining, trimming and replacing, so that the spelling of a control token
//! in a user's words never becomes that token.
//!
//! The dialect is what transformers gives templates: immutable values, Python's rules for truth, order and
//! `str()`, its string and dict methods, `trim_blocks`, `lstrip_blocks`, `break`/`continue`, `generation`
//! blocks, `raise_exception`, `strftime_now`, `namespace`, `tojson`. Not supported, with an error that says so:
//! `include`, `import`, `extends`, `block`, recursive loops, `*` arguments, `call` with parameters.

mod budget;
mod clock;
mod evaluate;
mod filters;
mod lexer;
mod marked;
mod methods;
mod operators;
mod parser;
mod syntax;
mod value;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use marked::Text;
use value::Value;

/// Longest template source.
pub const MAX_SOURCE_BYTES: usize = 128 << 10;
/// Stack of the thread that parses or renders: far more than the nesting limits can use, and only touched as
/// far as it is used.
const STACK_BYTES: usize = 64 << 20;
/// Begins a part that a user wrote: a noncharacter, which Unicode reserves for a program's own use.
const USER_BEGINS: char = '\u{FDD0}';
/// Ends a part that a user wrote.
const USER_ENDS: char = '\u{FDD1}';

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// What was thought before it.
    pub reasoning: String,
    /// Calls of tools that the assistant made.
    pub calls: Vec<ToolCall>,
    /// With [`Role::Tool`]: the id of the call that this answers, and the tool's name if known.
    pub answers: Option<(String, String)>,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// What the answer to it names.
    pub id: String,
    /// The tool.
    pub name: String,
    /// A JSON object.
    pub arguments: serde_json::Value,
}

impl ChatMessage {
    /// A message that is text and nothing else.
    pub fn new(role: Role, content: impl Into<String>) -> ChatMessage {
        let content = content.into();
        ChatMessage { role, content, reasoning: String::new(), calls: Vec::new(), answers: None }
    }
}

/// What a template is rendered with, besides the messages.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// Open the assistant's turn at the end.
    pub add_generation_prompt: bool,
    /// Text of the beginning token, for templates that write it.
    pub bos_token: String,
    /// Text of the end token.
    pub eos_token: String,
    /// Further variables (`enable_thinking`), from an allow-list of the caller. Their texts count as written by a
    /// user.
    pub variables: Vec<(String, serde_json::Value)>,
    /// Longest that rendering may take.
    pub time_limit: Duration,
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The source does not parse or is beyond a limit.
    #[error("chat template: {what}")]
    Source {
        /// What, with line and limit.
        what: String,
    },
    /// Rendering failed or hit a limit.
    #[error("chat template: {what}")]
    Render {
        /// What, with line and limit.
        what: String,
    },
}

/// What went wrong, and on which line if known.
#[derive(Debug)]
struct Failure {
    line: u32,
    what: String,
}

impl Failure {
    fn new(what: impl Into<String>) -> Failure {
        Failure { line: 0, what: what.into() }
    }
    fn at(line: u32, what: impl Into<String>) -> Failure {
        Failure { line, what: what.into() }
    }
    /// On `line`, unless a line is known already.
    fn or_at(self, line: u32) -> Failure {
        if self.line == 0 { Failure { line, ..self } } else { self }
    }
    fn message(self) -> String {
        if self.line == 0 { self.what } else { format!("line {}: {}", self.line, self.what) }
    }
}

/// A compiled template, safe to run on hostile source (see SECURITY.md for the limits).
#[derive(Debug)]
pub struct ChatTemplate {
    body: Vec<syntax::Statement>,
}

impl ChatTemplate {
    /// Compiles `source`.
    ///
    /// # Errors
    /// [`TemplateError::Source`] with the line, also beyond [`MAX_SOURCE_BYTES`] or 64 levels of nesting.
    pub fn compile(source: &str) -> Result<ChatTemplate, TemplateError> {
        let failed = |what: String| TemplateError::Source { what };
        if source.len() > MAX_SOURCE_BYTES {
            return Err(failed(format!("{} bytes, limit {MAX_SOURCE_BYTES}", source.len())));
        }
        let source = without_marks(source);
        let body = with_stack(|| parser::parse(lexer::tokens(&source)?)).map_err(failed)?;
        body.map(|body| ChatTemplate { body }).map_err(|failure| failed(failure.message()))
    }

    /// Renders a conversation. What users wrote is marked, so that [`crate::Tokenizer::encode_rendered`] gives it
    /// no control tokens; [`unmark`] gives the text for people.
    ///
    /// # Errors
    /// [`TemplateError::Render`] with the line: the words of the template's own `raise_exception`, or what is
    /// wrong, or the limit that was hit (time, 5 M steps, 4 MiB of output, 48 MiB plus 24 times the input and at
    /// most 512 MiB of memory).
    pub fn render(&self, messages: &[ChatMessage], options: &RenderOptions) -> Result<String, TemplateError> {
        let failed = |what: String| TemplateError::Render { what };
        let input: usize = messages.iter().map(message_bytes).sum::<usize>()
            + options.variables.iter().map(|(name, value)| name.len() + json_bytes(value)).sum::<usize>();
        let rendered = with_stack(|| {
            let names = names(messages, options)?;
            let budget = budget::Budget::new(input, options.time_limit);
            let text = evaluate::Interpreter::new(budget, names).run(&self.body)?;
            Ok(marked_string(&text))
        });
        rendered.map_err(failed)?.map_err(|failure: Failure| failed(failure.message()))
    }
}

/// Runs `work` on a thread with a stack of [`STACK_BYTES`], whatever the caller's.
fn with_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK_BYTES);
        let running = thread.spawn_scoped(scope, work).map_err(|error| format!("no thread: {error}"))?;
        running.join().map_err(|_| "the interpreter failed".to_string())
    })
}

/// The variables that a template starts with.
fn names(messages: &[ChatMessage], options: &RenderOptions) -> Result<Vec<(syntax::Name, Value)>, Failure> {
    let message = |message: &ChatMessage| {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let user = |text: &str| Value::Text(Text::user(without_marks(text)));
        let mut fields = vec![
            (Value::trusted("role"), Value::trusted(role)),
            (Value::trusted("content"), user(&message.content)),
        ];
        if !message.reasoning.is_empty() {
            fields.push((Value::trusted("reasoning_content"), user(&message.reasoning)));
        }
        if !message.calls.is_empty() {
            let calls = message.calls.iter().map(call).collect::<Result<Vec<_>, Failure>>()?;
            fields.push((Value::trusted("tool_calls"), Value::list(calls)?));
        }
        if let Some((id, name)) = &message.answers {
            fields.push((Value::trusted("tool_call_id"), user(id)));
            fields.push((Value::trusted("name"), user(name)));
        }
        Value::dict(fields)
    };
    // Kept apart from what the user's texts can reach: only values are the client's, names are ours.
    fn call(call: &ToolCall) -> Result<Value, Failure> {
        let user = |text: &str| Value::Text(Text::user(without_marks(text)));
        let function = Value::dict(vec![
            (Value::trusted("name"), user(&call.name)),
            (Value::trusted("arguments"), Value::from_json(&call.arguments)?),
        ])?;
        Value::dict(vec![
            (Value::trusted("id"), user(&call.id)),
            (Value::trusted("type"), Value::trusted("function")),
            (Value::trusted("function"), function),
        ])
    }
    let messages = messages.iter().map(message).collect::<Result<Vec<_>, Failure>>()?;
    // Templates test these for truth; transformers always defines them.
    let mut names: Vec<(syntax::Name, Value)> =
        vec![("tools".into(), Value::None), ("documents".into(), Value::None)];
    for (name, value) in &options.variables {
        names.push((Arc::from(name.as_str()), Value::from_json(value)?));
    }
    names.push(("messages".into(), Value::list(messages)?));
    names.push(("add_generation_prompt".into(), Value::Bool(options.add_generation_prompt)));
    names.push(("bos_token".into(), Value::trusted(&options.bos_token)));
    names.push(("eos_token".into(), Value::trusted(&options.eos_token)));
    Ok(names)
}

/// About how many bytes a message takes.
fn message_bytes(message: &ChatMessage) -> usize {
    let calls =
        message.calls.iter().map(|call| call.id.len() + call.name.len() + json_bytes(&call.arguments));
    let answers = message.answers.as_ref().map_or(0, |(id, name)| id.len() + name.len());
    message.content.len() + message.reasoning.len() + calls.sum::<usize>() + answers
}

/// About how many bytes `value` takes.
fn json_bytes(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.len(),
        serde_json::Value::Array(items) => items.iter().map(json_bytes).sum(),
        serde_json::Value::Object(items) => items.iter().map(|(k, v)| k.len() + json_bytes(v)).sum(),
        _ => 8,
    }
}

/// `text` without the characters that serve as marks.
fn without_marks(text: &str) -> Cow<'_, str> {
    if text.contains([USER_BEGINS, USER_ENDS]) {
        Cow::Owned(text.replace([USER_BEGINS, USER_ENDS], ""))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text with marks around what users wrote.
fn marked_string(text: &Text) -> String {
    let source = text.as_str();
    let mut out = String::with_capacity(source.len() + 6 * text.ranges().len());
    let mut done = 0;
    for &(start, end) in text.ranges() {
        out.push_str(&without_marks(&source[done..start]));
        out.push(USER_BEGINS);
        out.push_str(&without_marks(&source[start..end]));
        out.push(USER_ENDS);
        done = end;
    }
    out.push_str(&without_marks(&source[done..]));
    out
}

/// A rendered text without its marks, and the byte ranges in it that users wrote (sorted, apart from each other).
pub fn unmark(rendered: &str) -> (String, Vec<Range<usize>>) {
    let mut text = String::with_capacity(rendered.len());
    let (mut ranges, mut begun) = (Vec::new(), None);
    for c in rendered.chars() {
        match c {
            USER_BEGINS => begun = begun.or(Some(text.len())),
            USER_ENDS => ranges.extend(begun.take().map(|start| start..text.len())),
            _ => text.push(c),
        }
    }
    ranges.extend(begun.map(|start| start..text.len()));
    ranges.retain(|range: &Range<usize>| !range.is_empty());
    (text, ranges)
}

#[cfg(test)]
mod tests;
