//! Einsums as products of matrices and of elements.

use super::Net;
use crate::graph::ValueId;
use crate::ops::{Binary, TensorOp};

impl Net {
    fn einsum(&mut self, equation: &str, a: ValueId, b: ValueId) {
        let y = self.op(TensorOp::Einsum(equation.to_owned()), &[a, b]);
        self.output(y);
    }
}

#[test]
fn einsums_are_products_of_matrices() {
    let cases: [(&str, &[usize], &[usize]); 20] = [
        ("bhid,bhjd->bhij", &[2, 3, 5, 8], &[2, 3, 7, 8]),
        ("bhij,bhjd->bhid", &[2, 3, 5, 7], &[2, 3, 7, 8]),
        ("bhij,bhjd->bihd", &[2, 3, 5, 7], &[2, 3, 7, 8]),
        ("bij,jk->bik", &[2, 20, 5], &[5, 7]),
        ("bij,jk", &[2, 3, 5], &[5, 7]),
        ("nchw,nkhw->nck", &[2, 3, 4, 5], &[2, 6, 4, 5]),
        ("nchw,nkhw->nkhc", &[2, 3, 4, 5], &[2, 6, 4, 5]),
        ("nctkv,kvw->nctw", &[2, 3, 4, 3, 5], &[3, 5, 6]),
        ("nkctv,kvw->nctw", &[2, 3, 4, 3, 5], &[3, 5, 6]),
        ("bqnc,bnchw->bqnhw", &[2, 5, 3, 4], &[2, 3, 4, 5, 6]),
        ("...ij,...jk->...ik", &[2, 3, 4, 5], &[2, 3, 5, 6]),
        ("i d, j d -> i j", &[5, 8], &[7, 8]),
        ("bd,bd->b", &[5, 8], &[5, 8]),
        ("ij,ij->", &[5, 8], &[5, 8]),
        ("bhd,bdh->hb", &[3, 5, 8], &[3, 8, 5]),
        ("bidc,bcdj->ibj", &[3, 1, 5, 8], &[3, 8, 5, 1]),
        ("bid,jbd->bij", &[1, 1, 5], &[1, 1, 5]),
        ("bi,bj->bij", &[2, 5], &[2, 7]),
        ("i,j->ji", &[5], &[7]),
        ("bhw,bc->bchw", &[2, 4, 5], &[2, 3]),
    ];
    for (equation, a, b) in cases {
        let mut net = Net::default();
        let (x, y) = (net.input(a), net.input(b));
        net.einsum(equation, x, y);
        // Where the operands are not in the order of their dimensions.
        let two = net.number(2.0);
        let back = |net: &mut Net, x: ValueId, rank: usize| {
            let x = net.op(TensorOp::Transpose((0..rank).rev().collect()), &[x]);
            let x = net.binary(Binary::Mul, x, two);
            net.op(TensorOp::Transpose((0..rank).rev().collect()), &[x])
        };
        let (x, y) = (back(&mut net, x, a.len()), back(&mut net, y, b.len()));
        net.einsum(equation, x, y);
        net.check(0);
    }
}

#[test]
fn einsums_with_constants_are_packed_products() {
    let cases: [(&str, &[usize], &[usize]); 6] = [
        ("bij,jk->bik", &[2, 3, 5], &[5, 7]),
        ("bij,kj->bik", &[2, 3, 5], &[7, 5]),
        ("btd,dnh->btnh", &[2, 3, 5], &[5, 4, 8]),
        ("btnh,nhd->btd", &[2, 3, 4, 5], &[4, 5, 9]),
        ("btnh,dnh->btd", &[2, 3, 4, 5], &[9, 4, 5]),
        ("bthn,nhd->btd", &[2, 3, 4, 5], &[5, 4, 9]),
    ];
    for (equation, x, weight) in cases {
        for first in [false, true] {
            let mut net = Net::default();
            let (x, w) = (net.input(x), net.weight(weight));
            match equation.split_once(',').unwrap() {
                (a, rest) if first => {
                    let (b, out) = rest.split_once("->").unwrap();
                    net.einsum(&format!("{b},{a}->{out}"), w, x);
                }
                _ => net.einsum(equation, x, w),
            }
            let kinds = net.check(0);
            assert!(kinds.contains(&"product"), "{equation}: {kinds:?}");
        }
    }
    // One for each item of a batch.
    let mut net = Net::default();
    let (x, w) = (net.input(&[2, 3, 4, 5]), net.weight(&[3, 5, 6]));
    net.einsum("bhid,hdj->bhij", x, w);
    net.check(0);
}

#[test]
fn einsums_of_attention_are_attention() {
    let mut net = Net::default();
    let [q, k, v] = [5, 7, 7].map(|n| net.input(&[2, 3, n, 8]));
    let scores = net.op(TensorOp::Einsum("bhid,bhjd->bhij".to_owned()), &[q, k]);
    let scale = net.number(0.25);
    let scores = net.binary(Binary::Mul, scores, scale);
    let weights = net.op(TensorOp::Softmax { axis: -1 }, &[scores]);
    net.einsum("bhij,bhjd->bhid", weights, v);
    let kinds = net.check(0);
    assert!(kinds.contains(&"attention"), "{kinds:?}");
}

#[test]
fn other_einsums_stay_what_they_are() {
    let cases: [(&str, &[usize], &[usize]); 4] = [
        // A diagonal, a sum of one operand alone, one row for all.
        ("bii,bij->bij", &[2, 5, 5], &[2, 5, 7]),
        ("bij,bk->bik", &[2, 3, 5], &[2, 7]),
        ("bijk,bj->bi", &[2, 3, 5, 4], &[2, 5]),
        ("bij,bjk->bik", &[1, 3, 5], &[2, 5, 7]),
    ];
    for (equation, a, b) in cases {
        let mut net = Net::default();
        let (x, y) = (net.input(a), net.input(b));
        net.einsum(equation, x, y);
        assert!(net.check(1).contains(&"plain"));
    }
}
