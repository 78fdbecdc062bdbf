//! Reads what a forecast needs of sequences: who is in them, where, and who would enter now.

use std::collections::{BTreeMap, BTreeSet};

use super::options::{ForecastControl, ForecastOptions};
use super::report::ForecastWarningCode;
use super::snapshot::{OTHERS_MAX, Reader, Shares, Snapshot, Target};
use crate::domain::enrolment::{Enrolment, EnrolmentState};
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope, MessageState};
use crate::domain::phone::PersonKey;
use crate::domain::sequence::{MatchCursor, Sequence, SequenceStatus, SequenceSteps};
use crate::domain::summary::Numbers;
use crate::engine::core::Core;
use crate::engine::handle::HandleError;
use crate::id::{EnrolmentId, IdSource, LeadId, MessageId, SequenceId, StepId};
use crate::plan::sequence_numbers::{FlowTotals, flow_totals};
use crate::plan::{FieldCode, FieldError};
use crate::seed::Seed;
use crate::store::{
    EnrolmentFilter, MessageFilter, PAGE_MAX, PageRequest, SequenceFilter, SequenceStore, Span, SuppressionStore,
};
use crate::time::Timestamp;

/// Most leads with a mark that are looked at: an engine that works takes marks away within seconds.
const MARKED_MAX: u32 = 10_000;
/// Most enrolments whose active step is settled that are looked up one by one: an engine that works moves them on at once.
const SETTLED_MAX: usize = 1_000;
/// Most pages of earlier enrolments that are looked through for those who would enter again.
const EARLIER_PAGES_MAX: usize = 1_000;

/// A sequence as it starts in the simulation, with what is needed to tell what came of it.
#[derive(Debug)]
pub(super) struct SequenceTarget {
    pub(super) sequence: Sequence,
    /// All versions of its steps that somebody stands in, and the newest.
    pub(super) versions: Vec<SequenceSteps>,
    /// Enrolments that were open and taken over.
    pub(super) known: BTreeSet<EnrolmentId>,
    /// Earlier ones of those who would enter.
    pub(super) earlier: BTreeSet<EnrolmentId>,
    /// How many are open.
    pub(super) open: u64,
    /// Leads that match and are not in it.
    pub(super) matching: u64,
    /// Of these, who must not be written to.
    pub(super) suppressed: u64,
    /// Messages that were settled before.
    pub(super) settled_before: BTreeSet<MessageId>,
    /// What the simulated store counts before anything happens.
    pub(super) base: FlowTotals,
}

/// What was read of a sequence.
#[derive(Default)]
struct Taken {
    versions: Vec<SequenceSteps>,
    /// Who is in it, and at which step.
    open: BTreeMap<EnrolmentId, (StepId, PersonKey)>,
    /// Who would enter by the search for leads that match.
    candidates: BTreeMap<LeadId, PersonKey>,
    /// Messages that are being sent or in doubt, taken as sent; not yet in the store of the simulation.
    under_way: Vec<Message>,
    settled_before: BTreeSet<MessageId>,
}

