//! Graphs whose first dimension is a batch of items that know nothing of each other: they can be run one by one.

use crate::backend::WeightSource;
use crate::graph::{Dim, Graph, Node, Op, ValueId, ValueKind, WeightInfo};
use crate::ops::TensorOp;
use crate::plain::{Context, Datum};
use kun_tensor::{DType, Elements, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// What is known of the values of a specialised graph.
struct Batch<'a> {
    graph: &'a Graph,
    items: usize,
    constants: HashMap<ValueId, Arc<Tensor>>,
    /// By value: the dimension that is the batch, if there is one: each item of it follows from that item of the inputs alone,
    /// in the same way for all.
    axes: Vec<Option<usize>>,
}

/// Whether `graph`, which was specialised for inputs of `items` items, gives the same results item by item.
///
/// Operations that are not known to leave items alone count as those that do not.
pub(crate) fn is_separable(graph: &Graph, weights: &dyn WeightSource, items: usize) -> bool {
    // Axes and such are among the small ones.
    const SMALL: usize = 1024;
    let context = Context::new(weights, usize::MAX);
    let small = |info: &WeightInfo| info.shape.iter().product::<usize>() <= SMALL;
    let constants = graph.nodes.iter().filter_map(|node| match &node.op {
        Op::Tensor(TensorOp::Constant(tensor)) => Some((node.outputs[0], Arc::clone(tensor))),
        Op::Weight(id) if small(graph.weight(*id)) => {
            Some((node.outputs[0], context.weight(graph.weight(*id)).ok()?))
        }
        _ => None,
    });
    let axes = vec![None; graph.values.len()];
    let mut batch = Batch { graph, items, constants: constants.collect(), axes };
    for &id in &graph.inputs {
        if !batch.has_items(id, 0) {
            return false;
        }
        batch.axes[id.0 as usize] = Some(0);
    }
    for node in &graph.nodes {
        let Some(axis) = batch.follow(node) else { return false };
        for &id in node.outputs.iter().filter(|id| **id != ValueId::ABSENT) {
            if axis.is_some_and(|axis| !batch.has_items(id, axis)) {
                return false;
            }
            batch.axes[id.0 as usize] = axis;
        }
    }
    !graph.outputs.is_empty() && graph.outputs.iter().all(|id| batch.axes[id.0 as usize] == Some(0))
}

/// Whether items are better run one by one, if `graph` is that of one: its values are too many for a batch of them to stay in
/// the cache, and more bytes than the weights, which are then read for every item.
pub(crate) fn is_worth_it(graph: &Graph) -> bool {
    const MANY: usize = 256 << 10;
    let (mut weights, mut values) = (0usize, 0);
    for node in &graph.nodes {
        match &node.op {
            Op::Weight(id) => {
                let info = graph.weight(*id);
                weights += info.shape.iter().product::<usize>() * info.dtype.block_bytes();
            }
            Op::Tensor(TensorOp::Constant(_) | TensorOp::DequantizeLinear(_)) => {}
            _ => {
                for id in node.outputs.iter().filter(|id| **id != ValueId::ABSENT) {
                    let elements = shape(graph, *id).map_or(0, |shape| shape.iter().product());
                    values += elements * graph.value(*id).dtype.block_bytes();
                }
            }
        }
    }
    values >= weights.max(MANY)
}

/// The shape of a tensor, if it is known.
pub(crate) fn shape(graph: &Graph, id: ValueId) -> Option<Vec<usize>> {
    let info = graph.value(id);
    let known = |dim: &Dim| if let Dim::Const(n) = dim { Some(*n) } else { None };
    (info.kind == ValueKind::Tensor).then(|| info.shape.iter().map(known).collect())?
}

