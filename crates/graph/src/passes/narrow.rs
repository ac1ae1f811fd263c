//! Computes rows that nobody asked for no longer: row-wise work before a selection of rows moves behind it.

use crate::graph::{Dim, Graph, Node, Op, ValueId, ValueInfo};
use std::collections::HashMap;

/// Who reads the rows of a value.
#[derive(Clone, Copy, PartialEq)]
enum Demand {
    /// Nobody yet.
    None,
    /// Only those who need the rows that this index names.
    Rows(ValueId),
    /// Somebody who needs all.
    All,
}

impl Demand {
    fn and(self, other: Demand) -> Demand {
        match (self, other) {
            (Demand::None, demand) | (demand, Demand::None) => demand,
            (a, b) if a == b => a,
            _ => Demand::All,
        }
    }
}

/// Moves row selections up to where rows stop being independent: after a prompt, the last layer's feed-forward and the
/// output head then run for the last token only.
pub fn selected_rows(graph: &mut Graph) {
    let mut demand = vec![Demand::None; graph.values.len()];
    graph.outputs.iter().for_each(|id| demand[id.0 as usize] = Demand::All);
    let mut narrowed: Vec<Option<ValueId>> = vec![None; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        let whole = node.outputs.iter().fold(Demand::None, |d, id| d.and(demand[id.0 as usize]));
        let aligned = aligned_operands(graph, node);
        for (operand, id) in node.inputs.iter().enumerate() {
            let wanted = match (&node.op, whole) {
                // A selection that is an output of the graph stays, to carry its name.
                (Op::SelectRows, _) if operand == 0 && !graph.outputs.contains(&node.outputs[0]) => {
                    Demand::Rows(node.inputs[1])
                }
                (_, Demand::Rows(rows)) if aligned.contains(&operand) => Demand::Rows(rows),
                _ => Demand::All,
            };
            demand[id.0 as usize] = demand[id.0 as usize].and(wanted);
        }
        if let (Demand::Rows(rows), false) = (whole, aligned.is_empty()) {
            narrowed[index] = Some(rows);
        }
    }
    if narrowed.iter().any(Option::is_some) {
        rebuild(graph, &narrowed);
    }
}

/// Operands whose row `t` alone decides row `t` of every result; empty if the node is not of that kind.
fn aligned_operands(graph: &Graph, node: &Node) -> Vec<usize> {
    let rows = |id: ValueId| match graph.value(id).shape.as_slice() {
        [rows @ Dim::Sym(_), _] => Some(*rows),
        _ => None,
    };
    let Some(own) = node.outputs.first().and_then(|&id| rows(id)) else { return Vec::new() };
    match node.op {
        Op::Linear { .. }
        | Op::RmsNorm { .. }
        | Op::LayerNorm { .. }
        | Op::AddRmsNorm { .. }
        | Op::Gated(_)
        | Op::Unary(_) => (0..node.inputs.len()).collect(),
        Op::Binary(_) => {
            // An operand without rows is broadcast over them; one with a single row is not told apart from it.
            let has_rows = |id: &ValueId| graph.value(*id).shape.len() == 2;
            let operands: Vec<usize> = (0..2).filter(|&i| has_rows(&node.inputs[i])).collect();
            let all = operands.iter().all(|&i| rows(node.inputs[i]) == Some(own));
            if all { operands } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

fn rebuild(graph: &mut Graph, narrowed: &[Option<ValueId>]) {
    let nodes = std::mem::take(&mut graph.nodes);
    let mut is_narrow = vec![false; graph.values.len()];
    // Selections made so far, and results of selections that became their operand itself.
    let mut selected: HashMap<(ValueId, ValueId), ValueId> = HashMap::new();
    let mut renamed: HashMap<ValueId, ValueId> = HashMap::new();
    for (mut node, rows) in nodes.into_iter().zip(narrowed) {
        node.inputs.iter_mut().for_each(|id| *id = renamed.get(id).copied().unwrap_or(*id));
        if node.op == Op::SelectRows && is_narrow[node.inputs[0].0 as usize] {
            renamed.insert(node.outputs[0], node.inputs[0]);
            continue;
        }
        if let Some(rows) = *rows {
            for operand in aligned_operands_of(graph, &node, &is_narrow) {
                let x = node.inputs[operand];
                node.inputs[operand] = *selected.entry((x, rows)).or_insert_with(|| {
                    let (output, select) = selection(graph, &node.name, x, rows);
                    graph.nodes.push(select);
                    output
                });
            }
            let length = graph.value(rows).shape[0];
            for id in &node.outputs {
                is_narrow[id.0 as usize] = true;
                graph.values[id.0 as usize].shape[0] = length;
            }
            is_narrow.resize(graph.values.len(), false);
        }
        graph.nodes.push(node);
    }
}

/// Row operands of a node to be narrowed that still have all rows.
fn aligned_operands_of(graph: &Graph, node: &Node, is_narrow: &[bool]) -> Vec<usize> {
    (0..node.inputs.len())
        .filter(|&i| {
            let id = node.inputs[i];
            graph.value(id).shape.len() == 2 && !is_narrow.get(id.0 as usize).copied().unwrap_or(false)
        })
        .collect()
}

fn selection(graph: &mut Graph, name: &str, x: ValueId, rows: ValueId) -> (ValueId, Node) {
    let output = ValueId(graph.values.len() as u32);
    let info = graph.value(x);
    let shape = vec![graph.value(rows).shape[0], info.shape[1]];
    let dtype = info.dtype;
    graph.values.push(ValueInfo::tensor(dtype, shape));
    let node = Node {
        name: format!("{name} rows"),
        op: Op::SelectRows,
        inputs: vec![x, rows],
        outputs: vec![output],
    };
    (output, node)
}
