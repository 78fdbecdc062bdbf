//! Campaigns: one-time broadcasts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::audience::Audience;
use wa_core::domain::campaign::{Campaign, CampaignStatus};
use wa_core::domain::schedule::{LocalDate, LocalTime};
use wa_core::domain::summary::Numbers;
use wa_core::domain::token::Token;
use wa_core::engine::handle::{CampaignNumbers, CampaignProgress, RecipientFilter, Resend, SavedCampaign};
use wa_core::id::{CampaignId, DeviceId, LeadId, MessageId};
use wa_core::plan::{CampaignDraft, DelayDraft, Edit, EntryDraft, QuietDraft, RandomizerDraft, SaveAs};
use wa_core::store::{CampaignFilter, PAGE_MAX, PageRequest};
use wa_core::time::Timestamp;

use super::csv_out::{Rows, csv_response};
use super::devices::seconds;
use super::envelope::{Envelope, Listed, Nothing, Reply};
use super::error::{ApiError, ApiResult, FieldProblem};
use super::extract::{Body, Caller, Ids, Locked, PageQuery, Query};
use super::messages::states;
use super::pictures::{MediaBody, attached};
use super::templates::MediaView;
use super::view::{Given, MessageView, NumbersView, WarningView, at, word};

/// Most campaigns that one summary or calendar looks at.
pub const LOOKED_AT_MAX: usize = 10_000;
/// Most niches shown per day of a calendar.
pub const DAY_NICHES_MAX: usize = 5;
/// How many campaigns a summary shows.
const RECENT: usize = 10;

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(campaigns, create))
        .routes(routes!(summary))
        .routes(routes!(broadcast_stats))
        .routes(routes!(calendar))
        .routes(routes!(campaign, edit, delete))
        .routes(routes!(clone))
        .routes(routes!(schedule))
        .routes(routes!(unschedule))
        .routes(routes!(start))
        .routes(routes!(trigger))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(preview))
        .routes(routes!(audience))
        .routes(routes!(entries))
        .routes(routes!(numbers))
        .routes(routes!(progress))
        .routes(routes!(recipients))
        .routes(routes!(recipients_export))
        .routes(routes!(resend_failed))
        .routes(routes!(device_report))
        .routes(routes!(device_leads))
        .routes(routes!(retry_failed))
}

/// What a campaign is or is to become. In a change, fields that are not named stay as they are and `null` empties.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CampaignBody {
    /// Its title, 1 to 200 characters.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    title: Given<String>,
    /// Its text, with `{{name}}`, `{{phone}}`, `{{niche}}`, `{{custom.key}}` and `{a|b}`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    message: Given<String>,
    /// What is attached.
    #[schema(value_type = Option<MediaBody>)]
    #[serde(default)]
    media: Given<MediaBody>,
    /// The address of a picture to attach.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    image_url: Given<String>,
    /// `leads`, `entries` for recipients that are uploaded with it, or `pool` for leads without a device, which are shared out over
    /// the devices that are online.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    audience: Given<String>,
    /// Only leads with this niche, exactly.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    niche: Given<String>,
    /// `prospect`, `customer` or `all`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    target_status: Given<String>,
    /// Only leads of this device.
    #[schema(value_type = Option<uuid::Uuid>)]
    #[serde(default)]
    audience_device_id: Given<DeviceId>,
    /// The only device that sends it.
    #[schema(value_type = Option<uuid::Uuid>)]
    #[serde(default)]
    device_id: Given<DeviceId>,
    /// `own_device`, `balanced`, `round_robin` or `random`; of the pool `balanced` when it is not given.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    routing: Given<String>,
    /// Of the pool: how many messages one device takes each time that the campaign is triggered, 1 to 10,000.
    #[schema(value_type = Option<u32>)]
    #[serde(default)]
    device_limit: Given<u32>,
    /// Its zone by IANA name; the user's when it is not given.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    time_zone: Given<String>,
    /// The local date of its start, such as 2026-11-21.
    #[serde(alias = "campaign_date", alias = "scheduled_date")]
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    date: Given<String>,
    /// The local time of its start, such as 09:00.
    #[serde(alias = "time_schedule", alias = "scheduled_time")]
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    time: Given<String>,
    /// What happens when its start was missed: `ask`, `run` or `skip`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    late_policy: Given<String>,
    /// Shortest pause between messages, in seconds.
    #[serde(alias = "min_delay_seconds")]
    #[schema(value_type = Option<u64>)]
    #[serde(default)]
    min_delay: Given<u64>,
    /// Longest pause between messages, in seconds.
    #[serde(alias = "max_delay_seconds")]
    #[schema(value_type = Option<u64>)]
    #[serde(default)]
    max_delay: Given<u64>,
    /// From when it must not send, local time, such as 22:00.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    quiet_from: Given<String>,
    /// Until when it must not send.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    quiet_until: Given<String>,
    /// Whether a greeting is put before the text.
    #[schema(value_type = Option<bool>)]
    #[serde(default)]
    greeting: Given<bool>,
    /// `ms-MY`, `id` or `en`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    greeting_locale: Given<String>,
    /// Whether letters are varied; the user's default when it is not given.
    #[schema(value_type = Option<bool>)]
    #[serde(default)]
    randomizer: Given<bool>,
    /// How long after it is due a message may still be sent, in seconds.
    #[schema(value_type = Option<u64>)]
    #[serde(default)]
    expires_after: Given<u64>,
    /// `scheduled` when it has date and time, or `draft`.
    status: Option<SaveStatus>,
    /// The version that was read; a change of another version is refused.
    version: Option<i64>,
}

/// As what a campaign is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SaveStatus {
    /// It waits until somebody schedules it.
    Draft,
    /// It starts at its local date and time.
    #[serde(alias = "pending")]
    Scheduled,
}

