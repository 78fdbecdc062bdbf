//! What came of a sequence in a simulation: its flows, steps and runs.

use std::collections::BTreeMap;

use super::report::{ContactForecast, EndCount, SequenceForecast, StepForecast};
use super::sequence_snapshot::SequenceTarget;
use super::snapshot::pass_the_turn;
use super::tally::Tally;
use crate::domain::access::RequestScope;
use crate::domain::enrolment::{EnrolmentReason, EnrolmentState};
use crate::domain::summary::Numbers;
use crate::engine::handle::HandleError;
use crate::plan::sequence_numbers::flow_totals;
use crate::store::{MemoryStore, SequenceStore, Span};

/// How many runs are looked at before others have their turn.
const COUNTED_PER_TURN: usize = 2_000;

/// What was settled since, and what remains.
fn since(base: &Numbers, end: &Numbers) -> Numbers {
    Numbers {
        done: end.done.saturating_sub(base.done),
        failed: end.failed.saturating_sub(base.failed),
        skipped: end.skipped.saturating_sub(base.skipped),
        unknown: end.unknown.saturating_sub(base.unknown),
        cancelled: end.cancelled.saturating_sub(base.cancelled),
        remaining: end.remaining,
        ..Numbers::default()
    }
}

/// Tells the steps and runs of a sequence, and lets the tally count its flows, of which messages are only those that had
/// their turn.
pub(super) async fn sequence_report(
    store: &MemoryStore,
    of: &SequenceTarget,
    tally: &mut Tally,
) -> Result<SequenceForecast, HandleError> {
    let scope = RequestScope::user(of.sequence.user_id);
    let counts = store.sequence_counts(&scope, of.sequence.id, &Span::default()).await?;
    let end = flow_totals(&counts, &of.versions);
    let zero = Numbers::default();
    let before: BTreeMap<_, _> = of
        .base
        .devices
        .iter()
        .map(|row| (row.device_id, &row.numbers))
        .collect();
    let devices = end.devices.iter().map(|row| {
        let base = before.get(&row.device_id).copied().unwrap_or(&zero);
        (row.device_id, since(base, &row.numbers))
    });
    tally.count_flows(since(&of.base.total, &end.total), devices);

    let mut sent = tally.take_steps();
    let before: BTreeMap<_, _> = of.base.steps.iter().map(|row| (row.step_id, &row.total)).collect();
    let newest = of.versions.iter().find(|one| one.version == of.sequence.steps_version);
    let steps = end.steps.iter().map(|row| {
        let numbers = since(before.get(&row.step_id).copied().unwrap_or(&zero), &row.total);
        let own = sent.remove(&row.step_id).unwrap_or_default();
        let step = newest.and_then(|newest| {
            let place = newest.position(row.step_id)?;
            let step = newest.steps.get(place)?;
            Some((place, step.day, step.trigger.clone()))
        });
        StepForecast {
            step_id: row.step_id,
            step,
            numbers,
            first_sent_at: own.first_sent_at,
            last_sent_at: own.last_sent_at,
            days: own.days(),
        }
    });
    let steps = steps
        .filter(|step| step.step.is_some() || step.numbers.should() > 0)
        .collect();
    let contacts = contacts(store, of).await;
    Ok(SequenceForecast { steps, contacts })
}

async fn contacts(store: &MemoryStore, of: &SequenceTarget) -> ContactForecast {
    let mut contacts = ContactForecast {
        open: of.open,
        matching: of.matching,
        suppressed: of.suppressed,
        ..ContactForecast::default()
    };
    let mut ended: BTreeMap<Option<EnrolmentReason>, u64> = BTreeMap::new();
    let mut page = None;
    loop {
        page = store.visit_enrolments(of.sequence.id, page, COUNTED_PER_TURN, |one| {
            if of.earlier.contains(&one.id) {
                return;
            }
            if !of.known.contains(&one.id) {
                *if one.root_id == one.id {
                    &mut contacts.entered
                } else {
                    &mut contacts.chained
                } += 1;
            }
            match one.state {
                EnrolmentState::Open => contacts.left_open += 1,
                EnrolmentState::Completed => contacts.completed += 1,
                EnrolmentState::Ended => *ended.entry(one.reason).or_default() += 1,
            }
        });
        if page.is_none() {
            break;
        }
        pass_the_turn().await;
    }
    contacts.refused = contacts.matching.saturating_sub(contacts.suppressed + contacts.entered);
    contacts.ended = ended
        .into_iter()
        .map(|(reason, count)| EndCount { reason, count })
        .collect();
    contacts
}
