//! Computes what depends on constants only.

use crate::graph::{BinaryOp, Graph, Node, Op, ValueId, WeightId, WeightInfo};
use crate::reference::ops::{self, Tensor};
use kun_tensor::DType;
use std::collections::HashMap;

/// Results above this many elements stay computed: a small graph must not become a large one.
const MAX_ELEMENTS: usize = 1 << 20;

/// Replaces element-wise nodes over constants by their results, computed as the reference backend does.
pub fn constants(graph: &mut Graph) {
    let mut known: HashMap<ValueId, Tensor> = HashMap::new();
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let output = node.outputs[0];
        if let Op::Weight(weight) = node.op {
            let info = graph.weight(weight);
            if let Some(values) = &info.constant
                && values.len() <= MAX_ELEMENTS
            {
                known.insert(output, Tensor { shape: info.shape.clone(), data: values.to_vec() });
            }
            continue;
        }
        let Some(result) = evaluate(node, &known) else { continue };
        let id = WeightId(graph.weights.len() as u32);
        graph.weights.push(WeightInfo {
            name: node.name.clone(),
            dtype: DType::F32,
            shape: result.shape.clone(),
            constant: Some(result.data.as_slice().into()),
        });
        known.insert(output, result);
        let node = &mut graph.nodes[index];
        node.op = Op::Weight(id);
        node.inputs.clear();
    }
}

fn evaluate(node: &Node, known: &HashMap<ValueId, Tensor>) -> Option<Tensor> {
    let operands: Vec<&Tensor> = node.inputs.iter().map(|id| known.get(id)).collect::<Option<_>>()?;
    match (&node.op, operands.as_slice()) {
        (Op::Unary(op), [x]) => Some(ops::unary(*op, x)),
        (Op::Gated(op), [gate, up]) => Some(ops::binary(BinaryOp::Mul, &ops::unary(*op, gate), up)),
        (Op::Binary(op), [a, b]) => {
            let elements = a.data.len().checked_mul(b.data.len())?;
            let fits = elements <= MAX_ELEMENTS || a.shape == b.shape;
            fits.then(|| ops::binary(*op, a, b))
        }
        _ => None,
    }
}
