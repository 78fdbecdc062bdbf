//! What a case works with: a fresh store, rows to put into it, and short words for what most cases do.

use std::sync::Arc;

use super::stage::Stage;
use crate::conformance::fixtures::Fixtures;
use crate::domain::access::RequestScope;
use crate::domain::audience::AudienceCursor;
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::device::{Device, OwnedDevice};
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageState};
use crate::domain::phone::Phone;
use crate::id::{CampaignId, DeviceId, EventId, Incarnation, LeadId, MessageId, UserId};
use crate::store::{AppStore, Change, ChangeSet, Committed, OnDuplicate, StoreError, StoreErrorKind, WriteClass};
use crate::time::Timestamp;

/// A fresh store and rows to put into it.
#[derive(Clone)]
pub(super) struct World {
    pub store: Arc<dyn AppStore>,
    pub rows: Arc<Fixtures>,
}

impl World {
    pub fn new(store: Arc<dyn AppStore>) -> Self {
        Self::starting_at(store, Fixtures::START)
    }

    pub fn starting_at(store: Arc<dyn AppStore>, start: Timestamp) -> Self {
        Self {
            store,
            rows: Arc::new(Fixtures::starting_at(1, start)),
        }
    }

    /// Completes up to so many campaigns.
    pub async fn complete(&self, count: usize, now: Timestamp) -> Vec<Campaign> {
        let events: Vec<EventId> = (0..count).map(|_| EventId::new(self.rows.ids(), now)).collect();
        self.store.complete_campaigns(&events, now).await.unwrap()
    }

    pub fn now(&self) -> Timestamp {
        self.rows.start()
    }

    pub fn at(&self, seconds: u64) -> Timestamp {
        self.rows.at(seconds)
    }

    pub async fn try_commit(&self, set: impl Into<ChangeSet>) -> Result<Committed, StoreError> {
        self.try_commit_at(set, self.now()).await
    }

    pub async fn try_commit_at(&self, set: impl Into<ChangeSet>, now: Timestamp) -> Result<Committed, StoreError> {
        self.store.commit(set.into(), WriteClass::Api, now).await
    }

    pub async fn commit(&self, set: impl Into<ChangeSet>) -> Committed {
        self.try_commit(set).await.unwrap()
    }

    pub async fn commit_at(&self, set: impl Into<ChangeSet>, now: Timestamp) -> Committed {
        self.try_commit_at(set, now).await.unwrap()
    }

    /// The commit is refused in this way.
    pub async fn refused(&self, set: impl Into<ChangeSet>, kind: StoreErrorKind) {
        let set = set.into();
        let said = format!("{set:?}");
        match self.try_commit(set).await {
            Ok(done) => panic!("expected {kind:?}, got {done:?} for {said}"),
            Err(error) => assert_eq!(error.kind, kind, "{error:?} for {said}"),
        }
    }

    pub async fn user(&self) -> UserId {
        let user = self.rows.user();
        self.store.insert_user(&user).await.unwrap();
        user.id
    }

    pub async fn insert_device(&self, device: &Device) {
        self.commit(Change::InsertDevice(Box::new(device.clone()))).await;
    }

    pub async fn device(&self, user: UserId) -> DeviceId {
        let device = self.rows.device(user);
        self.insert_device(&device).await;
        device.id
    }

    pub async fn insert_lead(&self, lead: &Lead) -> Committed {
        self.commit(insert_lead(lead)).await
    }

    pub async fn lead(&self, user: UserId, device: Option<DeviceId>) -> Lead {
        let lead = self.rows.lead(user, device);
        self.insert_lead(&lead).await;
        lead
    }

    /// A node that has joined and owns nothing.
    pub async fn node(&self) -> Incarnation {
        let incarnation = self.rows.incarnation();
        self.store.join(incarnation, "node", self.now()).await.unwrap();
        incarnation
    }

    /// The node takes all devices without an owner.
    pub async fn claim(&self, node: Incarnation) -> Vec<OwnedDevice> {
        self.store.claim(node, 1_000, self.now()).await.unwrap()
    }

    pub async fn draft(&self, user: UserId) -> Campaign {
        let campaign = self.rows.campaign(user);
        self.commit(Change::InsertCampaign(Box::new(campaign.clone()))).await;
        campaign
    }

