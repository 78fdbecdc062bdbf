//! Leads: the people who can be written to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::audience::TargetFilter;
use wa_core::domain::lead::Lead;
use wa_core::domain::message::{Message, MessageScope};
use wa_core::domain::phone::Phone;
use wa_core::domain::token::Token;
use wa_core::engine::handle::{LeadCreated, LeadRowChange};
use wa_core::id::{DeviceId, LeadId};
use wa_core::plan::{ConsentDraft, Edit, LeadBulkEdit, LeadDraft};
use wa_core::store::{LeadFilter, MessageFilter, OnDuplicate};
use wa_core::time::Timestamp;

use super::csv_out::{Rows, csv_response};
use super::envelope::{Envelope, Listed, Nothing, Reply};
use super::error::{ApiError, ApiResult, FieldProblem};
use super::extract::{Body, Caller, Ids, Locked, PageQuery, Query};
use super::view::{Given, MessageView, Words, at, word};
use crate::lead_csv::LeadSheet;

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(leads, create_lead))
        .routes(routes!(lead, edit_lead, delete_lead))
        .routes(routes!(lead_messages))
        .routes(routes!(edit_leads))
        .routes(routes!(delete_leads))
        .routes(routes!(count))
        .routes(routes!(export))
        .routes(routes!(niches))
        .routes(routes!(device_leads))
        .routes(routes!(device_export))
        .routes(routes!(pool_leads, create_pool_lead))
        .routes(routes!(edit_pool_lead, delete_pool_lead))
}

/// What a lead is or is to become. In a change, fields that are not named stay as they are and `null` empties.
#[derive(Default, Deserialize, ToSchema)]
pub struct LeadBody {
    /// Its name, at most 200 characters.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    name: Given<String>,
    /// Its number, in any usual form.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    phone: Given<String>,
    /// The device that writes to it; without one it is in the pool.
    #[schema(value_type = Option<uuid::Uuid>)]
    #[serde(default)]
    device_id: Given<DeviceId>,
    /// Its niches.
    #[serde(alias = "niches")]
    #[schema(value_type = Option<Words>)]
    #[serde(default)]
    niche: Given<Words>,
    /// Its triggers.
    #[serde(alias = "triggers")]
    #[schema(value_type = Option<Words>)]
    #[serde(default)]
    trigger: Given<Words>,
    /// `prospect` or `customer`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    target_status: Given<String>,
    /// Notes on its journey.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    journey: Given<String>,
    /// Its place in the pipeline.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    pipeline_status: Given<String>,
    /// Labels.
    #[schema(value_type = Option<Words>)]
    #[serde(default)]
    tags: Given<Words>,
    /// Own fields, for `{{custom.key}}`.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    #[serde(default)]
    custom: Given<BTreeMap<String, String>>,
    /// That it agreed to be written to.
    #[schema(value_type = Option<ConsentBody>)]
    #[serde(default)]
    consent: Given<ConsentBody>,
    /// The version that was read; a change of another version is refused.
    version: Option<i64>,
}

/// That a person agreed to be written to.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct ConsentBody {
    /// Where it was given.
    #[serde(default)]
    source: String,
    /// When; now when it is not given.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    given_at: Option<Timestamp>,
}

fn words(given: Given<Words>, before: Option<String>) -> Option<String> {
    match given {
        Given::Absent => before,
        Given::Null => None,
        Given::Value(words) => Some(words.into()),
    }
}

impl LeadBody {
    fn over(self, before: LeadDraft) -> LeadDraft {
        LeadDraft {
            name: self.name.over(before.name),
            phone: self.phone.over(before.phone),
            device_id: self.device_id.over(before.device_id),
            niche: words(self.niche, before.niche),
            trigger: words(self.trigger, before.trigger),
            target_status: self.target_status.over(before.target_status),
            journey: self.journey.over(before.journey),
            pipeline_status: self.pipeline_status.over(before.pipeline_status),
            custom: self.custom.over(Some(before.custom)).unwrap_or_default(),
            tags: words(self.tags, before.tags),
            consent: match self.consent {
                Given::Absent => before.consent,
                Given::Null => None,
                Given::Value(body) => Some(ConsentDraft {
                    source: body.source,
                    given_at: body.given_at,
                }),
            },
        }
    }
}