impl CampaignBody {
    async fn over(self, caller: &Caller, before: CampaignDraft) -> Result<CampaignDraft, ApiError> {
        let media = match (self.media, self.image_url) {
            (Given::Value(media), _) => Some(attached(caller, media).await?),
            (_, Given::Value(url)) if !url.trim().is_empty() => Some(attached(caller, MediaBody::of_url(url)).await?),
            (Given::Null, _) | (_, Given::Null | Given::Value(_)) => None,
            (Given::Absent, Given::Absent) => before.media,
        };
        let delay = before.delay.unwrap_or_default();
        let delay = DelayDraft {
            min: seconds(self.min_delay).over(delay.min),
            max: seconds(self.max_delay).over(delay.max),
        };
        let quiet = before.quiet_hours.unwrap_or_default();
        let quiet = QuietDraft {
            from: self.quiet_from.over(Some(quiet.from)).unwrap_or_default(),
            until: self.quiet_until.over(Some(quiet.until)).unwrap_or_default(),
        };
        Ok(CampaignDraft {
            title: self.title.over(before.title),
            message: self.message.over(before.message),
            media,
            audience: self.audience.over(before.audience),
            niche: self.niche.over(before.niche),
            target_status: self.target_status.over(before.target_status),
            audience_device_id: self.audience_device_id.over(before.audience_device_id),
            device_id: self.device_id.over(before.device_id),
            routing: self.routing.over(before.routing),
            device_limit: self.device_limit.over(before.device_limit),
            time_zone: self.time_zone.over(before.time_zone),
            date: self.date.over(before.date),
            time: self.time.over(before.time),
            late_policy: self.late_policy.over(before.late_policy),
            delay: (delay != DelayDraft::default()).then_some(delay),
            quiet_hours: (quiet != QuietDraft::default()).then_some(quiet),
            greeting: self.greeting.over(before.greeting),
            greeting_locale: self.greeting_locale.over(before.greeting_locale),
            randomizer: match self.randomizer {
                Given::Absent => before.randomizer,
                Given::Null => None,
                Given::Value(on) => Some(RandomizerDraft {
                    on,
                    ..before.randomizer.unwrap_or_default()
                }),
            },
            expires_after: seconds(self.expires_after).over(before.expires_after),
        })
    }
}

/// A campaign.
#[derive(Debug, Serialize, ToSchema)]
pub struct CampaignView {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its text.
    pub message: String,
    /// What is attached.
    pub media: Option<MediaView>,
    /// `leads`, `entries` or `pool`.
    pub audience: String,
    /// Only leads with this niche.
    pub niche: Option<String>,
    /// `prospect`, `customer` or `all`.
    pub target_status: String,
    /// Only leads of this device.
    pub audience_device_id: Option<String>,
    /// The only device that sends it.
    pub device_id: Option<String>,
    /// Which device writes to whom.
    pub routing: String,
    /// Of the pool: how many messages one device takes each time that it is triggered.
    pub device_limit: Option<u32>,
    /// Its zone.
    pub time_zone: String,
    /// The local date of its start.
    pub date: Option<String>,
    /// The local time of its start.
    pub time: Option<String>,
    /// The instant that date, time and zone name.
    pub scheduled_at: Option<String>,
    /// What happens when its start was missed.
    pub late_policy: String,
    /// Shortest pause between messages, in seconds.
    pub min_delay: Option<u64>,
    /// Longest pause between messages, in seconds.
    pub max_delay: Option<u64>,
    /// From when it must not send.
    pub quiet_from: Option<String>,
    /// Until when it must not send.
    pub quiet_until: Option<String>,
    /// Whether a greeting is put before the text.
    pub greeting: bool,
    /// The greetings' language.
    pub greeting_locale: String,
    /// Whether letters are varied.
    pub randomizer: bool,
    /// How long after it is due a message may still be sent, in seconds.
    pub expires_after: u64,
    /// Where it stands.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Whether its audience is still being expanded.
    pub expanding: bool,
    /// When it started; of the pool, when it was last triggered.
    pub started_at: Option<String>,
    /// When it was last paused.
    pub paused_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// Since when its messages are in the archive: it can be read and copied, and never changes again.
    pub archived_at: Option<String>,
    /// When it was created.
    pub created_at: String,
    /// When a person last changed it.
    pub updated_at: String,
    /// Its version, to be named in a change.
    pub version: i64,
    /// Its numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers: Option<NumbersView>,
    /// What does not keep it from being saved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<WarningView>,
}

impl From<&Campaign> for CampaignView {
    fn from(campaign: &Campaign) -> Self {
        let (audience, target, audience_device_id) = match &campaign.audience {
            Audience::Leads { target, device_id, .. } => ("leads", word(target), *device_id),
            Audience::Pool { target, .. } => ("pool", word(target), None),
            _ => ("entries", "all".to_owned(), None),
        };
        Self {
            id: campaign.id.to_string(),
            title: campaign.title.clone(),
            message: campaign.content.text.clone(),
            media: campaign.content.media.as_ref().map(Into::into),
            audience: audience.to_owned(),
            niche: campaign.audience.niche().map(ToString::to_string),
            target_status: target,
            audience_device_id: audience_device_id.map(|id| id.to_string()),
            device_id: campaign.device_id.map(|id| id.to_string()),
            routing: word(&campaign.routing),
            device_limit: campaign.device_limit,
            time_zone: campaign.time_zone.to_string(),
            date: campaign.date.map(|date| date.to_string()),
            time: campaign.time.map(|time| time.to_string()),
            scheduled_at: at(campaign.scheduled_at),
            late_policy: word(&campaign.late_policy),
            min_delay: campaign.delay.map(|delay| delay.min().as_secs()),
            max_delay: campaign.delay.map(|delay| delay.max().as_secs()),
            quiet_from: campaign.quiet_hours.map(|hours| hours.from().to_string()),
            quiet_until: campaign.quiet_hours.map(|hours| hours.until().to_string()),
            greeting: campaign.dressing.greeting,
            greeting_locale: campaign.dressing.greeting_locale.clone(),
            randomizer: campaign.dressing.randomizer.is_some(),
            expires_after: campaign.expires_after.as_secs(),
            status: word(&campaign.status),
            reason: campaign.reason.as_ref().map(word),
            expanding: campaign.is_expanding(),
            started_at: at(campaign.started_at),
            paused_at: at(campaign.paused_at),
            ended_at: at(campaign.ended_at),
            archived_at: at(campaign.archived_at),
            created_at: campaign.created_at.to_string(),
            updated_at: campaign.updated_at.to_string(),
            version: campaign.version,
            numbers: None,
            warnings: Vec::new(),
        }
    }
}

