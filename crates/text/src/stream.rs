//! Token bytes to whole characters, holding back what may become a stop string.

/// Why a stream of text ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// This stop string appeared; it is not part of the text.
    StopString(String),
}

/// Collects the bytes of tokens and gives out text that is final.
#[derive(Clone, Debug, Default)]
pub struct TextStream {}

impl TextStream {
    /// A stream that ends at any of `stop`.
    pub fn new(stop: Vec<String>) -> TextStream {
        let _ = stop;
        TextStream {}
    }
    /// Adds the bytes of one token; gives the text that is now final (perhaps empty), and the reason if a stop string appeared.
    pub fn push(&mut self, bytes: &[u8]) -> (String, Option<StopReason>) {
        let _ = bytes;
        (String::new(), None)
    }
    /// Gives what was held back; incomplete characters become U+FFFD.
    pub fn finish(self) -> String {
        String::new()
    }
}