/// A lead.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeadView {
    /// Its id.
    pub id: String,
    /// The device that writes to it; `null` in the pool.
    pub device_id: Option<String>,
    /// Its name.
    pub name: String,
    /// Its number.
    pub phone: String,
    /// Its niches, with commas.
    pub niche: String,
    /// Its triggers, with commas.
    pub trigger: String,
    /// `prospect` or `customer`.
    pub target_status: String,
    /// Notes on its journey.
    pub journey: String,
    /// Its place in the pipeline.
    pub pipeline_status: String,
    /// Labels, with commas.
    pub tags: String,
    /// Own fields.
    pub custom: BTreeMap<String, String>,
    /// That it agreed to be written to.
    pub consent: Option<ConsentView>,
    /// When it last wrote.
    pub last_interaction_at: Option<String>,
    /// When it was created.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// Its version, to be named in a change.
    pub version: i64,
}

/// That a person agreed to be written to.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConsentView {
    /// Where it was given.
    pub source: String,
    /// When.
    pub given_at: String,
}

impl From<&Lead> for LeadView {
    fn from(lead: &Lead) -> Self {
        Self {
            id: lead.id.to_string(),
            device_id: lead.device_id.map(|id| id.to_string()),
            name: lead.name.clone(),
            phone: lead.phone.as_e164().to_owned(),
            niche: lead.niches.to_string(),
            trigger: lead.triggers.to_string(),
            target_status: word(&lead.target_status),
            journey: lead.journey.clone(),
            pipeline_status: lead.pipeline_status.clone(),
            tags: lead.tags.to_string(),
            custom: lead.custom.clone(),
            consent: lead.consent.as_ref().map(|consent| ConsentView {
                source: consent.source.clone(),
                given_at: consent.given_at.to_string(),
            }),
            last_interaction_at: at(lead.last_interaction_at),
            created_at: lead.created_at.to_string(),
            updated_at: lead.updated_at.to_string(),
            version: lead.version,
        }
    }
}

/// Which leads a list shows; all conditions must hold.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LeadQuery {
    /// Of this device; `none` for those in the pool.
    pub device_id: Option<String>,
    /// With this niche, exactly.
    pub niche: Option<String>,
    /// With this trigger, exactly.
    pub trigger: Option<String>,
    /// With this label, exactly.
    pub tag: Option<String>,
    /// `prospect`, `customer` or `all`.
    #[param(value_type = Option<String>)]
    pub target_status: Option<TargetFilter>,
    /// With this number.
    pub phone: Option<String>,
    /// Whose name or number contains this.
    #[serde(alias = "q")]
    pub search: Option<String>,
}

impl LeadQuery {
    fn filter(&self, caller: &Caller) -> Result<LeadFilter, ApiError> {
        let mut problems = Vec::new();
        let mut note = |field: &str, expected: String| {
            problems.push(FieldProblem {
                field: field.to_owned(),
                code: "invalid".to_owned(),
                message: format!("{field} {expected}"),
            });
        };
        let mut token = |field: &str, text: &Option<String>| {
            let token = text.as_deref().map(Token::parse).transpose();
            token.unwrap_or_else(|error| {
                note(field, error.to_string());
                None
            })
        };
        let (niche, trigger, tag) = (
            token("niche", &self.niche),
            token("trigger", &self.trigger),
            token("tag", &self.tag),
        );
        let device_id = match self.device_id.as_deref() {
            None | Some("none") => None,
            Some(text) => text
                .parse()
                .map_err(|_| note("device_id", "must be a UUID or none".to_owned()))
                .ok(),
        };
        let phone = self.phone.as_deref().and_then(|text| {
            Phone::parse(text, &caller.user.settings.region)
                .map_err(|error| note("phone", error.to_string()))
                .ok()
        });
        if self.search.as_ref().is_some_and(|text| text.chars().count() > 100) {
            note("search", "must be at most 100 characters long".to_owned());
        }
        if !problems.is_empty() {
            return Err(ApiError::fields(problems));
        }
        Ok(LeadFilter {
            device_id,
            without_device: self.device_id.as_deref() == Some("none"),
            niche,
            trigger,
            tag,
            target: self.target_status.unwrap_or_default(),
            phone,
            search: self.search.clone(),
        })
    }
}

