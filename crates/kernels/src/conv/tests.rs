use super::depthwise::Depthwise;
use super::few::{self, Few};
use super::winograd::{self, Winograd};
use super::{Convolution, Geometry, Images, tap_major};
use crate::Isa;
use crate::gemm::tests::{assert_close, layouts, numbers, seen};
use crate::gemm::{Activation, Epilogue, Panels, Residual, Scratch, Target};

/// `[N, H, W, C]` in, `[outputs, channels / groups, taps]` weights, `[pixels, outputs]` out: the definition, by the product of
/// an element of the input and one of the weights.
pub(crate) fn by_definition<T: Default + std::ops::AddAssign>(
    g: &Geometry,
    [channels, outputs, groups]: [usize; 3],
    product: impl Fn(usize, usize) -> T,
) -> Vec<T> {
    let [height, width] = g.input;
    let (each, mut out) = (channels / groups, Vec::new());
    for pixel in 0..g.pixels() {
        let [image, row, column] = g.place(pixel);
        for o in 0..outputs {
            let first = o / (outputs / groups) * each;
            let mut sum = T::default();
            for tap in 0..g.taps() {
                let y = g.source(0, row, tap / g.kernel[1]);
                let (Some(y), Some(at)) = (y, g.source(1, column, tap % g.kernel[1])) else { continue };
                let x = ((image * height + y) * width + at) * channels + first;
                for c in 0..each {
                    sum += product(x + c, (o * each + c) * g.taps() + tap);
                }
            }
            out.push(sum);
        }
    }
    out
}

fn plain(g: &Geometry, x: &[f32], channels: usize, w: &[f32], outputs: usize, groups: usize) -> Vec<f64> {
    by_definition(g, [channels, outputs, groups], |i, j| f64::from(x[i]) * f64::from(w[j]))
}

pub(crate) fn geometry(
    batch: usize,
    input: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    dilation: usize,
    pad: usize,
) -> Geometry {
    let output = [0, 1].map(|i| (input[i] + 2 * pad - (kernel[i] - 1) * dilation - 1) / stride + 1);
    let (stride, dilation) = ([stride; 2], [dilation; 2]);
    Geometry { batch, input, output, kernel, stride, dilation, padding: [pad; 2] }
}

fn dense(g: &Geometry, channels: usize) -> Images<'static> {
    let row_stride = g.input[1] * channels;
    Images { data: &[], image_stride: g.input[0] * row_stride, row_stride, pixel_stride: channels }
}

fn expect(plain: &[f64], bias: &[f32], other: &[f32]) -> Vec<f32> {
    let n = bias.len();
    plain
        .iter()
        .enumerate()
        .map(|(i, sum)| (sum + f64::from(bias[i % n]) + f64::from(other[i])).max(-0.25) as f32)
        .collect()
}

const ACTIVATION: Activation = Activation::Clamp { low: -0.25, high: f32::INFINITY };

