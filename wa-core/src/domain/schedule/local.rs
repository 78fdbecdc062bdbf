//! A calendar date and a time of day, as a person writes them, without a time zone.

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, Days, NaiveDate, NaiveTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is not a date where one was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a date such as 2026-11-21 in the years 1970 to 9998")]
pub struct ParseLocalDateError {
    /// What was given.
    pub text: String,
}

/// A text that is not a time of day where one was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a time of day such as 09:00 in the hours 00 to 23")]
pub struct ParseLocalTimeError {
    /// What was given.
    pub text: String,
}

/// A calendar date in the years 1970 to 9998, written `2026-11-21`.
///
/// The range keeps every instant that a schedule can name before
/// [`Timestamp::FAR_FUTURE`](crate::time::Timestamp::FAR_FUTURE).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalDate(NaiveDate);

impl LocalDate {
    /// The last date of a schedule.
    pub const LAST: Self = Self(NaiveDate::from_ymd_opt(9998, 12, 31).expect("a date of the calendar"));
    const FIRST: Self = Self(NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date of the calendar"));

    /// The date of a year, a month from 1 and a day from 1; `None` when the calendar has no such date or the year is
    /// not supported.
    #[must_use]
    pub fn from_ymd(year: i32, month: u32, day: u32) -> Option<Self> {
        let date = Self(NaiveDate::from_ymd_opt(year, month, day)?);
        (Self::FIRST..=Self::LAST).contains(&date).then_some(date)
    }

    /// A chrono date, moved into the supported years.
    pub(super) fn from_chrono(date: NaiveDate) -> Self {
        Self(date).clamp(Self::FIRST, Self::LAST)
    }

    /// The date as chrono knows it.
    #[must_use]
    pub const fn to_chrono(self) -> NaiveDate {
        self.0
    }

    /// The date `days` later, at most [`LocalDate::LAST`].
    #[must_use]
    pub fn plus_days(self, days: u32) -> Self {
        self.0
            .checked_add_days(Days::new(u64::from(days)))
            .map_or(Self::LAST, Self::from_chrono)
    }
}

impl fmt::Display for LocalDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), self.0.month(), self.0.day())
    }
}

impl fmt::Debug for LocalDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LocalDate {
    type Err = ParseLocalDateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = match text.as_bytes() {
            [_, _, _, _, b'-', _, _, b'-', _, _] => (digits(text, 0..4), digits(text, 5..7), digits(text, 8..10)),
            _ => (None, None, None),
        };
        match numbers {
            (Some(year), Some(month), Some(day)) => Self::from_ymd(i32::from(year), month.into(), day.into()),
            _ => None,
        }
        .ok_or_else(|| ParseLocalDateError { text: text.to_owned() })
    }
}

/// A time of day with a precision of one minute, written `09:00`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTime {
    minute_of_day: u16,
}

impl LocalTime {
    /// 00:00, the start of the day.
    pub const MIDNIGHT: Self = Self { minute_of_day: 0 };

    /// The time at `hour` (0 to 23) and `minute` (0 to 59); `None` when a clock shows no such time.
    #[must_use]
    pub fn from_hm(hour: u16, minute: u16) -> Option<Self> {
        (hour < 24 && minute < 60).then_some(Self {
            minute_of_day: hour * 60 + minute,
        })
    }

    /// The hour, 0 to 23.
    #[must_use]
    pub const fn hour(self) -> u16 {
        self.minute_of_day / 60
    }

    /// The minute of the hour, 0 to 59.
    #[must_use]
    pub const fn minute(self) -> u16 {
        self.minute_of_day % 60
    }

    /// Milliseconds from the start of the day on a clock that never jumps.
    pub(super) const fn millis_of_day(self) -> i64 {
        self.minute_of_day as i64 * 60_000
    }

    /// The time as chrono knows it.
    pub(super) fn to_chrono(self) -> NaiveTime {
        NaiveTime::from_hms_opt(self.hour().into(), self.minute().into(), 0).expect("a minute of the day is valid")
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour(), self.minute())
    }
}

impl fmt::Debug for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LocalTime {
    type Err = ParseLocalTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = match text.as_bytes() {
            [_, _, b':', _, _] => (digits(text, 0..2), digits(text, 3..5)),
            _ => (None, None),
        };
        match numbers {
            (Some(hour), Some(minute)) => Self::from_hm(hour, minute),
            _ => None,
        }
        .ok_or_else(|| ParseLocalTimeError { text: text.to_owned() })
    }
}

/// The number in `range` of `text`, if there are only ASCII digits.
fn digits(text: &str, range: std::ops::Range<usize>) -> Option<u16> {
    let part = text.get(range)?;
    part.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| part.parse().ok())?
}

macro_rules! serde_as_text {
    ($($name:ident)+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )+};
}
serde_as_text!(LocalDate LocalTime);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_and_a_time_survive_json_as_people_write_them() {
        let date: LocalDate = serde_json::from_str("\"2026-11-21\"").unwrap();
        let time: LocalTime = serde_json::from_str("\"09:05\"").unwrap();
        assert_eq!(Some(date), LocalDate::from_ymd(2026, 11, 21));
        assert_eq!(Some(time), LocalTime::from_hm(9, 5));
        assert_eq!(
            serde_json::to_string(&(date, time)).unwrap(),
            r#"["2026-11-21","09:05"]"#
        );
    }

    #[test]
    fn what_is_no_date_is_refused_by_its_text() {
        for text in [
            "",
            "2026-02-30",
            "1969-12-31",
            "9999-01-01",
            "26-11-21",
            "2026-11-21T",
            "+026-11-21",
            "2026/11/21",
            "2026-1é-2",
        ] {
            let error = text.parse::<LocalDate>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn what_is_no_time_of_day_is_refused_by_its_text() {
        for text in ["", "24:00", "09:60", "9:00", "09:00:00", "+9:00", "0900", "é:00"] {
            let error = text.parse::<LocalTime>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn days_are_added_across_months_and_stop_at_the_last_date() {
        let date = LocalDate::from_ymd(2028, 2, 28).unwrap();
        assert_eq!(Some(date.plus_days(2)), LocalDate::from_ymd(2028, 3, 1));
        assert_eq!(date.plus_days(u32::MAX), LocalDate::LAST);
    }
}
