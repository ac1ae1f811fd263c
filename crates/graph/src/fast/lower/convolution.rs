//! Convolutions, pools and other work on images.

use super::elementwise::add_to;
use super::{Convolve, Input, Kind, Lower, Proto, Tail};
use crate::graph::Node;
use crate::ops::{
    Convolution, Geometry as Spatial, Pool, PoolKind, Reduce, ReduceKind, Resize, TransposedConvolution,
};
use crate::plain;
use kun_kernels::conv::Geometry;
use kun_kernels::pool::Pooling;
use kun_kernels::resize::Axis;

/// One or two spatial dimensions as two.
fn two(values: &[usize], missing: usize) -> Option<[usize; 2]> {
    match values {
        [x] => Some([missing, *x]),
        [y, x] => Some([*y, *x]),
        _ => None,
    }
}

fn geometry(batch: usize, spatial: &Spatial) -> Option<Geometry> {
    Some(Geometry {
        batch,
        input: two(&spatial.input, 1)?,
        output: two(&spatial.output, 1)?,
        kernel: two(&spatial.kernel, 1)?,
        stride: two(&spatial.strides, 1)?,
        dilation: two(&spatial.dilations, 1)?,
        padding: two(&spatial.pad_begin, 0)?,
    })
}

impl Lower<'_> {
    pub(super) fn convolution(&mut self, index: usize, node: &Node, conv: &Convolution) -> Option<()> {
        let (x, weight) = (self.operand(node, 0)?, self.operand(node, 1)?);
        let (shape, kernel) = (self.shape(x)?, self.shape(weight)?);
        if !self.is_constant(weight) || kernel.contains(&0) || shape.contains(&0) {
            return None;
        }
        let bias = match self.operand(node, 2) {
            Some(bias) => self.numbers(bias, usize::MAX)?,
            None => Vec::new(),
        };
        let (outputs, groups) = (kernel[0], conv.groups);
        let (channels, spatial) = (shape[1], conv.geometry(&shape[2..], &kernel[2..]).ok()?);
        if !channels.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
            return None;
        }
        let geometry = geometry(shape[0], &spatial)?;
        let mut tail = Tail::default();
        add_to(&mut tail.bias, &bias);
        let convolve = Convolve { weight, geometry, channels, outputs, groups, tail };
        let kind = Kind::Convolve(Box::new(convolve));
        self.push(Proto { kind, inputs: vec![Input::Value(x)], output: node.outputs[0], node: index });
        Some(())
    }

    /// A transposed convolution whose windows do not overlap.
    pub(super) fn transposed(
        &mut self,
        index: usize,
        node: &Node,
        conv: &TransposedConvolution,
    ) -> Option<()> {
        let (x, weight) = (self.operand(node, 0)?, self.operand(node, 1)?);
        let (shape, kernel) = (self.shape(x)?, self.shape(weight)?);
        let (&[batch, channels, height, width], &[_, outputs, rows, columns]) = (&shape[..], &kernel[..])
        else {
            return None;
        };
        let spatial = conv.geometry(&shape[2..], &kernel[2..]).ok()?;
        let apart = spatial.strides == [rows, columns]
            && spatial.pad_begin == [0, 0]
            && spatial.input == [height * rows, width * columns];
        if !self.is_constant(weight)
            || conv.convolution.groups != 1
            || !apart
            || kernel.contains(&0)
            || shape.contains(&0)
        {
            return None;
        }
        let geometry = Geometry {
            batch,
            input: [height, width],
            output: [height, width],
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [0, 0],
        };
        let mut tail = Tail::default();
        if let Some(bias) = self.operand(node, 2) {
            tail.bias = self.numbers(bias, outputs)?.repeat(rows * columns);
        }
        let outputs = outputs * rows * columns;
        let convolve = Box::new(Convolve { weight, geometry, channels, outputs, groups: 1, tail });
        let kind = Kind::Transposed { convolve, block: [rows, columns] };
        self.push(Proto { kind, inputs: vec![Input::Value(x)], output: node.outputs[0], node: index });
        Some(())
    }

    pub(super) fn pool(&mut self, index: usize, node: &Node, pool: &Pool) -> Option<()> {
        let x = self.operand(node, 0)?;
        let shape = self.shape(x)?;
        let indices_read =
            node.outputs.get(1).is_some_and(|&id| id != crate::graph::ValueId::ABSENT && self.uses(id) > 0);
        if indices_read || pool.ceil {
            return None;
        }
        let pooling = match pool.kind {
            PoolKind::Max => Pooling::Max,
            PoolKind::Average { include_pad: false } => Pooling::Mean,
            PoolKind::Average { include_pad: true } => Pooling::MeanOfWindow,
            PoolKind::Lp { .. } => return None,
        };
        let geometry = geometry(shape[0], &pool.geometry(&shape[2..]).ok()?)?;
        let kind = Kind::Pool { pooling, geometry };
        self.push(Proto { kind, inputs: vec![Input::Value(x)], output: node.outputs[0], node: index });
        Some(())
    }

    pub(super) fn global_pool(&mut self, index: usize, node: &Node, kind: PoolKind) -> Option<()> {
        if !matches!(kind, PoolKind::Average { .. }) {
            return None;
        }
        self.mean(index, node)
    }

    pub(super) fn reduce(&mut self, index: usize, node: &Node, reduce: &Reduce) -> Option<()> {
        let shape = self.shape(self.operand(node, 0)?)?;
        let named = match self.operand(node, 1) {
            Some(axes) => Some(self.integers(axes)?),
            None => None,
        };
        let axes = reduce.axes(named.as_deref(), shape.len()).ok()?;
        if reduce.kind != ReduceKind::Mean || shape.len() != 4 || axes != [2, 3] {
            return None;
        }
        self.mean(index, node)
    }

    fn mean(&mut self, index: usize, node: &Node) -> Option<()> {
        let x = self.operand(node, 0)?;
        if self.shape(x)?.len() != 4 {
            return None;
        }
        self.push(Proto {
            kind: Kind::Mean,
            inputs: vec![Input::Value(x)],
            output: node.outputs[0],
            node: index,
        });
        Some(())
    }

    pub(super) fn resize(&mut self, index: usize, node: &Node, resize: &Resize) -> Option<()> {
        let x = self.operand(node, 0)?;
        let shape = self.shape(x)?;
        let scales = match self.operand(node, 2) {
            Some(id) => Some(self.numbers(id, 8)?).filter(|scales| !scales.is_empty()),
            None => None,
        };
        let sizes = match self.operand(node, 3) {
            Some(id) => Some(self.integers(id)?),
            None => None,
        };
        let (out, factors) = resize.size(&shape, scales.as_deref(), sizes.as_deref()).ok()?;
        if shape.len() != 4 || out[..2] != shape[..2] || factors[0] != 1.0 || factors[1] != 1.0 {
            return None;
        }
        let axis = |d: usize| {
            let taps = plain::resize_taps(resize, shape[d], out[d], factors[d])?;
            let most = taps.iter().map(Vec::len).max()?;
            let mut axis = Axis { taps: most, indices: Vec::new(), weights: Vec::new() };
            for taps in taps {
                for i in 0..most {
                    let (index, weight) = taps.get(i).copied().unwrap_or((taps.first()?.0, 0.0));
                    axis.indices.push(index);
                    axis.weights.push(weight as f32);
                }
            }
            Some(axis)
        };
        let kind = Kind::Resize { rows: axis(2)?, columns: axis(3)? };
        self.push(Proto { kind, inputs: vec![Input::Value(x)], output: node.outputs[0], node: index });
        Some(())
    }
}