impl Snapshot {
    /// Reads what concerns a sequence: as it stands when it is active, else as if it became active now. `before` are its
    /// numbers.
    pub(crate) async fn of_sequence(
        core: &Core,
        (sequence, steps): (&Sequence, &SequenceSteps),
        before: Numbers,
        options: &ForecastOptions,
        control: &ForecastControl,
    ) -> Result<Self, HandleError> {
        let seed = Seed::from_number(options.seed);
        let ids = IdSource::seeded(seed.digest(sequence.id.as_bytes(), "forecast ids"));
        let mut reader = Reader::open(core, sequence.user_id, options, control).await?;
        reader.keeps_triggers = true;
        let target = as_it_starts(sequence, reader.made_at);
        let resumed = !sequence.status.runs();
        let Some(mut taken) = reader.read_sequence(&target, resumed).await? else {
            return Err(reader.too_many());
        };
        for lead in reader.read_marked_leads().await? {
            if target.entry_for(&lead, steps).is_some() {
                let person = PersonKey::of(&core.seed, lead.user_id, &lead.phone);
                taken.candidates.insert(lead.id, person);
            }
        }
        let inside: BTreeSet<PersonKey> = taken.open.values().map(|(_, person)| *person).collect();
        taken.candidates.retain(|_, person| !inside.contains(person));
        if taken.open.is_empty() && taken.candidates.is_empty() {
            return Err(nobody());
        }
        let earlier = reader.read_earlier(&target, &taken).await?;
        let suppressed = reader.suppressed_of(&taken.candidates).await?;
        if matches!(sequence.status, SequenceStatus::Paused | SequenceStatus::Inactive) {
            let message = "it does not run; the forecast lets it go on now";
            reader.warn(ForecastWarningCode::Paused, message.to_owned());
        }
        if !taken.under_way.is_empty() {
            let count = taken.under_way.len();
            let message = format!("{count} messages are being sent or in doubt now; they are taken as sent");
            reader.warn(ForecastWarningCode::UnderWay, message);
        }
        let mut versions = taken.versions;
        if !versions.iter().any(|version| version.version == steps.version) {
            versions.push(steps.clone());
        }
        let all_time = Span::default();
        let counts = reader.store.sequence_counts(&reader.scope, target.id, &all_time);
        let base = flow_totals(&counts.await?, &versions);
        reader.store.load_messages(taken.under_way);

        let mut shares = vec![shares_of(&target)];
        let until = reader.made_at + options.horizon;
        reader.read_other_sequences(Some(target.id), &mut shares).await?;
        reader.read_other_campaigns(None, until, &mut shares).await?;
        let starts_at = sequence.started_at.unwrap_or(reader.made_at);
        let before = Numbers { remaining: 0, ..before };
        let of = SequenceTarget {
            versions,
            open: taken.open.len() as u64,
            known: taken.open.into_keys().collect(),
            earlier: earlier.into_iter().collect(),
            matching: taken.candidates.len() as u64,
            suppressed,
            settled_before: taken.settled_before,
            base,
            sequence: target,
        };
        reader.read_acquaintances(&shares).await?;
        Ok(reader.finish(Target::Sequence(Box::new(of)), starts_at, before, &shares, ids))
    }
}

/// The sequence as the simulation begins with it: active, and when it was not, as one that becomes so.
fn as_it_starts(sequence: &Sequence, now: Timestamp) -> Sequence {
    let mut target = sequence.clone();
    if !target.status.runs() {
        target.status = SequenceStatus::Active;
        target.reason = None;
        target.started_at.get_or_insert(now);
        target.resumed_at = Some(now);
        target.cursor = MatchCursor::Start;
    }
    target
}

fn nobody() -> HandleError {
    HandleError::Invalid(vec![FieldError::new(
        "audience",
        FieldCode::Required,
        "must not be empty: nobody is in it and no lead matches it now, so there is nothing to forecast",
    )])
}

fn shares_of(sequence: &Sequence) -> Shares {
    Shares {
        has_quiet_hours: sequence.quiet_hours.is_some(),
        is_pool: sequence.device_id.is_none() && sequence.routing.is_pool(),
        by_others: sequence.device_id.is_some() || sequence.routing.is_pool(),
    }
}

