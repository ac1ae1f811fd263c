//! From a graph for any shapes to one for given shapes: every shape is inferred, and everything that follows from shapes
//! and constants alone is computed once.

use crate::backend::{CompileError, WeightSource};
use crate::graph::{Dim, Graph, Node, Op, ValueId, ValueInfo, ValueKind, WeightId};
use crate::ops::{self, Fact, TensorOp};
use crate::plain::{self, Context, Datum};
use kun_tensor::{DType, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// Weights of at most this many elements are read at once: shapes, axes and scalars are among them.
const SMALL_ELEMENTS: usize = 1024;
/// What is computed here may be this large whatever its operands are.
const SMALL_BYTES: usize = 1 << 20;
/// And never larger than this.
const LARGEST_BYTES: usize = 256 << 20;

/// The graph for inputs of which `inputs` is known, in the order of [`Graph::inputs`].
///
/// Every tensor of the result that does not depend on data has constant dimensions; values that follow from shapes and
/// constants are [`TensorOp::Constant`] nodes; branches whose condition is known are part of the graph; operations that
/// change nothing are gone. The result keeps names and order of inputs and outputs.
///
/// # Errors
/// [`CompileError`] naming the node whose operands do not fit.
pub fn specialize(graph: &Graph, weights: &dyn WeightSource, inputs: &[Fact]) -> Result<Graph, CompileError> {
    let context = Context::new(weights, LARGEST_BYTES);
    let mut build =
        Specializer { context: &context, out: Graph::default(), facts: Vec::new(), made: Vec::new() };
    build.out.symbols.clone_from(&graph.symbols);
    let mut map = HashMap::new();
    for (&id, fact) in graph.inputs.iter().zip(inputs) {
        let new = build.value(graph.value(id), fact.clone());
        // Whatever is known of an input, the caller gives it: only its shape counts.
        build.made[new.0 as usize] = Made::Node;
        build.out.inputs.push(new);
        map.insert(id, new);
    }
    build.nodes(graph, &mut map)?;
    build.outputs(graph, &map)?;
    Ok(prune(build.out))
}

/// Where a value of the new graph comes from.
#[derive(Clone, Debug, PartialEq)]
enum Made {
    /// An input or a node that stands in the graph.
    Node,
    /// A constant without a node yet.
    Constant,
    /// A weight without a node yet.
    Weight(WeightId),
}

struct Specializer<'a> {
    context: &'a Context<'a>,
    out: Graph,
    facts: Vec<Fact>,
    made: Vec<Made>,
}

fn fail(node: &Node, what: String) -> CompileError {
    CompileError::Node { node: node.name.clone(), what }
}

