//! Bad graphs, weights and inputs: typed errors that name what is wrong, and nothing computed.

use super::support::{Decoder, FEED_FORWARD, Part, Random, Source, VOCAB, compile, options, step};
use crate::{
    Backend, CompileError, CompileOptions, CpuBackend, Dim, Graph, Inputs, KvOptions, KvType, Op, Outputs,
    Program, ReferenceBackend, RunError, Sequence, Sym, TensorRef, ValueId,
};
use kun_tensor::DType;

fn decoder() -> (Graph, Source) {
    let graph = Decoder::plain(DType::Q8_0).graph();
    let mut source = Source::default();
    source.fill(&graph, &mut Random(1));
    (graph, source)
}

type Tensors<'a> = Vec<(&'a str, TensorRef<'a>)>;

fn good<'a>() -> Tensors<'a> {
    vec![
        ("ids", TensorRef::I32(&[1, 2, 3], &[3])),
        ("positions", TensorRef::I32(&[0, 1, 2], &[3])),
        ("rows", TensorRef::I32(&[2], &[1])),
    ]
}

fn with<'a>(name: &'a str, tensor: TensorRef<'a>) -> Tensors<'a> {
    good().into_iter().map(|(n, t)| if n == name { (n, tensor) } else { (n, t) }).collect()
}

const LONG: [i32; 161] = [0; 161];
const BIG: usize = usize::MAX;

fn cases() -> Vec<(&'static str, Tensors<'static>, Vec<Sequence<'static>>)> {
    let sequence = |start, tokens, pages| Sequence { start, tokens, pages };
    let whole = || vec![sequence(0, 3, &[0][..])];
    let i32s = TensorRef::I32;
    vec![
        ("input `rows`: missing", good()[..2].to_vec(), whole()),
        ("input `ids`: given twice", [good(), good()[..1].to_vec()].concat(), whole()),
        ("input `x`: unknown", [good(), vec![("x", i32s(&[], &[0]))]].concat(), whole()),
        ("input `ids`: is f32, not i32", with("ids", TensorRef::F32(&[1.0; 3], &[3])), whole()),
        ("input `ids`: shape [4] and 3 elements", with("ids", i32s(&[1, 2, 3], &[4])), whole()),
        ("input `ids`: shape [3, 1] is not [T]", with("ids", i32s(&[1, 2, 3], &[3, 1])), whole()),
        ("shape [2] is not [T] with 3", with("positions", i32s(&[0, 1], &[2])), whole()),
        ("input `ids`: element 1 is 83", with("ids", i32s(&[1, VOCAB as i32, 3], &[3])), whole()),
        ("input `ids`: element 0 is -1", with("ids", i32s(&[-1, 2, 3], &[3])), whole()),
        ("input `positions`: element 2 is -7", with("positions", i32s(&[0, 1, -7], &[3])), whole()),
        ("input `rows`: element 0 is 3", with("rows", i32s(&[3], &[1])), whole()),
        ("number of tokens: 161 is more than the planned 160", with("ids", i32s(&LONG, &[161])), whole()),
        ("number of output rows: 161", with("rows", i32s(&LONG, &[161])), whole()),
        ("0 tokens in the sequences, 3 in the inputs", good(), vec![]),
        ("4 tokens in the sequences, 3 in the inputs", good(), vec![sequence(0, 4, &[0])]),
        ("number of sequences: 9", good(), vec![sequence(0, 1, &[0]); 9]),
        ("sequence 1 has no tokens", good(), vec![sequence(0, 3, &[0]), sequence(5, 0, &[1])]),
        ("sequence 0 has 0 pages; 3 tokens need 1", good(), vec![sequence(0, 3, &[])]),
        ("sequence 0 has 1 pages; 65 tokens need 2", good(), vec![sequence(62, 3, &[0])]),
        ("sequence 0 names page 24; the cache has 24", good(), vec![sequence(0, 3, &[24])]),
        ("sequence 0 starts at 18446744073709551613", good(), vec![sequence(BIG - 2, 3, &[0])]),
        ("page 5 is written", good(), vec![sequence(0, 1, &[5]), sequence(0, 2, &[5])]),
        ("page 5 is written", good(), vec![sequence(64, 2, &[5, 6]), sequence(1, 1, &[5])]),
        ("page 5 is written", good(), vec![sequence(64, 3, &[5, 5])]),
    ]
}

