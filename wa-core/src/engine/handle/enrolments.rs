//! Runs through a sequence: begun by hand, listed with their flows, ended, sent again.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::leads::check_batch;
use super::sequences::{SequenceWithSteps, wrong_status};
use super::{COMMIT_TRIES_MAX, Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::device::Device;
use crate::domain::enrolment::{Enrolment, EnrolmentReason, EnrolmentState};
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope, MessageState};
use crate::domain::phone::Phone;
use crate::domain::sequence::{Sequence, SequenceStatus, SequenceSteps};
use crate::event::EventKind;
use crate::id::{DeviceId, EnrolmentId, LeadId, MessageId, SequenceId, StepId, UserId};
use crate::plan::enrolment::{EnrolmentContext, Entry, enrol};
use crate::plan::flows::{Flow, flows};
use crate::plan::resend::resend;
use crate::plan::{FieldCode, FieldError};
use crate::store::{
    Change, ChangeSet, EnrolResult, EnrolmentFilter, LeadFilter, MessageFilter, OnDuplicate, PAGE_MAX, Page,
    PageRequest, WriteClass,
};

/// How people enrol by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EnrolBy {
    /// The entry point; the first one when absent. Field `step_id`.
    pub step_id: Option<StepId>,
    /// The device of leads that are looked for or made for numbers; the sequence's when absent, else the only one that the user
    /// has. Field `device_id`.
    pub device_id: Option<DeviceId>,
}

/// What became of one who was to enrol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Enrolled {
    /// They are in.
    Enrolled {
        /// Their run.
        enrolment_id: EnrolmentId,
        /// Whose.
        lead_id: LeadId,
        /// Whether the lead was made for it.
        lead_created: bool,
    },
    /// They are in already, and stay where they are.
    AlreadyIn {
        /// The run that is open.
        enrolment_id: EnrolmentId,
    },
    /// They were in before, and the sequence does not take them again.
    ReEntryRefused,
    /// They must not be written to.
    Suppressed,
    /// The lead has no device of its own, and the sequence sends by that alone.
    NoDevice,
    /// There is no such lead.
    NotFound,
    /// It is no number that can be written to, or there is no device for its lead.
    Refused {
        /// What is wrong.
        errors: Vec<FieldError>,
    },
}

/// Which runs through a sequence a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContactFilter {
    /// In one of these states; empty for any.
    pub states: Vec<EnrolmentState>,
    /// Of this lead.
    pub lead_id: Option<LeadId>,
}

/// One run through a sequence with all its flows.
#[derive(Debug, Clone, Serialize)]
pub struct Contact {
    /// The run.
    pub enrolment: Enrolment,
    /// The name of the lead; empty when it is gone.
    pub name: String,
    /// Every step of it, those that are to come too.
    pub flows: Vec<Flow>,
}

/// Which messages of a step are sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResendStep {
    /// Only those of this device.
    pub device_id: Option<DeviceId>,
    /// Only these, at most 1,000; an `unknown` one only when it is named here, because it may have been received.
    pub message_ids: Option<Vec<MessageId>>,
}

/// What became of a request to send a step again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepResent {
    /// How many are sent again.
    pub resent: u64,
    /// How many are not: their run has ended, a later step has begun, or nobody is there to write to any more.
    pub left: u64,
    /// Whether there are more: ask again.
    pub more: bool,
}

/// Most runs of one page with flows.
pub const CONTACTS_MAX: u32 = 100;

/// Most enrolments of one commit.
const ENROL_PAGE: usize = 100;
/// Most leads of one number that are looked at.
const LEADS_OF_NUMBER_MAX: u32 = 100;
const RESEND_PAGE: u32 = 100;
const RESEND_PAGES_MAX: usize = 20;

/// One who is to enrol: a lead that is there, or one that is made.
struct Candidate {
    lead: Lead,
    created: bool,
}

/// A candidate by the row that asks for it, or what keeps the row from having one.
type Row = Result<Candidate, Enrolled>;

