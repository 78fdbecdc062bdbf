//! I11: nothing durable waits for what only a process that is gone could do.

use super::{Violation, campaign_of, sequence_by_id, sequence_of};
use crate::domain::campaign::CampaignStatus;
use crate::domain::enrolment::{Enrolment, EnrolmentState};
use crate::domain::message::{Message, MessageState};
use crate::simulation::history::Record;

const NAME: &str = "I11";

/// At the end, where every process may have been a fresh one, nothing is being sent, no mark of a sweep is left undone,
/// and what is in doubt has its record.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let mut broken = Vec::new();
    for row in &record.rows {
        let (runs, ended) = gate(record, row);
        let stuck = match row.state {
            MessageState::Sending => true,
            // One that a person sends again holds up the later steps of its run.
            MessageState::Held => ended || (runs && !waits_behind(record, row)),
            MessageState::Queued => ended || !runs,
            MessageState::InDoubt => row.doubt.is_none() || row.attempt.is_none(),
            _ => row.doubt.is_some(),
        };
        if stuck {
            broken.push(Violation::end(
                NAME,
                format!("{row:?} is stuck; its scope runs: {runs}, has ended: {ended}"),
            ));
        }
    }
    broken
}

/// Whether the scope of a message runs, and whether it has ended.
fn gate(record: &Record, row: &Message) -> (bool, bool) {
    if let (Some(id), Some(flow)) = (sequence_of(row), row.flow) {
        let sequence = sequence_by_id(record, id).filter(|sequence| sequence.deleted_at.is_none());
        let open = |one: &&Enrolment| one.id == flow.enrolment_id && one.state == EnrolmentState::Open;
        let ended = sequence.is_none() || !record.enrolments.iter().any(|one| open(&one));
        return (sequence.is_some_and(|sequence| sequence.status.runs()), ended);
    }
    let status = campaign_of(row)
        .and_then(|id| record.campaigns.iter().find(|campaign| campaign.id == id))
        .map(|campaign| campaign.status);
    let waits = matches!(status, Some(CampaignStatus::Triggered | CampaignStatus::Paused));
    (status == Some(CampaignStatus::Triggered), !waits)
}

fn waits_behind(record: &Record, row: &Message) -> bool {
    let Some(flow) = row.flow else { return false };
    let others = record
        .rows
        .iter()
        .filter(|other| other.id != row.id && other.state.is_open());
    others
        .filter_map(|other| other.flow)
        .any(|other| other.enrolment_id == flow.enrolment_id)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::sequence::SequenceStatus;
    use crate::simulation::gateway::GatewayKind;

    #[test]
    fn what_no_process_works_on_is_found() {
        use MessageState::{Held, Queued, Sending, Sent};
        for (state, status, broken) in [
            (Sent, CampaignStatus::Completed, 0),
            (Queued, CampaignStatus::Triggered, 0),
            (Held, CampaignStatus::Paused, 0),
            (Sending, CampaignStatus::Triggered, 1),
            (Queued, CampaignStatus::Cancelled, 1),
            (Queued, CampaignStatus::Paused, 1),
            (Held, CampaignStatus::Triggered, 1),
        ] {
            let mut story = Story::of(GatewayKind::Silent);
            story.row(state);
            story.record.campaigns[0].status = status;
            match broken {
                0 => assert_holds(&check(&story.record)),
                _ => assert_broken(&check(&story.record), broken),
            }
        }
    }
    #[test]
    fn a_step_that_no_process_works_on_is_found() {
        use MessageState::{Held, Queued, Sent};
        for (state, status, run, broken) in [
            (Queued, SequenceStatus::Active, EnrolmentState::Open, 0),
            (Held, SequenceStatus::Paused, EnrolmentState::Open, 0),
            (Sent, SequenceStatus::Paused, EnrolmentState::Ended, 0),
            (Queued, SequenceStatus::Paused, EnrolmentState::Open, 1),
            (Held, SequenceStatus::Active, EnrolmentState::Open, 1),
            (Queued, SequenceStatus::Active, EnrolmentState::Ended, 1),
            (Held, SequenceStatus::Paused, EnrolmentState::Ended, 1),
        ] {
            let mut story = Story::of(GatewayKind::Silent);
            let id = story.enrolment(run);
            story.flow(id, 0, state);
            story.record.sequences[0].status = status;
            assert_broken(&check(&story.record), broken);
        }
    }
}
