//! Which pages of the key/value cache belong to whom. The pages themselves are the backend's.
//!
//! A full page whose tokens are known is published under a key: the SHA-256 of the key before it and its own tokens,
//! the first of a chain being the user's salt. A prompt that begins with the same tokens, of the same user, takes the
//! page instead of computing it. Published pages that nobody holds stay until their place is needed, those used
//! longest ago going first.

use crate::request::Tenant;
use kun_graph::PAGE_TOKENS;
use ring::digest::{Context, SHA256};
use std::collections::{BTreeMap, HashMap};

/// Names the contents of a page and of all before it.
type Key = [u8; 32];

/// The pages of one sequence, in order of position. Given back with [`PagePool::release`].
#[derive(Debug, Default)]
pub struct PageTable {
    pages: Vec<u32>,
    /// Keys are known for so many of them.
    keyed: usize,
    /// The key of the last of those.
    key: Key,
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

/// Pages in use, cached and free; their sum never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// Held by sequences.
    pub in_use: usize,
    /// Held by nobody, but kept for prompts that begin the same way.
    pub cached: usize,
    /// Free.
    pub free: usize,
    /// All pages of the cache.
    pub total: usize,
}

#[derive(Clone, Debug, Default)]
struct Page {
    /// Sequences that hold it.
    users: u32,
    /// Under which it is published.
    key: Option<Key>,
    /// When it was last let go, while nobody holds it.
    idle_since: u64,
}

/// Every page and its state.
#[derive(Debug)]
pub struct PagePool {
    free: Vec<u32>,
    pages: Vec<Page>,
    published: HashMap<Key, u32>,
    /// Published pages that nobody holds, by the time they were let go.
    idle: BTreeMap<u64, u32>,
    clock: u64,
}

