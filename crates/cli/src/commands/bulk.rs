//! `kun map`, `kun sql`, `kun batch` and `kun jobs`.

mod batch;
mod jobs;
mod map;
mod models;
mod show;
#[cfg(feature = "sql")]
mod sql;
#[cfg(not(feature = "sql"))]
#[path = "bulk/sql_absent.rs"]
mod sql;

pub use batch::batch;
pub use jobs::jobs;
pub use map::map;
#[cfg_attr(not(feature = "cluster"), allow(unused_imports))]
pub use models::HubModels;
pub use sql::sql;

use crate::exit::{DOES_NOT_FIT, FAILED, MISUSE, NETWORK};
use kun_bulk::BulkError;
use kun_server::batch::BatchError;
use std::io::ErrorKind;

/// The exit code of an error of bulk work, and what to do about it. Errors that come from elsewhere are found by their
/// own types, further down the chain.
pub fn outcome(error: &(dyn std::error::Error + 'static)) -> Option<(u8, Option<&'static str>)> {
    if let Some(BatchError::Lines(_)) = error.downcast_ref() {
        return Some((MISUSE, None));
    }
    match error.downcast_ref::<BulkError>()? {
        BulkError::Job { .. }
        | BulkError::Changed { .. }
        | BulkError::Input { .. }
        | BulkError::Sql { .. }
        | BulkError::Refused { .. }
        | BulkError::NotBuilt { .. } => Some((MISUSE, None)),
        BulkError::Cluster { unreachable: true, .. } => {
            Some((NETWORK, Some("what was done is kept; the same command goes on where it stopped")))
        }
        BulkError::Cluster { .. } => {
            Some((FAILED, Some("what was done is kept; the same command goes on, with --on or without")))
        }
        BulkError::Busy { .. } => {
            Some((FAILED, Some("`kun jobs list` shows what runs; `kun jobs cancel` ends it")))
        }
        BulkError::Store { source, .. } if source.kind() == ErrorKind::StorageFull => {
            Some((DOES_NOT_FIT, Some("make room; the same command goes on where it stopped")))
        }
        BulkError::Store { .. } | BulkError::TooManyErrors { .. } => {
            Some((FAILED, Some("the same command goes on where it stopped")))
        }
        _ => None,
    }
}
