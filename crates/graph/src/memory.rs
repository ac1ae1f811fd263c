//! Places tensors in one arena so that no two that are alive together overlap.

/// Every tensor starts at a multiple of this, a cache line.
pub const ALIGN: usize = 64;

/// How long a tensor is alive, in steps, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Size.
    pub bytes: usize,
    /// The step that writes it first.
    pub first: usize,
    /// The last step that reads it.
    pub last: usize,
}

impl Lifetime {
    fn meets(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Where every tensor lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrangement {
    /// Byte offset of each tensor, a multiple of [`ALIGN`].
    pub offsets: Vec<usize>,
    /// Size of the arena.
    pub bytes: usize,
}

/// Finds a place for every tensor: the largest first, each in the lowest gap among those alive with it.
///
/// Returns `None` if the sizes overflow.
pub fn arrange(lifetimes: &[Lifetime]) -> Option<Arrangement> {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lifetimes[i].bytes), i));
    let mut offsets = vec![0; lifetimes.len()];
    let mut bytes = 0;
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    let mut taken: Vec<(usize, usize)> = Vec::new();
    for i in order {
        let size = lifetimes[i].bytes.checked_next_multiple_of(ALIGN)?;
        taken.clear();
        taken.extend(
            placed
                .iter()
                .filter(|&&j| lifetimes[j].meets(&lifetimes[i]))
                .map(|&j| (offsets[j], offsets[j] + lifetimes[j].bytes.next_multiple_of(ALIGN))),
        );
        taken.sort_unstable();
        let mut at = 0usize;
        for &(start, end) in &taken {
            if start >= at && start - at >= size {
                break;
            }
            at = at.max(end);
        }
        offsets[i] = at;
        bytes = bytes.max(at.checked_add(size)?);
        placed.push(i);
    }
    Some(Arrangement { offsets, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, prop};

    fn lifetimes() -> impl Strategy<Value = Vec<Lifetime>> {
        let one = (0usize..5000, 0usize..40, 0usize..10).prop_map(|(bytes, first, length)| Lifetime {
            bytes,
            first,
            last: first + length,
        });
        prop::collection::vec(one, 0..60)
    }

    proptest::proptest! {
        #[test]
        fn tensors_alive_together_never_overlap(lifetimes in lifetimes()) {
            let plan = arrange(&lifetimes).unwrap();
            for (i, a) in lifetimes.iter().enumerate() {
                proptest::prop_assert!(plan.offsets[i].is_multiple_of(ALIGN));
                proptest::prop_assert!(plan.offsets[i] + a.bytes <= plan.bytes);
                for (j, b) in lifetimes.iter().enumerate().skip(i + 1) {
                    let (start, other) = (plan.offsets[i], plan.offsets[j]);
                    let apart = start + a.bytes <= other || other + b.bytes <= start;
                    proptest::prop_assert!(!a.meets(b) || apart, "{i} and {j}");
                }
            }
        }
    }

    #[test]
    fn reuses_the_space_of_dead_tensors() {
        let chain: Vec<Lifetime> = (0..10).map(|i| Lifetime { bytes: 1000, first: i, last: i + 1 }).collect();
        assert_eq!(arrange(&chain).unwrap().bytes, 2 * 1024);
    }

    #[test]
    fn overflow_is_no_panic() {
        assert_eq!(arrange(&[Lifetime { bytes: usize::MAX, first: 0, last: 0 }]), None);
    }
}
