//! `kun PROMPT` and `kun run`.

use super::{App, answer, chat};
use crate::args::{AskArgs, GenerateArgs, RunArgs, Thinking};
use crate::exit::{INTERRUPTED, Misuse, Quiet};
use answer::Answer;
use kun_engine::{
    ChatMessage, FinishReason, GenerateRequest, LoadOptions, LoadedModel, Prompt, Role, TokenLogprob,
};
use kun_hub::Hub;
use serde_json::{Value, json};
use std::io::{IsTerminal, Read};
use std::time::Duration;

/// A longer document is a mistake: no context holds it.
const MAX_STDIN_BYTES: u64 = 256 << 20;

/// The default model, or the one that `--model` names.
pub fn ask(app: &App, args: &AskArgs) -> anyhow::Result<()> {
    let hub = app.hub();
    let default = hub.catalog().default_chat();
    if args.model.is_none() {
        announce_default(app, &hub)?;
    }
    answer_or_chat(app, args.model.as_deref().unwrap_or(default), args.prompt.as_deref(), &args.generate)
}

/// A named model.
pub fn run(app: &App, args: &RunArgs) -> anyhow::Result<()> {
    answer_or_chat(app, &args.model, args.prompt.as_deref(), &args.generate)
}

/// Said once, before the first download: later runs find the model in the store.
fn announce_default(app: &App, hub: &Hub) -> anyhow::Result<()> {
    let name = hub.catalog().default_chat();
    if hub.locate(name)?.is_none() {
        app.messages.note(&format!(
            "Using {name}, a small model that runs anywhere; choose another with --model, KUN_MODEL or `model = \"…\"` in the settings file."
        ));
    }
    Ok(())
}

fn answer_or_chat(app: &App, name: &str, prompt: Option<&str>, args: &GenerateArgs) -> anyhow::Result<()> {
    if !args.json && (args.tokens || args.logprobs.is_some()) {
        return Err(Misuse("--tokens and --logprobs need --json".to_owned()).into());
    }
    let on_terminal = std::io::stdin().is_terminal();
    if prompt.is_none() && on_terminal {
        if !std::io::stdout().is_terminal() || args.json || args.raw {
            return Err(Misuse("no prompt: give one in quotes, or pipe a document in".to_owned()).into());
        }
        return chat::chat(app, name, args);
    }
    let document = if on_terminal && prompt != Some("-") { None } else { Some(read_document(app)?) };
    let prompt = join(document, prompt.filter(|p| *p != "-"), args.raw)?;
    let speculate = app.speculate(args.draft.as_deref())?;
    let (path, model, load_time) = app.load(name, &LoadOptions { speculate, ..args.load.options() })?;
    let stream = app.engine.generate(&model, request(args, whole_prompt(args, prompt)))?;
    let output = &app.output;
    let answer = answer::collect(stream, |text| if args.json { Ok(()) } else { Ok(output.write(text)?) })?;
    if args.json {
        output.json(&document_of(args, &path.name, load_time, &answer))?;
    } else if !answer.text.ends_with('\n') {
        output.line("")?;
    }
    explain_end(app, args, &model, &answer);
    match answer.reason {
        FinishReason::Cancelled => Err(Quiet(INTERRUPTED).into()),
        _ => Ok(()),
    }
}

/// Says on stderr why an answer ended early, unless the user asked for just that.
pub fn explain_end(app: &App, args: &GenerateArgs, model: &LoadedModel, answer: &Answer) {
    match answer.reason {
        FinishReason::Cancelled => app.messages.note("Stopped."),
        FinishReason::Length if args.max_tokens.is_none_or(|limit| answer.tokens.len() < limit) => {
            app.messages.warning(&format!(
                "the context of {} tokens is full, so the answer ends here; a larger --context continues",
                model.context_tokens()
            ));
        }
        _ => {}
    }
}

/// Everything from stdin, which must be UTF-8.
fn read_document(app: &App) -> anyhow::Result<String> {
    use anyhow::Context;
    let waiting = super::remind::after(
        Duration::from_secs(3),
        app.messages,
        "Waiting for the document on stdin; `< /dev/null` says that there is none.",
    );
    let mut bytes = Vec::new();
    std::io::stdin().take(MAX_STDIN_BYTES + 1).read_to_end(&mut bytes).context("cannot read stdin")?;
    drop(waiting);
    if bytes.len() as u64 > MAX_STDIN_BYTES {
        return Err(Misuse(format!("the document on stdin is longer than {MAX_STDIN_BYTES} bytes")).into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Misuse(format!("the document on stdin is no UTF-8 text (byte {at})")).into()
    })
}

