//! Tools: how they are put to a model, and how its calls are held to their schemas.

use crate::constraint::{After, Grammars, Guide, Marker};
use crate::request::parameter;
use crate::{Constraint, EngineError};
use kun_text::{ChatMessage, Role, ToolFormat};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

/// Most tools of a request.
pub const MAX_TOOLS: usize = 128;

/// A tool that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Letters, digits, `_`, `-` and `.`, at most 64.
    pub name: String,
    /// For the model.
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub parameters: Value,
}

/// Whether and what the model must call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// Nothing.
    None,
    /// What it likes, or nothing.
    Auto,
    /// At least one tool.
    Required,
    /// This tool.
    Named(String),
}

/// Tools and their use.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolUse {
    /// The tools.
    pub tools: Vec<Tool>,
    /// What must be called.
    pub choice: ToolChoice,
    /// Whether several may be called at once.
    pub parallel: bool,
}

impl ToolUse {
    /// Checks names and numbers.
    ///
    /// # Errors
    /// [`EngineError::Parameter`].
    pub fn check(&self) -> Result<(), EngineError> {
        if self.tools.len() > MAX_TOOLS {
            return Err(parameter("tools", format!("{}, at most {MAX_TOOLS}", self.tools.len())));
        }
        for (index, tool) in self.tools.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if tool.name.is_empty() || tool.name.len() > 64 || !tool.name.chars().all(plain) {
                return Err(parameter(
                    "tools",
                    format!("tool {index}: a name is 1 to 64 letters, digits, `_`, `-`, `.`"),
                ));
            }
            if self.tools[..index].iter().any(|other| other.name == tool.name) {
                return Err(parameter("tools", format!("two tools are named `{}`", tool.name)));
            }
        }
        match &self.choice {
            ToolChoice::Required if self.tools.is_empty() => {
                Err(parameter("tool_choice", "`required`, but there are no tools".to_owned()))
            }
            ToolChoice::Named(name) if self.tools.iter().all(|tool| tool.name != *name) => {
                Err(parameter("tool_choice", format!("no tool is named `{name}`")))
            }
            _ => Ok(()),
        }
    }

    /// Whether the model is told of tools at all.
    pub(crate) fn offered(&self) -> bool {
        !self.tools.is_empty() && self.choice != ToolChoice::None
    }

    /// As chat templates take them.
    pub(crate) fn json(&self) -> Value {
        self.tools.iter().map(function).collect()
    }
}

fn function(tool: &Tool) -> Value {
    let mut function = json!({ "name": tool.name });
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    function["parameters"] = tool.parameters.clone();
    json!({ "type": "function", "function": function })
}

/// The instructions of the Hermes format, for templates that know no tools.
pub(crate) fn instructions(tools: &ToolUse) -> String {
    let mut text = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
        You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
        .to_owned();
    for tool in &tools.tools {
        let _ = write!(text, "\n{}", function(tool));
    }
    text.push_str(
        "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
         <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": \
         <args-json-object>}\n</tool_call>",
    );
    text
}

/// Messages for a template that knows neither tools nor calls: they become text.
pub(crate) fn spelt_out(messages: &[ChatMessage], tools: Option<&ToolUse>) -> Vec<ChatMessage> {
    let mut out: Vec<ChatMessage> = Vec::with_capacity(messages.len() + 1);
    let instructions = tools.map(instructions);
    match messages.first() {
        Some(first) if first.role == Role::System => {
            let text = [Some(first.content.clone()), instructions].into_iter().flatten().collect::<Vec<_>>();
            out.push(ChatMessage::new(Role::System, text.join("\n\n")));
        }
        first => {
            out.extend(instructions.map(|text| ChatMessage::new(Role::System, text)));
            out.extend(first.map(spelt));
        }
    }
    for message in messages.iter().skip(1) {
        let message = spelt(message);
        match out.last_mut() {
            // Answers of several calls make one turn.
            Some(last)
                if last.role == Role::User
                    && message.content.starts_with("<tool_response>")
                    && last.content.starts_with("<tool_response>") =>
            {
                last.content.push('\n');
                last.content.push_str(&message.content);
            }
            _ => out.push(message),
        }
    }
    out
}

fn spelt(message: &ChatMessage) -> ChatMessage {
    match message.role {
        Role::Tool => {
            ChatMessage::new(Role::User, format!("<tool_response>\n{}\n</tool_response>", message.content))
        }
        Role::Assistant if !message.calls.is_empty() => {
            let mut parts: Vec<String> = Vec::new();
            parts.extend(Some(message.content.clone()).filter(|text| !text.is_empty()));
            parts.extend(message.calls.iter().map(|call| {
                let call = format!("{{\"name\": {}, \"arguments\": {}}}", json!(call.name), call.arguments);
                format!("<tool_call>\n{call}\n</tool_call>")
            }));
            ChatMessage::new(Role::Assistant, parts.join("\n"))
        }
        _ => message.clone(),
    }
}