/// The leads.
#[utoipa::path(get, path = "/api/leads", tag = "leads", params(LeadQuery, PageQuery),
    responses((status = 200, description = "A page of leads", body = Envelope<Listed<LeadView>>)))]
async fn leads(
    caller: Caller,
    Query(query): Query<LeadQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<LeadView>> {
    let filter = query.filter(&caller)?;
    list(&caller, &filter, &page).await
}

async fn list(caller: &Caller, filter: &LeadFilter, page: &PageQuery) -> ApiResult<Listed<LeadView>> {
    let page = caller.store.leads(&caller.scope, filter, &page.request()?).await?;
    Ok(Reply::ok("leads", Listed::of(page, |lead| LeadView::from(&lead))))
}

/// The leads of a device.
#[utoipa::path(get, path = "/api/devices/{id}/leads", tag = "leads", params(LeadQuery, PageQuery),
    responses((status = 200, description = "A page of leads", body = Envelope<Listed<LeadView>>)))]
async fn device_leads(
    caller: Caller,
    Ids(id): Ids<DeviceId>,
    Query(query): Query<LeadQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<LeadView>> {
    caller.store.device(&caller.scope, id).await?;
    let filter = LeadFilter {
        device_id: Some(id),
        without_device: false,
        ..query.filter(&caller)?
    };
    list(&caller, &filter, &page).await
}

/// A lead of the pool, with what became of the newest campaign message to it.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoolLeadView {
    /// The lead.
    #[serde(flatten)]
    pub lead: LeadView,
    /// Where that message stands: `queued`, `failed`, `skipped` and so on; `null` when no campaign wrote to it yet.
    pub status: Option<String>,
    /// Why; `device_limit` when every device had reached the limit of the campaign.
    pub reason: Option<String>,
    /// The campaign.
    pub campaign_id: Option<String>,
    /// When the message was settled.
    pub settled_at: Option<String>,
}

impl PoolLeadView {
    fn of(lead: &Lead, newest: Option<&Message>) -> Self {
        let campaign_id = newest.and_then(|message| match message.scope {
            MessageScope::Campaign(id) => Some(id.to_string()),
            _ => None,
        });
        Self {
            lead: lead.into(),
            status: newest.map(|message| word(&message.state)),
            reason: newest.and_then(|message| message.reason.as_ref().map(word)),
            campaign_id,
            settled_at: at(newest.and_then(|message| message.settled_at)),
        }
    }
}

/// The leads of the pool, which have no device, with what became of the newest campaign message to each. Who is sent to by a
/// campaign of the pool leaves it and belongs to the device that did it.
#[utoipa::path(get, path = "/api/leads-ai", tag = "leads", params(LeadQuery, PageQuery),
    responses((status = 200, description = "A page of leads", body = Envelope<Listed<PoolLeadView>>)))]
async fn pool_leads(
    caller: Caller,
    Query(query): Query<LeadQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<PoolLeadView>> {
    let filter = LeadFilter {
        device_id: None,
        without_device: true,
        ..query.filter(&caller)?
    };
    let page = caller.store.leads(&caller.scope, &filter, &page.request()?).await?;
    let ids: Vec<LeadId> = page.rows.iter().map(|lead| lead.id).collect();
    let newest = caller.store.newest_of_leads(&caller.scope, &ids).await?;
    let newest: BTreeMap<_, _> = newest.iter().map(|message| (message.lead_id, message)).collect();
    let view = |lead: Lead| PoolLeadView::of(&lead, newest.get(&Some(lead.id)).copied());
    Ok(Reply::ok("leads", Listed::of(page, view)))
}

/// Create a lead of the pool.
#[utoipa::path(post, path = "/api/leads-ai", tag = "leads", request_body = LeadBody,
    responses((status = 200, description = "The lead; code DUPLICATE_SKIPPED when it was there", body = Envelope<LeadView>)))]
