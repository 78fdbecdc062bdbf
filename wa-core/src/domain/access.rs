//! People who log in, and how far a request may see.

use std::fmt;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::phone::Region;
use super::schedule::TimeZone;
use super::suppression::OptOutWords;
use crate::id::{DeviceId, UserId};
use crate::time::Timestamp;

/// Whose data a request may see; every query carries one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestScope {
    /// The user.
    pub user_id: UserId,
    /// Only these devices and what belongs to them; `None` for all of the user.
    pub devices: Option<Vec<DeviceId>>,
}

impl RequestScope {
    /// All that belongs to a user.
    #[must_use]
    pub const fn user(user_id: UserId) -> Self {
        Self { user_id, devices: None }
    }

    /// Whether a device of the user is within it.
    #[must_use]
    pub fn sees(&self, device: DeviceId) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.contains(&device))
    }
}

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Role {
    /// Runs the installation; sees own data like a user.
    Admin = 1,
    /// Owns devices, leads and campaigns.
    User = 2,
}

impl Role {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Admin),
            2 => Some(Self::User),
            _ => None,
        }
    }
}

/// What a user chose for all their work.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserSettings {
    /// Zone of dates and greetings.
    pub time_zone: TimeZone,
    /// Region of numbers without a country code.
    pub region: Region,
    /// Words that opt a person out.
    pub opt_out_words: OptOutWords,
    /// Whether new campaigns have the randomizer on.
    pub randomizer: bool,
    /// SHA-256 of the token that the lead webhook asks for; `None` asks for none.
    pub webhook_token_hash: Option<String>,
}

impl Default for UserSettings {
    fn default() -> Self {
        Self {
            time_zone: TimeZone::default(),
            region: Region::MY,
            opt_out_words: OptOutWords::default(),
            randomizer: false,
            webhook_token_hash: None,
        }
    }
}

impl fmt::Debug for UserSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSettings")
            .field("time_zone", &self.time_zone)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A person who logs in.
#[derive(Clone)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The e-mail address or name to log in with, lower case, unique, 1 to 254 characters.
    pub login: String,
    /// The name shown.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The password's argon2id hash in PHC form.
    pub password_hash: SecretString,
    /// Whether it may log in.
    pub active: bool,
    /// What it chose.
    pub settings: UserSettings,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change.
    pub version: i64,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// A login that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSession {
    /// SHA-256 of the cookie's value.
    pub token_hash: [u8; 32],
    /// Who is logged in.
    pub user_id: UserId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; moves on with use.
    pub expires_at: Timestamp,
}
