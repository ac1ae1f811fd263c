//! What functions over models have in common: a name, options, a model, and how it is opened.

use super::loaded::Chosen;
use crate::function::{Context, Factory, Function, Prepared};
use crate::{Argument, BulkError, Call};
use kun_engine::{Fitting, LoadedEncoder};
use serde_json::Value;
use std::sync::Arc;

/// A function over a model.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) usage: &'static str,
    /// Options besides `model`.
    pub(super) options: &'static [&'static str],
    /// Whose usual model is taken if none is named.
    pub(super) task: &'static str,
    /// The columns that a call reads; also checks its arguments.
    pub(super) columns: fn(&Call) -> Result<Vec<String>, BulkError>,
    /// Loads the model.
    pub(super) open: fn(&Bound) -> Result<Arc<dyn Function>, BulkError>,
}

/// A call of a [`Kind`] that was checked.
pub(super) struct Bound {
    pub(super) call: Call,
    pub(super) context: Context,
    pub(super) chosen: Chosen,
    pub(super) columns: Vec<String>,
    kind: Kind,
}

impl Factory for Kind {
    fn name(&self) -> &'static str {
        self.name
    }

    fn usage(&self) -> &'static str {
        self.usage
    }

    fn prepare(&self, call: &Call, context: &Context) -> Result<Arc<dyn Prepared>, BulkError> {
        call.check_options(&[&["model"], self.options].concat())?;
        let columns = (self.columns)(call)?;
        let chosen = Chosen::of(call, self.task, context)?;
        Ok(Arc::new(Bound { call: call.clone(), context: context.clone(), chosen, columns, kind: *self }))
    }
}

impl Prepared for Bound {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn identity(&self) -> Value {
        self.chosen.identity(&self.call)
    }

    fn open(&self) -> Result<Arc<dyn Function>, BulkError> {
        (self.kind.open)(self)
    }
}

impl Bound {
    /// The call's encoder, loaded.
    pub(super) fn encoder(&self) -> Result<Arc<LoadedEncoder>, BulkError> {
        self.context.loaded.encoder(&self.chosen.model.path, &self.context)
    }
}

/// One column.
pub(super) fn one_column(call: &Call) -> Result<Vec<String>, BulkError> {
    call.only_columns(1, 1)
}

/// A text that is a constant or a column, then a column.
pub(super) fn two(call: &Call) -> Result<Vec<String>, BulkError> {
    match call.arguments.as_slice() {
        [Argument::Literal(Value::String(_)), Argument::Column(second)] => Ok(vec![second.clone()]),
        [Argument::Column(first), Argument::Column(second)] => Ok(vec![first.clone(), second.clone()]),
        _ => Err(call.wrong("takes a text or a column, then a column")),
    }
}

/// The first argument, if it is a constant text.
pub(super) fn constant(call: &Call) -> Option<&str> {
    match call.arguments.first() {
        Some(Argument::Literal(Value::String(text))) => Some(text),
        _ => None,
    }
}

/// What becomes of texts that are too long: an error, or cut.
pub(super) fn fitting(call: &Call) -> Result<Fitting, BulkError> {
    Ok(if call.switch("truncate")? == Some(true) { Fitting::Truncate } else { Fitting::Refuse })
}