async fn create_pool_lead(caller: Caller, Body(body): Body<LeadBody>) -> ApiResult<LeadView> {
    let body = LeadBody {
        device_id: Given::Null,
        ..body
    };
    create_lead(caller, Body(body)).await
}

/// Change a lead of the pool.
#[utoipa::path(put, path = "/api/leads-ai/{id}", tag = "leads", request_body = LeadBody,
    responses((status = 200, description = "The lead", body = Envelope<LeadView>)))]
async fn edit_pool_lead(caller: Caller, Ids(id): Ids<LeadId>, body: Body<LeadBody>) -> ApiResult<LeadView> {
    in_pool(&caller, id).await?;
    edit_lead(caller, Ids(id), body).await
}

/// Delete a lead of the pool.
#[utoipa::path(delete, path = "/api/leads-ai/{id}", tag = "leads",
    responses((status = 200, description = "Deleted", body = Envelope<Nothing>)))]
async fn delete_pool_lead(caller: Caller, Ids(id): Ids<LeadId>) -> ApiResult<Nothing> {
    in_pool(&caller, id).await?;
    delete_lead(caller, Ids(id)).await
}

async fn in_pool(caller: &Caller, id: LeadId) -> Result<(), ApiError> {
    let lead = caller.store.lead(&caller.scope, id).await?;
    match lead.device_id {
        None => Ok(()),
        Some(_) => Err(ApiError::no_such("lead")),
    }
}

/// How many there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct CountView {
    /// How many there are.
    pub count: u64,
}

/// How many leads a filter shows.
#[utoipa::path(get, path = "/api/leads/count", tag = "leads", params(LeadQuery),
    responses((status = 200, description = "How many", body = Envelope<CountView>)))]
async fn count(caller: Caller, Query(query): Query<LeadQuery>) -> ApiResult<CountView> {
    let filter = query.filter(&caller)?;
    let count = caller.store.lead_count(&caller.scope, &filter).await?;
    Ok(Reply::ok("count", CountView { count }))
}

/// A niche.
#[derive(Debug, Serialize, ToSchema)]
pub struct NicheView {
    /// Its name.
    pub niche: String,
    /// How many leads have it.
    pub leads: u64,
}

/// The niches of the leads.
#[utoipa::path(get, path = "/api/niches", tag = "leads",
    responses((status = 200, description = "The niches", body = Envelope<Listed<NicheView>>)))]
async fn niches(caller: Caller) -> ApiResult<Listed<NicheView>> {
    let niches = caller.store.niches(&caller.scope).await?;
    let items = niches
        .into_iter()
        .map(|(niche, leads)| NicheView {
            niche: niche.to_string(),
            leads,
        })
        .collect();
    Ok(Reply::ok("niches", Listed { items, next: None }))
}

/// Create a lead; one of the same device, number and niche is not created twice.
#[utoipa::path(post, path = "/api/leads", tag = "leads", request_body = LeadBody,
    responses((status = 200, description = "The lead; code DUPLICATE_SKIPPED when it was there", body = Envelope<LeadView>)))]
async fn create_lead(caller: Caller, Body(body): Body<LeadBody>) -> ApiResult<LeadView> {
    let draft = body.over(LeadDraft::default());
    let created = caller
        .handle
        .create_lead(&caller.scope, &draft, OnDuplicate::MergeTriggers)
        .await?;
    Ok(match &created {
        LeadCreated::Created(lead) => Reply::ok("lead created", lead.into()),
        LeadCreated::Existing { lead, .. } => {
            Reply::ok("the lead was there already", lead.into()).code("DUPLICATE_SKIPPED")
        }
    })
}

