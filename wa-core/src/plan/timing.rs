//! When the steps of a sequence are due.

use std::time::Duration;

use crate::domain::schedule::{LocalTime, TimeZone};
use crate::time::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The local time at which a step is sent, with the zone that it is read in; `None` for at once.
pub type SendAt = Option<(LocalTime, TimeZone)>;

/// When the first step of one who enrols at `now` is due: at once, or the next time that clocks show its send time.
#[must_use]
pub fn first_due(now: Timestamp, send_at: SendAt) -> Timestamp {
    match send_at {
        None => now,
        Some((time, zone)) => next_time(
            zone.instant(zone.local_date(now), time),
            now,
            (time, zone),
            Reaching::OrAt,
        ),
    }
}

/// When a step is due that follows one planned for `planned_due_at` and sent at `sent_at`.
///
/// Without a send time: `wait` after it was sent. With one: on the local date of the planned due time plus the whole days of
/// `wait`, at that time; when the step before was only sent after that, the first such time afterwards. So steps that pacing
/// makes late do not creep, and no step comes before the one before it.
#[must_use]
pub fn next_due(planned_due_at: Timestamp, sent_at: Timestamp, wait: Duration, send_at: SendAt) -> Timestamp {
    let Some((time, zone)) = send_at else {
        return sent_at + wait;
    };
    let days = u32::try_from(wait.as_secs() / DAY.as_secs()).unwrap_or(u32::MAX);
    let date = zone.local_date(planned_due_at).plus_days(days);
    next_time(zone.instant(date, time), sent_at, (time, zone), Reaching::After)
}

/// Whether an instant may be the bound itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reaching {
    OrAt,
    After,
}

/// The first instant from `candidate` on, at that time of day, that reaches `bound`.
fn next_time(
    candidate: Timestamp,
    bound: Timestamp,
    (time, zone): (LocalTime, TimeZone),
    reaching: Reaching,
) -> Timestamp {
    let reaches = |at: Timestamp| at > bound || (reaching == Reaching::OrAt && at == bound);
    if reaches(candidate) {
        return candidate;
    }
    let today = zone.local_date(bound);
    // Two days on is after the bound in every zone, whatever its clocks do.
    (0..=2)
        .map(|days| zone.instant(today.plus_days(days), time))
        .find(|at| reaches(*at))
        .unwrap_or(bound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const ZONE: TimeZone = TimeZone::KUALA_LUMPUR;

    fn at(date: &str, time: &str) -> Timestamp {
        ZONE.instant(date.parse().unwrap(), time.parse().unwrap())
    }

    fn nine() -> SendAt {
        Some(("09:00".parse().unwrap(), ZONE))
    }

    #[test]
    fn the_first_step_goes_at_once_or_at_the_next_send_time() {
        let now = at("2026-11-21", "10:30");
        assert_eq!(first_due(now, None), now);
        assert_eq!(first_due(now, nine()), at("2026-11-22", "09:00"));
        assert_eq!(first_due(at("2026-11-21", "08:59"), nine()), at("2026-11-21", "09:00"));
        assert_eq!(first_due(at("2026-11-21", "09:00"), nine()), at("2026-11-21", "09:00"));
    }

    #[test]
    fn without_a_send_time_the_wait_counts_from_the_send() {
        let sent = at("2026-11-21", "10:30");
        assert_eq!(
            next_due(at("2026-11-21", "09:00"), sent, 3 * HOUR, None),
            at("2026-11-21", "13:30")
        );
    }

    #[test]
    fn sends_that_pacing_makes_late_do_not_creep() {
        let mut planned = at("2026-11-21", "09:00");
        for day in ["2026-11-22", "2026-11-23", "2026-11-24"] {
            let sent = planned + 5 * HOUR;
            planned = next_due(planned, sent, 24 * HOUR, nine());
            assert_eq!(planned, at(day, "09:00"));
        }
    }

    #[test]
    fn a_step_sent_days_late_is_followed_at_the_first_send_time_after_it() {
        let planned = at("2026-11-21", "09:00");
        let sent = at("2026-11-24", "09:00");
        assert_eq!(next_due(planned, sent, 24 * HOUR, nine()), at("2026-11-25", "09:00"));
        assert_eq!(
            next_due(planned, at("2026-11-24", "08:00"), 24 * HOUR, nine()),
            at("2026-11-24", "09:00")
        );
    }

    #[test]
    fn a_wait_of_hours_with_a_send_time_means_the_next_such_time() {
        let planned = at("2026-11-21", "09:00");
        assert_eq!(
            next_due(planned, planned + HOUR, HOUR, nine()),
            at("2026-11-22", "09:00")
        );
    }

    proptest! {
        #[test]
        fn no_step_is_due_before_the_one_before_it_was_sent(
            planned in 0i64..4_000_000_000_000, late in 0u64..2_000_000, wait in 0u64..60_000_000, timed: bool,
            hour in 0u16..24, zone in prop::sample::select(vec!["Asia/Kuala_Lumpur", "America/New_York", "Pacific/Apia"]),
        ) {
            let planned = Timestamp::from_millis(planned);
            let sent = planned + Duration::from_secs(late);
            let send_at = timed.then(|| (LocalTime::from_hm(hour, 0).unwrap(), zone.parse().unwrap()));
            let due = next_due(planned, sent, Duration::from_secs(wait), send_at);
            prop_assert!(due >= sent);
            if let Some((_, zone)) = send_at {
                prop_assert!(due > sent);
                prop_assert!(due <= sent.max(planned + Duration::from_secs(wait)) + Duration::from_secs(3 * 24 * 3_600), "{zone}");
            }
            prop_assert!(first_due(sent, send_at) >= sent);
        }
    }
}
