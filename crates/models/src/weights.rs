//! A model's weights: checked against the description when declared, converted when read.

use crate::ModelError;
use crate::layers::Linear;
use crate::metadata::{Format, Metadata};
use crate::names::{self, Kind, Part};
use kun_formats::{ModelFiles, TensorTable};
use kun_graph::graph::WeightId;
use kun_graph::{Builder, WeightError, WeightSource};
use kun_tensor::{DType, quant};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Types that `--quantize` takes and the one that each falls back to where a row does not fill its blocks.
const FALLBACKS: &[(DType, DType)] = &[
    (DType::Q2K, DType::Q4_0),
    (DType::Q3K, DType::Q4_0),
    (DType::Q4K, DType::Q5_0),
    (DType::Q5K, DType::Q5_1),
    (DType::Q6K, DType::Q8_0),
    (DType::Iq4Xs, DType::Iq4Nl),
    (DType::Iq4Nl, DType::F16),
    (DType::Q4_0, DType::F16),
    (DType::Q4_1, DType::F16),
    (DType::Q5_0, DType::F16),
    (DType::Q5_1, DType::F16),
    (DType::Q8_0, DType::F16),
    (DType::F32, DType::F32),
    (DType::F16, DType::F16),
    (DType::BF16, DType::BF16),
];

/// In which type a tensor of floats is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// In f32, whatever was asked for.
    Exact,
    /// In bf16 where fewer bits were asked for.
    Halved,
    /// As asked for.
    Asked,
}

/// What a matrix does, as far as its precision goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Inside a layer, or a token embedding of its own.
    Body,
    /// Makes the logits.
    Output,
}

/// A weight as it will be given.
#[derive(Clone, Debug)]
struct Given {
    dtype: DType,
    /// The tensor that it is, or is part of.
    tensor: String,
    /// The part, along the outermost dimension.
    rows: Range<usize>,
}

/// The weights that a graph has declared so far.
#[derive(Debug)]
pub struct Declared<'a> {
    meta: &'a Metadata<'a>,
    quantize: Option<DType>,
    tied_embeddings: bool,
    given: BTreeMap<String, Given>,
    parameters: u64,
    bytes: u64,
    linear_elements: BTreeMap<DType, u64>,
}

