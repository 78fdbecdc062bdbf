//! What happens, told live by WebSocket and page by page to whoever asks.
//!
//! What is durable comes from the store, in the order of commits and each once, whichever node it happened on; the hints of the bus
//! only say when to look. So a connection misses nothing while it lasts, and nothing either when it reads on after the last id that
//! it got. Hints that are in no store (progress) may be lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::access::RequestScope;
use wa_core::domain::device::LinkState;
use wa_core::event::{Event, EventKind};
use wa_core::id::{DeviceId, EventId, UserId};
use wa_core::store::StoreError;
use wa_core::time::{Monotonic, Timestamp};

use super::auth;
use super::envelope::{Envelope, Listed, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Caller, Locked, PageQuery, Query};
use crate::app::App;
use crate::live::{Hint, Seat};

/// How long hints are gathered before a connection looks into the store: 250 ms.
pub const GATHER_FOR: Duration = Duration::from_millis(250);
/// How often a connection looks into the store without a hint: 10 s.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often the other side is asked whether it is there: 30 s. One that was silent for twice as long is gone.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// How often it is asked whether the login still holds, which ends at once where this node hears of it: 60 s.
pub const LOGIN_EVERY: Duration = Duration::from_secs(60);
/// How long the other side may take to accept what it is told: 15 s.
pub const ACCEPT_WITHIN: Duration = Duration::from_secs(15);
/// Most different hints that are gathered; of more the oldest are lost.
pub const PASSING_MAX: usize = 1_000;
/// Longest message that the other side may send, in bytes; nothing is expected of it.
const INCOMING_BYTES_MAX: usize = 4_096;
/// Events that are read together.
const PAGE: u32 = 500;

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new().routes(routes!(events)).routes(routes!(connect))
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventView {
    /// Its id, to read on after; `null` for hints that are not kept, and for `READY` where nothing is kept.
    pub id: Option<String>,
    /// What it is: `READY`, `QR_UPDATE`, `DEVICE_PAIRED`, `DEVICE_CONNECTED`, `DEVICE_RECONNECTED`, `DEVICE_LOGGED_OUT`,
    /// `DEVICE_STATUS`, `DEVICE_HOLD`, `DEVICE_RESTRICTION`, `DEVICE_NEW_CHATS`, `DEVICE_ANSWERED`, `NEW_MESSAGE`, `TAKEN_OVER`, `CHAT_UPDATE`,
    /// `MESSAGE_STATE`, `CAMPAIGN_STATUS`, `CAMPAIGN_PROGRESS`, `SEQUENCE_STATUS`, `SEQUENCE_PROGRESS`, `ENROLMENT_STARTED`,
    /// `ENROLMENT_ENDED`, `LEAD_CREATED` or `OPTED_OUT`.
    #[schema(example = "CAMPAIGN_STATUS")]
    pub code: String,
    /// When it happened.
    pub at: String,
    /// The ids of what it is about, and their new states.
    #[schema(value_type = serde_json::Value)]
    pub results: serde_json::Value,
}

/// What the links of devices were, as far as the reader was told: a device that is ready was paired, came back, or is just there.
#[derive(Debug, Default)]
struct Links(HashMap<DeviceId, LinkState>);

impl Links {
    fn code(&mut self, device: DeviceId, state: LinkState) -> &'static str {
        let before = self.0.insert(device, state);
        match state {
            LinkState::QrReady => "QR_UPDATE",
            LinkState::LoggedOut => "DEVICE_LOGGED_OUT",
            LinkState::Ready => match before {
                Some(LinkState::QrReady) => "DEVICE_PAIRED",
                Some(LinkState::Disconnected | LinkState::Error) => "DEVICE_RECONNECTED",
                _ => "DEVICE_CONNECTED",
            },
            _ => "DEVICE_STATUS",
        }
    }

    fn view(&mut self, id: Option<EventId>, kind: &EventKind, at: Timestamp) -> EventView {
        let code = match kind {
            EventKind::DeviceLink { device_id, state } => self.code(*device_id, *state),
            EventKind::Reply { .. } => "NEW_MESSAGE",
            EventKind::TakenOver { .. } => "TAKEN_OVER",
            EventKind::ChatUpdate { .. } => "CHAT_UPDATE",
            EventKind::CampaignStatus { .. } => "CAMPAIGN_STATUS",
            EventKind::CampaignProgress { .. } => "CAMPAIGN_PROGRESS",
            EventKind::SequenceStatus { .. } => "SEQUENCE_STATUS",
            EventKind::SequenceProgress { .. } => "SEQUENCE_PROGRESS",
            EventKind::EnrolmentStarted { .. } => "ENROLMENT_STARTED",
            EventKind::EnrolmentEnded { .. } => "ENROLMENT_ENDED",
            EventKind::MessageState { .. } => "MESSAGE_STATE",
            EventKind::LeadCreated { .. } => "LEAD_CREATED",
            EventKind::OptedOut { .. } => "OPTED_OUT",
            EventKind::DeviceHold { .. } => "DEVICE_HOLD",
            EventKind::DeviceRestriction { .. } => "DEVICE_RESTRICTION",
            EventKind::DeviceNewChats { .. } => "DEVICE_NEW_CHATS",
            EventKind::DeviceAnswered { .. } => "DEVICE_ANSWERED",
            _ => "OTHER",
        };
        EventView {
            id: id.map(|id| id.to_string()),
            code: code.to_owned(),
            at: at.to_string(),
            results: serde_json::to_value(kind).expect("events can be written"),
        }
    }

    fn of(&mut self, event: &Event) -> EventView {
        self.view(Some(event.id), &event.kind, event.at)
    }
}

