//! Sequences: drip campaigns whose steps each lead gets one after the other.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::schedule::{LocalDate, LocalTime};
use wa_core::domain::sequence::{Sequence, SequenceStatus, Step};
use wa_core::engine::handle::{OpenEnd, SavedSequence, SequenceNumbers, SequenceWithSteps};
use wa_core::id::{DeviceId, LeadId, SequenceId, StepId};
use wa_core::plan::sequence_numbers::ContactNumbers;
use wa_core::plan::{DelayDraft, Edit, MediaDraft, QuietDraft, RandomizerDraft, SequenceDraft, StepDraft};
use wa_core::store::{SequenceFilter, Span};

use super::campaigns::PreviewView;
use super::devices::seconds;
use super::envelope::{Envelope, Listed, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Body, Caller, Ids, Locked, PageQuery, Query};
use super::pictures::{MediaBody, attached};
use super::templates::MediaView;
use super::view::{Given, NumbersView, WarningView, at, word};

/// How many sequences a summary shows.
const RECENT: u32 = 10;

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(sequences, create))
        .routes(routes!(summary))
        .routes(routes!(sequence, edit, delete))
        .routes(routes!(preview_edit))
        .routes(routes!(clone))
        .routes(routes!(start))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(stop))
        .routes(routes!(toggle))
        .routes(routes!(preview))
}

/// One step of a sequence. Of a step that is named by its id, fields that are not named stay as they are and `null` empties.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepBody {
    /// The step that this is; none for a new one.
    #[schema(value_type = Option<uuid::Uuid>)]
    id: Option<StepId>,
    /// The day that it is shown on, 1 to 3,650.
    #[serde(alias = "day_number")]
    #[schema(value_type = Option<i64>)]
    #[serde(default)]
    day: Given<i64>,
    /// Its trigger, unlike that of any other step; named after the entry trigger and its day when it is not given.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    trigger: Given<String>,
    /// Of the last step: the trigger that the lead gets instead of the one by which it entered.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    next_trigger: Given<String>,
    /// Whether leads with its trigger enter here; the first step is an entry point unless it says otherwise.
    #[serde(alias = "is_entry_point")]
    #[schema(value_type = Option<bool>)]
    #[serde(default)]
    entry_point: Given<bool>,
    /// How many hours after it was sent the next step is due, from 1 hour to 52 weeks; 24 when it is not given.
    #[serde(alias = "trigger_delay_hours")]
    #[schema(value_type = Option<f64>)]
    #[serde(default)]
    delay_hours: Given<f64>,
    /// Its text, with `{{name}}`, `{{phone}}`, `{{niche}}`, `{{custom.key}}` and `{a|b}`.
    #[serde(alias = "content")]
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    message: Given<String>,
    /// What is attached.
    #[schema(value_type = Option<MediaBody>)]
    #[serde(default)]
    media: Given<MediaBody>,
    /// The address of a picture to attach.
    #[serde(alias = "media_url")]
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    image_url: Given<String>,
    /// The local time at which it is sent, such as 09:00; as the sequence has it when it is not given.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    send_time: Given<String>,
    /// Shortest pause before it, in seconds.
    #[serde(alias = "min_delay_seconds")]
    #[schema(value_type = Option<u64>)]
    #[serde(default)]
    min_delay: Given<u64>,
    /// Longest pause before it, in seconds.
    #[serde(alias = "max_delay_seconds")]
    #[schema(value_type = Option<u64>)]
    #[serde(default)]
    max_delay: Given<u64>,
}

/// A wait in hours as whole seconds.
fn hours(given: Given<f64>) -> Given<i64> {
    match given {
        Given::Absent => Given::Absent,
        Given::Null => Given::Null,
        // What is out of range for seconds is out of range for a wait too.
        #[allow(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
        Given::Value(hours) => Given::Value((hours * 3_600.0).round() as i64),
    }
}

fn delay_over(min: Given<u64>, max: Given<u64>, before: Option<DelayDraft>) -> Option<DelayDraft> {
    let before = before.unwrap_or_default();
    let delay = DelayDraft {
        min: seconds(min).over(before.min),
        max: seconds(max).over(before.max),
    };
    (delay != DelayDraft::default()).then_some(delay)
}

