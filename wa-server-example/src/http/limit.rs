//! How often who may do what, in memory: token buckets for rates, rolling windows where a number is a promise.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wa_core::time::Monotonic;

/// Most keys that one set of buckets remembers; beyond that the fullest are forgotten, which favours callers that are new.
pub const KEYS_MAX: usize = 50_000;

/// A bucket of tokens per key: `burst` at first, one more every `per_token`.
#[derive(Debug)]
pub struct Buckets<K> {
    burst: u32,
    per_token: Duration,
    /// When the bucket of a key will be full again.
    full_at: Mutex<HashMap<K, Monotonic>>,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// Buckets of `count` tokens that fill up within `span`; a count of 0 means no limit.
    #[must_use]
    pub fn new(count: u32, span: Duration) -> Self {
        Self {
            burst: count,
            per_token: span / count.max(1),
            full_at: Mutex::default(),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long to wait until there is one.
    pub fn take(&self, key: &K, now: Monotonic) -> Result<(), Duration> {
        if self.burst == 0 {
            return Ok(());
        }
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= KEYS_MAX && !full_at.contains_key(key) {
            full_at.retain(|_, full| *full > now);
            if full_at.len() >= KEYS_MAX
                && let Some(fullest) = full_at
                    .iter()
                    .min_by_key(|(_, full)| **full)
                    .map(|(key, _)| key.clone())
            {
                full_at.remove(&fullest);
            }
        }
        let full = full_at.get(key).copied().unwrap_or(now).max(now);
        let next = full + self.per_token;
        let room = self.per_token * self.burst;
        match next.since(now).checked_sub(room) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                full_at.insert(key.clone(), next);
                Ok(())
            }
        }
    }
}

/// At most so many tries per key in any window of a length.
#[derive(Debug)]
pub struct Windows<K> {
    count: usize,
    span: Duration,
    tries: Mutex<Tries<K>>,
}

/// The tries of all keys.
#[derive(Debug)]
struct Tries<K> {
    of: HashMap<K, TriesOfKey>,
    /// The keys, that whose newest try is oldest first.
    by_newest: BTreeMap<u64, K>,
    /// The place in `by_newest` of the next try.
    next_place: u64,
}

/// The tries of one key.
#[derive(Debug)]
struct TriesOfKey {
    at: VecDeque<Monotonic>,
    place: u64,
}

impl<K: Eq + Hash + Clone> Windows<K> {
    /// At most `count` tries in any window of `span`.
    #[must_use]
    pub fn new(count: u32, span: Duration) -> Self {
        Self {
            count: count as usize,
            span,
            tries: Mutex::new(Tries {
                of: HashMap::new(),
                by_newest: BTreeMap::new(),
                next_place: 0,
            }),
        }
    }

    /// Counts a try. When [`KEYS_MAX`] keys are remembered, the one that was tried longest ago is forgotten for a new one.
    ///
    /// # Errors
    /// How long to wait until another one is allowed; the refused one does not count.
    pub fn take(&self, key: &K, now: Monotonic) -> Result<(), Duration> {
        let mut tries = self.lock();
        let over = |at: &Monotonic| now.since(*at) >= self.span;
        if let Some(known) = tries.of.get_mut(key) {
            while known.at.front().is_some_and(over) {
                known.at.pop_front();
            }
            if let Some(first) = known.at.front()
                && known.at.len() >= self.count
            {
                return Err(self.span.saturating_sub(now.since(*first)));
            }
        } else {
            // Each key is passed over once for each time that it was added, however many there are.
            while let Some(oldest) = tries.by_newest.first_entry() {
                let oldest = oldest.get().clone();
                let gone = tries.of[&oldest].at.back().is_none_or(over);
                if !gone && tries.of.len() < KEYS_MAX {
                    break;
                }
                tries.remove(&oldest);
            }
        }
        tries.add(key, now);
        Ok(())
    }

    /// Takes one try back, that which was counted at `at`.
    pub fn give_back(&self, key: &K, at: Monotonic) {
        let mut tries = self.lock();
        let Some(known) = tries.of.get_mut(key) else { return };
        if let Some(place) = known.at.iter().rposition(|one| *one == at) {
            known.at.remove(place);
        }
        if known.at.is_empty() {
            tries.remove(key);
        }
    }

