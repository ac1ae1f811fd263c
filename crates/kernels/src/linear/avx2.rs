//! AVX2 with FMA and F16C: panels are unpacked to tiles, two rows of activations at a time.

use super::activations::Int8Row;
use super::scheme::{GROUP, Scheme, Sections};
use super::tile::{self, GROUP_BYTES, TileLayout};
use super::{Form, PANEL_ROWS, PackedLayout, Plain, Task};
#[allow(clippy::wildcard_imports, reason = "intrinsics carry their prefix")]
use std::arch::x86_64::*;

/// Rows multiplied together.
const ROWS: usize = 2;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen(bytes: &[u8]) -> [f32; PANEL_ROWS] {
    assert!(bytes.len() >= 32);
    let mut out = [0f32; PANEL_ROWS];
    // SAFETY: 32 bytes are read as asserted, 16 f32 written.
    unsafe {
        for i in 0..2 {
            let half = _mm_loadu_si128(bytes.as_ptr().add(i * 16).cast());
            _mm256_storeu_ps(out.as_mut_ptr().add(i * 8), _mm256_cvtph_ps(half));
        }
    }
    out
}

/// Runs a checked task.
///
/// # Safety
/// The machine has AVX2, FMA and F16C; the task was checked by `PackedLayout::matmul`.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn matmul(layout: &PackedLayout, task: &mut Task<'_>) {
    let row_bytes = layout.activation().row_bytes(layout.k);
    for p in task.panels.clone() {
        let panel = &task.packed[p * layout.panel_bytes()..][..layout.panel_bytes()];
        if let Form::Quantized { scheme, at } = &layout.form {
            tile::unpack_panel(scheme, at, panel, task.scratch, |b| widen(b));
        }
        for t in (0..task.t).step_by(ROWS) {
            let rows = ROWS.min(task.t - t);
            // A missing second row repeats the first; its result is dropped.
            let x: [*const u8; ROWS] =
                std::array::from_fn(|i| task.x[(t + i.min(rows - 1)) * row_bytes..].as_ptr());
            // SAFETY: whole prepared rows, a whole panel or tile, as checked by `PackedLayout::matmul`.
            let sums = unsafe {
                match &layout.form {
                    Form::Quantized { scheme, at } if scheme.zero_shift == 7 => {
                        quantized::<true>(scheme, at, task.scratch.as_ptr(), x)
                    }
                    Form::Quantized { scheme, at } => {
                        quantized::<false>(scheme, at, task.scratch.as_ptr(), x)
                    }
                    Form::Plain { element, .. } => plain(*element, panel.as_ptr(), layout.k, x),
                }
            };
            let first = p * PANEL_ROWS;
            for (i, sums) in sums.iter().enumerate().take(rows) {
                for (column, sum) in (first..layout.n.min(first + PANEL_ROWS)).zip(sums) {
                    let sum = sum + task.bias.map_or(0.0, |b| b[column]);
                    // SAFETY: column `column` of row `t + i` is ours to write (`PackedLayout::matmul`).
                    unsafe {
                        let y = task.out.data.wrapping_add((t + i) * task.out.row_stride + column);
                        *y = if task.out.accumulate { *y + sum } else { sum };
                    }
                }
            }
        }
    }
}

