//! Devices: the sending identities of a user.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::command::{DeviceAnswer, DeviceCommand};
use wa_core::domain::device::{
    Credential, Device, DeviceStatus, NewChats, NewChatsWarning, Restriction, RestrictionCause,
};
use wa_core::engine::handle::DeviceRequest;
use wa_core::id::{CommandId, DeviceId};
use wa_core::plan::{CapsDraft, DelayDraft, DeviceDraft, Edit};
use wa_core::store::{PAGE_MAX, PageRequest};
use wa_core::transport::RestrictionScope;

use super::envelope::{Envelope, Listed, Nothing, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Body, Caller, Ids, Locked, PageQuery, Query};
use super::view::{Given, NumbersView, at, word};

/// How long a request waits for the answer of a device before it gives the command's id instead.
pub const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(devices, create_device))
        .routes(routes!(check_connection))
        .routes(routes!(device, edit_device, delete_device))
        .routes(routes!(hold))
        .routes(routes!(resume))
        .routes(routes!(refresh))
        .routes(routes!(reconnect))
        .routes(routes!(disconnect))
        .routes(routes!(logout))
        .routes(routes!(probe))
        .routes(routes!(check_numbers))
        .routes(routes!(check_number))
        .routes(routes!(command))
        .routes(routes!(accounts, create_account))
        .routes(routes!(account, delete_account))
        .routes(routes!(reconnect_account))
}

/// What a device is or is to become. In a change, fields that are not named stay as they are and `null` empties.
#[derive(Default, Deserialize, ToSchema)]
pub struct DeviceBody {
    /// Its name, 1 to 100 characters, unique.
    #[serde(alias = "device_name")]
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    name: Given<String>,
    /// A note, at most 500 characters.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    description: Given<String>,
    /// `wablas`, `whacenter` or `whatsapp_web`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    platform: Given<String>,
    /// Its own number.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    phone: Given<String>,
    /// The gateway's credential: Wablas token or token.secret, Whacenter device key. Never shown again.
    #[serde(alias = "jid", alias = "token", alias = "api_key")]
    #[schema(value_type = Option<String>, write_only)]
    #[serde(default)]
    credential: Given<SecretText>,
    /// The gateway's base URL, such as `https://solo.wablas.com`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    base_url: Given<String>,
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
    /// Most messages within an hour.
    #[schema(value_type = Option<u32>)]
    #[serde(default)]
    hour_max: Given<u32>,
    /// Most messages within a day.
    #[schema(value_type = Option<u32>)]
    #[serde(default)]
    day_max: Given<u32>,
    /// What to do with messages in doubt: `resolve` or `unknown`.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    on_doubt: Given<String>,
    /// The version that was read; a change of another version is refused.
    version: Option<i64>,
}

/// A secret in a body.
struct SecretText(SecretString);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

impl DeviceBody {
    fn over(self, before: DeviceDraft) -> DeviceDraft {
        use secrecy::ExposeSecret;
        let delay = before.delay.unwrap_or_default();
        let delay = DelayDraft {
            min: seconds(self.min_delay).over(delay.min),
            max: seconds(self.max_delay).over(delay.max),
        };
        let caps = before.caps.unwrap_or_default();
        let caps = CapsDraft {
            hour_max: self.hour_max.over(caps.hour_max),
            day_max: self.day_max.over(caps.day_max),
        };
        DeviceDraft {
            name: self.name.over(before.name),
            description: self.description.over(before.description),
            platform: self.platform.over(before.platform),
            phone: self.phone.over(before.phone),
            credential: match self.credential {
                Given::Absent => before.credential,
                Given::Null => Some(Credential::default()),
                Given::Value(SecretText(secret)) => Some(Credential::new(secret.expose_secret())),
            },
            base_url: self.base_url.over(before.base_url),
            delay: (delay != DelayDraft::default()).then_some(delay),
            caps: (caps != CapsDraft::default()).then_some(caps),
            on_doubt: self.on_doubt.over(before.on_doubt),
        }
    }
}

