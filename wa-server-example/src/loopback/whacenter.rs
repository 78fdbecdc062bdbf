//! The part of the Whacenter interface that campaigns need.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Form, FromRequest, Multipart, Query, Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::cut::Cut;
use super::gateway::{Incoming, State, Taken};
use super::script::Fault;

type Fields = BTreeMap<String, String>;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/api/send", get(send).post(send))
        .route("/api/statusDevice", get(status_device))
}

/// Failures come with status 200 and an empty list where success has an object.
fn refuse(message: &str) -> Response {
    Json(json!({"status": false, "message": message, "data": []})).into_response()
}

async fn send(
    Shared(state): Shared<Arc<State>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    Query(query): Query<Fields>,
    request: Request,
) -> Response {
    let Some(mut fields) = body_fields(request).await else {
        state.ledger().counts.malformed += 1;
        return refuse("request cannot be read");
    };
    fields.extend(query);
    let device = state.device(fields.get("device_id").map(String::as_str));
    let Some(device) = device.filter(|device| device.connected) else {
        return refuse("device not connected or not found");
    };
    let number = fields.remove("number").unwrap_or_default();
    let text = fields.remove("message").unwrap_or_default();
    let picture = fields.remove("file").filter(|file| !file.is_empty());
    let number_is_right = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if !number_is_right || (text.is_empty() && picture.is_none()) {
        state.ledger().counts.malformed += 1;
        return refuse("parameter not complete");
    }
    let incoming = Incoming {
        number,
        text,
        picture,
        ref_id: None,
    };
    match state.take(device, incoming, &cut).await {
        Taken::Accepted(message) => {
            let id = message.id.parse::<u64>().unwrap_or_default();
            Json(json!({"status": true, "message": "message sent", "data": {"id": id}})).into_response()
        }
        Taken::Fault(Fault::Refused) => refuse("device not connected or not found"),
        Taken::Fault(Fault::TooMany) => (
            StatusCode::TOO_MANY_REQUESTS,
            [(header::RETRY_AFTER, "1")],
            "Too Many Requests",
        )
            .into_response(),
        Taken::Fault(_) => (StatusCode::BAD_GATEWAY, "<html><title>502 Bad Gateway</title></html>").into_response(),
    }
}

/// The fields of a body in any of the forms that clients of this vendor use; `None` when it cannot be read.
async fn body_fields(request: Request) -> Option<Fields> {
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    if kind.starts_with("application/json") {
        let Json(object) = Json::<BTreeMap<String, Value>>::from_request(request, &()).await.ok()?;
        let text = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        return Some(object.into_iter().map(|(key, value)| (key, text(value))).collect());
    }
    if kind.starts_with("multipart/form-data") {
        let mut parts = Multipart::from_request(request, &()).await.ok()?;
        let mut fields = Fields::new();
        while let Some(part) = parts.next_field().await.ok()? {
            let name = part.name().unwrap_or_default().to_owned();
            fields.insert(name, part.text().await.ok()?);
        }
        return Some(fields);
    }
    if kind.starts_with("application/x-www-form-urlencoded") {
        let Form(fields) = Form::<Fields>::from_request(request, &()).await.ok()?;
        return Some(fields);
    }
    Some(Fields::new())
}

async fn status_device(Shared(state): Shared<Arc<State>>, Query(query): Query<Fields>) -> Response {
    let Some(device) = state.device(query.get("device_id").map(String::as_str)) else {
        return refuse("device not connected or not found");
    };
    let (status, qr) = if device.connected {
        ("CONNECTED", "done")
    } else {
        ("NOT CONNECTED", "timeout")
    };
    Json(json!({
        "status": true,
        "message": "success get device status",
        "data": {"status": status, "nomor": device.phone, "nama": device.serial, "qr": qr},
    }))
    .into_response()
}
