//! What the messages of sequences are made from, and where their enrolments go afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::node::Engine;
use super::render::ContentSource;
use crate::domain::content::Template;
use crate::domain::enrolment::{Enrolment, EnrolmentState, FlowRef};
use crate::domain::message::{MessageScope, MessageState};
use crate::domain::schedule::{LatePolicy, Quiet};
use crate::domain::sequence::{Sequence, SequenceSteps, Step};
use crate::id::{EnrolmentId, SequenceId};
use crate::plan::enrolment::{Course, EnrolmentContext, Followed, StepEnd, follow};
use crate::store::{Advance, DueFlow, StoreError, Verdict};
use crate::time::Timestamp;

/// Names one version of the steps of a sequence.
pub(crate) type StepsVersion = (SequenceId, i32);

/// One version of the steps of a sequence, with its texts parsed once.
#[derive(Debug)]
pub(crate) struct ParsedSteps {
    pub(crate) steps: SequenceSteps,
    /// In the order of the steps; `None` for a text that cannot be parsed.
    templates: Vec<Option<Template>>,
}

impl ParsedSteps {
    fn new(steps: SequenceSteps) -> Self {
        let templates = steps.steps.iter().map(|step| step.content.template().ok()).collect();
        Self { steps, templates }
    }
}

/// Versions of steps that were read. A version never changes, so none is ever read again while it is kept.
#[derive(Debug, Default)]
pub(crate) struct StepsCache {
    versions: BTreeMap<StepsVersion, Arc<ParsedSteps>>,
    step_count: usize,
}

impl StepsCache {
    /// How many steps are kept, over all versions.
    const COUNT_MAX: usize = 20_000;

    fn insert(&mut self, steps: SequenceSteps) -> Arc<ParsedSteps> {
        if self.step_count > Self::COUNT_MAX {
            self.versions.clear();
            self.step_count = 0;
        }
        self.step_count += steps.steps.len();
        let parsed = Arc::new(ParsedSteps::new(steps));
        let version = (parsed.steps.sequence_id, parsed.steps.version);
        self.versions.insert(version, Arc::clone(&parsed));
        parsed
    }
}

/// Sequences as they stand, with the versions of steps that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    pub(crate) by_id: BTreeMap<SequenceId, Arc<Sequence>>,
    pub(crate) steps: BTreeMap<StepsVersion, Arc<ParsedSteps>>,
}

impl Sequences {
    /// The newest steps of a sequence.
    pub(crate) fn newest(&self, sequence: &Sequence) -> Option<&Arc<ParsedSteps>> {
        self.steps.get(&(sequence.id, sequence.steps_version))
    }
}

/// What was read for the messages of sequences that are at the head of lanes or in doubt.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    sequences: Sequences,
    enrolments: BTreeMap<EnrolmentId, Enrolment>,
}

impl Flows {
    /// What a message is made from; `None` when it belongs to no sequence.
    pub(crate) fn source(&self, scope: MessageScope, round: u16, due: Option<&DueFlow>) -> Option<Arc<FlowSource>> {
        let (MessageScope::Sequence(id), Some(due)) = (scope, due) else {
            return None;
        };
        let flow = due.flow;
        let sequence = self.sequences.by_id.get(&id)?;
        let steps = self.sequences.steps.get(&(id, flow.steps_version))?;
        Some(Arc::new(FlowSource {
            round,
            due: due.clone(),
            place: steps.steps.position(flow.step_id)?,
            sequence: Arc::clone(sequence),
            steps: Arc::clone(steps),
            enrolment: self.enrolments.get(&flow.enrolment_id).cloned(),
        }))
    }
}

/// What the message of a flow is made from.
#[derive(Debug)]
pub(crate) struct FlowSource {
    round: u16,
    due: DueFlow,
    pub(crate) sequence: Arc<Sequence>,
    steps: Arc<ParsedSteps>,
    /// Of its step, in the version that the message has.
    place: usize,
    enrolment: Option<Enrolment>,
}

impl FlowSource {
    fn step(&self) -> &Step {
        &self.steps.steps.steps[self.place]
    }

    /// Its text and picture, dressed as its sequence says.
    pub(crate) fn content(&self) -> ContentSource<'_> {
        ContentSource {
            template: self.steps.templates[self.place].as_ref(),
            content: &self.step().content,
            dressing: &self.sequence.dressing,
            zone: self.sequence.time_zone,
        }
    }

    /// The quiet hours that it keeps.
    pub(crate) fn quiet(&self) -> Option<Quiet> {
        let hours = self.sequence.quiet_hours?;
        let zone = self.sequence.time_zone;
        Some(Quiet { hours, zone })
    }

    /// Whether it is skipped because nobody was there when it was due: it was so long before `taken_at`, when this node took
    /// over the lane. Time on hold does not count, which is why its expiry, moved by that, tells when it was due.
    pub(crate) fn is_late(&self, expires_at: Timestamp, taken_at: Timestamp, grace: Duration) -> bool {
        let due_at = self.due.due_at.max(expires_at - self.sequence.expires_after);
        self.sequence.late_policy == LatePolicy::Skip && due_at + grace < taken_at
    }

    /// Where its enrolment may go when the message is settled, as far as that can be told before.
    ///
    /// Only where the enrolment has the newest steps: what an edit means for it needs the steps that it has had, and is planned
    /// from its mark.
    pub(crate) fn next(self: Arc<Self>) -> Option<FlowNext> {
        let FlowRef {
            step_id, steps_version, ..
        } = self.due.flow;
        let enrolment = self.enrolment.as_ref()?;
        let stands = enrolment.state == EnrolmentState::Open
            && enrolment.step_id == step_id
            && enrolment.steps_version == steps_version;
        let newest = self.sequence.steps_version == steps_version && self.sequence.deleted_at.is_none();
        (self.round == 0 && stands && newest).then_some(FlowNext(self))
    }
}

