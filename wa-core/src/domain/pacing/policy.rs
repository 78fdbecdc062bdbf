//! What an engine is configured with.

use std::time::Duration;

use rand::RngExt as _;

use super::{Caps, DelayRange, DelaySettings, DrawnDelay, PacingError, Priority, WarmUp, within};
use crate::id::{DeviceId, MessageId};
use crate::seed::Seed;
use crate::time::Timestamp;

/// How far an engine keeps to a human pace. Quiet hours, restrictions and back-off hold in all profiles.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PacingProfile {
    /// Delays, caps and warm-up as they are set; the only profile for real recipients.
    Human,
    /// A tenth of the delays and no caps, so that a person can watch a demonstration.
    Demo,
    /// No delays and no caps, for programs that pace themselves, benches and tests.
    Unpaced,
}

/// The pacing that an engine applies to all its devices.
///
/// Only the program that assembles the engine chooses the profile; nothing that comes through an API can.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacingPolicy {
    profile: PacingProfile,
    default_delay: DelayRange,
    floor: Duration,
    caps: Caps,
    interactive_percent: u32,
    warm_up: Option<WarmUp>,
    cold_day_cap: Option<u32>,
    cold_ramp: WarmUp,
    cold_jitter_max: Duration,
}

impl PacingPolicy {
    /// How long after the end of a restriction messages to people who do not know the device begin again, at most.
    pub const COLD_JITTER_MAX: Duration = Duration::from_secs(10 * 60);
    /// The shortest pause between two messages of a device, unless a longer one is configured.
    pub const FLOOR: Duration = DelayRange::FLOOR;
    /// The longest floor that can be configured.
    pub const FLOOR_LIMIT: Duration = Duration::from_secs(60);
    /// The highest hard cap that can be configured, in percent of the caps.
    pub const INTERACTIVE_PERCENT_LIMIT: u32 = 200;

    /// The human pace with all defaults: 5 to 15 s, at least 1 s, caps of 80 and 800, a hard cap of 120 %, no warm-up.
    #[must_use]
    pub fn human() -> Self {
        Self {
            profile: PacingProfile::Human,
            default_delay: DelayRange::default(),
            floor: Self::FLOOR,
            caps: Caps::default(),
            interactive_percent: 120,
            warm_up: None,
            cold_day_cap: None,
            cold_ramp: WarmUp::after_restriction(),
            cold_jitter_max: Self::COLD_JITTER_MAX,
        }
    }

    /// The pace of a demonstration, which no real recipient should see.
    #[must_use]
    pub fn demo() -> Self {
        Self {
            profile: PacingProfile::Demo,
            ..Self::human()
        }
    }

    /// No pace at all, for programs that pace themselves, benches and tests.
    #[must_use]
    pub fn unpaced() -> Self {
        Self {
            profile: PacingProfile::Unpaced,
            ..Self::human()
        }
    }

    /// A builder that starts from [`PacingPolicy::human`].
    pub fn builder() -> PacingPolicyBuilder {
        PacingPolicyBuilder { policy: Self::human() }
    }

    /// The profile.
    #[must_use]
    pub const fn profile(&self) -> PacingProfile {
        self.profile
    }

    /// The caps of devices that have none of their own.
    #[must_use]
    pub const fn default_caps(&self) -> Caps {
        self.caps
    }

    /// The shortest pause between two messages of a device, whatever is asked for.
    #[must_use]
    pub fn floor(&self) -> Duration {
        self.paced(self.floor)
    }

    /// The range from which the pause before a message is drawn.
    #[must_use]
    pub fn delay_range(&self, settings: DelaySettings) -> DelayRange {
        settings.chosen().unwrap_or(self.default_delay)
    }

    /// Draws the pause of `device` before `message`: the same one on every node, retry and replay.
    #[must_use]
    pub fn draw_delay(&self, range: DelayRange, seed: &Seed, device: DeviceId, message: MessageId) -> DrawnDelay {
        if self.profile == PacingProfile::Unpaced {
            return DrawnDelay::new(Duration::ZERO);
        }
        let key = [*device.as_bytes(), *message.as_bytes()].concat();
        let drawn = seed.rng(&key, "pacing delay").random_range(range.millis());
        let span = Duration::from_millis(drawn.into()).max(self.floor);
        DrawnDelay::new(self.paced(span))
    }

    /// The caps that a message of `priority` must keep on a device whose own caps are `caps`; `None` when there are
    /// none.
    #[must_use]
    pub fn caps(&self, priority: Priority, caps: Option<Caps>) -> Option<Caps> {
        let caps = caps.unwrap_or(self.caps);
        match self.profile {
            PacingProfile::Demo | PacingProfile::Unpaced => None,
            PacingProfile::Human if priority.is_bulk() => Some(caps),
            PacingProfile::Human => Some(caps.scaled(self.interactive_percent)),
        }
    }