impl Specializer<'_> {
    fn value(&mut self, old: &ValueInfo, fact: Fact) -> ValueId {
        let id = ValueId(u32::try_from(self.out.values.len()).expect("fewer than 2^32 values"));
        let mut info = ValueInfo { name: old.name.clone(), ..ValueInfo::any() };
        match (&fact, fact.shape(), fact.dtype()) {
            (_, Some(shape), Some(dtype)) => {
                info.kind = ValueKind::Tensor;
                info.dtype = dtype;
                info.shape = shape.iter().map(|&d| Dim::Const(d)).collect();
            }
            _ if old.kind == ValueKind::Container => info.kind = ValueKind::Container,
            _ => {}
        }
        self.out.values.push(info);
        self.made.push(if matches!(fact, Fact::Known(_)) { Made::Constant } else { Made::Node });
        self.facts.push(fact);
        id
    }

    fn fact(&self, id: ValueId) -> Fact {
        if id == ValueId::ABSENT { Fact::Absent } else { self.facts[id.0 as usize].clone() }
    }

    fn nodes(&mut self, graph: &Graph, map: &mut HashMap<ValueId, ValueId>) -> Result<(), CompileError> {
        let mut weights = HashMap::new();
        for node in &graph.nodes {
            match &node.op {
                Op::Weight(id) => {
                    let new = self.weight(graph, *id, node, &mut weights)?;
                    map.insert(node.outputs[0], new);
                }
                Op::Tensor(op) => self.node(graph, node, op, map)?,
                _ => return Err(CompileError::Unsupported { nodes: vec![node.name.clone()] }),
            }
        }
        Ok(())
    }

    fn weight(
        &mut self,
        graph: &Graph,
        id: WeightId,
        node: &Node,
        weights: &mut HashMap<WeightId, WeightId>,
    ) -> Result<ValueId, CompileError> {
        let info = graph.weight(id);
        let elements = ops::fact::count(&info.shape).map_err(|what| fail(node, what))?;
        let new = *weights.entry(id).or_insert_with(|| {
            self.out.weights.push(info.clone());
            WeightId(u32::try_from(self.out.weights.len() - 1).expect("fewer than 2^32 weights"))
        });
        let fact = if elements <= SMALL_ELEMENTS {
            Fact::Known(self.context.weight(info).map_err(|e| fail(node, e))?)
        } else {
            Fact::Shaped(info.dtype, info.shape.clone())
        };
        let value = self.value(graph.value(node.outputs[0]), fact);
        self.made[value.0 as usize] = Made::Weight(new);
        Ok(value)
    }

    fn node(
        &mut self,
        graph: &Graph,
        node: &Node,
        op: &TensorOp,
        map: &mut HashMap<ValueId, ValueId>,
    ) -> Result<(), CompileError> {
        let inputs: Vec<ValueId> =
            node.inputs.iter().map(|id| map.get(id).copied().unwrap_or(ValueId::ABSENT)).collect();
        let operands: Vec<Fact> = inputs.iter().map(|&id| self.fact(id)).collect();
        if let TensorOp::If { then, otherwise } = op
            && let Some(Fact::Known(condition)) = operands.first()
        {
            let chosen = plain::truth(condition).map_err(|what| fail(node, what))?;
            let body = if chosen { then } else { otherwise };
            let mut inner: HashMap<ValueId, ValueId> = HashMap::new();
            // Both branches have the same captures.
            for (&id, &given) in body.graph.inputs.iter().zip(&inputs[1..]) {
                inner.insert(id, given);
            }
            self.nodes(&body.graph, &mut inner)?;
            for (&id, old) in node.outputs.iter().zip(&body.graph.outputs) {
                map.insert(id, inner[old]);
            }
            return Ok(());
        }
        let facts = ops::infer(op, &operands, node.outputs.len()).map_err(|what| fail(node, what))?;
        if let Some(results) = self.fold(node, op, &inputs, &operands, &facts)? {
            for (&id, tensor) in node.outputs.iter().zip(results) {
                let new = self.value(graph.value(id), Fact::Known(tensor));
                map.insert(id, new);
            }
            return Ok(());
        }
        if changes_nothing(op, &operands, &facts) {
            map.insert(node.outputs[0], inputs[0]);
            // A mask that nobody reads goes as well; one that is read needs its node.
            if node.outputs.len() == 1 {
                return Ok(());
            }
        }
        for &id in &inputs {
            self.materialize(id);
        }
        let outputs: Vec<ValueId> = node
            .outputs
            .iter()
            .zip(facts)
            .map(|(&id, fact)| {
                let new = self.value(graph.value(id), fact);
                map.entry(id).or_insert(new);
                new
            })
            .collect();
        self.out.nodes.push(Node { name: node.name.clone(), op: node.op.clone(), inputs, outputs });
        Ok(())
    }

    /// The results, if they follow from constants and are not too large.
    fn fold(
        &self,
        node: &Node,
        op: &TensorOp,
        inputs: &[ValueId],
        operands: &[Fact],
        facts: &[Fact],
    ) -> Result<Option<Vec<Arc<Tensor>>>, CompileError> {
        if let Some(known) = facts.iter().map(|fact| fact.tensor().cloned()).collect::<Option<Vec<_>>>() {
            return Ok(Some(known));
        }
        if matches!(op, TensorOp::Random(_)) || plain::needs_interpreter(op) {
            return Ok(None);
        }
        let bytes = |fact: &Fact| match (fact.shape(), fact.dtype()) {
            (Some(shape), Some(dtype)) => {
                ops::fact::count(shape).ok().and_then(|n| n.checked_mul(dtype.block_bytes().max(8)))
            }
            _ => None,
        };
        let mut known: Vec<Option<Arc<Tensor>>> = Vec::with_capacity(inputs.len());
        let mut operand_bytes = 0usize;
        for (&id, fact) in inputs.iter().zip(operands) {
            let weight = match fact {
                Fact::Absent => None,
                Fact::Known(_) => bytes(fact),
                Fact::Shaped(..) if matches!(self.made[id.0 as usize], Made::Weight(_)) => bytes(fact),
                _ => return Ok(None),
            };
            operand_bytes = operand_bytes.saturating_add(weight.unwrap_or(0));
        }
        let result_bytes: Option<usize> =
            facts.iter().map(bytes).try_fold(0usize, |sum, b| b.map(|b| sum.saturating_add(b)));
        let small = operand_bytes <= SMALL_BYTES && result_bytes.is_none_or(|b| b <= SMALL_BYTES);
        // Packed and quantised weights stay so until they are used.
        let unpacks = matches!(op, TensorOp::DequantizeLinear(_) | TensorOp::MatMulNBits(_));
        let shrinks =
            result_bytes.is_some_and(|b| b <= operand_bytes.saturating_mul(2) && b <= LARGEST_BYTES);
        if !small && (unpacks || !shrinks) {
            return Ok(None);
        }
        if unpacks && operand_bytes > SMALL_ELEMENTS {
            return Ok(None);
        }
        for (&id, fact) in inputs.iter().zip(operands) {
            known.push(match (fact, id) {
                (Fact::Absent, _) => None,
                (Fact::Known(tensor), _) => Some(Arc::clone(tensor)),
                (_, id) => {
                    let Made::Weight(weight) = self.made[id.0 as usize] else { return Ok(None) };
                    Some(self.context.weight(self.out.weight(weight)).map_err(|what| fail(node, what))?)
                }
            });
        }
        let results =
            plain::run(op, &known, node.outputs.len(), self.context).map_err(|what| fail(node, what))?;
        Ok(Some(results.into_iter().map(Arc::new).collect()))
    }

    /// Puts the node of a constant or weight before whatever comes next.
    fn materialize(&mut self, id: ValueId) {
        if id == ValueId::ABSENT {
            return;
        }
        let made = std::mem::replace(&mut self.made[id.0 as usize], Made::Node);
        let op = match (made, &self.facts[id.0 as usize]) {
            (Made::Weight(weight), _) => Op::Weight(weight),
            (Made::Constant, Fact::Known(tensor)) => Op::Tensor(TensorOp::Constant(Arc::clone(tensor))),
            _ => return,
        };
        let name = self.out.value(id).name.clone().unwrap_or_else(|| "constant".to_owned());
        self.out.nodes.push(Node { name, op, inputs: Vec::new(), outputs: vec![id] });
    }

    /// Every output is a value of its own with the name that it has in `graph`.
    fn outputs(&mut self, graph: &Graph, map: &HashMap<ValueId, ValueId>) -> Result<(), CompileError> {
        for &old in &graph.outputs {
            let info = graph.value(old);
            let name = info.name.clone().unwrap_or_default();
            let Some(&new) = map.get(&old) else {
                return Err(CompileError::Node { node: name, what: "the output is not computed".into() });
            };
            self.materialize(new);
            let taken = self.out.inputs.contains(&new) || self.out.outputs.contains(&new);
            let id = if taken {
                let fact = self.facts[new.0 as usize].clone();
                let copy = self.value(info, fact);
                self.made[copy.0 as usize] = Made::Node;
                let op = Op::Tensor(TensorOp::Identity);
                self.out.nodes.push(Node { name, op, inputs: vec![new], outputs: vec![copy] });
                copy
            } else {
                new
            };
            self.out.values[id.0 as usize].name.clone_from(&info.name);
            self.out.outputs.push(id);
        }
        Ok(())
    }
}

