//! Port to the database: the truth, and the only thing that survives a crash.
//!
//! # Contract
//!
//! - [`Store::commit`] is all or nothing and durable on return, but for pages that are planned again from a cursor. An error of kind `Unavailable` leaves it open whether it
//!   happened: what planners commit is safe to commit again.
//! - A message carries an idempotency key, unique in the database. Enqueuing a known key is a reported no-op.
//! - Every status and state moves only as `can_become` allows; a change whose precondition fails gives `Conflict` and no effect.
//! - Every read within a [`RequestScope`](crate::domain::access::RequestScope) sees that user's rows alone, and only those
//!   of the scope's devices where it is limited to some; others are `NotFound`. What belongs to no device (the pool, leads
//!   and campaigns without one, suppressions, saved texts, imports) is not seen by a scope of some devices.
//! - Time is a parameter: a store never reads a clock.
//! - Tallies (scope, device or pool) change in the commit that changes what they count; [`OutboxStore::count`] proves them.
//! - A write of an owner by a node that is fenced, has left or never joined is `Fenced` as a whole; one for a device that
//!   the node does not own at that epoch concerns that device alone.
//! - Names are compared trimmed and in lower case.
//! - Lists are keyset pages of at most [`PAGE_MAX`] rows.
//! - Bulk is the normal case: batches in, batches out.
//! - Cancellation: a dropped future leaves either everything or nothing of its transaction.
//!
//! `wa_core::conformance::store` (feature `conformance`) checks all of it. The memory store is the reference meaning.

mod app;
mod campaigns;
mod change;
mod chats;
mod commands;
mod devices;
mod error;
mod forward;
mod leads;
mod leases;
mod memory;
mod outbox;
mod page;
mod sequences;
mod sessions;
mod suppressions;
mod warmth;

use std::fmt;

/// The attribute that implementations of the port are written with.
pub use async_trait::async_trait;

pub use self::app::{AccessStore, AppStore, ImportRecord, ImportRefusal, ImportState, ImportStore};
pub use self::campaigns::{CampaignFilter, CampaignStore, PlannedRow, Taken};
pub use self::change::{
    Advance, Change, ChangeSet, Committed, EVENTS_KEPT_FOR, EnrolResult, Fence, LeadInsert, NewEnrolment, OnDuplicate,
    REPLIES_KEPT_FOR,
};
pub use self::chats::{CHATS_KEPT_FOR, ChatAddition, ChatFrom, ChatPage, ChatStore, ChatTail, NewChatMessage};
pub use self::commands::{CommandStore, EventStore};
pub use self::devices::DeviceStore;
pub use self::error::{StoreError, StoreErrorKind};
pub use self::leads::{LeadFilter, LeadStore};
pub use self::leases::{LeaseStore, NodeRecord, TakenOver};
#[cfg(feature = "conformance")]
pub use self::memory::Flaw;
pub use self::memory::MemoryStore;
pub use self::outbox::{
    Archived, Assignment, Backlog, Begin, BeginItem, Begun, Decline, DeviceLoad, Due, DueFlow, DueMessage, Expired,
    LaneDue, LaneHistory, LaneLook, LeftOver, MessageFilter, OutboxStore, Outcome, PoolMessage, RecentOf,
    RecentOutcomes, SendingRow, Settle, Settled, Swept, Verdict,
};
pub use self::page::{PAGE_MAX, Page, PageRequest};
pub use self::sequences::{EnrolmentFilter, SequenceCounts, SequenceFilter, SequenceStore, Span};
pub use self::sessions::{
    SESSION_KEY_BYTES_MAX, SESSION_KEYS_MAX, SESSION_VALUE_BYTES_MAX, SessionKey, SessionOwner, SessionRow,
    SessionStore, SessionWrite, session_batch, session_range,
};
pub use self::suppressions::SuppressionStore;
pub use self::warmth::{Stranger, Strangers, WarmthStore};
use crate::time::Timestamp;

/// Which kind of work a write belongs to; stores with one writer serve the urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WriteClass {
    /// Leases, takeovers and settlements.
    Settle,
    /// Begins.
    Begin,
    /// What a person waits for.
    Api,
    /// Imports, expansion, sweeps: one transaction lasts at most 20 ms where the store can see to it.
    Bulk,
}

/// What the engine needs of a database.
#[async_trait]
pub trait Store:
    DeviceStore
    + LeadStore
    + CampaignStore
    + SequenceStore
    + OutboxStore
    + SuppressionStore
    + WarmthStore
    + ChatStore
    + LeaseStore
    + CommandStore
    + EventStore
    + fmt::Debug
{
    /// Commits changes and their events: all or nothing, durable on return, but for pages of an audience with more to come
    /// ([`Change::AdvanceCursor`]).
    ///
    /// To ensure correctness: preconditions named at each [`Change`] hold at the commit; every row belongs to the user that it
    /// names, and a device, lead or campaign of another user gives `NotFound`.
    /// Idempotency: per change, as it says. Ordering: changes apply in the order given.
    ///
    /// # Errors
    /// `Conflict` and `NotFound` leave nothing behind.
    async fn commit(&self, set: ChangeSet, class: WriteClass, now: Timestamp) -> Result<Committed, StoreError>;

    /// Whether the database answers and is at the newest schema.
    ///
    /// # Errors
    /// The reason why it is not ready.
    async fn ready(&self) -> Result<(), StoreError>;

    /// How many rows of work in bulk this store writes best in one commit: more are written faster, and fewer are waited for less by what
    /// is more urgent. 500 where a store does not tell; a hint, which the engine keeps between 1 and
    /// [`EngineConfig::EXPAND_PAGE_MAX`](crate::engine::config::EngineConfig::EXPAND_PAGE_MAX).
    fn bulk_rows(&self) -> u32 {
        500
    }
}
