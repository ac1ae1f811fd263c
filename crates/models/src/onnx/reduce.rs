//! Operators along axes: reductions, running sums, softmax, losses.

use super::call::Call;
use kun_graph::TensorOp;
use kun_graph::ops::{ArgReduce, Cumulate, Loss, LossReduction, Reduce, ReduceKind, SoftmaxKind};

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    if let Some(kind) = kind(&call.proto.op_type) {
        let inputs = call.with_list(1, "axes");
        let reduce = Reduce {
            kind,
            keep_dims: call.int_or("keepdims", 1) != 0,
            none_if_empty: call.flag("noop_with_empty_axes"),
        };
        return call.finish(TensorOp::Reduce(reduce), inputs);
    }
    let axis = call.int_or("axis", -1);
    match call.proto.op_type.as_str() {
        largest @ ("ArgMax" | "ArgMin") => {
            let arg = ArgReduce {
                largest: largest == "ArgMax",
                axis: call.int_or("axis", 0),
                keep_dims: call.int_or("keepdims", 1) != 0,
                last: call.flag("select_last_index"),
            };
            call.same(TensorOp::ArgReduce(arg))
        }
        name @ ("CumSum" | "CumProd") => {
            let cumulate = Cumulate {
                product: name == "CumProd",
                exclusive: call.flag("exclusive"),
                reverse: call.flag("reverse"),
            };
            call.same(TensorOp::Cumulate(cumulate))
        }
        name @ ("Softmax" | "LogSoftmax" | "Hardmax") if call.version < 13 => {
            let kind = match name {
                "Softmax" => SoftmaxKind::Softmax,
                "LogSoftmax" => SoftmaxKind::LogSoftmax,
                _ => SoftmaxKind::Hardmax,
            };
            let axis = call.int_or("axis", 1);
            call.same(TensorOp::SoftmaxFlat { axis, kind })
        }
        "Softmax" => call.same(TensorOp::Softmax { axis }),
        "LogSoftmax" => call.same(TensorOp::LogSoftmax { axis }),
        "Hardmax" => call.same(TensorOp::Hardmax { axis }),
        "LpNormalization" => {
            let p = call.int_or("p", 2);
            call.same(TensorOp::LpNormalize { axis, p })
        }
        "MeanVarianceNormalization" => {
            let axes = call.ints("axes").map_or(vec![0, 2, 3], <[i64]>::to_vec);
            call.same(TensorOp::MeanVariance { axes })
        }
        "Det" => call.same(TensorOp::Determinant),
        "NegativeLogLikelihoodLoss" => {
            let loss = loss(call)?;
            call.same(TensorOp::NegativeLogLikelihood(loss))
        }
        "SoftmaxCrossEntropyLoss" => {
            let loss = loss(call)?;
            call.same(TensorOp::SoftmaxCrossEntropy(loss))
        }
        _ => Ok(false),
    }
}

fn loss(call: &Call<'_, '_>) -> Result<Loss, String> {
    let reduction = match call.text_or("reduction", "mean")? {
        "none" => LossReduction::None,
        "mean" => LossReduction::Mean,
        "sum" => LossReduction::Sum,
        other => return Err(format!("attribute `reduction` is `{other}`")),
    };
    Ok(Loss { reduction, ignore_index: call.int("ignore_index") })
}

fn kind(name: &str) -> Option<ReduceKind> {
    Some(match name {
        "ReduceL1" => ReduceKind::L1,
        "ReduceL2" => ReduceKind::L2,
        "ReduceLogSum" => ReduceKind::LogSum,
        "ReduceLogSumExp" => ReduceKind::LogSumExp,
        "ReduceMax" => ReduceKind::Max,
        "ReduceMean" => ReduceKind::Mean,
        "ReduceMin" => ReduceKind::Min,
        "ReduceProd" => ReduceKind::Prod,
        "ReduceSum" => ReduceKind::Sum,
        "ReduceSumSquare" => ReduceKind::SumSquare,
        _ => return None,
    })
}
