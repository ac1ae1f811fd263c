//! Who is next: interactive work before bulk, and among users the one that has been served least (virtual token
//! counters, arXiv:2401.00588).

use crate::request::{Class, Tenant};
use std::collections::BTreeMap;

/// A decoded token costs as much as so many of a prompt.
pub const DECODE_COST: u64 = 2;

/// What each user has been given.
#[derive(Debug, Default)]
pub struct Shares {
    served: BTreeMap<Tenant, u64>,
}

impl Shares {
    /// A user's work arrives; `active` are the users that have work already. Nobody saves up credit while away.
    pub fn arrive(&mut self, tenant: Tenant, active: impl Iterator<Item = Tenant>) {
        let mut least = None;
        for other in active {
            if other == tenant {
                return;
            }
            let served = self.served.get(&other).copied().unwrap_or(0);
            least = Some(least.map_or(served, |least: u64| least.min(served)));
        }
        match least {
            Some(least) => {
                let own = self.served.entry(tenant).or_default();
                *own = (*own).max(least);
            }
            // Nobody is here: counting starts anew.
            None => self.served.clear(),
        }
    }

    /// Counts what a step has given a user.
    pub fn serve(&mut self, tenant: Tenant, cost: u64) {
        *self.served.entry(tenant).or_default() += cost;
    }

    /// Which of `waiting` (class and user, in order of arrival) comes next.
    pub fn next(&self, waiting: impl Iterator<Item = (Class, Tenant)>) -> Option<usize> {
        let rank = |(index, (class, tenant)): (usize, (Class, Tenant))| {
            (class, self.served.get(&tenant).copied().unwrap_or(0), index)
        };
        waiting.enumerate().map(rank).min().map(|(_, _, index)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Tenant = Tenant([1; 32]);
    const B: Tenant = Tenant([2; 32]);

    #[test]
    fn interactive_work_comes_first_then_the_user_served_least_then_the_oldest() {
        let mut shares = Shares::default();
        shares.serve(A, 100);
        let waiting =
            [(Class::Bulk, B), (Class::Interactive, A), (Class::Interactive, B), (Class::Interactive, B)];
        assert_eq!(shares.next(waiting.into_iter()), Some(2));
        assert_eq!(shares.next(waiting[..2].iter().copied()), Some(1));
        assert_eq!(shares.next(waiting[..1].iter().copied()), Some(0));
        assert_eq!(shares.next(std::iter::empty()), None);
    }

    #[test]
    fn credit_is_not_saved_up() {
        let mut shares = Shares::default();
        shares.arrive(A, std::iter::empty());
        shares.serve(A, 1000);
        shares.arrive(B, [A].into_iter());
        assert_eq!(
            shares.next([(Class::Bulk, A), (Class::Bulk, B)].into_iter()),
            Some(0),
            "equal: the oldest"
        );
        shares.serve(A, 1);
        assert_eq!(shares.next([(Class::Bulk, A), (Class::Bulk, B)].into_iter()), Some(1));
    }

    #[test]
    fn two_busy_users_are_served_alike_whatever_they_offer() {
        let mut shares = Shares::default();
        shares.arrive(A, std::iter::empty());
        shares.arrive(B, [A].into_iter());
        let mut served = BTreeMap::new();
        for _ in 0..1000 {
            // A always has thirty requests waiting, B one; a request of A costs 7, of B 3.
            let waiting = std::iter::repeat_n((Class::Interactive, A), 30).chain([(Class::Interactive, B)]);
            let next = if shares.next(waiting) == Some(30) { (B, 3) } else { (A, 7) };
            shares.serve(next.0, next.1);
            *served.entry(next.0).or_insert(0) += next.1;
        }
        assert!(u64::abs_diff(served[&A], served[&B]) <= 2 * 7, "{served:?}");
    }
}