fn next_key(before: &Key, tokens: &[u32]) -> Key {
    let mut digest = Context::new(&SHA256);
    digest.update(before);
    for token in tokens {
        digest.update(&token.to_le_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(digest.finish().as_ref());
    key
}

/// Where the chain of a user begins.
fn salt(tenant: Tenant) -> Key {
    let mut digest = Context::new(&SHA256);
    digest.update(b"kun prefix cache");
    digest.update(&tenant.0);
    let mut key = [0; 32];
    key.copy_from_slice(digest.finish().as_ref());
    key
}

impl PagePool {
    /// A pool of pages `0..total`, all free.
    pub fn new(total: usize) -> PagePool {
        // Low pages are handed out first and again: memory is taken from the system only when a page is first written.
        PagePool {
            free: (0..total as u32).rev().collect(),
            pages: vec![Page::default(); total],
            published: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Pages that `tokens` tokens take.
    pub fn pages_for(tokens: usize) -> usize {
        tokens.div_ceil(PAGE_TOKENS)
    }

    /// Pages that [`PagePool::extend`] could hand out.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Gives the empty `table` the published pages that `tokens` begin with; gives the number of tokens in them, which
    /// is below `tokens.len()`: the last token must run for its logits.
    pub fn reuse(&mut self, table: &mut PageTable, tenant: Tenant, tokens: &[u32]) -> usize {
        debug_assert!(table.pages.is_empty(), "only a fresh table begins with published pages");
        let mut key = salt(tenant);
        table.key = key;
        for block in tokens[..tokens.len().saturating_sub(1)].chunks_exact(PAGE_TOKENS) {
            key = next_key(&key, block);
            let Some(&number) = self.published.get(&key) else { break };
            let page = &mut self.pages[number as usize];
            if page.users == 0 {
                self.idle.remove(&page.idle_since);
            }
            page.users += 1;
            table.pages.push(number);
            (table.keyed, table.key) = (table.pages.len(), key);
        }
        table.pages.len() * PAGE_TOKENS
    }

    /// Publishes the full pages of `table`, whose sequence is `tokens`, of which the first `cached` have been computed.
    pub fn publish(&mut self, table: &mut PageTable, tenant: Tenant, tokens: &[u32], cached: usize) {
        if table.keyed == 0 {
            table.key = salt(tenant);
        }
        while (table.keyed + 1) * PAGE_TOKENS <= cached {
            let block = &tokens[table.keyed * PAGE_TOKENS..(table.keyed + 1) * PAGE_TOKENS];
            table.key = next_key(&table.key, block);
            let number = table.pages[table.keyed];
            table.keyed += 1;
            // Two that computed the same at the same time: the first stays published.
            self.published.entry(table.key).or_insert_with(|| {
                self.pages[number as usize].key = Some(table.key);
                number
            });
        }
    }

    /// Extends `table` until it covers `tokens` tokens; takes all pages that needs or none.
    ///
    /// # Errors
    /// [`OutOfPages`] if too few are free or idle.
    pub fn extend(&mut self, table: &mut PageTable, tokens: usize) -> Result<(), OutOfPages> {
        let missing = PagePool::pages_for(tokens).saturating_sub(table.pages.len());
        if missing > self.available() {
            return Err(OutOfPages);
        }
        for _ in 0..missing {
            let number = match self.free.pop() {
                Some(number) => number,
                None => {
                    let (_, number) = self.idle.pop_first().ok_or(OutOfPages)?;
                    if let Some(key) = self.pages[number as usize].key.take() {
                        self.published.remove(&key);
                    }
                    number
                }
            };
            self.pages[number as usize].users = 1;
            table.pages.push(number);
        }
        Ok(())
    }

    /// Takes the pages of a sequence back; those that are published stay for others.
    pub fn release(&mut self, table: PageTable) {
        // From the end: the beginning of a text is the likeliest to come again, and goes last.
        for number in table.pages.into_iter().rev() {
            let page = &mut self.pages[number as usize];
            page.users = page.users.saturating_sub(1);
            if page.users > 0 {
                continue;
            }
            if page.key.is_some() {
                self.clock += 1;
                page.idle_since = self.clock;
                self.idle.insert(self.clock, number);
            } else {
                self.free.push(number);
            }
        }
    }

    /// How many are where.
    pub fn counts(&self) -> PageCounts {
        let (cached, free, total) = (self.idle.len(), self.free.len(), self.pages.len());
        PageCounts { in_use: total - cached - free, cached, free, total }
    }
}

#[cfg(test)]
mod tests {
    use super::{OutOfPages, PAGE_TOKENS, PagePool, PageTable};
    use crate::request::Tenant;
    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
    use std::collections::{BTreeMap, BTreeSet};

    /// A text of one of few beginnings, so that many share theirs.
    fn text(kind: usize, pages: usize) -> Vec<u32> {
        (0..pages * PAGE_TOKENS + 1)
            .map(|at| (at / PAGE_TOKENS + if at > 3 * PAGE_TOKENS { kind } else { kind % 2 }) as u32)
            .collect()
    }

    #[derive(Clone, Copy, Debug)]
    enum Operation {
        /// Kind of text, its pages, whose.
        Admit(usize, usize, u8),
        /// Runs so many more tokens.
        Run(usize, usize),
        Release(usize),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        proptest::prop_oneof![
            (0..4usize, 1..6usize, 0..2u8)
                .prop_map(|(kind, pages, whose)| Operation::Admit(kind, pages, whose)),
            (0..8usize, 1..200usize).prop_map(|(who, tokens)| Operation::Run(who, tokens)),
            (0..8usize).prop_map(Operation::Release),
        ]
    }

    struct Sequence {
        table: PageTable,
        tokens: Vec<u32>,
        cached: usize,
        tenant: Tenant,
    }

    proptest! {
        #[test]
        fn pages_are_conserved_and_shared_only_with_the_same_text(total in 0..40usize, operations in proptest::collection::vec(operation(), 0..200)) {
            let mut pool = PagePool::new(total);
            let mut running: Vec<Sequence> = Vec::new();
            // What was computed into each page, and for whom.
            let mut contents: BTreeMap<u32, (Tenant, Vec<u32>)> = BTreeMap::new();
            for operation in operations {
                match operation {
                    Operation::Admit(kind, pages, whose) => {
                        let (tokens, tenant) = (text(kind, pages), Tenant([whose; 32]));
                        let mut table = PageTable::default();
                        let cached = pool.reuse(&mut table, tenant, &tokens);
                        prop_assert!(cached < tokens.len());
                        for (index, page) in table.pages().iter().enumerate() {
                            let expected = (tenant, tokens[..(index + 1) * PAGE_TOKENS].to_vec());
                            prop_assert_eq!(&contents[page], &expected);
                        }
                        running.push(Sequence { table, tokens, cached, tenant });
                    }
                    Operation::Run(who, count) if who < running.len() => {
                        let s = &mut running[who];
                        let end = (s.cached + count).min(s.tokens.len());
                        let (before, available) = (s.table.pages().len(), pool.available());
                        match pool.extend(&mut s.table, end) {
                            Ok(()) => {
                                for (index, page) in s.table.pages().iter().enumerate().skip(s.cached / PAGE_TOKENS) {
                                    let so_far = s.tokens[..end.min((index + 1) * PAGE_TOKENS)].to_vec();
                                    contents.insert(*page, (s.tenant, so_far));
                                }
                                s.cached = end;
                                pool.publish(&mut s.table, s.tenant, &s.tokens, s.cached);
                            }
                            Err(OutOfPages) => {
                                prop_assert!(PagePool::pages_for(end) - before > available);
                                prop_assert_eq!(s.table.pages().len(), before);
                            }
                        }
                    }
                    Operation::Release(who) if who < running.len() => pool.release(running.swap_remove(who).table),
                    Operation::Run(..) | Operation::Release(_) => {}
                }
                let held: BTreeSet<u32> = running.iter().flat_map(|s| s.table.pages().to_vec()).collect();
                prop_assert!(held.iter().all(|page| (*page as usize) < total));
                let counts = pool.counts();
                prop_assert_eq!(counts.in_use, held.len());
                prop_assert_eq!(counts.in_use + counts.cached + counts.free, counts.total);
                prop_assert_eq!(counts.total, total);
            }
            for s in running {
                pool.release(s.table);
            }
            prop_assert_eq!(pool.counts().in_use, 0);
            prop_assert_eq!(pool.available(), total);
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

    #[test]
    fn another_users_pages_are_never_found() {
        let mut pool = PagePool::new(8);
        let tokens: Vec<u32> = (0..130).collect();
        let (alice, bob) = (Tenant([1; 32]), Tenant([2; 32]));
        let mut a = PageTable::default();
        pool.extend(&mut a, 130).unwrap();
        pool.publish(&mut a, alice, &tokens, 130);
        pool.release(a);
        assert_eq!(pool.counts().cached, 2);
        assert_eq!(pool.reuse(&mut PageTable::default(), bob, &tokens), 0);
        let mut again = PageTable::default();
        assert_eq!(pool.reuse(&mut again, alice, &tokens), 128);
        assert_eq!(again.pages(), [0, 1]);
        let mut other = PageTable::default();
        let mut different = tokens.clone();
        different[70] = 7;
        assert_eq!(pool.reuse(&mut other, alice, &different), 64);
        assert_eq!(pool.counts().in_use, 2);
    }

    #[test]
    fn the_pages_used_longest_ago_make_room() {
        let mut pool = PagePool::new(3);
        let text = |first: u32| (first..first + 65).collect::<Vec<u32>>();
        for first in [0, 1000, 2000] {
            let mut table = PageTable::default();
            pool.extend(&mut table, 64).unwrap();
            pool.publish(&mut table, Tenant::default(), &text(first), 64);
            pool.release(table);
        }
        let mut used = PageTable::default();
        assert_eq!(pool.reuse(&mut used, Tenant::default(), &text(0)), 64);
        pool.release(used);
        let mut new = PageTable::default();
        pool.extend(&mut new, 64).unwrap();
        assert_eq!(pool.reuse(&mut PageTable::default(), Tenant::default(), &text(1000)), 0);
        let mut kept = PageTable::default();
        assert_eq!(pool.reuse(&mut kept, Tenant::default(), &text(0)), 64);
    }
}
