//! How byte-level BPE splits a text into words before it merges.
//!
//! Each vocabulary names its rule in `tokenizer.ggml.pre`. The published patterns end in
//! `\s+(?!\S)|\s+`: a run of white space leaves its last character to the word after it. Look-ahead needs a
//! backtracking engine, so the patterns here end in `\s+` and [`Splitter::split`] gives the last character
//! back: the same words, in linear time on any input.

use std::ops::Range;

use regex::Regex;

use super::TokenizerError;

/// English contractions as GPT-2 knows them, words, numbers, the rest, white space.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
/// Llama 3: contractions in any case, numbers by three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// Qwen 2: as Llama 3, digits one by one.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// Mistral Tekken: words also end where lower case turns to upper case.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
/// GPT-4o and Llama 4: as Tekken, with contractions and numbers by three digits.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";

/// What a `pre` name stands for.
#[derive(Debug)]
pub(super) struct Rule {
    /// Patterns, each applied within the pieces that the one before left.
    patterns: &'static [&'static str],
    /// A word that is a token as it stands is not merged from its bytes.
    pub whole_words: bool,
    /// Whether a prompt starts with the beginning token unless the file says otherwise.
    pub add_bos: bool,
}

impl Rule {
    /// The rule called `pre`; an empty name is the fallback of files older than the field.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] naming a `pre` that is not known: a guess would give wrong ids silently.
    pub fn named(pre: &str) -> Result<Rule, TokenizerError> {
        let plain = |patterns| Rule { patterns, whole_words: false, add_bos: false };
        Ok(match pre {
            "" | "default" => plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"]),
            "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "jina-v2-es" | "jina-v2-de" | "jina-v2-code"
            | "roberta-bpe" | "gigachat" | "mpt" | "olmo" | "exaone4" | "a.x-4.0" | "mellum" => {
                plain(&[GPT2])
            }
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "lfm2"
            | "midm-2.0" => Rule { patterns: &[LLAMA3], whole_words: true, add_bos: true },
            "dbrx" | "smaug-bpe" => plain(&[LLAMA3]),
            "qwen2" | "deepseek-r1-qwen" | "megrez" | "stablelm2" | "hunyuan" | "solar-open" => {
                plain(&[QWEN2])
            }
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "minerva-7b"
            | "granite-docling" => plain(&[r"\p{N}", GPT2]),
            "tekken" => Rule { patterns: &[TEKKEN], whole_words: true, add_bos: false },
            "gpt-4o" | "llama4" => plain(&[GPT4O]),
            "deepseek-coder" => plain(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"]),
            other => {
                return Err(TokenizerError::Invalid {
                    what: format!("tokenizer.ggml.pre `{}` is not known", short(other)),
                });
            }
        })
    }

    /// Compiles the patterns.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] if a pattern is beyond the regex engine's size limit.
    pub fn compile(&self) -> Result<Splitter, TokenizerError> {
        let stages = self.patterns.iter().map(|pattern| {
            let regex = Regex::new(pattern)
                .map_err(|error| TokenizerError::Invalid { what: format!("split pattern: {error}") })?;
            Ok(Stage {
                regex,
                gives_back: pattern.ends_with(r"|\s+"),
                keeps_newlines: pattern.contains(r"\s*[\r\n]+"),
            })
        });
        Ok(Splitter { stages: stages.collect::<Result<_, _>>()? })
    }
}

/// The first 60 characters of a name from a file.
fn short(name: &str) -> String {
    name.chars().take(60).collect()
}

#[derive(Debug)]
struct Stage {
    regex: Regex,
    /// The pattern ends in `\s+` for `\s+(?!\S)|\s+`.
    gives_back: bool,
    /// White space that ends a line is a word of its own.
    keeps_newlines: bool,
}

/// Splits texts into words.
#[derive(Debug)]
pub(super) struct Splitter {
    stages: Vec<Stage>,
}

impl Splitter {
    /// Calls `word` with each piece of `text`, in order; together they are the whole text.
    pub fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        split_stages(&self.stages, text, word);
    }
}

fn split_stages<'t>(stages: &[Stage], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    let Some((stage, rest)) = stages.split_first() else {
        if !text.is_empty() {
            word(text);
        }
        return;
    };
    let mut at = 0;
    while at < text.len() {
        let Some(found) = stage.next(text, at) else { break };
        if found.start > at {
            split_stages(rest, &text[at..found.start], word);
        }
        split_stages(rest, &text[found.clone()], word);
        at = found.end;
    }
    if at < text.len() {
        split_stages(rest, &text[at..], word);
    }
}

impl Stage {
    /// The next match from byte `at`, never empty.
    fn next(&self, text: &str, at: usize) -> Option<Range<usize>> {
        let found = self.regex.find_at(text, at)?.range();
        if !self.gives_back || found.end == text.len() {
            return Some(found);
        }
        let run = &text[found.clone()];
        // Only the last alternative matches nothing but white space, save for lines' ends.
        let last = run.chars().next_back()?;
        let blank = last.is_whitespace() && run.chars().all(char::is_whitespace);
        if !blank || (self.keeps_newlines && matches!(last, '\r' | '\n')) || run.len() == last.len_utf8() {
            return Some(found);
        }
        Some(found.start..found.end - last.len_utf8())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'t>(pre: &str, text: &'t str) -> Vec<&'t str> {
        let mut out = Vec::new();
        Rule::named(pre).unwrap().compile().unwrap().split(text, &mut |w| out.push(w));
        out
    }

    #[test]
    fn leaves_the_last_space_to_the_next_word() {
        assert_eq!(words("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(words("gpt-2", "a \n b  "), ["a", " \n", " b", "  "]);
        assert_eq!(words("llama-bpe", "a \n  b"), ["a", " \n", " ", " b"]);
        assert_eq!(words("qwen2", "x\t\ty 12"), ["x", "\t", "\ty", " ", "1", "2"]);
    }

    #[test]
    fn splits_numbers_as_each_rule_says() {
        assert_eq!(words("llama-bpe", "12345"), ["123", "45"]);
        assert_eq!(words("smollm", "a 123"), ["a", " ", "1", "2", "3"]);
        assert_eq!(words("gpt-2", "a 123"), ["a", " 123"]);
        assert_eq!(words("tekken", "fooBar"), ["foo", "Bar"]);
        assert_eq!(words("default", "a.12345"), ["a", ".", "123", "45"]);
    }

    #[test]
    fn contractions_follow_case_where_the_rule_does() {
        assert_eq!(words("gpt-2", "I'm I'M"), ["I", "'m", " I", "'", "M"]);
        assert_eq!(words("qwen2", "I'm I'M"), ["I", "'m", " I", "'M"]);
    }

    #[test]
    fn names_an_unknown_rule() {
        let error = Rule::named("no-such").unwrap_err().to_string();
        assert!(error.contains("`no-such`"), "{error}");
    }
}
