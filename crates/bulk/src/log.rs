//! A write-ahead log of a split: rows done so far, so that a crash costs the last minute and not the split.
//!
//! Each piece is a file named by its first row. Pieces chain: one that holds 300 rows from row 0 on is followed by the
//! one named 300. Rows are the same whoever computes them, so pieces of two processes chain too.

use crate::store::{Draft, Folder};
use crate::{BulkError, Split};
use arrow_array::RecordBatch;
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use arrow_schema::SchemaRef;
use std::io::BufWriter;
use std::time::{Duration, Instant};

/// Finished rows wait in memory until they have so many bytes, then in the draft of a piece.
const WAITING_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 128 << 10;
const TOKENS: &str = "kun:tokens";

/// The log of one split.
pub(crate) struct SplitLog {
    folder: Folder,
    schema: SchemaRef,
    every: Duration,
    /// Rows that are logged.
    logged: u64,
    /// The next piece: rows in its draft, then those in memory.
    draft: Option<FileWriter<BufWriter<Draft>>>,
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
    rows: u64,
    tokens: u64,
    last: Instant,
    pieces: Vec<String>,
    /// That rows were lost which others would have to follow: nothing more is logged.
    broken: bool,
}

fn name(first: u64) -> String {
    format!("{first:012}.arrow")
}

type Piece = FileReader<std::io::BufReader<crate::store::Section>>;

fn open(folder: &Folder, name: &str) -> Result<Piece, BulkError> {
    let piece = folder.open(name)?;
    Ok(FileReader::try_new(piece.reader(0, piece.size()), None)?)
}

/// The tokens of a piece that can be read to its end.
fn check(folder: &Folder, name: &str, schema: &SchemaRef) -> Result<u64, BulkError> {
    let mut piece = open(folder, name)?;
    let tokens = piece.custom_metadata().get(TOKENS).and_then(|text| text.parse().ok()).unwrap_or(0);
    piece.try_for_each(|batch| of_schema(batch?, schema).map(|_| ()))?;
    Ok(tokens)
}

fn of_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, BulkError> {
    Ok(RecordBatch::try_new(schema.clone(), batch.columns().to_vec())?)
}

impl SplitLog {
    /// Opens the log of a split.
    pub(crate) fn open(
        job: &Folder,
        split: &Split,
        schema: &SchemaRef,
        every: Duration,
    ) -> Result<SplitLog, BulkError> {
        let folder = job.inside("log").inside(&split.id);
        Ok(SplitLog {
            pieces: folder.names()?,
            folder,
            schema: schema.clone(),
            every,
            logged: 0,
            draft: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
            rows: 0,
            tokens: 0,
            last: Instant::now(),
            broken: false,
        })
    }

    /// Gives `each` the rows of earlier runs, in order. The log goes on behind them; how many they were, and their tokens.
    ///
    /// # Errors
    /// Those of `each`, [`BulkError::Store`].
    pub(crate) fn recover(
        &mut self,
        mut each: impl FnMut(RecordBatch) -> Result<(), BulkError>,
    ) -> Result<(u64, u64), BulkError> {
        let mut tokens = 0;
        while self.pieces.contains(&name(self.logged)) {
            let (first, file) = (self.logged, name(self.logged));
            // A piece that cannot be read, or is of other columns, is as good as none.
            match check(&self.folder, &file, &self.schema) {
                Ok(own) => tokens += own,
                Err(_) => {
                    self.folder.remove(&file)?;
                    break;
                }
            }
            // Somebody else may have finished the split and removed its log.
            let Ok(piece) = open(&self.folder, &file) else { break };
            for batch in piece {
                let Ok(batch) = batch else { break };
                self.logged += batch.num_rows() as u64;
                each(of_schema(batch, &self.schema)?)?;
            }
            if self.logged == first {
                break;
            }
        }
        Ok((self.logged, tokens))
    }

    /// Rows that were finished; they are logged when it is time.
    pub(crate) fn add(&mut self, batch: &RecordBatch, tokens: u64) -> Result<(), BulkError> {
        if self.broken {
            return Ok(());
        }
        self.waiting.push(batch.clone());
        self.waiting_bytes += batch.get_array_memory_size();
        self.rows += batch.num_rows() as u64;
        self.tokens += tokens;
        if self.last.elapsed() >= self.every {
            return self.flush();
        }
        if self.waiting_bytes > WAITING_BYTES {
            self.draft = Some(self.drafted()?);
        }
        Ok(())
    }

