//! Messages to one person, and what became of any message.

use std::collections::HashMap;

use axum::extract::Request;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::message::MessageState;
use wa_core::domain::phone::{Phone, Region};
use wa_core::engine::handle::{DirectSent, HandleError, MarkAs};
use wa_core::id::{DeviceId, LeadId, MessageId};
use wa_core::plan::{DirectDraft, OnSuppressed, TextAs};
use wa_core::store::MessageFilter;

use super::envelope::{Envelope, Listed, Reply};
use super::error::{ApiError, ApiResult, FieldProblem};
use super::extract::{Body, Caller, Ids, JSON_BYTES_MAX, Locked, PageQuery, Query, parse_json, read_body};
use super::pictures::{Form, MediaBody, attached, is_form, keep};
use super::view::{AttemptView, MessageView};

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(send_message))
        .routes(routes!(send_image))
        .routes(routes!(api_send))
        .routes(routes!(api_send_media))
        .routes(routes!(device_send))
        .routes(routes!(device_send_many))
        .routes(routes!(device_test))
        .routes(routes!(messages))
        .routes(routes!(message))
        .routes(routes!(attempts))
        .routes(routes!(mark))
        .routes(routes!(cancel))
        .routes(routes!(device_messages))
        .routes(routes!(account_messages))
}

/// A message to one person.
#[derive(Clone, Default, Deserialize, ToSchema)]
pub struct SendBody {
    /// The device that sends; the lead's own when it is not given.
    #[serde(alias = "account_id")]
    #[schema(value_type = Option<uuid::Uuid>)]
    device_id: Option<DeviceId>,
    /// The number; instead of a lead.
    #[serde(alias = "number", alias = "to")]
    phone: Option<String>,
    /// The lead; instead of a number.
    #[schema(value_type = Option<uuid::Uuid>)]
    lead_id: Option<LeadId>,
    /// The text, or the caption; sent as it stands unless `render` is set.
    #[serde(alias = "caption", alias = "text")]
    message: Option<String>,
    /// Whether merge fields and choices in the text are filled in, as in a campaign.
    #[serde(default)]
    render: bool,
    /// What is attached.
    media: Option<MediaBody>,
    /// The address of a picture to attach.
    #[serde(alias = "media_url")]
    image_url: Option<String>,
    /// Names this message: the same key again sends nothing. Also as the header `Idempotency-Key`.
    idempotency_key: Option<String>,
    /// Whether a person who opted out is written to all the same; recorded with the message.
    #[serde(default)]
    override_suppression: bool,
}

/// What became of a message that was to be sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct SentView {
    /// The message; its status is at `/api/messages/{id}`.
    pub message_id: String,
    /// `queued`, or `duplicate` when a message with the same key was there already.
    pub status: String,
}

impl SentView {
    fn of(sent: DirectSent) -> Self {
        Self {
            message_id: sent.message_id.to_string(),
            status: if sent.duplicate { "duplicate" } else { "queued" }.to_owned(),
        }
    }
}

async fn send(caller: &Caller, headers: &HeaderMap, body: SendBody) -> ApiResult<SentView> {
    let draft = draft(caller, headers, body).await?;
    let sent = caller.handle.send_direct(&caller.scope, &draft).await?;
    if sent.duplicate {
        // The message that was there before has its own.
        caller.fresh.forget(&caller.media).await;
    }
    let reply = Reply::ok(
        if sent.duplicate { "sent before" } else { "queued" },
        SentView::of(sent),
    );
    Ok(if sent.duplicate {
        reply.code("DUPLICATE_SKIPPED")
    } else {
        reply
    })
}

async fn draft(caller: &Caller, headers: &HeaderMap, body: SendBody) -> Result<DirectDraft, ApiError> {
    let media = match (body.media, body.image_url.filter(|url| !url.trim().is_empty())) {
        (Some(media), _) => Some(attached(caller, media).await?),
        (None, Some(url)) => Some(attached(caller, MediaBody::of_url(url)).await?),
        (None, None) => None,
    };
    Ok(DirectDraft {
        device_id: body.device_id,
        phone: body.phone,
        lead_id: body.lead_id,
        message: body.message,
        text_as: if body.render { TextAs::Template } else { TextAs::Literal },
        media,
        idempotency_key: key_of(headers, body.idempotency_key),
        on_suppressed: if body.override_suppression {
            OnSuppressed::SendAnyway
        } else {
            OnSuppressed::Refuse
        },
    })
}

