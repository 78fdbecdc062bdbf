//! Nodes, leases and epochs: who may write as the owner of a device.

use async_trait::async_trait;

use super::StoreError;
use crate::domain::device::{Epoch, OwnedDevice};
use crate::id::{DeviceId, Incarnation, MessageId};
use crate::seed::Seed;
use crate::time::Timestamp;

/// A node as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// This run of it.
    pub incarnation: Incarnation,
    /// Its name, 1 to 100 characters.
    pub name: String,
    /// Grows with every beat; only equality is compared, never the time.
    pub beat: i64,
    /// When it last beat by its own wall clock; for people only.
    pub beat_at: Timestamp,
    /// Whether another node took its lease.
    pub fenced: bool,
    /// How many devices it owns.
    pub device_count: u64,
    /// Whether it holds the planner lease.
    pub planner: bool,
}

/// A message that a takeover moved to `in_doubt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenOver {
    /// The message.
    pub message_id: MessageId,
    /// Its device.
    pub device_id: DeviceId,
}

/// Leases. Wall clocks of nodes are never compared: a node judges another by its beat and its own monotonic clock.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// The seed of the database; `candidate` becomes it if there is none yet.
    async fn seed(&self, candidate: &Seed) -> Result<Seed, StoreError>;

    /// Adds a node. `Conflict` when the incarnation is known.
    async fn join(&self, incarnation: Incarnation, name: &str, now: Timestamp) -> Result<(), StoreError>;

    /// Beats. `Fenced` when another node took the lease, `NotFound` when the node has left.
    async fn beat(&self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError>;

    /// All nodes that have not left, fenced ones too.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError>;

    /// Takes over a node that has not beaten since it showed `seen_beat`; `Conflict` when it has beaten.
    ///
    /// To ensure correctness, in one transaction: the node is fenced, the epochs of its devices grow and they have no owner,
    /// its `sending` messages become `in_doubt` with `next_check_at = attempted_at` (`sent` where a receipt came already, and
    /// then not told), its planner lease ends. Idempotent: a fenced node has nothing more to take. `by` must not be fenced
    /// itself, nor be the target (`Conflict`); a target that has left is `NotFound`.
    async fn fence(
        &self,
        by: Incarnation,
        target: Incarnation,
        seen_beat: i64,
        now: Timestamp,
    ) -> Result<Vec<TakenOver>, StoreError>;

    /// Fences at once the other nodes of which the store holds a proof that they are dead: all, by an exclusive lock on the data
    /// folder, or those of the same name, by a lock of the name that they had and this one has now; `Unsupported` without one.
    async fn fence_the_dead(&self, by: Incarnation, now: Timestamp) -> Result<Vec<TakenOver>, StoreError>;

    /// How many devices are not deleted and have no owner.
    async fn unowned(&self) -> Result<u64, StoreError>;

    /// Takes up to `limit` devices that are not deleted and have no owner, by id; their epochs grow.
    async fn claim(&self, incarnation: Incarnation, limit: u32, now: Timestamp)
    -> Result<Vec<OwnedDevice>, StoreError>;

    /// Gives devices back at the epochs given; others are left alone. Their epochs grow.
    ///
    /// To ensure correctness: a device with a `sending` message is not given back. Returns those given back.
    async fn release(
        &self,
        incarnation: Incarnation,
        devices: &[(DeviceId, Epoch)],
        now: Timestamp,
    ) -> Result<Vec<DeviceId>, StoreError>;

    /// The devices that a node owns, deleted ones too.
    async fn devices_of(&self, incarnation: Incarnation) -> Result<Vec<OwnedDevice>, StoreError>;

    /// Takes or keeps the planner lease; `false` while another node that is not fenced holds it.
    async fn plan_lease(&self, incarnation: Incarnation, now: Timestamp) -> Result<bool, StoreError>;

    /// Removes up to `limit` fenced nodes whose last beat, by their own wall clock, is before `before`; returns how many.
    ///
    /// To ensure correctness: only fenced ones, which have nothing any more; to their statements it makes no difference, and
    /// their beat becomes `NotFound`.
    async fn forget_nodes(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;

    /// Leaves: gives back devices and planner lease, moves what is still `sending` to `in_doubt`, removes the node. Nothing
    /// happens when it has left before.
    async fn leave(&self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError>;
}