/// From where to read on.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AfterQuery {
    /// The `id` of the last event that is known; the oldest that are kept come first when it is not given or not kept any more.
    after: Option<String>,
    /// Most rows wanted, 1 to 1,000; 50 when it is not given.
    limit: Option<u32>,
}

fn after(text: Option<&str>) -> Result<Option<EventId>, ApiError> {
    let read = text.map(str::parse).transpose();
    read.map_err(|_| ApiError::field("after", "invalid", "must be the id of an event"))
}

/// What happened to the caller's data, in the order of commits, as far as it is kept (setting EVENTS_KEPT_FOR): for screens without
/// a live connection. `next` is the `after` of the next call, whether or not there is more now.
#[utoipa::path(get, path = "/api/events", tag = "live", params(AfterQuery),
    responses((status = 200, description = "A page", body = Envelope<Listed<EventView>>)))]
async fn events(caller: Caller, Query(query): Query<AfterQuery>) -> ApiResult<Listed<EventView>> {
    let page = PageQuery {
        cursor: None,
        limit: query.limit,
    };
    let after = after(query.after.as_deref())?;
    let events = caller
        .store
        .events(&caller.scope, after.unwrap_or(EventId::MIN), page.limit()?)
        .await?;
    let next = events.last().map(|event| event.id).or(after);
    let mut links = Links::default();
    Ok(Reply::ok(
        "events",
        Listed {
            items: events.iter().map(|event| links.of(event)).collect(),
            next: next.map(|id| id.to_string()),
        },
    ))
}

/// From where a connection begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ConnectQuery {
    /// The `id` of the last event that is known, to be told what came since; without it only what comes from now on is told.
    after: Option<String>,
}

/// What happens to the caller's data, live, by WebSocket: one JSON object each, of the form of `/api/events`. The first is `READY`
/// with the id from which on the following ones are told.
#[utoipa::path(get, path = "/ws", tag = "live", params(ConnectQuery),
    responses((status = 101, description = "Connected", body = EventView)))]
async fn connect(
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<ConnectQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    // A browser opens connections for any page, with the cookie and the remembered password of its user.
    auth::refuse_foreign_page(&caller, &headers)?;
    let upgrade = upgrade.map_err(|_| ApiError::unreadable("connect by WebSocket"))?;
    let after = after(query.after.as_deref())?;
    let most = caller.settings.live_connections_max;
    let seat = caller.live.enter(caller.user.id, most).ok_or_else(|| {
        ApiError::too_many(LOOK_EVERY).saying(format!(
            "the user has {most} live connections already, or the server stops"
        ))
    })?;
    let after = match after {
        Some(after) => Some(after),
        None => caller.store.newest_event(&caller.scope).await?,
    };
    let now = caller.clock.monotonic();
    let connection = Connection {
        app: caller.app(),
        login: Login {
            user_id: caller.user.id,
            version: caller.user.version,
            session: caller.session,
        },
        scope: caller.scope.clone(),
        seat,
        after,
        links: Links::default(),
        passing: Vec::new(),
        look_at: now,
        ping_at: now + PING_EVERY,
        login_at: now + LOGIN_EVERY,
        heard_at: now,
    };
    Ok(upgrade
        .max_message_size(INCOMING_BYTES_MAX)
        .max_frame_size(INCOMING_BYTES_MAX)
        .on_upgrade(move |socket| connection.run(socket)))
}

/// What a connection was opened with.
struct Login {
    user_id: UserId,
    version: i64,
    session: Option<[u8; 32]>,
}

/// Why a connection ends.
enum End {
    /// The other side is gone.
    Gone,
    /// The server goes.
    Stopped,
    /// The login has ended.
    LoggedOut,
}

struct Connection {
    app: Arc<App>,
    login: Login,
    scope: RequestScope,
    seat: Seat,
    /// The last event that was told.
    after: Option<EventId>,
    links: Links,
    /// Hints that are told at the next look.
    passing: Vec<EventKind>,
    look_at: Monotonic,
    ping_at: Monotonic,
    login_at: Monotonic,
    heard_at: Monotonic,
}

