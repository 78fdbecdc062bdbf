//! What surrounds every request: an id, a line in the log, numbers, limits, headers, and an end to panics.

use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tracing::Instrument as _;

use super::error::ApiError;
use super::extract::{Locked, caller_address};
use super::pictures::FreshPictures;
use crate::password;

/// The header that carries the id of a request, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id of a request that is taken over from its caller.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// Runs one request.
pub(super) async fn around(State(state): State<Locked>, request: Request, next: Next) -> Response {
    let app = state.app();
    let (mut parts, body) = request.into_parts();
    let id = parts
        .headers
        .get(&REQUEST_ID)
        .filter(|id| is_plain(id.as_bytes()))
        .cloned()
        .unwrap_or_else(new_id);
    // The pattern of the route: paths hold ids and the secret of a callback, queries hold anything.
    let route = parts
        .extensions
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let method = method_name(&parts.method);
    let address = caller_address(&parts, app.settings.trust_proxy);
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), method, route);
    let began = app.clock.monotonic();
    let limited = app.limits.api.take(&address, began);
    let fresh = FreshPictures::default();
    parts.extensions.insert(fresh.clone());
    let response = async {
        match limited {
            Err(wait) => ApiError::too_many(wait).into_response(),
            Ok(()) => AssertUnwindSafe(next.run(Request::from_parts(parts, body)))
                .catch_unwind()
                .await
                .unwrap_or_else(|_| ApiError::internal(&"a handler panicked").into_response()),
        }
    }
    .instrument(span.clone())
    .await;
    // After a failure of the server they may be in use.
    if response.status().is_client_error() {
        fresh.forget(&app.media).await;
    }
    let took = app.clock.monotonic().since(began);
    let status = response.status();
    span.in_scope(|| {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), took_ms, "answered");
        } else {
            tracing::debug!(status = status.as_u16(), took_ms, "answered");
        }
    });
    app.meters.request(method, route, status.as_u16(), took);
    with_headers(response, id, app.settings.is_https())
}

fn with_headers(mut response: Response, id: HeaderValue, https: bool) -> Response {
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CACHE_CONTROL, "no-store");
    set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    );
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if https {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

/// Answers for paths that do not exist.
pub(super) async fn not_found() -> ApiError {
    ApiError::not_found("there is no such path")
}

/// Answers for methods that a path does not take, keeping what the router says of those that it takes.
pub(super) async fn envelope_405(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut response = ApiError::method_not_allowed().into_response();
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn is_plain(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn new_id() -> HeaderValue {
    let text: String = password::random::<12>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::from_str(&text).expect("hexadecimal digits are plain")
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
