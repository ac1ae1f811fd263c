//! What a line says, and whether it stands on its head.

use crate::pixels::Image;
use crate::pixels::resize::{Filter, resize_u8};
use crate::vision::input::Input;
use crate::vision::output::{argmax, take, wrong};
use crate::{Task, TaskError};
use kun_tensor::Tensors;
use std::sync::Arc;

/// A line's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Its characters.
    pub text: String,
    /// Mean probability of its characters; 0 without any.
    pub score: f32,
}

/// Text recognition of one level line by connectionist temporal classification: `[T, V]` probabilities, class 0 is
/// the blank.
#[derive(Clone, Debug)]
pub struct ReadLine {
    /// Normalisation; its size and fit are not used.
    pub input: Input,
    /// The probabilities.
    pub output: String,
    /// Characters of the classes from 1 on.
    pub characters: Vec<String>,
    /// Rows of the input.
    pub height: usize,
}

/// Columns that short lines are filled up to.
const LEAST_WIDTH: usize = 320;
/// Widths beyond it come in steps, so that lines share a plan of the network.
const WIDTH_STEP: usize = 64;
/// Longer lines are squeezed.
const MOST_WIDTH: usize = 3_200;

impl ReadLine {
    /// The characters of PaddleOCR's metadata: one a line, a space behind them.
    pub fn characters(metadata: &str) -> Vec<String> {
        let mut characters: Vec<String> = metadata.lines().map(str::to_owned).collect();
        characters.push(" ".to_owned());
        characters
    }
}

/// A line scaled to a height and filled up with the network's zero.
fn strip(
    input: &Input,
    image: &Image,
    height: usize,
    widths: (usize, usize, usize),
) -> Result<Tensors, TaskError> {
    let (least, step, most) = widths;
    let natural = (height as f64 * image.width() as f64 / image.height() as f64).ceil() as usize;
    let content = natural.clamp(1, most);
    let width = if content <= least { least } else { content.div_ceil(step) * step };
    let source = (image.width(), image.height());
    let inner = resize_u8(&image.rgb8(), source, 3, (content, height), Filter::Bilinear);
    let mut tensor = input.tensor(&inner, (content, height))?;
    if width > content {
        let (_, elements) = tensor.into_parts();
        let kun_tensor::Elements::F32(values) = elements else {
            return Err(TaskError::Input { what: "text networks take f32".to_owned() });
        };
        let mut padded = vec![0.0; 3 * height * width];
        for (row, from) in values.chunks_exact(content).enumerate() {
            padded[row * width..row * width + content].copy_from_slice(from);
        }
        tensor = kun_tensor::Tensor::f32([3, height, width], padded)?;
    }
    Ok(Tensors::from([(input.name.clone(), tensor)]))
}

impl Task for ReadLine {
    type Input = Arc<Image>;
    type Output = Reading;
    type Context = ();

    fn prepare(&self, line: Arc<Image>) -> Result<(Tensors, ()), TaskError> {
        Ok((strip(&self.input, &line, self.height, (LEAST_WIDTH, WIDTH_STEP, MOST_WIDTH))?, ()))
    }

    fn finish(&self, outputs: Tensors, (): ()) -> Result<Reading, TaskError> {
        let ([_, classes], values) = take::<2>(&outputs, &self.output)?;
        if classes != self.characters.len() + 1 {
            let what = format!("{classes} classes, {} characters and a blank", self.characters.len());
            return Err(wrong(&self.output, what));
        }
        let (mut text, mut sum, mut count) = (String::new(), 0.0, 0u32);
        let mut last = 0;
        for step in values.chunks_exact(classes) {
            let (class, score) = argmax(step);
            if class != 0 && class != last {
                text.push_str(&self.characters[class - 1]);
                sum += score;
                count += 1;
            }
            last = class;
        }
        let score = if count == 0 { 0.0 } else { sum / count as f32 };
        Ok(Reading { text, score })
    }
}

/// Whether a line is upside down: `[2]` probabilities of 0 and 180 degrees.
#[derive(Clone, Debug)]
pub struct TextAngle {
    /// Normalisation; its size and fit are not used.
    pub input: Input,
    /// The probabilities.
    pub output: String,
    /// Probability from which a line is turned.
    pub threshold: f32,
}

impl Task for TextAngle {
    type Input = Arc<Image>;
    type Output = bool;
    type Context = ();

    fn prepare(&self, line: Arc<Image>) -> Result<(Tensors, ()), TaskError> {
        Ok((strip(&self.input, &line, 48, (192, 1, 192))?, ()))
    }

    fn finish(&self, outputs: Tensors, (): ()) -> Result<bool, TaskError> {
        let ([classes], values) = take::<1>(&outputs, &self.output)?;
        if classes != 2 {
            return Err(wrong(&self.output, format!("{classes} classes, expected 2")));
        }
        Ok(values[1] > self.threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kun_tensor::Tensor;

    #[test]
    fn repeats_collapse_and_blanks_part_them() {
        let task = ReadLine {
            input: Input::rgb("x", 1, 1),
            output: "y".into(),
            characters: ReadLine::characters("a\nb"),
            height: 48,
        };
        let classes = [0, 1, 1, 0, 1, 2, 3, 3, 2, 0];
        let values =
            classes.iter().flat_map(|&c| (0..4).map(move |i| if i == c { 0.9 } else { 0.03 })).collect();
        let y = Tensor::f32([1, 10, 4], values).unwrap();
        let reading = task.finish(Tensors::from([("y".to_owned(), y)]), ()).unwrap();
        assert_eq!(reading.text, "aab b");
        assert!((reading.score - 0.9).abs() < 1e-6);
        let y = Tensor::f32([1, 2, 5], vec![0.0; 10]).unwrap();
        assert!(task.finish(Tensors::from([("y".to_owned(), y)]), ()).is_err());
    }

    #[test]
    fn widths_come_in_steps_and_are_filled_with_zero() {
        let task = ReadLine {
            input: Input { mean: [0.5; 3], std: [0.5; 3], ..Input::rgb("x", 1, 1) },
            output: "y".into(),
            characters: vec![],
            height: 48,
        };
        for ((w, h), width) in [((48, 48), 320), ((700, 96), 384), ((100_000, 20), 3200)] {
            let (tensors, ()) = task.prepare(Arc::new(Image::filled(w, h, [255; 3]))).unwrap();
            let x = &tensors["x"];
            assert_eq!(x.shape(), [3, 48, width], "{w}x{h}");
            let row = &x.as_f32().unwrap()[..width];
            assert!(row[0] == 1.0 && (width == 3200 || row[width - 1] == 0.0));
        }
    }
}
