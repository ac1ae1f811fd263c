//! Random weights, small decoders and comparisons.

use crate::{
    AttentionSpec, Backend, Builder, CompileOptions, Dim, Graph, Inputs, KvOptions, KvType, Outputs, Program,
    RopeStyle, Sequence, Sym, TensorRef, Value, WeightError, WeightSource,
};
use kun_tensor::{DType, quant};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A small generator of even quality; the same seed gives the same numbers.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    /// About normal, variance 1.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
    }
    pub(crate) fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.normal() * scale).collect()
    }
}

/// Weights in memory.
#[derive(Default)]
pub(crate) struct Source {
    tensors: HashMap<String, (DType, Vec<usize>, Vec<u8>)>,
    pub(crate) released: AtomicUsize,
}

impl Source {
    pub(crate) fn insert(&mut self, name: &str, dtype: DType, shape: &[usize], values: &[f32]) {
        let mut bytes = vec![0; dtype.bytes_for(values.len()).unwrap()];
        quant::encode(dtype, values, &mut bytes).unwrap();
        self.tensors.insert(name.into(), (dtype, shape.to_vec(), bytes));
    }
    pub(crate) fn remove(&mut self, name: &str) {
        self.tensors.remove(name);
    }
    /// Random values for every weight of `graph` that is not there yet.
    pub(crate) fn fill(&mut self, graph: &Graph, random: &mut Random) {
        for info in graph.weights.iter().filter(|w| w.constant.is_none()) {
            let n: usize = info.shape.iter().product();
            let values = if info.shape.len() == 1 {
                (0..n).map(|_| 1.0 + 0.2 * random.normal()).collect()
            } else {
                random.floats(n, 1.0 / (info.shape[1] as f32).sqrt())
            };
            self.insert(&info.name, info.dtype, &info.shape, &values);
        }
    }
}

impl WeightSource for Source {
    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        self.tensors.get(name).map(|(dtype, shape, _)| (*dtype, shape.clone()))
    }
    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError> {
        let (_, shape, bytes) =
            self.tensors.get(name).ok_or_else(|| WeightError::Missing { name: name.into() })?;
        let row = bytes.len() / if shape.len() < 2 { 1 } else { shape[0] };
        Ok(Cow::Borrowed(&bytes[rows.start * row..rows.end * row]))
    }
    fn release(&self, _: &str) {
        self.released.fetch_add(1, Ordering::Relaxed);
    }
}

/// A decoder of two layers, small but with every kind of node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder {
    pub(crate) dtype: DType,
    pub(crate) tied: bool,
    pub(crate) qk_norm: bool,
    pub(crate) biases: bool,
    pub(crate) window: Option<usize>,
    pub(crate) style: RopeStyle,
}

pub(crate) const WIDTH: usize = 64;
pub(crate) const VOCAB: usize = 83;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
/// More panels than a gated step takes at once, and not a multiple.
pub(crate) const FEED_FORWARD: usize = 608;

impl Decoder {
    pub(crate) fn plain(dtype: DType) -> Decoder {
        Decoder { dtype, tied: true, qk_norm: false, biases: false, window: None, style: RopeStyle::Halves }
    }

    pub(crate) fn graph(&self) -> Graph {
        let g = Builder::new();
        let t = Dim::Sym(Sym::Tokens);
        let ids = g.input("ids", DType::I32, &[t]);
        let positions = g.input("positions", DType::I32, &[t]);
        let rows = g.input("rows", DType::I32, &[Dim::Sym(Sym::Rows)]);
        let table = g.weight("embedding", self.dtype, &[VOCAB, WIDTH]);
        let mut x = g.embedding(table, ids);
        for layer in 0..2 {
            x = g.scope(&format!("layer {layer}"), |g| self.layer(g, layer, x, positions));
        }
        let x = g.select_rows(x, rows);
        let x = g.rms_norm(x, g.weight("norm", DType::F32, &[WIDTH]), 1e-5);
        let head = if self.tied { table } else { g.weight("head", self.dtype, &[VOCAB, WIDTH]) };
        g.output("logits", g.linear(x, head, None));
        g.finish().unwrap()
    }

