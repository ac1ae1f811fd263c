//! Compute kernels. Each has a plain scalar form that defines the answer; the machine is asked once which form to use.

pub mod attention;
pub mod chain;
pub mod codes;
pub mod conv;
pub mod elementwise;
pub mod gemm;
pub mod grid_sample;
pub mod instance_norm;
pub mod isa;
pub mod layer_norm;
pub mod linear;
pub mod norm;
pub mod peak;
pub mod pool;
pub mod recurrent;
pub mod reduce;
pub mod resample;
pub mod resize;
pub mod rope;
pub mod rows;
pub mod self_attention;
pub mod strided;
mod vector;
pub mod vocabulary;

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

impl KernelError {
    /// Refuses two lengths that differ.
    pub(crate) fn check(kernel: &'static str, actual: usize, expected: usize) -> Result<(), KernelError> {
        if actual == expected {
            return Ok(());
        }
        Err(KernelError::Shape { kernel, what: format!("{actual} elements where {expected} belong") })
    }

    /// Refuses groups of `group` elements that do not fill `len`.
    pub(crate) fn check_groups(kernel: &'static str, len: usize, group: usize) -> Result<(), KernelError> {
        if group > 0 && len.is_multiple_of(group) {
            return Ok(());
        }
        Err(KernelError::Shape { kernel, what: format!("{len} elements are not whole groups of {group}") })
    }
}
