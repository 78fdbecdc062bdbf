//! When one device may send next.
//!
//! A lane lives in *anchored time*: the wall clock as it stood when the process started, plus the monotonic time since.
//! It runs like true time, so a jump of the wall clock neither empties a window nor stalls a lane. Only quiet hours are
//! read on the wall clock, because people live by it. [`LaneNow`] carries both readings, and an [`Anchor`] makes it.

mod anchor;
mod cold;
mod rolling;
#[cfg(test)]
mod tests;
mod waits;

use std::time::Duration;

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

pub use self::anchor::{Anchor, LaneNow};
use self::cold::Cold;
pub use self::cold::{ColdBudget, Reopening};
use self::rolling::Rolling;
pub use self::waits::Waits;
use super::pacing::{Caps, DrawnDelay, PacingPolicy, Priority, WarmUp};
use super::schedule::Quiet;
use super::warmth::Warmth;
use crate::time::Timestamp;

/// The shortest back-off of a lane.
pub const BACK_OFF_MIN: Duration = Duration::from_secs(5);
/// The longest back-off of a lane, also when a gateway asks for more: the next send is the probe.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(15 * 60);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The message that a lane would send next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneRequest {
    /// Decides which of the rules apply.
    pub priority: Priority,
    /// The pause drawn for this message; an interactive message keeps only the policy's floor.
    pub delay: DrawnDelay,
    /// The quiet hours that apply to it, if any; an interactive message ignores them.
    pub quiet: Option<Quiet>,
    /// The device's own caps; the policy's when there are none.
    pub caps: Option<Caps>,
    /// Whether the device knows the person: only messages to strangers keep the rules for cold ones.
    pub warmth: Warmth,
}

/// Why a lane waits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LaneReason {
    /// It does not wait.
    Ready,
    /// The pause before the message is not over.
    Delay,
    /// The cap of the last hour is used up.
    HourCap,
    /// The cap of the last day is used up.
    DayCap,
    /// The cap of the day of the ramp is used up.
    WarmUp,
    /// The message would come in quiet hours.
    QuietHours,
    /// The gateway refused for the moment, or the device was unreachable.
    BackOff,
    /// WhatsApp restricts the account.
    Restricted,
    /// WhatsApp lets the account write to nobody who does not know it.
    ColdRestricted,
    /// Those who do not know the account are written to slowly: a cap, a ramp after a restriction, or what WhatsApp leaves of new
    /// chats.
    ColdPace,
    /// The device is paused until somebody resumes it.
    Paused,
}

impl LaneReason {
    /// Whether only messages to people who do not know the device wait, so that others may go first.
    #[must_use]
    pub const fn is_cold(self) -> bool {
        matches!(self, Self::ColdRestricted | Self::ColdPace)
    }
}

/// When a lane may send a message, and what it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneAnswer {
    /// The earliest instant in anchored time, not before the one asked at; [`Timestamp::FAR_FUTURE`] while paused.
    pub at: Timestamp,
    /// The rule that ends last.
    pub reason: LaneReason,
}

impl LaneAnswer {
    /// Whether the message may be sent now.
    #[must_use]
    pub fn is_ready(self) -> bool {
        self.reason == LaneReason::Ready
    }

    /// This answer, or that of a rule that ends at `at` if that is later.
    fn or_until(self, at: Timestamp, reason: LaneReason) -> Self {
        if at > self.at { Self { at, reason } } else { self }
    }
}

/// What a device has sent before its lane is opened, in anchored time (see [`LaneNow::lane_at`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LaneHistory {
    /// The starts of the attempts of the last 24 hours and 15 minutes that sent or may have sent, in any order; earlier
    /// ones do no harm.
    pub attempts: Vec<Timestamp>,
    /// The start of the last attempt of all, whatever became of it.
    pub last_begun_at: Option<Timestamp>,
    /// The start of the first attempt of the device's life that sent or may have sent, from which its warm-up counts.
    pub first_begun_at: Option<Timestamp>,
    /// Those of `attempts` that were to people who did not know the device, as far as that matters.
    pub cold: Vec<Timestamp>,
}

/// The pacing of one device: what it has sent, and when it may send next.
///
/// To ensure correctness:
/// - each device has one, and everything that it sends goes through it, one attempt at a time;
/// - `now` does not run backwards from call to call;
/// - [`begin`](Self::begin) is called at an instant at which [`ready_at`](Self::ready_at) answered ready for that
///   message;
/// - every begin that certainly sent nothing is given back, once.
///
/// It keeps at most 2 KiB at caps of 80 and 800.
#[derive(Clone, Debug)]
pub struct LanePacing {
    rolling: Rolling,
    first_begun_at: Option<Timestamp>,
    last_begun_at: Option<Timestamp>,
    back_off_until: Option<Timestamp>,
    back_off_count: u8,
    restricted_until: Option<Timestamp>,
    paused: bool,
    /// Most lanes have nothing to remember of cold messages; it is made with the first.
    cold: Option<Box<Cold>>,
}

