//! The operations of the model: mostly sensible, often late, sometimes wrong.

use std::time::Duration;

use super::{Model, both};
use crate::domain::access::RequestScope;
use crate::domain::audience::{Audience, AudienceCursor, TargetFilter};
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus, Routing};
use crate::domain::chat::{ChatKind, ChatWriter};
use crate::domain::command::DeviceAnswer;
use crate::domain::content::Content;
use crate::domain::delivery::Delivery;
use crate::domain::device::{
    Credential, Epoch, Hold, HoldReason, LinkState, OwnedDevice, Restriction, RestrictionCause,
};
use crate::domain::message::{IdempotencyKey, Message, MessageScope, MessageState, Reason};
use crate::domain::phone::Phone;
use crate::domain::suppression::{Suppression, SuppressionReason};
use crate::domain::token::{Token, TokenSet};
use crate::id::{AttemptId, CampaignId, ChatId, ChatMessageId, DeviceId, EventId, Incarnation, UserId};
use crate::store::{
    Assignment, Begin, BeginItem, CampaignStore, Change, ChangeSet, ChatAddition, Decline, DeviceStore, Fence,
    LeadFilter, LeadStore, LeaseStore, LeftOver, MessageFilter, NewChatMessage, OnDuplicate, OutboxStore, Outcome,
    PageRequest, Settle, Verdict, WriteClass,
};
use crate::transport::{MaybeSentCause, MessageRef, RestrictionScope, TransportMessageId};

/// Numbers that people of the model have: few, so that they meet.
const PHONES: usize = 6;

/// What may be done, and how often.
const OPERATIONS: &[(&str, usize)] = &[
    ("begin", 16),
    ("settle", 16),
    ("insert messages", 12),
    ("campaign status", 8),
    ("sweep", 3),
    ("expire", 3),
    ("archive", 3),
    ("begin again", 4),
    ("receipt", 4),
    ("person of a message", 4),
    ("decline", 2),
    ("suppress", 3),
    ("unsuppress", 2),
    ("erase", 1),
    ("replied", 2),
    ("assign", 8),
    ("unassign", 2),
    ("send from the pool", 6),
    ("leave over", 3),
    ("trigger again", 4),
    ("complete campaigns", 4),
    ("insert campaign", 2),
    ("edit campaign", 2),
    ("advance cursor", 3),
    ("insert entries", 1),
    ("insert sequence", 2),
    ("sequence status", 3),
    ("edit sequence", 3),
    ("enrol", 12),
    ("advance", 10),
    ("end enrolment", 2),
    ("resend flow", 6),
    ("match leads", 3),
    ("insert lead", 4),
    ("edit lead", 2),
    ("insert device", 1),
    ("edit device", 2),
    ("device condition", 3),
    ("delete device", 1),
    ("saved text", 2),
    ("command", 2),
    ("claim", 4),
    ("release", 2),
    ("beat", 1),
    ("planner lease", 1),
    ("take over", 2),
    ("leave", 1),
    ("join", 2),
    ("due", 2),
];

impl Model {
    pub(super) async fn set_the_stage(&mut self) {
        both!(self, store => store.seed(self.rows.seed())).unwrap();
        for _ in 0..2 {
            let user = self.rows.user();
            both!(self, store => store.insert_user(&user)).unwrap();
            self.users.push(user.id);
            for _ in 0..2 {
                self.insert_device(user.id).await;
            }
            let campaign = self.insert_campaign(user.id).await;
            for to in [CampaignStatus::Scheduled, CampaignStatus::Triggered] {
                self.set_status((user.id, campaign), to).await;
            }
            for _ in 0..3 {
                self.insert_lead(user.id).await;
            }
            self.insert_sequence(user.id).await;
        }
        self.join().await;
        self.join().await;
        let node = self.nodes[0];
        both!(self, store => store.claim(node, 3, self.now)).unwrap();
    }

    pub(super) async fn operate(&mut self) {
        self.now = self.now + Duration::from_millis(100 + self.below(20_000) as u64);
        let total = OPERATIONS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.below(total);
        for (operation, weight) in OPERATIONS {
            if at < *weight {
                self.operation = operation;
                return self.run(operation).await;
            }
            at -= weight;
        }
    }

