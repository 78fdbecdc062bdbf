//! Who has which LID, which devices, which keys and tokens; what was sent and what was received and not committed yet.

use std::collections::HashMap;

use async_trait::async_trait;
use wa_core::store::{SessionKey, SessionWrite};
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::{
    DeviceListRecord, LidPnMappingEntry, PendingInboundKey, PendingInboundRow, ProtocolStore, TcTokenEntry,
};

use super::pending::shortened;
use super::{Backend, PENDING_KEPT_FOR, SENT_MESSAGES_KEPT_FOR, from_json, key, prefix, text_after, to_json};
use crate::vault::VALUE_BYTES_MAX;

fn token_key(jid: &str) -> Result<SessionKey> {
    key("tc", &[jid.as_bytes()])
}

fn sent_key(chat: &str, id: &str) -> Result<SessionKey> {
    key("sm", &[chat.as_bytes(), id.as_bytes()])
}

fn pending_key(chat: &str, sender: &str, id: &str) -> Result<SessionKey> {
    key("pi", &[chat.as_bytes(), sender.as_bytes(), id.as_bytes()])
}

fn base_key(address: &str, message_id: &str) -> Result<SessionKey> {
    key("bk", &[address.as_bytes(), message_id.as_bytes()])
}

impl Backend {
    /// Changes the token of a contact; nothing is written for what stays as it is.
    async fn change_token(
        &self,
        jid: &str,
        change: impl FnOnce(Option<TcTokenEntry>) -> Option<TcTokenEntry> + Send,
    ) -> Result<()> {
        let _turn = self.0.turn.lock().await;
        let known = self.get_json(token_key(jid)?).await?;
        match change(known) {
            Some(entry) => self.write_one(self.put(token_key(jid)?, &to_json(&entry)?)?).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl ProtocolStore for Backend {
    async fn get_sender_key_devices(&self, group_jid: &str) -> Result<Vec<(String, bool)>> {
        let below = prefix("sk", &[group_jid.as_bytes()]);
        let rows = self.scan(&below).await?;
        rows.iter()
            .map(|row| Ok((text_after(row, &below)?, row.value == [1])))
            .collect()
    }

    async fn set_sender_key_status(&self, group_jid: &str, entries: &[(&str, bool)]) -> Result<()> {
        let put = |(device, has): &(&str, bool)| {
            self.put(
                key("sk", &[group_jid.as_bytes(), device.as_bytes()])?,
                &[u8::from(*has)],
            )
        };
        let writes: Vec<SessionWrite> = entries.iter().map(put).collect::<Result<_>>()?;
        self.write(&writes).await
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        self.delete_below(&prefix("sk", &[group_jid.as_bytes()])).await
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        if device_jids.is_empty() {
            return Ok(());
        }
        let rows = self.scan(&prefix("sk", &[])).await?;
        let of = |row: &SessionKey| {
            let device = row.as_bytes().rsplit(|byte| *byte == 0).next();
            device_jids.iter().any(|jid| device == Some(jid.as_bytes()))
        };
        let gone = rows.into_iter().filter(|row| of(&row.key));
        let writes: Vec<SessionWrite> = gone.map(|row| SessionWrite::Delete(row.key)).collect();
        self.write(&writes).await
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        self.delete_below(&prefix("sk", &[])).await
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        self.get_json(key("li", &[lid.as_bytes()])?).await
    }

    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        match self.get(key("pn", &[phone.as_bytes()])?).await? {
            Some(lid) => self.get_json(key("li", &[&lid])?).await,
            None => Ok(None),
        }
    }

    async fn put_lid_mapping(&self, entry: &LidPnMappingEntry) -> Result<()> {
        self.put_lid_mappings(std::slice::from_ref(entry)).await
    }

    async fn put_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
        let keys: Vec<SessionKey> = entries
            .iter()
            .map(|entry| key("li", &[entry.lid.as_bytes()]))
            .collect::<Result<_>>()?;
        let _turn = self.0.turn.lock().await;
        let mut phones: HashMap<&str, String> = HashMap::new();
        for (entry, known) in entries.iter().zip(self.get_all(&keys).await?) {
            if let Some(known) = known {
                phones.insert(&entry.lid, from_json::<LidPnMappingEntry>(&known)?.phone_number);
            }
        }
        let mut writes = Vec::with_capacity(entries.len() * 2);
        for (entry, key_of_lid) in entries.iter().zip(keys) {
            let before = phones.insert(&entry.lid, entry.phone_number.clone());
            if let Some(before) = before.filter(|before| *before != entry.phone_number) {
                writes.push(SessionWrite::Delete(key("pn", &[before.as_bytes()])?));
            }
            writes.push(self.put(key_of_lid, &to_json(entry)?)?);
            writes.push(self.put(key("pn", &[entry.phone_number.as_bytes()])?, entry.lid.as_bytes())?);
        }
        self.write(&writes).await
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        let rows = self.scan(&prefix("li", &[])).await?;
        rows.iter().map(|row| from_json(&row.value)).collect()
    }

    async fn save_base_key(&self, address: &str, message_id: &str, key: &[u8]) -> Result<()> {
        let end = self.0.clock.wall() + SENT_MESSAGES_KEPT_FOR;
        self.write_one(self.put_until(base_key(address, message_id)?, key, Some(end))?)
            .await
    }

    async fn has_same_base_key(&self, address: &str, message_id: &str, current: &[u8]) -> Result<bool> {
        let saved = self.get(base_key(address, message_id)?).await?;
        Ok(saved.is_some_and(|saved| saved == current))
    }

    async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<()> {
        self.write_one(SessionWrite::Delete(base_key(address, message_id)?))
            .await
    }

    async fn update_device_list(&self, record: DeviceListRecord) -> Result<()> {
        self.update_device_lists(vec![record]).await
    }

    async fn update_device_lists(&self, records: Vec<DeviceListRecord>) -> Result<()> {
        let put = |record: &DeviceListRecord| self.put(key("dl", &[record.user.as_bytes()])?, &to_json(record)?);
        let writes: Vec<SessionWrite> = records.iter().map(put).collect::<Result<_>>()?;
        self.write(&writes).await
    }

    async fn get_devices(&self, user: &str) -> Result<Option<DeviceListRecord>> {
        self.get_json(key("dl", &[user.as_bytes()])?).await
    }

    async fn delete_devices(&self, user: &str) -> Result<()> {
        self.write_one(SessionWrite::Delete(key("dl", &[user.as_bytes()])?))
            .await
    }

    async fn get_group_metadata(&self, group_jid: &str) -> Result<Option<Vec<u8>>> {
        self.get(key("gm", &[group_jid.as_bytes()])?).await
    }

    async fn put_group_metadata(&self, group_jid: &str, blob: &[u8]) -> Result<()> {
        self.write_one(self.put(key("gm", &[group_jid.as_bytes()])?, blob)?)
            .await
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        self.write_one(SessionWrite::Delete(key("gm", &[group_jid.as_bytes()])?))
            .await
    }

    async fn get_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        self.get_json(token_key(jid)?).await
    }

