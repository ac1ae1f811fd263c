//! A condition on rows: `where` of a job.

use super::{error_of, statement};
use crate::input::{Chunk, Chunks};
use crate::{BulkError, RowError};
use arrow_array::cast::AsArray;
use arrow_array::{Array, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, InList};
use datafusion::logical_expr::{Between, Expr, ExprSchemable, Operator, TryCast};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::{SessionConfig, SessionContext};
use std::sync::Arc;

/// A condition over some columns of the input.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    expression: Arc<dyn PhysicalExpr>,
    columns: Vec<String>,
    schema: SchemaRef,
}

impl Condition {
    /// Reads a condition over columns of `schema`.
    ///
    /// # Errors
    /// [`BulkError::Sql`] for one that is none, or that is not true or false.
    pub(crate) fn new(text: &str, schema: &SchemaRef) -> Result<Condition, BulkError> {
        statement::check_bounds(text)?;
        super::with_stack(|| Condition::read(text, schema))?
    }

    fn read(text: &str, schema: &SchemaRef) -> Result<Condition, BulkError> {
        let mut config = SessionConfig::new();
        let options = config.options_mut();
        options.sql_parser.enable_ident_normalization = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        let context = SessionContext::new_with_config(config);
        let wrong = |error| match error_of(error) {
            BulkError::Sql { what } => BulkError::Sql { what: format!("where `{text}`: {what}") },
            error => error,
        };
        let named = DFSchema::try_from(schema.as_ref().clone()).map_err(wrong)?;
        let parsed = context.parse_sql_expr(text, &named).map_err(wrong)?;
        let columns: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .filter(|name| parsed.column_refs().iter().any(|column| column.name == *name))
            .collect();
        let fields = columns.iter().filter_map(|name| schema.field_with_name(name).ok().cloned());
        let own = Arc::new(Schema::new(fields.map(|field| field.with_nullable(true)).collect::<Vec<_>>()));
        let read = DFSchema::try_from(own.as_ref().clone()).map_err(wrong)?;
        let parsed = parsed.transform_up(|expr| numbers(expr, &read)).map_err(wrong)?.data;
        let expression = context.create_physical_expr(parsed, &read).map_err(wrong)?;
        let kind = expression.data_type(read.as_arrow()).map_err(wrong)?;
        if kind != DataType::Boolean {
            return Err(BulkError::Sql { what: format!("where `{text}`: it is {kind}, not true or false") });
        }
        // What fails on any row, such as the cast of a text that is none, fails here if it reads no column.
        let none = RecordBatch::new_empty(own.clone());
        expression.evaluate(&none).map_err(wrong)?;
        Ok(Condition { expression, columns, schema: own })
    }

    /// Columns that it reads.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Chunks with the rows that match, and their first `columns` columns.
    pub(crate) fn matching(&self, chunks: Chunks, columns: usize) -> Chunks {
        let (condition, own) = (self.clone(), (0..columns).collect::<Vec<_>>());
        Box::new(chunks.map(move |chunk| {
            let chunk = condition.filter(chunk?)?;
            Ok(Chunk { batch: chunk.batch.project(&own)?, ..chunk })
        }))
    }

    /// The rows for which it holds, and those that cannot be read.
    ///
    /// # Errors
    /// [`BulkError::Job`] if columns are missing.
    fn filter(&self, chunk: Chunk) -> Result<Chunk, BulkError> {
        let rows = chunk.batch.num_rows();
        let column = |name: &String| {
            let found = chunk.batch.column_by_name(name).cloned();
            found.ok_or_else(|| BulkError::job(format!("no column `{name}` in the rows that were read")))
        };
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let read = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let mut errors = chunk.errors;
        let kept: Vec<bool> = match self.holds(&read) {
            Ok(holds) => {
                let unreadable = |row: usize| errors.binary_search_by_key(&row, |(row, _)| *row).is_ok();
                (0..rows).map(|row| unreadable(row) || (holds.is_valid(row) && holds.value(row))).collect()
            }
            // Such as a division by zero: the rows that fail are told apart.
            Err(_) => (0..rows).map(|row| self.keeps(&read, row, &mut errors)).collect(),
        };
        errors.sort_by_key(|(row, _)| *row);
        let mut after = 0;
        let mut old = errors.into_iter().peekable();
        let mut errors = Vec::new();
        for (row, keep) in kept.iter().enumerate() {
            if let Some((_, error)) = old.next_if(|(at, _)| *at == row) {
                errors.push((after, error));
            }
            after += usize::from(*keep);
        }
        let batch = arrow_select::filter::filter_record_batch(&chunk.batch, &BooleanArray::from(kept))?;
        Ok(Chunk { batch, errors, dropped: chunk.dropped + (rows - after) as u64 })
    }

    fn holds(&self, rows: &RecordBatch) -> Result<BooleanArray, BulkError> {
        let value = self.expression.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()));
        Ok(value.map_err(error_of)?.as_boolean().clone())
    }

    /// Whether one row stays: it matches, cannot be read, or the condition fails on it, which is an error of the row.
    fn keeps(&self, rows: &RecordBatch, row: usize, errors: &mut Vec<(usize, RowError)>) -> bool {
        if errors.iter().any(|(at, _)| *at == row) {
            return true;
        }
        match self.holds(&rows.slice(row, 1)) {
            Ok(holds) => holds.is_valid(0) && holds.value(0),
            Err(error) => {
                errors.push((row, RowError::fatal(format!("where: {error}"))));
                true
            }
        }
    }
}

fn is_compared(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
    )
}

/// A text that is compared with a number is read as one, and is NULL if it is none: columns of CSV are texts.
fn numbers(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, datafusion::error::DataFusionError> {
    let is_number = |expr: &Expr| match expr {
        Expr::Literal(scalar, _) => scalar.data_type().is_numeric(),
        Expr::Negative(inner) => {
            matches!(&**inner, Expr::Literal(scalar, _) if scalar.data_type().is_numeric())
        }
        _ => false,
    };
    let is_text = |expr: &Expr| {
        matches!(expr.get_type(schema), Ok(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View))
    };
    let number = |expr: Expr| match expr {
        // So that 9.5 is compared with 10 as it is.
        Expr::Literal(scalar, metadata) => {
            let wide = scalar.cast_to(&DataType::Float64).unwrap_or(ScalarValue::Null);
            Expr::Literal(wide, metadata)
        }
        expr => Expr::TryCast(TryCast::new(Box::new(expr), DataType::Float64)),
    };
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if (is_compared(op) || op.is_numerical_operators())
                && ((is_text(&left) && is_number(&right)) || (is_number(&left) && is_text(&right))) =>
        {
            let (left, right) = (Box::new(number(*left)), Box::new(number(*right)));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high })
            if is_text(&expr) && is_number(&low) && is_number(&high) =>
        {
            let (low, high) = (Box::new(number(*low)), Box::new(number(*high)));
            Transformed::yes(Expr::Between(Between::new(Box::new(number(*expr)), negated, low, high)))
        }
        Expr::InList(InList { expr, list, negated }) if is_text(&expr) && list.iter().all(is_number) => {
            let list = list.into_iter().map(number).collect();
            Transformed::yes(Expr::InList(InList::new(Box::new(number(*expr)), list, negated)))
        }
        other => Transformed::no(other),
    })
}
