//! What WhatsApp holds against the account of a device: its timelock on reaching out, and its limit of new chats.
//!
//! Both are asked for by persisted queries of WhatsApp Web and read leniently: numbers come as numbers or as text, and what is
//! missing or unheard of is taken for nothing said.

use std::time::Duration;

use serde_json::{Value, json};
use wa_core::domain::device::{NewChats, NewChatsWarning};
use wa_core::time::Timestamp;
use whatsapp_rust::features::{MexError, MexRequest};
use whatsapp_rust::wacore::iq::mex_operations::{fetch_new_chat_message_capping_info, fetch_reachout_timelock};
use whatsapp_rust::{Client, IqError};

/// How long the answers may take that a refused message waits for.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long an answer serves further refused messages.
pub(crate) const ANSWER_KEPT_FOR: Duration = Duration::from_secs(30);

/// How long the questions rest after one that was not answered.
pub(crate) const ASK_AGAIN: Duration = Duration::from_secs(5 * 60);

/// How long the questions rest after WhatsApp said that it was asked too often, if it named no time.
pub(crate) const ASK_AGAIN_LIMITED: Duration = Duration::from_secs(15 * 60);

/// How long a timelock of which no end is told is taken to last; it is asked for again before.
const UNKNOWN_END: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a cycle of new chats is taken to last of which no end is told.
const UNKNOWN_CYCLE: Duration = Duration::from_secs(24 * 60 * 60);

/// Which chats the limit is asked for.
const CAP_KIND: &str = "INDIVIDUAL_NEW_CHAT_MSG";

/// What WhatsApp said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    /// Until when people who never wrote may not be written to.
    pub(crate) timelock: Option<Timestamp>,
    /// Its limit of new chats, `Some(None)` for no limit; `None` when it did not say.
    pub(crate) new_chats: Option<Option<NewChats>>,
}

impl Limits {
    /// Whether there is something to be watched.
    pub(crate) fn is_limited(&self) -> bool {
        self.timelock.is_some() || matches!(self.new_chats, Some(Some(_)))
    }

    /// Until when a message to somebody who never wrote is refused, as far as was told.
    pub(crate) fn cold_until(&self) -> Option<Timestamp> {
        let used_up = self
            .new_chats
            .flatten()
            .filter(|chats| chats.used >= chats.total || chats.warning == NewChatsWarning::Capped);
        self.timelock.max(used_up.map(|chats| chats.ends_at))
    }
}

/// Why there is no answer, by when it makes sense to ask again.
pub(crate) fn rest_after(error: &MexError) -> Duration {
    match error {
        MexError::Request(IqError::ServerError { code: 429, backoff, .. }) => backoff
            .map_or(ASK_AGAIN_LIMITED, |seconds| {
                Duration::from_secs(seconds.into()).max(ASK_AGAIN)
            }),
        _ => ASK_AGAIN,
    }
}

