//! What reaches the user's terminal: colours, and text from models made harmless.

use crate::args::When;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

/// Removes control characters, so that text from a model or a file cannot move the cursor, rename the window or
/// write to the clipboard. Line feeds and tabs stay. Bidirectional overrides go too: they make text read as what it
/// is not.
pub fn sanitize(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(harmful) { Cow::Owned(text.replace(harmful, "")) } else { Cow::Borrowed(text) }
}

/// Standard output: sanitised on a terminal, as it is otherwise.
#[derive(Debug)]
pub struct Output {
    is_terminal: bool,
}

impl Output {
    /// Of this process.
    pub fn stdout() -> Output {
        Output { is_terminal: io::stdout().is_terminal() }
    }

    /// Writes and flushes, so that a stream appears as it comes.
    ///
    /// # Errors
    /// Those of the write; `main` takes a closed pipe as a normal end.
    pub fn write(&self, text: &str) -> io::Result<()> {
        let text = if self.is_terminal { sanitize(text) } else { Cow::Borrowed(text) };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Writes a line.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn line(&self, text: &str) -> io::Result<()> {
        self.write(&format!("{text}\n"))
    }

    /// Writes one JSON document and a line feed.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn json(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        // JSON escapes every control character but DEL and C1, which the terminal form then loses.
        let text = serde_json::to_string_pretty(value)?;
        Ok(self.line(&text)?)
    }
}

/// Whether stderr may carry colours: `--color`, then `NO_COLOR`, `CLICOLOR_FORCE`, `TERM`, then whether it is a terminal.
pub fn use_color(when: When) -> bool {
    color_choice(when, |name| std::env::var(name).ok(), io::stderr().is_terminal())
}

fn color_choice(when: When, variable: impl Fn(&str) -> Option<String>, is_terminal: bool) -> bool {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto if is_set("NO_COLOR") => false,
        When::Auto if is_set("CLICOLOR_FORCE") && variable("CLICOLOR_FORCE").as_deref() != Some("0") => true,
        When::Auto => is_terminal && variable("TERM").as_deref() != Some("dumb"),
    }
}

/// Writes messages to stderr: notes unless quiet, errors always.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    /// Say only errors.
    pub quiet: bool,
    /// Use colours.
    pub color: bool,
}

impl Messages {
    /// A line of information.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            put(&format!("{}\n", sanitize(text)));
        }
    }

    /// Something to look at, though the work goes on.
    pub fn warning(&self, text: &str) {
        let label = self.paint("33", "warning:");
        put(&format!("{label} {}\n", sanitize(text)));
    }

    /// An error with its causes, and what to do about it.
    pub fn error(&self, error: &anyhow::Error, hint: Option<&str>) {
        let label = self.paint("31", "error:");
        put(&format!("{label} {}\n", sanitize(&format!("{error:#}"))));
        if let Some(hint) = hint {
            let label = self.paint("36", "hint:");
            put(&format!("{label} {hint}\n"));
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A closed stderr is no reason to stop.
fn put(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Bytes for people: `88.2 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sanitize_leaves_no_control_character_but_line_feed_and_tab() {
        for (text, clean) in [
            ("plain äöü 漢字 🦀\n\tend", "plain äöü 漢字 🦀\n\tend"),
            ("\x1b[31mred\x1b[0m", "[31mred[0m"),
            ("\x1b]52;c;aGk=\x07", "]52;c;aGk="),
            ("a\rb\u{8}c\u{7f}d\0", "abcd"),
            ("\u{9b}31m\u{90}x\u{9c}", "31mx"),
            ("user\u{202e}txt\u{2066}", "usertxt"),
        ] {
            assert_eq!(sanitize(text), clean);
        }
    }

    #[test]
    fn colours_follow_the_flag_then_the_conventions() {
        let with = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        };
        assert!(color_choice(When::Auto, with(&[]), true));
        assert!(!color_choice(When::Auto, with(&[]), false));
        assert!(!color_choice(When::Auto, with(&[("TERM", "dumb")]), true));
        assert!(!color_choice(When::Auto, with(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]), true));
        assert!(color_choice(When::Auto, with(&[("CLICOLOR_FORCE", "1")]), false));
        assert!(!color_choice(When::Auto, with(&[("CLICOLOR_FORCE", "0")]), false));
        assert!(color_choice(When::Always, with(&[("NO_COLOR", "1")]), false));
        assert!(!color_choice(When::Never, with(&[("CLICOLOR_FORCE", "1")]), true));
    }

    #[test]
    fn human_bytes_keeps_one_digit() {
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(human_bytes(92_452_704), "88.2 MiB");
        assert_eq!(human_bytes(u64::MAX), "16384.0 PiB");
    }
}
