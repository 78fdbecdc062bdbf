//! How the engine of this node is doing.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::access::Role;
use wa_core::store::NodeRecord;

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
    /// Of its devices, the ones that it is about to give back to other nodes.
    pub lanes_leaving: u64,
    /// Whether this node plans campaigns.
    pub planner: bool,
    /// For how long this node's lease certainly holds if it beats no more, in milliseconds; 0 when it may not send.
    pub lease_left_ms: u64,
    /// All nodes on the database; for admins.
    pub nodes: Option<Vec<NodeView>>,
    /// Devices without an owner, which the nodes take within a beat; for admins.
    pub devices_unowned: Option<u64>,
    /// How full the outbox is, over all users.
    pub backlog: BacklogView,
}

/// A node on the database.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// This run of it.
    pub incarnation: String,
    /// Whether it is the one that answers.
    pub is_this: bool,
    /// Devices that it owns, over all users.
    pub devices: u64,
    /// Whether it plans campaigns.
    pub planner: bool,
    /// Whether another node took its lease: it died, or was away for longer than that.
    pub fenced: bool,
    /// For how long the answering node has seen no new beat of it, in milliseconds; nothing for itself and for fenced ones.
    pub silent_ms: Option<u64>,
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
    let (mut nodes, mut devices_unowned) = (None, None);
    if of.is_none() {
        nodes = Some(caller.store.nodes().await?);
        devices_unowned = Some(caller.store.unowned().await?);
    }
    let node_view = |node: NodeRecord| {
        let silent_ms = engine
            .as_ref()
            .and_then(|engine| engine.silent_ms.get(&node.incarnation));
        NodeView {
            is_this: engine
                .as_ref()
                .is_some_and(|engine| engine.incarnation == node.incarnation),
            name: node.name,
            incarnation: node.incarnation.to_string(),
            devices: node.device_count,
            planner: node.planner,
            fenced: node.fenced,
            silent_ms: silent_ms.copied(),
        }
    };
    let view = WorkersView {
        node: caller.settings.engine.node_name.clone(),
        started_at: caller.started_at.to_string(),
        uptime_s: now.since(caller.started_at).as_secs(),
        memory_bytes: memory_bytes(),
        lanes: lanes.len() as u64,
        lanes_waiting,
        lanes_closed: lanes.iter().filter(|lane| !lane.may_send).count() as u64,
        in_flight: engine.as_ref().map_or(0, |status| status.in_flight as u64),
        lanes_leaving: engine.as_ref().map_or(0, |status| status.leaving as u64),
        planner: engine.as_ref().is_some_and(|status| status.planner),
        lease_left_ms: engine.as_ref().map_or(0, |status| status.lease_left_ms),
        nodes: nodes.map(|nodes| nodes.into_iter().map(node_view).collect()),
        devices_unowned,
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
pub(crate) fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}
