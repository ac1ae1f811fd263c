//! Documents in pieces of a size that an encoder reads well.

use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// Cuts `text` into pieces of at most `most` bytes: paragraphs (apart by an empty line) where they fit, else whole
/// sentences (Unicode annex 29), else words. Neighbouring paragraphs join while they fit. Ranges of bytes, without the
/// white space around; none is empty. A `most` below 16 counts as 16.
pub fn chunks(text: &str, most: usize) -> Vec<Range<usize>> {
    let most = most.max(16);
    let mut chunks: Vec<Range<usize>> = Vec::new();
    for paragraph in paragraphs(text) {
        if paragraph.len() <= most {
            match chunks.last_mut() {
                Some(last) if paragraph.end - last.start <= most => last.end = paragraph.end,
                _ => chunks.push(paragraph),
            }
            continue;
        }
        let mut piece: Option<Range<usize>> = None;
        for part in parts(text, paragraph, most) {
            match &mut piece {
                Some(piece) if part.end - piece.start <= most => piece.end = part.end,
                _ => chunks.extend(piece.replace(part)),
            }
        }
        chunks.extend(piece);
    }
    chunks
}

/// What lies between empty lines.
fn paragraphs(text: &str) -> Vec<Range<usize>> {
    let mut paragraphs = Vec::new();
    let mut open: Option<Range<usize>> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        match (trimmed(text, at..at + line.len()), &mut open) {
            (Some(line), Some(open)) => open.end = line.end,
            (Some(line), None) => open = Some(line),
            (None, _) => paragraphs.extend(open.take()),
        }
        at += line.len();
    }
    paragraphs.extend(open);
    paragraphs
}

/// Sentences of a paragraph; those that are too long in words, and words in pieces.
fn parts(text: &str, paragraph: Range<usize>, most: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    for sentence in sentences(&text[paragraph.clone()]) {
        let sentence = paragraph.start + sentence.start..paragraph.start + sentence.end;
        if sentence.len() <= most {
            parts.push(sentence);
            continue;
        }
        for (start, word) in text[sentence.clone()].split_word_bound_indices() {
            let mut word = sentence.start + start..sentence.start + start + word.len();
            while word.len() > most {
                let cut = text.floor_char_boundary(word.start + most);
                parts.push(word.start..cut);
                word.start = cut;
            }
            parts.extend(trimmed(text, word));
        }
    }
    parts
}

/// The sentences of `text` (Unicode annex 29) as ranges of bytes, without the white space around them.
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    text.split_sentence_bound_indices()
        .filter_map(|(start, sentence)| trimmed(text, start..start + sentence.len()))
        .collect()
}

/// Without the white space around; `None` if nothing is left.
fn trimmed(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let part = &text[range.clone()];
    let start = range.start + part.len() - part.trim_start().len();
    let inner = part.trim();
    (!inner.is_empty()).then(|| start..start + inner.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str, most: usize) -> Vec<&str> {
        chunks(text, most).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn paragraphs_join_and_long_ones_part_at_sentences() {
        let text = "One.\n\nTwo is\r\nlonger.\n \nA first sentence here. A second one! And 3.5 more?";
        assert_eq!(
            texts(text, 24),
            ["One.\n\nTwo is\r\nlonger.", "A first sentence here.", "A second one!", "And 3.5 more?"]
        );
        assert_eq!(texts(text, 1000), [text]);
        assert_eq!(texts(" \n\n\t", 100), [""; 0]);
    }

    #[test]
    fn a_word_that_is_too_long_is_cut_between_characters() {
        let text = "漢".repeat(20);
        assert!(texts(&text, 16).iter().all(|t| t.len() <= 16));
        assert_eq!(texts(&text, 16).concat(), text);
    }

    proptest! {
        #[test]
        fn nothing_but_white_space_is_lost(text in "[a-zé漢.!? \n]{0,400}", most in 16usize..80) {
            let mut at = 0;
            let mut kept = String::new();
            for range in chunks(&text, most) {
                prop_assert!(range.start >= at && range.len() <= most && !range.is_empty());
                prop_assert!(text[at..range.start].trim().is_empty());
                kept.push_str(&text[range.clone()]);
                at = range.end;
            }
            prop_assert!(text[at..].trim().is_empty());
            let solid = |t: &str| t.split_whitespace().collect::<String>();
            prop_assert_eq!(solid(&kept), solid(&text));
        }
    }
}
