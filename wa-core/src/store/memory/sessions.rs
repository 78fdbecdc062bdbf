//! Sessions of devices that are linked to WhatsApp Web.

use async_trait::async_trait;

use super::MemoryStore;
use super::flaw::Flaw;
use super::state::State;
use crate::id::DeviceId;
use crate::store::{
    Page, PageRequest, SESSION_KEYS_MAX, SessionKey, SessionOwner, SessionRow, SessionStore, SessionWrite, StoreError,
    StoreErrorKind, session_batch, session_range,
};
use crate::time::Timestamp;

impl State {
    /// Whether a node may write the session of a device.
    fn check_session_owner(&self, owner: &SessionOwner, operation: &'static str) -> Result<(), StoreError> {
        self.check_node(owner.incarnation, operation)?;
        let owns = self.devices.get(&owner.device_id).is_some_and(|row| {
            let same_epoch = row.epoch == owner.epoch || self.flawed(Flaw::SessionIgnoresEpoch);
            row.owner == Some(owner.incarnation) && row.device.user_id == owner.user_id && same_epoch
        });
        if owns || self.flawed(Flaw::SessionObeysStrangers) {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Fenced, operation, "device"))
    }

    fn put_session(&mut self, device: DeviceId, row: SessionRow) {
        self.delete_session_value(device, &row.key);
        if let Some(at) = row.expires_at {
            self.session_ends.insert((at, device, row.key.clone()));
        }
        self.session_rows.insert((device, row.key.clone()), row);
    }

    fn delete_session_value(&mut self, device: DeviceId, key: &SessionKey) {
        let old = self.session_rows.remove(&(device, key.clone()));
        if let Some(at) = old.and_then(|old| old.expires_at) {
            self.session_ends.remove(&(at, device, key.clone()));
        }
    }

    fn session_page(
        &self,
        device: DeviceId,
        prefix: &[u8],
        page: &PageRequest<SessionKey>,
    ) -> Page<SessionRow, SessionKey> {
        let limit = page.clamped();
        let (from, to) = session_range(prefix, page);
        let Some(first) = SessionKey::new(if from.is_empty() { vec![0] } else { from }) else {
            return Page {
                rows: Vec::new(),
                next: None,
            };
        };
        let rows = self
            .session_rows
            .range((device, first)..)
            .take_while(|((of, key), _)| *of == device && key.as_bytes() < to.as_slice())
            .take(limit + 1)
            .map(|(_, row)| row.clone())
            .collect();
        Page::cut(rows, limit, |row: &SessionRow| row.key.clone())
    }

    fn write_session(&mut self, owner: &SessionOwner, writes: &[SessionWrite]) -> Result<(), StoreError> {
        let batch = session_batch(writes)?;
        if self.flawed(Flaw::SessionBatchIsCut)
            && let Some(SessionWrite::Put(row)) = batch.first()
        {
            self.put_session(owner.device_id, row.clone());
        }
        self.check_session_owner(owner, "write_session")?;
        for write in batch {
            match write {
                SessionWrite::Put(row) => self.put_session(owner.device_id, row.clone()),
                SessionWrite::Delete(_) if self.flawed(Flaw::SessionKeepsDeleted) => {}
                SessionWrite::Delete(key) => self.delete_session_value(owner.device_id, key),
            }
        }
        Ok(())
    }

    fn wipe_session(&mut self, owner: &SessionOwner) -> Result<u64, StoreError> {
        self.check_session_owner(owner, "wipe_session")?;
        let all = self.flawed(Flaw::WipeTakesAll);
        let keys: Vec<_> = self
            .session_rows
            .keys()
            .filter(|(device, _)| *device == owner.device_id || all)
            .cloned()
            .collect();
        for (device, key) in &keys {
            self.delete_session_value(*device, key);
        }
        Ok(keys.len() as u64)
    }

    fn sweep_sessions(&mut self, before: Timestamp, limit: u32) -> u64 {
        let ended: Vec<_> = self
            .session_ends
            .iter()
            .take_while(|(at, _, _)| *at < before || self.flawed(Flaw::SessionsEndEarly))
            .take(limit as usize)
            .cloned()
            .collect();
        for (_, device, key) in &ended {
            self.delete_session_value(*device, key);
        }
        ended.len() as u64
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn session_values(&self, device: DeviceId, keys: &[SessionKey]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if keys.len() > SESSION_KEYS_MAX {
            let error = StoreError::new(StoreErrorKind::Unsupported, "session_values", "session keys");
            return Err(error);
        }
        let state = self.lock();
        let of = |key: &SessionKey| state.session_rows.get(&(device, key.clone()));
        Ok(keys.iter().map(|key| of(key).map(|row| row.value.clone())).collect())
    }

    async fn scan_session(
        &self,
        device: DeviceId,
        prefix: &[u8],
        page: &PageRequest<SessionKey>,
    ) -> Result<Page<SessionRow, SessionKey>, StoreError> {
        let state = self.lock();
        let mut found = state.session_page(device, prefix, page);
        if state.flawed(Flaw::PageSkipsARow) && page.after.is_some() && !found.rows.is_empty() {
            found.rows.remove(0);
        }
        Ok(found)
    }

    async fn write_session(&self, owner: &SessionOwner, writes: &[SessionWrite]) -> Result<(), StoreError> {
        self.lock().write_session(owner, writes)
    }

    async fn wipe_session(&self, owner: &SessionOwner) -> Result<u64, StoreError> {
        self.lock().wipe_session(owner)
    }

    async fn sweep_sessions(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        Ok(self.lock().sweep_sessions(before, limit))
    }
}