impl Handle {
    /// Enrols up to [`BATCH_MAX`](super::BATCH_MAX) numbers, in any usual form; one answer per number, in order. A lead is found by
    /// the number, one of the asked device first, or made. Asking again enrols nobody twice.
    ///
    /// # Errors
    /// `Invalid` for a step that is no entry point, a device that is not the user's or a batch that is too large; `Conflict` when the
    /// sequence is neither active nor paused.
    pub async fn enrol_numbers(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        numbers: &[String],
        by: &EnrolBy,
    ) -> Result<Vec<Enrolled>, HandleError> {
        check_batch("numbers", numbers.len())?;
        let of = self.open_to_enrol(scope, id, by).await?;
        let user_id = of.sequence.user_id;
        let region = self.settings(user_id).await?.region;
        let device = self.device_for_numbers(scope, &of.sequence, by).await?;
        let mut answers = Vec::with_capacity(numbers.len());
        for page in numbers.chunks(ENROL_PAGE) {
            let phones: Vec<_> = page.iter().map(|text| Phone::parse(text, &region)).collect();
            let persons: Vec<_> = phones
                .iter()
                .flatten()
                .map(|phone| self.person(user_id, phone))
                .collect();
            let suppressed = self.core.store.suppressed(user_id, &persons).await?;
            let suppressed: BTreeSet<_> = suppressed.into_iter().map(|one| one.person).collect();
            let mut tries = 1;
            let enrolled = loop {
                let mut rows: Vec<Row> = Vec::with_capacity(page.len());
                let mut known: BTreeMap<Phone, Lead> = BTreeMap::new();
                for phone in &phones {
                    let row = match phone {
                        Err(error) => {
                            let error = FieldError::new("phone", FieldCode::Invalid, error.to_string());
                            Err(Enrolled::Refused { errors: vec![error] })
                        }
                        Ok(phone) if suppressed.contains(&self.person(user_id, phone)) => Err(Enrolled::Suppressed),
                        Ok(phone) => match known.get(phone) {
                            // The number stands twice: the store says that it is in.
                            Some(lead) => Ok(Candidate {
                                lead: lead.clone(),
                                created: false,
                            }),
                            None => self.candidate(scope, &of.sequence, *phone, device).await?,
                        },
                    };
                    if let Ok(candidate) = &row {
                        known.insert(candidate.lead.phone, candidate.lead.clone());
                    }
                    rows.push(row);
                }
                match self.enrol_page(id, by, rows).await {
                    Err(HandleError::Conflict { .. } | HandleError::NotFound { .. }) if tries < COMMIT_TRIES_MAX => {
                        tries += 1;
                    }
                    result => break result?,
                }
            };
            answers.extend(enrolled);
        }
        Ok(answers)
    }

    /// Enrols up to [`BATCH_MAX`](super::BATCH_MAX) leads; one answer per lead, in order. Asking again enrols nobody twice.
    ///
    /// # Errors
    /// As [`enrol_numbers`](Self::enrol_numbers).
    pub async fn enrol_leads(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        leads: &[LeadId],
        by: &EnrolBy,
    ) -> Result<Vec<Enrolled>, HandleError> {
        check_batch("lead_ids", leads.len())?;
        self.open_to_enrol(scope, id, by).await?;
        let mut answers = Vec::with_capacity(leads.len());
        for page in leads.chunks(ENROL_PAGE) {
            let mut tries = 1;
            let enrolled = loop {
                let found = self.core.store.leads_by_id(scope.user_id, page).await?;
                let found: BTreeMap<LeadId, Lead> = found.into_iter().map(|lead| (lead.id, lead)).collect();
                let row = |lead_id: &LeadId| match found.get(lead_id) {
                    Some(lead) => Ok(Candidate {
                        lead: lead.clone(),
                        created: false,
                    }),
                    None => Err(Enrolled::NotFound),
                };
                match self.enrol_page(id, by, page.iter().map(row).collect()).await {
                    Err(HandleError::Conflict { .. } | HandleError::NotFound { .. }) if tries < COMMIT_TRIES_MAX => {
                        tries += 1;
                    }
                    result => break result?,
                }
            };
            answers.extend(enrolled);
        }
        Ok(answers)
    }

