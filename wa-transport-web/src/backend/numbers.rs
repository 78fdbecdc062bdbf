//! Which numbers are on WhatsApp, as far as it was asked.

use std::time::Duration;

use wa_core::domain::phone::Phone;
use wa_core::store::{SessionKey, SessionWrite};
use whatsapp_rust::wacore::store::error::Result;

use super::{Backend, key};

fn number_key(phone: &Phone) -> Result<SessionKey> {
    key("nc", &[phone.digits().as_bytes()])
}

impl Backend {
    /// Whether numbers were on WhatsApp when it was last asked; `None` for those that it was not asked for lately.
    pub(crate) async fn numbers(&self, phones: &[Phone]) -> Result<Vec<Option<bool>>> {
        if phones.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<SessionKey> = phones.iter().map(number_key).collect::<Result<_>>()?;
        let now = self.0.clock.wall().as_millis();
        // A sweep may be late.
        let lives = |value: &[u8]| value.get(1..)?.try_into().ok().map(|end| now < i64::from_be_bytes(end));
        let told = |value: Vec<u8>| (lives(&value) == Some(true)).then(|| value[0] == 1);
        Ok(self
            .get_all(&keys)
            .await?
            .into_iter()
            .map(|value| value.and_then(told))
            .collect())
    }

    /// Notes what WhatsApp said; that a number is there for so long, that it is not for a seventh of it.
    pub(crate) async fn remember_numbers(&self, told: &[(Phone, bool)], kept_for: Duration) -> Result<()> {
        let now = self.0.clock.wall();
        let put = |(phone, there): &(Phone, bool)| {
            let end = now + if *there { kept_for } else { kept_for / 7 };
            let value = [&[u8::from(*there)][..], &end.as_millis().to_be_bytes()].concat();
            self.put_until(number_key(phone)?, &value, Some(end))
        };
        let writes: Vec<SessionWrite> = told.iter().map(put).collect::<Result<_>>()?;
        self.write(&writes).await
    }
}
