//! Secrets of messages, by which reactions, votes and edits that refer to them are read.
//!
//! Every message has one. They wait for the next write of the session, a second at most unless the store does not answer, so that a message
//! costs no write for them; a process that dies meanwhile has lost what they are for, and no message.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use wa_core::store::{SessionKey, SessionWrite};
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::{
    MsgSecretEntry, MsgSecretStore, merge_msg_secret_expiry, merge_msg_secret_message_ts,
};

use super::{Backend, at_seconds, key};

/// How long a secret waits for a write that takes it along.
const WAITS_FOR: Duration = Duration::from_secs(1);

/// Longest time between two tries to write secrets while the store does not answer.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);

/// Most secrets that wait.
const WAITING_MAX: usize = 50;

/// Secrets that were not written yet.
#[derive(Default)]
pub(super) struct Waiting {
    rows: HashMap<SessionKey, (Secret, SessionWrite)>,
    /// Whether they are going to be written by themselves.
    is_timed: bool,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn writes(&self) -> impl Iterator<Item = &SessionWrite> {
        self.rows.values().map(|(_, write)| write)
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }
}

/// A secret with its end and the time of its message, in seconds since 1970; nought where there is none.
#[derive(Clone, Copy)]
struct Secret {
    secret: [u8; 32],
    expires_at: i64,
    message_ts: i64,
}

impl Secret {
    fn to_bytes(self) -> Vec<u8> {
        [
            &self.secret[..],
            &self.expires_at.to_be_bytes(),
            &self.message_ts.to_be_bytes(),
        ]
        .concat()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let unreadable = || StoreError::Validation("a message secret of another length".to_owned());
        let (secret, rest) = bytes.split_first_chunk().ok_or_else(unreadable)?;
        let (expires_at, rest) = rest.split_first_chunk().ok_or_else(unreadable)?;
        let message_ts = rest.try_into().map_err(|_| unreadable())?;
        Ok(Self {
            secret: *secret,
            expires_at: i64::from_be_bytes(*expires_at),
            message_ts: i64::from_be_bytes(message_ts),
        })
    }
}

fn secret_key(chat: &str, sender: &str, id: &str) -> Result<SessionKey> {
    key("ms", &[chat.as_bytes(), sender.as_bytes(), id.as_bytes()])
}

impl Backend {
    /// Writes what waits; it waits on when that fails.
    async fn write_secrets(&self, waiting: &mut Waiting) -> Result<()> {
        let writes: Vec<SessionWrite> = waiting.writes().cloned().collect();
        // The lock is held, so that nothing is taken along twice.
        self.write(&writes).await?;
        waiting.clear();
        Ok(())
    }

    /// Writes what waits when nothing has taken it along in time; tried until the store answers, unless the session is over.
    async fn write_secrets_later(self) {
        let mut wait = WAITS_FOR;
        loop {
            tokio::time::sleep(wait).await;
            let mut waiting = self.0.secrets.lock().await;
            if self.check_wiped(*self.0.wiped.read().await).is_err() {
                // What waits is of the session after.
                return;
            }
            match self.write_secrets(&mut waiting).await {
                Ok(()) => {}
                Err(_) if self.is_lost() => waiting.clear(),
                Err(error) => {
                    tracing::debug!(device = %self.device(), %error, "secrets of messages are written later");
                    wait = (wait * 2).min(AGAIN_AFTER_MAX);
                    continue;
                }
            }
            waiting.is_timed = false;
            return;
        }
    }

    /// Writes what waits for a write, before a device is closed.
    ///
    /// # Errors
    /// The store did not do it; it waits on.
    pub async fn flush(&self) -> Result<()> {
        let mut waiting = self.0.secrets.lock().await;
        self.write_secrets(&mut waiting).await
    }
}

#[async_trait]
impl MsgSecretStore for Backend {
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        let keys: Vec<SessionKey> = entries
            .iter()
            .map(|entry| secret_key(&entry.chat, &entry.sender, &entry.msg_id))
            .collect::<Result<_>>()?;
        let _turn = self.0.turn.lock().await;
        let mut waiting = self.0.secrets.lock().await;
        self.check_wiped(*self.0.wiped.read().await)?;
        let mut merged: HashMap<SessionKey, Secret> = HashMap::new();
        for (key, found) in keys.iter().zip(self.get_all(&keys).await?) {
            if let Some((secret, _)) = waiting.rows.get(key) {
                merged.insert(key.clone(), *secret);
            } else if let Some(found) = found {
                merged.insert(key.clone(), Secret::from_bytes(&found)?);
            }
        }
        let brought = keys.clone();
        for (key, entry) in keys.into_iter().zip(&entries) {
            let known = merged.get(&key);
            let secret = Secret {
                secret: entry.secret,
                expires_at: known.map_or(entry.expires_at, |known| {
                    merge_msg_secret_expiry(known.expires_at, entry.expires_at)
                }),
                message_ts: known.map_or(entry.message_ts, |known| {
                    merge_msg_secret_message_ts(known.message_ts, entry.message_ts)
                }),
            };
            let end = (secret.expires_at != 0).then(|| at_seconds(secret.expires_at));
            let write = self.put_until(key.clone(), &secret.to_bytes(), end)?;
            merged.insert(key.clone(), secret);
            waiting.rows.insert(key, (secret, write));
        }
        if !waiting.is_timed {
            waiting.is_timed = true;
            tokio::spawn(self.clone().write_secrets_later());
        }
        if waiting.len() > WAITING_MAX
            && let Err(error) = self.write_secrets(&mut waiting).await
        {
            // Those that came before were taken; whoever brought these is told that they were not.
            for key in &brought {
                waiting.rows.remove(key);
            }
            return Err(error);
        }
        Ok(entries.len())
    }

    async fn get_msg_secret(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<Vec<u8>>> {
        let found = self.get_msg_secret_with_ts(chat, sender, msg_id).await?;
        Ok(found.map(|(secret, _)| secret))
    }

    async fn get_msg_secret_with_ts(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<(Vec<u8>, i64)>> {
        let key = secret_key(chat, sender, msg_id)?;
        let waits = self.0.secrets.lock().await.rows.get(&key).map(|(secret, _)| *secret);
        let found = match waits {
            Some(waits) => waits,
            None => match self.get(key).await? {
                Some(found) => Secret::from_bytes(&found)?,
                None => return Ok(None),
            },
        };
        Ok(Some((found.secret.to_vec(), found.message_ts)))
    }

    /// One sweep of the store takes what has ended of all devices.
    async fn delete_expired_msg_secrets(&self, _cutoff_timestamp: i64) -> Result<u32> {
        Ok(0)
    }
}