impl Batch<'_> {
    fn shape(&self, id: ValueId) -> Option<Vec<usize>> {
        shape(self.graph, id)
    }

    fn has_items(&self, id: ValueId, axis: usize) -> bool {
        self.shape(id).is_some_and(|shape| shape.get(axis) == Some(&self.items))
    }

    /// The dimension of an operand that is the batch.
    fn axis(&self, id: ValueId) -> Option<usize> {
        if id == ValueId::ABSENT { None } else { self.axes[id.0 as usize] }
    }

    /// Whether no operand from `first` on has items.
    fn shared_from(&self, node: &Node, first: usize) -> bool {
        node.inputs.iter().skip(first).all(|&id| self.axis(id).is_none())
    }

    /// Whole numbers of a constant operand; none if it is left out.
    fn integers(&self, node: &Node, at: usize) -> Option<Option<Vec<i64>>> {
        match node.inputs.get(at) {
            None | Some(&ValueId::ABSENT) => Some(None),
            Some(id) => self.constants.get(id)?.elements().to_i64().map(Some),
        }
    }

    /// An axis of a tensor of `rank` dimensions, counted from the first.
    fn counted(axis: i64, rank: usize) -> Option<usize> {
        let rank = i64::try_from(rank).ok()?;
        usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()
    }

    /// The batch of a result of `rank` dimensions to which operands are spread, if those that have items agree.
    fn agreed(&self, operands: &[ValueId], rank: usize) -> Option<usize> {
        let mut found = None;
        for &id in operands {
            let Some(axis) = self.axis(id) else { continue };
            let axis = axis + rank.checked_sub(self.shape(id)?.len())?;
            if *found.get_or_insert(axis) != axis {
                return None;
            }
        }
        found
    }

    /// The same, if the others are the same for all items.
    fn spread(&self, operands: &[ValueId], rank: usize) -> Option<usize> {
        let axis = self.agreed(operands, rank)?;
        let shared = |id: &ValueId| self.axis(*id).is_some() || self.is_shared(*id, axis, rank);
        operands.iter().all(shared).then_some(axis)
    }

    /// Whether an operand without items is the same for every item along dimension `axis` of a result of `rank` dimensions.
    fn is_shared(&self, id: ValueId, axis: usize, rank: usize) -> bool {
        let Some(shape) = (if id == ValueId::ABSENT { Some(Vec::new()) } else { self.shape(id) }) else {
            return false;
        };
        match (axis + shape.len()).checked_sub(rank) {
            None => true,
            Some(own) => shape[own] == 1 || own == 0 && self.is_uniform(id),
        }
    }

    /// Whether all items of a constant are equal.
    fn is_uniform(&self, id: ValueId) -> bool {
        let Some(Elements::F32(numbers)) = self.constants.get(&id).map(|tensor| tensor.elements()) else {
            return false;
        };
        let each = numbers.len() / self.items;
        let mut items = numbers.chunks_exact(each.max(1));
        let first = items.next();
        self.has_items(id, 0) && each > 0 && items.all(|item| Some(item) == first)
    }

    /// The dimension of a node's results that is the batch, if there is one; none at all if items may take part in each
    /// other's results.
    fn follow(&self, node: &Node) -> Option<Option<usize>> {
        let Op::Tensor(op) = &node.op else {
            return matches!(node.op, Op::Weight(_)).then_some(None);
        };
        if let TensorOp::Random(_) = op {
            return None;
        }
        if self.shared_from(node, 0) {
            // Made as often as there are items, as a token that begins every one of them.
            let made = matches!(op, TensorOp::Expand) && {
                let rank = self.shape(node.outputs[0])?.len();
                self.has_items(node.outputs[0], 0) && self.is_shared(node.inputs[0], 0, rank)
            };
            return Some(made.then_some(0));
        }
        let rank = self.shape(node.outputs[0])?.len();
        let x = node.inputs[0];
        let batch = self.axis(x);
        let own = self.shape(x)?.len();
        // Whether an axis of the first operand is another one than the batch.
        let beside = |axis: i64| Self::counted(axis, own).is_some_and(|axis| Some(axis) != batch);
        let alone = self.shared_from(node, 1);
        let axis = match op {
            TensorOp::Identity
            | TensorOp::Unary(_)
            | TensorOp::Binary(_)
            | TensorOp::Variadic(_)
            | TensorOp::Clip
            | TensorOp::Where
            | TensorOp::Cast(_) => self.spread(&node.inputs, rank)?,
            TensorOp::MatMul => {
                let rows = rank.checked_sub(2)?;
                let matrices = own > 1 && self.shape(node.inputs[1])?.len() > 1;
                // The rows of a matrix may be items, and nothing else of a matrix.
                let axis = match self.agreed(&node.inputs, rank)? {
                    axis if axis == rows && alone => axis,
                    axis if axis < rows => self.spread(&node.inputs, rank)?,
                    _ => return None,
                };
                matrices.then_some(axis)?
            }
            TensorOp::Gemm(gemm) => {
                let added = node.inputs.get(2).copied().unwrap_or(ValueId::ABSENT);
                (!gemm.transpose_a && alone && batch == Some(0) && self.is_shared(added, 0, 2))
                    .then_some(0)?
            }
            TensorOp::Conv(_)
            | TensorOp::ConvTranspose(_)
            | TensorOp::GlobalPool(_)
            | TensorOp::InstanceNorm { .. }
            | TensorOp::GroupNorm { .. }
            | TensorOp::LocalNorm(_)
            | TensorOp::DepthToSpace(_)
            | TensorOp::SpaceToDepth(_) => (alone && own > 2 && batch == Some(0)).then_some(0)?,
            // Indices are counted over all items.
            TensorOp::Pool(_) => {
                let single = node.outputs[1..].iter().all(|&id| id == ValueId::ABSENT);
                (single && batch == Some(0)).then_some(0)?
            }
            TensorOp::BatchNorm(norm) => (!norm.training && alone && batch == Some(0)).then_some(0)?,
            TensorOp::Softmax { axis } | TensorOp::LogSoftmax { axis } => batch.filter(|_| beside(*axis))?,
            TensorOp::SoftmaxFlat { axis, .. } => {
                let from = Self::counted(*axis, own)?;
                batch.filter(|&batch| batch < from)?
            }
            TensorOp::LayerNorm(norm) | TensorOp::RmsNorm(norm) => {
                let from = Self::counted(norm.axis, own)?;
                let shared = node.inputs[1..].iter().all(|&id| {
                    self.axis(id).is_none() && batch.is_some_and(|batch| self.is_shared(id, batch, rank))
                });
                batch.filter(|&batch| batch < from && shared)?
            }
            TensorOp::Reduce(reduce) => {
                let axes = reduce.axes(self.integers(node, 1)?.as_deref(), own).ok()?;
                let batch = batch.filter(|batch| !axes.contains(batch))?;
                batch - if reduce.keep_dims { 0 } else { axes.iter().filter(|&&axis| axis < batch).count() }
            }
            // Items lie one after the other, before and after.
            TensorOp::Reshape { .. } | TensorOp::Flatten { .. } => {
                (alone && batch == Some(0)).then_some(0)?
            }
            TensorOp::Squeeze => {
                let axes = self.integers(node, 1)??;
                let axes: Vec<usize> =
                    axes.iter().map(|&axis| Self::counted(axis, own)).collect::<Option<_>>()?;
                let batch = batch.filter(|batch| !axes.contains(batch))?;
                batch - axes.iter().filter(|&&axis| axis < batch).count()
            }
            TensorOp::Unsqueeze => {
                let axes = self.integers(node, 1)??;
                let axes: Vec<usize> =
                    axes.iter().map(|&axis| Self::counted(axis, rank)).collect::<Option<_>>()?;
                (0..rank).filter(|axis| !axes.contains(axis)).nth(batch?)?
            }
            TensorOp::Transpose(order) => order.iter().position(|&axis| Some(axis) == batch)?,
            TensorOp::Concat { axis } => {
                let axes = node.inputs.iter().map(|&id| self.axis(id).or(self.is_uniform(id).then_some(0)));
                let axes: Vec<usize> = axes.collect::<Option<_>>()?;
                let along = Self::counted(*axis, own)?;
                axes.iter().all(|&axis| axis == axes[0] && axis != along).then_some(axes[0])?
            }
            TensorOp::Split { axis } => batch.filter(|_| alone && beside(*axis))?,
            TensorOp::Slice => {
                let axes = self.integers(node, 3)??;
                batch.filter(|_| alone && axes.iter().all(|&axis| beside(axis)))?
            }
            TensorOp::Pad(_) => {
                let (pads, axes) = (self.integers(node, 1)??, self.integers(node, 3)?);
                let is_batch = |axis: &i64| Self::counted(*axis, own) == batch;
                let at = match &axes {
                    Some(axes) => axes.iter().position(is_batch),
                    None => batch,
                };
                let none = |at: usize| [at, at + pads.len() / 2].iter().all(|&i| pads.get(i) == Some(&0));
                batch.filter(|_| alone && at.is_none_or(none))?
            }
            TensorOp::Expand => batch.filter(|_| alone && own == rank)?,
            TensorOp::Gather { axis } => {
                let (along, indices) = (Self::counted(*axis, own)?, self.shape(node.inputs[1])?.len());
                match batch {
                    Some(batch) if alone && along > batch => batch,
                    Some(batch) if alone && along < batch => batch - 1 + indices,
                    None if along == 0 => self.axis(node.inputs[1])?,
                    _ => return None,
                }
            }
            TensorOp::QuantizeLinear(quantize) | TensorOp::DequantizeLinear(quantize) => {
                let single = self.shape(node.inputs[1])?.iter().product::<usize>() == 1;
                batch.filter(|_| alone && (single || beside(quantize.axis)))?
            }
            TensorOp::Resize(_) => {
                let no_region = self.integers(node, 1).is_some_and(|region| region.is_none());
                (no_region && alone && batch == Some(0)).then_some(0)?
            }
            _ => return None,
        };
        Some(Some(axis))
    }
}

