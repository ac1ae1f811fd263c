//! How far a verb is in its rows.

use crate::args::ProgressMode;
use crate::commands::App;
use crate::terminal::Messages;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(10);
const JSON_EVERY: Duration = Duration::from_millis(500);
/// A verb that is done sooner shows nothing.
const QUIET_FOR: Duration = Duration::from_secs(1);

/// Shows rows done, failed and per second on stderr.
pub struct RowProgress {
    name: &'static str,
    messages: Messages,
    style: Style,
    started: Instant,
    last: Instant,
    done: usize,
    failed: usize,
}

enum Style {
    Bar(Option<ProgressBar>),
    Lines,
    Json,
    None,
}

impl RowProgress {
    /// Chooses the style by flag and terminal.
    pub fn new(app: &App, name: &'static str) -> RowProgress {
        let messages = app.messages();
        let terminal = std::io::stderr().is_terminal() && !crate::config::terminal_is_dumb();
        let style = match app.global().progress {
            ProgressMode::Json => Style::Json,
            ProgressMode::None => Style::None,
            ProgressMode::Auto if messages.quiet => Style::None,
            ProgressMode::Auto if terminal => Style::Bar(None),
            ProgressMode::Auto => Style::Lines,
        };
        let now = Instant::now();
        RowProgress { name, messages, style, started: now, last: now, done: 0, failed: 0 }
    }

    /// `rows` more are done; `failed` of all so far have failed.
    pub fn advance(&mut self, rows: usize, failed: usize) {
        self.done += rows;
        self.failed = failed;
        let (line, event) = (self.line(), self.event("progress"));
        match &mut self.style {
            Style::Bar(bar) if bar.is_some() || self.started.elapsed() >= QUIET_FOR => {
                bar.get_or_insert_with(new_bar).set_message(line);
            }
            Style::Lines if self.last.elapsed() >= LINE_EVERY => {
                self.messages.note(&line);
                self.last = Instant::now();
            }
            Style::Json if self.last.elapsed() >= JSON_EVERY => {
                eprintln!("{event}");
                self.last = Instant::now();
            }
            _ => {}
        }
    }

    /// All rows are done.
    pub fn finish(&mut self) {
        match &mut self.style {
            Style::Bar(bar) => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
            }
            Style::Json => eprintln!("{}", self.event("finish")),
            _ => {}
        }
    }

    fn rate(&self) -> f64 {
        self.done as f64 / self.started.elapsed().as_secs_f64().max(1e-6)
    }

    fn line(&self) -> String {
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        format!("{}: {} rows, {:.0}/s{failed}", self.name, self.done, self.rate())
    }

    fn event(&self, event: &str) -> String {
        json!({
            "event": event,
            "name": self.name,
            "done_rows": self.done,
            "failed_rows": self.failed,
            "rows_per_s": (self.rate() * 10.0).round() / 10.0,
        })
        .to_string()
    }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is a constant of ours");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(style);
    bar
}
