//! Long texts in overlapping windows.

use std::ops::Range;

/// Windows of at most `room` tokens over `tokens`, each beginning with the last `overlap` tokens of the one before, as
/// `tokenizers` cuts with a stride. One window, perhaps empty, where all fit.
///
/// `overlap` is taken as at most `room - 1`; a `room` of 0 as 1.
pub fn windows(tokens: usize, room: usize, overlap: usize) -> Vec<Range<usize>> {
    let room = room.max(1);
    let step = room - overlap.min(room - 1);
    let more = tokens.saturating_sub(room).div_ceil(step);
    (0..=more).map(|index| index * step..tokens.min(index * step + room)).collect()
}

/// For each of `tokens` tokens, the window in which it stands farthest from a cut; the first of equal ones.
pub fn home(tokens: usize, windows: &[Range<usize>]) -> Vec<usize> {
    let margin = |window: &Range<usize>, token: usize| {
        // The ends of the text are no cuts.
        let left = if window.start == 0 { usize::MAX } else { token - window.start };
        let right = if window.end == tokens { usize::MAX } else { window.end - 1 - token };
        left.min(right)
    };
    (0..tokens)
        .map(|token| {
            let holding = windows.iter().enumerate().filter(|(_, window)| window.contains(&token));
            let best = holding.min_by_key(|(_, window)| std::cmp::Reverse(margin(window, token)));
            best.map_or(0, |(index, _)| index)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_overlap_and_reach_the_end() {
        let one = |window| vec![window];
        assert_eq!(windows(0, 4, 2), one(0..0));
        assert_eq!(windows(4, 4, 2), one(0..4));
        assert_eq!(windows(5, 4, 2), [0..4, 2..5]);
        assert_eq!(windows(10, 4, 1), [0..4, 3..7, 6..10]);
        assert_eq!(windows(3, 1, 5), [0..1, 1..2, 2..3]);
        assert_eq!(windows(2, 0, 0), [0..1, 1..2]);
    }

    #[test]
    fn a_token_is_at_home_where_it_sees_most() {
        assert_eq!(home(5, &[0..4, 2..5]), [0, 0, 0, 1, 1]);
        assert_eq!(home(3, std::slice::from_ref(&(0..3))), [0, 0, 0]);
        for (tokens, room, overlap) in [(50, 7, 3), (50, 7, 6), (9, 4, 0)] {
            let all = windows(tokens, room, overlap);
            for (token, window) in home(tokens, &all).into_iter().enumerate() {
                assert!(all[window].contains(&token));
            }
        }
    }
}