    /// Ends a run through a sequence; what is queued of it is cancelled. Removing the trigger from the lead does not.
    ///
    /// # Errors
    /// `Conflict` when it is not open any more.
    pub async fn end_enrolment(&self, scope: &RequestScope, id: EnrolmentId) -> Result<Enrolment, HandleError> {
        let enrolment = self.core.store.enrolment(scope, id).await?;
        let reason = Some(EnrolmentReason::ByPerson);
        let set = ChangeSet::one(Change::EndEnrolment {
            user_id: enrolment.user_id,
            enrolment_id: id,
            // Wherever it stands by then.
            step: None,
            state: EnrolmentState::Ended,
            reason,
            next_id: None,
        });
        let kind = EventKind::EnrolmentEnded {
            enrolment_id: id,
            sequence_id: enrolment.sequence_id,
            lead_id: enrolment.lead_id,
            state: EnrolmentState::Ended,
            reason,
        };
        let set = set.tell(self.core.event(enrolment.user_id, kind));
        match self.commit(set, WriteClass::Api).await {
            Ok(_) => {}
            Err(error) if error.is_conflict() => {
                let current = self.core.store.enrolment(scope, id).await?;
                let why = format!("it is {}; only one that is open can be ended", word(current.state));
                return Err(HandleError::conflict("enrolment", why));
            }
            Err(error) => return Err(error.into()),
        }
        self.core.wake.plan();
        Ok(self.core.store.enrolment(scope, id).await?)
    }

    /// A page of the runs through a sequence, each with all its flows; at most [`CONTACTS_MAX`].
    ///
    /// # Errors
    /// `NotFound` when there is no such sequence.
    pub async fn contacts(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        filter: &ContactFilter,
        page: &PageRequest<EnrolmentId>,
    ) -> Result<Page<Contact, EnrolmentId>, HandleError> {
        let sequence = self.core.store.sequence(scope, id).await?;
        let filter = EnrolmentFilter {
            sequence_id: Some(id),
            lead_id: filter.lead_id,
            states: filter.states.clone(),
            ..EnrolmentFilter::default()
        };
        let request = PageRequest {
            after: page.after,
            limit: page.limit.min(CONTACTS_MAX),
        };
        let page = self.core.store.enrolments(scope, &filter, &request).await?;
        Ok(Page {
            rows: self.with_flows(scope, &sequence, page.rows).await?,
            next: page.next,
        })
    }

    /// One run through a sequence with all its flows.
    ///
    /// # Errors
    /// `NotFound` when there is no such run.
    pub async fn contact(&self, scope: &RequestScope, id: EnrolmentId) -> Result<Contact, HandleError> {
        let enrolment = self.core.store.enrolment(scope, id).await?;
        // A deleted sequence's runs stay in the history.
        let sequences = self.core.store.sequences_by_id(&[enrolment.sequence_id]).await?;
        let sequence = sequences.first().ok_or(HandleError::not_found("sequence"))?;
        let mut contacts = self.with_flows(scope, sequence, vec![enrolment]).await?;
        contacts.pop().ok_or(HandleError::not_found("enrolment"))
    }

