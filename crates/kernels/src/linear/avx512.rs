//! AVX-512 with VNNI, and BF16 where the machine has it.
//!
//! One register holds one step (four columns) of the 16 rows of a panel; a row of activations is broadcast a dword at a time.

use super::activations::{GroupSums, Int8Parts, Int8Row};
use super::pack::IQ4_UNSIGNED;
use super::scheme::{GROUP, GroupScale, High, Low, Sections, scheme};
use super::{Output, PANEL_ROWS, PackedLayout, Plain, Task};
use kun_tensor::DType;
#[allow(clippy::wildcard_imports, reason = "intrinsics carry their prefix")]
use std::arch::{asm, x86_64::*};

/// Bytes of activations that should stay in the second-level cache while panels pass by.
const ROW_BLOCK_BYTES: usize = 256 << 10;

/// How far ahead of the products weights are asked for, into the first-level cache: less leaves the memory idle between panels,
/// more pushes activations out.
const NEAR_BYTES: usize = 8192;
/// The same into the second-level cache, which can wait for more lines at once: up to 1.8 times the bytes per second where
/// memory is what products wait for. A panel's sections lie apart, so it takes most of a panel.
const FAR_BYTES: usize = 32 << 10;
/// From there into the first-level cache, where a row or two leave time for it.
const SOON_BYTES: usize = 4096;

/// Whether rows of a scheme, so many at once, wait for memory rather than for products, as measured on Zen 4: few rows, or
/// weights of five bits and more.
const fn waits_for_memory(s: usize, rows: usize) -> bool {
    rows < 8 || scheme(s).group_bytes() > 340
}

/// A packed panel of a quantised type.
#[derive(Clone, Copy)]
struct Panel<'a> {
    data: *const u8,
    at: &'a Sections,
    /// Bytes to where its thread goes on at `then`.
    left: usize,
    then: *const u8,
}

impl Panel<'_> {
    /// What lies so far ahead of the panel's start.
    #[inline(always)]
    fn ahead(self, offset: usize) -> *const u8 {
        if offset < self.left {
            self.data.wrapping_add(offset)
        } else {
            self.then.wrapping_add(offset - self.left)
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn line(p: *const u8) -> __m512i {
    // SAFETY: the caller passes a pointer into a panel with 64 readable bytes.
    unsafe { _mm512_loadu_si512(p.cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn broadcast(p: *const u8) -> __m512i {
    // SAFETY: the caller passes a pointer to four readable bytes.
    _mm512_set1_epi32(unsafe { p.cast::<i32>().read_unaligned() })
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn halves(p: *const u8) -> __m512 {
    // SAFETY: the caller passes a pointer to 32 readable bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(p.cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn bytes(p: *const u8) -> __m128i {
    // SAFETY: the caller passes a pointer to 16 readable bytes.
    unsafe { _mm_loadu_si128(p.cast()) }
}

/// Steps `half * 4 ..` of group `g`, unpacked.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn load_steps<const S: usize>(panel: Panel<'_>, g: usize, half: usize) -> [__m512i; 4] {
    let scheme = const { scheme(S) };
    let mut w = [_mm512_setzero_si512(); 4];
    // SAFETY: `g` is a group of the panel and `half` is 0 or 1; the offsets are those of `Sections`.
    unsafe {
        let low = panel.data.add(panel.at.low + g * scheme.low_bytes());
        match scheme.low {
            Low::Bytes => {
                for (s, w) in w.iter_mut().enumerate() {
                    *w = line(low.add((half * 4 + s) * 64));
                }
            }
            Low::Nibbles => {
                let mask = _mm512_set1_epi8(0xf);
                for (s, w) in w.iter_mut().enumerate() {
                    let both = line(low.add(s * 64));
                    let nibbles = if half == 0 { both } else { _mm512_srli_epi16::<4>(both) };
                    *w = _mm512_and_si512(nibbles, mask);
                    if scheme.table {
                        let table = _mm512_broadcast_i32x4(bytes(IQ4_UNSIGNED.as_ptr()));
                        *w = _mm512_shuffle_epi8(table, *w);
                    }
                }
            }
            Low::Pairs => {
                let all = line(low.add(half * 64));
                let mask = _mm512_set1_epi8(3);
                w[0] = _mm512_and_si512(all, mask);
                w[1] = _mm512_and_si512(_mm512_srli_epi16::<2>(all), mask);
                w[2] = _mm512_and_si512(_mm512_srli_epi16::<4>(all), mask);
                w[3] = _mm512_and_si512(_mm512_srli_epi16::<6>(all), mask);
            }
        }
        let high = panel.data.add(panel.at.high + g * scheme.high_bytes());
        match scheme.high {
            High::None => {}
            High::Bit => {
                let bit = _mm512_set1_epi8(if matches!(scheme.low, Low::Pairs) { 4 } else { 16 });
                for (s, w) in w.iter_mut().enumerate() {
                    let mask = high.add((half * 4 + s) * 8).cast::<u64>().read_unaligned();
                    *w = _mm512_mask_add_epi8(*w, mask, *w, bit);
                }
            }
            High::Pairs => {
                let all = line(high.add(half * 64));
                let mask = _mm512_set1_epi8(0x30);
                // a | (b & c)
                const OR_AND: i32 = 0xf8;
                w[0] = _mm512_ternarylogic_epi64::<OR_AND>(w[0], _mm512_slli_epi16::<4>(all), mask);
                w[1] = _mm512_ternarylogic_epi64::<OR_AND>(w[1], _mm512_slli_epi16::<2>(all), mask);
                w[2] = _mm512_ternarylogic_epi64::<OR_AND>(w[2], all, mask);
                w[3] = _mm512_ternarylogic_epi64::<OR_AND>(w[3], _mm512_srli_epi16::<2>(all), mask);
            }
        }
    }
    w
}

/// Scales and offsets of group `g`; the second half's equal the first's where the scheme has whole groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn load_scales<const S: usize>(panel: Panel<'_>, g: usize, half: usize) -> (__m512, __m512) {
    let scheme = const { scheme(S) };
    let zero = _mm512_setzero_ps();
    // SAFETY: as in `load_steps`.
    unsafe {
        let s = panel.data.add(panel.at.scales + g * scheme.scale_bytes());
        let sup = panel.data.add(g / 8 * scheme.super_bytes());
        let signed = |v| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v));
        let unsigned = |v| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v));
        let minus = |v| _mm512_xor_ps(v, _mm512_set1_ps(-0.0));
        match scheme.scale {
            GroupScale::Half => (halves(s), zero),
            GroupScale::HalfAndOffset => (halves(s), halves(s.add(32))),
            GroupScale::Int8 => (_mm512_mul_ps(halves(sup), signed(bytes(s))), zero),
            GroupScale::Int8Halves => (_mm512_mul_ps(halves(sup), signed(bytes(s.add(half * 16)))), zero),
            GroupScale::ByteAndOffset => (
                _mm512_mul_ps(halves(sup), unsigned(bytes(s))),
                minus(_mm512_mul_ps(halves(sup.add(32)), unsigned(bytes(s.add(16))))),
            ),
            GroupScale::NibblesHalves => {
                let both = bytes(s.add(half * 16));
                let mask = _mm_set1_epi8(0xf);
                (
                    _mm512_mul_ps(halves(sup), unsigned(_mm_and_si128(both, mask))),
                    minus(_mm512_mul_ps(
                        halves(sup.add(32)),
                        unsigned(_mm_and_si128(_mm_srli_epi16::<4>(both), mask)),
                    )),
                )
            }
        }
    }
}

