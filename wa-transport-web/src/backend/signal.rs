//! Signal sessions and keys.

use std::sync::Arc;

use async_trait::async_trait;
use wa_core::store::{PageRequest, SessionKey, SessionWrite};
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::SignalStore;

use super::{Backend, key, prefix};

fn session_key(address: &str) -> Result<SessionKey> {
    key("sg", &[address.as_bytes(), b"s"])
}

fn identity_key(address: &str) -> Result<SessionKey> {
    key("sg", &[address.as_bytes(), b"i"])
}

/// Numbers in keys are big-endian, so that they are ordered.
fn numbered(namespace: &str, id: u32) -> Result<SessionKey> {
    key(namespace, &[&id.to_be_bytes()])
}

fn number_of(row: &SessionKey) -> Result<u32> {
    let id = row.as_bytes().last_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    id.ok_or_else(|| StoreError::Validation("a key without its number".to_owned()))
}

#[async_trait]
impl SignalStore for Backend {
    async fn put_identity(&self, address: &str, identity: [u8; 32]) -> Result<()> {
        self.write_one(self.put(identity_key(address)?, &identity)?).await
    }

    async fn put_identities_batch(&self, identities: &[(Arc<str>, [u8; 32])]) -> Result<()> {
        let put = |(address, identity): &(Arc<str>, [u8; 32])| self.put(identity_key(address)?, identity);
        let writes: Vec<SessionWrite> = identities.iter().map(put).collect::<Result<_>>()?;
        self.write(&writes).await
    }

    async fn load_identity(&self, address: &str) -> Result<Option<[u8; 32]>> {
        let Some(found) = self.get(identity_key(address)?).await? else {
            return Ok(None);
        };
        let length = || StoreError::Validation("an identity that is not 32 bytes long".to_owned());
        found.try_into().map(Some).map_err(|_| length())
    }

    async fn delete_identity(&self, address: &str) -> Result<()> {
        self.write_one(SessionWrite::Delete(identity_key(address)?)).await
    }

    async fn get_session(&self, address: &str) -> Result<Option<Bytes>> {
        Ok(self.get(session_key(address)?).await?.map(Bytes::from))
    }

    async fn put_session(&self, address: &str, session: &[u8]) -> Result<()> {
        self.write_one(self.put(session_key(address)?, session)?).await
    }

    async fn put_sessions_batch(&self, sessions: &[(Arc<str>, Bytes)]) -> Result<()> {
        let put = |(address, session): &(Arc<str>, Bytes)| self.put(session_key(address)?, session);
        let writes: Vec<SessionWrite> = sessions.iter().map(put).collect::<Result<_>>()?;
        self.write(&writes).await
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        self.write_one(SessionWrite::Delete(session_key(address)?)).await
    }

    async fn has_signal_state_for_user(&self, user: &str) -> Result<bool> {
        // Addresses are `user@server` and `user:device@server`. Longer numbers that begin alike are followed by a digit, and so
        // come before both; one row of the first key after them tells.
        let whole = [b"sg\0", user.as_bytes()].concat();
        let digits = [whole.as_slice(), b"9\xff"].concat();
        let after = SessionKey::new(digits).ok_or_else(|| StoreError::Validation("a user is too long".to_owned()))?;
        let found = self
            .0
            .store
            .scan_session(self.device(), &whole, &PageRequest::after(after, 1))
            .await
            .map_err(Self::failed)?;
        let next = found.rows.first().and_then(|row| row.key.as_bytes().get(whole.len()));
        Ok(matches!(next, Some(b':' | b'@')))
    }

    async fn store_prekey(&self, id: u32, record: &[u8], _uploaded: bool) -> Result<()> {
        self.write_one(self.put(numbered("pk", id)?, record)?).await
    }

    async fn store_prekeys_batch(&self, keys: &[(u32, Bytes)], _uploaded: bool) -> Result<()> {
        let put = |(id, record): &(u32, Bytes)| self.put(numbered("pk", *id)?, record);
        let writes: Vec<SessionWrite> = keys.iter().map(put).collect::<Result<_>>()?;
        self.write(&writes).await
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        Ok(self.get(numbered("pk", id)?).await?.map(Bytes::from))
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        let keys: Vec<SessionKey> = ids.iter().map(|id| numbered("pk", *id)).collect::<Result<_>>()?;
        let found = ids.iter().zip(self.get_all(&keys).await?);
        Ok(found
            .filter_map(|(id, record)| Some((*id, Bytes::from(record?))))
            .collect())
    }

    /// Nothing asks which prekeys were uploaded, and one that was used up must not come back.
    async fn mark_prekeys_uploaded(&self, _ids: &[u32]) -> Result<()> {
        Ok(())
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        self.write_one(SessionWrite::Delete(numbered("pk", id)?)).await
    }

    async fn get_max_prekey_id(&self) -> Result<u32> {
        let rows = self.scan(&prefix("pk", &[])).await?;
        rows.last().map_or(Ok(0), |row| number_of(&row.key))
    }

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        self.write_one(self.put(numbered("sp", id)?, record)?).await
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        self.get(numbered("sp", id)?).await
    }

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        let rows = self.scan(&prefix("sp", &[])).await?;
        rows.into_iter()
            .map(|row| Ok((number_of(&row.key)?, row.value)))
            .collect()
    }

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.write_one(SessionWrite::Delete(numbered("sp", id)?)).await
    }

    async fn put_sender_key(&self, address: &str, record: &[u8]) -> Result<()> {
        self.write_one(self.put(key("gk", &[address.as_bytes()])?, record)?)
            .await
    }

    async fn put_sender_keys_batch(&self, sender_keys: &[(Arc<str>, Bytes)]) -> Result<()> {
        let put = |(address, record): &(Arc<str>, Bytes)| self.put(key("gk", &[address.as_bytes()])?, record);
        let writes: Vec<SessionWrite> = sender_keys.iter().map(put).collect::<Result<_>>()?;
        self.write(&writes).await
    }

    async fn get_sender_key(&self, address: &str) -> Result<Option<Vec<u8>>> {
        self.get(key("gk", &[address.as_bytes()])?).await
    }

    async fn delete_sender_key(&self, address: &str) -> Result<()> {
        self.write_one(SessionWrite::Delete(key("gk", &[address.as_bytes()])?))
            .await
    }
}
