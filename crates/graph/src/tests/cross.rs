//! Decoders that look at a source: spans of rows, biases by distance in a cache, and continuations that part.

use super::support::{Random, Source, relative_rms};
use crate::{
    AttentionSpec, Backend, Builder, CompileOptions, CpuBackend, CrossAttentionSpec, Dim, DistanceBias,
    Graph, Inputs, KvOptions, KvType, Outputs, Program, ReferenceBackend, RunError, Sequence, Sym, TensorRef,
};
use kun_tensor::DType;

const HEADS: usize = 3;
const HEAD_DIM: usize = 20;
const WIDTH: usize = HEADS * HEAD_DIM;

fn graph() -> Graph {
    let g = Builder::new();
    let (t, u) = (Dim::Sym(Sym::Tokens), Dim::Sym(Sym::Sources));
    let ids = g.input("ids", DType::I32, &[t]);
    let spans = g.input("spans", DType::I32, &[t, Dim::Const(2)]);
    let keys = g.input("keys", DType::F32, &[u, Dim::Const(WIDTH)]);
    let values = g.input("values", DType::F32, &[u, Dim::Const(WIDTH)]);
    let mut x = g.embedding(g.weight("table", DType::F32, &[40, WIDTH]), ids);
    let table = g.weight("bias", DType::F32, &[16, HEADS]);
    for layer in 0..2 {
        let linear = |x, name: &str| {
            g.linear(x, g.weight(&format!("{layer}.{name}"), DType::F32, &[WIDTH, WIDTH]), None)
        };
        let spec = AttentionSpec {
            layer,
            heads: HEADS,
            kv_heads: HEADS,
            head_dim: HEAD_DIM,
            scale: 0.3,
            window_tokens: None,
            bias: Some(DistanceBias::Buckets { table, max_distance: 90 }),
        };
        x = g.add(x, g.attention(linear(x, "q"), linear(x, "k"), linear(x, "v"), spec));
        let spec = CrossAttentionSpec { heads: HEADS, head_dim: HEAD_DIM, scale: 0.4, max_rows: 150 };
        x = g.add(x, g.cross_attention(linear(x, "cross"), keys, values, spans, spec));
    }
    g.output("x", x);
    g.finish().unwrap()
}

fn options() -> CompileOptions {
    let kv = KvOptions { dtype: KvType::F32, pages: 12 };
    CompileOptions { max_tokens: 200, max_rows: 200, max_sequences: 8, threads: 2, kv }
}

struct Step<'a> {
    ids: Vec<i32>,
    spans: Vec<i32>,
    sequences: Vec<Sequence<'a>>,
}

fn run(
    program: &mut impl Program,
    step: &Step<'_>,
    keys: &[f32],
    values: &[f32],
) -> Result<Vec<f32>, RunError> {
    let (t, u) = (step.ids.len(), keys.len() / WIDTH);
    let (ids, spans, sources) = ([t], [t, 2], [u, WIDTH]);
    let tensors = vec![
        ("ids", TensorRef::I32(&step.ids, &ids)),
        ("spans", TensorRef::I32(&step.spans, &spans)),
        ("keys", TensorRef::F32(keys, &sources)),
        ("values", TensorRef::F32(values, &sources)),
    ];
    let mut outputs = Outputs::default();
    program.run(&Inputs { tensors, sequences: &step.sequences }, &mut outputs)?;
    Ok(outputs.tensors.remove("x").unwrap().data)
}

#[test]
fn continuations_of_sources_match_the_reference_and_each_other() {
    let (graph, mut random, mut source) = (graph(), Random(5), Source::default());
    source.fill(&graph, &mut random);
    let rows = 150 + 7 + 1;
    let (keys, values) = (random.floats(rows * WIDTH, 1.0), random.floats(rows * WIDTH, 1.0));
    let ids = |random: &mut Random, n: usize| (0..n).map(|_| random.below(40) as i32).collect::<Vec<_>>();
    let mut reference = ReferenceBackend.compile(&graph, &source, &options()).unwrap();
    let mut cpu = CpuBackend::new(2).unwrap().compile(&graph, &source, &options()).unwrap();
    let mut both = |step: &Step<'_>| {
        let expected = run(&mut reference, step, &keys, &values).unwrap();
        let found = run(&mut cpu, step, &keys, &values).unwrap();
        assert!(relative_rms(&found, &expected) < 2e-6, "{}", relative_rms(&found, &expected));
        reference.copy_page(1, 4).unwrap();
        cpu.copy_page(1, 4).unwrap();
        found
    };
    // Two sequences, one long enough for biases from another page.
    let first = both(&Step {
        ids: ids(&mut random, 130 + 3),
        spans: [[0, 150].repeat(130), [150, 157].repeat(3)].concat(),
        sequences: vec![
            Sequence { start: 0, tokens: 130, pages: &[0, 2, 3] },
            Sequence { start: 0, tokens: 3, pages: &[1] },
        ],
    });
    assert!(first.iter().all(|x| x.is_finite()));
    // The short one goes on twice, from its own page and from the copy; the long one looks at a single row.
    let together = both(&Step {
        ids: vec![3, 8, 8],
        spans: vec![157, 158, 150, 157, 150, 157],
        sequences: vec![
            Sequence { start: 130, tokens: 1, pages: &[0, 2, 3] },
            Sequence { start: 3, tokens: 1, pages: &[1] },
            Sequence { start: 3, tokens: 1, pages: &[4] },
        ],
    });
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&together[WIDTH..2 * WIDTH]), bits(&together[2 * WIDTH..]));
    // More continuations than rows of the source.
    let pages: Vec<[u32; 1]> = (4..9).map(|page| [page]).collect();
    let crowd = both(&Step {
        ids: vec![8; 5],
        spans: [156, 158].repeat(5),
        sequences: pages.iter().map(|pages| Sequence { start: 0, tokens: 1, pages }).collect(),
    });
    assert!(crowd.chunks(WIDTH).all(|row| bits(row) == bits(&crowd[..WIDTH])));
}

#[test]
fn spans_and_pages_beyond_what_is_there_are_refused() {
    let (graph, mut random, mut source) = (graph(), Random(6), Source::default());
    source.fill(&graph, &mut random);
    let keys = random.floats(200 * WIDTH, 1.0);
    let mut reference = ReferenceBackend.compile(&graph, &source, &options()).unwrap();
    let mut cpu = CpuBackend::new(1).unwrap().compile(&graph, &source, &options()).unwrap();
    for (span, good) in [
        ([0, 150], true),
        ([0, 151], false),
        ([60, 201], false),
        ([5, 5], false),
        ([6, 5], false),
        ([-1, 5], false),
    ] {
        let step = Step {
            ids: vec![1],
            spans: span.to_vec(),
            sequences: vec![Sequence { start: 0, tokens: 1, pages: &[0] }],
        };
        assert_eq!(run(&mut reference, &step, &keys, &keys).is_ok(), good, "{span:?}");
        assert_eq!(run(&mut cpu, &step, &keys, &keys).is_ok(), good, "{span:?}");
    }
    for (from, to) in [(0, 12), (12, 0), (3, 3)] {
        assert!(reference.copy_page(from, to).is_err() && cpu.copy_page(from, to).is_err());
    }
}