/// Where the results of some rows for one panel go.
#[derive(Clone, Copy)]
struct Sink {
    data: *mut f32,
    row_stride: usize,
    lanes: __mmask16,
    bias: __m512,
    accumulate: bool,
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store<const MR: usize>(sink: Sink, acc: &[__m512; MR]) {
    for (r, acc) in acc.iter().enumerate() {
        // SAFETY: row `r` of the output is writable in the lanes of the mask (`PackedLayout::matmul`).
        unsafe {
            let p = sink.data.add(r * sink.row_stride);
            let mut y = _mm512_add_ps(*acc, sink.bias);
            if sink.accumulate {
                y = _mm512_add_ps(_mm512_maskz_loadu_ps(sink.lanes, p), y);
            }
            _mm512_mask_storeu_ps(p, sink.lanes, y);
        }
    }
}

/// Asks for the lines of the output, each often on another page, while the sums are made.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(sinks: &[Sink], rows: usize) {
    for sink in sinks {
        for r in 0..rows {
            _mm_prefetch::<_MM_HINT_ET0>(sink.data.wrapping_add(r * sink.row_stride).cast());
        }
    }
}

/// `$op` for four rows of activations, which lie `{stride}` bytes apart from `{$base} + $at` on: register `$dst` of each row
/// takes register `$with` and the row's dword in all lanes. The addresses need three registers where a compiler takes twelve.
macro_rules! four {
    ($op:literal, $dst:literal, $with:literal, $base:literal, $at:literal) => {
        concat!(
            row!($op, $dst, "0", $with, $base, "", $at),
            row!($op, $dst, "1", $with, $base, " + {stride}", $at),
            row!($op, $dst, "2", $with, $base, " + 2*{stride}", $at),
            row!($op, $dst, "3", $with, $base, " + {stride3}", $at),
        )
    };
}

/// One of the instructions of [`four`].
macro_rules! row {
    ($op:literal, $dst:literal, $n:literal, $with:literal, $base:literal, $row:literal, $at:literal) => {
        concat!(
            $op,
            " {",
            $dst,
            $n,
            ":z}, {",
            $with,
            ":z}, dword ptr [{",
            $base,
            "}",
            $row,
            " + ",
            $at,
            "]{{1to16}}\n"
        )
    };
}

/// Four steps of four rows, whose weights are `w0` to `w3`.
macro_rules! first_steps {
    () => {
        concat!(
            four!("vpdpbusd", "d", "w0", "x", "0"),
            four!("vpdpbusd", "d", "w1", "x", "4"),
            four!("vpdpbusd", "d", "w2", "x", "8"),
            four!("vpdpbusd", "d", "w3", "x", "12"),
        )
    };
}

