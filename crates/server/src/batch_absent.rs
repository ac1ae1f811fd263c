//! Files and batches in a build without them.

use crate::App;
use crate::error::{Kind, Refusal};
use crate::routes::{Call, Reply};
use crate::schema::Field;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::runtime::Handle;

/// The batches of a server; here there are none.
#[derive(Debug)]
pub(crate) struct Runner;

impl Runner {
    pub(crate) fn open(_: &Path) -> std::io::Result<Runner> {
        Ok(Runner)
    }

    pub(crate) fn start(_: &Arc<App>, _: Handle) -> Option<JoinHandle<()>> {
        None
    }

    pub(crate) fn stop(&self) {}
}

pub(crate) const BATCH_FIELDS: &[&[Field]] = &[];

pub(crate) fn absent(_: Call) -> Reply {
    let what = "This build has no files and batches: build with `cargo build --release --features bulk`.";
    Box::pin(async move { Err(Refusal::new(Kind::NotFound, what).code("files_not_kept")) })
}

pub(crate) use absent as cancel;
pub(crate) use absent as content;
pub(crate) use absent as create;
pub(crate) use absent as delete_file;
pub(crate) use absent as list;
pub(crate) use absent as list_files;
pub(crate) use absent as show;
pub(crate) use absent as show_file;
pub(crate) use absent as upload;