/// The key that names a request's message: the field, else the header.
fn key_of(headers: &HeaderMap, field: Option<String>) -> Option<String> {
    let header = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    field.or_else(|| header.map(str::to_owned))
}

/// Reads a message from JSON or from a form, whose file is the picture.
async fn read(caller: &Caller, request: Request) -> Result<(HeaderMap, SendBody), ApiError> {
    let headers = request.headers().clone();
    if !is_form(&request) {
        let bytes = read_body(request.into_body(), JSON_BYTES_MAX).await?;
        return Ok((headers, parse_json(&bytes)?));
    }
    let form = Form::read(request, caller.media.bytes_max()).await?;
    let id = |name: &str| {
        form.field(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::field(name, "invalid", "must be a UUID"))
            })
            .transpose()
    };
    let first = |names: &[&str]| names.iter().find_map(|name| form.field(name));
    let mut body = SendBody {
        device_id: match id("device_id")? {
            Some(id) => Some(id),
            None => id("account_id")?,
        },
        phone: first(&["phone", "number", "to"]),
        lead_id: form
            .field("lead_id")
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::field("lead_id", "invalid", "must be a UUID"))
            })
            .transpose()?,
        message: first(&["caption", "message", "text"]),
        image_url: form.field("image_url"),
        idempotency_key: form.field("idempotency_key"),
        render: form.field("render").is_some_and(|text| text == "true"),
        override_suppression: form.field("override_suppression").is_some_and(|text| text == "true"),
        media: None,
    };
    if let Some(bytes) = form.file {
        let kept = keep(caller, bytes).await?;
        body.media = Some(MediaBody::of_id(kept.id));
    }
    Ok((headers, body))
}

/// Send a text to one person.
#[utoipa::path(post, path = "/send/message", tag = "messages", request_body = SendBody,
    responses((status = 200, description = "Queued", body = Envelope<SentView>)))]
async fn send_message(caller: Caller, headers: HeaderMap, Body(body): Body<SendBody>) -> ApiResult<SentView> {
    send(&caller, &headers, body).await
}

/// Send a picture to one person; as JSON with `image_url`, or as a form with the file `image`.
#[utoipa::path(post, path = "/send/image", tag = "messages", request_body = SendBody,
    responses((status = 200, description = "Queued", body = Envelope<SentView>)))]
async fn send_image(caller: Caller, request: Request) -> ApiResult<SentView> {
    let (headers, body) = read(&caller, request).await?;
    with_picture(&body)?;
    send(&caller, &headers, body).await
}

fn with_picture(body: &SendBody) -> Result<(), ApiError> {
    if body.media.is_some() || body.image_url.as_ref().is_some_and(|url| !url.trim().is_empty()) {
        Ok(())
    } else {
        Err(ApiError::field(
            "image",
            "required",
            "is required: a file, image_url or media",
        ))
    }
}

/// Send a text to one person (account_id, number, message).
#[utoipa::path(post, path = "/api/messages/send", tag = "messages", request_body = SendBody,
    responses((status = 200, description = "Queued", body = Envelope<SentView>)))]
async fn api_send(caller: Caller, headers: HeaderMap, Body(body): Body<SendBody>) -> ApiResult<SentView> {
    send(&caller, &headers, body).await
}

/// Send a picture to one person (account_id, number, media, caption).
#[utoipa::path(post, path = "/api/messages/send/media", tag = "messages", request_body = SendBody,
    responses((status = 200, description = "Queued", body = Envelope<SentView>)))]
async fn api_send_media(caller: Caller, request: Request) -> ApiResult<SentView> {
    let (headers, body) = read(&caller, request).await?;
    with_picture(&body)?;
    send(&caller, &headers, body).await
}

