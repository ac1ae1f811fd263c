//! Guesses at the next tokens, which the model checks several at a time.
//!
//! A step runs the token picked last and the guesses behind it. The sampler picks from the logits of the first position as it
//! would have without guesses; as long as its pick is the guess, the logits of the next position are those that a step of its
//! own would have given, and it picks again. So an answer has the same bits with and without guesses, whatever the sampling:
//! a wrong guess costs time alone (the point-mass case of arXiv:2211.17192).

mod model;

pub(crate) use model::{Ask, DraftModel};

use std::path::PathBuf;

/// Where guesses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Speculate {
    /// Nothing is guessed.
    #[default]
    Off,
    /// What followed the last tokens where they stood before, in prompt or answer.
    Lookup,
    /// A smaller model with the same vocabulary: its file or folder.
    Model(PathBuf),
}

/// What guesses for a worker.
pub(crate) enum Drafter {
    Lookup,
    Model(Box<DraftModel>),
}

/// Beyond so many answers at once a step has work enough without guesses.
pub(crate) const MOST_SEQUENCES: usize = 4;
/// Most guesses of one step.
const MOST_GUESSES: usize = 8;
/// Guesses of the first step.
const FIRST_GUESSES: usize = 4;
/// Steps without a right guess in a row before guessing pauses.
const PATIENCE: usize = 2;
/// Longest pause, in steps.
const LONGEST_PAUSE: usize = 64;

/// What guesses have been worth to one answer, and how many are made next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Worth {
    guesses: usize,
    misses: usize,
    pause: usize,
    next_pause: usize,
}

impl Default for Worth {
    fn default() -> Worth {
        Worth { guesses: FIRST_GUESSES, misses: 0, pause: 0, next_pause: 4 }
    }
}

impl Worth {
    /// How many tokens to guess in the next step.
    pub(crate) fn next(&mut self) -> usize {
        if self.pause > 0 {
            self.pause -= 1;
            return 0;
        }
        self.guesses
    }

    /// `right` of `guessed` were what the model picked.
    pub(crate) fn judge(&mut self, guessed: usize, right: usize) {
        if guessed == 0 {
            return;
        }
        self.guesses = if right == guessed { (guessed + 2).min(MOST_GUESSES) } else { right.max(1) + 1 };
        if right > 0 {
            (self.misses, self.next_pause) = (0, 4);
            return;
        }
        self.misses += 1;
        if self.misses >= PATIENCE {
            self.pause = self.next_pause;
            self.next_pause = (2 * self.next_pause).min(LONGEST_PAUSE);
        }
    }
}

/// Longest run of tokens that is looked for, and shortest: one token alone comes again too often.
const RUNS: std::ops::RangeInclusive<usize> = 2..=4;

/// What followed the last tokens of `text` where they stood before: the longest run counts, of equals the latest; at most
/// `most` tokens.
pub(crate) fn look_up(text: &[u32], most: usize) -> &[u32] {
    for length in RUNS.rev() {
        let Some(before) = text.len().checked_sub(length) else { continue };
        let last = &text[before..];
        // The run itself is no place before it.
        let places = text[..text.len() - 1].windows(length);
        if let Some(place) = places.clone().rposition(|run| run == last) {
            let from = place + length;
            return &text[from..text.len().min(from + most)];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_PAUSE, MOST_GUESSES, Worth, look_up};

    #[test]
    fn the_latest_of_the_longest_runs_is_followed() {
        assert_eq!(look_up(&[1, 2, 3, 4, 9, 1, 2, 3], 8), [4, 9, 1, 2, 3]);
        assert_eq!(look_up(&[1, 2, 3, 4, 9, 1, 2, 3], 2), [4, 9]);
        // The latest place of equals.
        assert_eq!(look_up(&[1, 2, 5, 1, 2, 6, 1, 2], 1), [6]);
        // A longer run beats a later one.
        assert_eq!(look_up(&[7, 1, 2, 5, 8, 1, 2, 6, 7, 1, 2], 1), [5]);
        assert_eq!(look_up(&[3, 3, 3, 3], 4), [3]);
        for none in [&[][..], &[1], &[1, 2], &[1, 2, 3, 4], &[1, 2, 1]] {
            assert_eq!(look_up(none, 8), [0u32; 0], "{none:?}");
        }
    }

    #[test]
    fn guessing_grows_while_it_pays_and_rests_where_it_does_not() {
        let mut worth = Worth::default();
        for _ in 0..4 {
            let guesses = worth.next();
            worth.judge(guesses, guesses);
        }
        assert_eq!(worth.next(), MOST_GUESSES);
        let mut guessed = 0;
        for _ in 0..1000 {
            let guesses = worth.next();
            worth.judge(guesses, 0);
            guessed += guesses;
        }
        assert!(guessed < 60, "{guessed} wrong guesses in 1000 steps");
        assert!(worth.next_pause <= LONGEST_PAUSE);
        while worth.next() == 0 {}
        worth.judge(2, 2);
        assert_eq!(worth.next(), 4);
    }
}
