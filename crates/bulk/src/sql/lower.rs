//! Takes calls of this crate's functions out of expressions: an [`InferNode`] below computes them, and the node above
//! reads columns.
//!
//! What is cheap comes first, so that functions see only rows that are left: conditions without calls are filtered
//! before those with calls, each condition with calls before the next, and a call behind `CASE`, `AND` or `OR` is
//! computed for the rows that reach it. A call that was computed below, or stands twice, is computed once.

use super::function::ModelFunction;
use super::infer::{InferNode, Lifted};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, JoinType, Result, plan_err};
use datafusion::logical_expr::expr::{BinaryExpr, Case, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, Extension, Filter, Join, LogicalPlan, Operator, Projection, Sort, binary_expr,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The rule.
#[derive(Debug)]
pub(super) struct Lower;

impl OptimizerRule for Lower {
    fn name(&self) -> &str {
        "kun_lower"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !plan_has_call(&plan)? {
            return Ok(Transformed::no(plan));
        }
        Ok(Transformed::yes(lower(plan, Extra::Refused)?))
    }
}

fn is_call(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.func.inner().is::<ModelFunction>())
}

fn has_call(expr: &Expr) -> bool {
    expr.exists(|part| Ok(is_call(part))).unwrap_or(false)
}

fn plan_has_call(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if !matches!(node, LogicalPlan::Extension(_)) {
            found |= node.expressions().iter().any(has_call);
        }
        Ok(match found {
            true => datafusion::common::tree_node::TreeNodeRecursion::Stop,
            false => datafusion::common::tree_node::TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// Whether a node may give columns that it did not give before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extra {
    /// The node above names the columns that it takes.
    Allowed,
    Refused,
}

fn lower(plan: LogicalPlan, extra: Extra) -> Result<LogicalPlan> {
    let plan = plan.map_subqueries(|inner| Ok(Transformed::yes(lower(inner, Extra::Refused)?)))?.data;
    let plan = late(plan)?;
    let schema = plan.schema().clone();
    let lowered = match plan {
        LogicalPlan::Projection(node) => {
            let input = lower(Arc::unwrap_or_clone(node.input), Extra::Allowed)?;
            let mut calls = Calls::over(&input);
            let exprs = calls.named(node.expr, NamePreserver::new_for_projection())?;
            return Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(calls.below(input)?))?));
        }
        LogicalPlan::Filter(node) => {
            filter(node.predicate, lower(Arc::unwrap_or_clone(node.input), Extra::Allowed)?)?
        }
        LogicalPlan::Sort(node) => {
            let input = lower(Arc::unwrap_or_clone(node.input), Extra::Allowed)?;
            let mut calls = Calls::over(&input);
            let mut expr = node.expr;
            for key in &mut expr {
                key.expr = calls.lift(std::mem::take(&mut key.expr), None)?;
            }
            LogicalPlan::Sort(Sort { expr, input: Arc::new(calls.below(input)?), fetch: node.fetch })
        }
        LogicalPlan::Join(node) => join(node)?,
        LogicalPlan::Limit(_) => plan.map_children(|child| Ok(Transformed::yes(lower(child, extra)?)))?.data,
        LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => {
            let plan = plan.map_children(|child| Ok(Transformed::yes(lower(child, Extra::Allowed)?)))?.data;
            let Some(input) = plan.inputs().first().map(|input| (*input).clone()) else { return Ok(plan) };
            let mut calls = Calls::over(&input);
            let exprs = calls.named(plan.expressions(), NamePreserver::new(&plan))?;
            plan.with_new_exprs(exprs, vec![calls.below(input)?])?
        }
        other => other.map_children(|child| Ok(Transformed::yes(lower(child, Extra::Refused)?)))?.data,
    };
    match extra {
        Extra::Allowed => Ok(lowered),
        Extra::Refused => only(lowered, &schema),
    }
}

/// A limit of sorted rows, where no call decides the order: the calls come after it.
fn late(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Limit(limit) = &plan else { return Ok(plan) };
    let LogicalPlan::Sort(sort) = limit.input.as_ref() else { return Ok(plan) };
    let LogicalPlan::Projection(node) = sort.input.as_ref() else { return Ok(plan) };
    if !node.expr.iter().any(has_call) {
        return Ok(plan);
    }
    let below = |expr: Expr| {
        expr.transform_up(|part| match &part {
            Expr::Column(column) => {
                let at = node.schema.index_of_column(column)?;
                Ok(Transformed::yes(node.expr[at].clone().unalias()))
            }
            _ => Ok(Transformed::no(part)),
        })
    };
    let mut keys = sort.expr.clone();
    for key in &mut keys {
        key.expr = below(std::mem::take(&mut key.expr))?.data;
    }
    if keys.iter().any(|key| has_call(&key.expr)) {
        return Ok(plan);
    }
    let sorted = LogicalPlan::Sort(Sort { expr: keys, input: node.input.clone(), fetch: sort.fetch });
    let mut limit = limit.clone();
    limit.input = Arc::new(sorted);
    Ok(LogicalPlan::Projection(Projection::try_new(node.expr.clone(), Arc::new(LogicalPlan::Limit(limit)))?))
}

