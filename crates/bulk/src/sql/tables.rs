//! Tables: files by their names, `images('folder')`, `documents('folder')` and `kun_models()`.
//!
//! Parquet files of this machine are read by DataFusion, which skips what conditions rule out. Everything else is read
//! as `kun map` reads it; columns of CSV have types here.

use super::ListedModel;
use super::function::{Shared, external};
use super::typed;
use crate::input::{self, Chunk, Found, Plan, Reading};
use crate::job::{Format, Input, SplitSize};
use crate::store::{ObjectInfo, Stores, is_remote};
use crate::{BulkError, Range, Split};
use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{
    DynamicFileCatalog, MemTable, Session, TableFunctionArgs, TableFunctionImpl, TableProvider,
    UrlTableFactory,
};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::SessionContext;
use std::path::Path;
use std::sync::Arc;

/// A session in which a name in quotes is a file, a folder or a pattern.
pub(super) fn with_files(state: SessionState, stores: &Stores, shared: &Arc<Shared>) -> SessionContext {
    let files = Files { stores: stores.clone(), shared: shared.clone(), state: state.clone() };
    let catalogs = Arc::new(DynamicFileCatalog::new(state.catalog_list().clone(), Arc::new(files)));
    let state = SessionStateBuilder::new_from_existing(state).with_catalog_list(catalogs).build();
    SessionContext::new_with_state(state)
}

/// Adds the functions that give tables.
pub(super) fn register(
    session: &SessionContext,
    stores: &Stores,
    shared: &Arc<Shared>,
    models: Vec<ListedModel>,
) {
    let folder = |what| Arc::new(Folder { stores: stores.clone(), shared: shared.clone(), what });
    session.register_udtf("images", folder(Items::Pictures));
    session.register_udtf("documents", folder(Items::Documents));
    session.register_udtf("kun_models", Arc::new(Models(models)));
}

