//! Quiet hours: the part of each local day in which nobody is written to in bulk.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{LocalTime, TimeZone};
use crate::time::Timestamp;

const DAY_MS: i64 = 86_400_000;

/// How far one step of the search looks; no zone changes its clocks twice within it.
const STEP: Duration = Duration::from_secs(3600);

/// How many steps the search takes at most; no quiet hours last four days, whatever the clocks do.
const STEPS_MAX: usize = 4 * 24;

/// Quiet hours that would never begin or never end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must differ from the time at which the quiet hours begin")]
pub struct QuietHoursError {
    /// The field to correct.
    pub field: &'static str,
}

/// The times of day from `from` up to, not including, `until`; they may cross midnight.
///
/// An instant is quiet when a local clock shows such a time at it, so a time that comes twice is quiet twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct QuietHours {
    from: LocalTime,
    until: LocalTime,
}

#[derive(Deserialize)]
struct Unchecked {
    from: LocalTime,
    until: LocalTime,
}

impl TryFrom<Unchecked> for QuietHours {
    type Error = QuietHoursError;

    fn try_from(hours: Unchecked) -> Result<Self, Self::Error> {
        Self::new(hours.from, hours.until)
    }
}

impl QuietHours {
    /// Quiet from `from` up to `until`; the complement of a window from `until` up to `from` in which sending is
    /// allowed.
    ///
    /// # Errors
    /// When both are the same: that could mean always or never.
    pub fn new(from: LocalTime, until: LocalTime) -> Result<Self, QuietHoursError> {
        if from == until {
            return Err(QuietHoursError { field: "until" });
        }
        Ok(Self { from, until })
    }

    /// When the quiet hours begin.
    #[must_use]
    pub const fn from(self) -> LocalTime {
        self.from
    }

    /// When they are over.
    #[must_use]
    pub const fn until(self) -> LocalTime {
        self.until
    }

    /// The earliest instant, `now` or later, that is not quiet in `zone`.
    #[must_use]
    pub fn open_at(self, zone: TimeZone, now: Timestamp) -> Timestamp {
        let mut at = now;
        for _ in 0..STEPS_MAX {
            let Some(left) = self.left(zone, at) else { break };
            let end = at + left.min(STEP);
            // Within one step clocks change at most once, so equal offsets mean that they did not.
            let changed = (zone.offset_seconds(at) != zone.offset_seconds(end)).then(|| change(zone, at, end));
            at = changed.unwrap_or(end);
        }
        at
    }

    /// How long the quiet hours last from `at` on if clocks do not change; `None` when `at` is not quiet.
    fn left(self, zone: TimeZone, at: Timestamp) -> Option<Duration> {
        let since_from = (zone.millis_of_day(at) - self.from.millis_of_day()).rem_euclid(DAY_MS);
        let length = (self.until.millis_of_day() - self.from.millis_of_day()).rem_euclid(DAY_MS);
        u64::try_from(length - since_from)
            .ok()
            .filter(|left| *left > 0)
            .map(Duration::from_millis)
    }
}

/// The first instant after `before` that has the offset of `after`, given that clocks change once in between.
fn change(zone: TimeZone, before: Timestamp, after: Timestamp) -> Timestamp {
    let old = zone.offset_seconds(before);
    let (mut low, mut high) = (before.as_millis(), after.as_millis());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if zone.offset_seconds(Timestamp::from_millis(middle)) == old {
            low = middle;
        } else {
            high = middle;
        }
    }
    Timestamp::from_millis(high)
}

/// Quiet hours together with the zone whose clocks they are read on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Quiet {
    /// The times of day.
    pub hours: QuietHours,
    /// The recipient's or the user's zone.
    pub zone: TimeZone,
}

