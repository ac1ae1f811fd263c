//! What the patterns of a `tokenizer.json` may cost, decided before any of them is compiled.
//!
//! A dozen characters such as `\w{1,100000}` ask the regex engine for tens of megabytes, so every pattern is
//! parsed first, and the states that its automaton would have are estimated from above.

use fancy_regex::Expr;
use serde_json::Value;

use super::TokenizerError;

/// Longest pattern, in bytes. Published tokenizers stay below 1,000.
const MAX_BYTES: usize = 4096;
/// States that all patterns of a file may have together, which is some 10 MiB of memory. GPT-4o's pattern, the
/// largest published, is estimated at 30,000, most of them for the Unicode classes.
const MAX_STATES: usize = 48_000;
/// States of a Unicode class such as `\p{L}`, with room for both directions of search and either case.
const UNICODE_CLASS: usize = 900;
/// The same for digits and white space.
const SMALL_CLASS: usize = 300;
/// States that stand for the fixed memory of a part that is compiled on its own, and for the caches that each
/// keeps once it searches.
const PART: usize = 250;

/// What a pattern costs.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// States of its automata.
    states: usize,
    /// Capture groups: some engines keep two positions per group and state.
    groups: usize,
}

impl Cost {
    fn leaf(states: usize) -> Cost {
        Cost { states, groups: 0 }
    }

    fn and(self, other: Cost) -> Cost {
        Cost {
            states: self.states.saturating_add(other.states),
            groups: self.groups.saturating_add(other.groups),
        }
    }

    /// Groups are counted once: copies of a repetition share them.
    fn times(self, count: usize) -> Cost {
        Cost { states: self.states.max(1).saturating_mul(count.max(1)), ..self }
    }

    /// All in states.
    fn total(self, parts: usize) -> usize {
        let states = self.states.saturating_add(parts.saturating_mul(PART));
        states.saturating_mul(1 + self.groups.div_ceil(4))
    }
}

/// Refuses the stages in `value`, found in `field`, if their patterns, each compiled `copies` times, would take
/// too much memory.
///
/// # Errors
/// [`TokenizerError::Invalid`] with the field, the pattern, its cost and the limit.
pub(super) fn check(field: &str, value: &Value, copies: usize) -> Result<(), TokenizerError> {
    let mut states = 0usize;
    walk(value, &mut |pattern, is_regex| {
        let invalid = |what: String| {
            let shown: String = pattern.chars().take(60).collect();
            TokenizerError::Invalid { what: format!("{field}: pattern `{shown}` {what}") }
        };
        if pattern.len() > MAX_BYTES {
            return Err(invalid(format!("has {} bytes, limit {MAX_BYTES}", pattern.len())));
        }
        let more = if is_regex {
            let tree = Expr::parse_tree(pattern).map_err(|error| invalid(format!("is wrong: {error}")))?;
            total(&tree.expr)
        } else {
            Cost::leaf(pattern.len()).total(1)
        };
        states = states.saturating_add(more.saturating_mul(copies));
        if states > MAX_STATES {
            return Err(invalid(format!("brings the patterns to {states} states, limit {MAX_STATES}")));
        }
        Ok(())
    })
}

/// Calls `visit` with every pattern in `value` and whether it is a regular expression or a plain string.
fn walk(
    value: &Value,
    visit: &mut impl FnMut(&str, bool) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    match value {
        Value::Array(list) => list.iter().try_for_each(|inner| walk(inner, visit)),
        Value::Object(map) => map.iter().try_for_each(|(key, inner)| match (key.as_str(), inner) {
            ("Regex", Value::String(pattern)) => visit(pattern, true),
            ("String", Value::String(pattern)) => visit(pattern, false),
            _ => walk(inner, visit),
        }),
        _ => Ok(()),
    }
}

/// What a whole pattern costs, in states.
fn total(expr: &Expr) -> usize {
    cost(expr).total(parts(expr, false))
}

/// Whether only the backtracking engine can run `expr`.
fn backtracks(expr: &Expr) -> bool {
    match expr {
        Expr::Empty | Expr::Any { .. } | Expr::Literal { .. } | Expr::Delegate { .. } => false,
        Expr::Concat(list) | Expr::Alt(list) => list.iter().any(backtracks),
        Expr::Group(child) | Expr::Repeat { child, .. } => backtracks(child),
        _ => true,
    }
}