/// Asks for both; the limit of new chats is left out where WhatsApp does not tell it.
pub(crate) async fn ask(client: &Client, now: Timestamp) -> Result<Limits, MexError> {
    use fetch_new_chat_message_capping_info as cap;
    use fetch_reachout_timelock as lock;
    let mex = client.mex();
    let told = mex.query(MexRequest::new(lock::NAME, lock::DOC_ID, json!({}))).await?;
    let timelock = timelock(told.data.as_ref(), now);
    let variables = json!({ "input": { "type": CAP_KIND } });
    let new_chats = match mex.query(MexRequest::new(cap::NAME, cap::DOC_ID, variables)).await {
        Ok(told) => new_chats(told.data.as_ref(), now),
        Err(error @ MexError::Request(_)) => return Err(error),
        // Not every account and version knows the limit.
        Err(error) => {
            tracing::debug!(%error, "WhatsApp does not tell its limit of new chats");
            None
        }
    };
    Ok(Limits { timelock, new_chats })
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// An instant in seconds since 1970; zero and before are no instants.
fn instant(value: &Value) -> Option<Timestamp> {
    let millis = number(value)?.checked_mul(1_000)?;
    (millis > 0).then(|| Timestamp::from_millis(millis))
}

fn timelock(data: Option<&Value>, now: Timestamp) -> Option<Timestamp> {
    let told = data?.get("xwa2_fetch_account_reachout_timelock")?;
    let active = told.get("is_active").and_then(Value::as_bool).unwrap_or(false);
    let kind = told.get("enforcement_type").and_then(Value::as_str).unwrap_or_default();
    if !active || kind == "DEFAULT" {
        return None;
    }
    let until = told
        .get("time_enforcement_ends")
        .and_then(instant)
        .unwrap_or(now + UNKNOWN_END);
    (until > now).then_some(until)
}

/// `None` when it cannot be read; `Some(None)` for no limit.
fn new_chats(data: Option<&Value>, now: Timestamp) -> Option<Option<NewChats>> {
    let told = data?.get("xwa2_message_capping_info").filter(|told| told.is_object())?;
    let warning = match told.get("capping_status").and_then(Value::as_str) {
        Some("FIRST_WARNING") => NewChatsWarning::First,
        Some("SECOND_WARNING") => NewChatsWarning::Second,
        Some("CAPPED") => NewChatsWarning::Capped,
        _ => NewChatsWarning::None,
    };
    let count = |name: &str| {
        told.get(name)
            .and_then(number)
            .and_then(|count| u32::try_from(count).ok())
    };
    let used = count("used_quota").unwrap_or(0);
    let total = match (count("total_quota"), warning) {
        (Some(total), _) => total,
        // Without a number the warning still says how it stands.
        (None, NewChatsWarning::None) => return Some(None),
        (None, _) => used,
    };
    let ends_at = told
        .get("cycle_end_timestamp")
        .and_then(instant)
        .unwrap_or(now + UNKNOWN_CYCLE);
    let chats = NewChats {
        total,
        used,
        warning,
        ends_at,
        told_at: now,
    };
    Some((ends_at > now).then_some(chats))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);
    const LATER: Timestamp = Timestamp::from_millis(1_000_060_000);

    #[test]
    fn a_timelock_is_read_with_its_end_as_text_or_number_and_lasts_a_while_without_one() {
        let read = |told: Value| timelock(Some(&json!({ "xwa2_fetch_account_reachout_timelock": told })), NOW);
        let lock = |end: Value| json!({ "is_active": true, "time_enforcement_ends": end, "enforcement_type": "BULK_MESSAGING" });
        assert_eq!(read(lock(json!("1000060"))), Some(LATER));
        assert_eq!(read(lock(json!(1_000_060))), Some(LATER));
        assert_eq!(read(lock(Value::Null)), Some(NOW + UNKNOWN_END));
        assert_eq!(read(lock(json!("999999"))), None, "it is over");
        assert_eq!(read(json!({ "is_active": false, "enforcement_type": "DEFAULT" })), None);
        assert_eq!(read(json!({ "is_active": true, "enforcement_type": "DEFAULT" })), None);
        assert_eq!(read(Value::Null), None);
        assert_eq!(timelock(None, NOW), None);
    }

    #[test]
    fn the_limit_of_new_chats_is_read_in_each_of_its_forms() {
        let read = |told: Value| new_chats(Some(&json!({ "xwa2_message_capping_info": told })), NOW);
        let chats = |total, used, warning, ends_at| {
            Some(Some(NewChats {
                total,
                used,
                warning,
                ends_at,
                told_at: NOW,
            }))
        };
        let of_web = json!({ "total_quota": "50", "used_quota": "48", "cycle_end_timestamp": 1_000_060, "capping_status": "FIRST_WARNING" });
        assert_eq!(read(of_web), chats(50, 48, NewChatsWarning::First, LATER));
        let of_others =
            json!({ "total_quota": 50, "used_quota": 2, "cycle_end_timestamp": "1000060", "capping_status": "NONE" });
        assert_eq!(read(of_others), chats(50, 2, NewChatsWarning::None, LATER));
        let no_limit = json!({ "total_quota": -1, "used_quota": 0, "capping_status": "NONE" });
        assert_eq!(read(no_limit), Some(None));
        let capped = json!({ "total_quota": -1, "capping_status": "CAPPED" });
        assert_eq!(read(capped), chats(0, 0, NewChatsWarning::Capped, NOW + UNKNOWN_CYCLE));
        let over = json!({ "total_quota": 50, "used_quota": 50, "cycle_end_timestamp": "999999" });
        assert_eq!(read(over), Some(None));
        assert_eq!(read(Value::Null), None);
        assert_eq!(new_chats(None, NOW), None);
    }

    #[test]
    fn a_refused_message_waits_for_the_lock_or_the_cycle_whichever_ends_last() {
        let chats = |used, ends_at| NewChats {
            total: 50,
            used,
            warning: NewChatsWarning::None,
            ends_at,
            told_at: NOW,
        };
        let limits = |timelock, new_chats| Limits { timelock, new_chats };
        assert_eq!(limits(None, None).cold_until(), None);
        assert_eq!(limits(None, Some(Some(chats(49, LATER)))).cold_until(), None);
        assert_eq!(limits(None, Some(Some(chats(50, LATER)))).cold_until(), Some(LATER));
        assert_eq!(
            limits(Some(LATER), Some(Some(chats(50, NOW)))).cold_until(),
            Some(LATER)
        );
        assert!(!limits(None, Some(None)).is_limited());
        assert!(limits(Some(LATER), None).is_limited());
    }
}
