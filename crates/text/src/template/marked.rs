//! Text that knows which of its bytes a user wrote.

use std::sync::Arc;

/// Immutable text; `user` are the byte ranges (sorted, apart from each other) that did not come from the template.
#[derive(Clone, Debug)]
pub(super) struct Text {
    text: Arc<str>,
    user: Option<Arc<[(usize, usize)]>>,
}

impl Text {
    /// Text of the template.
    pub fn trusted(text: impl Into<Arc<str>>) -> Text {
        Text { text: text.into(), user: None }
    }

    /// Text of a user.
    pub fn user(text: impl Into<Arc<str>>) -> Text {
        let text = text.into();
        let user = (!text.is_empty()).then(|| Arc::from([(0, text.len())].as_slice()));
        Text { text, user }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a user wrote any of it.
    pub fn is_user(&self) -> bool {
        self.user.is_some()
    }

    /// The ranges that users wrote.
    pub fn ranges(&self) -> &[(usize, usize)] {
        self.user.as_deref().unwrap_or_default()
    }

    /// A text computed from this one: a user's if any of this one is.
    pub fn derive(&self, text: String) -> Text {
        if self.is_user() { Text::user(text) } else { Text::trusted(text) }
    }

    /// The bytes from `start` to `end`, both on character boundaries.
    pub fn slice(&self, start: usize, end: usize) -> Text {
        if (start, end) == (0, self.text.len()) {
            return self.clone();
        }
        let mut out = Builder::default();
        out.push_slice(self, start, end);
        out.finish()
    }

    /// Without white space, or the characters of `set`, at either end.
    pub fn trim(&self, set: Option<&str>, left: bool, right: bool) -> Text {
        let within = |c: char| set.map_or(c.is_whitespace(), |set| set.contains(c));
        let text = self.as_str();
        let kept = if right { text.trim_end_matches(within) } else { text };
        let start = if left { kept.len() - kept.trim_start_matches(within).len() } else { 0 };
        self.slice(start, kept.len())
    }
}

/// Text being put together.
#[derive(Debug, Default)]
pub(super) struct Builder {
    text: String,
    user: Vec<(usize, usize)>,
}

impl Builder {
    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn push(&mut self, text: &Text) {
        self.push_slice(text, 0, text.text.len());
    }

    pub fn push_trusted(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds the bytes of `text` from `start` to `end`, both on character boundaries.
    pub fn push_slice(&mut self, text: &Text, start: usize, end: usize) {
        let base = self.text.len();
        self.text.push_str(&text.text[start..end]);
        let ranges = text.ranges();
        let first = ranges.partition_point(|(_, range_end)| *range_end <= start);
        for &(from, to) in ranges[first..].iter().take_while(|(from, _)| *from < end) {
            let (from, to) = (from.max(start) - start + base, to.min(end) - start + base);
            match self.user.last_mut() {
                Some(last) if last.1 == from => last.1 = to,
                _ => self.user.push((from, to)),
            }
        }
    }

    pub fn finish(self) -> Text {
        let user = (!self.user.is_empty()).then(|| Arc::from(self.user));
        Text { text: Arc::from(self.text), user }
    }
}