impl StepBody {
    async fn over(self, caller: &Caller, before: StepDraft) -> Result<StepDraft, ApiError> {
        let media: Option<MediaDraft> = match (self.media, self.image_url) {
            (Given::Value(media), _) => Some(attached(caller, media).await?),
            (_, Given::Value(url)) if !url.trim().is_empty() => Some(attached(caller, MediaBody::of_url(url)).await?),
            (Given::Null, _) | (_, Given::Null | Given::Value(_)) => None,
            (Given::Absent, Given::Absent) => before.media,
        };
        Ok(StepDraft {
            id: self.id,
            day: self.day.over(before.day),
            trigger: self.trigger.over(before.trigger),
            next_trigger: self.next_trigger.over(before.next_trigger),
            entry_point: self.entry_point.over(before.entry_point),
            wait_secs: hours(self.delay_hours).over(before.wait_secs),
            message: self.message.over(before.message),
            media,
            send_time: self.send_time.over(before.send_time),
            delay: delay_over(self.min_delay, self.max_delay, before.delay),
        })
    }
}

/// What a sequence is or is to become. In a change, fields that are not named stay as they are and `null` empties.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SequenceBody {
    /// Its name, 1 to 200 characters.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    name: Given<String>,
    /// Notes.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    description: Given<String>,
    /// Leads with this niche enter too, at the first entry point.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    niche: Given<String>,
    /// `prospect`, `customer` or `all`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    target_status: Given<String>,
    /// The only device that sends it.
    #[schema(value_type = Option<uuid::Uuid>)]
    #[serde(default)]
    device_id: Given<DeviceId>,
    /// `own_device`, `balanced`, `round_robin` or `random`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    routing: Given<String>,
    /// Its zone by IANA name; the user's when it is not given.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    time_zone: Given<String>,
    /// The local time at which steps are sent, such as 09:00; at once when it is not given.
    #[serde(alias = "time_schedule", alias = "schedule_time")]
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    send_time: Given<String>,
    /// What happens to a step that nobody was there to send in time: `run` or `skip`.
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
    /// Whether a greeting is put before each text.
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
    /// How long after it is due a step may still be sent, in seconds.
    #[schema(value_type = Option<u64>)]
    #[serde(default)]
    expires_after: Given<u64>,
    /// What a failed step does to its run: `continue` or `stop`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    on_failure: Given<String>,
    /// Whether a reply ends the run, and what a human writes to the person on the own phone of a linked device.
    #[schema(value_type = Option<bool>)]
    #[serde(default)]
    exit_on_reply: Given<bool>,
    /// Whether a person may enter again: `never`, `after_completion` or `always`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    re_entry: Given<String>,
    /// All its steps, in order; in a change, those that stay name their id, and those that are not named are removed.
    #[schema(value_type = Option<Vec<StepBody>>)]
    #[serde(default)]
    steps: Given<Vec<StepBody>>,
    /// The version that was read; a change of another version is refused.
    version: Option<i64>,
}

impl SequenceBody {
    async fn over(self, caller: &Caller, before: SequenceDraft) -> Result<SequenceDraft, ApiError> {
        let steps = match self.steps {
            Given::Absent => before.steps,
            Given::Null => Some(Vec::new()),
            Given::Value(bodies) => {
                let mut known = before.steps.unwrap_or_default();
                let mut steps = Vec::with_capacity(bodies.len());
                for (place, body) in bodies.into_iter().enumerate() {
                    let same = known.iter().position(|step| step.id.is_some() && step.id == body.id);
                    let step = same.map(|same| known.swap_remove(same)).unwrap_or_default();
                    let step = body.over(caller, step).await;
                    steps.push(step.map_err(|error| error.within(&format!("steps[{place}]")))?);
                }
                Some(steps)
            }
        };
        let quiet = before.quiet_hours.unwrap_or_default();
        let quiet = QuietDraft {
            from: self.quiet_from.over(Some(quiet.from)).unwrap_or_default(),
            until: self.quiet_until.over(Some(quiet.until)).unwrap_or_default(),
        };
        Ok(SequenceDraft {
            name: self.name.over(before.name),
            description: self.description.over(before.description),
            niche: self.niche.over(before.niche),
            target_status: self.target_status.over(before.target_status),
            device_id: self.device_id.over(before.device_id),
            routing: self.routing.over(before.routing),
            time_zone: self.time_zone.over(before.time_zone),
            send_time: self.send_time.over(before.send_time),
            late_policy: self.late_policy.over(before.late_policy),
            delay: delay_over(self.min_delay, self.max_delay, before.delay),
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
            on_failure: self.on_failure.over(before.on_failure),
            exit_on_reply: self.exit_on_reply.over(before.exit_on_reply),
            re_entry: self.re_entry.over(before.re_entry),
            steps,
        })
    }
}

