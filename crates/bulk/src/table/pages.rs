//! Pages of a row group that is being written: a row group stands in a file column by column, so all of its pages wait
//! for its end. A few wait in memory, the others in a file without a name.

use crate::store::Scratch;
use bytes::Bytes;
use parquet::arrow::arrow_writer::{PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::errors::{ParquetError, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pages of all columns that wait in memory, in bytes.
const RESIDENT_BYTES: usize = 1 << 20;

/// Where the pages of one file's columns wait.
#[derive(Clone, Debug)]
pub(super) struct Pages(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Bytes in memory.
    resident: usize,
    scratch: Scratch,
    /// The end of what waits in the file, and how many pages do.
    end: u64,
    waiting: usize,
}

impl Pages {
    pub(super) fn new(scratch: Scratch) -> Pages {
        Pages(Arc::new(Mutex::new(Inner { resident: 0, scratch, end: 0, waiting: 0 })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PageStoreFactory for Pages {
    fn create(&self, _: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        Ok(Box::new(Column { pages: self.clone(), places: Vec::new() }))
    }
}

/// The pages of one column.
struct Column {
    pages: Pages,
    places: Vec<Place>,
}

enum Place {
    Memory(Bytes),
    File { offset: u64, length: usize },
}

impl PageStore for Column {
    fn put(&mut self, page: Bytes) -> Result<PageKey> {
        let mut inner = self.pages.inner();
        self.places.push(if inner.resident + page.len() <= RESIDENT_BYTES {
            inner.resident += page.len();
            // What is handed over may be the beginning of a much larger block.
            Place::Memory(Bytes::copy_from_slice(&page))
        } else {
            let offset = inner.end;
            inner.scratch.write_at(offset, &page)?;
            inner.end += page.len() as u64;
            inner.waiting += 1;
            Place::File { offset, length: page.len() }
        });
        Ok(PageKey::new(self.places.len() as u64 - 1))
    }

    fn take(&mut self, key: PageKey) -> Result<Bytes> {
        let place = usize::try_from(key.get()).ok().and_then(|at| self.places.get_mut(at));
        let Some(place) = place else {
            return Err(ParquetError::General(format!("no page {}", key.get())));
        };
        let mut inner = self.pages.inner();
        match std::mem::replace(place, Place::Memory(Bytes::new())) {
            Place::Memory(page) => {
                inner.resident -= page.len();
                Ok(page)
            }
            Place::File { offset, length } => {
                let mut page = vec![0; length];
                inner.scratch.read_at(offset, &mut page)?;
                inner.waiting -= 1;
                if inner.waiting == 0 {
                    inner.end = 0;
                }
                Ok(page.into())
            }
        }
    }

    fn memory_size(&self) -> usize {
        let bytes = |place: &Place| match place {
            Place::Memory(page) => page.len(),
            Place::File { .. } => 0,
        };
        self.places.iter().map(bytes).sum()
    }
}
