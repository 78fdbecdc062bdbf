//! The place where most cases of the outbox play: one user, one device, its owner, one running campaign.

use std::time::Duration;

use super::world::{World, set_status};
use crate::domain::campaign::CampaignStatus;
use crate::domain::device::{Epoch, Hold, HoldReason, OwnedDevice};
use crate::domain::message::{Message, MessageState};
use crate::domain::phone::Phone;
use crate::id::{AttemptId, CampaignId, DeviceId, Incarnation, MessageId, UserId};
use crate::store::{
    Begin, BeginItem, Begun, Change, Decline, Due, DueMessage, LaneLook, Outcome, Settle, Settled, StoreError, Verdict,
};
use crate::time::Timestamp;
use crate::transport::{MaybeSentCause, TransportMessageId};

/// One user, one device, the node that owns it, one running campaign.
pub(super) struct Stage {
    pub world: World,
    pub user: UserId,
    pub device: DeviceId,
    pub node: Incarnation,
    pub epoch: Epoch,
    pub campaign: CampaignId,
}

impl Stage {
    pub fn now(&self) -> Timestamp {
        self.world.now()
    }

    /// A campaign message to a number, not inserted.
    pub fn message_to(&self, phone: Phone) -> Message {
        self.world
            .rows
            .campaign_message(self.user, self.campaign, Some(self.device), phone)
    }

    /// A queued campaign message to somebody new.
    pub async fn queued(&self) -> MessageId {
        self.queued_to(self.world.rows.fresh_phone()).await
    }

    pub async fn queued_to(&self, phone: Phone) -> MessageId {
        self.world.insert(self.message_to(phone)).await
    }

    /// A queued message written by hand to somebody new.
    pub async fn direct(&self) -> MessageId {
        let phone = self.world.rows.fresh_phone();
        let message = self.world.rows.direct_message(self.user, Some(self.device), phone);
        self.world.insert(message).await
    }

    pub fn item(&self, message: MessageId) -> BeginItem {
        self.world.rows.begin_item(self.user, message, self.device, self.epoch)
    }

    pub async fn begin_items(&self, items: Vec<BeginItem>) -> Result<Vec<Begun>, StoreError> {
        let begin = Begin {
            incarnation: self.node,
            items,
            now: self.now(),
        };
        self.world.store.begin(&begin).await
    }

    pub async fn try_begin(&self, item: &BeginItem) -> Begun {
        let begun = self.begin_items(vec![item.clone()]).await.unwrap();
        assert_eq!(begun.len(), 1);
        begun[0]
    }

    pub async fn begin(&self, message: MessageId) -> AttemptId {
        let item = self.item(message);
        assert_eq!(self.try_begin(&item).await, Begun::Yes);
        item.attempt_id
    }

    /// A campaign message that is being sent.
    pub async fn sending(&self) -> (MessageId, AttemptId) {
        let message = self.queued().await;
        (message, self.begin(message).await)
    }

    /// A campaign message in doubt that may be looked at from now on.
    pub async fn in_doubt(&self) -> (MessageId, AttemptId) {
        let (message, attempt) = self.sending().await;
        let settled = self.settle(message, attempt, doubt_until(self.now())).await;
        assert_eq!(settled, Settled::Yes(MessageState::InDoubt));
        (message, attempt)
    }

    /// A campaign message that was sent.
    pub async fn sent(&self) -> (MessageId, AttemptId) {
        let (message, attempt) = self.sending().await;
        let settled = self.settle(message, attempt, sent()).await;
        assert_eq!(settled, Settled::Yes(MessageState::Sent));
        (message, attempt)
    }

    /// A campaign message of which nobody can tell whether it was sent.
    pub async fn unknown(&self) -> (MessageId, AttemptId) {
        let (message, attempt) = self.sending().await;
        let settled = self.settle(message, attempt, unknown()).await;
        assert_eq!(settled, Settled::Yes(MessageState::Unknown));
        (message, attempt)
    }

    pub fn outcome(&self, message: MessageId, attempt: AttemptId, verdict: Verdict) -> Outcome {
        Outcome {
            advance: None,
            user_id: self.user,
            device_id: self.device,
            epoch: self.epoch,
            message_id: message,
            attempt_id: attempt,
            verdict,
            detail: None,
        }
    }

    pub async fn settle_as(&self, node: Incarnation, outcome: Outcome) -> Result<Settled, StoreError> {
        let settle = Settle {
            incarnation: node,
            outcomes: vec![outcome],
            now: self.now(),
        };
        let settled = self.world.store.settle(&settle).await?;
        assert_eq!(settled.len(), 1);
        Ok(settled[0])
    }

    pub async fn settle(&self, message: MessageId, attempt: AttemptId, verdict: Verdict) -> Settled {
        let outcome = self.outcome(message, attempt, verdict);
        self.settle_as(self.node, outcome).await.unwrap()
    }

