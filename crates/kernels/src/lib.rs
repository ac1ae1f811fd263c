//! Compute kernels. Each has a plain scalar form that defines the answer; the machine is asked once which form to use.

pub mod isa;
pub mod linear;

pub use isa::Isa;

/// What can go wrong before a kernel runs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KernelError {
    /// Sizes of the arguments disagree.
    #[error("{kernel}: {what}")]
    Shape {
        /// Which kernel.
        kernel: &'static str,
        /// What disagrees, with the numbers.
        what: String,
    },
    /// No kernel for this element type.
    #[error("{kernel}: no kernel for {dtype} weights")]
    DType {
        /// Which kernel.
        kernel: &'static str,
        /// The element type.
        dtype: kun_tensor::DType,
    },
}
