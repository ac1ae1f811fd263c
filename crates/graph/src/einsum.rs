//! Einsums of two operands as what they are: products of matrices, or of elements, between changes of order and shape. These
//! have fast forms.

use crate::graph::{Dim, Graph, Node, Op, ValueId, ValueInfo, ValueKind};
use crate::ops::matmul::parse_einsum;
use crate::ops::{Binary, Gemm, TensorOp};
use kun_tensor::{DType, Tensor};
use std::sync::Arc;

/// `graph`, which [`crate::specialize()`] made, with other nodes in place of einsums of two f32 operands whose every letter
/// is read once and is in the other operand or the result.
pub(crate) fn expand(graph: Graph) -> Graph {
    let is_einsum = |node: &Node| matches!(node.op, Op::Tensor(TensorOp::Einsum(_)));
    if !graph.nodes.iter().any(is_einsum) {
        return graph;
    }
    let mut out = Graph { nodes: Vec::with_capacity(graph.nodes.len()), ..graph };
    let constant = |node: &&Node| matches!(node.op, Op::Weight(_) | Op::Tensor(TensorOp::Constant(_)));
    let constants: Vec<ValueId> = graph.nodes.iter().filter(constant).map(|node| node.outputs[0]).collect();
    for node in graph.nodes {
        let product = match &node.op {
            Op::Tensor(TensorOp::Einsum(equation)) => Product::of(&out, &constants, &node, equation),
            _ => None,
        };
        match product {
            Some(product) => Expansion { name: node.name, out: &mut out }.product(product, node.outputs[0]),
            None => out.nodes.push(node),
        }
    }
    out
}

/// A tensor and the letters of its dimensions.
#[derive(Clone, Debug)]
struct Term {
    id: ValueId,
    letters: Vec<u32>,
    shape: Vec<usize>,
}

impl Term {
    fn length(&self, letter: u32) -> Option<usize> {
        Some(self.shape[self.letters.iter().position(|l| *l == letter)?])
    }
}

struct Product {
    a: Term,
    b: Term,
    /// Whether the second operand is known before.
    constant: bool,
    output: Vec<u32>,
}

fn repeats(letters: &[u32]) -> bool {
    letters.iter().enumerate().any(|(i, letter)| letters[..i].contains(letter))
}

impl Product {
    /// What an einsum is, if it is a product; a constant operand comes second.
    fn of(graph: &Graph, constants: &[ValueId], node: &Node, equation: &str) -> Option<Product> {
        let &[a, b] = &node.inputs[..] else { return None };
        let shape = |id: ValueId| {
            let info = (id != ValueId::ABSENT).then(|| graph.value(id))?;
            let known = |dim: &Dim| if let Dim::Const(n) = dim { Some(*n) } else { None };
            let shape: Option<Vec<usize>> = info.shape.iter().map(known).collect();
            shape.filter(|_| info.kind == ValueKind::Tensor && info.dtype == DType::F32)
        };
        let shapes = [shape(a)?, shape(b)?];
        let result = shape(*node.outputs.first()?)?;
        let einsum = parse_einsum(equation, &[shapes[0].len(), shapes[1].len()]).ok()?;
        let [first, second] = <[_; 2]>::try_from(einsum.operands).ok()?;
        let output = einsum.output;
        let [left, right] = shapes;
        let (a, b) =
            (Term { id: a, letters: first, shape: left }, Term { id: b, letters: second, shape: right });
        let used = |own: &Term, other: &Term| {
            let agrees = |(letter, length): (&u32, &usize)| match other.length(*letter) {
                Some(there) => there == *length,
                None => output.contains(letter),
            };
            !repeats(&own.letters) && own.letters.iter().zip(&own.shape).all(agrees)
        };
        let length = |letter: &u32| a.length(*letter).or(b.length(*letter));
        let made: Option<Vec<usize>> = output.iter().map(length).collect();
        if !used(&a, &b) || !used(&b, &a) || repeats(&output) || made? != result || result.contains(&0) {
            return None;
        }
        if [&a, &b].iter().any(|term| term.shape.contains(&0)) {
            return None;
        }
        let [first, second] = [&a, &b].map(|term| constants.contains(&term.id));
        let (a, b) = if first && !second { (b, a) } else { (a, b) };
        Some(Product { a, b, constant: first != second, output })
    }
}

struct Expansion<'a> {
    /// Of the node.
    name: String,
    out: &'a mut Graph,
}

