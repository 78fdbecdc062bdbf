//! The ramp of a device that has only begun to send.

use serde::{Deserialize, Serialize};

use super::{Caps, PacingError, within};

/// Caps of a day that rise with the days since a device first sent; each holds for one day.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<u32>", into = "Vec<u32>")]
pub struct WarmUp {
    day_caps: Vec<u32>,
}

impl WarmUp {
    /// The longest ramp in days.
    pub const DAYS_MAX: usize = 60;

    /// The ramp 20, 50, 120, 300, 600.
    ///
    /// No official numbers exist for linked devices; this one is among those that practitioners publish.
    #[must_use]
    pub fn cautious() -> Self {
        Self {
            day_caps: vec![20, 50, 120, 300, 600],
        }
    }

    /// The ramp 5, 10, 20, 40, 80, for messages to people who do not know a device, from the end of a restriction on.
    ///
    /// No official numbers exist here either; it begins below what practitioners name for a new device.
    #[must_use]
    pub fn after_restriction() -> Self {
        Self {
            day_caps: vec![5, 10, 20, 40, 80],
        }
    }

    /// A ramp with one cap for each day, the first for the day that begins with the first message.
    ///
    /// # Errors
    /// When there is no day or more than [`WarmUp::DAYS_MAX`], or a cap is 0, above [`Caps::DAY_MAX_LIMIT`] or below
    /// that of the day before.
    pub fn new(day_caps: Vec<u32>) -> Result<Self, PacingError> {
        within("warm_up_days", day_caps.len() as u64, 1, Self::DAYS_MAX as u64)?;
        day_caps.iter().try_fold(1, |least, cap| {
            within("warm_up_day_cap", (*cap).into(), least, Caps::DAY_MAX_LIMIT.into())
        })?;
        Ok(Self { day_caps })
    }

    /// The cap on the day that begins `days` days after the first message; `None` once the ramp is over.
    #[must_use]
    pub fn day_cap(&self, days: u64) -> Option<u32> {
        self.day_caps.get(usize::try_from(days).ok()?).copied()
    }
}

impl TryFrom<Vec<u32>> for WarmUp {
    type Error = PacingError;

    fn try_from(day_caps: Vec<u32>) -> Result<Self, Self::Error> {
        Self::new(day_caps)
    }
}

impl From<WarmUp> for Vec<u32> {
    fn from(ramp: WarmUp) -> Self {
        ramp.day_caps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_rises_by_day_and_ends() {
        let ramp = WarmUp::cautious();
        assert_eq!(
            [0, 1, 4, 5, u64::MAX].map(|days| ramp.day_cap(days)),
            [Some(20), Some(50), Some(600), None, None]
        );
        assert_eq!(WarmUp::new(ramp.clone().into()), Ok(ramp));
    }

    #[test]
    fn a_ramp_that_is_empty_falls_or_stands_at_zero_is_refused_by_field() {
        for (day_caps, message) in [
            (vec![], "warm_up_days must be at least 1"),
            (vec![1; 61], "warm_up_days must be at most 60"),
            (vec![0, 5], "warm_up_day_cap must be at least 1"),
            (vec![50, 20], "warm_up_day_cap must be at least 50"),
            (vec![10_001], "warm_up_day_cap must be at most 10000"),
        ] {
            assert_eq!(WarmUp::new(day_caps).unwrap_err().to_string(), message);
        }
    }
}
