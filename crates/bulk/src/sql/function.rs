//! This crate's functions as functions of SQL.
//!
//! They stand in plans as calls that cannot be evaluated where they stand: [`super::lower`] takes each out of its
//! expression, and [`super::infer`] computes it.

use super::statement::OPTIONS;
use crate::call::{Argument, Call};
use crate::function::{Context, Prepared, Registry, Stop};
use crate::pipeline::Step;
use crate::store::ObjectInfo;
use crate::{BulkError, RowError};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, TableReference, exec_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// How often a row whose error may pass is tried again.
const RETRIES: u32 = 3;

/// What all calls of a session share.
pub(super) struct Shared {
    registry: Registry,
    context: Context,
    stop: Mutex<Stop>,
    opened: Mutex<HashMap<String, Opened>>,
    failures: Mutex<Option<Failures>>,
    /// Files of the tables that were named.
    read: Mutex<Vec<ObjectInfo>>,
}

/// Rows that have no result, or could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub rows: u64,
    /// Why the first of them.
    pub first: String,
}

/// A function, and which of the arguments it reads, in its order.
#[derive(Clone)]
pub(super) struct Opened {
    step: Arc<Step>,
    reads: Vec<usize>,
}

impl Shared {
    pub(super) fn new(registry: Registry, context: Context) -> Shared {
        Shared {
            registry,
            context,
            stop: Mutex::default(),
            opened: Mutex::default(),
            failures: Mutex::default(),
            read: Mutex::default(),
        }
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn stop(&self) -> Stop {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_stop(&self, stop: Stop) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = stop;
    }

    pub(super) fn take_failures(&self) -> Option<Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes which files a table has.
    pub(super) fn reads(&self, objects: &[ObjectInfo]) {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(objects);
    }

    pub(super) fn take_read(&self) -> Vec<ObjectInfo> {
        std::mem::take(&mut self.read.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts rows that have failed.
    pub(super) fn failed(&self, rows: usize, first: impl FnOnce() -> String) {
        if rows == 0 {
            return;
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get_or_insert_with(|| Failures { rows: 0, first: first() }).rows += rows as u64;
    }

    /// The function that a call means, opened; the same call gives the same one.
    fn open(&self, name: &'static str, arguments: &[Option<&ScalarValue>]) -> Result<Opened, BulkError> {
        let key = format!("{name} {arguments:?}");
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = opened.get(&key) {
            return Ok(found.clone());
        }
        let (prepared, positions) = self.prepare(name, arguments)?;
        if prepared.survey().is_some() {
            return Err(BulkError::job(format!(
                "`{name}` looks at all rows before it answers the first: `kun map` has it"
            )));
        }
        let place = |column: &String| positions.iter().position(|name| name == column);
        let reads: Option<Vec<usize>> = prepared.columns().iter().map(place).collect();
        let reads = reads.ok_or_else(|| {
            let columns = prepared.columns().join(", ");
            BulkError::job(format!("`{name}` reads {columns}, which are no arguments of the call"))
        })?;
        let step = Step::new(name.to_owned(), Vec::new(), prepared.open()?, true);
        let found = Opened { step: Arc::new(step), reads };
        opened.insert(key, found.clone());
        Ok(found)
    }

    /// A constant is a constant where the function takes one, else a column.
    fn prepare(
        &self,
        name: &str,
        arguments: &[Option<&ScalarValue>],
    ) -> Result<(Arc<dyn Prepared>, Vec<String>), BulkError> {
        let (mut plain, mut options) = (Vec::new(), Map::new());
        for (at, argument) in arguments.iter().enumerate() {
            let literal = argument.and_then(value);
            match literal.as_ref().and_then(options_of) {
                Some(given) => options = given,
                None => plain.push((format!("argument {}", at + 1), literal)),
            }
        }
        let call = |constants: bool| Call {
            function: name.to_owned(),
            arguments: plain
                .iter()
                .map(|(column, literal)| match literal {
                    Some(value) if constants => Argument::Literal(value.clone()),
                    _ => Argument::Column(column.clone()),
                })
                .collect(),
            options: options.clone(),
            column: name.to_owned(),
        };
        let positions = plain.iter().map(|(column, _)| column.clone()).collect();
        let as_columns = match plain.iter().any(|(_, literal)| literal.is_some()) {
            false => None,
            true => Some(self.registry.prepare(&call(true), &self.context)),
        };
        match (as_columns, self.registry.prepare(&call(false), &self.context)) {
            (Some(Ok(prepared)), _) | (_, Ok(prepared)) => Ok((prepared, positions)),
            (Some(Err(error)), Err(_)) | (None, Err(error)) => Err(error),
        }
    }
}

/// The options of a call, which come as its last argument.
fn options_of(literal: &Value) -> Option<Map<String, Value>> {
    serde_json::from_str(literal.as_str()?.strip_prefix(OPTIONS)?).ok()
}

/// A constant as JSON.
fn value(scalar: &ScalarValue) -> Option<Value> {
    match scalar {
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => Some(Value::from(text.as_str())),
        ScalarValue::Boolean(Some(on)) => Some(Value::from(*on)),
        ScalarValue::Int64(Some(number)) => Some(Value::from(*number)),
        ScalarValue::Float64(Some(number)) => Some(Value::from(*number)),
        _ => None,
    }
}

/// A function as DataFusion knows it.
pub(super) struct ModelFunction {
    name: &'static str,
    shared: Arc<Shared>,
    signature: Signature,
}

impl ModelFunction {
    pub(super) fn new(name: &'static str, shared: Arc<Shared>) -> ModelFunction {
        // Volatile: no rule of the planner evaluates it, or writes it where it would be computed twice.
        ModelFunction { name, shared, signature: Signature::variadic_any(Volatility::Volatile) }
    }

    /// Results of `wanted` rows, NULL in others. Blocks as long as the model takes.
    pub(super) fn call(&self, arguments: &[ColumnarValue], wanted: &[u32], rows: usize) -> Result<ArrayRef> {
        let constants: Vec<Option<&ScalarValue>> = arguments
            .iter()
            .map(|argument| match argument {
                ColumnarValue::Scalar(scalar) => Some(scalar),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        let opened = self.shared.open(self.name, &constants).map_err(external)?;
        let column = |at: &usize| plain(&arguments[*at].to_array(rows)?);
        let columns = opened.reads.iter().map(column).collect::<Result<Vec<ArrayRef>>>()?;
        let answered =
            opened.step.answer(&columns, wanted, rows, RETRIES, &self.shared.stop()).map_err(external)?;
        // What is asked about NULL is NULL.
        let asked = |(row, _): &&(usize, RowError)| columns.iter().all(|column| column.is_valid(*row));
        let failed: Vec<_> = answered.errors.iter().filter(asked).collect();
        self.shared.failed(failed.len(), || format!("{}: {}", self.name, failed[0].1.reason));
        Ok(answered.column)
    }

    pub(super) fn stop(&self) -> Stop {
        self.shared.stop()
    }
}

/// Whether a table is called as its file is.
fn is_file(table: &TableReference) -> bool {
    table.table().contains(['/', '.', '*'])
}

/// A column as files have it: texts and bytes in one piece.
fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    let plain = match column.data_type() {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        _ => return Ok(column.clone()),
    };
    Ok(arrow_cast::cast(column, &plain)?)
}

pub(super) fn external(error: BulkError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl std::fmt::Debug for ModelFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelFunction").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for ModelFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for ModelFunction {}

impl Hash for ModelFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for ModelFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// `embed(text, model = 'x')`, as it was written.
    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        let mut words = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let options = match argument {
                Expr::Literal(scalar, _) => value(scalar).as_ref().and_then(options_of),
                _ => None,
            };
            match options {
                Some(options) => words.extend(options.iter().map(|(name, value)| match value {
                    Value::String(text) => format!("{name} = '{text}'"),
                    other => format!("{name} = {other}"),
                })),
                None => words.push(match argument {
                    // The name of a file says too much.
                    Expr::Column(column) if column.relation.as_ref().is_some_and(is_file) => {
                        column.name.clone()
                    }
                    other => other.schema_name().to_string(),
                }),
            }
        }
        Ok(format!("{}({})", self.name, words.join(", ")))
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        exec_err!("the type of a result depends on the arguments")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let opened = self.shared.open(self.name, args.scalar_arguments).map_err(external)?;
        Ok(Arc::new(Field::new(self.name, opened.step.data_type().clone(), true)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let what =
            format!("`{}` cannot stand here: compute it in a query of its own, as WITH has it", self.name);
        Err(external(BulkError::Sql { what }))
    }
}