    async fn run(&mut self, operation: &str) {
        let user = self.user();
        match operation {
            "begin" => self.begin().await,
            "settle" => self.settle().await,
            "insert messages" => self.insert_messages(user).await,
            "campaign status" => {
                let campaigns = self.campaigns.clone();
                let Some(campaign) = self.pick(&campaigns) else { return };
                let to = CampaignStatus::ALL[self.below(7)];
                // Ends are rare: most of what there is to see is before them.
                let to = if to.has_ended() && self.chance(50) {
                    CampaignStatus::Triggered
                } else {
                    to
                };
                self.set_status(campaign, to).await;
            }
            "sweep" => drop(both!(self, store => store.sweep(10_000, self.now))),
            "expire" => {
                // Days later, else nothing of the model would ever have expired; for pages the order must be the same.
                let later = self.now + Duration::from_secs(self.below(10) as u64 * 86_400);
                let limit = 1 + self.below(4) as u32;
                both!(self, store => store.expire(limit, later)).unwrap();
            }
            "archive" => {
                let limit = 1 + self.below(6) as u32;
                both!(self, store => store.archive(limit, self.now, self.now)).unwrap();
            }
            "begin again" => self.begin_again().await,
            "receipt" => self.receipt().await,
            "person of a message" => self.judge_message().await,
            "decline" => self.decline().await,
            "suppress" => {
                let phone = self.phone();
                let suppression = Suppression {
                    since_at: self.now,
                    ..self.rows.suppression(user, phone)
                };
                self.commit(Change::Suppress(suppression)).await;
            }
            "unsuppress" => {
                let phone = self.phone();
                let person = self.rows.person(user, &phone);
                self.commit(Change::Unsuppress { user_id: user, person }).await;
            }
            "erase" => self.erase(user).await,
            "replied" => self.replied().await,
            "assign" => self.assign().await,
            "unassign" => {
                let (owner, device) = self.device();
                let user = if self.chance(90) { owner } else { user };
                both!(self, store => store.unassign(user, device)).unwrap();
            }
            "send from the pool" => self.send_from_the_pool().await,
            "leave over" => self.leave_over().await,
            "trigger again" => self.trigger_again().await,
            "complete campaigns" => {
                let events: Vec<EventId> = (0..20).map(|_| EventId::new(self.rows.ids(), self.now)).collect();
                both!(self, store => store.complete_campaigns(&events, self.now)).unwrap();
            }
            "insert campaign" => drop(self.insert_campaign(user).await),
            "edit campaign" => self.edit_campaign().await,
            "advance cursor" => self.advance_cursor().await,
            "insert entries" => self.insert_entries().await,
            "insert sequence" => self.insert_sequence(user).await,
            "sequence status" => self.sequence_status().await,
            "edit sequence" => self.edit_sequence().await,
            "enrol" => self.enrol().await,
            "advance" => self.advance().await,
            "end enrolment" => self.end_enrolment().await,
            "resend flow" => self.resend_flow().await,
            "match leads" => self.match_leads().await,
            "insert lead" => self.insert_lead(user).await,
            "edit lead" => self.edit_lead().await,
            "insert device" => self.insert_device(user).await,
            "edit device" => self.edit_device().await,
            "device condition" => self.device_condition().await,
            "delete device" => {
                if self.chance(50) {
                    let (user_id, device_id) = self.device();
                    self.commit(Change::DeleteDevice { user_id, device_id }).await;
                }
            }
            "saved text" => self.saved_text(user).await,
            "command" => self.command().await,
            "claim" => {
                let (node, limit) = (self.node(), 1 + self.below(3) as u32);
                let _answer = both!(self, store => store.claim(node, limit, self.now));
            }
            "release" => self.release().await,
            "beat" => {
                let node = self.node();
                let _answer = both!(self, store => store.beat(node, self.now));
            }
            "planner lease" => {
                let node = self.node();
                let _answer = both!(self, store => store.plan_lease(node, self.now));
            }
            "take over" => self.take_over().await,
            "leave" => {
                let node = self.node();
                let _answer = both!(self, store => store.leave(node, self.now));
            }
            "join" => self.join().await,
            _ => {
                let later = self.now + Duration::from_secs(self.below(600) as u64);
                self.compare_due(later).await;
            }
        }
    }

    pub(super) async fn commit(&mut self, set: impl Into<ChangeSet>) {
        let mut set = set.into();
        if self.chance(20) {
            let user = self.user();
            set = set.tell(self.rows.event(user, self.now));
        }
        let _answer = both!(self, store => store.commit(set.clone(), WriteClass::Api, self.now));
    }

    pub(super) fn user(&mut self) -> UserId {
        let at = self.below(self.users.len());
        self.users[at]
    }

    fn phone(&mut self) -> Phone {
        let n = self.below(PHONES) as u32;
        self.rows.phone(n)
    }

    pub(super) fn device(&mut self) -> (UserId, DeviceId) {
        let at = self.below(self.devices.len());
        self.devices[at]
    }

    /// A node, mostly one of the last that joined.
    fn node(&mut self) -> Incarnation {
        let recent = self.nodes.len().saturating_sub(3);
        let from = if self.chance(90) { recent } else { 0 };
        let at = from + self.below(self.nodes.len() - from);
        self.nodes[at]
    }

    /// A device of a user as the model knows it, deleted ones too.
    async fn owned(&mut self, device: DeviceId) -> OwnedDevice {
        self.reference.owned(&[device]).await.unwrap().remove(0)
    }