    pub fn declined(&self, message: MessageId, state: MessageState) -> Decline {
        Decline {
            incarnation: self.node,
            user_id: self.user,
            device_id: self.device,
            epoch: self.epoch,
            message_id: message,
            state,
            reason: crate::domain::message::Reason::TooLong,
            due_at: None,
            detail: None,
        }
    }

    pub async fn state(&self, message: MessageId) -> MessageState {
        self.world.state(self.user, message).await
    }

    pub async fn row(&self, message: MessageId) -> Message {
        self.world.message(self.user, message).await
    }

    /// The device with its owner.
    pub async fn owned(&self) -> OwnedDevice {
        self.world.store.owned(&[self.device]).await.unwrap().remove(0)
    }

    pub async fn pause(&self) {
        self.status(&[CampaignStatus::Triggered], CampaignStatus::Paused).await;
    }

    pub async fn resume(&self) {
        self.status(&[CampaignStatus::Paused], CampaignStatus::Triggered).await;
    }

    pub async fn cancel(&self) {
        let from = &[CampaignStatus::Triggered, CampaignStatus::Paused];
        self.status(from, CampaignStatus::Cancelled).await;
    }

    pub async fn status(&self, from: &'static [CampaignStatus], to: CampaignStatus) {
        self.status_at(from, to, self.now()).await;
    }

    pub async fn status_at(&self, from: &'static [CampaignStatus], to: CampaignStatus, now: Timestamp) {
        self.world
            .commit_at(set_status(self.user, self.campaign, from, to), now)
            .await;
    }

    pub async fn delete_device(&self) {
        self.world
            .commit(Change::DeleteDevice {
                user_id: self.user,
                device_id: self.device,
            })
            .await;
    }

    pub async fn hold_device(&self) {
        self.world
            .commit(Change::SetDeviceHold {
                user_id: self.user,
                device_id: self.device,
                hold: Some(Hold {
                    reason: HoldReason::ByPerson,
                    since_at: self.now(),
                    detail: None,
                }),
            })
            .await;
    }

    /// Suppresses the recipient of a message.
    pub async fn opt_out(&self, message: MessageId) {
        let phone = self.row(message).await.phone.unwrap();
        self.world.suppress(self.user, phone).await;
    }

    /// What its lane may send at an instant.
    pub async fn due_at(&self, now: Timestamp) -> Vec<DueMessage> {
        let due = Due {
            lanes: vec![self.look()],
            now,
        };
        self.world.store.due(&due).await.unwrap().remove(0).heads
    }

    pub fn look(&self) -> LaneLook {
        LaneLook {
            served_sequence: None,
            user_id: self.user,
            device_id: self.device,
            served: None,
        }
    }

    /// Another node fences this one; its devices are free then.
    pub async fn take_over(&self) -> Incarnation {
        let by = self.world.node().await;
        let nodes = self.world.store.nodes().await.unwrap();
        let seen = nodes.iter().find(|node| node.incarnation == self.node).unwrap().beat;
        self.world.store.fence(by, self.node, seen, self.now()).await.unwrap();
        by
    }

    /// The device changes hands while this node lives on: its epoch is an old one then.
    pub async fn hand_over(&self) -> Stage {
        let store = &self.world.store;
        let devices = [(self.device, self.epoch)];
        let given = store.release(self.node, &devices, self.now()).await.unwrap();
        assert_eq!(given, [self.device]);
        let node = self.world.node().await;
        let owned = self.world.claim(node).await;
        let epoch = owned.iter().find(|owned| owned.device.id == self.device).unwrap().epoch;
        Stage {
            world: self.world.clone(),
            node,
            epoch,
            ..*self
        }
    }
}

pub(super) fn sent() -> Verdict {
    Verdict::Sent {
        provider_id: TransportMessageId::new("vendor-1"),
        delivery: None,
    }
}

pub(super) fn failed() -> Verdict {
    Verdict::Failed {
        reason: crate::domain::message::Reason::Rejected,
    }
}

pub(super) fn unknown() -> Verdict {
    Verdict::Unknown {
        reason: crate::domain::message::Reason::CannotTell,
    }
}

pub(super) fn skipped() -> Verdict {
    Verdict::Skipped {
        reason: crate::domain::message::Reason::NotOnWhatsApp,
    }
}

pub(super) fn doubt_until(next_check_at: Timestamp) -> Verdict {
    Verdict::InDoubt {
        cause: MaybeSentCause::Timeout,
        next_check_at,
        not_found_count: 0,
    }
}

/// Its gateway never had it.
pub(super) fn not_found(due_at: Timestamp) -> Verdict {
    Verdict::Requeue {
        reason: crate::domain::message::Reason::NotFoundAtGateway,
        due_at,
        counts: false,
    }
}

/// Not sent, and it may go again a minute after `now`.
pub(super) fn requeue(now: Timestamp) -> Verdict {
    Verdict::Requeue {
        reason: crate::domain::message::Reason::RateLimited,
        due_at: now + Duration::from_secs(60),
        counts: false,
    }
}
