//! The lead webhook: public, because bots and workflow tools call it.

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::lead::Lead;
use wa_core::engine::handle::LeadCreated;
use wa_core::id::UserId;
use wa_core::plan::WebhookLead;

use super::envelope::{Envelope, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Locked, Open, Query, header_text, parse_json, read_body};
use super::view::{Words, word};

/// Largest body, in bytes.
pub const BODY_BYTES_MAX: u64 = 64 * 1_024;

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new().routes(routes!(create))
}

/// A lead. `device_name` and `platform` are accepted and ignored.
#[derive(Default, Deserialize, ToSchema)]
pub struct WebhookLeadBody {
    /// Its name; required.
    name: Option<String>,
    /// Its number; required.
    phone: Option<String>,
    /// Whose lead it is; required.
    user_id: Option<String>,
    /// The device that writes to it; required.
    device_id: Option<String>,
    /// `prospect`, the default, or `customer`.
    target_status: Option<String>,
    /// Its niches.
    niche: Option<Words>,
    /// Its triggers, separated by commas.
    trigger: Option<Words>,
    /// The user's token, where the user requires one; also as the header `X-Webhook-Token`, as a bearer, or in the query.
    token: Option<String>,
}

/// The token, for callers that can set nothing but the address.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TokenQuery {
    /// The user's token, where the user requires one.
    token: Option<String>,
}

/// A lead that was created or was there.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookLeadView {
    /// Its id.
    pub lead_id: String,
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
    /// The device that writes to it.
    pub device_id: Option<String>,
    /// Whose lead it is.
    pub user_id: String,
    /// When it was created.
    pub created_at: String,
    /// Whether it was there already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

fn shown(lead: &Lead, duplicate: bool) -> WebhookLeadView {
    WebhookLeadView {
        lead_id: lead.id.to_string(),
        name: lead.name.clone(),
        phone: lead.phone.as_e164().to_owned(),
        niche: lead.niches.to_string(),
        trigger: lead.triggers.to_string(),
        target_status: word(&lead.target_status),
        device_id: lead.device_id.map(|id| id.to_string()),
        user_id: lead.user_id.to_string(),
        created_at: lead.created_at.to_string(),
        duplicate,
    }
}

/// Create a lead; a repeated call is harmless, and the answer comes after the lead is durable.
#[utoipa::path(post, path = "/webhook/lead/create", tag = "leads", request_body = WebhookLeadBody, params(TokenQuery),
    responses((status = 200, description = "The lead; code DUPLICATE_SKIPPED when it was there",
        body = Envelope<WebhookLeadView>)))]
async fn create(open: Open, Query(query): Query<TokenQuery>, request: Request) -> ApiResult<WebhookLeadView> {
    let now = open.clock.monotonic();
    let taken = open.limits.lead_webhook.take(&open.address, now);
    taken.map_err(ApiError::too_many)?;
    let headers = request.headers().clone();
    let bytes = read_body(request.into_body(), BODY_BYTES_MAX).await?;
    let body: WebhookLeadBody = parse_json(&bytes)?;
    if let Some(user) = body.user_id.as_deref().and_then(|text| text.trim().parse().ok()) {
        let given = given_token(&headers).or(body.token).or(query.token);
        check_token(&open, user, given).await?;
    }
    let sent = WebhookLead {
        user_id: body.user_id,
        device_id: body.device_id,
        name: body.name,
        phone: body.phone,
        niche: body.niche.map(Into::into),
        trigger: body.trigger.map(Into::into),
        target_status: body.target_status.filter(|text| !text.trim().is_empty()),
    };
    let created = open.handle.create_lead_by_webhook(&sent).await?;
    Ok(match &created {
        LeadCreated::Created(lead) => Reply::ok("Lead created successfully", shown(lead, false)),
        LeadCreated::Existing { lead, .. } => {
            Reply::ok("Duplicate lead skipped", shown(lead, true)).code("DUPLICATE_SKIPPED")
        }
    })
}

fn given_token(headers: &HeaderMap) -> Option<String> {
    let own = headers.get("x-webhook-token").and_then(|value| value.to_str().ok());
    let bearer = header_text(headers, &header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    own.or(bearer).map(|token| token.trim().to_owned())
}

/// Lets a call pass unless its user requires a token that it does not have. Of a user that does not exist nothing is told
/// here: the pair of user and device is looked at later.
async fn check_token(open: &Open, user: UserId, given: Option<String>) -> Result<(), ApiError> {
    let wanted = match open.store.user(user).await {
        Ok(user) => user.settings.webhook_token_hash,
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let Some(wanted) = wanted else { return Ok(()) };
    let given = token_digest(given.as_deref().unwrap_or_default());
    if bool::from(given.as_bytes().ct_eq(wanted.as_bytes())) {
        Ok(())
    } else {
        Err(ApiError::unauthorized(
            "this user requires a webhook token, and it is missing or wrong",
        ))
    }
}

/// What is kept of a webhook token: SHA-256 in hexadecimal.
pub(super) fn token_digest(token: &str) -> String {
    Sha256::digest(token.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