impl From<&SavedCampaign> for CampaignView {
    fn from(saved: &SavedCampaign) -> Self {
        Self {
            warnings: saved.warnings.iter().map(Into::into).collect(),
            ..Self::from(&saved.campaign)
        }
    }
}

/// Which campaigns a list shows; all conditions must hold.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CampaignQuery {
    /// In these statuses, separated by commas.
    pub status: Option<String>,
    /// Scheduled on or after this local date.
    #[param(value_type = Option<String>)]
    pub from: Option<LocalDate>,
    /// Scheduled on or before this local date.
    #[param(value_type = Option<String>)]
    pub to: Option<LocalDate>,
    /// Whose title contains this.
    #[serde(alias = "q")]
    pub search: Option<String>,
}

impl CampaignQuery {
    fn filter(&self, caller: &Caller) -> Result<CampaignFilter, ApiError> {
        let known = CampaignStatus::ALL.map(|status| word(&status));
        let statuses = self
            .status
            .as_deref()
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(|name| {
                let at = known.iter().position(|known| known.eq_ignore_ascii_case(name));
                at.map(|at| CampaignStatus::ALL[at]).ok_or_else(|| {
                    let expected = format!("must be one of {}", known.join(", "));
                    ApiError::field("status", "unknown", expected)
                })
            })
            .collect::<Result<_, _>>()?;
        if self.search.as_ref().is_some_and(|text| text.chars().count() > 100) {
            return Err(ApiError::field(
                "search",
                "too_long",
                "must be at most 100 characters long",
            ));
        }
        let zone = caller.user.settings.time_zone;
        Ok(CampaignFilter {
            statuses,
            from: self.from.map(|date| zone.instant(date, MIDNIGHT())),
            until: self.to.map(|date| zone.instant(date.plus_days(1), MIDNIGHT())),
            search: self.search.clone(),
        })
    }
}

/// The beginning of a day.
const MIDNIGHT: fn() -> LocalTime = || LocalTime::from_hm(0, 0).expect("a day begins at 00:00");

/// The campaigns, newest first, with their numbers.
#[utoipa::path(get, path = "/api/campaigns", tag = "campaigns", params(CampaignQuery, PageQuery),
    responses((status = 200, description = "A page of campaigns", body = Envelope<Listed<CampaignView>>)))]
async fn campaigns(
    caller: Caller,
    Query(query): Query<CampaignQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<CampaignView>> {
    let filter = query.filter(&caller)?;
    let page = caller.store.campaigns(&caller.scope, &filter, &page.request()?).await?;
    let mut items = Vec::with_capacity(page.rows.len());
    for campaign in &page.rows {
        let numbers = caller.handle.campaign_numbers(&caller.scope, campaign.id).await?;
        items.push(CampaignView {
            numbers: Some((&numbers.total).into()),
            ..campaign.into()
        });
    }
    let next = page.next.map(|key| key.to_string());
    Ok(Reply::ok("campaigns", Listed { items, next }))
}

/// Create a campaign; with date and time it is scheduled, unless `status` says `draft`.
#[utoipa::path(post, path = "/api/campaigns", tag = "campaigns", request_body = CampaignBody,
    responses((status = 200, description = "The campaign", body = Envelope<CampaignView>)))]
async fn create(caller: Caller, Body(body): Body<CampaignBody>) -> ApiResult<CampaignView> {
    let status = body.status;
    let draft = body.over(&caller, CampaignDraft::default()).await?;
    let has_start = draft.date.is_some() && draft.time.is_some();
    let save_as = match status {
        Some(SaveStatus::Scheduled) => SaveAs::Scheduled,
        None if has_start => SaveAs::Scheduled,
        _ => SaveAs::Draft,
    };
    let saved = caller.handle.create_campaign(&caller.scope, &draft, save_as).await?;
    Ok(Reply::ok("campaign created", (&saved).into()))
}

/// One campaign with its numbers.
#[utoipa::path(get, path = "/api/campaigns/{id}", tag = "campaigns",
    responses((status = 200, description = "The campaign", body = Envelope<CampaignView>)))]
async fn campaign(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<CampaignView> {
    let campaign = caller.store.campaign(&caller.scope, id).await?;
    let numbers = caller.handle.campaign_numbers(&caller.scope, id).await?;
    let view = CampaignView {
        numbers: Some((&numbers.total).into()),
        ..(&campaign).into()
    };
    Ok(Reply::ok("campaign", view))
}

/// Change a campaign that is a draft, scheduled or paused.
#[utoipa::path(put, path = "/api/campaigns/{id}", tag = "campaigns", request_body = CampaignBody,
    responses((status = 200, description = "The campaign", body = Envelope<CampaignView>)))]
async fn edit(caller: Caller, Ids(id): Ids<CampaignId>, Body(body): Body<CampaignBody>) -> ApiResult<CampaignView> {
    let before = caller.store.campaign(&caller.scope, id).await?;
    let version = body.version.unwrap_or(before.version);
    let status = body.status;
    let draft = body.over(&caller, CampaignDraft::from(&before)).await?;
    let edit = Edit::new(version, draft);
    let mut saved = caller.handle.edit_campaign(&caller.scope, id, &edit).await?;
    caller.fresh.used();
    match (status, saved.campaign.status) {
        (Some(SaveStatus::Scheduled), CampaignStatus::Draft) => {
            saved = caller.handle.schedule_campaign(&caller.scope, id).await?;
        }
        (Some(SaveStatus::Draft), CampaignStatus::Scheduled) => {
            saved.campaign = caller.handle.unschedule_campaign(&caller.scope, id).await?;
        }
        _ => {}
    }
    Ok(Reply::ok("campaign changed", (&saved).into()))
}