    /// The ramp that a message of `priority` must keep; `None` when there is none.
    #[must_use]
    pub fn warm_up(&self, priority: Priority) -> Option<&WarmUp> {
        self.warm_up
            .as_ref()
            .filter(|_| self.profile == PacingProfile::Human && priority.is_bulk())
    }

    /// How many messages a day go to people who do not know the device; `None` when all caps are those of all messages.
    #[must_use]
    pub fn cold_day_cap(&self, priority: Priority) -> Option<u32> {
        self.cold_day_cap
            .filter(|_| self.profile == PacingProfile::Human && priority.is_bulk())
    }

    /// The ramp that messages to people who do not know the device keep from the end of a restriction on.
    #[must_use]
    pub fn cold_ramp(&self, priority: Priority) -> Option<&WarmUp> {
        Some(&self.cold_ramp).filter(|_| self.profile == PacingProfile::Human && priority.is_bulk())
    }

    /// How long after the end of a restriction of `device` at `until` it begins again: the same on every node.
    #[must_use]
    pub fn cold_jitter(&self, seed: &Seed, device: DeviceId, until: Timestamp) -> Duration {
        let key = [device.as_bytes().as_slice(), &until.as_millis().to_be_bytes()].concat();
        let most = u64::try_from(self.paced(self.cold_jitter_max).as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(seed.rng(&key, "cold jitter").random_range(0..=most))
    }

    fn paced(&self, span: Duration) -> Duration {
        match self.profile {
            PacingProfile::Human => span,
            PacingProfile::Demo => span / 10,
            PacingProfile::Unpaced => Duration::ZERO,
        }
    }
}

impl Default for PacingPolicy {
    fn default() -> Self {
        Self::human()
    }
}

/// Configures a [`PacingPolicy`]; only [`build`](Self::build) can fail.
#[derive(Clone, Debug)]
#[must_use]
pub struct PacingPolicyBuilder {
    policy: PacingPolicy,
}

impl PacingPolicyBuilder {
    /// Sets the profile; [`PacingProfile::Human`] by default.
    pub fn profile(mut self, profile: PacingProfile) -> Self {
        self.policy.profile = profile;
        self
    }

    /// Sets the delay of messages for which none is set anywhere; 5 to 15 s by default.
    pub fn default_delay(mut self, range: DelayRange) -> Self {
        self.policy.default_delay = range;
        self
    }

    /// Sets the shortest pause between two messages of a device; 1 s by default, and not below.
    pub fn floor(mut self, floor: Duration) -> Self {
        self.policy.floor = floor;
        self
    }

    /// Sets the caps of devices that have none of their own; 80 and 800 by default.
    pub fn default_caps(mut self, caps: Caps) -> Self {
        self.policy.caps = caps;
        self
    }

    /// Sets the hard cap, which interactive messages keep too, in percent of the caps; 120 by default.
    pub fn interactive_percent(mut self, percent: u32) -> Self {
        self.policy.interactive_percent = percent;
        self
    }

    /// Sets the ramp of new devices; none by default.
    pub fn warm_up(mut self, ramp: WarmUp) -> Self {
        self.policy.warm_up = Some(ramp);
        self
    }

    /// Sets how many messages a day go to people who do not know the device; no cap of their own by default.
    pub fn cold_day_cap(mut self, cap: u32) -> Self {
        self.policy.cold_day_cap = Some(cap);
        self
    }

    /// Sets the ramp that messages to people who do not know the device keep from the end of a restriction on;
    /// [`WarmUp::after_restriction`] by default.
    pub fn cold_ramp(mut self, ramp: WarmUp) -> Self {
        self.policy.cold_ramp = ramp;
        self
    }

    /// Sets how long after the end of a restriction they begin again at most; [`PacingPolicy::COLD_JITTER_MAX`] by default.
    pub fn cold_jitter_max(mut self, most: Duration) -> Self {
        self.policy.cold_jitter_max = most;
        self
    }

