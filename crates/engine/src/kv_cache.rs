//! Which pages of the key/value cache belong to whom. The pages themselves are the backend's.
//!
//! A full page whose tokens are known is published under a key: the SHA-256 of the key before it and its own tokens,
//! the first of a chain being the user's salt. A prompt that begins with the same tokens, of the same user, takes the
//! page instead of computing it. Where no whole page fits, the one that begins most like what follows is copied, and the
//! tokens that are the same need not run. Pages of either kind that nobody holds stay until their place is needed, those
//! used longest ago going first.

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

/// A page that begins like what follows in a sequence. It must be copied before anything else happens to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The page to copy.
    pub from: u32,
    /// The sequence's own page.
    pub to: u32,
    /// Tokens that are the same.
    pub tokens: usize,
}

/// Fewer tokens are not worth a copy, nor a page that is kept for them.
const LEAST_TOKENS: usize = 8;

/// Pages that begin alike, are not full and are held by nobody: those beyond, the oldest first, are not kept. The next prompt
/// begins with as much of one of the others, and memory that was never used stays so.
const MOST_ALIKE: usize = 64;

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
    /// The key of the page before it, once it has been computed so far that others may begin with it.
    parent: Option<Key>,
    /// What has been computed of it then.
    tokens: Vec<u32>,
    /// When it was last let go, while nobody holds it.
    idle_since: u64,
}

