//! Linear layers: `y[T, N] = x[T, K] . w[N, K]^T` with the weights packed once into panels of rows.
//!
//! A row of `y` is computed in the same order of operations whatever T, whatever rows share the call and however the
//! panels are split over threads, so that an answer never depends on the batch around it.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod scalar;
mod scheme;
#[cfg(test)]
mod tests;
mod tile;

pub use activations::{ActivationFormat, GroupSums, prepare, prepare_columns};

use crate::{Isa, KernelError};
use half::{bf16, f16};
use kun_tensor::DType;
use scheme::{Scheme, Sections};
use std::ops::Range;

/// Rows of the weight matrix that share a panel.
pub const PANEL_ROWS: usize = 16;

/// How plain elements are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    F32,
    F16,
    /// bf16 widened to f32.
    Bf16Wide,
    /// bf16 dot products.
    Bf16Dot,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Plain { element: Plain, panel_bytes: usize },
    Quantized { scheme: Scheme, at: Sections },
}

/// How a `[N, K]` matrix of one element type lies in packed memory on one instruction set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedLayout {
    isa: Isa,
    dtype: DType,
    n: usize,
    k: usize,
    form: Form,
}

/// Some panels of a packed matrix.
#[derive(Clone, Debug)]
pub struct Panels<'a> {
    /// The whole matrix.
    pub packed: &'a [u8],
    /// The panels to multiply with.
    pub range: Range<usize>,
    /// What the same thread multiplies after them, and what is asked for ahead.
    pub after: After,
}

/// What a thread multiplies after some panels, as far as that is known. Nothing is read there.
#[derive(Clone, Copy, Debug)]
pub struct After {
    /// It goes on to before this panel of the matrix.
    pub until: usize,
    /// Then with the weights that begin here.
    pub then: *const u8,
}

impl After {
    /// It is not known: the thread may go on through the matrix.
    pub const UNKNOWN: After = After { until: usize::MAX, then: std::ptr::null() };
}

/// Where [`PackedLayout::matmul`] writes: row `t`, column `n` of the matrix is `out[t * row_stride + n]`.
///
/// Threads share one output and write disjoint columns, which a `&mut [f32]` cannot say; hence a pointer.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// First element of row 0 for column 0 of this matrix; where only some panels are multiplied, it may point before the
    /// memory.
    pub data: *mut f32,
    /// Elements between rows.
    pub row_stride: usize,
    /// Add to what is there (a residual) instead of replacing it.
    pub accumulate: bool,
}

/// The checked arguments of a multiplication.
struct Task<'a> {
    packed: &'a [u8],
    x: &'a [u8],
    t: usize,
    panels: Range<usize>,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "read by AVX-512 alone"))]
    after: After,
    bias: Option<&'a [f32]>,
    out: Output,
    scratch: &'a mut [u8],
}

fn shape_error(what: String) -> KernelError {
    KernelError::Shape { kernel: "linear", what }
}