/// A message of a flow on its way, with what its enrolment does next.
#[derive(Debug)]
pub(crate) struct FlowNext(Arc<FlowSource>);

impl FlowNext {
    /// The move that an outcome asks for: to a next step, or none. What else may follow is planned from the mark.
    pub(crate) fn advance(&self, verdict: &Verdict, attempted_at: Timestamp, core: &Core) -> Option<Box<Advance>> {
        let now = core.now();
        let (state, reason, at) = match verdict {
            Verdict::Sent { .. } => (MessageState::Sent, None, attempted_at),
            Verdict::Unknown { reason } => (MessageState::Unknown, Some(*reason), attempted_at),
            Verdict::Failed { reason } => (MessageState::Failed, Some(*reason), now),
            Verdict::Skipped { reason } => (MessageState::Skipped, Some(*reason), now),
            Verdict::Requeue { .. } | Verdict::InDoubt { .. } => return None,
        };
        let FlowSource {
            sequence,
            steps,
            enrolment,
            due,
            ..
        } = &*self.0;
        let end = StepEnd {
            name: &due.name,
            state,
            reason,
            at,
        };
        let course = Course {
            sequence,
            from: &steps.steps,
            to: &steps.steps,
            passed: &BTreeSet::new(),
        };
        let context = EnrolmentContext {
            ids: &core.ids,
            seed: &core.seed,
            now,
        };
        match follow(enrolment.as_ref()?, end, course, context) {
            Followed::Advance(advance) => Some(advance),
            Followed::Complete { .. } | Followed::End(_) => None,
        }
    }
}

impl Engine {
    /// Versions of steps, from what was read before or from the store; those that do not exist are left out.
    pub(crate) async fn steps_of(
        &self,
        wanted: impl IntoIterator<Item = StepsVersion>,
    ) -> Result<BTreeMap<StepsVersion, Arc<ParsedSteps>>, StoreError> {
        let mut found = BTreeMap::new();
        let mut missing = BTreeSet::new();
        {
            let state = self.state();
            for version in wanted {
                match state.steps.versions.get(&version) {
                    Some(known) => drop(found.insert(version, Arc::clone(known))),
                    None => drop(missing.insert(version)),
                }
            }
        }
        if !missing.is_empty() {
            let missing: Vec<_> = missing.into_iter().collect();
            let read = self.core.store.steps(&missing).await?;
            let mut state = self.state();
            for steps in read {
                let version = (steps.sequence_id, steps.version);
                found.insert(version, state.steps.insert(steps));
            }
        }
        Ok(found)
    }

    /// Sequences as they stand, with their newest steps and those asked for.
    pub(crate) async fn sequences_of(
        &self,
        sequences: Vec<Sequence>,
        versions: impl IntoIterator<Item = StepsVersion>,
    ) -> Result<Sequences, StoreError> {
        let newest = sequences.iter().map(|sequence| (sequence.id, sequence.steps_version));
        let wanted: BTreeSet<_> = newest.chain(versions).filter(|(_, version)| *version > 0).collect();
        let steps = self.steps_of(wanted).await?;
        let by_id = sequences.into_iter().map(|one| (one.id, Arc::new(one))).collect();
        Ok(Sequences { by_id, steps })
    }

    /// What the messages of sequences among these are made from.
    pub(crate) async fn flows_of(
        &self,
        messages: impl Iterator<Item = (MessageScope, FlowRef)>,
    ) -> Result<Flows, StoreError> {
        let (mut ids, mut versions, mut enrolments) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (scope, flow) in messages {
            if let MessageScope::Sequence(id) = scope {
                ids.insert(id);
                versions.insert((id, flow.steps_version));
                enrolments.insert(flow.enrolment_id);
            }
        }
        if ids.is_empty() {
            return Ok(Flows::default());
        }
        let ids: Vec<_> = ids.into_iter().collect();
        let enrolments: Vec<_> = enrolments.into_iter().collect();
        let read = self.core.store.sequences_by_id(&ids).await?;
        let sequences = self.sequences_of(read, versions).await?;
        let enrolments = self.core.store.enrolments_by_id(&enrolments).await?;
        Ok(Flows {
            sequences,
            enrolments: enrolments.into_iter().map(|one| (one.id, one)).collect(),
        })
    }
}