/// Delete a campaign that never started.
#[utoipa::path(delete, path = "/api/campaigns/{id}", tag = "campaigns",
    responses((status = 200, description = "Deleted", body = Envelope<Nothing>)))]
async fn delete(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<Nothing> {
    caller.handle.delete_campaign(&caller.scope, id).await?;
    Ok(Reply::done("campaign deleted"))
}

/// Make a draft of the same content and audience.
#[utoipa::path(post, path = "/api/campaigns/{id}/clone", tag = "campaigns",
    responses((status = 200, description = "The new draft", body = Envelope<CampaignView>)))]
async fn clone(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<CampaignView> {
    let campaign = caller.handle.clone_campaign(&caller.scope, id).await?;
    Ok(Reply::ok("campaign cloned", (&campaign).into()))
}

/// Let a draft wait for its date and time.
#[utoipa::path(post, path = "/api/campaigns/{id}/schedule", tag = "campaigns",
    responses((status = 200, description = "The campaign", body = Envelope<CampaignView>)))]
async fn schedule(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<CampaignView> {
    let saved = caller.handle.schedule_campaign(&caller.scope, id).await?;
    Ok(Reply::ok("campaign scheduled", (&saved).into()))
}

/// Make a scheduled campaign a draft again.
#[utoipa::path(post, path = "/api/campaigns/{id}/unschedule", tag = "campaigns",
    responses((status = 200, description = "The campaign", body = Envelope<CampaignView>)))]
async fn unschedule(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<CampaignView> {
    let campaign = caller.handle.unschedule_campaign(&caller.scope, id).await?;
    Ok(Reply::ok("campaign is a draft again", (&campaign).into()))
}

/// Start a draft or scheduled campaign at once.
#[utoipa::path(post, path = "/api/campaigns/{id}/start", tag = "campaigns",
    responses((status = 200, description = "The campaign", body = Envelope<CampaignView>)))]
async fn start(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<CampaignView> {
    let saved = caller.handle.start_campaign_now(&caller.scope, id).await?;
    Ok(Reply::ok("campaign starts", (&saved).into()))
}

/// Trigger a campaign whose audience is the pool. A draft or scheduled one starts at once; of a completed one, the leads that were
/// left over and those that came to the pool since are taken up, and each device may take as many as the limit says once more.
#[utoipa::path(post, path = "/api/campaigns-ai/{id}/trigger", tag = "campaigns",
    responses((status = 200, description = "The campaign", body = Envelope<CampaignView>)))]
async fn trigger(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<CampaignView> {
    let saved = caller.handle.trigger_campaign(&caller.scope, id).await?;
    Ok(Reply::ok("campaign triggered", (&saved).into()))
}

/// Pause a running campaign: from this answer on, nothing more of it begins.
#[utoipa::path(post, path = "/api/campaigns/{id}/pause", tag = "campaigns",
    responses((status = 200, description = "The campaign", body = Envelope<CampaignView>)))]
async fn pause(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<CampaignView> {
    let campaign = caller.handle.pause_campaign(&caller.scope, id).await?;
    Ok(Reply::ok("campaign paused", (&campaign).into()))
}

/// Let a paused campaign go on.
#[utoipa::path(post, path = "/api/campaigns/{id}/resume", tag = "campaigns",
    responses((status = 200, description = "The campaign", body = Envelope<CampaignView>)))]
async fn resume(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<CampaignView> {
    let campaign = caller.handle.resume_campaign(&caller.scope, id).await?;
    Ok(Reply::ok("campaign resumed", (&campaign).into()))
}

/// End a campaign for good: from this answer on, nothing more of it begins.
#[utoipa::path(post, path = "/api/campaigns/{id}/cancel", tag = "campaigns",
    responses((status = 200, description = "The campaign", body = Envelope<CampaignView>)))]
async fn cancel(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<CampaignView> {
    let campaign = caller.handle.cancel_campaign(&caller.scope, id).await?;
    Ok(Reply::ok("campaign cancelled", (&campaign).into()))
}

/// For whom.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PreviewQuery {
    /// The lead that would receive it.
    #[param(value_type = Option<uuid::Uuid>)]
    lead_id: Option<LeadId>,
}

/// What a lead would receive.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewView {
    /// The text, or the caption; choices and greeting are drawn anew for the real message.
    pub text: String,
    /// What is attached.
    pub media: Option<MediaView>,
    /// The length of the text, in characters.
    pub chars: u64,
    /// What would keep it from being sent.
    pub warnings: Vec<WarningView>,
}

/// What a given lead would receive.
#[utoipa::path(get, path = "/api/campaigns/{id}/preview", tag = "campaigns", params(PreviewQuery),
    responses((status = 200, description = "The preview", body = Envelope<PreviewView>)))]
async fn preview(
    caller: Caller,
    Ids(id): Ids<CampaignId>,
    Query(query): Query<PreviewQuery>,
) -> ApiResult<PreviewView> {
    caller.store.campaign(&caller.scope, id).await?;
    let lead = query
        .lead_id
        .ok_or_else(|| ApiError::field("lead_id", "required", "is required"))?;
    let preview = caller.handle.preview_campaign(&caller.scope, id, lead).await?;
    let view = PreviewView {
        text: preview.text,
        media: preview.media.as_ref().map(Into::into),
        chars: preview.chars as u64,
        warnings: preview.warnings.iter().map(Into::into).collect(),
    };
    Ok(Reply::ok("preview", view))
}

/// How many belong to an audience.
#[derive(Debug, Serialize, ToSchema)]
pub struct AudienceView {
    /// How many leads or uploaded recipients belong to it now.
    pub size: u64,
}

/// How many belong to the audience now.
#[utoipa::path(get, path = "/api/campaigns/{id}/audience", tag = "campaigns",
    responses((status = 200, description = "How many", body = Envelope<AudienceView>)))]
