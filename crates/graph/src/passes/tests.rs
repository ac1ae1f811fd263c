use super::*;
use crate::graph::{BinaryOp, Dim, Op, Sym, UnaryOp};
use crate::tests::support::{Decoder, Part, Random, Source, compile, options, relative_rms, step};
use crate::{Backend, Builder, Inputs, Outputs, Program, ReferenceBackend, TensorRef};
use kun_tensor::DType;

const T: Dim = Dim::Sym(Sym::Tokens);

fn count(graph: &Graph, wanted: impl Fn(&Op) -> bool) -> usize {
    graph.nodes.iter().filter(|node| wanted(&node.op)).count()
}

/// Runs both graphs on the reference backend with the same random inputs and compares every output.
fn assert_same(before: &Graph, after: &Graph) {
    after.validate().unwrap();
    let mut random = Random(5);
    let mut source = Source::default();
    source.fill(before, &mut random);
    let t = 9;
    let mut floats: Vec<(String, Vec<f32>, Vec<usize>)> = Vec::new();
    let mut indices: Vec<(String, Vec<i32>, Vec<usize>)> = Vec::new();
    for &id in &before.inputs {
        let info = before.value(id);
        let shape: Vec<usize> = info
            .shape
            .iter()
            .map(|dim| match dim {
                Dim::Const(n) => *n,
                Dim::Sym(Sym::Tokens) => t,
                _ => 4,
            })
            .collect();
        let n = shape.iter().product();
        let name = info.name.clone().unwrap();
        if info.dtype == DType::F32 {
            floats.push((name, random.floats(n, 1.0), shape));
        } else {
            indices.push((name, (0..n).map(|_| random.below(t) as i32).collect(), shape));
        }
    }
    let tensors = floats
        .iter()
        .map(|(name, data, shape)| (name.as_str(), TensorRef::F32(data, shape)))
        .chain(indices.iter().map(|(name, data, shape)| (name.as_str(), TensorRef::I32(data, shape))))
        .collect();
    let inputs = Inputs { tensors, sequences: &[] };
    let run = |graph: &Graph| {
        let mut outputs = Outputs::default();
        let mut program = ReferenceBackend.compile(graph, &source, &options(1)).unwrap();
        program.run(&inputs, &mut outputs).unwrap();
        outputs
    };
    let (expected, actual) = (run(before), run(after));
    assert_eq!(expected.tensors.len(), actual.tensors.len());
    for (name, tensor) in &expected.tensors {
        assert_eq!(tensor.shape, actual.tensors[name].shape);
        let error = relative_rms(&actual.tensors[name].data, &tensor.data);
        assert!(error < 1e-6, "{name}: {error}");
    }
}

fn apply(graph: &Graph, pass: impl Fn(&mut Graph)) -> Graph {
    let mut after = graph.clone();
    pass(&mut after);
    assert_same(graph, &after);
    after
}

#[test]
fn folds_what_depends_on_constants_only() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(3)]);
    let a = g.weight_value(g.constant("a", &[3], &[1.0, 2.0, 3.0]));
    let b = g.weight_value(g.constant("b", &[1], &[0.5]));
    let c = g.unary(UnaryOp::Exp, g.mul(a, b));
    g.output("y", g.add(x, c));
    let after = apply(&g.finish().unwrap(), fold::constants);
    assert_eq!(count(&after, |op| matches!(op, Op::Weight(_))), 4);
    let mut pruned = after.clone();
    prune::dead_nodes(&mut pruned);
    assert_eq!(pruned.nodes.len(), 2);
    assert_same(&after, &pruned);
}

#[test]
fn joins_activation_and_product_in_either_order() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(8)]);
    let y = g.input("y", DType::F32, &[T, Dim::Const(8)]);
    g.output("a", g.mul(g.silu(x), y));
    g.output("b", g.mul(y, g.unary(UnaryOp::GeluTanh, x)));
    // Read twice, so it must stay.
    let shared = g.silu(x);
    g.output("c", g.mul(shared, y));
    g.output("d", g.add(shared, y));
    let after = apply(&g.finish().unwrap(), fuse::gates);
    assert_eq!(count(&after, |op| matches!(op, Op::Gated(_))), 2);
    assert_eq!(count(&after, |op| matches!(op, Op::Unary(_))), 1);
}

#[test]
fn adds_residuals_inside_linear_layers() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(32)]);
    let w = |name: &str| g.weight(name, DType::F32, &[32, 32]);
    let bias = g.weight("bias", DType::F32, &[32]);
    let y = g.add(x, g.linear(x, w("a"), Some(bias)));
    let z = g.add(g.linear(y, w("b"), None), y);
    // Of two layers the later takes the other's sum.
    g.output("z", g.add(g.linear(z, w("c"), None), g.linear(y, w("d"), None)));
    // The product is an output too, so it cannot be changed.
    let p = g.linear(x, w("e"), None);
    g.output("p", p);
    g.output("q", g.add(x, p));
    let after = apply(&g.finish().unwrap(), fuse::residuals);
    assert_eq!(count(&after, |op| matches!(op, Op::Linear { residual: true, .. })), 3);
    assert_eq!(count(&after, |op| matches!(op, Op::Binary(BinaryOp::Add))), 1);
}

