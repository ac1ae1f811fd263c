//! Repeated inputs computed once.

use super::call::Caller;
use super::take;
use crate::BulkError;
use crate::cells::RowHasher;
use crate::function::{Outcome, RowError};
use arrow_array::{Array, ArrayRef, new_null_array};
use arrow_schema::DataType;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Results kept for later repetitions, in bytes.
const KEPT_BYTES: usize = 64 << 20;

/// Results of earlier rows.
#[derive(Default)]
pub(super) struct Cache {
    pieces: Vec<ArrayRef>,
    places: HashMap<u128, (usize, usize)>,
    bytes: usize,
}

impl Cache {
    fn keep(&mut self, piece: &ArrayRef, digests: &[u128], failed: &[bool]) {
        let bytes = piece.get_array_memory_size() + digests.len() * 64;
        if self.bytes + bytes > KEPT_BYTES {
            *self = Cache::default();
        }
        if bytes > KEPT_BYTES {
            return;
        }
        self.bytes += bytes;
        let good = digests.iter().enumerate().filter(|(row, _)| !failed[*row]);
        self.places.extend(good.map(|(row, digest)| (*digest, (self.pieces.len(), row))));
        self.pieces.push(piece.clone());
    }
}

/// Where a row's answer comes from.
enum From {
    Earlier(usize, usize),
    Now(usize),
}

/// Answers to all rows, each different one asked once.
pub(super) fn answer(
    cache: &Mutex<Cache>,
    caller: &Caller<'_>,
    columns: &[ArrayRef],
    rows: usize,
    data_type: &DataType,
) -> Result<Outcome, BulkError> {
    let hasher = RowHasher::new(columns)?;
    let (mut asked, mut digests): (Vec<u32>, Vec<u128>) = (Vec::new(), Vec::new());
    let mut first: HashMap<u128, usize> = HashMap::new();
    let (sources, earlier) = {
        let cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut source = |row: u32| {
            let digest = hasher.hash(row as usize);
            if let Some((piece, at)) = cache.places.get(&digest) {
                return From::Earlier(*piece, *at);
            }
            let next = asked.len();
            let at = *first.entry(digest).or_insert(next);
            if at == next {
                asked.push(row);
                digests.push(digest);
            }
            From::Now(at)
        };
        let sources: Vec<From> = (0..u32::try_from(rows).unwrap_or(u32::MAX)).map(&mut source).collect();
        (sources, cache.pieces.clone())
    };
    let fresh = match asked.len() {
        0 => Outcome { column: new_null_array(data_type, 0), errors: Vec::new(), tokens: 0 },
        count if count == rows => {
            let outcome = caller.call_all(columns, rows)?;
            keep(cache, &outcome, &digests);
            return Ok(outcome);
        }
        count => caller.call_all(&take(columns, &asked)?, count)?,
    };
    keep(cache, &fresh, &digests);
    let mut pieces: Vec<&dyn Array> = earlier.iter().map(AsRef::as_ref).collect();
    pieces.push(fresh.column.as_ref());
    let place = |source: &From| match source {
        From::Earlier(piece, at) => (*piece, *at),
        From::Now(at) => (pieces.len() - 1, *at),
    };
    let places: Vec<(usize, usize)> = sources.iter().map(place).collect();
    let column = arrow_select::interleave::interleave(&pieces, &places)?;
    let reasons: HashMap<usize, &RowError> = fresh.errors.iter().map(|(at, error)| (*at, error)).collect();
    let error = |(row, source): (usize, &From)| match source {
        From::Now(at) => Some((row, (*reasons.get(at)?).clone())),
        From::Earlier(..) => None,
    };
    let errors = sources.iter().enumerate().filter_map(error).collect();
    Ok(Outcome { column, errors, tokens: fresh.tokens })
}

fn keep(cache: &Mutex<Cache>, outcome: &Outcome, digests: &[u128]) {
    if digests.is_empty() {
        return;
    }
    let mut failed = vec![false; digests.len()];
    outcome.errors.iter().for_each(|(row, _)| failed[*row] = true);
    cache.lock().unwrap_or_else(PoisonError::into_inner).keep(&outcome.column, digests, &failed);
}
