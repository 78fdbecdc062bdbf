//! Takes what transports report by themselves.

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::suppression::OptOutWords;
use crate::engine::core::Core;
use crate::id::{ChatId, DeviceId, UserId};
use crate::plan::inbound::{InboundContext, inbound, opting_out};
use crate::store::{Change, ChangeSet, Fence, SessionOwner, StoreError, StoreErrorKind, WriteClass};
use crate::transport::{TransportEvent, TransportSink};

#[async_trait]
impl TransportSink for Handle {
    async fn accept(&self, user: UserId, device: DeviceId, events: Vec<TransportEvent>) -> Result<(), StoreError> {
        self.take(user, device, None, events).await
    }

    async fn accept_owned(&self, owner: &SessionOwner, events: Vec<TransportEvent>) -> Result<(), StoreError> {
        let fence = Fence {
            incarnation: owner.incarnation,
            epoch: owner.epoch,
        };
        self.take(owner.user_id, owner.device_id, Some(fence), events).await
    }
}

impl Handle {
    async fn take(
        &self,
        user: UserId,
        device: DeviceId,
        fence: Option<Fence>,
        events: Vec<TransportEvent>,
    ) -> Result<(), StoreError> {
        let scope = RequestScope::user(user);
        // Receipts, of which there are more than of anything else, are told apart by the store alone.
        let only_receipts = events
            .iter()
            .all(|event| matches!(event, TransportEvent::Receipt { .. }));
        let (known, words) = if only_receipts {
            (None, OptOutWords::default())
        } else {
            let known = match self.core.store.device(&scope, device).await {
                Ok(device) => Some(device),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
            (known, self.core.settings.settings(user).await?.opt_out_words)
        };
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
            fence,
            words: &words,
            leads: &leads,
            seed: &self.core.seed,
            ids: &self.core.ids,
            chats_since: self.core.now() - self.core.config.chats_kept_for,
            now: self.core.now(),
        };
        let mut refused = None;
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
            let by_owner = matches!(first, Some(Change::Owned { .. }));
            let by_person = matches!(first, Some(Change::Replied { .. }));
            let chats = chats_of(&set);
            // The past of many chats at once.
            let class = if chats.len() > 1 {
                WriteClass::Bulk
            } else {
                WriteClass::Settle
            };
            match self.commit_untold(set, class).await {
                Ok(committed) => {
                    if concerns_lane {
                        // What WhatsApp forbids now, and that a device is back, must not wait until all devices are read again.
                        self.core.wake.changed(device);
                    }
                    let news = !reply || committed.reply_is_new;
                    self.tell(if news { &told } else { &[] }, &committed).await;
                    // A reply tells of its chat itself.
                    if committed.chat_messages > 0 && !by_person {
                        let only = chats.first().copied().filter(|_| chats.len() == 1);
                        self.tell_chat(user, device, only).await;
                    }
                    if committed.matched.len() < receipts.len() {
                        self.core.keep_early_receipts(receipts);
                    }
                }
                // The device was deleted; delivering this again would not bring it back.
                Err(error) if error.is_not_found() => {
                    tracing::debug!(device = %device, "an event of a device that is gone was dropped");
                }
                // The device went to another node or was given back; what else is told of it counts all the same.
                Err(error) if by_owner && (error.is_fenced() || error.is_conflict()) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        let not_owner = |error| StoreError::new(StoreErrorKind::Fenced, "accept", "device").caused_by(error);
        refused.map_or(Ok(()), |error| Err(not_owner(error)))
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

    async fn accept_owned(&self, owner: &SessionOwner, events: Vec<TransportEvent>) -> Result<(), StoreError> {
        let gone = StoreError::new(StoreErrorKind::Unavailable, "accept", "engine");
        let core = self.0.upgrade().ok_or(gone)?;
        Handle::new(core).accept_owned(owner, events).await
    }
}

fn concerns_lane(change: &Change) -> bool {
    matches!(
        change,
        Change::SetDeviceRestriction { .. } | Change::SetDeviceNewChats { .. } | Change::SetDeviceLink { .. }
    )
}

fn chats_of(set: &ChangeSet) -> Vec<ChatId> {
    let chats = set.changes.iter().filter_map(|change| match change {
        Change::AddToChat(addition) => Some(addition.chat_id),
        _ => None,
    });
    chats.collect()
}

fn is_receipt(change: &Change) -> bool {
    matches!(change, Change::Receipt { .. })
}
