//! A folder for each test, inputs, and jobs over `hash` and over a function of the tests' own.

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::DataType;
use kun_bulk::store::{Faults, StoreOptions, Stores};
use kun_bulk::{
    BulkError, Call, Context, Factory, Function, Job, Limits, NoModels, Outcome, Output, Prepared, Registry,
    Report, RowError, RunOptions, Stop, check,
};
use kun_engine::Engine;
pub use kun_testkit::Scratch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A file of numbered lines of JSON.
pub fn numbered(rows: usize) -> String {
    (0..rows).map(|i| format!("{{\"id\": {i}, \"text\": \"row {i}\"}}\n")).collect()
}

/// `checked(text)`: the text's length; a text with `bad` in it fails, one with `panic` panics, one with `later` fails
/// the first time. `pause_us` microseconds a row make it as slow as a test needs it.
pub struct Checked {
    pub pause: Duration,
}

impl Factory for Checked {
    fn name(&self) -> &'static str {
        "checked"
    }
    fn usage(&self) -> &'static str {
        "checked(text)"
    }
    fn prepare(&self, call: &Call, _: &Context) -> Result<Arc<dyn Prepared>, BulkError> {
        let salt = call.text("salt")?.unwrap_or_default().to_owned();
        Ok(Arc::new(Ready { columns: call.only_columns(1, 1)?, pause: self.pause, salt }))
    }
}

struct Ready {
    columns: Vec<String>,
    pause: Duration,
    salt: String,
}

struct Opened {
    pause: Duration,
    seen: std::sync::Mutex<std::collections::BTreeSet<String>>,
}

impl Prepared for Ready {
    fn columns(&self) -> &[String] {
        &self.columns
    }
    fn identity(&self) -> serde_json::Value {
        serde_json::json!({ "function": "checked", "salt": self.salt })
    }
    fn open(&self) -> Result<Arc<dyn Function>, BulkError> {
        Ok(Arc::new(Opened { pause: self.pause, seen: Default::default() }))
    }
}

impl Function for Opened {
    fn output(&self) -> Output {
        Output::column(DataType::Utf8)
    }
    fn limits(&self) -> Limits {
        Limits { rows: 100, ..Limits::default() }
    }
    fn call(&self, columns: &[ArrayRef], rows: usize, _: &Stop) -> Result<Outcome, BulkError> {
        std::thread::sleep(self.pause * u32::try_from(rows).unwrap());
        let texts = columns[0].as_any().downcast_ref::<StringArray>().unwrap();
        let mut errors = Vec::new();
        let value = |(row, text): (usize, Option<&str>)| match text.unwrap_or("bad NULL") {
            text if text.contains("panic") => panic!("as asked"),
            text if text.contains("bad") => {
                errors.push((row, RowError::fatal(text)));
                None
            }
            text if text.contains("later") && self.seen.lock().unwrap().insert(text.to_owned()) => {
                errors.push((row, RowError::retryable(text)));
                None
            }
            text => Some(format!("{} bytes", text.len())),
        };
        let column: StringArray = texts.iter().enumerate().map(value).collect();
        Ok(Outcome { column: Arc::new(column), errors, tokens: rows as u64 })
    }
}

/// Everything that a job needs.
pub struct Setting {
    pub registry: Registry,
    pub context: Context,
    pub stores: Stores,
}

impl Setting {
    pub fn new() -> Setting {
        Setting::with(Faults::default(), Duration::ZERO)
    }

    pub fn with(faults: Faults, pause: Duration) -> Setting {
        let stores = Stores::new(StoreOptions { faults, ..StoreOptions::default() });
        let context = Context::new(Engine::new(), Arc::new(NoModels), stores.clone(), Some(1));
        let mut registry = Registry::builtin();
        registry.add(Checked { pause });
        Setting { registry, context, stores }
    }

    pub fn run(&self, job: &Job) -> Result<Report, BulkError> {
        self.run_with(job, &RunOptions::default())
    }

    pub fn run_with(&self, job: &Job, options: &RunOptions) -> Result<Report, BulkError> {
        check(job, &self.registry, &self.context, &self.stores)?.run(options, &|_| {})
    }
}

/// A job of `calls` over one input.
pub fn job(input: &str, calls: &[&str], output: &str) -> Job {
    let mut job = Job::default();
    job.input.uri = vec![input.to_owned()];
    job.output.uri = output.to_owned();
    job.map = calls.iter().map(|call| Call::parse(call).unwrap()).collect();
    job
}

/// The rows of a Parquet file.
pub fn parquet(path: &Path) -> RecordBatch {
    let file = std::fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    arrow_select::concat::concat_batches(&schema, &batches).unwrap()
}

/// A column of texts, NULL as `-`.
pub fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let array = batch.column_by_name(column).unwrap();
    let array = array.as_any().downcast_ref::<StringArray>().unwrap();
    array.iter().map(|text| text.unwrap_or("-").to_owned()).collect()
}