    /// Who should write about a device, mostly; else somebody who should not.
    async fn owner(&mut self, device: DeviceId) -> (Incarnation, Epoch) {
        let owned = self.owned(device).await;
        let node = match owned.owner {
            Some(owner) if self.chance(92) => owner,
            _ => self.node(),
        };
        let epoch = if self.chance(95) {
            owned.epoch
        } else {
            Epoch(owned.epoch.0 - 1)
        };
        (node, epoch)
    }

    /// A message in one of these states, if there is one.
    pub(super) async fn message_in(&mut self, states: &[MessageState]) -> Option<Message> {
        let first = self.below(2);
        for user in [self.users[first], self.users[1 - first]] {
            let filter = MessageFilter {
                states: states.to_vec(),
                ..MessageFilter::default()
            };
            let page = PageRequest::first(500);
            let scope = RequestScope::user(user);
            let rows = self.reference.messages(&scope, &filter, &page).await.unwrap().rows;
            if let Some(message) = self.pick(&rows) {
                return Some(message);
            }
        }
        None
    }

    async fn insert_device(&mut self, user: UserId) {
        let mut device = self.rows.device(user);
        if self.chance(10) {
            device.name = "Device 1".to_owned();
        }
        self.devices.push((user, device.id));
        self.commit(Change::InsertDevice(Box::new(device.clone()))).await;
        if self.reference.owned(&[device.id]).await.unwrap().is_empty() {
            self.devices.pop();
        }
    }

    async fn edit_device(&mut self) {
        let (user, id) = self.device();
        let mut device = self.owned(id).await.device;
        device.description = format!("edited at {}", self.now);
        if self.chance(40) {
            device.credential = Credential::new(format!("token {}", self.step));
        }
        if self.chance(20) {
            device.name = format!("Device {}", self.below(8));
        }
        if self.chance(15) {
            device.version -= 1;
        }
        if self.chance(5) {
            device.user_id = *self.users.iter().find(|other| **other != user).unwrap();
        }
        device.updated_at = self.now;
        self.commit(Change::UpdateDevice(Box::new(device))).await;
    }

    async fn device_condition(&mut self) {
        let (user_id, device_id) = self.device();
        let change = match self.below(4) {
            0 => {
                let (incarnation, epoch) = self.owner(device_id).await;
                Change::SetDeviceLink {
                    user_id,
                    device_id,
                    fence: self.chance(60).then_some(Fence { incarnation, epoch }),
                    state: LinkState::ALL[self.below(8)],
                    reason: self.chance(50).then(|| "said the socket".to_owned()),
                    phone: self.chance(20).then(|| self.rows.phone(77)),
                    jid: self.chance(20).then(|| "60129999977:7@s.whatsapp.net".to_owned()),
                }
            }
            1 => Change::SetDeviceRestriction {
                user_id,
                device_id,
                restriction: self.chance(50).then_some(Restriction {
                    until_at: self.now + Duration::from_secs(60),
                    scope: RestrictionScope::All,
                    cause: RestrictionCause::Banned,
                }),
            },
            2 if self.chance(50) => {
                let device = self.owned(device_id).await.device;
                Change::HoldDevice {
                    user_id,
                    device_id,
                    hold: Hold {
                        reason: HoldReason::ErrorRate,
                        since_at: self.now,
                        detail: None,
                    },
                    version: self.chance(50).then_some(device.version - i64::from(self.chance(50))),
                }
            }
            _ => {
                let reasons = [HoldReason::ByPerson, HoldReason::Unauthenticated, HoldReason::ErrorRate];
                let reason = reasons[self.below(3)];
                Change::SetDeviceHold {
                    user_id,
                    device_id,
                    hold: self.chance(35).then_some(Hold {
                        reason,
                        since_at: self.now,
                        detail: None,
                    }),
                }
            }
        };
        self.commit(change).await;
    }

    fn niches(&mut self) -> TokenSet {
        let texts = ["", "exa", "EXA", "exama", "Emas, exa"];
        TokenSet::parse(texts[self.below(texts.len())]).unwrap()
    }

    async fn insert_lead(&mut self, user: UserId) {
        let (owner, device) = self.device();
        let device = (owner == user && self.chance(50)).then_some(device);
        let mut lead = self.rows.lead(user, device);
        lead.phone = self.phone();
        lead.niches = self.niches();
        lead.triggers = self.niches();
        lead.created_at = self.now;
        self.leads.push((user, lead.id));
        let on_duplicate = if self.chance(50) {
            OnDuplicate::Refuse
        } else {
            OnDuplicate::MergeTriggers
        };
        let lead = Box::new(lead);
        self.commit(Change::InsertLead { lead, on_duplicate }).await;
    }

