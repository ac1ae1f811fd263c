//! The conversation on a terminal.

use super::run::{explain_end, request, system_message};
use super::{App, answer};
use crate::args::GenerateArgs;
use clap::builder::{BoolishValueParser, Resettable};
use clap::{Arg, ArgAction, Args, Command, FromArgMatches};
use kun_engine::{ChatMessage, EngineError, LoadOptions, LoadedModel, Prompt, Role};
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Editor};
use std::path::PathBuf;

const HELP: &str = "\
/help                 this list
/clear                forget the conversation
/system [TEXT]        new instructions, which begin a new conversation; none: remove them
/set NAME VALUE       change a flag of `kun run` for this session, such as /set temperature 0.7
/show                 the model, the flags that were set, the size of the conversation
/save FILE            write the conversation as JSON
/bye                  leave; so does Ctrl-D
A line that ends with \\ goes on in the next one; a line that begins with \"\"\" opens a text that ends with \"\"\".
Ctrl-C stops an answer.";

/// Most lines kept between sessions.
const HISTORY_LINES: usize = 1000;

struct Session<'a> {
    app: &'a App,
    model: &'a LoadedModel,
    name: String,
    args: GenerateArgs,
    /// Flags given by `/set`, in order.
    set: Vec<(String, String)>,
    messages: Vec<ChatMessage>,
    context_used: usize,
}

enum Turn {
    Go,
    Leave,
}

/// Chats until the user leaves.
///
/// # Errors
/// Those of loading; what goes wrong in one answer is told, and the conversation goes on.
pub fn chat(app: &App, name: &str, args: &GenerateArgs) -> anyhow::Result<()> {
    let speculate = app.speculate(args.draft.as_deref())?;
    let (path, model, _) = app.load(name, &LoadOptions { speculate, ..args.load.options() })?;
    app.messages.note(&format!("{}: ask away; /help lists commands, /bye leaves.", path.name));
    let mut editor = Editor::<(), DefaultHistory>::with_config(editor_config())?;
    let history = history_file(app);
    if let Some(file) = &history {
        // The first session has no history yet.
        let _ = editor.load_history(file);
    }
    let messages = system_message(args.system.as_deref());
    let args = args.clone();
    let mut session =
        Session { app, model: &model, name: path.name, args, set: Vec::new(), messages, context_used: 0 };
    let result = session.run(&mut editor);
    if let Some(file) = &history
        && let Err(error) = editor.save_history(file)
    {
        app.messages.warning(&format!("the history cannot be kept: {error}"));
    }
    result
}

fn editor_config() -> Config {
    let mut config = Config::default();
    config.set_auto_add_history(false);
    config
}

/// Made on first use, for this user only.
fn history_file(app: &App) -> Option<PathBuf> {
    let dir = app.folders.state.as_ref()?;
    std::fs::create_dir_all(dir).ok()?;
    Some(dir.join("chat_history"))
}

