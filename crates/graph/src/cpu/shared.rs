//! The memory that the threads of one program share: the only unsafe code of this crate.
//!
//! A program runs as a sequence of phases, each a number of tasks that threads claim one by one. Three facts make
//! the shared memory sound, and each has its place and its test:
//! - the plan (`cpu/plan.rs`, `memory.rs`) never puts two tensors that are alive in the same step on the same bytes,
//!   except where a step updates a tensor in place;
//! - within a phase, what a task writes (rows, columns of a matrix, heads of a token, pages of a cache) belongs to that
//!   task alone, and is read by no other task of the phase;
//! - shared memory is touched inside tasks only; each task is handed out once, and a phase begins when all tasks of the
//!   one before are done (`Worker::phase`).
#![allow(unsafe_code)]

use kun_kernels::conv::Convolution;
use kun_kernels::conv::codes::CodesConvolution;
use kun_kernels::conv::codes::depthwise::CodesDepthwise;
use kun_kernels::conv::depthwise::Depthwise;
use kun_kernels::conv::few::Few;
use kun_kernels::conv::winograd::Winograd;
use kun_kernels::gemm::quads::{CodesProduct, CodesTarget};
use kun_kernels::gemm::{Attention, Product, Scratch, Target};
use kun_kernels::linear::{Output, PackedLayout, Panels};
use kun_kernels::pool::Pool;
use kun_kernels::self_attention::{HeadOutput, SelfAttention, self_attention};
use kun_kernels::strided::Copy;
use kun_kernels::{Isa, KernelError};
use kun_tensor::storage::HugeBuffer;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Zeroed memory, written by several threads in disjoint parts.
#[derive(Debug)]
pub(crate) struct Block {
    base: *mut u8,
    len: usize,
    // Owns what `base` points to.
    _buffer: HugeBuffer,
}

// SAFETY: the buffer is owned and never moves; who may touch which bytes when is the contract of this module.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// `bytes` zero bytes; the system provides pages when they are first touched.
    pub(crate) fn zeroed(bytes: usize) -> std::io::Result<Block> {
        // The system gives whole huge pages to whole multiples of them alone.
        const HUGE: usize = 2 << 20;
        let whole = if bytes < HUGE { bytes } else { bytes.checked_next_multiple_of(HUGE).unwrap_or(bytes) };
        // Never empty, so that the base is page-aligned.
        let mut buffer = HugeBuffer::zeroed(whole.max(crate::memory::ALIGN))?;
        let slice = buffer.as_mut_slice();
        Ok(Block { base: slice.as_mut_ptr(), len: bytes.max(crate::memory::ALIGN), _buffer: buffer })
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that no task of the phase writes.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of a block of {}", self.len);
        // SAFETY: in bounds by the assertion; not written meanwhile by the contract of this module.
        unsafe { std::slice::from_raw_parts(self.base.add(range.start), range.len()) }
    }

    /// Where byte `offset` is: something to name, never to read, so that others may write it.
    pub(crate) fn address(&self, offset: usize) -> *const u8 {
        self.base.wrapping_add(offset)
    }

    /// Bytes that belong to the calling task alone.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn bytes_mut(&self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of a block of {}", self.len);
        // SAFETY: in bounds by the assertion; not shared by the contract of this module.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(range.start), range.len()) }
    }

    /// `len` floats from byte `offset`, that no task of the phase writes.
    pub(crate) fn floats(&self, offset: usize, len: usize) -> &[f32] {
        self.check_floats(offset, len);
        // SAFETY: in bounds and aligned by the check; any bytes are floats; not written meanwhile by the contract.
        unsafe { std::slice::from_raw_parts(self.base.add(offset).cast(), len) }
    }

    /// `len` floats from byte `offset`, that belong to the calling task alone.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn floats_mut(&self, offset: usize, len: usize) -> &mut [f32] {
        self.check_floats(offset, len);
        // SAFETY: in bounds and aligned by the check; any bytes are floats; not shared by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(offset).cast(), len) }
    }

    fn check_floats(&self, offset: usize, len: usize) {
        // The base is page-aligned.
        assert!(offset.is_multiple_of(4), "floats at byte {offset}");
        let end = len.checked_mul(4).and_then(|bytes| bytes.checked_add(offset));
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{len} floats at {offset} of a block of {}",
            self.len
        );
    }
}

