//! How often who may do what, in memory: token buckets for rates, rolling windows where a number is a promise.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
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
    tries: Mutex<HashMap<K, VecDeque<Monotonic>>>,
}

impl<K: Eq + Hash + Clone> Windows<K> {
    /// At most `count` tries in any window of `span`.
    #[must_use]
    pub fn new(count: u32, span: Duration) -> Self {
        Self {
            count: count as usize,
            span,
            tries: Mutex::default(),
        }
    }

    /// Counts a try.
    ///
    /// # Errors
    /// How long to wait until another one is allowed; the refused one does not count.
    pub fn take(&self, key: &K, now: Monotonic) -> Result<(), Duration> {
        let mut all = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |at: &Monotonic| now.since(*at) >= self.span;
        if all.len() >= KEYS_MAX && !all.contains_key(key) {
            all.retain(|_, tries| !tries.back().is_none_or(over));
            if all.len() >= KEYS_MAX {
                return Err(self.span);
            }
        }
        let tries = all.entry(key.clone()).or_default();
        while tries.front().is_some_and(over) {
            tries.pop_front();
        }
        match tries.front() {
            Some(first) if tries.len() >= self.count => Err(self.span.saturating_sub(now.since(*first))),
            _ => {
                tries.push_back(now);
                Ok(())
            }
        }
    }

    /// Forgets the tries of a key.
    pub fn forget(&self, key: &K) {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
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
}
