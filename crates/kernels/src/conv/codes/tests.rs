use super::CodesConvolution;
use super::depthwise::{self, CodesDepthwise};
use crate::Isa;
use crate::conv::tests::{by_definition, geometry};
use crate::conv::{Geometry, Images, few, tap_major};
use crate::gemm::quads::tests::{codes, nearest, pad_i32, scales, weights};
use crate::gemm::quads::{CodesTarget, SLACK, Scaling, starts};
use crate::gemm::{Panels, Scratch};

const ZERO: u8 = 91;
const BOUNDS: [u8; 3] = [128, 100, 250];

fn plain(g: &Geometry, x: &[u8], channels: usize, w: &[i8], outputs: usize, groups: usize) -> Vec<i32> {
    by_definition(g, [channels, outputs, groups], |i, j| {
        (i32::from(x[i]) - i32::from(ZERO)) * i32::from(w[j])
    })
}

fn expect(sums: &[i32], scale: &[f32]) -> Vec<u8> {
    let one = |(i, &sum): (usize, &i32)| nearest(sum as f32 * scale[i % scale.len()], BOUNDS);
    sums.iter().enumerate().map(one).collect()
}

fn input(g: &Geometry, channels: usize) -> Vec<u8> {
    let mut x = codes(1, g.batch * g.input[0] * g.input[1] * channels);
    x.resize(x.len() + SLACK, 255);
    x
}

#[test]
fn convolutions_of_codes_equal_their_definition() {
    for isa in Isa::available() {
        for (channels, outputs, g) in [
            (3, 32, geometry(2, [15, 14], [3, 3], 2, 1, 1)),
            (3, 8, geometry(1, [20, 21], [7, 7], 2, 1, 3)),
            (16, 70, geometry(1, [9, 7], [3, 3], 1, 1, 1)),
            (17, 16, geometry(1, [9, 12], [3, 2], 1, 2, 2)),
            (40, 24, geometry(3, [5, 5], [1, 1], 1, 1, 0)),
            (41, 24, geometry(1, [7, 6], [1, 1], 2, 1, 0)),
            (200, 5, geometry(1, [4, 4], [3, 3], 1, 1, 1)),
            (2, 3, geometry(1, [1, 9], [1, 5], 1, 3, 6)),
            (3, 40, geometry(2, [6, 130], [3, 2], 2, 1, 1)),
            (5, 24, geometry(1, [40, 36], [16, 16], 16, 1, 0)),
        ] {
            let depth = channels * g.taps();
            let (x, w) = (input(&g, channels), weights(2, outputs * depth));
            let scale = scales(3, outputs, depth);
            let expected = expect(&plain(&g, &x, channels, &w, outputs, 1), &scale);
            let fits = few::fits(&g, channels);
            let pieces = if fits { g.kernel[0] } else { g.taps() };
            let panels = Panels::quads(isa, outputs, pieces, depth / pieces);
            let mut packed = vec![0; 4 * panels.packed_len()];
            let sums =
                panels.pack_quads(&tap_major(&w, channels, g.taps()), [depth, 1], &mut packed).unwrap();
            let start = pad_i32(&panels, starts(isa, ZERO, &sums, &[]));
            let mut out = vec![0; g.pixels() * outputs];
            let row_stride = g.input[1] * channels;
            let image_stride = g.input[0] * row_stride;
            let scale = panels.pad(&scale);
            let scaling = Scaling {
                start: &start,
                rows: &[],
                scale: &scale,
                bias: &[],
                codes: BOUNDS,
                numbers: [0.0; 2],
                added: None,
            };
            let task = CodesConvolution {
                geometry: &g,
                channels,
                panels: &panels,
                packed: &packed,
                x: Images { data: &x, image_stride, row_stride, pixel_stride: channels },
                channel_stride: 1,
                zero: ZERO,
                scaling,
                table: None,
                out: CodesTarget::Codes { data: out.as_mut_ptr(), stride: outputs },
            };
            let most = if fits { g.batch * g.output[0] } else { g.pixels() };
            let mut scratch = Scratch::default();
            for range in [0..most / 2, most / 2..most] {
                // SAFETY: `out` holds all pixels.
                unsafe { task.run(range, 0..panels.count(), &mut scratch).unwrap() };
            }
            assert_eq!(out, expected, "{isa:?} {g:?}");
            // SAFETY: refused before anything is written.
            assert!(unsafe { task.run(0..most + 1, 0..1, &mut scratch) }.is_err());
        }
    }
}

#[test]
fn depthwise_convolutions_of_codes_equal_their_definition() {
    for isa in Isa::available() {
        for (channels, g) in [
            (16, geometry(2, [15, 14], [3, 3], 1, 1, 1)),
            (70, geometry(1, [9, 23], [3, 3], 2, 1, 1)),
            (33, geometry(1, [11, 12], [5, 5], 1, 1, 2)),
            (5, geometry(1, [11, 12], [5, 5], 2, 1, 2)),
            (48, geometry(1, [13, 12], [3, 2], 1, 2, 2)),
        ] {
            let (x, w) = (input(&g, channels), weights(2, channels * g.taps()));
            let scale = scales(3, channels, g.taps());
            let expected = expect(&plain(&g, &x, channels, &w, channels, channels), &scale);
            let padded = channels.next_multiple_of(crate::gemm::lanes(isa));
            let mut packed = vec![0; 4 * g.taps() * padded];
            let sums = depthwise::pack(&w, g.taps(), padded, &mut packed).unwrap();
            let mut start = starts(isa, ZERO, &sums, &[]);
            start.resize(padded, 0);
            let mut factors = scale.clone();
            factors.resize(padded, 0.0);
            let mut out = vec![0; g.pixels() * channels];
            let row_stride = g.input[1] * channels;
            let image_stride = g.input[0] * row_stride;
            let task = CodesDepthwise {
                geometry: &g,
                channels,
                weights: &packed,
                x: Images { data: &x, image_stride, row_stride, pixel_stride: channels },
                zero: ZERO,
                scaling: Scaling {
                    start: &start,
                    rows: &[],
                    scale: &factors,
                    bias: &[],
                    codes: BOUNDS,
                    numbers: [0.0; 2],
                    added: None,
                },
                table: None,
                out: out.as_mut_ptr(),
                stride: channels,
            };
            let (rows, mut scratch) = (g.batch * g.output[0], Scratch::default());
            for channels in [0..channels / 16 * 16, channels / 16 * 16..channels] {
                // SAFETY: `out` holds all pixels.
                unsafe { task.run(isa, 0..rows, channels, &mut scratch).unwrap() };
            }
            assert_eq!(out, expected, "{isa:?} {g:?}");
        }
    }
}