/// Where the integer sums of a group (or of half of one) of `R` rows begin: what makes up for the weights' unsigned form where
/// the scheme has no offset; `x` is where the first row keeps it.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn start<const S: usize, const R: usize>(x: *const u8, stride: usize) -> [__m512i; R] {
    let mut dot = [_mm512_setzero_si512(); R];
    if const { scheme(S) }.has_offset() {
        return dot;
    }
    // SAFETY: the caller passes a pointer to four readable bytes of each of the rows.
    unsafe {
        if R == 4
            && let Some([d0, d1, d2, d3]) = dot.first_chunk_mut()
        {
            asm!(
                "vpbroadcastd {d0:z}, dword ptr [{x}]",
                "vpbroadcastd {d1:z}, dword ptr [{x} + {stride}]",
                "vpbroadcastd {d2:z}, dword ptr [{x} + 2*{stride}]",
                "vpbroadcastd {d3:z}, dword ptr [{x} + {stride3}]",
                x = in(reg) x,
                stride = in(reg) stride,
                stride3 = in(reg) 3 * stride,
                d0 = out(zmm_reg) *d0,
                d1 = out(zmm_reg) *d1,
                d2 = out(zmm_reg) *d2,
                d3 = out(zmm_reg) *d3,
                options(pure, readonly, nostack, preserves_flags),
            );
        } else {
            for (r, dot) in dot.iter_mut().enumerate() {
                *dot = broadcast(x.add(r * stride));
            }
        }
    }
    dot
}

/// Adds four steps of `R` rows to `dot`; `x` is where the steps lie in the first row, and the rows lie `stride` bytes apart.
/// Four rows are assembly for the reason that [`add_four`] gives.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_steps<const R: usize>(w: [__m512i; 4], x: *const u8, stride: usize, dot: &mut [__m512i; R]) {
    if R == 4
        && let Some([d0, d1, d2, d3]) = dot.first_chunk_mut()
    {
        // SAFETY: reads the four steps of four rows.
        unsafe {
            asm!(
                first_steps!(),
                x = in(reg) x,
                stride = in(reg) stride,
                stride3 = in(reg) 3 * stride,
                w0 = in(zmm_reg) w[0],
                w1 = in(zmm_reg) w[1],
                w2 = in(zmm_reg) w[2],
                w3 = in(zmm_reg) w[3],
                d0 = inout(zmm_reg) *d0,
                d1 = inout(zmm_reg) *d1,
                d2 = inout(zmm_reg) *d2,
                d3 = inout(zmm_reg) *d3,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        return;
    }
    for (s, w) in w.into_iter().enumerate() {
        for (r, dot) in dot.iter_mut().enumerate() {
            // SAFETY: as above.
            *dot = _mm512_dpbusd_epi32(*dot, w, unsafe { broadcast(x.add(r * stride + s * 4)) });
        }
    }
}

/// Adds the products of group `g` to the sums of four rows; `dot` is where their integer sums begin.
///
/// This is assembly because the order matters. A compiler lets the products of one row follow each other, each of which waits
/// for the one before. That costs nothing while the processor looks far enough ahead to find the other rows'. At times it does
/// not, probably when a neighbour shares the core: then 16 rows of Q4_1 were a quarter slower.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_four(
    w: &[[__m512i; 4]; 2],
    scale: __m512,
    rows: Rows,
    g: usize,
    [d0, d1, d2, d3]: [__m512i; 4],
    [a0, a1, a2, a3]: &mut [__m512; 4],
) {
    let (_t0, _t1): (__m512, __m512);
    // SAFETY: group `g` lies inside each of the four prepared rows.
    unsafe {
        asm!(
            first_steps!(),
            row!("vmulps", "t", "0", "scale", "scales", "", "0"),
            four!("vpdpbusd", "d", "w4", "x", "16"),
            four!("vpdpbusd", "d", "w5", "x", "20"),
            row!("vmulps", "t", "1", "scale", "scales", " + {stride}", "0"),
            four!("vpdpbusd", "d", "w6", "x", "24"),
            four!("vpdpbusd", "d", "w7", "x", "28"),
            "vcvtdq2ps {d0:z}, {d0:z}",
            "vcvtdq2ps {d1:z}, {d1:z}",
            "vcvtdq2ps {d2:z}, {d2:z}",
            "vcvtdq2ps {d3:z}, {d3:z}",
            "vfmadd231ps {a0:z}, {d0:z}, {t0:z}",
            row!("vmulps", "t", "0", "scale", "scales", " + 2*{stride}", "0"),
            "vfmadd231ps {a1:z}, {d1:z}, {t1:z}",
            row!("vmulps", "t", "1", "scale", "scales", " + {stride3}", "0"),
            "vfmadd231ps {a2:z}, {d2:z}, {t0:z}",
            "vfmadd231ps {a3:z}, {d3:z}, {t1:z}",
            x = in(reg) rows.data.add(g * 32),
            scales = in(reg) rows.data.add(rows.at.scale + g * 4),
            stride = in(reg) rows.row_bytes,
            stride3 = in(reg) 3 * rows.row_bytes,
            w0 = in(zmm_reg) w[0][0],
            w1 = in(zmm_reg) w[0][1],
            w2 = in(zmm_reg) w[0][2],
            w3 = in(zmm_reg) w[0][3],
            w4 = in(zmm_reg) w[1][0],
            w5 = in(zmm_reg) w[1][1],
            w6 = in(zmm_reg) w[1][2],
            w7 = in(zmm_reg) w[1][3],
            scale = in(zmm_reg) scale,
            d0 = inout(zmm_reg) d0 => _,
            d1 = inout(zmm_reg) d1 => _,
            d2 = inout(zmm_reg) d2 => _,
            d3 = inout(zmm_reg) d3 => _,
            t0 = out(zmm_reg) _t0,
            t1 = out(zmm_reg) _t1,
            a0 = inout(zmm_reg) *a0,
            a1 = inout(zmm_reg) *a1,
            a2 = inout(zmm_reg) *a2,
            a3 = inout(zmm_reg) *a3,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
}

/// Adds the products of group `g` to the sums of `R` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_group<const S: usize, const R: usize>(
    w: &[[__m512i; 4]; 2],
    (scale, offset): (__m512, __m512),
    rows: Rows,
    g: usize,
    acc: &mut [__m512; R],
) {
    let scheme = const { scheme(S) };
    let at = rows.at;
    // SAFETY: group `g` lies inside each of the `R` prepared rows.
    unsafe {
        let mut dot = start::<S, R>(rows.data.add(at.sums + g * 4), rows.row_bytes);
        if R == 4
            && let (Some(dot), Some(acc)) = (dot.first_chunk(), acc.first_chunk_mut())
        {
            add_four(w, scale, rows, g, *dot, acc);
        } else {
            for (half, w) in w.iter().enumerate() {
                add_steps(*w, rows.data.add(g * 32 + half * 16), rows.row_bytes, &mut dot);
            }
            for (r, (dot, acc)) in dot.iter().zip(&mut *acc).enumerate() {
                let x_scale = _mm512_castsi512_ps(broadcast(rows.row(r).add(at.scale + g * 4)));
                *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(*dot), _mm512_mul_ps(scale, x_scale), *acc);
            }
        }
        if scheme.has_offset() {
            for (r, acc) in acc.iter_mut().enumerate() {
                let sum = _mm512_castsi512_ps(broadcast(rows.row(r).add(at.sums + g * 4)));
                *acc = _mm512_fmadd_ps(offset, sum, *acc);
            }
        }
    }
}

