//! People who must not be written to, and the rights of a person to their data.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::suppression::Suppression;
use wa_core::engine::handle::Person;
use wa_core::id::LeadId;

use super::envelope::{Envelope, Listed, Nothing, Reply};
use super::error::{ApiError, ApiResult, FieldProblem};
use super::extract::{Body, Caller, Locked, PageQuery, Query};
use super::leads::LeadView;
use super::view::{MessageView, word};

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(suppressions, add))
        .routes(routes!(remove))
        .routes(routes!(import))
        .routes(routes!(erase))
        .routes(routes!(export))
}

/// A person, by number or by one of their leads.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonBody {
    /// The number, in any usual form.
    phone: Option<String>,
    /// A lead of theirs.
    #[schema(value_type = Option<uuid::Uuid>)]
    lead_id: Option<LeadId>,
    /// Where it came from, at most 200 characters.
    #[serde(default)]
    note: String,
}

impl PersonBody {
    fn person(&self) -> Result<Person, ApiError> {
        match (&self.phone, self.lead_id) {
            (Some(phone), None) => Ok(Person::Phone(phone.clone())),
            (None, Some(id)) => Ok(Person::Lead(id)),
            _ => Err(ApiError::field(
                "phone",
                "required",
                "is required, or lead_id instead of it",
            )),
        }
    }
}

/// A person who must not be written to.
#[derive(Debug, Serialize, ToSchema)]
pub struct SuppressionView {
    /// The person; the same key for the same number.
    pub person: String,
    /// The number; `null` once the person was erased.
    pub phone: Option<String>,
    /// `opt_out_word`, `by_person`, `imported` or `erased`.
    pub reason: String,
    /// Where it came from.
    pub note: String,
    /// Since when.
    pub since_at: String,
}

impl From<&Suppression> for SuppressionView {
    fn from(suppression: &Suppression) -> Self {
        Self {
            person: suppression.person.to_string(),
            phone: suppression.phone.map(|phone| phone.as_e164().to_owned()),
            reason: word(&suppression.reason),
            note: suppression.note.clone(),
            since_at: suppression.since_at.to_string(),
        }
    }
}

/// The people who must not be written to.
#[utoipa::path(get, path = "/api/suppressions", tag = "people", params(PageQuery),
    responses((status = 200, description = "A page of people", body = Envelope<Listed<SuppressionView>>)))]
async fn suppressions(caller: Caller, Query(page): Query<PageQuery>) -> ApiResult<Listed<SuppressionView>> {
    let page = caller.store.suppressions(&caller.scope, &page.request()?).await?;
    Ok(Reply::ok(
        "suppressions",
        Listed::of(page, |one| SuppressionView::from(&one)),
    ))
}

/// Opt a person out: from this answer on, nothing to them begins.
#[utoipa::path(post, path = "/api/suppressions", tag = "people", request_body = PersonBody,
    responses((status = 200, description = "The person", body = Envelope<SuppressionView>)))]
async fn add(caller: Caller, Body(body): Body<PersonBody>) -> ApiResult<SuppressionView> {
    let person = body.person()?;
    let suppression = caller.handle.opt_out(&caller.scope, &person, &body.note).await?;
    Ok(Reply::ok("opted out", (&suppression).into()))
}

/// Take a person off the list.
#[utoipa::path(post, path = "/api/suppressions/remove", tag = "people", request_body = PersonBody,
    responses((status = 200, description = "Removed", body = Envelope<Nothing>)))]
async fn remove(caller: Caller, Body(body): Body<PersonBody>) -> ApiResult<Nothing> {
    caller.handle.opt_in(&caller.scope, &body.person()?).await?;
    Ok(Reply::done("may be written to again"))
}

/// Numbers to be put on the list.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OptOutsBody {
    /// At most 1,000 numbers.
    #[serde(default)]
    phones: Vec<String>,
    /// Where they came from, at most 200 characters.
    #[serde(default)]
    note: String,
}

/// What became of numbers that were to be put on the list.
#[derive(Debug, Serialize, ToSchema)]
pub struct OptOutsView {
    /// How many are on the list now.
    pub taken: u64,
    /// Those that are no numbers, as `phones[0]`.
    pub refused: Vec<FieldProblem>,
}

/// Opt many people out at once.
#[utoipa::path(post, path = "/api/suppressions/import", tag = "people", request_body = OptOutsBody,
    responses((status = 200, description = "What became of them", body = Envelope<OptOutsView>)))]
async fn import(caller: Caller, Body(body): Body<OptOutsBody>) -> ApiResult<OptOutsView> {
    let import = caller
        .handle
        .import_opt_outs(&caller.scope, &body.phones, &body.note)
        .await?;
    let refused = import
        .refused
        .iter()
        .map(|(at, error)| FieldProblem {
            field: format!("phones[{at}]"),
            ..FieldProblem::from(error)
        })
        .collect();
    let taken = import.taken;
    Ok(Reply::ok("opted out", OptOutsView { taken, refused }))
}

/// Erase a person: name, number, texts and own fields go; they are never written to again.
#[utoipa::path(post, path = "/api/people/erase", tag = "people", request_body = PersonBody,
    responses((status = 200, description = "Erased", body = Envelope<Nothing>)))]
async fn erase(caller: Caller, Body(body): Body<PersonBody>) -> ApiResult<Nothing> {
    caller.handle.erase_person(&caller.scope, &body.person()?).await?;
    Ok(Reply::done("erased"))
}

/// Everything that is kept of one person.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonView {
    /// The number.
    pub phone: String,
    /// Their leads.
    pub leads: Vec<LeadView>,
    /// The messages to them, oldest first.
    pub messages: Vec<MessageView>,
    /// Whether they must not be written to.
    pub suppression: Option<SuppressionView>,
    /// Whether this is all there is.
    pub complete: bool,
    /// When it was read.
    pub exported_at: String,
}

/// Everything that is kept of one person.
#[utoipa::path(post, path = "/api/people/export", tag = "people", request_body = PersonBody,
    responses((status = 200, description = "What is kept", body = Envelope<PersonView>)))]
async fn export(caller: Caller, Body(body): Body<PersonBody>) -> ApiResult<PersonView> {
    let export = caller.handle.export_person(&caller.scope, &body.person()?).await?;
    let view = PersonView {
        phone: export.phone.as_e164().to_owned(),
        leads: export.leads.iter().map(Into::into).collect(),
        messages: export.messages.iter().map(Into::into).collect(),
        suppression: export.suppression.as_ref().map(Into::into),
        complete: export.complete,
        exported_at: export.exported_at.to_string(),
    };
    Ok(Reply::ok("person", view))
}
