//! Joins nodes into the coarse forms that backends run well.

use super::Links;
use crate::graph::{BinaryOp, Graph, Node, Op, ValueId};
use std::collections::{HashMap, HashSet};

/// `mul(activation(gate), up)` becomes [`Op::Gated`].
pub fn gates(graph: &mut Graph) {
    let links = Links::new(graph);
    let mut dropped = HashSet::new();
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        if node.op != Op::Binary(BinaryOp::Mul) || !same_shape(graph, node) {
            continue;
        }
        let found = [(0, 1), (1, 0)].into_iter().find_map(|(gate, up)| {
            let producer = links.sole(node.inputs[gate])?;
            match graph.nodes[producer].op {
                Op::Unary(op) => Some((op, producer, node.inputs[up])),
                _ => None,
            }
        });
        if let Some((op, producer, up)) = found {
            let gate = graph.nodes[producer].inputs[0];
            let name = joined(&graph.nodes[producer], node);
            dropped.insert(producer);
            graph.nodes[index] =
                Node { name, op: Op::Gated(op), inputs: vec![gate, up], outputs: node.outputs.clone() };
        }
    }
    drop_nodes(graph, &dropped);
}

/// `add(residual, linear(x))` becomes a linear node that adds to its residual.
pub fn residuals(graph: &mut Graph) {
    let links = Links::new(graph);
    let mut dropped = HashSet::new();
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        if node.op != Op::Binary(BinaryOp::Add) || !same_shape(graph, node) {
            continue;
        }
        let plain = |operand: usize| {
            let producer = links.sole(node.inputs[operand])?;
            match &graph.nodes[producer].op {
                Op::Linear { weights, residual: false, .. } if weights.len() == 1 => {
                    Some((producer, operand))
                }
                _ => None,
            }
        };
        // Of two, the later one: the other is there by then.
        let Some((producer, operand)) = plain(0).max(plain(1)) else { continue };
        let linear = &graph.nodes[producer];
        let Op::Linear { weights, biases, .. } = &linear.op else { unreachable!("found above") };
        let fused = Node {
            name: linear.name.clone(),
            op: Op::Linear { weights: weights.clone(), biases: biases.clone(), residual: true },
            inputs: vec![linear.inputs[0], node.inputs[1 - operand]],
            outputs: node.outputs.clone(),
        };
        dropped.insert(producer);
        graph.nodes[index] = fused;
    }
    drop_nodes(graph, &dropped);
}

/// `rms_norm(add(x, delta))` becomes [`Op::AddRmsNorm`], which gives the sum as well.
pub fn add_norms(graph: &mut Graph) {
    let links = Links::new(graph);
    let mut dropped = HashSet::new();
    for index in 0..graph.nodes.len() {
        let norm = &graph.nodes[index];
        let Op::RmsNorm { weight, eps } = norm.op else { continue };
        let Some(producer) = links.producer(norm.inputs[0]) else { continue };
        let add = &graph.nodes[producer];
        let whole_rows =
            graph.value(norm.inputs[0]).shape.last().is_some_and(|&dim| {
                dim == crate::graph::Dim::Const(graph.weight(weight).shape.iter().product())
            });
        if add.op != Op::Binary(BinaryOp::Add) || !same_shape(graph, add) || !whole_rows {
            continue;
        }
        let name = joined(add, norm);
        let outputs = vec![add.outputs[0], norm.outputs[0]];
        let inputs = add.inputs.clone();
        // Where the sum was made, since others may read it before the norm.
        graph.nodes[producer] = Node { name, op: Op::AddRmsNorm { weight, eps }, inputs, outputs };
        dropped.insert(index);
    }
    drop_nodes(graph, &dropped);
}

/// Linear nodes that read the same value become one with several results (query, key and value; gate and up).
pub fn shared_inputs(graph: &mut Graph) {
    let mut first_of: HashMap<ValueId, usize> = HashMap::new();
    let mut dropped = HashSet::new();
    for index in 0..graph.nodes.len() {
        let Op::Linear { weights, biases, residual: false } = graph.nodes[index].op.clone() else { continue };
        let x = graph.nodes[index].inputs[0];
        let Some(&first) = first_of.get(&x) else {
            first_of.insert(x, index);
            continue;
        };
        let (before, after) = graph.nodes.split_at_mut(index);
        let (target, merged) = (&mut before[first], &after[0]);
        let Op::Linear { weights: all_weights, biases: all_biases, .. } = &mut target.op else {
            unreachable!("only linear nodes are noted");
        };
        all_weights.extend(weights);
        all_biases.extend(biases);
        target.outputs.extend(&merged.outputs);
        target.name = joined(target, merged);
        dropped.insert(index);
    }
    drop_nodes(graph, &dropped);
}

/// Whether both operands and the result have one shape: nothing is broadcast.
fn same_shape(graph: &Graph, node: &Node) -> bool {
    let shape = |id: ValueId| &graph.value(id).shape;
    shape(node.inputs[0]) == shape(node.inputs[1])
}

/// `layer 3 / linear q + linear k` from two names in one scope.
fn joined(a: &Node, b: &Node) -> String {
    let scope = b.name.rfind(" / ").map_or(0, |at| at + 3);
    if a.name.starts_with(&b.name[..scope]) {
        format!("{} + {}", a.name, &b.name[scope..])
    } else {
        format!("{} + {}", a.name, b.name)
    }
}

fn drop_nodes(graph: &mut Graph, dropped: &HashSet<usize>) {
    let mut index = 0..;
    graph.nodes.retain(|_| index.next().is_some_and(|index| !dropped.contains(&index)));
}
