//! The numbers of sequences: of one, of its steps and devices, and of all together.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::ahead::Pace;
use super::{Handle, HandleError, SequenceWithSteps};
use crate::domain::access::RequestScope;
use crate::domain::enrolment::EnrolmentState;
use crate::domain::pacing::{DelaySettings, Priority};
use crate::domain::schedule::Quiet;
use crate::domain::sequence::{MatchCursor, Sequence, SequenceReason, SequenceStatus, SequenceSteps};
use crate::domain::summary::{DeviceNumbers, Numbers};
use crate::domain::token::Token;
use crate::id::{DeviceId, SequenceId, StepId};
use crate::plan::enrolment::send_at;
use crate::plan::expected_end;
use crate::plan::sequence_numbers::{ContactNumbers, FlowTotals, flow_totals, success_rate};
use crate::plan::timing::next_due;
use crate::store::{PAGE_MAX, PageRequest, SequenceCounts, SequenceFilter, Span};
use crate::time::Timestamp;

/// The numbers of one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SequenceStepNumbers {
    /// The step.
    pub step_id: StepId,
    /// Its place from 0, its day and its trigger; `None` of a step that an edit removed.
    pub step: Option<(usize, u16, Token)>,
    /// What it should send in all: the sum of the others.
    pub should: u64,
    /// Its numbers.
    pub total: Numbers,
    /// By device; `None` is the pool.
    pub devices: Vec<DeviceNumbers>,
    /// The share that was sent of what was settled, 0 to 1; `None` before anything is.
    pub success_rate: Option<f64>,
}

/// The numbers of a sequence; their unit is the flow, one lead and one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SequenceNumbers {
    /// Where it stands.
    pub status: SequenceStatus,
    /// Why.
    pub reason: Option<SequenceReason>,
    /// Whether leads are still being matched since it became active or was edited, so that `should` still grows.
    pub expanding: bool,
    /// What it should send in all: the sum of the others.
    pub should: u64,
    /// Its numbers.
    pub total: Numbers,
    /// By step, in their order; then those that edits removed.
    pub steps: Vec<SequenceStepNumbers>,
    /// By device; `None` is the pool.
    pub devices: Vec<DeviceNumbers>,
    /// The runs, by where they stand.
    pub contacts: ContactNumbers,
    /// The share that was sent of what was settled, 0 to 1; `None` before anything is.
    pub success_rate: Option<f64>,
}

/// How far a sequence is, and when those who are in it now will be through.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SequenceProgress {
    /// Its numbers, of all time.
    pub numbers: SequenceNumbers,
    /// When the last of those who are in it now will be through at the latest, if things go on as they are; `None` while it is
    /// not active, or nobody is in it.
    pub expected_end_at: Option<Timestamp>,
    /// Devices with flows of it that cannot send now: offline or on hold.
    pub waiting_devices: Vec<DeviceId>,
    /// Whether flows wait in the pool and no device is there to take them.
    pub pool_waits: bool,
}

/// One sequence in the summary of all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SequenceSummary {
    /// The sequence.
    pub id: SequenceId,
    /// Its name.
    pub name: String,
    /// The trigger by which leads enter first.
    pub trigger: Option<Token>,
    /// Where it stands.
    pub status: SequenceStatus,
    /// How many steps it has.
    pub steps: usize,
    /// What it should send in all, which is how many flows it has: the sum of the others.
    pub should: u64,
    /// Its numbers.
    pub total: Numbers,
    /// The runs, by where they stand.
    pub contacts: ContactNumbers,
    /// The share that was sent of what was settled, 0 to 1; `None` before anything is.
    pub success_rate: Option<f64>,
}

/// How many sequences there are, by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SequencesByStatus {
    /// All of them.
    pub total: u64,
    /// Drafts.
    pub draft: u64,
    /// Active ones.
    pub active: u64,
    /// Paused ones.
    pub paused: u64,
    /// Those taken out of use. The API's `inactive` is `draft`, `paused` and this together.
    pub inactive: u64,
}

