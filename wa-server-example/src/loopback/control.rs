//! Asking and steering a gateway over HTTP, for those who are in another process.

use std::sync::Arc;

use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::callbacks::Inbound;
use super::gateway::State;
use super::ledger::GatewayCounts;
use super::script::GatewayScript;

/// Most messages of one answer.
const PAGE_MAX: usize = 10_000;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/control/messages", get(messages))
        .route("/control/counts", get(counts))
        .route("/control/script", put(set_script))
        .route("/control/inbound", post(inbound))
}

#[derive(Debug, Deserialize)]
struct PageQuery {
    #[serde(default)]
    from: usize,
    limit: Option<usize>,
}

/// The messages recorded from a place on, and the place to go on from; an empty list at the end.
async fn messages(Shared(state): Shared<Arc<State>>, Query(query): Query<PageQuery>) -> Json<Value> {
    let limit = query.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let page = state.ledger().page(query.from, limit).to_vec();
    Json(json!({"next": query.from + page.len(), "messages": page}))
}

async fn counts(Shared(state): Shared<Arc<State>>) -> Json<GatewayCounts> {
    Json(state.ledger().counts.clone())
}

async fn set_script(
    Shared(state): Shared<Arc<State>>,
    Json(script): Json<GatewayScript>,
) -> Result<StatusCode, (StatusCode, &'static str)> {
    if script.vendor != state.script().vendor {
        return Err((StatusCode::CONFLICT, "the vendor of a gateway cannot change"));
    }
    state.set_script(script);
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a person write to a device.
async fn inbound(Shared(state): Shared<Arc<State>>, Json(inbound): Json<Inbound>) -> Json<Value> {
    Json(json!({"taken": state.inbound(inbound).await}))
}