#[test]
fn convolutions_equal_their_definition() {
    for isa in Isa::available() {
        for (channels, outputs, g) in [
            (3, 32, geometry(2, [15, 14], [3, 3], 2, 1, 1)),
            (3, 8, geometry(1, [20, 21], [7, 7], 2, 1, 3)),
            (16, 70, geometry(1, [9, 7], [3, 3], 1, 1, 1)),
            (17, 16, geometry(1, [9, 12], [3, 2], 1, 2, 2)),
            (40, 24, geometry(3, [5, 5], [1, 1], 1, 1, 0)),
            (40, 24, geometry(1, [7, 6], [1, 1], 2, 1, 0)),
            (200, 5, geometry(1, [4, 4], [3, 3], 1, 1, 1)),
            (2, 3, geometry(1, [1, 9], [1, 5], 1, 3, 6)),
            (21, 9, geometry(2, [40, 3], [5, 3], 3, 1, 2)),
        ] {
            for panels in layouts(isa, outputs, g.taps(), channels) {
                let x = numbers(1, g.batch * g.input[0] * g.input[1] * channels);
                let w = numbers(2, outputs * channels * g.taps());
                let (bias, other) = (numbers(3, outputs), numbers(4, g.pixels() * outputs));
                let plain = plain(&g, &seen(&panels, &x), channels, &seen(&panels, &w), outputs, 1);
                let expected = expect(&plain, &bias, &other);
                let mut packed = vec![0.0; panels.packed_len()];
                let depth = channels * g.taps();
                panels.pack(&tap_major(&w, channels, g.taps()), depth, 1, &mut packed).unwrap();
                let mut out = vec![0.0; g.pixels() * outputs];
                let bias = panels.pad(&bias);
                let residual = Some(Residual { data: other.as_ptr(), stride: outputs, after: false });
                let task = Convolution {
                    geometry: &g,
                    channels,
                    panels: &panels,
                    packed: &packed,
                    x: Images { data: &x, ..dense(&g, channels) },
                    epilogue: Epilogue { bias: &bias, activation: ACTIVATION, slopes: &[], residual },
                    out: Target { data: out.as_mut_ptr(), stride: outputs },
                    factors: &[],
                };
                let (mut scratch, half) = (Scratch::default(), g.pixels() / 2);
                for range in [0..half, half..g.pixels()] {
                    // SAFETY: `out` holds all pixels.
                    unsafe { task.run(range, 0..panels.count(), &mut scratch).unwrap() };
                }
                assert_close(&out, &expected, 2e-6, &format!("{panels:?} {g:?}"));
            }
        }
    }
}

#[test]
fn few_channels_equal_the_definition() {
    for isa in Isa::available() {
        for (channels, outputs, g) in [
            (3, 32, geometry(2, [15, 14], [3, 3], 2, 1, 1)),
            (3, 8, geometry(1, [20, 21], [7, 7], 2, 1, 3)),
            (1, 70, geometry(1, [9, 60], [3, 3], 1, 1, 1)),
            (3, 40, geometry(2, [6, 130], [3, 2], 2, 1, 1)),
            (5, 24, geometry(1, [40, 36], [16, 16], 16, 1, 0)),
            (15, 33, geometry(1, [4, 90], [5, 3], 1, 1, 4)),
        ] {
            let [height, width] = g.input;
            let x = numbers(1, g.batch * height * width * channels);
            let w = numbers(2, outputs * channels * g.taps());
            let (bias, other) = (numbers(3, outputs), numbers(4, g.pixels() * outputs));
            let size = height * width;
            let planes: Vec<f32> = (0..x.len())
                .map(|i| {
                    let (image, c, pixel) = (i / (size * channels), i / size % channels, i % size);
                    x[(image * size + pixel) * channels + c]
                })
                .collect();
            let by_plane =
                Images { data: &planes, image_stride: size * channels, row_stride: width, pixel_stride: 1 };
            let by_pixel = Images { data: &x, ..dense(&g, channels) };
            for panels in layouts(isa, outputs, g.kernel[0], g.kernel[1] * channels) {
                if panels.has_pairs() && !few::takes_pairs(&g, channels) {
                    continue;
                }
                let plain = plain(&g, &seen(&panels, &x), channels, &seen(&panels, &w), outputs, 1);
                let expected = expect(&plain, &bias, &other);
                let mut packed = vec![0.0; panels.packed_len()];
                let depth = channels * g.taps();
                panels.pack(&tap_major(&w, channels, g.taps()), depth, 1, &mut packed).unwrap();
                let bias = panels.pad(&bias);
                for (x, channel_stride) in [(by_pixel, 1), (by_plane, size)] {
                    let mut out = vec![0.0; g.pixels() * outputs];
                    let residual = Some(Residual { data: other.as_ptr(), stride: outputs, after: false });
                    let task = Few {
                        geometry: &g,
                        channels,
                        channel_stride,
                        panels: &panels,
                        packed: &packed,
                        x,
                        epilogue: Epilogue { bias: &bias, activation: ACTIVATION, slopes: &[], residual },
                        out: Target { data: out.as_mut_ptr(), stride: outputs },
                    };
                    let (mut scratch, rows) = (Scratch::default(), g.batch * g.output[0]);
                    for range in [0..rows / 3, rows / 3..rows] {
                        // SAFETY: `out` holds all pixels.
                        unsafe { task.run(range, 0..panels.count(), &mut scratch).unwrap() };
                    }
                    assert_close(&out, &expected, 2e-6, &format!("{panels:?} {channels} {outputs} {g:?}"));
                }
            }
        }
    }
}

