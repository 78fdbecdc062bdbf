//! When gateways may be asked about messages in doubt, on a clock that does not jump.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::AttemptId;
use crate::time::Timestamp;

/// The earliest instants, in anchored time, at which this process may ask about attempts.
///
/// The store keeps when to ask on the wall clock, which survives a restart; a wall clock that jumps forward must not shorten
/// the wait, else a gateway whose report lags says too early that it never had the message. So a process also waits by its own
/// monotonic clock: from the start of an attempt of its own, and where it did not see the start, from when it first saw the
/// doubt. Forgetting an entry costs one more wait and nothing else.
#[derive(Debug, Default)]
pub(crate) struct Askable(BTreeMap<AttemptId, Timestamp>);

impl Askable {
    /// Most attempts that are known; more than lanes of one node.
    const COUNT_MAX: usize = 10_000;

    /// An attempt may be asked about at `at`, whatever was said before.
    pub(crate) fn set(&mut self, attempt: AttemptId, at: Timestamp) {
        if self.0.len() >= Self::COUNT_MAX && !self.0.contains_key(&attempt) {
            self.0.clear();
        }
        self.0.insert(attempt, at);
    }

    /// When an attempt may be asked about; one that is not known has to wait `wait` from `now`.
    pub(crate) fn at(&mut self, attempt: AttemptId, wait: Duration, now: Timestamp) -> Timestamp {
        if let Some(at) = self.0.get(&attempt) {
            return *at;
        }
        self.set(attempt, now + wait);
        now + wait
    }

    /// Nothing is asked about it any more.
    pub(crate) fn forget(&mut self, attempt: AttemptId) {
        self.0.remove(&attempt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdSource;

    #[test]
    fn what_is_not_known_waits_once_and_what_is_known_as_long_as_was_said() {
        let ids = IdSource::seeded([1; 32]);
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        let wait = Duration::from_secs(90);
        let (known, unknown) = (AttemptId::new(&ids, at(0)), AttemptId::new(&ids, at(0)));
        let mut askable = Askable::default();
        askable.set(known, at(50));
        assert_eq!(askable.at(known, wait, at(10)), at(50));
        for now in [10, 40, 200] {
            assert_eq!(askable.at(unknown, wait, at(now)), at(100));
        }
        askable.forget(unknown);
        assert_eq!(askable.at(unknown, wait, at(200)), at(290));
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let ids = IdSource::seeded([1; 32]);
        let mut askable = Askable::default();
        for _ in 0..3 * Askable::COUNT_MAX {
            askable.set(AttemptId::new(&ids, Timestamp::EPOCH), Timestamp::EPOCH);
            assert!(askable.0.len() <= Askable::COUNT_MAX);
        }
    }
}