/// Whether result 0 is operand 0.
fn changes_nothing(op: &TensorOp, operands: &[Fact], facts: &[Fact]) -> bool {
    let same_shape = || {
        let (before, after) = (operands.first().and_then(Fact::shape), facts.first().and_then(Fact::shape));
        before.is_some() && before == after
    };
    let same_type = |to: DType| operands.first().and_then(Fact::dtype) == Some(to);
    match op {
        TensorOp::Identity => true,
        TensorOp::Dropout => !matches!(operands.get(2), Some(fact) if !matches!(fact, Fact::Absent)
                && fact.tensor().is_none_or(|t| plain::truth(t) != Ok(false))),
        TensorOp::Cast(cast) => same_type(cast.to),
        TensorOp::CastLike(_) => operands.get(1).and_then(Fact::dtype).is_some_and(same_type),
        TensorOp::Reshape { .. } | TensorOp::Flatten { .. } | TensorOp::Squeeze | TensorOp::Unsqueeze => {
            same_shape()
        }
        TensorOp::Expand | TensorOp::Tile | TensorOp::Slice => {
            // A slice of the same shape may be reversed.
            same_shape()
                && !(matches!(op, TensorOp::Slice) && operands.get(4).is_some_and(|f| !f.is_absent()))
        }
        TensorOp::Pad(_) => {
            same_shape()
                && operands[1].tensor().is_some_and(|pads| {
                    pads.elements().to_i64().is_some_and(|pads| pads.iter().all(|&p| p == 0))
                })
        }
        TensorOp::Concat { .. } => operands.len() == 1,
        TensorOp::Transpose(axes) => !axes.is_empty() && axes.iter().copied().eq(0..axes.len()),
        _ => false,
    }
}

/// Drops nodes whose results nobody reads.
fn prune(mut graph: Graph) -> Graph {
    let mut read = vec![false; graph.values.len()];
    graph.outputs.iter().for_each(|id| read[id.0 as usize] = true);
    let mut kept = vec![false; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|id| read[id.0 as usize]) {
            kept[index] = true;
            for id in node.inputs.iter().filter(|&&id| id != ValueId::ABSENT) {
                read[id.0 as usize] = true;
            }
        }
    }
    let mut kept = kept.into_iter();
    graph.nodes.retain(|_| kept.next().unwrap_or(false));
    graph
}

/// What is known of a datum.
pub(crate) fn fact_of(datum: &Datum) -> Fact {
    match datum {
        Datum::Tensor(tensor) => Fact::Shaped(tensor.dtype(), tensor.shape().to_vec()),
        Datum::Sequence(_) | Datum::Nothing => Fact::Unknown,
    }
}
