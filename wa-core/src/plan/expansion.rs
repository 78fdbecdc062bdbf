//! Turns a page of an audience into messages.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::audience::{AudienceCursor, AudienceLead, CampaignEntry};
use crate::domain::campaign::{Campaign, Routing};
use crate::domain::content::Content;
use crate::domain::message::{IdempotencyKey, Message, MessageScope, MessageState, Reason};
use crate::domain::phone::{PersonKey, Phone};
use crate::id::{DeviceId, IdSource, LeadId, MessageId};
use crate::seed::Seed;
use crate::store::{Change, ChangeSet, PlannedRow};
use crate::time::Timestamp;

/// One page of an audience, as read.
#[derive(Debug)]
pub enum AudiencePage {
    /// Leads, by id.
    Leads(Vec<AudienceLead>),
    /// Entries, by position.
    Entries(Vec<CampaignEntry>),
}

impl AudiencePage {
    /// The people of the page.
    #[must_use]
    pub fn persons(&self, campaign: &Campaign, seed: &Seed) -> Vec<PersonKey> {
        let key = |phone: &Phone| PersonKey::of(seed, campaign.user_id, phone);
        match self {
            Self::Leads(leads) => leads.iter().map(|lead| key(&lead.phone)).collect(),
            Self::Entries(entries) => entries.iter().map(|entry| key(&entry.phone)).collect(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Leads(leads) => leads.len(),
            Self::Entries(entries) => entries.len(),
        }
    }
}

/// What a page is planned with.
#[derive(Debug)]
pub struct ExpansionContext<'a> {
    /// The campaign as it was read; its cursor is where the page starts.
    pub campaign: &'a Campaign,
    /// Whether the page was the last.
    pub last: bool,
    /// People of the page who have a message in the campaign already.
    pub known: BTreeSet<PersonKey>,
    /// Of the pool, which may be planned more than once: the messages of the campaign to people of the page.
    pub planned: BTreeMap<PersonKey, Vec<PlannedRow>>,
    /// Where new ids come from.
    pub ids: &'a IdSource,
    /// The seed of the database.
    pub seed: &'a Seed,
    /// Now.
    pub now: Timestamp,
}

/// The messages of one page, with the cursor moved over it: one commit.
///
/// Each number gets one message per campaign; further leads or entries with it become `skipped: duplicate` rows, so that
/// everybody of the audience is accounted for. A lead without a device, where the routing asks for its own, is skipped too. Of
/// the pool, whom an earlier time left over gets the next round, and who is accounted for gets nothing more.
#[must_use = "a page is planned only when it is committed"]
pub fn expand(page: &AudiencePage, context: &ExpansionContext<'_>) -> ChangeSet {
    let campaign = context.campaign;
    let mut seen = context.known.clone();
    let mut again = BTreeSet::new();
    let mut messages = Vec::with_capacity(page.len());
    let mut to = campaign.cursor;
    let persons = page.persons(campaign, context.seed);
    match page {
        AudiencePage::Leads(leads) => {
            for (lead, person) in leads.iter().zip(persons) {
                let recipient = Recipient {
                    lead_id: Some(lead.id),
                    phone: lead.phone,
                    person,
                    name: lead.name.clone(),
                    custom: BTreeMap::new(),
                    device_id: lead.device_id,
                    content: None,
                };
                to = AudienceCursor::Lead(lead.id);
                let earlier = context.planned.get(&person).map_or(&[][..], Vec::as_slice);
                let left_over = earlier.iter().find(|row| row.is_left_over());
                let accounted = earlier.iter().any(|row| row.lead_id == Some(lead.id));
                let turn = match left_over.filter(|_| again.insert(person)) {
                    Some(row) => Turn::Again(row),
                    None if left_over.is_none() && seen.insert(person) => Turn::First,
                    None if accounted => continue,
                    None => Turn::Duplicate,
                };
                messages.push(message(recipient, lead.id.as_bytes(), turn, context));
            }
        }
        AudiencePage::Entries(entries) => {
            for (entry, person) in entries.iter().zip(persons) {
                let recipient = Recipient {
                    lead_id: None,
                    phone: entry.phone,
                    person,
                    name: entry.name.clone(),
                    custom: entry.custom.clone(),
                    device_id: None,
                    content: entry.text.as_ref().map(|text| Content {
                        text: text.clone(),
                        media: campaign.content.media.clone(),
                        literal: false,
                    }),
                };
                let turn = if seen.insert(person) {
                    Turn::First
                } else {
                    Turn::Duplicate
                };
                messages.push(message(recipient, &entry.position.to_be_bytes(), turn, context));
                to = AudienceCursor::Entry(entry.position);
            }
        }
    }
    if context.last {
        to = AudienceCursor::Done;
    }
    let advance = Change::AdvanceCursor {
        campaign_id: campaign.id,
        from: campaign.cursor,
        to,
    };
    let mut set = ChangeSet::one(advance);
    if !messages.is_empty() {
        set = set.and(Change::InsertMessages(messages));
    }
    set
}

