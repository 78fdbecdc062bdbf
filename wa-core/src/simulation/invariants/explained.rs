//! I10: every message is sent, or stands with a reason that a person can see.

use super::Violation;
use crate::domain::campaign::CampaignStatus;
use crate::domain::enrolment::EnrolmentState;
use crate::domain::message::MessageState;
use crate::domain::sequence::SequenceStatus;
use crate::simulation::history::Record;

const NAME: &str = "I10";

/// What was not sent says why; what is open waits for a person; a campaign that waits says for what.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let mut broken = Vec::new();
    for row in &record.rows {
        let silent = !row.state.is_open() && row.state != MessageState::Sent && row.reason.is_none();
        if silent {
            broken.push(Violation::end(
                NAME,
                format!("{} is {:?} without a reason", row.id, row.state),
            ));
        }
        if row.state.is_open() && !record.facts.excused.contains(&row.id) {
            broken.push(Violation::end(NAME, format!("{row:?} is open, and nothing says why")));
        }
    }
    for campaign in &record.campaigns {
        let waits = matches!(campaign.status, CampaignStatus::Paused | CampaignStatus::Scheduled);
        if waits && campaign.reason.is_none() {
            broken.push(Violation::end(
                NAME,
                format!("{campaign:?} waits, and nothing says for what"),
            ));
        }
    }
    broken.extend(runs(record));
    broken
}

/// A run that ended says why; one that was led on was led to another; one that was completed without being led on, where a trigger follows, says why; an open one
/// waits for a person; a sequence that was paused says why.
fn runs(record: &Record) -> Vec<Violation> {
    let mut broken = Vec::new();
    for one in &record.enrolments {
        let leads_on = record
            .steps
            .iter()
            .filter(|steps| steps.sequence_id == one.sequence_id)
            .all(|steps| steps.step(one.step_id).is_some_and(|step| step.next_trigger.is_some()));
        let exists = |id| record.enrolments.iter().any(|other| other.id == id);
        let nowhere = one.next_id.is_some_and(|id| !exists(id));
        let silent = nowhere
            || match one.state {
                EnrolmentState::Open => !record.facts.excused_enrolments.contains(&one.id),
                EnrolmentState::Completed => leads_on && one.next_id.is_none() && one.reason.is_none(),
                EnrolmentState::Ended => one.reason.is_none(),
            };
        if silent {
            broken.push(Violation::end(NAME, format!("{one:?} stands, and nothing says why")));
        }
    }
    for sequence in &record.sequences {
        if sequence.status == SequenceStatus::Paused && sequence.reason.is_none() {
            broken.push(Violation::end(
                NAME,
                format!("{sequence:?} is paused, and nothing says why"),
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::campaign::CampaignReason;
    use crate::domain::enrolment::EnrolmentReason;
    use crate::domain::message::Reason;
    use crate::id::EnrolmentId;
    use crate::simulation::gateway::GatewayKind;

    #[test]
    fn a_failure_without_a_reason_and_an_open_message_without_one_are_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let failed = story.row(MessageState::Failed);
        let open = story.row(MessageState::Queued);
        assert_broken(&check(&story.record), 2);
        story.change(failed, |row| row.reason = Some(Reason::Rejected));
        story.record.facts.excused.push(open);
        assert_holds(&check(&story.record));
    }

    #[test]
    fn a_campaign_that_waits_without_saying_for_what_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        story.record.campaigns[0].status = CampaignStatus::Paused;
        assert_broken(&check(&story.record), 1);
        story.record.campaigns[0].reason = Some(CampaignReason::ByPerson);
        assert_holds(&check(&story.record));
    }
    #[test]
    fn a_run_that_stands_without_saying_why_is_found() {
        for (state, reason) in [
            (EnrolmentState::Ended, Some(EnrolmentReason::Replied)),
            (EnrolmentState::Completed, Some(EnrolmentReason::ReEntryRefused)),
        ] {
            let mut story = Story::of(GatewayKind::Silent);
            story.enrolment(state);
            // The last step of a made-up sequence leads on.
            let last = story.record.steps[0].steps[1].id;
            story.record.enrolments[0].step_id = last;
            assert_broken(&check(&story.record), 1);
            story.record.enrolments[0].reason = reason;
            assert_holds(&check(&story.record));
            story.record.enrolments[0].next_id = Some(EnrolmentId::MIN);
            assert_broken(&check(&story.record), 1);
        }
        let mut story = Story::of(GatewayKind::Silent);
        let open = story.enrolment(EnrolmentState::Open);
        assert_broken(&check(&story.record), 1);
        story.record.facts.excused_enrolments.push(open);
        assert_holds(&check(&story.record));
    }
}
