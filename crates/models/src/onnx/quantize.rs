//! From numbers to small integers and floats and back.

use super::call::Call;
use kun_graph::TensorOp;
use kun_graph::ops::Quantize;

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    match call.proto.op_type.as_str() {
        "QuantizeLinear" => {
            let quantize = attributes(call)?;
            call.same(TensorOp::QuantizeLinear(quantize))
        }
        "DequantizeLinear" => {
            let quantize = attributes(call)?;
            call.same(TensorOp::DequantizeLinear(quantize))
        }
        "DynamicQuantizeLinear" => call.same(TensorOp::DynamicQuantizeLinear),
        _ => Ok(false),
    }
}

fn attributes(call: &Call<'_, '_>) -> Result<Quantize, String> {
    Ok(Quantize {
        axis: call.int_or("axis", 1),
        block: call.count_or("block_size", 0)?,
        dtype: call.dtype("output_dtype")?,
        saturate: call.int_or("saturate", 1) != 0,
    })
}
