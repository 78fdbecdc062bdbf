//! What a device has sent within the last hour and the last day, in a few hundred bytes.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::domain::pacing::{Caps, PacingPolicy};
use crate::time::Timestamp;

const HOUR: Duration = Duration::from_secs(3600);

/// The grain in which the day is counted.
const BUCKET_MS: i64 = 15 * 60 * 1000;

/// The buckets of a day, and the one that has begun.
const BUCKETS: i64 = 24 * 4 + 1;

/// The most instants that are kept of an hour: no cap that can be set looks further back.
const HOUR_KEPT_MAX: usize = (Caps::HOUR_MAX_LIMIT * PacingPolicy::INTERACTIVE_PERCENT_LIMIT / 100) as usize;

/// By how many instants the room for those of an hour grows.
const HOUR_STEP: usize = 16;

/// The counts behind the caps.
///
/// An instant counts for the hour until exactly one hour later. For the day it counts until 24 hours after the end of
/// its quarter of an hour, so never less than 24 hours and at most 15 minutes more.
#[derive(Clone)]
pub(super) struct Rolling {
    /// The newest instant that was ever added; the others are told from it.
    newest: Timestamp,
    /// The low 32 bits of the milliseconds of each instant less than an hour before the newest, in order.
    hour: VecDeque<u32>,
    /// How many instants lie in each quarter of an hour, by its number modulo the length; the newest's is the last.
    day: [u16; BUCKETS as usize],
}

impl Default for Rolling {
    fn default() -> Self {
        Self {
            newest: Timestamp::from_millis(i64::MIN),
            hour: VecDeque::new(),
            day: [0; BUCKETS as usize],
        }
    }
}

impl Rolling {
    /// Counts an instant, which is not before those added earlier.
    pub(super) fn add(&mut self, at: Timestamp) {
        let at = at.max(self.newest);
        let head = bucket(at);
        for passed in bucket(self.newest).max(head - BUCKETS) + 1..=head {
            self.day[slot(passed)] = 0;
        }
        while self.hour_at(0).is_some_and(|oldest| oldest + HOUR <= at) || self.hour.len() >= HOUR_KEPT_MAX {
            self.hour.pop_front();
        }
        self.newest = at;
        // Doubling would leave room that a cap never lets it use.
        if self.hour.len() == self.hour.capacity() {
            self.hour.reserve_exact(HOUR_STEP);
        }
        self.hour.push_back(low_bits(at));
        let count = &mut self.day[slot(head)];
        *count = count.saturating_add(1);
    }

    /// Stops counting an instant; returns whether it was counted.
    pub(super) fn remove(&mut self, at: Timestamp) -> bool {
        let number = bucket(at);
        if at > self.newest || number <= bucket(self.newest) - BUCKETS || self.day[slot(number)] == 0 {
            return false;
        }
        if at + HOUR > self.newest {
            let Some(index) = (0..self.hour.len())
                .rev()
                .find(|index| self.hour_at(*index) == Some(at))
            else {
                return false;
            };
            self.hour.remove(index);
        }
        self.day[slot(number)] -= 1;
        true
    }

    /// When fewer than `cap` instants count for the hour; `None` when that is so whenever one asks.
    pub(super) fn hour_free_at(&self, cap: u32) -> Option<Timestamp> {
        let surplus = self.hour.len().checked_sub(cap as usize)?;
        self.hour_at(surplus).map(|at| at + HOUR)
    }

    /// When fewer than `cap` instants count for the day; `None` when that is so whenever one asks.
    pub(super) fn day_free_at(&self, cap: u32) -> Option<Timestamp> {
        let mut count = 0;
        for number in self.buckets() {
            count += u32::from(self.day[slot(number)]);
            if count >= cap {
                return Some(Timestamp::from_millis((number + BUCKETS) * BUCKET_MS));
            }
        }
        None
    }

    /// How many instants count for the hour at `now`.
    pub(super) fn hour_count(&self, now: Timestamp) -> u32 {
        let counts = |index: &usize| self.hour_at(*index).is_some_and(|at| at + HOUR > now);
        (0..self.hour.len()).filter(counts).count() as u32
    }

    /// How many instants count for the day at `now`.
    pub(super) fn day_count(&self, now: Timestamp) -> u32 {
        let counted = self.buckets().filter(|number| *number > bucket(now) - BUCKETS);
        counted.map(|number| u32::from(self.day[slot(number)])).sum()
    }

    /// How many of the instants that are still known lie at or after `since`, to the quarter of an hour.
    pub(super) fn count_since(&self, since: Timestamp) -> u32 {
        let counted = self.buckets().filter(|number| *number >= bucket(since));
        counted.map(|number| u32::from(self.day[slot(number)])).sum()
    }

    /// The oldest instant that is still known, to the quarter of an hour if it is not within the hour of the newest.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let number = self.buckets().filter(|number| self.day[slot(*number)] > 0).last()?;
        let start = Timestamp::from_millis(number * BUCKET_MS);
        Some(self.hour_at(0).filter(|at| bucket(*at) == number).unwrap_or(start))
    }

    /// The numbers of the buckets that are kept, the newest first.
    fn buckets(&self) -> impl Iterator<Item = i64> + use<> {
        let head = bucket(self.newest);
        (head - BUCKETS + 1..=head).rev()
    }

    fn hour_at(&self, index: usize) -> Option<Timestamp> {
        let age_ms = low_bits(self.newest).wrapping_sub(*self.hour.get(index)?);
        Some(self.newest - Duration::from_millis(age_ms.into()))
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.hour.capacity() * size_of::<u32>()
    }
}

/// Prints counts: the instants of a busy lane would fill a page.
impl fmt::Debug for Rolling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rolling")
            .field("newest", &self.newest)
            .field("hour_count", &self.hour_count(self.newest))
            .field("day_count", &self.day_count(self.newest))
            .finish()
    }
}

/// The number of the quarter of an hour in which `at` lies.
fn bucket(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(BUCKET_MS)
}

fn slot(number: i64) -> usize {
    number.rem_euclid(BUCKETS) as usize
}

/// Enough to tell instants less than 49 days apart; those of one hour are.
fn low_bits(at: Timestamp) -> u32 {
    at.as_millis() as u32
}
