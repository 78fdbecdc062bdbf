//! How rows are shown, and how parts of requests are read.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use wa_core::domain::message::{Attempt, Message, MessageScope};
use wa_core::domain::summary::Numbers;
use wa_core::plan::Warning;
use wa_core::time::Timestamp;

use super::error::ApiError;

/// The word that a plain enum is written as.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// The values whose words stand in a list that is separated by commas.
///
/// # Errors
/// A word is none of theirs; `field` is named.
pub(super) fn words_of<T: Serialize + Copy>(field: &str, text: Option<&str>, all: &[T]) -> Result<Vec<T>, ApiError> {
    let known: Vec<String> = all.iter().map(word).collect();
    let names = text.unwrap_or_default().split(',').map(str::trim);
    let read = |name: &str| {
        let at = known.iter().position(|known| known.eq_ignore_ascii_case(name));
        at.map(|at| all[at])
            .ok_or_else(|| ApiError::field(field, "unknown", format_args!("must be one of {}", known.join(", "))))
    };
    names.filter(|name| !name.is_empty()).map(read).collect()
}

/// An instant as text, if there is one.
pub(super) fn at(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

/// A field of a change: left as it is, emptied, or given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Given<T> {
    /// The request does not name it.
    #[default]
    Absent,
    /// The request says `null`.
    Null,
    /// The request gives a value.
    Value(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Value))
    }
}

impl<T> Given<T> {
    /// What holds afterwards.
    pub fn over(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Absent => before,
            Self::Null => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The value, if one is given.
    pub fn value(self) -> Option<T> {
        self.over(None)
    }
}

/// Words separated by commas, or a list of words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Words {
    /// `"a, b"`
    Text(String),
    /// `["a", "b"]`
    List(Vec<String>),
}

impl From<Words> for String {
    fn from(words: Words) -> Self {
        match words {
            Words::Text(text) => text,
            Words::List(list) => list.join(","),
        }
    }
}

/// Numbers of a campaign or device. `should` is the sum of `done`, `failed`, `skipped`, `unknown`, `cancelled` and `remaining`.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct NumbersView {
    /// What should be sent in all.
    pub should: u64,
    /// Sent.
    pub done: u64,
    /// Certainly not sent.
    pub failed: u64,
    /// Will not be sent, each with its reason.
    pub skipped: u64,
    /// May have been sent and nobody can tell.
    pub unknown: u64,
    /// Its scope ended first.
    pub cancelled: u64,
    /// Queued, held, being sent, in doubt.
    pub remaining: u64,
    /// Of those sent: on the recipient's phone at least.
    pub delivered: u64,
    /// Of those sent: not delivered.
    pub undelivered: u64,
    /// Of those sent: seen at least.
    pub read: u64,
    /// Of those sent: answered.
    pub replied: u64,
}

impl From<&Numbers> for NumbersView {
    fn from(numbers: &Numbers) -> Self {
        Self {
            should: numbers.should(),
            done: numbers.done,
            failed: numbers.failed,
            skipped: numbers.skipped,
            unknown: numbers.unknown,
            cancelled: numbers.cancelled,
            remaining: numbers.remaining,
            delivered: numbers.delivered,
            undelivered: numbers.undelivered,
            read: numbers.read,
            replied: numbers.replied,
        }
    }
}

/// A thing to know about what was saved.
#[derive(Debug, Serialize, ToSchema)]
pub struct WarningView {
    /// The field that it concerns.
    pub field: String,
    /// What kind it is, stable, for programs.
    pub code: String,
    /// What it is, for people.
    pub message: String,
}

impl From<&Warning> for WarningView {
    fn from(warning: &Warning) -> Self {
        Self {
            field: warning.field.to_string(),
            code: word(&warning.code),
            message: warning.message.clone(),
        }
    }
}

/// A message and where it stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageView {
    /// Its id.
    pub id: String,
    /// `campaign`, `sequence`, `direct`, `chat` or `bot`.
    pub kind: String,
    /// Its campaign.
    pub campaign_id: Option<String>,
    /// Its sequence.
    pub sequence_id: Option<String>,
    /// Its step of the sequence.
    pub step_id: Option<String>,
    /// Its run through the sequence.
    pub enrolment_id: Option<String>,
    /// Its device; `null` while it waits in the pool.
    pub device_id: Option<String>,
    /// Its lead.
    pub lead_id: Option<String>,
    /// The number; `null` once the person was erased.
    pub phone: Option<String>,
    /// The name.
    pub name: String,
    /// Where it stands.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// What the gateway said.
    pub detail: Option<String>,
    /// What receipts reported.
    pub delivery: Option<String>,
    /// When that was.
    pub delivery_at: Option<String>,
    /// The text really sent, or being sent.
    pub text: Option<String>,
    /// When it may go at the earliest.
    pub due_at: String,
    /// When its newest attempt began.
    pub attempted_at: Option<String>,
    /// When it was settled.
    pub settled_at: Option<String>,
    /// How often a person sent it again.
    pub round: u16,
    /// Whether a later one takes its place in all numbers.
    pub superseded: bool,
    /// When it was made.
    pub created_at: String,
}

impl From<&Message> for MessageView {
    fn from(message: &Message) -> Self {
        let (kind, campaign_id, sequence_id) = match message.scope {
            MessageScope::Campaign(id) => ("campaign", Some(id.to_string()), None),
            MessageScope::Sequence(id) => ("sequence", None, Some(id.to_string())),
            MessageScope::Direct => ("direct", None, None),
            MessageScope::Chat => ("chat", None, None),
            _ => ("bot", None, None),
        };
        Self {
            id: message.id.to_string(),
            kind: kind.to_owned(),
            campaign_id,
            sequence_id,
            step_id: message.flow.map(|flow| flow.step_id.to_string()),
            enrolment_id: message.flow.map(|flow| flow.enrolment_id.to_string()),
            device_id: message.device_id.map(|id| id.to_string()),
            lead_id: message.lead_id.map(|id| id.to_string()),
            phone: message.phone.map(|phone| phone.as_e164().to_owned()),
            name: message.name.clone(),
            status: word(&message.state),
            reason: message.reason.as_ref().map(word),
            detail: message.detail.clone(),
            delivery: message.delivery.as_ref().map(word),
            delivery_at: at(message.delivery_at),
            text: message.attempt.as_ref().map(|attempt| attempt.text.clone()),
            due_at: message.due_at.to_string(),
            attempted_at: at(message.attempt.as_ref().map(|attempt| attempt.attempted_at)),
            settled_at: at(message.settled_at),
            round: message.round,
            superseded: message.superseded,
            created_at: message.created_at.to_string(),
        }
    }
}

/// One try to send a message.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptView {
    /// Its id.
    pub id: String,
    /// The id under which the gateway knows it.
    pub transport_message_id: String,
    /// The gateway's own id.
    pub provider_id: Option<String>,
    /// The device that made it.
    pub device_id: String,
    /// The text handed over.
    pub text: String,
    /// When it began.
    pub attempted_at: String,
}

impl From<&Attempt> for AttemptView {
    fn from(attempt: &Attempt) -> Self {
        Self {
            id: attempt.id.to_string(),
            transport_message_id: attempt.transport_message_id.to_string(),
            provider_id: attempt.provider_id.as_ref().map(ToString::to_string),
            device_id: attempt.device_id.to_string(),
            text: attempt.text.clone(),
            attempted_at: attempt.attempted_at.to_string(),
        }
    }
}
