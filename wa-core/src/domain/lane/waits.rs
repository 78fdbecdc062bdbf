//! What lanes waited for, and how long.

use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LaneReason;

/// How long lanes with something to send waited, by the rule that ended last, in milliseconds of lane time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waits {
    /// For the pause between two messages.
    pub delay_ms: u64,
    /// For the cap of the hour.
    pub hour_cap_ms: u64,
    /// For the cap of the day.
    pub day_cap_ms: u64,
    /// For the ramp of a new device.
    pub warm_up_ms: u64,
    /// For the end of quiet hours.
    pub quiet_hours_ms: u64,
    /// After a refusal of the gateway.
    pub back_off_ms: u64,
    /// For the end of a restriction of the account.
    pub restricted_ms: u64,
    /// With nothing to send but to people who do not know the device, whom WhatsApp or the policy keeps it from writing to now.
    pub cold_ms: u64,
    /// For a device that cannot send: offline, on hold, without a transport.
    pub offline_ms: u64,
}

impl Waits {
    /// Adds a while to one reason; nothing where the lane did not wait.
    pub fn add(&mut self, reason: LaneReason, span: Duration) {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let place = match reason {
            LaneReason::Ready => return,
            LaneReason::Delay => &mut self.delay_ms,
            LaneReason::HourCap => &mut self.hour_cap_ms,
            LaneReason::DayCap => &mut self.day_cap_ms,
            LaneReason::WarmUp => &mut self.warm_up_ms,
            LaneReason::QuietHours => &mut self.quiet_hours_ms,
            LaneReason::BackOff => &mut self.back_off_ms,
            LaneReason::Restricted => &mut self.restricted_ms,
            LaneReason::ColdRestricted | LaneReason::ColdPace => &mut self.cold_ms,
            LaneReason::Paused => &mut self.offline_ms,
        };
        *place = place.saturating_add(millis);
    }

    /// All of it together, in milliseconds.
    #[must_use]
    pub fn total_ms(&self) -> u64 {
        self.fields().into_iter().fold(0, u64::saturating_add)
    }

    const fn fields(&self) -> [u64; 9] {
        [
            self.delay_ms,
            self.hour_cap_ms,
            self.day_cap_ms,
            self.warm_up_ms,
            self.quiet_hours_ms,
            self.back_off_ms,
            self.restricted_ms,
            self.cold_ms,
            self.offline_ms,
        ]
    }
}

impl Add for Waits {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let with = u64::saturating_add;
        Self {
            delay_ms: with(self.delay_ms, other.delay_ms),
            hour_cap_ms: with(self.hour_cap_ms, other.hour_cap_ms),
            day_cap_ms: with(self.day_cap_ms, other.day_cap_ms),
            warm_up_ms: with(self.warm_up_ms, other.warm_up_ms),
            quiet_hours_ms: with(self.quiet_hours_ms, other.quiet_hours_ms),
            back_off_ms: with(self.back_off_ms, other.back_off_ms),
            restricted_ms: with(self.restricted_ms, other.restricted_ms),
            cold_ms: with(self.cold_ms, other.cold_ms),
            offline_ms: with(self.offline_ms, other.offline_ms),
        }
    }
}

impl AddAssign for Waits {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Waits {
    fn sum<I: Iterator<Item = Self>>(waits: I) -> Self {
        waits.fold(Self::default(), Add::add)
    }
}
