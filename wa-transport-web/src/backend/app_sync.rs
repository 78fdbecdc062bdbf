//! App state: keys, versions, and the MACs of what is in it.

use std::collections::HashMap;

use async_trait::async_trait;
use wa_core::store::{SessionKey, SessionWrite};
use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::{AppStateSyncKey, AppSyncStore};

use super::{Backend, key, prefix, to_json};

fn mac_key(name: &str, index_mac: &[u8]) -> Result<SessionKey> {
    key("am", &[name.as_bytes(), index_mac])
}

#[async_trait]
impl AppSyncStore for Backend {
    async fn get_sync_key(&self, key_id: &[u8]) -> Result<Option<AppStateSyncKey>> {
        self.get_json(key("ak", &[key_id])?).await
    }

    async fn set_sync_key(&self, key_id: &[u8], sync_key: AppStateSyncKey) -> Result<()> {
        let writes = [
            self.put(key("ak", &[key_id])?, &to_json(&sync_key)?)?,
            self.put(key("al", &[])?, key_id)?,
        ];
        self.write(&writes).await
    }

    async fn get_version(&self, name: &str) -> Result<HashState> {
        let state = self.get_json(key("av", &[name.as_bytes()])?).await?;
        Ok(state.unwrap_or_default())
    }

    async fn set_version(&self, name: &str, state: HashState) -> Result<()> {
        self.write_one(self.put(key("av", &[name.as_bytes()])?, &to_json(&state)?)?)
            .await
    }

    async fn put_mutation_macs(&self, name: &str, _version: u64, mutations: &[AppStateMutationMAC]) -> Result<()> {
        let put = |mac: &AppStateMutationMAC| self.put(mac_key(name, &mac.index_mac)?, &mac.value_mac);
        let writes: Vec<SessionWrite> = mutations.iter().map(put).collect::<Result<_>>()?;
        self.write(&writes).await
    }

    async fn get_mutation_mac(&self, name: &str, index_mac: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get(mac_key(name, index_mac)?).await
    }

    async fn get_mutation_macs(&self, name: &str, index_macs: &[[u8; 32]]) -> Result<HashMap<[u8; 32], Vec<u8>>> {
        let keys: Vec<SessionKey> = index_macs.iter().map(|mac| mac_key(name, mac)).collect::<Result<_>>()?;
        let found = index_macs.iter().zip(self.get_all(&keys).await?);
        Ok(found.filter_map(|(index, mac)| Some((*index, mac?))).collect())
    }

    async fn delete_mutation_macs(&self, name: &str, index_macs: &[Vec<u8>]) -> Result<()> {
        let delete = |mac: &Vec<u8>| mac_key(name, mac).map(SessionWrite::Delete);
        let writes: Vec<SessionWrite> = index_macs.iter().map(delete).collect::<Result<_>>()?;
        self.write(&writes).await
    }

    async fn clear_mutation_macs(&self, name: &str) -> Result<()> {
        self.delete_below(&prefix("am", &[name.as_bytes()])).await
    }

    async fn get_latest_sync_key_id(&self) -> Result<Option<Vec<u8>>> {
        self.get(key("al", &[])?).await
    }
}
