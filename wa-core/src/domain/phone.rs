//! Phone numbers, normalised to E.164 once, at the boundary, so that one person is one recipient.

use std::fmt;
use std::str::FromStr;

use phonenumber::Mode;
use phonenumber::country::Id;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::UserId;
use crate::seed::Seed;

/// The longest text in bytes that [`Phone::parse`] looks at; longer ones are refused unread.
pub const PHONE_TEXT_BYTES_MAX: usize = 64;

/// The most digits of an international number (ITU-T E.164, country code included).
pub const PHONE_DIGITS_MAX: usize = 15;

/// The fewest digits of an international number that any numbering plan uses.
pub const PHONE_DIGITS_MIN: usize = 7;

/// A country or territory whose numbers may be written without a country code (ISO 3166-1 alpha-2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Region(Id);

impl Region {
    /// Malaysia, the default.
    pub const MY: Self = Self(Id::MY);

    /// The two capital letters of the region.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }
}

impl Default for Region {
    fn default() -> Self {
        Self::MY
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no region with a known numbering plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a country code of two letters (ISO 3166), such as MY")]
pub struct ParseRegionError;

impl FromStr for Region {
    type Err = ParseRegionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.len() != 2 {
            return Err(ParseRegionError);
        }
        Id::from_str(&text.to_ascii_uppercase())
            .ok()
            .filter(|id| phonenumber::metadata::DATABASE.by_id(id.as_ref()).is_some())
            .map(Self)
            .ok_or(ParseRegionError)
    }
}

impl Serialize for Region {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Why a text is no phone number; the message completes a sentence that begins with the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PhoneError {
    /// Nothing but blanks.
    #[error("must not be empty")]
    Empty,
    /// More bytes than [`PHONE_TEXT_BYTES_MAX`].
    #[error("must be at most {PHONE_TEXT_BYTES_MAX} bytes long")]
    TooLong,
    /// Letters or signs that no phone number holds.
    #[error("must hold only digits, separators and a leading +")]
    NotANumber,
    /// A WhatsApp address that hides or does not have a phone number: a group, a list, a hidden id.
    #[error("must be the address of a person with a phone number, not of a group, a list or a hidden id")]
    NotAPerson,
    /// Digits that no numbering plan has given out.
    #[error("must be a valid phone number of {region}, or a valid one with its country code")]
    Invalid {
        /// The region in which numbers without a country code were looked for.
        region: Region,
    },
    /// Not in the strict form `+` and 7 to 15 digits in which stores keep numbers.
    #[error("must be in E.164 form: + and 7 to 15 digits")]
    NotE164,
}

/// A phone number in E.164 form.
///
/// `Debug` masks it and there is no `Display`: who prints one says so with [`as_e164`](Self::as_e164). The order is that of
/// the E.164 texts, as databases sort them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phone {
    /// `+` and the digits, filled up with zero bytes: as small as two words, and sorted as its text is.
    text: [u8; PHONE_DIGITS_MAX + 1],
}

impl Phone {
    /// Reads a number as people, files and gateways write it.
    ///
    /// Accepted are national and international forms with the usual separators (`012-345 6789`, `123456789`, `60123456789`,
    /// `+60 12-345 6789`) and WhatsApp addresses (`60123456789@c.us`, `60123456789:12@s.whatsapp.net`). Digits without `+` are
    /// first a number of `region`, then one with its country code.
    ///
    /// # Errors
    /// [`PhoneError`] unless the number is one that its numbering plan gives out.
    pub fn parse(text: &str, region: &Region) -> Result<Self, PhoneError> {
        if text.len() > PHONE_TEXT_BYTES_MAX {
            return Err(PhoneError::TooLong);
        }
        let text = text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
        if text.is_empty() {
            return Err(PhoneError::Empty);
        }
        let invalid = PhoneError::Invalid { region: *region };
        if let Some((user, server)) = text.split_once('@') {
            let digits = address_digits(user, server)?;
            return international(digits).ok_or(invalid);
        }
        match digits_of(text)? {
            (Prefix::Plus, digits) => international(&digits),
            (Prefix::None, digits) => national(&digits, region).or_else(|| international(&digits)),
        }
        .ok_or(invalid)
    }

    /// Reads back a number that [`as_e164`](Self::as_e164) gave: `+` and 7 to 15 digits.
    ///
    /// Only the form is checked, not the numbering plan: plans change, and a stored row must stay readable.
    ///
    /// # Errors
    /// [`PhoneError::NotE164`] on any other form.
    pub fn from_e164(text: &str) -> Result<Self, PhoneError> {
        let digits = text.strip_prefix('+').ok_or(PhoneError::NotE164)?.as_bytes();
        let well_formed = (PHONE_DIGITS_MIN..=PHONE_DIGITS_MAX).contains(&digits.len())
            && digits[0] != b'0'
            && digits.iter().all(u8::is_ascii_digit);
        if !well_formed {
            return Err(PhoneError::NotE164);
        }
        let mut bytes = [0; PHONE_DIGITS_MAX + 1];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { text: bytes })
    }