    /// Sends the failed messages of a step again, each as the next round of the one it replaces: only where the run is open and
    /// no later step of it has begun; later steps wait until it is settled. Asking twice at the same time sends nothing twice.
    ///
    /// # Errors
    /// `NotFound` for a sequence, or a message that is not of that step; `Conflict` when the sequence is neither active nor paused.
    pub async fn resend_step(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        step: StepId,
        which: &ResendStep,
    ) -> Result<StepResent, HandleError> {
        let sequence = self.owned_sequence(scope, id).await?.sequence;
        may_go_on(&sequence, "sent again")?;
        let mut resent = StepResent::default();
        if let Some(ids) = &which.message_ids {
            check_batch("message_ids", ids.len())?;
            let mut messages = Vec::with_capacity(ids.len());
            for message_id in ids.iter().copied().collect::<BTreeSet<_>>() {
                let message = self.core.store.message(scope, message_id).await?;
                let of_step = message.flow.is_some_and(|flow| flow.step_id == step);
                if message.scope != MessageScope::Sequence(id) || !of_step {
                    return Err(HandleError::not_found("message"));
                }
                if which.device_id.is_none_or(|device| message.device_id == Some(device)) {
                    messages.push(message);
                }
            }
            for page in messages.chunks(RESEND_PAGE as usize) {
                self.resend_flows(&sequence, page, &mut resent).await?;
            }
            return Ok(resent);
        }
        let filter = MessageFilter {
            scope: Some(MessageScope::Sequence(id)),
            step_id: Some(step),
            device_id: which.device_id,
            states: vec![MessageState::Failed],
            ..MessageFilter::default()
        };
        let mut request = PageRequest::first(RESEND_PAGE);
        for _ in 0..RESEND_PAGES_MAX {
            let page = self.core.store.messages(scope, &filter, &request).await?;
            self.resend_flows(&sequence, &page.rows, &mut resent).await?;
            match page.next {
                Some(next) => request = PageRequest::after(next, RESEND_PAGE),
                None => return Ok(resent),
            }
        }
        resent.more = true;
        Ok(resent)
    }

