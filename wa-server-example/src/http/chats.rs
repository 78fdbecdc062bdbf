//! Chats of a device: who wrote, what was written, and answers.

use axum::extract::Request;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::chat::{Chat, ChatAuthor, ChatMessage, ChatMessagePlace, ChatWriter};
use wa_core::domain::phone::Phone;
use wa_core::id::{ChatId, DeviceId};
use wa_core::store::{ChatFrom, ChatPage};

use super::envelope::{Envelope, Listed, Nothing, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Caller, Ids, Locked, PageQuery, Query};
use super::messages::{SendBody, SentView, send_to};
use super::view::word;

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(chats))
        .routes(routes!(chat_messages, send_in_chat))
        .routes(routes!(read_chat))
}

/// A chat of a device and a person.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatView {
    /// Its id, for `/api/devices/{id}/messages/{chat_id}`.
    pub id: String,
    /// The device.
    pub device_id: String,
    /// The person's number.
    pub phone: String,
    /// The name that the person gave themselves.
    pub name: Option<String>,
    /// Messages of the person that nobody has read.
    pub unread: u32,
    /// What chats are ordered by: when the person or the device's own phone wrote last, or somebody sent to the person by hand.
    pub last_at: String,
    /// The newest message.
    pub last_message: Option<ChatMessageView>,
}

impl From<Chat> for ChatView {
    fn from(chat: Chat) -> Self {
        Self {
            id: chat.id.to_string(),
            device_id: chat.device_id.to_string(),
            phone: chat.phone.as_e164().to_owned(),
            name: chat.name,
            unread: chat.unread,
            last_at: chat.last_at.to_string(),
            last_message: chat.last.map(Into::into),
        }
    }
}

/// A message of a chat.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatMessageView {
    /// Its id.
    pub id: String,
    /// `in` from the person, `out` to the person.
    #[schema(example = "in")]
    pub direction: String,
    /// Who wrote it: `person`, `own_phone` (on the device's own phone), or `engine` (sent from here).
    #[schema(example = "person")]
    pub from: String,
    /// What it is: `text`, `image`, `video`, `audio`, `document`, `location`, `contact`, `reaction` or `button_reply`.
    #[schema(example = "text")]
    pub kind: String,
    /// The text or caption.
    pub text: String,
    /// When it was written.
    pub at: String,
    /// Of a message sent from here, how far it is; see `/api/messages/{id}`.
    pub status: Option<String>,
    /// Of a message sent from here, what receipts say.
    pub delivery: Option<String>,
    /// Of a message sent from here, its id there.
    pub message_id: Option<String>,
    /// Its place among the messages of the chat, for `before` and `after`.
    pub place: String,
}

impl From<ChatMessage> for ChatMessageView {
    fn from(message: ChatMessage) -> Self {
        let place = message.place().to_string();
        let (direction, from) = match message.author {
            ChatAuthor::Writer(ChatWriter::Person) => ("in", "person"),
            ChatAuthor::Writer(ChatWriter::OwnPhone) => ("out", "own_phone"),
            ChatAuthor::Engine { .. } => ("out", "engine"),
        };
        let (mut status, mut told, mut sent) = (None, None, None);
        if let ChatAuthor::Engine {
            message_id,
            state,
            delivery,
        } = message.author
        {
            (status, told, sent) = (
                Some(word(&state)),
                delivery.as_ref().map(word),
                Some(message_id.to_string()),
            );
        }
        Self {
            id: message.id.to_string(),
            direction: direction.to_owned(),
            from: from.to_owned(),
            kind: word(&message.kind),
            text: message.text,
            at: message.at.to_string(),
            status,
            delivery: told,
            message_id: sent,
            place,
        }
    }
}

/// A chat by its id, or by the number of its person: digits, with or without `+`, or `<digits>@s.whatsapp.net`.
async fn named(caller: &Caller, device: DeviceId, text: &str) -> Result<Chat, ApiError> {
    let id = match text.parse::<ChatId>() {
        Ok(id) => id,
        Err(_) => {
            let (number, server) = text.split_once('@').unwrap_or((text, "s.whatsapp.net"));
            let phone = match server {
                "s.whatsapp.net" | "c.us" => Phone::parse(
                    &format!("+{}", number.trim_start_matches('+')),
                    &caller.user.settings.region,
                )
                .ok(),
                _ => None,
            };
            let phone = phone.ok_or_else(|| {
                let expected = "must be the id of a chat or the number of a person with its country code";
                ApiError::field("chat_id", "invalid", expected)
            })?;
            caller.handle.chat_id(caller.scope.user_id, device, &phone)
        }
    };
    let chat = caller.handle.chat(&caller.scope, id).await?;
    if chat.device_id == device {
        Ok(chat)
    } else {
        Err(ApiError::no_such("chat"))
    }
}