    /// The next piece with all rows in it. If it cannot be written it is lost, and the log ends before it.
    fn drafted(&mut self) -> Result<FileWriter<BufWriter<Draft>>, BulkError> {
        self.broken = true;
        let mut writer = match self.draft.take() {
            Some(writer) => writer,
            None => {
                let draft = BufWriter::with_capacity(BUFFER_BYTES, self.folder.draft()?);
                FileWriter::try_new(draft, &self.schema)?
            }
        };
        for batch in std::mem::take(&mut self.waiting) {
            writer.write(&batch)?;
        }
        (self.waiting_bytes, self.broken) = (0, false);
        Ok(writer)
    }

    /// Logs what waits.
    pub(crate) fn flush(&mut self) -> Result<(), BulkError> {
        if self.rows > 0 && !self.broken {
            let mut writer = self.drafted()?;
            self.broken = true;
            writer.write_metadata(TOKENS, self.tokens.to_string());
            writer.finish()?;
            let ended = |error| BulkError::store("write", self.folder.uri(""), error);
            let draft = writer.into_inner()?.into_inner().map_err(|error| ended(error.into_error()))?;
            let name = name(self.logged);
            self.folder.publish(draft, &name)?;
            self.pieces.push(name);
            self.logged += self.rows;
            self.broken = false;
        }
        (self.rows, self.tokens, self.last) = (0, 0, Instant::now());
        Ok(())
    }

    /// Removes the log: its split has a part.
    pub(crate) fn remove(self) -> Result<(), BulkError> {
        for piece in &self.pieces {
            self.folder.remove(piece)?;
        }
        let path = self.folder.path().map(std::path::Path::to_owned);
        drop(self.draft);
        if let Some(path) = path {
            // Another process may still log the same split.
            let _ = std::fs::remove_dir(path);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Range;
    use crate::store::{Faults, StoreOptions, Stores};
    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn rows(first: i64) -> RecordBatch {
        let ids: ArrayRef = Arc::new((first..first + 100).collect::<Int64Array>());
        let texts: ArrayRef = Arc::new(
            (first..first + 100).map(|row| Some(format!("{row}").repeat(1000))).collect::<StringArray>(),
        );
        RecordBatch::try_from_iter([("id", ids), ("text", texts)]).unwrap()
    }

    fn open(folder: &Folder) -> SplitLog {
        let split = Split::new(0, Range::Files { objects: Vec::new().into() }, None, 0);
        SplitLog::open(folder, &split, &rows(0).schema(), Duration::from_secs(3600)).unwrap()
    }

    fn recovered(folder: &Folder) -> (Vec<RecordBatch>, u64) {
        let mut batches = Vec::new();
        let (rows, tokens) = open(folder)
            .recover(|batch| {
                batches.push(batch);
                Ok(())
            })
            .unwrap();
        assert_eq!(batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>(), rows);
        (batches, tokens)
    }

    #[test]
    fn rows_that_the_memory_does_not_hold_come_back_in_order() {
        let scratch = kun_testkit::Scratch::new("log-large");
        let folder = Stores::new(StoreOptions::default()).folder(&scratch.uri("job")).unwrap();
        let mut log = open(&folder);
        for at in 0..12 {
            log.add(&rows(at * 100), 7).unwrap();
            assert!(log.waiting_bytes <= WAITING_BYTES, "{} bytes wait", log.waiting_bytes);
            if at == 8 {
                log.flush().unwrap();
            }
        }
        // What was not logged is lost with the process.
        drop(log);
        let (batches, tokens) = recovered(&folder);
        assert_eq!((batches, tokens), ((0..9).map(|at| rows(at * 100)).collect(), 63));
    }

    #[test]
    fn what_follows_lost_rows_is_not_logged() {
        let scratch = kun_testkit::Scratch::new("log-lost");
        let full = Arc::new(AtomicBool::new(false));
        let is_full = full.clone();
        let faults =
            Faults::new(move |operation| match operation == "write" && is_full.load(Ordering::Relaxed) {
                true => Err(std::io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            });
        let stores = Stores::new(StoreOptions { faults, ..StoreOptions::default() });
        let folder = stores.folder(&scratch.uri("job")).unwrap();
        let mut log = open(&folder);
        log.add(&rows(0), 0).unwrap();
        log.flush().unwrap();
        full.store(true, Ordering::Relaxed);
        let failed = (1..12).find(|at| log.add(&rows(at * 100), 0).is_err()).unwrap();
        full.store(false, Ordering::Relaxed);
        log.add(&rows((failed + 1) * 100), 0).unwrap();
        log.flush().unwrap();
        drop(log);
        assert_eq!(recovered(&folder).0, [rows(0)]);
    }
}
