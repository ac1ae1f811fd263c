//! A write-ahead log of a split: rows done so far, so that a crash costs the last minute and not the split.
//!
//! Each piece is a file named by its first row. Pieces chain: one that holds 300 rows from row 0 on is followed by the
//! one named 300. Rows are the same whoever computes them, so pieces of two processes chain too.

use crate::store::Folder;
use crate::{BulkError, Split};
use arrow_array::RecordBatch;
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use arrow_schema::SchemaRef;
use std::collections::HashMap;
use std::io::BufWriter;
use std::time::{Duration, Instant};

/// Finished rows wait in memory for so long at most before they are logged, in bytes.
const WAITING_BYTES: usize = 64 << 20;
const TOKENS: &str = "kun:tokens";

/// The log of one split.
pub(crate) struct SplitLog {
    folder: Folder,
    schema: SchemaRef,
    every: Duration,
    /// Rows that are logged.
    logged: u64,
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
    waiting_tokens: u64,
    last: Instant,
    pieces: Vec<String>,
}

/// Rows of an earlier run.
pub(crate) struct Recovered {
    pub batches: Vec<RecordBatch>,
    pub rows: u64,
    pub tokens: u64,
}

fn name(first: u64) -> String {
    format!("{first:012}.arrow")
}

/// The rows of a piece, and their tokens.
fn read(folder: &Folder, name: &str, schema: &SchemaRef) -> Result<(Vec<RecordBatch>, u64), BulkError> {
    let piece = folder.open(name)?;
    let reader = FileReader::try_new(piece.reader(0, piece.size()), None)?;
    let tokens = reader.schema().metadata().get(TOKENS).and_then(|text| text.parse().ok()).unwrap_or(0);
    let batches = reader.map(|batch| Ok(RecordBatch::try_new(schema.clone(), batch?.columns().to_vec())?));
    Ok((batches.collect::<Result<_, BulkError>>()?, tokens))
}

impl SplitLog {
    /// Opens the log of a split and gives the rows that it has.
    pub(crate) fn open(
        job: &Folder,
        split: &Split,
        schema: &SchemaRef,
        every: Duration,
    ) -> Result<(SplitLog, Recovered), BulkError> {
        let folder = job.inside("log").inside(&split.id);
        let present = folder.names()?;
        let mut recovered = Recovered { batches: Vec::new(), rows: 0, tokens: 0 };
        while present.contains(&name(recovered.rows)) {
            let before = recovered.rows;
            // A piece that cannot be read, or is of other columns, is as good as none.
            let Ok((batches, tokens)) = read(&folder, &name(before), schema) else {
                folder.remove(&name(before))?;
                break;
            };
            recovered.rows += batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
            recovered.tokens += tokens;
            recovered.batches.extend(batches);
            if recovered.rows == before {
                break;
            }
        }
        let log = SplitLog {
            folder,
            schema: schema.clone(),
            every,
            logged: recovered.rows,
            waiting: Vec::new(),
            waiting_bytes: 0,
            waiting_tokens: 0,
            last: Instant::now(),
            pieces: present,
        };
        Ok((log, recovered))
    }

    /// Rows that were finished; they are logged when it is time.
    pub(crate) fn add(&mut self, batch: &RecordBatch, tokens: u64) -> Result<(), BulkError> {
        self.waiting.push(batch.clone());
        self.waiting_bytes += batch.get_array_memory_size();
        self.waiting_tokens += tokens;
        if self.last.elapsed() >= self.every || self.waiting_bytes > WAITING_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Logs what waits.
    pub(crate) fn flush(&mut self) -> Result<(), BulkError> {
        let batches = std::mem::take(&mut self.waiting);
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        if rows > 0 {
            let metadata = HashMap::from([(TOKENS.to_owned(), self.waiting_tokens.to_string())]);
            let schema = self.schema.as_ref().clone().with_metadata(metadata);
            let mut writer =
                FileWriter::try_new(BufWriter::with_capacity(1 << 20, self.folder.draft()?), &schema)?;
            for batch in &batches {
                writer.write(batch)?;
            }
            writer.finish()?;
            let ended = |error| BulkError::store("write", self.folder.uri(""), error);
            let draft = writer.into_inner()?.into_inner().map_err(|error| ended(error.into_error()))?;
            let name = name(self.logged);
            self.folder.publish(draft, &name)?;
            self.pieces.push(name);
            self.logged += rows;
        }
        (self.waiting_bytes, self.waiting_tokens, self.last) = (0, 0, Instant::now());
        Ok(())
    }

    /// Removes the log: its split has a part.
    pub(crate) fn remove(self) -> Result<(), BulkError> {
        for piece in &self.pieces {
            self.folder.remove(piece)?;
        }
        if let Some(path) = self.folder.path() {
            // Another process may still log the same split.
            let _ = std::fs::remove_dir(path);
        }
        Ok(())
    }
}
