//! Operations one by one: the CPU program against the reference, on random shapes and every instruction set.

use super::support::{Random, Source, options, relative_rms};
use crate::{
    Backend, BinaryOp, Builder, CpuBackend, Dim, Graph, Inputs, Outputs, Program, ReferenceBackend,
    RopeStyle, Sym, TensorRef, UnaryOp,
};
use kun_kernels::Isa;
use kun_tensor::DType;

const T: Dim = Dim::Sym(Sym::Tokens);
const R: Dim = Dim::Sym(Sym::Rows);

fn run<B: Backend>(backend: &B, graph: &Graph, source: &Source, inputs: &Inputs<'_>) -> Outputs {
    let mut program = backend.compile(graph, source, &options(2)).unwrap();
    let mut outputs = Outputs::default();
    program.run(inputs, &mut outputs).unwrap();
    // A second time into the same buffers: nothing of the first run may leak.
    let first = outputs.clone();
    program.run(inputs, &mut outputs).unwrap();
    assert_eq!(first, outputs);
    outputs
}

/// Compares all outputs of `graph` for several lengths; indices are below `below`.
pub(super) fn check(graph: &Graph, below: usize, positive: bool, tolerance: f64) {
    let mut random = Random(graph.nodes.len() as u64 + 77);
    let mut source = Source::default();
    source.fill(graph, &mut random);
    for t in [1, 2, 3, 17, 130] {
        let mut floats = Vec::new();
        let mut indices = Vec::new();
        for &id in &graph.inputs {
            let info = graph.value(id);
            let shape: Vec<usize> = info
                .shape
                .iter()
                .map(|dim| match dim {
                    Dim::Const(n) => *n,
                    Dim::Sym(Sym::Tokens) => t,
                    _ => t.div_ceil(2),
                })
                .collect();
            let n = shape.iter().product();
            let name = info.name.as_deref().unwrap();
            if info.dtype == DType::F32 {
                let data =
                    random.floats(n, 1.0).into_iter().map(|x| if positive { x.abs() + 0.1 } else { x });
                floats.push((name, data.collect::<Vec<_>>(), shape));
            } else {
                let limit = if name == "rows" { t } else { below };
                indices.push((name, (0..n).map(|_| random.below(limit) as i32).collect::<Vec<_>>(), shape));
            }
        }
        let tensors = floats
            .iter()
            .map(|(name, data, shape)| (*name, TensorRef::F32(data, shape)))
            .chain(indices.iter().map(|(name, data, shape)| (*name, TensorRef::I32(data, shape))))
            .collect();
        let inputs = Inputs { tensors, sequences: &[] };
        let expected = run(&ReferenceBackend, graph, &source, &inputs);
        for isa in Isa::available() {
            let actual = run(&CpuBackend::new(2).unwrap().with_isa(isa), graph, &source, &inputs);
            assert_eq!(actual.tensors.len(), expected.tensors.len());
            for (name, tensor) in &expected.tensors {
                assert_eq!(tensor.shape, actual.tensors[name].shape);
                let error = relative_rms(&actual.tensors[name].data, &tensor.data);
                assert!(error < tolerance, "{name}, {t} tokens, {}: {error}", isa.name());
            }
        }
    }
}

#[test]
fn functions_of_one_operand() {
    let all = [
        UnaryOp::Neg,
        UnaryOp::Exp,
        UnaryOp::Sqrt,
        UnaryOp::Recip,
        UnaryOp::Relu,
        UnaryOp::Sigmoid,
        UnaryOp::Tanh,
        UnaryOp::Silu,
        UnaryOp::Gelu,
        UnaryOp::GeluTanh,
        UnaryOp::GeluQuick,
    ];
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(45)]);
    for op in all {
        let y = g.unary(op, x);
        g.output(&format!("{op:?}"), y);
        // In place on a temporary.
        g.output(&format!("twice {op:?}"), g.unary(UnaryOp::Neg, g.unary(op, g.unary(UnaryOp::Sqrt, x))));
    }
    check(&g.finish().unwrap(), 1, true, 2e-6);
}

#[test]
fn functions_of_two_operands_with_every_kind_of_broadcast() {
    let all = [
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Max,
        BinaryOp::Min,
        BinaryOp::Pow,
    ];
    let mut random = Random(2);
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(3), Dim::Const(20)]);
    let y = g.input("y", DType::F32, &[T, Dim::Const(3), Dim::Const(20)]);
    let column = g.input("column", DType::F32, &[T, Dim::Const(1), Dim::Const(1)]);
    let mut positive =
        |n: usize| -> Vec<f32> { random.floats(n, 1.0).iter().map(|x| x.abs() + 0.1).collect() };
    let row = g.weight_value(g.constant("row", &[20], &positive(20)));
    let matrix = g.weight_value(g.constant("matrix", &[3, 1], &positive(3)));
    let number = g.weight_value(g.constant("number", &[], &positive(1)));
    for op in all {
        for (name, b) in [("y", y), ("column", column), ("row", row), ("matrix", matrix), ("number", number)]
        {
            g.output(&format!("{op:?} {name}"), g.binary(op, x, b));
            g.output(&format!("{op:?} {name} turned"), g.binary(op, b, x));
        }
    }
    check(&g.finish().unwrap(), 1, true, 2e-6);
}

