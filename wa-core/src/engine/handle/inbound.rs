//! Takes what transports report by themselves.

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::engine::core::Core;
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
            let first = set.changes.first();
            let reply = matches!(first, Some(Change::Replied { .. } | Change::TakenOver { .. }));
            let told = set.events.clone();
            let concerns_lane = set.changes.iter().any(concerns_lane);
            let receipts: Vec<Change> = set
                .changes
                .iter()
                .filter(|change| is_receipt(change))
                .cloned()
                .collect();
            match self.commit_untold(set, WriteClass::Settle).await {
                Ok(committed) => {
                    if concerns_lane {
                        // What WhatsApp forbids now, and that a device is back, must not wait until all devices are read again.
                        self.core.wake.changed(device);
                    }
                    let news = !reply || committed.reply_is_new;
                    self.tell(if news { &told } else { &[] }, &committed).await;
                    if committed.matched.len() < receipts.len() {
                        self.core.keep_early_receipts(receipts);
                    }
                }
                // The device was deleted; delivering this again would not bring it back.
                Err(error) if error.is_not_found() => {
                    tracing::debug!(device = %device, "an event of a device that is gone was dropped");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Takes events for an engine as long as there is one: transports outlive engines, and must not keep them alive.
pub(crate) struct Inlet(pub(crate) Weak<Core>);

impl Inlet {
    pub(crate) fn of(core: &Arc<Core>) -> Self {
        Self(Arc::downgrade(core))
    }
}

#[async_trait]
impl TransportSink for Inlet {
    async fn accept(&self, user: UserId, device: DeviceId, events: Vec<TransportEvent>) -> Result<(), StoreError> {
        let gone = StoreError::new(StoreErrorKind::Unavailable, "accept", "engine");
        let core = self.0.upgrade().ok_or(gone)?;
        Handle::new(core).accept(user, device, events).await
    }
}

fn concerns_lane(change: &Change) -> bool {
    matches!(
        change,
        Change::SetDeviceRestriction { .. } | Change::SetDeviceNewChats { .. } | Change::SetDeviceLink { .. }
    )
}

fn is_receipt(change: &Change) -> bool {
    matches!(change, Change::Receipt { .. })
}
