//! Every tensor operation as its definition says, for every element type: the oracle of faster forms, and what runs where
//! there is none.

mod attention;
mod control;
mod convolution;
mod detect;
mod elementwise;
pub(crate) use elementwise::widened;
mod gather;
mod generate;
mod layout;
pub(crate) use layout::pad_places;
mod losses;
mod matmul;
mod norm;
mod number;
mod pool;
mod quantize;
pub(crate) use quantize::dequantize;
mod recurrent;
mod reduce;
mod resize;
mod signal;
mod text;

use crate::backend::WeightSource;
use crate::graph::{Graph, Node, Op, ValueId, WeightInfo};
use crate::ops::{self, Fact, TensorOp};
use kun_tensor::{DType, Element, Elements, Tensor};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

pub(crate) use resize::{GridTaps, axis_taps as resize_taps, grid_taps};

/// A value while a graph runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// A tensor.
    Tensor(Arc<Tensor>),
    /// A sequence.
    Sequence(Vec<Datum>),
    /// An optional value that is not there.
    Nothing,
}

impl Datum {
    /// The tensor, if it is one.
    pub fn tensor(&self) -> Option<&Arc<Tensor>> {
        match self {
            Datum::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

impl From<Tensor> for Datum {
    fn from(tensor: Tensor) -> Datum {
        Datum::Tensor(Arc::new(tensor))
    }
}

/// Weights that were read, by name.
#[derive(Debug, Default)]
pub(crate) struct WeightCache(Mutex<HashMap<String, Arc<Tensor>>>);

/// What operations need beside their operands.
pub(crate) struct Context<'a> {
    pub(crate) weights: &'a dyn WeightSource,
    cache: Option<&'a WeightCache>,
    max_bytes: usize,
}

impl<'a> Context<'a> {
    pub(crate) fn new(weights: &'a dyn WeightSource, max_bytes: usize) -> Context<'a> {
        Context { weights, cache: None, max_bytes }
    }

    pub(crate) fn with_cache(
        weights: &'a dyn WeightSource,
        max_bytes: usize,
        cache: &'a WeightCache,
    ) -> Context<'a> {
        Context { weights, cache: Some(cache), max_bytes }
    }

    /// A weight as a tensor, kept where there is a cache.
    pub(crate) fn weight(&self, info: &WeightInfo) -> Result<Arc<Tensor>, String> {
        let cached = |cache: &WeightCache| cache.0.lock().ok()?.get(&info.name).cloned();
        if let Some(tensor) = self.cache.and_then(cached) {
            return Ok(tensor);
        }
        let tensor = Arc::new(self.read(info)?);
        if let Some(cache) = self.cache
            && let Ok(mut cache) = cache.0.lock()
        {
            cache.insert(info.name.clone(), Arc::clone(&tensor));
        }
        Ok(tensor)
    }

    fn read(&self, info: &WeightInfo) -> Result<Tensor, String> {
        let misfit = |e: kun_tensor::ShapeError| e.to_string();
        if let Some(values) = &info.constant {
            return Tensor::f32(info.shape.clone(), values.to_vec()).map_err(misfit);
        }
        let rows = if info.shape.len() < 2 { 1 } else { info.shape[0] };
        let bytes = self.weights.rows(&info.name, 0..rows).map_err(|e| e.to_string())?;
        let elements = Elements::from_le_bytes(info.dtype, &bytes)
            .ok_or_else(|| format!("weight `{}` of {} bytes is no {}", info.name, bytes.len(), info.dtype))?;
        Tensor::new(info.shape.clone(), elements).map_err(misfit)
    }

    /// Refuses results that are too large, as far as that shows before they are made.
    fn check(&self, op: &TensorOp, operands: &[Option<Arc<Tensor>>], results: usize) -> Result<(), String> {
        let facts: Vec<Fact> = operands
            .iter()
            .map(|tensor| tensor.as_ref().map_or(Fact::Absent, |t| Fact::Known(Arc::clone(t))))
            .collect();
        for fact in ops::infer(op, &facts, results)? {
            if let (Some(shape), Some(dtype)) = (fact.shape(), fact.dtype()) {
                self.check_size(ops::fact::count(shape)?, dtype)?;
            }
        }
        Ok(())
    }

    pub(crate) fn check_size(&self, elements: usize, dtype: DType) -> Result<(), String> {
        let bytes = elements.saturating_mul(dtype.block_bytes().max(1));
        if bytes > self.max_bytes {
            return Err(format!("a result of {bytes} bytes, limit {}", self.max_bytes));
        }
        Ok(())
    }
}

/// The operands of an operation.
pub(crate) struct Args<'a>(&'a [Option<Arc<Tensor>>]);

impl<'a> Args<'a> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Operand `i`, if it is there.
    pub(crate) fn optional(&self, i: usize) -> Option<&'a Tensor> {
        self.0.get(i).and_then(Option::as_deref)
    }

    /// Operand `i`.
    pub(crate) fn get(&self, i: usize) -> Result<&'a Tensor, String> {
        self.optional(i).ok_or_else(|| format!("operand {i} is missing"))
    }

    /// All operands.
    pub(crate) fn all(&self) -> Result<Vec<&'a Tensor>, String> {
        (0..self.len()).map(|i| self.get(i)).collect()
    }

    /// The integers of operand `i`.
    pub(crate) fn i64s(&self, i: usize) -> Result<Vec<i64>, String> {
        integers(self.get(i)?)
    }

    /// The integers of operand `i`, if it is there.
    pub(crate) fn optional_i64s(&self, i: usize) -> Result<Option<Vec<i64>>, String> {
        self.optional(i).map(integers).transpose()
    }

    /// The one number of operand `i`.
    pub(crate) fn number(&self, i: usize) -> Result<f64, String> {
        match f64s(self.get(i)?)?[..] {
            [value] => Ok(value),
            _ => Err(format!("operand {i} is not one number")),
        }
    }

    /// The one number of operand `i`, if it is there.
    pub(crate) fn optional_number(&self, i: usize) -> Result<Option<f64>, String> {
        if self.optional(i).is_some() { self.number(i).map(Some) } else { Ok(None) }
    }

    /// The one integer of operand `i`.
    pub(crate) fn integer(&self, i: usize) -> Result<i64, String> {
        match self.i64s(i)?[..] {
            [value] => Ok(value),
            _ => Err(format!("operand {i} is not one integer")),
        }
    }
}