impl PackedLayout {
    /// The layout of an `[n, k]` matrix stored as `dtype`.
    ///
    /// # Errors
    /// [`KernelError::DType`] without a kernel for `dtype`; [`KernelError::Shape`] if `k` does not fill whole blocks or the
    /// sizes overflow.
    pub fn new(isa: Isa, dtype: DType, n: usize, k: usize) -> Result<PackedLayout, KernelError> {
        let too_large = || shape_error(format!("a matrix of {n} x {k} {dtype} is too large"));
        let form = if let Some(scheme) = Scheme::of(dtype) {
            if !k.is_multiple_of(dtype.block_len()) {
                return Err(shape_error(format!(
                    "rows of {k} do not fill {dtype} blocks of {}",
                    dtype.block_len()
                )));
            }
            Form::Quantized { scheme, at: Sections::new(&scheme, k).ok_or_else(too_large)? }
        } else {
            let (element, columns, bytes) = match dtype {
                DType::F32 => (Plain::F32, Some(k), 4),
                DType::F16 => (Plain::F16, Some(k), 2),
                DType::BF16 if isa.has_bf16() => (Plain::Bf16Dot, k.checked_next_multiple_of(2), 2),
                DType::BF16 => (Plain::Bf16Wide, k.checked_next_multiple_of(2), 2),
                _ => return Err(KernelError::DType { kernel: "linear", dtype }),
            };
            let panel_bytes =
                columns.and_then(|k| k.checked_mul(PANEL_ROWS * bytes)?.checked_next_multiple_of(64));
            Form::Plain { element, panel_bytes: panel_bytes.ok_or_else(too_large)? }
        };
        let layout = PackedLayout { isa, dtype, n, k, form };
        // A tile and a prepared row take at most 64 bytes a column and lane.
        layout.panels().checked_mul(layout.panel_bytes()).ok_or_else(too_large)?;
        k.checked_mul(64 * PANEL_ROWS).ok_or_else(too_large)?;
        Ok(layout)
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// How activations must be prepared for this matrix.
    pub fn activation(&self) -> ActivationFormat {
        match &self.form {
            Form::Quantized { scheme, .. } => ActivationFormat::Int8(scheme.sums()),
            Form::Plain { element: Plain::Bf16Dot, .. } => ActivationFormat::Bf16,
            Form::Plain { .. } => ActivationFormat::F32,
        }
    }

    /// Number of panels: `ceil(n / PANEL_ROWS)`.
    pub fn panels(&self) -> usize {
        self.n.div_ceil(PANEL_ROWS)
    }

    /// Columns of the result that these panels make.
    pub fn columns(&self, panels: &Range<usize>) -> Range<usize> {
        panels.start * PANEL_ROWS..(panels.end * PANEL_ROWS).min(self.n)
    }

    /// Bytes of one packed panel; a multiple of 64.
    pub fn panel_bytes(&self) -> usize {
        match &self.form {
            Form::Quantized { at, .. } => at.bytes,
            Form::Plain { panel_bytes, .. } => *panel_bytes,
        }
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
        let row_bytes = self.dtype.bytes_for(self.k).unwrap_or(0);
        let count = rows.len().checked_div(row_bytes).unwrap_or(0);
        if rows.len() != count * row_bytes || count > PANEL_ROWS || out.len() != self.panel_bytes() {
            let what = format!("{} bytes of rows of {row_bytes} into a panel of {}", rows.len(), out.len());
            return Err(shape_error(what));
        }
        if row_bytes == 0 {
            return Ok(());
        }
        out.fill(0);
        match &self.form {
            Form::Quantized { at, .. } => pack::pack_quantized(self.dtype, at, row_bytes, rows, out),
            Form::Plain { element: Plain::F32, .. } => pack::pack_plain::<4>(row_bytes, rows, out),
            Form::Plain { element: Plain::F16, .. } => pack::pack_plain::<2>(row_bytes, rows, out),
            Form::Plain { .. } => pack::pack_plain::<4>(row_bytes, rows, out),
        }
        Ok(())
    }

    /// Decodes row `row` of the packed matrix into `out` (`k` elements), as an embedding look-up does.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if `row >= n` or a length disagrees.
    pub fn decode_row(&self, packed: &[u8], row: usize, out: &mut [f32]) -> Result<(), KernelError> {
        if row >= self.n || packed.len() != self.bytes() || out.len() != self.k {
            let what = format!(
                "row {row} of {}, {} bytes, {} values of {}",
                self.n,
                packed.len(),
                out.len(),
                self.k
            );
            return Err(shape_error(what));
        }
        let r = row % PANEL_ROWS;
        let panel = &packed[row / PANEL_ROWS * self.panel_bytes()..][..self.panel_bytes()];
        let u16_at = |i: usize| u16::from_le_bytes([panel[2 * i], panel[2 * i + 1]]);
        match &self.form {
            Form::Quantized { scheme, at } => tile::decode_row(scheme, at, panel, r, out),
            Form::Plain { element, .. } => {
                for (c, out) in out.iter_mut().enumerate() {
                    let i = c * PANEL_ROWS + r;
                    *out = match element {
                        Plain::F32 => f32::from_le_bytes([
                            panel[4 * i],
                            panel[4 * i + 1],
                            panel[4 * i + 2],
                            panel[4 * i + 3],
                        ]),
                        Plain::F16 => f16::from_bits(u16_at(i)).to_f32(),
                        _ => bf16::from_bits(u16_at((c / 2 * PANEL_ROWS + r) * 2 + c % 2)).to_f32(),
                    };
                }
            }
        }
        Ok(())
    }

    /// Bytes of scratch that one thread needs for [`PackedLayout::matmul`].
    pub fn scratch_bytes(&self) -> usize {
        match (&self.form, self.isa) {
            (Form::Plain { .. }, _) | (_, Isa::Avx512 | Isa::Avx512Bf16) => 0,
            (Form::Quantized { scheme, at }, _) => tile::TileLayout::new(scheme, at.groups).bytes,
        }
    }

    /// Multiplies `x` (prepared, `[T, row_bytes]`) with some panels, writing columns `range.start * PANEL_ROWS ..` of `out`;
    /// optional `bias` is `[n]` and is added once.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    ///
    /// # Safety
    /// `out` must be valid for writes of the columns of `panels` in `t` rows at its stride, and no other thread may touch these
    /// meanwhile.
    pub unsafe fn matmul(
        &self,
        Panels { packed, range: panels, after }: Panels<'_>,
        x: &[u8],
        t: usize,
        bias: Option<&[f32]>,
        out: Output,
        scratch: &mut [u8],
    ) -> Result<(), KernelError> {
        let row_bytes = self.activation().row_bytes(self.k);
        if packed.len() != self.bytes()
            || t.checked_mul(row_bytes) != Some(x.len())
            || panels.start > panels.end
            || panels.end > self.panels()
            || bias.is_some_and(|b| b.len() != self.n)
            || scratch.len() < self.scratch_bytes()
        {
            let what = format!(
                "{} packed bytes of {}, {} bytes of {t} rows of {row_bytes}, panels {panels:?} of {}, {} bytes of scratch of {}",
                packed.len(),
                self.bytes(),
                x.len(),
                self.panels(),
                scratch.len(),
                self.scratch_bytes()
            );
            return Err(shape_error(what));
        }
        if self.k == 0 {
            return Err(shape_error("rows without columns".to_owned()));
        }
        let mut task = Task { packed, x, t, panels, after, bias, out, scratch };
        // SAFETY: the task is checked, the caller vouches for `out`, and levels other than `Scalar` come from a machine that has them.
        unsafe {
            match self.isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Bf16 => avx512::matmul(self, &mut task),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2::matmul(self, &mut task),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => neon::matmul(self, &mut task),
                _ => scalar::matmul(self, &mut task),
            }
        }
        Ok(())
    }
}
