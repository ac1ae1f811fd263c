//! An encoder as a one-pass model: ragged batches in, one row per text or per token out.

use crate::encode::Encoded;
use crate::{EngineError, Pass};
use kun_graph::{CpuProgram, Graph, Inputs, OutputTensor, Outputs, Program, Sequence, TensorRef};
use kun_models::encoder::{EncoderInfo, Pooling};
use kun_tasks::TaskError;
use kun_tensor::{Tensor, Tensors};
use kun_text::Encoding;
use std::sync::Arc;

/// Owns the compiled program.
pub(super) struct EncoderPass {
    program: CpuProgram,
    outputs: Outputs,
    reads: Reads,
    /// The name of the output, and whether it has a row per token.
    output: (String, bool),
    max_tokens: usize,
    first_position: i32,
    vocab_size: usize,
    token_types: usize,
    row: Option<Pooling>,
    batch_tokens: usize,
    batch_texts: usize,
}

/// Inputs that the graph has.
struct Reads {
    positions: bool,
    types: bool,
    rows: bool,
}

impl EncoderPass {
    pub(super) fn new(
        program: CpuProgram,
        graph: &Graph,
        info: &EncoderInfo,
        batch_tokens: usize,
        batch_texts: usize,
    ) -> EncoderPass {
        let has =
            |wanted: &str| graph.inputs.iter().any(|&id| graph.value(id).name.as_deref() == Some(wanted));
        let output = graph.value(graph.outputs[0]);
        let per_token = output.shape.first() == Some(&kun_graph::Dim::Sym(kun_graph::Sym::Tokens));
        EncoderPass {
            program,
            outputs: Outputs::default(),
            reads: Reads { positions: has("positions"), types: has("types"), rows: has("rows") },
            output: (output.name.clone().unwrap_or_default(), per_token),
            max_tokens: info.max_tokens,
            first_position: i32::try_from(info.first_position).unwrap_or(0),
            vocab_size: info.model.vocab_size,
            token_types: info.token_types,
            row: info.row,
            batch_tokens,
            batch_texts,
        }
    }

    /// The ids and types of an item, checked.
    fn check<'a>(&self, item: &'a Tensors) -> Result<(&'a [i32], Option<&'a [i32]>), EngineError> {
        let wrong = |what: String| EngineError::Task(TaskError::Input { what });
        let ids = item.get("ids").and_then(Tensor::as_i32).ok_or_else(|| wrong("no `ids`".to_owned()))?;
        if ids.is_empty() || ids.len() > self.max_tokens {
            let (tokens, limit) = (ids.len(), self.max_tokens);
            return Err(wrong(format!("the text has {tokens} tokens, the model takes 1 to {limit}")));
        }
        let below = |values: &[i32], limit: usize| {
            values.iter().all(|&value| usize::try_from(value).is_ok_and(|value| value < limit))
        };
        if !below(ids, self.vocab_size) {
            return Err(wrong(format!("a token beyond the {} of the model", self.vocab_size)));
        }
        let types = item.get("types").and_then(Tensor::as_i32);
        if types.is_some_and(|types| types.len() != ids.len()) {
            return Err(wrong(format!("{} tokens with another number of types", ids.len())));
        }
        // Models without types tell the texts of a pair apart by their separator.
        let types = types.filter(|types| self.token_types > 0 && below(types, self.token_types));
        Ok((ids, types))
    }

    /// Runs checked items, which fit the program together.
    fn run_together(&mut self, items: &[(&[i32], Option<&[i32]>)]) -> Result<Vec<Tensors>, EngineError> {
        let total = items.iter().map(|(ids, _)| ids.len()).sum();
        let (mut tokens, mut types) = (Vec::with_capacity(total), Vec::with_capacity(total));
        let (mut positions, mut rows) = (Vec::with_capacity(total), Vec::with_capacity(items.len()));
        let mut sequences = Vec::with_capacity(items.len());
        for (ids, own_types) in items {
            let start = tokens.len();
            tokens.extend_from_slice(ids);
            match own_types {
                Some(own) => types.extend_from_slice(own),
                None => types.resize(tokens.len(), 0),
            }
            positions.extend((self.first_position..).take(ids.len()));
            let row = if self.row == Some(Pooling::Last) { tokens.len() - 1 } else { start };
            rows.push(i32::try_from(row).unwrap_or(i32::MAX));
            sequences.push(Sequence { start: 0, tokens: ids.len(), pages: &[] });
        }
        let (token_shape, row_shape) = ([tokens.len()], [rows.len()]);
        let mut tensors = vec![("tokens", TensorRef::I32(&tokens, &token_shape))];
        if self.reads.positions {
            tensors.push(("positions", TensorRef::I32(&positions, &token_shape)));
        }
        if self.reads.types {
            tensors.push(("types", TensorRef::I32(&types, &token_shape)));
        }
        if self.reads.rows {
            tensors.push(("rows", TensorRef::I32(&rows, &row_shape)));
        }
        let inputs = Inputs { tensors, sequences: &sequences };
        self.program.run(&inputs, &mut self.outputs).map_err(|error| EngineError::Run(Arc::new(error)))?;
        let (name, per_token) = &self.output;
        let OutputTensor { shape, data } = &self.outputs.tensors[name];
        let width = shape.get(1).copied().unwrap_or(1);
        let mut rest = data.as_slice();
        let results = items.iter().map(|(ids, _)| {
            let count = if *per_token { ids.len() } else { 1 };
            let (own, others) = rest.split_at(count * width);
            rest = others;
            let shape = if *per_token { vec![count, width] } else { vec![width] };
            let tensor = Tensor::f32(shape, own.to_vec()).map_err(TaskError::from)?;
            Ok(Tensors::from([(name.clone(), tensor)]))
        });
        results.collect()
    }
}

