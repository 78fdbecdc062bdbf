//! Which message of a lane goes first.

use serde::{Deserialize, Serialize};

/// A number that names no priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{number} is not a priority")]
pub struct UnknownPriorityError {
    /// What was given.
    pub number: u8,
}

/// The order in which a lane takes its messages; the smaller goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Priority {
    /// A chat reply, a direct message or a bot's answer: somebody waits for it.
    Interactive = 0,
    /// A step of a sequence.
    Sequence = 1,
    /// A message of a campaign.
    Campaign = 2,
}

impl Priority {
    /// The number that stores keep and sort by.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether the message is one of many, so that quiet hours, warm-up and the caps for bulk apply to it.
    #[must_use]
    pub const fn is_bulk(self) -> bool {
        !matches!(self, Self::Interactive)
    }
}

impl TryFrom<u8> for Priority {
    type Error = UnknownPriorityError;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        [Self::Interactive, Self::Sequence, Self::Campaign]
            .into_iter()
            .find(|priority| priority.as_u8() == number)
            .ok_or(UnknownPriorityError { number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_sort_alike_as_values_and_as_numbers() {
        assert!(Priority::Interactive < Priority::Sequence && Priority::Sequence < Priority::Campaign);
        for number in 0..=2 {
            assert_eq!(Priority::try_from(number).unwrap().as_u8(), number);
        }
        assert_eq!(Priority::try_from(3).unwrap_err().to_string(), "3 is not a priority");
    }
}