impl Quiet {
    /// The earliest instant, `now` or later, that is not quiet.
    #[must_use]
    pub fn open_at(self, now: Timestamp) -> Timestamp {
        self.hours.open_at(self.zone, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hours(from: &str, until: &str) -> QuietHours {
        QuietHours::new(from.parse().unwrap(), until.parse().unwrap()).unwrap()
    }

    fn utc(text: &str) -> Timestamp {
        serde_json::from_str(&format!("\"{text}\"")).unwrap()
    }

    fn is_quiet(hours: QuietHours, zone: TimeZone, at: Timestamp) -> bool {
        let shown = zone.millis_of_day(at);
        let (from, until) = (hours.from.millis_of_day(), hours.until.millis_of_day());
        if from < until {
            (from..until).contains(&shown)
        } else {
            shown >= from || shown < until
        }
    }

    #[test]
    fn quiet_hours_across_midnight_end_in_the_morning() {
        let night = hours("21:00", "08:00");
        let zone = TimeZone::KUALA_LUMPUR;
        let morning = utc("2026-11-21T00:00:00Z");
        for quiet in [
            "2026-11-20T13:00:00Z",
            "2026-11-20T18:00:00Z",
            "2026-11-20T23:59:59.999Z",
        ] {
            assert_eq!(night.open_at(zone, utc(quiet)), morning);
        }
        for open in ["2026-11-20T12:59:59.999Z", "2026-11-21T00:00:00Z"] {
            assert_eq!(night.open_at(zone, utc(open)), utc(open));
        }
    }

    #[test]
    fn a_time_that_comes_twice_is_quiet_twice() {
        let berlin = "Europe/Berlin".parse().unwrap();
        let night = hours("22:00", "02:30");
        let first_end = utc("2026-10-25T00:30:00Z");
        assert_eq!(night.open_at(berlin, utc("2026-10-24T23:00:00Z")), first_end);
        let second_pass = utc("2026-10-25T01:10:00Z");
        assert_eq!(night.open_at(berlin, second_pass), utc("2026-10-25T01:30:00Z"));
    }

    #[test]
    fn a_jump_over_the_end_opens_at_the_jump() {
        let berlin = "Europe/Berlin".parse().unwrap();
        let night = hours("22:00", "02:30");
        assert_eq!(
            night.open_at(berlin, utc("2026-03-29T00:00:00Z")),
            utc("2026-03-29T01:00:00Z")
        );
    }

    #[test]
    fn hours_that_begin_and_end_together_are_refused_by_field() {
        let error = serde_json::from_str::<QuietHours>(r#"{"from":"09:00","until":"09:00"}"#).unwrap_err();
        assert!(error.to_string().starts_with("until must differ"), "{error}");
    }

    #[test]
    fn instants_beyond_the_calendar_end_the_search() {
        for millis in [i64::MIN, i64::MAX] {
            let at = Timestamp::from_millis(millis);
            assert!(hours("00:00", "23:59").open_at(TimeZone::UTC, at) >= at);
        }
    }

    /// Changes of clock of every kind: by one hour, half an hour and two hours, forth and back, over a whole day,
    /// around Ramadan, at midnight.
    const CHANGES: [(&str, &str); 10] = [
        ("Asia/Kuala_Lumpur", "1981-12-31T16:00:00Z"),
        ("Europe/Berlin", "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", "2026-10-25T01:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
        ("Antarctica/Troll", "2026-03-29T01:00:00Z"),
        ("Antarctica/Troll", "2026-10-25T01:00:00Z"),
        ("Pacific/Apia", "2011-12-30T10:00:00Z"),
        ("Africa/Casablanca", "2026-02-15T02:00:00Z"),
        ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
    ];

    #[test]
    fn clocks_change_where_the_tests_expect_it() {
        for (zone, change) in CHANGES {
            let (zone, change): (TimeZone, _) = (zone.parse().unwrap(), utc(change));
            let before = zone.offset_seconds(change - Duration::from_millis(1));
            assert_ne!(before, zone.offset_seconds(change), "{zone}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        #[test]
        fn the_open_instant_is_the_first_that_clocks_show_outside_the_quiet_hours(
            (zone, near) in prop::sample::select(CHANGES.to_vec()),
            minutes in prop_oneof![-200_i64..200, -2880_i64..2880],
            until_off in prop_oneof![-150_i64..150, -720_i64..720],
            length in 1_i64..1440,
        ) {
            let zone: TimeZone = zone.parse().unwrap();
            let at = |minute: i64| {
                let minute = u16::try_from(minute.rem_euclid(1440)).unwrap();
                LocalTime::from_hm(minute / 60, minute % 60).unwrap()
            };
            let until = zone.millis_of_day(utc(near)) / 60_000 + until_off;
            let hours = QuietHours::new(at(until - length), at(until)).unwrap();
            let now = Timestamp::from_millis(utc(near).as_millis() + minutes * 60_000 + 1);
            let open = hours.open_at(zone, now);
            prop_assert!(!is_quiet(hours, zone, open));
            let mut quiet = now;
            while quiet < open {
                prop_assert!(is_quiet(hours, zone, quiet), "open at {quiet} already, not only at {open}");
                quiet = quiet + Duration::from_secs(60);
            }
            if now < open {
                prop_assert!(is_quiet(hours, zone, open - Duration::from_millis(1)));
            }
        }
    }
}
