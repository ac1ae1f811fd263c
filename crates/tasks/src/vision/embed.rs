//! A picture as a vector.

use super::input::Input;
use super::output::{values, wrong};
use crate::pixels::Image;
use crate::{Task, TaskError};
use kun_tensor::Tensors;
use std::sync::Arc;

/// How a network's features become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pool {
    /// The first token of `[T, D]`, which stands for the whole picture; of `[D, H, W]` the mean over the places.
    #[default]
    First,
    /// The mean over tokens or places.
    Mean,
}

/// A picture's features, of length 1.
#[derive(Clone, Debug)]
pub struct Embed {
    /// How pictures go in.
    pub input: Input,
    /// The output: `[D]`, tokens `[T, D]` or a map `[D, H, W]`.
    pub output: String,
    /// What happens to tokens and maps.
    pub pool: Pool,
}

impl Task for Embed {
    type Input = Arc<Image>;
    type Output = Vec<f32>;
    type Context = ();

    fn prepare(&self, image: Arc<Image>) -> Result<(Tensors, ()), TaskError> {
        Ok((self.input.tensors(&image)?.0, ()))
    }

    fn finish(&self, outputs: Tensors, (): ()) -> Result<Vec<f32>, TaskError> {
        features(&outputs, &self.output, self.pool)
    }
}

/// One vector of length 1 from the output `name`: `[D]`, tokens `[T, D]` or a map `[D, H, W]`, with or without a 1 in
/// front.
///
/// # Errors
/// [`TaskError::Output`] if it is missing, has another shape, or its vector has no length.
pub fn features(outputs: &Tensors, name: &str, pool: Pool) -> Result<Vec<f32>, TaskError> {
    let tensor = outputs.get(name).ok_or_else(|| wrong(name, "the model does not give it"))?;
    let all = values(tensor);
    let mut shape = tensor.shape();
    while let [1, rest @ ..] = shape
        && !rest.is_empty()
    {
        shape = rest;
    }
    // `[D, 1, 1]`: the last pooling kept its places.
    while let [rest @ .., 1] = shape
        && !rest.is_empty()
    {
        shape = rest;
    }
    if all.is_empty() || all.len() != shape.iter().product::<usize>() {
        return Err(wrong(name, format!("shape {:?} has no values that can be read", tensor.shape())));
    }
    let pooled = match *shape {
        [_] => all.into_owned(),
        [_, d] if pool == Pool::First => all[..d].to_vec(),
        [t, d] => (0..d).map(|i| all.iter().skip(i).step_by(d).sum::<f32>() / t as f32).collect(),
        [_, h, w] => all.chunks_exact(h * w).map(|map| map.iter().sum::<f32>() / (h * w) as f32).collect(),
        _ => return Err(wrong(name, format!("shape {:?} is that of no features", tensor.shape()))),
    };
    unit(pooled).ok_or_else(|| wrong(name, "the features have no length"))
}

/// Scaled to length 1; `None` for a vector without a finite length above 0.
pub fn unit(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    if !(length.is_finite() && length > 0.0) {
        return None;
    }
    vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    Some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kun_tensor::Tensor;

    fn finish(shape: &[usize], values: Vec<f32>, pool: Pool) -> Result<Vec<f32>, TaskError> {
        let task = Embed { input: Input::rgb("x", 2, 2), output: "y".to_owned(), pool };
        let y = Tensor::f32(shape.to_vec(), values).unwrap();
        task.finish(Tensors::from([("y".to_owned(), y)]), ())
    }

    #[test]
    fn tokens_maps_and_vectors_become_one_vector_of_length_1() {
        let tokens = vec![3.0, 4.0, 0.0, 2.0];
        assert_eq!(finish(&[2, 2], tokens.clone(), Pool::First).unwrap(), [0.6, 0.8]);
        let mean = finish(&[2, 2], tokens.clone(), Pool::Mean).unwrap();
        assert!((mean[0] - 0.447_213_6).abs() < 1e-6 && (mean[1] - 0.894_427_2).abs() < 1e-6);
        assert_eq!(finish(&[1, 2], vec![3.0, 4.0], Pool::Mean).unwrap(), [0.6, 0.8]);
        assert_eq!(finish(&[2, 1, 1], vec![3.0, 4.0], Pool::First).unwrap(), [0.6, 0.8]);
        assert_eq!(finish(&[2, 1, 2], vec![2.0, 4.0, 4.0, 4.0], Pool::First).unwrap(), [0.6, 0.8]);
        assert!(finish(&[2], vec![0.0, 0.0], Pool::First).is_err());
        assert!(finish(&[2], vec![f32::NAN, 0.0], Pool::First).is_err());
        assert!(finish(&[2, 2, 2, 2], vec![1.0; 16], Pool::First).is_err());
    }
}