/// Whole seconds as a span.
pub(super) fn seconds(given: Given<u64>) -> Given<Duration> {
    match given {
        Given::Absent => Given::Absent,
        Given::Null => Given::Null,
        Given::Value(seconds) => Given::Value(Duration::from_secs(seconds)),
    }
}

/// A device.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// A note.
    pub description: String,
    /// Which gateway or network carries it.
    pub platform: String,
    /// Its own number.
    pub phone: Option<String>,
    /// What it is known by at WhatsApp, once it was linked; stays when it is logged out.
    pub jid: Option<String>,
    /// Whether a credential is kept.
    pub has_credential: bool,
    /// The gateway's base URL.
    pub base_url: Option<String>,
    /// `online` or `offline`.
    pub status: String,
    /// How it is linked.
    pub link_state: String,
    /// Why.
    pub link_reason: Option<String>,
    /// Since when.
    pub link_at: String,
    /// Set while it does not send although it could.
    pub hold: Option<HoldView>,
    /// Set while the account is restricted: until when.
    pub restricted_until: Option<String>,
    /// Set while the account is restricted: what it may not do, and why.
    pub restriction: Option<RestrictionView>,
    /// How many new chats WhatsApp allows the account, where it has told a limit.
    pub new_chats: Option<NewChatsView>,
    /// Shortest pause between messages, in seconds.
    pub min_delay: Option<u64>,
    /// Longest pause between messages, in seconds.
    pub max_delay: Option<u64>,
    /// Most messages within an hour.
    pub hour_max: Option<u32>,
    /// Most messages within a day.
    pub day_max: Option<u32>,
    /// What to do with messages in doubt.
    pub on_doubt: String,
    /// Where the gateway sends its callbacks; keep it secret.
    pub callbacks: Option<CallbacksView>,
    /// When it last received something.
    pub last_active_at: Option<String>,
    /// When it was created.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// Its version, to be named in a change.
    pub version: i64,
    /// Its numbers over everything that it sent; in the answer for one device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers: Option<NumbersView>,
}

/// Why a device does not send.
#[derive(Debug, Serialize, ToSchema)]
pub struct HoldView {
    /// `by_person`, `unauthenticated` or `error_rate`.
    pub reason: String,
    /// Since when.
    pub since_at: String,
    /// What the gateway said.
    pub detail: Option<String>,
}

/// A restriction that WhatsApp or a gateway put on the account.
#[derive(Debug, Serialize, ToSchema)]
pub struct RestrictionView {
    /// `cold`: only messages to people who never wrote to the device wait. `all`: all messages wait.
    pub scope: String,
    /// `timelock`, `banned`, or `refused` when a message was refused and nobody said more.
    pub cause: String,
    /// Until when.
    pub until: String,
    /// What a person should know of it.
    pub reason: String,
}

/// WhatsApp's limit of new chats: of people who never wrote.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewChatsView {
    /// How many the cycle has.
    pub total: u32,
    /// How many were used when WhatsApp told it.
    pub used: u32,
    /// How many the device begins from then until the cycle ends, spread over that time; the rest is kept back.
    pub budget: u32,
    /// `none`, `first`, `second` or `capped`: how urgently WhatsApp warns.
    pub warning: String,
    /// When the cycle ends.
    pub ends_at: String,
    /// When WhatsApp told this.
    pub told_at: String,
    /// What a person should know of it.
    pub reason: String,
}

fn restriction_shown(restriction: Restriction) -> RestrictionView {
    let until = restriction.until_at.to_string();
    let waits = match restriction.scope {
        RestrictionScope::Cold => "Messages to people who never wrote to this device wait until then; others go on.",
        RestrictionScope::All => "All messages of this device wait until then.",
    };
    let why = match restriction.cause {
        RestrictionCause::Timelock => "WhatsApp does not let this account write to new people",
        RestrictionCause::Banned => "WhatsApp has banned this account for a while",
        _ => "A message was refused because the account is restricted; the end is a guess",
    };
    RestrictionView {
        scope: word(&restriction.scope),
        cause: word(&restriction.cause),
        reason: format!("{why}, until {until}. {waits}"),
        until,
    }
}