impl<'a> Declared<'a> {
    /// Nothing declared yet; float matrices will be given as `quantize`.
    ///
    /// # Errors
    /// [`ModelError::Config`] if `quantize` is no type that weights can be encoded in.
    pub fn new(
        meta: &'a Metadata<'a>,
        quantize: Option<DType>,
        tied_embeddings: bool,
    ) -> Result<Declared<'a>, ModelError> {
        if let Some(dtype) = quantize
            && !can_encode(dtype)
        {
            let known: Vec<_> =
                FALLBACKS.iter().map(|(dtype, _)| *dtype).filter(|d| can_encode(*d)).collect();
            let known = known.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join(", ");
            return Err(ModelError::Config {
                key: "quantize".to_owned(),
                what: format!("weights cannot be encoded as `{dtype}`; known: {known}"),
            });
        }
        Ok(Declared {
            meta,
            quantize,
            tied_embeddings,
            given: BTreeMap::new(),
            parameters: 0,
            bytes: 0,
            linear_elements: BTreeMap::new(),
        })
    }

    /// A table `[rows, width]`: its weight, shape and type checked.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] naming the tensor and both shapes.
    pub fn matrix(
        &mut self,
        g: &Builder,
        part: Part,
        rows: usize,
        width: usize,
    ) -> Result<WeightId, ModelError> {
        let role = match part {
            Part::Output => Role::Output,
            Part::TokenEmbedding if self.tied_embeddings => Role::Output,
            _ => Role::Body,
        };
        let (name, stored) = self.find(part, Kind::Weight, &[rows, width])?;
        if !width.is_multiple_of(stored.block_len()) {
            let what = format!("rows of {width} do not fill {stored} blocks of {}", stored.block_len());
            return Err(ModelError::Tensor { name, what });
        }
        let given = match self.quantize {
            Some(requested) if is_float(stored) => target(requested, width, role),
            _ => stored,
        };
        let elements = rows as u64 * width as u64;
        *self.linear_elements.entry(given).or_default() += elements;
        Ok(self.declare(g, name.clone(), Given { dtype: given, tensor: name, rows: 0..rows }, &[rows, width]))
    }

    /// A vector `[len]`, given as f32 whatever its stored float type is.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] naming the tensor and both shapes.
    pub fn vector(
        &mut self,
        g: &Builder,
        part: Part,
        kind: Kind,
        len: usize,
    ) -> Result<WeightId, ModelError> {
        let (name, stored) = self.find(part, kind, &[len])?;
        if !is_float(stored) {
            return Err(ModelError::Tensor { name, what: format!("type {stored}, wanted f32, f16 or bf16") });
        }
        Ok(self.declare(g, name.clone(), Given { dtype: DType::F32, tensor: name, rows: 0..len }, &[len]))
    }

    /// A projection from `k` to `n` elements.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] naming the tensor and both shapes.
    pub fn linear(
        &mut self,
        g: &Builder,
        part: Part,
        n: usize,
        k: usize,
        bias: bool,
    ) -> Result<Linear, ModelError> {
        Ok(Linear {
            weight: self.matrix(g, part, n, k)?,
            bias: if bias { Some(self.vector(g, part, Kind::Bias, n)?) } else { None },
        })
    }

    /// The tensor `name`, or the part `rows` of it along its outermost dimension, as a weight of `shape`.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] naming the tensor and both shapes.
    pub fn part(
        &mut self,
        g: &Builder,
        name: &str,
        rows: Option<Range<usize>>,
        shape: &[usize],
        precision: Precision,
    ) -> Result<WeightId, ModelError> {
        let exact = precision == Precision::Exact;
        let error = |what: String| ModelError::Tensor { name: name.to_owned(), what };
        let Some(tensor) = self.meta.tensors().get(name) else {
            return Err(error(format!("missing; wanted shape {shape:?}")));
        };
        let (count, own) = match (tensor.shape.as_slice(), &rows) {
            ([count, rest @ ..], Some(rows)) => {
                (*count, [&[rows.len().min(count.saturating_sub(rows.start))], rest].concat())
            }
            (own, _) => (own.first().copied().unwrap_or(1), own.to_vec()),
        };
        if own != shape {
            let part = rows.map(|rows| format!(" from {} of {count}", rows.start)).unwrap_or_default();
            return Err(error(format!("shape {:?}, wanted {shape:?}{part}", tensor.shape)));
        }
        let quantized = tensor.dtype.is_quantized() && !exact && shape.len() == 2;
        if !is_float(tensor.dtype) && !quantized {
            return Err(error(format!("type {}, wanted f32, f16 or bf16", tensor.dtype)));
        }
        let dtype = match self.quantize {
            _ if exact => DType::F32,
            _ if quantized => tensor.dtype,
            Some(requested) if precision == Precision::Halved && requested.is_quantized() => DType::BF16,
            Some(requested) => target(requested, shape.last().copied().unwrap_or(1), Role::Body),
            None => tensor.dtype,
        };
        if !exact {
            *self.linear_elements.entry(dtype).or_default() += shape.iter().product::<usize>() as u64;
        }
        let label = match &rows {
            Some(rows) => format!("{name}[{}..{}]", rows.start, rows.end),
            None => name.to_owned(),
        };
        let given = Given { dtype, tensor: name.to_owned(), rows: rows.unwrap_or(0..count) };
        Ok(self.declare(g, label, given, shape))
    }

    /// Tensors of the files that no weight takes from.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        let used: BTreeSet<&str> = self.given.values().map(|given| given.tensor.as_str()).collect();
        let names = self.meta.tensors().tensors.keys().map(String::as_str);
        names.filter(move |name| !used.contains(name))
    }

    /// Makes sure that the description used every tensor of the file: one left over would have changed the answers.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] naming the first.
    pub fn check_complete(&self) -> Result<(), ModelError> {
        let output = self.meta.tensor_name(Part::Output, Kind::Weight);
        let divisors = self.meta.tensor_name(Part::RopeDivisors, Kind::Weight);
        let ignored = |name: &str| match self.meta.format() {
            Format::Gguf => names::gguf::may_be_ignored(name),
            Format::HuggingFace => names::hf::may_be_ignored(name),
        };
        let spare = self.meta.tensors().tensors.keys().find(|name| {
            !(self.given.contains_key(*name)
                || divisors.as_ref() == Some(name)
                || (self.tied_embeddings && output.as_ref() == Some(name))
                || ignored(name))
        });
        match spare {
            None => Ok(()),
            Some(name) => Err(ModelError::Tensor {
                name: name.clone(),
                what: format!("has no place in architecture `{}` as described", self.meta.architecture()),
            }),
        }
    }

    /// Elements of all weights.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Bytes of all weights as they will be given.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The type that most elements of the matrices have.
    pub fn commonest_type(&self) -> Option<DType> {
        self.linear_elements.iter().max_by_key(|(_, elements)| **elements).map(|(dtype, _)| *dtype)
    }

    /// The declared weights, to be read from `files`.
    pub fn into_source(self, files: Arc<ModelFiles>) -> FileWeights {
        FileWeights { given: self.given, files }
    }

    fn find(&self, part: Part, kind: Kind, wanted: &[usize]) -> Result<(String, DType), ModelError> {
        let name = self.meta.tensor_name(part, kind).unwrap_or_default();
        let Some(tensor) = self.meta.tensors().get(&name) else {
            return Err(ModelError::Tensor { name, what: format!("missing; wanted shape {wanted:?}") });
        };
        if tensor.shape != wanted {
            let what = format!("shape {:?}, wanted {wanted:?}", tensor.shape);
            return Err(ModelError::Tensor { name, what });
        }
        if !is_float(tensor.dtype) && !tensor.dtype.is_quantized() {
            let what = format!("type {} cannot be a weight", tensor.dtype);
            return Err(ModelError::Tensor { name, what });
        }
        Ok((name, tensor.dtype))
    }

    fn declare(&mut self, g: &Builder, name: String, given: Given, shape: &[usize]) -> WeightId {
        let dtype = given.dtype;
        let id = g.weight(&name, dtype, shape);
        let elements: usize = shape.iter().product();
        if self.given.insert(name, given).is_none() {
            self.parameters += elements as u64;
            self.bytes += dtype.bytes_for(elements).unwrap_or(0) as u64;
        }
        id
    }
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

