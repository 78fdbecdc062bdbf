//! The recipients of a campaign: listed, sent to again, marked and stopped by hand.

use std::collections::BTreeSet;

use super::campaigns::{word, wrong_status};
use super::leads::check_batch;
use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::message::{Message, MessageScope, MessageState, Reason};
use crate::event::EventKind;
use crate::id::{CampaignId, DeviceId, LeadId, MessageId};
use crate::plan::resend::resend;
use crate::store::{Change, ChangeSet, MessageFilter, Page, PageRequest, WriteClass};

/// Which recipients of a campaign a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecipientFilter {
    /// Of this device.
    pub device_id: Option<DeviceId>,
    /// In one of these states; empty for any.
    pub states: Vec<MessageState>,
    /// Also those that were sent again since.
    pub with_superseded: bool,
}

/// Which messages of a campaign are sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resend {
    /// Only those of this device.
    pub device_id: Option<DeviceId>,
    /// Only these, at most 1,000; an `unknown` one only when it is named here, because it may have been received.
    pub message_ids: Option<Vec<MessageId>>,
}

/// What became of a request to send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resent {
    /// How many are sent again.
    pub resent: u64,
    /// Whether there are more: ask again.
    pub more: bool,
}

/// What a person knows of a message that nobody else can tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkAs {
    /// The recipient got it.
    Sent,
    /// The recipient did not get it.
    Failed,
}

/// Most messages of one commit, and of one call, that are sent again.
const RESEND_PAGE: u32 = 500;
const RESEND_PAGES_MAX: usize = 20;

/// How often one page is planned anew because the campaign moved meanwhile.
const RESEND_TRIES_MAX: u32 = 5;

impl Handle {
    /// A page of the recipients of a campaign, with state, reason, device and times.
    ///
    /// # Errors
    /// `NotFound` when there is no such campaign.
    pub async fn recipients(
        &self,
        scope: &RequestScope,
        campaign: CampaignId,
        filter: &RecipientFilter,
        page: &PageRequest<MessageId>,
    ) -> Result<Page<Message, MessageId>, HandleError> {
        self.core.store.campaign(scope, campaign).await?;
        let filter = MessageFilter {
            scope: Some(MessageScope::Campaign(campaign)),
            device_id: filter.device_id,
            states: filter.states.clone(),
            with_superseded: filter.with_superseded,
            ..MessageFilter::default()
        };
        Ok(self.core.store.messages(scope, &filter, page).await?)
    }

    /// Sends the failed messages of a campaign again, each as the next round of the one it replaces. A completed campaign runs
    /// again; messages to deleted leads and erased persons are left out. Asking twice at the same time sends nothing twice.
    ///
    /// # Errors
    /// `Conflict` when the campaign has not started or was ended by a person.
    pub async fn resend_failed(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        which: &Resend,
    ) -> Result<Resent, HandleError> {
        self.running_again(&self.owned_campaign(scope, id).await?)?;
        match &which.message_ids {
            Some(ids) => self.resend_named(scope, id, which.device_id, ids).await,
            None => self.resend_all(scope, id, which.device_id).await,
        }
    }

    /// Says what became of an `unknown` message.
    ///
    /// # Errors
    /// `Conflict` when it is in any other state.
    pub async fn mark_message(
        &self,
        scope: &RequestScope,
        id: MessageId,
        mark: MarkAs,
    ) -> Result<Message, HandleError> {
        let message = self.core.store.message(scope, id).await?;
        let change = Change::MarkMessage {
            user_id: message.user_id,
            message_id: id,
            sent: mark == MarkAs::Sent,
        };
        let state = match mark {
            MarkAs::Sent => MessageState::Sent,
            MarkAs::Failed => MessageState::Failed,
        };
        self.change_message(scope, &message, change, state, "only an unknown message can be marked")
            .await
    }

    /// Stops one message that has not begun.
    ///
    /// # Errors
    /// `Conflict` when it has begun or is settled.
    pub async fn cancel_message(&self, scope: &RequestScope, id: MessageId) -> Result<Message, HandleError> {
        let message = self.core.store.message(scope, id).await?;
        let change = Change::CancelMessage {
            user_id: message.user_id,
            message_id: id,
        };
        let why = "only a message that is queued or held can be stopped";
        self.change_message(scope, &message, change, MessageState::Cancelled, why)
            .await
    }

    async fn change_message(
        &self,
        scope: &RequestScope,
        message: &Message,
        change: Change,
        state: MessageState,
        why: &str,
    ) -> Result<Message, HandleError> {
        let kind = EventKind::MessageState {
            message_id: message.id,
            device_id: message.device_id,
            state,
            reason: Some(Reason::ByPerson),
        };
        let set = ChangeSet::one(change).tell(self.core.event(message.user_id, kind));
        match self.commit(set, WriteClass::Api).await {
            Ok(_) => {}
            Err(error) if error.is_conflict() => {
                if let MessageScope::Campaign(id) = message.scope
                    && let Some(at) = self.core.store.campaign(scope, id).await?.archived_at
                {
                    let why = format!("its campaign is archived since {at}: nothing of it changes any more");
                    return Err(HandleError::conflict("message", why));
                }
                let current = self.core.store.message(scope, message.id).await?;
                let state = format!("{:?}", current.state).to_lowercase();
                return Err(HandleError::conflict("message", format!("it is {state}; {why}")));
            }
            Err(error) => return Err(error.into()),
        }
        self.core.wake.plan();
        Ok(self.core.store.message(scope, message.id).await?)
    }

