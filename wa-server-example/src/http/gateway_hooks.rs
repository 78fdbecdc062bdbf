//! Callbacks of gateways. The answer is always 200 with an empty body: a gateway may send anything else to the customer.

use axum::extract::Request;
use axum::http::{StatusCode, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::transport::{TransportSink, WebhookRequest};

use super::extract::{Ids, Locked, Open, header_text, read_body};

/// Largest body, in bytes.
pub const BODY_BYTES_MAX: u64 = 256 * 1_024;

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new().routes(routes!(posted)).routes(routes!(got))
}

/// A callback of a gateway to the secret address of a device.
#[utoipa::path(post, path = "/hook/{token}/{kind}", tag = "gateways",
    responses((status = 200, description = "Always, with an empty body")))]
async fn posted(open: Open, Ids((token, kind)): Ids<(String, String)>, request: Request) -> StatusCode {
    take(&open, &token, &kind, request).await;
    StatusCode::OK
}

/// A callback of a gateway to the secret address of a device, as a query.
#[utoipa::path(get, path = "/hook/{token}/{kind}", tag = "gateways",
    responses((status = 200, description = "Always, with an empty body")))]
async fn got(open: Open, Ids((token, kind)): Ids<(String, String)>, request: Request) -> StatusCode {
    take(&open, &token, &kind, request).await;
    StatusCode::OK
}

async fn take(open: &Open, token: &str, kind: &str, request: Request) {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let content_type = header_text(request.headers(), &header::CONTENT_TYPE).map(str::to_owned);
    let Ok(body) = read_body(request.into_body(), BODY_BYTES_MAX).await else {
        tracing::warn!(kind, "a callback was too large or did not arrive whole");
        return;
    };
    let device = match open.store.device_by_hook(token).await {
        Ok(device) => device,
        Err(error) if error.is_not_found() => {
            tracing::debug!(kind, "a callback to an address that no device has");
            return;
        }
        Err(error) => {
            tracing::error!(?error, kind, "a callback could not be taken");
            return;
        }
    };
    let Some(transport) = open.transports.get(&device.platform) else {
        tracing::warn!(device = %device.id, platform = %device.platform, "a callback of a platform without transport");
        return;
    };
    let Some(webhook) = transport.as_webhook() else {
        tracing::debug!(device = %device.id, platform = %device.platform, "a platform without callbacks was called back");
        return;
    };
    let decoded = webhook.decode(&WebhookRequest {
        kind,
        query: &query,
        content_type: content_type.as_deref(),
        body: &body,
        device: &device.for_transport(),
    });
    let events = match decoded {
        Ok(events) if events.is_empty() => return,
        Ok(events) => events,
        Err(error) => {
            tracing::warn!(device = %device.id, kind, %error, "a callback was dropped");
            return;
        }
    };
    // What the gateway tells once is tried again here: it does not repeat what was answered.
    for attempt in 1..=ACCEPT_TRIES_MAX {
        match open.handle.accept(device.user_id, device.id, events.clone()).await {
            Ok(()) => return,
            Err(error) => tracing::error!(?error, device = %device.id, attempt, "a callback could not be kept"),
        }
    }
}

/// How often it is tried to keep a callback.
const ACCEPT_TRIES_MAX: u32 = 3;
