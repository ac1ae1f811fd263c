//! What a picture shows.

use super::input::Input;
use super::output::{label, take};
use crate::pixels::Image;
use crate::scores::{ranked, softmax};
use crate::{Task, TaskError};
use kun_tensor::Tensors;
use std::sync::Arc;

/// A class and how sure the network is.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Class {
    /// Its number.
    #[serde(rename = "class")]
    pub index: usize,
    /// Its name.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
}

/// Image classification.
#[derive(Clone, Debug)]
pub struct Classify {
    /// How pictures go in.
    pub input: Input,
    /// The output with one value a class.
    pub output: String,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Classes to give, best first.
    pub top: usize,
}

impl Task for Classify {
    type Input = Arc<Image>;
    type Output = Vec<Class>;
    type Context = ();

    fn prepare(&self, image: Arc<Image>) -> Result<(Tensors, ()), TaskError> {
        Ok((self.input.tensors(&image)?.0, ()))
    }

    fn finish(&self, outputs: Tensors, (): ()) -> Result<Vec<Class>, TaskError> {
        let classes = scores(&outputs, &self.output)?;
        let class = |index| Class { index, label: label(&self.labels, index), score: classes[index] };
        Ok(ranked(&classes).into_iter().take(self.top).map(class).collect())
    }
}

/// Probabilities; logits are recognised by their sum and put through softmax.
fn scores(outputs: &Tensors, name: &str) -> Result<Vec<f32>, TaskError> {
    // Some networks leave the spatial dimensions of their last pooling: `[C, 1, 1]`.
    let values = match take::<1>(outputs, name) {
        Ok((_, values)) => values.into_owned(),
        Err(error) => match take::<3>(outputs, name) {
            Ok(([_, 1, 1], values)) => values.into_owned(),
            _ => return Err(error),
        },
    };
    let sum: f32 = values.iter().sum();
    let probabilities = values.iter().all(|v| (-1e-4..=1.0001).contains(v)) && (sum - 1.0).abs() < 0.02;
    Ok(if probabilities { values } else { softmax(&values) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kun_tensor::Tensor;

    #[test]
    fn logits_and_probabilities_give_the_same_order() {
        let task = Classify {
            input: Input::rgb("x", 2, 2),
            output: "y".to_owned(),
            labels: vec!["a".to_owned(), "b".to_owned()],
            top: 2,
        };
        let run = |values: Vec<f32>| {
            let y = Tensor::f32([1, values.len()], values).unwrap();
            task.finish(Tensors::from([("y".to_owned(), y)]), ()).unwrap()
        };
        let classes = run(vec![0.0, 3.0, 1.0]);
        assert_eq!(classes.iter().map(|c| c.index).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((classes[0].label.as_str(), classes[1].label.as_str()), ("b", "2"));
        assert!((classes[0].score - 0.8438).abs() < 1e-4);
        assert_eq!(run(vec![0.25, 0.75]).first().map(|c| c.score), Some(0.75));
        assert!(task.finish(Tensors::new(), ()).is_err());
    }
}
