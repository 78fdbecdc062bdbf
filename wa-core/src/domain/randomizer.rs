//! How strongly the opt-in randomizer changes a text.

use serde::{Deserialize, Serialize};

/// How strongly the randomizer changes a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct RandomizerConfig {
    letters_percent: u8,
    zero_width_count: u8,
}

/// A strength out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be 0 to {most}")]
pub struct RandomizerError {
    /// The field.
    pub field: &'static str,
    /// Its largest value.
    pub most: u8,
}

#[derive(Deserialize)]
#[serde(default)]
struct Unchecked {
    letters_percent: u8,
    zero_width_count: u8,
}

impl Default for Unchecked {
    fn default() -> Self {
        Self {
            letters_percent: 5,
            zero_width_count: 2,
        }
    }
}

impl TryFrom<Unchecked> for RandomizerConfig {
    type Error = RandomizerError;
    fn try_from(given: Unchecked) -> Result<Self, Self::Error> {
        Self::new(given.letters_percent, given.zero_width_count)
    }
}

impl RandomizerConfig {
    /// Largest share of letters replaced, in percent.
    pub const LETTERS_PERCENT_MAX: u8 = 15;
    /// Most zero-width characters inserted.
    pub const ZERO_WIDTH_MAX: u8 = 5;

    /// A share of Latin letters to replace by look-alikes, in percent, and a number of zero-width characters to insert.
    ///
    /// # Errors
    /// Names the value that is out of range.
    pub const fn new(letters_percent: u8, zero_width_count: u8) -> Result<Self, RandomizerError> {
        if letters_percent > Self::LETTERS_PERCENT_MAX {
            return Err(RandomizerError {
                field: "letters_percent",
                most: Self::LETTERS_PERCENT_MAX,
            });
        }
        if zero_width_count > Self::ZERO_WIDTH_MAX {
            return Err(RandomizerError {
                field: "zero_width_count",
                most: Self::ZERO_WIDTH_MAX,
            });
        }
        Ok(Self {
            letters_percent,
            zero_width_count,
        })
    }

    /// The share of Latin letters to replace, in percent.
    #[must_use]
    pub const fn letters_percent(&self) -> u8 {
        self.letters_percent
    }

    /// The number of zero-width characters to insert.
    #[must_use]
    pub const fn zero_width_count(&self) -> u8 {
        self.zero_width_count
    }
}

impl Default for RandomizerConfig {
    fn default() -> Self {
        Self {
            letters_percent: 5,
            zero_width_count: 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_out_of_range_names_its_field() {
        assert_eq!(RandomizerConfig::new(16, 0).unwrap_err().field, "letters_percent");
        assert_eq!(RandomizerConfig::new(15, 6).unwrap_err().field, "zero_width_count");
        assert!(serde_json::from_str::<RandomizerConfig>(r#"{"letters_percent":99}"#).is_err());
        assert_eq!(
            serde_json::from_str::<RandomizerConfig>("{}").unwrap(),
            RandomizerConfig::default()
        );
    }
}
