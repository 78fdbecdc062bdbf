//! The history of a lead, and why it was, was not, or is not yet written to.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::engine::handle::{
    Check, Happened, MessageTrace, Moment, TimelineEntry, TimelineItem, TimelineKey, TraceOf,
};
use wa_core::id::{CampaignId, LeadId, SequenceId};
use wa_core::store::PageRequest;

use super::envelope::{Envelope, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Caller, Ids, Locked, PageQuery, Query};
use super::sequence_contacts::{ContactView, EnrolmentView};
use super::suppressions::SuppressionView;
use super::view::{MessageView, at, word};

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new().routes(routes!(timeline)).routes(routes!(why))
}

/// Something that happened, with its time.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct MomentView {
    /// When.
    pub at: String,
    /// `planned`, `held`, `attempted`, `in_doubt`, `settled`, `delivery`, `enrolled` or `left`.
    pub what: String,
    /// Of `planned`: when the message might go at the earliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<String>,
    /// Of `attempted`: the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Of `settled` and `left`: how. Of `delivery`: what became known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Of `settled` and `left`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<&Moment> for MomentView {
    fn from(moment: &Moment) -> Self {
        let what = |what: &str| Self {
            at: moment.at.to_string(),
            what: what.to_owned(),
            ..Self::default()
        };
        match moment.happened {
            Happened::Planned { due_at } => Self {
                due_at: Some(due_at.to_string()),
                ..what("planned")
            },
            Happened::Held => what("held"),
            Happened::Attempted { device_id } => Self {
                device_id: Some(device_id.to_string()),
                ..what("attempted")
            },
            Happened::InDoubt => what("in_doubt"),
            Happened::Settled { state, reason } => Self {
                status: Some(word(&state)),
                reason: reason.as_ref().map(word),
                ..what("settled")
            },
            Happened::Delivery { delivery } => Self {
                status: Some(word(&delivery)),
                ..what("delivery")
            },
            Happened::Enrolled => what("enrolled"),
            Happened::Left { state, reason } => Self {
                status: Some(word(&state)),
                reason: reason.as_ref().map(word),
                ..what("left")
            },
        }
    }
}

/// A message or a run through a sequence, with what happened to it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimelineEntryView {
    /// When it began.
    pub at: String,
    /// `message` or `enrolment`.
    pub kind: String,
    /// The title of its campaign, or the name of its sequence.
    pub scope_name: Option<String>,
    /// The message as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageView>,
    /// The run as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<EnrolmentView>,
    /// What happened to it, oldest first.
    pub moments: Vec<MomentView>,
}

impl From<&TimelineEntry> for TimelineEntryView {
    fn from(entry: &TimelineEntry) -> Self {
        let (kind, message, enrolment) = match &entry.item {
            TimelineItem::Message(message) => ("message", Some((&**message).into()), None),
            TimelineItem::Enrolment(enrolment) => ("enrolment", None, Some((&**enrolment).into())),
        };
        Self {
            at: entry.at.to_string(),
            kind: kind.to_owned(),
            scope_name: entry.scope_name.clone(),
            message,
            enrolment,
            moments: entry.moments.iter().map(Into::into).collect(),
        }
    }
}

/// A page of the history of a person.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimelineView {
    /// When the lead was created.
    pub lead_created_at: String,
    /// When it last wrote to a device.
    pub last_interaction_at: Option<String>,
    /// That the person must not be written to, and why.
    pub suppression: Option<SuppressionView>,
    /// The entries, by when they began, oldest first.
    pub items: Vec<TimelineEntryView>,
    /// The `cursor` of the next page; `null` when this was the last.
    pub next: Option<String>,
}

/// The cursor of a timeline: the last message and the last run, parted by a dot; what is not there is left empty.
fn cursor_of(key: &TimelineKey) -> String {
    let text = |id: Option<String>| id.unwrap_or_default();
    format!(
        "{}.{}",
        text(key.message.map(|id| id.to_string())),
        text(key.enrolment.map(|id| id.to_string()))
    )
}

fn key_of(cursor: &str) -> Result<TimelineKey, ApiError> {
    fn part<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
        match text {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        }
    }
    let read = || {
        let (message, enrolment) = cursor.split_once('.')?;
        Some(TimelineKey {
            message: part(message)?,
            enrolment: part(enrolment)?,
        })
    };
    read().ok_or_else(|| ApiError::field("cursor", "invalid", "must be the `next` of an earlier page"))
}

/// The history of a lead: all messages to its person and all runs through sequences, oldest first; at most 100 in a page.
#[utoipa::path(get, path = "/api/leads/{id}/timeline", tag = "leads", params(PageQuery),
    responses((status = 200, description = "A page of its history", body = Envelope<TimelineView>)))]
