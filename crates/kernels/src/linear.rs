//! Linear layers: `y[T, N] = x[T, K] . w[N, K]^T` with the weights packed once into panels of rows.
//!
//! A row of `y` is computed in the same order of operations whatever T, whatever rows share the call and however the
//! panels are split over threads, so that an answer never depends on the batch around it.

use crate::{Isa, KernelError};
use kun_tensor::DType;
use std::ops::Range;

/// Rows of the weight matrix that share a panel.
pub const PANEL_ROWS: usize = 16;

/// What a packed matrix multiplies with: how activations must be prepared by [`prepare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationFormat {
    /// f32 values as they are.
    F32,
    /// Rounded to bf16.
    Bf16,
    /// int8 in groups of 32, each with its scale and its sum.
    Int8,
}

impl ActivationFormat {
    /// Bytes of one prepared row of `k` elements; a multiple of 64.
    pub fn row_bytes(self, k: usize) -> usize {
        let groups = k.div_ceil(32);
        let bytes = match self {
            ActivationFormat::F32 => k * 4,
            ActivationFormat::Bf16 => k.next_multiple_of(2) * 2,
            // k int8, then per group of 32: f32 scale, i32 sum of each half.
            ActivationFormat::Int8 => groups * 32 + groups * 4 + groups * 8,
        };
        bytes.next_multiple_of(64)
    }
}

/// Prepares activations: `x` is `[T, K]` row-major, `out` is `[T, row_bytes(K)]`.
///
/// # Errors
/// [`KernelError::Shape`] if the lengths disagree.
pub fn prepare(
    isa: Isa,
    format: ActivationFormat,
    k: usize,
    x: &[f32],
    out: &mut [u8],
) -> Result<(), KernelError> {
    let _ = (isa, format, k, x, out);
    Ok(())
}

/// How a `[N, K]` matrix of one element type lies in packed memory on one instruction set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedLayout {
    isa: Isa,
    dtype: DType,
    n: usize,
    k: usize,
}

/// Where [`PackedLayout::matmul`] writes: row `t`, column `n` of the matrix is `out[t * row_stride + n]`.
///
/// Threads share one output and write disjoint columns, which a `&mut [f32]` cannot say; hence a pointer.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// First element of row 0 for column 0 of this matrix.
    pub data: *mut f32,
    /// Elements between rows.
    pub row_stride: usize,
    /// Add to what is there (a residual) instead of replacing it.
    pub accumulate: bool,
}

impl PackedLayout {
    /// The layout of an `[n, k]` matrix stored as `dtype`.
    ///
    /// # Errors
    /// [`KernelError::DType`] without a kernel for `dtype`; [`KernelError::Shape`] if `k` does not fill whole blocks.
    pub fn new(isa: Isa, dtype: DType, n: usize, k: usize) -> Result<PackedLayout, KernelError> {
        Ok(PackedLayout { isa, dtype, n, k })
    }

    /// How activations must be prepared for this matrix.
    pub fn activation(&self) -> ActivationFormat {
        ActivationFormat::F32
    }

    /// Number of panels: `ceil(n / PANEL_ROWS)`.
    pub fn panels(&self) -> usize {
        self.n.div_ceil(PANEL_ROWS)
    }

    /// Bytes of one packed panel; a multiple of 64.
    pub fn panel_bytes(&self) -> usize {
        0
    }

    /// Bytes of the whole packed matrix.
    pub fn bytes(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// Packs one panel: `rows` holds the source bytes of its rows (fewer than [`PANEL_ROWS`] in the last panel),
    /// `out` is [`PackedLayout::panel_bytes`] long.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if the lengths disagree.
    pub fn pack_panel(&self, rows: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
        let _ = (rows, out);
        Ok(())
    }

    /// Decodes row `row` of the packed matrix into `out` (`k` elements), as an embedding look-up does.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if `row >= n` or a length disagrees.
    pub fn decode_row(&self, packed: &[u8], row: usize, out: &mut [f32]) -> Result<(), KernelError> {
        let _ = (packed, row, out);
        Ok(())
    }

    /// Bytes of scratch that one thread needs for [`PackedLayout::matmul`].
    pub fn scratch_bytes(&self) -> usize {
        0
    }

    /// Multiplies `x` (prepared, `[T, row_bytes]`) with the panels `panels`, writing columns
    /// `panels.start * PANEL_ROWS ..` of `out`; optional `bias` is `[n]` and is added once.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    ///
    /// # Safety
    /// `out` must be valid for writes of `t` rows of `n` columns at its stride, and no other thread may touch
    /// the columns of `panels` meanwhile.
    pub unsafe fn matmul(
        &self,
        packed: &[u8],
        x: &[u8],
        t: usize,
        panels: Range<usize>,
        bias: Option<&[f32]>,
        out: Output,
        scratch: &mut [u8],
    ) -> Result<(), KernelError> {
        let _ = (packed, x, t, panels, bias, out, scratch);
        Ok(())
    }
}
