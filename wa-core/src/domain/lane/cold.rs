//! The pace of messages to people who do not know the device.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::rolling::Rolling;
use super::{LaneReason, ramp_at};
use crate::domain::pacing::{PacingPolicy, Priority};
use crate::time::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The new chats that WhatsApp leaves an account, in anchored time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ColdBudget {
    /// How many cold messages may be begun from `told_at` on.
    pub count: u32,
    /// When that was told.
    pub told_at: Timestamp,
    /// When the cycle ends, and the budget with it.
    pub ends_at: Timestamp,
}

/// How cold messages go when a restriction has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reopening {
    /// As before: that there was a restriction is a guess.
    AtOnce,
    /// As slowly as the policy's ramp says.
    Slowly,
}

/// What a lane knows of its cold messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Cold {
    rolling: Rolling,
    last_begun_at: Option<Timestamp>,
    /// When the last restriction ends or ended.
    closed_until: Option<Timestamp>,
    /// When the ramp begins or began.
    ramp_from: Option<Timestamp>,
    budget: Option<ColdBudget>,
    /// Begun since the budget was told.
    used: u32,
}

impl Cold {
    /// Cold messages that were begun before the lane was opened, in order.
    pub(super) fn with(begun: &[Timestamp]) -> Self {
        let mut cold = Self::default();
        begun.iter().for_each(|at| cold.begin(*at));
        cold
    }

    pub(super) fn begin(&mut self, at: Timestamp) {
        let at = self.last_begun_at.map_or(at, |last| last.max(at));
        self.rolling.add(at);
        self.last_begun_at = Some(at);
        self.used = self.used.saturating_add(1);
    }

    pub(super) fn give_back(&mut self, at: Timestamp) {
        if self.rolling.remove(at) {
            self.used = self.used.saturating_sub(1);
        }
    }

    pub(super) fn close(&mut self, until: Timestamp, then: Reopening) {
        self.closed_until = Some(until);
        if then == Reopening::Slowly {
            self.ramp_from = Some(until);
        }
    }

    pub(super) fn open(&mut self) {
        (self.closed_until, self.ramp_from) = (None, None);
    }

    pub(super) fn set_budget(&mut self, budget: Option<ColdBudget>) {
        if self.budget.map(|known| known.told_at) != budget.map(|told| told.told_at) {
            let told_at = budget.map(|told| told.told_at);
            self.used = told_at.map_or(0, |told_at| self.rolling.count_since(told_at));
        }
        self.budget = budget;
    }

    pub(super) fn day_count(&self, now: Timestamp) -> u32 {
        self.rolling.day_count(now)
    }

    /// The rule that keeps a cold message of that priority back longest, and until when.
    pub(super) fn free_at(&self, priority: Priority, policy: &PacingPolicy, now: Timestamp) -> (Timestamp, LaneReason) {
        let mut answer = (now, LaneReason::Ready);
        let mut wait = |at: Timestamp, reason| {
            if at > answer.0 {
                answer = (at, reason);
            }
        };
        if let Some(until) = self.closed_until {
            wait(until, LaneReason::ColdRestricted);
        }
        if let Some(budget) = self.budget {
            let left = budget.count.saturating_sub(self.used);
            if left == 0 {
                wait(budget.ends_at, LaneReason::ColdPace);
            } else if priority.is_bulk() {
                wait(
                    self.last_begun_at.map_or(now, |last| share(last, left, budget.ends_at)),
                    LaneReason::ColdPace,
                );
            }
        }
        if let Some(cap) = policy.cold_day_cap(priority)
            && let Some(free) = self.rolling.day_free_at(cap)
        {
            wait(free, LaneReason::ColdPace);
        }
        if let (Some(ramp), Some(end)) = (policy.cold_ramp(priority), self.ramp_from) {
            let from = now.max(end);
            let mut at = ramp_at(&self.rolling, end, ramp, from);
            let days = at.since(end).as_secs() / DAY.as_secs();
            if let (Some(cap), Some(last)) = (ramp.day_cap(days), self.last_begun_at.filter(|last| *last >= end)) {
                at = at.max(last + DAY / (2 * cap));
            }
            if at > from {
                wait(at, LaneReason::ColdPace);
            }
        }
        answer
    }

    /// How far apart cold messages go about now, for those that have to stand in line.
    pub(super) fn gap(&self, policy: &PacingPolicy, now: Timestamp) -> Duration {
        let mut gap = Duration::ZERO;
        if let Some(cap) = policy.cold_day_cap(Priority::Campaign) {
            gap = gap.max(DAY / cap);
        }
        if let (Some(ramp), Some(end)) = (
            policy.cold_ramp(Priority::Campaign),
            self.closed_until.filter(|end| *end <= now),
        ) {
            let days = now.since(end).as_secs() / DAY.as_secs();
            gap = gap.max(ramp.day_cap(days).map_or(Duration::ZERO, |cap| DAY / cap));
        }
        if let Some(budget) = self.budget.filter(|budget| budget.ends_at > now) {
            let left = budget.count.saturating_sub(self.used);
            if left > 0 {
                gap = gap.max(budget.ends_at.since(now) / (left + 1));
            }
        }
        gap
    }
}

/// When the next of `left` begins where all of them are spread evenly over what remains after the last one.
fn share(last: Timestamp, left: u32, ends_at: Timestamp) -> Timestamp {
    last + ends_at.since(last) / (left + 1)
}
