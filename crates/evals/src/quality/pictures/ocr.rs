//! Character error rate: edits over characters of the truth. White space does not count.

use serde::Serialize;

/// Edits and characters so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CharacterErrors {
    /// Texts.
    pub texts: usize,
    /// Texts without an error.
    pub exact: usize,
    /// Characters inserted, deleted or changed.
    pub edits: usize,
    /// Characters of the truth.
    pub characters: usize,
}

impl CharacterErrors {
    /// Counts one text.
    pub fn add(&mut self, answer: &str, truth: &str) {
        let dense = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<_>>();
        let (answer, truth) = (dense(answer), dense(truth));
        let edits = distance(&answer, &truth);
        self.texts += 1;
        self.exact += usize::from(edits == 0);
        self.edits += edits;
        self.characters += truth.len();
    }

    /// Edits by character.
    pub fn rate(&self) -> f64 {
        self.edits as f64 / self.characters.max(1) as f64
    }
}

/// Levenshtein.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_do_not_count_and_edits_do() {
        let mut errors = CharacterErrors::default();
        errors.add("a b c", "abc");
        errors.add("韩国小官", "韩国小馆");
        assert_eq!((errors.exact, errors.edits, errors.characters), (1, 1, 7));
        assert!((errors.rate() - 1.0 / 7.0).abs() < 1e-12);
    }
}
