//! What stands around images, and norms of their channels.

use super::Net;
use crate::graph::ValueId;
use crate::ops::{Binary, Convolution, PadMode, Padding, TensorOp, Unary};

impl Net {
    fn pad(&mut self, mode: PadMode, x: ValueId, pads: &[i64], value: f32) -> ValueId {
        let pads = self.integers(pads);
        let value = self.number(value);
        self.op(TensorOp::Pad(mode), &[x, pads, value])
    }

    /// A convolution without zeros of its own around the image.
    fn inner_conv(&mut self, x: ValueId, [outputs, channels, kernel]: [usize; 3], stride: usize) -> ValueId {
        let (w, b) = (self.weight(&[outputs, channels, kernel, kernel]), self.weight(&[outputs]));
        let padding = Padding::Explicit(vec![0; 4]);
        let conv = Convolution { strides: vec![stride; 2], dilations: Vec::new(), padding, groups: 1 };
        self.op(TensorOp::Conv(conv), &[x, w, b])
    }
}

#[test]
fn images_get_more_around_them_in_every_mode() {
    for mode in [PadMode::Constant, PadMode::Reflect, PadMode::Edge, PadMode::Wrap] {
        let mut net = Net::default();
        let x = net.input(&[2, 3, 7, 9]);
        let y = net.pad(mode, x, &[0, 0, 2, 1, 0, 0, 3, 4], 0.25);
        let y = net.conv(y, [6, 3, 3], 1, 1);
        // Less of it on one side, behind other channels.
        let z = net.pad(mode, y, &[0, 0, -2, 3, 0, 0, 1, -1], -1.0);
        let z = net.unary(Unary::Sigmoid, z);
        net.output(z);
        let one = net.input(&[1, 1, 4, 5]);
        let one = net.pad(mode, one, &[0, 0, 1, 2, 0, 0, 0, 1], 0.0);
        net.output(one);
        let kinds = net.check(0);
        assert_eq!(kinds.iter().filter(|kind| **kind == "pad").count(), 3, "{kinds:?}");
    }
    // Channels, of which some are new and some are gone.
    let mut net = Net::default();
    let x = net.input(&[2, 5, 6, 6]);
    let x = net.conv(x, [8, 5, 3], 1, 1);
    let y = net.pad(PadMode::Constant, x, &[0, 2, 1, 0, 0, 5, 0, 1], 0.5);
    let z = net.pad(PadMode::Constant, x, &[0, -3, 0, 0, 0, -1, 0, 0], 0.5);
    net.output(y);
    net.output(z);
    net.check(0);
}

#[test]
fn zeros_around_an_image_become_part_of_a_convolution() {
    let mut net = Net::default();
    let x = net.input(&[2, 3, 11, 12]);
    // As TensorFlow pads before a stride of 2.
    let y = net.pad(PadMode::Constant, x, &[0, 0, 0, 0, 0, 0, 1, 1], 0.0);
    let y = net.inner_conv(y, [8, 3, 3], 2);
    let y = net.pad(PadMode::Constant, y, &[0, 0, 2, 1, 0, 0, 1, 3], 0.0);
    let y = net.inner_conv(y, [10, 8, 5], 1);
    net.output(y);
    let kinds = net.check(0);
    assert!(!kinds.contains(&"pad"), "{kinds:?}");
    // Not where somebody else reads them, or other numbers than 0 stand there.
    let mut net = Net::default();
    let x = net.input(&[1, 3, 11, 12]);
    let y = net.pad(PadMode::Constant, x, &[0, 0, 1, 1, 0, 0, 1, 1], 0.0);
    let conv = net.inner_conv(y, [8, 3, 3], 1);
    net.output(conv);
    net.output(y);
    let y = net.pad(PadMode::Constant, x, &[0, 0, 1, 1, 0, 0, 1, 1], 1.0);
    let conv = net.inner_conv(y, [8, 3, 3], 1);
    net.output(conv);
    let kinds = net.check(0);
    assert_eq!(kinds.iter().filter(|kind| **kind == "pad").count(), 2, "{kinds:?}");
}

#[test]
fn channels_are_normalised_wherever_they_lie() {
    let mut net = Net::default();
    let x = net.input(&[2, 3, 9, 7]);
    let norm = |net: &mut Net, x: ValueId, channels: usize| {
        let (weight, bias) = (net.weight(&[channels]), net.weight(&[channels]));
        net.op(TensorOp::InstanceNorm { epsilon: 1e-5 }, &[x, weight, bias])
    };
    // Not about 0.
    let three = net.number(3.0);
    let x = net.binary(Binary::Add, x, three);
    let y = norm(&mut net, x, 3);
    net.output(y);
    let y = net.conv(x, [37, 3, 3], 1, 1);
    let y = norm(&mut net, y, 37);
    let y = net.unary(Unary::Relu, y);
    let y = net.conv(y, [4, 37, 3], 1, 1);
    net.output(y);
    let text = net.input(&[2, 4, 50]);
    let text = norm(&mut net, text, 4);
    net.output(text);
    let kinds = net.check(0);
    assert_eq!(kinds.iter().filter(|kind| **kind == "instance norm").count(), 3, "{kinds:?}");
}
