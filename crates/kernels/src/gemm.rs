//! Products of rows with a constant or computed matrix in f32, for models of dense layers and convolutions.
//!
//! One micro-kernel serves them all: up to six rows by a panel of outputs stay in registers, a step of `k` loads the panel's
//! next outputs and broadcasts one element of each row. Rows need no packing: they are pointers, so a convolution is the
//! same product with one pointer for each row and tap. An output is summed in the order of `k` whatever rows share the call.

pub(crate) mod activation;
mod attention;
pub(crate) mod pack;
pub(crate) mod pairs;
pub mod quads;
pub(crate) mod tile;

pub use activation::Activation;
pub use attention::Attention;

use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};
use std::ops::Range;

/// Most rows of a tile: six by four accumulators, four weights and a broadcast fill 29 of the 32 registers of AVX-512.
pub(crate) const ROWS: usize = 6;
/// Bytes of rows that should stay in the second-level cache while panels pass by.
pub(crate) const ROW_BLOCK_BYTES: usize = 512 << 10;

/// How an `[n, k]` matrix lies in packed memory: panels of outputs, each `[steps][vectors * lanes]`, padded with zeros.
///
/// A step is one element of the depth, or two in bf16 ([`Panels::pairs`]): a word as large as an f32 in either case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panels {
    isa: Isa,
    n: usize,
    k: usize,
    steps: usize,
    /// With pairs, the pieces that the depth consists of: each begins a new pair.
    pieces: Option<usize>,
    lanes: usize,
    /// Vectors of all panels.
    vectors: usize,
    count: usize,
}

/// One panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panel {
    /// Its first output.
    pub first: usize,
    /// Outputs that are not padding.
    pub width: usize,
    /// Registers a row of it takes.
    pub vectors: usize,
    /// Its first element in packed memory.
    pub offset: usize,
}

/// Lanes and columns of an instruction set.
struct Registers;

impl Kernel for Registers {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<V: Vector>(self, _: V) -> (usize, usize) {
        (V::LANES, V::COLUMNS)
    }
}

/// Lanes of a register of `isa`.
pub fn lanes(isa: Isa) -> usize {
    vector::run(isa, Registers).0
}

impl Panels {
    /// The layout of an `[n, k]` matrix.
    pub fn new(isa: Isa, n: usize, k: usize) -> Panels {
        let (lanes, columns) = vector::run(isa, Registers);
        let vectors = n.div_ceil(lanes);
        Panels { isa, n, k, steps: k, pieces: None, lanes, vectors, count: vectors.div_ceil(columns) }
    }

    /// Outputs and depth.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Words of the packed matrix.
    pub fn packed_len(&self) -> usize {
        self.vectors * self.lanes * self.steps
    }

    /// Outputs with the padding: the length of packed biases and slopes.
    pub fn padded(&self) -> usize {
        self.vectors * self.lanes
    }

    /// Panels differ by at most one vector, so that none is too narrow to keep the multipliers busy.
    pub(crate) fn panel(&self, index: usize) -> Panel {
        let (each, wider) = (self.vectors / self.count, self.vectors % self.count);
        let start = index * each + index.min(wider);
        let vectors = each + usize::from(index < wider);
        let first = start * self.lanes;
        let width = (vectors * self.lanes).min(self.n - first);
        Panel { first, width, vectors, offset: first * self.steps }
    }

    /// Packs `source`, whose output `n` at depth `k` is element `n * n_stride + k * k_stride`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if a length is wrong.
    pub fn pack(
        &self,
        source: &[f32],
        n_stride: usize,
        k_stride: usize,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        KernelError::check("pack", out.len(), self.packed_len())?;
        for index in 0..self.count {
            let from = source.get(self.panel(index).first * n_stride..).unwrap_or(&[]);
            let out = &mut out[self.packed_range(index, 0..self.k)];
            self.pack_part(index, 0..self.k, from, [n_stride, k_stride], out)?;
        }
        Ok(())
    }

    /// The outputs of panel `index`.
    pub fn panel_outputs(&self, index: usize) -> Range<usize> {
        let Panel { first, width, .. } = self.panel(index);
        first..first + width
    }

    /// Where the depths `depths` of panel `index` lie in the packed matrix; see [`Panels::pack_part`].
    pub fn packed_range(&self, index: usize, depths: Range<usize>) -> Range<usize> {
        let panel = self.panel(index);
        let row = panel.vectors * self.lanes;
        let steps = match self.pieces {
            None => depths,
            Some(_) if depths.end == self.k => depths.start / 2..self.steps,
            Some(_) => depths.start / 2..depths.end / 2,
        };
        panel.offset + steps.start * row..panel.offset + steps.end * row
    }