/// How many automata the engine may make of `expr`: one of each piece that needs no backtracking, but `split`
/// pieces, the neighbours of one that does, come apart.
fn parts(expr: &Expr, split: bool) -> usize {
    if !split && !backtracks(expr) {
        return 1;
    }
    match expr {
        Expr::Literal { casei: false, .. } | Expr::Empty => 0,
        Expr::Concat(list) => list.iter().map(|child| parts(child, true)).sum(),
        Expr::Alt(list) => list.iter().map(|child| parts(child, split)).sum(),
        Expr::Group(child) => parts(child, split),
        Expr::Repeat { child, .. } => parts(child, split || backtracks(child)),
        Expr::LookAround(child, _) | Expr::AtomicGroup(child) => parts(child, false),
        Expr::Conditional { condition, true_branch, false_branch } => {
            parts(condition, split) + parts(true_branch, split) + parts(false_branch, split)
        }
        _ => 1,
    }
}

/// From above, what `expr` costs. The parser bounds its depth.
fn cost(expr: &Expr) -> Cost {
    let sum = |list: &[Expr]| list.iter().map(cost).fold(Cost::leaf(2 * list.len()), Cost::and);
    match expr {
        Expr::Empty | Expr::Assertion(_) | Expr::KeepOut | Expr::ContinueFromPreviousMatchEnd => {
            Cost::leaf(2)
        }
        Expr::Any { .. } => Cost::leaf(24),
        // A letter has up to four forms of up to three bytes.
        Expr::Literal { val, casei } => Cost::leaf(val.len() * if *casei { 12 } else { 1 } + 1),
        Expr::Delegate { inner, casei, .. } => Cost::leaf(class(inner, *casei)),
        Expr::Concat(list) | Expr::Alt(list) => sum(list),
        Expr::Group(child) => cost(child).and(Cost { states: 2, groups: 1 }),
        Expr::LookAround(child, _) | Expr::AtomicGroup(child) => cost(child).and(Cost::leaf(2)),
        Expr::Repeat { child, lo, hi, .. } => {
            let count = if *hi == usize::MAX { *lo } else { *hi };
            cost(child).times(count).and(Cost::leaf(2))
        }
        Expr::Conditional { condition, true_branch, false_branch } => {
            [condition, true_branch, false_branch].into_iter().map(|e| cost(e)).fold(Cost::leaf(2), Cost::and)
        }
        // References and calls: the engine refuses most of them.
        _ => Cost::leaf(16),
    }
}

/// States of a class: each range may need several sequences of bytes, and a named class hundreds of ranges.
fn class(source: &str, ignores_case: bool) -> usize {
    let named = source.as_bytes().windows(2).map(|pair| match pair {
        [b'\\', b'p' | b'P' | b'w' | b'W'] => UNICODE_CLASS,
        [b'\\', b'd' | b'D' | b's' | b'S'] => SMALL_CLASS,
        _ => 0,
    });
    let plain = if ignores_case { 12 } else { 4 };
    named.sum::<usize>() + source.len() * plain + 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn states(pattern: &str) -> usize {
        total(&Expr::parse_tree(pattern).unwrap().expr)
    }

    fn refusal(pattern: &str) -> String {
        let stage = json!({"pretokenizers": [{"type": "Split", "pattern": {"Regex": pattern}}]});
        check("pre_tokenizer", &stage, 1).unwrap_err().to_string()
    }

    #[test]
    fn published_patterns_stay_far_below_the_limit() {
        let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let gpt_4o = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let deepseek = r##"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
        for pattern in [llama3, gpt_4o, deepseek] {
            assert!(states(pattern) < MAX_STATES * 3 / 4, "{} for {pattern}", states(pattern));
        }
    }

    #[test]
    fn repetitions_multiply() {
        assert!(refusal(r"\w{1,100000}").contains("limit 48000"));
        assert!(refusal("(?:(?:(?:a{60}){60}){60}){60}").contains("limit 48000"));
        assert!(refusal("(?:){18446744073709551615}").contains("pattern `(?:){18446744073709551615}`"));
        assert!(states(r"\p{N}{1,3}") < 4 * states(r"\p{N}"));
    }

    #[test]
    fn refusals_name_field_pattern_and_limit() {
        assert!(refusal(&"a".repeat(4097)).contains("has 4097 bytes, limit 4096"));
        assert!(refusal(&"(?=[ab])".repeat(300)).contains("states, limit 48000"));
        let wrong = refusal("(a");
        assert!(wrong.starts_with("tokenizer: pre_tokenizer: pattern `(a` is wrong"), "{wrong}");
        assert!(refusal(&"(?:".repeat(1000)).contains("is wrong"));
    }
}
