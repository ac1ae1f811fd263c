//! The one plan that a cluster runs: a table of splits, and [`RunSplits`] above it. Anything else is refused: Ballista
//! would read and write any file for whoever reaches its ports.

use super::request::{Answer, Sealed, Token};
use super::worker::Worker;
use crate::Split;
use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::execution_plans::ShuffleWriterExec;
use ballista_core::serde::BallistaPhysicalExtensionCodec;
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use datafusion::prelude::SessionConfig;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

fn refused(what: impl Into<String>) -> DataFusionError {
    DataFusionError::Execution(what.into())
}

fn schema_of_splits() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("index", DataType::UInt64, false),
        Field::new("id", DataType::Utf8, false),
        // Milliseconds that the answer is held back if the split is not done.
        Field::new("wait", DataType::UInt64, false),
    ]))
}

fn schema_of_answers() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("index", DataType::UInt64, false),
        Field::new("end", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("executor", DataType::Utf8, false),
    ]))
}

/// Rows of answers.
pub(super) fn answers(batch: &RecordBatch) -> Vec<Answer> {
    let text = |name: &str, row: usize| {
        let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.map(|column| column.value(row).to_owned()).unwrap_or_default()
    };
    let index = batch.column_by_name("index").and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let Some(index) = index else { return Vec::new() };
    let one = |row| Answer {
        index: index.value(row),
        end: super::request::End::of(&text("end", row)),
        reason: text("reason", row),
        executor: text("executor", row),
    };
    (0..batch.num_rows()).map(one).collect()
}

fn batch_of(answer: &Answer) -> Result<RecordBatch> {
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from(vec![answer.index])),
        text(answer.end.name()),
        text(&answer.reason),
        text(&answer.executor),
    ];
    Ok(RecordBatch::try_new(schema_of_answers(), columns)?)
}

/// Does the splits that its input names; gives an answer for each, and no error.
#[derive(Debug)]
pub(super) struct RunSplits {
    input: Arc<dyn ExecutionPlan>,
    sealed: Arc<Sealed>,
    /// On executors.
    worker: Option<Arc<Worker>>,
    properties: Arc<PlanProperties>,
}

impl RunSplits {
    fn new(input: Arc<dyn ExecutionPlan>, sealed: Arc<Sealed>, worker: Option<Arc<Worker>>) -> RunSplits {
        let partitions = input.output_partitioning().partition_count();
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema_of_answers()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        RunSplits { input, sealed, worker, properties }
    }

    /// The plan that does `tasks`, each on one executor, its splits one after the other.
    pub(super) fn plan(
        tasks: &[Vec<&Split>],
        sealed: Sealed,
        wait: Duration,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let schema = schema_of_splits();
        let partition = |splits: &Vec<&Split>| -> Result<Vec<RecordBatch>> {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(UInt64Array::from_iter_values(splits.iter().map(|split| split.index as u64))),
                Arc::new(StringArray::from_iter_values(splits.iter().map(|split| &split.id))),
                Arc::new(UInt64Array::from(vec![wait; splits.len()])),
            ];
            Ok(vec![RecordBatch::try_new(schema.clone(), columns)?])
        };
        let partitions = tasks.iter().map(partition).collect::<Result<Vec<_>>>()?;
        let table = MemorySourceConfig::try_new_exec(&partitions, schema.clone(), None)?;
        Ok(Arc::new(RunSplits::new(table, Arc::new(sealed), None)))
    }
}

impl DisplayAs for RunSplits {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunSplits")
    }
}