/// Send to one person from a device.
#[utoipa::path(post, path = "/api/devices/{id}/send", tag = "messages", request_body = SendBody,
    responses((status = 200, description = "Queued", body = Envelope<SentView>)))]
async fn device_send(caller: Caller, Ids(id): Ids<DeviceId>, request: Request) -> ApiResult<SentView> {
    caller.store.device(&caller.scope, id).await?;
    let (headers, body) = read(&caller, request).await?;
    let body = SendBody {
        device_id: Some(id),
        ..body
    };
    send(&caller, &headers, body).await
}

/// Sends to a person from a device, whatever else the request names.
pub(super) async fn send_to(
    caller: &Caller,
    (device, phone): (DeviceId, Phone),
    request: Request,
) -> ApiResult<SentView> {
    let (headers, body) = read(caller, request).await?;
    let body = SendBody {
        device_id: Some(device),
        phone: Some(phone.as_e164().to_owned()),
        lead_id: None,
        ..body
    };
    send(caller, &headers, body).await
}

/// A test message from a device, with a text of its own when none is given.
#[utoipa::path(post, path = "/api/devices/{id}/test", tag = "messages", request_body = SendBody,
    responses((status = 200, description = "Queued", body = Envelope<SentView>)))]
async fn device_test(caller: Caller, Ids(id): Ids<DeviceId>, request: Request) -> ApiResult<SentView> {
    let device = caller.store.device(&caller.scope, id).await?;
    let (headers, body) = read(&caller, request).await?;
    let blank = body.message.as_ref().is_none_or(|text| text.trim().is_empty());
    let has_media = with_picture(&body).is_ok();
    let body = SendBody {
        device_id: Some(id),
        message: match body.message {
            _ if blank && !has_media => Some(format!("Test message from {}", device.name)),
            message => message,
        },
        ..body
    };
    send(&caller, &headers, body).await
}

/// One message to several numbers.
#[derive(Default, Deserialize, ToSchema)]
pub struct SendManyBody {
    /// 1 to 100 numbers.
    #[serde(default)]
    phones: Vec<String>,
    /// The text, or the caption; sent as it stands unless `render` is set.
    message: Option<String>,
    /// Whether merge fields and choices in the text are filled in, as in a campaign.
    #[serde(default)]
    render: bool,
    /// What is attached.
    media: Option<MediaBody>,
    /// The address of a picture to attach.
    image_url: Option<String>,
    /// Names these messages, one for each number: the same key and number again send nothing, whatever the other numbers are. A
    /// number that stands here twice has two messages. Also as the header `Idempotency-Key`.
    idempotency_key: Option<String>,
}

/// What became of one number.
#[derive(Debug, Serialize, ToSchema)]
pub struct SentManyView {
    /// The number as it was given.
    pub phone: String,
    /// The message, when it was queued.
    pub message_id: Option<String>,
    /// `queued`, or `duplicate` when a message with the same key to the number was there already; nothing when it was refused.
    pub status: Option<String>,
    /// Why it was not.
    pub error: Option<String>,
}

/// Longest idempotency key of several messages, in characters: as that of one.
const KEY_CHARS_MAX: usize = 200;

/// The keys of messages that go by one key to several numbers, each of its number, however it is written, and of how often that
/// stands before it.
fn keys_of_many(key: &str, phones: &[String], region: &Region) -> Vec<String> {
    let mut before: HashMap<String, u64> = HashMap::new();
    let keys = phones.iter().map(|phone| {
        let phone =
            Phone::parse(phone, region).map_or_else(|_| phone.trim().to_owned(), |phone| phone.as_e164().to_owned());
        let mut hash = Sha256::new();
        for part in [key, phone.as_str()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let nth = before.entry(phone).or_default();
        hash.update(nth.to_be_bytes());
        *nth += 1;
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("send-many {digest}")
    });
    keys.collect()
}

/// Send to several numbers from a device. With an `Idempotency-Key`, a request that is repeated sends nothing again and tells
/// the same messages.
#[utoipa::path(post, path = "/api/devices/{id}/send-many", tag = "messages", request_body = SendManyBody,
    responses((status = 200, description = "What became of each", body = Envelope<Listed<SentManyView>>)))]
