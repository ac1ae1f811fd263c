//! Operators that only move elements or change the shape.

use super::call::Call;
use kun_graph::ops::{Blocks, PadMode};
use kun_graph::{TensorOp, ValueId};
use kun_tensor::{DType, Tensor};

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    match call.proto.op_type.as_str() {
        "Reshape" => {
            let inputs = call.with_list(1, "shape");
            let allow_zero = call.flag("allowzero");
            call.finish(TensorOp::Reshape { allow_zero }, inputs)
        }
        "Flatten" => {
            let axis = call.int_or("axis", 1);
            call.same(TensorOp::Flatten { axis })
        }
        "Squeeze" => {
            let inputs = call.with_list(1, "axes");
            call.finish(TensorOp::Squeeze, inputs)
        }
        "Unsqueeze" => {
            let inputs = call.with_list(1, "axes");
            call.finish(TensorOp::Unsqueeze, inputs)
        }
        "Transpose" => {
            let axes = call.counts("perm")?;
            call.same(TensorOp::Transpose(axes))
        }
        "Concat" => {
            let axis = call.int_or("axis", 1);
            call.same(TensorOp::Concat { axis })
        }
        "Split" => {
            let inputs = call.with_list(1, "split");
            let axis = call.int_or("axis", 0);
            call.finish(TensorOp::Split { axis }, inputs)
        }
        "Slice" => {
            let mut inputs = call.inputs.clone();
            if call.version < 10 {
                inputs.truncate(1);
                for name in ["starts", "ends", "axes"] {
                    let list = call.ints(name).map(<[i64]>::to_vec);
                    inputs.push(list.map_or(ValueId::ABSENT, |list| call.list(&list)));
                }
            }
            call.finish(TensorOp::Slice, inputs)
        }
        "Expand" => call.same(TensorOp::Expand),
        "Tile" => call.same(TensorOp::Tile),
        "Pad" => {
            let mode = match call.text_or("mode", "constant")? {
                "constant" => PadMode::Constant,
                "reflect" => PadMode::Reflect,
                "edge" => PadMode::Edge,
                "wrap" => PadMode::Wrap,
                other => return Err(format!("attribute `mode` is `{other}`")),
            };
            let mut inputs = call.with_list(1, "pads");
            if call.version < 11 {
                let value = call.float_or("value", 0.0);
                let value = call.constant(Tensor::scalar(value));
                let cast =
                    kun_graph::ops::Cast { to: DType::F32, saturate: true, round: kun_graph::ops::Round::Up };
                inputs.push(call.value(TensorOp::CastLike(cast), vec![value, inputs[0]]));
            }
            call.finish(TensorOp::Pad(mode), inputs)
        }
        "DepthToSpace" => {
            let blocks = blocks(call)?;
            call.same(TensorOp::DepthToSpace(blocks))
        }
        "SpaceToDepth" => {
            let blocks = blocks(call)?;
            call.same(TensorOp::SpaceToDepth(blocks))
        }
        "Shape" => {
            let (start, end) = (call.int_or("start", 0), call.int("end"));
            call.same(TensorOp::Shape { start, end })
        }
        "Size" => call.same(TensorOp::Size),
        "CenterCropPad" => {
            let axes = call.ints("axes").unwrap_or_default().to_vec();
            call.same(TensorOp::CenterCropPad { axes })
        }
        "ReverseSequence" => {
            let (time_axis, batch_axis) = (call.count_or("time_axis", 0)?, call.count_or("batch_axis", 1)?);
            call.same(TensorOp::ReverseSequence { time_axis, batch_axis })
        }
        "Trilu" => {
            let upper = call.int_or("upper", 1) != 0;
            call.same(TensorOp::Triangle { upper })
        }
        _ => Ok(false),
    }
}

fn blocks(call: &Call<'_, '_>) -> Result<Blocks, String> {
    Ok(Blocks { size: call.count_or("blocksize", 0)?, columns_first: call.text_or("mode", "DCR")? == "CRD" })
}