    /// The number as `+` and digits, as stores and the API write it.
    ///
    /// # Panics
    /// Never: every constructor checks that the text is ASCII.
    #[must_use]
    pub fn as_e164(&self) -> &str {
        let len = self.text.iter().position(|byte| *byte == 0).unwrap_or(self.text.len());
        std::str::from_utf8(&self.text[..len]).expect("a phone holds ASCII")
    }

    /// The digits without `+`, as gateways and WhatsApp addresses write them.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.as_e164()[1..]
    }

    /// The number for logs and screens of others: at least three digits hidden, the last four shown (`+6012***6789`).
    #[must_use]
    pub fn masked(&self) -> String {
        let digits = self.digits();
        let tail = digits.len() - 4;
        let head = tail.saturating_sub(3).min(4);
        format!("+{}***{}", &digits[..head], &digits[tail..])
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Serialize for Phone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_e164())
    }
}

impl<'de> Deserialize<'de> for Phone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_e164(&text).map_err(de::Error::custom)
    }
}

/// Marks that address books and chats copy along with a number.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

fn is_separator(c: char) -> bool {
    matches!(c, '-' | '.' | '(' | ')' | '/' | '\u{2010}'..='\u{2015}') || c.is_whitespace() || is_invisible(c)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Plus,
    None,
}

fn digits_of(text: &str) -> Result<(Prefix, String), PhoneError> {
    // Spreadsheets keep a number as text with a leading apostrophe, or write it as a decimal.
    let text = text.strip_prefix('\'').unwrap_or(text);
    let text = match text.strip_suffix(".0") {
        Some(whole) if whole.bytes().all(|byte| byte.is_ascii_digit()) => whole,
        _ => text,
    };
    let mut prefix = Prefix::None;
    let mut digits = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '0'..='9' => digits.push(c),
            '+' if digits.is_empty() && prefix == Prefix::None => prefix = Prefix::Plus,
            c if is_separator(c) => {}
            _ => return Err(PhoneError::NotANumber),
        }
    }
    if digits.is_empty() {
        return Err(PhoneError::NotANumber);
    }
    Ok((prefix, digits))
}

/// The number in a WhatsApp address `user[.agent][:device]@server`.
fn address_digits<'a>(user: &'a str, server: &str) -> Result<&'a str, PhoneError> {
    if !matches!(server, "c.us" | "s.whatsapp.net") {
        let known = matches!(
            server,
            "g.us" | "lid" | "broadcast" | "newsletter" | "bot" | "hosted.lid"
        );
        return Err(if known {
            PhoneError::NotAPerson
        } else {
            PhoneError::NotANumber
        });
    }
    let (user, device) = user.split_once(':').unwrap_or((user, "0"));
    let (user, agent) = user.split_once('.').unwrap_or((user, "0"));
    let user = user.strip_prefix('+').unwrap_or(user);
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if number(user) && number(device) && number(agent) {
        Ok(user)
    } else {
        Err(PhoneError::NotANumber)
    }
}

fn national(digits: &str, region: &Region) -> Option<Phone> {
    let phone = checked(Some(region.0), digits)?;
    // The library may strip prefixes twice; only a number that reads the same with its country code is unmistakable.
    (international(phone.digits())? == phone).then_some(phone)
}

fn international(digits: &str) -> Option<Phone> {
    if digits.starts_with('0') || digits.len() > PHONE_TEXT_BYTES_MAX {
        return None;
    }
    let text = format!("+{digits}");
    let phone = checked(None, &text)?;
    let stable = phone.as_e164() == text || checked(None, phone.as_e164()) == Some(phone);
    stable.then_some(phone)
}

fn checked(region: Option<Id>, text: &str) -> Option<Phone> {
    let number = phonenumber::parse(region, text).ok()?;
    if !number.is_valid() {
        return None;
    }
    Phone::from_e164(&number.format().mode(Mode::E164).to_string()).ok()
}

/// A person of one user: the keyed digest of user and number under which suppression outlives the number itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonKey([u8; 16]);

impl PersonKey {
    /// The key of `phone` among the people of `user`; nobody without the seed can compute or reverse it.
    #[must_use]
    pub fn of(seed: &Seed, user: UserId, phone: &Phone) -> Self {
        let mut key = Vec::with_capacity(32);
        key.extend_from_slice(user.as_bytes());
        key.extend_from_slice(phone.as_e164().as_bytes());
        let digest = seed.digest(&key, "person");
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(bytes)
    }

    /// The 16 bytes of the key, as stores keep it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads a key back from the bytes of a row; `None` unless there are exactly 16.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for PersonKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PersonKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "person({self})")
    }
}

/// A text that is not 32 hexadecimal digits where a person's key was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 hexadecimal digits")]
pub struct ParsePersonKeyError;

impl FromStr for PersonKey {
    type Err = ParsePersonKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParsePersonKeyError);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ParsePersonKeyError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ParsePersonKeyError)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for PersonKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PersonKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
