//! Rewrites that every backend shares; each leaves the graph's results as they were.

use crate::graph::Graph;

/// All passes, once.
pub fn optimize(graph: &Graph) -> Graph {
    graph.clone()
}