/// Adds the products of group `g`, whose halves have scales of their own, to the sums of `R` rows. The halves are weighed
/// apart and meet before the activations' scale: one multiplication less than two parts take.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_halves<const S: usize, const R: usize>(
    w: &[[__m512i; 4]; 2],
    scales: &[(__m512, __m512); 2],
    rows: Rows,
    g: usize,
    acc: &mut [__m512; R],
) {
    let scheme = const { scheme(S) };
    let at = rows.at;
    let mut weighed = [_mm512_setzero_ps(); R];
    // SAFETY: group `g` lies inside each of the `R` prepared rows.
    unsafe {
        for (half, (w, (scale, _))) in w.iter().zip(scales).enumerate() {
            let mut dot = start::<S, R>(rows.data.add(at.sums + (2 * g + half) * 4), rows.row_bytes);
            add_steps(*w, rows.data.add((2 * g + half) * 16), rows.row_bytes, &mut dot);
            for (dot, weighed) in dot.iter().zip(&mut weighed) {
                *weighed = if half == 0 {
                    _mm512_mul_ps(_mm512_cvtepi32_ps(*dot), *scale)
                } else {
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(*dot), *scale, *weighed)
                };
            }
        }
        for (r, (weighed, acc)) in weighed.iter().zip(acc).enumerate() {
            let x_scale = _mm512_castsi512_ps(broadcast(rows.row(r).add(at.scale + g * 4)));
            *acc = _mm512_fmadd_ps(*weighed, x_scale, *acc);
            if scheme.has_offset() {
                for (half, (_, offset)) in scales.iter().enumerate() {
                    let sum = broadcast(rows.row(r).add(at.sums + (2 * g + half) * 4));
                    *acc = _mm512_fmadd_ps(*offset, _mm512_castsi512_ps(sum), *acc);
                }
            }
        }
    }
}

/// Prepared rows of activations.
#[derive(Clone, Copy)]
struct Rows {
    data: *const u8,
    row_bytes: usize,
    at: Int8Row,
}

impl Rows {
    #[inline(always)]
    fn row(self, r: usize) -> *const u8 {
        self.data.wrapping_add(r * self.row_bytes)
    }

    #[inline(always)]
    fn from(self, r: usize) -> Rows {
        Rows { data: self.row(r), ..self }
    }
}

