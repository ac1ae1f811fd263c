//! Images at the places that a grid names.

use super::Net;
use crate::ops::{Binary, GridPadding, GridSample, SampleMode, TensorOp, Unary};

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
