//! Who runs through a sequence, with the numbers of its steps and devices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::device::Device;
use wa_core::domain::enrolment::{Enrolment, EnrolmentState};
use wa_core::domain::summary::DeviceNumbers;
use wa_core::engine::handle::{
    Contact, ContactFilter, EnrolBy, Enrolled, ResendStep, SequenceNumbers, SequenceStepNumbers,
};
use wa_core::id::{DeviceId, EnrolmentId, LeadId, MessageId, SequenceId, StepId};
use wa_core::plan::flows::Flow;
use wa_core::store::{PAGE_MAX, PageRequest, Span};

use super::campaigns::{DeviceNumbersView, DeviceReportView};
use super::envelope::{Envelope, Listed, Reply};
use super::error::{ApiError, ApiResult, FieldProblem};
use super::extract::{Body, Caller, Ids, Locked, PageQuery, Query};
use super::sequences::{ContactNumbersView, SpanQuery};
use super::view::{NumbersView, at, word, words_of};

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(contacts, enrol))
        .routes(routes!(contact, end))
        .routes(routes!(numbers))
        .routes(routes!(progress))
        .routes(routes!(device_report))
        .routes(routes!(resend))
}

/// One lead and one step.
#[derive(Debug, Serialize, ToSchema)]
pub struct FlowView {
    /// The step.
    pub step_id: String,
    /// Its day.
    pub day: Option<u16>,
    /// Its trigger.
    pub trigger: Option<String>,
    /// `pending`, `active`, `sent`, `failed`, `skipped`, `unknown` or `cancelled`.
    pub status: String,
    /// Where its message stands.
    pub message_status: Option<String>,
    /// Its message; `null` before it is active.
    pub message_id: Option<String>,
    /// How often a person had it sent again.
    pub round: u16,
    /// Why it stands where it does.
    pub reason: Option<String>,
    /// The device; `null` for the pool.
    pub device_id: Option<String>,
    /// When it is or was due.
    pub due_at: Option<String>,
    /// When its newest attempt began.
    pub attempted_at: Option<String>,
    /// When it was settled.
    pub completed_at: Option<String>,
    /// What receipts reported.
    pub delivery: Option<String>,
}

impl From<&Flow> for FlowView {
    fn from(flow: &Flow) -> Self {
        Self {
            step_id: flow.step_id.to_string(),
            day: flow.step.as_ref().map(|(day, _)| *day),
            trigger: flow.step.as_ref().map(|(_, trigger)| trigger.to_string()),
            status: word(&flow.state),
            message_status: flow.message_state.as_ref().map(word),
            message_id: flow.message_id.map(|id| id.to_string()),
            round: flow.round,
            reason: flow.reason.as_ref().map(word),
            device_id: flow.device_id.map(|id| id.to_string()),
            due_at: at(flow.due_at),
            attempted_at: at(flow.attempted_at),
            completed_at: at(flow.completed_at),
            delivery: flow.delivery.as_ref().map(word),
        }
    }
}

/// One run through a sequence.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnrolmentView {
    /// Its id.
    pub id: String,
    /// The sequence.
    pub sequence_id: String,
    /// The lead.
    pub lead_id: String,
    /// The number; `null` once the person was erased.
    pub phone: Option<String>,
    /// The device that writes; `null` for the pool.
    pub device_id: Option<String>,
    /// The trigger by which it entered; `null` when it came by niche or by hand.
    pub trigger: Option<String>,
    /// `open`, `completed` or `ended`.
    pub status: String,
    /// Why it ended; of a completed one, why the next sequence did not take it.
    pub reason: Option<String>,
    /// The step at which it entered.
    pub entry_step_id: String,
    /// The step that is active, or was last.
    pub step_id: String,
    /// The version of the steps that it has.
    pub steps_version: i32,
    /// When that step was planned to be due.
    pub due_at: String,
    /// The run in the next sequence that followed on it.
    pub next_id: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it was completed or ended.
    pub ended_at: Option<String>,
}

