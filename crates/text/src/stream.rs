//! Token bytes to whole characters, holding back what may become a stop string.

/// Why a stream of text ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// This stop string appeared; it is not part of the text.
    StopString(String),
}

/// Collects the bytes of tokens and gives out text that is final.
///
/// The text does not depend on how the bytes were cut into tokens: it ends before the stop string that is
/// complete first (of several that end at the same place, the longest).
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    stop: Vec<String>,
    /// Whole characters not yet given out: the possible beginning of a stop string.
    held: String,
    /// The beginning of a character, at most three bytes.
    partial: Vec<u8>,
    stopped: bool,
}

impl TextStream {
    /// A stream that ends at any of `stop`; empty strings are ignored.
    pub fn new(stop: Vec<String>) -> TextStream {
        let stop = stop.into_iter().filter(|s| !s.is_empty()).collect();
        TextStream { stop, ..TextStream::default() }
    }

    /// Adds the bytes of one token; gives the text that is now final (perhaps empty), and the reason if a stop
    /// string appeared. Bytes that are not UTF-8 become U+FFFD. After a stop nothing more comes.
    pub fn push(&mut self, bytes: &[u8]) -> (String, Option<StopReason>) {
        if self.stopped {
            return (String::new(), None);
        }
        self.decode(bytes);
        if let Some((start, stop)) = self.first_stop() {
            self.stopped = true;
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), Some(StopReason::StopString(stop)));
        }
        let kept = self.possible_stop_bytes();
        let rest = self.held.split_off(self.held.len() - kept);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// Gives what was held back. The beginning of a character is left out: an answer that was cut short ends before it.
    pub fn finish(self) -> String {
        if self.stopped { String::new() } else { self.held }
    }

    /// Moves whole characters of `partial` and `bytes` to `held`.
    fn decode(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let mut rest = self.partial.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.held.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    self.held.push_str(std::str::from_utf8(valid).expect("checked by the first call"));
                    rest = after;
                    let Some(bad) = error.error_len() else { break };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[bad..];
                }
            }
        }
        self.partial.drain(..self.partial.len() - rest.len());
    }

    /// The stop string in `held` that is complete first, and where it starts.
    fn first_stop(&self) -> Option<(usize, String)> {
        let found = self.stop.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, stop))
        });
        found.min_by_key(|(end, start, _)| (*end, *start)).map(|(_, start, stop)| (start, stop.clone()))
    }

    /// Length of the longest end of `held` that begins a stop string.
    fn possible_stop_bytes(&self) -> usize {
        let held = self.held.as_bytes();
        let begins = |stop: &String| {
            let longest = (stop.len() - 1).min(held.len());
            (1..=longest).rev().find(|&len| held.ends_with(&stop.as_bytes()[..len]))
        };
        self.stop.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop, prop_assert_eq, proptest};

    use super::*;

    /// All text of a stream that gets `bytes` in the given portions, and the stop string met.
    fn run(stop: &[&str], portions: &[&[u8]]) -> (String, Option<String>) {
        let mut stream = TextStream::new(stop.iter().map(ToString::to_string).collect());
        let mut text = String::new();
        let mut met = None;
        for portion in portions {
            let (more, reason) = stream.push(portion);
            text.push_str(&more);
            if let Some(StopReason::StopString(stop)) = reason {
                met = Some(stop);
            }
        }
        text.push_str(&stream.finish());
        (text, met)
    }

    #[test]
    fn never_splits_a_character() {
        let mut stream = TextStream::new(Vec::new());
        let euro = "€".as_bytes();
        assert_eq!(stream.push(&euro[..1]).0, "");
        assert_eq!(stream.push(&euro[1..2]).0, "");
        assert_eq!(stream.push(&euro[2..]).0, "€");
        assert_eq!(stream.push(&[0xF0, 0x9F]).0, "");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop_string() {
        let mut stream = TextStream::new(vec!["</s>".into(), "END".into()]);
        assert_eq!(stream.push(b"one <"), ("one ".into(), None));
        assert_eq!(stream.push(b"b> E"), ("<b> ".into(), None));
        assert_eq!(stream.push(b"N"), (String::new(), None));
        assert_eq!(stream.push(b"D more"), (String::new(), Some(StopReason::StopString("END".into()))));
        assert_eq!(stream.push(b"more"), (String::new(), None));
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn the_stop_string_complete_first_wins() {
        assert_eq!(run(&["abcd", "bc"], &[b"xabcd"]), ("xa".into(), Some("bc".into())));
        assert_eq!(run(&["c", "abc"], &[b"xab", b"c"]), ("x".into(), Some("abc".into())));
        assert_eq!(run(&["aab"], &[b"a", b"a", b"a", b"b"]), ("a".into(), Some("aab".into())));
    }

    /// The same by definition: character by character over the whole text.
    fn naive(stop: &[String], text: &str) -> (String, Option<String>) {
        for end in 1..=text.len() {
            if !text.is_char_boundary(end) {
                continue;
            }
            let ending = stop.iter().filter(|s| !s.is_empty() && text[..end].ends_with(s.as_str()));
            if let Some(longest) = ending.max_by_key(|s| s.len()) {
                return (text[..end - longest.len()].to_string(), Some(longest.clone()));
            }
        }
        (text.to_string(), None)
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_text(
            bytes in prop_oneof_bytes(),
            cuts in prop::collection::vec(0usize..64, 0..12),
            stop in prop::collection::vec("[ab€]{0,4}", 0..4),
        ) {
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let portions: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let stops: Vec<&str> = stop.iter().map(String::as_str).collect();
            let expected = naive(&stop, &whole_characters(&bytes));
            prop_assert_eq!(run(&stops, &portions), expected);
        }
    }

    /// `bytes` as text, without the beginning of a character at their end.
    fn whole_characters(bytes: &[u8]) -> String {
        let incomplete = |end: &[u8]| {
            std::str::from_utf8(end).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
        };
        let tail =
            (1..=3.min(bytes.len())).find(|tail| incomplete(&bytes[bytes.len() - tail..])).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..bytes.len() - tail]).into_owned()
    }

    /// Valid text over a small alphabet, or any bytes.
    fn prop_oneof_bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::prop_oneof![
            "[ab€😀]{0,16}".prop_map(String::into_bytes),
            prop::collection::vec(proptest::prelude::any::<u8>(), 0..48),
        ]
    }
}
