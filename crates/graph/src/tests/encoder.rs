//! Small encoders: the CPU program against the reference on ragged batches, and answers that do not depend on the batch.

use super::support::{Random, Source, compile, relative_rms};
use crate::graph::Pool;
use crate::{
    Backend, Builder, CpuBackend, Dim, DisentangledSpec, DistanceBias, Graph, Inputs, Outputs, Program,
    ReferenceBackend, RopeStyle, SelfAttentionSpec, Sequence, Sym, TensorRef, UnaryOp, Value,
};
use kun_kernels::Isa;
use kun_tensor::DType;

const WIDTH: usize = 48;
const HEADS: usize = 3;
const HEAD_DIM: usize = 16;
const VOCAB: usize = 50;

/// What differs between encoders.
#[derive(Clone, Copy, Debug)]
struct Encoder {
    dtype: DType,
    /// Norms before attention and feed-forward instead of after.
    norm_first: bool,
    kv_heads: usize,
    reach: Option<usize>,
    bias: u8,
    gated: bool,
    rope: bool,
    /// Attention over content and distance, with buckets or without.
    disentangled: Option<Option<usize>>,
}

const PLAIN: Encoder = Encoder {
    dtype: DType::F32,
    norm_first: false,
    kv_heads: HEADS,
    reach: None,
    bias: 0,
    gated: false,
    rope: false,
    disentangled: None,
};

impl Encoder {
    fn graph(&self) -> Graph {
        let g = Builder::new();
        let t = Dim::Sym(Sym::Tokens);
        let ids = g.input("ids", DType::I32, &[t]);
        let positions = g.input("positions", DType::I32, &[t]);
        let rows = g.input("rows", DType::I32, &[Dim::Sym(Sym::Rows)]);
        let words = g.embedding(g.weight("words", self.dtype, &[VOCAB, WIDTH]), ids);
        let places = g.embedding(g.weight("places", self.dtype, &[160, WIDTH]), positions);
        let mut x = norm(&g, g.add(words, places), "norm");
        for layer in 0..2 {
            x = g.scope(&format!("layer {layer}"), |g| self.layer(g, layer, x, positions));
        }
        g.output("first", g.select_rows(x, rows));
        for pool in [Pool::Mean, Pool::MeanRoot, Pool::Max, Pool::Weighted] {
            g.output(&format!("{pool:?}"), g.pool(x, pool));
        }
        g.finish().unwrap()
    }

    fn layer(&self, g: &Builder, layer: usize, x: Value, positions: Value) -> Value {
        let linear = |x: Value, part: &str, n: usize, k: usize| {
            let name = format!("{layer}.{part}");
            let bias = g.weight(&format!("{name}.bias"), DType::F32, &[n]);
            g.linear(x, g.weight(&name, self.dtype, &[n, k]), Some(bias))
        };
        let frequencies = g.constant("frequencies", &[4], &[1.0, 0.3, 0.1, 0.03]);
        let turn = |x: Value| match self.rope {
            true => g.rope(x, positions, HEAD_DIM, RopeStyle::Halves, frequencies, 1.0),
            false => x,
        };
        let input = if self.norm_first { norm(g, x, &format!("{layer}.first")) } else { x };
        let q = turn(linear(input, "q", HEADS * HEAD_DIM, WIDTH));
        let k = turn(linear(input, "k", self.kv_heads * HEAD_DIM, WIDTH));
        let v = linear(input, "v", self.kv_heads * HEAD_DIM, WIDTH);
        let bias = match self.bias {
            1 => Some(DistanceBias::Slopes(g.constant("slopes", &[HEADS], &[0.5, 0.1, 0.01]))),
            2 => Some(DistanceBias::Buckets {
                table: g.weight("buckets", self.dtype, &[32, HEADS]),
                max_distance: 128,
            }),
            _ => None,
        };
        let spec = SelfAttentionSpec {
            heads: HEADS,
            kv_heads: self.kv_heads,
            head_dim: HEAD_DIM,
            scale: 0.25,
            reach: self.reach,
            bias,
        };
        let attended = match self.disentangled {
            None => g.self_attention(q, k, v, spec),
            Some(max_distance) => {
                let distances = g.weight_value(g.weight("distances", DType::F32, &[16, WIDTH]));
                let distances = norm(g, distances, "distances.norm");
                let tables = [linear(distances, "q", WIDTH, WIDTH), linear(distances, "far", WIDTH, WIDTH)];
                let spec = DisentangledSpec {
                    heads: HEADS,
                    head_dim: HEAD_DIM,
                    scale: 0.2,
                    span: 8,
                    max_distance,
                    content_to_position: true,
                    position_to_content: layer == 0,
                };
                g.disentangled_attention([q, k, v], &tables[..if layer == 0 { 2 } else { 1 }], spec)
            }
        };
        let attended = linear(attended, "o", WIDTH, HEADS * HEAD_DIM);
        let mut x = g.add(x, attended);
        if !self.norm_first {
            x = norm(g, x, &format!("{layer}.first"));
        }
        let input = if self.norm_first { norm(g, x, &format!("{layer}.second")) } else { x };
        let up = linear(input, "up", 100, WIDTH);
        let mut inner = g.unary(UnaryOp::Gelu, up);
        if self.gated {
            inner = g.mul(inner, linear(input, "gate", 100, WIDTH));
        }
        let x = g.add(linear(inner, "down", WIDTH, 100), x);
        if self.norm_first { x } else { norm(g, x, &format!("{layer}.second")) }
    }
}

