//! When to look at which lane again.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Timestamp;

/// A queue of at most one instant per key, for thousands of lanes in one task.
///
/// Setting and removing take O(log n); memory is bounded by the number of keys that are set, because a new instant
/// replaces the old one.
#[derive(Debug, Clone)]
pub struct LaneTimers<K> {
    by_key: BTreeMap<K, Timestamp>,
    by_instant: BTreeSet<(Timestamp, K)>,
}

impl<K: Copy + Ord> LaneTimers<K> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_instant: BTreeSet::new(),
        }
    }

    /// Sets when `key` is due, in place of any instant set before.
    pub fn set(&mut self, key: K, at: Timestamp) {
        if let Some(before) = self.by_key.insert(key, at) {
            self.by_instant.remove(&(before, key));
        }
        self.by_instant.insert((at, key));
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: K) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_instant.remove(&(at, key));
        }
    }

    /// Takes out all keys due at `now` or before, the longest due first.
    pub fn pop_due(&mut self, now: Timestamp) -> Vec<K> {
        self.pop_due_up_to(now, usize::MAX)
    }

    /// Takes out the keys due at `now` or before, the longest due first, at most so many.
    pub fn pop_due_up_to(&mut self, now: Timestamp, most: usize) -> Vec<K> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some((_, key)) = self.by_instant.first().copied().filter(|(at, _)| *at <= now)
        {
            self.remove(key);
            due.push(key);
        }
        due
    }

    /// The earliest instant at which a key is due.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.by_instant.first().map(|(at, _)| *at)
    }

    /// How many keys are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no key is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl<K: Copy + Ord> Default for LaneTimers<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_lane_that_is_set_again_is_due_once_at_its_new_instant() {
        let mut timers = LaneTimers::new();
        timers.set('a', at(10));
        timers.set('a', at(30));
        timers.set('b', at(20));
        assert_eq!(timers.next(), Some(at(20)));
        assert_eq!(timers.pop_due(at(29)), ['b']);
        assert_eq!(timers.pop_due(at(30)), ['a']);
        assert!(timers.is_empty() && timers.next().is_none());
    }

    proptest! {
        #[test]
        fn the_queue_agrees_with_a_plain_map(
            steps in prop::collection::vec((0_u8..4, 0_u8..8, 0_i64..100, 0_usize..8), 0..200)
        ) {
            let mut timers = LaneTimers::new();
            let mut model = BTreeMap::new();
            for (step, key, millis, most) in steps {
                match step {
                    0 | 1 => {
                        timers.set(key, at(millis));
                        model.insert(key, at(millis));
                    }
                    2 => {
                        timers.remove(key);
                        model.remove(&key);
                    }
                    _ => {
                        let now = at(millis);
                        let mut due: Vec<_> = model.iter().filter(|(_, at)| **at <= now).map(|(k, at)| (*at, *k)).collect();
                        due.sort_unstable();
                        let due: Vec<_> = due.into_iter().map(|(_, k)| k).collect();
                        let (first, others) = due.split_at(most.min(due.len()));
                        prop_assert_eq!(timers.pop_due_up_to(now, most), first);
                        model.retain(|key, _| !first.contains(key));
                        if most % 2 == 0 {
                            prop_assert_eq!(timers.pop_due(now), others);
                            model.retain(|key, _| !others.contains(key));
                        }
                    }
                }
                prop_assert_eq!(timers.next(), model.values().min().copied());
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.by_instant.len(), model.len());
            }
        }
    }

    #[test]
    fn lanes_that_are_set_over_and_over_leave_nothing_behind() {
        let mut timers = LaneTimers::new();
        for round in 0_i32..1_000 {
            timers.set(round % 4, at(i64::from(round)));
        }
        assert_eq!((timers.by_key.len(), timers.by_instant.len()), (4, 4));
    }
}
