//! A person who can be written to.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::phone::Phone;
use super::token::TokenSet;
use crate::id::{DeviceId, LeadId, UserId};
use crate::time::Timestamp;

/// Whether the person has bought yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum TargetStatus {
    /// Not yet.
    #[default]
    Prospect = 1,
    /// Already.
    Customer = 2,
}

impl TargetStatus {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Prospect),
            2 => Some(Self::Customer),
            _ => None,
        }
    }
}

/// That a person agreed to be written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// Where it was given: `webhook`, `import`, `form`; at most 100 characters.
    pub source: String,
    /// When.
    pub given_at: Timestamp,
}

/// A person who can be written to; owned by a user, normally by one device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// Its id.
    pub id: LeadId,
    /// Its owner.
    pub user_id: UserId,
    /// The device that writes to it; `None` in the pool.
    pub device_id: Option<DeviceId>,
    /// Its name, at most 200 characters; may be empty.
    pub name: String,
    /// Its number.
    pub phone: Phone,
    /// Its niches.
    pub niches: TokenSet,
    /// Its triggers.
    pub triggers: TokenSet,
    /// Whether it has bought.
    pub target_status: TargetStatus,
    /// Notes on its journey, at most 2,000 characters.
    pub journey: String,
    /// Its place in the user's pipeline, at most 100 characters.
    pub pipeline_status: String,
    /// Own fields, for `{{custom.key}}`: at most 50, keys at most 64 and values at most 1,000 characters.
    pub custom: BTreeMap<String, String>,
    /// Free labels.
    pub tags: TokenSet,
    /// That it agreed to be written to, if recorded.
    pub consent: Option<Consent>,
    /// When it last wrote to a device.
    pub last_interaction_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change; updates name the version that they read.
    pub version: i64,
}

impl Lead {
    /// Longest name, in characters.
    pub const NAME_MAX: usize = 200;
    /// Longest journey, in characters.
    pub const JOURNEY_MAX: usize = 2_000;
    /// Longest pipeline status, in characters.
    pub const PIPELINE_STATUS_MAX: usize = 100;
    /// Most own fields.
    pub const CUSTOM_MAX: usize = 50;
    /// Longest key of an own field, in characters.
    pub const CUSTOM_KEY_MAX: usize = 64;
    /// Longest value of an own field, in characters.
    pub const CUSTOM_VALUE_MAX: usize = 1_000;

    /// A lead with a number and nothing else.
    #[must_use]
    pub fn new(id: LeadId, user_id: UserId, device_id: Option<DeviceId>, phone: Phone, now: Timestamp) -> Self {
        Self {
            id,
            user_id,
            device_id,
            name: String::new(),
            phone,
            niches: TokenSet::default(),
            triggers: TokenSet::default(),
            target_status: TargetStatus::default(),
            journey: String::new(),
            pipeline_status: String::new(),
            custom: BTreeMap::new(),
            tags: TokenSet::default(),
            consent: None,
            last_interaction_at: None,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }

    /// What makes two leads the same: user, device, number and niches.
    #[must_use]
    pub fn identity(&self) -> LeadIdentity {
        LeadIdentity {
            user_id: self.user_id,
            device_id: self.device_id,
            phone: self.phone,
            niches: self.niches.key(),
        }
    }
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead")
            .field("id", &self.id)
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .field("phone", &self.phone)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What makes two leads the same; unique in every store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeadIdentity {
    /// The owner.
    pub user_id: UserId,
    /// The device.
    pub device_id: Option<DeviceId>,
    /// The number.
    pub phone: Phone,
    /// The niches, folded, sorted and joined.
    pub niches: String,
}
