//! What a chat model writes, taken apart: thoughts, text, calls of tools.

/// How a model writes calls of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, any number of times (Hermes, Qwen, SmolLM).
    Hermes,
    /// `{"name": .., "parameters": {..}}` as the whole answer, several with `; ` between (Llama 3).
    Llama,
    /// `[TOOL_CALLS][{"name": .., "arguments": {..}}, ..]` (Mistral).
    Mistral,
}

impl ToolFormat {
    /// What stands before a call.
    pub fn opening(self) -> &'static str {
        match self {
            ToolFormat::Hermes => "<tool_call>",
            ToolFormat::Llama => "{",
            ToolFormat::Mistral => "[TOOL_CALLS]",
        }
    }

    /// The name of the object that holds the arguments.
    pub fn arguments(self) -> &'static str {
        match self {
            ToolFormat::Hermes | ToolFormat::Mistral => "arguments",
            ToolFormat::Llama => "parameters",
        }
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// What the model thought before it answered.
    Reasoning(String),
    /// The answer.
    Text(String),
    /// A call begins.
    Call {
        /// Counted from 0.
        index: usize,
        /// The tool.
        name: String,
    },
    /// More of the arguments of the last call, which together are one JSON object.
    Arguments {
        /// Of the call.
        index: usize,
        /// A piece of JSON text.
        text: String,
    },
}

/// Where the parser is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// At the very beginning, where thoughts or a call may start.
    Start,
    Reasoning,
    /// After thoughts: white space is not part of the answer.
    Gap,
    Text,
    /// In a call, before its arguments.
    Head,
    /// In the arguments: depth of brackets, whether in a string, whether after a backslash.
    Arguments {
        depth: usize,
        in_string: bool,
        escaped: bool,
    },
    /// After a call.
    Tail,
}

/// Takes the text of an answer apart as it comes; never gives away a marker or the beginning of one.
#[derive(Clone, Debug)]
pub struct OutputParser {
    tools: Option<ToolFormat>,
    thinks: bool,
    state: State,
    /// Not yet given out.
    held: String,
    calls: usize,
}

const THINK: &str = "<think>";
const END_THINK: &str = "</think>";
const END_CALL: &str = "</tool_call>";
/// A longer head of a call is none.
const MOST_HEAD_BYTES: usize = 4096;

impl OutputParser {
    /// A parser for a model that calls `tools` that way (`None`: there are no tools) and, if `thinks`, writes its
    /// thoughts between `<think>` and `</think>`.
    pub fn new(tools: Option<ToolFormat>, thinks: bool) -> OutputParser {
        OutputParser { tools, thinks, state: State::Start, held: String::new(), calls: 0 }
    }

    /// The answer begins inside the thoughts, because the prompt opened them.
    pub fn in_thoughts(mut self) -> OutputParser {
        self.state = State::Reasoning;
        self
    }

    /// The answer begins inside a call, because the prompt opened it.
    pub fn in_call(mut self) -> OutputParser {
        self.state = State::Head;
        self
    }