    /// Whether messages of a campaign may be sent again.
    fn running_again(&self, campaign: &Campaign) -> Result<(), HandleError> {
        use CampaignStatus::{Completed, Paused, Triggered};
        match campaign.status {
            Triggered | Paused | Completed if campaign.archived_at.is_none() => Ok(()),
            _ => Err(wrong_status(campaign, "sent again", &[Triggered, Paused, Completed])),
        }
    }

    async fn resend_all(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        device: Option<DeviceId>,
    ) -> Result<Resent, HandleError> {
        let filter = RecipientFilter {
            device_id: device,
            states: vec![MessageState::Failed],
            with_superseded: false,
        };
        let mut resent = Resent::default();
        let mut request = PageRequest::first(RESEND_PAGE);
        for _ in 0..RESEND_PAGES_MAX {
            let page = self.recipients(scope, id, &filter, &request).await?;
            resent.resent += self.resend_page(scope, id, &page.rows).await?;
            match page.next {
                Some(next) => request = PageRequest::after(next, RESEND_PAGE),
                None => return Ok(resent),
            }
        }
        resent.more = true;
        Ok(resent)
    }

    async fn resend_named(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        device: Option<DeviceId>,
        ids: &[MessageId],
    ) -> Result<Resent, HandleError> {
        check_batch("message_ids", ids.len())?;
        let mut messages = Vec::with_capacity(ids.len());
        for message_id in ids {
            let message = self.core.store.message(scope, *message_id).await?;
            if message.scope != MessageScope::Campaign(id) {
                return Err(HandleError::not_found("message"));
            }
            if device.is_none_or(|device| message.device_id == Some(device)) {
                messages.push(message);
            }
        }
        let mut resent = Resent::default();
        for page in messages.chunks(RESEND_PAGE as usize) {
            resent.resent += self.resend_page(scope, id, page).await?;
        }
        Ok(resent)
    }

    /// Commits the next round of some messages, with the campaign running.
    async fn resend_page(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        messages: &[Message],
    ) -> Result<u64, HandleError> {
        for _ in 0..RESEND_TRIES_MAX {
            let campaign = self.core.store.campaign(scope, id).await?;
            self.running_again(&campaign)?;
            let now = self.now();
            let next_round = |of| resend(of, MessageId::new(&self.core.ids, now), campaign.expires_after, now);
            let lead_ids: Vec<LeadId> = messages.iter().filter_map(|message| message.lead_id).collect();
            let leads = self.core.store.leads_by_id(campaign.user_id, &lead_ids).await?;
            let leads: BTreeSet<LeadId> = leads.into_iter().map(|lead| lead.id).collect();
            // Nobody is there to write to any more.
            let there = |message: &&Message| message.lead_id.is_none_or(|id| leads.contains(&id));
            let rounds: Vec<Message> = messages.iter().filter(there).filter_map(next_round).collect();
            if rounds.is_empty() {
                return Ok(0);
            }
            let set = self.run_again(&campaign).and(Change::InsertMessages(rounds));
            match self.commit(set, WriteClass::Bulk).await {
                Ok(committed) => {
                    self.core.wake.plan();
                    return Ok(committed.messages_inserted);
                }
                // It was completed or paused meanwhile, or a lead or message is not what it was when it was read.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let campaign = self.core.store.campaign(scope, id).await?;
        let why = format!("it is {} and keeps changing; try again", word(campaign.status));
        Err(HandleError::conflict("campaign", why))
    }

    /// Makes sure that the campaign stands as it was read, and that a completed one runs.
    fn run_again(&self, campaign: &Campaign) -> ChangeSet {
        use CampaignStatus::{Completed, Paused, Triggered};
        let (from, to, reason): (&'static [CampaignStatus], _, _) = match campaign.status {
            Completed => (&[Completed], Triggered, None),
            Paused => (&[Paused], Paused, campaign.reason),
            _ => (&[Triggered], Triggered, campaign.reason),
        };
        let set = ChangeSet::one(Change::SetCampaignStatus {
            user_id: campaign.user_id,
            campaign_id: campaign.id,
            from,
            to,
            reason,
        });
        if campaign.status == to {
            return set;
        }
        let kind = EventKind::CampaignStatus {
            campaign_id: campaign.id,
            status: to,
            reason,
        };
        set.tell(self.core.event(campaign.user_id, kind))
    }
}
