//! Operations on text and the few classic ones around it.

use kun_tensor::Tensor;
use std::sync::Arc;

/// What is done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TextOp {
    /// `a, b -> a b` with broadcasting.
    Concat,
    /// `x -> parts, counts i64`.
    Split {
        /// Between parts; white space if none.
        delimiter: Option<String>,
        /// Most splits.
        limit: Option<usize>,
    },
    /// `x -> y`.
    Normalize(Normalize),
    /// `x -> y`: each key becomes the value at its place, others the default.
    Labels {
        /// Keys.
        keys: Arc<Tensor>,
        /// Values.
        values: Arc<Tensor>,
        /// The value of other keys.
        default: Arc<Tensor>,
    },
    /// `x, columns -> y`: columns of the last dimension.
    Features,
    /// `x -> y`: 1 above the threshold, else 0.
    Binarize(f32),
}

/// Case and stop words.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    /// `Some(true)` for upper case, `Some(false)` for lower.
    pub upper: Option<bool>,
    /// Whether stop words are compared with their case.
    pub case_sensitive: bool,
    /// Words that are dropped.
    pub stop_words: Vec<String>,
}
