//! Tensor operations: the finer operators that ONNX files are made of, with their attributes as typed data.
//!
//! One file per family holds the attributes and the rule for the shapes of the results; [`crate::plain`] holds what they
//! compute. Attributes that newer versions of ONNX give as inputs (axes, pads, splits, ..) are always inputs here.

pub mod attention;
pub mod control;
pub mod convolution;
pub mod elementwise;
pub mod fact;
pub mod gather;
pub mod generate;
pub mod layout;
pub mod matmul;
pub mod norm;
pub mod quantize;
pub mod recurrent;
pub mod reduce;
pub mod resize;
pub mod text;

pub use attention::{AttentionAttributes, FlexAttention, LinearAttention, RotaryEmbedding};
pub use control::{Body, Loop, Scan};
pub use convolution::{
    CausalConvolution, Convolution, Geometry, Padding, Pool, PoolKind, RoiAlign, TransposedConvolution,
};
pub use elementwise::{Binary, Cast, Round, Unary, Variadic};
pub use fact::Fact;
pub use gather::{Scatter, TopK};
pub use generate::{Random, Window};
pub use layout::{Blocks, PadMode};
pub use matmul::Gemm;
pub use norm::{BatchNorm, LayerNorm, LocalNorm};
pub use quantize::Quantize;
pub use recurrent::{Cell, Direction, Recurrent};
pub use reduce::{ArgReduce, Cumulate, Loss, LossReduction, Reduce, ReduceKind};
pub use resize::{
    Coordinates, GridPadding, GridSample, Interpolation, NearestRounding, Resize, ResizeTarget, SampleMode,
};

use kun_tensor::{DType, Tensor};
use std::sync::Arc;