fn integers(tensor: &Tensor) -> Result<Vec<i64>, String> {
    ops::fact::integers(tensor.elements())
        .ok_or_else(|| format!("{} where integers are needed", tensor.dtype()))
}

/// All elements as f64.
pub(crate) fn f64s(tensor: &Tensor) -> Result<Vec<f64>, String> {
    tensor.elements().to_f64().ok_or_else(|| "text where numbers are needed".to_owned())
}

/// All elements as f32.
pub(crate) fn f32s(tensor: &Tensor) -> Result<Vec<f32>, String> {
    tensor.elements().to_f32().ok_or_else(|| "text where numbers are needed".to_owned())
}

/// A tensor whose elements fill the shape by construction.
pub(crate) fn tensor(shape: impl Into<Vec<usize>>, elements: Elements) -> Result<Tensor, String> {
    Tensor::new(shape, elements).map_err(|e| e.to_string())
}

/// A tensor of `dtype` with the values rounded to it.
pub(crate) fn from_f32(
    shape: impl Into<Vec<usize>>,
    values: Vec<f32>,
    dtype: DType,
) -> Result<Tensor, String> {
    let values = Elements::F32(values);
    tensor(shape, if dtype == DType::F32 { values } else { elementwise::cast_to(&values, dtype)? })
}

/// [`from_f32`] from f64.
pub(crate) fn from_f64(
    shape: impl Into<Vec<usize>>,
    values: Vec<f64>,
    dtype: DType,
) -> Result<Tensor, String> {
    let values = Elements::F64(values);
    tensor(shape, if dtype == DType::F64 { values } else { elementwise::cast_to(&values, dtype)? })
}