/// Makes tables of names.
struct Files {
    stores: Stores,
    shared: Arc<Shared>,
    /// A session without this, to look at Parquet files with.
    state: SessionState,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl UrlTableFactory for Files {
    async fn try_new(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        // A name that is no file's is somebody's table, or none.
        let is_file = name.contains(['/', '.', '*', '?']) || Path::new(name).exists();
        if !is_file {
            return Ok(None);
        }
        let input = Input { uri: vec![name.to_owned()], ..Input::default() };
        let (stores, shared) = (self.stores.clone(), self.shared.clone());
        let work = move || {
            let found = input::discover(&stores, &input)?;
            shared.reads(&found.objects);
            match parquet_urls(&found) {
                Some(urls) => Ok(Source::Parquet(urls)),
                None => Table::new(stores, shared, found, None).map(Source::Table),
            }
        };
        let source: Result<Source, BulkError> = blocking(work).await?;
        match source.map_err(external)? {
            Source::Table(table) => Ok(Some(Arc::new(table))),
            Source::Parquet(urls) => Ok(Some(self.parquet(urls).await?)),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| DataFusionError::External(Box::new(error)))
}

enum Source {
    Parquet(Vec<ListingTableUrl>),
    Table(Table),
}

/// Addresses of Parquet files of this machine whose names DataFusion takes as they are.
fn parquet_urls(found: &Found) -> Option<Vec<ListingTableUrl>> {
    let url = |uri: &String| {
        let path = std::path::absolute(uri.strip_prefix("file://").unwrap_or(uri)).ok()?;
        let path = path.to_str()?;
        let is_plain = !is_remote(uri) && !path.contains(['*', '?', '[', ']', '%', '#']);
        if is_plain { ListingTableUrl::parse(path).ok() } else { None }
    };
    if found.format != Format::Parquet {
        return None;
    }
    found.objects.iter().map(|object| url(&object.uri)).collect()
}

impl Files {
    async fn parquet(&self, urls: Vec<ListingTableUrl>) -> Result<Arc<dyn TableProvider>> {
        let format = ParquetFormat::default().with_options(self.state.table_options().parquet.clone());
        let options = ListingOptions::new(Arc::new(format)).with_file_extension("");
        let mut schemas = Vec::with_capacity(urls.len());
        for url in &urls {
            schemas.push(options.infer_schema(&self.state, url).await?.as_ref().clone());
        }
        let schema = Schema::try_merge(schemas)?;
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(options)
            .with_schema(Arc::new(schema));
        Ok(Arc::new(ListingTable::try_new(config)?))
    }
}

/// Rows as `kun map` reads them.
#[derive(Clone)]
struct Table {
    stores: Stores,
    shared: Arc<Shared>,
    format: Format,
    plan: Arc<Plan>,
    schema: SchemaRef,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Splits are read one after the other: small ones, so that several threads find some.
const SPLIT: SplitSize = SplitSize { bytes: 8 << 20, rows: 50_000 };

impl Table {
    /// The table of files. In a folder of files, `items` says which of them are rows.
    fn new(
        stores: Stores,
        shared: Arc<Shared>,
        mut found: Found,
        items: Option<Items>,
    ) -> Result<Table, BulkError> {
        let mut lazy: &[&str] = &[];
        if found.format == Format::Files {
            let has_pictures = found.objects.iter().any(|object| input::is_picture(&object.uri));
            let usual = if has_pictures { Items::Pictures } else { Items::Documents };
            let items = items.unwrap_or(usual);
            let is_wanted =
                |object: &&ObjectInfo| input::is_picture(&object.uri) == (items == Items::Pictures);
            found.objects = found.objects.iter().filter(is_wanted).cloned().collect::<Vec<_>>().into();
            lazy = match items {
                Items::Pictures => &["image", "content"],
                Items::Documents => &["text"],
            };
        }
        let plan = input::plan(&stores, &found, SPLIT)?;
        let names =
            plan.schema.fields().iter().map(|field| field.name().as_str()).chain(lazy.iter().copied());
        let names: Vec<String> = names.map(str::to_owned).collect();
        let reading =
            Reading { format: found.format, schema: &plan.schema, columns: &names, condition: None };
        let mut schema = reading.output_schema()?;
        if matches!(found.format, Format::Csv | Format::Tsv) {
            schema = with_types(&stores, &plan, &reading)?;
        }
        Ok(Table { stores, shared, format: found.format, plan: Arc::new(plan), schema })
    }
}

/// Columns with the types that the first rows of the first and of the last split have.
fn with_types(stores: &Stores, plan: &Plan, reading: &Reading<'_>) -> Result<SchemaRef, BulkError> {
    let schema = reading.output_schema()?;
    let mut samples = Vec::new();
    for split in plan.splits.first().into_iter().chain(plan.splits.last()) {
        if let Some(chunk) = reading.open(stores, split)?.next() {
            samples.push(chunk?.batch);
        }
    }
    let sample = arrow_select::concat::concat_batches(&schema, &samples)?;
    let typed = |(field, column): (&Arc<Field>, &ArrayRef)| match column.as_string_opt::<i32>() {
        Some(texts) => field.as_ref().clone().with_data_type(typed::type_of(texts)),
        None => field.as_ref().clone(),
    };
    Ok(Arc::new(Schema::new(schema.fields().iter().zip(sample.columns()).map(typed).collect::<Vec<_>>())))
}

#[async_trait::async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(places) => Arc::new(self.schema.project(places)?),
            None => self.schema.clone(),
        };
        // Parts in the order of the input, each with about as many splits as the others.
        let splits = self.plan.splits.len();
        let count = session.config().target_partitions().clamp(1, splits.max(1));
        let part = |at: usize| {
            let splits = splits * at / count..splits * (at + 1) / count;
            Arc::new(Part { table: self.clone(), splits, schema: schema.clone() }) as Arc<dyn PartitionStream>
        };
        let parts: Vec<_> = (0..count).map(part).collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema.clone(), parts, None, [], false, limit)?))
    }
}

