//! How long gateways took to answer, for forecasts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::platform::Platform;

/// The times of the newest sends that gateways took, by platform, as this process saw them.
#[derive(Debug, Default)]
pub(crate) struct SendTimes(Mutex<BTreeMap<Platform, VecDeque<Duration>>>);

impl SendTimes {
    /// Most that are kept per platform.
    pub(crate) const KEPT_MAX: usize = 500;
    /// Fewer of a platform say too little.
    pub(crate) const ENOUGH: usize = 20;

    /// Keeps how long one send took that a gateway accepted.
    pub(crate) fn add(&self, platform: &Platform, took: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(platform) {
            all.insert(platform.clone(), VecDeque::new());
        }
        if let Some(times) = all.get_mut(platform) {
            if times.len() >= Self::KEPT_MAX {
                times.pop_front();
            }
            times.push_back(took);
        }
    }

    /// What was measured of a platform; `None` while that says too little.
    pub(crate) fn of(&self, platform: &Platform) -> Option<Vec<Duration>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = all.get(platform).filter(|times| times.len() >= Self::ENOUGH)?;
        Some(times.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_times_of_a_platform_are_kept_and_a_few_say_nothing() {
        let times = SendTimes::default();
        let add = |count: usize, millis| {
            for _ in 0..count {
                times.add(&Platform::WABLAS, Duration::from_millis(millis));
            }
        };
        add(SendTimes::ENOUGH - 1, 7);
        assert_eq!(times.of(&Platform::WABLAS), None);
        add(1, 7);
        assert_eq!(
            times.of(&Platform::WABLAS).map(|times| times.len()),
            Some(SendTimes::ENOUGH)
        );
        assert_eq!(times.of(&Platform::WHACENTER), None);
        add(SendTimes::KEPT_MAX, 9);
        let kept = times.of(&Platform::WABLAS).unwrap();
        assert_eq!(kept, vec![Duration::from_millis(9); SendTimes::KEPT_MAX]);
    }
}
