//! Reading a network's outputs.

use crate::TaskError;
use kun_tensor::{Elements, Tensor, Tensors};
use std::borrow::Cow;

/// The values of a tensor as f32, whatever numbers they are.
pub fn values(tensor: &Tensor) -> Cow<'_, [f32]> {
    match tensor.elements() {
        Elements::F32(v) => Cow::Borrowed(v),
        Elements::F64(v) => v.iter().map(|&v| v as f32).collect(),
        Elements::F16(v) => v.iter().map(|v| v.to_f32()).collect(),
        Elements::BF16(v) => v.iter().map(|v| v.to_f32()).collect(),
        Elements::I64(v) => v.iter().map(|&v| v as f32).collect(),
        Elements::I32(v) => v.iter().map(|&v| v as f32).collect(),
        Elements::I16(v) => v.iter().map(|&v| f32::from(v)).collect(),
        Elements::I8(v) => v.iter().map(|&v| f32::from(v)).collect(),
        Elements::U8(v) => v.iter().map(|&v| f32::from(v)).collect(),
        Elements::Bool(v) => v.iter().map(|&v| f32::from(u8::from(v))).collect(),
        // A new element type has no reading yet: an empty slice fails the shape check of whoever asked.
        _ => Cow::Borrowed(&[]),
    }
}

/// The output `name` with `R` dimensions; dimensions of 1 in front are left out.
///
/// # Errors
/// [`TaskError::Output`] if it is missing, has other dimensions or elements that are no numbers.
pub fn take<'a, const R: usize>(
    outputs: &'a Tensors,
    name: &str,
) -> Result<([usize; R], Cow<'a, [f32]>), TaskError> {
    let wrong = |what: String| TaskError::Output { name: name.to_owned(), what };
    let tensor = outputs.get(name).ok_or_else(|| wrong("the model does not give it".to_owned()))?;
    let mut shape = tensor.shape();
    while shape.len() > R && shape[0] == 1 {
        shape = &shape[1..];
    }
    let found: [usize; R] = shape
        .try_into()
        .map_err(|_| wrong(format!("shape {:?}, expected {R} dimensions", tensor.shape())))?;
    let values = values(tensor);
    if values.len() != found.iter().product::<usize>() || values.is_empty() {
        return Err(wrong(format!("shape {:?} has no values that can be read", tensor.shape())));
    }
    Ok((found, values))
}

/// An error about an output.
pub fn wrong(name: &str, what: impl Into<String>) -> TaskError {
    TaskError::Output { name: name.to_owned(), what: what.into() }
}

/// The index of the largest value and the value; the first of equals. NaN loses.
pub fn argmax(values: &[f32]) -> (usize, f32) {
    const LANES: usize = 8;
    let (lines, rest) = values.as_chunks::<LANES>();
    let mut tops = [f32::NEG_INFINITY; LANES];
    for line in lines {
        for (top, &v) in tops.iter_mut().zip(line) {
            *top = if v > *top { v } else { *top };
        }
    }
    let larger = |top: f32, &v: &f32| if v > top { v } else { top };
    let top = tops.iter().chain(rest).fold(f32::NEG_INFINITY, larger);
    let first = if top > f32::NEG_INFINITY { values.iter().position(|&v| v == top) } else { None };
    (first.unwrap_or(0), top)
}

/// Label of a class, or its number where there are no labels.
pub fn label(labels: &[String], class: usize) -> String {
    labels.get(class).cloned().unwrap_or_else(|| class.to_string())
}

#[cfg(test)]
mod tests {
    use super::argmax;

    #[test]
    fn the_first_of_the_largest_wins_and_nan_loses() {
        let nan = f32::NAN;
        assert_eq!(argmax(&[]), (0, f32::NEG_INFINITY));
        assert_eq!(argmax(&[nan, nan]), (0, f32::NEG_INFINITY));
        assert_eq!(argmax(&[nan, -1.0, 3.0, 3.0]), (2, 3.0));
        for len in 1..30 {
            for place in 0..len {
                let mut values = vec![-0.5; len];
                values[place] = 0.25;
                values[len - 1] = f32::max(values[len - 1], 0.25);
                assert_eq!(argmax(&values), (place, 0.25), "{len}");
            }
        }
    }
}
