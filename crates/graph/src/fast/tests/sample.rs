//! Images at the places that a grid names, and other ways to more or fewer pixels.

use super::Net;
use crate::ops::{
    Binary, Convolution, GridPadding, GridSample, Padding, PoolKind, Reduce, ReduceKind, SampleMode,
    TensorOp, TransposedConvolution, Unary,
};

const PADDINGS: [GridPadding; 3] = [GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection];

#[test]
fn grids_name_places_in_and_around_images() {
    for mode in [SampleMode::Linear, SampleMode::Nearest] {
        for padding in PADDINGS {
            for align_corners in [false, true] {
                let sample = TensorOp::GridSample(GridSample { mode, padding, align_corners });
                let mut net = Net::default();
                let (x, grid) = (net.input(&[2, 3, 7, 9]), net.input(&[2, 5, 45, 2]));
                // Near, beside and far away.
                for reach in [0.9, 1.5, 40.0, 1e12] {
                    let factor = net.number(reach);
                    let grid = net.binary(Binary::Mul, grid, factor);
                    let y = net.op(sample.clone(), &[x, grid]);
                    net.output(y);
                    // Channels that lie together, fewer and more than a vector has; a grid that does not.
                    for channels in [8, 37] {
                        let wide = net.conv(x, [channels, 3, 3], 1, 1);
                        let turned = net.op(TensorOp::Transpose(vec![0, 2, 1, 3]), &[grid]);
                        let y = net.op(sample.clone(), &[wide, turned]);
                        net.output(y);
                    }
                }
                let (x, grid) = (net.input(&[1, 1, 1, 6]), net.input(&[1, 3, 2, 2]));
                let y = net.op(sample, &[x, grid]);
                net.output(y);
                let kinds = net.check(0);
                assert_eq!(kinds.iter().filter(|kind| **kind == "grid sample").count(), 13, "{kinds:?}");
            }
        }
    }
}

#[test]
fn sampled_images_lie_where_they_are_joined() {
    let sample = GridSample { mode: SampleMode::Linear, padding: GridPadding::Zeros, align_corners: false };
    let mut net = Net::default();
    let (x, grid) = (net.input(&[2, 3, 7, 9]), net.input(&[2, 7, 9, 2]));
    let wide = net.conv(x, [20, 3, 3], 1, 1);
    let moved = net.op(TensorOp::GridSample(sample), &[wide, grid]);
    let both = net.op(TensorOp::Concat { axis: 1 }, &[wide, moved]);
    let y = net.conv(both, [4, 40, 3], 1, 1);
    net.output(y);
    let kinds = net.check(0);
    // The result of all alone is copied, to the order of its dimensions.
    assert_eq!(kinds.iter().filter(|kind| **kind == "copy").count(), 1, "{kinds:?}");
    // Curves through four pixels have no fast form.
    let mut net = Net::default();
    let (x, grid) = (net.input(&[2, 3, 7, 9]), net.input(&[2, 7, 9, 2]));
    let cubic = GridSample { mode: SampleMode::Cubic, ..sample };
    let y = net.op(TensorOp::GridSample(cubic), &[x, grid]);
    let y = net.unary(Unary::Sigmoid, y);
    net.output(y);
    net.check(1);
}

#[test]
fn transposed_convolutions_of_single_channels() {
    for (kernel, stride, pads, extra) in [
        ([4, 4], [2, 2], vec![1; 4], vec![]),
        ([3, 3], [2, 2], vec![1; 4], vec![1, 1]),
        ([3, 3], [1, 1], vec![1; 4], vec![]),
        ([2, 3], [2, 3], vec![0; 4], vec![]),
        ([16, 5], [8, 2], vec![4, 1, 4, 1], vec![]),
    ] {
        for channels in [2, 21] {
            let mut net = Net::default();
            let x = net.input(&[2, channels, 5, 7]);
            let operands = [x, net.weight(&[channels, 1, kernel[0], kernel[1]]), net.weight(&[channels])];
            let padding = Padding::Explicit(pads.clone());
            let convolution =
                Convolution { strides: stride.to_vec(), dilations: Vec::new(), padding, groups: channels };
            let output_padding = extra.clone();
            let transposed = TransposedConvolution { convolution, output_padding, output_shape: Vec::new() };
            let y = net.op(TensorOp::ConvTranspose(transposed.clone()), &operands);
            let y = net.unary(Unary::Sigmoid, y);
            let z = net.conv(y, [4, channels, 1], 1, 1);
            net.output(y);
            net.output(z);
            // Without a bias.
            let y = net.op(TensorOp::ConvTranspose(transposed), &operands[..2]);
            net.output(y);
            net.check(0);
        }
    }
    // Groups of several channels have no fast form.
    let mut net = Net::default();
    let operands = [net.input(&[2, 4, 5, 7]), net.weight(&[4, 3, 2, 2])];
    let padding = Padding::Explicit(vec![0; 4]);
    let convolution = Convolution { strides: vec![2; 2], dilations: Vec::new(), padding, groups: 2 };
    let transposed =
        TransposedConvolution { convolution, output_padding: Vec::new(), output_shape: Vec::new() };
    let y = net.op(TensorOp::ConvTranspose(transposed), &operands);
    net.output(y);
    // The weights as well.
    net.check(2);
}

#[test]
fn largest_pixels_of_images() {
    let mut net = Net::default();
    let x = net.input(&[2, 3, 9, 7]);
    let y = net.op(TensorOp::GlobalPool(PoolKind::Max), &[x]);
    net.output(y);
    let x = net.conv(x, [37, 3, 3], 1, 1);
    let y = net.op(TensorOp::GlobalPool(PoolKind::Max), &[x]);
    let z = net.conv(y, [4, 37, 1], 1, 1);
    net.output(y);
    net.output(z);
    for keep_dims in [false, true] {
        let axes = net.integers(&[2, -1]);
        let reduce = Reduce { kind: ReduceKind::Max, keep_dims, none_if_empty: false };
        let y = net.op(TensorOp::Reduce(reduce), &[x, axes]);
        let y = net.unary(Unary::Sigmoid, y);
        net.output(y);
    }
    net.check(0);
}

#[test]
fn tiles_are_stretched_or_joined() {
    let mut net = Net::default();
    let x = net.input(&[1, 3, 1, 4]);
    for repeats in [[2, 1, 3, 1], [1, 1, 1, 1], [1, 2, 1, 1], [1, 1, 1, 3]] {
        let repeats = net.integers(&repeats);
        let y = net.op(TensorOp::Tile, &[x, repeats]);
        net.output(y);
        let y = net.unary(Unary::Sigmoid, x);
        let y = net.op(TensorOp::Tile, &[y, repeats]);
        let y = net.unary(Unary::Exp, y);
        net.output(y);
    }
    let wide = net.conv(x, [8, 3, 3], 1, 1);
    let repeats = net.integers(&[1, 4, 1, 1]);
    let y = net.op(TensorOp::Tile, &[wide, repeats]);
    let y = net.conv(y, [4, 32, 1], 1, 1);
    net.output(y);
    net.check(0);
    // In two directions.
    let mut net = Net::default();
    let x = net.input(&[1, 3, 1, 4]);
    let repeats = net.integers(&[1, 2, 1, 2]);
    let y = net.op(TensorOp::Tile, &[x, repeats]);
    net.output(y);
    // The repeats as well.
    net.check(2);
}
