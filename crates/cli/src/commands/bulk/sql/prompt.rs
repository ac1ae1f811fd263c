//! The prompt on a terminal.

use super::{Form, run, tell_failures};
use crate::commands::App;
use crate::exit::outcome;
use crate::interrupt::Watch;
use kun_bulk::sql::Sql;
use kun_bulk::{Registry, Stop};
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Editor};
use std::path::{Path, PathBuf};

const HELP: &str = "\
A statement ends with `;` and may go over several lines. A file is a table: SELECT * FROM 'data.csv';
.tables        tables that were made here
.functions     functions of models and texts, with their options
.models        the models on this disk
.help          this list
.quit          leave; so do exit, \\q and Ctrl-D
Ctrl-C stops a query, or drops what was typed.";

/// Most lines kept between sessions.
const HISTORY_LINES: usize = 1000;

/// Reads statements and runs them until the user leaves; what goes wrong in one is told.
///
/// # Errors
/// Those of the terminal.
pub fn prompt(app: &App, session: &Sql, form: Form) -> anyhow::Result<()> {
    app.messages().note("Ask in SQL; `;` ends a statement, .help lists commands, .quit leaves.");
    let mut config = Config::default();
    config.set_auto_add_history(false);
    let mut editor = Editor::<(), DefaultHistory>::with_config(config)?;
    editor.set_max_history_size(HISTORY_LINES)?;
    let history = history_file(app);
    if let Some(file) = &history {
        // The first session has no history yet.
        let _ = editor.load_history(file);
    }
    answer_all(app, session, form, &mut editor, history.as_deref())
}

/// Made on first use, for this user only.
fn history_file(app: &App) -> Option<PathBuf> {
    let dir = app.folders.state.as_ref()?;
    std::fs::create_dir_all(dir).ok()?;
    Some(dir.join("sql_history"))
}

fn answer_all(
    app: &App,
    session: &Sql,
    form: Form,
    editor: &mut Editor<(), DefaultHistory>,
    history: Option<&Path>,
) -> anyhow::Result<()> {
    loop {
        match read(editor) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => {
                // A history that cannot grow is no reason to lose the question.
                let _ = editor.add_history_entry(text.as_str());
                if let Some(Err(error)) = history.map(|file| editor.append_history(file)) {
                    tracing::warn!(%error, "the history cannot be kept");
                }
                match text.trim() {
                    text if leaves(text) => return Ok(()),
                    ".help" => app.messages().note(HELP),
                    ".tables" => session.tables().iter().try_for_each(|name| app.output.line(name))?,
                    ".functions" => {
                        Registry::builtin().iter().try_for_each(|f| app.output.line(f.usage()))?
                    }
                    ".models" => statements(app, session, form, "SELECT name, bytes FROM kun_models()"),
                    other if other.starts_with('.') => {
                        app.messages().note(&format!("No command {other}; .help lists them."));
                    }
                    query => statements(app, session, form, query),
                }
            }
            Err(ReadlineError::Interrupted) => app.messages().note(".quit or Ctrl-D leaves."),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Lines up to one that ends a statement, or a command.
fn read(editor: &mut Editor<(), DefaultHistory>) -> Result<String, ReadlineError> {
    let mut text = editor.readline("kun> ")?;
    while !is_whole(&text) {
        match editor.readline("...> ") {
            Ok(next) => text = format!("{text}\n{next}"),
            Err(ReadlineError::Interrupted) => return Ok(String::new()),
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// The usual words of people who want to leave.
fn leaves(text: &str) -> bool {
    let word = text.trim_end_matches(';').to_lowercase();
    matches!(word.as_str(), ".quit" | ".exit" | "\\q" | "quit" | "exit")
}

/// Whether nothing but space and comments follows the `;` that ends a statement, or it is a command.
fn is_whole(text: &str) -> bool {
    let text = text.trim();
    if text.is_empty() || text.starts_with('.') || leaves(text) {
        return true;
    }
    let mut rest = text;
    let mut ended = false;
    while let Some(c) = rest.chars().next() {
        let (end, length) = match c {
            '\'' | '"' => (&rest[..1], 1),
            '-' if rest.starts_with("--") => ("\n", 2),
            '/' if rest.starts_with("/*") => ("*/", 2),
            _ => ("", c.len_utf8()),
        };
        rest = &rest[length..];
        if !matches!(end, "\n" | "*/") && !c.is_whitespace() {
            ended = c == ';';
        }
        rest = match rest.find(end) {
            Some(at) => &rest[at + end.len()..],
            // A comment may end with the text.
            None if end == "\n" => "",
            None => return false,
        };
    }
    ended
}

/// Runs statements up to the first that fails, which is told.
fn statements(app: &App, session: &Sql, form: Form, text: &str) {
    let stop = Stop::default();
    let raised = stop.clone();
    let _watch = Watch::new(move || raised.raise());
    let ended = session.parse(text).map_err(anyhow::Error::from).and_then(|all| {
        all.into_iter().try_for_each(|statement| run(app, session, statement, None, form, &stop))
    });
    match ended {
        Err(error) if super::is_stopped(&error) => app.messages().note("Stopped."),
        Err(error) => {
            let outcome = outcome(&error);
            app.messages().error(&error, outcome.hint.as_deref());
        }
        Ok(()) => {}
    }
    tell_failures(app, session);
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn a_statement_ends_with_its_mark() {
        for whole in [
            "",
            ".help",
            "SELECT 1; ",
            "SELECT 'it''s';",
            "SELECT 1; -- one",
            "SELECT /* ; */ 2;",
            "exit",
            "\\q",
        ] {
            assert!(is_whole(whole), "{whole}");
        }
        for part in [
            "SELECT 1",
            "SELECT ';' AS x",
            "SELECT ';",
            "SELECT 1 -- ;",
            "SELECT 1 /* ;",
            "SELECT 1; SELECT \"a",
        ] {
            assert!(!is_whole(part), "{part}");
        }
    }
}