impl Connection {
    async fn run(mut self, mut socket: WebSocket) {
        let end = self.serve(&mut socket).await;
        let (code, reason) = match end {
            Err(End::Stopped) => (close_code::AWAY, "the server stops"),
            Err(End::LoggedOut) => (close_code::POLICY, "the login has ended"),
            Err(End::Gone) | Ok(()) => return,
        };
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        // Nothing is left to be done when the other side is gone.
        let _ = send(&mut socket, Message::Close(Some(frame))).await;
    }

    async fn serve(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let ready = EventView {
            id: self.after.map(|id| id.to_string()),
            code: "READY".to_owned(),
            at: self.app.clock.wall().to_string(),
            results: serde_json::json!({}),
        };
        tell(socket, &ready).await?;
        loop {
            let next = self.look_at.min(self.ping_at).min(self.login_at);
            tokio::select! {
                hint = self.seat.next() => self.take(hint.ok_or(End::Stopped)?),
                incoming = socket.recv() => match incoming {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
                    Some(Ok(_)) => self.heard_at = self.app.clock.monotonic(),
                },
                () = self.app.clock.sleep_until(next) => {}
            }
            let now = self.app.clock.monotonic();
            if self.login_at <= now {
                self.login_at = now + LOGIN_EVERY;
                self.check_login().await?;
            }
            if self.ping_at <= now {
                self.ping_at = now + PING_EVERY;
                if now.since(self.heard_at) > PING_EVERY * 2 {
                    return Err(End::Gone);
                }
                send(socket, Message::Ping(Vec::new().into())).await?;
            }
            if self.look_at <= now {
                self.look(socket).await?;
                self.look_at = self.app.clock.monotonic() + LOOK_EVERY;
            }
        }
    }

    fn take(&mut self, hint: Hint) {
        let now = self.app.clock.monotonic();
        match hint {
            Hint::Login => self.login_at = now,
            Hint::Look => self.look_at = self.look_at.min(now + GATHER_FOR),
            Hint::Passing(kind) => {
                self.look_at = self.look_at.min(now + GATHER_FOR);
                if !self.passing.contains(&kind) {
                    if self.passing.len() >= PASSING_MAX {
                        self.passing.remove(0);
                    }
                    self.passing.push(kind);
                }
            }
        }
    }

    /// Tells what is new in the store, and what was hinted at.
    async fn look(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        loop {
            let after = self.after.unwrap_or(EventId::MIN);
            let events = match self.app.store.events(&self.scope, after, PAGE).await {
                Ok(events) => events,
                // It is tried again at the next look.
                Err(error) => {
                    note(&error);
                    break;
                }
            };
            for event in &events {
                let view = self.links.of(event);
                tell(socket, &view).await?;
                self.after = Some(event.id);
            }
            if events.len() < PAGE as usize {
                break;
            }
        }
        let at = self.app.clock.wall();
        for kind in std::mem::take(&mut self.passing) {
            let view = self.links.view(None, &kind, at);
            tell(socket, &view).await?;
        }
        Ok(())
    }

    async fn check_login(&self) -> Result<(), End> {
        let Login {
            user_id,
            version,
            session,
        } = &self.login;
        match auth::still_holds(&self.app, *user_id, *version, session.as_ref()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(End::LoggedOut),
            // Who cannot be asked is asked again; nothing can be read meanwhile either.
            Err(error) => {
                note(&error);
                Ok(())
            }
        }
    }
}

fn note(error: &StoreError) {
    tracing::debug!(?error, "a live connection could not read the store; it tries again");
}

async fn tell(socket: &mut WebSocket, view: &EventView) -> Result<(), End> {
    let text = serde_json::to_string(view).expect("events can be written");
    send(socket, Message::Text(text.into())).await
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match tokio::time::timeout(ACCEPT_WITHIN, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Gone),
    }
}

#[cfg(test)]
mod tests {
    use wa_core::id::IdSource;

    use super::*;

    #[test]
    fn a_device_that_is_ready_was_paired_came_back_or_is_just_there() {
        let ids = IdSource::seeded([1; 32]);
        let [paired, back, there] = [1, 2, 3].map(|_| DeviceId::new(&ids, Timestamp::EPOCH));
        let mut links = Links::default();
        assert_eq!(links.code(paired, LinkState::QrReady), "QR_UPDATE");
        assert_eq!(links.code(back, LinkState::Disconnected), "DEVICE_STATUS");
        assert_eq!(links.code(paired, LinkState::Ready), "DEVICE_PAIRED");
        assert_eq!(links.code(back, LinkState::Ready), "DEVICE_RECONNECTED");
        assert_eq!(links.code(there, LinkState::Ready), "DEVICE_CONNECTED");
        assert_eq!(links.code(there, LinkState::LoggedOut), "DEVICE_LOGGED_OUT");
    }
}