/// One tensor operation. Operands and results are those of the newest version of the ONNX operator of the same name;
/// an operand that is left out is [`crate::ValueId::ABSENT`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TensorOp {
    /// `-> value`.
    Constant(Arc<Tensor>),
    /// `x -> x`.
    Identity,

    /// `x -> y`, element by element.
    Unary(Unary),
    /// `a, b -> c` with broadcasting.
    Binary(Binary),
    /// `a, b, .. -> c` with broadcasting.
    Variadic(Variadic),
    /// `x, least?, most? -> y`.
    Clip,
    /// `condition, a, b -> c` with broadcasting.
    Where,
    /// `x -> y`.
    Cast(Cast),
    /// `x, like -> y` in the type of `like`; the `to` of the cast is not used.
    CastLike(Cast),
    /// `x -> y`: the same bits as another type of the same width.
    BitCast(DType),
    /// `x, ratio?, training? -> y, mask`; only without training.
    Dropout,
    /// `gate, up -> y`: `gate * sigmoid(alpha * gate) * up`.
    SwiGlu(f32),

    /// `x, axes? -> y`.
    Reduce(Reduce),
    /// `x -> index i64`.
    ArgReduce(ArgReduce),
    /// `x, axis -> y`: running sums or products.
    Cumulate(Cumulate),
    /// `x -> y` along an axis.
    Softmax {
        /// The axis, negative from the end.
        axis: i64,
    },
    /// `x -> y` along an axis.
    LogSoftmax {
        /// The axis, negative from the end.
        axis: i64,
    },
    /// `x -> y`: 1 at the first largest element along an axis, 0 elsewhere.
    Hardmax {
        /// The axis, negative from the end.
        axis: i64,
    },
    /// Before version 13: `x` as a matrix of the dimensions before and from `axis` on, then along its rows.
    SoftmaxFlat {
        /// Where the rows start.
        axis: i64,
        /// What is done along a row.
        kind: SoftmaxKind,
    },
    /// `x -> y`: divided by the L1 or L2 norm along an axis.
    LpNormalize {
        /// The axis.
        axis: i64,
        /// 1 or 2.
        p: i64,
    },
    /// `x -> y`: mean 0 and variance 1 over the axes.
    MeanVariance {
        /// The axes.
        axes: Vec<i64>,
    },
    /// `x [.., n, n] -> [..]`: determinants.
    Determinant,
    /// `x, target, weight? -> loss`: negative log likelihood.
    NegativeLogLikelihood(Loss),
    /// `scores, labels, weight? -> loss, log_prob`.
    SoftmaxCrossEntropy(Loss),

    /// `a, b -> a @ b` as NumPy's `matmul`.
    MatMul,
    /// `a, b, c? -> alpha * a @ b + beta * c`.
    Gemm(Gemm),
    /// `a, b, a_zero?, b_zero? -> i32`.
    MatMulInteger,
    /// `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero -> y`.
    QLinearMatMul,
    /// `a, packed, scales, zero_points?, group_index?, bias? -> y`: weights in blocks of a few bits (com.microsoft).
    MatMulNBits(matmul::NBits),
    /// `a, b, .. -> y`.
    Einsum(String),

    /// `x, w, bias? -> y`.
    Conv(Convolution),
    /// `x, w, bias? -> y`.
    ConvTranspose(TransposedConvolution),
    /// `x, w, x_zero?, w_zero? -> i32`.
    ConvInteger(Convolution),
    /// `x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias? -> y`.
    QLinearConv(Convolution),
    /// `x, w, offset, bias?, mask? -> y`.
    DeformConv {
        /// Window, padding, groups.
        convolution: Convolution,
        /// Groups of channels that share offsets.
        offset_groups: usize,
    },
    /// `x, w, bias?, past? -> y, state`.
    CausalConv(CausalConvolution),
    /// `columns, image_shape, block_shape -> image`.
    Col2Im(Convolution),
    /// `x -> y (, indices i64 for a maximum)`.
    Pool(Pool),
    /// `x -> y`: over all spatial dimensions.
    GlobalPool(PoolKind),
    /// `x, indices, shape? -> y`.
    MaxUnpool(Pool),
    /// `x, regions, batch_indices -> y`.
    RoiAlign(RoiAlign),

    /// `x, scale, bias, mean, variance -> y`.
    BatchNorm(BatchNorm),
    /// `x, scale, bias -> y`: over the spatial dimensions of each channel.
    InstanceNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// `x, scale, bias -> y`: over groups of channels.
    GroupNorm {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        epsilon: f32,
    },
    /// `x, scale, bias? -> y, mean, inverse_deviation`.
    LayerNorm(LayerNorm),
    /// `x, scale -> y (, inverse of the root)`.
    RmsNorm(LayerNorm),
    /// `x -> y`: local response normalisation over channels.
    LocalNorm(LocalNorm),

    /// `x, shape -> y`.
    Reshape {
        /// Whether a 0 is a dimension of 0 rather than a copy.
        allow_zero: bool,
    },
    /// `x -> y`: a matrix of the dimensions before and from `axis` on.
    Flatten {
        /// Where the second dimension starts.
        axis: i64,
    },
    /// `x, axes? -> y`.
    Squeeze,
    /// `x, axes -> y`.
    Unsqueeze,
    /// `x -> y`; an empty permutation reverses.
    Transpose(Vec<usize>),
    /// `a, b, .. -> y`.
    Concat {
        /// The axis.
        axis: i64,
    },
    /// `x, lengths? -> y_0, y_1, ..`; without lengths, as many equal parts as there are results.
    Split {
        /// The axis.
        axis: i64,
    },
    /// `x, starts, ends, axes?, steps? -> y`.
    Slice,
    /// `x, shape -> y`.
    Expand,
    /// `x, repeats -> y`.
    Tile,
    /// `x, pads, value?, axes? -> y`.
    Pad(PadMode),
    /// `x -> y`.
    DepthToSpace(Blocks),
    /// `x -> y`.
    SpaceToDepth(Blocks),
    /// `x -> shape i64`.
    Shape {
        /// First dimension.
        start: i64,
        /// After the last one.
        end: Option<i64>,
    },
    /// `x -> number of elements i64`.
    Size,
    /// `x, shape -> y`.
    CenterCropPad {
        /// Which dimensions the shape names; all if empty.
        axes: Vec<i64>,
    },
    /// `x, lengths -> y`.
    ReverseSequence {
        /// The dimension that is reversed.
        time_axis: usize,
        /// The dimension of the lengths.
        batch_axis: usize,
    },
    /// `x, k? -> y`: a triangle kept.
    Triangle {
        /// Which one.
        upper: bool,
    },

    /// `x, indices -> y`.
    Gather {
        /// The axis.
        axis: i64,
    },
    /// `x, indices -> y`.
    GatherElements {
        /// The axis.
        axis: i64,
    },
    /// `x, indices -> y`.
    GatherNd {
        /// Leading dimensions that both share.
        batch_dims: usize,
    },
    /// `x, indices, updates -> y`.
    ScatterElements {
        /// The axis.
        axis: i64,
        /// What happens to the element that is there.
        reduction: Scatter,
    },
    /// `x, indices, updates -> y`.
    ScatterNd(Scatter),
    /// `past, update, start? -> present`.
    TensorScatter {
        /// The axis.
        axis: i64,
        /// Whether positions wrap.
        circular: bool,
    },
    /// `indices, depth, values -> y`.
    OneHot {
        /// Where the new dimension goes.
        axis: i64,
    },
    /// `x, condition -> y`.
    Compress {
        /// The axis; the flat tensor if none.
        axis: Option<i64>,
    },
    /// `x -> indices i64 [rank, n]`.
    NonZero,
    /// `x -> values, first, inverse, counts`.
    Unique {
        /// The axis; the flat tensor if none.
        axis: Option<i64>,
        /// By value rather than by first appearance.
        sorted: bool,
    },
    /// `x, k -> values, indices i64`.
    TopK(TopK),
    /// `boxes [N, B, 4], scores [N, C, B], most?, iou?, score? -> selected i64 [n, 3]`.
    NonMaxSuppression {
        /// Boxes are centre and size rather than two corners.
        center_point_box: bool,
    },

    /// `shape -> y`.
    ConstantOfShape(Arc<Tensor>),
    /// `start, limit, delta -> y`.
    Range,
    /// `like -> y`: ones on a diagonal.
    EyeLike {
        /// Element type; that of the operand if none.
        dtype: Option<DType>,
        /// Which diagonal.
        k: i64,
    },
    /// `(like | probabilities | nothing) -> y`.
    Random(Random),
    /// `size -> y`.
    Window(Window),
    /// `bins, spectrum_length, rate, low, high -> y`.
    MelWeights(DType),
    /// `x, length?, axis? -> y`.
    Dft {
        /// Inverse transform.
        inverse: bool,
        /// Only the non-redundant half.
        onesided: bool,
    },
    /// `signal, step, window?, length? -> y`.
    Stft {
        /// Only the non-redundant half.
        onesided: bool,
    },

    /// `x, scale, zero? -> y`.
    QuantizeLinear(Quantize),
    /// `x, scale, zero? -> y`.
    DequantizeLinear(Quantize),
    /// `x -> y u8, scale, zero`.
    DynamicQuantizeLinear,

    /// `x, region?, scales?, sizes? -> y`.
    Resize(Resize),
    /// `x, grid -> y`.
    GridSample(GridSample),
    /// `theta, size -> grid`.
    AffineGrid {
        /// Whether -1 and 1 are the centres of the outer pixels rather than their outer edges.
        align_corners: bool,
    },

    /// `q, k, v, mask?, past_key?, past_value?, valid_keys?, key_mask? -> y, key, value, scores`; the key mask holds lengths
    /// `[N]` or is 0 where a key `[N, L]` is hidden.
    Attention(AttentionAttributes),
    /// `q, k, v -> y` with graphs between.
    FlexAttention(Box<FlexAttention>),
    /// `q, k, v, past?, decay?, beta? -> y, state`.
    LinearAttention(LinearAttention),
    /// `x, cosines, sines, positions? -> y`.
    RotaryEmbedding(RotaryEmbedding),

    /// `x, w, r, bias?, lengths?, h?, c?, peepholes? -> y, h, c`.
    Recurrent(Recurrent),

    /// `condition, captured.. -> results..`.
    If {
        /// When true.
        then: Box<Body>,
        /// When false.
        otherwise: Box<Body>,
    },
    /// `trips?, condition?, carried.., captured.. -> carried.., collected..`.
    Loop(Box<Loop>),
    /// `states.., scanned.., captured.. -> states.., collected..`.
    Scan(Box<Scan>),
    /// `a, b, .. -> sequence`.
    SequenceConstruct,
    /// `-> sequence`.
    SequenceEmpty,
    /// `sequence, item, position? -> sequence`.
    SequenceInsert,
    /// `sequence, position? -> sequence`.
    SequenceErase,
    /// `sequence, position -> item`.
    SequenceAt,
    /// `sequence -> length i64`.
    SequenceLength,
    /// `x, lengths? -> sequence`.
    SplitToSequence {
        /// The axis.
        axis: i64,
        /// Whether parts of length 1 keep the axis.
        keep_dims: bool,
    },
    /// `sequence -> y`.
    ConcatFromSequence {
        /// The axis.
        axis: i64,
        /// Whether the axis is new.
        new_axis: bool,
    },
    /// `sequence, others.., captured.. -> sequences`.
    SequenceMap(Box<Body>),
    /// `x? -> optional`.
    Optional,
    /// `optional -> x`.
    OptionalGet,
    /// `optional? -> bool`.
    OptionalHas,

    /// Operations on text.
    Text(text::TextOp),
}

