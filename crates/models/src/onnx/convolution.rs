//! Operators with a window that moves over an image.

use super::call::Call;
use kun_graph::TensorOp;
use kun_graph::ops::{
    CausalConvolution, Convolution, Padding, Pool, PoolKind, RoiAlign, TransposedConvolution,
};

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    match call.proto.op_type.as_str() {
        "Conv" => {
            let conv = window(call)?;
            call.same(TensorOp::Conv(conv))
        }
        "ConvInteger" => {
            let conv = window(call)?;
            call.same(TensorOp::ConvInteger(conv))
        }
        "QLinearConv" => {
            let conv = window(call)?;
            call.same(TensorOp::QLinearConv(conv))
        }
        "DeformConv" => {
            let (convolution, offset_groups) = (window(call)?, call.count_or("offset_group", 1)?);
            call.same(TensorOp::DeformConv { convolution, offset_groups })
        }
        "ConvTranspose" => {
            let conv = TransposedConvolution {
                convolution: window(call)?,
                output_padding: call.counts("output_padding")?,
                output_shape: call.counts("output_shape")?,
            };
            call.same(TensorOp::ConvTranspose(conv))
        }
        "CausalConvWithState" => {
            let silu = match call.text_or("activation", "none")? {
                "silu" | "swish" => true,
                "none" => false,
                other => return Err(format!("attribute `activation` is `{other}`")),
            };
            call.same(TensorOp::CausalConv(CausalConvolution { silu }))
        }
        "Col2Im" => {
            let conv = window(call)?;
            call.same(TensorOp::Col2Im(conv))
        }
        name @ ("MaxPool" | "AveragePool" | "LpPool") => {
            let kind = match name {
                "MaxPool" => PoolKind::Max,
                "AveragePool" => PoolKind::Average { include_pad: call.flag("count_include_pad") },
                _ => PoolKind::Lp { p: call.int_or("p", 2) },
            };
            let pool = pool(call, kind)?;
            call.same(TensorOp::Pool(pool))
        }
        "MaxUnpool" => {
            let pool = pool(call, PoolKind::Max)?;
            call.same(TensorOp::MaxUnpool(pool))
        }
        "GlobalMaxPool" => call.same(TensorOp::GlobalPool(PoolKind::Max)),
        "GlobalAveragePool" => call.same(TensorOp::GlobalPool(PoolKind::Average { include_pad: false })),
        "GlobalLpPool" => {
            let p = call.int_or("p", 2);
            call.same(TensorOp::GlobalPool(PoolKind::Lp { p }))
        }
        "RoiAlign" => {
            let default = if call.version < 16 { "output_half_pixel" } else { "half_pixel" };
            let roi = RoiAlign {
                output_height: call.count_or("output_height", 1)?,
                output_width: call.count_or("output_width", 1)?,
                sampling_ratio: call.count_or("sampling_ratio", 0)?,
                spatial_scale: call.float_or("spatial_scale", 1.0),
                max: call.text_or("mode", "avg")? == "max",
                half_pixel: call.text_or("coordinate_transformation_mode", default)? == "half_pixel",
            };
            call.same(TensorOp::RoiAlign(roi))
        }
        _ => Ok(false),
    }
}

/// Strides, dilations, padding and groups of a node.
pub(super) fn window(call: &Call<'_, '_>) -> Result<Convolution, String> {
    let padding = match call.text_or("auto_pad", "NOTSET")? {
        "NOTSET" | "" => Padding::Explicit(call.counts("pads")?),
        "SAME_UPPER" => Padding::SameUpper,
        "SAME_LOWER" => Padding::SameLower,
        "VALID" => Padding::Valid,
        other => return Err(format!("attribute `auto_pad` is `{other}`")),
    };
    Ok(Convolution {
        strides: call.counts("strides")?,
        dilations: call.counts("dilations")?,
        padding,
        groups: call.count_or("group", 1)?,
    })
}

fn pool(call: &Call<'_, '_>, kind: PoolKind) -> Result<Pool, String> {
    Ok(Pool {
        kind,
        kernel: call.counts("kernel_shape")?,
        window: window(call)?,
        ceil: call.flag("ceil_mode"),
        column_major: call.flag("storage_order"),
    })
}
