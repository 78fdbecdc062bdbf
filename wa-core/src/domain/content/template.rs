//! Texts with merge fields and choices, parsed once to a tree and evaluated for each lead.
//!
//! Values go in when the tree is evaluated, and nothing is parsed after that: a lead called `{a|b}` is called `{a|b}`.

mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use rand::{Rng, RngExt};

/// The longest source of a template, in bytes, unless limits say otherwise: what WhatsApp takes as one text.
pub const TEMPLATE_BYTES_MAX: usize = 65_536;

/// The deepest nesting of choices, unless limits say otherwise.
pub const TEMPLATE_DEPTH_MAX: usize = 16;

/// The most options of all choices of a template together, unless limits say otherwise.
pub const TEMPLATE_OPTIONS_MAX: usize = 1_024;

/// The longest key of a custom field, in characters.
pub const CUSTOM_KEY_CHARS_MAX: usize = 64;

/// How large a template may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateLimits {
    /// The longest source in bytes.
    pub source_bytes_max: usize,
    /// The deepest nesting of choices.
    pub depth_max: usize,
    /// The most options of all choices together.
    pub options_max: usize,
}

impl Default for TemplateLimits {
    fn default() -> Self {
        Self {
            source_bytes_max: TEMPLATE_BYTES_MAX,
            depth_max: TEMPLATE_DEPTH_MAX,
            options_max: TEMPLATE_OPTIONS_MAX,
        }
    }
}

/// Why a text cannot be sent as it is written. Lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The source is longer than the limit.
    #[error("the text has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLong {
        /// The length of the source.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Choices stand inside choices more deeply than the limit.
    #[error("line {line}: choices are nested more than {depth_max} deep")]
    TooDeep {
        /// Where the first one too deep begins.
        line: usize,
        /// The limit.
        depth_max: usize,
    },
    /// The choices have more options than the limit.
    #[error("the choices have more than {options_max} options together")]
    TooManyOptions {
        /// The limit.
        options_max: usize,
    },
    /// A merge field that no lead has.
    #[error(
        "line {line}: unknown merge field {{{{{field}}}}}; known are {{{{name}}}}, {{{{phone}}}}, {{{{niche}}}} and {{{{custom.key}}}}"
    )]
    UnknownField {
        /// The field as written, cut to 64 characters.
        field: String,
        /// Where it stands.
        line: usize,
    },
    /// A fallback with a bar: it would be sent as it stands, options and all.
    #[error("line {line}: the fallback of {{{{{field}}}}} holds a bar; a fallback is one text (write \\| for a bar)")]
    FallbackBar {
        /// The field as written.
        field: String,
        /// Where it stands.
        line: usize,
    },
    /// A choice whose first option is the word "name": it would greet people as "name".
    #[error("line {line}: {{name|…}} is a choice of the word \"name\"; write {{{{name|…}}}} for the lead's name")]
    NameAsOption {
        /// Where it stands.
        line: usize,
    },
    /// A brace with a bar after it and no brace that closes it.
    #[error("line {line}: this choice is never closed with }} (write \\{{ for a brace)")]
    UnclosedChoice {
        /// Where the brace stands.
        line: usize,
    },
}

/// What the merge fields of a template stand for, for one lead. A blank value counts as absent.
///
/// `Debug` shows none of the values.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MergeValues {
    /// `{{name}}`.
    pub name: String,
    /// `{{phone}}`.
    pub phone: String,
    /// `{{niche}}`.
    pub niche: String,
    /// `{{custom.key}}`, by key.
    pub custom: BTreeMap<String, String>,
}

impl MergeValues {
    /// The value of a field without blanks around it, if anything is left.
    fn get(&self, field: &Field) -> Option<&str> {
        let value = match field {
            Field::Name => Some(&self.name),
            Field::Phone => Some(&self.phone),
            Field::Niche => Some(&self.niche),
            Field::Custom(key) => self.custom.get(key),
        };
        value.map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for MergeValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeValues").finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Eq)]
enum Field {
    Name,
    Phone,
    Niche,
    Custom(String),
}

#[derive(Clone, PartialEq, Eq)]
enum Node {
    Text(String),
    Field { field: Field, fallback: String },
    Choice(Vec<Vec<Node>>),
}

/// A text parsed to a tree of literal texts, merge fields and choices.
///
/// `Debug` shows nothing of the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Parses a text with the default limits.
    ///
    /// First every form of a line break becomes LF. Then `{{field}}`, `{{field|fallback}}` and `{field}` are merge fields,
    /// `{a|b}` is a choice, and `\{`, `\|` and `\}` stand for the signs themselves. Other braces and bars are literal.
    ///
    /// # Errors
    /// [`TemplateError`] when a limit is passed, a field is unknown, or something would be sent that nobody means.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        Self::parse_within(source, &TemplateLimits::default())
    }

    /// A text in which nothing is parsed; only its line breaks become LF.
    ///
    /// # Errors
    /// [`TemplateError::TooLong`] when it is longer than a source may be by default.
    pub fn literal(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong {
                bytes: text.len(),
                bytes_max: TEMPLATE_BYTES_MAX,
            });
        }
        Ok(Self {
            nodes: vec![Node::Text(super::line_break::normalise(text))],
        })
    }

    /// Parses a text as [`parse`](Self::parse) does, with limits of one's own.
    ///
    /// # Errors
    /// See [`parse`](Self::parse).
    pub fn parse_within(source: &str, limits: &TemplateLimits) -> Result<Self, TemplateError> {
        parse::parse(source, limits).map(|nodes| Self { nodes })
    }

    /// The text for one lead: fields replaced by values, one option of each choice taken, all equally likely.
    pub fn evaluate<R: Rng + ?Sized>(&self, values: &MergeValues, rng: &mut R) -> Evaluated {
        let mut evaluated = Evaluated {
            text: String::new(),
            merged: Vec::new(),
        };
        evaluate(&self.nodes, values, rng, &mut evaluated);
        evaluated
    }

    /// The most characters that [`evaluate`](Self::evaluate) can give for these values.
    #[must_use]
    pub fn longest(&self, values: &MergeValues) -> usize {
        longest(&self.nodes, values)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").finish_non_exhaustive()
    }
}

/// A text with the values merged in.
///
/// `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// The text.
    pub text: String,
    /// Where the merged values stand, as byte ranges of the text in order; fallbacks are the author's and not among them.
    pub merged: Vec<Range<usize>>,
}

impl fmt::Debug for Evaluated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluated")
            .field("bytes", &self.text.len())
            .field("merged", &self.merged)
            .finish()
    }
}

fn evaluate<R: Rng + ?Sized>(nodes: &[Node], values: &MergeValues, rng: &mut R, out: &mut Evaluated) {
    for node in nodes {
        match node {
            Node::Text(text) => out.text.push_str(text),
            Node::Field { field, fallback } => match values.get(field) {
                Some(value) => {
                    let start = out.text.len();
                    out.text.push_str(value);
                    out.merged.push(start..out.text.len());
                }
                None => out.text.push_str(fallback),
            },
            Node::Choice(options) => evaluate(&options[rng.random_range(0..options.len())], values, rng, out),
        }
    }
}

fn longest(nodes: &[Node], values: &MergeValues) -> usize {
    nodes.iter().fold(0, |sum: usize, node| {
        sum.saturating_add(match node {
            Node::Text(text) => text.chars().count(),
            Node::Field { field, fallback } => values.get(field).unwrap_or(fallback).chars().count(),
            Node::Choice(options) => options.iter().map(|option| longest(option, values)).max().unwrap_or(0),
        })
    })
}

#[cfg(test)]
mod tests;
