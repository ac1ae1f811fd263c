//! Texts cut into pieces that a model takes.

use crate::EngineError;

/// How long a text is to a model.
pub(super) type Measure<'a> = &'a dyn Fn(&str) -> Result<usize, EngineError>;

/// Cuts a text into pieces of at most `limit` in the measure of `size`: at the ends of sentences where it can, between
/// words where a sentence is too long, between characters where a word is. White space between pieces is dropped.
pub(super) fn pieces(text: &str, limit: usize, size: Measure<'_>) -> Result<Vec<String>, EngineError> {
    let mut pieces: Vec<String> = Vec::new();
    let mut open = String::new();
    for sentence in sentences(text) {
        let joined = join(&open, sentence);
        if size(&joined)? <= limit {
            open = joined;
            continue;
        }
        pieces.extend(Some(std::mem::take(&mut open)).filter(|piece| !piece.is_empty()));
        if size(sentence)? <= limit {
            open = sentence.to_owned();
            continue;
        }
        for part in halves(sentence, limit, size)? {
            pieces.push(part);
        }
    }
    pieces.extend(Some(open).filter(|piece| !piece.is_empty()));
    Ok(pieces)
}

fn join(before: &str, sentence: &str) -> String {
    if before.is_empty() { sentence.to_owned() } else { format!("{before} {sentence}") }
}

/// Halves a text that is too long, again and again, at the space nearest its middle.
fn halves(text: &str, limit: usize, size: Measure<'_>) -> Result<Vec<String>, EngineError> {
    let text = text.trim();
    if text.is_empty() || size(text)? <= limit {
        return Ok(Some(text.to_owned()).filter(|text| !text.is_empty()).into_iter().collect());
    }
    let middle = text.len() / 2;
    let spaces = text.char_indices().filter(|(at, c)| c.is_whitespace() && *at > 0).map(|(at, _)| at);
    let space = spaces.min_by_key(|at| at.abs_diff(middle));
    let between = text.char_indices().skip(1).map(|(at, _)| at).min_by_key(|at| at.abs_diff(middle));
    let Some(at) = space.or(between) else {
        let what = format!("the model takes {limit} tokens, too few for `{text}`");
        return Err(EngineError::Unsuitable { what });
    };
    let (first, second) = text.split_at(at);
    let mut parts = halves(first, limit, size)?;
    parts.extend(halves(second, limit, size)?);
    Ok(parts)
}

/// Sentences of a text, as far as marks tell: `.`, `!`, `?` and their kin, then white space; or the marks that need none.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        let ends = match c {
            '。' | '！' | '？' | '；' => {
                !matches!(next, Some('”' | '」' | '』' | '）' | '。' | '！' | '？'))
            }
            '.' | '!' | '?' | '…' | '؟' | '।' | ')' | '"' | '”' | '»' => {
                let marked = matches!(c, '.' | '!' | '?' | '…' | '؟' | '।')
                    || text[start..at].ends_with(['.', '!', '?', '…']);
                marked && next.is_none_or(char::is_whitespace) && !abbreviates(&text[start..at], c)
            }
            _ => false,
        };
        if ends {
            let end = at + c.len_utf8();
            found.push(text[start..end].trim());
            start = end;
        }
    }
    found.push(text[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// A point after a single letter or a usual short form ends no sentence.
fn abbreviates(before: &str, mark: char) -> bool {
    const SHORT: [&str; 16] = [
        "Mr", "Mrs", "Ms", "Dr", "Prof", "St", "vs", "etc", "e.g", "i.e", "No", "Nr", "bzw", "z.B", "M",
        "Mme",
    ];
    let word = before.rsplit(char::is_whitespace).next().unwrap_or(before);
    let single = word.chars().count() == 1 && word.chars().all(char::is_alphabetic);
    mark == '.' && (single || SHORT.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_they_seem_to() {
        let cases: [(&str, &[&str]); 7] = [
            ("One. Two! Three? Four", &["One.", "Two!", "Three?", "Four"]),
            (
                "Dr. Smith has 3.5 apples, e.g. red ones. He eats.",
                &["Dr. Smith has 3.5 apples, e.g. red ones.", "He eats."],
            ),
            ("他来了。她走了！真的？", &["他来了。", "她走了！", "真的？"]),
            ("\"Go.\" She went. (Later.) End", &["\"Go.\"", "She went.", "(Later.)", "End"]),
            ("वह आया। वह गया।", &["वह आया।", "वह गया।"]),
            ("www.example.org is a site", &["www.example.org is a site"]),
            ("  ", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(sentences(text), expected, "{text}");
        }
    }

    #[test]
    fn pieces_fit_and_lose_nothing() {
        let size = |text: &str| -> Result<usize, EngineError> { Ok(text.chars().count()) };
        let text =
            "Short one. A somewhat longer sentence is here. Averyveryverylongwordwithoutanyspace. End.";
        for limit in [5, 12, 20, 40, 200] {
            let found = pieces(text, limit, &size).unwrap();
            assert!(found.iter().all(|piece| piece.chars().count() <= limit), "{limit}: {found:?}");
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            assert_eq!(letters(&found.concat()), letters(text), "{limit}");
        }
        assert_eq!(pieces(text, 200, &size).unwrap().len(), 1);
        assert!(pieces("é", 0, &size).is_err());
    }
}
