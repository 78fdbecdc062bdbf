//! Sequences: written, activated, stopped, edited while they run.

use std::collections::{BTreeMap, BTreeSet};

use super::{COMMIT_TRIES_MAX, Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::content::Media;
use crate::domain::enrolment::EnrolmentState;
use crate::domain::platform::Platform;
use crate::domain::sequence::{Sequence, SequenceReason, SequenceStatus, SequenceSteps, Step, StepMove, step_move};
use crate::domain::token::Token;
use crate::event::EventKind;
use crate::id::{LeadId, MessageId, SequenceId, StepId, UserId};
use crate::plan::preview::{PreviewContext, Written, preview};
use crate::plan::sequence_request::{
    SequenceContext, WithSteps, edited_sequence, new_sequence, step_warnings, unready,
};
use crate::plan::{FieldCode, FieldError, Preview, Problems, SequenceDraft, SequenceEdit, Warning, WarningCode};
use crate::store::{Change, ChangeSet, Page, PageRequest, SequenceFilter, Span, StoreErrorKind, WriteClass};

/// A sequence with its newest steps.
#[derive(Debug, Clone)]
pub struct SequenceWithSteps {
    /// The sequence.
    pub sequence: Sequence,
    /// Its newest steps; `None` while it has none.
    pub steps: Option<SequenceSteps>,
}

impl SequenceWithSteps {
    /// The steps, none while it has none.
    #[must_use]
    pub fn list(&self) -> &[Step] {
        self.steps.as_ref().map_or(&[], |version| &version.steps)
    }

    /// The trigger by which leads enter first.
    #[must_use]
    pub fn trigger(&self) -> Option<&Token> {
        Some(&self.steps.as_ref()?.first_entry()?.trigger)
    }

    /// The next trigger of the step at a place from 0: that of the step that follows, of the last one its own.
    #[must_use]
    pub fn next_trigger(&self, at: usize) -> Option<&Token> {
        let follows = self.list().get(at + 1).map(|step| &step.trigger);
        follows.or_else(|| self.list().get(at)?.next_trigger.as_ref())
    }

    /// The draft of the sequence as it is, to start an edit from.
    #[must_use]
    pub fn draft(&self) -> SequenceDraft {
        SequenceDraft::of(&self.sequence, self.steps.as_ref())
    }
}

/// A sequence as it was saved, with what a person should know of it.
#[derive(Debug, Clone)]
pub struct SavedSequence {
    /// The sequence with its steps.
    pub saved: SequenceWithSteps,
    /// What does not keep it from being saved.
    pub warnings: Vec<Warning>,
}

/// What an edit would change for those who stand at one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditEffect {
    /// The version of the steps that they are listed from.
    pub steps_version: i32,
    /// The step that is active for them; they get it as it is.
    pub step_id: StepId,
    /// How many open enrolments stand there.
    pub enrolments: u64,
    /// What they get afterwards, and what comes and goes by the edit.
    pub moves: StepMove,
}

/// What an edit would do.
#[derive(Debug, Clone)]
pub struct EditPreview {
    /// The steps as they would be; ids of new ones are made up for this preview. `None` when steps do not change.
    pub steps: Option<SequenceSteps>,
    /// Steps of the newest version that would be removed.
    pub removed: Vec<StepId>,
    /// Steps that would be new, by their ids in `steps`.
    pub added: Vec<StepId>,
    /// Steps that stay with another text, time, trigger or wait.
    pub changed: Vec<StepId>,
    /// For whom, by where they stand; nobody is left out whose next steps change.
    pub effects: Vec<EditEffect>,
    /// As when it is saved.
    pub warnings: Vec<Warning>,
}

/// Whether a sequence may become active although no sequence has its next trigger as an entry point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OpenEnd {
    /// It is refused.
    #[default]
    Refuse,
    /// It becomes active: leads get the trigger, and nobody is there to take them.
    Allow,
}

