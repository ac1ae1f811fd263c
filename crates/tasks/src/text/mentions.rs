//! Where quoted words stand in a text.

use super::extract::Entity;
use std::ops::Range;

/// Words that somebody says are in a text, and what kind of thing they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The words.
    pub text: String,
    /// The kind.
    pub label: String,
}

/// Every place of every quote in `text`, in order, with score 1. White space of the two may differ; letters may differ in
/// case where a quote is nowhere else; a quote begins and ends with words. What is not there is left out, and of places
/// that overlap the longer one is kept, the first quote's of equal ones.
pub fn mentions(text: &str, quotes: &[Quote]) -> Vec<Entity> {
    let mut found: Vec<(Range<usize>, &str)> = Vec::new();
    for quote in quotes {
        let words = quote.text.trim();
        let mut places = places(text, words, |a, b| a == b);
        if places.is_empty() {
            places = self::places(text, words, |a, b| a.to_lowercase().eq(b.to_lowercase()));
        }
        found.extend(places.into_iter().map(|place| (place, quote.label.as_str())));
    }
    // Stable: quotes that were named first stay first.
    found.sort_by_key(|(place, _)| std::cmp::Reverse(place.len()));
    let mut kept: Vec<(Range<usize>, &str)> = Vec::new();
    for (place, label) in found {
        // Kept in order of their places, none touching another: only neighbours can overlap.
        let at = kept.partition_point(|(other, _)| other.start < place.start);
        let before = at.checked_sub(1).is_some_and(|at| kept[at].0.end > place.start);
        if !before && kept.get(at).is_none_or(|(next, _)| next.start >= place.end) {
            kept.insert(at, (place, label));
        }
    }
    let entity = |(place, label): (Range<usize>, &str)| Entity {
        label: label.to_owned(),
        score: 1.0,
        start: place.start,
        end: place.end,
    };
    kept.into_iter().map(entity).collect()
}

/// Places of `words` in `text`, none overlapping.
fn places(text: &str, words: &str, same: impl Fn(char, char) -> bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut before = None;
    let mut free = 0;
    for (start, first) in text.char_indices() {
        let inside = before.is_some_and(|before| joined(before, first));
        before = Some(first);
        if inside || start < free {
            continue;
        }
        if let Some(length) = matches(&text[start..], words, &same) {
            let end = start + length;
            let last = text[..end].chars().next_back();
            let next = text[end..].chars().next();
            if !last.zip(next).is_some_and(|(last, next)| joined(last, next)) {
                found.push(start..end);
                free = end;
            }
        }
    }
    found
}

/// Bytes of `text` that its beginning shares with all of `words`.
fn matches(text: &str, words: &str, same: &impl Fn(char, char) -> bool) -> Option<usize> {
    let (mut rest, mut wanted) = (text, words.chars().peekable());
    wanted.peek()?;
    while let Some(want) = wanted.next() {
        if want.is_whitespace() {
            while wanted.next_if(|c| c.is_whitespace()).is_some() {}
            let trimmed = rest.trim_start();
            if trimmed.len() == rest.len() {
                return None;
            }
            rest = trimmed;
            continue;
        }
        let next = rest.chars().next().filter(|next| same(*next, want))?;
        rest = &rest[next.len_utf8()..];
    }
    Some(text.len() - rest.len())
}

/// Whether two neighbours belong to one word: letters or digits of a script that puts spaces between words.
fn joined(a: char, b: char) -> bool {
    a.is_alphanumeric() && b.is_alphanumeric() && !unspaced(a) && !unspaced(b)
}

/// Characters of scripts that write words without spaces, or endings without a mark (Korean).
fn unspaced(c: char) -> bool {
    matches!(u32::from(c), 0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x9fff
        | 0xac00..=0xd7af | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quotes(list: &[(&str, &str)]) -> Vec<Quote> {
        let quote = |(text, label): &(&str, &str)| Quote { text: (*text).into(), label: (*label).into() };
        list.iter().map(quote).collect()
    }

    fn found<'a>(text: &'a str, list: &[(&str, &str)]) -> Vec<(&'a str, usize, String)> {
        let entities = mentions(text, &quotes(list)).into_iter();
        entities.map(|e| (&text[e.start..e.end], e.start, e.label)).collect()
    }

    fn at<'a>(text: &'a str, start: usize, label: &str) -> (&'a str, usize, String) {
        (text, start, label.to_owned())
    }

    #[test]
    fn every_mention_is_found_and_nothing_is_invented() {
        let text = "Ada met Bob. Ada's friend Adam met ADA.";
        assert_eq!(
            found(text, &[("Ada", "person"), ("Zoe", "person"), ("", "person"), (" ", "person")]),
            [at("Ada", 0, "person"), at("Ada", 13, "person")]
        );
        assert_eq!(found(text, &[("bob", "person")]), [at("Bob", 8, "person")]);
        assert_eq!(found(text, &[("da", "x"), ("Bo", "x")]), []);
    }

    #[test]
    fn white_space_may_differ_and_longer_places_win() {
        let text = "the Tower of\n London, in London";
        let list = [("London", "place"), ("Tower of London", "building"), ("London", "person")];
        assert_eq!(found(text, &list), [at("Tower of\n London", 4, "building"), at("London", 25, "place")]);
    }

    #[test]
    fn scripts_without_spaces_are_searched_too() {
        assert_eq!(found("山田さんは東京にいる", &[("東京", "place")]), [at("東京", 15, "place")]);
        assert_eq!(found("서울에서", &[("서울", "place")]), [at("서울", 0, "place")]);
        assert_eq!(found("ÉCOLE", &[("école", "place")]), [at("ÉCOLE", 0, "place")]);
    }

    proptest! {
        #[test]
        fn places_are_in_order_and_hold_their_words(
            text in "[abA é漢\n]{0,60}",
            quotes in prop::collection::vec("[abA é漢]{0,4}", 0..6),
        ) {
            let list: Vec<Quote> =
                quotes.iter().map(|q| Quote { text: q.clone(), label: q.clone() }).collect();
            let mut end = 0;
            for entity in mentions(&text, &list) {
                prop_assert!(entity.start >= end && entity.end > entity.start);
                end = entity.end;
                let plain = |t: &str| t.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
                prop_assert_eq!(plain(&text[entity.start..entity.end]), plain(&entity.label));
            }
        }
    }
}
