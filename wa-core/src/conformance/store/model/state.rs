//! Everything that can be read, compared.

use std::fmt::Debug;

use serde::Serialize;

use super::{Model, both};
use crate::domain::access::RequestScope;
use crate::domain::message::{Message, MessageScope};
use crate::id::{CampaignId, EventId, LeadId, UserId};
use crate::store::{
    CampaignFilter, ChatFrom, ChatPage, Due, LaneLook, LeadFilter, MessageFilter, PAGE_MAX, PageRequest, RecentOf,
    StoreError, Strangers,
};
use crate::time::Timestamp;

/// Long before the first instant of a run.
const BEFORE: Timestamp = Timestamp::EPOCH;

impl Model {
    pub(super) async fn compare_everything(&mut self) {
        for user in self.users.clone() {
            self.compare_user(user).await;
        }
        self.compare_engine().await;
    }

    /// Compares rows one by one, so that a failure shows the one that differs, whole.
    #[track_caller]
    fn same_rows<T: PartialEq + Debug + Serialize>(&self, subject: Vec<T>, reference: Vec<T>) -> Vec<T> {
        let text = |row: &T| serde_json::to_string_pretty(row).unwrap_or_default();
        for (ours, theirs) in subject.iter().zip(&reference) {
            assert!(
                ours == theirs,
                "{}:\nthe store has {}\nthe model has {}",
                self.place(),
                text(ours),
                text(theirs)
            );
        }
        assert_eq!(
            subject.len(),
            reference.len(),
            "{}: {subject:?} {reference:?}",
            self.place()
        );
        subject
    }

    async fn compare_user(&self, user: UserId) {
        let scope = RequestScope::user(user);
        let lists = async |store: &dyn crate::store::AppStore| -> Result<_, StoreError> {
            let with_superseded = MessageFilter {
                with_superseded: true,
                ..MessageFilter::default()
            };
            let filter = CampaignFilter::default();
            Ok((
                store.devices(&scope, &PageRequest::first(PAGE_MAX)).await?.rows,
                store
                    .leads(&scope, &LeadFilter::default(), &PageRequest::first(PAGE_MAX))
                    .await?
                    .rows,
                store
                    .campaigns(&scope, &filter, &PageRequest::first(PAGE_MAX))
                    .await?
                    .rows,
                store
                    .messages(&scope, &with_superseded, &PageRequest::first(PAGE_MAX))
                    .await?
                    .rows,
                store.saved_texts(&scope, &PageRequest::first(PAGE_MAX)).await?.rows,
                store.suppressions(&scope, &PageRequest::first(PAGE_MAX)).await?.rows,
                store.events(&scope, EventId::MIN, PAGE_MAX).await?,
            ))
        };
        let ours = lists(self.subject.as_ref()).await.unwrap();
        let theirs = lists(self.reference.as_ref()).await.unwrap();
        let devices = self.same_rows(ours.0, theirs.0);
        self.same_rows(ours.1, theirs.1);
        let campaigns = self.same_rows(ours.2, theirs.2);
        let messages = self.same_rows(ours.3, theirs.3);
        self.same_rows(ours.4, theirs.4);
        self.same_rows(ours.5, theirs.5);
        self.same_rows(ours.6, theirs.6);

        let stranger = RequestScope::user(*self.users.iter().find(|other| **other != user).unwrap());
        for message in &messages {
            both!(self, store => store.attempts(&scope, message.id)).unwrap();
            both!(self, store => store.message(&stranger, message.id)).unwrap_err();
        }
        for (command, _) in &self.commands {
            let _answer = both!(self, store => store.command(&scope, *command));
        }
        for pages in [3, 10] {
            self.compare_pages(&scope, pages).await;
        }
        for device in &devices {
            both!(self, store => store.device_numbers(&scope, device.id)).unwrap();
            let limited = RequestScope {
                user_id: user,
                devices: Some(vec![device.id]),
            };
            both!(self, store => store.lead_count(&limited, &LeadFilter::default())).unwrap();
            both!(self, store => store.niches(&limited)).unwrap();
            let chats = both!(self, store => store.chats(&limited, device.id, &PageRequest::first(PAGE_MAX))).unwrap();
            for chat in chats.rows {
                both!(self, store => store.chat(&scope, chat.id)).unwrap();
                both!(self, store => store.chat(&stranger, chat.id)).unwrap_err();
                let mut page = ChatPage::newest(3);
                while let Some(place) = both!(self, store => store.chat_messages(&scope, chat.id, &page))
                    .unwrap()
                    .next
                {
                    page.from = ChatFrom::Before(place);
                }
            }
        }
        for campaign in &campaigns {
            self.compare_campaign(user, campaign.id, &messages).await;
        }
        self.compare_sequences(user).await;
        let leads: Vec<LeadId> = messages.iter().filter_map(|message| message.lead_id).collect();
        both!(self, store => store.newest_of_leads(&scope, &leads)).unwrap();
        for of in [MessageScope::Direct, MessageScope::Chat, MessageScope::Bot] {
            both!(self, store => store.numbers(&scope, of)).unwrap();
            both!(self, store => store.count(&scope, of)).unwrap();
        }
        both!(self, store => store.loads(user, self.now)).unwrap();
        both!(self, store => store.niches(&scope)).unwrap();
    }