async fn audience(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<AudienceView> {
    let size = caller.handle.audience_size(&caller.scope, id).await?;
    Ok(Reply::ok("audience", AudienceView { size }))
}

/// One uploaded recipient.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EntryBody {
    /// The number.
    #[serde(default)]
    phone: String,
    /// The name.
    name: Option<String>,
    /// An own text.
    message: Option<String>,
    /// Own fields, for `{{custom.key}}`.
    #[serde(default)]
    custom: BTreeMap<String, String>,
}

/// Recipients of a draft campaign whose audience is `entries`.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EntriesBody {
    /// The position of the first one in the whole upload, from 1; the same position again is left alone.
    first_position: Option<u32>,
    /// At most 1,000.
    #[serde(default)]
    entries: Vec<EntryBody>,
}

/// What became of uploaded recipients.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntriesView {
    /// How many were taken.
    pub taken: u64,
    /// Those that were refused.
    pub refused: Vec<EntryRefusedView>,
}

/// A recipient that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntryRefusedView {
    /// Its position.
    pub position: u32,
    /// What is wrong.
    pub fields: Vec<FieldProblem>,
}

/// Upload recipients, each with an own text if wanted.
#[utoipa::path(post, path = "/api/campaigns/{id}/entries", tag = "campaigns", request_body = EntriesBody,
    responses((status = 200, description = "What became of them", body = Envelope<EntriesView>)))]
async fn entries(caller: Caller, Ids(id): Ids<CampaignId>, Body(body): Body<EntriesBody>) -> ApiResult<EntriesView> {
    let drafts: Vec<_> = body
        .entries
        .into_iter()
        .map(|entry| EntryDraft {
            phone: entry.phone,
            name: entry.name,
            message: entry.message,
            custom: entry.custom,
        })
        .collect();
    let first = body.first_position.unwrap_or(1);
    let uploaded = caller.handle.upload_entries(&caller.scope, id, first, &drafts).await?;
    let view = EntriesView {
        taken: uploaded.taken,
        refused: uploaded
            .refused
            .iter()
            .map(|(position, fields)| EntryRefusedView {
                position: *position,
                fields: fields.iter().map(Into::into).collect(),
            })
            .collect(),
    };
    Ok(Reply::ok("recipients uploaded", view))
}

/// The numbers of a campaign.
#[derive(Debug, Serialize, ToSchema)]
pub struct CampaignNumbersView {
    /// Where it stands.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Whether its audience is still being expanded, so that `should` still grows.
    pub expanding: bool,
    /// In all.
    pub total: NumbersView,
    /// Of the skipped ones, how many were left over because every device had reached the limit: triggering it again takes them up.
    pub left_over: u64,
    /// By device.
    pub devices: Vec<DeviceNumbersView>,
}

/// The numbers of one device within a campaign.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceNumbersView {
    /// The device; `null` for the pool.
    pub device_id: Option<String>,
    /// Its numbers.
    pub numbers: NumbersView,
}

impl From<&CampaignNumbers> for CampaignNumbersView {
    fn from(numbers: &CampaignNumbers) -> Self {
        Self {
            status: word(&numbers.status),
            reason: numbers.reason.as_ref().map(word),
            expanding: numbers.expanding,
            total: (&numbers.total).into(),
            left_over: numbers.left_over,
            devices: numbers
                .devices
                .iter()
                .map(|row| DeviceNumbersView {
                    device_id: row.device_id.map(|id| id.to_string()),
                    numbers: (&row.numbers).into(),
                })
                .collect(),
        }
    }
}

/// The numbers, in all and by device.
#[utoipa::path(get, path = "/api/campaigns/{id}/numbers", tag = "campaigns",
    responses((status = 200, description = "The numbers", body = Envelope<CampaignNumbersView>)))]
async fn numbers(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<CampaignNumbersView> {
    let numbers = caller.handle.campaign_numbers(&caller.scope, id).await?;
    Ok(Reply::ok("numbers", (&numbers).into()))
}

/// How far a campaign is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressView {
    /// Its numbers.
    pub numbers: CampaignNumbersView,
    /// When it will be over if things go on as they are.
    pub expected_end_at: Option<String>,
    /// Devices with messages of it that cannot send now: offline or on hold.
    pub waiting_devices: Vec<String>,
    /// Whether messages wait for any device to come online.
    pub pool_waits: bool,
}

impl From<&CampaignProgress> for ProgressView {
    fn from(progress: &CampaignProgress) -> Self {
        Self {
            numbers: (&progress.numbers).into(),
            expected_end_at: at(progress.expected_end_at),
            waiting_devices: progress.waiting_devices.iter().map(ToString::to_string).collect(),
            pool_waits: progress.pool_waits,
        }
    }
}

/// How far it is, and when it will be over.
#[utoipa::path(get, path = "/api/campaigns/{id}/progress", tag = "campaigns",
    responses((status = 200, description = "The progress", body = Envelope<ProgressView>)))]
async fn progress(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<ProgressView> {
    let progress = caller.handle.campaign_progress(&caller.scope, id).await?;
    Ok(Reply::ok("progress", (&progress).into()))
}

/// Which recipients a list shows; all conditions must hold.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RecipientQuery {
    /// Of this device.
    #[param(value_type = Option<uuid::Uuid>)]
    device_id: Option<DeviceId>,
    /// In these states, separated by commas.
    status: Option<String>,
    /// Also those that were sent again since.
    #[serde(default)]
    with_superseded: bool,
}

impl RecipientQuery {
    fn filter(&self) -> Result<RecipientFilter, ApiError> {
        Ok(RecipientFilter {
            device_id: self.device_id,
            states: states(self.status.as_deref())?,
            with_superseded: self.with_superseded,
        })
    }
}

/// The recipients with status, reason, time and device.
#[utoipa::path(get, path = "/api/campaigns/{id}/recipients", tag = "campaigns", params(RecipientQuery, PageQuery),
    responses((status = 200, description = "A page of recipients", body = Envelope<Listed<MessageView>>)))]
