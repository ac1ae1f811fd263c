//! Template source to tokens, with Jinja's white-space rules as transformers sets them: `trim_blocks`,
//! `lstrip_blocks`, and one newline off the end of the source.

use super::Failure;

/// A token and the line it begins on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    pub line: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Text outside of tags.
    Data(String),
    /// `{{`
    OpenOutput,
    /// `}}`
    CloseOutput,
    /// `{%`
    OpenBlock,
    /// `%}`
    CloseBlock,
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    Operator(&'static str),
}

/// Longest first, so that the first that fits is the right one.
const OPERATORS: [&str; 26] = [
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "(", ")", "[", "]", "{", "}", "<", ">",
    "=", ".", ":", "|", ",", ";",
];

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    tokens: Vec<Token>,
}

/// Cuts `source` into tokens.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, Failure> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new() };
    lexer.run()?;
    Ok(lexer.tokens)
}

/// What the end of a tag does to the text after it.
#[derive(Clone, Copy, PartialEq)]
enum After {
    /// `-`: all white space goes.
    Trim,
    /// The end of a block: one newline goes.
    Newline,
    Keep,
}

impl<'s> Lexer<'s> {
    fn fail<T>(&self, what: impl Into<String>) -> Result<T, Failure> {
        Err(Failure::at(self.line, what))
    }

    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        self.line += u32::try_from(passed.matches('\n').count()).unwrap_or(u32::MAX);
        self.at += bytes;
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn run(&mut self) -> Result<(), Failure> {
        let mut after = After::Keep;
        loop {
            let Some((start, opener)) = self.next_tag() else {
                let rest = self.rest();
                self.data(rest, after);
                return Ok(());
            };
            let text = &self.rest()[..start];
            let sign = self.source[self.at + start + 2..].chars().next();
            let kept = match (sign, opener) {
                (Some('-'), _) => text.trim_end(),
                (Some('+'), _) | (_, "{{") => text,
                _ => self.strip_indent(text),
            };
            // White space taken by the tag before cannot be taken twice.
            let lead = self.lead(text, after);
            self.data(&text[..kept.len().max(lead)], after);
            let signed = match (sign, opener) {
                (Some('-'), _) => 1,
                (Some('+'), "{%" | "{#") => 1,
                _ => 0,
            };
            self.at_least(start + 2 + signed);
            after = match opener {
                "{#" => self.comment()?,
                "{{" => self.tag("}}", Kind::OpenOutput, Kind::CloseOutput)?,
                _ => match self.raw()? {
                    Some(after) => after,
                    None => self.tag("%}", Kind::OpenBlock, Kind::CloseBlock)?,
                },
            };
        }
    }

    /// Moves on by `bytes`, counting lines.
    fn at_least(&mut self, bytes: usize) {
        self.advance(bytes);
    }

    /// Where the next tag opens in the rest, and with what.
    fn next_tag(&self) -> Option<(usize, &'static str)> {
        let rest = self.rest();
        let mut from = 0;
        while let Some(found) = rest[from..].find('{') {
            let at = from + found;
            for opener in ["{{", "{%", "{#"] {
                if rest[at..].starts_with(opener) {
                    return Some((at, opener));
                }
            }
            from = at + 1;
        }
        None
    }

