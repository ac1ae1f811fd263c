//! Repeated inputs computed once.

use super::call::Caller;
use super::take;
use crate::BulkError;
use crate::cells::RowHasher;
use crate::function::{Outcome, RowError};
use arrow_array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow_schema::DataType;
use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of the results that are kept for later repetitions: so many new ones, and as many from before those.
const KEPT_BYTES: usize = 16 << 20;
/// What a digest and its place take.
const PLACE_BYTES: usize = 64;

/// Results of earlier rows, and rows that somebody is computing.
#[derive(Default)]
pub(super) struct Cache {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    young: Generation,
    old: Generation,
    asked: HashSet<u128>,
}

/// Results that are dropped together.
#[derive(Default)]
struct Generation {
    pieces: Vec<ArrayRef>,
    places: HashMap<u128, (usize, usize)>,
    bytes: usize,
}

impl Generation {
    fn get(&self, digest: u128) -> Option<(&ArrayRef, usize)> {
        let (piece, row) = self.places.get(&digest)?;
        Some((self.pieces.get(*piece)?, *row))
    }
}

impl State {
    /// Keeps the rows of `piece` that have a digest.
    fn keep(&mut self, piece: &ArrayRef, digests: &[Option<u128>]) {
        let bytes = piece.get_array_memory_size() + digests.len() * PLACE_BYTES;
        if bytes > KEPT_BYTES {
            return;
        }
        if self.young.bytes + bytes > KEPT_BYTES {
            self.old = std::mem::take(&mut self.young);
        }
        let place = self.young.pieces.len();
        let rows = digests.iter().enumerate().filter_map(|(row, digest)| Some(((*digest)?, (place, row))));
        self.young.places.extend(rows);
        self.young.pieces.push(piece.clone());
        self.young.bytes += bytes;
    }
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows that this call computes; whoever waits for them hears when it is over, however that comes.
struct Claim<'a> {
    cache: &'a Cache,
    digests: Vec<u128>,
}

impl Claim<'_> {
    fn answer(self, outcome: &Outcome) {
        let mut digests: Vec<Option<u128>> = self.digests.iter().map(|digest| Some(*digest)).collect();
        outcome.errors.iter().for_each(|(row, _)| digests[*row] = None);
        self.cache.state().keep(&outcome.column, &digests);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state();
        self.digests.iter().for_each(|digest| {
            state.asked.remove(digest);
        });
        self.cache.answered.notify_all();
    }
}

/// What is known of an input.
enum Known {
    /// A row of one of the pieces gathered.
    Result(usize, usize),
    Failed(RowError),
}

/// Results so far.
#[derive(Default)]
struct Gathered {
    known: HashMap<u128, Known>,
    pieces: Vec<ArrayRef>,
    tokens: u64,
}

/// Answers to all rows, each different one asked once.
pub(super) fn answer(
    cache: &Cache,
    caller: &Caller<'_>,
    columns: &[ArrayRef],
    rows: usize,
    data_type: &DataType,
) -> Result<Outcome, BulkError> {
    let hasher = RowHasher::new(columns)?;
    let digests: Vec<u128> = (0..rows).map(|row| hasher.hash(row)).collect();
    let mut seen = HashSet::new();
    // The first row of each input that has no answer yet.
    let mut open: Vec<u32> =
        (0..).zip(&digests).filter(|(_, digest)| seen.insert(**digest)).map(|(row, _)| row).collect();
    drop(seen);
    let mut gathered = Gathered::default();
    let mut aged = Vec::new();
    while !open.is_empty() {
        let (claim, claimed) = claim(cache, &digests, &mut open, &mut gathered, &mut aged);
        let Some(claim) = claim else { continue };
        let outcome = if claimed.len() == rows {
            caller.call_all(columns, rows)?
        } else {
            caller.call_all(&take(columns, &claimed)?, claimed.len())?
        };
        let own = claim.digests.clone();
        claim.answer(&outcome);
        if claimed.len() == rows {
            return Ok(outcome);
        }
        gathered.add(&own, outcome);
    }
    let (column, errors) = gathered.spread(&digests, data_type)?;
    if !aged.is_empty() {
        // Asked for again: they stay.
        let again = UInt32Array::from(aged.clone());
        let piece = arrow_select::take::take(column.as_ref(), &again, None)?;
        let digests: Vec<_> = aged.iter().map(|row| Some(digests[*row as usize])).collect();
        cache.state().keep(&piece, &digests);
    }
    Ok(Outcome { column, errors, tokens: gathered.tokens })
}

/// Takes from `open` the rows whose results are kept, and those that nobody is computing, which the caller shall. What
/// somebody else computes stays there; if there is nothing else, waits for it.
fn claim<'a>(
    cache: &'a Cache,
    digests: &[u128],
    open: &mut Vec<u32>,
    gathered: &mut Gathered,
    aged: &mut Vec<u32>,
) -> (Option<Claim<'a>>, Vec<u32>) {
    let mut state = cache.state();
    let mut claimed = Vec::new();
    let mut places: HashMap<*const (), usize> = HashMap::new();
    open.retain(|row| {
        let digest = digests[*row as usize];
        let kept = match state.young.get(digest) {
            None => state.old.get(digest).inspect(|_| aged.push(*row)),
            young => young,
        };
        if let Some((piece, at)) = kept {
            let pieces = &mut gathered.pieces;
            let place = *places.entry(std::ptr::from_ref(piece.as_ref()).cast()).or_insert_with(|| {
                pieces.push(piece.clone());
                pieces.len() - 1
            });
            gathered.known.insert(digest, Known::Result(place, at));
            return false;
        }
        let mine = state.asked.insert(digest);
        if mine {
            claimed.push(*row);
        }
        !mine
    });
    if claimed.is_empty() {
        if !open.is_empty() {
            let others =
                |state: &mut State| open.iter().all(|row| state.asked.contains(&digests[*row as usize]));
            drop(cache.answered.wait_while(state, others));
        }
        return (None, claimed);
    }
    let digests = claimed.iter().map(|row| digests[*row as usize]).collect();
    (Some(Claim { cache, digests }), claimed)
}