fn new_chats_shown(chats: NewChats) -> NewChatsView {
    let ends_at = chats.ends_at.to_string();
    let then = match chats.warning {
        NewChatsWarning::None => "they are spread over that time",
        NewChatsWarning::First => "WhatsApp has warned, so only half of what is left is used",
        _ => "WhatsApp has warned again, so no new person is written to until then",
    };
    NewChatsView {
        total: chats.total,
        used: chats.used,
        budget: chats.budget(),
        warning: word(&chats.warning),
        reason: format!(
            "WhatsApp allows this account {} new chats until {ends_at}, {} of which were used; {then}.",
            chats.total, chats.used
        ),
        ends_at,
        told_at: chats.told_at.to_string(),
    }
}

/// Addresses to enter at the gateway; paths alone while `PUBLIC_BASE_URL` is not set.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallbacksView {
    /// For incoming messages.
    pub inbound: String,
    /// For delivery reports.
    pub tracking: String,
    /// For the state of the device.
    pub device: String,
}

fn shown(caller: &Caller, device: &Device) -> DeviceView {
    let base = caller.settings.public_base_url.as_ref();
    let base = base.map(|url| url.as_str().trim_end_matches('/')).unwrap_or_default();
    let callback = |kind: &str| format!("{base}/hook/{}/{kind}", device.hook_token);
    let now = caller.clock.wall();
    let restriction = device.restriction.filter(|restriction| restriction.holds(now));
    let is_gateway = device.platform.is_gateway() && !device.hook_token.is_empty();
    DeviceView {
        id: device.id.to_string(),
        name: device.name.clone(),
        description: device.description.clone(),
        platform: device.platform.to_string(),
        phone: device.phone.map(|phone| phone.as_e164().to_owned()),
        jid: device.jid.clone(),
        has_credential: device.credential.is_set(),
        base_url: device.base_url.clone(),
        status: word(&device.status()),
        link_state: word(&device.link_state),
        link_reason: device.link_reason.clone(),
        link_at: device.link_at.to_string(),
        hold: device.hold.as_ref().map(|hold| HoldView {
            reason: word(&hold.reason),
            since_at: hold.since_at.to_string(),
            detail: hold.detail.clone(),
        }),
        restricted_until: at(restriction.map(|restriction| restriction.until_at)),
        restriction: restriction.map(restriction_shown),
        new_chats: device
            .new_chats
            .filter(|chats| chats.ends_at > now)
            .map(new_chats_shown),
        min_delay: device.delay.map(|delay| delay.min().as_secs()),
        max_delay: device.delay.map(|delay| delay.max().as_secs()),
        hour_max: device.caps.map(|caps| caps.hour_max()),
        day_max: device.caps.map(|caps| caps.day_max()),
        on_doubt: word(&device.on_doubt),
        callbacks: is_gateway.then(|| CallbacksView {
            inbound: callback("inbound"),
            tracking: callback("tracking"),
            device: callback("device"),
        }),
        last_active_at: at(device.last_active_at),
        created_at: device.created_at.to_string(),
        updated_at: device.updated_at.to_string(),
        version: device.version,
        numbers: None,
    }
}

/// The devices.
#[utoipa::path(get, path = "/api/devices", tag = "devices", params(PageQuery),
    responses((status = 200, description = "A page of devices", body = Envelope<Listed<DeviceView>>)))]
async fn devices(caller: Caller, Query(page): Query<PageQuery>) -> ApiResult<Listed<DeviceView>> {
    list(&caller, &page).await
}

/// The devices, as accounts.
#[utoipa::path(get, path = "/api/accounts", tag = "devices", params(PageQuery),
    responses((status = 200, description = "A page of devices", body = Envelope<Listed<DeviceView>>)))]
async fn accounts(caller: Caller, Query(page): Query<PageQuery>) -> ApiResult<Listed<DeviceView>> {
    list(&caller, &page).await
}

