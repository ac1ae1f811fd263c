//! The node that computes calls: pieces of rows no larger than a function takes, some at work at once, in their order.

use super::function::ModelFunction;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, Result, ScalarValue, exec_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarUDF, UserDefinedLogicalNode,
    UserDefinedLogicalNodeCore,
};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures_util::StreamExt;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A call that was taken out of an expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lifted {
    /// The call.
    pub(super) call: Expr,
    /// The rows that need it; `None`: all.
    pub(super) guard: Option<Expr>,
    /// The column that has its results.
    pub(super) name: String,
}

/// The input's columns, then one for each call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InferNode {
    pub(super) calls: Vec<Lifted>,
    pub(super) input: LogicalPlan,
    schema: DFSchemaRef,
}

impl InferNode {
    pub(super) fn new(calls: Vec<Lifted>, input: LogicalPlan) -> Result<InferNode> {
        let before = input.schema();
        let mut fields: Vec<_> =
            before.iter().map(|(table, field)| (table.cloned(), field.clone())).collect();
        for lifted in &calls {
            let (_, field) = lifted.call.to_field(before)?;
            let field = Field::new(&lifted.name, field.data_type().clone(), true);
            fields.push((None, Arc::new(field)));
        }
        let schema = DFSchema::new_with_metadata(fields, before.metadata().clone())?
            .with_functional_dependencies(before.functional_dependencies().clone())?;
        Ok(InferNode { calls, input, schema: Arc::new(schema) })
    }
}

impl PartialOrd for InferNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for InferNode {
    fn name(&self) -> &str {
        "Infer"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.calls
            .iter()
            .flat_map(|lifted| [Some(lifted.call.clone()), lifted.guard.clone()])
            .flatten()
            .collect()
    }

    /// Conditions on anything but results go below: fewer rows need an answer.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.calls.iter().map(|lifted| lifted.name.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Infer:")?;
        for lifted in &self.calls {
            write!(f, " {} AS {}", lifted.call.schema_name(), lifted.name)?;
            if let Some(guard) = &lifted.guard {
                write!(f, " WHERE {guard}")?;
            }
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<InferNode> {
        let mut exprs = exprs.into_iter();
        let mut calls = Vec::with_capacity(self.calls.len());
        for lifted in &self.calls {
            let Some(call) = exprs.next() else { return plan_err!("a call is missing") };
            let guard = if lifted.guard.is_some() { exprs.next() } else { None };
            let plain = |expr: Expr| expr.unalias_nested().data;
            calls.push(Lifted { call: plain(call), guard: guard.map(plain), name: lifted.name.clone() });
        }
        match inputs.pop() {
            Some(input) => InferNode::new(calls, input),
            None => plan_err!("a node without input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        // What calls read is added by whoever asks.
        let width = self.input.schema().fields().len();
        Some(vec![output_columns.iter().copied().filter(|column| *column < width).collect()])
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }
}

/// Makes [`Infer`] of [`InferNode`].
pub(super) struct InferPlanner;

#[async_trait::async_trait]
impl ExtensionPlanner for InferPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(node), [input]) = (node.as_any().downcast_ref::<InferNode>(), inputs) else {
            return Ok(None);
        };
        let schema = node.input.schema();
        let physical = |expr: &Expr| planner.create_physical_expr(expr, schema, session, planning);
        let mut calls = Vec::with_capacity(node.calls.len());
        for lifted in &node.calls {
            let Expr::ScalarFunction(function) = &lifted.call else {
                return plan_err!("no call: {}", lifted.call);
            };
            calls.push(Call {
                function: function.func.clone(),
                arguments: function.args.iter().map(physical).collect::<Result<_>>()?,
                guard: lifted.guard.as_ref().map(physical).transpose()?,
                constant: Mutex::default(),
            });
        }
        let names = node.calls.iter().map(|lifted| lifted.name.as_str());
        let results = node.schema.fields().iter().rev().take(calls.len()).rev();
        let results =
            names.zip(results).map(|(name, field)| Arc::new(field.as_ref().clone().with_name(name)));
        let fields: Vec<_> = input.schema().fields().iter().cloned().chain(results).collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(Some(Arc::new(Infer::new(Arc::new(calls), input.clone(), schema))))
    }
}

#[derive(Debug)]
struct Call {
    function: Arc<ScalarUDF>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    guard: Option<Arc<dyn PhysicalExpr>>,
    /// The result of a call that reads no column. Locked while it is computed: pieces at work at once ask for it once.
    constant: Mutex<Option<ScalarValue>>,
}