#[test]
fn norms_of_rows_heads_and_sums() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(96)]);
    let y = g.input("y", DType::F32, &[T, Dim::Const(96)]);
    g.output("rows", g.rms_norm(x, g.weight("a", DType::F32, &[96]), 1e-5));
    g.output("heads", g.rms_norm(x, g.weight("b", DType::F16, &[32]), 1e-6));
    let sum = g.add(x, y);
    g.output("normed sum", g.rms_norm(sum, g.weight("a", DType::F32, &[96]), 1e-5));
    g.output("gated", g.mul(g.silu(sum), y));
    check(&g.finish().unwrap(), 1, false, 2e-6);
}

#[test]
fn rope_of_whole_and_partial_heads() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(96)]);
    let positions = g.input("positions", DType::I32, &[T]);
    for (half, magnitude, style) in
        [(16, 1.0, RopeStyle::Halves), (16, 1.2, RopeStyle::Interleaved), (7, 1.0, RopeStyle::Halves)]
    {
        let frequencies: Vec<f32> = (0..half).map(|i| 10000f32.powf(-(i as f32) / half as f32)).collect();
        let frequencies = g.constant(&format!("f{half}"), &[half], &frequencies);
        let name = format!("{half} {style:?}");
        g.output(&name, g.rope(x, positions, 32, style, frequencies, magnitude));
        // In place on a temporary.
        g.output(&format!("{name} of silu"), g.rope(g.silu(x), positions, 32, style, frequencies, magnitude));
    }
    check(&g.finish().unwrap(), 4000, false, 2e-6);
}

#[test]
fn linear_layers_of_every_kind_of_weight() {
    let all = [
        (DType::F32, 1e-5),
        (DType::F64, 1e-5),
        (DType::F16, 5e-3),
        (DType::BF16, 5e-3),
        (DType::Q8_0, 2e-2),
        (DType::Q4_0, 2e-2),
        (DType::Q4_1, 2e-2),
        (DType::Q5_0, 2e-2),
        (DType::Q5_1, 2e-2),
        (DType::Q2K, 2e-2),
        (DType::Q3K, 2e-2),
        (DType::Q4K, 2e-2),
        (DType::Q5K, 2e-2),
        (DType::Q6K, 2e-2),
        (DType::Iq4Nl, 2e-2),
        (DType::Iq4Xs, 2e-2),
    ];
    for (dtype, tolerance) in all {
        let k = if dtype.is_quantized() { 256 } else { 96 };
        let g = Builder::new();
        let x = g.input("x", DType::F32, &[T, Dim::Const(k)]);
        let ids = g.input("ids", DType::I32, &[T]);
        let w = |name: &str, n: usize| g.weight(name, dtype, &[n, k]);
        let bias = g.weight("bias", DType::F32, &[37]);
        g.output("biased", g.linear(x, w("a", 37), Some(bias)));
        g.output("other", g.linear(x, w("b", 16), None));
        let normed = g.rms_norm(x, g.weight("norm", DType::F32, &[k]), 1e-5);
        let inner = g.add(normed, g.linear(normed, w("c", k), None));
        // The residual's bytes must survive while other threads still prepare rows from them.
        g.output(
            "chain",
            g.add(
                inner,
                g.linear(g.rms_norm(inner, g.weight("norm", DType::F32, &[k]), 1e-5), w("c", k), None),
            ),
        );
        g.output("embedded", g.embedding(w("a", 37), ids));
        g.output("table", g.embedding(g.weight("table", dtype, &[37, k]), ids));
        check(&g.finish().unwrap(), 37, false, tolerance);
    }
}

#[test]
fn linear_layers_with_rows_of_odd_length_and_mixed_types() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(33)]);
    let y = g.input("y", DType::F32, &[T, Dim::Const(64)]);
    g.output("f32", g.linear(x, g.weight("f32", DType::F32, &[5, 33]), None));
    g.output("f16", g.linear(x, g.weight("f16", DType::F16, &[50, 33]), None));
    g.output("bf16", g.linear(x, g.weight("bf16", DType::BF16, &[1, 33]), None));
    g.output("q8", g.linear(y, g.weight("q8", DType::Q8_0, &[20, 64]), None));
    g.output("float", g.linear(y, g.weight("float", DType::F32, &[20, 64]), None));
    g.output("constant", g.linear(y, g.constant("c", &[3, 64], &Random(9).floats(192, 0.1)), None));
    check(&g.finish().unwrap(), 1, false, 2e-2);
}

#[test]
fn selections_weights_and_inputs_as_outputs() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(24)]);
    let rows = g.input("rows", DType::I32, &[R]);
    g.output("selected", g.select_rows(x, rows));
    g.output("later", g.select_rows(g.silu(g.unary(UnaryOp::Neg, x)), rows));
    g.output("weight", g.weight_value(g.weight("w", DType::F16, &[2, 3])));
    let mut graph = g.finish().unwrap();
    graph.outputs.push(x);
    check(&graph, 1, false, 2e-6);
}
