//! Tokens: the exact words by which leads are chosen (triggers and niches).
//!
//! Two tokens are equal or they are not. There is no prefix and no substring, because leads were once written to by mistake
//! when "EXA" matched "EXAMA". Letter case is folded away to compare, and kept to be shown.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;

/// The most characters of one token.
pub const TOKEN_CHARS_MAX: usize = 64;

/// The most tokens of one set.
pub const TOKENS_MAX: usize = 64;

/// Why a text is no token or no set of them; the message completes a sentence that begins with the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Nothing but blanks.
    #[error("must not be empty")]
    Empty,
    /// More characters than [`TOKEN_CHARS_MAX`].
    #[error("must be at most {TOKEN_CHARS_MAX} characters long")]
    TooLong,
    /// A comma, which separates the tokens of a list.
    #[error("must not hold a comma")]
    Comma,
    /// A control character, which some stores cannot keep.
    #[error("must not hold control characters")]
    Control,
    /// More tokens than [`TOKENS_MAX`].
    #[error("must name at most {TOKENS_MAX} tokens")]
    TooMany,
}

/// One exact word or phrase: trimmed, blanks collapsed. Letter case is no part of what it is: two tokens that differ only in
/// it are equal, have the same order and hash, and are shown as each was written.
#[derive(Clone)]
pub struct Token {
    folded: Box<str>,
    /// `None` when it is as the folded form.
    spelling: Option<Box<str>>,
}

impl Token {
    /// Reads one token.
    ///
    /// # Errors
    /// [`TokenError`] when nothing is left, or the text is too long, holds a comma or a control character.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        // Folding may lengthen a character, but never past this: what is longer is refused unread.
        if text.len() > TOKEN_CHARS_MAX * 64 {
            return Err(TokenError::TooLong);
        }
        let mut plain = String::with_capacity(text.len());
        for word in text
            .split(|c: char| c.is_whitespace() || is_zero_width(c))
            .filter(|word| !word.is_empty())
        {
            if word.contains(',') {
                return Err(TokenError::Comma);
            }
            if word.chars().any(char::is_control) {
                return Err(TokenError::Control);
            }
            if !plain.is_empty() {
                plain.push(' ');
            }
            plain.push_str(word);
        }
        let folded = fold(&plain);
        match folded.chars().count() {
            0 => Err(TokenError::Empty),
            count if count > TOKEN_CHARS_MAX => Err(TokenError::TooLong),
            _ => {
                let spelling: String = plain.nfc().collect();
                Ok(Self {
                    spelling: (spelling != folded).then(|| spelling.into_boxed_str()),
                    folded: folded.into_boxed_str(),
                })
            }
        }
    }

    /// The token in its folded form, by which it is compared and found.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.folded
    }

    /// The token as it was written, to be shown; its `Display`.
    #[must_use]
    pub fn spelling(&self) -> &str {
        self.spelling.as_deref().unwrap_or(&self.folded)
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.folded == other.folded
    }
}

impl Eq for Token {}

impl PartialOrd for Token {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Token {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded.cmp(&other.folded)
    }
}

impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folded.hash(state);
    }
}

/// Blanks that nobody sees; copied text is full of them.
fn is_zero_width(c: char) -> bool {
    matches!(c, '\u{200B}' | '\u{2060}' | '\u{FEFF}')
}

/// Folds letter case by way of the capitals, so that ß and SS, or σ and ς, are equal; composed afterwards (NFC).
fn fold(text: &str) -> String {
    text.chars()
        .nfd()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .nfc()
        .collect()
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spelling())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.spelling(), f)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.spelling())
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A sorted set of at most [`TOKENS_MAX`] tokens, written with commas at the edge; of two spellings of a token the first stays.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TokenSet(Vec<Token>);

