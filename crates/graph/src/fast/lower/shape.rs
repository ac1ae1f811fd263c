//! What only moves elements, or not even that.

use super::{Input, Kind, Lower, Move};
use crate::graph::{Node, ValueId};
use crate::ops::fact::axis as axis_of;
use crate::ops::layout::{permutation, slice_ranges};
use crate::ops::{Blocks, TensorOp};

impl Lower<'_> {
    pub(super) fn movement(&mut self, index: usize, node: &Node, op: &TensorOp) -> Option<()> {
        let (x, out) = (self.operand(node, 0)?, node.outputs[0]);
        let shape = self.shape(x)?;
        match op {
            TensorOp::Identity
            | TensorOp::Reshape { .. }
            | TensorOp::Flatten { .. }
            | TensorOp::Squeeze
            | TensorOp::Unsqueeze => self.view(index, x, out, Move::Reshape),
            TensorOp::Dropout if node.outputs.len() == 1 => self.view(index, x, out, Move::Reshape),
            TensorOp::Transpose(axes) => {
                self.view(index, x, out, Move::Transpose(permutation(axes, shape.len()).ok()?))
            }
            TensorOp::Expand => self.view(index, x, out, Move::Expand),
            TensorOp::Tile => self.tile(index, node, &shape),
            TensorOp::Slice => {
                let given = |i: usize| self.operand(node, i).map(|id| self.integers(id));
                let (starts, ends) = (given(1)??, given(2)??);
                let (axes, steps) = (given(3), given(4));
                let known = |list: Option<Option<Vec<i64>>>| match list {
                    Some(None) => None,
                    Some(Some(list)) => Some(Some(list)),
                    None => Some(None),
                };
                let (axes, steps) = (known(axes)?, known(steps)?);
                let ranges = slice_ranges(&shape, &starts, &ends, axes.as_deref(), steps.as_deref()).ok()?;
                let slices: Option<Vec<_>> = ranges
                    .iter()
                    .enumerate()
                    .map(|(i, range)| Some([i, range.start, usize::try_from(range.step).ok()?, range.length]))
                    .collect();
                self.view(index, x, out, Move::Slice(slices?))
            }
            TensorOp::Gather { axis } => {
                let at = axis_of(*axis, shape.len()).ok()?;
                let indices = self.integers(self.operand(node, 1)?)?;
                let [place] = indices[..] else { return None };
                let length = i64::try_from(shape[at]).ok()?;
                let place = usize::try_from(if place < 0 { place + length } else { place }).ok()?;
                (place < shape[at]).then_some(())?;
                // The result's shape drops the dimension, or keeps it at 1: either way the elements are those.
                self.view(index, x, out, Move::Slice(vec![[at, place, 1, 1]]))
            }
            TensorOp::Split { axis } => self.split(index, node, *axis),
            TensorOp::Concat { axis } => self.concat(index, node, *axis),
            TensorOp::DepthToSpace(blocks) => self.blocks(index, x, out, &shape, *blocks, true),
            TensorOp::SpaceToDepth(blocks) => self.blocks(index, x, out, &shape, *blocks, false),
            _ => None,
        }
    }

    /// Dimensions of 1 are stretched; another one is joined to itself.
    fn tile(&mut self, index: usize, node: &Node, shape: &[usize]) -> Option<()> {
        /// Copies that are worth a step each.
        const MOST: usize = 16;
        let (x, out) = (self.operand(node, 0)?, node.outputs[0]);
        let repeats = self.integers(self.operand(node, 1)?)?;
        let repeats: Vec<usize> =
            repeats.iter().map(|&n| usize::try_from(n)).collect::<Result<_, _>>().ok()?;
        if repeats.len() != shape.len() {
            return None;
        }
        let several: Vec<usize> = (0..shape.len()).filter(|&i| repeats[i] != 1).collect();
        if several.iter().all(|&i| shape[i] == 1) {
            return self.view(index, x, out, Move::Expand);
        }
        let [axis] = several[..] else { return None };
        if repeats[axis] > MOST || self.is_constant(x) {
            return None;
        }
        // One reader becomes several.
        self.uses[x.0 as usize] += repeats[axis] - 1;
        self.make(index, Kind::Concat { axis }, vec![Input::Value(x); repeats[axis]], out);
        Some(())
    }

    fn split(&mut self, index: usize, node: &Node, axis: i64) -> Option<()> {
        let x = self.operand(node, 0)?;
        let axis = axis_of(axis, self.shape(x)?.len()).ok()?;
        let lengths: Option<Vec<usize>> =
            node.outputs.iter().map(|&id| Some(self.shape(id)?[axis])).collect();
        let mut start = 0;
        let (lengths, outputs) = (lengths?, node.outputs.clone());
        // One reader becomes several.
        self.uses[x.0 as usize] += outputs.len() - 1;
        for (length, out) in lengths.into_iter().zip(outputs) {
            self.view(index, x, out, Move::Slice(vec![[axis, start, 1, length]]))?;
            start += length;
        }
        Some(())
    }

    fn concat(&mut self, index: usize, node: &Node, axis: i64) -> Option<()> {
        let out = node.outputs[0];
        let axis = axis_of(axis, self.shape(out)?.len()).ok()?;
        let mut inputs: Vec<ValueId> = Vec::new();
        for &id in &node.inputs {
            let shape = self.shape(id)?;
            if !shape.contains(&0) {
                inputs.push(id);
            }
        }
        self.join_splits(&mut inputs, axis);
        let inputs = inputs.into_iter().map(Input::Value).collect();
        self.make(index, Kind::Concat { axis }, inputs, out);
        Some(())
    }

    /// Neighbours that are all parts of one value, in order, are that value.
    fn join_splits(&mut self, inputs: &mut Vec<ValueId>, axis: usize) {
        let mut at = 0;
        while at < inputs.len() {
            let mut end = at;
            let mut covered = 0;
            let mut whole = None;
            while end < inputs.len() {
                let Some((of, start)) = self.part(inputs[end], axis) else { break };
                if whole.is_some_and(|known| known != of) || start != covered {
                    break;
                }
                whole = Some(of);
                covered += self.shape(inputs[end]).map_or(0, |shape| shape[axis]);
                end += 1;
            }
            if let Some(of) = whole
                && end > at + 1
                && self.shape(of).is_some_and(|shape| shape[axis] == covered)
            {
                for id in inputs.drain(at..end) {
                    self.uses[id.0 as usize] -= 1;
                }
                inputs.insert(at, of);
                self.uses[of.0 as usize] += 1;
            }
            at += 1;
        }
    }

    /// What a slice along `axis` alone is a part of, and where it starts.
    fn part(&self, id: ValueId, axis: usize) -> Option<(ValueId, usize)> {
        let proto = self.protos[*self.made.get(&id)?].as_ref()?;
        match &proto.kind {
            Kind::Move(Move::Slice(slices)) => match slices[..] {
                [[at, start, 1, _]] if at == axis => Some((proto.inputs[0].value()?, start)),
                _ => None,
            },
            _ => None,
        }
    }

    fn blocks(
        &mut self,
        index: usize,
        x: ValueId,
        out: ValueId,
        shape: &[usize],
        blocks: Blocks,
        to_space: bool,
    ) -> Option<()> {
        let (&[n, c, h, w], b) = (shape, blocks.size) else { return None };
        let (split, order) = match (to_space, blocks.columns_first) {
            // As `[N, C, H, b, W, b]` or `[N, .., H / b, W / b]`.
            (true, false) => (vec![n, b, b, c / (b * b), h, w], vec![0, 3, 4, 1, 5, 2]),
            (true, true) => (vec![n, c / (b * b), b, b, h, w], vec![0, 1, 4, 2, 5, 3]),
            (false, true) => (vec![n, c, h / b, b, w / b, b], vec![0, 1, 3, 5, 2, 4]),
            (false, false) => (vec![n, c, h / b, b, w / b, b], vec![0, 3, 5, 1, 2, 4]),
        };
        self.view(index, x, out, Move::Blocks { split, order })
    }
}