    /// `text` without the blanks between its last newline (or the start of the source) and its end.
    fn strip_indent<'t>(&self, text: &'t str) -> &'t str {
        let kept = text.trim_end_matches([' ', '\t']);
        if kept.ends_with('\n') || (kept.is_empty() && self.line_starts_here()) { kept } else { text }
    }

    fn line_starts_here(&self) -> bool {
        self.at == 0 || self.source[..self.at].ends_with('\n')
    }

    /// Bytes at the start of `text` that the tag before takes.
    fn lead(&self, text: &str, after: After) -> usize {
        match after {
            After::Trim => text.len() - text.trim_start().len(),
            After::Newline => usize::from(text.starts_with('\n')),
            After::Keep => 0,
        }
    }

    fn data(&mut self, text: &str, after: After) {
        let text = &text[self.lead(text, after).min(text.len())..];
        if !text.is_empty() {
            self.push(Kind::Data(text.to_string()));
        }
    }

    fn comment(&mut self) -> Result<After, Failure> {
        let Some(end) = self.rest().find("#}") else { return self.fail("comment is not closed") };
        let body = &self.rest()[..end];
        let after = match body.chars().next_back() {
            Some('-') => After::Trim,
            Some('+') => After::Keep,
            _ => After::Newline,
        };
        self.advance(end + 2);
        Ok(after)
    }

    /// A whole `{% raw %}` block, if one begins here.
    fn raw(&mut self) -> Result<Option<After>, Failure> {
        let Some(after_name) = self.rest().trim_start().strip_prefix("raw") else { return Ok(None) };
        let close = after_name.trim_start();
        let (close, first) = match close.strip_prefix('-') {
            Some(close) => (close, After::Trim),
            None => (close, After::Newline),
        };
        let Some(body) = close.strip_prefix("%}") else { return Ok(None) };
        self.advance(self.rest().len() - body.len());
        let mut from = 0;
        while let Some(found) = body[from..].find("{%") {
            let at = from + found;
            let inner = &body[at + 2..];
            let dash = inner.starts_with('-');
            let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start();
            if let Some(rest) = inner.strip_prefix("endraw") {
                let rest = rest.trim_start();
                let trims = rest.starts_with('-');
                if let Some(rest) = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}") {
                    let text = if dash { body[..at].trim_end() } else { self.strip_indent(&body[..at]) };
                    self.data(text, first);
                    self.advance(body.len() - rest.len());
                    return Ok(Some(if trims { After::Trim } else { After::Newline }));
                }
            }
            from = at + 2;
        }
        self.fail("raw block is not closed")
    }

    fn tag(&mut self, closer: &str, open: Kind, close: Kind) -> Result<After, Failure> {
        self.push(open);
        let mut nesting = 0usize;
        loop {
            let blank = self.rest().len() - self.rest().trim_start().len();
            self.advance(blank);
            let rest = self.rest();
            if nesting == 0 || closer == "%}" {
                for (sign, after) in [("-", After::Trim), ("+", After::Keep), ("", After::Newline)] {
                    if rest.strip_prefix(sign).is_some_and(|rest| rest.starts_with(closer)) {
                        self.push(close);
                        self.advance(sign.len() + closer.len());
                        let output = closer == "}}" && after == After::Newline;
                        return Ok(if output { After::Keep } else { after });
                    }
                }
            }
            let Some(first) = rest.chars().next() else { return self.fail("tag is not closed") };
            if first == '"' || first == '\'' {
                self.string(first)?;
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first == '_' || first.is_alphabetic() {
                let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                self.push(Kind::Name(rest[..end].to_string()));
                self.advance(end);
            } else if let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
                match *operator {
                    "(" | "[" | "{" => nesting += 1,
                    ")" | "]" | "}" => nesting = nesting.saturating_sub(1),
                    _ => {}
                }
                self.push(Kind::Operator(operator));
                self.advance(operator.len());
            } else {
                return self.fail(format!("unexpected character {first:?}"));
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<(), Failure> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.push(Kind::Text(text));
                self.advance(at + 1);
                return Ok(());
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some((_, escaped)) = chars.next() else { break };
            let digits = match escaped {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            if digits > 0 {
                let code: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                let c = u32::from_str_radix(&code, 16).ok().filter(|_| code.len() == digits);
                let Some(c) = c.and_then(char::from_u32) else {
                    return self.fail(format!("`\\{escaped}{code}` is no character"));
                };
                text.push(c);
                continue;
            }
            match escaped {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                'v' => text.push('\u{b}'),
                'a' => text.push('\u{7}'),
                '0' => text.push('\0'),
                '\n' => {}
                '\\' | '\'' | '"' => text.push(escaped),
                other => text.extend(['\\', other]),
            }
        }
        self.fail("string is not closed")
    }

    fn number(&mut self) -> Result<(), Failure> {
        let rest = self.rest();
        let digits = |from: usize| {
            let tail = &rest[from..];
            from + tail.find(|c: char| c != '_' && !c.is_ascii_digit()).unwrap_or(tail.len())
        };
        let mut end = digits(0);
        let mut float = false;
        let starts_digit = |at: usize| rest.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        if rest[end..].starts_with('.') && starts_digit(end + 1) {
            (end, float) = (digits(end + 1), true);
        }
        if rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
            if starts_digit(end + 1 + sign) {
                (end, float) = (digits(end + 1 + sign), true);
            }
        }
        let text = rest[..end].replace('_', "");
        let kind = if float {
            text.parse().map(Kind::Float).map_err(|_| ())
        } else {
            text.parse().map(Kind::Int).map_err(|_| ())
        };
        match kind {
            Ok(kind) => self.push(kind),
            Err(()) => {
                let shown: String = text.chars().take(40).collect();
                return self.fail(format!("number {shown} is out of range"));
            }
        }
        self.advance(end);
        Ok(())
    }
}