    fn layer(&self, g: &Builder, layer: usize, x: Value, positions: Value) -> Value {
        let name = |part: &str| format!("{layer}.{part}");
        let linear = |x: Value, part: &str, n: usize, k: usize, bias: bool| {
            let bias =
                (bias && self.biases).then(|| g.weight(&name(&format!("{part}.bias")), DType::F32, &[n]));
            g.linear(x, g.weight(&name(part), self.dtype, &[n, k]), bias)
        };
        let norm =
            |x: Value, part: &str, n: usize| g.rms_norm(x, g.weight(&name(part), DType::F32, &[n]), 1e-5);
        let frequencies: Vec<f32> =
            (0..HEAD_DIM / 2).map(|i| 10000f32.powf(-2.0 * i as f32 / HEAD_DIM as f32)).collect();
        let frequencies = g.constant("frequencies", &[HEAD_DIM / 2], &frequencies);
        let rope = |x: Value| g.rope(x, positions, HEAD_DIM, self.style, frequencies, 1.0);

        let h = norm(x, "attention_norm", WIDTH);
        let mut q = linear(h, "q", HEADS * HEAD_DIM, WIDTH, true);
        let mut k = linear(h, "k", KV_HEADS * HEAD_DIM, WIDTH, true);
        let v = linear(h, "v", KV_HEADS * HEAD_DIM, WIDTH, true);
        if self.qk_norm {
            q = norm(q, "q_norm", HEAD_DIM);
            k = norm(k, "k_norm", HEAD_DIM);
        }
        let spec = AttentionSpec {
            layer,
            heads: HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            scale: 1.0 / (HEAD_DIM as f32).sqrt(),
            window_tokens: self.window,
            bias: None,
        };
        let attended = g.attention(rope(q), rope(k), v, spec);
        let x = g.add(x, linear(attended, "o", WIDTH, HEADS * HEAD_DIM, false));
        let h = norm(x, "mlp_norm", WIDTH);
        let gate = linear(h, "gate", FEED_FORWARD, WIDTH, false);
        let up = linear(h, "up", FEED_FORWARD, WIDTH, false);
        g.add(x, linear(g.mul(g.silu(gate), up), "down", WIDTH, FEED_FORWARD, false))
    }
}

pub(crate) fn options(threads: usize) -> CompileOptions {
    CompileOptions {
        max_tokens: 160,
        max_rows: 160,
        max_sequences: 8,
        threads,
        kv: KvOptions { dtype: KvType::F16, pages: 24 },
    }
}

/// One sequence's part of a step.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) start: usize,
    pub(crate) ids: Vec<i32>,
    pub(crate) pages: Vec<u32>,
}

/// Logits of every token of a step, `[T][V]`.
pub(crate) fn step<P: Program>(program: &mut P, parts: &[Part]) -> Vec<Vec<f32>> {
    let ids: Vec<i32> = parts.iter().flat_map(|p| p.ids.clone()).collect();
    let positions: Vec<i32> =
        parts.iter().flat_map(|p| (p.start..p.start + p.ids.len()).map(|i| i as i32)).collect();
    let rows: Vec<i32> = (0..ids.len() as i32).collect();
    let shape = [ids.len()];
    let sequences: Vec<Sequence<'_>> =
        parts.iter().map(|p| Sequence { start: p.start, tokens: p.ids.len(), pages: &p.pages }).collect();
    let inputs = Inputs {
        tensors: vec![
            ("ids", TensorRef::I32(&ids, &shape)),
            ("positions", TensorRef::I32(&positions, &shape)),
            ("rows", TensorRef::I32(&rows, &shape)),
        ],
        sequences: &sequences,
    };
    let mut outputs = Outputs::default();
    program.run(&inputs, &mut outputs).unwrap();
    let logits = &outputs.tensors["logits"];
    assert_eq!(logits.shape, [ids.len(), VOCAB]);
    logits.data.chunks(VOCAB).map(<[f32]>::to_vec).collect()
}

pub(crate) fn compile<B: Backend>(backend: &B, graph: &Graph, source: &Source, threads: usize) -> B::Program {
    backend.compile(graph, source, &options(threads)).unwrap()
}

/// Root mean square of the difference, relative to that of `expected`.
pub(crate) fn relative_rms(actual: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    assert!(actual.iter().all(|x| x.is_finite()), "{actual:?}");
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = actual.iter().zip(expected).map(|(a, e)| square(a - e)).sum();
    let norm: f64 = expected.iter().map(|&e| square(e)).sum();
    (error / norm.max(1e-30)).sqrt()
}