struct Recipient {
    lead_id: Option<LeadId>,
    phone: Phone,
    person: PersonKey,
    name: String,
    custom: BTreeMap<String, String>,
    device_id: Option<DeviceId>,
    content: Option<Content>,
}

/// What a recipient of a page gets.
enum Turn<'a> {
    /// The first message.
    First,
    /// The one that replaces what was left over.
    Again(&'a PlannedRow),
    /// A row that says that the number is in the campaign already.
    Duplicate,
}

fn message(recipient: Recipient, place: &[u8], turn: Turn<'_>, context: &ExpansionContext<'_>) -> Message {
    let ExpansionContext { campaign, now, .. } = *context;
    let device_id = match (campaign.device_id, campaign.routing) {
        (Some(only), _) => Some(only),
        (None, Routing::OwnDevice) => recipient.device_id,
        (None, _) => None,
    };
    let from_pool = campaign.device_id.is_none() && campaign.routing.is_pool();
    let (round, supersedes) = match &turn {
        Turn::Again(row) => (row.round.saturating_add(1), Some(row.message_id)),
        Turn::First | Turn::Duplicate => (0, None),
    };
    let (key, state, reason) = if matches!(turn, Turn::Duplicate) {
        let key = IdempotencyKey::campaign_duplicate(campaign.id, place);
        (key, MessageState::Skipped, Some(Reason::Duplicate))
    } else {
        let key = IdempotencyKey::campaign(campaign.id, recipient.person, round);
        if device_id.is_none() && !from_pool {
            (key, MessageState::Skipped, Some(Reason::NoDevice))
        } else {
            (key, MessageState::Queued, None)
        }
    };
    let due_at = campaign.started_at.unwrap_or(now);
    Message {
        id: MessageId::new(context.ids, now),
        user_id: campaign.user_id,
        scope: MessageScope::Campaign(campaign.id),
        key,
        round,
        supersedes,
        superseded: false,
        lead_id: recipient.lead_id,
        phone: Some(recipient.phone),
        person: recipient.person,
        name: recipient.name,
        custom: recipient.custom,
        device_id,
        flow: None,
        from_pool,
        content: recipient.content,
        override_suppression: false,
        due_at,
        delay: campaign.delay,
        expires_at: due_at + campaign.expires_after,
        held_at: None,
        state,
        reason,
        detail: None,
        refusal_count: 0,
        attempt: None,
        doubt: None,
        delivery: None,
        delivery_at: None,
        settled_at: (!state.is_open()).then_some(now),
        created_at: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CampaignId, UserId};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn planned(set: &ChangeSet) -> Vec<Message> {
        match &set.changes[1] {
            Change::InsertMessages(messages) => messages.clone(),
            other => panic!("unexpected change {other:?}"),
        }
    }

    #[test]
    fn a_number_gets_one_message_and_its_other_leads_are_accounted_for() {
        let ids = IdSource::seeded([1; 32]);
        let seed = Seed::from_number(1);
        let user = UserId::new(&ids, at(1));
        let device = DeviceId::new(&ids, at(1));
        let campaign = Campaign::draft(CampaignId::new(&ids, at(1)), user, "t", Content::text("x"), at(1));
        let phone = |text: &str| Phone::from_e164(text).unwrap();
        let lead = |text, device_id| AudienceLead {
            id: LeadId::new(&ids, at(2)),
            device_id,
            phone: phone(text),
            name: String::new(),
        };
        let page = AudiencePage::Leads(vec![
            lead("+60123456789", Some(device)),
            lead("+60123456789", Some(device)),
            lead("+60123456780", None),
            lead("+60123456781", Some(device)),
        ]);
        let known = BTreeSet::from([PersonKey::of(&seed, user, &phone("+60123456781"))]);
        let context = ExpansionContext {
            campaign: &campaign,
            last: true,
            known,
            planned: BTreeMap::new(),
            ids: &ids,
            seed: &seed,
            now: at(3),
        };
        let set = expand(&page, &context);
        assert!(matches!(
            set.changes[0],
            Change::AdvanceCursor {
                to: AudienceCursor::Done,
                ..
            }
        ));
        let messages = planned(&set);
        let told: Vec<_> = messages.iter().map(|message| (message.state, message.reason)).collect();
        assert_eq!(
            told,
            [
                (MessageState::Queued, None),
                (MessageState::Skipped, Some(Reason::Duplicate)),
                (MessageState::Skipped, Some(Reason::NoDevice)),
                (MessageState::Skipped, Some(Reason::Duplicate)),
            ]
        );
        let keys: BTreeSet<_> = messages.iter().map(|message| message.key).collect();
        assert_eq!(keys.len(), 4);
        let again = planned(&expand(&page, &context));
        assert!(
            again.iter().zip(&messages).all(|(a, b)| a.key == b.key),
            "planning again gives the same keys"
        );
    }
}
