//! Runs one sequence through a compiled decoder, without an engine.

use kun_graph::{
    Backend, CompileOptions, Inputs, KvOptions, KvType, Outputs, PAGE_TOKENS, Program, Sequence, TensorRef,
};
use kun_models::{LoadOptions, Model};
use kun_tensor::DType;
use kun_tensor::storage::Access;
use std::path::Path;
use std::sync::Arc;

/// Loads the file or folder at `path`; float matrices as `quantize` if given.
pub fn load(path: &Path, quantize: Option<DType>) -> Model {
    let files = kun_formats::open(path, Access::Mapped)
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    kun_models::load(Arc::new(files), &LoadOptions { quantize })
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()))
}

/// A compiled decoder and the sequence that it has seen.
pub struct Runner<P> {
    program: P,
    outputs: Outputs,
    seen: usize,
    pages: Vec<u32>,
}

impl<P: Program> Runner<P> {
    /// Compiles `model` for one sequence of at most `max_tokens` tokens.
    pub fn new<B: Backend<Program = P>>(backend: &B, model: &Model, max_tokens: usize) -> Runner<P> {
        let pages = max_tokens.div_ceil(PAGE_TOKENS) + 1;
        let options = CompileOptions {
            max_tokens,
            max_rows: max_tokens,
            max_sequences: 1,
            threads: 2,
            kv: KvOptions { dtype: KvType::F16, pages },
        };
        let program = backend
            .compile(&model.graph, model.weights.as_ref(), &options)
            .unwrap_or_else(|error| panic!("{error:?}"));
        // Last page first: pages need not lie in order.
        let pages = (0..u32::try_from(pages).unwrap()).rev().collect();
        Runner { program, outputs: Outputs::default(), seen: 0, pages }
    }

    /// Forgets the sequence.
    pub fn restart(&mut self) {
        self.seen = 0;
    }

    /// Appends `tokens` and returns the logits `[R, V]` of those whose positions in the sequence `rows` names.
    pub fn run(&mut self, tokens: &[i32], rows: &[usize]) -> Vec<f32> {
        let as_i32 = |value: usize| i32::try_from(value).unwrap();
        let positions: Vec<i32> = (self.seen..self.seen + tokens.len()).map(as_i32).collect();
        let rows: Vec<i32> = rows.iter().map(|row| as_i32(row - self.seen)).collect();
        let needed = (self.seen + tokens.len()).div_ceil(PAGE_TOKENS);
        let sequence = Sequence { start: self.seen, tokens: tokens.len(), pages: &self.pages[..needed] };
        let (tokens_shape, rows_shape) = ([tokens.len()], [rows.len()]);
        let inputs = Inputs {
            tensors: vec![
                ("tokens", TensorRef::I32(tokens, &tokens_shape)),
                ("positions", TensorRef::I32(&positions, &tokens_shape)),
                ("rows", TensorRef::I32(&rows, &rows_shape)),
            ],
            sequences: &[sequence],
        };
        self.program.run(&inputs, &mut self.outputs).unwrap_or_else(|error| panic!("{error:?}"));
        self.seen += tokens.len();
        self.outputs.tensors["logits"].data.clone()
    }
}