/// The elements of a tensor that must be of type `T`.
pub(crate) fn values<T: Element>(tensor: &Tensor) -> Result<&[T], String> {
    tensor.values().ok_or_else(|| format!("{} where {} is needed", tensor.dtype(), T::DTYPE))
}

/// The one truth value of a condition.
pub(crate) fn truth(condition: &Tensor) -> Result<bool, String> {
    match condition.elements() {
        Elements::Bool(values) if values.len() == 1 => Ok(values[0]),
        _ => Err(format!("a condition of {} {:?}", condition.dtype(), condition.shape())),
    }
}

/// Whether an operation holds graphs or works on values that are no tensors.
pub(crate) fn needs_interpreter(op: &TensorOp) -> bool {
    matches!(
        op,
        TensorOp::If { .. }
            | TensorOp::Loop(_)
            | TensorOp::Scan(_)
            | TensorOp::FlexAttention(_)
            | TensorOp::SequenceConstruct
            | TensorOp::SequenceEmpty
            | TensorOp::SequenceInsert
            | TensorOp::SequenceErase
            | TensorOp::SequenceAt
            | TensorOp::SequenceLength
            | TensorOp::SplitToSequence { .. }
            | TensorOp::ConcatFromSequence { .. }
            | TensorOp::SequenceMap(_)
            | TensorOp::Optional
            | TensorOp::OptionalGet
            | TensorOp::OptionalHas
    )
}

