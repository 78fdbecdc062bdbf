//! How many messages a device may send within an hour and within a day.

use serde::{Deserialize, Serialize};

use super::{PacingError, within};

/// Rolling caps of one device; 80 within an hour and 800 within a day unless set otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Caps {
    hour_max: u32,
    day_max: u32,
}

#[derive(Deserialize)]
struct Unchecked {
    hour_max: u32,
    day_max: u32,
}

impl TryFrom<Unchecked> for Caps {
    type Error = PacingError;

    fn try_from(caps: Unchecked) -> Result<Self, Self::Error> {
        Self::default().with_hour_max(caps.hour_max)?.with_day_max(caps.day_max)
    }
}

impl Caps {
    /// The largest cap of an hour that can be set; it bounds what a lane keeps in memory.
    pub const HOUR_MAX_LIMIT: u32 = 1_000;
    /// The largest cap of a day that can be set.
    pub const DAY_MAX_LIMIT: u32 = 10_000;

    /// These caps with another one for the hour.
    ///
    /// # Errors
    /// When it is 0 (pause the device instead) or above [`Caps::HOUR_MAX_LIMIT`].
    pub fn with_hour_max(self, hour_max: u32) -> Result<Self, PacingError> {
        within("hour_max", hour_max.into(), 1, Self::HOUR_MAX_LIMIT.into())?;
        Ok(Self { hour_max, ..self })
    }

    /// These caps with another one for the day.
    ///
    /// # Errors
    /// When it is 0 (pause the device instead) or above [`Caps::DAY_MAX_LIMIT`].
    pub fn with_day_max(self, day_max: u32) -> Result<Self, PacingError> {
        within("day_max", day_max.into(), 1, Self::DAY_MAX_LIMIT.into())?;
        Ok(Self { day_max, ..self })
    }

    /// Messages within an hour.
    #[must_use]
    pub const fn hour_max(self) -> u32 {
        self.hour_max
    }

    /// Messages within a day.
    #[must_use]
    pub const fn day_max(self) -> u32 {
        self.day_max
    }

    /// These caps times `percent` / 100, rounded down.
    pub(super) const fn scaled(self, percent: u32) -> Self {
        Self {
            hour_max: self.hour_max * percent / 100,
            day_max: self.day_max * percent / 100,
        }
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            hour_max: 80,
            day_max: 800,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_outside_their_limits_are_refused_by_field() {
        let caps = Caps::default();
        for (result, message) in [
            (caps.with_hour_max(0), "hour_max must be at least 1"),
            (caps.with_hour_max(1_001), "hour_max must be at most 1000"),
            (caps.with_day_max(0), "day_max must be at least 1"),
            (caps.with_day_max(10_001), "day_max must be at most 10000"),
        ] {
            assert_eq!(result.unwrap_err().to_string(), message);
        }
        assert!(serde_json::from_str::<Caps>(r#"{"hour_max":0,"day_max":5}"#).is_err());
    }
}