#[test]
fn winograd_equals_the_definition() {
    for isa in Isa::available() {
        for (channels, outputs, g) in [
            (16, 16, geometry(1, [8, 8], [3, 3], 1, 1, 1)),
            (5, 70, geometry(2, [9, 30], [3, 3], 1, 1, 1)),
            (64, 130, geometry(1, [6, 7], [3, 3], 1, 1, 0)),
            (33, 3, geometry(1, [3, 1], [3, 3], 1, 1, 1)),
        ] {
            let x = numbers(1, g.batch * g.input[0] * g.input[1] * channels);
            let w = numbers(2, outputs * channels * 9);
            let (bias, other) = (numbers(3, outputs), numbers(4, g.pixels() * outputs));
            let expected = expect(&plain(&g, &x, channels, &w, outputs, 1), &bias, &other);
            for panels in
                [Some(Panels::new(isa, outputs, channels)), Panels::pairs(isa, outputs, 1, channels)]
            {
                let Some(panels) = panels else { continue };
                let mut packed = vec![0.0; winograd::packed_len(&panels)];
                winograd::pack(&panels, &w, &mut packed).unwrap();
                let mut out = vec![0.0; g.pixels() * outputs];
                let bias = panels.pad(&bias);
                let residual = Some(Residual { data: other.as_ptr(), stride: outputs, after: false });
                let task = Winograd {
                    geometry: &g,
                    panels: &panels,
                    packed: &packed,
                    x: Images { data: &x, ..dense(&g, channels) },
                    epilogue: Epilogue { bias: &bias, activation: ACTIVATION, slopes: &[], residual },
                    out: Target { data: out.as_mut_ptr(), stride: outputs },
                };
                let (mut scratch, tiles) = (Scratch::default(), winograd::tiles(&g, &panels));
                for columns in 0..panels.count() {
                    for range in [0..tiles / 2, tiles / 2..tiles] {
                        // SAFETY: `out` holds all pixels.
                        unsafe { task.run(range, columns..columns + 1, &mut scratch).unwrap() };
                    }
                }
                // A bf16 has eight bits.
                let bound = if panels.has_pairs() { 1e-2 } else { 1e-5 };
                assert_close(&out, &expected, bound, &format!("{isa:?} {channels} {outputs} {g:?}"));
            }
        }
    }
}

#[test]
fn depthwise_equals_the_definition() {
    for isa in Isa::available() {
        for (channels, g) in [
            (32, geometry(1, [12, 13], [3, 3], 1, 1, 1)),
            (19, geometry(2, [12, 13], [3, 3], 2, 1, 1)),
            (24, geometry(1, [11, 10], [5, 5], 1, 1, 2)),
            (35, geometry(1, [14, 14], [5, 5], 2, 1, 2)),
            (8, geometry(1, [9, 9], [3, 3], 1, 2, 2)),
            (1, geometry(1, [4, 4], [7, 7], 1, 1, 3)),
            (33, geometry(1, [5, 3], [5, 5], 1, 1, 2)),
            (16, geometry(1, [2, 40], [3, 3], 2, 1, 1)),
            (20, geometry(1, [6, 23], [7, 4], 3, 1, 2)),
        ] {
            let x = numbers(1, g.batch * g.input[0] * g.input[1] * channels);
            let w = numbers(2, channels * g.taps());
            let (bias, other) = (numbers(3, channels), numbers(4, g.pixels() * channels));
            let expected = expect(&plain(&g, &x, channels, &w, channels, channels), &bias, &other);
            let weights: Vec<f32> = (0..w.len()).map(|i| w[i % channels * g.taps() + i / channels]).collect();
            let mut out = vec![0.0; g.pixels() * channels];
            let residual = Some(Residual { data: other.as_ptr(), stride: channels, after: false });
            let task = Depthwise {
                geometry: &g,
                channels,
                weights: &weights,
                x: Images { data: &x, ..dense(&g, channels) },
                epilogue: Epilogue { bias: &bias, activation: ACTIVATION, slopes: &[], residual },
                out: Target { data: out.as_mut_ptr(), stride: channels },
                skip: 0,
                ring: g.input[0],
            };
            let (rows, mut scratch) = (g.batch * g.output[0], Scratch::default());
            // SAFETY: `out` holds all pixels.
            unsafe {
                task.run(isa, 0..rows / 2, 0..channels, &mut scratch).unwrap();
                task.run(isa, rows / 2..rows, 0..channels / 2, &mut scratch).unwrap();
                task.run(isa, rows / 2..rows, channels / 2..channels, &mut scratch).unwrap();
            }
            assert_close(&out, &expected, 1e-6, &format!("{isa:?} {channels} {g:?}"));
        }
    }
}