    async fn put_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        self.change_token(jid, |_| Some(entry.clone())).await
    }

    async fn delete_tc_token(&self, jid: &str) -> Result<()> {
        let _turn = self.0.turn.lock().await;
        self.write_one(SessionWrite::Delete(token_key(jid)?)).await
    }

    async fn get_all_tc_token_jids(&self) -> Result<Vec<String>> {
        let below = prefix("tc", &[]);
        let rows = self.scan(&below).await?;
        rows.iter().map(|row| text_after(row, &below)).collect()
    }

    async fn delete_expired_tc_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u32> {
        let _turn = self.0.turn.lock().await;
        let mut writes = Vec::new();
        for row in self.scan(&prefix("tc", &[])).await? {
            let entry: TcTokenEntry = from_json(&row.value)?;
            let token_lives = !entry.token.is_empty() && entry.token_timestamp >= token_cutoff;
            let sender_lives = entry.sender_timestamp.is_some_and(|at| at >= sender_cutoff);
            if !token_lives && !sender_lives {
                writes.push(SessionWrite::Delete(row.key));
            }
        }
        self.write(&writes).await?;
        Ok(u32::try_from(writes.len()).unwrap_or(u32::MAX))
    }

    async fn touch_tc_token_sender_timestamp(&self, jid: &str, sender_timestamp: i64) -> Result<()> {
        self.change_token(jid, |known| match known {
            Some(known) => {
                let latest = known
                    .sender_timestamp
                    .map_or(sender_timestamp, |at| at.max(sender_timestamp));
                (known.sender_timestamp != Some(latest)).then_some(TcTokenEntry {
                    sender_timestamp: Some(latest),
                    ..known
                })
            }
            None => Some(TcTokenEntry {
                token: Vec::new(),
                token_timestamp: sender_timestamp,
                sender_timestamp: Some(sender_timestamp),
            }),
        })
        .await
    }

    async fn store_received_tc_token(&self, jid: &str, token: &[u8], token_timestamp: i64) -> Result<()> {
        self.change_token(jid, |known| match known {
            Some(known) if !known.token.is_empty() && token_timestamp < known.token_timestamp => None,
            known => Some(TcTokenEntry {
                token: token.to_vec(),
                token_timestamp,
                sender_timestamp: known.and_then(|known| known.sender_timestamp),
            }),
        })
        .await
    }

    async fn store_sent_message(&self, chat_jid: &str, message_id: &str, payload: &[u8]) -> Result<()> {
        let end = self.0.clock.wall() + SENT_MESSAGES_KEPT_FOR;
        self.write_one(self.put_until(sent_key(chat_jid, message_id)?, payload, Some(end))?)
            .await
    }

    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        let _turn = self.0.turn.lock().await;
        let found = self.get(sent_key(chat_jid, message_id)?).await?;
        if found.is_some() {
            self.write_one(SessionWrite::Delete(sent_key(chat_jid, message_id)?))
                .await?;
        }
        Ok(found)
    }

    /// One sweep of the store takes what has ended of all devices.
    async fn delete_expired_sent_messages(&self, _cutoff_timestamp: i64) -> Result<u32> {
        Ok(0)
    }

    /// Tried once: by it the client finds out whether there is such a storage.
    async fn store_pending_inbound(&self, chat: &str, sender: &str, id: &str, message: &[u8]) -> Result<()> {
        let end = self.0.clock.wall() + PENDING_KEPT_FOR;
        self.write_one(self.put_until(pending_key(chat, sender, id)?, message, Some(end))?)
            .await
    }

    async fn get_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<Option<Vec<u8>>> {
        self.pending(pending_key(chat, sender, id)?).await
    }

    async fn delete_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<()> {
        self.delete_pending(vec![pending_key(chat, sender, id)?]).await
    }

    /// One sweep of the store takes what has ended of all devices.
    async fn delete_expired_pending_inbound(&self, _cutoff_timestamp: i64) -> Result<u32> {
        Ok(0)
    }

    async fn store_pending_inbound_batch(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        let end = self.0.clock.wall() + PENDING_KEPT_FOR;
        let mut writes = Vec::with_capacity(rows.len());
        for row in rows {
            let key = pending_key(row.chat, row.sender, row.id)?;
            if row.message.len() <= VALUE_BYTES_MAX {
                writes.push(self.put_until(key, row.message, Some(end))?);
            } else if let Some(short) = shortened(row.message) {
                writes.push(self.put_until(key, &short, Some(end))?);
            } else {
                // It is passed on all the same; only a process that ends before that has lost it.
                let (device, bytes) = (self.device(), row.message.len());
                tracing::warn!(%device, bytes, "no copy is kept of a message that says nothing to a person and is too long to be stored");
            }
        }
        self.write_pending(writes).await
    }

    async fn delete_pending_inbound_batch(&self, keys: &[PendingInboundKey<'_>]) -> Result<()> {
        let key = |one: &PendingInboundKey<'_>| pending_key(one.chat, one.sender, one.id);
        self.delete_pending(keys.iter().map(key).collect::<Result<_>>()?).await
    }
}