    /// The policy.
    ///
    /// # Errors
    /// When the cap of messages to people who do not know the device is 0 or above [`Caps::DAY_MAX_LIMIT`], the floor is below
    /// [`PacingPolicy::FLOOR`] or above [`PacingPolicy::FLOOR_LIMIT`], or the percentage is below 100 or above
    /// [`PacingPolicy::INTERACTIVE_PERCENT_LIMIT`].
    pub fn build(self) -> Result<PacingPolicy, PacingError> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        within(
            "floor_ms",
            millis(self.policy.floor),
            millis(PacingPolicy::FLOOR),
            millis(PacingPolicy::FLOOR_LIMIT),
        )?;
        within(
            "cold_day_cap",
            self.policy.cold_day_cap.unwrap_or(1).into(),
            1,
            Caps::DAY_MAX_LIMIT.into(),
        )?;
        within(
            "interactive_percent",
            self.policy.interactive_percent.into(),
            100,
            PacingPolicy::INTERACTIVE_PERCENT_LIMIT.into(),
        )?;
        Ok(self.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u128) -> DeviceId {
        DeviceId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn message(number: u128) -> MessageId {
        MessageId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn draw(policy: &PacingPolicy, number: u128) -> Duration {
        policy
            .draw_delay(DelayRange::default(), &Seed::from_number(1), device(1), message(number))
            .as_duration()
    }

    #[test]
    fn a_message_draws_the_same_delay_again_and_its_own_on_another_device() {
        let policy = PacingPolicy::human();
        let range = DelayRange::default();
        let draw = |seed, device, message| policy.draw_delay(range, &Seed::from_number(seed), device, message);
        let first = draw(1, device(1), message(1));
        assert_eq!(draw(1, device(1), message(1)), first);
        assert_ne!(draw(1, device(2), message(1)), first);
        assert_ne!(draw(1, device(1), message(2)), first);
        assert_ne!(draw(2, device(1), message(1)), first);
    }

    #[test]
    fn delays_fill_the_range_from_end_to_end() {
        let policy = PacingPolicy::human();
        let drawn: Vec<_> = (0..2_000).map(|number| draw(&policy, number)).collect();
        let (low, high) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        assert!((5_000..5_100).contains(&low.as_millis()), "{low:?}");
        assert!((14_900..=15_000).contains(&high.as_millis()), "{high:?}");
        let mean = drawn.iter().sum::<Duration>() / 2_000;
        assert!((9_700..10_300).contains(&mean.as_millis()), "{mean:?}");
    }

    #[test]
    fn a_raised_floor_holds_below_every_range() {
        let floor = Duration::from_secs(30);
        let policy = PacingPolicy::builder().floor(floor).build().unwrap();
        assert_eq!(draw(&policy, 1), floor);
    }

    #[test]
    fn settings_outside_their_limits_are_refused_by_field() {
        let build = |floor, percent| {
            PacingPolicy::builder()
                .floor(Duration::from_millis(floor))
                .interactive_percent(percent)
                .build()
                .unwrap_err()
                .to_string()
        };
        assert_eq!(build(999, 120), "floor_ms must be at least 1000");
        assert_eq!(build(60_001, 120), "floor_ms must be at most 60000");
        assert_eq!(build(1_000, 99), "interactive_percent must be at least 100");
        assert_eq!(build(1_000, 201), "interactive_percent must be at most 200");
    }

    #[test]
    fn interactive_messages_have_a_hard_cap_of_120_percent_rounded_down() {
        let policy = PacingPolicy::human();
        let caps = |priority, hour_max| {
            policy
                .caps(priority, Caps::default().with_hour_max(hour_max).ok())
                .unwrap()
        };
        assert_eq!(caps(Priority::Interactive, 80).hour_max(), 96);
        assert_eq!(caps(Priority::Interactive, 80).day_max(), 960);
        assert_eq!(caps(Priority::Interactive, 1).hour_max(), 1);
        assert_eq!(caps(Priority::Sequence, 80).hour_max(), 80);
    }

    #[test]
    fn strangers_have_a_cap_a_ramp_and_a_jitter_of_their_own() {
        let policy = PacingPolicy::builder().cold_day_cap(15).build().unwrap();
        assert_eq!(policy.cold_day_cap(Priority::Campaign), Some(15));
        assert_eq!(policy.cold_day_cap(Priority::Interactive), None);
        assert_eq!(PacingPolicy::human().cold_day_cap(Priority::Campaign), None);
        assert_eq!(PacingPolicy::demo().cold_ramp(Priority::Campaign), None);
        let jitter = |policy: &PacingPolicy, number| {
            policy.cold_jitter(&Seed::from_number(1), device(number), Timestamp::from_millis(5))
        };
        assert_eq!(jitter(&policy, 1), jitter(&policy, 1));
        assert_ne!(jitter(&policy, 1), jitter(&policy, 2));
        assert_eq!(jitter(&PacingPolicy::unpaced(), 1), Duration::ZERO);
        let refused = PacingPolicy::builder().cold_day_cap(0).build().unwrap_err();
        assert_eq!(refused.to_string(), "cold_day_cap must be at least 1");
    }

    #[test]
    fn only_the_human_profile_has_caps_and_warm_up() {
        for profile in [PacingProfile::Demo, PacingProfile::Unpaced] {
            let builder = PacingPolicy::builder().profile(profile).warm_up(WarmUp::cautious());
            let policy = builder.build().unwrap();
            assert_eq!(policy.caps(Priority::Campaign, None), None);
            assert_eq!(policy.warm_up(Priority::Campaign), None);
        }
        assert_eq!(draw(&PacingPolicy::unpaced(), 1), Duration::ZERO);
        assert!((500..=1_500).contains(&draw(&PacingPolicy::demo(), 1).as_millis()));
    }
}
