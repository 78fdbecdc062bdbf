//! A person who must not be written to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::phone::{PersonKey, Phone};
use crate::id::UserId;
use crate::time::Timestamp;

/// Why a person must not be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum SuppressionReason {
    /// The person wrote an opt-out word.
    OptOutWord = 1,
    /// A person of the user put them on the list.
    ByPerson = 2,
    /// An import put them on the list.
    Imported = 3,
    /// Their data was erased on request.
    Erased = 4,
}

impl SuppressionReason {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::OptOutWord),
            2 => Some(Self::ByPerson),
            3 => Some(Self::Imported),
            4 => Some(Self::Erased),
            _ => None,
        }
    }
}

/// A person who must not be written to by a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// The user.
    pub user_id: UserId,
    /// The person, by keyed hash.
    pub person: PersonKey,
    /// The number; gone once the person's data was erased.
    pub phone: Option<Phone>,
    /// Why.
    pub reason: SuppressionReason,
    /// Where it came from, for people: the word, a note; at most 200 characters.
    pub note: String,
    /// Since when.
    pub since_at: Timestamp,
}

/// The words that opt a person out: the whole trimmed message must be one, case-folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OptOutWords(BTreeSet<String>);

impl OptOutWords {
    /// Most words.
    pub const COUNT_MAX: usize = 50;
    /// Longest word, in characters.
    pub const LEN_MAX: usize = 40;

    /// Takes words, trimmed and case-folded; empty, overlong and surplus ones are left out.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self(
            words
                .into_iter()
                .map(|word| word.trim().to_lowercase())
                .filter(|word| !word.is_empty() && word.chars().count() <= Self::LEN_MAX)
                .take(Self::COUNT_MAX)
                .collect(),
        )
    }

    /// Whether a message is an opt-out.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text = text.trim();
        text.len() <= Self::LEN_MAX * 4 && self.0.contains(&text.to_lowercase())
    }

    /// The words, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Default for OptOutWords {
    fn default() -> Self {
        Self::new([
            "stop",
            "berhenti",
            "unsubscribe",
            "unsub",
            "henti",
            "batal langganan",
            "opt out",
            "optout",
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_message_is_an_opt_out() {
        let words = OptOutWords::default();
        for yes in ["STOP", " stop\n", "Berhenti"] {
            assert!(words.matches(yes), "{yes:?}");
        }
        for no in ["stop it", "don't stop", "", "nonstop"] {
            assert!(!words.matches(no), "{no:?}");
        }
    }
}
