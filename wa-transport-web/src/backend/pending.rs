//! Copies of messages that were received and are not committed yet.
//!
//! The client writes a copy before it passes a message on. Where that fails it goes on all the same, and writes a little later that
//! the message's key is used up: delivered again, it could be read no more, and would be acknowledged as one that is known. Therefore
//! copies are written before anything else ([`Backend::write`](super::Backend)), and tried until they are.

use std::collections::HashMap;
use std::time::Duration;

use wa_core::store::{SESSION_KEYS_MAX, SessionKey, SessionRow, SessionWrite, StoreErrorKind};
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::prelude::{MessageBuilderExt, wa};
use whatsapp_rust::wacore::store::error::Result;

use super::Backend;
use crate::inbound::{cut, said};

/// How long after a copy could not be written it is tried again; each time twice as long.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Longest time between two tries to write a copy.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(15);

/// Copies that are not written yet.
#[derive(Default)]
pub(super) struct Owed(HashMap<SessionKey, SessionRow>);

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A message that is too long to be stored, by its words alone; `None` where it has none.
pub(super) fn shortened(message: &[u8]) -> Option<Vec<u8>> {
    let message = wa::Message::decode_from_slice(message).ok()?;
    let (_, text) = said(&message)?;
    Some(wa::Message::text(cut(text)).encode_to_vec())
}

impl Backend {
    /// Writes the copies that are owed, with the lock held, so that nobody writes before them.
    pub(super) async fn write_owed(&self, owed: &mut Owed) -> Result<()> {
        let writes: Vec<SessionWrite> = owed.0.values().cloned().map(SessionWrite::Put).collect();
        for writes in writes.chunks(SESSION_KEYS_MAX) {
            let written = self.0.store.write_session(&self.0.owner, writes).await;
            if let Err(error) = self.noted(written) {
                if is_final(error.kind) {
                    tracing::warn!(device = %self.device(), %error, count = owed.0.len(), "copies of messages cannot be written");
                    owed.0.clear();
                }
                return Err(Self::failed(error));
            }
        }
        owed.0.clear();
        Ok(())
    }

    /// Writes copies; tried until they are written, unless the session is over. What else is written waits for them, or fails.
    pub(super) async fn write_pending(&self, writes: Vec<SessionWrite>) -> Result<()> {
        let mut keys = Vec::with_capacity(writes.len());
        {
            let wiped = self.0.wiped.read().await;
            self.check_wiped(*wiped)?;
            let mut owed = self.0.owed.lock().await;
            for write in writes {
                if let SessionWrite::Put(row) = write {
                    keys.push(row.key.clone());
                    owed.0.insert(row.key.clone(), row);
                }
            }
        }
        let mut wait = AGAIN_AFTER;
        loop {
            let Err(error) = self.write(&[]).await else {
                return Ok(());
            };
            // Wiped, refused for good, or not asked for any more.
            let is_owed = {
                let owed = self.0.owed.lock().await;
                keys.iter().any(|key| owed.0.contains_key(key))
            };
            if !is_owed {
                return Err(error);
            }
            tracing::warn!(device = %self.device(), %error, ?wait, "messages wait for the store; nothing else of the session is written before them");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN_AFTER_MAX);
        }
    }

    /// The copy of a message.
    pub(super) async fn pending(&self, key: SessionKey) -> Result<Option<Vec<u8>>> {
        let owed = self.0.owed.lock().await.0.get(&key).map(|row| row.value.clone());
        match owed {
            Some(value) => self.open(&key, &value).map(Some),
            None => self.get(key).await,
        }
    }

    /// Forgets copies.
    pub(super) async fn delete_pending(&self, keys: Vec<SessionKey>) -> Result<()> {
        {
            let mut owed = self.0.owed.lock().await;
            for key in &keys {
                owed.0.remove(key);
            }
        }
        let writes: Vec<SessionWrite> = keys.into_iter().map(SessionWrite::Delete).collect();
        self.write(&writes).await
    }
}

/// Whether a store that refused a write so refuses it again.
fn is_final(kind: StoreErrorKind) -> bool {
    matches!(
        kind,
        StoreErrorKind::Fenced | StoreErrorKind::NotFound | StoreErrorKind::Unsupported
    )
}
