//! Words of a text.

/// The words of a text.
pub(crate) struct Words<'a> {
    /// In order, with the punctuation that they touch.
    pub words: Vec<&'a str>,
    /// Whether they stand between spaces. Otherwise each letter counts as one.
    pub spaced: bool,
}

/// Letters of scripts that put no spaces between words: Thai, Lao, Khmer, Burmese, Chinese and Japanese.
fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c), 0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x3040..=0x30FF
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF)
}

/// Cuts a text into words. One whose letters are mostly of a script without spaces is cut into letters and the words
/// between them.
pub(crate) fn words(text: &str) -> Words<'_> {
    let (mut letters, mut unspaced) = (0_usize, 0_usize);
    for c in text.chars().filter(|c| !c.is_ascii() || c.is_ascii_alphabetic()) {
        unspaced += usize::from(is_unspaced(c));
        letters += usize::from(c.is_alphabetic());
    }
    if unspaced * 2 <= letters {
        return Words { words: text.split_whitespace().collect(), spaced: true };
    }
    let mut words = Vec::new();
    for word in text.split(|c: char| !c.is_alphanumeric() && !is_unspaced(c)) {
        let mut start = 0;
        for (at, c) in word.char_indices() {
            if is_unspaced(c) {
                if start < at {
                    words.push(&word[start..at]);
                }
                start = at + c.len_utf8();
                words.push(&word[at..start]);
            }
        }
        if start < word.len() {
            words.push(&word[start..]);
        }
    }
    Words { words, spaced: false }
}