/// What holds an answer with these tools to its grammar. `forced` is the control token that the prompt was given
/// to open a call.
pub(crate) fn guide(
    grammars: &Arc<Grammars>,
    format: ToolFormat,
    token: Option<u32>,
    tools: &ToolUse,
    constraint: Option<&Constraint>,
) -> Result<Guide, EngineError> {
    let rest = lark(format, tools, Part::AfterMarker)?;
    match tools.choice {
        ToolChoice::Required | ToolChoice::Named(_) => {
            let part = if token.is_some() { Part::AfterMarker } else { Part::Whole };
            Ok(Guide::Whole(Box::new(grammars.matcher(&Constraint::Lark(lark(format, tools, part)?))?)))
        }
        ToolChoice::Auto | ToolChoice::None => match constraint {
            None => Ok(Guide::After(Box::new(After {
                grammars: grammars.clone(),
                grammar: grammars.matcher(&Constraint::Lark(rest))?,
                markers: Marker { text: format.opening(), token, at_start: format == ToolFormat::Llama },
                inside: None,
                repeats: tools.parallel && format == ToolFormat::Hermes,
                tail: Vec::new(),
                seen: 0,
            }))),
            Some(Constraint::JsonSchema(schema)) if format == ToolFormat::Hermes => {
                let calls = lark(format, tools, Part::Whole)?.replacen("start:", "calls:", 1);
                let schema = crate::constraint::with_options(schema);
                let text = format!("start: answer | calls\nanswer: %json {schema}\n{calls}");
                Ok(Guide::Whole(Box::new(grammars.matcher(&Constraint::Lark(text))?)))
            }
            Some(_) => Err(parameter(
                "response_format",
                "cannot be joined with tools that the model may choose; set `tool_choice`".to_owned(),
            )),
        },
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// From the marker on.
    Whole,
    AfterMarker,
}

/// The grammar of calls.
fn lark(format: ToolFormat, tools: &ToolUse, part: Part) -> Result<String, EngineError> {
    let named: Vec<&Tool> = match &tools.choice {
        ToolChoice::Named(name) => tools.tools.iter().filter(|tool| tool.name == *name).collect(),
        _ => tools.tools.iter().collect(),
    };
    let one = !tools.parallel || matches!(tools.choice, ToolChoice::Named(_));
    let whole = part == Part::Whole;
    let start = match (format, whole, one) {
        (ToolFormat::Hermes, true, true) => "start: \"<tool_call>\" WS \"{\" call WS \"</tool_call>\"\n",
        (ToolFormat::Hermes, true, false) => {
            "start: one (WS one)*\none: \"<tool_call>\" WS \"{\" call WS \"</tool_call>\"\n"
        }
        (ToolFormat::Hermes, false, _) => "start: WS \"{\" call WS \"</tool_call>\"\n",
        (ToolFormat::Mistral, _, true) => "start: WS \"[{\" call \"]\"\n",
        (ToolFormat::Mistral, _, false) => "start: WS \"[{\" call (\", {\" call)* \"]\"\n",
        (ToolFormat::Llama, true, true) => "start: \"{\" call\n",
        (ToolFormat::Llama, false, true) => "start: call\n",
        (ToolFormat::Llama, true, false) => "start: \"{\" call (\"; {\" call)*\n",
        (ToolFormat::Llama, false, false) => "start: call (\"; {\" call)*\n",
    };
    let mut text = start.to_owned();
    text.push_str("WS: /[ \\n]{0,2}/\ncall: ");
    let names: Vec<String> = (0..named.len()).map(|index| format!("call_{index}")).collect();
    text.push_str(&names.join(" | "));
    for (index, tool) in named.iter().enumerate() {
        let head = format!("\"name\": {}, \"{}\": ", json!(tool.name), format.arguments());
        // Arguments are an object, whatever else the schema says.
        let mut schema = crate::constraint::with_options(&tool.parameters);
        if schema.get("type").is_none() && schema.get("$ref").is_none() && schema.get("anyOf").is_none() {
            schema["type"] = json!("object");
        }
        let _ = write!(
            text,
            "\ncall_{index}: {} arguments_{index} \"}}\"\narguments_{index}: %json {schema}",
            json!(head)
        );
    }
    if text.len() > crate::constraint::MAX_CONSTRAINT_BYTES * 4 {
        return Err(parameter("tools", "their schemas are too long".to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kun_text::ToolCall;

    fn tools(choice: ToolChoice) -> ToolUse {
        let tool = |name: &str| Tool { name: name.to_owned(), description: None, parameters: json!({}) };
        ToolUse { tools: vec![tool("a"), tool("b")], choice, parallel: true }
    }

    #[test]
    fn bad_names_and_choices_are_refused() {
        assert!(tools(ToolChoice::Auto).check().is_ok());
        assert!(tools(ToolChoice::Named("b".to_owned())).check().is_ok());
        assert!(tools(ToolChoice::Named("c".to_owned())).check().is_err());
        let mut twice = tools(ToolChoice::Auto);
        twice.tools[1].name = "a".to_owned();
        assert!(twice.check().is_err());
        twice.tools[1].name = "a b".to_owned();
        assert!(twice.check().is_err());
        let none = ToolUse { tools: vec![], choice: ToolChoice::Required, parallel: false };
        assert!(none.check().is_err());
    }

    #[test]
    fn calls_and_answers_become_text_for_templates_without_tools() {
        let mut call = ChatMessage::new(Role::Assistant, "");
        call.calls =
            vec![ToolCall { id: "1".to_owned(), name: "a".to_owned(), arguments: json!({ "x": 1 }) }];
        let messages = [
            ChatMessage::new(Role::User, "hi"),
            call,
            ChatMessage::new(Role::Tool, "one"),
            ChatMessage::new(Role::Tool, "two"),
        ];
        let spelt = spelt_out(&messages, Some(&tools(ToolChoice::Auto)));
        assert!(spelt[0].role == Role::System && spelt[0].content.contains("\"name\":\"b\""));
        assert_eq!(
            spelt[2].content,
            "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\":1}}\n</tool_call>"
        );
        assert_eq!(
            spelt[3].content,
            "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
        );
        assert_eq!(spelt.len(), 4);
    }
}
