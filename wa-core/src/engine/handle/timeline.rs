//! The history of a person: every message with all that happened to it, and every run through a sequence.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::delivery::Delivery;
use crate::domain::enrolment::{Enrolment, EnrolmentReason, EnrolmentState};
use crate::domain::message::{Attempt, Message, MessageScope, MessageState, Reason};
use crate::domain::suppression::Suppression;
use crate::id::{CampaignId, DeviceId, EnrolmentId, LeadId, MessageId, SequenceId};
use crate::store::{EnrolmentFilter, MessageFilter, PageRequest};
use crate::time::Timestamp;

/// Where a page of a timeline ends: the last message and the last run that were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimelineKey {
    /// The last message.
    pub message: Option<MessageId>,
    /// The last run.
    pub enrolment: Option<EnrolmentId>,
}

/// What happened to a message or a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Happened {
    /// A message was planned.
    Planned {
        /// When it may go at the earliest.
        due_at: Timestamp,
    },
    /// It was put on hold.
    Held,
    /// An attempt to send it began.
    Attempted {
        /// The device.
        device_id: DeviceId,
    },
    /// It may have been sent, and may still be found out.
    InDoubt,
    /// It was settled.
    Settled {
        /// How.
        state: MessageState,
        /// Why.
        reason: Option<Reason>,
    },
    /// A receipt or a reply: the furthest that is known.
    Delivery {
        /// What became known.
        delivery: Delivery,
    },
    /// The person entered a sequence.
    Enrolled,
    /// Its run was completed or ended.
    Left {
        /// How.
        state: EnrolmentState,
        /// Why.
        reason: Option<EnrolmentReason>,
    },
}

/// Something that happened, with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub happened: Happened,
}

/// What a timeline tells of.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TimelineItem {
    /// A message.
    Message(Box<Message>),
    /// A run through a sequence.
    Enrolment(Box<Enrolment>),
}

/// One entry of a timeline.
#[derive(Debug, Clone, Serialize)]
pub struct TimelineEntry {
    /// When it began.
    pub at: Timestamp,
    /// The message or run as it stands.
    pub item: TimelineItem,
    /// The title of its campaign, or the name of its sequence.
    pub scope_name: Option<String>,
    /// What happened to it, oldest first.
    pub moments: Vec<Moment>,
}

/// A page of the history of a person.
#[derive(Debug, Clone, Serialize)]
pub struct Timeline {
    /// When the lead was created.
    pub lead_created_at: Timestamp,
    /// When it last wrote to a device.
    pub last_interaction_at: Option<Timestamp>,
    /// Whether the person must not be written to, and why.
    pub suppression: Option<Suppression>,
    /// The entries, by when they began, oldest first.
    pub entries: Vec<TimelineEntry>,
    /// Where the next page starts; `None` when this was the last.
    pub next: Option<TimelineKey>,
}

/// Most entries of one page of a timeline.
pub const TIMELINE_MAX: u32 = 100;

impl Handle {
    /// A page of the history of a lead: all messages to its person, also direct ones and those to another lead with the same
    /// number, those that were sent again too, and all runs through sequences; oldest first, at most [`TIMELINE_MAX`] entries.
    ///
    /// # Errors
    /// `NotFound` when there is no such lead.
    pub async fn timeline(
        &self,
        scope: &RequestScope,
        lead: LeadId,
        page: &PageRequest<TimelineKey>,
    ) -> Result<Timeline, HandleError> {
        let lead = self.core.store.lead(scope, lead).await?;
        let person = self.person(lead.user_id, &lead.phone);
        let after = page.after.unwrap_or_default();
        let limit = page.limit.clamp(1, TIMELINE_MAX);
        let messages = MessageFilter {
            person: Some(person),
            with_superseded: true,
            ..MessageFilter::default()
        };
        let request = PageRequest {
            after: after.message,
            limit,
        };
        let messages = self.core.store.messages(scope, &messages, &request).await?;
        let enrolments = EnrolmentFilter {
            person: Some(person),
            ..EnrolmentFilter::default()
        };
        let request = PageRequest {
            after: after.enrolment,
            limit,
        };
        let enrolments = self.core.store.enrolments(scope, &enrolments, &request).await?;
        let mut more = messages.next.is_some() || enrolments.next.is_some();
        // Ids begin with the time at which they were made, so both lists are in the order of their ids, and so is the page.
        let mut items: Vec<TimelineItem> = messages
            .rows
            .into_iter()
            .map(|message| TimelineItem::Message(Box::new(message)))
            .chain(
                enrolments
                    .rows
                    .into_iter()
                    .map(|enrolment| TimelineItem::Enrolment(Box::new(enrolment))),
            )
            .collect();
        items.sort_by_key(TimelineItem::order);
        more |= items.len() > limit as usize;
        items.truncate(limit as usize);
        let mut last = after;
        for item in &items {
            match item {
                TimelineItem::Message(message) => last.message = Some(message.id),
                TimelineItem::Enrolment(enrolment) => last.enrolment = Some(enrolment.id),
            }
        }
        let names = self.scope_names(&items).await?;
        let mut entries = Vec::with_capacity(items.len());
        for item in items {
            let attempts = match &item {
                TimelineItem::Message(message) => self.core.store.attempts(scope, message.id).await?,
                TimelineItem::Enrolment(_) => Vec::new(),
            };
            entries.push(TimelineEntry {
                at: item.at(),
                scope_name: item.scope().and_then(|of| names.get(&of).cloned()),
                moments: item.moments(&attempts),
                item,
            });
        }
        let suppressed = self.core.store.suppressed(lead.user_id, &[person]).await?;
        Ok(Timeline {
            lead_created_at: lead.created_at,
            last_interaction_at: lead.last_interaction_at,
            suppression: suppressed.into_iter().next(),
            entries,
            next: more.then_some(last),
        })
    }