async fn recipients(
    caller: Caller,
    Ids(id): Ids<CampaignId>,
    Query(query): Query<RecipientQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<MessageView>> {
    listed(&caller, id, &query.filter()?, &page).await
}

async fn listed(
    caller: &Caller,
    id: CampaignId,
    filter: &RecipientFilter,
    page: &PageQuery,
) -> ApiResult<Listed<MessageView>> {
    let request = page.request()?;
    let page = caller.handle.recipients(&caller.scope, id, filter, &request).await?;
    Ok(Reply::ok(
        "recipients",
        Listed::of(page, |message| MessageView::from(&message)),
    ))
}

/// The recipients as CSV.
#[utoipa::path(get, path = "/api/campaigns/{id}/recipients/export", tag = "campaigns", params(RecipientQuery),
    responses((status = 200, description = "The file", content_type = "text/csv", body = String)))]
async fn recipients_export(
    caller: Caller,
    Ids(id): Ids<CampaignId>,
    Query(query): Query<RecipientQuery>,
) -> Result<axum::response::Response, ApiError> {
    use crate::csv_file::plain;
    caller.store.campaign(&caller.scope, id).await?;
    let filter = query.filter()?;
    let header = [
        "message_id",
        "name",
        "phone",
        "status",
        "reason",
        "detail",
        "device_id",
        "delivery",
        "attempted_at",
        "settled_at",
        "text",
    ];
    let header = header.map(str::to_owned).to_vec();
    Ok(csv_response(
        "recipients.csv",
        header,
        move |after: Option<MessageId>| {
            let (app, scope, filter) = (caller.app(), caller.scope.clone(), filter.clone());
            async move {
                let filter = wa_core::store::MessageFilter {
                    scope: Some(wa_core::domain::message::MessageScope::Campaign(id)),
                    device_id: filter.device_id,
                    states: filter.states,
                    with_superseded: filter.with_superseded,
                    ..Default::default()
                };
                let page = app.store.messages(&scope, &filter, &Rows::request(after)).await?;
                let rows = page
                    .rows
                    .iter()
                    .map(|message| {
                        let view = MessageView::from(message);
                        vec![
                            view.id,
                            plain(&view.name),
                            view.phone.unwrap_or_default(),
                            view.status,
                            view.reason.unwrap_or_default(),
                            plain(&view.detail.unwrap_or_default()),
                            view.device_id.unwrap_or_default(),
                            view.delivery.unwrap_or_default(),
                            view.attempted_at.unwrap_or_default(),
                            view.settled_at.unwrap_or_default(),
                            plain(&view.text.unwrap_or_default()),
                        ]
                    })
                    .collect();
                Ok((rows, page.next))
            }
        },
    ))
}

/// Which messages are sent again.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResendBody {
    /// Only those of this device.
    #[schema(value_type = Option<uuid::Uuid>)]
    device_id: Option<DeviceId>,
    /// Only these, at most 1,000; an unknown one only when it is named here, because it may have been received.
    #[schema(value_type = Option<Vec<uuid::Uuid>>)]
    message_ids: Option<Vec<MessageId>>,
}

/// What became of a request to send again.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResentView {
    /// How many are sent again.
    pub resent: u64,
    /// Whether there are more: ask again.
    pub more: bool,
}

async fn resend(caller: &Caller, id: CampaignId, which: Resend) -> ApiResult<ResentView> {
    let resent = caller.handle.resend_failed(&caller.scope, id, &which).await?;
    let view = ResentView {
        resent: resent.resent,
        more: resent.more,
    };
    Ok(Reply::ok("sent again", view))
}

/// Send failed messages again, each as the next round of the one it replaces.
#[utoipa::path(post, path = "/api/campaigns/{id}/resend-failed", tag = "campaigns", request_body = ResendBody,
    responses((status = 200, description = "How many", body = Envelope<ResentView>)))]
async fn resend_failed(
    caller: Caller,
    Ids(id): Ids<CampaignId>,
    Body(body): Body<ResendBody>,
) -> ApiResult<ResentView> {
    let which = Resend {
        device_id: body.device_id,
        message_ids: body.message_ids,
    };
    resend(&caller, id, which).await
}

/// Send the failed messages of one device again.
#[utoipa::path(post, path = "/api/campaigns/{id}/device/{device_id}/retry-failed", tag = "campaigns",
    responses((status = 200, description = "How many", body = Envelope<ResentView>)))]
async fn retry_failed(caller: Caller, Ids((id, device_id)): Ids<(CampaignId, DeviceId)>) -> ApiResult<ResentView> {
    caller.store.campaign(&caller.scope, id).await?;
    let which = Resend {
        device_id: Some(device_id),
        message_ids: None,
    };
    resend(&caller, id, which).await
}

/// The numbers of one device within a campaign, with its name.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceReportView {
    /// The device; `null` for the pool.
    pub device_id: Option<String>,
    /// Its name; `null` for the pool and for one that was deleted.
    pub name: Option<String>,
    /// `online` or `offline`.
    pub status: Option<String>,
    /// Its numbers.
    pub numbers: NumbersView,
}

/// The numbers by device.
#[utoipa::path(get, path = "/api/campaigns/{id}/device-report", tag = "campaigns",
    responses((status = 200, description = "The devices", body = Envelope<Listed<DeviceReportView>>)))]
async fn device_report(caller: Caller, Ids(id): Ids<CampaignId>) -> ApiResult<Listed<DeviceReportView>> {
    let report = caller.handle.device_report(&caller.scope, id).await?;
    let items = report
        .into_iter()
        .map(|row| DeviceReportView {
            device_id: row.device_id.map(|id| id.to_string()),
            name: row.name,
            status: row.status.as_ref().map(word),
            numbers: (&row.numbers).into(),
        })
        .collect();
    Ok(Reply::ok("device report", Listed { items, next: None }))
}

