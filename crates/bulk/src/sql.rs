//! SQL over files, with this crate's functions in it.
//!
//! DataFusion parses, plans and runs queries. A function of ours is a scalar function to it; `lower` takes calls out of
//! expressions and `infer` computes them, cheap conditions first. `tables` reads files, `order` keeps their order,
//! `save` writes results. `where` of a job is a `Condition`.

mod condition;
mod cosine;
mod function;
mod infer;
mod lower;
mod order;
mod query;
mod save;
mod statement;
mod tables;
mod typed;

pub(crate) use condition::Condition;
pub use function::Failures;
pub(crate) use query::Query;

use crate::function::{Context, Registry, Stop};
use crate::job::Format;
use crate::store::Stores;
use crate::{BulkError, json};
use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::{CopyToSource, CopyToStatement, Statement};
use function::Shared;
use futures_util::StreamExt;
use serde_json::Value;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// A model as `kun_models()` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedModel {
    /// The name that calls give.
    pub name: String,
    /// Bytes on this disk.
    pub bytes: u64,
    /// Where it lies.
    pub path: String,
}

/// What a session may take of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads that read, sort and join.
    pub threads: usize,
    /// Bytes of sorts, joins and groups in memory; more of them go to files that are removed afterwards.
    pub memory_bytes: usize,
}

/// Some rows of a result.
#[derive(Clone, Debug)]
pub struct Rows {
    columns: SchemaRef,
    batch: Option<RecordBatch>,
}

/// What a statement gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A result, which the caller was given row by row.
    Rows,
    /// A file.
    Written {
        /// Its address.
        uri: String,
        /// Rows in it.
        rows: u64,
    },
}

/// A session of SQL: tables that were made stay until it ends.
pub struct Sql {
    context: SessionContext,
    shared: Arc<Shared>,
    stores: Stores,
    runtime: tokio::runtime::Runtime,
}

/// A statement that was read.
pub struct Parsed(Statement);

/// Rows at once between the nodes of a plan.
const BATCH_ROWS: usize = 4096;
/// Plans are walked by recursion, as deep as a statement nests.
const STACK_BYTES: usize = 512 << 20;
const WORKER_STACK_BYTES: usize = 64 << 20;
/// Columns that a message names.
const MOST_NAMES: usize = 50;
/// How often a query looks whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Does `work` on a thread whose stack bears what [`statement`] lets through.
fn with_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, BulkError> {
    let failed = |source| BulkError::store("start", "a thread", source);
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work).map_err(failed)?;
        thread
            .join()
            .map_err(|_| BulkError::Sql { what: "the query cannot be worked on (a panic)".to_owned() })
    })
}

/// [`infer::InferPlanner`] in a planner.
#[derive(Debug)]
struct Planner;

#[async_trait::async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn datafusion::catalog::Session,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(infer::InferPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}