async fn list(caller: &Caller, page: &PageQuery) -> ApiResult<Listed<DeviceView>> {
    let page = caller.store.devices(&caller.scope, &page.request()?).await?;
    Ok(Reply::ok("devices", Listed::of(page, |device| shown(caller, &device))))
}

/// Create a device.
#[utoipa::path(post, path = "/api/devices", tag = "devices", request_body = DeviceBody,
    responses((status = 200, description = "The device", body = Envelope<DeviceView>)))]
async fn create_device(caller: Caller, Body(body): Body<DeviceBody>) -> ApiResult<DeviceView> {
    create(&caller, body).await
}

/// Create a device, as an account.
#[utoipa::path(post, path = "/api/accounts", tag = "devices", request_body = DeviceBody,
    responses((status = 200, description = "The device", body = Envelope<DeviceView>)))]
async fn create_account(caller: Caller, Body(body): Body<DeviceBody>) -> ApiResult<DeviceView> {
    create(&caller, body).await
}

async fn create(caller: &Caller, body: DeviceBody) -> ApiResult<DeviceView> {
    let draft = body.over(DeviceDraft::default());
    let device = caller.handle.create_device(&caller.scope, &draft).await?;
    Ok(Reply::ok("device created", shown(caller, &device)))
}

/// One device with its numbers.
#[utoipa::path(get, path = "/api/devices/{id}", tag = "devices",
    responses((status = 200, description = "The device", body = Envelope<DeviceView>)))]
async fn device(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<DeviceView> {
    one(&caller, id).await
}

/// One device with its numbers, as an account.
#[utoipa::path(get, path = "/api/accounts/{id}", tag = "devices",
    responses((status = 200, description = "The device", body = Envelope<DeviceView>)))]
async fn account(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<DeviceView> {
    one(&caller, id).await
}

async fn one(caller: &Caller, id: DeviceId) -> ApiResult<DeviceView> {
    let device = caller.store.device(&caller.scope, id).await?;
    let numbers = caller.handle.device_numbers(&caller.scope, id).await?;
    let view = DeviceView {
        numbers: Some((&numbers).into()),
        ..shown(caller, &device)
    };
    Ok(Reply::ok("device", view))
}

/// Change a device; a platform of `null` takes the platform back.
#[utoipa::path(put, path = "/api/devices/{id}", tag = "devices", request_body = DeviceBody,
    responses((status = 200, description = "The device", body = Envelope<DeviceView>)))]
async fn edit_device(caller: Caller, Ids(id): Ids<DeviceId>, Body(body): Body<DeviceBody>) -> ApiResult<DeviceView> {
    let before = caller.store.device(&caller.scope, id).await?;
    let version = body.version.unwrap_or(before.version);
    let draft = body.over(DeviceDraft::from(&before));
    let device = caller
        .handle
        .edit_device(&caller.scope, id, &Edit::new(version, draft))
        .await?;
    Ok(Reply::ok("device changed", shown(&caller, &device)))
}

/// Delete a device; its history stays.
#[utoipa::path(delete, path = "/api/devices/{id}", tag = "devices",
    responses((status = 200, description = "Deleted", body = Envelope<Nothing>)))]
async fn delete_device(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<Nothing> {
    caller.handle.delete_device(&caller.scope, id).await?;
    Ok(Reply::done("device deleted"))
}

/// Delete a device, as an account.
#[utoipa::path(delete, path = "/api/accounts/{id}", tag = "devices",
    responses((status = 200, description = "Deleted", body = Envelope<Nothing>)))]
async fn delete_account(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<Nothing> {
    caller.handle.delete_device(&caller.scope, id).await?;
    Ok(Reply::done("device deleted"))
}

/// Pause a device: nothing more of it begins.
#[utoipa::path(post, path = "/api/devices/{id}/hold", tag = "devices",
    responses((status = 200, description = "The device", body = Envelope<DeviceView>)))]
