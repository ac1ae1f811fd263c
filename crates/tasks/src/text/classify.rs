//! Logits of a classification head to scores.

use crate::scores::{sigmoid, softmax};

/// What turns logits into scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// One label holds: scores add up to 1.
    Softmax,
    /// Each label holds or not by itself.
    Sigmoid,
    /// A regression: the logit is the score.
    Identity,
}

impl Activation {
    /// By the `problem_type` of a model's configuration; where there is none, by the number of labels, as
    /// `transformers` does.
    pub fn of(problem_type: Option<&str>, labels: usize) -> Activation {
        match problem_type {
            Some("multi_label_classification") => Activation::Sigmoid,
            Some("single_label_classification") => Activation::Softmax,
            Some("regression") => Activation::Identity,
            _ if labels == 1 => Activation::Sigmoid,
            _ => Activation::Softmax,
        }
    }

    /// One score per logit.
    pub fn scores(self, logits: &[f32]) -> Vec<f32> {
        match self {
            Activation::Softmax => softmax(logits),
            Activation::Sigmoid => logits.iter().map(|&x| sigmoid(x)).collect(),
            Activation::Identity => logits.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_chooses_the_activation() {
        assert_eq!(Activation::of(None, 1), Activation::Sigmoid);
        assert_eq!(Activation::of(None, 3), Activation::Softmax);
        assert_eq!(Activation::of(Some("multi_label_classification"), 3), Activation::Sigmoid);
        assert_eq!(Activation::of(Some("regression"), 1), Activation::Identity);
    }

    #[test]
    fn scores_are_probabilities_even_of_large_logits() {
        let scores = Activation::Softmax.scores(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(scores, [0.5, 0.5, 0.0]);
        assert_eq!(Activation::Sigmoid.scores(&[0.0, 200.0, -200.0]), [0.5, 1.0, 0.0]);
    }
}