    async fn edit_lead(&mut self) {
        let leads = self.leads.clone();
        let Some((user_id, lead_id)) = self.pick(&leads) else {
            return;
        };
        if self.chance(30) {
            return self.commit(Change::DeleteLead { user_id, lead_id }).await;
        }
        let scope = RequestScope::user(user_id);
        let Ok(mut lead) = self.reference.lead(&scope, lead_id).await else {
            return;
        };
        lead.name = format!("edited at {}", self.now);
        lead.niches = self.niches();
        lead.updated_at = self.now;
        if self.chance(20) {
            lead.phone = self.phone();
        }
        if self.chance(15) {
            lead.version -= 1;
        }
        self.commit(Change::UpdateLead(Box::new(lead))).await;
    }

    async fn insert_campaign(&mut self, user: UserId) -> CampaignId {
        let mut campaign = self.rows.campaign(user);
        campaign.created_at = self.now;
        campaign.scheduled_at = Some(self.now + Duration::from_secs(self.below(900) as u64));
        let (owner, device) = self.device();
        if owner == user && self.chance(30) {
            campaign.device_id = Some(device);
        }
        if self.chance(50) {
            campaign.audience = Audience::Leads {
                niche: Token::parse("exa").ok(),
                target: TargetFilter::All,
                device_id: campaign.device_id,
            };
        }
        if campaign.device_id.is_none() && self.chance(40) {
            let exa = Token::parse("exa").ok();
            campaign.audience = Audience::Pool {
                niche: exa.filter(|_| self.below(2) == 0),
                target: TargetFilter::All,
            };
            campaign.routing = Routing::Balanced;
            campaign.device_limit = Some(1 + self.below(2) as u32);
        }
        self.campaigns.push((user, campaign.id));
        self.commit(Change::InsertCampaign(Box::new(campaign.clone()))).await;
        campaign.id
    }