impl Sql {
    /// With the functions of `registry`, and the models of this disk for `kun_models()`.
    ///
    /// # Errors
    /// [`BulkError::Store`] if the system has no threads to give.
    pub fn new(
        registry: Registry,
        context: Context,
        models: Vec<ListedModel>,
        limits: Limits,
    ) -> Result<Sql, BulkError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(limits.threads.max(1))
            .thread_stack_size(WORKER_STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|source| BulkError::store("start", "the runtime of SQL", source))?;
        let stores = context.stores.clone();
        let names: Vec<&'static str> = registry.iter().map(|factory| factory.name()).collect();
        let shared = Arc::new(Shared::new(registry, context));
        let pool = FairSpillPool::new(limits.memory_bytes);
        let pool = TrackConsumersPool::new(pool, NonZeroUsize::MIN);
        let machine = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(DiskManagerBuilder::default())
            .build_arc()
            .map_err(error_of)?;
        let state = SessionStateBuilder::new()
            .with_config(config(limits.threads))
            .with_runtime_env(machine)
            .with_default_features()
            .with_optimizer_rules(rules())
            .with_physical_optimizer_rules(physical_rules())
            .with_query_planner(Arc::new(Planner))
            .build();
        let session = tables::with_files(state, &stores, &shared);
        for name in names {
            session
                .register_udf(ScalarUDF::new_from_impl(function::ModelFunction::new(name, shared.clone())));
        }
        session.register_udf(cosine::udf());
        tables::register(&session, &stores, &shared, models);
        Ok(Sql { context: session, shared, stores, runtime })
    }

    /// Reads statements, parted by `;`.
    ///
    /// # Errors
    /// [`BulkError::Sql`].
    pub fn parse(&self, text: &str) -> Result<Vec<Parsed>, BulkError> {
        with_stack(|| statement::parse(text).map(|all| all.into_iter().map(Parsed).collect()))?
    }

    /// Runs a statement; `each` gets its rows, first none of them, which tells the columns. With `output`, they go to
    /// that file or folder instead. `stop` ends it.
    ///
    /// # Errors
    /// [`BulkError::Sql`], [`BulkError::Stopped`], those of reading and writing, and what `each` gives.
    pub fn run(
        &self,
        statement: Parsed,
        output: Option<(&str, Option<Format>)>,
        stop: &Stop,
        each: &mut (dyn FnMut(&Rows) -> Result<(), BulkError> + Send),
    ) -> Result<Ended, BulkError> {
        self.shared.set_stop(stop.clone());
        with_stack(|| self.runtime.block_on(self.statement(statement.0, output, stop, each)))?
    }

    /// Rows without a result since the last call, and the first reason.
    pub fn take_failures(&self) -> Option<Failures> {
        self.shared.take_failures()
    }

    /// Names of the tables that were made.
    pub fn tables(&self) -> Vec<String> {
        let catalog = self.context.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
        catalog.map(|schema| schema.table_names()).unwrap_or_default()
    }

    async fn statement(
        &self,
        statement: Statement,
        output: Option<(&str, Option<Format>)>,
        stop: &Stop,
        each: &mut (dyn FnMut(&Rows) -> Result<(), BulkError> + Send),
    ) -> Result<Ended, BulkError> {
        let (statement, output) = match (statement, output) {
            (Statement::CopyTo(_), Some(_)) => {
                return Err(BulkError::Sql {
                    what: "COPY says itself where its rows go: leave -o out".to_owned(),
                });
            }
            (Statement::CopyTo(copy), None) => {
                let (query, uri, format) = copied(copy)?;
                (query, Some((uri, format)))
            }
            (statement, output) => (statement, output.map(|(uri, format)| (uri.to_owned(), format))),
        };
        // A place that cannot be written to is told before any work.
        let save = output.map(|(uri, format)| save::Save::new(&uri, format, &self.stores)).transpose()?;
        self.query(statement, save, stop, each).await
    }

    async fn query(
        &self,
        statement: Statement,
        save: Option<save::Save>,
        stop: &Stop,
        each: &mut (dyn FnMut(&Rows) -> Result<(), BulkError> + Send),
    ) -> Result<Ended, BulkError> {
        let plan = self.plan(statement).await?;
        let frame = self.context.execute_logical_plan(plan).await.map_err(error_of)?;
        let task = Arc::new(frame.task_ctx());
        let plan = frame.create_physical_plan().await.map_err(error_of)?;
        self.rows(plan, task, save, stop, each).await
    }

    async fn plan(&self, mut statement: Statement) -> Result<LogicalPlan, BulkError> {
        statement::rewrite_calls(&mut statement, &self.shared)?;
        loop {
            match self.context.state().statement_to_plan(statement.clone()).await {
                Ok(LogicalPlan::Dml(dml)) if dml.table_name.table().contains(['/', '.', '*']) => {
                    let what = "files are not changed in place: COPY (SELECT ..) TO 'file' writes one";
                    return Err(BulkError::Sql { what: what.to_owned() });
                }
                Ok(LogicalPlan::Copy(_)) => {
                    return Err(BulkError::Sql { what: "COPY stands alone".to_owned() });
                }
                Ok(plan) => return Ok(plan),
                Err(error) if statement::mend_case(&mut statement, &error) => {}
                Err(error) => return Err(error_of(error)),
            }
        }
    }

    async fn rows(
        &self,
        mut plan: Arc<dyn ExecutionPlan>,
        task: Arc<TaskContext>,
        mut save: Option<save::Save>,
        stop: &Stop,
        each: &mut (dyn FnMut(&Rows) -> Result<(), BulkError> + Send),
    ) -> Result<Ended, BulkError> {
        if plan.output_partitioning().partition_count() > 1 {
            plan = Arc::new(order::InOrder::new(plan, None));
        }
        let columns = distinct_names(&plan.schema());
        let mut stream = cooperative(plan)?.execute(0, task).map_err(error_of)?;
        match &mut save {
            Some(save) => save.begin(&columns)?,
            None => each(&Rows { columns: columns.clone(), batch: None })?,
        }
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                () = raised(stop) => return Err(BulkError::Stopped),
            };
            let Some(batch) = next else { break };
            let batch = batch.map_err(error_of)?;
            match &mut save {
                Some(save) => save.write(&batch)?,
                None => each(&Rows { columns: columns.clone(), batch: Some(batch) })?,
            }
        }
        match save {
            Some(save) => {
                let rows = save.rows;
                Ok(Ended::Written { uri: save.finish()?, rows })
            }
            None => Ok(Ended::Rows),
        }
    }
}