/// What the deletion of a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceDeleted {
    /// Open enrolments that end with it: nothing more of them is sent from now on.
    pub enrolments_ended: u64,
}

const COPY_MARK: &str = " (copy)";

impl Handle {
    /// Creates a sequence as a draft, with or without steps.
    ///
    /// # Errors
    /// `Invalid` for fields, also a device that is not the user's and media that a device of the sequence cannot carry.
    pub async fn create_sequence(
        &self,
        scope: &RequestScope,
        draft: &SequenceDraft,
    ) -> Result<SavedSequence, HandleError> {
        let user_id = Self::owner(scope, "sequence")?;
        let settings = self.settings(user_id).await?;
        let now = self.now();
        let context = SequenceContext {
            settings: &settings,
            ids: &self.core.ids,
            wait_min: self.core.config.step_wait_min,
            now,
        };
        let id = SequenceId::new(&self.core.ids, now);
        let (planned, mut problems) = new_sequence(draft, id, user_id, context);
        let warnings = self.check_sequence(scope, &planned, None, &mut problems).await?;
        let (sequence, steps) = problems.give(planned)?;
        self.insert_sequence(&sequence, steps.as_ref()).await?;
        let saved = self.sequence(scope, id).await?;
        Ok(SavedSequence { saved, warnings })
    }

    /// A sequence with its newest steps.
    ///
    /// # Errors
    /// `NotFound` when there is no such sequence.
    pub async fn sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<SequenceWithSteps, HandleError> {
        let sequence = self.core.store.sequence(scope, id).await?;
        let mut with_steps = self.with_steps(vec![sequence]).await?;
        with_steps.pop().ok_or(HandleError::not_found("sequence"))
    }