/// One step of a sequence.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepView {
    /// Its id.
    pub id: String,
    /// The day that it is shown on.
    pub day: u16,
    /// Its trigger.
    pub trigger: String,
    /// The trigger of the step that follows; of the last step, the one that the lead gets in the end.
    pub next_trigger: Option<String>,
    /// Whether leads may enter here.
    pub entry_point: bool,
    /// How many hours after it was sent the next step is due.
    pub delay_hours: f64,
    /// Its text.
    pub message: String,
    /// What is attached.
    pub media: Option<MediaView>,
    /// The local time at which it is sent.
    pub send_time: Option<String>,
    /// Shortest pause before it, in seconds.
    pub min_delay: Option<u64>,
    /// Longest pause before it, in seconds.
    pub max_delay: Option<u64>,
}

/// The steps with the trigger that follows on each.
fn steps_of(steps: &[Step]) -> Vec<StepView> {
    let follows = steps.iter().skip(1).map(|step| Some(&step.trigger)).chain([None]);
    let pairs = steps.iter().zip(follows);
    let view = |(step, follows): (&Step, Option<&_>)| StepView {
        id: step.id.to_string(),
        day: step.day,
        trigger: step.trigger.to_string(),
        next_trigger: follows.or(step.next_trigger.as_ref()).map(ToString::to_string),
        entry_point: step.entry_point,
        delay_hours: step.wait.as_secs_f64() / 3_600.0,
        message: step.content.text.clone(),
        media: step.content.media.as_ref().map(Into::into),
        send_time: step.send_time.map(|time| time.to_string()),
        min_delay: step.delay.map(|delay| delay.min().as_secs()),
        max_delay: step.delay.map(|delay| delay.max().as_secs()),
    };
    pairs.map(view).collect()
}

/// A sequence.
#[derive(Debug, Serialize, ToSchema)]
pub struct SequenceView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Notes.
    pub description: String,
    /// The trigger by which leads enter first.
    pub trigger: Option<String>,
    /// Leads with this niche enter too.
    pub niche: Option<String>,
    /// `prospect`, `customer` or `all`.
    pub target_status: String,
    /// The only device that sends it.
    pub device_id: Option<String>,
    /// Which device writes to whom.
    pub routing: String,
    /// Its zone.
    pub time_zone: String,
    /// The local time at which steps are sent.
    pub send_time: Option<String>,
    /// What happens to a step that nobody was there to send in time.
    pub late_policy: String,
    /// Shortest pause between messages, in seconds.
    pub min_delay: Option<u64>,
    /// Longest pause between messages, in seconds.
    pub max_delay: Option<u64>,
    /// From when it must not send.
    pub quiet_from: Option<String>,
    /// Until when it must not send.
    pub quiet_until: Option<String>,
    /// Whether a greeting is put before each text.
    pub greeting: bool,
    /// The greetings' language.
    pub greeting_locale: String,
    /// Whether letters are varied.
    pub randomizer: bool,
    /// How long after it is due a step may still be sent, in seconds.
    pub expires_after: u64,
    /// What a failed step does to its run.
    pub on_failure: String,
    /// Whether a reply ends the run, and what a human writes to the person on the own phone of a linked device.
    pub exit_on_reply: bool,
    /// Whether a person may enter again.
    pub re_entry: String,
    /// Where it stands.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// When it became so.
    pub status_at: String,
    /// Its steps, in order.
    pub steps: Vec<StepView>,
    /// The version of its steps.
    pub steps_version: i32,
    /// When it was activated first.
    pub started_at: Option<String>,
    /// When it was last paused.
    pub paused_at: Option<String>,
    /// When it was created.
    pub created_at: String,
    /// When a person last changed it.
    pub updated_at: String,
    /// Its version, to be named in a change.
    pub version: i64,
    /// Its numbers; the unit is one lead and one step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers: Option<NumbersView>,
    /// The runs, by where they stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contacts: Option<ContactNumbersView>,
    /// What does not keep it from being saved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<WarningView>,
}