/// The columns of `schema` alone.
fn only(plan: LogicalPlan, schema: &DFSchemaRef) -> Result<LogicalPlan> {
    if plan.schema().fields().len() == schema.fields().len() {
        return Ok(plan);
    }
    let columns = schema.columns().into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

/// Conditions without calls first, then those with calls, each over what the one before has left.
fn filter(predicate: Expr, mut input: LogicalPlan) -> Result<LogicalPlan> {
    let (dear, cheap): (Vec<Expr>, Vec<Expr>) =
        split_conjunction_owned(predicate).into_iter().partition(has_call);
    if let Some(cheap) = conjunction(cheap) {
        input = LogicalPlan::Filter(Filter::try_new(cheap, Arc::new(input))?);
    }
    for condition in dear {
        let mut calls = Calls::over(&input);
        let condition = calls.lift(condition, None)?;
        input = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(calls.below(input)?))?);
    }
    Ok(input)
}

/// Calls in a join's conditions are computed on the side whose columns they read; those that read both sides are
/// computed after an inner join.
fn join(node: Join) -> Result<LogicalPlan> {
    let left = lower(Arc::unwrap_or_clone(node.left), Extra::Refused)?;
    let right = lower(Arc::unwrap_or_clone(node.right), Extra::Refused)?;
    let reads = |expr: &Expr, side: &LogicalPlan| {
        expr.column_refs().iter().all(|column| side.schema().has_column(column))
    };
    let one_side = |expr: &Expr| {
        let both = expr.exists(|part| Ok(is_call(part) && !reads(part, &left) && !reads(part, &right)));
        both.map(|both| !both)
    };
    let (mut filters, mut after) = (Vec::new(), Vec::new());
    for condition in node.filter.into_iter().flat_map(split_conjunction_owned) {
        match one_side(&condition)? {
            true => filters.push(condition),
            false if node.join_type == JoinType::Inner => after.push(condition),
            false => {
                return plan_err!(
                    "a function in the condition of an outer join reads one side alone: {condition}"
                );
            }
        }
    }
    let (mut of_left, mut of_right) = (Calls::over(&left), Calls::over(&right));
    let mut on = Vec::with_capacity(node.on.len());
    for (one, other) in node.on {
        on.push((of_left.lift(one, None)?, of_right.lift(other, None)?));
    }
    // Which side a call is of is told by its columns; guards may read the other side, so there are none.
    let mut side = |expr: Expr| -> Result<Expr> {
        let done = expr.transform_down(|part| {
            if !is_call(&part) {
                return Ok(Transformed::no(part));
            }
            let of = if reads(&part, &left) { &mut of_left } else { &mut of_right };
            let column = of.lift(part, None)?;
            Ok(Transformed::new(column, true, datafusion::common::tree_node::TreeNodeRecursion::Jump))
        })?;
        Ok(done.data)
    };
    let filters = filters.into_iter().map(&mut side).collect::<Result<Vec<_>>>()?;
    let (left, right) = (of_left.below(left)?, of_right.below(right)?);
    let joined = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        conjunction(filters),
        node.join_type,
        node.join_constraint,
        node.null_equality,
        node.null_aware,
    )?;
    let joined = LogicalPlan::Join(joined);
    match conjunction(after) {
        Some(after) => filter(after, joined),
        None => Ok(joined),
    }
}

/// Calls of one node, and the columns that have their results.
struct Calls {
    /// Computed below already.
    known: Vec<Lifted>,
    fresh: Vec<Fresh>,
}

struct Fresh {
    lifted: Lifted,
    /// How many calls have to be computed before it, one after the other.
    level: usize,
}

impl Calls {
    fn over(input: &LogicalPlan) -> Calls {
        let (mut known, mut node) = (Vec::new(), input);
        loop {
            node = match node {
                LogicalPlan::Filter(filter) => filter.input.as_ref(),
                LogicalPlan::Sort(sort) => sort.input.as_ref(),
                LogicalPlan::Limit(limit) => limit.input.as_ref(),
                LogicalPlan::Extension(extension) => {
                    match extension.node.as_any().downcast_ref::<InferNode>() {
                        Some(infer) => {
                            known.extend(infer.calls.iter().filter(|lifted| lifted.guard.is_none()).cloned());
                            &infer.input
                        }
                        None => break,
                    }
                }
                _ => break,
            };
        }
        Calls { known, fresh: Vec::new() }
    }

    /// Expressions with columns for calls; their names stay.
    fn named(&mut self, exprs: Vec<Expr>, names: NamePreserver) -> Result<Vec<Expr>> {
        let one = |expr: Expr| {
            let name = names.save(&expr);
            Ok(name.restore(self.lift(expr, None)?))
        };
        exprs.into_iter().map(one).collect()
    }

