//! The reference store: everything in memory, behind one lock.
//!
//! It is the reference meaning of the port in [`crate::store`]: what a conformance test asks of a store is what this one
//! does. It keeps nothing beyond the process. Every operation costs the logarithm of what is stored, so that simulations
//! of a hundred thousand leads take seconds.
//!
//! | file | what |
//! |---|---|
//! | `state` | the rows, one primitive per row that keeps its indexes, and the undo log of commits |
//! | `messages` | the outbox with its indexes and tallies |
//! | `commit`, `commit_messages` | one method per change |
//! | `sequences`, `enrolments` | their rows with indexes and counts, and the changes of both |
//! | `outbox`, `lanes`, `sweep`, `outbox_reads` | the outbox's operations |
//! | `warmth` | whom devices know |
//! | `archive` | what is only read any more |
//! | `pool` | campaigns whose audience is the pool of leads without a device |
//! | `chats` | what people and own phones wrote |
//! | `leases`, `reads`, `campaigns`, `sequence_reads`, `sessions`, `app` | the other sub-traits |
//! | `replica` | rows put in as they were read elsewhere, for forecasts |
//! | `flaw` | deliberate bugs for the conformance suite; compiled to nothing without it |

mod app;
mod archive;
mod campaigns;
mod chats;
mod commit;
mod commit_messages;
mod enrolments;
mod flaw;
mod lanes;
mod leases;
mod messages;
mod outbox;
mod outbox_reads;
mod pool;
mod reads;
mod replica;
mod sequence_reads;
mod sequences;
mod sessions;
mod state;
mod sweep;
#[cfg(test)]
mod tests;
mod warmth;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

#[cfg(feature = "conformance")]
pub use self::flaw::Flaw;
use self::state::State;
use super::{ChangeSet, Committed, Store, StoreError, WriteClass};
use crate::time::Timestamp;

/// A store that keeps everything in memory: the reference meaning of the port, for tests and simulations.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store, as of a database that several nodes share.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that answers as if it held a proof that every other node is dead, so that
    /// [`fence_the_dead`](super::LeaseStore::fence_the_dead) is supported.
    #[must_use]
    pub fn exclusive() -> Self {
        let store = Self::default();
        store.lock().exclusive = true;
        store
    }

    /// An empty store with a deliberate bug, to prove that the conformance suite would catch it.
    #[cfg(feature = "conformance")]
    #[must_use]
    pub fn with_flaw(flaw: Flaw) -> Self {
        let store = Self::default();
        store.lock().flaw = Some(flaw);
        store
    }

    /// No operation panics between two changes of the state, so a poisoned lock guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, set: ChangeSet, _class: WriteClass, now: Timestamp) -> Result<Committed, StoreError> {
        self.lock().commit(set, now)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