impl TokenSet {
    /// A set without tokens.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Reads a comma-separated list; empty places between commas count for nothing, repeated tokens once.
    ///
    /// # Errors
    /// [`TokenError`] of the first token that is none, or when there are too many.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut set = Self::new();
        for part in text.split(',') {
            match Token::parse(part) {
                Ok(token) => set.insert(token).map(drop)?,
                Err(TokenError::Empty) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(set)
    }

    /// Adds a token; says whether it is new.
    ///
    /// # Errors
    /// [`TokenError::TooMany`] when a new token finds the set full; the set stays as it is.
    pub fn insert(&mut self, token: Token) -> Result<bool, TokenError> {
        match self.0.binary_search(&token) {
            Ok(_) => Ok(false),
            Err(_) if self.0.len() >= TOKENS_MAX => Err(TokenError::TooMany),
            Err(at) => {
                self.0.insert(at, token);
                Ok(true)
            }
        }
    }

    /// Removes a token; says whether it was there.
    pub fn remove(&mut self, token: &Token) -> bool {
        self.0.binary_search(token).map(|at| self.0.remove(at)).is_ok()
    }

    /// Whether exactly this token is in the set.
    #[must_use]
    pub fn contains(&self, token: &Token) -> bool {
        self.0.binary_search(token).is_ok()
    }

    /// The folded tokens with commas: equal for equal sets, however they are spelled.
    #[must_use]
    pub fn key(&self) -> String {
        let mut key = String::new();
        for token in &self.0 {
            if !key.is_empty() {
                key.push(',');
            }
            key.push_str(token.as_str());
        }
        key
    }

    /// Whether the sets are equal and every token is spelled alike.
    #[must_use]
    pub fn is_spelled_as(&self, other: &Self) -> bool {
        self.0
            .iter()
            .map(Token::spelling)
            .eq(other.0.iter().map(Token::spelling))
    }

    /// The tokens in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Token> {
        self.0.iter()
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a TokenSet {
    type Item = &'a Token;
    type IntoIter = std::slice::Iter<'a, Token>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromStr for TokenSet {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, token) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            fmt::Display::fmt(token, f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.0).finish()
    }
}

impl Serialize for TokenSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de> Deserialize<'de> for TokenSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TokenSetVisitor)
    }
}

struct TokenSetVisitor;