/// One lead.
#[utoipa::path(get, path = "/api/leads/{id}", tag = "leads",
    responses((status = 200, description = "The lead", body = Envelope<LeadView>)))]
async fn lead(caller: Caller, Ids(id): Ids<LeadId>) -> ApiResult<LeadView> {
    let lead = caller.store.lead(&caller.scope, id).await?;
    Ok(Reply::ok("lead", (&lead).into()))
}

/// Change a lead.
#[utoipa::path(put, path = "/api/leads/{id}", tag = "leads", request_body = LeadBody,
    responses((status = 200, description = "The lead", body = Envelope<LeadView>)))]
async fn edit_lead(caller: Caller, Ids(id): Ids<LeadId>, Body(body): Body<LeadBody>) -> ApiResult<LeadView> {
    let before = caller.store.lead(&caller.scope, id).await?;
    let version = body.version.unwrap_or(before.version);
    let draft = body.over(LeadDraft::from(&before));
    let edit = Edit::new(version, draft);
    let lead = caller.handle.edit_lead(&caller.scope, id, &edit).await?;
    Ok(Reply::ok("lead changed", (&lead).into()))
}

/// Delete a lead; what it should still receive is skipped.
#[utoipa::path(delete, path = "/api/leads/{id}", tag = "leads",
    responses((status = 200, description = "Deleted", body = Envelope<Nothing>)))]
async fn delete_lead(caller: Caller, Ids(id): Ids<LeadId>) -> ApiResult<Nothing> {
    caller.handle.delete_lead(&caller.scope, id).await?;
    Ok(Reply::done("lead deleted"))
}

/// The messages to a lead.
#[utoipa::path(get, path = "/api/leads/{id}/messages", tag = "leads", params(PageQuery),
    responses((status = 200, description = "A page of messages", body = Envelope<Listed<MessageView>>)))]
async fn lead_messages(
    caller: Caller,
    Ids(id): Ids<LeadId>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<MessageView>> {
    caller.store.lead(&caller.scope, id).await?;
    let filter = MessageFilter {
        lead_id: Some(id),
        with_superseded: true,
        ..MessageFilter::default()
    };
    let page = caller.store.messages(&caller.scope, &filter, &page.request()?).await?;
    Ok(Reply::ok(
        "messages",
        Listed::of(page, |message| MessageView::from(&message)),
    ))
}

/// One change to many leads; what is not named stays as it is in each.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeadsEditBody {
    /// The leads, at most 1,000.
    #[schema(value_type = Vec<uuid::Uuid>)]
    #[serde(default)]
    ids: Vec<LeadId>,
    /// Another device; `null` for the pool.
    #[schema(value_type = Option<uuid::Uuid>)]
    #[serde(default)]
    device_id: Given<DeviceId>,
    /// Another target status.
    target_status: Option<String>,
    /// Another place in the pipeline.
    pipeline_status: Option<String>,
    /// Niches in place of those there are.
    niche: Option<Words>,
    /// Triggers to add.
    add_triggers: Option<Words>,
    /// Triggers to remove.
    remove_triggers: Option<Words>,
    /// Labels to add.
    add_tags: Option<Words>,
    /// Labels to remove.
    remove_tags: Option<Words>,
}

/// What became of one lead.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeadChangeView {
    /// The lead.
    pub id: String,
    /// `done`, `unchanged`, `not_found`, `conflict` or `refused`.
    pub outcome: String,
    /// Why it was refused.
    pub fields: Vec<FieldProblem>,
}

fn changes(rows: Vec<(LeadId, LeadRowChange)>) -> Listed<LeadChangeView> {
    let items = rows
        .into_iter()
        .map(|(id, change)| {
            let (outcome, fields) = match change {
                LeadRowChange::Done => ("done", Vec::new()),
                LeadRowChange::Unchanged => ("unchanged", Vec::new()),
                LeadRowChange::NotFound => ("not_found", Vec::new()),
                LeadRowChange::Conflict => ("conflict", Vec::new()),
                LeadRowChange::Refused(fields) => ("refused", fields.iter().map(Into::into).collect()),
            };
            LeadChangeView {
                id: id.to_string(),
                outcome: outcome.to_owned(),
                fields,
            }
        })
        .collect();
    Listed { items, next: None }
}