impl Session<'_> {
    fn run(&mut self, editor: &mut Editor<(), DefaultHistory>) -> anyhow::Result<()> {
        editor.set_max_history_size(HISTORY_LINES)?;
        loop {
            match read_input(editor) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    // A history that cannot grow is no reason to lose the question.
                    let _ = editor.add_history_entry(text.as_str());
                    if let Turn::Leave = self.turn(&text)? {
                        return Ok(());
                    }
                }
                Err(ReadlineError::Interrupted) => self.app.messages.note("/bye or Ctrl-D leaves."),
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn turn(&mut self, text: &str) -> anyhow::Result<Turn> {
        let trimmed = text.trim();
        let Some(command) = trimmed.strip_prefix('/').filter(|_| !trimmed.contains('\n')) else {
            self.ask(trimmed)?;
            return Ok(Turn::Go);
        };
        let (verb, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let note = |text: &str| self.app.messages.note(text);
        match verb {
            "bye" | "exit" | "quit" => return Ok(Turn::Leave),
            "help" | "?" => note(HELP),
            "clear" => {
                self.clear();
                self.app.messages.note("The conversation is forgotten.");
            }
            "system" => {
                self.args.system = Some(rest.to_owned());
                self.clear();
                self.app.messages.note("New instructions; the conversation begins anew.");
            }
            "set" => self.set(rest),
            "show" => self.show(),
            "save" => self.save(rest),
            _ => note(&format!("No command /{verb}; /help lists them.")),
        }
        Ok(Turn::Go)
    }

    fn clear(&mut self) {
        self.messages = system_message(self.args.system.as_deref());
        self.context_used = 0;
    }

    fn ask(&mut self, text: &str) -> anyhow::Result<()> {
        self.messages.push(ChatMessage::new(Role::User, text.to_owned()));
        let request = request(&self.args, Prompt::Chat(self.messages.clone()));
        let output = &self.app.output;
        let answered = match self.app.engine.generate(self.model, request) {
            Ok(stream) => answer::collect(stream, |text| Ok(output.write(text)?)),
            Err(error) => Err(error.into()),
        };
        match answered {
            Ok(answer) => {
                output.line("")?;
                explain_end(self.app, &self.args, self.model, &answer);
                self.context_used = answer.usage.prompt_tokens + answer.usage.completion_tokens;
                self.messages.push(ChatMessage::new(Role::Assistant, answer.text));
            }
            Err(error) if error.downcast_ref::<EngineError>().is_some() => {
                // The question has no answer, so it is no part of the conversation.
                self.messages.pop();
                let full =
                    matches!(error.downcast_ref::<EngineError>(), Some(EngineError::ContextExceeded { .. }));
                let hint = full.then_some(
                    "/clear begins a new conversation; a larger --context at the start makes room for a longer one",
                );
                self.app.messages.error(&error, hint);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn set(&mut self, rest: &str) {
        let Some((name, value)) = rest.split_once(char::is_whitespace) else {
            self.app.messages.note("/set NAME VALUE, such as /set temperature 0.7");
            return;
        };
        let name = name.trim_start_matches('-').replace('_', "-");
        if self.is_fixed(&name) {
            self.app.messages.note(&format!("--{name} holds for the whole session; start again with it."));
            return;
        }
        match apply_flag(&mut self.args, &name, value.trim()) {
            Ok(()) => {
                self.set.retain(|(known, _)| *known != name);
                self.set.push((name, value.trim().to_owned()));
            }
            Err(message) => self.app.messages.note(&message),
        }
    }

    /// Flags that shape the loaded model or the form of the session.
    fn is_fixed(&self, name: &str) -> bool {
        let load = crate::args::LoadArgs::augment_args(Command::new("load"));
        load.get_arguments().any(|arg| arg.get_long() == Some(name))
            || matches!(name, "json" | "tokens" | "logprobs" | "raw" | "system")
    }

    fn show(&self) {
        let info = self.model.info();
        let used = self.context_used;
        let mut lines = vec![
            format!("model     {} ({}, {})", self.name, info.architecture, info.quantization),
            format!("context   {used} of {} tokens", self.model.context_tokens()),
            format!("messages  {}", self.messages.len()),
        ];
        lines.extend(self.args.system.iter().map(|text| format!("system    {text}")));
        lines.extend(self.set.iter().map(|(name, value)| format!("set       {name} {value}")));
        self.app.messages.note(&lines.join("\n"));
    }

    fn save(&self, file: &str) {
        if file.is_empty() {
            self.app.messages.note("/save FILE");
            return;
        }
        let role = |role| match role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let messages: Vec<_> = self
            .messages
            .iter()
            .map(|message| serde_json::json!({ "role": role(message.role), "content": message.content }))
            .collect();
        let document = serde_json::json!({ "model": self.name, "messages": messages });
        match std::fs::write(file, format!("{document:#}\n")) {
            Ok(()) => self.app.messages.note(&format!("Saved {} messages to {file}.", messages.len())),
            Err(error) => self.app.messages.warning(&format!("cannot write {file}: {error}")),
        }
    }
}

/// Reads `--name value` with the parser of the command line itself; every other flag stays as it is.
fn apply_flag(args: &mut GenerateArgs, name: &str, value: &str) -> Result<(), String> {
    let bare = |arg: Arg| match arg.get_action() {
        ArgAction::SetTrue => arg.action(ArgAction::Set).value_parser(BoolishValueParser::new()),
        _ => arg.default_value(Resettable::Reset),
    };
    let parser = GenerateArgs::augment_args_for_update(Command::new("set"))
        .mut_args(bare)
        .no_binary_name(true)
        .disable_help_flag(true);
    if !parser.get_arguments().any(|arg| arg.get_long() == Some(name)) {
        return Err(format!("no flag --{name}; `kun help run` lists them"));
    }
    let parsed = parser.try_get_matches_from([format!("--{name}={value}")]);
    parsed
        .and_then(|matches| args.update_from_arg_matches(&matches))
        .map_err(|error| first_line(&error.to_string()))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// One question: a line, lines joined by a trailing backslash, or a text between `\"\"\"`.
fn read_input(editor: &mut Editor<(), DefaultHistory>) -> rustyline::Result<String> {
    const QUOTES: &str = "\"\"\"";
    let first = editor.readline("> ")?;
    if let Some(rest) = first.trim_start().strip_prefix(QUOTES) {
        let mut text = rest.to_owned();
        loop {
            if let Some(whole) = text.trim_end().strip_suffix(QUOTES) {
                return Ok(whole.trim_matches('\n').to_owned());
            }
            text.push('\n');
            text.push_str(&editor.readline(". ")?);
        }
    }
    let mut text = first;
    while let Some(open) = text.strip_suffix('\\') {
        text = format!("{open}\n{}", editor.readline(". ")?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn set_changes_one_flag_and_leaves_the_others() {
        let line = ["kun", "--top-p", "0.5", "--stop", "a", "--seed", "3"];
        let mut args = Cli::parse_from(line).ask.generate;
        apply_flag(&mut args, "ignore-end", "on").unwrap();
        apply_flag(&mut args, "temperature", "0.7").unwrap();
        apply_flag(&mut args, "max-tokens", "2k").unwrap();
        assert_eq!((args.sampling.temperature, args.max_tokens), (0.7, Some(2048)));
        assert_eq!((args.sampling.top_p, args.sampling.seed, args.ignore_end), (0.5, Some(3), true));
        assert_eq!(args.stop, ["a"]);
        apply_flag(&mut args, "ignore-end", "off").unwrap();
        assert!(!args.ignore_end);
        assert!(apply_flag(&mut args, "temprature", "1").unwrap_err().contains("no flag"));
        assert!(apply_flag(&mut args, "temperature", "hot").unwrap_err().contains("hot"));
        assert!(apply_flag(&mut args, "ignore-end", "maybe").is_err());
    }
}
