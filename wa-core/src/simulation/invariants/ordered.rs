//! I5: step n never before n-1.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Violation, rows_by_id};
use crate::domain::enrolment::FlowRef;
use crate::domain::message::{Message, MessageState, Reason};
use crate::id::{EnrolmentId, MessageId};
use crate::simulation::history::{Record, What};
use crate::store::Begun;

const NAME: &str = "I5";

/// The rows of a run stand in the order of its steps; once a step was begun none before it is; and at no look is more than
/// one step of a run active for the first time.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let rows = rows_by_id(record);
    let mut runs: BTreeMap<EnrolmentId, Vec<&Message>> = BTreeMap::new();
    for row in &record.rows {
        let Some(flow) = row
            .flow
            .filter(|_| row.round == 0 && row.reason != Some(Reason::StepRemoved))
        else {
            continue;
        };
        runs.entry(flow.enrolment_id).or_default().push(row);
    }
    let (begun_at, seen_at) = (first_begun(record), first_seen(record));
    let mut broken = Vec::new();
    let mut ranks: BTreeMap<_, usize> = BTreeMap::new();
    for (enrolment, run) in &runs {
        let begun = in_order(run, &begun_at);
        for (rank, (_, row)) in begun.iter().enumerate() {
            let step = row.flow.map(|flow| flow.step_id);
            ranks.insert((*enrolment, step), rank);
        }
        for pair in begun.windows(2).chain(in_order(run, &seen_at).windows(2)) {
            let ((before_at, before), (after_at, after)) = (pair[0], pair[1]);
            let (Some(earlier), Some(later)) = (before.flow, after.flow) else {
                continue;
            };
            // What one look brought has no order of its own.
            if before_at < after_at && !follows(record, earlier, later) {
                let what = format!("{} follows {} against the order of their steps", after.id, before.id);
                broken.push(Violation::end(NAME, what));
            }
        }
    }
    let mut begun: BTreeMap<EnrolmentId, usize> = BTreeMap::new();
    for moment in &record.moments {
        match &moment.what {
            What::Begin(begin) if begin.answer == Begun::Yes => {
                let Some(flow) = rows.get(&begin.message_id).and_then(|row| row.flow) else {
                    continue;
                };
                let rank = ranks
                    .get(&(flow.enrolment_id, Some(flow.step_id)))
                    .copied()
                    .unwrap_or(0);
                let newest = begun.entry(flow.enrolment_id).or_default();
                if rank < *newest {
                    let what = format!("{} was begun after a later step of its run", begin.message_id);
                    broken.push(Violation::at(NAME, moment.at, what));
                }
                *newest = rank.max(*newest);
            }
            What::Rows(seen) => {
                let mut active: BTreeMap<EnrolmentId, MessageId> = BTreeMap::new();
                for one in seen.iter().filter(|one| one.state.is_open()) {
                    let row = rows.get(&one.message_id).filter(|row| row.round == 0);
                    let Some(flow) = row.and_then(|row| row.flow) else {
                        continue;
                    };
                    if let Some(other) = active.insert(flow.enrolment_id, one.message_id) {
                        let what = format!("{other} and {} are active at once", one.message_id);
                        broken.push(Violation::at(NAME, moment.at, what));
                    }
                }
            }
            _ => {}
        }
    }
    broken.extend(stuck(record));
    broken
}

/// The rows of a run that have an instant, by it. Not by when they are due or by their ids: clocks of nodes that are set, and steps
/// that are queued again, leave those in no order.
fn in_order<'a>(run: &[&'a Message], at: &BTreeMap<MessageId, Duration>) -> Vec<(Duration, &'a Message)> {
    let mut rows: Vec<_> = run.iter().filter_map(|row| Some((*at.get(&row.id)?, *row))).collect();
    rows.sort_by_key(|(at, row)| (*at, row.id));
    rows
}

/// When each message was begun first, on the clock that never jumps.
fn first_begun(record: &Record) -> BTreeMap<MessageId, Duration> {
    let mut first = BTreeMap::new();
    for moment in &record.moments {
        if let What::Begin(begin) = &moment.what
            && begin.answer == Begun::Yes
        {
            first.entry(begin.message_id).or_insert(moment.at);
        }
    }
    first
}

