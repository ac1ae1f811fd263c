//! `embed(text)`: texts to vectors.

use super::answers::{Texts, row_error};
use super::kind::{Bound, Kind, fitting, one_column};
use crate::BulkError;
use crate::function::{Function, Limits, Outcome, Output, Stop};
use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array};
use arrow_schema::{DataType, Field, FieldRef};
use kun_engine::{EmbedOptions, LoadedEncoder, Purpose};
use std::sync::Arc;

pub(super) const EMBED: Kind = Kind {
    name: "embed",
    usage: "embed(text, model, input_type, dimensions, truncate) -> vector: what a text means, as numbers",
    options: &["input_type", "dimensions", "truncate"],
    task: "embed",
    columns: one_column,
    open,
};

struct Embed {
    model: Arc<LoadedEncoder>,
    options: EmbedOptions,
    column: String,
    item: FieldRef,
    width: i32,
}

fn open(bound: &Bound) -> Result<Arc<dyn Function>, BulkError> {
    let call = &bound.call;
    let purpose = call.text("input_type")?.map_or(Purpose::Default, |name| Purpose::Named(name.to_owned()));
    let options = EmbedOptions { purpose, fitting: fitting(call)?, dimensions: call.count("dimensions")? };
    let model = bound.encoder()?;
    // What is wrong with the options is said once, not for every row.
    model.embed(&[], &options)?;
    let width = options.dimensions.unwrap_or(model.info().output_width);
    Ok(Arc::new(Embed {
        model,
        options,
        column: bound.columns[0].clone(),
        item: Arc::new(Field::new("item", DataType::Float32, true)),
        width: i32::try_from(width).map_err(|_| call.wrong("gives vectors that are too long"))?,
    }))
}

impl Function for Embed {
    fn output(&self) -> Output {
        Output::column(DataType::FixedSizeList(self.item.clone(), self.width))
    }

    fn limits(&self) -> Limits {
        Limits { rows: 4096, ..Limits::default() }
    }

    fn call(&self, columns: &[ArrayRef], _: usize, _: &Stop) -> Result<Outcome, BulkError> {
        let texts = Texts::of(&self.column, &columns[0])?;
        let embeddings = self.model.embed(&texts.texts, &self.options)?;
        let tokens = embeddings.iter().flatten().map(|embedding| embedding.tokens as u64).sum();
        let answers = embeddings
            .into_iter()
            .map(|embedding| embedding.map(|e| e.vector).map_err(|error| row_error(&error)))
            .collect();
        texts.outcome(answers, tokens, &self.output().data_type, |vectors: Vec<Vec<f32>>| {
            let values: ArrayRef = Arc::new(Float32Array::from(vectors.concat()));
            Ok(Arc::new(FixedSizeListArray::try_new(self.item.clone(), self.width, values, None)?))
        })
    }
}