/// Whether [`split`] and [`join`] take tensors of this type.
pub(crate) fn takes(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::U8 | DType::I8 | DType::I32 | DType::I64 | DType::Bool)
}

/// The items of a tensor, each as a batch of one.
pub(crate) fn split(tensor: &Tensor, items: usize) -> Option<Vec<Datum>> {
    macro_rules! parts {
        ($($variant:ident),*) => {
            match tensor.elements() {
                $(Elements::$variant(all) => {
                    let shape: Vec<usize> = std::iter::once(1).chain(tensor.shape()[1..].iter().copied()).collect();
                    let each = all.len() / items;
                    let part = |i: usize| Elements::$variant(all[i * each..(i + 1) * each].to_vec());
                    let part = |i: usize| Tensor::new(shape.clone(), part(i)).ok().map(Datum::from);
                    (0..items).map(part).collect()
                })*
                _ => None,
            }
        };
    }
    parts!(F32, U8, I8, I32, I64, Bool)
}

/// Batches of one as one tensor.
pub(crate) fn join(parts: &[Arc<Tensor>]) -> Option<Datum> {
    let first = parts.first()?;
    let shape: Vec<usize> =
        std::iter::once(parts.len()).chain(first.shape().get(1..)?.iter().copied()).collect();
    macro_rules! joined {
        ($($variant:ident),*) => {
            match first.elements() {
                $(Elements::$variant(own) => {
                    let mut all = Vec::with_capacity(own.len() * parts.len());
                    for part in parts {
                        let Elements::$variant(part) = part.elements() else { return None };
                        all.extend_from_slice(part);
                    }
                    Elements::$variant(all)
                })*
                _ => return None,
            }
        };
    }
    let elements = joined!(F32, U8, I8, I32, I64, Bool);
    Tensor::new(shape, elements).ok().map(Datum::from)
}
