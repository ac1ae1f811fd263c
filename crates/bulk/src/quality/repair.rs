//! Text that was damaged on its way: UTF-8 read as Windows-1252, control characters, mixed forms of one letter.

use unicode_normalization::UnicodeNormalization;

/// Texts may have gone the wrong way more than once.
const ROUNDS: usize = 3;

/// A text as it was meant: UTF-8 that was read as Windows-1252 or Latin-1 is read again (as ftfy does, Speer 2019),
/// control characters and byte order marks go, line ends become `\n`, and letters get Unicode's normal form C.
pub(crate) fn repair(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..ROUNDS {
        match decoded(&text) {
            Some(better) => text = better,
            None => break,
        }
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                plain.push('\n');
            }
            '\n' | '\t' => plain.push(c),
            '\u{85}' => plain.push('…'),
            '\u{80}'..='\u{9F}' => plain.extend(of_windows(c as u8)),
            '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}' => {}
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain.nfc().collect()
}

/// What Windows-1252 has for the bytes 0x80 to 0x9F; five of them have nothing.
const WINDOWS: [char; 32] = [
    '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', '\0', '‘', '’', '“',
    '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\0', 'ž', 'Ÿ',
];

fn of_windows(byte: u8) -> Option<char> {
    WINDOWS.get(usize::from(byte).checked_sub(0x80)?).copied().filter(|c| *c != '\0')
}

/// The byte that Windows-1252 or, for what that has not, Latin-1 reads as this character.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0x80..=0xFF => u8::try_from(code).ok(),
        0..=0x7F => None,
        _ => WINDOWS.iter().position(|own| *own == c).and_then(|at| u8::try_from(at + 0x80).ok()),
    }
}

/// A place where characters are the bytes of one character.
struct Found {
    start: usize,
    end: usize,
    meant: char,
    /// Whether nobody writes such characters together.
    sure: bool,
}

/// The text with such places read again; `None` if there are none, or if they may be meant as they are.
fn decoded(text: &str) -> Option<String> {
    let mut found = places(text);
    // Several in a row are no accident: two of the doubtful ones side by side count as sure.
    let adjacent: Vec<bool> = (0..found.len())
        .map(|at| {
            let follows =
                |one: usize, next: usize| found.get(next).is_some_and(|n| found[one].end == n.start);
            follows(at, at + 1) || (at > 0 && follows(at - 1, at))
        })
        .collect();
    found.iter_mut().zip(adjacent).for_each(|(place, adjacent)| place.sure |= adjacent);
    if !found.iter().any(|place| place.sure) {
        return None;
    }
    let (mut better, mut at) = (String::with_capacity(text.len()), 0);
    for place in found {
        better.push_str(&text[at..place.start]);
        better.push(place.meant);
        at = place.end;
    }
    better.push_str(&text[at..]);
    Some(better)
}

fn places(text: &str) -> Vec<Found> {
    let chars: Vec<(usize, char)> = text.char_indices().filter(|(_, c)| !c.is_ascii()).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let (start, first) = chars[at];
        let length = match byte_of(first) {
            Some(0xC2..=0xDF) => 2,
            Some(0xE0..=0xEF) => 3,
            Some(0xF0..=0xF4) => 4,
            _ => 0,
        };
        let mut bytes = Vec::with_capacity(4);
        let mut end = start;
        for (place, c) in chars.iter().skip(at).take(length) {
            match byte_of(*c) {
                Some(byte) if *place == end => bytes.push(byte),
                _ => break,
            }
            end = place + c.len_utf8();
        }
        let meant = std::str::from_utf8(&bytes).ok().and_then(|text| text.chars().next());
        match meant {
            Some(meant) if length > 0 && bytes.len() == length => {
                // A letter before a quote or a dash is written: `Ä“`, `Ã”`.
                let is_mark = matches!(bytes[1], 0x80..=0x9F) && chars[at + 1].1 > '\u{FF}';
                let sure = length > 2 || (matches!(bytes[0], 0xC2 | 0xC3) && !is_mark);
                found.push(Found { start, end, meant, sure });
                at += length;
            }
            _ => at += 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UTF-8 read as Windows-1252, with Latin-1 for the five bytes that it has not.
    fn misread(text: &str) -> String {
        text.bytes().map(|byte| of_windows(byte).unwrap_or(char::from(byte))).collect()
    }

    #[test]
    fn what_was_read_wrongly_is_read_again() {
        for text in [
            "naïve café — “quoted” text…",
            "Größe, Maß, Übung",
            "El Niño está aquí",
            "Привет, мир",
            "漢字とかな",
            "price: 5\u{a0}€, 20°",
            "smile 😀 done",
        ] {
            assert_eq!(repair(&misread(text)), text);
            assert_eq!(repair(&misread(&misread(text))), text, "twice");
            assert_eq!(repair(text), text, "what is right stays");
        }
    }

    #[test]
    fn what_is_meant_stays() {
        for text in [
            "„Spaß“ und „Ä“",
            "IRMÃ”",
            "Â",
            "São Paulo – é",
            "ÀÉÎ",
            "5 µm ± 2 %",
            "ñ’",
            "Ãtilde",
            "à la “carte”",
        ] {
            assert_eq!(repair(text), text);
        }
    }

    #[test]
    fn controls_go_and_letters_get_one_form() {
        assert_eq!(repair("\u{feff}a\r\nb\rc\0\x1b[31m\td\u{7f}"), "a\nb\nc[31m\td");
        assert_eq!(repair("e\u{301}t\u{e9}"), "été");
        assert_eq!(repair("don\u{92}t \u{85}"), "don’t …");
        assert_eq!(repair(""), "");
    }
}
