//! A folder of small tables, and a session with a function that counts what it is asked.

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use kun_bulk::sql::{Ended, Limits, Rows, Sql};
use kun_bulk::store::{StoreOptions, Stores};
use kun_bulk::{
    BulkError, Call, Context, Factory, FoundModel, Function, Limits as CallLimits, Models, Outcome, Output,
    OutsideError, Prepared, Registry, RowError, Stop,
};
use kun_engine::Engine;
pub use kun_testkit::Scratch;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tables that the cases read.
pub fn fill(scratch: &Scratch) {
    scratch.write(
        "people.csv",
        "id,Name,age,zip,joined,ok\n1,Ann,30,01234,2024-01-31,true\n2,Bob,,99999,2023-05-01,false\n\
         3,\"Cid, the \"\"third\"\"\",41,00001,2022-12-24,true\n4,Dot,7,55555,2024-02-29,true\n",
    );
    scratch.write(
        "talks.jsonl",
        "{\"id\": 1, \"text\": \"good day\", \"tags\": [\"a\", \"b\"], \"meta\": {\"x\": 1}}\n\
         {\"id\": 2, \"text\": \"bad day\", \"tags\": [], \"meta\": null}\n\
         {\"id\": 3, \"text\": null, \"tags\": null, \"meta\": {\"x\": [1]}}\n\
         {\"id\": 4, \"text\": \"good day\", \"tags\": [\"c\"], \"meta\": {}}\n",
    );
    scratch.write("broken.jsonl", "{\"n\": 1}\n{\"n\": \"one\"}\n{\n{\"n\": 4}\n");
    let numbers: String =
        (0..6000).map(|n| if n == 5500 { "n\nx,\n".to_owned() } else { format!("{n},\n") }).collect();
    scratch.write("late.csv", format!("n,m\n{}", numbers.replace("n\n", "")));
    scratch.write("lines.txt", "one\ntwo\n");
    scratch.write("parts/a.csv", "k,v\n1,x\n2,y\n");
    scratch.write("parts/b.csv", "k,v\n3,z\n");
    scratch.write("photos/one.png", [0_u8; 10]);
    scratch.write("photos/two.jpg", [0_u8; 20]);
    scratch.write("photos/notes.txt", "a note");
    // Many row groups, so that several threads read the file.
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
    ]));
    let ids = (0..20_000).collect::<Int64Array>();
    let texts = (0..20_000).map(|n| Some(format!("row {n}"))).collect::<StringArray>();
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(texts)];
    let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1000)).build();
    let file = std::fs::File::create(scratch.path("many.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Takes a model's name as its path.
pub struct Paths;

impl Models for Paths {
    fn find(&self, task: &str, name: Option<&str>) -> Result<FoundModel, OutsideError> {
        let name = name.ok_or_else(|| format!("`{task}` without a model"))?;
        Ok(FoundModel { name: name.to_owned(), path: PathBuf::from(name) })
    }
}

/// `seen(text, add = 0)`: the text's length, and how many rows it was asked about. A text with `bad` in it fails.
struct Seen(Arc<AtomicU64>);

struct Ready {
    seen: Arc<AtomicU64>,
    columns: Vec<String>,
    add: i64,
}

impl Factory for Seen {
    fn name(&self) -> &'static str {
        "seen"
    }
    fn usage(&self) -> &'static str {
        "seen(text, add)"
    }
    fn prepare(&self, call: &Call, _: &Context) -> Result<Arc<dyn Prepared>, BulkError> {
        call.check_options(&["add"])?;
        let add = call.count("add")?.unwrap_or(0) as i64;
        Ok(Arc::new(Ready { seen: self.0.clone(), columns: call.only_columns(1, 1)?, add }))
    }
}

impl Prepared for Ready {
    fn columns(&self) -> &[String] {
        &self.columns
    }
    fn identity(&self) -> Value {
        Value::Null
    }
    fn open(&self) -> Result<Arc<dyn Function>, BulkError> {
        Ok(Arc::new(Ready { seen: self.seen.clone(), columns: self.columns.clone(), add: self.add }))
    }
}

impl Function for Ready {
    fn output(&self) -> Output {
        Output::column(DataType::Int64)
    }
    fn limits(&self) -> CallLimits {
        // Cheap, so that repeated rows are counted each.
        CallLimits { rows: 100, cheap: true, ..CallLimits::default() }
    }
    fn call(&self, columns: &[ArrayRef], rows: usize, stop: &Stop) -> Result<Outcome, BulkError> {
        assert!(rows <= 100);
        if stop.is_raised() {
            return Err(BulkError::Stopped);
        }
        self.seen.fetch_add(rows as u64, Ordering::Relaxed);
        let texts = columns[0].as_any().downcast_ref::<StringArray>().unwrap();
        let mut errors = Vec::new();
        let value = |(row, text): (usize, Option<&str>)| match text {
            Some(text) if !text.contains("bad") => Some(text.len() as i64 + self.add),
            other => {
                errors.push((row, RowError::fatal(other.unwrap_or("NULL"))));
                None
            }
        };
        let column: Int64Array = texts.iter().enumerate().map(value).collect();
        Ok(Outcome { column: Arc::new(column), errors, tokens: 0 })
    }
}

/// A session, and what its function saw.
pub struct Session {
    pub sql: Sql,
    seen: Arc<AtomicU64>,
}

impl Session {
    pub fn new() -> Session {
        Session::with_memory(1 << 30)
    }

    pub fn with_memory(memory_bytes: usize) -> Session {
        let seen = Arc::new(AtomicU64::new(0));
        let mut registry = Registry::builtin();
        registry.add(Seen(seen.clone()));
        let stores = Stores::new(StoreOptions::default());
        let context = Context::new(Engine::new(), Arc::new(Paths), stores, Some(1));
        let limits = Limits { threads: 2, memory_bytes };
        Session { sql: Sql::new(registry, context, Vec::new(), limits).unwrap(), seen }
    }

    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// The rows of all statements as CSV, without headers.
    pub fn rows(&self, text: &str) -> Result<Vec<String>, BulkError> {
        let mut lines = Vec::new();
        for statement in self.sql.parse(text)? {
            self.sql.run(statement, None, &Stop::default(), &mut |rows: &Rows| {
                for row in 0..rows.len() {
                    lines.push(rows.row(row)?.iter().map(cell).collect::<Vec<_>>().join(","));
                }
                Ok(())
            })?;
        }
        Ok(lines)
    }

    /// Runs one statement whose rows go to a file.
    pub fn save(&self, query: &str, output: Option<&str>) -> Result<Ended, BulkError> {
        let statement = self.sql.parse(query)?.pop().unwrap();
        self.sql.run(statement, output.map(|uri| (uri, None)), &Stop::default(), &mut |_| Ok(()))
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