    /// The expression with columns for calls. `guard` holds where the expression is evaluated.
    fn lift(&mut self, expr: Expr, guard: Option<Expr>) -> Result<Expr> {
        if !has_call(&expr) {
            return Ok(expr);
        }
        match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) if func.inner().is::<ModelFunction>() => {
                let args =
                    args.into_iter().map(|arg| self.lift(arg, guard.clone())).collect::<Result<_>>()?;
                Ok(self.column(Expr::ScalarFunction(ScalarFunction { func, args }), guard))
            }
            Expr::Case(case) => self.case(case, guard),
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let (first, second) =
                    if has_call(&left) && !has_call(&right) { (right, left) } else { (left, right) };
                let first = self.lift(*first, guard.clone())?;
                let goes_on = |first: Expr| match op {
                    Operator::And => Expr::IsNotFalse(Box::new(first)),
                    _ => Expr::IsNotTrue(Box::new(first)),
                };
                let reached = and(guard, goes_on(first.clone()));
                let second = self.lift(*second, reached)?;
                Ok(binary_expr(first, op, second))
            }
            other => {
                Ok(other.map_children(|child| Ok(Transformed::yes(self.lift(child, guard.clone())?)))?.data)
            }
        }
    }

    fn case(&mut self, case: Case, guard: Option<Expr>) -> Result<Expr> {
        let operand = case.expr.map(|expr| self.lift(*expr, guard.clone())).transpose()?;
        // Holds where no earlier condition did.
        let mut reached = guard;
        let mut branches = Vec::with_capacity(case.when_then_expr.len());
        for (when, then) in case.when_then_expr {
            let when = self.lift(*when, reached.clone())?;
            let holds = match &operand {
                Some(operand) => operand.clone().eq(when.clone()),
                None => when.clone(),
            };
            let then = self.lift(*then, and(reached.clone(), Expr::IsTrue(Box::new(holds.clone()))))?;
            reached = and(reached, Expr::IsNotTrue(Box::new(holds)));
            branches.push((Box::new(when), Box::new(then)));
        }
        let last = case.else_expr.map(|expr| self.lift(*expr, reached)).transpose()?;
        Ok(Expr::Case(Case::new(operand.map(Box::new), branches, last.map(Box::new))))
    }

    /// The column of a call's results.
    fn column(&mut self, call: Expr, guard: Option<Expr>) -> Expr {
        if let Some(known) = self.known.iter().find(|known| known.call == call) {
            return Expr::Column(Column::new_unqualified(&known.name));
        }
        let guard_level = guard.as_ref().map_or(0, |guard| self.level(guard));
        if let Some(at) = self.fresh.iter().position(|fresh| fresh.lifted.call == call) {
            let own = self.level(&call);
            let fresh = &mut self.fresh[at];
            // Rows that either place needs; all rows, where that would have to be known too early.
            fresh.lifted.guard = match (fresh.lifted.guard.take(), guard) {
                (Some(one), Some(other)) if one == other => Some(one),
                (Some(one), Some(other)) if guard_level < fresh.level => Some(one.or(other)),
                _ => None,
            };
            debug_assert!(own < fresh.level, "a call comes after its arguments");
            return Expr::Column(Column::new_unqualified(&fresh.lifted.name));
        }
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("kun:{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let level = self.level(&call).max(guard_level) + 1;
        let column = Expr::Column(Column::new_unqualified(&name));
        self.fresh.push(Fresh { lifted: Lifted { call, guard, name }, level });
        column
    }

    /// After how many other calls an expression can be computed.
    fn level(&self, expr: &Expr) -> usize {
        let columns = expr.column_refs();
        let own = self.fresh.iter().filter(|fresh| {
            columns.iter().any(|column| column.relation.is_none() && column.name == fresh.lifted.name)
        });
        own.map(|fresh| fresh.level).max().unwrap_or(0)
    }

    /// The input with the columns of all calls.
    fn below(self, mut input: LogicalPlan) -> Result<LogicalPlan> {
        let mut fresh = self.fresh;
        fresh.sort_by_key(|fresh| fresh.level);
        let mut fresh = fresh.into_iter().peekable();
        while let Some(first) = fresh.next() {
            let level = first.level;
            let mut calls = vec![first.lifted];
            while let Some(next) = fresh.next_if(|next| next.level == level) {
                calls.push(next.lifted);
            }
            let node = Arc::new(InferNode::new(calls, input)?);
            input = LogicalPlan::Extension(Extension { node });
        }
        Ok(input)
    }
}

/// Both conditions. One that may say something else the next time guards nothing.
fn and(guard: Option<Expr>, condition: Expr) -> Option<Expr> {
    match guard {
        _ if condition.is_volatile() => guard,
        Some(guard) => Some(guard.and(condition)),
        None => Some(condition),
    }
}