/// The results of an operation on tensors, at least `results` of them.
///
/// # Errors
/// What does not fit, with the numbers.
pub(crate) fn run(
    op: &TensorOp,
    operands: &[Option<Arc<Tensor>>],
    results: usize,
    context: &Context<'_>,
) -> Result<Vec<Tensor>, String> {
    context.check(op, operands, results)?;
    let x = Args(operands);
    let one = |tensor: Result<Tensor, String>| tensor.map(|tensor| vec![tensor]);
    match op {
        TensorOp::Constant(tensor) => Ok(vec![Tensor::clone(tensor)]),
        TensorOp::Identity => Ok(vec![x.get(0)?.clone()]),
        TensorOp::Unary(op) => one(elementwise::unary(*op, x.get(0)?)),
        TensorOp::Binary(op) => one(elementwise::binary(*op, x.get(0)?, x.get(1)?)),
        TensorOp::Variadic(op) => one(elementwise::variadic(*op, &x.all()?)),
        TensorOp::Clip => one(elementwise::clip(x.get(0)?, x.optional(1), x.optional(2))),
        TensorOp::Where => one(elementwise::select(x.get(0)?, x.get(1)?, x.get(2)?)),
        TensorOp::Cast(cast) => one(elementwise::cast(x.get(0)?, cast)),
        TensorOp::CastLike(cast) => {
            one(elementwise::cast(x.get(0)?, &ops::Cast { to: x.get(1)?.dtype(), ..*cast }))
        }
        TensorOp::BitCast(to) => one(elementwise::bit_cast(x.get(0)?, *to)),
        TensorOp::Dropout => elementwise::dropout(&x),
        TensorOp::SwiGlu(alpha) => one(elementwise::swiglu(*alpha, x.get(0)?, x.get(1)?)),

        TensorOp::Reduce(reduce) => one(reduce::reduce(reduce, x.get(0)?, x.optional_i64s(1)?.as_deref())),
        TensorOp::ArgReduce(arg) => one(reduce::arg(arg, x.get(0)?)),
        TensorOp::Cumulate(cumulate) => one(reduce::cumulate(cumulate, x.get(0)?, x.integer(1)?)),
        TensorOp::Softmax { axis } => one(reduce::softmax(x.get(0)?, *axis, ops::SoftmaxKind::Softmax)),
        TensorOp::LogSoftmax { axis } => one(reduce::softmax(x.get(0)?, *axis, ops::SoftmaxKind::LogSoftmax)),
        TensorOp::Hardmax { axis } => one(reduce::softmax(x.get(0)?, *axis, ops::SoftmaxKind::Hardmax)),
        TensorOp::SoftmaxFlat { axis, kind } => one(reduce::softmax_flat(x.get(0)?, *axis, *kind)),
        TensorOp::LpNormalize { axis, p } => one(reduce::lp_normalize(x.get(0)?, *axis, *p)),
        TensorOp::MeanVariance { axes } => one(norm::mean_variance(x.get(0)?, axes)),
        TensorOp::Determinant => one(matmul::determinant(x.get(0)?)),
        TensorOp::NegativeLogLikelihood(loss) => {
            one(losses::negative_log_likelihood(loss, x.get(0)?, x.get(1)?, x.optional(2)))
        }
        TensorOp::SoftmaxCrossEntropy(loss) => {
            losses::softmax_cross_entropy(loss, x.get(0)?, x.get(1)?, x.optional(2))
        }

        TensorOp::MatMul => one(matmul::matmul(x.get(0)?, x.get(1)?)),
        TensorOp::Gemm(gemm) => one(matmul::gemm(gemm, x.get(0)?, x.get(1)?, x.optional(2))),
        TensorOp::MatMulInteger => one(matmul::matmul_integer(&x)),
        TensorOp::QLinearMatMul => one(matmul::qlinear_matmul(&x)),
        TensorOp::MatMulNBits(bits) => one(matmul::matmul_nbits(bits, &x)),
        TensorOp::Einsum(equation) => one(matmul::einsum(equation, &x.all()?)),

        TensorOp::Conv(conv) => one(convolution::conv(conv, x.get(0)?, x.get(1)?, x.optional(2))),
        TensorOp::ConvTranspose(conv) => {
            one(convolution::transposed(conv, x.get(0)?, x.get(1)?, x.optional(2)))
        }
        TensorOp::ConvInteger(conv) => one(convolution::integer(conv, &x)),
        TensorOp::QLinearConv(conv) => one(convolution::qlinear(conv, &x)),
        TensorOp::DeformConv { convolution, offset_groups } => {
            one(convolution::deformable(convolution, *offset_groups, &x))
        }
        TensorOp::CausalConv(causal) => convolution::causal(causal, &x),
        TensorOp::Col2Im(conv) => one(convolution::col2im(conv, &x, context)),
        TensorOp::Pool(pool) => pool::pool(pool, x.get(0)?),
        TensorOp::GlobalPool(kind) => one(pool::global(*kind, x.get(0)?)),
        TensorOp::MaxUnpool(pool) => one(pool::max_unpool(pool, &x, context)),
        TensorOp::RoiAlign(roi) => one(detect::roi_align(roi, &x)),

        TensorOp::BatchNorm(norm) => norm::batch(norm, &x),
        TensorOp::InstanceNorm { epsilon } => one(norm::instance(*epsilon, x.get(0)?, x.get(1)?, x.get(2)?)),
        TensorOp::GroupNorm { groups, epsilon } => {
            one(norm::group(*groups, *epsilon, x.get(0)?, x.get(1)?, x.get(2)?))
        }
        TensorOp::LayerNorm(norm) => norm::layer(norm, x.get(0)?, x.get(1)?, x.optional(2)),
        TensorOp::RmsNorm(norm) => norm::rms(norm, x.get(0)?, x.get(1)?),
        TensorOp::LocalNorm(norm) => one(norm::local(norm, x.get(0)?)),

        TensorOp::Reshape { allow_zero } => one(layout::reshape(x.get(0)?, &x.i64s(1)?, *allow_zero)),
        TensorOp::Flatten { axis } => one(layout::flatten(x.get(0)?, *axis)),
        TensorOp::Squeeze => one(layout::squeeze(x.get(0)?, x.optional_i64s(1)?.as_deref())),
        TensorOp::Unsqueeze => one(layout::unsqueeze(x.get(0)?, &x.i64s(1)?)),
        TensorOp::Transpose(axes) => one(layout::transpose(x.get(0)?, axes)),
        TensorOp::Concat { axis } => one(layout::concat(&x.all()?, *axis)),
        TensorOp::Split { axis } => layout::split(x.get(0)?, *axis, x.optional_i64s(1)?.as_deref(), results),
        TensorOp::Slice => one(layout::slice(&x)),
        TensorOp::Expand => one(layout::expand(x.get(0)?, &x.i64s(1)?)),
        TensorOp::Tile => one(layout::tile(x.get(0)?, &x.i64s(1)?)),
        TensorOp::Pad(mode) => one(layout::pad(*mode, &x)),
        TensorOp::DepthToSpace(blocks) => one(layout::depth_to_space(blocks, x.get(0)?)),
        TensorOp::SpaceToDepth(blocks) => one(layout::space_to_depth(blocks, x.get(0)?)),
        TensorOp::Shape { start, end } => Ok(vec![layout::shape(x.get(0)?, *start, *end)]),
        TensorOp::Size => Ok(vec![Tensor::scalar(x.get(0)?.elements().len() as i64)]),
        TensorOp::CenterCropPad { axes } => one(layout::center_crop_pad(x.get(0)?, &x.i64s(1)?, axes)),
        TensorOp::ReverseSequence { time_axis, batch_axis } => {
            one(layout::reverse_sequence(x.get(0)?, &x.i64s(1)?, *time_axis, *batch_axis))
        }
        TensorOp::Triangle { upper } => {
            let k = if x.optional(1).is_some() { x.integer(1)? } else { 0 };
            one(layout::triangle(x.get(0)?, k, *upper))
        }

        TensorOp::Gather { axis } => one(gather::gather(x.get(0)?, x.get(1)?, *axis)),
        TensorOp::GatherElements { axis } => one(gather::gather_elements(x.get(0)?, x.get(1)?, *axis)),
        TensorOp::GatherNd { batch_dims } => one(gather::gather_nd(x.get(0)?, x.get(1)?, *batch_dims)),
        TensorOp::ScatterElements { axis, reduction } => {
            one(gather::scatter_elements(x.get(0)?, x.get(1)?, x.get(2)?, *axis, *reduction))
        }
        TensorOp::ScatterNd(reduction) => {
            one(gather::scatter_nd(x.get(0)?, x.get(1)?, x.get(2)?, *reduction))
        }
        TensorOp::TensorScatter { axis, circular } => {
            let starts = x.optional_i64s(2)?;
            one(gather::tensor_scatter(x.get(0)?, x.get(1)?, starts.as_deref(), *axis, *circular))
        }
        TensorOp::OneHot { axis } => one(gather::one_hot(&x, *axis)),
        TensorOp::Compress { axis } => one(gather::compress(x.get(0)?, x.get(1)?, *axis)),
        TensorOp::NonZero => one(gather::non_zero(x.get(0)?)),
        TensorOp::Unique { axis, sorted } => gather::unique(x.get(0)?, *axis, *sorted),
        TensorOp::TopK(top) => gather::top_k(top, x.get(0)?, &x.i64s(1)?),
        TensorOp::NonMaxSuppression { center_point_box } => {
            one(detect::non_max_suppression(&x, *center_point_box))
        }

        TensorOp::ConstantOfShape(value) => one(generate::constant_of_shape(value, &x.i64s(0)?)),
        TensorOp::Range => one(generate::range(&x, context)),
        TensorOp::EyeLike { dtype, k } => one(generate::eye(x.get(0)?, *dtype, *k)),
        TensorOp::Random(random) => one(generate::random(random, x.optional(0))),
        TensorOp::Window(window) => one(signal::window(window, x.integer(0)?, context)),
        TensorOp::MelWeights(dtype) => one(signal::mel_weights(*dtype, &x, context)),
        TensorOp::Dft { inverse, onesided } => one(signal::dft(&x, *inverse, *onesided, context)),
        TensorOp::Stft { onesided } => one(signal::stft(&x, *onesided, context)),

        TensorOp::QuantizeLinear(quantize) => {
            one(quantize::quantize(quantize, x.get(0)?, x.get(1)?, x.optional(2)))
        }
        TensorOp::DequantizeLinear(quantize) => {
            one(dequantize(quantize, x.get(0)?, x.get(1)?, x.optional(2)))
        }
        TensorOp::DynamicQuantizeLinear => quantize::dynamic(x.get(0)?),

        TensorOp::Resize(resize) => one(resize::resize(resize, &x)),
        TensorOp::GridSample(sample) => one(resize::grid_sample(sample, x.get(0)?, x.get(1)?)),
        TensorOp::AffineGrid { align_corners } => {
            one(resize::affine_grid(x.get(0)?, &x.i64s(1)?, *align_corners))
        }

        TensorOp::Attention(attributes) => attention::attention(attributes, &x, results),
        TensorOp::LinearAttention(attributes) => attention::linear(attributes, &x),
        TensorOp::RotaryEmbedding(rotary) => one(attention::rotary(rotary, &x)),
        TensorOp::Recurrent(recurrent) => recurrent::run(recurrent, &x),
        TensorOp::Text(op) => text::run(op, &x),

        TensorOp::If { .. }
        | TensorOp::Loop(_)
        | TensorOp::Scan(_)
        | TensorOp::FlexAttention(_)
        | TensorOp::SequenceConstruct
        | TensorOp::SequenceEmpty
        | TensorOp::SequenceInsert
        | TensorOp::SequenceErase
        | TensorOp::SequenceAt
        | TensorOp::SequenceLength
        | TensorOp::SplitToSequence { .. }
        | TensorOp::ConcatFromSequence { .. }
        | TensorOp::SequenceMap(_)
        | TensorOp::Optional
        | TensorOp::OptionalGet
        | TensorOp::OptionalHas => Err("an operation on more than tensors".to_owned()),
    }
}

