//! Which tokens of which sequences run in the next step.

use std::ops::Range;

/// What a program was planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of a step; at least `sequences`.
    pub tokens: usize,
    /// Output rows of a step; at least `sequences`.
    pub rows: usize,
    /// Sequences of a step.
    pub sequences: usize,
}

/// What one sequence has left to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Tokens that are not in the cache yet; at least 1.
    pub tokens: usize,
    /// Those of them whose logits are wanted.
    pub rows: Range<usize>,
}

/// The part of a step that belongs to one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of the sequence.
    pub sequence: usize,
    /// Its first so many pending tokens run.
    pub tokens: usize,
    /// Those of them whose logits are computed.
    pub rows: Range<usize>,
}

/// Fills a step: every sequence with a single token left goes first, so that answers keep flowing; prompts take what
/// room is left, in chunks, oldest first. Parts are in the order of `pending`.
///
/// As long as `pending` is no longer than `limits.sequences` and no sequence has more than one wanted row besides one
/// that is scored, every step moves at least one sequence.
pub fn next_batch(pending: &[Pending], limits: Limits) -> Vec<Part> {
    let (mut tokens, mut rows) = (limits.tokens, limits.rows);
    let mut parts = Vec::with_capacity(pending.len().min(limits.sequences));
    let mut take = |index: usize, p: &Pending| {
        let mut count = p.tokens.min(tokens);
        // The wanted rows are consecutive: a chunk may reach into them only as far as rows are left.
        count = count.min(p.rows.start.saturating_add(rows));
        if count == 0 || parts.len() == limits.sequences {
            return;
        }
        let wanted = p.rows.start.min(count)..p.rows.end.min(count);
        tokens -= count;
        rows -= wanted.len();
        parts.push(Part { sequence: index, tokens: count, rows: wanted });
    };
    for (index, p) in pending.iter().enumerate().filter(|(_, p)| p.tokens == 1) {
        take(index, p);
    }
    for (index, p) in pending.iter().enumerate().filter(|(_, p)| p.tokens > 1) {
        take(index, p);
    }
    parts.sort_unstable_by_key(|p| p.sequence);
    parts
}

#[cfg(test)]
mod tests {
    use super::{Limits, Part, Pending, next_batch};
    use proptest::prelude::{Strategy, prop_assert, proptest};

    const LIMITS: Limits = Limits { tokens: 8, rows: 3, sequences: 3 };

    fn prompt(tokens: usize) -> Pending {
        Pending { tokens, rows: tokens - 1..tokens }
    }

    #[test]
    fn decodes_go_first_and_the_oldest_prompt_fills_the_step() {
        let parts = next_batch(&[prompt(20), prompt(1), prompt(5)], LIMITS);
        assert_eq!(
            parts,
            [Part { sequence: 0, tokens: 7, rows: 7..7 }, Part { sequence: 1, tokens: 1, rows: 0..1 }]
        );
    }

    #[test]
    fn the_end_of_a_prompt_and_the_next_prompt_share_a_step() {
        let parts = next_batch(&[prompt(3), prompt(20)], LIMITS);
        assert_eq!(
            parts,
            [Part { sequence: 0, tokens: 3, rows: 2..3 }, Part { sequence: 1, tokens: 5, rows: 5..5 }]
        );
    }

    #[test]
    fn a_scored_text_is_cut_where_rows_run_out() {
        let parts = next_batch(&[Pending { tokens: 9, rows: 2..8 }], LIMITS);
        assert_eq!(parts, [Part { sequence: 0, tokens: 5, rows: 2..5 }]);
        let parts = next_batch(&[Pending { tokens: 4, rows: 0..3 }], LIMITS);
        assert_eq!(parts, [Part { sequence: 0, tokens: 3, rows: 0..3 }]);
        let parts = next_batch(&[Pending { tokens: 1, rows: 0..0 }], LIMITS);
        assert_eq!(parts, [Part { sequence: 0, tokens: 1, rows: 0..0 }]);
    }

    fn pending() -> impl Strategy<Value = Pending> {
        (1..40usize, 0..40usize, proptest::bool::ANY).prop_map(|(tokens, from, scored)| {
            if scored { Pending { tokens, rows: from.min(tokens)..tokens } } else { prompt(tokens) }
        })
    }

    proptest! {
        #[test]
        fn steps_keep_their_limits_and_always_move(
            pending in proptest::collection::vec(pending(), 1..6),
            tokens in 6..64usize,
            rows in 6..20usize,
        ) {
            let limits = Limits { tokens, rows, sequences: 6 };
            let parts = next_batch(&pending, limits);
            prop_assert!(!parts.is_empty());
            prop_assert!(parts.iter().map(|p| p.tokens).sum::<usize>() <= tokens);
            prop_assert!(parts.iter().map(|p| p.rows.len()).sum::<usize>() <= rows);
            prop_assert!(parts.windows(2).all(|w| w[0].sequence < w[1].sequence));
            for part in &parts {
                let p = &pending[part.sequence];
                prop_assert!(part.tokens >= 1 && part.tokens <= p.tokens);
                prop_assert!(part.rows.end <= part.tokens);
                let wanted: Vec<usize> = p.rows.clone().filter(|r| *r < part.tokens).collect();
                prop_assert!(wanted.iter().copied().eq(part.rows.clone()));
            }
            for (index, p) in pending.iter().enumerate().filter(|(_, p)| p.tokens == 1) {
                prop_assert!(parts.iter().any(|part| part.sequence == index), "{p:?} waits");
            }
        }
    }
}
