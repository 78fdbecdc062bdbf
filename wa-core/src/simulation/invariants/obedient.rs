//! I3: no begin commits after a committed opt-out, pause or cancel, and what was begun is sent at once or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Violation, campaign_of, rows_by_id, sequence_of};
use crate::domain::campaign::CampaignStatus;
use crate::simulation::history::{Record, What};
use crate::store::Begun;

const NAME: &str = "I3";
/// How long after its begin a request is made at the latest.
const BEGIN_TO_SEND_MAX: Duration = Duration::from_secs(2);

/// At every begin that the store granted, the campaign or sequence ran, the run was open, the person had not opted out, and the device was neither on
/// hold nor deleted; and every request follows its begin within two seconds.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let rows = rows_by_id(record);
    let mut broken = Vec::new();
    let mut statuses = BTreeMap::new();
    let mut active = BTreeMap::new();
    let mut ended = BTreeSet::new();
    let mut suppressed = BTreeSet::new();
    let mut held = BTreeSet::new();
    let mut deleted = BTreeSet::new();
    let mut begun = BTreeMap::new();
    for moment in &record.moments {
        let mut wrong = |what: String| broken.push(Violation::at(NAME, moment.at, what));
        match &moment.what {
            What::Status(campaign, status) => drop(statuses.insert(*campaign, *status)),
            What::TriggeredAgain(campaign) => drop(statuses.insert(*campaign, CampaignStatus::Triggered)),
            What::SequenceStatus(sequence, status) => drop(active.insert(*sequence, status.runs())),
            What::SequenceDeleted(sequence) => drop(active.insert(*sequence, false)),
            What::EnrolmentEnded(enrolment) => drop(ended.insert(*enrolment)),
            What::Suppressed(user, person) => drop(suppressed.insert((*user, *person))),
            What::Unsuppressed(user, person) => drop(suppressed.remove(&(*user, *person))),
            What::Held(device, true) => drop(held.insert(*device)),
            What::Held(device, false) => drop(held.remove(device)),
            What::Deleted(device) => drop(deleted.insert(*device)),
            What::Begin(begin) if begin.answer == Begun::Yes => {
                begun.insert(begin.attempt_id, begin.asked_at);
                let Some(row) = rows.get(&begin.message_id) else {
                    wrong(format!("{} was begun and is no row", begin.message_id));
                    continue;
                };
                let status = campaign_of(row).and_then(|id| statuses.get(&id).copied());
                match sequence_of(row) {
                    Some(id) if active.get(&id) != Some(&true) => {
                        wrong(format!("{} was begun while its sequence did not run", row.id));
                    }
                    None if status != Some(CampaignStatus::Triggered) => {
                        wrong(format!("{} was begun while its campaign was {status:?}", row.id));
                    }
                    _ => {}
                }
                if row.flow.is_some_and(|flow| ended.contains(&flow.enrolment_id)) {
                    wrong(format!("{} was begun after its run had ended", row.id));
                }
                if suppressed.contains(&(row.user_id, row.person)) {
                    wrong(format!("{} was begun after its person had opted out", row.id));
                }
                if held.contains(&begin.device_id) || deleted.contains(&begin.device_id) {
                    wrong(format!("{} was begun on a device that must not send", row.id));
                }
            }
            What::Called(call) => match begun.get(&call.attempt_id) {
                None => wrong(format!("{} was sent and never begun", call.message_id)),
                Some(asked_at) if moment.at.saturating_sub(*asked_at) > BEGIN_TO_SEND_MAX => {
                    wrong(format!("{} was sent late after its begin", call.message_id));
                }
                Some(_) => {}
            },
            _ => {}
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::enrolment::EnrolmentState;
    use crate::domain::message::MessageState;
    use crate::domain::sequence::SequenceStatus;
    use crate::id::{EnrolmentId, SequenceId};
    use crate::simulation::gateway::GatewayKind;

    fn begun_after(what: impl Fn(&Story) -> Vec<What>) -> Vec<Violation> {
        let mut story = Story::of(GatewayKind::Silent);
        let message = story.row(MessageState::Sent);
        for what in what(&story) {
            story.add(1.0, what);
        }
        let attempt = story.attempt();
        story.begin(2.0, message, attempt);
        check(&story.record)
    }

    #[test]
    fn a_begin_after_a_pause_a_cancel_an_opt_out_a_hold_or_a_deletion_is_found() {
        use CampaignStatus::{Cancelled, Paused, Triggered};
        let person = |story: &Story| (story.user, story.record.rows[0].person);
        assert_holds(&begun_after(|_| Vec::new()));
        assert_broken(&begun_after(|story| vec![What::Status(story.campaign, Paused)]), 1);
        assert_broken(&begun_after(|story| vec![What::Status(story.campaign, Cancelled)]), 1);
        assert_broken(&begun_after(|story| vec![What::Held(story.device, true)]), 1);
        assert_broken(&begun_after(|story| vec![What::Deleted(story.device)]), 1);
        let out = |story: &Story| What::Suppressed(person(story).0, person(story).1);
        assert_broken(&begun_after(|story| vec![out(story)]), 1);
        let back = |story: &Story| What::Unsuppressed(person(story).0, person(story).1);
        assert_holds(&begun_after(|story| vec![out(story), back(story)]));
        assert_holds(&begun_after(|story| {
            vec![
                What::Status(story.campaign, Paused),
                What::Status(story.campaign, Triggered),
            ]
        }));
    }

    #[test]
    fn a_request_without_a_begin_or_long_after_it_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let message = story.row(MessageState::Sent);
        let (first, second) = (story.attempt(), story.attempt());
        story.begin(1.0, message, first);
        story.called(3.0, message, first);
        assert_holds(&check(&story.record));
        story.called(3.1, message, first);
        story.called(3.2, message, second);
        assert_broken(&check(&story.record), 2);
    }
    #[test]
    fn a_step_that_is_begun_while_its_sequence_stands_or_after_its_run_has_ended_is_found() {
        use SequenceStatus::{Active, Paused};
        type Before = fn(&Story, SequenceId, EnrolmentId) -> Vec<What>;
        let rows: [(Before, usize); 4] = [
            (|_, id, _| vec![What::SequenceStatus(id, Active)], 0),
            (
                |_, id, _| vec![What::SequenceStatus(id, Active), What::SequenceStatus(id, Paused)],
                1,
            ),
            (
                |_, id, _| vec![What::SequenceStatus(id, Active), What::SequenceDeleted(id)],
                1,
            ),
            (
                |_, id, run| vec![What::SequenceStatus(id, Active), What::EnrolmentEnded(run)],
                1,
            ),
        ];
        for (before, broken) in rows {
            let mut story = Story::of(GatewayKind::Silent);
            let run = story.enrolment(EnrolmentState::Open);
            let message = story.flow(run, 0, MessageState::Sent);
            let id = story.record.sequences[0].id;
            for what in before(&story, id, run) {
                story.add(1.0, what);
            }
            let attempt = story.attempt();
            story.begin(2.0, message, attempt);
            assert_broken(&check(&story.record), broken);
        }
    }
}