impl ExecutionPlan for RunSplits {
    fn name(&self) -> &str {
        "RunSplits"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => {
                Ok(Arc::new(RunSplits::new(input, self.sealed.clone(), self.worker.clone())))
            }
            _ => Err(refused("splits come from one table")),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let worker = self.worker.clone().ok_or_else(|| refused("splits are done on executors alone"))?;
        let (sealed, input) = (self.sealed.clone(), self.input.execute(partition, context)?);
        let answers = input
            .map_ok(|batch| {
                let index = batch.column(0).as_primitive::<UInt64Type>().clone();
                let id = batch.column(1).as_string::<i32>().clone();
                let wait = batch.column(2).as_primitive::<UInt64Type>().clone();
                let row = move |row| (index.value(row), id.value(row).to_owned(), wait.value(row));
                let rows = (0..batch.num_rows()).map(row);
                stream::iter(rows.map(Ok::<_, DataFusionError>))
            })
            .try_flatten()
            .and_then(move |(index, id, wait)| {
                let (worker, sealed) = (worker.clone(), sealed.clone());
                async move { batch_of(&worker.split(sealed, index, id, Duration::from_millis(wait)).await) }
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema_of_answers(), answers.boxed())))
    }
}

/// Writes and reads plans; on the scheduler and on executors it looks at seals too.
#[derive(Debug, Default)]
pub(super) struct Codec {
    pub(super) ballista: BallistaPhysicalExtensionCodec,
    pub(super) token: Option<Token>,
    pub(super) worker: Option<Arc<Worker>>,
}

/// No message of Ballista's own begins so: it would be a field of number 0.
const MARK: &[u8] = b"\0kun splits\0";

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        buffer: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(json) = buffer.strip_prefix(MARK) else {
            return self.ballista.try_decode(buffer, inputs, context, converter);
        };
        let [input] = inputs else { return Err(refused("splits come from one table")) };
        let table = input.schema();
        if table.fields() != schema_of_splits().fields() {
            return Err(refused("this table holds no splits"));
        }
        let sealed: Sealed = serde_json::from_slice(json).map_err(|error| refused(error.to_string()))?;
        sealed.check(self.token.as_ref()).map_err(refused)?;
        Ok(Arc::new(RunSplits::new(input.clone(), Arc::new(sealed), self.worker.clone())))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(splits) = node.downcast_ref::<RunSplits>() else {
            return self.ballista.try_encode(node, buffer, converter);
        };
        buffer.extend_from_slice(MARK);
        serde_json::to_writer(buffer, splits.sealed.as_ref()).map_err(|error| refused(error.to_string()))
    }
}

/// Runs [`RunSplits`] above a table in memory, and refuses every other plan.
pub(super) struct OnlySplits(pub(super) DefaultExecutionEngine);

impl ExecutionEngine for OnlySplits {
    fn create_query_stage_exec(
        &self,
        job_id: JobId,
        stage_id: usize,
        task_id: usize,
        partitions: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        work_dir: &str,
        config: &SessionConfig,
    ) -> Result<Arc<dyn QueryStageExecutor>> {
        if !is_ours(&plan) {
            return Err(refused("this executor does splits of `kun map` and no other queries"));
        }
        self.0.create_query_stage_exec(job_id, stage_id, task_id, partitions, plan, work_dir, config)
    }
}

fn is_ours(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let ours = || {
        plan.downcast_ref::<ShuffleWriterExec>()?;
        let [splits] = plan.children()[..] else { return None };
        let splits = splits.downcast_ref::<RunSplits>()?;
        let source = splits.input.downcast_ref::<DataSourceExec>()?;
        let source: &dyn Any = source.data_source().as_ref();
        source.downcast_ref::<MemorySourceConfig>()
    };
    ours().is_some()
}

/// Refuses queries: they could name any file.
#[derive(Debug)]
pub(super) struct NoQueries;

#[async_trait]
impl QueryPlanner for NoQueries {
    async fn create_physical_plan(&self, _: &LogicalPlan, _: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        Err(refused("this scheduler takes jobs of `kun map` and no queries"))
    }
}

/// Knows no place where files are, not even this machine's disk.
#[derive(Debug)]
struct NoStores;

impl ObjectStoreRegistry for NoStores {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        Err(refused(format!("{url}: plans read and write no files here")))
    }
}

/// Where plans find nothing to read or write.
pub(super) fn bare_runtime() -> Result<Arc<RuntimeEnv>> {
    RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(NoStores)).build_arc()
}
