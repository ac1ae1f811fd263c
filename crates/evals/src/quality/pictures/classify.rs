//! Top-1 and top-5 accuracy.

use serde::Serialize;

/// Shares of pictures whose class was among the best answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// Pictures.
    pub pictures: usize,
    /// Whose class was the best answer.
    pub top1: usize,
    /// Whose class was among the best five.
    pub top5: usize,
}

impl Accuracy {
    /// Counts one picture.
    pub fn add(&mut self, best_first: &[usize], class: usize) {
        self.pictures += 1;
        self.top1 += usize::from(best_first.first() == Some(&class));
        self.top5 += usize::from(best_first.iter().take(5).any(|c| *c == class));
    }
}
