//! What every task is.

use kun_tensor::{ShapeError, Tensors};

/// Why an input cannot be prepared or an output cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The user's data cannot be used.
    #[error("{what}")]
    Input {
        /// What is wrong with it, with the numbers.
        what: String,
    },
    /// The model gave something else than the task expects: the wrong model, or a wrong description of it.
    #[error("output `{name}`: {what}")]
    Output {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// Elements and shape disagree.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// User data in, one forward pass, an answer out.
pub trait Task: Send + Sync + 'static {
    /// What the user gives.
    type Input: Send;
    /// What the user gets.
    type Output: Send;
    /// What [`Task::finish`] must remember about the input, such as the letterbox of an image.
    type Context: Send;
    /// The tensors of one item, batch dimension left out, and what to remember of it.
    ///
    /// # Errors
    /// [`TaskError::Input`].
    fn prepare(&self, input: Self::Input) -> Result<(Tensors, Self::Context), TaskError>;
    /// The answer for one item from the model's outputs, batch dimension left out.
    ///
    /// # Errors
    /// [`TaskError::Output`].
    fn finish(&self, outputs: Tensors, context: Self::Context) -> Result<Self::Output, TaskError>;
}