    /// A page of sequences with their newest steps, newest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sequences(
        &self,
        scope: &RequestScope,
        filter: &SequenceFilter,
        page: &PageRequest<SequenceId>,
    ) -> Result<Page<SequenceWithSteps, SequenceId>, HandleError> {
        let page = self.core.store.sequences(scope, filter, page).await?;
        Ok(Page {
            rows: self.with_steps(page.rows).await?,
            next: page.next,
        })
    }

    /// Edits a sequence in any status; its steps become a new version where they change. Who runs through it gets the active step
    /// as it was, and the new version from the next step on.
    ///
    /// # Errors
    /// `Invalid` for fields; `Conflict` when it was changed in the meantime.
    pub async fn edit_sequence(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        edit: &SequenceEdit,
    ) -> Result<SavedSequence, HandleError> {
        let (_, (sequence, steps), warnings) = self.planned_edit(scope, id, edit).await?;
        let version = sequence.version;
        let set = ChangeSet::one(Change::UpdateSequence {
            sequence: Box::new(sequence),
            steps: steps.map(Box::new),
        });
        match self.commit(set, WriteClass::Api).await {
            Ok(_) => {}
            Err(error) if error.is_conflict() => {
                let current = self.core.store.sequence(scope, id).await?;
                return Err(HandleError::stale("sequence", version, current.version));
            }
            Err(error) => return Err(error.into()),
        }
        self.core.wake.plan();
        let saved = self.sequence(scope, id).await?;
        Ok(SavedSequence { saved, warnings })
    }

    /// What an edit would change, and for how many of those who run through the sequence now.
    ///
    /// # Errors
    /// As [`edit_sequence`](Self::edit_sequence).
    pub async fn preview_sequence_edit(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        edit: &SequenceEdit,
    ) -> Result<EditPreview, HandleError> {
        let (before, (_, steps), warnings) = self.planned_edit(scope, id, edit).await?;
        let mut preview = EditPreview {
            steps,
            removed: Vec::new(),
            added: Vec::new(),
            changed: Vec::new(),
            effects: Vec::new(),
            warnings,
        };
        let Some(to) = &preview.steps else { return Ok(preview) };
        let old = before.list();
        let gone = old.iter().filter(|step| to.step(step.id).is_none());
        preview.removed = gone.map(|step| step.id).collect();
        for step in &to.steps {
            match old.iter().find(|one| one.id == step.id) {
                None => preview.added.push(step.id),
                Some(one) if one != step => preview.changed.push(step.id),
                Some(_) => {}
            }
        }
        preview.effects = self.effects(scope, &before.sequence, to).await?;
        Ok(preview)
    }

    /// Makes a draft with the settings and steps of a sequence.
    ///
    /// # Errors
    /// `NotFound` when there is no such sequence.
    pub async fn clone_sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<SequenceWithSteps, HandleError> {
        let of = self.owned_sequence(scope, id).await?;
        let now = self.now();
        let name: String = of
            .sequence
            .name
            .chars()
            .take(Sequence::NAME_MAX - COPY_MARK.len())
            .collect();
        let copy_id = SequenceId::new(&self.core.ids, now);
        let blank = Sequence::draft(copy_id, of.sequence.user_id, name + COPY_MARK, now);
        let steps = of.steps.map(|version| SequenceSteps {
            sequence_id: copy_id,
            version: 1,
            steps: version
                .steps
                .into_iter()
                .map(|step| Step {
                    id: StepId::new(&self.core.ids, now),
                    ..step
                })
                .collect(),
        });
        let copy = Sequence {
            id: blank.id,
            name: blank.name,
            status: blank.status,
            reason: blank.reason,
            status_at: blank.status_at,
            steps_version: i32::from(steps.is_some()),
            cursor: blank.cursor,
            started_at: None,
            resumed_at: None,
            paused_at: None,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            version: blank.version,
            ..of.sequence
        };
        self.insert_sequence(&copy, steps.as_ref()).await?;
        self.sequence(scope, copy_id).await
    }

    /// Activates a draft, or a sequence that is paused or inactive: leads that match enrol, and steps are sent.
    ///
    /// # Errors
    /// `Invalid` when it lacks something, or nobody has its next trigger and `open_end` does not allow that; `Conflict` when
    /// it is active.
    pub async fn activate_sequence(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        open_end: OpenEnd,
    ) -> Result<SavedSequence, HandleError> {
        use SequenceStatus::{Active, Draft, Inactive, Paused};
        const FROM: &[SequenceStatus] = &[Draft, Paused, Inactive];
        let before = self.owned_sequence(scope, id).await?;
        if before.sequence.status == Active {
            return Err(wrong_status(&before.sequence, "activated", FROM));
        }
        let mut problems = Problems::default();
        problems.extend(unready(before.steps.as_ref()));
        let planned = (before.sequence, before.steps);
        // Media are looked at again: they may be gone since it was saved.
        let warnings = self.check_sequence(scope, &planned, None, &mut problems).await?;
        let nobody = |warning: &Warning| warning.code == WarningCode::NobodyHasTrigger;
        if open_end == OpenEnd::Refuse
            && warnings.iter().any(nobody)
            && self.chained_to(&planned.0, planned.1.as_ref()).await?.is_empty()
        {
            let at = planned
                .1
                .as_ref()
                .map_or(0, |version| version.steps.len().saturating_sub(1));
            let expected = "must be an entry point of another sequence, unless the end is left open on purpose";
            problems.add(format!("steps[{at}].next_trigger"), FieldCode::NotFound, expected);
        }
        problems.give(())?;
        let sequence = self
            .set_sequence_status(scope, &planned.0, "activated", FROM, Active, None)
            .await?;
        Ok(SavedSequence {
            saved: SequenceWithSteps {
                sequence,
                steps: planned.1,
            },
            warnings,
        })
    }

    /// Pauses an active sequence: from the return of this call no further send of it begins. Leads that match meanwhile enrol when
    /// it is resumed.
    ///
    /// # Errors
    /// `Conflict` when it is not active.
    pub async fn pause_sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<Sequence, HandleError> {
        const FROM: &[SequenceStatus] = &[SequenceStatus::Active];
        let before = self.owned_sequence(scope, id).await?.sequence;
        let reason = Some(SequenceReason::ByPerson);
        self.set_sequence_status(scope, &before, "paused", FROM, SequenceStatus::Paused, reason)
            .await
    }

    /// Lets a paused sequence go on where it stood, whoever paused it; its error rate counts anew.
    ///
    /// # Errors
    /// `Conflict` when it is not paused.
    pub async fn resume_sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<Sequence, HandleError> {
        const FROM: &[SequenceStatus] = &[SequenceStatus::Paused];
        let before = self.owned_sequence(scope, id).await?.sequence;
        self.set_sequence_status(scope, &before, "resumed", FROM, SequenceStatus::Active, None)
            .await
    }

    /// Takes a sequence out of use: it stands still as when paused, and is listed apart. Activating it goes on where it stood.
    ///
    /// # Errors
    /// `Conflict` when it is neither active nor paused.
    pub async fn deactivate_sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<Sequence, HandleError> {
        const FROM: &[SequenceStatus] = &[SequenceStatus::Active, SequenceStatus::Paused];
        let before = self.owned_sequence(scope, id).await?.sequence;
        let reason = Some(SequenceReason::ByPerson);
        self.set_sequence_status(scope, &before, "deactivated", FROM, SequenceStatus::Inactive, reason)
            .await
    }

    /// Deletes a sequence in any status: nothing of it begins any more, and its open enrolments end. Its numbers and messages
    /// stay in the history of its leads.
    ///
    /// # Errors
    /// `NotFound` when there is no such sequence.
    pub async fn delete_sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<SequenceDeleted, HandleError> {
        let sequence = self.owned_sequence(scope, id).await?.sequence;
        let counts = self.core.store.sequence_counts(scope, id, &Span::default()).await?;
        let open = counts.enrolments.iter().filter(|row| row.state == EnrolmentState::Open);
        let enrolments_ended = open.map(|row| row.count).sum();
        let delete = Change::DeleteSequence {
            user_id: sequence.user_id,
            sequence_id: id,
        };
        self.commit(ChangeSet::one(delete), WriteClass::Api).await?;
        self.core.wake.plan();
        Ok(SequenceDeleted { enrolments_ended })
    }

    /// What a lead would receive by a step, through the device that would send it.
    ///
    /// # Errors
    /// `NotFound` for sequence, step or lead; `Invalid` for a text that cannot be sent as it is written.
    pub async fn preview_step(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        step: StepId,
        lead: LeadId,
    ) -> Result<Preview, HandleError> {
        let SequenceWithSteps { sequence, steps } = self.sequence(scope, id).await?;
        let step = steps.as_ref().and_then(|version| version.step(step));
        let step = step.ok_or(HandleError::not_found("step"))?;
        let lead = self.core.store.lead(scope, lead).await?;
        let own = lead.device_id.filter(|_| !sequence.routing.is_pool());
        let device = match sequence.device_id.or(own) {
            Some(id) => self.device_of_field(scope, "device_id", id).await?.ok(),
            None => None,
        };
        let now = self.now();
        let context = PreviewContext {
            seed: &self.core.seed,
            message: MessageId::new(&self.core.ids, now),
            at: now,
        };
        let written = Written {
            content: &step.content,
            dressing: &sequence.dressing,
            time_zone: sequence.time_zone,
        };
        let carrier = device.as_ref().and_then(|device| self.carrier(&device.platform));
        let mut preview = preview(written, &lead, carrier, &context).map_err(|error| {
            let expected = format!("cannot be sent as it is written: {error}");
            FieldError::new("message", FieldCode::Invalid, expected)
        })?;
        let person = self.person(lead.user_id, &lead.phone);
        if !self.core.store.suppressed(lead.user_id, &[person]).await?.is_empty() {
            let message = "this person must not be written to and does not enter";
            let warning = Warning::new("lead_id", WarningCode::Suppressed, message);
            preview.warnings.push(warning);
        }
        if sequence.device_id.is_none() && !sequence.routing.is_pool() && lead.device_id.is_none() {
            let message = "this lead has no device of its own and will be skipped";
            let warning = Warning::new("lead_id", WarningCode::NoDevice, message);
            preview.warnings.push(warning);
        }
        Ok(preview)
    }

    /// A sequence that a scope may change as a whole.
    pub(super) async fn owned_sequence(
        &self,
        scope: &RequestScope,
        id: SequenceId,
    ) -> Result<SequenceWithSteps, HandleError> {
        Self::owner(scope, "sequence")?;
        self.sequence(scope, id).await
    }

    async fn with_steps(&self, sequences: Vec<Sequence>) -> Result<Vec<SequenceWithSteps>, HandleError> {
        let wanted = sequences.iter().filter(|sequence| sequence.steps_version > 0);
        let wanted: Vec<_> = wanted.map(|one| (one.id, one.steps_version)).collect();
        let mut found: BTreeMap<SequenceId, SequenceSteps> = match wanted.is_empty() {
            true => BTreeMap::new(),
            false => {
                let found = self.core.store.steps(&wanted).await?;
                found.into_iter().map(|steps| (steps.sequence_id, steps)).collect()
            }
        };
        let with_steps = sequences.into_iter().map(|sequence| SequenceWithSteps {
            steps: found.remove(&sequence.id),
            sequence,
        });
        Ok(with_steps.collect())
    }

    async fn insert_sequence(&self, sequence: &Sequence, steps: Option<&SequenceSteps>) -> Result<(), HandleError> {
        let insert = Change::InsertSequence {
            sequence: Box::new(sequence.clone()),
            steps: steps.cloned().map(Box::new),
        };
        self.commit(ChangeSet::one(insert), WriteClass::Api).await?;
        Ok(())
    }

    /// An edit as it would be saved, with the sequence as it is.
    async fn planned_edit(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        edit: &SequenceEdit,
    ) -> Result<(SequenceWithSteps, WithSteps, Vec<Warning>), HandleError> {
        let before = self.owned_sequence(scope, id).await?;
        if before.sequence.version != edit.version {
            return Err(HandleError::stale("sequence", edit.version, before.sequence.version));
        }
        let settings = self.settings(before.sequence.user_id).await?;
        let context = SequenceContext {
            settings: &settings,
            ids: &self.core.ids,
            wait_min: self.core.config.step_wait_min,
            now: self.now(),
        };
        let steps = before.steps.as_ref();
        let (planned, mut problems) = edited_sequence(&edit.draft, (&before.sequence, steps), context);
        // What is saved are the new steps if there are, and the newest ones otherwise.
        let whole = (planned.0.clone(), planned.1.as_ref().or(steps).cloned());
        let warnings = self.check_sequence(scope, &whole, Some(&before), &mut problems).await?;
        Ok((before, problems.give(planned)?, warnings))
    }

    async fn effects(
        &self,
        scope: &RequestScope,
        sequence: &Sequence,
        to: &SequenceSteps,
    ) -> Result<Vec<EditEffect>, HandleError> {
        let counts = self
            .core
            .store
            .sequence_counts(scope, sequence.id, &Span::default())
            .await?;
        let mut standing: BTreeMap<(i32, StepId), u64> = BTreeMap::new();
        for row in counts.enrolments.iter().filter(|row| row.state == EnrolmentState::Open) {
            *standing.entry((row.steps_version, row.step_id)).or_default() += row.count;
        }
        let versions: BTreeSet<i32> = standing.keys().map(|(version, _)| *version).collect();
        let wanted: Vec<_> = versions.into_iter().map(|version| (sequence.id, version)).collect();
        let versions = match wanted.is_empty() {
            true => Vec::new(),
            false => self.core.store.steps(&wanted).await?,
        };
        let effects = standing.into_iter().filter_map(|((version, step_id), enrolments)| {
            let from = versions.iter().find(|steps| steps.version == version)?;
            let place = from.position(step_id)?;
            let passed = from.steps[..=place].iter().map(|step| step.id).collect();
            Some(EditEffect {
                steps_version: version,
                step_id,
                enrolments,
                moves: step_move(from, step_id, to, &passed),
            })
        });
        Ok(effects.collect())
    }

    /// Looks at the device and the media that a sequence names, and gathers what to warn of.
    async fn check_sequence(
        &self,
        scope: &RequestScope,
        (sequence, steps): &WithSteps,
        before: Option<&SequenceWithSteps>,
        problems: &mut Problems,
    ) -> Result<Vec<Warning>, HandleError> {
        let mut devices = Vec::new();
        if let Some(id) = sequence.device_id {
            match self.device_of_field(scope, "device_id", id).await? {
                Ok(device) => devices.push(device),
                Err(error) => problems.push(error),
            }
        } else if problems.is_empty() {
            devices = self.devices_of(scope).await?;
        }
        let platforms: BTreeSet<Platform> = devices.into_iter().map(|device| device.platform).collect();
        let carriers = self.carriers(&platforms);
        let mut warnings = Vec::new();
        if let Some(steps) = steps {
            let known: Vec<&Media> = match before {
                Some(before) if before.sequence.device_id == sequence.device_id => before
                    .list()
                    .iter()
                    .filter_map(|step| step.content.media.as_ref())
                    .collect(),
                _ => Vec::new(),
            };
            let mut seen: Vec<(&Media, Vec<FieldError>)> = Vec::new();
            for (at, step) in steps.steps.iter().enumerate() {
                let Some(media) = step.content.media.as_ref().filter(|media| !known.contains(media)) else {
                    continue;
                };
                let errors = match seen.iter().find(|(one, _)| *one == media) {
                    Some((_, errors)) => errors.clone(),
                    None => {
                        let errors = self.media_problems(sequence.user_id, media, &carriers).await;
                        seen.push((media, errors.clone()));
                        errors
                    }
                };
                problems.extend(errors.into_iter().map(|error| FieldError {
                    field: format!("steps[{at}].{}", error.field).into(),
                    ..error
                }));
            }
            warnings.extend(step_warnings(sequence, steps, &carriers));
        }
        if platforms.is_empty() {
            let message = "the user has no device that could send it";
            warnings.push(Warning::new("device_id", WarningCode::NoDevice, message));
        }
        if problems.is_empty() {
            warnings.extend(self.trigger_warnings(sequence, steps.as_ref()).await?);
        }
        Ok(warnings)
    }

    /// Whether the last step leads anywhere, and whether another sequence takes the same leads.
    async fn trigger_warnings(
        &self,
        sequence: &Sequence,
        steps: Option<&SequenceSteps>,
    ) -> Result<Vec<Warning>, HandleError> {
        let Some(steps) = steps else { return Ok(Vec::new()) };
        let mut warnings = Vec::new();
        let chained = self.chained_to(sequence, Some(steps)).await?;
        if let Some((last, next)) = last_trigger(steps)
            && !chained.iter().any(|other| other.status == SequenceStatus::Active)
        {
            let message = match chained.first() {
                Some(other) => format!("{next} is an entry point of {}, which is not active", other.name),
                None => format!("no sequence has {next} as an entry point: nobody goes on from here"),
            };
            let field = format!("steps[{last}].next_trigger");
            warnings.push(Warning::new(field, WarningCode::NobodyHasTrigger, message));
        }
        let own: Vec<Token> = steps.entry_points().map(|(token, _)| token.clone()).collect();
        for (token, other) in self.entered_by(sequence.user_id, &own).await? {
            if other.id == sequence.id || other.status != SequenceStatus::Active {
                continue;
            }
            let at = steps.steps.iter().position(|step| step.trigger == token).unwrap_or(0);
            let message = format!("leads with {token} enter {} too", other.name);
            let field = format!("steps[{at}].trigger");
            warnings.push(Warning::new(field, WarningCode::SharedTrigger, message));
        }
        Ok(warnings)
    }

    /// The other sequences, in any status, to which the last step leads.
    async fn chained_to(
        &self,
        sequence: &Sequence,
        steps: Option<&SequenceSteps>,
    ) -> Result<Vec<Sequence>, HandleError> {
        let Some((_, next)) = steps.and_then(last_trigger) else {
            return Ok(Vec::new());
        };
        let found = self.entered_by(sequence.user_id, std::slice::from_ref(next)).await?;
        let others = found.into_iter().map(|(_, other)| other);
        Ok(others.filter(|other| other.id != sequence.id).collect())
    }

    /// The sequences of a user that have one of these tokens as an entry point of their newest steps.
    async fn entered_by(&self, user: UserId, tokens: &[Token]) -> Result<Vec<(Token, Sequence)>, HandleError> {
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.core.store.sequences_by_entry(user, tokens).await?;
        let mut entered = Vec::new();
        for SequenceWithSteps { sequence, steps } in self.with_steps(found).await? {
            // The store also tells those that have the token as a niche.
            let own: BTreeSet<Token> = steps
                .iter()
                .flat_map(SequenceSteps::entry_points)
                .map(|(token, _)| token.clone())
                .collect();
            let hit = tokens.iter().filter(|token| own.contains(token));
            entered.extend(hit.map(|token| (token.clone(), sequence.clone())));
        }
        Ok(entered)
    }

    async fn set_sequence_status(
        &self,
        scope: &RequestScope,
        sequence: &Sequence,
        done: &'static str,
        from: &'static [SequenceStatus],
        to: SequenceStatus,
        reason: Option<SequenceReason>,
    ) -> Result<Sequence, HandleError> {
        let kind = EventKind::SequenceStatus {
            sequence_id: sequence.id,
            status: to,
            reason,
        };
        let set = ChangeSet::one(Change::SetSequenceStatus {
            user_id: sequence.user_id,
            sequence_id: sequence.id,
            from,
            to,
            reason,
        })
        .tell(self.core.event(sequence.user_id, kind));
        let mut tries = 1;
        loop {
            match self.commit(set.clone(), WriteClass::Api).await {
                Ok(_) => break,
                Err(error) if error.kind == StoreErrorKind::Unavailable && tries < COMMIT_TRIES_MAX => tries += 1,
                Err(error) if error.is_conflict() => {
                    let current = self.core.store.sequence(scope, sequence.id).await?;
                    // A first try whose answer was lost did it.
                    if tries > 1 && current.status == to {
                        break;
                    }
                    return Err(wrong_status(&current, done, from));
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.core.wake.plan();
        Ok(self.core.store.sequence(scope, sequence.id).await?)
    }
}

/// The next trigger of the last step, with the place of that.
fn last_trigger(steps: &SequenceSteps) -> Option<(usize, &Token)> {
    let last = steps.steps.len().checked_sub(1)?;
    Some((last, steps.steps[last].next_trigger.as_ref()?))
}

/// The word of a status, as the API writes it.
pub(super) const fn word(status: SequenceStatus) -> &'static str {
    match status {
        SequenceStatus::Draft => "draft",
        SequenceStatus::Active => "active",
        SequenceStatus::Paused => "paused",
        SequenceStatus::Inactive => "inactive",
    }
}

pub(super) fn wrong_status(sequence: &Sequence, done: &str, allowed: &[SequenceStatus]) -> HandleError {
    let allowed: Vec<_> = allowed.iter().map(|status| word(*status)).collect();
    let why = format!(
        "it is {}; only sequences that are {} can be {done}",
        word(sequence.status),
        allowed.join(" or ")
    );
    HandleError::conflict("sequence", why)
}