async fn device_send_many(
    caller: Caller,
    Ids(id): Ids<DeviceId>,
    headers: HeaderMap,
    Body(body): Body<SendManyBody>,
) -> ApiResult<Listed<SentManyView>> {
    caller.store.device(&caller.scope, id).await?;
    if body.phones.is_empty() {
        return Err(ApiError::field("phones", "required", "is required"));
    }
    let key = key_of(&headers, body.idempotency_key).map(|key| key.trim().to_owned());
    let key = key.filter(|key| !key.is_empty());
    if let Some(key) = &key
        && (key.chars().count() > KEY_CHARS_MAX || key.chars().any(char::is_control))
    {
        let expected = format!("must be one line of at most {KEY_CHARS_MAX} characters");
        return Err(ApiError::field("idempotency_key", "invalid", expected));
    }
    let one = SendBody {
        device_id: Some(id),
        message: body.message,
        render: body.render,
        media: body.media,
        image_url: body.image_url,
        ..SendBody::default()
    };
    let one = draft(&caller, &HeaderMap::new(), one).await?;
    let mut drafts: Vec<_> = body
        .phones
        .iter()
        .map(|phone| DirectDraft {
            phone: Some(phone.clone()),
            ..one.clone()
        })
        .collect();
    if let Some(key) = key {
        for (draft, key) in drafts
            .iter_mut()
            .zip(keys_of_many(&key, &body.phones, &caller.user.settings.region))
        {
            draft.idempotency_key = Some(key);
        }
    }
    let sent = caller.handle.send_direct_many(&caller.scope, &drafts).await?;
    // A message that was there before has its own picture.
    let unsure = |sent: &Result<DirectSent, _>| match sent {
        Ok(sent) => !sent.duplicate,
        Err(error) => matches!(error, HandleError::Store(_)),
    };
    if !sent.iter().any(unsure) {
        caller.fresh.forget(&caller.media).await;
    }
    let items = body
        .phones
        .into_iter()
        .zip(sent)
        .map(|(phone, sent)| {
            let (sent, error) = match sent {
                Ok(sent) => (Some(SentView::of(sent)), None),
                Err(error) => (None, Some(error.to_string())),
            };
            let (message_id, status) = sent.map(|sent| (sent.message_id, sent.status)).unzip();
            SentManyView {
                phone,
                message_id,
                status,
                error,
            }
        })
        .collect();
    Ok(Reply::ok("queued", Listed { items, next: None }))
}

/// Which messages a list shows; all conditions must hold.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MessageQuery {
    /// Of this device.
    #[param(value_type = Option<uuid::Uuid>)]
    pub device_id: Option<DeviceId>,
    /// To this lead.
    #[param(value_type = Option<uuid::Uuid>)]
    pub lead_id: Option<LeadId>,
    /// In these states, separated by commas.
    pub status: Option<String>,
}

/// States named with commas between them.
pub(super) fn states(text: Option<&str>) -> Result<Vec<MessageState>, ApiError> {
    let known = MessageState::ALL.map(|state| super::view::word(&state));
    text.unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let at = known.iter().position(|known| known.eq_ignore_ascii_case(name));
            at.map(|at| MessageState::ALL[at]).ok_or_else(|| {
                ApiError::fields(vec![FieldProblem {
                    field: "status".to_owned(),
                    code: "unknown".to_owned(),
                    message: format!("status must be one of {}", known.join(", ")),
                }])
            })
        })
        .collect()
}

async fn list(caller: &Caller, filter: &MessageFilter, page: &PageQuery) -> ApiResult<Listed<MessageView>> {
    let page = caller.store.messages(&caller.scope, filter, &page.request()?).await?;
    Ok(Reply::ok(
        "messages",
        Listed::of(page, |message| MessageView::from(&message)),
    ))
}

/// The messages.
#[utoipa::path(get, path = "/api/messages", tag = "messages", params(MessageQuery, PageQuery),
    responses((status = 200, description = "A page of messages", body = Envelope<Listed<MessageView>>)))]