fn shown(sequence: &Sequence, steps: &[Step], trigger: Option<String>) -> SequenceView {
    SequenceView {
        id: sequence.id.to_string(),
        name: sequence.name.clone(),
        description: sequence.description.clone(),
        trigger,
        niche: sequence.niche.as_ref().map(ToString::to_string),
        target_status: word(&sequence.target),
        device_id: sequence.device_id.map(|id| id.to_string()),
        routing: word(&sequence.routing),
        time_zone: sequence.time_zone.to_string(),
        send_time: sequence.send_time.map(|time| time.to_string()),
        late_policy: word(&sequence.late_policy),
        min_delay: sequence.delay.map(|delay| delay.min().as_secs()),
        max_delay: sequence.delay.map(|delay| delay.max().as_secs()),
        quiet_from: sequence.quiet_hours.map(|hours| hours.from().to_string()),
        quiet_until: sequence.quiet_hours.map(|hours| hours.until().to_string()),
        greeting: sequence.dressing.greeting,
        greeting_locale: sequence.dressing.greeting_locale.clone(),
        randomizer: sequence.dressing.randomizer.is_some(),
        expires_after: sequence.expires_after.as_secs(),
        on_failure: word(&sequence.on_failure),
        exit_on_reply: sequence.exit_on_reply,
        re_entry: word(&sequence.re_entry),
        status: word(&sequence.status),
        reason: sequence.reason.as_ref().map(word),
        status_at: sequence.status_at.to_string(),
        steps: steps_of(steps),
        steps_version: sequence.steps_version,
        started_at: at(sequence.started_at),
        paused_at: at(sequence.paused_at),
        created_at: sequence.created_at.to_string(),
        updated_at: sequence.updated_at.to_string(),
        version: sequence.version,
        numbers: None,
        contacts: None,
        warnings: Vec::new(),
    }
}

impl From<&SequenceWithSteps> for SequenceView {
    fn from(of: &SequenceWithSteps) -> Self {
        shown(&of.sequence, of.list(), of.trigger().map(ToString::to_string))
    }
}

impl From<&SavedSequence> for SequenceView {
    fn from(saved: &SavedSequence) -> Self {
        Self {
            warnings: saved.warnings.iter().map(Into::into).collect(),
            ..Self::from(&saved.saved)
        }
    }
}

impl SequenceView {
    fn with_numbers(self, numbers: &SequenceNumbers) -> Self {
        Self {
            numbers: Some((&numbers.total).into()),
            contacts: Some((&numbers.contacts).into()),
            ..self
        }
    }
}

/// The runs through a sequence, by where they stand.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ContactNumbersView {
    /// All of them.
    pub total: u64,
    /// Still going on.
    pub open: u64,
    /// Every step is settled.
    pub completed: u64,
    /// Ended before the last step.
    pub ended: u64,
    /// Of those that ended, how many for which reason.
    pub ended_by: std::collections::BTreeMap<String, u64>,
    /// Of those completed, how many were not taken by the next sequence, by reason.
    pub not_chained: std::collections::BTreeMap<String, u64>,
}

impl From<&ContactNumbers> for ContactNumbersView {
    fn from(numbers: &ContactNumbers) -> Self {
        let by_reason = |rows: &[(wa_core::domain::enrolment::EnrolmentReason, u64)]| {
            rows.iter().map(|(reason, count)| (word(reason), *count)).collect()
        };
        Self {
            total: numbers.total,
            open: numbers.open,
            completed: numbers.completed,
            ended: numbers.ended,
            ended_by: by_reason(&numbers.ended_by),
            not_chained: by_reason(&numbers.not_chained),
        }
    }
}

