//! Greetings by the local time of day.

mod built_in;
mod detect;
mod name;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use rand::{Rng, RngExt};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::domain::schedule::LocalTime;

pub use name::{NAME_CHARS_MAX, clean_name};

/// The longest greeting in characters, without the name.
pub const GREETING_CHARS_MAX: usize = 100;

/// The most variants of one period of the day.
pub const GREETING_VARIANTS_MAX: usize = 100;

/// Where the name stands in a greeting.
const NAME: &str = "{name}";

/// Why a greeting, or a set of them, cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GreetingError {
    /// Not one line of 1 to [`GREETING_CHARS_MAX`] characters with the name in at most one place.
    #[error("a greeting must be one line of 1 to {GREETING_CHARS_MAX} characters with {{name}} at most once")]
    Form,
    /// A set without periods, or with two that begin at one hour, or at an hour that no clock shows.
    #[error("the periods of a greeting set must begin at different hours from 0 to 23")]
    Periods,
    /// Too few variants to choose another one next time, or too many.
    #[error("each period of a greeting set must have 2 to {GREETING_VARIANTS_MAX} different greetings")]
    Variants,
    /// The word for people without a name is no name itself.
    #[error("the word that stands for a missing name must itself be a name")]
    Nameless,
}

/// One greeting, such as `Selamat pagi {name},`; kept with a lead so that the next one differs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Greeting(String);

impl Greeting {
    /// Reads a greeting; one that does not say where the name goes is followed by the name and a comma.
    ///
    /// # Errors
    /// [`GreetingError::Form`] unless it is one short line with one name.
    pub fn parse(text: &str) -> Result<Self, GreetingError> {
        let text = text.trim();
        let well_formed = !text.is_empty()
            && text.chars().count() <= GREETING_CHARS_MAX
            && !text.chars().any(char::is_control)
            && text.matches(NAME).count() <= 1;
        match (well_formed, text.contains(NAME)) {
            (false, _) => Err(GreetingError::Form),
            (true, true) => Ok(Self(text.to_owned())),
            (true, false) => Ok(Self(format!("{text} {NAME},"))),
        }
    }

    /// The greeting with `{name}` where the name goes, as stores keep it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The greeting of one person, and where the name stands in it.
    pub(super) fn address(&self, name: &str) -> (String, Range<usize>) {
        match self.0.split_once(NAME) {
            Some((before, after)) => (
                format!("{before}{name}{after}"),
                before.len()..before.len() + name.len(),
            ),
            None => (self.0.clone(), 0..0),
        }
    }

    /// What stands before the name.
    fn opening(&self) -> &str {
        self.0
            .split_once(NAME)
            .map_or(self.0.as_str(), |(before, _)| before)
            .trim()
    }
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Greeting {
    type Err = GreetingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Greeting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Greeting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The greetings of a part of the day.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Period {
    from_hour: u16,
    greetings: Vec<Greeting>,
}

/// The greetings of a language, by the hour of the recipient's day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GreetingSet {
    /// Sorted by hour; each lasts until the next begins, the last one until the first.
    periods: Vec<Period>,
    nameless: String,
}

impl GreetingSet {
    /// A set from periods, each the local hour (0 to 23) from which it lasts until the next one, and its greetings.
    ///
    /// `nameless` is the word with which people without a name are addressed.
    ///
    /// # Errors
    /// [`GreetingError`] when a greeting is malformed, hours repeat, or a period has fewer than two greetings: with one,
    /// nobody could be greeted differently the next time.
    pub fn new<'a, P, G>(periods: P, nameless: &str) -> Result<Self, GreetingError>
    where
        P: IntoIterator<Item = (u16, G)>,
        G: IntoIterator<Item = &'a str>,
    {
        let mut set = Self {
            periods: Vec::new(),
            nameless: clean_name(nameless, ""),
        };
        if set.nameless.is_empty() {
            return Err(GreetingError::Nameless);
        }
        for (from_hour, texts) in periods {
            if from_hour > 23 || set.periods.iter().any(|period| period.from_hour == from_hour) {
                return Err(GreetingError::Periods);
            }
            let mut greetings = Vec::new();
            for text in texts {
                let greeting = Greeting::parse(text)?;
                if !greetings.contains(&greeting) {
                    greetings.push(greeting);
                }
            }
            if !(2..=GREETING_VARIANTS_MAX).contains(&greetings.len()) {
                return Err(GreetingError::Variants);
            }
            set.periods.push(Period { from_hour, greetings });
        }
        if set.periods.is_empty() {
            return Err(GreetingError::Periods);
        }
        set.periods.sort_by_key(|period| period.from_hour);
        Ok(set)
    }

    /// The built-in set of a locale: `ms-MY`, `en` or `id`, in either letter case, with or without a region.
    #[must_use]
    pub fn built_in(locale: &str) -> Option<&'static Self> {
        built_in::of(locale)
    }

    /// The greetings of a local time.
    #[must_use]
    pub fn at(&self, time: LocalTime) -> &[Greeting] {
        let period = self.periods.iter().rev().find(|period| period.from_hour <= time.hour());
        period.or(self.periods.last()).map_or(&[], |period| &period.greetings)
    }

    /// One greeting of a local time, all equally likely but `previous`, which is never taken.
    ///
    /// # Panics
    /// Never: each period has at least two greetings.
    pub fn choose<R: Rng + ?Sized>(&self, time: LocalTime, previous: Option<&Greeting>, rng: &mut R) -> &Greeting {
        let others: Vec<&Greeting> = self
            .at(time)
            .iter()
            .filter(|greeting| Some(*greeting) != previous)
            .collect();
        others[rng.random_range(0..others.len())]
    }

    /// The name as a greeting addresses it; see [`clean_name`].
    #[must_use]
    pub fn name_of(&self, name: &str) -> String {
        clean_name(name, &self.nameless)
    }

    /// Whether a text begins with a greeting already, of this set or of a built-in one.
    #[must_use]
    pub fn greets(&self, text: &str) -> bool {
        let own = self
            .periods
            .iter()
            .flat_map(|period| &period.greetings)
            .map(Greeting::opening);
        detect::begins_with_greeting(text, own)
    }

    /// The most characters that a greeting of this set has before the name is put in.
    pub(super) fn longest(&self) -> usize {
        let greetings = self.periods.iter().flat_map(|period| &period.greetings);
        greetings.map(|greeting| greeting.0.chars().count()).max().unwrap_or(0)
    }
}

impl Default for GreetingSet {
    fn default() -> Self {
        built_in::malaysian().clone()
    }
}

#[cfg(test)]
mod tests;
