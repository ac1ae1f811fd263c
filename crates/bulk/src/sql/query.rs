//! A query whose rows are the input of a job: it runs once, and its rows wait in a file beside the job.

use super::{Limits, Sql, save::Save, statement};
use crate::BulkError;
use crate::function::{Context, Registry, Stop};
use crate::job::Format;
use crate::store::{Folder, ObjectInfo};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;

/// A query that was planned.
pub(crate) struct Query {
    text: String,
    sql: Sql,
    objects: Vec<ObjectInfo>,
}

/// Sorts and joins of a query may take one part in so many of what is free.
const SHARE: u64 = 4;
const USUAL_MEMORY_BYTES: u64 = 1 << 30;

impl Query {
    /// Reads and plans a query; runs nothing.
    ///
    /// # Errors
    /// [`BulkError::Sql`].
    pub(crate) fn new(text: &str, registry: &Registry, context: &Context) -> Result<Query, BulkError> {
        let free =
            kun_engine::machine::describe().available_bytes.map_or(USUAL_MEMORY_BYTES, |free| free / SHARE);
        let limits = Limits {
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: usize::try_from(free).unwrap_or(usize::MAX),
        };
        let sql = Sql::new(registry.clone(), context.clone(), Vec::new(), limits)?;
        let query = Query { text: text.to_owned(), sql, objects: Vec::new() };
        let statement = query.statement()?;
        super::with_stack(|| query.sql.runtime.block_on(query.sql.plan(statement)))??;
        let objects = query.sql.shared.take_read();
        Ok(Query { objects, ..query })
    }

    /// The files that it reads.
    pub(crate) fn objects(&self) -> &[ObjectInfo] {
        &self.objects
    }

    /// Writes its rows, or the first of them, to a Parquet file that is not there yet.
    ///
    /// # Errors
    /// [`BulkError::Sql`], also for rows that cannot be read; [`BulkError::Stopped`].
    pub(crate) fn save(
        &self,
        folder: &Folder,
        name: &str,
        most: Option<usize>,
        stop: &Stop,
    ) -> Result<(), BulkError> {
        let mut statement = self.statement()?;
        if let Some(most) = most {
            let limited = format!("SELECT * FROM ({}) LIMIT {most}", self.text.trim().trim_end_matches(';'));
            statement = only(statement::parse(&limited)?)?;
        }
        self.sql.shared.set_stop(stop.clone());
        let save = Save::to(folder.clone(), name.to_owned(), Format::Parquet);
        super::with_stack(|| {
            self.sql.runtime.block_on(self.sql.query(statement, Some(save), stop, &mut |_| Ok(())))
        })??;
        match self.sql.take_failures() {
            None => Ok(()),
            Some(failures) => {
                folder.remove(name)?;
                let (rows, first) = (failures.rows, failures.first);
                Err(BulkError::Sql {
                    what: format!("{rows} rows of the query have no result; the first: {first}"),
                })
            }
        }
    }

    fn statement(&self) -> Result<Statement, BulkError> {
        only(statement::parse(&self.text)?)
    }
}

/// The one query.
fn only(mut all: std::collections::VecDeque<Statement>) -> Result<Statement, BulkError> {
    match (all.pop_front(), all.is_empty()) {
        (Some(Statement::Statement(query)), true) if matches!(*query, ast::Statement::Query(_)) => {
            Ok(Statement::Statement(query))
        }
        _ => Err(BulkError::Sql { what: "the input of a job is one query: SELECT ..".to_owned() }),
    }
}
