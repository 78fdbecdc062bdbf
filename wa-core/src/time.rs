//! Instants and clocks. Time is a parameter everywhere: only a [`Clock`] reads it.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant in UTC with a precision of one millisecond.
///
/// Written as RFC 3339 (`2026-11-21T08:00:00.000Z`) in JSON, as milliseconds since 1970 in stores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    /// Later than every instant that a schedule can name.
    pub const FAR_FUTURE: Self = Self(253_402_300_799_000);

    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The instant as chrono knows it.
    #[must_use]
    pub fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Cuts a chrono instant to milliseconds.
    #[must_use]
    pub fn from_chrono(at: DateTime<Utc>) -> Self {
        Self(at.timestamp_millis())
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This instant minus `span`, not before the start of representable time.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis_of(span)))
    }
}

fn millis_of(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis_of(span)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        self.minus(span)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_chrono().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        DateTime::parse_from_rfc3339(&text)
            .map(|at| Self::from_chrono(at.with_timezone(&Utc)))
            .map_err(|_| de::Error::custom("expected an RFC 3339 instant such as 2026-11-21T08:00:00Z"))
    }
}

/// An instant of a monotonic clock: time since an arbitrary start of this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// From the time since the clock's start.
    #[must_use]
    pub const fn from_start(span: Duration) -> Self {
        Self(span)
    }

    /// The time since the clock's start.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// Gives the time to the engine; the only thing in it that may sleep.
///
/// To ensure correctness:
/// - `monotonic` never goes back and advances at the rate of true time;
/// - `wall` may jump, in both directions;
/// - `sleep_until` returns no earlier than the instant asked for on the monotonic clock, and at once if that has passed.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock, for schedules, quiet hours and what is stored.
    fn wall(&self) -> Timestamp;
    /// The monotonic clock, for lanes, leases and time-outs.
    fn monotonic(&self) -> Monotonic;
    /// Waits until the monotonic clock shows `until`. Dropping the future ends the wait.
    async fn sleep_until(&self, until: Monotonic);
}

/// The machine's clock, sleeping on tokio's timer.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: std::time::Instant,
}

#[cfg(feature = "tokio")]
impl SystemClock {
    /// A clock whose monotonic side starts now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the ambient clock")]
    pub fn new() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }
}

#[cfg(feature = "tokio")]
impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "tokio")]
#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the ambient clock")]
    fn wall(&self) -> Timestamp {
        Timestamp::from_chrono(Utc::now())
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }

    async fn sleep_until(&self, until: Monotonic) {
        tokio::time::sleep_until((self.start + until.0).into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_survives_json_with_its_milliseconds() {
        let at = Timestamp::from_millis(1_795_000_000_123);
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), at);
    }

    #[test]
    fn the_time_since_a_later_instant_is_zero() {
        let at = Timestamp::from_millis(5);
        assert_eq!(at.since(at + Duration::from_secs(1)), Duration::ZERO);
    }
}