/// The bytes of some floats.
pub(crate) fn as_bytes(floats: &[f32]) -> &[u8] {
    // SAFETY: every byte of a float is a valid byte, and bytes have no alignment.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
}

/// The first `len` floats of some bytes, from the first place on where floats may lie, and the bytes after them.
pub(crate) fn split_floats(bytes: &mut [u8], len: usize) -> (&mut [f32], &mut [u8]) {
    let skip = bytes.as_ptr().align_offset(64).min(bytes.len());
    let (floats, rest) = bytes[skip..].split_at_mut(len * 4);
    // SAFETY: any bytes are floats.
    let (before, floats, _) = unsafe { floats.align_to_mut::<f32>() };
    debug_assert!(before.is_empty());
    (floats, rest)
}

/// A slice of the caller's, written by several threads in disjoint parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedSlice<'a> {
    base: *mut f32,
    len: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: stands for the exclusive borrow it was made from; who may touch which part is the contract of this module.
unsafe impl Send for SharedSlice<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedSlice<'_> {}

impl<'a> SharedSlice<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> SharedSlice<'a> {
        SharedSlice { base: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// Elements that no task of the phase writes.
    pub(crate) fn get(&self, range: Range<usize>) -> &'a [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} elements", self.len);
        // SAFETY: in bounds by the assertion; not written meanwhile by the contract of this module.
        unsafe { std::slice::from_raw_parts(self.base.add(range.start), range.len()) }
    }

    /// Elements that belong to the calling task alone.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn get_mut(&self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} elements", self.len);
        // SAFETY: in bounds by the assertion; not shared by the contract of this module.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(range.start), range.len()) }
    }
}

/// A matrix whose columns several threads write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a> {
    rows: SharedSlice<'a>,
    width: usize,
}

impl<'a> Columns<'a> {
    /// `[T, width]` elements of a block from byte `offset`.
    pub(crate) fn in_block(block: &'a Block, offset: usize, t: usize, width: usize) -> Columns<'a> {
        let len = t.checked_mul(width).expect("tensors fit the arena");
        block.check_floats(offset, len);
        let base = block.base.wrapping_add(offset).cast();
        Columns { rows: SharedSlice { base, len, owner: PhantomData }, width }
    }

    /// `[T, width]` elements of a slice.
    pub(crate) fn in_slice(slice: SharedSlice<'a>, t: usize, width: usize) -> Columns<'a> {
        assert!(t.checked_mul(width).is_some_and(|len| len <= slice.len), "{t} rows of {width}");
        Columns { rows: slice, width }
    }

    /// Columns `columns` of row `t`, that belong to the calling task alone.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn row_mut(&self, t: usize, columns: Range<usize>) -> &'a mut [f32] {
        assert!(columns.end <= self.width, "{columns:?} of {} columns", self.width);
        self.rows.get_mut(t * self.width + columns.start..t * self.width + columns.end)
    }

    /// Attention of one head, whose results go to the rows `row ..` and the columns `column ..`; these belong to the
    /// calling task alone.
    pub(crate) fn attend(
        &self,
        isa: Isa,
        task: &SelfAttention<'_>,
        row: usize,
        column: usize,
        scratch: &mut [u8],
    ) -> Result<(), KernelError> {
        let rows = self.rows.len.checked_div(self.width).unwrap_or(0);
        assert!(row + task.query_count <= rows && column + task.head_dim <= self.width, "{row} of {rows}");
        let data = self.rows.base.wrapping_add(row * self.width + column);
        // SAFETY: the rows and columns lie in `rows` by the assertion; no other task touches them by the contract.
        unsafe { self_attention(isa, task, HeadOutput { data, row_stride: self.width }, scratch) }
    }

    /// Multiplies prepared rows with some panels of a matrix; see [`PackedLayout::matmul`]. The results go to the rows
    /// `rows`, of which these columns belong to the calling task alone.
    pub(crate) fn matmul(
        &self,
        rows: Range<usize>,
        layout: &PackedLayout,
        panels: Panels<'_>,
        x: &[u8],
        bias: Option<&[f32]>,
        accumulate: bool,
        scratch: &mut [u8],
    ) -> Result<(), KernelError> {
        let (n, _) = layout.shape();
        assert!(n <= self.width, "{n} columns into rows of {}", self.width);
        assert!(
            rows.start <= rows.end && rows.end * self.width <= self.rows.len,
            "{rows:?} of {}",
            self.rows.len
        );
        let t = rows.len();
        let data = self.rows.base.wrapping_add(rows.start * self.width);
        let out = Output { data, row_stride: self.width, accumulate };
        // SAFETY: these rows of `n <= width` columns lie in `self.rows`; no other task touches these columns by the contract.
        unsafe { layout.matmul(panels, x, t, bias, out, scratch) }
    }
}

/// Multiplies prepared rows with some panels of a matrix; see [`PackedLayout::matmul`]. `out` holds the columns of these
/// panels alone, row after row.
pub(crate) fn matmul_apart(
    layout: &PackedLayout,
    panels: Panels<'_>,
    x: &[u8],
    bias: Option<&[f32]>,
    out: &mut [f32],
    scratch: &mut [u8],
) -> Result<(), KernelError> {
    let (_, k) = layout.shape();
    let columns = layout.columns(&panels.range);
    let t = x.len() / layout.activation().row_bytes(k).max(1);
    assert!(t.checked_mul(columns.len()) == Some(out.len()), "{t} rows of {columns:?} in {}", out.len());
    let data = out.as_mut_ptr().wrapping_sub(columns.start);
    let out = Output { data, row_stride: columns.len(), accumulate: false };
    // SAFETY: `t` rows of these columns fill the caller's slice by the assertion.
    unsafe { layout.matmul(panels, x, t, bias, out, scratch) }
}

/// Memory of a result of which tasks write parts that may lie between each other: rows, pixels, some channels of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    base: *mut f32,
    len: usize,
    owner: PhantomData<&'a [f32]>,
}