/// What [`TensorOp::SoftmaxFlat`] does along a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SoftmaxKind {
    Softmax,
    LogSoftmax,
    Hardmax,
}

/// What is known of the results of `op`, of which there are `results`, from what is known of its operands.
///
/// A result whose shape depends on data is [`Fact::Unknown`].
///
/// # Errors
/// What does not fit, with the numbers.
pub fn infer(op: &TensorOp, operands: &[Fact], results: usize) -> Result<Vec<Fact>, String> {
    let x = fact::Facts(operands);
    let mut facts = match op {
        // The number of results decides how long they are.
        TensorOp::Split { axis } if !x.has(1) => match x.shape(0) {
            Some(shape) => layout::split_facts(&x, shape, *axis, None, results)?,
            None => Vec::new(),
        },
        _ => infer_known(op, &x)?,
    };
    facts.resize(results, Fact::Unknown);
    Ok(facts)
}

fn infer_known(op: &TensorOp, x: &fact::Facts<'_>) -> Result<Vec<Fact>, String> {
    match op {
        TensorOp::Constant(tensor) => Ok(vec![Fact::Known(Arc::clone(tensor))]),
        TensorOp::Identity
        | TensorOp::Unary(_)
        | TensorOp::Binary(_)
        | TensorOp::Variadic(_)
        | TensorOp::Clip
        | TensorOp::Where
        | TensorOp::Cast(_)
        | TensorOp::CastLike(_)
        | TensorOp::BitCast(_)
        | TensorOp::Dropout
        | TensorOp::SwiGlu(_) => elementwise::infer(op, x),
        TensorOp::Reduce(_)
        | TensorOp::ArgReduce(_)
        | TensorOp::Cumulate(_)
        | TensorOp::Softmax { .. }
        | TensorOp::LogSoftmax { .. }
        | TensorOp::Hardmax { .. }
        | TensorOp::SoftmaxFlat { .. }
        | TensorOp::LpNormalize { .. }
        | TensorOp::MeanVariance { .. }
        | TensorOp::Determinant
        | TensorOp::NegativeLogLikelihood(_)
        | TensorOp::SoftmaxCrossEntropy(_) => reduce::infer(op, x),
        TensorOp::MatMul
        | TensorOp::Gemm(_)
        | TensorOp::MatMulInteger
        | TensorOp::QLinearMatMul
        | TensorOp::MatMulNBits(_)
        | TensorOp::Einsum(_) => matmul::infer(op, x),
        TensorOp::Conv(_)
        | TensorOp::ConvTranspose(_)
        | TensorOp::ConvInteger(_)
        | TensorOp::QLinearConv(_)
        | TensorOp::DeformConv { .. }
        | TensorOp::CausalConv(_)
        | TensorOp::Col2Im(_)
        | TensorOp::Pool(_)
        | TensorOp::GlobalPool(_)
        | TensorOp::MaxUnpool(_)
        | TensorOp::RoiAlign(_) => convolution::infer(op, x),
        TensorOp::BatchNorm(_)
        | TensorOp::InstanceNorm { .. }
        | TensorOp::GroupNorm { .. }
        | TensorOp::LayerNorm(_)
        | TensorOp::RmsNorm(_)
        | TensorOp::LocalNorm(_) => norm::infer(op, x),
        TensorOp::Reshape { .. }
        | TensorOp::Flatten { .. }
        | TensorOp::Squeeze
        | TensorOp::Unsqueeze
        | TensorOp::Transpose(_)
        | TensorOp::Concat { .. }
        | TensorOp::Slice
        | TensorOp::Expand
        | TensorOp::Tile
        | TensorOp::Pad(_)
        | TensorOp::DepthToSpace(_)
        | TensorOp::SpaceToDepth(_)
        | TensorOp::Shape { .. }
        | TensorOp::Size
        | TensorOp::CenterCropPad { .. }
        | TensorOp::ReverseSequence { .. }
        | TensorOp::Triangle { .. }
        | TensorOp::Split { .. } => layout::infer(op, x),
        TensorOp::Gather { .. }
        | TensorOp::GatherElements { .. }
        | TensorOp::GatherNd { .. }
        | TensorOp::ScatterElements { .. }
        | TensorOp::ScatterNd(_)
        | TensorOp::TensorScatter { .. }
        | TensorOp::OneHot { .. }
        | TensorOp::TopK(_) => gather::infer(op, x),
        TensorOp::ConstantOfShape(_) | TensorOp::EyeLike { .. } | TensorOp::Random(_) => {
            generate::infer(op, x)
        }
        TensorOp::QuantizeLinear(_) | TensorOp::DequantizeLinear(_) | TensorOp::DynamicQuantizeLinear => {
            quantize::infer(op, x)
        }
        TensorOp::Resize(_) | TensorOp::GridSample(_) | TensorOp::AffineGrid { .. } => resize::infer(op, x),
        TensorOp::Attention(_) | TensorOp::RotaryEmbedding(_) => attention::infer(op, x),
        TensorOp::Recurrent(recurrent) => Ok(recurrent.infer(x)),
        _ => Ok(Vec::new()),
    }
}
