//! What is told of a picture while it is drawn.

use kun_tasks::pixels::Image;

/// How far a picture is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Passes done and in all; the last one is the decoder's.
    Passes {
        /// Done.
        done: usize,
        /// In all.
        all: usize,
    },
    /// What the network takes the picture for so far.
    Partial(Image),
}

/// Hears of the stages of a picture; `false` ends the work.
pub type Watch<'a> = dyn FnMut(Stage) -> bool + 'a;

/// Whether a partial picture is shown after pass `done` of `passes`, where at most `count` are, at even distances. None
/// follows the last pass: the picture itself does.
pub(super) fn is_shown(done: usize, passes: usize, count: usize) -> bool {
    let shown = |done: usize| done * (count + 1) / passes;
    done < passes && shown(done) > shown(done - 1)
}

#[cfg(test)]
mod tests {
    use super::is_shown;

    #[test]
    fn partial_pictures_are_shown_at_even_distances() {
        let shown =
            |passes, count| (1..=passes).filter(|done| is_shown(*done, passes, count)).collect::<Vec<_>>();
        assert_eq!(shown(30, 2), [10, 20]);
        assert_eq!(shown(8, 3), [2, 4, 6]);
        assert_eq!(shown(2, 3), [1]);
        for (passes, count) in [(1, 3), (30, 0)] {
            assert!(shown(passes, count).is_empty());
        }
        assert!((1..60).all(|passes| shown(passes, 3).len() == 3.min(passes - 1)));
    }
}