/// The input's columns, then one for each call.
#[derive(Debug)]
struct Infer {
    calls: Arc<Vec<Call>>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Infer {
    fn new(calls: Arc<Vec<Call>>, input: Arc<dyn ExecutionPlan>, schema: SchemaRef) -> Infer {
        // The input's columns keep their places, and its rows their order.
        let orderings =
            input.equivalence_properties().oeq_class().iter().cloned().map(|ordering| ordering.into_iter());
        let equivalence = EquivalenceProperties::new_with_orderings(schema, orderings);
        let properties = PlanProperties::new(
            equivalence,
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Infer { calls, input, properties: Arc::new(properties) }
    }
}

impl DisplayAs for Infer {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.calls.iter().map(|call| call.function.name()).collect();
        write!(f, "Infer: {}", names.join(", "))
    }
}

impl ExecutionPlan for Infer {
    fn name(&self) -> &str {
        "Infer"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    /// Rows that are dealt out to more threads reach the same model.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for call in self.calls.iter() {
            for expr in call.arguments.iter().chain(&call.guard) {
                if f(expr)? == TreeNodeRecursion::Stop {
                    return Ok(TreeNodeRecursion::Stop);
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Infer::new(self.calls.clone(), input, self.schema()))),
            None => exec_err!("a node without input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (calls, schema, pace) = (self.calls.clone(), self.schema(), Arc::new(Pace::new()));
        let pieces = pieces(input, pace.clone());
        let done = pieces
            .map(move |piece| {
                let (calls, schema, pace) = (calls.clone(), schema.clone(), pace.clone());
                async move {
                    let piece = piece?;
                    // Models block: nothing else of the query waits for them.
                    let work = tokio::task::spawn_blocking(move || {
                        let began = Instant::now();
                        let rows = piece.num_rows();
                        let answered = answer(&calls, &piece, schema);
                        pace.adapt(rows, began.elapsed());
                        answered
                    });
                    work.await.map_err(|error| DataFusionError::External(Box::new(error)))?
                }
            })
            .buffered(AT_ONCE);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), done)))
    }
}

/// Pieces at work or waiting for their turn at a model.
const AT_ONCE: usize = 2;
const FIRST_ROWS: usize = 64;
const MOST_ROWS: usize = 4096;
/// A piece of so many bytes is cut, unless it is one row.
const PIECE_BYTES: usize = 16 << 20;
/// A piece takes about so long.
const PIECE_TIME: Duration = Duration::from_secs(2);

/// How many rows a piece has: few at first, so that whoever looks at results sees some soon.
#[derive(Debug)]
struct Pace(AtomicUsize);

impl Pace {
    fn new() -> Pace {
        Pace(AtomicUsize::new(FIRST_ROWS))
    }

    fn adapt(&self, rows: usize, took: Duration) {
        let now = self.0.load(Atomic::Relaxed);
        if took > PIECE_TIME {
            self.0.store((rows / 2).max(1), Atomic::Relaxed);
        } else if rows >= now && took < PIECE_TIME / 3 {
            self.0.store((now * 2).min(MOST_ROWS), Atomic::Relaxed);
        }
    }

    /// Rows of the next piece of `batch` from `start` on.
    fn next(&self, batch: &RecordBatch, start: usize) -> usize {
        let left = batch.num_rows() - start;
        let row_bytes = batch.get_array_memory_size() / batch.num_rows().max(1);
        let fit = (PIECE_BYTES / row_bytes.max(1)).max(1);
        self.0.load(Atomic::Relaxed).min(fit).min(left)
    }
}

/// The rows of a stream in pieces, cut when they are asked for.
fn pieces(
    input: SendableRecordBatchStream,
    pace: Arc<Pace>,
) -> impl futures_util::Stream<Item = Result<RecordBatch>> {
    futures_util::stream::unfold((input, None::<(RecordBatch, usize)>), move |(mut input, mut rest)| {
        let pace = pace.clone();
        async move {
            loop {
                let (batch, start) = match rest.take() {
                    Some(rest) => rest,
                    None => match input.next().await? {
                        Ok(batch) => (batch, 0),
                        Err(error) => return Some((Err(error), (input, None))),
                    },
                };
                if start < batch.num_rows() {
                    let count = pace.next(&batch, start);
                    let piece = batch.slice(start, count);
                    return Some((Ok(piece), (input, Some((batch, start + count)))));
                }
            }
        }
    })
}

fn answer(calls: &[Call], batch: &RecordBatch, schema: SchemaRef) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    for call in calls {
        columns.push(call.answer(batch)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

impl Call {
    fn answer(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let rows = batch.num_rows();
        let Some(function) = self.function.inner().downcast_ref::<ModelFunction>() else {
            return exec_err!("{} is no function of ours", self.function.name());
        };
        if function.stop().is_raised() {
            return Err(super::function::external(crate::BulkError::Stopped));
        }
        let wanted: Vec<u32> = match &self.guard {
            None => (0..u32::try_from(rows).unwrap_or(u32::MAX)).collect(),
            Some(guard) => {
                let needed = guard.evaluate(batch)?.into_array(rows)?;
                let needed = needed.as_boolean();
                let needs = |row: &u32| needed.is_valid(*row as usize) && needed.value(*row as usize);
                (0..u32::try_from(rows).unwrap_or(u32::MAX)).filter(needs).collect()
            }
        };
        let arguments: Vec<ColumnarValue> =
            self.arguments.iter().map(|argument| argument.evaluate(batch)).collect::<Result<_>>()?;
        let is_constant = arguments.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        if is_constant && !wanted.is_empty() {
            let mut constant = self.constant.lock().unwrap_or_else(PoisonError::into_inner);
            let scalar = match constant.take() {
                Some(scalar) => scalar,
                None => ScalarValue::try_from_array(&function.call(&arguments, &[0], 1)?, 0)?,
            };
            return constant.insert(scalar).to_array_of_size(rows);
        }
        function.call(&arguments, &wanted, rows)
    }
}
