//! Pictures that were uploaded, so that no connection uploads them again while WhatsApp keeps them.

use std::time::Duration;

use wa_core::store::SessionKey;
use wa_core::time::Timestamp;
use whatsapp_rust::wacore::store::error::Result;

use super::{Backend, key};

fn upload_key(digest: &[u8; 32]) -> Result<SessionKey> {
    key("up", &[digest])
}

impl Backend {
    /// What was noted of a picture, and when it was uploaded.
    pub(crate) async fn upload(&self, digest: &[u8; 32]) -> Result<Option<(Vec<u8>, Timestamp)>> {
        let noted = self.get(upload_key(digest)?).await?;
        Ok(noted.and_then(|noted| {
            let (at, content) = noted.split_first_chunk()?;
            Some((content.to_vec(), Timestamp::from_millis(i64::from_be_bytes(*at))))
        }))
    }

    /// Notes that a picture was uploaded, for so long.
    pub(crate) async fn remember_upload(
        &self,
        digest: &[u8; 32],
        content: &[u8],
        at: Timestamp,
        kept_for: Duration,
    ) -> Result<()> {
        let value = [&at.as_millis().to_be_bytes()[..], content].concat();
        self.write_one(self.put_until(upload_key(digest)?, &value, Some(at + kept_for))?)
            .await
    }
}