/// All sequences of a scope together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SequencesSummary {
    /// How many there are.
    pub sequences: SequencesByStatus,
    /// What they should send in all, which is how many flows they have.
    pub should: u64,
    /// Their numbers.
    pub total: Numbers,
    /// The runs through them.
    pub contacts: ContactNumbers,
    /// The share that was sent of what was settled, 0 to 1; `None` before anything is.
    pub success_rate: Option<f64>,
    /// Whether leads of one of them are still being matched.
    pub expanding: bool,
    /// The newest ones, as many as were asked for.
    pub recent: Vec<SequenceSummary>,
    /// Whether all are in it; the limit is 10,000 sequences.
    pub complete: bool,
}

/// Most pages of sequences that one summary adds up.
const SUMMARY_PAGES_MAX: usize = 10;

impl Handle {
    /// The numbers of a sequence, in all, by step and by device. In a span of time: what was completed in it, with what is
    /// open now.
    ///
    /// # Errors
    /// `NotFound` when there is no such sequence.
    pub async fn sequence_numbers(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        span: &Span,
    ) -> Result<SequenceNumbers, HandleError> {
        let of = self.sequence(scope, id).await?;
        let (totals, ..) = self.totals(scope, &of, span).await?;
        Ok(numbers(&of, totals))
    }

    /// How far a sequence is, and when those who are in it now will be through.
    ///
    /// # Errors
    /// `NotFound` when there is no such sequence.
    pub async fn sequence_progress(
        &self,
        scope: &RequestScope,
        id: SequenceId,
    ) -> Result<SequenceProgress, HandleError> {
        let of = self.sequence(scope, id).await?;
        let (totals, counts, versions) = self.totals(scope, &of, &Span::default()).await?;
        let mut progress = SequenceProgress {
            numbers: numbers(&of, totals),
            expected_end_at: None,
            waiting_devices: Vec::new(),
            pool_waits: false,
        };
        if !of.sequence.status.runs() || progress.numbers.total.remaining == 0 {
            return Ok(progress);
        }
        let pace = Pace {
            delay: DelaySettings {
                sequence: of.sequence.delay,
                ..DelaySettings::default()
            },
            quiet: of.sequence.quiet_hours.map(|hours| Quiet {
                hours,
                zone: of.sequence.time_zone,
            }),
            priority: Priority::Sequence,
        };
        let ahead = self.ahead(scope, &progress.numbers.devices, &pace, None).await?;
        progress.waiting_devices = ahead.waiting_devices;
        progress.pool_waits = ahead.pool_waits;
        let now = self.now();
        let open = counts.enrolments.iter().filter(|row| row.state == EnrolmentState::Open);
        let last = open.filter_map(|row| {
            let version = versions.iter().find(|one| one.version == row.steps_version)?;
            through_at(&of.sequence, version, row.step_id, now)
        });
        if let Some(last) = last.max().filter(|_| !ahead.lanes.is_empty()) {
            progress.expected_end_at = Some(last.max(expected_end(&ahead.lanes, now)));
        }
        Ok(progress)
    }