/// Multiplies `B` blocks of `R` rows of activations with one panel.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn quantized<const S: usize, const R: usize, const B: usize>(
    panel: Panel<'_>,
    rows: Rows,
    sink: Sink,
) {
    const { assert!(B <= 4) };
    let scheme = const { scheme(S) };
    let mut acc = [[_mm512_setzero_ps(); R]; B];
    prefetch(&[sink], R * B);
    for g in 0..panel.at.groups {
        // Whatever section they belong to: the sections of all groups together are the panel.
        let far = const { waits_for_memory(S, R * B) };
        let from = g * scheme.group_bytes();
        let ahead = panel.ahead(from + if far { FAR_BYTES } else { NEAR_BYTES });
        let soon = panel.ahead(from + SOON_BYTES);
        for line in 0..scheme.group_bytes().div_ceil(64) {
            let at = |base: *const u8| base.wrapping_add(line * 64).cast();
            if far {
                _mm_prefetch::<_MM_HINT_T1>(at(ahead));
                if R * B <= 2 {
                    _mm_prefetch::<_MM_HINT_T0>(at(soon));
                }
            } else {
                _mm_prefetch::<_MM_HINT_T0>(at(ahead));
            }
        }
        // SAFETY: `g` is a group of the panel and of each of the prepared rows.
        unsafe {
            let w = [load_steps::<S>(panel, g, 0), load_steps::<S>(panel, g, 1)];
            // The blocks are spelt out: a loop over them would keep the sums in memory.
            if scheme.has_halves() {
                let scales = [load_scales::<S>(panel, g, 0), load_scales::<S>(panel, g, 1)];
                add_halves::<S, R>(&w, &scales, rows, g, &mut acc[0]);
                if B > 1 {
                    add_halves::<S, R>(&w, &scales, rows.from(R), g, &mut acc[1]);
                }
                if B > 2 {
                    add_halves::<S, R>(&w, &scales, rows.from(2 * R), g, &mut acc[2]);
                }
                if B > 3 {
                    add_halves::<S, R>(&w, &scales, rows.from(3 * R), g, &mut acc[3]);
                }
            } else {
                let scales = load_scales::<S>(panel, g, 0);
                add_group::<S, R>(&w, scales, rows, g, &mut acc[0]);
                if B > 1 {
                    add_group::<S, R>(&w, scales, rows.from(R), g, &mut acc[1]);
                }
                if B > 2 {
                    add_group::<S, R>(&w, scales, rows.from(2 * R), g, &mut acc[2]);
                }
                if B > 3 {
                    add_group::<S, R>(&w, scales, rows.from(3 * R), g, &mut acc[3]);
                }
            }
        }
    }
    for (b, acc) in acc.iter().enumerate() {
        // SAFETY: the sink is valid for all rows.
        unsafe { store(at_row(sink, b * R), acc) };
    }
}

fn sink(task: &Task<'_>, panel: usize, n: usize) -> Sink {
    let column = panel * PANEL_ROWS;
    let lanes = (n - column).min(PANEL_ROWS);
    let Output { data, row_stride, accumulate } = task.out;
    let mut bias = [0f32; PANEL_ROWS];
    if let Some(values) = task.bias {
        bias[..lanes].copy_from_slice(&values[column..column + lanes]);
    }
    Sink {
        data: data.wrapping_add(column),
        row_stride,
        lanes: (((1u32 << lanes) - 1) & 0xffff) as __mmask16,
        // SAFETY: an array of 16 f32 has the size of the register, and any bits are valid.
        bias: unsafe { std::mem::transmute::<[f32; PANEL_ROWS], __m512>(bias) },
        accumulate,
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn run_quantized<const S: usize>(layout: &PackedLayout, at: &Sections, task: &mut Task<'_>) {
    let rows = Rows {
        data: task.x.as_ptr(),
        row_bytes: layout.activation().row_bytes(layout.k),
        at: Int8Row::new(at.groups, const { scheme(S).sums() }),
    };
    // SAFETY: `matmul` checked that `x` has `t` rows and `packed` all panels, and its caller vouches for `out`.
    unsafe {
        let row_block = (ROW_BLOCK_BYTES / (at.groups * 40)).next_multiple_of(48);
        for first in (0..task.t).step_by(row_block) {
            let count = row_block.min(task.t - first);
            for p in task.panels.clone() {
                let sink = at_row(sink(task, p, layout.n), first);
                let data = task.packed[p * at.bytes..].as_ptr();
                let left = task.after.until.saturating_sub(p).saturating_mul(at.bytes);
                let then = task.after.then;
                let (panel, rows) = (Panel { data, at, left, then }, rows.from(first));
                let mut row = 0;
                while row < count {
                    let (rows, sink) = (rows.from(row), at_row(sink, row));
                    row += match count - row {
                        16.. => {
                            quantized::<S, 4, 4>(panel, rows, sink);
                            16
                        }
                        12.. => {
                            quantized::<S, 4, 3>(panel, rows, sink);
                            12
                        }
                        8.. => {
                            quantized::<S, 4, 2>(panel, rows, sink);
                            8
                        }
                        4..8 => {
                            quantized::<S, 4, 1>(panel, rows, sink);
                            4
                        }
                        2..4 => {
                            quantized::<S, 2, 1>(panel, rows, sink);
                            2
                        }
                        _ => {
                            quantized::<S, 1, 1>(panel, rows, sink);
                            1
                        }
                    };
                }
            }
        }
    }
}

fn at_row(sink: Sink, row: usize) -> Sink {
    Sink { data: sink.data.wrapping_add(row * sink.row_stride), ..sink }
}

const F32: u8 = 0;
const F16: u8 = 1;
/// bf16 with dot products.
const BF16_DOT: u8 = 2;
/// bf16 widened to f32.
const BF16_WIDE: u8 = 3;

/// Multiplies `MR` rows with `NP` panels of a plain type.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn plain<const E: u8, const MR: usize, const NP: usize>(
    data: *const u8,
    panel_bytes: usize,
    k: usize,
    x: *const u8,
    row_bytes: usize,
    sinks: &[Sink; NP],
) {
    let mut acc = [[_mm512_setzero_ps(); NP]; MR];
    prefetch(sinks, MR);
    let steps = if E >= BF16_DOT { k.div_ceil(2) } else { k };
    let step_bytes = if E == F16 { 32 } else { 64 };
    for step in 0..steps {
        // SAFETY: `step` is within the packed panels and the prepared rows (the padding of an odd bf16 row is zero).
        unsafe {
            let mut w = [_mm512_setzero_ps(); NP];
            for (p, w) in w.iter_mut().enumerate() {
                let from = data.add(p * panel_bytes + step * step_bytes);
                *w = if E == F16 { halves(from) } else { _mm512_castsi512_ps(line(from)) };
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = x.add(r * row_bytes + step * if E == BF16_WIDE { 8 } else { 4 });
                let first = _mm512_castsi512_ps(broadcast(x));
                for (a, w) in acc.iter_mut().zip(w) {
                    if E == BF16_WIDE {
                        let w = _mm512_castps_si512(w);
                        let low = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(w));
                        let high = _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(!0xffff)));
                        *a = _mm512_fmadd_ps(low, first, *a);
                        if 2 * step + 1 < k {
                            *a = _mm512_fmadd_ps(high, _mm512_castsi512_ps(broadcast(x.add(4))), *a);
                        }
                    } else {
                        *a = _mm512_fmadd_ps(w, first, *a);
                    }
                }
            }
        }
    }
    // SAFETY: the sinks are valid for `MR` rows.
    unsafe { store_all(sinks, &acc) };
}

