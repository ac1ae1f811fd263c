//! Rows in the order of the input: DataFusion reads parts of a file at once and takes what comes first.

use arrow_array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures_util::StreamExt;
use std::sync::Arc;

/// Batches that a part may be ahead of the one before it.
const AHEAD: usize = 2;

/// Puts [`InOrder`] where the parts of a result come together, or those of rows that a window numbers, unless a node
/// above has an order of its own.
#[derive(Debug)]
pub(super) struct KeepOrder;

impl PhysicalOptimizerRule for KeepOrder {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        in_order(plan, true)
    }

    fn name(&self) -> &str {
        "kun_keep_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn in_order(plan: Arc<dyn ExecutionPlan>, matters: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let numbers = plan.name().contains("WindowAgg");
    let keeps = plan.maintains_input_order();
    let child = |(at, child): (usize, &Arc<dyn ExecutionPlan>)| {
        let keeps = keeps.get(at).copied().unwrap_or(false) || plan.is::<CoalescePartitionsExec>();
        in_order(child.clone(), numbers || (matters && keeps))
    };
    let children = plan.children().into_iter().enumerate().map(child).collect::<Result<Vec<_>>>()?;
    if let (true, Some(node), [input]) =
        (matters, plan.downcast_ref::<CoalescePartitionsExec>(), children.as_slice())
    {
        return Ok(Arc::new(InOrder::new(input.clone(), node.fetch())));
    }
    replace_children_if_necessary(plan, children)
}

/// The parts of the input one after the other; later ones are worked on ahead, within bounds.
#[derive(Debug)]
pub(super) struct InOrder {
    input: Arc<dyn ExecutionPlan>,
    /// Rows at most.
    fetch: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl InOrder {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, fetch: Option<usize>) -> InOrder {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        InOrder { input, fetch, properties: Arc::new(properties) }
    }
}

impl DisplayAs for InOrder {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.fetch {
            Some(fetch) => write!(f, "InOrder: fetch={fetch}"),
            None => write!(f, "InOrder"),
        }
    }
}

impl ExecutionPlan for InOrder {
    fn name(&self) -> &str {
        "InOrder"
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
        match children.pop() {
            Some(input) => Ok(Arc::new(InOrder::new(input, self.fetch))),
            None => exec_err!("a node without input"),
        }
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let parts = 0..self.input.output_partitioning().partition_count();
        let start = |part| Ok(spawn_buffered(self.input.execute(part, context.clone())?, AHEAD));
        let parts = parts.map(start).collect::<Result<Vec<_>>>()?;
        let rows = futures_util::stream::iter(parts).flatten();
        let cut = |left: &mut usize, batch: Result<RecordBatch>| {
            let cut = match batch {
                _ if *left == 0 => None,
                Ok(batch) => {
                    let rows = batch.num_rows().min(*left);
                    *left -= rows;
                    Some(Ok(batch.slice(0, rows)))
                }
                Err(error) => Some(Err(error)),
            };
            std::future::ready(cut)
        };
        let rows = rows.scan(self.fetch.unwrap_or(usize::MAX), cut);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