/// Which sequences a list shows; all conditions must hold.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SequenceQuery {
    /// In one of these statuses, separated by commas.
    pub status: Option<String>,
    /// Whose name contains this.
    #[serde(alias = "q")]
    pub search: Option<String>,
}

impl SequenceQuery {
    fn filter(&self) -> Result<SequenceFilter, ApiError> {
        if self.search.as_ref().is_some_and(|text| text.chars().count() > 100) {
            let expected = "must be at most 100 characters long";
            return Err(ApiError::field("search", "too_long", expected));
        }
        Ok(SequenceFilter {
            statuses: super::view::words_of("status", self.status.as_deref(), &SequenceStatus::ALL)?,
            search: self.search.clone(),
        })
    }
}

/// The days in which something was completed, in the user's zone.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SpanQuery {
    /// The first day, such as 2026-11-21.
    #[param(value_type = Option<String>)]
    pub from: Option<LocalDate>,
    /// The last day.
    #[param(value_type = Option<String>)]
    pub to: Option<LocalDate>,
}

impl SpanQuery {
    pub(super) fn span(&self, caller: &Caller) -> Span {
        let zone = caller.user.settings.time_zone;
        let midnight = LocalTime::from_hm(0, 0).expect("a day begins at 00:00");
        Span {
            from: self.from.map(|date| zone.instant(date, midnight)),
            until: self.to.map(|date| zone.instant(date.plus_days(1), midnight)),
        }
    }
}

/// The sequences, newest first, with their numbers.
#[utoipa::path(get, path = "/api/sequences", tag = "sequences", params(SequenceQuery, PageQuery),
    responses((status = 200, description = "A page of sequences", body = Envelope<Listed<SequenceView>>)))]
async fn sequences(
    caller: Caller,
    Query(query): Query<SequenceQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<SequenceView>> {
    let request = page.request()?;
    let page = caller
        .handle
        .sequences(&caller.scope, &query.filter()?, &request)
        .await?;
    let all_time = Span::default();
    let mut items = Vec::with_capacity(page.rows.len());
    for of in &page.rows {
        let numbers = caller
            .handle
            .sequence_numbers(&caller.scope, of.sequence.id, &all_time)
            .await?;
        items.push(SequenceView::from(of).with_numbers(&numbers));
    }
    let next = page.next.map(|key| key.to_string());
    Ok(Reply::ok("sequences", Listed { items, next }))
}

/// Create a sequence as a draft, with or without steps.
#[utoipa::path(post, path = "/api/sequences", tag = "sequences", request_body = SequenceBody,
    responses((status = 200, description = "The sequence", body = Envelope<SequenceView>)))]
async fn create(caller: Caller, Body(body): Body<SequenceBody>) -> ApiResult<SequenceView> {
    let draft = body.over(&caller, SequenceDraft::default()).await?;
    let saved = caller.handle.create_sequence(&caller.scope, &draft).await?;
    Ok(Reply::ok("sequence created", (&saved).into()))
}

/// One sequence with its steps and numbers.
#[utoipa::path(get, path = "/api/sequences/{id}", tag = "sequences",
    responses((status = 200, description = "The sequence", body = Envelope<SequenceView>)))]
async fn sequence(caller: Caller, Ids(id): Ids<SequenceId>) -> ApiResult<SequenceView> {
    let of = caller.handle.sequence(&caller.scope, id).await?;
    let all_time = Span::default();
    let numbers = caller.handle.sequence_numbers(&caller.scope, id, &all_time).await?;
    let view = SequenceView::from(&of).with_numbers(&numbers);
    Ok(Reply::ok("sequence", view))
}

async fn edit_of(caller: &Caller, id: SequenceId, body: SequenceBody) -> Result<wa_core::plan::SequenceEdit, ApiError> {
    let before = caller.handle.sequence(&caller.scope, id).await?;
    let version = body.version.unwrap_or(before.sequence.version);
    Ok(Edit::new(version, body.over(caller, before.draft()).await?))
}

/// Change a sequence in any status; who runs through it gets the active step as it was, and the new ones after it.
#[utoipa::path(put, path = "/api/sequences/{id}", tag = "sequences", request_body = SequenceBody,
    responses((status = 200, description = "The sequence", body = Envelope<SequenceView>)))]