    /// How many calls have begun.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Adds text; gives the parts that are certain.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        pieces
    }

    /// The end: what was held back turned out to be plain.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let rest = std::mem::take(&mut self.held);
        match self.state {
            State::Reasoning => give(Piece::Reasoning(rest), &mut pieces),
            // A head that never became a call is text, marker and all.
            State::Head => {
                let opening = self.tools.map_or("", ToolFormat::opening);
                give(Piece::Text(format!("{opening}{rest}")), &mut pieces);
            }
            State::Arguments { .. } => {
                give(Piece::Arguments { index: self.calls.saturating_sub(1), text: rest }, &mut pieces);
            }
            State::Tail => {}
            State::Gap => give(Piece::Text(rest.trim_start().to_owned()), &mut pieces),
            State::Start | State::Text => give(Piece::Text(rest), &mut pieces),
        }
        self.state = State::Text;
        pieces
    }

    /// One step; `false` if more text is needed.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match &mut self.state {
            State::Start | State::Gap => self.start(),
            State::Reasoning => {
                let (before, found) = split_at(&mut self.held, &[END_THINK]);
                give(Piece::Reasoning(before), pieces);
                if found {
                    self.state = State::Gap;
                }
                found
            }
            State::Text => {
                let marker = match self.tools {
                    Some(ToolFormat::Hermes) => ToolFormat::Hermes.opening(),
                    Some(ToolFormat::Mistral) => ToolFormat::Mistral.opening(),
                    // Llama calls at the very beginning only.
                    Some(ToolFormat::Llama) | None => {
                        give(Piece::Text(std::mem::take(&mut self.held)), pieces);
                        return false;
                    }
                };
                let (before, found) = split_at(&mut self.held, &[marker]);
                give(Piece::Text(before), pieces);
                if found {
                    self.state = State::Head;
                }
                found
            }
            State::Head => self.head(pieces),
            State::Arguments { .. } => self.arguments(pieces),
            State::Tail => self.tail(),
        }
    }

    fn start(&mut self) -> bool {
        let trimmed = self.held.trim_start();
        let white = self.held.len() - trimmed.len();
        let may_think = self.thinks && self.state == State::Start;
        if trimmed.is_empty() {
            return false;
        }
        if may_think && trimmed.starts_with(THINK) {
            self.held.drain(..white + THINK.len());
            self.state = State::Reasoning;
            return true;
        }
        if may_think && THINK.starts_with(trimmed) {
            return false;
        }
        if self.tools == Some(ToolFormat::Llama) {
            const TAG: &str = "<|python_tag|>";
            if trimmed.starts_with('{') {
                self.held.drain(..=white);
                self.state = State::Head;
                return true;
            }
            if let Some(rest) = trimmed.strip_prefix(TAG) {
                self.held = rest.to_owned();
                return true;
            }
            if TAG.starts_with(trimmed) {
                return false;
            }
        }
        if self.state == State::Gap {
            self.held.drain(..white);
        }
        self.state = State::Text;
        true
    }

    /// `{"name": "N", "arguments": ` before the arguments. The brace of Llama's is the opening itself.
    fn head(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let Some(format) = self.tools else { return false };
        let mut rest = self.held.trim_start();
        if format == ToolFormat::Mistral {
            rest = rest.strip_prefix('[').unwrap_or(rest).trim_start();
        }
        if format != ToolFormat::Llama {
            rest = rest.strip_prefix('{').unwrap_or(rest);
        }
        match name_of(rest, format.arguments()) {
            Some((name, after)) => {
                let index = self.calls;
                self.calls += 1;
                self.held = after.to_owned();
                self.state = State::Arguments { depth: 0, in_string: false, escaped: false };
                pieces.push(Piece::Call { index, name });
                true
            }
            None if self.held.len() > MOST_HEAD_BYTES => {
                self.state = State::Text;
                let rest = std::mem::take(&mut self.held);
                give(Piece::Text(format!("{}{rest}", format.opening())), pieces);
                false
            }
            None => false,
        }
    }

    fn arguments(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let State::Arguments { depth, in_string, escaped } = &mut self.state else { return false };
        let mut end = None;
        for (at, byte) in self.held.bytes().enumerate() {
            if *in_string {
                match byte {
                    _ if *escaped => *escaped = false,
                    b'\\' => *escaped = true,
                    b'"' => *in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => *in_string = true,
                b'{' | b'[' => *depth += 1,
                b'}' | b']' => {
                    *depth = depth.saturating_sub(1);
                    if *depth == 0 {
                        end = Some(at + 1);
                        break;
                    }
                }
                _ => {}
            }
        }
        let rest = self.held.split_off(end.unwrap_or(self.held.len()));
        let text = std::mem::replace(&mut self.held, rest);
        give(Piece::Arguments { index: self.calls - 1, text }, pieces);
        if end.is_some() {
            self.state = State::Tail;
        }
        end.is_some()
    }

    /// After the arguments: closing braces, markers, and perhaps another call.
    fn tail(&mut self) -> bool {
        match self.tools {
            Some(ToolFormat::Hermes) | None => {
                let (_, found) = split_at(&mut self.held, &[END_CALL]);
                if found {
                    self.state = State::Gap;
                }
                found
            }
            Some(ToolFormat::Mistral | ToolFormat::Llama) => {
                let rest = self.held.trim_start_matches(|c: char| c.is_whitespace() || "},;]".contains(c));
                let Some(first) = rest.chars().next() else {
                    self.held.clear();
                    return false;
                };
                let llama = self.tools == Some(ToolFormat::Llama);
                self.held =
                    if llama { rest.strip_prefix('{').unwrap_or(rest).to_owned() } else { rest.to_owned() };
                self.state = if first == '{' { State::Head } else { State::Text };
                true
            }
        }
    }
}

