//! Operators that sample an image between its pixels.

use super::call::Call;
use kun_graph::ops::{
    Coordinates, GridPadding, GridSample, Interpolation, NearestRounding, Resize, ResizeTarget, SampleMode,
};
use kun_graph::{TensorOp, ValueId};
use kun_tensor::Tensor;

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    match call.proto.op_type.as_str() {
        "Resize" if call.version >= 11 => {
            let resize = resize(call)?;
            call.same(TensorOp::Resize(resize))
        }
        // Version 10 of Resize, and Upsample, had scales alone.
        "Resize" | "Upsample" => {
            let scales = match call.floats("scales").map(<[f32]>::to_vec) {
                Some(scales) => call.constant(Tensor::list(scales)),
                None => call.input(1),
            };
            let interpolation = match call.text_or("mode", "nearest")? {
                "nearest" => Interpolation::Nearest(NearestRounding::Floor),
                "linear" | "bilinear" => Interpolation::Linear,
                other => return Err(format!("attribute `mode` is `{other}`")),
            };
            let resize = Resize {
                axes: Vec::new(),
                interpolation,
                coordinates: Coordinates::Asymmetric,
                antialias: false,
                exclude_outside: false,
                extrapolation: 0.0,
                target: ResizeTarget::Stretch,
            };
            let inputs = vec![call.input(0), ValueId::ABSENT, scales];
            call.finish(TensorOp::Resize(resize), inputs)
        }
        "GridSample" => {
            let sample = GridSample {
                mode: match call.text_or("mode", "linear")? {
                    "linear" | "bilinear" => SampleMode::Linear,
                    "nearest" => SampleMode::Nearest,
                    "cubic" | "bicubic" => SampleMode::Cubic,
                    other => return Err(format!("attribute `mode` is `{other}`")),
                },
                padding: match call.text_or("padding_mode", "zeros")? {
                    "zeros" => GridPadding::Zeros,
                    "border" => GridPadding::Border,
                    "reflection" => GridPadding::Reflection,
                    other => return Err(format!("attribute `padding_mode` is `{other}`")),
                },
                align_corners: call.flag("align_corners"),
            };
            call.same(TensorOp::GridSample(sample))
        }
        "AffineGrid" => {
            let align_corners = call.flag("align_corners");
            call.same(TensorOp::AffineGrid { align_corners })
        }
        _ => Ok(false),
    }
}

fn resize(call: &Call<'_, '_>) -> Result<Resize, String> {
    let interpolation = match call.text_or("mode", "nearest")? {
        "nearest" => Interpolation::Nearest(match call.text_or("nearest_mode", "round_prefer_floor")? {
            "round_prefer_floor" => NearestRounding::RoundPreferFloor,
            "round_prefer_ceil" => NearestRounding::RoundPreferCeil,
            "floor" => NearestRounding::Floor,
            "ceil" => NearestRounding::Ceil,
            other => return Err(format!("attribute `nearest_mode` is `{other}`")),
        }),
        "linear" => Interpolation::Linear,
        "cubic" => Interpolation::Cubic { a: call.float_or("cubic_coeff_a", -0.75) },
        other => return Err(format!("attribute `mode` is `{other}`")),
    };
    let coordinates = match call.text_or("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_half_pixel_for_nn" => Coordinates::TfHalfPixelForNearest,
        "tf_crop_and_resize" => Coordinates::TfCropAndResize,
        other => return Err(format!("attribute `coordinate_transformation_mode` is `{other}`")),
    };
    let target = match call.text_or("keep_aspect_ratio_policy", "stretch")? {
        "stretch" => ResizeTarget::Stretch,
        "not_larger" => ResizeTarget::NotLarger,
        "not_smaller" => ResizeTarget::NotSmaller,
        other => return Err(format!("attribute `keep_aspect_ratio_policy` is `{other}`")),
    };
    Ok(Resize {
        axes: call.ints("axes").unwrap_or_default().to_vec(),
        interpolation,
        coordinates,
        antialias: call.flag("antialias"),
        exclude_outside: call.flag("exclude_outside"),
        extrapolation: call.float_or("extrapolation_value", 0.0),
        target,
    })
}
