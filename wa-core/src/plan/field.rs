//! What is wrong with a field that a person gave, and the collector of it.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// What kind of wrong it is; stable, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FieldCode {
    /// It is missing.
    Required,
    /// It cannot be read as what it should be.
    Invalid,
    /// It is longer or larger than allowed.
    TooLong,
    /// There are more of it than allowed.
    TooMany,
    /// The number is outside its range.
    OutOfRange,
    /// It is none of the words that are known.
    Unknown,
    /// It lies in the past.
    Past,
    /// The user has no such thing.
    NotFound,
    /// It cannot go with what else is asked, or with the state things are in.
    NotAllowed,
    /// The transport of a device that would send it does not carry it.
    Unsupported,
}

/// One field that cannot be taken as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field, as the API names it.
    pub field: Cow<'static, str>,
    /// What kind of wrong it is.
    pub code: FieldCode,
    /// What was expected; completes a sentence that begins with the field's name.
    pub expected: String,
}

impl FieldError {
    /// A field that cannot be taken.
    pub fn new(field: impl Into<Cow<'static, str>>, code: FieldCode, expected: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            code,
            expected: expected.into(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.expected)
    }
}

/// A thing to know about what was saved, that does not keep it from being saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The field that it concerns, as the API names it.
    pub field: Cow<'static, str>,
    /// What kind of warning it is.
    pub code: WarningCode,
    /// What it is, for people.
    pub message: String,
}

impl Warning {
    /// A warning about a field.
    pub fn new(field: impl Into<Cow<'static, str>>, code: WarningCode, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            code,
            message: message.into(),
        }
    }
}

/// What kind of warning it is; stable, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WarningCode {
    /// The text is longer than a transport takes: its recipients will be skipped.
    TooLong,
    /// Nothing is left of the text once it is filled in.
    Empty,
    /// Nobody belongs to the audience now.
    NobodyMatches,
    /// The user has no device that could send it.
    NoDevice,
    /// The recipient must not be written to: they will be skipped.
    Suppressed,
    /// No active sequence has the next trigger as an entry point: nobody is chained on.
    NobodyHasTrigger,
    /// Another sequence has the same trigger as an entry point: leads enter both.
    SharedTrigger,
}

/// Collects all problems of a request, so that a person is told of them at once.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<FieldError>);

impl Problems {
    /// Notes a problem.
    pub(crate) fn add(&mut self, field: impl Into<Cow<'static, str>>, code: FieldCode, expected: impl Into<String>) {
        self.0.push(FieldError::new(field, code, expected));
    }

    /// Notes a problem found elsewhere.
    pub(crate) fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Notes problems found elsewhere.
    pub(crate) fn extend(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        self.0.extend(errors);
    }

    /// Notes the problems of a part, each field with the part's path before it.
    pub(crate) fn extend_within(&mut self, path: &str, part: Self) {
        self.0.extend(part.0.into_iter().map(|error| FieldError {
            field: format!("{path}.{}", error.field).into(),
            ..error
        }));
    }

    /// The value of a parse, or its error noted as invalid.
    pub(crate) fn parsed<T, E: fmt::Display>(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        result: Result<T, E>,
    ) -> Option<T> {
        result
            .map_err(|error| self.add(field, FieldCode::Invalid, error.to_string()))
            .ok()
    }

    /// One line of text, trimmed, of at most `chars_max` characters.
    pub(crate) fn line(&mut self, field: impl Into<Cow<'static, str>>, text: &str, chars_max: usize) -> String {
        self.text_of(field, text.trim(), chars_max, char::is_control)
    }

    /// One line of text that must not be empty.
    pub(crate) fn required_line(&mut self, field: &'static str, text: Option<&str>, chars_max: usize) -> String {
        let text = text.unwrap_or_default().trim();
        if text.is_empty() {
            self.add(field, FieldCode::Required, "is required");
            return String::new();
        }
        self.line(field, text, chars_max)
    }

    /// A text with line breaks of at most `chars_max` characters.
    pub(crate) fn block(&mut self, field: impl Into<Cow<'static, str>>, text: &str, chars_max: usize) -> String {
        let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        self.text_of(field, text, chars_max, control)
    }

    fn text_of(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        text: &str,
        chars_max: usize,
        refused: impl Fn(char) -> bool,
    ) -> String {
        if text.chars().count() > chars_max {
            let expected = format!("must be at most {chars_max} characters long");
            self.add(field, FieldCode::TooLong, expected);
        } else if text.chars().any(refused) {
            self.add(field, FieldCode::Invalid, "must not hold control characters");
        }
        text.to_owned()
    }

    /// One of some known words, trimmed and in any letter case.
    pub(crate) fn word<T: Copy>(&mut self, field: &'static str, text: &str, words: &[(&str, T)]) -> Option<T> {
        let wanted = text.trim();
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(wanted));
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.add(
                field,
                FieldCode::Unknown,
                format!("must be one of {}", known.join(", ")),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// Whether nothing was noted.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value, unless there are problems.
    pub(crate) fn give<T>(self, value: T) -> Result<T, Vec<FieldError>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }

    /// The problems.
    pub(crate) fn into_errors(self) -> Vec<FieldError> {
        self.0
    }
}

/// A text of a request that is blank counts as absent.
pub(crate) fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_is_told_which_words_are_known() {
        let mut problems = Problems::default();
        let words = [("prospect", 1), ("customer", 2)];
        assert_eq!(problems.word("target_status", " Customer ", &words), Some(2));
        assert_eq!(problems.word("target_status", "lead", &words), None);
        let error = problems.give(()).unwrap_err().remove(0);
        assert_eq!(
            (error.code, error.to_string().as_str()),
            (FieldCode::Unknown, "target_status must be one of prospect, customer")
        );
    }

    #[test]
    fn a_line_holds_no_control_characters_and_a_block_only_those_of_layout() {
        let mut problems = Problems::default();
        problems.block("message", "a\nb\tc\r\n", 10);
        assert!(problems.is_empty());
        problems.line("name", "a\nb", 10);
        problems.block("message", "a\0", 10);
        problems.block("message", "abc", 2);
        let codes: Vec<_> = problems.into_errors().iter().map(|error| error.code).collect();
        assert_eq!(codes, [FieldCode::Invalid, FieldCode::Invalid, FieldCode::TooLong]);
    }
}