    async fn scope_names(&self, items: &[TimelineItem]) -> Result<BTreeMap<MessageScope, String>, HandleError> {
        let scopes: BTreeSet<MessageScope> = items.iter().filter_map(TimelineItem::scope).collect();
        let mut campaigns: Vec<CampaignId> = Vec::new();
        let mut sequences: Vec<SequenceId> = Vec::new();
        for scope in scopes {
            match scope {
                MessageScope::Campaign(id) => campaigns.push(id),
                MessageScope::Sequence(id) => sequences.push(id),
                _ => {}
            }
        }
        let mut names = BTreeMap::new();
        if !campaigns.is_empty() {
            let found = self.core.store.campaigns_by_id(&campaigns).await?.into_iter();
            names.extend(found.map(|one| (MessageScope::Campaign(one.id), one.title)));
        }
        if !sequences.is_empty() {
            let found = self.core.store.sequences_by_id(&sequences).await?.into_iter();
            names.extend(found.map(|one| (MessageScope::Sequence(one.id), one.name)));
        }
        Ok(names)
    }
}

impl TimelineItem {
    fn order(&self) -> [u8; 16] {
        match self {
            Self::Message(message) => *message.id.as_bytes(),
            Self::Enrolment(enrolment) => *enrolment.id.as_bytes(),
        }
    }

    fn at(&self) -> Timestamp {
        match self {
            Self::Message(message) => message.created_at,
            Self::Enrolment(enrolment) => enrolment.created_at,
        }
    }

    fn scope(&self) -> Option<MessageScope> {
        match self {
            Self::Message(message) => Some(message.scope),
            Self::Enrolment(enrolment) => Some(MessageScope::Sequence(enrolment.sequence_id)),
        }
    }

    fn moments(&self, attempts: &[Attempt]) -> Vec<Moment> {
        let mut moments = match self {
            Self::Message(message) => moments_of(message, attempts),
            Self::Enrolment(enrolment) => {
                let entered = Moment {
                    at: enrolment.created_at,
                    happened: Happened::Enrolled,
                };
                let left = enrolment.ended_at.map(|at| Moment {
                    at,
                    happened: Happened::Left {
                        state: enrolment.state,
                        reason: enrolment.reason,
                    },
                });
                std::iter::once(entered).chain(left).collect()
            }
        };
        // What happened at one instant stays in the order in which it happens.
        moments.sort_by_key(|moment| moment.at);
        moments
    }
}

fn moments_of(message: &Message, attempts: &[Attempt]) -> Vec<Moment> {
    let mut moments = Vec::new();
    let mut note = |at: Option<Timestamp>, happened: Happened| {
        moments.extend(at.map(|at| Moment { at, happened }));
    };
    let due_at = message.due_at;
    note(Some(message.created_at), Happened::Planned { due_at });
    note(message.held_at, Happened::Held);
    for attempt in attempts {
        let device_id = attempt.device_id;
        note(Some(attempt.attempted_at), Happened::Attempted { device_id });
    }
    let doubt = message.doubt.filter(|_| message.state == MessageState::InDoubt);
    note(doubt.map(|doubt| doubt.since_at), Happened::InDoubt);
    let (state, reason) = (message.state, message.reason);
    note(message.settled_at, Happened::Settled { state, reason });
    if let Some(delivery) = message.delivery {
        note(message.delivery_at, Happened::Delivery { delivery });
    }
    moments
}