/// Every page and its state.
#[derive(Debug)]
pub struct PagePool {
    free: Vec<u32>,
    pages: Vec<Page>,
    published: HashMap<Key, u32>,
    /// Pages by their parents.
    begun: HashMap<Key, Vec<u32>>,
    /// Pages that others may use and nobody holds, by the time they were let go.
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
            begun: HashMap::new(),
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
            self.hold(number);
            table.pages.push(number);
            (table.keyed, table.key) = (table.pages.len(), key);
        }
        table.pages.len() * PAGE_TOKENS
    }

    /// Gives `table`, fresh from [`PagePool::reuse`] with the same `tokens`, one page more that begins like another one, if
    /// there is such a page and a place for its copy.
    pub fn begin(&mut self, table: &mut PageTable, tokens: &[u32]) -> Option<Beginning> {
        debug_assert_eq!(table.pages.len(), table.keyed, "only published pages come before a copy");
        let wanted = tokens.get(table.keyed * PAGE_TOKENS..tokens.len().saturating_sub(1))?;
        let alike = |number: &u32| {
            let own = &self.pages[*number as usize].tokens;
            own.iter().zip(wanted).take_while(|(a, b)| a == b).count()
        };
        let pages = self.begun.get(&table.key)?.iter();
        let (same, from) = pages.map(|number| (alike(number), *number)).max()?;
        if same < LEAST_TOKENS {
            return None;
        }
        // Held, so that it does not make room for its own copy.
        self.hold(from);
        let room = self.extend(table, table.keyed * PAGE_TOKENS + same);
        self.let_go(from);
        room.ok()?;
        Some(Beginning { from, to: *table.pages.last()?, tokens: same })
    }

    /// Publishes the pages of `table`, whose sequence is `tokens`, of which the first `cached` have been computed.
    pub fn publish(&mut self, table: &mut PageTable, tenant: Tenant, tokens: &[u32], cached: usize) {
        if table.keyed == 0 {
            table.key = salt(tenant);
        }
        while (table.keyed + 1) * PAGE_TOKENS <= cached {
            let block = &tokens[table.keyed * PAGE_TOKENS..(table.keyed + 1) * PAGE_TOKENS];
            let number = table.pages[table.keyed];
            self.note(number, table.key, block);
            table.key = next_key(&table.key, block);
            table.keyed += 1;
            // Two that computed the same at the same time: the first stays published.
            self.published.entry(table.key).or_insert_with(|| {
                self.pages[number as usize].key = Some(table.key);
                number
            });
        }
        let part = &tokens[table.keyed * PAGE_TOKENS..cached];
        if part.len() >= LEAST_TOKENS {
            self.note(table.pages[table.keyed], table.key, part);
        }
    }

    /// Lets others begin with `tokens` of a page.
    fn note(&mut self, number: u32, parent: Key, tokens: &[u32]) {
        let page = &mut self.pages[number as usize];
        if page.parent != Some(parent) {
            page.parent = Some(parent);
            page.tokens.clear();
            self.begun.entry(parent).or_default().push(number);
        }
        page.tokens.extend(tokens.get(page.tokens.len()..).unwrap_or_default());
    }

    /// Takes a page's contents from those that others may use.
    fn forget(&mut self, number: u32) {
        let page = &mut self.pages[number as usize];
        page.tokens = Vec::new();
        if let Some(key) = page.key.take() {
            self.published.remove(&key);
        }
        let Some(parent) = page.parent.take() else { return };
        if let Some(pages) = self.begun.get_mut(&parent) {
            pages.retain(|other| *other != number);
            if pages.is_empty() {
                self.begun.remove(&parent);
            }
        }
    }

    fn hold(&mut self, number: u32) {
        let page = &mut self.pages[number as usize];
        if page.users == 0 {
            self.idle.remove(&page.idle_since);
        }
        page.users += 1;
    }

    fn let_go(&mut self, number: u32) {
        let page = &mut self.pages[number as usize];
        page.users = page.users.saturating_sub(1);
        if page.users > 0 {
            return;
        }
        if self.is_of_use(number) {
            self.clock += 1;
            self.pages[number as usize].idle_since = self.clock;
            self.idle.insert(self.clock, number);
            if let Some(surplus) = self.surplus(number) {
                self.idle.remove(&self.pages[surplus as usize].idle_since);
                self.forget(surplus);
                self.free.push(surplus);
            }
        } else {
            self.forget(number);
            self.free.push(number);
        }
    }

    /// Which of the pages that begin like page `number` is one too many.
    fn surplus(&self, number: u32) -> Option<u32> {
        let alike = self.begun.get(self.pages[number as usize].parent.as_ref()?)?;
        let kept = |number: &&u32| {
            let page = &self.pages[**number as usize];
            page.key.is_none() && page.users == 0
        };
        if alike.iter().filter(kept).count() <= MOST_ALIKE {
            return None;
        }
        alike.iter().filter(kept).min_by_key(|number| self.pages[**number as usize].idle_since).copied()
    }

    /// Whether a page without a holder is worth its place: not if another one begins with all of it.
    fn is_of_use(&self, number: u32) -> bool {
        let page = &self.pages[number as usize];
        let Some(pages) = page.parent.and_then(|parent| self.begun.get(&parent)) else {
            return page.key.is_some();
        };
        let others = || pages.iter().filter(|other| **other != number);
        let more = others().any(|other| self.pages[*other as usize].tokens.starts_with(&page.tokens));
        page.key.is_some() || !more
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
                    self.forget(number);
                    number
                }
            };
            self.pages[number as usize].users = 1;
            table.pages.push(number);
        }
        Ok(())
    }

    /// Takes the pages of a sequence back; those that others may use stay.
    pub fn release(&mut self, table: PageTable) {
        // From the end: the beginning of a text is the likeliest to come again, and goes last.
        for number in table.pages.into_iter().rev() {
            self.let_go(number);
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
    use super::{
        Beginning, LEAST_TOKENS, MOST_ALIKE, OutOfPages, PAGE_TOKENS, PageCounts, PagePool, PageTable,
    };
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
                        let mut cached = cached;
                        if let Some(Beginning { from, to, tokens: same }) = pool.begin(&mut table, &tokens) {
                            cached += same;
                            prop_assert!(cached < tokens.len() && same >= LEAST_TOKENS);
                            let (whose, text) = contents[&from].clone();
                            prop_assert!(whose == tenant && text.starts_with(&tokens[..cached]));
                            prop_assert_eq!(table.pages().last(), Some(&to));
                            contents.insert(to, (tenant, tokens[..cached].to_vec()));
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
    fn of_pages_that_begin_alike_the_latest_are_kept() {
        let mut pool = PagePool::new(1000);
        let tenant = Tenant([1; 32]);
        let text = |who: u32| [[7; 16].as_slice(), &[who; 16]].concat();
        for who in 0..300 {
            let mut table = PageTable::default();
            assert_eq!(pool.reuse(&mut table, tenant, &text(who)), 0);
            pool.begin(&mut table, &text(who));
            pool.extend(&mut table, 32).unwrap();
            pool.publish(&mut table, tenant, &text(who), 32);
            pool.release(table);
        }
        assert_eq!(
            pool.counts(),
            PageCounts { in_use: 0, cached: MOST_ALIKE, free: 1000 - MOST_ALIKE, total: 1000 }
        );
        // One page more while the oldest begins the next.
        assert_eq!(pool.free.iter().filter(|number| **number <= MOST_ALIKE as u32).count(), 1);
        // The others began with one page, which stays for that however old it is.
        let latest = 301 - MOST_ALIKE as u32;
        for (who, same) in [(latest - 1, 16), (latest, 31), (299, 31)] {
            let mut table = PageTable::default();
            pool.reuse(&mut table, tenant, &text(who));
            assert_eq!(pool.begin(&mut table, &text(who)).unwrap().tokens, same, "{who}");
            pool.release(table);
        }
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
    fn a_prompt_goes_on_from_the_page_that_begins_most_like_it() {
        let mut pool = PagePool::new(8);
        let tenant = Tenant::default();
        // A page and a half.
        let text: Vec<u32> = (0..96).collect();
        let mut first = PageTable::default();
        pool.extend(&mut first, 96).unwrap();
        pool.publish(&mut first, tenant, &text[..80], 80);
        pool.publish(&mut first, tenant, &text, 96);
        let mut asked = text.clone();
        asked[90] = 7;
        let mut second = PageTable::default();
        assert_eq!(pool.reuse(&mut second, tenant, &asked), 64);
        // The page is still being written, which does not matter for what is there.
        assert_eq!(pool.begin(&mut second, &asked), Some(Beginning { from: 1, to: 2, tokens: 26 }));
        assert_eq!(second.pages(), [0, 2]);
        pool.release(first);
        pool.release(second);
        // The copy was part of the first's page.
        assert_eq!(pool.counts().cached, 2);

        let other: Vec<u32> = (0..40).collect();
        let mut third = PageTable::default();
        assert_eq!(pool.reuse(&mut third, tenant, &other), 0);
        assert_eq!(pool.begin(&mut third, &other).map(|b| (b.from, b.tokens)), Some((0, 39)));
        let mut short = PageTable::default();
        assert_eq!(pool.reuse(&mut short, tenant, &other[..6]), 0);
        assert_eq!(pool.begin(&mut short, &other[..6]), None);
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