async fn edit(caller: Caller, Ids(id): Ids<SequenceId>, Body(body): Body<SequenceBody>) -> ApiResult<SequenceView> {
    let edit = edit_of(&caller, id, body).await?;
    let saved = caller.handle.edit_sequence(&caller.scope, id, &edit).await?;
    Ok(Reply::ok("sequence changed", (&saved).into()))
}

/// What an edit changes for those who stand at one step.
#[derive(Debug, Serialize, ToSchema)]
pub struct EditEffectView {
    /// The step that is active for them; they get it as it is.
    pub step_id: String,
    /// The version of the steps that they have.
    pub steps_version: i32,
    /// How many runs stand there.
    pub contacts: u64,
    /// Steps that they will not get any more.
    pub removed: Vec<String>,
    /// Steps that they will get beside those that they were to get.
    pub added: Vec<String>,
    /// What follows for them, in order.
    pub remaining: Vec<String>,
}

/// What an edit would do; ids of new steps are made up for this preview.
#[derive(Debug, Serialize, ToSchema)]
pub struct EditPreviewView {
    /// The steps as they would be; `null` when they do not change.
    pub steps: Option<Vec<StepView>>,
    /// Steps that would be removed.
    pub removed: Vec<String>,
    /// Steps that would be new.
    pub added: Vec<String>,
    /// Steps that stay with another text, time, trigger or wait.
    pub changed: Vec<String>,
    /// For whom, by where they stand.
    pub effects: Vec<EditEffectView>,
    /// As when it is saved.
    pub warnings: Vec<WarningView>,
}

/// What a change would do, and for how many; nothing is saved.
#[utoipa::path(post, path = "/api/sequences/{id}/preview-edit", tag = "sequences", request_body = SequenceBody,
    responses((status = 200, description = "What it would do", body = Envelope<EditPreviewView>)))]
async fn preview_edit(
    caller: Caller,
    Ids(id): Ids<SequenceId>,
    Body(body): Body<SequenceBody>,
) -> ApiResult<EditPreviewView> {
    let edit = edit_of(&caller, id, body).await?;
    let preview = caller.handle.preview_sequence_edit(&caller.scope, id, &edit).await?;
    let ids = |ids: &[StepId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let effects = preview.effects.iter().map(|effect| EditEffectView {
        step_id: effect.step_id.to_string(),
        steps_version: effect.steps_version,
        contacts: effect.enrolments,
        removed: ids(&effect.moves.removed),
        added: ids(&effect.moves.added),
        remaining: ids(&effect.moves.remaining),
    });
    let view = EditPreviewView {
        steps: preview.steps.as_ref().map(|version| steps_of(&version.steps)),
        removed: ids(&preview.removed),
        added: ids(&preview.added),
        changed: ids(&preview.changed),
        effects: effects.collect(),
        warnings: preview.warnings.iter().map(Into::into).collect(),
    };
    Ok(Reply::ok("nothing is saved yet", view))
}

/// What a deletion ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct SequenceDeletedView {
    /// Runs that were open and end with it.
    pub contacts_ended: u64,
}

/// Delete a sequence in any status: nothing more of it begins, and its open runs end.
#[utoipa::path(delete, path = "/api/sequences/{id}", tag = "sequences",
    responses((status = 200, description = "Deleted", body = Envelope<SequenceDeletedView>)))]
async fn delete(caller: Caller, Ids(id): Ids<SequenceId>) -> ApiResult<SequenceDeletedView> {
    let deleted = caller.handle.delete_sequence(&caller.scope, id).await?;
    let view = SequenceDeletedView {
        contacts_ended: deleted.enrolments_ended,
    };
    Ok(Reply::ok("sequence deleted", view))
}

/// Make a draft with the same settings and steps.
#[utoipa::path(post, path = "/api/sequences/{id}/clone", tag = "sequences",
    responses((status = 200, description = "The new draft", body = Envelope<SequenceView>)))]
async fn clone(caller: Caller, Ids(id): Ids<SequenceId>) -> ApiResult<SequenceView> {
    let copy = caller.handle.clone_sequence(&caller.scope, id).await?;
    Ok(Reply::ok("sequence cloned", (&copy).into()))
}

