//! The part of the Wablas interface that campaigns need.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Form, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::cut::Cut;
use super::gateway::{Incoming, State, Taken};
use super::ledger::Accepted;
use super::script::{Fault, GatewayDevice};

/// Longest text or caption in characters.
const TEXT_CHARS_MAX: usize = 1_024;
/// Largest picture in bytes.
const PICTURE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most numbers of one check.
const NUMBERS_MAX: usize = 100;

type Fields = BTreeMap<String, String>;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/api/send-message", post(send_message))
        .route("/api/send-image", post(send_image))
        .route("/api/send-image-from-local", post(send_local_image))
        .route("/api/report/message", get(report))
        .route("/api/device/info", get(device_info))
        .route("/check-phone-number", get(check_numbers))
}

/// The words of the documented refusals.
fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"status": false, "message": message}))).into_response()
}

/// The device of a request: by header, or by the parameter `token`.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn authorize(state: &State, headers: &HeaderMap, query: &Fields) -> Result<GatewayDevice, Response> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    state
        .device(header.or(query.get("token").map(String::as_str)))
        .ok_or_else(|| refuse(StatusCode::INTERNAL_SERVER_ERROR, "token invalid or device expired"))
}

async fn send_message(
    Shared(state): Shared<Arc<State>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    headers: HeaderMap,
    Form(fields): Form<Fields>,
) -> Response {
    send(&state, &cut, &headers, &fields, "message", None).await
}

async fn send_image(
    Shared(state): Shared<Arc<State>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    headers: HeaderMap,
    Form(fields): Form<Fields>,
) -> Response {
    let Some(url) = fields.get("image").filter(|url| url.starts_with("http")).cloned() else {
        return malformed(&state, "param invalid: image");
    };
    send(&state, &cut, &headers, &fields, "caption", Some(url)).await
}

async fn send_local_image(
    Shared(state): Shared<Arc<State>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    headers: HeaderMap,
    Form(fields): Form<Fields>,
) -> Response {
    let picture = fields.get("file").and_then(|file| STANDARD.decode(file).ok());
    if !picture.is_some_and(|bytes| !bytes.is_empty() && bytes.len() <= PICTURE_BYTES_MAX) {
        return malformed(&state, "param invalid: file");
    }
    let name = fields
        .get("data")
        .and_then(|data| serde_json::from_str::<Value>(data).ok())
        .and_then(|data| data.get("name").and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| "picture".to_owned());
    send(&state, &cut, &headers, &fields, "caption", Some(name)).await
}

fn malformed(state: &State, message: &str) -> Response {
    state.ledger().counts.malformed += 1;
    refuse(StatusCode::OK, message)
}

async fn send(
    state: &Arc<State>,
    cut: &Cut,
    headers: &HeaderMap,
    fields: &Fields,
    text_field: &str,
    picture: Option<String>,
) -> Response {
    let device = match authorize(state, headers, fields) {
        Ok(device) => device,
        Err(refusal) => return refusal,
    };
    let number = fields.get("phone").cloned().unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return malformed(state, "format phone invalid");
    }
    // The provider would send again behind the caller's back.
    if fields.get("retry").is_none_or(|retry| retry != "false") {
        return malformed(state, "param invalid: retry");
    }
    let text = fields.get(text_field).cloned().unwrap_or_default();
    if text.chars().count() > TEXT_CHARS_MAX || (text.is_empty() && picture.is_none()) {
        return malformed(state, &format!("param invalid: {text_field}"));
    }
    if !device.connected {
        return refuse(StatusCode::OK, "device disconnected, need to scan qr code again");
    }
    let incoming = Incoming {
        number,
        text,
        picture,
        ref_id: fields.get("ref_id").cloned(),
    };
    match state.take(device, incoming, cut).await {
        Taken::Accepted(message) => accepted(&message),
        Taken::Fault(Fault::Refused) => refuse(StatusCode::OK, "format phone invalid"),
        Taken::Fault(Fault::TooMany) => (
            StatusCode::TOO_MANY_REQUESTS,
            [(header::RETRY_AFTER, "1")],
            "Too Many Requests",
        )
            .into_response(),
        Taken::Fault(_) => (StatusCode::BAD_GATEWAY, "<html><title>502 Bad Gateway</title></html>").into_response(),
    }
}

fn accepted(message: &Accepted) -> Response {
    Json(json!({
        "status": true,
        "message": "Message is pending and waiting to be processed",
        "data": {
            "device_id": message.serial,
            "quota": "unlimited",
            "messages": [{
                "id": message.id,
                "phone": message.number,
                "message": if message.picture.is_some() { Value::Null } else { json!(message.text) },
                "caption": message.picture.as_ref().map(|_| &message.text),
                "image": message.picture,
                "status": "pending",
                "ref_id": message.ref_id,
            }],
        },
    }))
    .into_response()
}

async fn report(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Query(query): Query<Fields>,
) -> Result<Response, Response> {
    let device = authorize(&state, &headers, &query)?;
    let ref_id = query
        .get("ref_id")
        .ok_or_else(|| malformed(&state, "param invalid: ref_id"))?;
    let lag = std::time::Duration::from_millis(state.script().report_lag_ms.into());
    let now = state.now();
    let rows: Vec<Value> = state
        .ledger()
        .by_ref(ref_id)
        .filter(|message| message.serial == device.serial && message.recorded_at + lag <= now)
        .map(|message| {
            json!({
                "id": message.id,
                "phone": {"from": device.phone, "to": message.number},
                "category": if message.picture.is_some() { "image" } else { "text" },
                "text": message.text,
                "URL_file": message.picture,
                "status": message.progress.as_str(),
                "type": "agent",
                "ref_id": message.ref_id,
                "date": {"created_at": message.recorded_at, "updated_at": message.recorded_at},
            })
        })
        .collect();
    let count = rows.len();
    Ok(Json(json!({
        "status": true,
        "totalData": count,
        "perPage": 10,
        "page": 1,
        "totalPage": u8::from(count > 0),
        "message": rows,
    }))
    .into_response())
}

async fn device_info(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Query(query): Query<Fields>,
) -> Result<Response, Response> {
    let device = authorize(&state, &headers, &query)?;
    Ok(Json(json!({
        "status": true,
        "data": {
            "name": device.serial,
            "serial": device.serial,
            "sender": device.phone,
            "quota": 100_000,
            "expired_date": "2099-12-31",
            "active": true,
            "status": if device.connected { "connected" } else { "disconnected" },
        },
    }))
    .into_response())
}

/// Every number is on WhatsApp but those that end in four zeros.
async fn check_numbers(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Query(query): Query<Fields>,
) -> Result<Response, Response> {
    authorize(&state, &headers, &query)?;
    let numbers = query.get("phones").map(String::as_str).unwrap_or_default();
    let data: Vec<Value> = numbers
        .split(',')
        .take(NUMBERS_MAX)
        .map(|phone| json!({"phone": phone, "status": if phone.ends_with("0000") { "offline" } else { "online" }}))
        .collect();
    Ok(Json(json!({"status": "success", "data": data})).into_response())
}