/// `SIGNED`: values are whole bytes around 128, too large for unsigned 16-bit pair sums, so the sign moves to the activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn quantized<const SIGNED: bool>(
    scheme: &Scheme,
    sections: &Sections,
    tile: *const u8,
    x: [*const u8; ROWS],
) -> [[f32; PANEL_ROWS]; ROWS] {
    let (at, layout) =
        (Int8Row::new(sections.groups, scheme.sums()), TileLayout::new(scheme, sections.groups));
    let parts = if scheme.has_halves() { 2 } else { 1 };
    let steps = 8 / parts;
    let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
    let ones = _mm256_set1_epi16(1);
    for g in 0..sections.groups {
        for part in 0..parts {
            let i = g * parts + part;
            // SAFETY: `i` is a part of the tile and of the prepared rows.
            unsafe {
                let f32_at = |p: *const u8| _mm256_set1_ps(p.cast::<f32>().read_unaligned());
                let mut dot = [[_mm256_setzero_si256(); 2]; ROWS];
                for s in part * steps..(part + 1) * steps {
                    for j in 0..2 {
                        let mut w = _mm256_loadu_si256(tile.add(g * GROUP_BYTES + s * 64 + j * 32).cast());
                        if SIGNED {
                            w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
                        }
                        for (x, dot) in x.iter().zip(&mut dot) {
                            let x =
                                _mm256_set1_epi32(x.add(g * GROUP + s * 4).cast::<i32>().read_unaligned());
                            let pairs = if SIGNED {
                                _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
                            } else {
                                _mm256_maddubs_epi16(w, x)
                            };
                            dot[j] = _mm256_add_epi32(dot[j], _mm256_madd_epi16(pairs, ones));
                        }
                    }
                }
                for ((x, dot), acc) in x.iter().zip(&dot).zip(&mut acc) {
                    let x_scale = f32_at(x.add(at.scale + g * 4));
                    for j in 0..2 {
                        let mut dot = dot[j];
                        // Signed values have no stored zero to make up for.
                        if !SIGNED && !scheme.has_offset() {
                            let minus = x.add(at.sums + i * 4).cast::<i32>().read_unaligned();
                            dot = _mm256_add_epi32(dot, _mm256_set1_epi32(minus));
                        }
                        let scale = _mm256_loadu_ps(tile.add(layout.scales + i * 64 + j * 32).cast());
                        acc[j] =
                            _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scale, x_scale), acc[j]);
                        if scheme.has_offset() {
                            let offset = _mm256_loadu_ps(tile.add(layout.offsets + i * 64 + j * 32).cast());
                            acc[j] = _mm256_fmadd_ps(offset, f32_at(x.add(at.sums + i * 4)), acc[j]);
                        }
                    }
                }
            }
        }
    }
    [rows(acc[0]), rows(acc[1])]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rows(acc: [__m256; 2]) -> [f32; PANEL_ROWS] {
    let mut out = [0f32; PANEL_ROWS];
    // SAFETY: 16 f32 are written.
    unsafe {
        _mm256_storeu_ps(out.as_mut_ptr(), acc[0]);
        _mm256_storeu_ps(out.as_mut_ptr().add(8), acc[1]);
    }
    out
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn plain(
    element: Plain,
    panel: *const u8,
    k: usize,
    x: [*const u8; ROWS],
) -> [[f32; PANEL_ROWS]; ROWS] {
    let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
    for c in 0..k {
        for j in 0..2 {
            // SAFETY: column `c` is in the panel and in the prepared rows.
            unsafe {
                let w = match element {
                    Plain::F32 => _mm256_loadu_ps(panel.add(c * 64 + j * 32).cast()),
                    Plain::F16 => _mm256_cvtph_ps(_mm_loadu_si128(panel.add(c * 32 + j * 16).cast())),
                    Plain::Bf16Wide | Plain::Bf16Dot => {
                        let pair = _mm256_loadu_si256(panel.add(c / 2 * 64 + j * 32).cast());
                        _mm256_castsi256_ps(if c % 2 == 0 {
                            _mm256_slli_epi32::<16>(pair)
                        } else {
                            _mm256_and_si256(pair, _mm256_set1_epi32(!0xffff))
                        })
                    }
                };
                for (x, acc) in x.iter().zip(&mut acc) {
                    let x = _mm256_set1_ps(x.add(c * 4).cast::<f32>().read_unaligned());
                    acc[j] = _mm256_fmadd_ps(w, x, acc[j]);
                }
            }
        }
    }
    [rows(acc[0]), rows(acc[1])]
}
