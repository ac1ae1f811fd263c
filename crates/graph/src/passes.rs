//! Rewrites that every backend shares; each leaves the graph's results as they were.

pub mod fold;
pub mod fuse;
pub mod narrow;
pub mod prune;

use crate::graph::{Graph, ValueId};

/// All passes, once.
pub fn optimize(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    fold::constants(&mut graph);
    prune::dead_nodes(&mut graph);
    fuse::gates(&mut graph);
    fuse::residuals(&mut graph);
    fuse::add_norms(&mut graph);
    fuse::shared_inputs(&mut graph);
    narrow::selected_rows(&mut graph);
    graph
}

/// Who makes and who reads each value.
struct Links {
    /// By value: the node that makes it.
    producer: Vec<Option<usize>>,
    /// By value: operands that read it; being an output of the graph counts as one.
    uses: Vec<usize>,
}

impl Links {
    fn new(graph: &Graph) -> Links {
        let mut links = Links { producer: vec![None; graph.values.len()], uses: vec![0; graph.values.len()] };
        for (index, node) in graph.nodes.iter().enumerate() {
            node.outputs.iter().for_each(|id| links.producer[id.0 as usize] = Some(index));
            node.inputs.iter().for_each(|id| links.uses[id.0 as usize] += 1);
        }
        graph.outputs.iter().for_each(|id| links.uses[id.0 as usize] += 1);
        links
    }

    fn producer(&self, id: ValueId) -> Option<usize> {
        self.producer[id.0 as usize]
    }

    /// The node that makes `id`, if it is read exactly once.
    fn sole(&self, id: ValueId) -> Option<usize> {
        self.producer(id).filter(|_| self.uses[id.0 as usize] == 1)
    }
}

#[cfg(test)]
mod tests;