impl LanePacing {
    /// The lane of a device that has sent `history`.
    ///
    /// Instants after `now` come from a wall clock that stood ahead; they count as `now`, so that a clock set back
    /// cannot stall the lane.
    #[must_use]
    pub fn new(now: LaneNow, history: LaneHistory) -> Self {
        let now = now.at();
        let mut attempts = history.attempts;
        attempts.sort_unstable();
        let mut rolling = Rolling::default();
        for at in &attempts {
            rolling.add((*at).min(now));
        }
        let first = attempts.first().copied();
        let last = attempts.last().copied();
        Self {
            rolling,
            first_begun_at: history
                .first_begun_at
                .into_iter()
                .chain(first)
                .min()
                .map(|at| at.min(now)),
            last_begun_at: history
                .last_begun_at
                .into_iter()
                .chain(last)
                .max()
                .map(|at| at.min(now)),
            back_off_until: None,
            back_off_count: 0,
            restricted_until: None,
            paused: false,
            cold: cold_of(history.cold, now),
        }
    }

    /// When the lane may send the message of `request`, and what it waits for until then.
    ///
    /// If nothing else happens and the wall clock does not jump, asking again at the instant answered gives ready.
    /// Interactive messages ignore quiet hours, warm-up and the caps for bulk, but keep the policy's floor and its hard
    /// cap.
    #[must_use]
    pub fn ready_at(&self, request: &LaneRequest, policy: &PacingPolicy, now: LaneNow) -> LaneAnswer {
        if self.paused {
            return LaneAnswer {
                at: Timestamp::FAR_FUTURE,
                reason: LaneReason::Paused,
            };
        }
        let mut answer = LaneAnswer {
            at: now.at(),
            reason: LaneReason::Ready,
        };
        if let Some(until) = self.restricted_until {
            answer = answer.or_until(until, LaneReason::Restricted);
        }
        if let Some(until) = self.back_off_until {
            answer = answer.or_until(until, LaneReason::BackOff);
        }
        if let Some(caps) = policy.caps(request.priority, request.caps) {
            if let Some(free) = self.rolling.day_free_at(caps.day_max()) {
                answer = answer.or_until(free, LaneReason::DayCap);
            }
            if let Some(free) = self.rolling.hour_free_at(caps.hour_max()) {
                answer = answer.or_until(free, LaneReason::HourCap);
            }
        }
        if let Some(ramp) = policy.warm_up(request.priority) {
            answer = answer.or_until(self.warm_at(ramp, now.at()), LaneReason::WarmUp);
        }
        if let Some(cold) = self.cold.as_ref().filter(|_| request.warmth.is_cold()) {
            let (at, reason) = cold.free_at(request.priority, policy, now.at());
            answer = answer.or_until(at, reason);
        }
        if let Some(last) = self.last_begun_at {
            let gap = match request.priority {
                Priority::Interactive => policy.floor(),
                Priority::Sequence | Priority::Campaign => request.delay.as_duration().max(policy.floor()),
            };
            answer = answer.or_until(last + gap, LaneReason::Delay);
        }
        // Every rule above stays kept once it is kept; quiet hours come back, so they have the last word.
        if let Some(quiet) = request.quiet.filter(|_| request.priority.is_bulk()) {
            let open = now.lane_at(quiet.open_at(now.wall_at(answer.at)));
            answer = answer.or_until(open, LaneReason::QuietHours);
        }
        answer
    }

    /// The earliest instant, `now` or later, at which the ramp lets one more message pass.
    fn warm_at(&self, ramp: &WarmUp, now: Timestamp) -> Timestamp {
        ramp_at(&self.rolling, self.first_begun_at.unwrap_or(now), ramp, now)
    }

    /// Uses a slot for the attempt that starts at `at`, in anchored time.
    pub fn begin(&mut self, at: Timestamp) {
        // Anchored time never runs back; if it did, an order of instants that the windows rely on would break.
        let at = self.last_begun_at.map_or(at, |last| last.max(at));
        self.rolling.add(at);
        self.first_begun_at.get_or_insert(at);
        self.last_begun_at = Some(at);
    }

    /// Counts the attempt just begun at `at` among those to people who do not know the device.
    pub fn count_cold(&mut self, at: Timestamp) {
        self.cold.get_or_insert_default().begin(at);
    }

    /// Gives back the slot of the attempt begun at `at`, which certainly sent nothing; returns whether it still held
    /// one.
    ///
    /// `at` is the very instant that [`begin`](Self::begin) was given or that stood in the history. The pause after the
    /// attempt still holds. Giving back a second time has no effect within the hour; later it would take the slot of a
    /// neighbour.
    pub fn give_back(&mut self, at: Timestamp) -> bool {
        let given = self.rolling.remove(at);
        if let Some(cold) = &mut self.cold {
            cold.give_back(at);
        }
        if given && self.first_begun_at == Some(at) {
            self.first_begun_at = self.rolling.oldest();
        }
        given
    }