/// [`plain`] with bf16 dot products.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn plain_bf16<const MR: usize, const NP: usize>(
    data: *const u8,
    panel_bytes: usize,
    k: usize,
    x: *const u8,
    row_bytes: usize,
    sinks: &[Sink; NP],
) {
    let mut acc = [[_mm512_setzero_ps(); NP]; MR];
    prefetch(sinks, MR);
    for step in 0..k.div_ceil(2) {
        // SAFETY: as in `plain`.
        unsafe {
            let mut w = [_mm512_setzero_si512(); NP];
            for (p, w) in w.iter_mut().enumerate() {
                *w = line(data.add(p * panel_bytes + step * 64));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = broadcast(x.add(r * row_bytes + step * 4));
                for (a, w) in acc.iter_mut().zip(w) {
                    *a = _mm512_dpbf16_ps(
                        *a,
                        std::mem::transmute::<__m512i, __m512bh>(w),
                        std::mem::transmute::<__m512i, __m512bh>(x),
                    );
                }
            }
        }
    }
    // SAFETY: as in `plain`.
    unsafe { store_all(sinks, &acc) };
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store_all<const MR: usize, const NP: usize>(sinks: &[Sink; NP], acc: &[[__m512; NP]; MR]) {
    for (p, sink) in sinks.iter().enumerate() {
        let column: [__m512; MR] = std::array::from_fn(|r| acc[r][p]);
        // SAFETY: the caller vouches for `MR` rows of each sink.
        unsafe { store(*sink, &column) };
    }
}

/// Panels multiplied together: with six rows they fill 24 of the 32 registers, a step of weights four and a broadcast one.
const PANELS_TOGETHER: usize = 4;

macro_rules! run_plain {
    ($name:ident, $features:literal, $kernel:ident $(, $e:ident)?) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(layout: &PackedLayout, panel_bytes: usize, task: &mut Task<'_>) {
            let row_bytes = layout.activation().row_bytes(layout.k);
            let block_rows = (ROW_BLOCK_BYTES / row_bytes.max(1)).next_multiple_of(48);
            for first in (0..task.t).step_by(block_rows) {
                let rows = block_rows.min(task.t - first);
                let x = task.x[first * row_bytes..].as_ptr();
                let mut p = task.panels.start;
                while p < task.panels.end {
                    let data = task.packed[p * panel_bytes..].as_ptr();
                    let mut row = 0;
                    // SAFETY: `matmul` checked that `x` has `t` rows and `packed` all panels, and its caller vouches for `out`.
                    unsafe {
                        if task.panels.end - p >= PANELS_TOGETHER {
                            let all: [Sink; PANELS_TOGETHER] =
                                std::array::from_fn(|i| at_row(sink(task, p + i, layout.n), first));
                            while row < rows {
                                let x = x.add(row * row_bytes);
                                let sinks = all.map(|sink| at_row(sink, row));
                                row += match rows - row {
                                    6.. => { $kernel::<$($e,)? 6, PANELS_TOGETHER>(data, panel_bytes, layout.k, x, row_bytes, &sinks); 6 }
                                    4..6 => { $kernel::<$($e,)? 4, PANELS_TOGETHER>(data, panel_bytes, layout.k, x, row_bytes, &sinks); 4 }
                                    2..4 => { $kernel::<$($e,)? 2, PANELS_TOGETHER>(data, panel_bytes, layout.k, x, row_bytes, &sinks); 2 }
                                    _ => { $kernel::<$($e,)? 1, PANELS_TOGETHER>(data, panel_bytes, layout.k, x, row_bytes, &sinks); 1 }
                                };
                            }
                            p += PANELS_TOGETHER;
                        } else {
                            let one = at_row(sink(task, p, layout.n), first);
                            while row < rows {
                                let x = x.add(row * row_bytes);
                                let sinks = [at_row(one, row)];
                                row += match rows - row {
                                    16.. => { $kernel::<$($e,)? 16, 1>(data, panel_bytes, layout.k, x, row_bytes, &sinks); 16 }
                                    8..16 => { $kernel::<$($e,)? 8, 1>(data, panel_bytes, layout.k, x, row_bytes, &sinks); 8 }
                                    4..8 => { $kernel::<$($e,)? 4, 1>(data, panel_bytes, layout.k, x, row_bytes, &sinks); 4 }
                                    2..4 => { $kernel::<$($e,)? 2, 1>(data, panel_bytes, layout.k, x, row_bytes, &sinks); 2 }
                                    _ => { $kernel::<$($e,)? 1, 1>(data, panel_bytes, layout.k, x, row_bytes, &sinks); 1 }
                                };
                            }
                            p += 1;
                        }
                    }
                }
            }
        }
    };
}
run_plain!(run_f32, "avx512f,avx512bw,avx512dq,avx512vl", plain, F32);
run_plain!(run_f16, "avx512f,avx512bw,avx512dq,avx512vl", plain, F16);
run_plain!(run_bf16_wide, "avx512f,avx512bw,avx512dq,avx512vl", plain, BF16_WIDE);
run_plain!(run_bf16_dot, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", plain_bf16);

/// Runs a checked task.
///
/// # Safety
/// The machine has AVX-512 F, BW, DQ, VL and VNNI, and BF16 if the layout asks for bf16 activations; the task was checked by
/// `PackedLayout::matmul`.
pub unsafe fn matmul(layout: &PackedLayout, task: &mut Task<'_>) {
    // SAFETY: passed on.
    unsafe {
        match &layout.form {
            super::Form::Plain { element, panel_bytes } => match element {
                Plain::F32 => run_f32(layout, *panel_bytes, task),
                Plain::F16 => run_f16(layout, *panel_bytes, task),
                Plain::Bf16Wide => run_bf16_wide(layout, *panel_bytes, task),
                Plain::Bf16Dot => run_bf16_dot(layout, *panel_bytes, task),
            },
            super::Form::Quantized { at, .. } => match layout.dtype {
                DType::Q4_0 => run_quantized::<0>(layout, at, task),
                DType::Q4_1 => run_quantized::<1>(layout, at, task),
                DType::Q5_0 => run_quantized::<2>(layout, at, task),
                DType::Q5_1 => run_quantized::<3>(layout, at, task),
                DType::Q8_0 => run_quantized::<4>(layout, at, task),
                DType::Q2K => run_quantized::<5>(layout, at, task),
                DType::Q3K => run_quantized::<6>(layout, at, task),
                DType::Q4K => run_quantized::<7>(layout, at, task),
                DType::Q5K => run_quantized::<8>(layout, at, task),
                DType::Q6K => run_quantized::<9>(layout, at, task),
                DType::Iq4Nl => run_quantized::<10>(layout, at, task),
                DType::Iq4Xs => run_quantized::<11>(layout, at, task),
                _ => {}
            },
        }
    }
}

/// Prepares one row as bf16; `out` is the prepared row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn prepare_bf16(x: &[f32], out: &mut [u8]) {
    let whole = x.len() / 16;
    for i in 0..whole {
        // SAFETY: 16 values and their 32 bytes lie inside the slices.
        unsafe {
            let v = _mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr().add(i * 16)));
            _mm256_storeu_si256(
                out.as_mut_ptr().add(i * 32).cast(),
                std::mem::transmute::<__m256bh, __m256i>(v),
            );
        }
    }
    super::activations::prepare_bf16(&x[whole * 16..], &mut out[whole * 32..]);
}