/// How a sequence starts.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StartQuery {
    /// Whether it starts although no sequence has its next trigger as an entry point.
    #[serde(default)]
    open_end: bool,
}

impl StartQuery {
    const fn open_end(&self) -> OpenEnd {
        if self.open_end { OpenEnd::Allow } else { OpenEnd::Refuse }
    }
}

/// Activate a draft, or a sequence that is paused or inactive: leads that match enter, and steps are sent.
#[utoipa::path(post, path = "/api/sequences/{id}/start", tag = "sequences", params(StartQuery),
    responses((status = 200, description = "The sequence", body = Envelope<SequenceView>)))]
async fn start(caller: Caller, Ids(id): Ids<SequenceId>, Query(query): Query<StartQuery>) -> ApiResult<SequenceView> {
    let open_end = query.open_end();
    let saved = caller.handle.activate_sequence(&caller.scope, id, open_end).await?;
    Ok(Reply::ok("sequence is active", (&saved).into()))
}

async fn now(caller: &Caller, id: SequenceId, message: &'static str) -> ApiResult<SequenceView> {
    let of = caller.handle.sequence(&caller.scope, id).await?;
    Ok(Reply::ok(message, (&of).into()))
}

/// Pause an active sequence: from this answer on, nothing more of it begins.
#[utoipa::path(post, path = "/api/sequences/{id}/pause", tag = "sequences",
    responses((status = 200, description = "The sequence", body = Envelope<SequenceView>)))]
async fn pause(caller: Caller, Ids(id): Ids<SequenceId>) -> ApiResult<SequenceView> {
    caller.handle.pause_sequence(&caller.scope, id).await?;
    now(&caller, id, "sequence paused").await
}

/// Let a paused sequence go on where it stood.
#[utoipa::path(post, path = "/api/sequences/{id}/resume", tag = "sequences",
    responses((status = 200, description = "The sequence", body = Envelope<SequenceView>)))]
async fn resume(caller: Caller, Ids(id): Ids<SequenceId>) -> ApiResult<SequenceView> {
    caller.handle.resume_sequence(&caller.scope, id).await?;
    now(&caller, id, "sequence goes on").await
}

/// Take a sequence out of use: it stands still, and starting it goes on where it stood.
#[utoipa::path(post, path = "/api/sequences/{id}/stop", tag = "sequences",
    responses((status = 200, description = "The sequence", body = Envelope<SequenceView>)))]
async fn stop(caller: Caller, Ids(id): Ids<SequenceId>) -> ApiResult<SequenceView> {
    caller.handle.deactivate_sequence(&caller.scope, id).await?;
    now(&caller, id, "sequence is inactive").await
}

/// Take an active sequence out of use, and activate any other.
#[utoipa::path(post, path = "/api/sequences/{id}/toggle", tag = "sequences", params(StartQuery),
    responses((status = 200, description = "The sequence", body = Envelope<SequenceView>)))]
async fn toggle(caller: Caller, Ids(id): Ids<SequenceId>, Query(query): Query<StartQuery>) -> ApiResult<SequenceView> {
    let before = caller.handle.sequence(&caller.scope, id).await?;
    if before.sequence.status == SequenceStatus::Active {
        caller.handle.deactivate_sequence(&caller.scope, id).await?;
        return now(&caller, id, "sequence is inactive").await;
    }
    let open_end = query.open_end();
    let saved = caller.handle.activate_sequence(&caller.scope, id, open_end).await?;
    Ok(Reply::ok("sequence is active", (&saved).into()))
}

/// For whom a step is shown.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StepPreviewQuery {
    /// The lead that would receive it.
    #[param(value_type = Option<uuid::Uuid>)]
    lead_id: Option<LeadId>,
}

/// What a given lead would receive by a step.
#[utoipa::path(get, path = "/api/sequences/{id}/step/{step_id}/preview", tag = "sequences", params(StepPreviewQuery),
    responses((status = 200, description = "The preview", body = Envelope<PreviewView>)))]
