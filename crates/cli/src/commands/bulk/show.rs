//! How far a job is, on stderr.

use crate::args::ProgressMode;
use crate::commands::App;
use crate::terminal::Messages;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kun_bulk::Status;
use serde_json::json;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(10);
const JSON_EVERY: Duration = Duration::from_millis(500);

/// Shows a job's status as the flags say.
pub struct Show {
    messages: Messages,
    style: Style,
    last: Mutex<Instant>,
}

enum Style {
    Bar(ProgressBar),
    Lines,
    Json,
    None,
}

impl Show {
    /// Chooses by flag and terminal.
    pub fn new(app: &App) -> Show {
        let messages = app.messages();
        let terminal = std::io::stderr().is_terminal() && !crate::config::terminal_is_dumb();
        let style = match app.global().progress {
            ProgressMode::Json => Style::Json,
            ProgressMode::None => Style::None,
            ProgressMode::Auto if messages.quiet => Style::None,
            ProgressMode::Auto if terminal => {
                let template = ProgressStyle::with_template("{spinner} {msg}")
                    .expect("the template is a constant of ours");
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
                bar.set_style(template);
                Style::Bar(bar)
            }
            ProgressMode::Auto => Style::Lines,
        };
        Show { messages, style, last: Mutex::new(Instant::now()) }
    }

    /// Where the job stands now.
    pub fn tell(&self, status: &Status) {
        let due = |every: Duration| {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let due = last.elapsed() >= every;
            if due {
                *last = Instant::now();
            }
            due
        };
        match &self.style {
            Style::Bar(bar) => {
                bar.set_message(line(status));
                bar.tick();
            }
            Style::Lines if due(LINE_EVERY) => self.messages.note(&line(status)),
            Style::Json if due(JSON_EVERY) => eprintln!("{}", event(status)),
            _ => {}
        }
    }

    /// Nothing more is shown.
    pub fn finish(&self) {
        if let Style::Bar(bar) = &self.style {
            bar.finish_and_clear();
        }
    }
}

/// The status in words.
pub fn line(status: &Status) -> String {
    let rows = match (status.total_rows, status.dropped) {
        (_, dropped @ 1..) => format!("{} rows, {dropped} did not match", status.rows),
        (Some(total), _) => format!("{} of {total} rows", status.rows),
        (None, _) => format!("{} rows", status.rows),
    };
    let rate = |rate: f64| if rate < 9.95 { format!("{rate:.1}") } else { format!("{rate:.0}") };
    let tokens = match status.tokens_per_second {
        tokens if tokens >= 1.0 => format!(", {} tokens/s", rate(tokens)),
        _ => String::new(),
    };
    let failed = if status.errors > 0 { format!(", {} failed", status.errors) } else { String::new() };
    let left = status.eta_seconds.map_or(String::new(), |left| format!(", {} left", time(left)));
    format!(
        "{rows}, {} of {} splits, {} rows/s{tokens}{failed}{left}",
        status.splits,
        status.total_splits,
        rate(status.rows_per_second)
    )
}

fn time(seconds: f64) -> String {
    let all = seconds.round() as u64;
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {seconds} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

fn event(status: &Status) -> String {
    json!({
        "event": "progress",
        "name": "map",
        "done_rows": status.rows,
        "total_rows": status.total_rows,
        "failed_rows": status.errors,
        "rows_per_s": (status.rows_per_second * 10.0).round() / 10.0,
        "tokens_per_s": (status.tokens_per_second * 10.0).round() / 10.0,
        "eta_s": status.eta_seconds.map(f64::round),
        "done_splits": status.splits,
        "total_splits": status.total_splits,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_what_there_is_to_tell() {
        let status = Status {
            rows: 10,
            total_rows: Some(20),
            total_splits: 2,
            rows_per_second: 5.0,
            ..Status::default()
        };
        assert_eq!(line(&status), "10 of 20 rows, 0 of 2 splits, 5.0 rows/s");
        let status = Status {
            errors: 1,
            tokens_per_second: 9.6,
            eta_seconds: Some(3725.0),
            total_rows: None,
            ..status
        };
        assert_eq!(
            line(&status),
            "10 rows, 0 of 2 splits, 5.0 rows/s, 9.6 tokens/s, 1 failed, 1 h 2 min left"
        );
        assert_eq!([time(3.2), time(61.0)], ["3 s", "1 min 1 s"]);
    }
}