/// The recipients of one device.
#[utoipa::path(get, path = "/api/campaigns/{id}/device/{device_id}/leads", tag = "campaigns",
    params(RecipientQuery, PageQuery),
    responses((status = 200, description = "A page of recipients", body = Envelope<Listed<MessageView>>)))]
async fn device_leads(
    caller: Caller,
    Ids((id, device_id)): Ids<(CampaignId, DeviceId)>,
    Query(query): Query<RecipientQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<MessageView>> {
    let filter = RecipientFilter {
        device_id: Some(device_id),
        ..query.filter()?
    };
    listed(&caller, id, &filter, &page).await
}

/// All campaigns that a filter shows, up to [`LOOKED_AT_MAX`].
async fn all(caller: &Caller, filter: &CampaignFilter) -> Result<Vec<Campaign>, ApiError> {
    let mut found = Vec::new();
    let mut request = PageRequest::first(PAGE_MAX);
    loop {
        let page = caller.store.campaigns(&caller.scope, filter, &request).await?;
        found.extend(page.rows);
        match page.next {
            Some(next) if found.len() < LOOKED_AT_MAX => request = PageRequest::after(next, PAGE_MAX),
            _ => return Ok(found),
        }
    }
}

/// How many campaigns stand where.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct CampaignCountsView {
    /// All.
    pub total: u64,
    /// Drafts and scheduled ones.
    pub pending: u64,
    /// Drafts.
    pub draft: u64,
    /// Scheduled ones.
    pub scheduled: u64,
    /// Started, nothing settled yet.
    pub triggered: u64,
    /// Started, at least one message settled.
    pub processing: u64,
    /// Completed ones.
    pub sent: u64,
    /// Failed ones.
    pub failed: u64,
    /// Paused ones.
    pub paused: u64,
    /// Cancelled ones.
    pub cancelled: u64,
}

/// The numbers over all campaigns.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct BroadcastStatsView {
    /// What should be sent in all: the sum of the others.
    pub total_should_send: u64,
    /// Sent.
    pub total_done_send: u64,
    /// Certainly not sent.
    pub total_failed_send: u64,
    /// Will not be sent.
    pub total_skipped_send: u64,
    /// May have been sent and nobody can tell.
    pub total_unknown_send: u64,
    /// Ended first.
    pub total_cancelled_send: u64,
    /// Still to be sent.
    pub total_remaining_send: u64,
}

/// A campaign in a summary.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecentCampaignView {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Where it stands.
    pub status: String,
    /// When it starts or started.
    pub scheduled_at: Option<String>,
    /// Whether its audience is still being expanded.
    pub expanding: bool,
    /// What should be sent in all: the sum of the others.
    pub should_send: u64,
    /// Sent.
    pub done_send: u64,
    /// Certainly not sent.
    pub failed_send: u64,
    /// Will not be sent.
    pub skipped_send: u64,
    /// May have been sent and nobody can tell.
    pub unknown_send: u64,
    /// Ended first.
    pub cancelled_send: u64,
    /// Still to be sent.
    pub remaining_send: u64,
}

/// All campaigns in numbers.
#[derive(Debug, Serialize, ToSchema)]
pub struct SummaryView {
    /// How many stand where.
    pub campaigns: CampaignCountsView,
    /// The numbers over all of them.
    pub broadcast_stats: BroadcastStatsView,
    /// The newest ones.
    pub recent_campaigns: Vec<RecentCampaignView>,
    /// Whether an audience is being expanded, so that the numbers still grow.
    pub expanding: bool,
}

/// Which messages a summary counts.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SummaryQuery {
    /// Completed on or after this local date.
    #[serde(alias = "start_date", alias = "date_from")]
    #[param(value_type = Option<String>)]
    from: Option<LocalDate>,
    /// Completed on or before this local date. With either date, what was open at its end counts as remaining.
    #[serde(alias = "end_date", alias = "date_to")]
    #[param(value_type = Option<String>)]
    to: Option<LocalDate>,
}

impl SummaryQuery {
    /// The span of time in the caller's zone, if one is asked for.
    fn within(&self, caller: &Caller) -> Result<Option<Range<Timestamp>>, ApiError> {
        if self.from.is_none() && self.to.is_none() {
            return Ok(None);
        }
        if self.from.zip(self.to).is_some_and(|(from, to)| from > to) {
            return Err(ApiError::field("from", "out_of_range", "must not be after to"));
        }
        let zone = caller.user.settings.time_zone;
        let start = self
            .from
            .map_or(Timestamp::EPOCH, |date| zone.instant(date, MIDNIGHT()));
        let end = self.to.map(|date| zone.instant(date.plus_days(1), MIDNIGHT()));
        // Nothing was completed after tomorrow.
        let end = end.unwrap_or_else(|| caller.clock.wall() + Duration::from_secs(24 * 3_600));
        Ok(Some(start..end))
    }
}

/// All campaigns in numbers; with dates, the messages that were completed on them.
#[utoipa::path(get, path = "/api/campaigns/summary", tag = "campaigns", params(SummaryQuery),
    responses((status = 200, description = "The summary", body = Envelope<SummaryView>)))]
async fn summary(caller: Caller, Query(query): Query<SummaryQuery>) -> ApiResult<SummaryView> {
    Ok(Reply::ok("summary", summed(&caller, &query).await?))
}

/// The numbers over all campaigns; with dates, of the messages that were completed on them.
#[utoipa::path(get, path = "/api/broadcast/stats", tag = "campaigns", params(SummaryQuery),
    responses((status = 200, description = "The numbers", body = Envelope<BroadcastStatsView>)))]
async fn broadcast_stats(caller: Caller, Query(query): Query<SummaryQuery>) -> ApiResult<BroadcastStatsView> {
    let summary = summed(&caller, &query).await?;
    Ok(Reply::ok("numbers over all campaigns", summary.broadcast_stats))
}

