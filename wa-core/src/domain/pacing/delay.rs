//! The random pause between two messages of one device.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{PacingError, within};

/// The range from which the pause before a message is drawn, both ends included; 1 s to 24 h, to the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct DelayRange {
    min_ms: u32,
    max_ms: u32,
}

#[derive(Deserialize)]
struct Unchecked {
    min_ms: u64,
    max_ms: u64,
}

impl TryFrom<Unchecked> for DelayRange {
    type Error = PacingError;

    fn try_from(range: Unchecked) -> Result<Self, Self::Error> {
        Self::from_millis(range.min_ms..=range.max_ms)
    }
}

impl DelayRange {
    /// The shortest pause that can be asked for.
    pub const FLOOR: Duration = Duration::from_secs(1);
    /// The longest pause that can be asked for.
    pub const LIMIT: Duration = Duration::from_secs(24 * 3600);

    /// The range from the start of `range` to its end.
    ///
    /// # Errors
    /// When the start is below [`DelayRange::FLOOR`], the end above [`DelayRange::LIMIT`], or the end before the start.
    pub fn new(range: std::ops::RangeInclusive<Duration>) -> Result<Self, PacingError> {
        let millis = |span: &Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(millis(range.start())..=millis(range.end()))
    }

    fn from_millis(range: std::ops::RangeInclusive<u64>) -> Result<Self, PacingError> {
        let (floor, limit) = (Self::FLOOR.as_millis() as u64, Self::LIMIT.as_millis() as u64);
        let min_ms = within("min_ms", *range.start(), floor, limit)?;
        let max_ms = within("max_ms", *range.end(), min_ms, limit)?;
        Ok(Self {
            min_ms: u32::try_from(min_ms).expect("24 h fit into 32 bits"),
            max_ms: u32::try_from(max_ms).expect("24 h fit into 32 bits"),
        })
    }

    /// The shortest pause.
    #[must_use]
    pub const fn min(self) -> Duration {
        Duration::from_millis(self.min_ms as u64)
    }

    /// The longest pause.
    #[must_use]
    pub const fn max(self) -> Duration {
        Duration::from_millis(self.max_ms as u64)
    }

    /// Both ends in milliseconds.
    pub(super) const fn millis(self) -> std::ops::RangeInclusive<u32> {
        self.min_ms..=self.max_ms
    }
}

/// 5 to 15 s.
impl Default for DelayRange {
    fn default() -> Self {
        Self {
            min_ms: 5_000,
            max_ms: 15_000,
        }
    }
}

/// The ranges that were set for one message, from the most specific to the least.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DelaySettings {
    /// Of the step or the campaign.
    pub message: Option<DelayRange>,
    /// Of the sequence.
    pub sequence: Option<DelayRange>,
    /// Of the device.
    pub device: Option<DelayRange>,
}

impl DelaySettings {
    /// The most specific range that was set.
    #[must_use]
    pub fn chosen(self) -> Option<DelayRange> {
        self.message.or(self.sequence).or(self.device)
    }
}

/// The pause before one message, measured from the start of the attempt before it to the start of its own.
///
/// Only a [`PacingPolicy`](super::PacingPolicy) draws one, so none is below the policy's floor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DrawnDelay(Duration);

impl DrawnDelay {
    pub(super) const fn new(span: Duration) -> Self {
        Self(span)
    }

    /// The pause.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(min: u64, max: u64) -> Result<DelayRange, PacingError> {
        DelayRange::new(Duration::from_secs(min)..=Duration::from_secs(max))
    }

    #[test]
    fn a_range_below_the_floor_beyond_a_day_or_backwards_is_refused_by_field() {
        for (range, message) in [
            (secs(0, 10), "min_ms must be at least 1000"),
            (secs(5, 4), "max_ms must be at least 5000"),
            (secs(5, 86_401), "max_ms must be at most 86400000"),
            (secs(u64::MAX, u64::MAX), "min_ms must be at most 86400000"),
        ] {
            assert_eq!(range.unwrap_err().to_string(), message);
        }
        assert!(secs(1, 86_400).is_ok());
        assert!(serde_json::from_str::<DelayRange>(r#"{"min_ms":0,"max_ms":0}"#).is_err());
    }

    #[test]
    fn the_most_specific_setting_wins() {
        let [message, sequence, device] = [1, 2, 3].map(|seconds| secs(seconds, seconds).ok());
        let all = DelaySettings {
            message,
            sequence,
            device,
        };
        assert_eq!(all.chosen(), message);
        assert_eq!(DelaySettings { message: None, ..all }.chosen(), sequence);
        let only_device = DelaySettings {
            device,
            ..DelaySettings::default()
        };
        assert_eq!(only_device.chosen(), device);
        assert_eq!(DelaySettings::default().chosen(), None);
    }
}
