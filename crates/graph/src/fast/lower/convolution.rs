//! Convolutions, pools and other work on images.

use super::elementwise::add_to;
use super::{Convolve, Input, Kind, Lower, Overlapping, Phase, Proto, Surround, Tail};
use crate::graph::{Node, ValueId};
use crate::ops::{
    Convolution, Geometry as Spatial, GridSample, PadMode, Pool, PoolKind, Reduce, ReduceKind, Resize,
    SampleMode, TransposedConvolution,
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

pub(super) fn geometry(batch: usize, spatial: &Spatial) -> Option<Geometry> {
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

/// Along one axis, of the outputs `phase, phase + stride, ..` of a transposed convolution: how many there are, the places of
/// the window that make them, by the input that they read, and how many inputs before its own the first output reads.
fn phase(spatial: &Spatial, axis: usize, phase: usize) -> Option<(usize, Vec<usize>, usize)> {
    let (stride, padding) = (spatial.strides[axis], spatial.pad_begin[axis]);
    let count = spatial.input[axis].saturating_sub(phase).div_ceil(stride);
    let taps: Vec<usize> =
        (0..spatial.kernel[axis]).rev().filter(|tap| (phase + padding) % stride == tap % stride).collect();
    // The place `tap` reads input `(phase + padding - tap) / stride`.
    let before = taps.first()?.checked_sub(phase + padding)? / stride;
    (count > 0).then_some((count, taps, before))
}

/// See [`Overlapping::phases`]; `None` if some pixels read no input at all or none at or before their own.
fn phases(batch: usize, spatial: &Spatial, input: [usize; 2]) -> Option<Vec<Phase>> {
    if spatial.dilations.iter().any(|&d| d != 1) {
        return None;
    }
    let mut all = Vec::new();
    for row in 0..spatial.strides[0].min(spatial.input[0]) {
        for column in 0..spatial.strides[1].min(spatial.input[1]) {
            let (height, rows, above) = phase(spatial, 0, row)?;
            let (width, columns, left) = phase(spatial, 1, column)?;
            let geometry = Geometry {
                batch,
                input,
                output: [height, width],
                kernel: [rows.len(), columns.len()],
                stride: [1, 1],
                dilation: [1, 1],
                padding: [above, left],
            };
            let places = rows.iter().flat_map(|y| columns.iter().map(move |x| y * spatial.kernel[1] + x));
            all.push(Phase { first: [row, column], geometry, places: places.collect() });
        }
    }
    Some(all)
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
        let mut geometry = geometry(shape[0], &spatial)?;
        let mut tail = Tail::default();
        add_to(&mut tail.bias, &bias);
        let mut x = x;
        if let Some((inner, [above, left])) = self.within_zeros(x) {
            let size = self.shape(inner)?;
            self.take(x);
            x = inner;
            geometry.input = [size[2], size[3]];
            geometry.padding = [geometry.padding[0] + above, geometry.padding[1] + left];
        }
        let depthwise = groups == channels && outputs == channels;
        let coded = (groups == 1 || depthwise).then(|| self.coded(x, weight, 0, outputs)).flatten();
        let convolve = Convolve { weight, geometry, channels, outputs, groups, tail, coded };
        let kind = Kind::Convolve(Box::new(convolve));
        self.make(index, kind, vec![Input::Value(x)], node.outputs[0]);
        Some(())
    }

    /// Images with more around them.
    pub(super) fn surround(&mut self, index: usize, node: &Node, mode: PadMode) -> Option<()> {
        let x = self.operand(node, 0)?;
        let shape = self.shape(x)?;
        let pads = self.integers(self.operand(node, 1)?)?;
        let value = match self.operand(node, 2) {
            Some(value) => self.number(value)?,
            None => 0.0,
        };
        let axes = match self.operand(node, 3) {
            Some(axes) => Some(self.integers(axes)?),
            None => None,
        };
        if shape.len() != 4 || shape.contains(&0) {
            return None;
        }
        let places = plain::pad_places(mode, &shape, &pads, axes.as_deref()).ok()?;
        let [images, places @ ..] = <[_; 4]>::try_from(places).ok()?;
        // Images stay what they are, and channels beside each other.
        let whole = images.iter().copied().eq((0..shape[0]).map(Some));
        let found: Vec<usize> =
            places[0].iter().copied().skip_while(Option::is_none).map_while(|c| c).collect();
        let together = found.windows(2).all(|pair| pair[1] == pair[0] + 1)
            && found.len() == places[0].iter().flatten().count();
        if !whole || !together || self.is_constant(x) {
            return None;
        }
        let kind = Kind::Pad(Box::new(Surround { places, value }));
        self.make(index, kind, vec![Input::Value(x)], node.outputs[0]);
        Some(())
    }

    /// What a convolution of `x` reads if zeros around it were added by an operation for it alone, and how many above and
    /// to the left.
    fn within_zeros(&self, x: ValueId) -> Option<(ValueId, [usize; 2])> {
        let Some(Proto { kind: Kind::Pad(pad), inputs, .. }) = self.single(x) else { return None };
        let inner = inputs[0].value()?;
        let &[_, channels, height, width] = &self.shape(inner)?[..] else { return None };
        Some((inner, pad.zeros([channels, height, width])?))
    }

    /// A transposed convolution in one group or of single channels.
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
        let groups = conv.convolution.groups;
        let depthwise = groups > 1 && groups == channels && outputs == 1;
        if !self.is_constant(weight) || kernel.contains(&0) || shape.contains(&0) || groups > 1 && !depthwise
        {
            return None;
        }
        let outputs = if depthwise { channels } else { outputs };
        let bias = match self.operand(node, 2) {
            Some(bias) => self.numbers(bias, outputs)?,
            None => Vec::new(),
        };
        let apart = !depthwise
            && spatial.strides == [rows, columns]
            && spatial.pad_begin == [0, 0]
            && spatial.input == [height * rows, width * columns];
        let kind = if apart {
            let geometry = Geometry {
                batch,
                input: [height, width],
                output: [height, width],
                kernel: [1, 1],
                stride: [1, 1],
                dilation: [1, 1],
                padding: [0, 0],
            };
            let tail = Tail { bias: bias.repeat(rows * columns), ..Tail::default() };
            let outputs = outputs * rows * columns;
            let convolve = Convolve { weight, geometry, channels, outputs, groups: 1, tail, coded: None };
            Kind::Transposed { convolve: Box::new(convolve), block: [rows, columns] }
        } else {
            let phases = phases(batch, &spatial, [height, width])?;
            let stride = two(&spatial.strides, 1)?;
            let task = Overlapping { weight, channels, outputs, depthwise, stride, bias, phases };
            Kind::Overlapping(Box::new(task))
        };
        let inputs = vec![Input::Value(x)];
        self.make(index, kind, inputs, node.outputs[0]);
        Some(())
    }

    pub(super) fn pool(&mut self, index: usize, node: &Node, pool: &Pool) -> Option<()> {
        let x = self.operand(node, 0)?;
        let shape = self.shape(x)?;
        let indices_read = node.outputs.get(1).is_some_and(|&id| id != ValueId::ABSENT && self.uses(id) > 0);
        // With sizes rounded up, the last windows reach beyond the padding, which that mean does not count.
        let counts_pads = matches!(pool.kind, PoolKind::Average { include_pad: true });
        if indices_read || pool.ceil && counts_pads {
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
        // Codes are in the order of what they stand for.
        let code = self.coded.get(&x).copied().filter(|_| pooling == Pooling::Max);
        if let Some(code) = code {
            self.coded.insert(node.outputs[0], code);
        }
        self.push(Proto { kind, inputs: vec![Input::Value(x)], output: node.outputs[0], node: index, code });
        Some(())
    }

    pub(super) fn global_pool(&mut self, index: usize, node: &Node, kind: PoolKind) -> Option<()> {
        match kind {
            PoolKind::Average { .. } => self.mean(index, node),
            PoolKind::Max => {
                let x = self.operand(node, 0)?;
                let shape = self.shape(x)?;
                if shape.len() < 3 || shape.contains(&0) || self.is_constant(x) {
                    return None;
                }
                let kind = Kind::Reduce { axes: (2..shape.len()).collect(), kind: ReduceKind::Max };
                self.make(index, kind, vec![Input::Value(x)], node.outputs[0]);
                Some(())
            }
            PoolKind::Lp { .. } => None,
        }
    }

    pub(super) fn reduce(&mut self, index: usize, node: &Node, reduce: &Reduce) -> Option<()> {
        let shape = self.shape(self.operand(node, 0)?)?;
        let named = match self.operand(node, 1) {
            Some(axes) => Some(self.integers(axes)?),
            None => None,
        };
        let axes = reduce.axes(named.as_deref(), shape.len()).ok()?;
        if reduce.kind == ReduceKind::Mean && shape.len() == 4 && axes == [2, 3] {
            return self.mean(index, node);
        }
        let other = matches!(reduce.kind, ReduceKind::LogSumExp | ReduceKind::Prod);
        let x = self.operand(node, 0)?;
        if other || axes.is_empty() || shape.contains(&0) || self.is_constant(x) {
            return None;
        }
        self.make(index, Kind::Reduce { axes, kind: reduce.kind }, vec![Input::Value(x)], node.outputs[0]);
        Some(())
    }

    fn mean(&mut self, index: usize, node: &Node) -> Option<()> {
        let x = self.operand(node, 0)?;
        if self.shape(x)?.len() != 4 {
            return None;
        }
        self.make(index, Kind::Mean, vec![Input::Value(x)], node.outputs[0]);
        Some(())
    }

    pub(super) fn grid_sample(&mut self, index: usize, node: &Node, sample: GridSample) -> Option<()> {
        let (x, grid) = (self.operand(node, 0)?, self.operand(node, 1)?);
        let (shape, places) = (self.shape(x)?, self.shape(grid)?);
        let (&[batch, _, _, _], &[grids, _, _, 2]) = (&shape[..], &places[..]) else { return None };
        if batch != grids || shape.contains(&0) || sample.mode == SampleMode::Cubic {
            return None;
        }
        let inputs = vec![Input::Value(x), Input::Value(grid)];
        self.make(index, Kind::GridSample(sample), inputs, node.outputs[0]);
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
        self.make(index, kind, vec![Input::Value(x)], node.outputs[0]);
        Some(())
    }
}