async fn hold(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<DeviceView> {
    let device = caller.handle.hold_device(&caller.scope, id).await?;
    Ok(Reply::ok("device paused", shown(&caller, &device)))
}

/// End the pause of a device.
#[utoipa::path(post, path = "/api/devices/{id}/resume", tag = "devices",
    responses((status = 200, description = "The device", body = Envelope<DeviceView>)))]
async fn resume(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<DeviceView> {
    let device = caller.handle.resume_device(&caller.scope, id).await?;
    Ok(Reply::ok("device resumed", shown(&caller, &device)))
}

/// How a device is linked.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectionView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `online` or `offline`.
    pub status: String,
    /// How it is linked.
    pub link_state: String,
}

/// Which devices are online.
#[utoipa::path(get, path = "/api/devices/check-connection", tag = "devices", params(PageQuery),
    responses((status = 200, description = "A page of devices", body = Envelope<Listed<ConnectionView>>)))]
async fn check_connection(caller: Caller, Query(page): Query<PageQuery>) -> ApiResult<Listed<ConnectionView>> {
    let page = caller.store.devices(&caller.scope, &page.request()?).await?;
    let listed = Listed::of(page, |device| ConnectionView {
        id: device.id.to_string(),
        name: device.name.clone(),
        status: word(&device.status()),
        link_state: word(&device.link_state),
    });
    Ok(Reply::ok("connections", listed))
}

/// What was asked of a device.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommandView {
    /// Its id.
    pub id: String,
    /// `waiting`, `done`, `refused` or `expired`.
    pub state: String,
    /// The answer, when it is done.
    pub result: Option<serde_json::Value>,
    /// Why it was refused.
    pub message: Option<String>,
}

impl CommandView {
    fn of(command: DeviceCommand, now: wa_core::time::Timestamp) -> Self {
        let (state, result, message) = match command.answer {
            DeviceAnswer::Waiting if command.expires_at <= now => ("expired", None, None),
            DeviceAnswer::Waiting => ("waiting", None, None),
            DeviceAnswer::Done { result } => ("done", Some(result), None),
            DeviceAnswer::Refused { message } => ("refused", None, Some(message)),
        };
        Self {
            id: command.id.to_string(),
            state: state.to_owned(),
            result,
            message,
        }
    }
}

/// Asks, and waits a little for the answer.
pub(super) async fn ask(caller: &Caller, id: DeviceId, request: DeviceRequest) -> ApiResult<CommandView> {
    let mut command = caller.handle.ask_device(&caller.scope, id, &request).await?;
    let until = caller.clock.monotonic() + ANSWER_WAIT;
    while command.answer == DeviceAnswer::Waiting && caller.clock.monotonic() < until {
        let next = caller.clock.monotonic() + LOOK_EVERY;
        caller.clock.sleep_until(next).await;
        command = caller.handle.device_answer(&caller.scope, command.id).await?;
    }
    let waiting = command.answer == DeviceAnswer::Waiting;
    let view = CommandView::of(command, caller.clock.wall());
    Ok(if waiting {
        Reply::accepted("the device has not answered yet: ask for the command again", view)
    } else {
        Reply::ok("answered", view)
    })
}

/// Connect again with the stored session; refused for devices of a gateway.
#[utoipa::path(post, path = "/api/devices/{id}/refresh", tag = "devices",
    responses((status = 200, description = "The answer", body = Envelope<CommandView>)))]
async fn refresh(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<CommandView> {
    ask(&caller, id, DeviceRequest::Refresh).await
}

/// Connect again, under its second name.
#[utoipa::path(post, path = "/api/devices/{id}/reconnect", tag = "devices",
    responses((status = 200, description = "The answer", body = Envelope<CommandView>)))]
async fn reconnect(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<CommandView> {
    ask(&caller, id, DeviceRequest::Refresh).await
}

/// Connect again, as an account.
#[utoipa::path(post, path = "/api/accounts/{id}/reconnect", tag = "devices",
    responses((status = 200, description = "The answer", body = Envelope<CommandView>)))]