/// Groups of activations that are prepared at once: a register of f32 holds a figure of each.
const TOGETHER: usize = 8;

/// Joins the four elements of each half of eight registers, by sum or maximum: the results of the lower halves, in the order of
/// the registers, and those of the upper halves.
macro_rules! join_lanes {
    ($x:expr, $join:path) => {{
        let x = $x;
        let pair = |a, b| $join(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let four = |a, b| {
            let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
            let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
            $join(_mm256_castpd_ps(low), _mm256_castpd_ps(high))
        };
        let first = four(pair(x[0], x[1]), pair(x[2], x[3]));
        let second = four(pair(x[4], x[5]), pair(x[6], x[7]));
        (_mm256_permute2f128_ps::<0x20>(first, second), _mm256_permute2f128_ps::<0x31>(first, second))
    }};
}

/// Prepares `count` groups, of which there are 1 to [`TOGETHER`]: their values, scales and sums go to the three pointers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn prepare_groups(
    x: *const f32,
    count: usize,
    sums: GroupSums,
    values: *mut u8,
    scales: *mut u8,
    of_sums: *mut u8,
) {
    // The last group stands for those that are missing.
    let at = |g: usize| x.wrapping_add(g.min(count - 1) * GROUP);
    let present = (1u32 << count) - 1;
    let add = |a, b| _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
    // SAFETY: the caller has `count` groups of values, and room for as many values, scales and sums.
    unsafe {
        let mut largest = [_mm256_setzero_ps(); TOGETHER];
        for (g, largest) in largest.iter_mut().enumerate() {
            let at = at(g);
            let both =
                _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(at)), _mm512_abs_ps(_mm512_loadu_ps(at.add(16))));
            *largest = _mm256_max_ps(_mm512_castps512_ps256(both), _mm512_extractf32x8_ps::<1>(both));
        }
        let (lower, upper) = join_lanes!(largest, _mm256_max_ps);
        let largest = _mm256_max_ps(lower, upper);
        let most = _mm256_set1_ps(127.0);
        let some = _mm256_cmp_ps_mask::<_CMP_GT_OQ>(largest, _mm256_setzero_ps());
        let mut inverse = [0f32; TOGETHER];
        _mm256_storeu_ps(inverse.as_mut_ptr(), _mm256_maskz_div_ps(some, most, largest));
        let scale = _mm256_div_ps(largest, most);
        _mm256_mask_storeu_ps(scales.cast(), present as __mmask8, scale);

        let mut quarters = [_mm256_setzero_ps(); TOGETHER];
        for (g, (quarters, inverse)) in quarters.iter_mut().zip(inverse).enumerate() {
            let rounded = |at: *const f32| {
                let v = _mm512_mul_ps(_mm512_loadu_ps(at), _mm512_set1_ps(inverse));
                _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v))
            };
            let at = at(g);
            let both = _mm256_set_m128i(rounded(at.add(16)), rounded(at));
            if g < count {
                _mm256_storeu_si256(values.add(g * GROUP).cast(), both);
            }
            let four = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), both);
            *quarters = _mm256_castsi256_ps(four);
        }
        // The lower lanes hold the first halves of the groups.
        let (lower, upper) = join_lanes!(quarters, add);
        let form = |sum: __m256| {
            let sum = _mm256_castps_si256(sum);
            match sums.zero_shift {
                None => _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale),
                Some(shift) => _mm256_castsi256_ps(_mm256_mullo_epi32(sum, _mm256_set1_epi32(-(1 << shift)))),
            }
        };
        if sums.halves {
            let (lower, upper) = (form(lower), form(upper));
            let (even, odd) = (_mm256_unpacklo_ps(lower, upper), _mm256_unpackhi_ps(lower, upper));
            let (first, last) =
                (_mm256_permute2f128_ps::<0x20>(even, odd), _mm256_permute2f128_ps::<0x31>(even, odd));
            let present = (1u32 << (2 * count)) - 1;
            _mm256_mask_storeu_ps(of_sums.cast(), present as __mmask8, first);
            _mm256_mask_storeu_ps(of_sums.wrapping_add(32).cast(), (present >> 8) as __mmask8, last);
        } else {
            _mm256_mask_storeu_ps(of_sums.cast(), present as __mmask8, form(add(lower, upper)));
        }
    }
}

/// Prepares whole groups as int8, of which `parts` has room for as many.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub unsafe fn prepare_int8(x: &[f32], sums: GroupSums, [values, scales, of_sums]: Int8Parts<'_>) {
    let groups = x.len() / GROUP;
    let sum_bytes = sums.bytes();
    assert!(
        values.len() >= groups * GROUP && scales.len() >= groups * 4 && of_sums.len() >= groups * sum_bytes
    );
    for g in (0..groups).step_by(TOGETHER) {
        let count = (groups - g).min(TOGETHER);
        let (values, scales) = (values[g * GROUP..].as_mut_ptr(), scales[g * 4..].as_mut_ptr());
        let of_sums = of_sums[g * sum_bytes..].as_mut_ptr();
        let x = x[g * GROUP..].as_ptr();
        // SAFETY: groups `g .. g + count` lie inside `x`, and what is made of them inside the parts as asserted.
        unsafe {
            // Apart, so that their number is known where registers are full.
            if count == TOGETHER {
                prepare_groups(x, TOGETHER, sums, values, scales, of_sums);
            } else {
                prepare_groups(x, count, sums, values, scales, of_sums);
            }
        }
    }
}
