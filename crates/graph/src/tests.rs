//! Whole graphs: the CPU program against the reference, and against itself under other batches and threads.

mod cross;
mod decoder;
mod encoder;
mod errors;
mod ops;
mod random;
pub(crate) mod support;
