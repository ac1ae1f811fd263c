//! Personal data that has a form: e-mail addresses, telephone and card numbers, bank accounts, network addresses.
//!
//! | kind | what is taken for one |
//! |---|---|
//! | `EMAIL` | a name, `@`, and a domain with a dot |
//! | `URL` | `http://`, `https://`, `ftp://` or `www.` up to white space or a closing mark |
//! | `IBAN` | two letters, two digits and 11 to 30 letters or digits, in groups or not, whose check digits hold (ISO 13616) |
//! | `CARD` | 12 to 19 digits, in groups or not, that pass the Luhn test (ISO/IEC 7812) |
//! | `IP` | IPv4 in four numbers; IPv6 in any form with a digit |
//! | `PHONE` | `+` or `00` and 8 to 15 digits; a leading 0 and 8 to 14 digits in groups; `(555) 555-0100` and `555-555-0100` |
//!
//! What a form cannot show, such as names, takes a model: its entities are added by [`merge`].

use super::extract::Entity;
use regex::Regex;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::OnceLock;

struct Pattern {
    kind: &'static str,
    regex: Regex,
    accepts: fn(&str) -> bool,
}

/// In the order in which they claim a place.
fn patterns() -> &'static [Pattern] {
    static PATTERNS: OnceLock<Vec<Pattern>> = OnceLock::new();
    PATTERNS.get_or_init(|| {
        let pattern = |kind, regex: &str, accepts| Pattern {
            kind,
            regex: Regex::new(regex).expect("the patterns are constants of ours"),
            accepts,
        };
        vec![
            pattern("URL", r#"(?i)\b(?:(?:https?|ftp)://|www\.)[^\s<>"'`\[\]{}|\\^]+"#, |_| true),
            pattern(
                "EMAIL",
                r"(?i)[a-z0-9](?:[a-z0-9._%+\-]{0,63})@[a-z0-9](?:[a-z0-9\-]{0,62}\.)+[a-z][a-z0-9\-]{1,62}",
                |_| true,
            ),
            pattern("IBAN", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", iban),
            pattern("IP", r"(?i)[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?:\d{0,3}(?:\.\d{1,3}){3})?", |t| {
                t.parse::<Ipv6Addr>().is_ok() && t.bytes().any(|b| b.is_ascii_digit())
            }),
            pattern("IP", r"\b\d{1,3}(?:\.\d{1,3}){3}\b", |t| t.parse::<Ipv4Addr>().is_ok()),
            pattern("CARD", r"\b\d(?:[ \-]?\d){11,18}\b", card),
            pattern(
                "PHONE",
                r"(?:\+|\b00)[1-9]\d{0,2}(?:[ .\-/]?\(?\d{1,5}\)?){2,7}\b|\(?\b0[1-9]\d{0,4}\)?(?:[ .\-/]{1,2}\d{2,9}){1,5}\b|(?:\(\d{3}\) ?|\b\d{3}[ .\-])\d{3}[ .\-]\d{4}\b",
                phone,
            ),
        ]
    })
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// ISO 13616: moved to the end, the first four characters leave 1 modulo 97.
fn iban(text: &str) -> bool {
    let compact: Vec<char> = text.chars().filter(|c| *c != ' ').collect();
    if !(15..=34).contains(&compact.len()) {
        return false;
    }
    let turned = compact[4..].iter().chain(&compact[..4]);
    let rest = turned.filter_map(|c| c.to_digit(36)).fold(0u32, |rest, value| {
        let shift = if value < 10 { 10 } else { 100 };
        (rest * shift + value) % 97
    });
    rest == 1
}

/// The Luhn test; one digit repeated passes it sometimes and is no number of a card.
fn card(text: &str) -> bool {
    let digits = digits(text);
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match (place % 2, digit * 2) {
            (0, _) => digit,
            (_, doubled) => doubled / 10 + doubled % 10,
        })
        .sum();
    (12..=19).contains(&digits.len()) && sum.is_multiple_of(10) && digits.iter().any(|d| *d != digits[0])
}

fn phone(text: &str) -> bool {
    let count = digits(text).len();
    let international = text.starts_with('+') || text.starts_with("00");
    if international { (8..=17).contains(&count) } else { (8..=15).contains(&count) }
}

/// Every piece of personal data in `text` that its form shows, in order and apart from each other.
pub fn find(text: &str) -> Vec<Entity> {
    let mut found: Vec<Entity> = Vec::new();
    for pattern in patterns() {
        let mut taken = found.iter().map(|e| e.start..e.end).collect::<Vec<_>>();
        taken.sort_by_key(|range| range.start);
        for hit in pattern.regex.find_iter(text) {
            let range = trimmed(text, hit.range(), pattern.kind);
            let Some(part) = text.get(range.clone()).filter(|part| !part.is_empty()) else { continue };
            if touches_word(text, &range, pattern.kind)
                || overlaps(&taken, &range)
                || !(pattern.accepts)(part)
            {
                continue;
            }
            found.push(Entity {
                label: pattern.kind.to_owned(),
                score: 1.0,
                start: range.start,
                end: range.end,
            });
        }
    }
    found.sort_by_key(|entity| entity.start);
    found
}

/// A full stop or bracket after an address belongs to the sentence.
fn trimmed(text: &str, range: Range<usize>, kind: &str) -> Range<usize> {
    let mut part = &text[range.clone()];
    if kind == "URL" {
        loop {
            let before = part;
            part = part.trim_end_matches(['.', ',', ';', ':', '!', '?']);
            if part.ends_with(')') && part.matches(')').count() > part.matches('(').count() {
                part = &part[..part.len() - 1];
            }
            if part == before {
                break;
            }
        }
    }
    range.start..range.start + part.len()
}

/// A number inside a longer word or number is part of something else.
fn touches_word(text: &str, range: &Range<usize>, kind: &str) -> bool {
    if matches!(kind, "URL" | "EMAIL") {
        return false;
    }
    let before = text[..range.start].chars().next_back();
    let mut after = text[range.end..].chars();
    let next = after.next();
    let joined = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    // `1.2.3.4.5` is a version, `1.2.3.4.` ends a sentence.
    let goes_on = matches!(next, Some('.' | ':')) && joined(after.next()) && kind == "IP";
    let went_on = kind == "IP" && matches!(before, Some('.' | ':'));
    // So is one among further groups of digits.
    let separators = [' ', '-', '.', '/'];
    let group_before = text[..range.start]
        .strip_suffix(separators)
        .is_some_and(|t| t.ends_with(|c: char| c.is_ascii_digit()));
    let group_after = text[range.end..]
        .strip_prefix(separators)
        .is_some_and(|t| t.starts_with(|c: char| c.is_ascii_digit()));
    if kind == "PHONE" && (group_before || group_after) {
        return true;
    }
    joined(before) || joined(next) || goes_on || went_on
}

/// `sorted` ranges are apart from each other.
fn overlaps(sorted: &[Range<usize>], range: &Range<usize>) -> bool {
    let next = sorted.partition_point(|taken| taken.end <= range.start);
    sorted.get(next).is_some_and(|taken| taken.start < range.end)
}

/// Entities of two sources, those of `first` kept where they overlap; in order.
pub fn merge(first: Vec<Entity>, second: Vec<Entity>) -> Vec<Entity> {
    let taken: Vec<Range<usize>> = first.iter().map(|e| e.start..e.end).collect();
    let more = second.into_iter().filter(|e| !overlaps(&taken, &(e.start..e.end)));
    let mut all: Vec<Entity> = first.iter().cloned().chain(more).collect();
    all.sort_by_key(|entity| entity.start);
    all
}

/// `text` with every entity replaced by its kind in brackets. `entities` are in order.
pub fn redact(text: &str, entities: &[Entity]) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut at = 0;
    for entity in entities.iter().filter(|e| e.start < e.end) {
        let (start, end) = (entity.start.max(at), entity.end.max(at));
        let Some(between) = text.get(at..start) else { continue };
        redacted.push_str(between);
        if end > start {
            redacted.push_str(&format!("[{}]", entity.label));
        }
        at = end;
    }
    redacted.push_str(text.get(at..).unwrap_or_default());
    redacted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(String, &str)> {
        find(text).into_iter().map(|e| (e.label, &text[e.start..e.end])).collect()
    }

    #[test]
    fn finds_each_kind_in_running_text() {
        for (text, kind, part) in [
            ("write to Jo.Doe+x@mail.example.co.uk.", "EMAIL", "Jo.Doe+x@mail.example.co.uk"),
            ("(see https://a.example/b?c=(d)&e=1).", "URL", "https://a.example/b?c=(d)&e=1"),
            ("www.example.org, please", "URL", "www.example.org"),
            ("IBAN: DE89 3704 0044 0532 0130 00, thanks", "IBAN", "DE89 3704 0044 0532 0130 00"),
            ("GB82WEST12345698765432", "IBAN", "GB82WEST12345698765432"),
            ("card 4111 1111 1111 1111 exp 12/30", "CARD", "4111 1111 1111 1111"),
            ("card 3782-822463-10005.", "CARD", "3782-822463-10005"),
            ("host 192.168.0.1.", "IP", "192.168.0.1"),
            ("host 2001:db8::ff00:42:8329 up", "IP", "2001:db8::ff00:42:8329"),
            ("loopback ::1 only", "IP", "::1"),
            ("call +49 (0)30 901820 now", "PHONE", "+49 (0)30 901820"),
            ("call +14155550132", "PHONE", "+14155550132"),
            ("call 030 90 18 20 00", "PHONE", "030 90 18 20 00"),
            ("call (415) 555-0132 or so", "PHONE", "(415) 555-0132"),
            ("call 415-555-0132", "PHONE", "415-555-0132"),
        ] {
            assert_eq!(kinds(text), [(kind.to_owned(), part)], "{text}");
        }
    }

    #[test]
    fn leaves_what_only_looks_alike() {
        for text in [
            "DE88 3704 0044 0532 0130 00",
            "4111 1111 1111 1112",
            "0000 0000 0000 0000",
            "version 1.2.3.4.5",
            "999.999.999.999",
            "on 2026-11-26 at 10:30:00",
            "in 1999 and 2001, 300 of 12000",
            "a@b, @name, x@y@z",
            "std::fmt::Debug and a::b",
            "order 12345678901",
            "",
        ] {
            assert_eq!(kinds(text), [], "{text}");
        }
    }

    #[test]
    fn redacts_and_prefers_forms_to_models() {
        let text = "Zoë (zoe@example.org) lives in Köln.";
        let entity = |label: &str, part: &str| {
            let start = text.find(part).unwrap();
            Entity { label: label.to_owned(), score: 0.9, start, end: start + part.len() }
        };
        let model = vec![entity("PER", "Zoë"), entity("ORG", "zoe@example"), entity("LOC", "Köln")];
        let all = merge(find(text), model);
        assert_eq!(redact(text, &all), "[PER] ([EMAIL]) lives in [LOC].");
        assert_eq!(redact(text, &[]), text);
    }

    #[test]
    fn long_and_hostile_texts_take_linear_time() {
        for part in ["a@", "1 ", "(", "+1", "::", "1.1.", "http://", "AB12 "] {
            let text = part.repeat(200_000 / part.len());
            for entity in find(&text) {
                assert!(text.get(entity.start..entity.end).is_some());
            }
        }
    }
}