fn norm(g: &Builder, x: Value, name: &str) -> Value {
    let bias = g.weight(&format!("{name}.bias"), DType::F32, &[WIDTH]);
    g.layer_norm(x, g.weight(name, DType::F32, &[WIDTH]), Some(bias), 1e-5)
}

/// All outputs for texts of these lengths, the ids of each made from its own number.
fn run<P: Program>(program: &mut P, texts: &[(u64, usize)]) -> Outputs {
    let ids: Vec<i32> = texts
        .iter()
        .flat_map(|&(text, n)| {
            let mut random = Random(text);
            (0..n).map(move |_| random.below(VOCAB) as i32)
        })
        .collect();
    let positions: Vec<i32> = texts.iter().flat_map(|&(_, n)| 0..n as i32).collect();
    let mut rows = Vec::new();
    let mut row = 0;
    for &(_, n) in texts {
        rows.push(row);
        row += n as i32;
    }
    let (shape, rows_shape) = ([ids.len()], [rows.len()]);
    let sequences: Vec<Sequence<'_>> =
        texts.iter().map(|&(_, tokens)| Sequence { start: 0, tokens, pages: &[] }).collect();
    let inputs = Inputs {
        tensors: vec![
            ("ids", TensorRef::I32(&ids, &shape)),
            ("positions", TensorRef::I32(&positions, &shape)),
            ("rows", TensorRef::I32(&rows, &rows_shape)),
        ],
        sequences: &sequences,
    };
    let mut outputs = Outputs::default();
    program.run(&inputs, &mut outputs).unwrap();
    outputs
}

const TEXTS: [(u64, usize); 6] = [(1, 1), (2, 70), (3, 2), (4, 33), (5, 17), (6, 19)];

#[test]
fn every_kind_of_encoder_agrees_with_the_reference() {
    let kinds = [
        PLAIN,
        Encoder { norm_first: true, gated: true, rope: true, reach: Some(8), ..PLAIN },
        Encoder { bias: 1, kv_heads: 1, ..PLAIN },
        Encoder { bias: 2, gated: true, ..PLAIN },
        Encoder { disentangled: Some(None), ..PLAIN },
        Encoder { disentangled: Some(Some(40)), ..PLAIN },
        Encoder { dtype: DType::BF16, bias: 2, reach: Some(3), ..PLAIN },
    ];
    for kind in kinds {
        let graph = kind.graph();
        let mut source = Source::default();
        source.fill(&graph, &mut Random(9));
        let expected = run(&mut compile(&ReferenceBackend, &graph, &source, 2), &TEXTS);
        assert_eq!(expected.tensors["Mean"].shape, [TEXTS.len(), WIDTH]);
        for isa in Isa::available() {
            let backend = CpuBackend::new(2).unwrap().with_isa(isa);
            let actual = run(&mut compile(&backend, &graph, &source, 2), &TEXTS);
            // bf16 activations are rounded where the machine multiplies bf16.
            let tolerance = if kind.dtype == DType::BF16 { 2e-2 } else { 3e-6 };
            for (name, tensor) in &expected.tensors {
                assert_eq!(tensor.shape, actual.tensors[name].shape);
                let error = relative_rms(&actual.tensors[name].data, &tensor.data);
                assert!(error < tolerance, "{kind:?} {name} {}: {error}", isa.name());
            }
        }
    }
}

#[test]
fn a_text_gets_the_same_bits_alone_and_in_a_crowd() {
    let others = [
        Encoder { bias: 1, norm_first: true, gated: true, ..PLAIN },
        Encoder { disentangled: Some(Some(40)), ..PLAIN },
    ];
    for kind in [&[PLAIN], &others[..]].concat() {
        let graph = kind.graph();
        let mut source = Source::default();
        source.fill(&graph, &mut Random(9));
        for threads in [1, 2] {
            let backend = CpuBackend::new(threads).unwrap();
            let mut program = compile(&backend, &graph, &source, threads);
            let together = run(&mut program, &TEXTS);
            for (i, text) in TEXTS.iter().enumerate() {
                let alone = run(&mut program, std::slice::from_ref(text));
                for (name, tensor) in &alone.tensors {
                    let row = &together.tensors[name].data[i * WIDTH..(i + 1) * WIDTH];
                    assert_eq!(row, tensor.data, "{name} of text {i}");
                }
            }
        }
    }
}

#[test]
fn refuses_sequences_that_do_not_fit() {
    let graph = PLAIN.graph();
    let mut source = Source::default();
    source.fill(&graph, &mut Random(9));
    let mut program =
        CpuBackend::new(1).unwrap().compile(&graph, &source, &super::support::options(1)).unwrap();
    let shape = [3];
    let mut try_run = |sequences: &[Sequence<'_>]| {
        let inputs = Inputs {
            tensors: vec![
                ("ids", TensorRef::I32(&[1, 2, 3], &shape)),
                ("positions", TensorRef::I32(&[0, 1, 2], &shape)),
                ("rows", TensorRef::I32(&[0], &[1])),
            ],
            sequences,
        };
        program.run(&inputs, &mut Outputs::default()).is_ok()
    };
    assert!(try_run(&[Sequence { start: 0, tokens: 3, pages: &[] }]));
    assert!(!try_run(&[Sequence { start: 0, tokens: 2, pages: &[] }]));
    assert!(!try_run(&[Sequence { start: 1, tokens: 3, pages: &[] }]));
    assert!(!try_run(&[
        Sequence { start: 0, tokens: 3, pages: &[] },
        Sequence { start: 0, tokens: 0, pages: &[] }
    ]));
    assert!(!try_run(&[]));
}