async fn reconnect_account(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<CommandView> {
    ask(&caller, id, DeviceRequest::Refresh).await
}

/// Close the connection and keep the session, until the device is connected again; refused for devices of a gateway.
#[utoipa::path(post, path = "/api/devices/{id}/disconnect", tag = "devices",
    responses((status = 200, description = "The answer", body = Envelope<CommandView>)))]
async fn disconnect(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<CommandView> {
    ask(&caller, id, DeviceRequest::Disconnect).await
}

/// Remove the link; refused for devices of a gateway.
#[utoipa::path(post, path = "/api/devices/{id}/logout", tag = "devices",
    responses((status = 200, description = "The answer", body = Envelope<CommandView>)))]
async fn logout(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<CommandView> {
    ask(&caller, id, DeviceRequest::Logout).await
}

/// Ask the gateway how the device is.
#[utoipa::path(post, path = "/api/devices/{id}/probe", tag = "devices",
    responses((status = 200, description = "The answer", body = Envelope<CommandView>)))]
async fn probe(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<CommandView> {
    ask(&caller, id, DeviceRequest::Probe).await
}

/// Numbers to be checked.
#[derive(Default, Deserialize, ToSchema)]
pub struct CheckBody {
    /// 1 to 100 numbers.
    #[serde(default)]
    phones: Vec<String>,
}

/// Check whether numbers are on WhatsApp.
#[utoipa::path(post, path = "/api/devices/{id}/check-numbers", tag = "devices", request_body = CheckBody,
    responses((status = 200, description = "The answer", body = Envelope<CommandView>)))]
async fn check_numbers(caller: Caller, Ids(id): Ids<DeviceId>, Body(body): Body<CheckBody>) -> ApiResult<CommandView> {
    ask(&caller, id, DeviceRequest::CheckNumbers { phones: body.phones }).await
}

/// Which device checks.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CheckQuery {
    /// The device that checks; any that is online and can when it is not given.
    device_id: Option<String>,
}

/// A device that can tell now whether numbers are on WhatsApp.
async fn checker(caller: &Caller) -> Result<DeviceId, ApiError> {
    let checks = |device: &Device| {
        let transport = caller.transports.get(&device.platform);
        device.status() == DeviceStatus::Online
            && transport.is_some_and(|transport| transport.as_number_checker().is_some())
    };
    let mut page = PageRequest::first(PAGE_MAX);
    loop {
        let devices = caller.store.devices(&caller.scope, &page).await?;
        if let Some(device) = devices.rows.iter().find(|device| checks(device)) {
            return Ok(device.id);
        }
        page = match devices.next {
            Some(next) => PageRequest::after(next, PAGE_MAX),
            None => return Err(ApiError::conflict("no device is online that could check the number")),
        };
    }
}

/// Check whether one number is on WhatsApp.
#[utoipa::path(get, path = "/user/check/{phone}", tag = "devices", params(CheckQuery),
    responses((status = 200, description = "The answer", body = Envelope<CommandView>)))]
async fn check_number(
    caller: Caller,
    Ids(phone): Ids<String>,
    Query(query): Query<CheckQuery>,
) -> ApiResult<CommandView> {
    let id = match query.device_id {
        Some(id) => id
            .parse()
            .map_err(|_| ApiError::field("device_id", "invalid", "must be a UUID"))?,
        None => checker(&caller).await?,
    };
    ask(&caller, id, DeviceRequest::CheckNumbers { phones: vec![phone] }).await
}

/// What was asked of a device, and the answer.
#[utoipa::path(get, path = "/api/devices/{id}/commands/{command_id}", tag = "devices",
    responses((status = 200, description = "The answer", body = Envelope<CommandView>)))]
async fn command(caller: Caller, Ids((id, command)): Ids<(DeviceId, CommandId)>) -> ApiResult<CommandView> {
    let command = caller.handle.device_answer(&caller.scope, command).await?;
    if command.device_id != id {
        return Err(ApiError::no_such("command"));
    }
    Ok(Reply::ok("answer", CommandView::of(command, caller.clock.wall())))
}
