//! What happens to a start that the system was not there for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How late a scheduled start may be and still count as on time, unless the engine is configured otherwise.
pub const LATE_GRACE: Duration = Duration::from_secs(10 * 60);

/// What to do with a start that is later than the grace allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatePolicy {
    /// Start all the same.
    Run,
    /// Give this start up.
    Skip,
    /// Leave it scheduled and let a person decide.
    #[default]
    Ask,
}

/// What a schedule says at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartDecision {
    /// The instant has not come; look again then.
    NotYet(Timestamp),
    /// Start now.
    Start,
    /// Too late: give it up.
    Skip,
    /// Too late: a person decides.
    Ask,
}

/// Decides what a start planned for `scheduled_at` does at `now`: never early, and `policy` rules once it is more than
/// `grace` late.
#[must_use]
pub fn lateness(scheduled_at: Timestamp, now: Timestamp, policy: LatePolicy, grace: Duration) -> StartDecision {
    if now < scheduled_at {
        return StartDecision::NotYet(scheduled_at);
    }
    if now.since(scheduled_at) <= grace {
        return StartDecision::Start;
    }
    match policy {
        LatePolicy::Run => StartDecision::Start,
        LatePolicy::Skip => StartDecision::Skip,
        LatePolicy::Ask => StartDecision::Ask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANNED: Timestamp = Timestamp::from_millis(1_795_000_000_000);

    #[test]
    fn a_start_is_never_early() {
        for policy in [LatePolicy::Run, LatePolicy::Skip, LatePolicy::Ask] {
            let just_before = PLANNED - Duration::from_millis(1);
            assert_eq!(
                lateness(PLANNED, just_before, policy, LATE_GRACE),
                StartDecision::NotYet(PLANNED)
            );
            assert_eq!(lateness(PLANNED, PLANNED, policy, LATE_GRACE), StartDecision::Start);
        }
    }

    #[test]
    fn the_late_policy_rules_only_after_the_grace() {
        let last = PLANNED + LATE_GRACE;
        let late = last + Duration::from_millis(1);
        for (policy, decision) in [
            (LatePolicy::Run, StartDecision::Start),
            (LatePolicy::Skip, StartDecision::Skip),
            (LatePolicy::Ask, StartDecision::Ask),
        ] {
            assert_eq!(lateness(PLANNED, last, policy, LATE_GRACE), StartDecision::Start);
            assert_eq!(lateness(PLANNED, late, policy, LATE_GRACE), decision);
        }
    }

    #[test]
    fn without_a_setting_a_person_is_asked() {
        assert_eq!(LatePolicy::default(), LatePolicy::Ask);
    }
}
