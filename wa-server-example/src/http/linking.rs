//! Linking devices of WhatsApp Web: a code to be scanned, or one to be typed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::engine::handle::DeviceRequest;
use wa_core::id::DeviceId;

use super::devices::{CommandView, ask};
use super::envelope::Envelope;
use super::error::{ApiError, ApiResult};
use super::extract::{Body, Caller, Ids, Locked};

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(connect))
        .routes(routes!(qr))
        .routes(routes!(account_qr))
        .routes(routes!(pair_code))
}

/// How far a link is.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct LinkView {
    /// `waiting`, `qr`, `pair_code`, `linked` or `refused`.
    pub state: String,
    /// The text of the QR code; it changes about every 20 seconds, so ask again.
    pub qr: Option<String>,
    /// The QR code as an SVG document.
    pub svg: Option<String>,
    /// The QR code as a PNG file, as a `data:` address.
    pub png: Option<String>,
    /// The code to be typed on the phone, eight characters.
    pub pair_code: Option<String>,
    /// When the code stops being valid.
    pub expires_at: Option<String>,
    /// Why there is no code.
    pub message: Option<String>,
    /// The command, to be asked for again while it waits.
    pub command_id: String,
}

impl LinkView {
    fn of(command: CommandView) -> Self {
        let result = command.result.unwrap_or_default();
        let text = |key: &str| result.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        let (qr, pair_code) = (text("qr"), text("pair_code"));
        let state = match (command.state.as_str(), &qr, &pair_code) {
            ("done", Some(_), _) => "qr",
            ("done", None, Some(_)) => "pair_code",
            ("done", None, None) => "linked",
            ("refused" | "expired", ..) => "refused",
            _ => "waiting",
        };
        let svg = qr.as_deref().and_then(|qr| wa_transport_web::qr::svg(qr).ok());
        let png = qr.as_deref().and_then(|qr| wa_transport_web::qr::png(qr).ok());
        Self {
            state: state.to_owned(),
            svg,
            png: png.map(|file| format!("data:image/png;base64,{}", STANDARD.encode(file))),
            qr,
            pair_code,
            expires_at: text("expires_at"),
            message: command.message,
            command_id: command.id,
        }
    }
}

async fn link(caller: &Caller, id: DeviceId, phone: Option<String>) -> ApiResult<LinkView> {
    let answer = ask(caller, id, DeviceRequest::Link { phone }).await?;
    Ok(answer.map(LinkView::of))
}

/// Begin to link a device by QR; gives the code of the moment, or says that the device is linked.
#[utoipa::path(post, path = "/api/devices/{id}/connect", tag = "devices",
    responses((status = 200, description = "How far the link is", body = Envelope<LinkView>)))]
async fn connect(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<LinkView> {
    link(&caller, id, None).await
}

/// The QR code of the moment; begins to link the device where that was not begun.
#[utoipa::path(get, path = "/api/devices/{id}/qr", tag = "devices",
    responses((status = 200, description = "How far the link is", body = Envelope<LinkView>)))]
async fn qr(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<LinkView> {
    link(&caller, id, None).await
}

/// The QR code of the moment, as of an account.
#[utoipa::path(get, path = "/api/accounts/{id}/qr", tag = "devices",
    responses((status = 200, description = "How far the link is", body = Envelope<LinkView>)))]
async fn account_qr(caller: Caller, Ids(id): Ids<DeviceId>) -> ApiResult<LinkView> {
    link(&caller, id, None).await
}

/// The number of the phone that is to be linked.
#[derive(Default, Deserialize, ToSchema)]
pub struct PairCodeBody {
    /// With country code.
    #[serde(alias = "phone_number")]
    phone: Option<String>,
}

/// A code to be typed on the phone, in place of the QR code.
#[utoipa::path(post, path = "/api/devices/{id}/pair-code", tag = "devices", request_body = PairCodeBody,
    responses((status = 200, description = "How far the link is", body = Envelope<LinkView>)))]
async fn pair_code(caller: Caller, Ids(id): Ids<DeviceId>, Body(body): Body<PairCodeBody>) -> ApiResult<LinkView> {
    let phone = body
        .phone
        .ok_or_else(|| ApiError::field("phone", "required", "is required"))?;
    link(&caller, id, Some(phone)).await
}