impl Reader<'_> {
    /// A sequence with who is in it and who would enter; `None` when there are too many. What is held goes on where the
    /// sequence is to run again.
    async fn read_sequence(&mut self, sequence: &Sequence, resumed: bool) -> Result<Option<Taken>, HandleError> {
        let mut taken = Taken::default();
        let mut versions = BTreeSet::from([sequence.steps_version]);
        let filter = EnrolmentFilter {
            sequence_id: Some(sequence.id),
            states: vec![EnrolmentState::Open],
            ..EnrolmentFilter::default()
        };
        let mut request = PageRequest::first(PAGE_MAX);
        loop {
            let page = self.core.store.enrolments(&self.scope, &filter, &request).await?;
            self.read_deleted(page.rows.iter().filter_map(|one| one.device_id))
                .await?;
            self.read_leads_by_id(page.rows.iter().map(|one| one.lead_id)).await?;
            let count = page.rows.len();
            for one in &page.rows {
                versions.insert(one.steps_version);
                taken.open.insert(one.id, (one.step_id, one.person));
            }
            self.store.load_enrolments(page.rows);
            if !self.took(count).await? {
                return Ok(None);
            }
            match page.next {
                Some(next) => request = PageRequest::after(next, PAGE_MAX),
                None => break,
            }
        }
        let versions: Vec<_> = versions.into_iter().map(|version| (sequence.id, version)).collect();
        taken.versions = self.core.store.steps(&versions).await?;
        self.store.load_sequence(sequence.clone(), taken.versions.clone());
        if !self.read_flows(sequence, resumed, &mut taken).await? || !self.read_matches(sequence, &mut taken).await? {
            return Ok(None);
        }
        Ok(Some(taken))
    }

    /// The messages of those who are in a sequence: the open ones, and where none is open the settled one that moves on.
    async fn read_flows(&mut self, sequence: &Sequence, resumed: bool, taken: &mut Taken) -> Result<bool, HandleError> {
        let mut stand: BTreeMap<EnrolmentId, StepId> = taken.open.iter().map(|(id, (step, _))| (*id, *step)).collect();
        let now = self.made_at;
        for states in [
            [MessageState::Queued, MessageState::Held],
            [MessageState::Sending, MessageState::InDoubt],
        ] {
            let filter = MessageFilter {
                scope: Some(MessageScope::Sequence(sequence.id)),
                states: states.to_vec(),
                ..MessageFilter::default()
            };
            let Taken { open, under_way, .. } = taken;
            let rows = self.read_messages_if(&filter, |mut message| {
                // Those of runs that have ended are about to be moved.
                let flow = message.flow.filter(|flow| open.contains_key(&flow.enrolment_id))?;
                if message.round == 0 && stand.get(&flow.enrolment_id) == Some(&flow.step_id) {
                    stand.remove(&flow.enrolment_id);
                }
                match message.state {
                    MessageState::Held if resumed => {
                        if let Some(held_at) = message.held_at.take() {
                            message.expires_at = message.expires_at + now.since(held_at);
                        }
                        message.state = MessageState::Queued;
                    }
                    MessageState::Sending | MessageState::InDoubt => {
                        message.state = MessageState::Sent;
                        message.settled_at = Some(now);
                        message.doubt = None;
                        if let Some(attempt) = &mut message.attempt {
                            attempt.text = String::new();
                        }
                        under_way.push(message);
                        return None;
                    }
                    _ => {}
                }
                Some(message)
            });
            if rows.await?.is_none() {
                return Ok(false);
            }
        }
        if stand.len() > SETTLED_MAX {
            let left_out = stand.len() - SETTLED_MAX;
            let message = format!("{left_out} contacts whose next step is not planned yet are left where they are");
            self.warn(ForecastWarningCode::LeftOut, message);
        }
        for (enrolment, step) in stand.into_iter().take(SETTLED_MAX) {
            let filter = MessageFilter {
                scope: Some(MessageScope::Sequence(sequence.id)),
                enrolment_id: Some(enrolment),
                step_id: Some(step),
                with_superseded: true,
                ..MessageFilter::default()
            };
            let page = PageRequest::first(PAGE_MAX);
            let rows = self.core.store.messages(&self.scope, &filter, &page).await?.rows;
            let settled = rows.into_iter().find(|row| row.round == 0 && !row.state.is_open());
            if let Some(mut message) = settled {
                if let Some(attempt) = &mut message.attempt {
                    attempt.text = String::new();
                }
                taken.settled_before.insert(message.id);
                self.store.load_messages(vec![message]);
            }
        }
        Ok(true)
    }

    /// The leads that a sequence has yet to be matched against.
    async fn read_matches(&mut self, sequence: &Sequence, taken: &mut Taken) -> Result<bool, HandleError> {
        let mut after = match sequence.cursor {
            MatchCursor::Done => return Ok(true),
            MatchCursor::Lead(id) => id,
            MatchCursor::Start => LeadId::MIN,
        };
        loop {
            let leads = self.core.store.match_page(sequence, after, PAGE_MAX).await?;
            let Some(last) = leads.last() else {
                return Ok(true);
            };
            after = last.id;
            let count = leads.len();
            self.take_matching(leads, &mut taken.candidates).await?;
            if !self.took(count).await? {
                return Ok(false);
            }
            if count < PAGE_MAX as usize {
                return Ok(true);
            }
        }
    }

    async fn take_matching(
        &mut self,
        leads: Vec<Lead>,
        candidates: &mut BTreeMap<LeadId, PersonKey>,
    ) -> Result<(), HandleError> {
        self.read_deleted(leads.iter().filter_map(|lead| lead.device_id))
            .await?;
        let persons = self.persons(leads.iter().map(|lead| &lead.phone));
        self.read_suppressed(&persons).await?;
        candidates.extend(leads.iter().map(|lead| lead.id).zip(persons));
        self.take_leads(leads.clone());
        if !self.keeps_triggers {
            // Matching asks for what a campaign has no use for.
            self.store.load_leads(leads);
        }
        Ok(())
    }

    /// Leads that changed and that no sequence has looked at since.
    pub(super) async fn read_marked_leads(&mut self) -> Result<Vec<Lead>, HandleError> {
        let marked = self.core.store.leads_to_match(MARKED_MAX).await?;
        if marked.len() >= MARKED_MAX as usize {
            let message = "leads that were just changed are not all counted in: there are too many of them";
            self.warn(ForecastWarningCode::LeftOut, message.to_owned());
        }
        let user = self.scope.user_id;
        let own: Vec<Lead> = marked.into_iter().filter(|lead| lead.user_id == user).collect();
        self.take_matching(own.clone(), &mut BTreeMap::new()).await?;
        let ids: Vec<LeadId> = own.iter().map(|lead| lead.id).collect();
        self.store.load_unmatched(&ids);
        Ok(own)
    }

    /// Earlier runs of those who would enter now: the sequence may not take them again.
    async fn read_earlier(&mut self, sequence: &Sequence, taken: &Taken) -> Result<Vec<EnrolmentId>, HandleError> {
        let mut found = Vec::new();
        if taken.candidates.is_empty() {
            return Ok(found);
        }
        let persons: BTreeSet<PersonKey> = taken.candidates.values().copied().collect();
        let filter = EnrolmentFilter {
            sequence_id: Some(sequence.id),
            states: vec![EnrolmentState::Completed, EnrolmentState::Ended],
            ..EnrolmentFilter::default()
        };
        let mut request = PageRequest::first(PAGE_MAX);
        for _ in 0..EARLIER_PAGES_MAX {
            let page = self.core.store.enrolments(&self.scope, &filter, &request).await?;
            let theirs = page.rows.into_iter().filter(|one| persons.contains(&one.person));
            let theirs: Vec<Enrolment> = theirs.collect();
            found.extend(theirs.iter().map(|one| one.id));
            self.store.load_enrolments(theirs);
            self.took(0).await?;
            match page.next {
                Some(next) => request = PageRequest::after(next, PAGE_MAX),
                None => return Ok(found),
            }
        }
        let message = "not all earlier contacts were looked through: some may be counted in that do not enter again";
        self.warn(ForecastWarningCode::LeftOut, message.to_owned());
        Ok(found)
    }

    async fn suppressed_of(&self, candidates: &BTreeMap<LeadId, PersonKey>) -> Result<u64, HandleError> {
        let persons: Vec<PersonKey> = candidates.values().copied().collect();
        let mut count = 0;
        for chunk in persons.chunks(PAGE_MAX as usize) {
            count += self.store.suppressed(self.scope.user_id, chunk).await?.len() as u64;
        }
        Ok(count)
    }

    /// The other active sequences of the user: their steps share the lanes, and chains lead to them.
    pub(super) async fn read_other_sequences(
        &mut self,
        target: Option<SequenceId>,
        shares: &mut Vec<Shares>,
    ) -> Result<(), HandleError> {
        let filter = SequenceFilter {
            statuses: vec![SequenceStatus::Active],
            ..SequenceFilter::default()
        };
        let mut request = PageRequest::first(PAGE_MAX);
        let mut left_out = 0_u64;
        loop {
            let page = self.core.store.sequences(&self.scope, &filter, &request).await?;
            for sequence in page.rows.iter().filter(|sequence| Some(sequence.id) != target) {
                let full = shares.len() >= OTHERS_MAX || self.read > self.options.recipients_max;
                if full || self.read_other_sequence(sequence).await?.is_none() {
                    left_out += 1;
                    continue;
                }
                shares.push(shares_of(sequence));
            }
            match page.next {
                Some(next) => request = PageRequest::after(next, PAGE_MAX),
                None => break,
            }
        }
        if left_out > 0 {
            let message =
                format!("{left_out} other sequences of the same devices were left out: there is too much in them");
            self.warn(ForecastWarningCode::LeftOut, message);
        }
        Ok(())
    }

    async fn read_other_sequence(&mut self, sequence: &Sequence) -> Result<Option<()>, HandleError> {
        let Some(taken) = self.read_sequence(sequence, false).await? else {
            return Ok(None);
        };
        self.store.load_messages(taken.under_way);
        Ok(Some(()))
    }
}