async fn messages(
    caller: Caller,
    Query(query): Query<MessageQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<MessageView>> {
    let filter = MessageFilter {
        device_id: query.device_id,
        lead_id: query.lead_id,
        states: states(query.status.as_deref())?,
        with_superseded: true,
        ..MessageFilter::default()
    };
    list(&caller, &filter, &page).await
}

/// The activity log of a device: its messages.
#[utoipa::path(get, path = "/api/devices/{id}/activity", tag = "devices", params(MessageQuery, PageQuery),
    responses((status = 200, description = "A page of messages", body = Envelope<Listed<MessageView>>)))]
async fn device_messages(
    caller: Caller,
    Ids(id): Ids<DeviceId>,
    Query(query): Query<MessageQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<MessageView>> {
    activity(&caller, id, &query, &page).await
}

/// The messages of a device, as an account.
#[utoipa::path(get, path = "/api/accounts/{id}/messages", tag = "devices", params(MessageQuery, PageQuery),
    responses((status = 200, description = "A page of messages", body = Envelope<Listed<MessageView>>)))]
async fn account_messages(
    caller: Caller,
    Ids(id): Ids<DeviceId>,
    Query(query): Query<MessageQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<MessageView>> {
    activity(&caller, id, &query, &page).await
}

async fn activity(
    caller: &Caller,
    id: DeviceId,
    query: &MessageQuery,
    page: &PageQuery,
) -> ApiResult<Listed<MessageView>> {
    caller.store.device(&caller.scope, id).await?;
    let filter = MessageFilter {
        device_id: Some(id),
        lead_id: query.lead_id,
        states: states(query.status.as_deref())?,
        with_superseded: true,
        ..MessageFilter::default()
    };
    list(caller, &filter, page).await
}

/// One message and where it stands.
#[utoipa::path(get, path = "/api/messages/{id}", tag = "messages",
    responses((status = 200, description = "The message", body = Envelope<MessageView>)))]
async fn message(caller: Caller, Ids(id): Ids<MessageId>) -> ApiResult<MessageView> {
    let message = caller.store.message(&caller.scope, id).await?;
    Ok(Reply::ok("message", (&message).into()))
}

/// All attempts to send a message, oldest first.
#[utoipa::path(get, path = "/api/messages/{id}/attempts", tag = "messages",
    responses((status = 200, description = "The attempts", body = Envelope<Listed<AttemptView>>)))]
async fn attempts(caller: Caller, Ids(id): Ids<MessageId>) -> ApiResult<Listed<AttemptView>> {
    let attempts = caller.store.attempts(&caller.scope, id).await?;
    let items = attempts.iter().map(AttemptView::from).collect();
    Ok(Reply::ok("attempts", Listed { items, next: None }))
}

/// What a person knows of a message.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkBody {
    /// `sent` when the recipient got it, `failed` when not.
    #[serde(rename = "as")]
    #[schema(value_type = String)]
    mark: Mark,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    Sent,
    Failed,
}

/// Say what became of an unknown message.
#[utoipa::path(post, path = "/api/messages/{id}/mark", tag = "messages", request_body = MarkBody,
    responses((status = 200, description = "The message", body = Envelope<MessageView>)))]
async fn mark(caller: Caller, Ids(id): Ids<MessageId>, Body(body): Body<MarkBody>) -> ApiResult<MessageView> {
    let mark = match body.mark {
        Mark::Sent => MarkAs::Sent,
        Mark::Failed => MarkAs::Failed,
    };
    let message = caller.handle.mark_message(&caller.scope, id, mark).await?;
    Ok(Reply::ok("message marked", (&message).into()))
}

/// Stop one message that has not begun.
#[utoipa::path(post, path = "/api/messages/{id}/cancel", tag = "messages",
    responses((status = 200, description = "The message", body = Envelope<MessageView>)))]
async fn cancel(caller: Caller, Ids(id): Ids<MessageId>) -> ApiResult<MessageView> {
    let message = caller.handle.cancel_message(&caller.scope, id).await?;
    Ok(Reply::ok("message stopped", (&message).into()))
}
