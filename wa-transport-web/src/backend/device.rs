//! The device itself, as one value.

use async_trait::async_trait;
use whatsapp_rust::wacore::store::Device;
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::DeviceStore;

use wa_core::store::SessionWrite;

use super::{Backend, from_json, key, to_json};

impl Backend {
    /// Whether a person has disconnected the device and not connected it since.
    pub(crate) async fn rests(&self) -> Result<bool> {
        Ok(self.get(key("dv", &[b"rest"])?).await?.is_some())
    }

    /// Notes that a person has disconnected the device, or that it may be connected.
    pub(crate) async fn set_rests(&self, rests: bool) -> Result<()> {
        let key = key("dv", &[b"rest"])?;
        self.write_one(if rests {
            self.put(key, &[])?
        } else {
            SessionWrite::Delete(key)
        })
        .await
    }
}

#[async_trait]
impl DeviceStore for Backend {
    async fn save(&self, device: &Device) -> Result<()> {
        self.write_one(self.put(key("dv", &[])?, &to_json(device)?)?).await
    }

    async fn load(&self) -> Result<Option<Device>> {
        self.get(key("dv", &[])?)
            .await?
            .map(|bytes| from_json(&bytes))
            .transpose()
    }

    async fn exists(&self) -> Result<bool> {
        Ok(self.get(key("dv", &[])?).await?.is_some())
    }

    /// The number is not used: a backend holds one device.
    async fn create(&self) -> Result<i32> {
        let _turn = self.0.turn.lock().await;
        if !self.exists().await? {
            self.save(&Device::new()).await?;
        }
        Ok(1)
    }
}