    /// A started campaign that has not looked at its audience.
    pub async fn expanding(&self, user: UserId) -> CampaignId {
        let campaign = self.draft(user).await;
        self.start(&campaign).await;
        campaign.id
    }

    /// Schedules and starts a draft.
    pub async fn start(&self, campaign: &Campaign) {
        for (from, to) in [
            (&[CampaignStatus::Draft], CampaignStatus::Scheduled),
            (&[CampaignStatus::Scheduled], CampaignStatus::Triggered),
        ] {
            self.commit(set_status(campaign.user_id, campaign.id, from, to)).await;
        }
    }

    /// A started campaign whose audience counts as expanded; messages are put in by the case.
    pub async fn campaign(&self, user: UserId) -> CampaignId {
        let campaign = self.expanding(user).await;
        self.expanded(campaign).await;
        campaign
    }

    pub async fn expanded(&self, campaign: CampaignId) {
        self.commit(Change::AdvanceCursor {
            campaign_id: campaign,
            from: AudienceCursor::Start,
            to: AudienceCursor::Done,
        })
        .await;
    }

    /// One user, one device, one node that owns it, one running campaign.
    pub async fn stage(&self) -> Stage {
        self.store.seed(self.rows.seed()).await.unwrap();
        let user = self.user().await;
        let device = self.device(user).await;
        let node = self.node().await;
        let owned = self.claim(node).await;
        let epoch = owned.iter().find(|owned| owned.device.id == device).unwrap().epoch;
        let campaign = self.campaign(user).await;
        Stage {
            world: self.clone(),
            user,
            device,
            node,
            epoch,
            campaign,
        }
    }

    pub async fn insert(&self, message: Message) -> MessageId {
        let id = message.id;
        let done = self.commit(Change::InsertMessages(vec![message])).await;
        assert_eq!(done.messages_inserted, 1);
        id
    }

    pub async fn message(&self, user: UserId, id: MessageId) -> Message {
        self.store.message(&RequestScope::user(user), id).await.unwrap()
    }

    pub async fn state(&self, user: UserId, id: MessageId) -> MessageState {
        self.message(user, id).await.state
    }

    pub async fn campaign_of(&self, user: UserId, id: CampaignId) -> Campaign {
        self.store.campaign(&RequestScope::user(user), id).await.unwrap()
    }

    pub async fn lead_of(&self, user: UserId, id: LeadId) -> Lead {
        self.store.lead(&RequestScope::user(user), id).await.unwrap()
    }

    pub async fn device_of(&self, user: UserId, id: DeviceId) -> Device {
        self.store.device(&RequestScope::user(user), id).await.unwrap()
    }

    pub async fn suppress(&self, user: UserId, phone: Phone) -> Committed {
        self.commit(Change::Suppress(self.rows.suppression(user, phone))).await
    }

    /// Sweeps until nothing is left, at an instant.
    pub async fn sweep_at(&self, now: Timestamp) -> u64 {
        let mut moved = 0;
        for _ in 0..1_000 {
            let swept = self.store.sweep(100, now).await.unwrap();
            moved += swept.moved;
            if !swept.more {
                return moved;
            }
        }
        panic!("sweep always has more to move");
    }
}

impl From<Change> for ChangeSet {
    fn from(change: Change) -> Self {
        Self::one(change)
    }
}

pub(super) fn insert_lead(lead: &Lead) -> Change {
    Change::InsertLead {
        lead: Box::new(lead.clone()),
        on_duplicate: OnDuplicate::Refuse,
    }
}

pub(super) fn set_status(
    user_id: UserId,
    campaign_id: CampaignId,
    from: &'static [CampaignStatus],
    to: CampaignStatus,
) -> Change {
    Change::SetCampaignStatus {
        user_id,
        campaign_id,
        from,
        to,
        reason: Some(CampaignReason::ByPerson),
    }
}

/// The operation was refused in this way.
#[track_caller]
pub(super) fn assert_kind<T: std::fmt::Debug>(result: Result<T, StoreError>, kind: StoreErrorKind) {
    match result {
        Ok(done) => panic!("expected {kind:?}, got {done:?}"),
        Err(error) => assert_eq!(error.kind, kind, "{error:?}"),
    }
}
