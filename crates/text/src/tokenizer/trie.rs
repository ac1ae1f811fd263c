//! Byte strings in a trie, laid out level by level: the children of a node lie together, in order, and end where those of
//! the next node begin. A node takes nine bytes whatever the strings are.

/// Longest string: bounds the time that one place of a text may take.
pub(super) const MAX_BYTES: usize = 512;
/// Most nodes, some 75 MB: four times those of a vocabulary of a million pieces.
const MAX_NODES: usize = 1 << 23;
/// No string ends at this node.
const NONE: u32 = u32::MAX;

/// Finds the strings that a text begins with.
#[derive(Debug)]
pub(super) struct Trie {
    /// The byte that leads to each node; the root is node 0.
    labels: Vec<u8>,
    /// Where the children of each node begin, and the end of all.
    children: Vec<u32>,
    /// The number of the string that ends at each node.
    values: Vec<u32>,
    /// The root's children by their byte; 0: none.
    first: Box<[u32; 256]>,
}

/// A string on its way into the trie.
#[derive(Clone, Copy)]
struct Entry {
    /// Its first eight bytes, so that most comparisons need no look at the string.
    head: u64,
    number: u32,
    /// Bytes that it shares with the one before it.
    shared: u16,
    len: u16,
}

impl Trie {
    /// The root.
    pub const ROOT: u32 = 0;

