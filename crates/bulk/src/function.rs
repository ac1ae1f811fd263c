//! What a job does with rows: functions from columns to a column.
//!
//! A [`Factory`] knows a function's name and checks a [`Call`] of it, which gives a [`Prepared`] call: the columns that it
//! reads and what its results depend on, without a model in memory. Opening that gives the [`Function`] itself.

use crate::functions::Loaded;
use crate::store::Stores;
use crate::survey::Survey;
use crate::{BulkError, Call, Models};
use arrow_array::ArrayRef;
use arrow_schema::DataType;
use kun_engine::Engine;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A kind of function.
pub trait Factory: Send + Sync {
    /// The name in calls.
    fn name(&self) -> &'static str;
    /// How it is called and what it gives, in one line: `embed(text, model) -> vector`.
    fn usage(&self) -> &'static str;
    /// Checks a call and finds its model, without loading it.
    ///
    /// # Errors
    /// [`BulkError::Job`] for arguments that the function does not take, [`BulkError::Model`].
    fn prepare(&self, call: &Call, context: &Context) -> Result<Arc<dyn Prepared>, BulkError>;
}

/// A call that was checked.
pub trait Prepared: Send + Sync {
    /// Names of the columns that it reads, in the order in which [`Function::call`] wants them.
    fn columns(&self) -> &[String];
    /// Everything that its results depend on: function, version, model and its digest, parameters. Two calls with equal
    /// identities give equal results for equal rows.
    fn identity(&self) -> Value;
    /// Loads what it needs.
    ///
    /// # Errors
    /// [`BulkError::Engine`], [`BulkError::Job`] for parameters that the model refuses.
    fn open(&self) -> Result<Arc<dyn Function>, BulkError>;
    /// A first pass over all rows, for functions whose answer to one row depends on others.
    fn survey(&self) -> Option<Arc<dyn Survey>> {
        None
    }
}

/// A function, ready to be called from any thread.
pub trait Function: Send + Sync {
    /// What a row's result is.
    fn output(&self) -> Output;
    /// How many rows a call is given.
    fn limits(&self) -> Limits {
        Limits::default()
    }
    /// Results for `rows` rows; `columns` have that length, one for each of [`Prepared::columns`]. A row that fails is
    /// NULL in the result and named among the errors. `stop` may end a long call early.
    ///
    /// # Errors
    /// What concerns all rows, such as a worker that is gone; [`BulkError::Stopped`].
    fn call(&self, columns: &[ArrayRef], rows: usize, stop: &Stop) -> Result<Outcome, BulkError>;
}

/// What a function gives for a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its type in the output.
    pub data_type: DataType,
    /// Set for results that are files of their own (pictures): their ending. The column holds their bytes; a job whose
    /// output is a folder puts them into files and the column then holds their names.
    pub file: Option<&'static str>,
}

impl Output {
    /// A plain column.
    pub fn column(data_type: DataType) -> Output {
        Output { data_type, file: None }
    }
}

/// How much one call of a function takes: whichever is reached first, but at least one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows.
    pub rows: usize,
    /// Bytes of the columns read.
    pub bytes: usize,
    /// Whether a row costs so little that finding repeated ones costs more.
    pub cheap: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { rows: 1024, bytes: 4 << 20, cheap: false }
    }
}

/// The results of one call.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One value per row; NULL where a row failed.
    pub column: ArrayRef,
    /// Rows that failed, in order, and why.
    pub errors: Vec<(usize, RowError)>,
    /// Tokens read and written.
    pub tokens: u64,
}

/// Why one row has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Whether asking again may help.
    pub class: ErrorClass,
    /// For people.
    pub reason: String,
}

/// What to do about a row's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The row itself is at fault.
    Fatal,
    /// Something around it failed; it is tried again.
    Retryable,
}

impl ErrorClass {
    /// As `_error` has it.
    pub fn name(self) -> &'static str {
        match self {
            ErrorClass::Fatal => "fatal",
            ErrorClass::Retryable => "retryable",
        }
    }
}

impl RowError {
    /// The row is at fault.
    pub fn fatal(reason: impl Into<String>) -> RowError {
        RowError { class: ErrorClass::Fatal, reason: reason.into() }
    }

    /// Asking again may help.
    pub fn retryable(reason: impl Into<String>) -> RowError {
        RowError { class: ErrorClass::Retryable, reason: reason.into() }
    }
}

/// Raised when work shall end; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends the work after what is being done now.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for the engine.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.0
    }
}

/// What functions work with.
#[derive(Clone)]
pub struct Context {
    /// Loads models and asks them.
    pub engine: Engine,
    /// Finds them.
    pub models: Arc<dyn Models>,
    /// Fetches what rows name, such as pictures.
    pub stores: Stores,
    /// Models in memory.
    pub loaded: Loaded,
    /// Compute threads of each model; `None`: the physical cores.
    pub threads: Option<usize>,
}

impl Context {
    /// With no model loaded.
    pub fn new(engine: Engine, models: Arc<dyn Models>, stores: Stores, threads: Option<usize>) -> Context {
        Context { engine, models, stores, loaded: Loaded::default(), threads }
    }
}

/// Functions by name.
#[derive(Clone, Default)]
pub struct Registry {
    factories: BTreeMap<&'static str, Arc<dyn Factory>>,
}

impl Registry {
    /// Every function of this crate.
    pub fn builtin() -> Registry {
        let mut registry = Registry::default();
        crate::functions::register(&mut registry);
        registry
    }

    /// Adds a function; one of the same name is replaced.
    pub fn add(&mut self, factory: impl Factory + 'static) {
        self.factories.insert(factory.name(), Arc::new(factory));
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Factory>> {
        self.factories.values()
    }

    /// Checks a call by the function that it names.
    ///
    /// # Errors
    /// [`BulkError::Job`] for an unknown name, and those of [`Factory::prepare`].
    pub fn prepare(&self, call: &Call, context: &Context) -> Result<Arc<dyn Prepared>, BulkError> {
        match self.factories.get(call.function.as_str()) {
            Some(factory) => factory.prepare(call, context),
            None => {
                let known: Vec<&str> = self.factories.keys().copied().collect();
                Err(BulkError::job(format!(
                    "no function `{}`; there are {}",
                    call.function,
                    known.join(", ")
                )))
            }
        }
    }
}