#[test]
fn norms_sums_where_they_are_made() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(16)]);
    let y = g.input("y", DType::F32, &[T, Dim::Const(16)]);
    let sum = g.add(x, y);
    let early = g.silu(sum);
    let normed = g.rms_norm(sum, g.weight("w", DType::F32, &[16]), 1e-5);
    g.output("z", g.mul(early, normed));
    // Per head: not of the same kind.
    g.output("h", g.rms_norm(g.add(y, x), g.weight("v", DType::F32, &[4]), 1e-5));
    let after = apply(&g.finish().unwrap(), fuse::add_norms);
    assert_eq!(count(&after, |op| matches!(op, Op::AddRmsNorm { .. })), 1);
    assert_eq!(count(&after, |op| matches!(op, Op::RmsNorm { .. })), 1);
}

#[test]
fn concatenates_layers_that_share_an_input() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(32)]);
    let w = |name: &str, n: usize| g.weight(name, DType::F32, &[n, 32]);
    let bias = g.weight("bias", DType::F32, &[5]);
    let parts =
        [g.linear(x, w("q", 7), None), g.linear(x, w("k", 5), Some(bias)), g.linear(x, w("v", 3), None)];
    for (part, name) in parts.into_iter().zip(["q", "k", "v"]) {
        g.output(name, part);
    }
    let after = apply(&g.finish().unwrap(), fuse::shared_inputs);
    assert_eq!(after.nodes.len(), 1);
    assert_eq!(after.nodes[0].outputs.len(), 3);
    assert_eq!(after.nodes[0].name, "linear q + linear k + linear v");
}

#[test]
fn narrows_row_wise_work_to_the_selected_rows() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(32)]);
    let rows = g.input("rows", DType::I32, &[Dim::Sym(Sym::Rows)]);
    let norm = g.weight("norm", DType::F32, &[32]);
    let h = g.rms_norm(x, norm, 1e-5);
    let w = |name: &str, n: usize, k: usize| g.weight(name, DType::F32, &[n, k]);
    let gated = g.mul(g.silu(g.linear(h, w("gate", 64, 32), None)), g.linear(h, w("up", 64, 32), None));
    let y = g.add(x, g.linear(gated, w("down", 32, 64), None));
    let scaled = g.mul(y, g.weight_value(g.constant("scale", &[32], &[0.5; 32])));
    let last = g.select_rows(scaled, rows);
    g.output("logits", g.linear(g.rms_norm(last, norm, 1e-5), w("head", 11, 32), None));
    let graph = g.finish().unwrap();
    let narrowed = apply(&graph, narrow::selected_rows);
    // The input is selected once, everything after works on rows.
    assert_eq!(count(&narrowed, |op| matches!(op, Op::SelectRows)), 1);
    for node in narrowed.nodes.iter().filter(|n| matches!(n.op, Op::Linear { .. })) {
        assert_eq!(narrowed.value(node.outputs[0]).shape[0], Dim::Sym(Sym::Rows), "{}", node.name);
    }
    apply(&graph, |graph| *graph = optimize(graph));
}

#[test]
fn keeps_all_rows_that_somebody_else_reads() {
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[T, Dim::Const(8)]);
    let rows = g.input("rows", DType::I32, &[Dim::Sym(Sym::Rows)]);
    let other = g.input("other", DType::I32, &[Dim::Sym(Sym::Rows)]);
    let y = g.silu(x);
    let z = g.unary(UnaryOp::Tanh, x);
    g.output("all", y);
    g.output("some", g.unary(UnaryOp::Neg, g.select_rows(y, rows)));
    g.output("these", g.unary(UnaryOp::Neg, g.select_rows(z, rows)));
    g.output("those", g.unary(UnaryOp::Neg, g.select_rows(z, other)));
    g.output("selected", g.select_rows(g.silu(x), rows));
    let graph = g.finish().unwrap();
    let after = apply(&graph, narrow::selected_rows);
    assert_eq!(graph, after);
}

#[test]
fn a_decoder_becomes_few_coarse_nodes_with_the_same_answers() {
    let decoder = Decoder { qk_norm: true, biases: true, ..Decoder::plain(DType::F32) };
    let graph = decoder.graph();
    let after = optimize(&graph);
    after.validate().unwrap();
    // Two layers of: norm, q+k+v, two head norms, two turns, attention, o with residual, norm, gate+up, gated, down.
    assert_eq!(count(&after, |op| matches!(op, Op::Linear { .. })), 2 * 4 + 1);
    assert_eq!(count(&after, |op| matches!(op, Op::Gated(_))), 2);
    assert_eq!(count(&after, |op| matches!(op, Op::Unary(_) | Op::Binary(_))), 0);
    // The attended rows and the residual of the last layer.
    assert_eq!(count(&after, |op| matches!(op, Op::SelectRows)), 2);
    assert_eq!(after.nodes.len(), 1 + 2 * 12 + 2 + 2);

    let mut random = Random(1);
    let mut source = Source::default();
    source.fill(&graph, &mut random);
    let mut plain = compile(&ReferenceBackend, &graph, &source, 1);
    let mut fused = compile(&ReferenceBackend, &after, &source, 1);
    for (start, n) in [(0, 20), (20, 1), (21, 5)] {
        let part = Part { start, ids: (0..n).map(|_| random.below(80) as i32).collect(), pages: vec![4] };
        let (a, b) = (step(&mut plain, std::slice::from_ref(&part)), step(&mut fused, &[part]));
        assert!(relative_rms(&b.concat(), &a.concat()) < 1e-6);
    }
}