    /// Forgets the tries of a key.
    pub fn forget(&self, key: &K) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, Tries<K>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Tries<K> {
    fn add(&mut self, key: &K, now: Monotonic) {
        let place = self.next_place;
        self.next_place += 1;
        match self.of.get_mut(key) {
            Some(known) => {
                known.at.push_back(now);
                self.by_newest.remove(&known.place);
                known.place = place;
            }
            None => {
                let at = VecDeque::from([now]);
                self.of.insert(key.clone(), TriesOfKey { at, place });
            }
        }
        self.by_newest.insert(place, key.clone());
    }

    fn remove(&mut self, key: &K) {
        if let Some(known) = self.of.remove(key) {
            self.by_newest.remove(&known.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_token_at_a_time() {
        let buckets = Buckets::new(5, Duration::from_secs(900));
        for _ in 0..5 {
            assert_eq!(buckets.take(&"a", at(0)), Ok(()));
        }
        assert_eq!(buckets.take(&"a", at(0)), Err(Duration::from_secs(180)));
        assert_eq!(buckets.take(&"b", at(0)), Ok(()));
        assert_eq!(buckets.take(&"a", at(179)), Err(Duration::from_secs(1)));
        assert_eq!(buckets.take(&"a", at(180)), Ok(()));
    }

    #[test]
    fn no_window_holds_more_tries_than_allowed() {
        let windows = Windows::new(2, Duration::from_secs(900));
        assert_eq!(windows.take(&"a", at(0)), Ok(()));
        assert_eq!(windows.take(&"a", at(600)), Ok(()));
        assert_eq!(windows.take(&"a", at(601)), Err(Duration::from_secs(299)));
        assert_eq!(windows.take(&"b", at(601)), Ok(()));
        assert_eq!(windows.take(&"a", at(900)), Ok(()));
        assert_eq!(windows.take(&"a", at(901)), Err(Duration::from_secs(599)));
        windows.forget(&"a");
        assert_eq!(windows.take(&"a", at(901)), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_a_limit_of_zero_is_none() {
        let buckets = Buckets::new(1, Duration::from_secs(60));
        for key in 0..KEYS_MAX + 10 {
            assert_eq!(buckets.take(&key, at(0)), Ok(()));
        }
        assert_eq!(buckets.full_at.lock().unwrap().len(), KEYS_MAX);
        let free = Buckets::new(0, Duration::from_secs(60));
        assert!((0..1_000).all(|_| free.take(&(), at(0)).is_ok()));
    }

    #[test]
    fn a_new_key_takes_the_place_of_the_one_tried_longest_ago_and_none_is_refused_for_want_of_room() {
        let windows = Windows::new(1, Duration::from_secs(900));
        for key in 0..KEYS_MAX {
            assert_eq!(windows.take(&key, at(0)), Ok(()));
        }
        for key in KEYS_MAX..KEYS_MAX + 10 {
            assert_eq!(windows.take(&key, at(1)), Ok(()));
        }
        assert_eq!(windows.lock().of.len(), KEYS_MAX);
        assert_eq!(windows.lock().by_newest.len(), KEYS_MAX);
        assert!(windows.take(&(KEYS_MAX + 9), at(1)).is_err());
        assert!(windows.take(&10, at(1)).is_err(), "it is not the oldest yet");
        assert_eq!(windows.take(&9, at(1)), Ok(()), "the oldest was forgotten");
        assert_eq!(windows.take(&usize::MAX, at(900)), Ok(()));
        assert!(windows.lock().of.len() <= 12, "what is over is forgotten");
    }

    #[test]
    fn a_try_that_was_given_back_does_not_count() {
        let windows = Windows::new(2, Duration::from_secs(900));
        assert_eq!(windows.take(&"a", at(0)), Ok(()));
        assert_eq!(windows.take(&"a", at(5)), Ok(()));
        windows.give_back(&"a", at(5));
        assert_eq!(windows.take(&"a", at(6)), Ok(()));
        assert_eq!(windows.take(&"a", at(6)), Err(Duration::from_secs(894)));
        windows.give_back(&"a", at(0));
        windows.give_back(&"a", at(6));
        assert!(windows.lock().of.is_empty() && windows.lock().by_newest.is_empty());
    }
}