    /// Packs the depths `depths` of panel `index` into `out`, its [`Panels::packed_range`]: output `i` of the panel at depth
    /// `depths.start + k` is element `i * n_stride + k * k_stride` of `source`. Depths of pairs begin and end with a pair,
    /// and are all of them if the depth consists of pieces.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if a length is wrong.
    pub fn pack_part(
        &self,
        index: usize,
        depths: Range<usize>,
        source: &[f32],
        [n_stride, k_stride]: [usize; 2],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        KernelError::check("pack", out.len(), self.packed_range(index, depths.clone()).len())?;
        if self.n == 0 || depths.is_empty() {
            return Ok(());
        }
        let panel = self.panel(index);
        let last = (panel.width - 1) * n_stride + (depths.len() - 1) * k_stride;
        let split = self.has_pairs()
            && depths != (0..self.k)
            && (self.pieces != Some(1)
                || depths.start % 2 == 1
                || depths.end % 2 == 1 && depths.end != self.k);
        if last >= source.len() || depths.end > self.k || split {
            let what = format!("element {last} of {}, depths {depths:?} of {}", source.len(), self.k);
            return Err(KernelError::Shape { kernel: "pack", what });
        }
        let pieces = self.pieces;
        let row = panel.vectors * self.lanes;
        vector::run(
            self.isa,
            pack::Pack {
                width: panel.width,
                row,
                depth: depths.len() / pieces.unwrap_or(1),
                pieces,
                source,
                strides: [n_stride, k_stride],
                out,
            },
        );
        Ok(())
    }

    /// `values` (one per output) with zeros behind, as an [`Epilogue`] wants them.
    pub fn pad(&self, values: &[f32]) -> Vec<f32> {
        let mut padded = values.to_vec();
        padded.resize(self.padded(), 0.0);
        padded
    }
}

/// What is added to the result.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    /// First element of row 0.
    pub data: *const f32,
    /// Elements between rows.
    pub stride: usize,
    /// Whether it is added to the activation's result, not to its argument.
    pub after: bool,
}

/// What happens to a sum before it is written: `activation(sum + bias + residual)`, or `.. + residual` at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// [`Panels::padded`] elements, or none.
    pub bias: &'a [f32],
    /// The function.
    pub activation: Activation,
    /// [`Panels::padded`] slopes of [`Activation::Slopes`], else none.
    pub slopes: &'a [f32],
    /// Added.
    pub residual: Option<Residual>,
}

impl Epilogue<'_> {
    pub(crate) fn check(&self, kernel: &'static str, padded: usize) -> Result<(), KernelError> {
        if !self.bias.is_empty() {
            KernelError::check(kernel, self.bias.len(), padded)?;
        }
        let slopes = if self.activation == Activation::Slopes { padded } else { 0 };
        KernelError::check(kernel, self.slopes.len(), slopes)
    }
}

/// Where results go: row `r`, output `n` is `data[r * stride + n]`.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// First element of row 0.
    pub data: *mut f32,
    /// Elements between rows.
    pub stride: usize,
}

/// Memory that one thread reuses between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) pointers: Vec<*const f32>,
    pub(crate) floats: Vec<f32>,
    pub(crate) more: Vec<f32>,
    pub(crate) zeros: Vec<f32>,
    pub(crate) rounded: Vec<f32>,
    pub(crate) codes: Vec<u8>,
    pub(crate) zero_codes: Vec<u8>,
    pub(crate) code_pointers: Vec<*const u8>,
}

// SAFETY: the pointers are written anew by every call that reads them.
unsafe impl Send for Scratch {}
// SAFETY: as above; sharing it allows nothing.
unsafe impl Sync for Scratch {}