impl<'a> Region<'a> {
    /// `len` elements of a block from byte `offset`.
    pub(crate) fn in_block(block: &'a Block, offset: usize, len: usize) -> Region<'a> {
        block.check_floats(offset, len);
        Region { base: block.base.wrapping_add(offset).cast(), len, owner: PhantomData }
    }

    /// `len` elements of a slice from element `offset`.
    pub(crate) fn in_slice(slice: SharedSlice<'a>, offset: usize, len: usize) -> Region<'a> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= slice.len), "{len} elements at {offset}");
        Region { base: slice.base.wrapping_add(offset), len, owner: PhantomData }
    }

    /// Rows `stride` apart from the first element.
    pub(crate) fn target(&self, stride: usize) -> Target {
        self.target_at(0, stride)
    }

    /// Rows `stride` apart from element `first`.
    pub(crate) fn target_at(&self, first: usize, stride: usize) -> Target {
        assert!(first <= self.len, "element {first} of {}", self.len);
        Target { data: self.base.wrapping_add(first), stride }
    }

    /// Elements that belong to the calling task alone.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn row_mut(&self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(
            start.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} elements at {start} of {}",
            self.len
        );
        // SAFETY: in bounds by the assertion; not shared by the contract of this module.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), len) }
    }

    /// Refuses `rows` rows of `width` elements that do not lie in this region.
    fn check(&self, out: Target, rows: usize, width: usize) {
        if rows == 0 || width == 0 {
            return;
        }
        let first = (out.data.addr().wrapping_sub(self.base.addr())) / size_of::<f32>();
        let end = (rows - 1)
            .checked_mul(out.stride)
            .and_then(|at| at.checked_add(width)?.checked_add(first))
            .filter(|&end| first <= self.len && end <= self.len);
        assert!(
            end.is_some(),
            "{rows} rows of {width} at {first}, {} apart, of {} elements",
            out.stride,
            self.len
        );
    }

    /// Runs a part of a product into this region.
    pub(crate) fn product(
        &self,
        product: &Product<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        self.check(product.out, rows.end, product.panels.shape().0);
        // SAFETY: the rows lie in this region by the check; no other task touches these rows of these columns, nor writes
        // a residual, by the contract of this module.
        unsafe { product.run(rows, columns, scratch) }
    }

    /// Runs a part of a convolution into this region.
    pub(crate) fn convolution(
        &self,
        convolution: &Convolution<'_>,
        pixels: Range<usize>,
        columns: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        self.check(convolution.out, pixels.end, convolution.panels.shape().0);
        // SAFETY: as for `product`.
        unsafe { convolution.run(pixels, columns, scratch) }
    }

    /// Runs some output rows of a convolution of few channels into this region.
    pub(crate) fn few(
        &self,
        few: &Few<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        self.check(few.out, few.geometry.pixels(), few.panels.shape().0);
        // SAFETY: as for `product`.
        unsafe { few.run(rows, columns, scratch) }
    }

    /// Runs some tiles of a convolution into this region.
    pub(crate) fn winograd(
        &self,
        winograd: &Winograd<'_>,
        tiles: Range<usize>,
        columns: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        self.check(winograd.out, winograd.geometry.pixels(), winograd.panels.shape().0);
        // SAFETY: as for `product`.
        unsafe { winograd.run(tiles, columns, scratch) }
    }

    /// Runs some rows of a convolution of single channels into this region.
    pub(crate) fn depthwise(
        &self,
        isa: Isa,
        depthwise: &Depthwise<'_>,
        rows: Range<usize>,
        channels: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let end = (rows.end * depthwise.geometry.output[1]).saturating_sub(depthwise.skip);
        self.check(depthwise.out, end, depthwise.channels);
        // SAFETY: as for `product`.
        unsafe { depthwise.run(isa, rows, channels, scratch) }
    }

    /// Runs some rows of a pooling into this region.
    pub(crate) fn pool(
        &self,
        isa: Isa,
        pool: &Pool<'_>,
        rows: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        self.check(pool.out, pool.geometry.pixels(), pool.channels);
        // SAFETY: as for `product`.
        unsafe { pool.run(isa, rows, scratch) }
    }

    /// Computes some queries of a head into this region.
    pub(crate) fn attention(
        &self,
        isa: Isa,
        attention: &Attention<'_>,
        queries: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        self.check(attention.out, queries.end, attention.value_dim);
        // SAFETY: as for `product`.
        unsafe { attention.run(isa, queries, scratch) }
    }

    /// Copies some pieces of a tensor into this region.
    pub(crate) fn copy(&self, copy: &Copy, pieces: Range<usize>, x: &[f32]) -> Result<(), KernelError> {
        assert!(copy.extent() <= self.len, "{} elements into {}", copy.extent(), self.len);
        // SAFETY: the whole tensor lies in this region by the assertion; its pieces are those of different tasks.
        unsafe { copy.run(pieces, x, self.base) }
    }
}

