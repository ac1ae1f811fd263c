//! Many texts in, one result each out: files are streamed, order is kept, one bad row does not stop the others.

mod progress;
mod read;
mod table;
mod write;

pub use read::{RowError, open, texts};
pub use write::{Cell, Record, Sink};

use crate::args::{InputArgs, OutputArgs};
use crate::commands::App;
use crate::exit::{FAILED, INTERRUPTED, Quiet};
use crate::interrupt::Watch;
use progress::RowProgress;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows that a verb gets at once, at most: enough to sort by length and to fill batches.
pub const CHUNK_ROWS: usize = 1024;
/// Bytes of text that a verb gets at once, unless one text alone is longer.
pub const CHUNK_BYTES: usize = 4 << 20;

/// What one row of a verb's input gave: the result, or why there is none.
pub type RowResult = anyhow::Result<Record>;

/// What a verb does with its rows.
pub struct Job<'a> {
    /// The verb, for progress and messages.
    pub name: &'static str,
    /// Columns of its records, for tables.
    pub columns: &'a [&'a str],
    /// The model that answers, as the output names it.
    pub model: &'a str,
}

impl Job<'_> {
    /// Reads texts, gives them to `work` in chunks and writes what it returns, one result per text and in order.
    ///
    /// # Errors
    /// Those of opening, reading and writing; [`Quiet`] with 1 if rows failed and with 130 after Ctrl-C, when all rows
    /// finished so far are written.
    pub fn run(
        &self,
        app: &App,
        input: &InputArgs,
        output: &OutputArgs,
        mut work: impl FnMut(Vec<String>) -> Vec<RowResult>,
    ) -> anyhow::Result<()> {
        let mut source = texts(app, input)?;
        let mut sink = Sink::open(output, self)?;
        let mut progress = RowProgress::new(app, self.name);
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let _watch = Watch::new(move || flag.store(true, Ordering::Relaxed));
        let mut failed = 0;
        while !stop.load(Ordering::Relaxed) {
            let chunk = next_chunk(&mut source)?;
            if chunk.is_empty() {
                break;
            }
            let rows = chunk.len();
            for result in answered(chunk, &mut work) {
                if result.as_ref().is_err_and(is_interrupted) {
                    stop.store(true, Ordering::Relaxed);
                    break;
                }
                failed += usize::from(result.is_err());
                sink.write(result)?;
            }
            progress.advance(rows, failed);
        }
        let rows = sink.finish()?;
        progress.finish();
        if stop.load(Ordering::Relaxed) {
            app.messages().note(&format!("Stopped after {rows} rows; their results are kept."));
            return Err(Quiet(INTERRUPTED).into());
        }
        if failed > 0 {
            app.messages().warning(&format!("{failed} of {rows} rows failed; each says why"));
            return Err(Quiet(FAILED).into());
        }
        Ok(())
    }
}

/// Whether a row has no result because Ctrl-C stopped its work.
pub fn is_interrupted(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Quiet>().is_some_and(|quiet| quiet.0 == INTERRUPTED)
}

fn next_chunk(
    source: &mut impl Iterator<Item = anyhow::Result<Result<String, RowError>>>,
) -> anyhow::Result<Vec<Result<String, RowError>>> {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    while chunk.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
        let Some(row) = source.next() else { break };
        let row = row?;
        bytes += row.as_ref().map_or(0, String::len);
        chunk.push(row);
    }
    Ok(chunk)
}

/// Results of the good rows from `work`, the others' errors in their places.
fn answered(
    chunk: Vec<Result<String, RowError>>,
    work: &mut impl FnMut(Vec<String>) -> Vec<RowResult>,
) -> Vec<RowResult> {
    let mut good = Vec::new();
    let slots: Vec<Option<RowError>> = chunk
        .into_iter()
        .map(|row| match row {
            Ok(text) => {
                good.push(text);
                None
            }
            Err(error) => Some(error),
        })
        .collect();
    let mut results = if good.is_empty() { Vec::new() } else { work(good) }.into_iter();
    let missing = || Err(anyhow::anyhow!("no result"));
    slots
        .into_iter()
        .map(|slot| match slot {
            None => results.next().unwrap_or_else(missing),
            Some(error) => Err(error.into()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_their_places() {
        let chunk = vec![Ok("a".to_owned()), Err(RowError::Empty), Ok("b".to_owned())];
        let results = answered(chunk, &mut |texts| {
            assert_eq!(texts, ["a", "b"]);
            vec![Ok(Record::new("x".to_owned())), Err(anyhow::anyhow!("bad"))]
        });
        let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, false]);
        assert_eq!(results[1].as_ref().unwrap_err().to_string(), "the text is empty");
    }

    #[test]
    fn chunks_end_at_their_bytes() {
        let long = "x".repeat(CHUNK_BYTES / 2 + 1);
        let mut rows = std::iter::repeat_with(|| Ok(Ok(long.clone()))).take(3);
        assert_eq!(next_chunk(&mut rows).unwrap().len(), 2);
        assert_eq!(next_chunk(&mut rows).unwrap().len(), 1);
        assert_eq!(next_chunk(&mut rows).unwrap().len(), 0);
    }
}
