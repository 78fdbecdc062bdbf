//! Time zones by their IANA names.

use std::fmt;
use std::str::FromStr;

use chrono::{LocalResult, NaiveDateTime, Offset, TimeZone as _, Timelike, Utc};
use chrono_tz::{GapInfo, Tz};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{LocalDate, LocalTime};
use crate::time::Timestamp;

/// A text that is not the name of a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not an IANA time zone such as Asia/Kuala_Lumpur")]
pub struct ParseTimeZoneError {
    /// What was given.
    pub name: String,
}

/// A time zone with all its changes of clock, written by its IANA name; Asia/Kuala_Lumpur by default.
///
/// The rules are those of the IANA database that chrono-tz carries; it knows changes of clock up to the year 2100.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeZone(Tz);

impl TimeZone {
    /// Malaysian time, the default.
    pub const KUALA_LUMPUR: Self = Self(Tz::Asia__Kuala_Lumpur);
    /// Universal time.
    pub const UTC: Self = Self(Tz::UTC);

    /// The IANA name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The instant at which clocks of this zone first show `date` and `time`.
    ///
    /// A time that a jump of the clocks skips becomes the first instant after the jump; of a time that comes twice, the
    /// earlier one counts.
    #[must_use]
    pub fn instant(self, date: LocalDate, time: LocalTime) -> Timestamp {
        let local = date.to_chrono().and_time(time.to_chrono());
        let at = match self.0.from_local_datetime(&local) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => at,
            LocalResult::None => GapInfo::new(&local, &self.0)
                .and_then(|gap| gap.end)
                .expect("a gap of local time lies between two offsets, so it ends"),
        };
        Timestamp::from_chrono(at.with_timezone(&Utc))
    }

    /// The hour that clocks of this zone show at `at`, 0 to 23.
    #[must_use]
    pub fn local_hour(self, at: Timestamp) -> u32 {
        self.local(at).hour()
    }

    /// The time of day that clocks of this zone show at `at`, cut to the minute.
    ///
    /// # Panics
    /// Never: a clock shows a time of day.
    #[must_use]
    pub fn local_time(self, at: Timestamp) -> LocalTime {
        let local = self.local(at);
        let part = |number: u32| u16::try_from(number).expect("hours and minutes are below 60");
        LocalTime::from_hm(part(local.hour()), part(local.minute())).expect("a clock shows a time of day")
    }

    /// The date that calendars of this zone show at `at`.
    #[must_use]
    pub fn local_date(self, at: Timestamp) -> LocalDate {
        LocalDate::from_chrono(self.local(at).date())
    }

    /// Milliseconds since midnight that clocks of this zone show at `at`.
    pub(super) fn millis_of_day(self, at: Timestamp) -> i64 {
        let local = self.local(at);
        i64::from(local.num_seconds_from_midnight()) * 1000 + i64::from(local.nanosecond() / 1_000_000)
    }

    /// Seconds that clocks of this zone are ahead of UTC at `at`.
    pub(super) fn offset_seconds(self, at: Timestamp) -> i32 {
        let utc = representable(at).to_chrono().naive_utc();
        self.0.offset_from_utc_datetime(&utc).fix().local_minus_utc()
    }

    fn local(self, at: Timestamp) -> NaiveDateTime {
        representable(at).to_chrono().with_timezone(&self.0).naive_local()
    }
}

/// Keeps an instant far enough from the ends of chrono's calendar that an offset can be added to it.
fn representable(at: Timestamp) -> Timestamp {
    at.clamp(
        Timestamp::from_millis(-Timestamp::FAR_FUTURE.as_millis()),
        Timestamp::FAR_FUTURE,
    )
}

impl Default for TimeZone {
    fn default() -> Self {
        Self::KUALA_LUMPUR
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TimeZone {
    type Err = ParseTimeZoneError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        name.parse()
            .map(Self)
            .map_err(|_| ParseTimeZoneError { name: name.to_owned() })
    }
}

impl Serialize for TimeZone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for TimeZone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn utc(text: &str) -> Timestamp {
        serde_json::from_str(&format!("\"{text}\"")).unwrap()
    }

    fn instant(zone: &str, date: &str, time: &str) -> Timestamp {
        let zone: TimeZone = zone.parse().unwrap();
        zone.instant(date.parse().unwrap(), time.parse().unwrap())
    }

