//! Pages of the decoder's cache, which continuations of one answer share.

/// Pages that are not owned, and how many owners each other one has.
#[derive(Debug)]
pub(super) struct Pages {
    free: Vec<u32>,
    owners: Vec<u32>,
}

/// The pages of one continuation, in order.
pub(super) type Table = Vec<u32>;

/// A page to be copied before the next step.
pub(super) type Copy = (u32, u32);

/// More was asked of the pages than was reserved: a fault of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoPage;

impl Pages {
    pub(super) fn new(total: usize) -> Pages {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Pages { free: (0..total).rev().collect(), owners: vec![0; total as usize] }
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    fn take(&mut self) -> Result<u32, NoPage> {
        let page = self.free.pop().ok_or(NoPage)?;
        self.owners[page as usize] = 1;
        Ok(page)
    }

    /// Gives a table a further page.
    pub(super) fn extend(&mut self, table: &mut Table) -> Result<(), NoPage> {
        table.push(self.take()?);
        Ok(())
    }

    pub(super) fn release(&mut self, table: Table) {
        for page in table {
            let owners = &mut self.owners[page as usize];
            *owners -= 1;
            if *owners == 0 {
                self.free.push(page);
            }
        }
    }

    /// The tables of continuations: number `i` goes on from `tables[parents[i]]`. The first `full` pages are shared; a page
    /// after them is still written, so that all but the first heir of it get a copy.
    pub(super) fn part(
        &mut self,
        tables: Vec<Table>,
        parents: &[usize],
        full: usize,
    ) -> Result<(Vec<Table>, Vec<Copy>), NoPage> {
        let mut left: Vec<Option<Table>> = tables.into_iter().map(Some).collect();
        let mut kept: Vec<Table> = Vec::with_capacity(left.len());
        for (index, table) in left.iter_mut().enumerate() {
            kept.push(table.clone().unwrap_or_default());
            // First, so that copies find their pages.
            if !parents.contains(&index) {
                self.release(table.take().unwrap_or_default());
            }
        }
        let (mut heirs, mut copies) = (Vec::with_capacity(parents.len()), Vec::new());
        for &parent in parents {
            let table = match left[parent].take() {
                Some(own) => own,
                None => {
                    let shared = kept[parent].len().min(full);
                    let mut table = kept[parent][..shared].to_vec();
                    table.iter().for_each(|page| self.owners[*page as usize] += 1);
                    for page in &kept[parent][shared..] {
                        let copy = self.take()?;
                        copies.push((*page, copy));
                        table.push(copy);
                    }
                    table
                }
            };
            heirs.push(table);
        }
        Ok((heirs, copies))
    }
}

#[cfg(test)]
mod tests {
    use super::Pages;

    #[test]
    fn no_page_is_lost_and_none_that_is_written_has_two_owners() {
        let mut seed = 7u64;
        let mut random = |n: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % n
        };
        for beams in [1, 2, 4, 7] {
            // What a search reserves is enough.
            let mut pages = Pages::new(beams * 5);
            let mut tables = vec![Vec::new()];
            for length in 0..5 * 64 {
                for table in &mut tables {
                    if table.len() == length / 64 {
                        pages.extend(table).unwrap();
                    }
                }
                let parents: Vec<usize> = (0..beams).map(|_| random(tables.len())).collect();
                let full = (length + 1) / 64;
                let before = tables.clone();
                let (heirs, copies) = pages.part(tables, &parents, full).unwrap();
                let mut written: Vec<u32> = heirs.iter().flat_map(|t| t[full..].to_vec()).collect();
                written.sort_unstable();
                written.dedup();
                assert_eq!(written.len(), if (length + 1) % 64 == 0 { 0 } else { beams });
                for (heir, parent) in heirs.iter().zip(&parents) {
                    assert_eq!(heir[..full], before[*parent][..full]);
                    for (own, from) in heir[full..].iter().zip(&before[*parent][full..]) {
                        assert!(own == from || copies.contains(&(*from, *own)));
                    }
                }
                // A copy never lands on a page that is still to be copied.
                assert!(copies.iter().all(|(_, to)| copies.iter().all(|(from, _)| from != to)));
                tables = heirs;
            }
            tables.into_iter().for_each(|table| pages.release(table));
            assert_eq!(pages.free(), beams * 5);
        }
    }
}