impl Pass for EncoderPass {
    fn cost(&self, item: &Tensors) -> usize {
        item.get("ids").map_or(0, |ids| ids.elements().len())
    }

    fn budget(&self) -> usize {
        self.batch_tokens
    }

    fn run(&mut self, batch: Vec<Tensors>) -> Vec<Result<Tensors, EngineError>> {
        let mut results: Vec<Result<Tensors, EngineError>> =
            batch.iter().map(|_| Err(EngineError::Unloaded)).collect();
        let mut good = Vec::with_capacity(batch.len());
        for (index, item) in batch.iter().enumerate() {
            match self.check(item) {
                Ok(item) => good.push((index, item)),
                Err(error) => results[index] = Err(error),
            }
        }
        // Batches keep to the budget, but for a text that is longer by itself; only their number may be too large.
        for part in good.chunks(self.batch_texts) {
            let items: Vec<_> = part.iter().map(|(_, item)| *item).collect();
            match self.run_together(&items) {
                Ok(outputs) => {
                    for ((index, _), tensors) in part.iter().zip(outputs) {
                        results[*index] = Ok(tensors);
                    }
                }
                Err(EngineError::Run(error)) => {
                    for (index, _) in part {
                        results[*index] = Err(EngineError::Run(error.clone()));
                    }
                }
                // Nothing else can happen to a checked batch.
                Err(_) => {}
            }
        }
        results
    }
}

/// An item of [`EncoderPass`].
pub(super) fn tensors(encoding: &Encoding) -> Tensors {
    let signed = |values: &[u32]| -> Vec<i32> {
        values.iter().map(|&value| i32::try_from(value).unwrap_or(i32::MAX)).collect()
    };
    let vector = |values: &[u32]| {
        Tensor::new([values.len()], kun_tensor::Elements::I32(signed(values))).expect("one dimension")
    };
    let mut tensors = Tensors::from([("ids".to_owned(), vector(&encoding.ids))]);
    if encoding.types.iter().any(|&kind| kind != 0) {
        tensors.insert("types".to_owned(), vector(&encoding.types));
    }
    tensors
}

/// The one output of an item.
pub(super) fn encoded(outputs: Tensors) -> Encoded {
    let Some((_, tensor)) = outputs.into_iter().next() else { return Encoded::default() };
    let (shape, elements) = tensor.into_parts();
    let data = match elements {
        kun_tensor::Elements::F32(data) => data,
        _ => Vec::new(),
    };
    Encoded { data, width: shape.last().copied().unwrap_or(0) }
}
