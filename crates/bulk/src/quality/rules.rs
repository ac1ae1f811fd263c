//! Limits on measures, after Gopher.

use super::Measures;

/// A rule that a text breaks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Broken {
    /// The measure.
    pub measure: String,
    /// What it is.
    pub value: f64,
    /// `<` or `>`: on which side of the limit it lies.
    pub side: char,
    /// The limit.
    pub limit: f64,
}

impl Broken {
    /// As people read it: `duplicate_lines 0.98 > 0.3`.
    pub(crate) fn words(&self) -> String {
        let value = (self.value * 1000.0).round() / 1000.0;
        format!("{} {value} {} {}", self.measure, self.side, self.limit)
    }
}

/// Limits of the 2-, 3- and 4-gram that comes most often, and of repeated 5- to 10-grams (arXiv:2112.11446, table A1).
const TOP_GRAMS: [f64; 3] = [0.20, 0.18, 0.16];
const DUPLICATE_GRAMS: [f64; 6] = [0.15, 0.14, 0.13, 0.12, 0.11, 0.10];

/// The rules that a text with these measures breaks, of how many (arXiv:2112.11446, A.1.1 and table A1).
///
/// `english` says whether the rule on English stop words is meant for it; the rule on the length of words is for scripts
/// with spaces between them.
pub(crate) fn broken(measures: &Measures, english: bool) -> (Vec<Broken>, usize) {
    let mut rules = Rules { broken: Vec::new(), count: 0 };
    let Measures { words, repetition, .. } = measures;
    rules.at_least("words", *words as f64, 50.0);
    rules.at_most("words", *words as f64, 100_000.0);
    if measures.spaced {
        rules.at_least("mean_word_length", measures.mean_word_length, 3.0);
        rules.at_most("mean_word_length", measures.mean_word_length, 10.0);
    }
    rules.at_most("symbols_per_word", measures.symbols_per_word, 0.1);
    rules.at_most("bullet_lines", measures.bullet_lines, 0.9);
    rules.at_most("ellipsis_lines", measures.ellipsis_lines, 0.3);
    rules.at_least("alphabetic_words", measures.alphabetic_words, 0.8);
    if english {
        rules.at_least("stop_words", measures.stop_words as f64, 2.0);
    }
    rules.at_most("duplicate_lines", repetition.lines, 0.30);
    rules.at_most("duplicate_paragraphs", repetition.paragraphs, 0.30);
    rules.at_most("duplicate_line_characters", repetition.line_characters, 0.20);
    rules.at_most("duplicate_paragraph_characters", repetition.paragraph_characters, 0.20);
    for ((n, value), limit) in (2..).zip(repetition.top_grams).zip(TOP_GRAMS) {
        rules.at_most(&format!("top_{n}_gram"), value, limit);
    }
    for ((n, value), limit) in (5..).zip(repetition.duplicate_grams).zip(DUPLICATE_GRAMS) {
        rules.at_most(&format!("duplicate_{n}_grams"), value, limit);
    }
    (rules.broken, rules.count)
}

struct Rules {
    broken: Vec<Broken>,
    count: usize,
}

impl Rules {
    fn at_least(&mut self, measure: &str, value: f64, limit: f64) {
        self.rule(measure, value, limit, '<', value < limit);
    }

    fn at_most(&mut self, measure: &str, value: f64, limit: f64) {
        self.rule(measure, value, limit, '>', value > limit);
    }

    fn rule(&mut self, measure: &str, value: f64, limit: f64, side: char, is_broken: bool) {
        self.count += 1;
        if is_broken {
            self.broken.push(Broken { measure: measure.to_owned(), value, side, limit });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure;
    use super::*;

    const PROSE: &str = "The harbour of the old town lies behind a long wall of grey stone. In the morning the boats \
        come back with the catch of the night, and women in yellow aprons sort the fish on wet tables. A cat waits \
        under each of them. By noon everything has been washed away with sea water, and only the smell tells what \
        was sold here a few hours ago.\n\nVisitors who have slept too long find an empty square with a view.";

    fn names(text: &str) -> Vec<String> {
        broken(&measure(text), true).0.into_iter().map(|rule| rule.measure).collect()
    }

    #[test]
    fn prose_keeps_every_rule() {
        assert!(names(PROSE).is_empty(), "{:?}", names(PROSE));
    }

    #[test]
    fn a_page_that_repeats_one_paragraph_seventy_times_is_recognised() {
        let page = vec![PROSE.split("\n\n").next().unwrap(); 70].join("\n\n");
        let found = names(&page);
        for name in [
            "duplicate_paragraphs",
            "duplicate_lines",
            "duplicate_paragraph_characters",
            "duplicate_10_grams",
        ] {
            assert!(found.iter().any(|found| found == name), "{name}: {found:?}");
        }
        let run_on = vec![PROSE.replace('\n', " "); 70].join(" ");
        assert!(names(&run_on).contains(&"duplicate_5_grams".to_owned()), "without line breaks too");
    }

    #[test]
    fn what_is_no_prose_says_why() {
        let list = "- bread and milk with honey to the house\n".repeat(3)
            + &"- one more thing to buy\n- another\n".repeat(9);
        assert!(names(&list).contains(&"bullet_lines".to_owned()));
        assert!(names("too short").contains(&"words".to_owned()));
        assert!(names(&"12 345 6,789 ".repeat(40)).contains(&"alphabetic_words".to_owned()));
        assert!(names(&PROSE.replace(' ', " # ")).contains(&"symbols_per_word".to_owned()));
        assert!(names(&PROSE.replace(' ', "")).contains(&"mean_word_length".to_owned()));
        let (broken, rules) = broken(&measure(PROSE), false);
        assert_eq!((broken.len(), rules), (0, 21));
    }
}