fn give(piece: Piece, pieces: &mut Vec<Piece>) {
    let empty = match &piece {
        Piece::Reasoning(text) | Piece::Text(text) | Piece::Arguments { text, .. } => text.is_empty(),
        Piece::Call { .. } => false,
    };
    if !empty {
        pieces.push(piece);
    }
}

/// Takes the text before the first of `markers` out of `held`, and the marker; what may be the beginning of one stays.
fn split_at(held: &mut String, markers: &[&str]) -> (String, bool) {
    let found = markers.iter().filter_map(|marker| Some((held.find(marker)?, marker.len()))).min();
    if let Some((at, length)) = found {
        let rest = held.split_off(at + length);
        let mut before = std::mem::replace(held, rest);
        before.truncate(at);
        return (before, true);
    }
    let kept = markers
        .iter()
        .filter_map(|marker| (1..marker.len()).rev().find(|&n| held.ends_with(&marker[..n])))
        .max()
        .unwrap_or(0);
    let rest = held.split_off(held.len() - kept);
    (std::mem::replace(held, rest), false)
}

/// Reads `"name": "N", "ARGUMENTS":` and gives the name and what follows.
fn name_of<'t>(text: &'t str, arguments: &str) -> Option<(String, &'t str)> {
    let rest = text.trim_start().strip_prefix("\"name\"")?.trim_start().strip_prefix(':')?.trim_start();
    let rest = rest.strip_prefix('"')?;
    let end = rest.find('"')?;
    let (name, rest) = (&rest[..end], &rest[end + 1..]);
    let rest = rest.trim_start().strip_prefix(',')?.trim_start().strip_prefix('"')?;
    let rest = rest.strip_prefix(arguments).or_else(|| rest.strip_prefix("arguments"))?;
    let rest = rest.strip_prefix('"')?.trim_start().strip_prefix(':')?;
    // White space may still come: the arguments begin at their first character.
    Some((name.to_owned(), rest.trim_start())).filter(|(_, rest)| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    /// Pieces of the same kind joined.
    fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
        let mut all: Vec<Piece> = Vec::new();
        for piece in pieces {
            match (all.last_mut(), piece) {
                (Some(Piece::Text(a)), Piece::Text(b)) => a.push_str(&b),
                (Some(Piece::Reasoning(a)), Piece::Reasoning(b)) => a.push_str(&b),
                (Some(Piece::Arguments { text: a, .. }), Piece::Arguments { text: b, .. }) => a.push_str(&b),
                (_, piece) => all.push(piece),
            }
        }
        all
    }

    fn whole(mut parser: OutputParser, texts: &[&str]) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = texts.iter().flat_map(|text| parser.push(text)).collect();
        pieces.extend(parser.finish());
        joined(pieces)
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }
    fn call(index: usize, name: &str) -> Piece {
        Piece::Call { index, name: name.to_owned() }
    }
    fn arguments(index: usize, text: &str) -> Piece {
        Piece::Arguments { index, text: text.to_owned() }
    }

    const HERMES: &str = "<think>\nhm</think>\n\nSure. <tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": \"}\\\"<\"}}\n</tool_call>\n<tool_call>{\"name\":\"b\",\"arguments\":{}}</tool_call>";

    fn hermes_pieces() -> Vec<Piece> {
        vec![
            Piece::Reasoning("\nhm".to_owned()),
            text("Sure. "),
            call(0, "a"),
            arguments(0, "{\"x\": \"}\\\"<\"}"),
            call(1, "b"),
            arguments(1, "{}"),
        ]
    }

    #[test]
    fn takes_thoughts_text_and_calls_apart() {
        assert_eq!(whole(OutputParser::new(Some(ToolFormat::Hermes), true), &[HERMES]), hermes_pieces());
        let mistral = "[TOOL_CALLS][{\"name\": \"a\", \"arguments\": {\"x\": [1]}}, {\"name\": \"b\", \"arguments\": {}}]";
        let both = vec![call(0, "a"), arguments(0, "{\"x\": [1]}"), call(1, "b"), arguments(1, "{}")];
        assert_eq!(whole(OutputParser::new(Some(ToolFormat::Mistral), false), &[mistral]), both);
        let llama = "{\"name\": \"a\", \"parameters\": {\"x\": [1]}}; {\"name\": \"b\", \"parameters\": {}}";
        assert_eq!(whole(OutputParser::new(Some(ToolFormat::Llama), false), &[llama]), both);
    }

    #[test]
    fn what_never_becomes_a_call_is_text() {
        let parser = || OutputParser::new(Some(ToolFormat::Hermes), false);
        assert_eq!(whole(parser(), &["a <tool_cal"]), [text("a <tool_cal")]);
        assert_eq!(whole(parser(), &["<tool_call>nonsense"]), [text("<tool_call>nonsense")]);
        let llama = OutputParser::new(Some(ToolFormat::Llama), false);
        assert_eq!(whole(llama, &["{\"other\": 1}"]), [text("{\"other\": 1}")]);
        assert_eq!(
            whole(OutputParser::new(None, false), &["<think>x", "<tool_call>"]),
            [text("<think>x<tool_call>")]
        );
    }

    #[test]
    fn a_prompt_may_open_the_thoughts_or_the_call() {
        let parser = OutputParser::new(None, true).in_thoughts();
        assert_eq!(
            whole(parser, &["hm</thi", "nk>\n\nYes"]),
            [Piece::Reasoning("hm".to_owned()), text("Yes")]
        );
        let parser = OutputParser::new(Some(ToolFormat::Mistral), false).in_call();
        let pieces = whole(parser, &["[{\"name\": \"a\", \"arguments\": {}}]"]);
        assert_eq!(pieces, [call(0, "a"), arguments(0, "{}")]);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_pieces(cuts in prop::collection::vec(0usize..200, 0..20)) {
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(HERMES.len())).collect();
            at.extend([0, HERMES.len()]);
            at.sort_unstable();
            let texts: Vec<&str> = at.windows(2).map(|pair| &HERMES[pair[0]..pair[1]]).collect();
            prop_assert_eq!(whole(OutputParser::new(Some(ToolFormat::Hermes), true), &texts), hermes_pieces());
        }

        #[test]
        fn any_text_is_taken_without_a_panic(parts in prop::collection::vec("(<think>|</think>|<tool_call>|\\{\"name\": \"a\", \"arguments\": |[{}\\[\\]\",;a ])", 0..40)) {
            for format in [None, Some(ToolFormat::Hermes), Some(ToolFormat::Llama), Some(ToolFormat::Mistral)] {
                let mut parser = OutputParser::new(format, true);
                for part in &parts {
                    parser.push(part);
                }
                parser.finish();
            }
        }
    }
}