async fn preview(
    caller: Caller,
    Ids((id, step)): Ids<(SequenceId, StepId)>,
    Query(query): Query<StepPreviewQuery>,
) -> ApiResult<PreviewView> {
    caller.store.sequence(&caller.scope, id).await?;
    let lead = query
        .lead_id
        .ok_or_else(|| ApiError::field("lead_id", "required", "is required"))?;
    let preview = caller.handle.preview_step(&caller.scope, id, step, lead).await?;
    let view = PreviewView {
        text: preview.text,
        media: preview.media.as_ref().map(Into::into),
        chars: preview.chars as u64,
        warnings: preview.warnings.iter().map(Into::into).collect(),
    };
    Ok(Reply::ok("preview", view))
}

/// How many sequences stand where.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct SequenceCountsView {
    /// All.
    pub total: u64,
    /// Active ones.
    pub active: u64,
    /// All others: drafts, paused ones and those taken out of use.
    pub inactive: u64,
    /// Drafts.
    pub draft: u64,
    /// Paused ones.
    pub paused: u64,
    /// Those taken out of use.
    pub stopped: u64,
}

/// A sequence in the summary.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecentSequenceView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The trigger by which leads enter first.
    pub trigger: Option<String>,
    /// Where it stands.
    pub status: String,
    /// How many flows it has: one lead and one step each.
    pub total_flows: u64,
    /// What it should send in all: the sum of the others.
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
    /// The share that was sent of what was settled, 0 to 1.
    pub success_rate: Option<f64>,
    /// The runs, by where they stand.
    pub contacts: ContactNumbersView,
}

/// All sequences in numbers.
#[derive(Debug, Serialize, ToSchema)]
pub struct SequencesSummaryView {
    /// How many stand where.
    pub sequences: SequenceCountsView,
    /// How many flows there are: one lead and one step each.
    pub total_flows: u64,
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
    /// The share that was sent of what was settled, 0 to 1.
    pub success_rate: Option<f64>,
    /// The runs, by where they stand.
    pub contacts: ContactNumbersView,
    /// Whether leads of one of them are still being matched.
    pub expanding: bool,
    /// Whether all sequences are in it; at most 10,000 are.
    pub complete: bool,
    /// The newest ones.
    pub recent_sequences: Vec<RecentSequenceView>,
}

/// All sequences in numbers.
#[utoipa::path(get, path = "/api/sequences/summary", tag = "sequences", params(SpanQuery),
    responses((status = 200, description = "The summary", body = Envelope<SequencesSummaryView>)))]
async fn summary(caller: Caller, Query(query): Query<SpanQuery>) -> ApiResult<SequencesSummaryView> {
    let span = query.span(&caller);
    let summary = caller.handle.sequences_summary(&caller.scope, &span, RECENT).await?;
    let (counts, total) = (summary.sequences, &summary.total);
    let recent = summary.recent.iter().map(|one| RecentSequenceView {
        id: one.id.to_string(),
        name: one.name.clone(),
        trigger: one.trigger.as_ref().map(ToString::to_string),
        status: word(&one.status),
        total_flows: one.should,
        should_send: one.should,
        done_send: one.total.done,
        failed_send: one.total.failed,
        skipped_send: one.total.skipped,
        unknown_send: one.total.unknown,
        cancelled_send: one.total.cancelled,
        remaining_send: one.total.remaining,
        success_rate: one.success_rate,
        contacts: (&one.contacts).into(),
    });
    let view = SequencesSummaryView {
        sequences: SequenceCountsView {
            total: counts.total,
            active: counts.active,
            inactive: counts.draft + counts.paused + counts.inactive,
            draft: counts.draft,
            paused: counts.paused,
            stopped: counts.inactive,
        },
        total_flows: summary.should,
        total_should_send: summary.should,
        total_done_send: total.done,
        total_failed_send: total.failed,
        total_skipped_send: total.skipped,
        total_unknown_send: total.unknown,
        total_cancelled_send: total.cancelled,
        total_remaining_send: total.remaining,
        success_rate: summary.success_rate,
        contacts: (&summary.contacts).into(),
        expanding: summary.expanding,
        complete: summary.complete,
        recent_sequences: recent.collect(),
    };
    Ok(Reply::ok("summary", view))
}