/// The chats of a device with people, newest first: those in which a person or the device's own phone wrote, or somebody by hand, as
/// far as they are kept (setting CHATS_KEPT_FOR). Groups, channels and status are none.
#[utoipa::path(get, path = "/api/devices/{id}/chats", tag = "chats", params(PageQuery),
    responses((status = 200, description = "A page of chats", body = Envelope<Listed<ChatView>>)))]
async fn chats(caller: Caller, Ids(id): Ids<DeviceId>, Query(page): Query<PageQuery>) -> ApiResult<Listed<ChatView>> {
    let page = caller.handle.chats(&caller.scope, id, &page.request()?).await?;
    Ok(Reply::ok("chats", Listed::of(page, ChatView::from)))
}

/// Which messages of a chat.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ChatQuery {
    /// Those before this place, newest first: the `next` of the page before, or the `place` of a message.
    before: Option<String>,
    /// Those after this place, oldest first.
    after: Option<String>,
    /// Most rows wanted, 1 to 1,000; 50 when it is not given.
    limit: Option<u32>,
}

impl ChatQuery {
    fn page(&self) -> Result<ChatPage, ApiError> {
        let place = |field: &'static str, text: &str| {
            let read = text.parse::<ChatMessagePlace>();
            read.map_err(|_| {
                ApiError::field(
                    field,
                    "invalid",
                    "must be the `place` of a message or the `next` of a page",
                )
            })
        };
        let from = match (&self.before, &self.after) {
            (None, None) => ChatFrom::Newest,
            (Some(before), None) => ChatFrom::Before(place("before", before)?),
            (None, Some(after)) => ChatFrom::After(place("after", after)?),
            (Some(_), Some(_)) => return Err(ApiError::field("after", "not_allowed", "must be empty beside before")),
        };
        let limit = PageQuery {
            cursor: None,
            limit: self.limit,
        };
        Ok(ChatPage {
            from,
            limit: limit.limit()?,
        })
    }
}

/// The messages of a chat, newest first: what the person wrote, what was written on the device's own phone, and what was sent from
/// here. The chat is named by its id or by the person's number. They can be read while the device is offline.
#[utoipa::path(get, path = "/api/devices/{id}/messages/{chat_id}", tag = "chats", params(ChatQuery),
    responses((status = 200, description = "A page of messages", body = Envelope<Listed<ChatMessageView>>)))]
async fn chat_messages(
    caller: Caller,
    Ids((id, chat)): Ids<(DeviceId, String)>,
    Query(query): Query<ChatQuery>,
) -> ApiResult<Listed<ChatMessageView>> {
    let page = query.page()?;
    let chat = named(&caller, id, &chat).await?;
    let page = caller.handle.chat_messages(&caller.scope, chat.id, &page).await?;
    Ok(Reply::ok("messages", Listed::of(page, ChatMessageView::from)))
}

/// Mark all messages of a chat read here; the person is not told.
#[utoipa::path(post, path = "/api/devices/{id}/messages/{chat_id}/read", tag = "chats",
    responses((status = 200, description = "Read", body = Envelope<Nothing>)))]
async fn read_chat(caller: Caller, Ids((id, chat)): Ids<(DeviceId, String)>) -> ApiResult<Nothing> {
    let chat = named(&caller, id, &chat).await?;
    caller.handle.read_chat(&caller.scope, chat.id).await?;
    Ok(Reply::ok("read", Nothing {}))
}

/// Send in a chat; as JSON, or as a form with the file `image`. Number and device are those of the chat.
#[utoipa::path(post, path = "/api/devices/{id}/messages/{chat_id}", tag = "chats", request_body = SendBody,
    responses((status = 200, description = "Queued", body = Envelope<SentView>)))]
async fn send_in_chat(
    caller: Caller,
    Ids((id, chat)): Ids<(DeviceId, String)>,
    request: Request,
) -> ApiResult<SentView> {
    let chat = named(&caller, id, &chat).await?;
    send_to(&caller, (id, chat.phone), request).await
}
