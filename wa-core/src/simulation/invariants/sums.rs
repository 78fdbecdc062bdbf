//! I8: the numbers of campaigns and sequences add up, at every look.

use super::Violation;
use crate::simulation::history::{Record, What};

const NAME: &str = "I8";

/// The tallies are what the rows count, and their sum is the number of rows that are not superseded.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let mut broken = campaigns(record);
    broken.extend(sequences(record));
    broken
}

/// The counts of a sequence are what its rows count, every message is in one step and every run stands somewhere.
fn sequences(record: &Record) -> Vec<Violation> {
    let mut broken = Vec::new();
    for moment in &record.moments {
        let What::Counts(seen) = &moment.what else { continue };
        let messages: u64 = seen.told.steps.iter().map(|one| one.numbers.should()).sum();
        let runs: u64 = seen.told.enrolments.iter().map(|one| one.count).sum();
        if seen.told != seen.counted || messages != seen.rows || runs != seen.enrolments {
            broken.push(Violation::at(NAME, moment.at, format!("{seen:?}")));
        }
    }
    broken
}

fn campaigns(record: &Record) -> Vec<Violation> {
    let looks = record.moments.iter().filter_map(|moment| match &moment.what {
        What::Numbers(seen) => Some((moment.at, seen)),
        _ => None,
    });
    looks
        .filter(|(_, seen)| seen.told != seen.counted || seen.told.should() != seen.rows)
        .map(|(at, seen)| {
            let what = format!(
                "{}: told {:?}, counted {:?}, {} rows",
                seen.campaign_id, seen.told, seen.counted, seen.rows
            );
            Violation::at(NAME, at, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::enrolment::{EnrolmentCount, EnrolmentState};
    use crate::domain::message::MessageState;
    use crate::domain::summary::Numbers;
    use crate::simulation::gateway::GatewayKind;
    use crate::simulation::history::{NumbersSeen, SequenceSeen};
    use crate::store::SequenceCounts;

    #[test]
    fn a_tally_that_is_off_by_one_is_found() {
        let mut one = Numbers::default();
        one.count(MessageState::Sent, None);
        for (told, counted, rows, broken) in [(one, one, 1, 0), (one, Numbers::default(), 1, 1), (one, one, 2, 1)] {
            let mut story = Story::of(GatewayKind::Silent);
            let campaign_id = story.campaign;
            let seen = NumbersSeen {
                campaign_id,
                told,
                counted,
                rows,
            };
            story.add(1.0, What::Numbers(seen));
            match broken {
                0 => assert_holds(&check(&story.record)),
                _ => assert_broken(&check(&story.record), broken),
            }
        }
    }
    #[test]
    fn a_run_or_a_message_that_is_not_counted_is_found() {
        for (enrolments, rows, broken) in [(1, 0, 0), (2, 0, 1), (1, 1, 1)] {
            let mut story = Story::of(GatewayKind::Silent);
            story.enrolment(EnrolmentState::Open);
            let run = &story.record.enrolments[0];
            let count = EnrolmentCount {
                steps_version: 1,
                step_id: run.step_id,
                device_id: None,
                state: run.state,
                reason: None,
                count: 1,
            };
            let told = SequenceCounts {
                steps: Vec::new(),
                enrolments: vec![count],
            };
            let seen = SequenceSeen {
                sequence_id: run.sequence_id,
                told: told.clone(),
                counted: told,
                rows,
                enrolments,
            };
            story.add(1.0, What::Counts(Box::new(seen.clone())));
            assert_broken(&check(&story.record), broken);
            let counted = SequenceCounts::default();
            story.add(2.0, What::Counts(Box::new(SequenceSeen { counted, ..seen })));
            assert_broken(&check(&story.record), broken + 1);
        }
    }
}