/// [`Region`] for u8 codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeRegion<'a> {
    base: *mut u8,
    len: usize,
    owner: PhantomData<&'a [u8]>,
}

impl<'a> CodeRegion<'a> {
    /// `len` bytes of a block from byte `offset`.
    pub(crate) fn in_block(block: &'a Block, offset: usize, len: usize) -> CodeRegion<'a> {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= block.len),
            "{len} bytes at {offset} of a block of {}",
            block.len
        );
        CodeRegion { base: block.base.wrapping_add(offset), len, owner: PhantomData }
    }

    /// Rows `stride` apart from the first code.
    pub(crate) fn target(&self, stride: usize) -> CodesTarget {
        CodesTarget::Codes { data: self.base, stride }
    }

    /// Codes that belong to the calling task alone.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn row_mut(&self, start: usize, len: usize) -> &'a mut [u8] {
        assert!(
            start.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} codes at {start} of {}",
            self.len
        );
        // SAFETY: in bounds by the assertion; not shared by the contract of this module.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), len) }
    }

    /// Copies some pieces of a tensor into this region.
    pub(crate) fn copy(&self, copy: &Copy, pieces: Range<usize>, x: &[u8]) -> Result<(), KernelError> {
        assert!(copy.extent() <= self.len, "{} codes into {}", copy.extent(), self.len);
        // SAFETY: the whole tensor lies in this region by the assertion; its pieces are those of different tasks.
        unsafe { copy.run(pieces, x, self.base) }
    }

    /// Runs some rows of a convolution of single channels into this region, pixels `stride` apart.
    pub(crate) fn depthwise(
        &self,
        isa: Isa,
        depthwise: &CodesDepthwise<'_>,
        rows: Range<usize>,
        channels: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        check_rows(self.len, depthwise.geometry.pixels(), depthwise.channels, depthwise.stride);
        // SAFETY: as for the others; the pixels begin with this region.
        unsafe { CodesDepthwise { out: self.base, ..*depthwise }.run(isa, rows, channels, scratch) }
    }
}