impl Expansion<'_> {
    fn value(&mut self, shape: &[usize], dtype: DType) -> ValueId {
        let dims = shape.iter().map(|&n| Dim::Const(n)).collect();
        self.out.values.push(ValueInfo::tensor(dtype, dims));
        ValueId(self.out.values.len() as u32 - 1)
    }

    fn node(&mut self, op: TensorOp, inputs: Vec<ValueId>, output: ValueId) {
        let name = self.name.clone();
        self.out.nodes.push(Node { name, op: Op::Tensor(op), inputs, outputs: vec![output] });
    }

    /// The dimensions of `term` in the order of `letters`, in memory of their own only if need be.
    fn ordered(&mut self, term: Term, letters: &[u32], to: Option<ValueId>) -> Term {
        if term.letters == letters && to.is_none() {
            return term;
        }
        let place = |letter: &u32| term.letters.iter().position(|l| l == letter).unwrap_or(0);
        let axes: Vec<usize> = letters.iter().map(place).collect();
        let shape: Vec<usize> = axes.iter().map(|&axis| term.shape[axis]).collect();
        let id = to.unwrap_or_else(|| self.value(&shape, DType::F32));
        self.node(TensorOp::Transpose(axes), vec![term.id], id);
        Term { id, letters: letters.to_vec(), shape }
    }

    fn reshaped(&mut self, x: ValueId, from: &[usize], shape: &[usize], to: Option<ValueId>) -> ValueId {
        if from == shape && to.is_none() {
            return x;
        }
        let id = to.unwrap_or_else(|| self.value(shape, DType::F32));
        let list: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let dims = self.value(&[list.len()], DType::I64);
        self.node(TensorOp::Constant(Arc::new(Tensor::list(list))), Vec::new(), dims);
        self.node(TensorOp::Reshape { allow_zero: false }, vec![x, dims], id);
        id
    }

    fn product(&mut self, product: Product, to: ValueId) {
        let Product { a, b, constant, output } = product;
        let both: Vec<u32> = a.letters.iter().copied().filter(|l| b.letters.contains(l)).collect();
        let (batch, mut depth): (Vec<u32>, Vec<u32>) = both.iter().partition(|l| output.contains(l));
        if depth.is_empty() {
            return self.elements([a, b], &output, to);
        }
        // In the order of the result, where that asks for none.
        let pick = |of: &Term| -> Vec<u32> {
            output.iter().copied().filter(|l| of.letters.contains(l) && !both.contains(l)).collect()
        };
        let batch: Vec<u32> = output.iter().copied().filter(|l| batch.contains(l)).collect();
        let (rows, columns) = (pick(&a), pick(&b));
        if constant {
            // Better the other operand moves.
            depth = b.letters.iter().copied().filter(|l| depth.contains(l)).collect();
        }
        let turned = [&batch[..], &columns, &depth].concat() == b.letters;
        let lengths = |letters: &[u32]| -> Vec<usize> {
            letters.iter().filter_map(|&l| a.length(l).or(b.length(l))).collect()
        };
        let all = |letters: &[u32]| lengths(letters).iter().product::<usize>();
        let (items, k, n) = (lengths(&batch), all(&depth), all(&columns));
        // Without a batch, some rows are one, so that there is work for many threads.
        const ENOUGH: usize = 16;
        let inner = match rows.split_last() {
            Some((last, _)) if !constant && batch.is_empty() && all(&[*last]) >= ENOUGH => rows.len() - 1,
            _ => 0,
        };
        if all(&rows) == 1 && n == 1 && all(&batch) > 1 {
            let result = lengths(&output);
            let inner = [&batch[..], &depth].concat();
            let orders = [[&inner[..], &rows].concat(), [&inner[..], &columns].concat()];
            return self.dots([a, b], orders, &[&items[..], &[k]].concat(), &result, to);
        }
        let m = all(&rows[inner..]);
        let of = |last: &[usize]| [&items[..], &lengths(&rows[..inner]), last].concat();
        let (left, right, whole) = (of(&[m, k]), [&items[..], &[k, n]].concat(), of(&[m, n]));
        let full = lengths(&[&batch[..], &rows, &columns].concat());
        let made = [&batch[..], &rows, &columns].concat();

        let a = self.ordered(a, &[&batch[..], &rows, &depth].concat(), None);
        let x = self.reshaped(a.id, &a.shape, &left, None);
        let single = made == output;
        let direct = single && full == whole;
        let y = if direct { to } else { self.value(&whole, DType::F32) };
        if constant && batch.is_empty() && turned {
            let w = self.reshaped(b.id, &b.shape, &[n, k], None);
            let gemm = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
            self.node(TensorOp::Gemm(gemm), vec![x, w], y);
        } else {
            let b = self.ordered(b, &[&batch[..], &depth, &columns].concat(), None);
            let w = self.reshaped(b.id, &b.shape, &right, None);
            self.node(TensorOp::MatMul, vec![x, w], y);
        }
        if direct {
            return;
        }
        let id = self.reshaped(y, &whole, &full, single.then_some(to));
        if !single {
            let term = Term { id, letters: made, shape: full };
            self.ordered(term, &output, Some(to));
        }
    }

    /// Products of single rows with single columns, many of them: products of elements, of which those of a row are summed, as
    /// by a product with ones. `orders` are those of the operands, `rows` is their common shape.
    fn dots(
        &mut self,
        terms: [Term; 2],
        orders: [Vec<u32>; 2],
        rows: &[usize],
        result: &[usize],
        to: ValueId,
    ) {
        let mut inputs = Vec::with_capacity(2);
        for (term, order) in terms.into_iter().zip(orders) {
            let term = self.ordered(term, &order, None);
            inputs.push(self.reshaped(term.id, &term.shape, rows, None));
        }
        let product = self.value(rows, DType::F32);
        self.node(TensorOp::Binary(Binary::Mul), inputs, product);
        let (outer, k) = (&rows[..rows.len() - 1], rows[rows.len() - 1]);
        let ones = self.value(&[k, 1], DType::F32);
        let column = Tensor::f32([k, 1], vec![1.0; k]).expect("as many ones as rows");
        self.node(TensorOp::Constant(Arc::new(column)), Vec::new(), ones);
        let sums = self.value(&[outer, &[1]].concat(), DType::F32);
        self.node(TensorOp::MatMul, vec![product, ones], sums);
        self.reshaped(sums, &[outer, &[1]].concat(), result, Some(to));
    }

    /// A product of elements: no letter is summed.
    fn elements(&mut self, terms: [Term; 2], output: &[u32], to: ValueId) {
        let inputs = terms.map(|term| {
            let own: Vec<u32> = output.iter().copied().filter(|l| term.letters.contains(l)).collect();
            let term = self.ordered(term, &own, None);
            let shape: Vec<usize> = output.iter().map(|&l| term.length(l).unwrap_or(1)).collect();
            self.reshaped(term.id, &term.shape, &shape, None)
        });
        self.node(TensorOp::Binary(Binary::Mul), inputs.to_vec(), to);
    }
}