/// Some splits, one after the other.
#[derive(Debug)]
struct Part {
    table: Table,
    splits: std::ops::Range<usize>,
    schema: SchemaRef,
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(self.schema.clone(), 2);
        let sender = stream.tx();
        let (table, splits, schema) = (self.table.clone(), self.splits.clone(), self.schema.clone());
        stream.spawn_blocking(move || {
            let mut columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
            // Rows are counted by a column, even if none is wanted.
            let first = table.schema.fields().first().filter(|_| columns.is_empty());
            columns.extend(first.map(|field| field.name().clone()));
            let reading = Reading {
                format: table.format,
                schema: &table.plan.schema,
                columns: &columns,
                condition: None,
            };
            for split in &table.plan.splits[splits] {
                for chunk in reading.open(&table.stores, split).map_err(external)? {
                    let batch = table.typed(split, chunk.map_err(external)?, &schema)?;
                    if sender.blocking_send(Ok(batch)).is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        stream.build()
    }
}

impl Table {
    /// The chunk's rows with the table's types. Rows that cannot be read, and values that are not of their column's type,
    /// are NULL and are told.
    fn typed(&self, split: &Split, chunk: Chunk, schema: &SchemaRef) -> Result<RecordBatch> {
        let rows = chunk.batch.num_rows();
        if let Some((_, error)) = chunk.errors.first() {
            self.shared.failed(chunk.errors.len(), || format!("{}: {}", uri_of(split), error.reason));
        }
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (field, column) in schema.fields().iter().zip(chunk.batch.columns()) {
            let (column, wrong) = typed::typed(column, field.data_type());
            if let Some(row) = wrong.first() {
                let text =
                    chunk.batch.column_by_name(field.name()).and_then(|column| column.as_string_opt::<i32>());
                let text: String =
                    text.map(|text| text.value(*row).chars().take(40).collect()).unwrap_or_default();
                self.shared.failed(wrong.len(), || {
                    let (uri, name, kind) = (uri_of(split), field.name(), field.data_type());
                    format!("{uri}: `{name}` is {kind} in the first rows, and `{text}` is not")
                });
            }
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
    }
}

fn uri_of(split: &Split) -> &str {
    match &split.range {
        Range::Rows { object, .. }
        | Range::Bytes { object, .. }
        | Range::Batches { object, .. }
        | Range::Broken { object, .. } => &object.uri,
        Range::Files { objects } => objects.first().map_or("", |object| &object.uri),
    }
}

/// What the rows of a folder are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Items {
    Pictures,
    Documents,
}

/// `images('folder')` and `documents('folder')`.
struct Folder {
    stores: Stores,
    shared: Arc<Shared>,
    what: Items,
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folder").field("what", &self.what).finish_non_exhaustive()
    }
}

impl TableFunctionImpl for Folder {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let [Expr::Literal(ScalarValue::Utf8(Some(folder)), _)] = args.exprs() else {
            return plan_err!("a folder in single quotes is wanted, such as images('photos/')");
        };
        let input = Input { uri: vec![folder.clone()], format: Some(Format::Files), ..Input::default() };
        let (stores, shared, what) = (self.stores.clone(), self.shared.clone(), self.what);
        let found = input::discover(&stores, &input).map_err(external)?;
        shared.reads(&found.objects);
        Ok(Arc::new(Table::new(stores, shared, found, Some(what)).map_err(external)?))
    }
}

/// `kun_models()`.
#[derive(Debug)]
struct Models(Vec<ListedModel>);

impl TableFunctionImpl for Models {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        if !args.exprs().is_empty() {
            return plan_err!("kun_models() takes nothing");
        }
        let schema = Arc::new(Schema::new(vec![
            Field::new("name", DataType::Utf8, false),
            Field::new("bytes", DataType::Int64, true),
            Field::new("path", DataType::Utf8, false),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.0.iter().map(|model| Some(model.name.as_str())).collect::<StringArray>()),
            Arc::new(self.0.iter().map(|model| i64::try_from(model.bytes).ok()).collect::<Int64Array>()),
            Arc::new(self.0.iter().map(|model| Some(model.path.as_str())).collect::<StringArray>()),
        ];
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }
}
