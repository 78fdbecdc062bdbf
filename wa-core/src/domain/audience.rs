//! Whom a campaign writes to.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::lead::{Lead, TargetStatus};
use super::phone::Phone;
use super::token::Token;
use crate::id::{CampaignId, DeviceId, LeadId};

/// Which leads by target status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum TargetFilter {
    /// Prospects.
    Prospect = 1,
    /// Customers.
    Customer = 2,
    /// Both.
    #[default]
    All = 3,
}

impl TargetFilter {
    /// Whether it lets a lead through.
    #[must_use]
    pub fn matches(self, status: TargetStatus) -> bool {
        match self {
            Self::All => true,
            Self::Prospect => status == TargetStatus::Prospect,
            Self::Customer => status == TargetStatus::Customer,
        }
    }

    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Prospect),
            2 => Some(Self::Customer),
            3 => Some(Self::All),
            _ => None,
        }
    }
}

/// Whom a campaign writes to. Membership is what matches when the audience is expanded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Audience {
    /// Leads of the user that match all that is set.
    Leads {
        /// A niche that the lead must have, exactly; `None` for any.
        niche: Option<Token>,
        /// By target status.
        target: TargetFilter,
        /// Only leads of this device.
        device_id: Option<DeviceId>,
    },
    /// The entries that were uploaded with the campaign.
    Entries,
    /// Leads of the user that have no device and match all that is set: the pool. They are shared out over the user's devices, at
    /// most [`Campaign::device_limit`](super::campaign::Campaign::device_limit) to each, and whoever is sent to belongs to the
    /// device that did it.
    Pool {
        /// A niche that the lead must have, exactly; `None` for any.
        niche: Option<Token>,
        /// By target status.
        target: TargetFilter,
    },
}

impl Audience {
    /// Whether a lead of the campaign's user belongs to it.
    #[must_use]
    pub fn matches(&self, lead: &Lead) -> bool {
        match self {
            Self::Leads {
                niche,
                target,
                device_id,
            } => {
                niche.as_ref().is_none_or(|niche| lead.niches.contains(niche))
                    && target.matches(lead.target_status)
                    && device_id.is_none_or(|device| lead.device_id == Some(device))
            }
            Self::Entries => false,
            Self::Pool { niche, target } => {
                lead.device_id.is_none()
                    && niche.as_ref().is_none_or(|niche| lead.niches.contains(niche))
                    && target.matches(lead.target_status)
            }
        }
    }

    /// Whether it is the pool of leads without a device.
    #[must_use]
    pub const fn is_pool(&self) -> bool {
        matches!(self, Self::Pool { .. })
    }

    /// The niche that its leads must have, if it asks for one.
    #[must_use]
    pub const fn niche(&self) -> Option<&Token> {
        match self {
            Self::Leads { niche, .. } | Self::Pool { niche, .. } => niche.as_ref(),
            Self::Entries => None,
        }
    }
}

/// One uploaded recipient of a campaign, optionally with an own text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignEntry {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// Its place in the upload, from 1.
    pub position: u32,
    /// The number.
    pub phone: Phone,
    /// The name; may be empty.
    pub name: String,
    /// An own text; `None` for the campaign's.
    pub text: Option<String>,
    /// Own fields for `{{custom.key}}`.
    pub custom: BTreeMap<String, String>,
}

impl fmt::Debug for CampaignEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CampaignEntry")
            .field("campaign_id", &self.campaign_id)
            .field("position", &self.position)
            .field("phone", &self.phone)
            .finish_non_exhaustive()
    }
}

/// A lead as a member of an audience.
#[derive(Clone, PartialEq, Eq)]
pub struct AudienceLead {
    /// The lead.
    pub id: LeadId,
    /// Its device.
    pub device_id: Option<DeviceId>,
    /// Its number.
    pub phone: Phone,
    /// Its name; may be empty.
    pub name: String,
}

impl From<&Lead> for AudienceLead {
    fn from(lead: &Lead) -> Self {
        Self {
            id: lead.id,
            device_id: lead.device_id,
            phone: lead.phone,
            name: lead.name.clone(),
        }
    }
}

impl fmt::Debug for AudienceLead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudienceLead")
            .field("id", &self.id)
            .field("device_id", &self.device_id)
            .field("phone", &self.phone)
            .finish_non_exhaustive()
    }
}

/// How far the expansion of an audience came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudienceCursor {
    /// Before the first.
    Start,
    /// Leads up to and including this one are planned.
    Lead(LeadId),
    /// Entries up to and including this position are planned.
    Entry(u32),
    /// Everybody is planned.
    Done,
}