impl From<&Enrolment> for EnrolmentView {
    fn from(enrolment: &Enrolment) -> Self {
        Self {
            id: enrolment.id.to_string(),
            sequence_id: enrolment.sequence_id.to_string(),
            lead_id: enrolment.lead_id.to_string(),
            phone: enrolment.phone.map(|phone| phone.as_e164().to_owned()),
            device_id: enrolment.device_id.map(|id| id.to_string()),
            trigger: enrolment.token.as_ref().map(ToString::to_string),
            status: word(&enrolment.state),
            reason: enrolment.reason.as_ref().map(word),
            entry_step_id: enrolment.entry_step_id.to_string(),
            step_id: enrolment.step_id.to_string(),
            steps_version: enrolment.steps_version,
            due_at: enrolment.due_at.to_string(),
            next_id: enrolment.next_id.map(|id| id.to_string()),
            created_at: enrolment.created_at.to_string(),
            ended_at: at(enrolment.ended_at),
        }
    }
}

/// One run through a sequence with all its flows.
#[derive(Debug, Serialize, ToSchema)]
pub struct ContactView {
    /// The name of the lead; empty when it is gone.
    pub name: String,
    /// The run.
    #[serde(flatten)]
    pub enrolment: EnrolmentView,
    /// Every step of it, those that are to come too.
    pub flows: Vec<FlowView>,
}

impl From<&Contact> for ContactView {
    fn from(contact: &Contact) -> Self {
        Self {
            name: contact.name.clone(),
            enrolment: (&contact.enrolment).into(),
            flows: contact.flows.iter().map(Into::into).collect(),
        }
    }
}

/// Which runs a list shows; all conditions must hold.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ContactQuery {
    /// In these states, separated by commas: `open`, `completed`, `ended`.
    status: Option<String>,
    /// Of this lead.
    #[param(value_type = Option<uuid::Uuid>)]
    lead_id: Option<LeadId>,
}

/// The runs through a sequence, oldest first, each with all its flows; at most 100 in a page.
#[utoipa::path(get, path = "/api/sequences/{id}/contacts", tag = "sequences", params(ContactQuery, PageQuery),
    responses((status = 200, description = "A page of runs", body = Envelope<Listed<ContactView>>)))]
async fn contacts(
    caller: Caller,
    Ids(id): Ids<SequenceId>,
    Query(query): Query<ContactQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<ContactView>> {
    let filter = ContactFilter {
        states: words_of("status", query.status.as_deref(), &EnrolmentState::ALL)?,
        lead_id: query.lead_id,
    };
    let request = page.request()?;
    let page = caller.handle.contacts(&caller.scope, id, &filter, &request).await?;
    let listed = Listed::of(page, |contact| ContactView::from(&contact));
    Ok(Reply::ok("contacts", listed))
}

/// Who enters a sequence by hand: numbers or leads, at most 1,000.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolBody {
    /// Numbers in any usual form; a lead is found or made for each.
    #[serde(alias = "contacts", alias = "numbers")]
    phones: Option<Vec<String>>,
    /// Leads.
    #[schema(value_type = Option<Vec<uuid::Uuid>>)]
    lead_ids: Option<Vec<LeadId>>,
    /// The entry point; the first one when it is not given.
    #[schema(value_type = Option<uuid::Uuid>)]
    step_id: Option<StepId>,
    /// The device of leads that are made for numbers.
    #[schema(value_type = Option<uuid::Uuid>)]
    device_id: Option<DeviceId>,
}

/// What became of one who was to enter.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct EnrolledView {
    /// `enrolled`, `already_in`, `re_entry_refused`, `suppressed`, `no_device`, `not_found` or `refused`.
    pub result: String,
    /// The number that was asked for.
    pub phone: Option<String>,
    /// The lead.
    pub lead_id: Option<String>,
    /// The run: the new one, or the one that is open already.
    pub enrolment_id: Option<String>,
    /// Whether the lead was made for it.
    pub lead_created: bool,
    /// What is wrong with one that was refused.
    pub fields: Vec<FieldProblem>,
}

impl From<&Enrolled> for EnrolledView {
    fn from(enrolled: &Enrolled) -> Self {
        let result = |result: &str| Self {
            result: result.to_owned(),
            ..Self::default()
        };
        match enrolled {
            Enrolled::Enrolled {
                enrolment_id,
                lead_id,
                lead_created,
            } => Self {
                enrolment_id: Some(enrolment_id.to_string()),
                lead_id: Some(lead_id.to_string()),
                lead_created: *lead_created,
                ..result("enrolled")
            },
            Enrolled::AlreadyIn { enrolment_id } => Self {
                enrolment_id: Some(enrolment_id.to_string()),
                ..result("already_in")
            },
            Enrolled::ReEntryRefused => result("re_entry_refused"),
            Enrolled::Suppressed => result("suppressed"),
            Enrolled::NoDevice => result("no_device"),
            Enrolled::NotFound => result("not_found"),
            Enrolled::Refused { errors } => Self {
                fields: errors.iter().map(Into::into).collect(),
                ..result("refused")
            },
        }
    }
}