#[test]
fn every_bad_input_is_refused_by_name_and_changes_nothing() {
    let (graph, source) = decoder();
    let mut programs: Vec<Box<dyn Program>> = vec![
        Box::new(compile(&CpuBackend::new(2).unwrap(), &graph, &source, 2)),
        Box::new(compile(&ReferenceBackend, &graph, &source, 1)),
    ];
    for program in &mut programs {
        for (expected, tensors, sequences) in cases() {
            let mut outputs = Outputs::default();
            let inputs = Inputs { tensors, sequences: &sequences };
            let error = program.run(&inputs, &mut outputs).expect_err(expected);
            assert!(matches!(error, RunError::Input { .. } | RunError::Limit { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}, expected {expected}");
            assert_eq!(outputs, Outputs::default());
        }
    }
    // Shared prefixes that nobody writes are fine.
    let mut cpu = compile(&CpuBackend::new(2).unwrap(), &graph, &source, 2);
    let part = |start: usize, n: usize, pages: &[u32]| Part { start, ids: vec![1; n], pages: pages.to_vec() };
    step(&mut cpu, &[part(0, 64, &[3])]);
    step(&mut cpu, &[part(64, 2, &[3, 4]), part(64, 1, &[3, 5])]);
}

#[test]
fn compile_errors_name_the_node_or_the_weight() {
    let (graph, mut source) = decoder();
    let cpu = CpuBackend::new(1).unwrap();
    let message = |result: Result<(), CompileError>| {
        let error = result.unwrap_err();
        format!(
            "{error}: {}",
            std::error::Error::source(&error).map_or_else(String::new, ToString::to_string)
        )
    };
    let compiled = |source: &Source| cpu.compile(&graph, source, &options(1)).map(|_| ());
    source.remove("1.up");
    assert_eq!(message(compiled(&source)), "cannot load weights: no tensor `1.up`");
    source.insert("1.up", DType::F32, &[FEED_FORWARD, 64], &[0.0; FEED_FORWARD * 64]);
    assert_eq!(
        message(compiled(&source)),
        "node `1.up`: the source holds f32 [608, 64], the graph wants q8_0 [608, 64]: "
    );
    // A head that the quantised cache cannot hold.
    let mut odd = graph.clone();
    for node in &mut odd.nodes {
        if let Op::Attention(spec) = &mut node.op {
            spec.layer = 0;
        }
    }
    let error = cpu.estimate(&odd, &options(1)).unwrap_err().to_string();
    assert_eq!(error, "node `layer 1 / attention`: layer 0 of the cache is used twice");
    // Dimensions without a bound.
    let mut unbounded = graph.clone();
    for info in &mut unbounded.values {
        for dim in info.shape.iter_mut().filter(|dim| **dim == Dim::Sym(Sym::Rows)) {
            *dim = Dim::Sym(Sym::Height);
        }
    }
    let error = cpu.estimate(&unbounded, &options(1)).unwrap_err().to_string();
    assert!(error.contains("[H] has no bound"), "{error}");
    // Sizes that no machine has.
    let huge = CompileOptions { max_tokens: usize::MAX / 8, ..options(1) };
    assert!(cpu.estimate(&graph, &huge).is_err());
    let huge = CompileOptions { kv: KvOptions { dtype: KvType::F16, pages: usize::MAX / 8 }, ..options(1) };
    assert!(matches!(cpu.estimate(&graph, &huge), Err(CompileError::Memory { .. })));
}

#[test]
fn broken_graphs_from_elsewhere_are_refused() {
    let (graph, _) = decoder();
    let refuse = |change: &dyn Fn(&mut Graph)| {
        let mut broken = graph.clone();
        change(&mut broken);
        assert!(broken.validate().is_err());
        assert!(CpuBackend::new(1).unwrap().estimate(&broken, &options(1)).is_err());
    };
    graph.validate().unwrap();
    refuse(&|g| g.nodes.swap(2, 9));
    refuse(&|g| g.nodes[3].inputs[0] = ValueId(u32::MAX));
    refuse(&|g| g.nodes[3].inputs.clear());
    refuse(&|g| g.nodes[3].outputs = g.nodes[2].outputs.clone());
    refuse(&|g| g.outputs.push(ValueId(1 << 20)));
    refuse(&|g| g.outputs.push(g.outputs[0]));
    refuse(&|g| g.inputs.push(g.inputs[0]));
    refuse(&|g| g.weights[0].shape = vec![usize::MAX, 64]);
    refuse(&|g| g.weights[0].shape = vec![0, 64]);
    refuse(&|g| g.weights.truncate(3));
    refuse(&|g| g.values[5].shape.clear());
}

#[test]
fn estimates_are_what_a_program_takes() {
    for dtype in [KvType::F16, KvType::Q8_0] {
        let (graph, source) = decoder();
        let kv = KvOptions { dtype, pages: 5 };
        let options = CompileOptions { kv, ..options(2) };
        let backend = CpuBackend::new(2).unwrap();
        let program = backend.compile(&graph, &source, &options).unwrap();
        assert_eq!(backend.estimate(&graph, &options).unwrap(), program.memory());
        assert!(program.memory().kv_bytes > 0);
        let released = source.released.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(released, graph.weights.iter().filter(|w| w.constant.is_none()).count());
    }
}
