//! What can go wrong with a job as a whole. What goes wrong with one row is a [`crate::RowError`].

use kun_engine::EngineError;

/// An error of whoever finds models or decides something else outside this crate.
pub type OutsideError = Box<dyn std::error::Error + Send + Sync>;

/// One variant per thing that can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BulkError {
    /// The job's description cannot be followed.
    #[error("{what}")]
    Job {
        /// What is wrong with it.
        what: String,
    },
    /// The output holds a job that was begun otherwise: going on would mix two results.
    #[error("{what}")]
    Changed {
        /// What differs, before and now.
        what: String,
    },
    /// Somebody else works on this job.
    #[error("{what}")]
    Busy {
        /// Who, as far as is known.
        what: String,
    },
    /// An input cannot be read, now or ever.
    #[error("{uri}: {what}")]
    Input {
        /// Where it is.
        uri: String,
        /// Why.
        what: String,
    },
    /// Something cannot be read from or written to disk or bucket.
    #[error("cannot {verb} {path}")]
    Store {
        /// What was tried: `write`, `rename`, ..
        verb: &'static str,
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A query, or a condition, that cannot be followed or that failed.
    #[error("{what}")]
    Sql {
        /// What is wrong with it.
        what: String,
    },
    /// This program was built without what the job needs.
    #[error("{what}: build with `cargo build --release --features {feature}`")]
    NotBuilt {
        /// What is needed.
        what: String,
        /// The cargo feature.
        feature: &'static str,
    },
    /// No model for a function.
    #[error("a function has no model")]
    Model(#[source] OutsideError),
    /// A model cannot be loaded or asked.
    #[error("cannot use a function's model")]
    Engine(#[from] EngineError),
    /// Columns that do not fit together.
    #[error(transparent)]
    Arrow(arrow_schema::ArrowError),
    /// A Parquet file that cannot be written.
    #[error(transparent)]
    Parquet(parquet::errors::ParquetError),
    /// More rows failed than the job allows.
    #[error(
        "{errors} of {rows} rows failed, more than the {max_rate} that `max_rate` allows; the first: {first}"
    )]
    TooManyErrors {
        /// Rows that failed.
        errors: u64,
        /// Rows done.
        rows: u64,
        /// The limit, a share of 1.
        max_rate: f64,
        /// The first reason.
        first: String,
    },
    /// An address lies where this process may neither read nor write.
    #[error("{uri}: {what}")]
    Refused {
        /// What was asked for.
        uri: String,
        /// What is allowed.
        what: String,
    },
    /// The machines that were to do the job cannot be reached, or could not do it.
    #[error("{what}")]
    Cluster {
        /// What is the matter.
        what: String,
        /// Whether asking again may help, as with a network that is down.
        unreachable: bool,
    },
    /// The job was stopped; what was done is kept.
    #[error("the job was stopped")]
    Stopped,
}

/// What the disk says is an error of the disk, whoever wrote to it.
impl From<arrow_schema::ArrowError> for BulkError {
    fn from(error: arrow_schema::ArrowError) -> BulkError {
        match error {
            arrow_schema::ArrowError::IoError(_, source) => BulkError::store("write", "a part", source),
            error => BulkError::Arrow(error),
        }
    }
}

impl From<parquet::errors::ParquetError> for BulkError {
    fn from(error: parquet::errors::ParquetError) -> BulkError {
        use parquet::errors::ParquetError;
        match error {
            ParquetError::External(source) => match source.downcast::<std::io::Error>() {
                Ok(source) => BulkError::store("write", "a part", *source),
                Err(source) => BulkError::Parquet(ParquetError::External(source)),
            },
            error => BulkError::Parquet(error),
        }
    }
}

impl BulkError {
    pub(crate) fn job(what: impl Into<String>) -> BulkError {
        BulkError::Job { what: what.into() }
    }

    pub(crate) fn store(
        verb: &'static str,
        path: impl std::fmt::Display,
        source: std::io::Error,
    ) -> BulkError {
        BulkError::Store { verb, path: path.to_string(), source }
    }
}