/// Lets others in while a join makes many rows of few: DataFusion itself sees to that where rows are read.
fn cooperative(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, BulkError> {
    let joined = |node: Arc<dyn ExecutionPlan>| {
        Ok(match node.children().len() {
            0 | 1 => Transformed::no(node),
            _ => Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>),
        })
    };
    Ok(plan.transform_up(joined).map_err(error_of)?.data)
}

/// Ends when the flag is raised.
async fn raised(stop: &Stop) {
    while !stop.is_raised() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn config(threads: usize) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        .with_target_partitions(threads.max(1))
        .with_information_schema(true)
        .with_round_robin_repartition(false);
    let options = config.options_mut();
    // Texts are plain ones, as functions and writers take them.
    options.execution.parquet.schema_force_view_types = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    // Names are those of files' headers; `statement::mend_case` sees to the rest.
    options.sql_parser.enable_ident_normalization = false;
    // A part of a file is read by whoever has its place in the order.
    options.execution.enable_file_stream_work_stealing = false;
    options.execution.parquet.pushdown_filters = true;
    config
}

/// DataFusion's rules, and [`lower::Lower`] after those that make joins of subqueries, before those that push down.
fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let at = rules.iter().position(|rule| rule.name() == "extract_equijoin_predicate").unwrap_or(0);
    rules.insert(at, Arc::new(lower::Lower));
    rules
}

/// DataFusion's rules, and [`order::KeepOrder`] after all of them.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    rules.push(Arc::new(order::KeepOrder));
    rules
}

/// The query of a COPY, and where its rows go.
fn copied(copy: CopyToStatement) -> Result<(Statement, String, Option<Format>), BulkError> {
    let wrong = |what: &str| Err(BulkError::Sql { what: what.to_owned() });
    if !copy.partitioned_by.is_empty() || !copy.options.is_empty() {
        return wrong("COPY takes neither PARTITIONED BY nor OPTIONS here");
    }
    let format = match copy.stored_as.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("parquet") => Some(Format::Parquet),
        Some("csv") => Some(Format::Csv),
        Some("tsv") => Some(Format::Tsv),
        Some("jsonl" | "ndjson" | "json") => Some(Format::Jsonl),
        Some("arrow") => Some(Format::Arrow),
        Some(_) => return wrong("COPY writes PARQUET, CSV, TSV, JSONL or ARROW"),
    };
    let query = match copy.source {
        CopyToSource::Query(query) => {
            Statement::Statement(Box::new(datafusion::sql::sqlparser::ast::Statement::Query(query)))
        }
        CopyToSource::Relation(name) => {
            let mut read = statement::parse(&format!("SELECT * FROM {name}"))?;
            match read.pop_front() {
                Some(query) => query,
                None => return wrong("COPY of nothing"),
            }
        }
    };
    Ok((query, copy.target, format))
}

