//! How far things are.

use super::input::Input;
use super::output::take;
use super::segment::crop_to_content;
use crate::pixels::fit::Placement;
use crate::pixels::{Filter, Image, Map};
use crate::{Task, TaskError};
use kun_tensor::Tensors;
use std::sync::Arc;

/// What larger values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Distance: larger is farther.
    Farther,
    /// Inverse distance: larger is nearer.
    Nearer,
}

/// A value for every pixel, in the network's own unit.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthMap {
    /// At the picture's size.
    pub map: Map,
    /// What larger values mean.
    pub direction: Direction,
}

/// Depth from one picture.
#[derive(Clone, Debug)]
pub struct Depth {
    /// How pictures go in.
    pub input: Input,
    /// The output, `[h, w]`.
    pub output: String,
    /// What larger values mean.
    pub direction: Direction,
}

impl Task for Depth {
    type Input = Arc<Image>;
    type Output = DepthMap;
    type Context = Placement;

    fn prepare(&self, image: Arc<Image>) -> Result<(Tensors, Placement), TaskError> {
        self.input.tensors(&image)
    }

    fn finish(&self, outputs: Tensors, placement: Placement) -> Result<DepthMap, TaskError> {
        let ([h, w], values) = match take::<2>(&outputs, &self.output) {
            Ok(found) => found,
            // `[h, w, 1]`, as TensorFlow exports it.
            Err(error) => match take::<3>(&outputs, &self.output)? {
                ([h, w, 1], values) => ([h, w], values),
                _ => return Err(error),
            },
        };
        let map = crop_to_content(Map::new(w, h, values.into_owned()), placement, &self.output)?;
        let map = map.resize(placement.source.0, placement.source.1, Filter::Bilinear);
        Ok(DepthMap { map, direction: self.direction })
    }
}

impl DepthMap {
    /// The map turned so that larger is nearer, from 0 to 1.
    pub fn nearness(&self) -> Map {
        let (low, high) = self.map.range();
        let span = (high - low).max(f32::MIN_POSITIVE);
        let near = |v: &f32| match self.direction {
            Direction::Nearer => (v - low) / span,
            Direction::Farther => (high - v) / span,
        };
        let values = self.map.values().iter().map(near).collect();
        Map::new(self.map.width(), self.map.height(), values).unwrap_or_else(|_| self.map.clone())
    }
}
