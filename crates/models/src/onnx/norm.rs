//! Normalisation.

use super::call::Call;
use kun_graph::TensorOp;
use kun_graph::ops::{BatchNorm, LayerNorm, LocalNorm};

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    let epsilon = call.float_or("epsilon", 1e-5);
    match call.proto.op_type.as_str() {
        "BatchNormalization" => {
            let norm = BatchNorm {
                epsilon,
                momentum: call.float_or("momentum", 0.9),
                // Before version 14, more than one result meant training, which no exporter leaves in.
                training: call.version >= 14 && call.flag("training_mode"),
            };
            call.same(TensorOp::BatchNorm(norm))
        }
        "InstanceNormalization" => call.same(TensorOp::InstanceNorm { epsilon }),
        "GroupNormalization" => {
            let groups = call.count_or("num_groups", 1)?;
            call.same(TensorOp::GroupNorm { groups, epsilon })
        }
        "LayerNormalization" => {
            let axis = call.int_or("axis", -1);
            call.same(TensorOp::LayerNorm(LayerNorm { axis, epsilon }))
        }
        // `SimplifiedLayerNormalization` is what ONNX Runtime calls it, in the standard domain too.
        "RMSNormalization" | "SimplifiedLayerNormalization" => {
            let axis = call.int_or("axis", -1);
            call.same(TensorOp::RmsNorm(LayerNorm { axis, epsilon }))
        }
        "LRN" => {
            let norm = LocalNorm {
                alpha: call.float_or("alpha", 0.0001),
                beta: call.float_or("beta", 0.75),
                bias: call.float_or("bias", 1.0),
                size: call.count_or("size", 1)?,
            };
            call.same(TensorOp::LocalNorm(norm))
        }
        _ => Ok(false),
    }
}
