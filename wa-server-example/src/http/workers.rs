//! How the engine of this node is doing.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::access::Role;

use super::envelope::{Envelope, Reply};
use super::error::ApiResult;
use super::extract::{Caller, Locked};
use super::view::word;

/// How the node is doing.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkersView {
    /// The node's name.
    pub node: String,
    /// Since when it runs.
    pub started_at: String,
    /// For how long, in seconds.
    pub uptime_s: u64,
    /// Memory of the process in bytes, where the system tells.
    pub memory_bytes: Option<u64>,
    /// Devices that this node sends for; of the asking user, or of all for an admin.
    pub lanes: u64,
    /// Of these, the ones that wait, by what they wait for.
    pub lanes_waiting: BTreeMap<String, u64>,
    /// Of these, the ones that may not send: offline, on hold.
    pub lanes_closed: u64,
    /// Sends under way on this node.
    pub in_flight: u64,
    /// Whether this node plans campaigns.
    pub planner: bool,
    /// How full the outbox is, over all users.
    pub backlog: BacklogView,
}

/// How full the outbox is.
#[derive(Debug, Serialize, ToSchema)]
pub struct BacklogView {
    /// Waiting for their turn.
    pub queued: u64,
    /// Waiting because their scope is paused.
    pub held: u64,
    /// Being sent.
    pub sending: u64,
    /// May have been sent and may still be found out.
    pub in_doubt: u64,
    /// For how long the oldest of those that wait for their turn is due, in seconds.
    pub oldest_due_s: Option<u64>,
}

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(workers_status))
        .routes(routes!(worker_status))
}

/// How the node is doing: backlog, ages, memory, uptime.
#[utoipa::path(get, path = "/api/workers/status", tag = "running",
    responses((status = 200, description = "How it is doing", body = Envelope<WorkersView>)))]
async fn workers_status(caller: Caller) -> ApiResult<WorkersView> {
    status(&caller).await
}

/// How the node is doing, under its older name.
#[utoipa::path(get, path = "/worker/status", tag = "running",
    responses((status = 200, description = "How it is doing", body = Envelope<WorkersView>)))]
async fn worker_status(caller: Caller) -> ApiResult<WorkersView> {
    status(&caller).await
}

async fn status(caller: &Caller) -> ApiResult<WorkersView> {
    let now = caller.clock.wall();
    let backlog = caller.store.backlog().await?;
    let engine = caller.engine.get();
    let of = (caller.user.role != Role::Admin).then_some(caller.user.id);
    let lanes = engine.as_ref().map(|engine| engine.lanes(of)).unwrap_or_default();
    let mut lanes_waiting = BTreeMap::new();
    for reason in lanes.iter().filter_map(|lane| lane.waits_for.as_ref()) {
        *lanes_waiting.entry(word(reason)).or_default() += 1;
    }
    let engine = engine.map(|engine| engine.status());
    let view = WorkersView {
        node: caller.settings.engine.node_name.clone(),
        started_at: caller.started_at.to_string(),
        uptime_s: now.since(caller.started_at).as_secs(),
        memory_bytes: memory_bytes(),
        lanes: lanes.len() as u64,
        lanes_waiting,
        lanes_closed: lanes.iter().filter(|lane| !lane.may_send).count() as u64,
        in_flight: engine.as_ref().map_or(0, |status| status.in_flight as u64),
        planner: engine.is_some_and(|status| status.planner),
        backlog: BacklogView {
            queued: backlog.queued,
            held: backlog.held,
            sending: backlog.sending,
            in_doubt: backlog.in_doubt,
            oldest_due_s: backlog.oldest_due_at.map(|at| now.since(at).as_secs()),
        },
    };
    Ok(Reply::ok("status", view))
}

/// Memory that the process occupies, where the system tells.
pub(super) fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}