/// Refuses `rows` rows of `width` elements, `stride` apart, that are more than `len`.
fn check_rows(len: usize, rows: usize, width: usize, stride: usize) {
    let end = rows.saturating_sub(1).checked_mul(stride).and_then(|at| at.checked_add(width));
    assert!(end.is_some_and(|end| end <= len), "{rows} rows of {width}, {stride} apart, of {len} elements");
}

/// Memory of a result in codes or in numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnyRegion<'a> {
    Codes(CodeRegion<'a>),
    Numbers(Region<'a>),
}

impl AnyRegion<'_> {
    /// The region from element `first` on.
    pub(crate) fn from(&self, first: usize) -> Self {
        let rest = |len: usize| len.checked_sub(first).expect("the element lies in the region");
        match *self {
            AnyRegion::Codes(region) => {
                let (len, base) = (rest(region.len), region.base.wrapping_add(first));
                AnyRegion::Codes(CodeRegion { base, len, ..region })
            }
            AnyRegion::Numbers(region) => {
                let (len, base) = (rest(region.len), region.base.wrapping_add(first));
                AnyRegion::Numbers(Region { base, len, ..region })
            }
        }
    }

    /// Rows `stride` apart from the first element; refuses `rows` rows of `width` that do not lie in this region.
    fn target(&self, rows: usize, width: usize, stride: usize) -> CodesTarget {
        match self {
            AnyRegion::Codes(region) => {
                check_rows(region.len, rows, width, stride);
                region.target(stride)
            }
            AnyRegion::Numbers(region) => {
                check_rows(region.len, rows, width, stride);
                CodesTarget::Numbers { data: region.base, stride }
            }
        }
    }

    /// Runs a part of a product of codes into this region, rows `stride` apart.
    pub(crate) fn product(
        &self,
        product: &CodesProduct<'_>,
        stride: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<(), KernelError> {
        let out = self.target(rows.end, product.panels.shape().0, stride);
        // SAFETY: the rows lie in this region by the check; no other task touches these rows of these columns, nor writes
        // what is added, by the contract of this module.
        unsafe { CodesProduct { out, ..*product }.run(rows, columns) }
    }

    /// Runs a part of a convolution of codes into this region, pixels `stride` apart.
    pub(crate) fn convolution(
        &self,
        convolution: &CodesConvolution<'_>,
        stride: usize,
        part: Range<usize>,
        columns: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let out = self.target(convolution.geometry.pixels(), convolution.panels.shape().0, stride);
        // SAFETY: as for `product`.
        unsafe { CodesConvolution { out, ..*convolution }.run(part, columns, scratch) }
    }
}

/// What the threads of a pool run.
pub(crate) type Job<'a> = &'a (dyn Fn(usize) + Sync + 'a);

/// Lends a closure to other threads for as long as its owner waits for them.
#[derive(Debug, Default)]
pub(crate) struct Lent(AtomicPtr<Job<'static>>);

impl Lent {
    /// Makes `job` visible to [`Lent::call`]. The caller must not return before every call has.
    pub(crate) fn lend(&self, job: &Job<'_>) {
        let job: *const Job<'_> = job;
        self.0.store(job.cast::<Job<'static>>().cast_mut(), Ordering::Release);
    }

    /// Calls the closure that is lent now. Only between a `lend` and the moment its owner is told of the end.
    pub(crate) fn call(&self, thread: usize) {
        let job = self.0.load(Ordering::Acquire);
        assert!(!job.is_null(), "a job is lent before threads are told of it");
        // SAFETY: the owner keeps the closure, and the reference to it, alive until all threads report their end
        // (`Pool::run` waits for them even if its own part panics).
        unsafe { (*job)(thread) }
    }
}