    /// Every page of messages and leads, in pages of a size.
    async fn compare_pages(&self, scope: &RequestScope, limit: u32) {
        let mut messages = PageRequest::first(limit);
        loop {
            let filter = MessageFilter::default();
            let page = both!(self, store => store.messages(scope, &filter, &messages)).unwrap();
            let Some(next) = page.next else { break };
            messages.after = Some(next);
        }
        let mut leads = PageRequest::first(limit);
        loop {
            let filter = LeadFilter::default();
            let page = both!(self, store => store.leads(scope, &filter, &leads)).unwrap();
            let Some(next) = page.next else { break };
            leads.after = Some(next);
        }
    }

    async fn compare_campaign(&self, user: UserId, id: CampaignId, messages: &[Message]) {
        let scope = RequestScope::user(user);
        let of = MessageScope::Campaign(id);
        both!(self, store => store.numbers(&scope, of)).unwrap();
        both!(self, store => store.count(&scope, of)).unwrap();
        both!(self, store => store.entries_page(id, 0, PAGE_MAX)).unwrap();
        both!(self, store => store.recent(RecentOf::Campaign(id), BEFORE, 20)).unwrap();
        let campaign = both!(self, store => store.campaign(&scope, id)).unwrap();
        both!(self, store => store.audience_page(&campaign, LeadId::MIN, PAGE_MAX)).unwrap();
        both!(self, store => store.audience_size(&campaign)).unwrap();
        let mut persons: Vec<_> = messages.iter().map(|message| message.person).collect();
        persons.sort_unstable();
        persons.dedup();
        both!(self, store => async {
            let planned = store.planned(id, &persons).await?;
            let pool = (planned, store.left_over(id).await?, store.taken(&[id]).await?);
            Ok(pool)
        })
        .unwrap();
        both!(self, store => async {
            let mut found = store.persons_in(id, &persons).await?;
            found.sort_unstable();
            Ok(found)
        })
        .unwrap();
    }

    async fn compare_engine(&self) {
        let devices: Vec<_> = self.devices.iter().map(|(_, device)| *device).collect();
        both!(self, store => async {
            let mut owned = store.owned(&devices).await?;
            owned.sort_by_key(|owned| owned.device.id);
            Ok(owned)
        })
        .unwrap();
        both!(self, store => store.history(&devices, BEFORE)).unwrap();
        both!(self, store => store.cold_attempts(&devices, BEFORE)).unwrap();
        for (user, device) in &self.devices {
            both!(self, store => store.put_off(*user, *device, self.now, PAGE_MAX)).unwrap();
            let scopes = self.campaigns.iter().map(|(_, id)| MessageScope::Campaign(*id));
            let scopes = scopes.chain(self.sequences.iter().map(|(_, id)| MessageScope::Sequence(*id)));
            for scope in scopes.chain([MessageScope::Direct]) {
                for known_too in [false, true] {
                    let asked = Strangers {
                        user_id: *user,
                        device_id: *device,
                        scope,
                        now: self.now,
                        limit: PAGE_MAX,
                        known_too,
                    };
                    both!(self, store => store.strangers(&asked)).unwrap();
                }
            }
        }
        for (_, device) in &self.devices {
            both!(self, store => store.recent(RecentOf::Device(*device), BEFORE, 20)).unwrap();
        }
        self.compare_due(self.now).await;
        self.compare_marks().await;
        both!(self, store => store.users_with_devices(&PageRequest::first(PAGE_MAX))).unwrap();
        both!(self, store => store.backlog()).unwrap();
        both!(self, store => async {
            let mut nodes = store.nodes().await?;
            nodes.sort_by_key(|node| node.incarnation);
            // A beat is compared with itself only: how it grows is the store's own affair.
            nodes.iter_mut().for_each(|node| node.beat = 0);
            Ok(nodes)
        })
        .unwrap();
        for node in &self.nodes {
            both!(self, store => async {
                let mut rows = store.sending(*node).await?;
                rows.sort_by_key(|row| row.message_id);
                Ok(rows)
            })
            .unwrap();
            both!(self, store => store.doubts(*node, self.now, PAGE_MAX)).unwrap();
            both!(self, store => store.pool(*node, self.now, PAGE_MAX)).unwrap();
            both!(self, store => store.commands(*node, self.now, PAGE_MAX)).unwrap();
            both!(self, store => async {
                let mut owned = store.devices_of(*node).await?;
                owned.sort_by_key(|owned| owned.device.id);
                Ok(owned)
            })
            .unwrap();
        }
        both!(self, store => async {
            let mut due = store.campaigns_due(self.now, PAGE_MAX).await?;
            due.sort_by_key(|campaign| (campaign.scheduled_at, campaign.id));
            Ok(due)
        })
        .unwrap();
        both!(self, store => store.campaigns_expanding(PAGE_MAX)).unwrap();
        both!(self, store => store.next_campaign_at()).unwrap();
    }

    /// What every lane may send at an instant, after each campaign and after each sequence.
    pub(super) async fn compare_due(&self, now: Timestamp) {
        let campaigns = self.campaigns.iter().map(|(_, campaign)| (Some(*campaign), None));
        let sequences = self.sequences.iter().map(|(_, sequence)| (None, Some(*sequence)));
        for (served, served_sequence) in std::iter::once((None, None)).chain(campaigns).chain(sequences) {
            let lanes = self
                .devices
                .iter()
                .map(|(user, device)| LaneLook {
                    served_sequence,
                    user_id: *user,
                    device_id: *device,
                    served,
                })
                .collect();
            let due = Due { lanes, now };
            both!(self, store => async {
                let lanes = store.due(&due).await?;
                let plain = lanes.into_iter().map(|lane| {
                    (lane.device_id, lane.heads, lane.next_due_at)
                });
                Ok(plain.collect::<Vec<_>>())
            })
            .unwrap();
        }
    }
}
