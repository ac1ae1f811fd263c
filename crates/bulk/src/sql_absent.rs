//! Conditions and queries in a build without SQL.

use crate::BulkError;
use crate::input::Chunks;
use crate::store::{Folder, ObjectInfo};
use crate::{Context, Registry, Stop};
use arrow_schema::SchemaRef;

/// There is none.
#[derive(Clone, Debug)]
pub(crate) enum Condition {}

impl Condition {
    /// Says how to build what would read it.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn new(_: &str, _: &SchemaRef) -> Result<Condition, BulkError> {
        Err(BulkError::NotBuilt { what: "this build has no SQL for `where`".to_owned(), feature: "sql" })
    }

    /// Columns that it reads.
    pub(crate) fn columns(&self) -> &[String] {
        match *self {}
    }

    /// Chunks with the rows that match.
    pub(crate) fn matching(&self, _: Chunks, _: usize) -> Chunks {
        match *self {}
    }
}

/// There is none.
pub(crate) enum Query {}

impl Query {
    /// Says how to build what would read it.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn new(_: &str, _: &Registry, _: &Context) -> Result<Query, BulkError> {
        Err(BulkError::NotBuilt { what: "this build has no SQL for `query`".to_owned(), feature: "sql" })
    }

    /// The files that it reads.
    pub(crate) fn objects(&self) -> &[ObjectInfo] {
        match *self {}
    }

    /// Writes its rows.
    pub(crate) fn save(&self, _: &Folder, _: &str, _: Option<usize>, _: &Stop) -> Result<(), BulkError> {
        match *self {}
    }
}