/// At which look each message was there first: also those that expire and are never begun.
fn first_seen(record: &Record) -> BTreeMap<MessageId, Duration> {
    let mut first = BTreeMap::new();
    for moment in &record.moments {
        let What::Rows(seen) = &moment.what else { continue };
        for one in seen {
            first.entry(one.message_id).or_insert(moment.at);
        }
    }
    first
}

/// Whether one step comes after another, as far as one version has both.
fn follows(record: &Record, before: FlowRef, after: FlowRef) -> bool {
    let in_one = before.steps_version == after.steps_version;
    let steps = record
        .steps
        .iter()
        .find(|steps| steps.version == after.steps_version && steps.position(after.step_id).is_some());
    let places = steps.map(|steps| (steps.position(before.step_id), steps.position(after.step_id)));
    match places {
        Some((Some(before), Some(after))) if in_one => before < after,
        _ => true,
    }
}

/// A run that is open has an active step.
fn stuck(record: &Record) -> Vec<Violation> {
    let open = |id: EnrolmentId| {
        record
            .rows
            .iter()
            .any(|row| row.flow.is_some_and(|flow| flow.enrolment_id == id) && is_active(row))
    };
    record
        .enrolments
        .iter()
        .filter(|one| one.state == crate::domain::enrolment::EnrolmentState::Open && !open(one.id))
        .map(|one| Violation::end(NAME, format!("{one:?} is open and has no active step")))
        .collect()
}

fn is_active(row: &Message) -> bool {
    row.round == 0
        && matches!(
            row.state,
            MessageState::Queued | MessageState::Held | MessageState::Sending | MessageState::InDoubt
        )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, T0, assert_broken, assert_holds};
    use super::*;
    use crate::domain::enrolment::EnrolmentState;
    use crate::simulation::gateway::GatewayKind;
    use crate::simulation::history::RowSeen;

    #[test]
    fn a_step_that_is_begun_after_a_later_one_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let run = story.enrolment(EnrolmentState::Completed);
        let (first, second) = (
            story.flow(run, 0, MessageState::Sent),
            story.flow(run, 1, MessageState::Sent),
        );
        // The wall clock was set back after the first.
        story.change(first, |row| row.due_at = T0 + Duration::from_secs(3_600));
        for (at, message) in [(1.0, first), (2.0, second)] {
            let attempt = story.attempt();
            story.begin(at, message, attempt);
        }
        assert_holds(&check(&story.record));
        let attempt = story.attempt();
        story.begin(3.0, first, attempt);
        assert_broken(&check(&story.record), 1);
        story.record.moments.remove(0);
        assert_broken(&check(&story.record), 1);
    }

    #[test]
    fn steps_in_the_wrong_order_and_two_at_once_are_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let run = story.enrolment(EnrolmentState::Completed);
        let (first, second) = (
            story.flow(run, 0, MessageState::Sent),
            story.flow(run, 1, MessageState::Sent),
        );
        let row = |message_id, state| RowSeen { message_id, state };
        let both = |first_state, second_state| What::Rows(vec![row(first, first_state), row(second, second_state)]);
        let before = story.record.moments.clone();
        story.add(1.0, both(MessageState::Sent, MessageState::Queued));
        assert_holds(&check(&story.record));
        story.add(2.0, both(MessageState::InDoubt, MessageState::Queued));
        assert_broken(&check(&story.record), 1);
        story.record.moments = before;
        story.add(1.0, What::Rows(vec![row(second, MessageState::Sent)]));
        story.add(2.0, both(MessageState::Sent, MessageState::Sent));
        assert_broken(&check(&story.record), 1);
    }

    #[test]
    fn an_open_run_without_an_active_step_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let run = story.enrolment(EnrolmentState::Open);
        let row = story.flow(run, 0, MessageState::Held);
        assert_holds(&check(&story.record));
        story.change(row, |row| row.state = MessageState::Sent);
        assert_broken(&check(&story.record), 1);
    }
}