    /// Makes the lane wait after a refusal that is not the message's fault, and returns until when, in anchored time.
    ///
    /// The wait is drawn from 5 to 10 s after the first refusal; each further one in a row doubles both ends, up to
    /// [`BACK_OFF_MAX`]. Drawing keeps the lanes of one gateway from coming back together. The gateway's own
    /// `retry_after` is kept, with up to a tenth added, as far as [`BACK_OFF_MAX`].
    pub fn back_off(&mut self, now: Timestamp, retry_after: Option<Duration>, rng: &mut impl Rng) -> Timestamp {
        let top = BACK_OFF_MAX / 2;
        let least = (BACK_OFF_MIN * 2_u32.pow(self.back_off_count.into())).min(top);
        if least < top {
            self.back_off_count += 1;
        }
        let own = least + up_to(least, rng);
        let asked = retry_after.map_or(Duration::ZERO, |span| span.min(BACK_OFF_MAX));
        let until = now + own.max(asked + up_to(asked / 10, rng)).min(BACK_OFF_MAX);
        self.back_off_until = Some(until);
        until
    }

    /// Ends the back-off: the gateway has taken a message.
    pub fn succeeded(&mut self) {
        self.back_off_count = 0;
        self.back_off_until = None;
    }

    /// Closes the lane until `until`, in anchored time, in place of any restriction before.
    pub fn restrict(&mut self, until: Timestamp) {
        self.restricted_until = Some(until);
    }

    /// Closes the lane until `until`, in anchored time, to messages to people who do not know the device, in place of any such
    /// restriction before.
    pub fn restrict_cold(&mut self, until: Timestamp, then: Reopening) {
        self.cold.get_or_insert_default().close(until, then);
    }

    /// Whether it has anything to remember of messages to people who do not know the device.
    #[must_use]
    pub fn minds_strangers(&self) -> bool {
        self.cold.is_some()
    }

    /// When a bulk message to somebody who does not know the device may go, as far as rules for such messages say.
    #[must_use]
    pub fn cold_open_at(&self, policy: &PacingPolicy, now: Timestamp) -> Timestamp {
        self.cold
            .as_ref()
            .map_or(now, |cold| cold.free_at(Priority::Campaign, policy, now).0)
    }

    /// Sets how many people who do not know the device may be written to; they are spread over the time until it ends.
    pub fn set_cold_budget(&mut self, budget: Option<ColdBudget>) {
        if budget.is_some() || self.cold.is_some() {
            self.cold.get_or_insert_default().set_budget(budget);
        }
    }

    /// How far apart messages to people who do not know the device go about now.
    #[must_use]
    pub fn cold_gap(&self, policy: &PacingPolicy, now: Timestamp) -> Duration {
        self.cold.as_ref().map_or(Duration::ZERO, |cold| cold.gap(policy, now))
    }

    /// Messages to people who did not know the device that count for a day at `now`, in anchored time.
    #[must_use]
    pub fn cold_day_count(&self, now: Timestamp) -> u32 {
        self.cold.as_ref().map_or(0, |cold| cold.day_count(now))
    }

    /// Ends restrictions before their time, as if they had never been.
    pub fn lift_restriction(&mut self) {
        self.restricted_until = None;
        if let Some(cold) = &mut self.cold {
            cold.open();
        }
    }

    /// Closes the lane until [`resume`](Self::resume).
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Opens a paused lane, and lets it try at once whatever the gateway said before.
    pub fn resume(&mut self) {
        self.paused = false;
        self.succeeded();
    }

    /// Messages that count for the cap of the hour at `now`, in anchored time.
    #[must_use]
    pub fn hour_count(&self, now: Timestamp) -> u32 {
        self.rolling.hour_count(now)
    }

    /// Messages that count for the cap of the day at `now`, in anchored time.
    #[must_use]
    pub fn day_count(&self, now: Timestamp) -> u32 {
        self.rolling.day_count(now)
    }
}

/// The earliest instant, `now` or later, at which a ramp that counts from `first` lets one more message pass.
fn ramp_at(rolling: &Rolling, first: Timestamp, ramp: &WarmUp, now: Timestamp) -> Timestamp {
    let mut at = now;
    let mut days = now.since(first).as_secs() / DAY.as_secs();
    let mut next_day = first + Duration::from_secs(days.saturating_add(1).saturating_mul(DAY.as_secs()));
    // The caps of a ramp do not fall, so the search ends at the latest with its last day.
    while let Some(cap) = ramp.day_cap(days) {
        let free = rolling.day_free_at(cap).map_or(at, |free| free.max(at));
        if free < next_day {
            return free;
        }
        at = next_day;
        days += 1;
        next_day = next_day + DAY;
    }
    at
}

fn cold_of(mut begun: Vec<Timestamp>, now: Timestamp) -> Option<Box<Cold>> {
    begun.sort_unstable();
    begun.iter_mut().for_each(|at| *at = (*at).min(now));
    (!begun.is_empty()).then(|| Box::new(Cold::with(&begun)))
}

/// A random span from zero to `most`, to the millisecond.
fn up_to(most: Duration, rng: &mut impl Rng) -> Duration {
    let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rng.random_range(0..=most_ms))
}