async fn summed(caller: &Caller, query: &SummaryQuery) -> Result<SummaryView, ApiError> {
    let within = query.within(caller)?;
    let campaigns = all(caller, &CampaignFilter::default()).await?;
    let mut counts = CampaignCountsView::default();
    let mut total = Numbers::default();
    let mut recent = Vec::new();
    let expanding = campaigns.iter().any(Campaign::is_expanding);
    for campaign in &campaigns {
        let never_started = matches!(campaign.status, CampaignStatus::Draft | CampaignStatus::Scheduled);
        // What never started has no messages to count.
        let numbers = if never_started {
            Numbers::default()
        } else {
            caller.handle.campaign_numbers(&caller.scope, campaign.id).await?.total
        };
        counts.total += 1;
        let settled = numbers.should() > numbers.remaining;
        let numbers = match &within {
            Some(within) if !never_started => {
                let counted = caller
                    .handle
                    .campaign_numbers_within(&caller.scope, campaign.id, within);
                counted.await?
            }
            _ => numbers,
        };
        *match campaign.status {
            CampaignStatus::Draft => &mut counts.draft,
            CampaignStatus::Scheduled => &mut counts.scheduled,
            CampaignStatus::Triggered if settled => &mut counts.processing,
            CampaignStatus::Triggered => &mut counts.triggered,
            CampaignStatus::Paused => &mut counts.paused,
            CampaignStatus::Completed => &mut counts.sent,
            CampaignStatus::Failed => &mut counts.failed,
            CampaignStatus::Cancelled => &mut counts.cancelled,
        } += 1;
        total += numbers;
        if recent.len() < RECENT {
            recent.push(RecentCampaignView {
                id: campaign.id.to_string(),
                title: campaign.title.clone(),
                status: word(&campaign.status),
                scheduled_at: at(campaign.scheduled_at),
                expanding: campaign.is_expanding(),
                should_send: numbers.should(),
                done_send: numbers.done,
                failed_send: numbers.failed,
                skipped_send: numbers.skipped,
                unknown_send: numbers.unknown,
                cancelled_send: numbers.cancelled,
                remaining_send: numbers.remaining,
            });
        }
    }
    counts.pending = counts.draft + counts.scheduled;
    Ok(SummaryView {
        campaigns: counts,
        broadcast_stats: BroadcastStatsView {
            total_should_send: total.should(),
            total_done_send: total.done,
            total_failed_send: total.failed,
            total_skipped_send: total.skipped,
            total_unknown_send: total.unknown,
            total_cancelled_send: total.cancelled,
            total_remaining_send: total.remaining,
        },
        recent_campaigns: recent,
        expanding,
    })
}

/// Which part of the calendar.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CalendarQuery {
    /// The year.
    year: Option<i32>,
    /// The month, 1 to 12; the whole year when it is not given.
    month: Option<u32>,
}

/// A day with campaigns.
#[derive(Debug, Serialize, ToSchema)]
pub struct DayView {
    /// The local date.
    pub date: String,
    /// How many campaigns start on it.
    pub count: u64,
    /// Up to five of their niches.
    pub niches: Vec<String>,
    /// The campaigns, earliest first.
    pub campaigns: Vec<DayCampaignView>,
}

/// A campaign in the calendar.
#[derive(Debug, Serialize, ToSchema)]
pub struct DayCampaignView {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its local time.
    pub time: Option<String>,
    /// Where it stands.
    pub status: String,
}

/// The campaigns of a month or year by local day.
#[utoipa::path(get, path = "/api/campaigns/calendar", tag = "campaigns", params(CalendarQuery),
    responses((status = 200, description = "The days with campaigns", body = Envelope<Listed<DayView>>)))]
async fn calendar(caller: Caller, Query(query): Query<CalendarQuery>) -> ApiResult<Listed<DayView>> {
    let zone = caller.user.settings.time_zone;
    let year = query
        .year
        .ok_or_else(|| ApiError::field("year", "required", "is required"))?;
    let first = |year, month| LocalDate::from_ymd(year, month, 1).filter(|_| (1970..=9998).contains(&year));
    let (from, until) = match query.month {
        None => (first(year, 1), first(year + 1, 1)),
        Some(12) => (first(year, 12), first(year + 1, 1)),
        Some(month) => (first(year, month), first(year, month.saturating_add(1))),
    };
    let (Some(from), Some(until)) = (from, until) else {
        return Err(ApiError::field(
            "month",
            "out_of_range",
            "must be 1 to 12, and the year one of this calendar",
        ));
    };
    // A campaign may have another zone than its user; its own local date counts.
    let day = Duration::from_secs(24 * 3_600);
    let filter = CampaignFilter {
        from: Some(zone.instant(from, MIDNIGHT()) - day),
        until: Some(zone.instant(until, MIDNIGHT()) + day),
        ..CampaignFilter::default()
    };
    let mut days: BTreeMap<LocalDate, Vec<Campaign>> = BTreeMap::new();
    for campaign in all(&caller, &filter).await? {
        let date = campaign
            .date
            .or_else(|| campaign.scheduled_at.map(|at| campaign.time_zone.local_date(at)));
        if let Some(date) = date.filter(|date| (from..until).contains(date)) {
            days.entry(date).or_default().push(campaign);
        }
    }
    let items = days
        .into_iter()
        .map(|(date, mut campaigns)| {
            campaigns.sort_by_key(|campaign| (campaign.scheduled_at, campaign.id));
            let mut niches: Vec<&Token> = Vec::new();
            for campaign in &campaigns {
                if let Some(niche) = campaign.audience.niche()
                    && niches.len() < DAY_NICHES_MAX
                    && !niches.contains(&niche)
                {
                    niches.push(niche);
                }
            }
            DayView {
                date: date.to_string(),
                count: campaigns.len() as u64,
                niches: niches.iter().map(ToString::to_string).collect(),
                campaigns: campaigns
                    .iter()
                    .map(|campaign| DayCampaignView {
                        id: campaign.id.to_string(),
                        title: campaign.title.clone(),
                        time: campaign.time.map(|time| time.to_string()),
                        status: word(&campaign.status),
                    })
                    .collect(),
            }
        })
        .collect();
    Ok(Reply::ok("calendar", Listed { items, next: None }))
}
