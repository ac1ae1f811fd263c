//! Fields that hold an answer to a form: `response_format`, grammars, tools.

use crate::answer::random_id;
use crate::error::Refusal;
use crate::routes::Call;
use crate::schema::{Field, MAX_GRAMMAR_BYTES, MAX_TOOLS, NAME, Shape, TEXT, optional, required, short};
use kun_engine::{Constraint, GenerateRequest, Tool, ToolCall, ToolChoice, ToolUse};
use serde_json::{Value, json};

const FUNCTION: Shape = Shape::Object(&[&[
    required("name", Shape::Text { most: 64 }, "Letters, digits, `_`, `-` and `.`"),
    optional("description", TEXT, "For the model"),
    optional("parameters", Shape::JsonSchema, "JSON schema of the arguments"),
    optional("strict", Shape::Bool, "Always so: arguments are held to their schema"),
]]);
const TOOL: Shape = Shape::Object(&[&[
    required("type", Shape::Word(&["function"]), "`function`"),
    required("function", FUNCTION, "The tool"),
]]);
const GRAMMAR: Shape = Shape::Text { most: MAX_GRAMMAR_BYTES };

pub(crate) const FIELDS: &[Field] = &[
    optional(
        "response_format",
        Shape::Object(&[&[
            required("type", Shape::Word(&["text", "json_object", "json_schema"]), "The form of the answer"),
            optional(
                "json_schema",
                Shape::Object(&[&[
                    optional("name", NAME, "Its name"),
                    optional("description", TEXT, "What it is for"),
                    optional("schema", Shape::JsonSchema, "The schema"),
                    optional("strict", Shape::Bool, "Always so"),
                ]]),
                "With `json_schema`",
            ),
            optional("schema", Shape::JsonSchema, "The schema, by llama.cpp's name"),
        ]]),
        "The answer is held to this form, token by token",
    ),
    optional("regex", GRAMMAR, "The answer matches this regular expression"),
    optional("grammar", GRAMMAR, "The answer is a text of this grammar, in llguidance's dialect of Lark"),
    optional("guided_json", Shape::JsonSchema, "A schema, by vLLM's name"),
    optional("guided_regex", GRAMMAR, "As `regex`, by vLLM's name"),
    optional("guided_grammar", GRAMMAR, "As `grammar`, by vLLM's name"),
    optional(
        "guided_choice",
        Shape::List { of: &NAME, least: 1, most: 256 },
        "The answer is one of these texts",
    ),
    optional("tools", Shape::List { of: &TOOL, least: 0, most: MAX_TOOLS }, "Tools that the model may call"),
    optional(
        "tool_choice",
        Shape::Either(&[
            &Shape::Word(&["none", "auto", "required", "any"]),
            &Shape::Object(&[&[
                required("type", Shape::Word(&["function", "allowed_tools"]), "The kind of choice"),
                optional(
                    "function",
                    Shape::Object(&[&[required("name", NAME, "The tool")]]),
                    "The tool to call",
                ),
                optional("allowed_tools", Shape::AnyObject, "`mode` and the `tools` that may be called"),
            ]]),
        ]),
        "Whether and what the model must call",
    ),
    optional("parallel_tool_calls", Shape::Bool, "Whether several tools may be called at once; default true"),
];

/// The fields that ask for a form.
pub(crate) const FORMS: &[&str] = &[
    "response_format",
    "regex",
    "grammar",
    "guided_json",
    "guided_regex",
    "guided_grammar",
    "guided_choice",
];
/// Why a form does nothing where a tool must be called.
pub(crate) const CALLED: &str = "the answer is a call of a tool";

/// The form that the answer is held to.
pub(crate) fn constraint(call: &Call) -> Result<Option<Constraint>, Refusal> {
    let format = call.get("response_format").unwrap_or(&Value::Null);
    let schema =
        format["json_schema"].get("schema").or_else(|| format.get("schema")).filter(|s| !s.is_null());
    let of_format = match (format["type"].as_str(), schema) {
        (Some("json_object" | "json_schema"), Some(schema)) => Some(Constraint::JsonSchema(schema.clone())),
        (Some("json_object"), None) => Some(Constraint::JsonObject),
        (Some("json_schema"), None) => {
            let at = "response_format.json_schema.schema";
            return Err(Refusal::invalid(at, format!("Missing required parameter: `{at}`"))
                .code("missing_required_parameter"));
        }
        (_, Some(_)) => {
            let what = "`response_format` holds a schema, so its `type` must be `json_schema`";
            return Err(Refusal::invalid("response_format.type", what).code("invalid_value"));
        }
        _ => None,
    };
    let text = |name: &str| call.text(name).map(str::to_owned);
    let all = [
        of_format,
        call.get("guided_json").cloned().map(Constraint::JsonSchema),
        text("regex").map(Constraint::Regex),
        text("guided_regex").map(Constraint::Regex),
        text("grammar").map(Constraint::Lark),
        text("guided_grammar").map(Constraint::Lark),
        call.get("guided_choice").and_then(Value::as_array).map(|choices| {
            let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
            Constraint::Lark(format!("start: {}", choices.join(" | ")))
        }),
    ];
    let mut given = all.into_iter().flatten();
    match (given.next(), given.next()) {
        (first, None) => Ok(first),
        _ => Err(Refusal::invalid("response_format", "Only one form can be asked for at a time.")
            .code("invalid_value")),
    }
}