#[test]
fn factors_come_before_the_product() {
    for isa in Isa::available() {
        let g = geometry(3, [4, 5], [1, 1], 1, 1, 0);
        let (channels, outputs) = (37, 20);
        let (x, factors) = (numbers(1, g.pixels() * channels), numbers(2, 3 * channels));
        let w = numbers(3, outputs * channels);
        let panels = Panels::new(isa, outputs, channels);
        let mut packed = vec![0.0; panels.packed_len()];
        panels.pack(&w, channels, 1, &mut packed).unwrap();
        let scaled: Vec<f32> = x
            .iter()
            .enumerate()
            .map(|(i, x)| x * factors[i / (20 * channels) * channels + i % channels])
            .collect();
        let expected: Vec<f32> =
            plain(&g, &scaled, channels, &w, outputs, 1).iter().map(|&sum| sum as f32).collect();
        let mut out = vec![0.0; expected.len()];
        let task = Convolution {
            geometry: &g,
            channels,
            panels: &panels,
            packed: &packed,
            x: Images { data: &x, ..dense(&g, channels) },
            epilogue: Epilogue::default(),
            out: Target { data: out.as_mut_ptr(), stride: outputs },
            factors: &factors,
        };
        // SAFETY: `out` holds all pixels.
        unsafe { task.run(0..g.pixels(), 0..panels.count(), &mut Scratch::default()).unwrap() };
        assert_close(&out, &expected, 2e-6, &format!("{isa:?}"));
        let short = Convolution { factors: &factors[1..], ..task };
        // SAFETY: as above.
        unsafe { assert!(short.run(0..1, 0..1, &mut Scratch::default()).is_err()) };
    }
}

#[test]
fn a_ring_of_rows_is_enough_for_depthwise() {
    let g = geometry(1, [12, 9], [3, 3], 2, 1, 1);
    let (channels, ring) = (20, 3);
    let (x, weights) = (numbers(1, 12 * 9 * channels), numbers(2, 9 * channels));
    let row = 9 * channels;
    let (mut all, mut some) = (vec![0.0; g.pixels() * channels], vec![0.0; g.pixels() * channels]);
    let mut held = vec![f32::NAN; ring * row];
    let mut scratch = Scratch::default();
    let mut task = Depthwise {
        geometry: &g,
        channels,
        weights: &weights,
        x: Images { data: &x, ..dense(&g, channels) },
        epilogue: Epilogue::default(),
        out: Target { data: all.as_mut_ptr(), stride: channels },
        skip: 0,
        ring: 12,
    };
    // SAFETY: `all` holds all pixels.
    unsafe { task.run(Isa::detect(), 0..6, 0..channels, &mut scratch).unwrap() };
    task.out.data = some.as_mut_ptr();
    for out in 0..6usize {
        for y in (2 * out).saturating_sub(1)..=2 * out + 1 {
            held[y % ring * row..][..row].copy_from_slice(&x[y * row..][..row]);
        }
        let task = Depthwise { x: Images { data: &held, ..dense(&g, channels) }, ring, ..task };
        // SAFETY: `some` holds all pixels.
        unsafe { task.run(Isa::detect(), out..out + 1, 0..channels, &mut scratch).unwrap() };
    }
    assert_eq!(all, some);
    let short = Depthwise { ring: 2, ..task };
    // SAFETY: as above.
    assert!(unsafe { short.run(Isa::detect(), 0..1, 0..channels, &mut scratch) }.is_err());
}
