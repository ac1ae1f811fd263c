//! Files of requests that are answered when nothing else is to do: OpenAI's `/v1/files` and `/v1/batches`, and the same
//! without a server.
//!
//! A file is the input of a job of `kun-bulk`: its lines are answered by this server's own routes, in the class of bulk
//! work, and what is done survives a stop of the process. Files and batches belong to the key that made them.

mod ask;
mod document;
mod line;
mod routes;
mod run;
mod runner;
mod store;
mod upload;

pub use run::{BatchError, BatchFile, BatchProgress, BatchReport, BatchStop, models, run_file};

pub(crate) use routes::{
    BATCH_FIELDS, cancel, content, create, delete_file, list, list_files, show, show_file, upload,
};
pub(crate) use runner::Runner;

/// Bytes of a file.
const MAX_FILE_BYTES: u64 = 200 << 20;
/// Bytes of all files of a key.
const MAX_BYTES_OF_KEY: u64 = 4 << 30;
/// Files of a key.
const MAX_FILES_OF_KEY: usize = 1000;
/// Requests of a batch.
const MAX_REQUESTS: usize = 50_000;
/// Batches of a key that are not at their end.
const MAX_OPEN_OF_KEY: usize = 100;
/// Batches of a key that are remembered; the oldest ended ones are forgotten.
const MAX_BATCHES_OF_KEY: usize = 1000;
/// Bytes of a line.
const MAX_LINE_BYTES: usize = 16 << 20;
/// Wrong lines that are told.
const MAX_TOLD: usize = 100;
