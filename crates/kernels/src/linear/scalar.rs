//! The plain form, which defines the answer.

use super::activations::Int8Row;
use super::scheme::{GROUP, Scheme, Sections};
use super::tile::{self, GROUP_BYTES, TileLayout};
use super::{Form, PANEL_ROWS, PackedLayout, Plain, Task};
use half::{bf16, f16};

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Runs a checked task.
///
/// # Safety
/// As `PackedLayout::matmul`.
pub unsafe fn matmul(layout: &PackedLayout, task: &mut Task<'_>) {
    let row_bytes = layout.activation().row_bytes(layout.k);
    for p in task.panels.clone() {
        let panel = &task.packed[p * layout.panel_bytes()..][..layout.panel_bytes()];
        if let Form::Quantized { scheme, at } = &layout.form {
            tile::unpack_panel(scheme, at, panel, task.scratch, tile::halves);
        }
        for t in 0..task.t {
            let x = &task.x[t * row_bytes..][..row_bytes];
            let sums = match &layout.form {
                Form::Quantized { scheme, at } => quantized(scheme, at, task.scratch, x),
                Form::Plain { element, .. } => plain(*element, panel, layout.k, x),
            };
            let first = p * PANEL_ROWS;
            for (column, sum) in (first..layout.n.min(first + PANEL_ROWS)).zip(sums) {
                let sum = sum + task.bias.map_or(0.0, |b| b[column]);
                // SAFETY: column `column` of row `t` is ours to write (`PackedLayout::matmul`).
                unsafe {
                    let y = task.out.data.wrapping_add(t * task.out.row_stride + column);
                    *y = if task.out.accumulate { *y + sum } else { sum };
                }
            }
        }
    }
}

fn quantized(scheme: &Scheme, sections: &Sections, tile: &[u8], x: &[u8]) -> [f32; PANEL_ROWS] {
    let (at, layout) =
        (Int8Row::new(sections.groups, scheme.sums()), TileLayout::new(scheme, sections.groups));
    let parts = if scheme.has_halves() { 2 } else { 1 };
    let steps = 8 / parts;
    let mut sums = [0f32; PANEL_ROWS];
    for g in 0..sections.groups {
        for part in 0..parts {
            let i = g * parts + part;
            let x_scale = f32_at(x, at.scale + g * 4);
            for (r, sum) in sums.iter_mut().enumerate() {
                let mut dot = if scheme.has_offset() { 0 } else { i32_at(x, at.sums + i * 4) };
                for s in part * steps..(part + 1) * steps {
                    for b in 0..4 {
                        let w = tile[g * GROUP_BYTES + s * 64 + r * 4 + b];
                        dot += i32::from(w) * i32::from(x[g * GROUP + s * 4 + b] as i8);
                    }
                }
                *sum += dot as f32 * (f32_at(tile, layout.scales + i * 64 + r * 4) * x_scale);
                if scheme.has_offset() {
                    *sum += f32_at(tile, layout.offsets + i * 64 + r * 4) * f32_at(x, at.sums + i * 4);
                }
            }
        }
    }
    sums
}

fn plain(element: Plain, panel: &[u8], k: usize, x: &[u8]) -> [f32; PANEL_ROWS] {
    let u16_at = |i: usize| u16::from_le_bytes([panel[2 * i], panel[2 * i + 1]]);
    let mut sums = [0f32; PANEL_ROWS];
    for c in 0..k {
        for (r, sum) in sums.iter_mut().enumerate() {
            let pair = (c / 2 * PANEL_ROWS + r) * 2 + c % 2;
            *sum += match element {
                Plain::F32 => f32_at(panel, (c * PANEL_ROWS + r) * 4) * f32_at(x, c * 4),
                Plain::F16 => f16::from_bits(u16_at(c * PANEL_ROWS + r)).to_f32_const() * f32_at(x, c * 4),
                Plain::Bf16Wide => bf16::from_bits(u16_at(pair)).to_f32() * f32_at(x, c * 4),
                Plain::Bf16Dot => {
                    let x = bf16::from_bits(u16::from_ne_bytes([x[2 * c], x[2 * c + 1]]));
                    bf16::from_bits(u16_at(pair)).to_f32() * x.to_f32()
                }
            };
        }
    }
    sums
}