    /// A trie of the strings `numbers`; `bytes` gives a string. Of equal strings the highest number stays; empty ones
    /// are left out.
    ///
    /// # Errors
    /// What is too long or too much, with the limit.
    pub fn new<'s>(
        numbers: impl Iterator<Item = u32>,
        bytes: impl Fn(u32) -> &'s [u8],
    ) -> Result<Trie, String> {
        let mut entries = Vec::with_capacity(numbers.size_hint().0);
        for number in numbers {
            let text = bytes(number);
            if text.len() > MAX_BYTES {
                return Err(format!("entry {number} has {} bytes, limit {MAX_BYTES}", text.len()));
            }
            if !text.is_empty() {
                let mut head = [0; 8];
                let taken = text.len().min(8);
                head[..taken].copy_from_slice(&text[..taken]);
                let len = text.len() as u16;
                entries.push(Entry { head: u64::from_be_bytes(head), number, shared: 0, len });
            }
        }
        let rest = |entry: &Entry| bytes(entry.number);
        entries.sort_unstable_by(|a, b| {
            let by_text = a.head.cmp(&b.head).then_with(|| rest(a).cmp(rest(b)));
            by_text.then_with(|| b.number.cmp(&a.number))
        });
        entries.dedup_by(|later, kept| later.head == kept.head && rest(later) == rest(kept));
        let mut nodes = 1;
        for at in 0..entries.len() {
            let here = rest(&entries[at]);
            let before = if at == 0 { &[][..] } else { rest(&entries[at - 1]) };
            let shared = here.iter().zip(before).take_while(|(a, b)| a == b).count();
            entries[at].shared = shared as u16;
            nodes += here.len() - shared;
        }
        if nodes > MAX_NODES {
            return Err(format!("the entries have {nodes} different beginnings, limit {MAX_NODES}"));
        }
        Ok(Trie::build(&entries, nodes, bytes))
    }

    /// `entries` are in order and different from each other.
    fn build<'s>(entries: &[Entry], nodes: usize, bytes: impl Fn(u32) -> &'s [u8]) -> Trie {
        let mut trie = Trie {
            labels: Vec::with_capacity(nodes),
            children: Vec::with_capacity(nodes + 1),
            values: Vec::with_capacity(nodes),
            first: Box::new([0; 256]),
        };
        trie.labels.push(0);
        trie.values.push(NONE);
        // The entry that brought each node of this level, and those that go on below this level.
        let mut level: Vec<u32> = vec![0];
        let mut longer: Vec<u32> = (0..entries.len() as u32).collect();
        for depth in 0..MAX_BYTES as u16 {
            let mut next = Vec::new();
            let mut rest = longer.iter().peekable();
            for (at, _) in level.iter().enumerate() {
                trie.children.push(trie.labels.len() as u32);
                let end = level.get(at + 1).copied().unwrap_or(u32::MAX);
                while let Some(&place) = rest.next_if(|place| **place < end) {
                    let entry = entries[place as usize];
                    if entry.shared <= depth {
                        let label = bytes(entry.number)[usize::from(depth)];
                        if depth == 0 {
                            trie.first[usize::from(label)] = trie.labels.len() as u32;
                        }
                        trie.labels.push(label);
                        trie.values.push(if entry.len == depth + 1 { entry.number } else { NONE });
                        next.push(place);
                    }
                }
            }
            if next.is_empty() {
                break;
            }
            longer.retain(|place| entries[*place as usize].len > depth + 1);
            level = next;
        }
        // The nodes of the last level, if it is the deepest there can be, and the end of all.
        trie.children.resize(trie.labels.len() + 1, trie.labels.len() as u32);
        trie
    }

    /// The node that `byte` leads to from `node`.
    pub fn child(&self, node: u32, byte: u8) -> Option<u32> {
        if node == Trie::ROOT {
            return Some(self.first[usize::from(byte)]).filter(|child| *child != 0);
        }
        let node = node as usize;
        let (start, end) = (self.children[node] as usize, self.children[node + 1] as usize);
        let found = match self.labels.get(start..end)? {
            labels if labels.len() <= 8 => labels.iter().position(|label| *label == byte)?,
            labels => labels.binary_search(&byte).ok()?,
        };
        Some((start + found) as u32)
    }

    /// The node that `bytes` lead to from the root.
    pub fn walk(&self, bytes: &[u8]) -> Option<u32> {
        bytes.iter().try_fold(Trie::ROOT, |node, byte| self.child(node, *byte))
    }

    /// The string `bytes`.
    pub fn find(&self, bytes: &[u8]) -> Option<u32> {
        self.walk(bytes).and_then(|node| self.value(node))
    }

    /// The strings that `text` begins with, going on from `node`: their lengths in `text` and numbers, shortest first.
    pub fn prefixes(&self, node: u32, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let nodes = text.iter().scan(node, |node, byte| {
            *node = self.child(*node, *byte)?;
            Some(*node)
        });
        (1..).zip(nodes).filter_map(|(len, node)| Some((len, self.value(node)?)))
    }

    fn value(&self, node: u32) -> Option<u32> {
        Some(self.values[node as usize]).filter(|value| *value != NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trie(strings: &[Vec<u8>]) -> Result<Trie, String> {
        Trie::new(0..strings.len() as u32, |number| &strings[number as usize])
    }

    proptest! {
        #[test]
        fn finds_what_a_text_begins_with(
            strings in prop::collection::vec(prop::collection::vec(0u8..4, 0..12), 0..200),
            text in prop::collection::vec(0u8..4, 0..20),
        ) {
            let trie = trie(&strings).unwrap();
            let number = |bytes: &[u8]| strings.iter().rposition(|s| s == bytes).map(|at| at as u32);
            let expected: Vec<_> =
                (1..=text.len()).filter_map(|len| Some((len, number(&text[..len])?))).collect();
            prop_assert_eq!(trie.prefixes(Trie::ROOT, &text).collect::<Vec<_>>(), expected);
            for string in strings.iter().filter(|string| !string.is_empty()) {
                prop_assert_eq!(trie.find(string), number(string));
            }
        }
    }

    #[test]
    fn takes_the_longest_and_refuses_longer() {
        let text = vec![7u8; MAX_BYTES];
        let whole = trie(&[text.clone(), vec![7, 8]]).unwrap();
        assert_eq!(whole.find(&text), Some(0));
        assert_eq!(whole.find(&text[1..]), None);
        assert_eq!(whole.prefixes(Trie::ROOT, &[7; 600]).collect::<Vec<_>>(), [(MAX_BYTES, 0)]);
        assert!(trie(&[vec![7; MAX_BYTES + 1]]).unwrap_err().contains("513 bytes, limit 512"));
        assert_eq!(trie(&[]).unwrap().find(b"x"), None);
    }
}
