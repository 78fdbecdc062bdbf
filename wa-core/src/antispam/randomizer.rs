//! The randomizer: look-alike letters and zero-width characters, so that no two texts of a campaign are the same bytes.
//!
//! It is off unless someone turns it on: look-alike letters break search, copying and screen readers, and WhatsApp's terms
//! forbid bulk automation.

use std::fmt::Write;
use std::ops::Range;

use rand::seq::index;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::homoglyph::look_alike;
use super::protect::plain_words;

/// The largest share of letters that may be replaced, in percent.
pub const LETTERS_PERCENT_MAX: u8 = 15;

/// The most zero-width characters of a text.
pub const ZERO_WIDTH_MAX: u8 = 5;

/// The zero-width characters that are put in.
const ZERO_WIDTHS: [char; 4] = ['\u{200B}', '\u{200C}', '\u{200D}', '\u{2060}'];

/// A setting of the randomizer outside its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be 0 to {max}")]
pub struct RandomizerError {
    /// The setting, such as `letters_percent`.
    pub field: &'static str,
    /// Its largest value.
    pub max: u8,
}

/// How much the randomizer changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct RandomizerConfig {
    letters_percent: u8,
    zero_width: u8,
}

#[derive(Deserialize)]
#[serde(default)]
struct Unchecked {
    letters_percent: u8,
    zero_width: u8,
}

impl Default for Unchecked {
    fn default() -> Self {
        let RandomizerConfig {
            letters_percent,
            zero_width,
        } = RandomizerConfig::default();
        Self {
            letters_percent,
            zero_width,
        }
    }
}

impl TryFrom<Unchecked> for RandomizerConfig {
    type Error = RandomizerError;

    fn try_from(config: Unchecked) -> Result<Self, Self::Error> {
        Self::default()
            .with_letters_percent(config.letters_percent)?
            .with_zero_width(config.zero_width)
    }
}

impl Default for RandomizerConfig {
    /// 5 % of the letters and 2 zero-width characters.
    fn default() -> Self {
        Self {
            letters_percent: 5,
            zero_width: 2,
        }
    }
}

impl RandomizerConfig {
    /// The same with another share of letters to replace, 0 to 15 %; above 0 at least one letter is replaced.
    ///
    /// # Errors
    /// [`RandomizerError`] above [`LETTERS_PERCENT_MAX`].
    pub const fn with_letters_percent(self, letters_percent: u8) -> Result<Self, RandomizerError> {
        if letters_percent > LETTERS_PERCENT_MAX {
            return Err(RandomizerError {
                field: "letters_percent",
                max: LETTERS_PERCENT_MAX,
            });
        }
        Ok(Self {
            letters_percent,
            ..self
        })
    }

    /// The same with another number of zero-width characters, 0 to 5.
    ///
    /// # Errors
    /// [`RandomizerError`] above [`ZERO_WIDTH_MAX`].
    pub const fn with_zero_width(self, zero_width: u8) -> Result<Self, RandomizerError> {
        if zero_width > ZERO_WIDTH_MAX {
            return Err(RandomizerError {
                field: "zero_width",
                max: ZERO_WIDTH_MAX,
            });
        }
        Ok(Self { zero_width, ..self })
    }

    /// The share of letters of plain words that is replaced, in percent.
    #[must_use]
    pub const fn letters_percent(self) -> u8 {
        self.letters_percent
    }

    /// The number of zero-width characters put in.
    #[must_use]
    pub const fn zero_width(self) -> u8 {
        self.zero_width
    }
}

/// The text with some letters of its [`plain_words`] replaced by look-alikes, and zero-width characters between two of them.
///
/// Nothing else changes: undoing both gives the text back. Words that touch a `merged` range are left alone.
pub fn randomize<R: Rng + ?Sized>(
    text: &str,
    merged: &[Range<usize>],
    config: RandomizerConfig,
    rng: &mut R,
) -> String {
    let words = plain_words(text, merged);
    let mut edits = replacements(text, &words, config.letters_percent, rng);
    edits.extend(insertions(text, &words, config.zero_width, rng));
    // Before a letter that is replaced goes what is put in front of it.
    edits.sort_unstable_by_key(|edit| (edit.span.start, edit.span.end));
    let mut out = String::with_capacity(text.len() + edits.len() * 3);
    let mut from = 0;
    for Edit { span, to } in edits {
        // Writing to a String cannot fail.
        let _ = write!(out, "{}{to}", &text[from..span.start]);
        from = span.end;
    }
    out.push_str(&text[from..]);
    out
}

struct Edit {
    span: Range<usize>,
    to: char,
}

fn replacements<R: Rng + ?Sized>(text: &str, words: &[Range<usize>], percent: u8, rng: &mut R) -> Vec<Edit> {
    let mut letters = 0;
    let mut candidates = Vec::new();
    for word in words {
        for (at, c) in text[word.clone()].char_indices() {
            letters += usize::from(c.is_alphabetic());
            if let Some(to) = look_alike(c) {
                let at = word.start + at;
                candidates.push((at..at + c.len_utf8(), to));
            }
        }
    }
    let count = match percent {
        0 => 0,
        percent => ((letters * usize::from(percent) + 50) / 100)
            .max(1)
            .min(candidates.len()),
    };
    let chosen = index::sample(rng, candidates.len(), count);
    chosen
        .into_iter()
        .map(|at| Edit {
            span: candidates[at].0.clone(),
            to: candidates[at].1,
        })
        .collect()
}

fn insertions<R: Rng + ?Sized>(text: &str, words: &[Range<usize>], count: u8, rng: &mut R) -> Vec<Edit> {
    // Between two plain words there is one space and nothing else: no markup, emoji, line break or joining script is near.
    let gaps: Vec<Range<usize>> = words
        .windows(2)
        .map(|pair| pair[0].end..pair[1].start)
        .filter(|gap| &text[gap.clone()] == " ")
        .collect();
    let chosen = index::sample(rng, gaps.len(), usize::from(count).min(gaps.len()));
    chosen
        .into_iter()
        .map(|at| {
            let place = if rng.random() { gaps[at].start } else { gaps[at].end };
            Edit {
                span: place..place,
                to: ZERO_WIDTHS[rng.random_range(0..ZERO_WIDTHS.len())],
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
