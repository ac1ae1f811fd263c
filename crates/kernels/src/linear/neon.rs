//! NEON with dot products: panels are unpacked to tiles; four registers hold one step of the 16 rows of a panel.

use super::activations::Int8Row;
use super::scheme::{GROUP, Scheme, Sections};
use super::tile::{self, GROUP_BYTES, TileLayout};
use super::{Form, PANEL_ROWS, PackedLayout, Plain, Task};
#[allow(clippy::wildcard_imports, reason = "intrinsics carry their prefix")]
use std::arch::aarch64::*;

/// Registers of four f32 (or of four dot products) that cover a panel.
const PARTS: usize = PANEL_ROWS / 4;
/// Rows of activations multiplied together: 4 x 4 sums and 4 weights fit the 32 registers.
const ROWS: usize = 4;

#[inline]
#[target_feature(enable = "neon,fp16")]
fn widen(bytes: &[u8]) -> [f32; PANEL_ROWS] {
    assert!(bytes.len() >= 2 * PANEL_ROWS);
    let mut out = [0f32; PANEL_ROWS];
    for part in 0..PARTS {
        // SAFETY: 32 bytes are read as asserted, 16 f32 written.
        unsafe {
            let half = vld1_u16(bytes.as_ptr().add(part * 8).cast());
            vst1q_f32(out.as_mut_ptr().add(part * 4), vcvt_f32_f16(vreinterpret_f16_u16(half)));
        }
    }
    out
}

/// Adds the dot products of four signed bytes each; the intrinsic is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: one instruction on registers, which the enabled feature has.
    unsafe {
        std::arch::asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Runs a checked task.
///
/// # Safety
/// The machine has NEON with dotprod and fp16; the task was checked by `PackedLayout::matmul`.
#[target_feature(enable = "neon,dotprod,fp16")]
pub unsafe fn matmul(layout: &PackedLayout, task: &mut Task<'_>) {
    let row_bytes = layout.activation().row_bytes(layout.k);
    for p in task.panels.clone() {
        let panel = &task.packed[p * layout.panel_bytes()..][..layout.panel_bytes()];
        if let Form::Quantized { scheme, at } = &layout.form {
            tile::unpack_panel(scheme, at, panel, task.scratch, |b| widen(b));
        }
        for t in (0..task.t).step_by(ROWS) {
            let rows = ROWS.min(task.t - t);
            // Missing rows repeat the last; their results are dropped.
            let x: [*const u8; ROWS] =
                std::array::from_fn(|i| task.x[(t + i.min(rows - 1)) * row_bytes..].as_ptr());
            // SAFETY: whole prepared rows, a whole panel or tile, as checked by `PackedLayout::matmul`.
            let sums = unsafe {
                match &layout.form {
                    Form::Quantized { scheme, at } => quantized(scheme, at, task.scratch.as_ptr(), x),
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

#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
unsafe fn quantized(
    scheme: &Scheme,
    sections: &Sections,
    tile: *const u8,
    x: [*const u8; ROWS],
) -> [[f32; PANEL_ROWS]; ROWS] {
    let (at, layout) =
        (Int8Row::new(sections.groups, scheme.sums()), TileLayout::new(scheme, sections.groups));
    let parts = if scheme.has_halves() { 2 } else { 1 };
    let steps = 8 / parts;
    // `sdot` takes signed bytes: whole bytes lose their 128, smaller values are signed as they are.
    let signed = scheme.zero_shift == 7;
    let flip = vdupq_n_u8(if signed { 0x80 } else { 0 });
    let mut acc = [[vdupq_n_f32(0.0); PARTS]; ROWS];
    for g in 0..sections.groups {
        for part in 0..parts {
            let i = g * parts + part;
            // SAFETY: `i` is a part of the tile and of the prepared rows.
            unsafe {
                let f32_at = |p: *const u8| vdupq_n_f32(p.cast::<f32>().read_unaligned());
                let mut dot = [[vdupq_n_s32(0); PARTS]; ROWS];
                for s in part * steps..(part + 1) * steps {
                    let values = tile.add(g * GROUP_BYTES + s * 64);
                    let w: [int8x16_t; PARTS] = std::array::from_fn(|j| {
                        vreinterpretq_s8_u8(veorq_u8(vld1q_u8(values.add(j * 16)), flip))
                    });
                    for (x, dot) in x.iter().zip(&mut dot) {
                        let x = x.add(g * GROUP + s * 4).cast::<i32>().read_unaligned();
                        let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
                        for (dot, w) in dot.iter_mut().zip(&w) {
                            *dot = sdot(*dot, *w, x);
                        }
                    }
                }
                for ((x, dot), acc) in x.iter().zip(&dot).zip(&mut acc) {
                    let x_scale = f32_at(x.add(at.scale + g * 4));
                    let minus = if signed || scheme.has_offset() {
                        0
                    } else {
                        x.add(at.sums + i * 4).cast::<i32>().read_unaligned()
                    };
                    for j in 0..PARTS {
                        let dot = vcvtq_f32_s32(vaddq_s32(dot[j], vdupq_n_s32(minus)));
                        let scale = vld1q_f32(tile.add(layout.scales + i * 64 + j * 16).cast());
                        acc[j] = vfmaq_f32(acc[j], dot, vmulq_f32(scale, x_scale));
                        if scheme.has_offset() {
                            let offset = vld1q_f32(tile.add(layout.offsets + i * 64 + j * 16).cast());
                            acc[j] = vfmaq_f32(acc[j], offset, f32_at(x.add(at.sums + i * 4)));
                        }
                    }
                }
            }
        }
    }
    rows(acc)
}

#[inline]
#[target_feature(enable = "neon")]
fn rows(acc: [[float32x4_t; PARTS]; ROWS]) -> [[f32; PANEL_ROWS]; ROWS] {
    let mut out = [[0f32; PANEL_ROWS]; ROWS];
    for (acc, out) in acc.iter().zip(&mut out) {
        for (acc, out) in acc.iter().zip(out.chunks_exact_mut(4)) {
            // SAFETY: four f32 are written to a chunk of four.
            unsafe { vst1q_f32(out.as_mut_ptr(), *acc) };
        }
    }
    out
}

#[inline]
#[target_feature(enable = "neon,fp16")]
unsafe fn plain(
    element: Plain,
    panel: *const u8,
    k: usize,
    x: [*const u8; ROWS],
) -> [[f32; PANEL_ROWS]; ROWS] {
    let mut acc = [[vdupq_n_f32(0.0); PARTS]; ROWS];
    for c in 0..k {
        // SAFETY: column `c` is in the panel and in the prepared rows.
        unsafe {
            let w: [float32x4_t; PARTS] = std::array::from_fn(|j| match element {
                Plain::F32 => vld1q_f32(panel.add(c * 64 + j * 16).cast()),
                Plain::F16 => vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(panel.add(c * 32 + j * 8).cast()))),
                Plain::Bf16Wide | Plain::Bf16Dot => {
                    let pair = vld1q_u32(panel.add(c / 2 * 64 + j * 16).cast());
                    vreinterpretq_f32_u32(if c % 2 == 0 {
                        vshlq_n_u32::<16>(pair)
                    } else {
                        vandq_u32(pair, vdupq_n_u32(0xffff_0000))
                    })
                }
            });
            for (x, acc) in x.iter().zip(&mut acc) {
                let x = vdupq_n_f32(x.add(c * 4).cast::<f32>().read_unaligned());
                for (acc, w) in acc.iter_mut().zip(&w) {
                    *acc = vfmaq_f32(*acc, *w, x);
                }
            }
        }
    }
    rows(acc)
}