    /// All sequences of a scope together, with the numbers of the newest `recent`, at most 100.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sequences_summary(
        &self,
        scope: &RequestScope,
        span: &Span,
        recent: u32,
    ) -> Result<SequencesSummary, HandleError> {
        let recent = recent.min(100) as usize;
        let mut summary = SequencesSummary {
            sequences: SequencesByStatus::default(),
            should: 0,
            total: Numbers::default(),
            contacts: ContactNumbers::default(),
            success_rate: None,
            expanding: false,
            recent: Vec::new(),
            complete: false,
        };
        let mut request = PageRequest::first(PAGE_MAX);
        for _ in 0..SUMMARY_PAGES_MAX {
            let page = self.sequences(scope, &SequenceFilter::default(), &request).await?;
            for of in &page.rows {
                let (totals, ..) = self.totals(scope, of, span).await?;
                let one = numbers(of, totals);
                summary.add(&one);
                if summary.recent.len() < recent {
                    summary.recent.push(SequenceSummary {
                        id: of.sequence.id,
                        name: of.sequence.name.clone(),
                        trigger: of.trigger().cloned(),
                        status: of.sequence.status,
                        steps: of.list().len(),
                        should: one.should,
                        total: one.total,
                        contacts: one.contacts,
                        success_rate: one.success_rate,
                    });
                }
            }
            match page.next {
                Some(next) => request = PageRequest::after(next, PAGE_MAX),
                None => {
                    summary.complete = true;
                    break;
                }
            }
        }
        summary.should = summary.total.should();
        summary.success_rate = success_rate(&summary.total);
        Ok(summary)
    }

    /// The totals of a sequence, with the counts and the versions that they come from.
    async fn totals(
        &self,
        scope: &RequestScope,
        of: &SequenceWithSteps,
        span: &Span,
    ) -> Result<(FlowTotals, SequenceCounts, Vec<SequenceSteps>), HandleError> {
        let id = of.sequence.id;
        let counts = self.core.store.sequence_counts(scope, id, span).await?;
        let wanted: BTreeSet<i32> = counts.enrolments.iter().map(|row| row.steps_version).collect();
        let newest = of.sequence.steps_version;
        let wanted: Vec<_> = wanted
            .into_iter()
            .filter(|one| *one != newest)
            .map(|one| (id, one))
            .collect();
        let mut versions = match wanted.is_empty() {
            true => Vec::new(),
            false => self.core.store.steps(&wanted).await?,
        };
        versions.extend(of.steps.clone());
        Ok((flow_totals(&counts, &versions), counts, versions))
    }
}

impl SequencesSummary {
    fn add(&mut self, one: &SequenceNumbers) {
        self.sequences.total += 1;
        match one.status {
            SequenceStatus::Draft => self.sequences.draft += 1,
            SequenceStatus::Active => self.sequences.active += 1,
            SequenceStatus::Paused => self.sequences.paused += 1,
            SequenceStatus::Inactive => self.sequences.inactive += 1,
        }
        self.total += one.total;
        self.expanding |= one.expanding;
        let (sum, own) = (&mut self.contacts, &one.contacts);
        sum.total += own.total;
        sum.open += own.open;
        sum.completed += own.completed;
        sum.ended += own.ended;
        for (into, from) in [
            (&mut sum.ended_by, &own.ended_by),
            (&mut sum.not_chained, &own.not_chained),
        ] {
            let mut all: BTreeMap<_, u64> = into.drain(..).collect();
            for (reason, count) in from {
                *all.entry(*reason).or_default() += count;
            }
            into.extend(all);
        }
    }
}

fn numbers(of: &SequenceWithSteps, totals: FlowTotals) -> SequenceNumbers {
    let steps = totals.steps.into_iter().map(|step| {
        let at = of.steps.as_ref().and_then(|version| version.position(step.step_id));
        let shown = at.and_then(|at| Some((at, of.list().get(at)?)));
        SequenceStepNumbers {
            step_id: step.step_id,
            step: shown.map(|(at, step)| (at, step.day, step.trigger.clone())),
            should: step.total.should(),
            total: step.total,
            devices: step.devices,
            success_rate: success_rate(&step.total),
        }
    });
    SequenceNumbers {
        status: of.sequence.status,
        reason: of.sequence.reason,
        expanding: of.sequence.cursor != MatchCursor::Done,
        should: totals.total.should(),
        success_rate: success_rate(&totals.total),
        total: totals.total,
        steps: steps.collect(),
        devices: totals.devices,
        contacts: totals.contacts,
    }
}

/// When one who stands at a step is through at the latest, if every step goes out when it is due: the active one may be as far
/// ahead as the wait before it.
fn through_at(sequence: &Sequence, version: &SequenceSteps, at: StepId, now: Timestamp) -> Option<Timestamp> {
    let place = version.position(at)?;
    let first = place.saturating_sub(1);
    let mut due_at = now;
    for pair in version.steps.get(first..)?.windows(2) {
        due_at = next_due(due_at, due_at, pair[0].wait, send_at(sequence, &pair[1]));
    }
    Some(due_at)
}