/// Change many leads at once.
#[utoipa::path(post, path = "/api/leads/bulk-edit", tag = "leads", request_body = LeadsEditBody,
    responses((status = 200, description = "What became of each", body = Envelope<Listed<LeadChangeView>>)))]
async fn edit_leads(caller: Caller, Body(body): Body<LeadsEditBody>) -> ApiResult<Listed<LeadChangeView>> {
    let text = |words: Option<Words>| words.map(String::from);
    let edit = LeadBulkEdit {
        device_id: match body.device_id {
            Given::Absent => None,
            Given::Null => Some(None),
            Given::Value(id) => Some(Some(id)),
        },
        target_status: body.target_status,
        pipeline_status: body.pipeline_status,
        niche: text(body.niche),
        add_triggers: text(body.add_triggers),
        remove_triggers: text(body.remove_triggers),
        add_tags: text(body.add_tags),
        remove_tags: text(body.remove_tags),
    };
    let rows = caller.handle.edit_leads(&caller.scope, &body.ids, &edit).await?;
    Ok(Reply::ok("leads changed", changes(rows)))
}

/// Leads to be deleted.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeadsDeleteBody {
    /// The leads, at most 1,000.
    #[schema(value_type = Vec<uuid::Uuid>)]
    #[serde(default)]
    ids: Vec<LeadId>,
}

/// Delete many leads at once.
#[utoipa::path(post, path = "/api/leads/bulk-delete", tag = "leads", request_body = LeadsDeleteBody,
    responses((status = 200, description = "What became of each", body = Envelope<Listed<LeadChangeView>>)))]
async fn delete_leads(caller: Caller, Body(body): Body<LeadsDeleteBody>) -> ApiResult<Listed<LeadChangeView>> {
    let rows = caller.handle.delete_leads(&caller.scope, &body.ids).await?;
    Ok(Reply::ok("leads deleted", changes(rows)))
}

/// The leads as CSV.
#[utoipa::path(get, path = "/api/leads/export", tag = "leads", params(LeadQuery),
    responses((status = 200, description = "The file", content_type = "text/csv", body = String)))]
async fn export(caller: Caller, Query(query): Query<LeadQuery>) -> Result<axum::response::Response, ApiError> {
    let filter = query.filter(&caller)?;
    exported(caller, filter).await
}

/// The leads of a device as CSV.
#[utoipa::path(get, path = "/api/devices/{id}/leads/export", tag = "leads", params(LeadQuery),
    responses((status = 200, description = "The file", content_type = "text/csv", body = String)))]
async fn device_export(
    caller: Caller,
    Ids(id): Ids<DeviceId>,
    Query(query): Query<LeadQuery>,
) -> Result<axum::response::Response, ApiError> {
    caller.store.device(&caller.scope, id).await?;
    let filter = LeadFilter {
        device_id: Some(id),
        without_device: false,
        ..query.filter(&caller)?
    };
    exported(caller, filter).await
}

async fn exported(caller: Caller, filter: LeadFilter) -> Result<axum::response::Response, ApiError> {
    let sheet = LeadSheet::of(&*caller.store, &caller.scope, &filter).await?;
    Ok(csv_response(
        "leads.csv",
        sheet.header(),
        move |after: Option<LeadId>| {
            let (app, scope, filter) = (caller.app(), caller.scope.clone(), filter.clone());
            let sheet = sheet.clone();
            async move {
                let request = Rows::request(after);
                let page = app.store.leads(&scope, &filter, &request).await?;
                Ok((page.rows.iter().map(|lead| sheet.row(lead)).collect(), page.next))
            }
        },
    ))
}
