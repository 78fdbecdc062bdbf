//! Requests to devices, and durable events.

use async_trait::async_trait;

use super::StoreError;
use crate::domain::access::RequestScope;
use crate::domain::command::DeviceCommand;
use crate::event::Event;
use crate::id::{CommandId, EventId, Incarnation};
use crate::time::Timestamp;

/// Reads requests to devices. They are made and answered by `commit`.
#[async_trait]
pub trait CommandStore: Send + Sync {
    /// One request within a request's scope.
    async fn command(&self, scope: &RequestScope, id: CommandId) -> Result<DeviceCommand, StoreError>;

    /// Unanswered, unexpired requests to devices of a node, oldest first.
    async fn commands(
        &self,
        incarnation: Incarnation,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DeviceCommand>, StoreError>;

    /// Removes requests that expired before `before`; returns how many.
    async fn prune_commands(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// Reads durable events. They are written by `commit`.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Events of a user after one, in the order in which they were committed; all that are kept where that one is not among them.
    ///
    /// To ensure correctness: who reads on after the last event that it got misses none, whatever is being committed meanwhile, by
    /// whichever node, and however their ids are ordered.
    async fn events(&self, scope: &RequestScope, after: EventId, limit: u32) -> Result<Vec<Event>, StoreError>;

    /// The event of a user that was committed last, if any is kept: who reads on after it hears only of what comes. Of a limited
    /// scope too it is that of the whole user, because nothing but its id is told.
    async fn newest_event(&self, scope: &RequestScope) -> Result<Option<EventId>, StoreError>;

    /// Removes events from before `before`; returns how many.
    async fn prune_events(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Forgets which replies were recorded before `before`, by the store's own record of when; returns how many. One of them that
    /// is delivered again counts again, so they are kept for longer than any gateway delivers again.
    async fn prune_replies(&self, before: Timestamp) -> Result<u64, StoreError>;
}