    /// Commits the next rounds together; where one of them cannot be, each alone, so that it spoils no other.
    async fn resend_flows(
        &self,
        sequence: &Sequence,
        messages: &[Message],
        resent: &mut StepResent,
    ) -> Result<(), HandleError> {
        let now = self.now();
        let ids: Vec<EnrolmentId> = messages.iter().filter_map(|one| Some(one.flow?.enrolment_id)).collect();
        let enrolments = self.core.store.enrolments_by_id(&ids).await?;
        let open: BTreeSet<EnrolmentId> = enrolments
            .iter()
            .filter(|one| one.state == EnrolmentState::Open)
            .map(|one| one.id)
            .collect();
        let may = |message: &&Message| message.flow.is_some_and(|flow| open.contains(&flow.enrolment_id));
        let again = |of: &Message| resend(of, MessageId::new(&self.core.ids, now), sequence.expires_after, now);
        let rounds: Vec<Message> = messages.iter().filter(may).filter_map(again).collect();
        let asked = messages.len() as u64;
        let mut done = 0;
        if !rounds.is_empty() {
            let together = ChangeSet::one(Change::InsertMessages(rounds.clone()));
            match self.commit(together, WriteClass::Bulk).await {
                Ok(committed) => done = committed.messages_inserted,
                Err(error) if error.is_conflict() || error.is_not_found() => {
                    for round in rounds {
                        let alone = ChangeSet::one(Change::InsertMessages(vec![round]));
                        match self.commit(alone, WriteClass::Bulk).await {
                            Ok(committed) => done += committed.messages_inserted,
                            // A later step has begun, or it is not what it was when it was read.
                            Err(error) if error.is_conflict() || error.is_not_found() => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        resent.resent += done;
        resent.left += asked - done;
        self.core.wake.plan();
        Ok(())
    }

    async fn open_to_enrol(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        by: &EnrolBy,
    ) -> Result<SequenceWithSteps, HandleError> {
        let of = self.owned_sequence(scope, id).await?;
        may_go_on(&of.sequence, "entered")?;
        entry_step(&of, by)?;
        Ok(of)
    }

    /// The device of leads that are made for numbers.
    async fn device_for_numbers(
        &self,
        scope: &RequestScope,
        sequence: &Sequence,
        by: &EnrolBy,
    ) -> Result<Option<DeviceId>, HandleError> {
        if let Some(id) = by.device_id {
            let device = self.device_of_field(scope, "device_id", id).await??;
            return Ok(Some(device.id));
        }
        if sequence.device_id.is_some() {
            return Ok(sequence.device_id);
        }
        let devices: Vec<Device> = self.devices_of(scope).await?;
        match devices.as_slice() {
            [only] => Ok(Some(only.id)),
            _ => Ok(None),
        }
    }

    /// The lead of a number: one of the asked device first, then one that has a device, then any; else a new one.
    async fn candidate(
        &self,
        scope: &RequestScope,
        sequence: &Sequence,
        phone: Phone,
        device: Option<DeviceId>,
    ) -> Result<Row, HandleError> {
        let filter = LeadFilter {
            phone: Some(phone),
            ..LeadFilter::default()
        };
        let request = PageRequest::first(LEADS_OF_NUMBER_MAX);
        let found = self.core.store.leads(scope, &filter, &request).await?.rows;
        let rank = |lead: &&Lead| (lead.device_id != device, lead.device_id.is_none(), lead.id);
        if let Some(lead) = found.iter().min_by_key(rank) {
            return Ok(Ok(Candidate {
                lead: lead.clone(),
                created: false,
            }));
        }
        if device.is_none() && !sequence.routing.is_pool() {
            let expected = "is required for a number that is no lead yet: the sequence sends by the lead's own device";
            let error = FieldError::new("device_id", FieldCode::Required, expected);
            return Ok(Err(Enrolled::Refused { errors: vec![error] }));
        }
        let now = self.now();
        let id = LeadId::new(&self.core.ids, now);
        Ok(Ok(Candidate {
            lead: Lead::new(id, sequence.user_id, device, phone, now),
            created: true,
        }))
    }

    /// Commits the enrolments of some rows with the leads that are made for them; one answer per row.
    async fn enrol_page(&self, id: SequenceId, by: &EnrolBy, rows: Vec<Row>) -> Result<Vec<Enrolled>, HandleError> {
        // Read anew: a commit that failed may have failed because the steps changed.
        let sequences = self.core.store.sequences_by_id(&[id]).await?;
        let sequence = sequences.into_iter().find(|one| one.deleted_at.is_none());
        let sequence = sequence.ok_or(HandleError::not_found("sequence"))?;
        may_go_on(&sequence, "entered")?;
        let steps = self.core.store.steps(&[(id, sequence.steps_version)]).await?.pop();
        let of = SequenceWithSteps { sequence, steps };
        let (step_id, steps) = entry_step(&of, by)?;
        let entry = Entry {
            sequence: &of.sequence,
            steps,
            step_id,
            token: None,
        };
        let context = EnrolmentContext {
            ids: &self.core.ids,
            seed: &self.core.seed,
            now: self.now(),
        };
        let mut set = ChangeSet::default();
        let mut created = BTreeSet::new();
        let mut enrolments = Vec::new();
        let mut rows_in = Vec::with_capacity(rows.len());
        for row in rows {
            rows_in.push(match row {
                Err(answer) => Err(answer),
                Ok(Candidate { lead, created: new }) => {
                    let one = enrol(&lead, entry, context);
                    if one.enrolment.device_id.is_none() && !one.first.from_pool {
                        Err(Enrolled::NoDevice)
                    } else {
                        let lead_id = lead.id;
                        if new {
                            created.insert(lead_id);
                            set = set.and(Change::InsertLead {
                                lead: Box::new(lead),
                                on_duplicate: OnDuplicate::MergeTriggers,
                            });
                        }
                        let enrolment_id = one.enrolment.id;
                        enrolments.push(one);
                        Ok((enrolment_id, lead_id, new))
                    }
                }
            });
        }
        let results = match enrolments.is_empty() {
            true => Vec::new(),
            false => {
                let set = set.and(Change::Enrol(enrolments));
                self.commit_repeatable(set, WriteClass::Bulk).await?.enrolments
            }
        };
        let mut results = results.into_iter();
        let mut told = Vec::new();
        let answers = rows_in.into_iter().map(|row| match row {
            Err(answer) => answer,
            Ok((own, lead_id, lead_created)) => match results.next() {
                Some(EnrolResult::AlreadyIn(there)) if there != own => Enrolled::AlreadyIn { enrolment_id: there },
                Some(EnrolResult::ReEntryRefused) => Enrolled::ReEntryRefused,
                Some(EnrolResult::Suppressed) => Enrolled::Suppressed,
                // A commit whose first answer was lost finds its own enrolments.
                Some(EnrolResult::Enrolled(_) | EnrolResult::AlreadyIn(_)) | None => {
                    told.push(EventKind::EnrolmentStarted {
                        enrolment_id: own,
                        sequence_id: id,
                        lead_id,
                    });
                    Enrolled::Enrolled {
                        enrolment_id: own,
                        lead_id,
                        lead_created,
                    }
                }
            },
        });
        let answers = answers.collect();
        let user_id: UserId = of.sequence.user_id;
        let events: Vec<_> = told.into_iter().map(|kind| self.core.event(user_id, kind)).collect();
        if !events.is_empty() {
            self.core.bus.publish(&events).await;
            self.core.wake.plan();
        }
        Ok(answers)
    }

    pub(super) async fn with_flows(
        &self,
        scope: &RequestScope,
        sequence: &Sequence,
        enrolments: Vec<Enrolment>,
    ) -> Result<Vec<Contact>, HandleError> {
        let now = self.now();
        let mut rows = Vec::with_capacity(enrolments.len());
        let mut wanted: BTreeSet<(SequenceId, i32)> = BTreeSet::new();
        for enrolment in enrolments {
            let filter = MessageFilter {
                scope: Some(MessageScope::Sequence(enrolment.sequence_id)),
                enrolment_id: Some(enrolment.id),
                ..MessageFilter::default()
            };
            // One message per step, and there are at most 400 in a version: what edits add fits on the page.
            let page = self
                .core
                .store
                .messages(scope, &filter, &PageRequest::first(PAGE_MAX))
                .await?;
            wanted.insert((enrolment.sequence_id, enrolment.steps_version));
            let flows = page.rows.iter().filter_map(|message| message.flow);
            wanted.extend(flows.map(|flow| (enrolment.sequence_id, flow.steps_version)));
            rows.push((enrolment, page.rows));
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        let versions = match wanted.is_empty() {
            true => Vec::new(),
            false => self.core.store.steps(&wanted).await?,
        };
        let leads: Vec<LeadId> = rows.iter().map(|(enrolment, _)| enrolment.lead_id).collect();
        let leads = self.core.store.leads_by_id(sequence.user_id, &leads).await?;
        let names: BTreeMap<LeadId, String> = leads.into_iter().map(|lead| (lead.id, lead.name)).collect();
        let contacts = rows.into_iter().map(|(enrolment, messages)| Contact {
            name: names.get(&enrolment.lead_id).cloned().unwrap_or_default(),
            flows: flows(&enrolment, &messages, &versions, sequence, now),
            enrolment,
        });
        Ok(contacts.collect())
    }
}

fn may_go_on(sequence: &Sequence, done: &str) -> Result<(), HandleError> {
    use SequenceStatus::{Active, Paused};
    match sequence.status {
        Active | Paused => Ok(()),
        _ => Err(wrong_status(sequence, done, &[Active, Paused])),
    }
}

/// The step at which people enter by hand.
fn entry_step<'a>(of: &'a SequenceWithSteps, by: &EnrolBy) -> Result<(StepId, &'a SequenceSteps), HandleError> {
    let steps = of.steps.as_ref();
    let step = match by.step_id {
        None => steps.and_then(SequenceSteps::first_entry),
        Some(id) => steps.and_then(|steps| steps.step(id)).filter(|step| step.entry_point),
    };
    match (step, steps) {
        (Some(step), Some(steps)) => Ok((step.id, steps)),
        _ => {
            let expected = "must be an entry point of the sequence";
            Err(FieldError::new("step_id", FieldCode::NotFound, expected).into())
        }
    }
}

/// The word of a state, as the API writes it.
const fn word(state: EnrolmentState) -> &'static str {
    match state {
        EnrolmentState::Open => "open",
        EnrolmentState::Completed => "completed",
        EnrolmentState::Ended => "ended",
    }
}