impl Gathered {
    /// Adds the answers to inputs of these digests.
    fn add(&mut self, digests: &[u128], outcome: Outcome) {
        let place = self.pieces.len();
        let results = digests.iter().enumerate().map(|(row, digest)| (*digest, Known::Result(place, row)));
        self.known.extend(results);
        for (row, error) in outcome.errors {
            self.known.insert(digests[row], Known::Failed(error));
        }
        self.pieces.push(outcome.column);
        self.tokens += outcome.tokens;
    }

    /// The answers to all rows.
    fn spread(
        &self,
        digests: &[u128],
        data_type: &DataType,
    ) -> Result<(ArrayRef, Vec<(usize, RowError)>), BulkError> {
        let nothing = new_null_array(data_type, 1);
        let pieces = self.pieces.iter().chain([&nothing]).map(AsRef::as_ref).collect::<Vec<&dyn Array>>();
        let null = (pieces.len() - 1, 0);
        let mut errors = Vec::new();
        let place = |(row, digest): (usize, &u128)| match self.known.get(digest) {
            Some(Known::Result(piece, at)) => (*piece, *at),
            Some(Known::Failed(error)) => {
                errors.push((row, error.clone()));
                null
            }
            None => null,
        };
        let places: Vec<(usize, usize)> = digests.iter().enumerate().map(place).collect();
        Ok((arrow_select::interleave::interleave(&pieces, &places)?, errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::{Function, Output, Stop};
    use arrow_array::{Int64Array, StringArray};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Numbers its rows; those with `bad` in them fail, and one with `slow` waits for the others to ask for it.
    #[derive(Default)]
    struct Count {
        rows: AtomicU64,
        calls: AtomicU64,
    }

    impl Function for Count {
        fn output(&self) -> Output {
            Output::column(DataType::Int64)
        }

        fn call(&self, columns: &[ArrayRef], rows: usize, _: &Stop) -> Result<Outcome, BulkError> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let first = self.rows.fetch_add(rows as u64, Ordering::SeqCst);
            let texts = columns[0].as_any().downcast_ref::<StringArray>().unwrap();
            let bad = |row: &usize| texts.value(*row).contains("bad");
            let value = |row: usize| (!bad(&row)).then_some(first.cast_signed() + row as i64);
            let errors = (0..rows).filter(bad).map(|row| (row, RowError::fatal("bad"))).collect();
            let column = Arc::new((0..rows).map(value).collect::<Int64Array>());
            Ok(Outcome { column, errors, tokens: rows as u64 })
        }
    }

    fn ask(cache: &Cache, function: &Count, texts: &[&str]) -> Outcome {
        let stop = Stop::default();
        let caller = Caller { function, retry: 0, stop: &stop };
        let column: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        answer(cache, &caller, &[column], texts.len(), &DataType::Int64).unwrap()
    }

    fn values(outcome: &Outcome) -> Vec<Option<i64>> {
        outcome.column.as_any().downcast_ref::<Int64Array>().unwrap().iter().collect()
    }

    #[test]
    fn each_input_is_asked_once_and_failures_are_asked_again() {
        let (cache, function) = (Cache::default(), Count::default());
        let first = ask(&cache, &function, &["a", "bad", "a", "b", "bad"]);
        assert_eq!(values(&first), [Some(0), None, Some(0), Some(2), None]);
        assert_eq!(first.errors.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 4]);
        let second = ask(&cache, &function, &["b", "c", "a", "bad"]);
        assert_eq!(values(&second), [Some(2), Some(3), Some(0), None]);
        assert_eq!((first.tokens, second.tokens), (3, 2));
        assert_eq!(values(&ask(&cache, &function, &["c", "b"])), [Some(3), Some(2)]);
        assert_eq!(function.calls.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn calls_at_once_ask_for_an_input_once() {
        for _ in 0..50 {
            let (cache, function) = (Cache::default(), Count::default());
            let texts: Vec<String> = (0..40).map(|at| format!("text {at}")).collect();
            std::thread::scope(|scope| {
                for shift in 0..4 {
                    let mut own: Vec<&str> = texts.iter().map(String::as_str).collect();
                    own.rotate_left(shift * 10);
                    let (cache, function) = (&cache, &function);
                    scope.spawn(move || {
                        let outcome = ask(cache, function, &own[..25]);
                        assert!(outcome.errors.is_empty() && outcome.column.null_count() == 0);
                    });
                }
            });
            assert_eq!(function.rows.load(Ordering::SeqCst), 40);
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_asked_for_stays() {
        let (cache, function) = (Cache::default(), Count::default());
        let hot = values(&ask(&cache, &function, &["hot"]));
        let mut row = 0;
        for _ in 0..60 {
            let texts: Vec<String> = (row..row + 20_000).map(|at| at.to_string()).collect();
            row += texts.len();
            let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            texts.push("hot");
            let outcome = ask(&cache, &function, &texts);
            assert_eq!(values(&outcome).last(), hot.last());
            let state = cache.state();
            assert!(state.young.bytes <= KEPT_BYTES && state.old.bytes <= KEPT_BYTES);
        }
        assert_eq!(function.rows.load(Ordering::SeqCst), row as u64 + 1);
        assert!(cache.state().old.bytes > 0, "nothing was ever dropped");
        assert!(cache.state().asked.is_empty());
    }
}