    async fn set_status(&mut self, (user_id, campaign_id): (UserId, CampaignId), to: CampaignStatus) {
        let from: &'static [CampaignStatus] = if self.chance(90) {
            &CampaignStatus::ALL
        } else {
            &[CampaignStatus::Triggered, CampaignStatus::Paused]
        };
        let reasons = [None, Some(CampaignReason::ByPerson), Some(CampaignReason::LateAsk)];
        let reason = reasons[self.below(3)];
        self.commit(Change::SetCampaignStatus {
            user_id,
            campaign_id,
            from,
            to,
            reason,
        })
        .await;
    }

    async fn read_campaign(&mut self) -> Option<Campaign> {
        let campaigns = self.campaigns.clone();
        let (user, id) = self.pick(&campaigns)?;
        self.reference.campaign(&RequestScope::user(user), id).await.ok()
    }

    async fn edit_campaign(&mut self) {
        let Some(mut campaign) = self.read_campaign().await else {
            return;
        };
        if self.chance(15) {
            let (user_id, campaign_id) = (campaign.user_id, campaign.id);
            return self.commit(Change::DeleteCampaign { user_id, campaign_id }).await;
        }
        campaign.content = Content::text(format!("edited at {}", self.now));
        campaign.content_version += 1;
        campaign.updated_at = self.now;
        if self.chance(30) {
            campaign.status = CampaignStatus::ALL[self.below(7)];
            campaign.status_at = self.now;
        }
        if self.chance(15) {
            campaign.version -= 1;
        }
        self.commit(Change::UpdateCampaign(Box::new(campaign))).await;
    }

    async fn advance_cursor(&mut self) {
        let Some(campaign) = self.read_campaign().await else {
            return;
        };
        let cursors = [
            AudienceCursor::Start,
            AudienceCursor::Entry(1),
            AudienceCursor::Entry(2),
            AudienceCursor::Done,
        ];
        let from = if self.chance(80) {
            campaign.cursor
        } else {
            cursors[self.below(4)]
        };
        let to = cursors[1 + self.below(3)];
        let mut set = ChangeSet::one(Change::AdvanceCursor {
            campaign_id: campaign.id,
            from,
            to,
        });
        if self.chance(60) {
            let message = self.campaign_message(campaign.user_id, campaign.id);
            set = set.and(Change::InsertMessages(vec![message]));
        }
        self.commit(set).await;
    }

    async fn insert_entries(&mut self) {
        let Some(campaign) = self.read_campaign().await else {
            return;
        };
        let entries = (0..3)
            .map(|_| {
                let position = 1 + self.below(5) as u32;
                let mut entry = self.rows.entry(campaign.id, position);
                entry.name = format!("put at {}", self.now);
                entry
            })
            .collect();
        self.commit(Change::InsertEntries(entries)).await;
    }

    fn campaign_message(&mut self, user: UserId, campaign: CampaignId) -> Message {
        let (owner, device) = self.device();
        let theirs = owner == user || self.chance(5);
        let device = (theirs && self.chance(65)).then_some(device);
        let phone = self.phone();
        let mut message = self.rows.campaign_message(user, campaign, device, phone);
        message.round = self.below(4) as u16;
        message.key = IdempotencyKey::campaign(campaign, message.person, message.round);
        self.timed(message)
    }

    fn timed(&mut self, message: Message) -> Message {
        let due_at = self.now + Duration::from_secs(self.below(120) as u64);
        let lead = self
            .pick(&self.leads.clone())
            .filter(|(user, _)| *user == message.user_id);
        Message {
            due_at,
            expires_at: due_at + Campaign::EXPIRES_AFTER,
            created_at: self.now,
            lead_id: lead
                .map(|(_, lead)| lead)
                .filter(|_| message.from_pool || self.below(2) == 0),
            ..message
        }
    }

    async fn insert_messages(&mut self, user: UserId) {
        let mut messages = Vec::new();
        for _ in 0..1 + self.below(4) {
            let campaigns = self.campaigns.clone();
            let message = match self.pick(&campaigns) {
                Some((owner, campaign)) if self.chance(75) => {
                    let user = if self.chance(97) { owner } else { user };
                    self.campaign_message(user, campaign)
                }
                _ => self.loose_message(user).await,
            };
            messages.push(message);
        }
        self.commit(Change::InsertMessages(messages)).await;
    }

    /// Written by hand, by a bot, or sent again.
    async fn loose_message(&mut self, user: UserId) -> Message {
        if self.chance(25) {
            let states = [MessageState::Unknown, MessageState::Failed, MessageState::Sent];
            if let Some(earlier) = self.message_in(&states).await {
                let again = self.rows.resend(&earlier);
                return self.timed(again);
            }
        }
        let (owner, device) = self.device();
        let user = if self.chance(95) { owner } else { user };
        let phone = self.phone();
        let mut message = self.rows.direct_message(user, Some(device), phone);
        message.scope = [MessageScope::Direct, MessageScope::Chat, MessageScope::Bot][self.below(3)];
        message.override_suppression = self.chance(20);
        self.timed(message)
    }

    fn attempt(&self, message: &Message, owner: (Incarnation, Epoch), n: usize) -> (Incarnation, BeginItem) {
        let attempt_id = self.rows.attempt_id();
        let item = BeginItem {
            user_id: message.user_id,
            device_id: message.device_id.unwrap_or(self.devices[0].1),
            epoch: owner.1,
            message_id: message.id,
            attempt_id,
            transport_message_id: TransportMessageId::from_attempt(attempt_id),
            text: format!("text of {attempt_id}"),
            greeting: Some(format!("greeting {}", self.step % 5)),
            attempted_at: self.now + Duration::from_millis(n as u64),
            again: false,
        };
        (owner.0, item)
    }

    async fn begin(&mut self) {
        let (mut incarnation, mut items) = (None, Vec::<BeginItem>::new());
        for n in 0..1 + self.below(3) {
            let any = self.chance(8);
            let states: &[MessageState] = if any {
                &MessageState::ALL
            } else {
                &[MessageState::Queued]
            };
            let Some(message) = self.message_in(states).await else {
                continue;
            };
            let device = message.device_id.unwrap_or(self.devices[0].1);
            let owner = self.owner(device).await;
            let (node, item) = self.attempt(&message, owner, n);
            let one_per_device = items.iter().all(|other| other.device_id != item.device_id);
            if one_per_device && *incarnation.get_or_insert(node) == node {
                items.push(item);
            }
        }
        let Some(incarnation) = incarnation else { return };
        let begin = Begin {
            incarnation,
            items,
            now: self.now,
        };
        let _answer = both!(self, store => store.begin(&begin));
    }

    async fn begin_again(&mut self) {
        let any = self.chance(15);
        let states: &[MessageState] = if any {
            &MessageState::ALL
        } else {
            &[MessageState::InDoubt]
        };
        let Some(message) = self.message_in(states).await else {
            return;
        };
        let Some(attempt) = message.attempt.clone() else { return };
        let owner = self.owner(attempt.device_id).await;
        let (incarnation, item) = self.attempt(&message, owner, 0);
        let kept = self.chance(90);
        let item = BeginItem {
            attempt_id: if kept { attempt.id } else { item.attempt_id },
            transport_message_id: attempt.transport_message_id,
            again: true,
            ..item
        };
        let begin = Begin {
            incarnation,
            items: vec![item],
            now: self.now,
        };
        let _answer = both!(self, store => store.begin(&begin));
    }

    fn verdict(&mut self, attempt: AttemptId) -> Verdict {
        let soon = self.now + Duration::from_secs(self.below(180) as u64);
        let deliveries = [None, Some(Delivery::Delivered), Some(Delivery::Undelivered)];
        match self.below(12) {
            0..=4 => Verdict::Sent {
                provider_id: TransportMessageId::new(format!("v-{attempt}")).filter(|_| self.below(4) > 0),
                delivery: deliveries[self.below(3)],
            },
            5 | 6 => Verdict::Requeue {
                reason: [Reason::RateLimited, Reason::NotFoundAtGateway, Reason::Restricted][self.below(3)],
                due_at: soon,
                counts: self.chance(60),
            },
            7 => Verdict::Failed {
                reason: Reason::Rejected,
            },
            8 => Verdict::Skipped {
                reason: Reason::NotOnWhatsApp,
            },
            9 | 10 => Verdict::InDoubt {
                cause: MaybeSentCause::Timeout,
                next_check_at: soon,
                not_found_count: self.below(3) as u8,
            },
            _ => Verdict::Unknown {
                reason: Reason::CannotTell,
            },
        }
    }

    async fn settle(&mut self) {
        let any = self.chance(25);
        let states: &[MessageState] = if any {
            &MessageState::ALL
        } else {
            &[MessageState::Sending, MessageState::InDoubt]
        };
        let Some(message) = self.message_in(states).await else {
            return;
        };
        let Some(attempt) = message.attempt.clone() else { return };
        let (incarnation, epoch) = self.owner(attempt.device_id).await;
        let known = self.chance(95);
        let plans = message.flow.is_some() && self.chance(60);
        let advance = if plans {
            self.plan_advance(&message, MessageState::Sent).await
        } else {
            None
        };
        let outcome = Outcome {
            advance,
            user_id: message.user_id,
            device_id: attempt.device_id,
            epoch: if self.chance(70) { attempt.epoch } else { epoch },
            message_id: message.id,
            attempt_id: if known { attempt.id } else { self.rows.attempt_id() },
            verdict: self.verdict(attempt.id),
            detail: self.chance(30).then(|| format!("said at {}", self.now)),
        };
        let settle = Settle {
            incarnation,
            outcomes: vec![outcome],
            now: self.now,
        };
        let _answer = both!(self, store => store.settle(&settle));
        if self.chance(20) {
            let _again = both!(self, store => store.settle(&settle));
        }
    }

    async fn decline(&mut self) {
        let any = self.chance(20);
        let states: &[MessageState] = if any {
            &MessageState::ALL
        } else {
            &[MessageState::Queued]
        };
        let Some(message) = self.message_in(states).await else {
            return;
        };
        let device_id = message.device_id.unwrap_or(self.devices[0].1);
        let (incarnation, epoch) = self.owner(device_id).await;
        let states = [
            MessageState::Skipped,
            MessageState::Failed,
            MessageState::Queued,
            MessageState::Sent,
        ];
        let count = if self.chance(10) { 4 } else { 3 };
        let state = states[self.below(count)];
        let item = Decline {
            incarnation,
            user_id: message.user_id,
            device_id,
            epoch,
            message_id: message.id,
            state,
            reason: [Reason::TooLong, Reason::Restricted, Reason::ColdPace][self.below(3)],
            due_at: Some(self.now + Duration::from_secs(30)),
            detail: Some("too long".to_owned()),
        };
        let _answer = both!(self, store => store.decline(std::slice::from_ref(&item), self.now));
    }

    async fn receipt(&mut self) {
        let levels = [
            Delivery::Undelivered,
            Delivery::Delivered,
            Delivery::Read,
            Delivery::Replied,
        ];
        let delivery = levels[self.below(4)];
        let Some(message) = self.message_in(&MessageState::ALL).await else {
            return;
        };
        let (user_id, at) = (message.user_id, self.now);
        let reference = match message.attempt {
            Some(attempt) if self.chance(80) => match attempt.provider_id {
                Some(id) if self.chance(50) => (attempt.device_id, MessageRef::Provider(id)),
                _ => (attempt.device_id, MessageRef::Ours(attempt.transport_message_id)),
            },
            _ => (self.device().1, MessageRef::NewestTo(self.phone())),
        };
        self.commit(Change::Receipt {
            user_id,
            device_id: reference.0,
            message: reference.1,
            delivery,
            at,
        })
        .await;
    }

    async fn replied(&mut self) {
        let (user_id, device_id) = self.device();
        let (phone, n) = (self.phone(), self.below(12));
        let person = self.rows.person(user_id, &phone);
        let provider_id = TransportMessageId::new(format!("in-{n}")).unwrap();
        let at = self.now;
        let (by, change) = if self.chance(80) {
            let reply = Change::Replied {
                user_id,
                device_id,
                phone,
                person,
                provider_id: provider_id.clone(),
                at,
            };
            (ChatWriter::Person, reply)
        } else {
            let taken_over = Change::TakenOver {
                user_id,
                device_id,
                phone,
                person,
                provider_id: provider_id.clone(),
                at,
            };
            (ChatWriter::OwnPhone, taken_over)
        };
        let message = NewChatMessage {
            id: ChatMessageId::new(self.rows.ids(), self.now),
            provider_id,
            by,
            kind: ChatKind::Text,
            text: format!("text {n}"),
            at: self.now,
            unread: by == ChatWriter::Person,
        };
        let addition = ChatAddition {
            chat_id: ChatId::of(self.rows.seed(), device_id, person),
            user_id,
            device_id,
            person,
            phone,
            name: (n % 2 == 0).then(|| format!("name {n}")),
            messages: vec![message],
            opened_at: (n == 11).then_some(self.now),
        };
        let chat_id = addition.chat_id;
        let set = ChangeSet::one(change).and(Change::AddToChat(Box::new(addition)));
        self.commit(if n == 7 {
            set.and(Change::ReadChat { user_id, chat_id })
        } else {
            set
        })
        .await;
    }

    async fn judge_message(&mut self) {
        let mark = self.chance(50);
        let states: &[MessageState] = match (mark, self.chance(20)) {
            (_, true) => &MessageState::ALL,
            (true, _) => &[MessageState::Unknown],
            (false, _) => &[MessageState::Queued, MessageState::Held],
        };
        let Some(message) = self.message_in(states).await else {
            return;
        };
        let (user_id, message_id, sent) = (message.user_id, message.id, self.chance(50));
        let change = if mark {
            Change::MarkMessage {
                user_id,
                message_id,
                sent,
            }
        } else {
            Change::CancelMessage { user_id, message_id }
        };
        self.commit(change).await;
    }

    async fn erase(&mut self, user: UserId) {
        if self.chance(50) {
            return;
        }
        let phone = self.phone();
        let person = self.rows.person(user, &phone);
        let suppression = Suppression {
            phone: None,
            reason: SuppressionReason::Erased,
            since_at: self.now,
            ..self.rows.suppression(user, phone)
        };
        let erase = Change::ErasePerson {
            user_id: user,
            person,
            phone,
        };
        let set = if self.chance(50) {
            ChangeSet::one(Change::Suppress(suppression)).and(erase)
        } else {
            ChangeSet::one(erase).and(Change::Suppress(suppression))
        };
        self.commit(set).await;
    }

    async fn assign(&mut self) {
        let mut found = None;
        for _ in 0..4 {
            let message = self.message_in(&[MessageState::Queued]).await;
            // One that waits in a pool, mostly.
            if found.is_none() || message.as_ref().is_some_and(|message| message.device_id.is_none()) {
                found = message;
            }
        }
        let Some(message) = found else { return };
        let mut device = self.device();
        for _ in 0..4 {
            if device.0 != message.user_id {
                device = self.device();
            }
        }
        let (owner, device_id) = device;
        let item = Assignment {
            user_id: if self.chance(90) { message.user_id } else { owner },
            message_id: message.id,
            device_id,
        };
        both!(self, store => store.assign(&[item], self.now)).unwrap();
    }

    /// From the pool of leads to an outcome, which by chance alone would hardly ever come together.
    async fn send_from_the_pool(&mut self) {
        let Some(campaign) = self.read_campaign().await.filter(|one| one.device_limit.is_some()) else {
            return;
        };
        let user = campaign.user_id;
        let filter = LeadFilter {
            without_device: true,
            ..LeadFilter::default()
        };
        let (scope, page) = (RequestScope::user(user), PageRequest::first(50));
        let leads = self.reference.leads(&scope, &filter, &page).await.unwrap().rows;
        let Some(lead) = self.pick(&leads) else { return };
        let mut message = self.rows.campaign_message(user, campaign.id, None, lead.phone);
        message.lead_id = Some(lead.id);
        message.due_at = self.now;
        message.created_at = self.now;
        self.commit(Change::InsertMessages(vec![message.clone()])).await;
        let devices: Vec<_> = self
            .devices
            .iter()
            .copied()
            .filter(|(owner, _)| *owner == user)
            .collect();
        let Some((_, device_id)) = self.pick(&devices) else {
            return;
        };
        let item = Assignment {
            user_id: user,
            message_id: message.id,
            device_id,
        };
        if both!(self, store => store.assign(&[item], self.now)).unwrap() == 0 || self.chance(20) {
            return;
        }
        message.device_id = Some(device_id);
        let owner = self.owner(device_id).await;
        let (incarnation, begun) = self.attempt(&message, owner, 0);
        let begin = Begin {
            incarnation,
            items: vec![begun.clone()],
            now: self.now,
        };
        let _answer = both!(self, store => store.begin(&begin));
        let settle = Settle {
            incarnation,
            outcomes: vec![Outcome {
                advance: None,
                user_id: user,
                device_id,
                epoch: begun.epoch,
                message_id: message.id,
                attempt_id: begun.attempt_id,
                verdict: self.verdict(begun.attempt_id),
                detail: None,
            }],
            now: self.now,
        };
        let _answer = both!(self, store => store.settle(&settle));
    }

    async fn leave_over(&mut self) {
        let states: &[MessageState] = match self.chance(90) {
            true => &[MessageState::Queued],
            false => &MessageState::ALL,
        };
        let mut items = Vec::new();
        for _ in 0..3 {
            if let Some(message) = self.message_in(states).await {
                items.push(LeftOver {
                    user_id: message.user_id,
                    message_id: message.id,
                });
            }
        }
        both!(self, store => store.leave_over(&items, self.now)).unwrap();
    }

    /// Completes, triggers again and plans anew whom the last time left over.
    async fn trigger_again(&mut self) {
        if let Some(message) = self
            .message_in(&[MessageState::Skipped])
            .await
            .filter(Message::is_left_over)
            && let MessageScope::Campaign(campaign) = message.scope
        {
            let round = message.round + 1;
            let again = Message {
                key: IdempotencyKey::campaign(campaign, message.person, 100 + round),
                from_pool: true,
                device_id: None,
                lead_id: message.lead_id,
                ..self.rows.resend(&message)
            };
            let again = Message {
                lead_id: again.lead_id,
                created_at: self.now,
                ..again
            };
            self.commit(Change::InsertMessages(vec![again])).await;
        }
        let campaigns = self.campaigns.clone();
        let Some((user_id, campaign_id)) = self.pick(&campaigns) else {
            return;
        };
        if self.chance(60) {
            self.set_status((user_id, campaign_id), CampaignStatus::Completed).await;
        }
        self.commit(Change::TriggerAgain { user_id, campaign_id }).await;
    }

    async fn saved_text(&mut self, user: UserId) {
        let mut saved = self.rows.saved_text(user);
        saved.name = format!("Text {}", self.below(4));
        let id = saved.id;
        self.commit(Change::InsertSavedText(Box::new(saved))).await;
        let scope = RequestScope::user(user);
        let Ok(mut saved) = self.reference.saved_text(&scope, id).await else {
            return;
        };
        saved.name = format!("  TEXT {} ", self.below(4));
        if self.chance(20) {
            saved.version -= 1;
        }
        self.commit(Change::UpdateSavedText(Box::new(saved))).await;
        if self.chance(50) {
            self.commit(Change::DeleteSavedText {
                user_id: user,
                template_id: id,
            })
            .await;
        }
    }

    async fn command(&mut self) {
        let (user, device) = self.device();
        let mut command = self.rows.command(user, device);
        command.created_at = self.now;
        command.expires_at = self.now + Duration::from_secs(self.below(120) as u64);
        self.commands.push((command.id, device));
        self.commit(Change::InsertCommand(Box::new(command))).await;
        let commands = self.commands.clone();
        if let Some((command_id, device)) = self.pick(&commands) {
            let (incarnation, epoch) = self.owner(device).await;
            self.commit(Change::AnswerCommand {
                command_id,
                fence: Fence { incarnation, epoch },
                answer: DeviceAnswer::Refused {
                    message: format!("said at {}", self.now),
                },
            })
            .await;
        }
        if self.chance(20) {
            let before = self.now.minus(Duration::from_secs(300));
            both!(self, store => store.prune_commands(before)).unwrap();
        }
    }

    async fn join(&mut self) {
        let incarnation = self.rows.incarnation();
        self.nodes.push(incarnation);
        both!(self, store => store.join(incarnation, "node", self.now)).unwrap();
        let known = self.node();
        let _conflict = both!(self, store => store.join(known, "twin", self.now));
    }

    async fn release(&mut self) {
        let (_, device) = self.device();
        let (node, epoch) = self.owner(device).await;
        let _answer = both!(self, store => async {
            let mut devices = store.release(node, &[(device, epoch)], self.now).await?;
            devices.sort_unstable();
            Ok(devices)
        });
    }

    async fn take_over(&mut self) {
        let (by, target) = (self.node(), self.node());
        let seen = async |store: &dyn LeaseStore| {
            let nodes = store.nodes().await.unwrap();
            nodes
                .iter()
                .find(|node| node.incarnation == target)
                .map_or(0, |node| node.beat)
        };
        // Each store shows beats of its own.
        let (ours, theirs) = (seen(self.subject.as_ref()).await, seen(self.reference.as_ref()).await);
        let late = self.chance(15);
        if late {
            let _answer = both!(self, store => store.beat(target, self.now));
        }
        let sorted = |mut taken: Vec<crate::store::TakenOver>| {
            taken.sort_by_key(|taken| taken.message_id);
            taken
        };
        let subject = self.subject.fence(by, target, ours, self.now).await.map(sorted);
        let reference = self.reference.fence(by, target, theirs, self.now).await.map(sorted);
        let _answer = self.same(subject, reference);
    }
}