/// The matrix of a product: packed, or rows of `k` as they lie in memory.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// As [`Panels::pack`] left it.
    Packed(&'a [f32]),
    /// Output `n` at depth `k` is element `k * stride + n`; the outputs must be whole vectors.
    Rows(&'a [f32], usize),
}

impl Matrix<'_> {
    pub(crate) fn check(&self, panels: &Panels) -> Result<(), KernelError> {
        match self {
            Matrix::Packed(data) => KernelError::check("product", data.len(), panels.packed_len()),
            Matrix::Rows(..) if panels.pieces.is_some() => {
                Err(KernelError::Shape { kernel: "product", what: "pairs of an unpacked matrix".to_owned() })
            }
            Matrix::Rows(data, stride) => {
                KernelError::check_groups("product", panels.n, panels.lanes)?;
                let needed = if panels.k == 0 { 0 } else { (panels.k - 1) * stride + panels.n };
                if data.len() < needed {
                    let what = format!("{} elements of a matrix of {needed}", data.len());
                    return Err(KernelError::Shape { kernel: "product", what });
                }
                Ok(())
            }
        }
    }

    /// First element of a panel and the distance between its steps.
    pub(crate) fn panel(&self, panel: &Panel, lanes: usize) -> (*const f32, usize) {
        match self {
            Matrix::Packed(data) => (data[panel.offset..].as_ptr(), panel.vectors * lanes),
            Matrix::Rows(data, stride) => (data[panel.first..].as_ptr(), *stride),
        }
    }
}

/// `out[r, n] = epilogue(sum over k of x[r, k] * matrix[n, k])` for the rows `rows` and the panels `columns`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// Layout of the matrix.
    pub panels: &'a Panels,
    /// The matrix.
    pub matrix: Matrix<'a>,
    /// Row `r` is `x[r * x_stride ..][..k]`.
    pub x: &'a [f32],
    /// Elements between rows.
    pub x_stride: usize,
    /// What happens to sums.
    pub epilogue: Epilogue<'a>,
    /// Where they go.
    pub out: Target,
}

impl Product<'_> {
    /// Computes a part of it.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    ///
    /// # Safety
    /// `out` must be valid for writes of `rows` and the outputs of `columns`, which no other thread touches meanwhile;
    /// a residual must be valid for reading the same, and is not `out`.
    pub unsafe fn run(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        // SAFETY: passed on.
        unsafe { self.run_with(rows, columns, &mut scratch.rounded) }
    }

    /// The same; rows in bf16 go to `rounded`.
    unsafe fn run_with(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        rounded: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let panels = self.panels;
        self.matrix.check(panels)?;
        self.epilogue.check("product", panels.padded())?;
        if rows.is_empty() || columns.is_empty() {
            return Ok(());
        }
        let end = (rows.end - 1).checked_mul(self.x_stride).and_then(|at| at.checked_add(panels.k));
        if end.is_none_or(|end| end > self.x.len()) || columns.end > panels.count {
            let what = format!(
                "rows {rows:?} of {} at stride {} of {} elements, panels {columns:?} of {}",
                panels.k,
                self.x_stride,
                self.x.len(),
                panels.count
            );
            return Err(KernelError::Shape { kernel: "product", what });
        }
        let block = (ROW_BLOCK_BYTES / 4 / panels.steps.clamp(1, tile::SEGMENT)).min(64 * ROWS);
        for range in blocks(rows, block) {
            // In bounds: checked for the last row.
            let x = &self.x[range.start * self.x_stride..];
            let (first, stride) = if panels.pieces.is_some() {
                let out = pairs::grown(rounded, range.len() * panels.steps);
                panels.round(x, self.x_stride, range.len(), panels.k, out);
                (out.as_ptr(), panels.steps)
            } else {
                (x.as_ptr(), self.x_stride)
            };
            panels.run(tile::Part {
                panels,
                matrix: self.matrix,
                x: tile::Rows::Even(&[first], stride),
                taps: 1,
                depth: panels.steps,
                rows: range,
                columns: columns.clone(),
                epilogue: self.epilogue,
                out: self.out,
                next: std::ptr::null(),
            });
        }
        Ok(())
    }
}

/// `range` in parts of about `block`, of sizes as even as they can be.
pub(crate) fn blocks(range: Range<usize>, block: usize) -> impl Iterator<Item = Range<usize>> {
    let len = range.len();
    let count = len.div_ceil(block.max(1)).max(1);
    (0..count).map(move |i| range.start + len * i / count..range.start + len * (i + 1) / count)
}

impl Panels {
    /// The instruction set.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// The first output of some panels, and how many they have.
    pub(crate) fn outputs(&self, columns: &Range<usize>) -> (usize, usize) {
        let first = self.panel(columns.start).first;
        let last = self.panel(columns.end - 1);
        (first, last.first + last.width - first)
    }

    /// Runs a part of a product with these panels.
    pub(crate) fn run(&self, part: tile::Part<'_>) {
        if self.pieces.is_some() { vector::run_pairs(part) } else { vector::run(self.isa, part) }
    }
}

#[cfg(test)]
pub(crate) mod tests;
