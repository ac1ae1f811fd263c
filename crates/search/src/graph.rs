//! Vectors in a graph, searched by the crate `instant-distance`.

use instant_distance::{Builder, HnswMap, Point, Search};
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Candidates kept while searching; more finds more and takes longer.
const CANDIDATES: usize = 128;
/// Any number: layers are drawn alike each time.
const SEED: u64 = 42;

/// A vector of length 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Vector(pub(crate) Vec<f32>);

impl Vector {
    /// Brings `values` to length 1; all zeros stay so.
    pub(crate) fn new(mut values: Vec<f32>) -> Vector {
        let length = dot(&values, &values).sqrt();
        if length > 0.0 && length.is_finite() {
            values.iter_mut().for_each(|x| *x /= length);
        }
        Vector(values)
    }

    pub(crate) fn cosine(&self, other: &Vector) -> f32 {
        dot(&self.0, &other.0)
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums become one vector register.
    let mut sums = [0.0f32; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in left.zip(right) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

impl Point for Vector {
    fn distance(&self, other: &Self) -> f32 {
        1.0 - self.cosine(other)
    }
}

/// A graph over vectors; each has a number, which is that of its passage.
#[derive(Serialize, Deserialize)]
pub(crate) struct Graph(HnswMap<Vector, u32>);

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph of {}", self.0.values.len())
    }
}

impl Graph {
    pub(crate) fn new(vectors: Vec<Vector>) -> Graph {
        let numbers = (0u32..).take(vectors.len()).collect();
        let builder = Builder::default().ef_search(CANDIDATES).ef_construction(CANDIDATES).seed(SEED);
        Graph(builder.build(vectors, numbers))
    }

    /// The nearest `count` numbers with their cosines, nearest first; `None` if the graph is inconsistent.
    pub(crate) fn search(&self, vector: &Vector, count: usize) -> Option<Vec<(u32, f32)>> {
        // The crate trusts the edges that a file brought.
        let found = catch_unwind(AssertUnwindSafe(|| {
            let mut search = Search::default();
            let found = self.0.search(vector, &mut search);
            found.take(count).map(|item| (*item.value, 1.0 - item.distance)).collect()
        }));
        found.ok()
    }

    /// The same by looking at every vector.
    pub(crate) fn search_all(&self, vector: &Vector, count: usize) -> Vec<(u32, f32)> {
        let numbers = self.0.values.iter().copied();
        let mut all: Vec<(u32, f32)> =
            self.vectors().zip(numbers).map(|(v, n)| (n, v.cosine(vector))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(count);
        all
    }

    /// In the order of [`Graph::numbers`].
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.0.iter().map(|(_, vector)| vector)
    }

    pub(crate) fn numbers(&self) -> &[u32] {
        &self.0.values
    }
}