/// What became of those who were to enter.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnrolmentsView {
    /// How many are in by this request.
    pub enrolled: u64,
    /// One answer per number or lead, in their order.
    pub items: Vec<EnrolledView>,
}

/// Let numbers or leads enter by hand; asking again lets nobody in twice.
#[utoipa::path(post, path = "/api/sequences/{id}/contacts", tag = "sequences", request_body = EnrolBody,
    responses((status = 200, description = "What became of them", body = Envelope<EnrolmentsView>)))]
async fn enrol(caller: Caller, Ids(id): Ids<SequenceId>, Body(body): Body<EnrolBody>) -> ApiResult<EnrolmentsView> {
    caller.store.sequence(&caller.scope, id).await?;
    let by = EnrolBy {
        step_id: body.step_id,
        device_id: body.device_id,
    };
    let items: Vec<EnrolledView> = match (body.phones, body.lead_ids) {
        (Some(phones), None) if !phones.is_empty() => {
            let enrolled = caller.handle.enrol_numbers(&caller.scope, id, &phones, &by).await?;
            let views = enrolled.iter().zip(phones).map(|(one, phone)| EnrolledView {
                phone: Some(phone),
                ..one.into()
            });
            views.collect()
        }
        (None, Some(leads)) if !leads.is_empty() => {
            let enrolled = caller.handle.enrol_leads(&caller.scope, id, &leads, &by).await?;
            let views = enrolled.iter().zip(leads).map(|(one, lead)| EnrolledView {
                lead_id: Some(lead.to_string()),
                ..one.into()
            });
            views.collect()
        }
        (Some(_), Some(_)) => {
            return Err(ApiError::field(
                "lead_ids",
                "not_allowed",
                "must not stand beside phones",
            ));
        }
        _ => return Err(ApiError::field("phones", "required", "is required, or lead_ids")),
    };
    let view = EnrolmentsView {
        enrolled: items.iter().filter(|one| one.result == "enrolled").count() as u64,
        items,
    };
    Ok(Reply::ok("contacts", view))
}

/// A run of that sequence.
async fn of_sequence(caller: &Caller, id: SequenceId, enrolment: EnrolmentId) -> Result<Enrolment, ApiError> {
    caller.store.sequence(&caller.scope, id).await?;
    let found = caller.store.enrolment(&caller.scope, enrolment).await?;
    match found.sequence_id == id {
        true => Ok(found),
        false => Err(ApiError::no_such("enrolment")),
    }
}

/// One run with all its flows.
#[utoipa::path(get, path = "/api/sequences/{id}/contacts/{enrolment_id}", tag = "sequences",
    responses((status = 200, description = "The run", body = Envelope<ContactView>)))]
async fn contact(caller: Caller, Ids((id, enrolment)): Ids<(SequenceId, EnrolmentId)>) -> ApiResult<ContactView> {
    of_sequence(&caller, id, enrolment).await?;
    let contact = caller.handle.contact(&caller.scope, enrolment).await?;
    Ok(Reply::ok("contact", (&contact).into()))
}

/// End a run: what is queued of it is cancelled.
#[utoipa::path(delete, path = "/api/sequences/{id}/contacts/{enrolment_id}", tag = "sequences",
    responses((status = 200, description = "The run", body = Envelope<EnrolmentView>)))]
async fn end(caller: Caller, Ids((id, enrolment)): Ids<(SequenceId, EnrolmentId)>) -> ApiResult<EnrolmentView> {
    of_sequence(&caller, id, enrolment).await?;
    let ended = caller.handle.end_enrolment(&caller.scope, enrolment).await?;
    Ok(Reply::ok("contact ended", (&ended).into()))
}