fn can_encode(dtype: DType) -> bool {
    FALLBACKS.iter().any(|(known, _)| *known == dtype) && {
        let (zeros, mut bytes) = (vec![0.0; dtype.block_len()], vec![0; dtype.block_bytes()]);
        quant::encode(dtype, &zeros, &mut bytes).is_ok()
    }
}

/// The type that a matrix with rows of `width` gets when `requested` is asked for.
///
/// The projection to logits gets at least six bits per element: there, errors reach the answer unaveraged.
fn target(requested: DType, width: usize, role: Role) -> DType {
    // 256 elements of q6_k take 210 bytes.
    let coarse = requested.block_bytes() * 256 < 210 * requested.block_len();
    let mut dtype =
        if role == Role::Output && coarse && can_encode(DType::Q6K) { DType::Q6K } else { requested };
    while !width.is_multiple_of(dtype.block_len()) || !can_encode(dtype) {
        dtype = FALLBACKS.iter().find(|(from, _)| *from == dtype).map_or(DType::F16, |(_, to)| *to);
    }
    dtype
}

/// Divisors of the rotary frequencies that a file brings as a tensor, `[pairs]`.
///
/// # Errors
/// [`ModelError::Tensor`] if they have the wrong shape or type, or divide by nothing.
pub fn rope_divisors(meta: &Metadata<'_>, pairs: usize) -> Result<Option<Vec<f32>>, ModelError> {
    let Some(name) = meta.tensor_name(Part::RopeDivisors, Kind::Weight) else { return Ok(None) };
    let Some(tensor) = meta.tensors().get(&name) else { return Ok(None) };
    let error = |what: String| ModelError::Tensor { name: name.clone(), what };
    if tensor.shape != [pairs] || !is_float(tensor.dtype) {
        return Err(error(format!("{} {:?}, wanted f32 [{pairs}]", tensor.dtype, tensor.shape)));
    }
    let bytes = meta
        .tensors()
        .bytes(tensor, 0..tensor.len)
        .map_err(|source| ModelError::Read { name: name.clone(), source })?;
    let mut divisors = vec![0.0; pairs];
    quant::decode(tensor.dtype, &bytes, &mut divisors).map_err(|wrong| error(wrong.to_string()))?;
    match divisors.iter().find(|divisor| !(1e-6..=1e9).contains(*divisor)) {
        Some(divisor) => Err(error(format!("{divisor} cannot divide a frequency"))),
        None => Ok(Some(divisors)),
    }
}

