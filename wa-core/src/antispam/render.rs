//! The pipeline from a template to the text that a lead receives.
//!
//! Values are merged and choices made, then a greeting is put in front, then the randomizer runs, if it is on. Each stage draws
//! from a stream of its own, keyed by the message: the same message gives the same text on every node, retry and replay, and
//! turning one stage off changes nothing in the others.

use std::fmt;
use std::ops::Range;

use super::greeting::{Greeting, GreetingSet, NAME_CHARS_MAX};
use super::randomizer::{RandomizerConfig, randomize};
use crate::domain::content::{Evaluated, MergeValues, Template};
use crate::domain::schedule::LocalTime;
use crate::id::MessageId;
use crate::seed::Seed;

/// The most characters of a rendered text: four times what WhatsApp takes, so that no value makes a text without bound.
pub const RENDERED_CHARS_MAX: usize = 262_144;

/// Why there is nothing to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// No text is left once the values are merged; a greeting alone says nothing.
    #[error("the text is empty")]
    Empty,
    /// The text could be longer than [`RENDERED_CHARS_MAX`].
    #[error("the text may have {chars} characters; at most {RENDERED_CHARS_MAX} are rendered")]
    TooLong {
        /// What [`longest`] says.
        chars: usize,
    },
}

/// What kind of scope a message belongs to, as far as its text is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RenderScope {
    /// A campaign or a sequence: greeting and randomizer apply as they are set.
    Bulk,
    /// A direct message, a chat reply or a bot's answer: it gets neither, whatever is set.
    Interactive,
}

/// How a lead is to be greeted.
#[derive(Debug, Clone, Copy)]
pub struct GreetingChoice<'a> {
    /// The greetings to choose from.
    pub set: &'a GreetingSet,
    /// The time of day in the user's time zone when the message goes out.
    pub time: LocalTime,
    /// The greeting that this lead got last, which is not chosen again.
    pub previous: Option<&'a Greeting>,
}

/// What a text is rendered from. With the same request the text is the same.
#[derive(Debug, Clone, Copy)]
pub struct RenderRequest<'a> {
    /// What the author wrote.
    pub template: &'a Template,
    /// The lead's values.
    pub values: &'a MergeValues,
    /// Whether greeting and randomizer apply at all.
    pub scope: RenderScope,
    /// The greeting, unless it is turned off.
    pub greeting: Option<GreetingChoice<'a>>,
    /// The randomizer, if it is turned on.
    pub randomizer: Option<RandomizerConfig>,
    /// The seed of the database.
    pub seed: &'a Seed,
    /// The message; each has choices of its own.
    pub message: MessageId,
    /// The round of the message: a resend has another one, and other choices.
    pub round: u32,
}

impl<'a> RenderRequest<'a> {
    fn greeting(&self) -> Option<GreetingChoice<'a>> {
        self.greeting.filter(|_| self.scope == RenderScope::Bulk)
    }

    fn randomizer(&self) -> Option<RandomizerConfig> {
        self.randomizer.filter(|_| self.scope == RenderScope::Bulk)
    }

    fn key(&self) -> [u8; 20] {
        let mut key = [0; 20];
        key[..16].copy_from_slice(self.message.as_bytes());
        key[16..].copy_from_slice(&self.round.to_be_bytes());
        key
    }
}

/// The text that a lead receives.
///
/// `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The greeting put in front, to be kept with the lead; `None` when there was none to put.
    pub greeting: Option<Greeting>,
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered")
            .field("chars", &self.text.chars().count())
            .finish_non_exhaustive()
    }
}

/// Renders the text of one message.
///
/// # Errors
/// [`RenderError`] when nothing is left to say, or the text could grow without bound.
pub fn render(request: &RenderRequest<'_>) -> Result<Rendered, RenderError> {
    let chars = longest(request);
    if chars > RENDERED_CHARS_MAX {
        return Err(RenderError::TooLong { chars });
    }
    let key = request.key();
    let Evaluated { mut text, mut merged } = request
        .template
        .evaluate(request.values, &mut request.seed.rng(&key, "spintax"));
    if text.trim().is_empty() {
        return Err(RenderError::Empty);
    }
    let mut greeting = None;
    if let Some(GreetingChoice { set, time, previous }) = request.greeting().filter(|choice| !choice.set.greets(&text))
    {
        let chosen = set.choose(time, previous, &mut request.seed.rng(&key, "greeting"));
        let (head, name) = chosen.address(&set.name_of(&request.values.name));
        let head = format!("{head}\n\n");
        merged = std::iter::once(name)
            .chain(merged.into_iter().map(|span| shifted(span, head.len())))
            .collect();
        text.insert_str(0, &head);
        greeting = Some(chosen.clone());
    }
    if let Some(config) = request.randomizer() {
        text = randomize(&text, &merged, config, &mut request.seed.rng(&key, "randomizer"));
    }
    Ok(Rendered { text, greeting })
}

/// The most characters that [`render`] can give for these values, whatever is drawn; for a warning when a text is saved.
#[must_use]
pub fn longest(request: &RenderRequest<'_>) -> usize {
    let greeting = request
        .greeting()
        .map_or(0, |choice| choice.set.longest() + NAME_CHARS_MAX + 2);
    let zero_width = request
        .randomizer()
        .map_or(0, |config| usize::from(config.zero_width()));
    request
        .template
        .longest(request.values)
        .saturating_add(greeting + zero_width)
}

const fn shifted(span: Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}

#[cfg(test)]
mod tests;
