//! Which transport carries a device.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a transport: 1 to 32 characters of `a-z`, `0-9` and `_`.
///
/// An open set: an own transport chooses an own name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform(Cow<'static, str>);

/// A platform name with characters or a length that are not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform must be 1 to 32 characters of a-z, 0-9 and _")]
pub struct ParsePlatformError;

impl Platform {
    /// A device linked to WhatsApp Web.
    pub const WHATSAPP_WEB: Self = Self(Cow::Borrowed("whatsapp_web"));
    /// A device of a Wablas account.
    pub const WABLAS: Self = Self(Cow::Borrowed("wablas"));
    /// A device of a Whacenter account.
    pub const WHACENTER: Self = Self(Cow::Borrowed("whacenter"));
    /// A stub that records and accepts.
    pub const STUB: Self = Self(Cow::Borrowed("stub"));

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether devices of it are run by a gateway and so count as online, cannot be linked, refreshed or logged out.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        *self != Self::WHATSAPP_WEB
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for known in [Self::WHATSAPP_WEB, Self::WABLAS, Self::WHACENTER, Self::STUB] {
            if known.as_str() == text {
                return Ok(known);
            }
        }
        let fits = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if fits {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(ParsePlatformError)
        }
    }
}

impl TryFrom<String> for Platform {
    type Error = ParsePlatformError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.0.into_owned()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_name_is_checked() {
        assert_eq!("wablas".parse::<Platform>().unwrap(), Platform::WABLAS);
        assert_eq!("my_gateway2".parse::<Platform>().unwrap().as_str(), "my_gateway2");
        for bad in ["", "Wablas", "a b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }
}