impl<'de> Visitor<'de> for TokenSetVisitor {
    type Value = TokenSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts or one text with commas")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TokenSet, E> {
        TokenSet::parse(text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<TokenSet, A::Error> {
        let mut set = TokenSet::new();
        while let Some(token) = items.next_element::<Token>()? {
            set.insert(token).map_err(de::Error::custom)?;
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(text: &str) -> Token {
        Token::parse(text).unwrap()
    }

    #[test]
    fn case_blanks_and_composition_do_not_make_another_token() {
        assert_eq!(token("  VITAC \t  Promo "), token("vitac promo"));
        assert_eq!(token("CAFÉ"), token("cafe\u{301}"));
        assert_eq!(token("straße"), token("STRASSE"));
        assert_eq!(token("ΟΔΟΣ"), token("οδος"));
        assert_eq!(token("\u{200B}exa\u{FEFF}"), token("EXA"));
    }

    #[test]
    fn a_token_is_shown_as_it_was_written_and_compared_without_its_letter_case() {
        let shouted = token("  EXA \u{200B}  Promo ");
        assert_eq!(
            (shouted.to_string().as_str(), shouted.as_str()),
            ("EXA Promo", "exa promo")
        );
        assert_eq!(serde_json::to_string(&shouted).unwrap(), r#""EXA Promo""#);
        assert_eq!(shouted, token("exa promo"));
        assert_eq!(token("Cafe\u{301}").spelling(), "Café");
        let hashes: std::collections::HashSet<Token> = [shouted, token("exa promo")].into();
        assert_eq!(hashes.len(), 1);
    }

    #[test]
    fn the_first_spelling_in_a_set_stays() {
        let mut set = TokenSet::parse("Vitac, EXA, exa, VITAC").unwrap();
        assert_eq!(
            (set.to_string().as_str(), set.key().as_str()),
            ("EXA,Vitac", "exa,vitac")
        );
        assert_eq!(set.insert(token("eXa")), Ok(false));
        let other = TokenSet::parse("exa,Vitac").unwrap();
        assert!(set == other && !set.is_spelled_as(&other) && set.is_spelled_as(&set.clone()));
        assert!(set.remove(&token("exa")));
        assert_eq!(set.to_string(), "Vitac");
    }

    #[test]
    fn a_token_matches_no_part_of_another() {
        let set = TokenSet::parse("EXAMA, vitac10").unwrap();
        assert!(set.contains(&token("exama")));
        assert!(!set.contains(&token("EXA")));
        assert!(!set.contains(&token("vitac")));
    }

    #[test]
    fn what_is_no_token_is_refused_with_the_reason() {
        assert_eq!(Token::parse(" \n "), Err(TokenError::Empty));
        assert_eq!(Token::parse("a,b"), Err(TokenError::Comma));
        assert_eq!(Token::parse("a\0b"), Err(TokenError::Control));
        assert_eq!(
            Token::parse(&"x".repeat(TOKEN_CHARS_MAX)).map(|token| token.as_str().len()),
            Ok(64)
        );
        assert_eq!(Token::parse(&"x".repeat(TOKEN_CHARS_MAX + 1)), Err(TokenError::TooLong));
    }

    #[test]
    fn a_set_is_written_sorted_and_reads_back() {
        let set = TokenSet::parse(" b ,A,, b,c d ").unwrap();
        assert_eq!(set.to_string(), "A,b,c d");
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["A","b","c d"]"#);
        assert_eq!(serde_json::from_str::<TokenSet>(r#"["C  D","b","A"]"#).unwrap(), set);
        assert_eq!(serde_json::from_str::<TokenSet>(r#""c d,b,a""#).unwrap(), set);
        assert!(serde_json::from_str::<TokenSet>(r#"["a,b"]"#).is_err());
        assert!(serde_json::from_str::<TokenSet>("7").is_err());
        assert!(TokenSet::parse("").unwrap().is_empty());
    }

    #[test]
    fn a_full_set_refuses_a_new_token_and_stays_as_it_is() {
        let mut set = TokenSet::new();
        for number in 0..TOKENS_MAX {
            assert_eq!(set.insert(token(&format!("t{number}"))), Ok(true));
        }
        assert_eq!(set.insert(token("one more")), Err(TokenError::TooMany));
        assert_eq!(set.insert(token("T0")), Ok(false));
        assert_eq!(set.len(), TOKENS_MAX);
        assert!(set.remove(&token("t0")));
        assert!(!set.remove(&token("t0")));
        assert_eq!(set.insert(token("one more")), Ok(true));
    }

    proptest! {
        #[test]
        fn reading_a_token_again_changes_nothing(text in "\\PC{0,70}") {
            if let Ok(token) = Token::parse(&text) {
                let again = Token::parse(token.spelling()).unwrap();
                prop_assert_eq!((again.spelling(), again.as_str()), (token.spelling(), token.as_str()));
                prop_assert_eq!(Token::parse(token.as_str()), Ok(token));
            }
        }

        #[test]
        fn a_written_set_reads_back_as_itself(texts in prop::collection::vec("[a-zA-Z0-9 ,ßéÉ]{0,12}", 0..20)) {
            if let Ok(set) = TokenSet::parse(&texts.join(",")) {
                prop_assert!(TokenSet::parse(&set.to_string()).unwrap().is_spelled_as(&set));
                let json = serde_json::to_string(&set).unwrap();
                prop_assert!(serde_json::from_str::<TokenSet>(&json).unwrap().is_spelled_as(&set));
            }
        }
    }
}
