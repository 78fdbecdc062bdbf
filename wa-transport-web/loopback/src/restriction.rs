//! What WhatsApp holds against an account.

use serde_json::{Value, json};

/// An account that may not write to people who never wrote to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timelock {
    /// The end, in seconds since 1970.
    pub until_s: i64,
    /// The kind, for instance `RESTRICT_ALL_COMPANIONS`, `WEB_COMPANION_ONLY` or `BULK_MESSAGING`.
    pub kind: String,
}

impl Timelock {
    /// A timelock of all linked devices of an account.
    #[must_use]
    pub fn until(until_s: i64) -> Self {
        Self {
            until_s,
            kind: "RESTRICT_ALL_COMPANIONS".to_owned(),
        }
    }

    /// The same timelock, of another kind.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self
    }
}

/// How near an account is to the monthly limit of new chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CapStatus {
    /// No word about it.
    None,
    /// A first warning.
    FirstWarning,
    /// A second warning.
    SecondWarning,
    /// No new chats until the end of the cycle.
    Capped,
}

impl CapStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::FirstWarning => "FIRST_WARNING",
            Self::SecondWarning => "SECOND_WARNING",
            Self::Capped => "CAPPED",
        }
    }
}

/// The limit of new chats of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewChatCap {
    /// How many new chats a cycle has; `None` for no limit.
    pub total: Option<u32>,
    /// How many are used. The server counts on: each first message to a person who never wrote uses one.
    pub used: u32,
    /// Start of the cycle, in seconds since 1970.
    pub cycle_start_s: i64,
    /// End of the cycle, in seconds since 1970.
    pub cycle_end_s: i64,
    /// How near the limit is.
    pub status: CapStatus,
}

impl NewChatCap {
    /// A cycle with a limit, `used` of which is used, and no warning.
    #[must_use]
    pub fn new(total: u32, used: u32, cycle_start_s: i64, cycle_end_s: i64) -> Self {
        Self {
            total: Some(total),
            used,
            cycle_start_s,
            cycle_end_s,
            status: CapStatus::None,
        }
    }

    /// The same, at another level of warning.
    #[must_use]
    pub fn status(mut self, status: CapStatus) -> Self {
        self.status = status;
        self
    }
}

pub(crate) fn timelock_json(timelock: Option<&Timelock>, now_s: i64) -> Value {
    match timelock.filter(|timelock| timelock.until_s > now_s) {
        Some(timelock) => json!({
            "is_active": true,
            "time_enforcement_ends": timelock.until_s.to_string(),
            "enforcement_type": timelock.kind,
        }),
        None => json!({ "is_active": false, "enforcement_type": "DEFAULT" }),
    }
}

pub(crate) fn cap_json(cap: Option<&NewChatCap>, now_s: i64) -> Value {
    match cap {
        Some(cap) => json!({
            "total_quota": cap.total.map_or(-1, i64::from),
            "used_quota": cap.used,
            "cycle_start_timestamp": cap.cycle_start_s.to_string(),
            "cycle_end_timestamp": cap.cycle_end_s.to_string(),
            "server_sent_timestamp": now_s.to_string(),
            "ote_status": "NOT_ELIGIBLE",
            "mv_status": "NOT_ACTIVE",
            "capping_status": cap.status.as_str(),
        }),
        None => json!({
            "total_quota": -1,
            "used_quota": 0,
            "server_sent_timestamp": now_s.to_string(),
            "ote_status": "NOT_ELIGIBLE",
            "mv_status": "NOT_ACTIVE",
            "capping_status": "NONE",
        }),
    }
}
