//! Drops what nobody reads.

use crate::graph::{Graph, Op};

/// Removes nodes whose results are never read. Attention stays: it also writes the cache.
pub fn dead_nodes(graph: &mut Graph) {
    let mut read = vec![false; graph.values.len()];
    graph.outputs.iter().for_each(|id| read[id.0 as usize] = true);
    let mut kept = vec![false; graph.nodes.len()];
    for (node, kept) in graph.nodes.iter().zip(&mut kept).rev() {
        *kept = matches!(node.op, Op::Attention(_)) || node.outputs.iter().any(|id| read[id.0 as usize]);
        if *kept {
            node.inputs.iter().for_each(|id| read[id.0 as usize] = true);
        }
    }
    let mut kept = kept.into_iter();
    graph.nodes.retain(|_| kept.next() == Some(true));
}
