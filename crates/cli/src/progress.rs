//! How far a download is: a bar on a terminal, a line every ten seconds elsewhere, or JSON lines for programs.

use crate::args::ProgressMode;
use crate::terminal::{Messages, human_bytes, sanitize};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kun_hub::Progress;
use serde_json::json;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows the hub's progress on stderr.
pub struct Reporter {
    messages: Messages,
    style: Style,
    name: String,
    start_bytes: u64,
    done_bytes: u64,
    total_bytes: Option<u64>,
    started: Instant,
    last_line: Instant,
}

enum Style {
    Bar(Option<ProgressBar>),
    Lines,
    Json,
    None,
}

impl Reporter {
    /// Chooses the style by flag and terminal.
    pub fn new(mode: ProgressMode, messages: Messages) -> Reporter {
        let dumb = std::io::stderr().is_terminal() && crate::config::terminal_is_dumb();
        let style = match mode {
            ProgressMode::Json => Style::Json,
            ProgressMode::None => Style::None,
            ProgressMode::Auto if messages.quiet => Style::None,
            ProgressMode::Auto if std::io::stderr().is_terminal() && !dumb => Style::Bar(None),
            ProgressMode::Auto => Style::Lines,
        };
        let now = Instant::now();
        Reporter {
            messages,
            style,
            name: String::new(),
            start_bytes: 0,
            done_bytes: 0,
            total_bytes: None,
            started: now,
            last_line: now,
        }
    }

    /// Takes one event.
    pub fn report(&mut self, event: Progress) {
        match event {
            Progress::Note(text) => self.note(&text),
            Progress::Start { name, resumed_bytes, total_bytes } => {
                self.start(name, resumed_bytes, total_bytes);
            }
            Progress::Advance(bytes) => self.advance(bytes),
            Progress::Finish => self.finish(),
        }
    }

    fn note(&self, text: &str) {
        match &self.style {
            Style::Json => eprintln!("{}", json!({ "event": "note", "text": text })),
            Style::Bar(Some(bar)) => bar.suspend(|| self.messages.note(text)),
            _ => self.messages.note(text),
        }
    }

    fn start(&mut self, name: String, resumed_bytes: u64, total_bytes: Option<u64>) {
        self.name = name;
        (self.start_bytes, self.done_bytes, self.total_bytes) = (resumed_bytes, resumed_bytes, total_bytes);
        self.started = Instant::now();
        self.last_line = self.started;
        match &mut self.style {
            Style::Bar(bar) => *bar = Some(new_bar(&sanitize(&self.name), resumed_bytes, total_bytes)),
            Style::Lines => {
                let size = total_bytes.map_or("size unknown".to_owned(), human_bytes);
                let resumed = match resumed_bytes {
                    0 => String::new(),
                    bytes => format!(", resumed at {}", human_bytes(bytes)),
                };
                self.messages.note(&format!("{}: downloading, {size}{resumed}", self.name));
            }
            Style::Json => eprintln!(
                "{}",
                json!({ "event": "start", "name": self.name, "done_bytes": resumed_bytes, "total_bytes": total_bytes })
            ),
            Style::None => {}
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.done_bytes = self.done_bytes.saturating_add(bytes);
        match &self.style {
            Style::Bar(Some(bar)) => bar.set_position(self.done_bytes),
            Style::Lines if self.last_line.elapsed() >= LINE_EVERY => {
                self.messages.note(&self.line());
                self.last_line = Instant::now();
            }
            Style::Json if self.last_line.elapsed() >= Duration::from_millis(500) => {
                let event = json!({
                    "event": "progress",
                    "name": self.name,
                    "done_bytes": self.done_bytes,
                    "total_bytes": self.total_bytes,
                    "bytes_per_s": self.rate().round(),
                });
                eprintln!("{event}");
                self.last_line = Instant::now();
            }
            _ => {}
        }
    }

    fn finish(&mut self) {
        match &mut self.style {
            Style::Bar(bar) => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
                self.messages.note(&format!("{}: {}, checked", self.name, human_bytes(self.done_bytes)));
            }
            Style::Lines => {
                self.messages.note(&format!("{}: {}, checked", self.name, human_bytes(self.done_bytes)));
            }
            Style::Json => eprintln!(
                "{}",
                json!({ "event": "finish", "name": self.name, "done_bytes": self.done_bytes })
            ),
            Style::None => {}
        }
    }

    /// Bytes per second of this run; a resumed part does not count.
    fn rate(&self) -> f64 {
        let seconds = self.started.elapsed().as_secs_f64();
        if seconds > 0.0 { (self.done_bytes - self.start_bytes) as f64 / seconds } else { 0.0 }
    }

    fn line(&self) -> String {
        let rate = self.rate();
        let done = human_bytes(self.done_bytes);
        let per_second = human_bytes(rate as u64);
        match self.total_bytes {
            Some(total) if rate > 0.0 => {
                let left_s = total.saturating_sub(self.done_bytes) as f64 / rate;
                format!("{}: {done} of {}, {per_second}/s, {left_s:.0} s left", self.name, human_bytes(total))
            }
            _ => format!("{}: {done}, {per_second}/s", self.name),
        }
    }
}

fn new_bar(name: &str, resumed_bytes: u64, total_bytes: Option<u64>) -> ProgressBar {
    let template = match total_bytes {
        Some(_) => "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        None => "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is a constant of ours");
    let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(style);
    bar.set_message(name.to_owned());
    bar.set_position(resumed_bytes);
    bar.reset_eta();
    bar
}