async fn timeline(caller: Caller, Ids(id): Ids<LeadId>, Query(page): Query<PageQuery>) -> ApiResult<TimelineView> {
    let request = PageRequest {
        after: page.cursor.as_deref().map(key_of).transpose()?,
        limit: page.limit()?,
    };
    let timeline = caller.handle.timeline(&caller.scope, id, &request).await?;
    let view = TimelineView {
        lead_created_at: timeline.lead_created_at.to_string(),
        last_interaction_at: at(timeline.last_interaction_at),
        suppression: timeline.suppression.as_ref().map(Into::into),
        items: timeline.entries.iter().map(Into::into).collect(),
        next: timeline.next.as_ref().map(cursor_of),
    };
    Ok(Reply::ok("timeline", view))
}

/// Of what is asked: one of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhyQuery {
    /// The campaign.
    #[serde(alias = "campaign_id")]
    #[param(value_type = Option<uuid::Uuid>)]
    campaign: Option<CampaignId>,
    /// The sequence.
    #[serde(alias = "sequence_id")]
    #[param(value_type = Option<uuid::Uuid>)]
    sequence: Option<SequenceId>,
}

/// One rule as it holds for the lead now.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckView {
    /// The rule, stable, for programs.
    pub rule: String,
    /// `passes`, `stops` or `waits`.
    pub ruling: String,
    /// In words.
    pub why: String,
}

impl From<&Check> for CheckView {
    fn from(check: &Check) -> Self {
        Self {
            rule: word(&check.rule),
            ruling: word(&check.ruling),
            why: check.why.clone(),
        }
    }
}

/// A message to the lead, and why it stands where it does.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageTraceView {
    /// The message.
    pub message: MessageView,
    /// What it waits for, with `for` as the kind; `null` when it is settled.
    #[schema(value_type = Option<Object>)]
    pub waits_for: Option<serde_json::Value>,
    /// In words.
    pub why: String,
}

impl From<&MessageTrace> for MessageTraceView {
    fn from(trace: &MessageTrace) -> Self {
        Self {
            message: (&trace.message).into(),
            waits_for: trace.waits_for.and_then(|waits| serde_json::to_value(waits).ok()),
            why: trace.why.clone(),
        }
    }
}

/// Why a lead was, was not, or is not yet written to.
#[derive(Debug, Serialize, ToSchema)]
pub struct TraceView {
    /// The lead.
    pub lead_id: String,
    /// The campaign that was asked for.
    pub campaign_id: Option<String>,
    /// The sequence that was asked for.
    pub sequence_id: Option<String>,
    /// Whether the lead is or was in it.
    pub is_in: bool,
    /// The rules, as they hold now.
    pub checks: Vec<CheckView>,
    /// The messages, oldest first.
    pub messages: Vec<MessageTraceView>,
    /// Of a sequence: the runs with all their flows.
    pub runs: Vec<ContactView>,
    /// When it was made.
    pub at: String,
}

/// Why a lead was, was not, or is not yet written to by a campaign or sequence.
#[utoipa::path(get, path = "/api/leads/{id}/why", tag = "leads", params(WhyQuery),
    responses((status = 200, description = "Why", body = Envelope<TraceView>)))]
async fn why(caller: Caller, Ids(id): Ids<LeadId>, Query(query): Query<WhyQuery>) -> ApiResult<TraceView> {
    caller.store.lead(&caller.scope, id).await?;
    let of = match (query.campaign, query.sequence) {
        (Some(campaign), None) => TraceOf::Campaign(campaign),
        (None, Some(sequence)) => TraceOf::Sequence(sequence),
        (None, None) => return Err(ApiError::field("campaign", "required", "is required, or sequence")),
        (Some(_), Some(_)) => {
            return Err(ApiError::field(
                "sequence",
                "not_allowed",
                "must not stand beside campaign",
            ));
        }
    };
    let lanes = caller.engine.get().map(|engine| engine.lanes(Some(caller.user.id)));
    let lanes = lanes.unwrap_or_default();
    let trace = caller.handle.trace(&caller.scope, id, of, &lanes).await?;
    let view = TraceView {
        lead_id: trace.lead_id.to_string(),
        campaign_id: query.campaign.map(|id| id.to_string()),
        sequence_id: query.sequence.map(|id| id.to_string()),
        is_in: trace.is_in,
        checks: trace.checks.iter().map(Into::into).collect(),
        messages: trace.messages.iter().map(Into::into).collect(),
        runs: trace.runs.iter().map(Into::into).collect(),
        at: trace.at.to_string(),
    };
    Ok(Reply::ok("why", view))
}