/// The numbers of one step.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepNumbersView {
    /// The step.
    pub step_id: String,
    /// Its place from 1; `null` of one that was removed.
    pub place: Option<usize>,
    /// Its day.
    pub day: Option<u16>,
    /// Its trigger.
    pub trigger: Option<String>,
    /// In all.
    pub numbers: NumbersView,
    /// The share that was sent of what was settled, 0 to 1.
    pub success_rate: Option<f64>,
    /// By device.
    pub devices: Vec<DeviceNumbersView>,
}

impl From<&SequenceStepNumbers> for StepNumbersView {
    fn from(step: &SequenceStepNumbers) -> Self {
        Self {
            step_id: step.step_id.to_string(),
            place: step.step.as_ref().map(|(place, ..)| place + 1),
            day: step.step.as_ref().map(|(_, day, _)| *day),
            trigger: step.step.as_ref().map(|(.., trigger)| trigger.to_string()),
            numbers: (&step.total).into(),
            success_rate: step.success_rate,
            devices: step.devices.iter().map(by_device).collect(),
        }
    }
}

fn by_device(row: &DeviceNumbers) -> DeviceNumbersView {
    DeviceNumbersView {
        device_id: row.device_id.map(|id| id.to_string()),
        numbers: (&row.numbers).into(),
    }
}

/// The numbers of a sequence; their unit is one lead and one step.
#[derive(Debug, Serialize, ToSchema)]
pub struct SequenceNumbersView {
    /// Where it stands.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Whether leads are still being matched, so that `should` still grows.
    pub expanding: bool,
    /// In all.
    pub total: NumbersView,
    /// The share that was sent of what was settled, 0 to 1.
    pub success_rate: Option<f64>,
    /// By step, in their order; then those that were removed.
    pub steps: Vec<StepNumbersView>,
    /// By device.
    pub devices: Vec<DeviceNumbersView>,
    /// The runs, by where they stand.
    pub contacts: ContactNumbersView,
}

impl From<&SequenceNumbers> for SequenceNumbersView {
    fn from(numbers: &SequenceNumbers) -> Self {
        Self {
            status: word(&numbers.status),
            reason: numbers.reason.as_ref().map(word),
            expanding: numbers.expanding,
            total: (&numbers.total).into(),
            success_rate: numbers.success_rate,
            steps: numbers.steps.iter().map(Into::into).collect(),
            devices: numbers.devices.iter().map(by_device).collect(),
            contacts: (&numbers.contacts).into(),
        }
    }
}

/// The numbers, in all, by step and by device.
#[utoipa::path(get, path = "/api/sequences/{id}/numbers", tag = "sequences", params(SpanQuery),
    responses((status = 200, description = "The numbers", body = Envelope<SequenceNumbersView>)))]
async fn numbers(
    caller: Caller,
    Ids(id): Ids<SequenceId>,
    Query(query): Query<SpanQuery>,
) -> ApiResult<SequenceNumbersView> {
    let span: Span = query.span(&caller);
    let numbers = caller.handle.sequence_numbers(&caller.scope, id, &span).await?;
    Ok(Reply::ok("numbers", (&numbers).into()))
}

/// How far a sequence is.
#[derive(Debug, Serialize, ToSchema)]
pub struct SequenceProgressView {
    /// Its numbers.
    pub numbers: SequenceNumbersView,
    /// When the last of those who are in it now will be through, if things go on as they are.
    pub expected_end_at: Option<String>,
    /// Devices with flows of it that cannot send now: offline or on hold.
    pub waiting_devices: Vec<String>,
    /// Whether flows wait for any device to come online.
    pub pool_waits: bool,
}

/// How far it is, and when those who are in it now will be through.
#[utoipa::path(get, path = "/api/sequences/{id}/progress", tag = "sequences",
    responses((status = 200, description = "The progress", body = Envelope<SequenceProgressView>)))]
async fn progress(caller: Caller, Ids(id): Ids<SequenceId>) -> ApiResult<SequenceProgressView> {
    let progress = caller.handle.sequence_progress(&caller.scope, id).await?;
    let view = SequenceProgressView {
        numbers: (&progress.numbers).into(),
        expected_end_at: at(progress.expected_end_at),
        waiting_devices: progress.waiting_devices.iter().map(ToString::to_string).collect(),
        pool_waits: progress.pool_waits,
    };
    Ok(Reply::ok("progress", view))
}

