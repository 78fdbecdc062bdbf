//! Secrets of messages, by which reactions, votes and edits that refer to them are read.

use std::collections::HashMap;

use async_trait::async_trait;
use wa_core::store::SessionKey;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::{
    MsgSecretEntry, MsgSecretStore, merge_msg_secret_expiry, merge_msg_secret_message_ts,
};

use super::{Backend, at_seconds, key};

/// A secret with its end and the time of its message, in seconds since 1970; nought where there is none.
struct Secret {
    secret: [u8; 32],
    expires_at: i64,
    message_ts: i64,
}

impl Secret {
    fn to_bytes(&self) -> Vec<u8> {
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

#[async_trait]
impl MsgSecretStore for Backend {
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        let keys: Vec<SessionKey> = entries
            .iter()
            .map(|entry| secret_key(&entry.chat, &entry.sender, &entry.msg_id))
            .collect::<Result<_>>()?;
        let _turn = self.0.turn.lock().await;
        let mut merged: HashMap<SessionKey, Secret> = HashMap::new();
        for (key, found) in keys.iter().zip(self.get_all(&keys).await?) {
            if let Some(found) = found {
                merged.insert(key.clone(), Secret::from_bytes(&found)?);
            }
        }
        let mut writes = Vec::with_capacity(entries.len());
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
            writes.push(self.put_until(key.clone(), &secret.to_bytes(), end)?);
            merged.insert(key, secret);
        }
        self.write(&writes).await?;
        Ok(entries.len())
    }

    async fn get_msg_secret(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<Vec<u8>>> {
        let found = self.get_msg_secret_with_ts(chat, sender, msg_id).await?;
        Ok(found.map(|(secret, _)| secret))
    }

    async fn get_msg_secret_with_ts(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<(Vec<u8>, i64)>> {
        let Some(found) = self.get(secret_key(chat, sender, msg_id)?).await? else {
            return Ok(None);
        };
        let found = Secret::from_bytes(&found)?;
        Ok(Some((found.secret.to_vec(), found.message_ts)))
    }

    /// One sweep of the store takes what has ended of all devices.
    async fn delete_expired_msg_secrets(&self, _cutoff_timestamp: i64) -> Result<u32> {
        Ok(0)
    }
}