    #[test]
    fn nine_in_kuala_lumpur_is_one_in_utc_shifted_once() {
        assert_eq!(
            instant("Asia/Kuala_Lumpur", "2026-11-21", "09:00"),
            utc("2026-11-21T01:00:00Z")
        );
        assert_eq!(TimeZone::default().local_hour(utc("2026-11-21T01:59:59.999Z")), 9);
        let time = TimeZone::default().local_time(utc("2026-11-21T01:59:59.999Z"));
        assert_eq!(time.to_string(), "09:59");
    }

    #[test]
    fn the_local_date_is_that_of_the_zone() {
        let at = utc("2026-11-20T16:00:00Z");
        assert_eq!(TimeZone::KUALA_LUMPUR.local_date(at).to_string(), "2026-11-21");
        assert_eq!(
            TimeZone::KUALA_LUMPUR
                .local_date(at - Duration::from_millis(1))
                .to_string(),
            "2026-11-20"
        );
    }

    #[test]
    fn a_skipped_time_becomes_the_first_instant_after_the_jump() {
        for time in ["02:00", "02:30", "02:59", "03:00"] {
            assert_eq!(
                instant("Europe/Berlin", "2026-03-29", time),
                utc("2026-03-29T01:00:00Z"),
                "{time}"
            );
        }
        assert_eq!(
            instant("Australia/Lord_Howe", "2026-10-04", "02:15"),
            utc("2026-10-03T15:30:00Z")
        );
    }

    #[test]
    fn a_skipped_day_becomes_the_start_of_the_next() {
        assert_eq!(
            instant("Pacific/Apia", "2011-12-30", "09:00"),
            utc("2011-12-30T10:00:00Z")
        );
    }

    #[test]
    fn a_time_that_comes_twice_means_the_earlier() {
        assert_eq!(
            instant("Europe/Berlin", "2026-10-25", "02:30"),
            utc("2026-10-25T00:30:00Z")
        );
        assert_eq!(
            instant("Europe/Berlin", "2026-10-25", "03:00"),
            utc("2026-10-25T02:00:00Z")
        );
    }

    #[test]
    fn in_every_zone_an_instant_is_the_first_at_which_clocks_show_the_time_or_a_later_one() {
        let first = LocalDate::from_ymd(2008, 1, 1).unwrap();
        let day = Duration::from_secs(86_400);
        let mut gaps = 0;
        for zone in chrono_tz::TZ_VARIANTS.map(TimeZone) {
            let mut at = zone.instant(first, LocalTime::MIDNIGHT);
            let end = at + day * 365 * 5;
            while at < end {
                let before = zone.offset_seconds(at);
                if before < zone.offset_seconds(at + day) {
                    gaps += 1;
                    for hour in 0..48 {
                        let date = zone.local_date(at).plus_days(hour / 24);
                        let time = LocalTime::from_hm(u16::try_from(hour % 24).unwrap(), 20).unwrap();
                        let wanted = date.to_chrono().and_time(time.to_chrono());
                        let found = zone.instant(date, time);
                        assert!(zone.local(found) >= wanted, "{zone} {wanted}");
                        assert!(zone.local(found - Duration::from_millis(1)) < wanted, "{zone} {wanted}");
                    }
                }
                at = at + day;
            }
        }
        assert!(gaps > 1000, "{gaps}");
    }

    #[test]
    fn an_unknown_zone_is_refused_by_its_name() {
        let error = serde_json::from_str::<TimeZone>("\"Asia/Atlantis\"").unwrap_err();
        assert!(error.to_string().contains("`Asia/Atlantis`"), "{error}");
        assert_eq!(
            serde_json::to_string(&TimeZone::default()).unwrap(),
            "\"Asia/Kuala_Lumpur\""
        );
    }

    #[test]
    fn instants_beyond_the_calendar_do_not_panic() {
        for millis in [i64::MIN, i64::MAX] {
            let at = Timestamp::from_millis(millis);
            let zone = TimeZone::KUALA_LUMPUR;
            assert!(zone.local_hour(at) < 24);
            assert!(zone.local_date(at) <= LocalDate::LAST);
        }
    }
}