/// Weights that lie in model files, given as declared.
#[derive(Debug)]
pub struct FileWeights {
    files: Arc<ModelFiles>,
    given: BTreeMap<String, Given>,
}

impl FileWeights {
    fn table(&self) -> &TensorTable {
        match self.files.as_ref() {
            ModelFiles::Gguf(gguf) => &gguf.tensors,
            ModelFiles::HuggingFace { tensors, .. } => tensors,
        }
    }
}

impl WeightSource for FileWeights {
    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        let given = self.given.get(name)?;
        let mut shape = self.table().get(&given.tensor)?.shape.clone();
        if let Some(count) = shape.first_mut() {
            *count = given.rows.len();
        }
        Some((given.dtype, shape))
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError> {
        let missing = || WeightError::Missing { name: name.to_owned() };
        let Given { dtype: given, tensor, rows: part } = self.given.get(name).ok_or_else(missing)?;
        let given = *given;
        let tensor = self.table().get(tensor).ok_or_else(missing)?;
        // A vector is one row, also where it is part of a longer one.
        let (first, count, width) = match tensor.shape.as_slice() {
            [_, width] => (part.start, part.len(), *width),
            [_] => (0, 1, part.len()),
            shape => (0, 1, shape.iter().product()),
        };
        let skipped = match tensor.shape.as_slice() {
            [_] => tensor.dtype.bytes_for(part.start).ok_or_else(missing)?,
            _ => 0,
        };
        let stored_row = tensor.dtype.bytes_for(width).ok_or_else(missing)?;
        if rows.start > rows.end || rows.end > count {
            let what = format!("rows {}..{} of {count}", rows.start, rows.end);
            return Err(read_error(name, std::io::Error::new(std::io::ErrorKind::InvalidInput, what)));
        }
        let start = skipped + first * stored_row;
        let range = (start + rows.start * stored_row) as u64..(start + rows.end * stored_row) as u64;
        let stored = self.table().bytes(tensor, range).map_err(|source| read_error(name, source))?;
        if tensor.dtype == given {
            return Ok(stored);
        }
        let given_row = given.bytes_for(width).ok_or_else(missing)?;
        let mut values = vec![0.0; width];
        let mut converted = vec![0; rows.len() * given_row];
        for (from, to) in stored.chunks_exact(stored_row).zip(converted.chunks_exact_mut(given_row)) {
            quant::decode(tensor.dtype, from, &mut values)
                .and_then(|()| quant::encode(given, &values, to))
                .map_err(|source| read_error(name, source))?;
        }
        Ok(Cow::Owned(converted))
    }

    fn release(&self, name: &str) {
        if let Some(tensor) = self.given.get(name).and_then(|given| self.table().get(&given.tensor)) {
            self.table().release(tensor);
        }
    }
}

fn read_error(name: &str, source: impl std::error::Error + Send + Sync + 'static) -> WeightError {
    WeightError::Read { name: name.to_owned(), source: Box::new(source) }
}