/// The document comes first: instructions at the end are followed better, and the document's cache can be shared.
fn join(document: Option<String>, prompt: Option<&str>, raw: bool) -> anyhow::Result<String> {
    let document = document.filter(|text| !text.trim().is_empty());
    match (document, prompt) {
        (Some(document), Some(prompt)) if raw => Ok(document + prompt),
        (Some(document), Some(prompt)) => Ok(format!("{}\n\n{prompt}", document.trim_end())),
        (Some(document), None) if raw => Ok(document),
        (Some(document), None) => Ok(document.trim_end().to_owned()),
        // An empty raw prompt is a question too: what does the model say unasked?
        (None, Some(prompt)) if raw || !prompt.trim().is_empty() => Ok(prompt.to_owned()),
        _ => Err(Misuse("no prompt: give one in quotes, or pipe a document in".to_owned()).into()),
    }
}

fn whole_prompt(args: &GenerateArgs, prompt: String) -> Prompt {
    if args.raw {
        return Prompt::Text(prompt);
    }
    let mut messages = system_message(args.system.as_deref());
    messages.push(ChatMessage::new(Role::User, prompt));
    Prompt::Chat(messages)
}

/// The messages that a conversation starts with.
pub fn system_message(text: Option<&str>) -> Vec<ChatMessage> {
    let content = text.filter(|text| !text.is_empty()).map(str::to_owned);
    content.map(|content| ChatMessage::new(Role::System, content)).into_iter().collect()
}

/// Flags to a request.
pub fn request(args: &GenerateArgs, prompt: Prompt) -> GenerateRequest {
    let thinking = args.thinking.map(|t| ("enable_thinking".to_owned(), t == Thinking::On));
    GenerateRequest {
        sampling: args.sampling.options(),
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
        ignore_end: args.ignore_end,
        logprobs: args.logprobs,
        template_variables: thinking.into_iter().collect(),
        ..GenerateRequest::new(prompt)
    }
}

fn document_of(args: &GenerateArgs, model: &str, load_time: Duration, answer: &Answer) -> Value {
    let usage = &answer.usage;
    let mut document = json!({
        "text": answer.text,
        "model": model,
        "finish_reason": match answer.reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        },
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
        "load_ms": milliseconds(load_time),
        "ttft_ms": milliseconds(usage.time_to_first_token),
        "prefill_tokens_per_s": rate(usage.prompt_tokens, usage.prefill_time),
        "decode_tokens_per_s": rate(usage.decode_steps, usage.decode_time),
    });
    if args.tokens {
        document["tokens"] = json!(answer.tokens);
    }
    if args.logprobs.is_some() {
        document["logprobs"] = answer.logprobs.iter().map(logprob_entry).collect();
    }
    document
}

fn logprob_entry((own, top): &(TokenLogprob, Vec<TokenLogprob>)) -> Value {
    let one = |token: &TokenLogprob| json!({ "id": token.id, "token": String::from_utf8_lossy(&token.bytes), "logprob": token.logprob });
    let mut entry = one(own);
    entry["top"] = top.iter().map(one).collect();
    entry
}

/// With microseconds.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// `null` where nothing was timed.
fn rate(tokens: usize, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    (tokens > 0 && seconds > 0.0).then(|| (tokens as f64 / seconds * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_comes_before_the_prompt() {
        let joined = |document: Option<&str>, prompt, raw| join(document.map(str::to_owned), prompt, raw);
        assert_eq!(joined(Some("doc\n"), Some("sum up"), false).unwrap(), "doc\n\nsum up");
        assert_eq!(joined(Some("doc\n"), Some("sum up"), true).unwrap(), "doc\nsum up");
        assert_eq!(joined(Some("doc\n"), None, false).unwrap(), "doc");
        assert_eq!(joined(Some(" \n"), Some("ask"), false).unwrap(), "ask");
        assert_eq!(joined(None, Some(""), true).unwrap(), "");
        assert!(joined(None, Some(" "), false).is_err());
        assert!(joined(Some("\n"), None, false).is_err());
    }

    #[test]
    fn rates_are_null_without_time() {
        assert_eq!(rate(10, Duration::ZERO), None);
        assert_eq!(rate(0, Duration::from_secs(1)), None);
        assert_eq!(rate(10, Duration::from_secs(4)), Some(2.5));
    }
}
