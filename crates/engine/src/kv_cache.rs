//! Which pages of the key/value cache belong to whom. The pages themselves are the backend's.

use kun_graph::PAGE_TOKENS;

/// The pages of one sequence, in order of position. Given back with [`PagePool::release`].
#[derive(Debug, Default)]
pub struct PageTable {
    pages: Vec<u32>,
}

impl PageTable {
    /// Page numbers, as a backend takes them.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }
}

/// No page is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfPages;

/// Pages in use and free; their sum never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// Held by sequences.
    pub in_use: usize,
    /// Free.
    pub free: usize,
    /// All pages of the cache.
    pub total: usize,
}

/// The free list.
#[derive(Debug)]
pub struct PagePool {
    free: Vec<u32>,
    total: usize,
}

impl PagePool {
    /// A pool of pages `0..total`, all free.
    pub fn new(total: usize) -> PagePool {
        // Low pages are handed out first and again: memory is taken from the system only when a page is first written.
        PagePool { free: (0..total as u32).rev().collect(), total }
    }

    /// Pages that `tokens` tokens take.
    pub fn pages_for(tokens: usize) -> usize {
        tokens.div_ceil(PAGE_TOKENS)
    }

    /// Extends `table` until it covers `tokens` tokens; takes all pages that needs or none.
    ///
    /// # Errors
    /// [`OutOfPages`] if too few are free.
    pub fn extend(&mut self, table: &mut PageTable, tokens: usize) -> Result<(), OutOfPages> {
        let missing = PagePool::pages_for(tokens).saturating_sub(table.pages.len());
        let kept = self.free.len().checked_sub(missing).ok_or(OutOfPages)?;
        table.pages.extend(self.free.drain(kept..).rev());
        Ok(())
    }

    /// Takes the pages of a sequence back.
    pub fn release(&mut self, table: PageTable) {
        self.free.extend(table.pages.into_iter().rev());
    }

    /// How many are where.
    pub fn counts(&self) -> PageCounts {
        PageCounts { in_use: self.total - self.free.len(), free: self.free.len(), total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::{OutOfPages, PAGE_TOKENS, PagePool, PageTable};
    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
    use std::collections::BTreeSet;

    #[derive(Clone, Copy, Debug)]
    enum Operation {
        Admit,
        Extend(usize, usize),
        Release(usize),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        proptest::prop_oneof![
            proptest::strategy::Just(Operation::Admit),
            (0..8usize, 0..700usize).prop_map(|(who, tokens)| Operation::Extend(who, tokens)),
            (0..8usize).prop_map(Operation::Release),
        ]
    }

    proptest! {
        #[test]
        fn pages_are_conserved_and_never_shared(total in 0..40usize, operations in proptest::collection::vec(operation(), 0..200)) {
            let mut pool = PagePool::new(total);
            let mut tables: Vec<PageTable> = Vec::new();
            for operation in operations {
                match operation {
                    Operation::Admit => tables.push(PageTable::default()),
                    Operation::Extend(who, tokens) if who < tables.len() => {
                        let before = tables[who].pages().to_vec();
                        let free = pool.counts().free;
                        match pool.extend(&mut tables[who], tokens) {
                            Ok(()) => prop_assert!(tables[who].pages().len() * PAGE_TOKENS >= tokens),
                            Err(OutOfPages) => {
                                prop_assert!(PagePool::pages_for(tokens) - before.len() > free);
                                prop_assert_eq!(tables[who].pages().len(), before.len());
                            }
                        }
                        prop_assert_eq!(&tables[who].pages()[..before.len()], &before[..]);
                    }
                    Operation::Release(who) if who < tables.len() => pool.release(tables.swap_remove(who)),
                    Operation::Extend(..) | Operation::Release(_) => {}
                }
                let held: Vec<u32> = tables.iter().flat_map(|t| t.pages().to_vec()).collect();
                let distinct: BTreeSet<u32> = held.iter().copied().collect();
                prop_assert_eq!(held.len(), distinct.len());
                prop_assert!(distinct.iter().all(|p| (*p as usize) < total));
                let counts = pool.counts();
                prop_assert_eq!(counts.in_use, held.len());
                prop_assert_eq!(counts.in_use + counts.free, counts.total);
                prop_assert_eq!(counts.total, total);
            }
            for table in tables {
                pool.release(table);
            }
            prop_assert_eq!(pool.counts().free, total);
        }
    }

    #[test]
    fn low_pages_come_first_and_come_back() {
        let mut pool = PagePool::new(4);
        let mut a = PageTable::default();
        pool.extend(&mut a, 2 * PAGE_TOKENS).unwrap();
        assert_eq!(a.pages(), [0, 1]);
        pool.release(a);
        let mut b = PageTable::default();
        pool.extend(&mut b, 1).unwrap();
        assert_eq!(b.pages(), [0]);
        assert_eq!(pool.extend(&mut b, 5 * PAGE_TOKENS), Err(OutOfPages));
        assert_eq!(b.pages(), [0]);
    }
}