/// Runs one node of `graph` on `values`.
///
/// # Errors
/// What does not fit, with the numbers.
pub(crate) fn step(
    graph: &Graph,
    node: &Node,
    values: &mut [Option<Datum>],
    context: &Context<'_>,
) -> Result<(), String> {
    let operand = |id: &ValueId| -> Option<&Datum> { values.get(id.0 as usize).and_then(Option::as_ref) };
    let results: Vec<Datum> = match &node.op {
        Op::Weight(weight) => vec![Datum::Tensor(context.weight(graph.weight(*weight))?)],
        Op::Tensor(TensorOp::Constant(tensor)) => vec![Datum::Tensor(Arc::clone(tensor))],
        Op::Tensor(TensorOp::Identity) => vec![operand(&node.inputs[0]).cloned().ok_or("no operand")?],
        Op::Tensor(op) if needs_interpreter(op) => {
            let operands: Vec<Option<&Datum>> = node.inputs.iter().map(operand).collect();
            control::run(op, &operands, node.outputs.len(), context)?
        }
        Op::Tensor(op) => {
            let mut operands = Vec::with_capacity(node.inputs.len());
            for id in &node.inputs {
                operands.push(match operand(id) {
                    Some(Datum::Tensor(tensor)) => Some(Arc::clone(tensor)),
                    Some(Datum::Sequence(_)) => return Err("a sequence where a tensor is needed".into()),
                    Some(Datum::Nothing) | None => None,
                });
            }
            run(op, &operands, node.outputs.len(), context)?.into_iter().map(Datum::from).collect()
        }
        _ => return Err("an operation of another kind of program".into()),
    };
    if results.len() < node.outputs.len() {
        return Err(format!("{} results are computed, {} wanted", results.len(), node.outputs.len()));
    }
    for (&id, datum) in node.outputs.iter().zip(results) {
        values[id.0 as usize] = Some(datum);
    }
    Ok(())
}

/// Runs a whole graph, node after node.
///
/// # Errors
/// What does not fit, with the node's name.
pub(crate) fn run_graph(
    graph: &Graph,
    inputs: impl IntoIterator<Item = Option<Datum>>,
    context: &Context<'_>,
) -> Result<Vec<Datum>, String> {
    let mut values: Vec<Option<Datum>> = vec![None; graph.values.len()];
    for (&id, datum) in graph.inputs.iter().zip(inputs) {
        values[id.0 as usize] = datum;
    }
    for node in &graph.nodes {
        step(graph, node, &mut values, context).map_err(|what| format!("{}: {what}", node.name))?;
    }
    graph
        .outputs
        .iter()
        .map(|id| values[id.0 as usize].clone().ok_or_else(|| "an output is not computed".to_owned()))
        .collect()
}