/// The columns, with a number behind a name that another has: a table has none twice.
fn distinct_names(schema: &SchemaRef) -> SchemaRef {
    let mut seen = HashSet::new();
    let field = |field: &Arc<Field>| {
        let mut name = field.name().clone();
        let mut count = 1;
        while !seen.insert(name.clone()) {
            name = format!("{}_{count}", field.name());
            count += 1;
        }
        field.as_ref().clone().with_name(name)
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

impl Rows {
    /// Names of the columns, none twice.
    pub fn columns(&self) -> Vec<&str> {
        self.columns.fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// Which columns are numbers.
    pub fn numeric(&self) -> Vec<bool> {
        self.columns.fields().iter().map(|field| field.data_type().is_numeric()).collect()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.batch.as_ref().map_or(0, RecordBatch::num_rows)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of a row.
    ///
    /// # Errors
    /// [`BulkError::Arrow`] for a value that has no form as text.
    pub fn row(&self, row: usize) -> Result<Vec<Value>, BulkError> {
        let columns = self.batch.iter().flat_map(RecordBatch::columns);
        let fields = self.columns.fields().iter();
        fields.zip(columns).map(|(field, column)| json::value(field, column.as_ref(), row)).collect()
    }
}

/// An error of DataFusion, without its inner workings.
fn error_of(error: DataFusionError) -> BulkError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => error_of(*inner),
        DataFusionError::External(other) => match other.downcast::<BulkError>() {
            Ok(own) => *own,
            Err(other) => match other.downcast::<DataFusionError>() {
                Ok(inner) => error_of(*inner),
                Err(other) => BulkError::Sql { what: chain(other.as_ref()) },
            },
        },
        DataFusionError::ArrowError(inner, _) => match *inner {
            arrow_schema::ArrowError::ExternalError(other) => error_of(DataFusionError::External(other)),
            other => BulkError::Sql { what: other.to_string() },
        },
        DataFusionError::SQL(inner, _) => BulkError::Sql { what: inner.to_string() },
        DataFusionError::ResourcesExhausted(what) => BulkError::Sql {
            what: format!("it takes more memory than there is (--memory gives more): {}", first_line(&what)),
        },
        DataFusionError::Plan(what)
        | DataFusionError::Execution(what)
        | DataFusionError::NotImplemented(what) => BulkError::Sql { what: hinted(&what) },
        DataFusionError::SchemaError(inner, _) => BulkError::Sql { what: schema_error(&inner) },
        DataFusionError::Internal(what) => {
            BulkError::Sql { what: format!("this query cannot be worked on: {}", first_line(&what)) }
        }
        other => shared_error(&other).unwrap_or_else(|| BulkError::Sql { what: other.strip_backtrace() }),
    }
}

/// An error that several hold: its text, and whether it is that of a query that was stopped.
fn shared_error(error: &DataFusionError) -> Option<BulkError> {
    let root = error.find_root();
    match root {
        DataFusionError::External(other) => match other.downcast_ref::<BulkError>() {
            Some(BulkError::Stopped) => Some(BulkError::Stopped),
            Some(own) => Some(BulkError::Sql { what: chain(own) }),
            None => Some(BulkError::Sql { what: chain(other.as_ref()) }),
        },
        DataFusionError::ResourcesExhausted(what) => {
            Some(error_of(DataFusionError::ResourcesExhausted(what.clone())))
        }
        _ => None,
    }
}

/// What is wrong with a name.
fn schema_error(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let mut names: Vec<&str> = Vec::new();
            for column in valid_fields.iter().map(|column| column.name.as_str()) {
                if !names.contains(&column) && names.len() < MOST_NAMES {
                    names.push(column);
                }
            }
            format!("no column `{}`; there are {}", field.name, names.join(", "))
        }
        other => other.to_string(),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    crate::input::chain(error)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn hinted(what: &str) -> String {
    let table = what.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
    match table.and_then(|name| name.rsplit('.').next()) {
        Some(name) => {
            format!("no table `{name}`; the name of a file stands in single quotes: FROM '{name}.csv'")
        }
        None => what.to_owned(),
    }
}