/// The tools and what must be called.
pub(crate) fn tools(call: &Call) -> Result<Option<ToolUse>, Refusal> {
    let given = call.get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut tools: Vec<Tool> = given.iter().map(|tool| tool_of(&tool["function"])).collect();
    let choice = match call.get("tool_choice") {
        None => ToolChoice::Auto,
        Some(Value::String(word)) => word_choice(word),
        Some(value) if value["type"] == "allowed_tools" => allow(&mut tools, &value["allowed_tools"])?,
        Some(value) => match value["function"]["name"].as_str() {
            Some(name) => ToolChoice::Named(name.to_owned()),
            None => {
                let at = "tool_choice.function.name";
                return Err(Refusal::invalid(at, format!("Missing required parameter: `{at}`")));
            }
        },
    };
    if tools.is_empty() && matches!(choice, ToolChoice::Auto | ToolChoice::None) {
        return Ok(None);
    }
    let parallel = call.get("parallel_tool_calls").and_then(Value::as_bool).unwrap_or(true);
    Ok(Some(ToolUse { tools, choice, parallel }))
}

/// Leaves the tools that `allowed` lists, and says whether one of them must be called.
pub(crate) fn allow(tools: &mut Vec<Tool>, allowed: &Value) -> Result<ToolChoice, Refusal> {
    let wrong = |what: String| Err(Refusal::invalid("tool_choice", what).code("invalid_value"));
    let listed = allowed["tools"].as_array().into_iter().flatten();
    let names: Vec<&str> = listed
        .filter_map(|tool| tool["function"]["name"].as_str().or_else(|| tool["name"].as_str()))
        .collect();
    if let Some(name) = names.iter().find(|name| tools.iter().all(|tool| tool.name != **name)) {
        return wrong(format!("no tool is named `{}`", short(name)));
    }
    tools.retain(|tool| names.contains(&tool.name.as_str()));
    match allowed["mode"].as_str() {
        None | Some("auto") => Ok(ToolChoice::Auto),
        Some("required") => Ok(ToolChoice::Required),
        Some(other) => wrong(format!("`mode` is `{}`, it must be auto or required", short(other))),
    }
}

/// Whether the answer must be a call, although a form is asked for.
pub(crate) fn overrule_form(request: &GenerateRequest) -> bool {
    let choice = request.tools.as_ref().map(|tools| &tools.choice);
    request.constraint.is_some() && matches!(choice, Some(ToolChoice::Required | ToolChoice::Named(_)))
}

/// `auto`, `required` and their kin.
pub(crate) fn word_choice(word: &str) -> ToolChoice {
    match word {
        "none" => ToolChoice::None,
        "required" | "any" => ToolChoice::Required,
        _ => ToolChoice::Auto,
    }
}

/// A tool as OpenAI describes it.
pub(crate) fn tool_of(function: &Value) -> Tool {
    let parameters = function.get("parameters").filter(|p| p.is_object()).cloned();
    Tool {
        name: function["name"].as_str().unwrap_or_default().to_owned(),
        description: function["description"].as_str().map(str::to_owned),
        // As OpenAI has it, a tool that names no parameters takes none.
        parameters: parameters
            .unwrap_or_else(|| json!({ "type": "object", "properties": {}, "additionalProperties": false })),
    }
}

/// A call that the assistant made earlier.
pub(crate) fn call(value: &Value, message: usize) -> Result<ToolCall, Refusal> {
    let function = &value["function"];
    let arguments = match &function["arguments"] {
        Value::String(text) if text.trim().is_empty() => json!({}),
        Value::String(text) => crate::http::body::parse(text.as_bytes()).map_err(|refusal| {
            let at = format!("messages[{message}].tool_calls");
            let what = refusal.message.replace("The body", "The text of `arguments`");
            Refusal::invalid(&at, what).code("invalid_json")
        })?,
        Value::Null => json!({}),
        object => object.clone(),
    };
    Ok(ToolCall {
        id: value["id"].as_str().unwrap_or_default().to_owned(),
        name: function["name"].as_str().unwrap_or_default().to_owned(),
        arguments,
    })
}

/// An id that no other call has.
pub(crate) fn call_id() -> String {
    format!("call_{}", random_id())
}
