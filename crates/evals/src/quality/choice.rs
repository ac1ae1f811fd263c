//! How often a model finds the right one of several continuations likeliest.
//!
//! The procedure is that of lm-evaluation-harness, so that scores compare: each choice is written after its context and
//! a space, the log-probabilities of its tokens are added up, and the greatest sum answers; normalised, the greatest
//! sum by the choice's characters. The tokens of a choice are those of the whole text behind those of the context
//! alone, whose spaces at the end count as the choice's.

use anyhow::{Context, ensure};
use kun_engine::LoadedModel;
use serde::Serialize;
use std::time::Instant;

/// A question with its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What stands before every choice.
    pub context: String,
    /// The continuations, at least two.
    pub choices: Vec<String>,
    /// Index of the right one.
    pub answer: usize,
}

/// How often the likeliest choice is the right one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choices {
    /// Part of the items whose likeliest choice is right.
    pub accuracy: f64,
    /// One standard error of it.
    pub accuracy_error: f64,
    /// The same where a choice's log-probability is divided by its characters.
    pub accuracy_normalized: f64,
    /// One standard error of it.
    pub accuracy_normalized_error: f64,
    /// Items measured.
    pub items: usize,
    /// Log-probability of each choice of each item, in nats.
    pub loglikelihoods: Vec<Vec<f64>>,
    /// Time it took.
    pub seconds: f64,
}

/// Measures `model` on `items`.
///
/// # Errors
/// If an item has fewer than two choices or no such answer, and those of [`LoadedModel::score`].
pub fn choices(model: &LoadedModel, items: &[Item]) -> anyhow::Result<Choices> {
    ensure!(!items.is_empty(), "there is no item");
    let started = Instant::now();
    let mut loglikelihoods = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let row = || format!("item {}", index + 1);
        ensure!(item.choices.len() >= 2, "{}: {} choices, at least 2", row(), item.choices.len());
        ensure!(
            item.answer < item.choices.len(),
            "{}: answer {} of {}",
            row(),
            item.answer,
            item.choices.len()
        );
        let one = |choice: &String| loglikelihood(model, &item.context, &format!(" {choice}"));
        loglikelihoods
            .push(item.choices.iter().map(one).collect::<anyhow::Result<Vec<_>>>().with_context(row)?);
    }
    let (plain, plain_error) = accuracy(items, &loglikelihoods, |sum, _| sum);
    let (accuracy_normalized, accuracy_normalized_error) =
        accuracy(items, &loglikelihoods, |sum, choice| sum / choice.chars().count().max(1) as f64);
    Ok(Choices {
        accuracy: plain,
        accuracy_error: plain_error,
        accuracy_normalized,
        accuracy_normalized_error,
        items: items.len(),
        loglikelihoods,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Log-probability of `continuation` after `context`, in nats.
fn loglikelihood(model: &LoadedModel, context: &str, continuation: &str) -> anyhow::Result<f64> {
    let bare = context.trim_end();
    let whole = model.tokenize(&format!("{context}{continuation}"))?;
    let before = model.tokenize(bare)?.len().max(1);
    ensure!(before < whole.len(), "the choice has no tokens");
    Ok(model.score(&whole, before)?.iter().map(|logprob| f64::from(*logprob)).sum())
}

/// The part of right answers and its standard error; the first of equals counts.
fn accuracy(items: &[Item], sums: &[Vec<f64>], value: impl Fn(f64, &str) -> f64) -> (f64, f64) {
    let is_right = |(item, sums): &(&Item, &Vec<f64>)| {
        let values = sums.iter().zip(&item.choices).map(|(sum, choice)| value(*sum, choice));
        let best = values.enumerate().fold((0, f64::NEG_INFINITY), |best, (index, value)| {
            if value > best.1 { (index, value) } else { best }
        });
        best.0 == item.answer
    };
    let right = items.iter().zip(sums).filter(is_right).count() as f64;
    let count = items.len() as f64;
    let mean = right / count;
    // The sample variance of zeros and ones.
    let error = if count > 1.0 { (mean * (1.0 - mean) / (count - 1.0)).sqrt() } else { 0.0 };
    (mean, error)
}

#[cfg(test)]
mod tests {
    use super::{Item, accuracy};

    #[test]
    fn the_likeliest_choice_answers_and_length_may_be_taken_out() {
        let item = |answer| Item {
            context: "x".to_owned(),
            choices: vec!["ab".to_owned(), "abcdefgh".to_owned()],
            answer,
        };
        let items = [item(0), item(1)];
        let sums = [vec![-2.0, -4.0], vec![-2.0, -4.0]];
        assert_eq!(accuracy(&items, &sums, |sum, _| sum), (0.5, 0.5));
        assert_eq!(accuracy(&items[1..], &sums[1..], |sum, choice| sum / choice.len() as f64), (1.0, 0.0));
        assert_eq!(accuracy(&items[..1], &[vec![-1.0, -1.0]], |sum, _| sum).0, 1.0, "the first of equals");
    }
}