/// The numbers of a sequence by device, with the names of devices, and by step.
#[derive(Debug, Serialize, ToSchema)]
pub struct SequenceReportView {
    /// By device over all steps.
    pub items: Vec<DeviceReportView>,
    /// By step, and within it by device.
    pub steps: Vec<StepReportView>,
}

/// The numbers of one step by device.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepReportView {
    /// The step.
    pub step_id: String,
    /// Its place from 1; `null` of one that was removed.
    pub place: Option<usize>,
    /// Its day.
    pub day: Option<u16>,
    /// Its trigger.
    pub trigger: Option<String>,
    /// In all.
    pub numbers: NumbersView,
    /// By device.
    pub devices: Vec<DeviceReportView>,
}

/// All devices of the caller, by id.
async fn devices_of(caller: &Caller) -> Result<BTreeMap<DeviceId, Device>, ApiError> {
    let mut all = BTreeMap::new();
    let mut request = PageRequest::first(PAGE_MAX);
    loop {
        let page = caller.store.devices(&caller.scope, &request).await?;
        all.extend(page.rows.into_iter().map(|device| (device.id, device)));
        match page.next {
            Some(next) => request = PageRequest::after(next, PAGE_MAX),
            None => return Ok(all),
        }
    }
}

/// The numbers by device, over all steps and for each.
#[utoipa::path(get, path = "/api/sequences/{id}/device-report", tag = "sequences", params(SpanQuery),
    responses((status = 200, description = "The devices", body = Envelope<SequenceReportView>)))]
async fn device_report(
    caller: Caller,
    Ids(id): Ids<SequenceId>,
    Query(query): Query<SpanQuery>,
) -> ApiResult<SequenceReportView> {
    let span = query.span(&caller);
    let numbers = caller.handle.sequence_numbers(&caller.scope, id, &span).await?;
    let devices = devices_of(&caller).await?;
    let named = |row: &DeviceNumbers| {
        let device = row.device_id.and_then(|id| devices.get(&id));
        DeviceReportView {
            device_id: row.device_id.map(|id| id.to_string()),
            name: device.map(|device| device.name.clone()),
            status: device.map(|device| word(&device.status())),
            numbers: (&row.numbers).into(),
        }
    };
    let steps = numbers.steps.iter().map(|step| StepReportView {
        devices: step.devices.iter().map(named).collect(),
        step_id: step.step_id.to_string(),
        place: step.step.as_ref().map(|(place, ..)| place + 1),
        day: step.step.as_ref().map(|(_, day, _)| *day),
        trigger: step.step.as_ref().map(|(.., trigger)| trigger.to_string()),
        numbers: (&step.total).into(),
    });
    let view = SequenceReportView {
        items: numbers.devices.iter().map(named).collect(),
        steps: steps.collect(),
    };
    Ok(Reply::ok("device report", view))
}

/// Which messages of a step are sent again.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResendStepBody {
    /// Only those of this device.
    #[schema(value_type = Option<uuid::Uuid>)]
    device_id: Option<DeviceId>,
    /// Only these, at most 1,000; an unknown one only when it is named here, because it may have been received.
    #[schema(value_type = Option<Vec<uuid::Uuid>>)]
    message_ids: Option<Vec<MessageId>>,
}

/// What became of a request to send a step again.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepResentView {
    /// How many are sent again.
    pub resent: u64,
    /// How many are not: their run has ended, or a later step of it has begun.
    pub left: u64,
    /// Whether there are more: ask again.
    pub more: bool,
}

/// Send the failed messages of a step again; later steps of the same run wait until then.
#[utoipa::path(post, path = "/api/sequences/{id}/step/{step_id}/resend", tag = "sequences",
    request_body = ResendStepBody,
    responses((status = 200, description = "How many", body = Envelope<StepResentView>)))]
async fn resend(
    caller: Caller,
    Ids((id, step)): Ids<(SequenceId, StepId)>,
    Body(body): Body<ResendStepBody>,
) -> ApiResult<StepResentView> {
    let which = ResendStep {
        device_id: body.device_id,
        message_ids: body.message_ids,
    };
    let resent = caller.handle.resend_step(&caller.scope, id, step, &which).await?;
    let view = StepResentView {
        resent: resent.resent,
        left: resent.left,
        more: resent.more,
    };
    Ok(Reply::ok("sent again", view))
}
