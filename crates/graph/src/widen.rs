//! Graphs in half precision, computed in f32: there are no fast forms of f16 and bf16, and the results are the nearer ones.
//!
//! A value of such a type becomes f32. Where its own type counts (inputs and outputs of the graph, tables that are looked up,
//! operations that say which type they make) it has a twin of that type, and a cast stands between the two.

use crate::graph::{Graph, Node, Op, ValueId, ValueInfo, ValueKind};
use crate::ops::{Cast, Round, TensorOp};
use crate::plain;
use kun_tensor::DType;
use std::collections::HashMap;
use std::sync::Arc;

/// `graph`, which [`crate::specialize()`] made, with f32 in place of f16 and bf16 if it has weights of these types: single
/// operations are held to their definitions.
pub(crate) fn widen(graph: Graph) -> Graph {
    let is_weight = |node: &Node| matches!(node.op, Op::Weight(_)) && is_half(graph.value(node.outputs[0]));
    if !graph.nodes.iter().any(is_weight) {
        return graph;
    }
    let narrow: Vec<Option<DType>> =
        graph.values.iter().map(|info| is_half(info).then_some(info.dtype)).collect();
    let Graph { mut values, weights, nodes, inputs, outputs, symbols } = graph;
    for info in values.iter_mut().filter(|info| is_half(info)) {
        info.dtype = DType::F32;
    }
    let out = Graph { values, weights, symbols, ..Graph::default() };
    let mut widening = Widening { narrow, twins: HashMap::new(), tables: HashMap::new(), out };
    for id in inputs {
        let id = match widening.dtype(id) {
            Some(dtype) => {
                let twin = widening.twin(id, dtype);
                widening.cast(twin, id, DType::F32);
                twin
            }
            None => id,
        };
        widening.out.inputs.push(id);
    }
    for node in nodes {
        widening.node(node);
    }
    for id in outputs {
        let id = widening.narrowed(id);
        widening.out.outputs.push(id);
    }
    widening.out
}

fn is_half(info: &ValueInfo) -> bool {
    info.kind == ValueKind::Tensor && matches!(info.dtype, DType::F16 | DType::BF16)
}

/// Whether an operation makes of f32 what it makes of f16, but for rounding.
fn follows_its_operands(op: &TensorOp) -> bool {
    let says_its_type = matches!(
        op,
        TensorOp::BitCast(_)
            | TensorOp::CastLike(_)
            | TensorOp::ConstantOfShape(_)
            | TensorOp::EyeLike { .. }
            | TensorOp::Random(_)
            | TensorOp::Window(_)
            | TensorOp::MelWeights(_)
            | TensorOp::QuantizeLinear(_)
            | TensorOp::DequantizeLinear(_)
            | TensorOp::QLinearConv(_)
            | TensorOp::QLinearMatMul
            | TensorOp::MatMulNBits(_)
    );
    !says_its_type && !plain::needs_interpreter(op)
}

struct Widening {
    /// By value: the type that it had, if it is f32 now.
    narrow: Vec<Option<DType>>,
    /// Values of their own types.
    twins: HashMap<ValueId, ValueId>,
    /// Weights of their own types.
    tables: HashMap<ValueId, ValueId>,
    out: Graph,
}

impl Widening {
    /// The type that a value had, if it is f32 now.
    fn dtype(&self, id: ValueId) -> Option<DType> {
        (id != ValueId::ABSENT).then(|| self.narrow.get(id.0 as usize).copied().flatten())?
    }

    /// A new value that is `id` in the type that it had.
    fn twin(&mut self, id: ValueId, dtype: DType) -> ValueId {
        let wide = &mut self.out.values[id.0 as usize];
        let info = ValueInfo { dtype, name: wide.name.take(), ..wide.clone() };
        self.out.values.push(info);
        let twin = ValueId(self.out.values.len() as u32 - 1);
        self.twins.insert(id, twin);
        twin
    }

    fn cast(&mut self, from: ValueId, to: ValueId, dtype: DType) {
        let op = Op::Tensor(TensorOp::Cast(Cast { to: dtype, saturate: true, round: Round::Up }));
        let name = format!("cast to {dtype}");
        self.out.nodes.push(Node { name, op, inputs: vec![from], outputs: vec![to] });
    }

    /// A value in the type that it had.
    fn narrowed(&mut self, id: ValueId) -> ValueId {
        let Some(dtype) = self.dtype(id) else { return id };
        if let Some(&twin) = self.twins.get(&id) {
            return twin;
        }
        let twin = self.twin(id, dtype);
        self.cast(id, twin, dtype);
        twin
    }

    /// A node that makes values in the types that they had.
    fn narrow_node(&mut self, mut node: Node) {
        let made = node.outputs.clone();
        for out in &mut node.outputs {
            if let Some(dtype) = self.dtype(*out) {
                *out = self.twin(*out, dtype);
            }
        }
        let outputs = node.outputs.clone();
        self.out.nodes.push(node);
        for (wide, twin) in made.into_iter().zip(outputs).filter(|(wide, twin)| wide != twin) {
            self.cast(twin, wide, DType::F32);
        }
    }

    fn node(&mut self, mut node: Node) {
        let touches = node.inputs.iter().chain(&node.outputs).any(|id| self.dtype(*id).is_some());
        if !touches {
            return self.out.nodes.push(node);
        }
        let Op::Tensor(op) = &mut node.op else {
            let weight = node.outputs[0];
            self.narrow_node(node);
            if let Some(&twin) = self.twins.get(&weight) {
                self.tables.insert(weight, twin);
            }
            return;
        };
        match op {
            TensorOp::Constant(tensor) => {
                match plain::widened(tensor) {
                    Ok(wide) => *tensor = Arc::new(wide),
                    // Of a type that no cast knows: as it was.
                    Err(_) => return self.narrow_node(node),
                }
                self.out.nodes.push(node);
            }
            TensorOp::Cast(cast) => {
                if matches!(cast.to, DType::F16 | DType::BF16) {
                    cast.to = DType::F32;
                }
                if cast.to == DType::F32 && self.out.value(node.inputs[0]).dtype == DType::F32 {
                    *op = TensorOp::Identity;
                }
                self.out.nodes.push(node);
            }
            // Some rows of a table, not all of it, become f32.
            TensorOp::Gather { .. } if self.tables.contains_key(&node.inputs[0]) => {
                node.inputs[0] = self.tables[&node.inputs[0]];
                self.narrow_node(node);
            }
            op if follows_its_operands(op) => self.out.nodes.push(node),
            _ => {
                for i in 0..node.inputs.len() {
                    node.inputs[i] = self.narrowed(node.inputs[i]);
                }
                self.narrow_node(node);
            }
        }
    }
}
