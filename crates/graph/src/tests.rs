//! Whole graphs: the CPU program against the reference, and against itself under other batches and threads.

mod decoder;
mod errors;
mod ops;
pub(crate) mod support;
