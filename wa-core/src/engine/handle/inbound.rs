//! Takes what transports report by themselves.

use async_trait::async_trait;

use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::id::{DeviceId, UserId};
use crate::plan::inbound::{InboundContext, inbound, opting_out};
use crate::store::{Change, StoreError, StoreErrorKind, WriteClass};
use crate::transport::{TransportEvent, TransportSink};

#[async_trait]
impl TransportSink for Handle {
    async fn accept(&self, user: UserId, device: DeviceId, events: Vec<TransportEvent>) -> Result<(), StoreError> {
        let scope = RequestScope::user(user);
        let known = match self.core.store.device(&scope, device).await {
            Ok(device) => Some(device),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let words = self.core.settings.settings(user).await?.opt_out_words;
        let mut leads = Vec::new();
        for phone in opting_out(&events, &words) {
            match self.lead_of(&scope, phone).await {
                Ok(Some(lead)) => leads.push((phone, lead)),
                Ok(None) => {}
                Err(HandleError::Store(error)) => return Err(error),
                Err(_) => return Err(StoreError::new(StoreErrorKind::Backend, "leads", "lead")),
            }
        }
        let context = InboundContext {
            user_id: user,
            device_id: device,
            device: known.as_ref(),
            words: &words,
            leads: &leads,
            seed: &self.core.seed,
            ids: &self.core.ids,
            now: self.core.now(),
        };
        for set in inbound(events, &context) {
            let reply = matches!(set.changes.first(), Some(Change::Replied { .. }));
            let set_events = set.events.clone();
            match self.take(set).await {
                Ok(committed) => {
                    let news = !reply || committed.reply_is_new;
                    self.tell(if news { &set_events } else { &[] }, &committed).await;
                }
                // The device was deleted; delivering this again would not bring it back.
                Err(error) if error.is_not_found() => {
                    tracing::debug!(device = %device, "an event of a device that is gone was dropped");
                }
                Err(error) => return Err(error),
            }
        }
        if known.is_some_and(|_| !leads.is_empty()) {
            self.core.wake.plan();
        }
        Ok(())
    }
}

impl Handle {
    /// Commits what was reported; taking it again changes nothing.
    async fn take(&self, set: crate::store::ChangeSet) -> Result<crate::store::Committed, StoreError> {
        let mut tries = 1;
        loop {
            let now = self.core.now();
            match self.core.store.commit(set.clone(), WriteClass::Settle, now).await {
                Err(error) if error.kind == StoreErrorKind::Unavailable && tries < super::COMMIT_TRIES_MAX => {
                    tries += 1
                }
                result => return result,
            }
        }
    }
}
