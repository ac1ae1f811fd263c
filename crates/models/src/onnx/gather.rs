//! Operators that pick or place elements by index.

use super::call::Call;
use kun_graph::TensorOp;
use kun_graph::ops::{Scatter, TopK};
use kun_tensor::Tensor;

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    let axis = call.int_or("axis", 0);
    match call.proto.op_type.as_str() {
        "Gather" => call.same(TensorOp::Gather { axis }),
        "GatherElements" => call.same(TensorOp::GatherElements { axis }),
        "GatherND" => {
            let batch_dims = call.count_or("batch_dims", 0)?;
            call.same(TensorOp::GatherNd { batch_dims })
        }
        "Scatter" | "ScatterElements" => {
            let reduction = reduction(call)?;
            call.same(TensorOp::ScatterElements { axis, reduction })
        }
        "ScatterND" => {
            let reduction = reduction(call)?;
            call.same(TensorOp::ScatterNd(reduction))
        }
        "TensorScatter" => {
            let circular = call.text_or("mode", "linear")? == "circular";
            let axis = call.int_or("axis", -2);
            call.same(TensorOp::TensorScatter { axis, circular })
        }
        "OneHot" => {
            let axis = call.int_or("axis", -1);
            call.same(TensorOp::OneHot { axis })
        }
        "Compress" => {
            let axis = call.int("axis");
            call.same(TensorOp::Compress { axis })
        }
        "NonZero" => call.same(TensorOp::NonZero),
        "Unique" => {
            let (axis, sorted) = (call.int("axis"), call.int_or("sorted", 1) != 0);
            call.same(TensorOp::Unique { axis, sorted })
        }
        "TopK" => {
            let mut inputs = call.inputs.clone();
            if let Some(k) = call.int("k").filter(|_| inputs.len() < 2) {
                inputs.push(call.constant(Tensor::list(vec![k])));
            }
            let top = TopK {
                axis: call.int_or("axis", -1),
                largest: call.int_or("largest", 1) != 0,
                sorted: call.int_or("sorted", 1) != 0,
            };
            call.finish(TensorOp::TopK(top), inputs)
        }
        "NonMaxSuppression" => {
            let center_point_box = call.flag("center_point_box");
            call.same(TensorOp::NonMaxSuppression { center_point_box })
        }
        _ => Ok(false),
    }
}

fn reduction(call: &Call<'_, '_>) -> Result<Scatter, String> {
    Ok(match call.text_or("reduction", "none")? {
        "none" => Scatter::Replace,
        "add" => Scatter::Add,
        "mul" => Scatter::Mul,
        "max" => Scatter::Max,
        "min" => Scatter::Min,
        other => return Err(format!("attribute `reduction` is `{other}`")),
    })
}
