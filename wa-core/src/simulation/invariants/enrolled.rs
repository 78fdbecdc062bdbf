//! I1 of sequences: whoever should be in one is in it, and once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, sequence_by_id};
use crate::domain::enrolment::EnrolmentState;
use crate::domain::phone::PersonKey;
use crate::domain::sequence::{MatchCursor, ReEntry};
use crate::simulation::history::{Record, What};

const NAME: &str = "I1 (enrolments)";

/// At every look a person has one open run in a sequence; at the end nobody entered against its re-entry policy, no chain
/// came back to where it had been, and every lead that an active sequence takes has entered it.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let mut broken = Vec::new();
    for moment in &record.moments {
        let What::Enrolments(seen) = &moment.what else { continue };
        let mut open = BTreeSet::new();
        for one in seen.iter().filter(|one| one.state == EnrolmentState::Open) {
            if !open.insert((one.sequence_id, one.person)) {
                let what = format!("{} is the second open run of its person", one.enrolment_id);
                broken.push(Violation::at(NAME, moment.at, what));
            }
        }
    }
    let mut runs: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for one in &record.enrolments {
        runs.entry((one.sequence_id, one.person)).or_default().push(one);
    }
    for ((sequence, _), runs) in &runs {
        let policy = sequence_by_id(record, *sequence).map(|sequence| sequence.re_entry);
        if policy == Some(ReEntry::Never) && runs.len() > 1 {
            broken.push(Violation::end(
                NAME,
                format!("{} runs where one is allowed: {runs:?}", runs.len()),
            ));
        }
        let roots: BTreeSet<_> = runs.iter().map(|one| one.root_id).collect();
        if policy != Some(ReEntry::Always) && roots.len() < runs.len() {
            broken.push(Violation::end(
                NAME,
                format!("a chain came back to {sequence}: {runs:?}"),
            ));
        }
    }
    broken.extend(left_out(record));
    broken
}

fn left_out(record: &Record) -> Vec<Violation> {
    if !record.facts.bounded {
        return Vec::new();
    }
    let suppressed: BTreeSet<_> = record
        .moments
        .iter()
        .filter_map(|moment| match moment.what {
            What::Suppressed(user, person) => Some((user, person)),
            _ => None,
        })
        .collect();
    let entered: BTreeSet<_> = record
        .enrolments
        .iter()
        .map(|one| (one.sequence_id, one.person))
        .collect();
    let mut broken = Vec::new();
    let active = record.sequences.iter().filter(|sequence| {
        sequence.status.runs() && sequence.deleted_at.is_none() && sequence.cursor == MatchCursor::Done
    });
    for sequence in active {
        let newest = |steps: &&_| is_newest(sequence, steps);
        let Some(steps) = record.steps.iter().find(newest) else {
            continue;
        };
        for lead in &record.leads {
            let person = PersonKey::of(&record.facts.seed, lead.user_id, &lead.phone);
            let takes = sequence.entry_for(lead, steps).is_some() && !suppressed.contains(&(lead.user_id, person));
            if takes && !entered.contains(&(sequence.id, person)) {
                broken.push(Violation::end(
                    NAME,
                    format!("{} never entered {}", lead.id, sequence.id),
                ));
            }
        }
    }
    broken
}

fn is_newest(sequence: &crate::domain::sequence::Sequence, steps: &crate::domain::sequence::SequenceSteps) -> bool {
    (steps.sequence_id, steps.version) == (sequence.id, sequence.steps_version)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, T0, assert_broken, assert_holds};
    use super::*;
    use crate::domain::lead::Lead;
    use crate::domain::phone::Phone;
    use crate::domain::token::TokenSet;
    use crate::id::{EnrolmentId, LeadId};
    use crate::simulation::gateway::GatewayKind;
    use crate::simulation::history::EnrolmentSeen;

    #[test]
    fn two_open_runs_of_one_person_are_found_at_the_moment_when_they_were() {
        let mut story = Story::of(GatewayKind::Silent);
        let one = story.enrolment(EnrolmentState::Completed);
        let run = story.record.enrolments[0].clone();
        let seen = |enrolment_id, state| EnrolmentSeen {
            enrolment_id,
            sequence_id: run.sequence_id,
            person: run.person,
            state,
        };
        let first = seen(one, EnrolmentState::Ended);
        story.add(
            1.0,
            What::Enrolments(vec![first, seen(EnrolmentId::MIN, EnrolmentState::Open)]),
        );
        assert_holds(&check(&story.record));
        let first = seen(one, EnrolmentState::Open);
        story.add(
            2.0,
            What::Enrolments(vec![first, seen(EnrolmentId::MIN, EnrolmentState::Open)]),
        );
        assert_broken(&check(&story.record), 1);
    }

    #[test]
    fn a_chain_that_came_back_and_a_second_run_where_one_is_allowed_are_found() {
        for (policy, own_root, broken) in [
            (ReEntry::Never, true, 1),
            (ReEntry::AfterCompletion, true, 0),
            (ReEntry::AfterCompletion, false, 1),
            (ReEntry::Always, false, 0),
        ] {
            let mut story = Story::of(GatewayKind::Silent);
            let first = story.enrolment(EnrolmentState::Completed);
            let second = story.enrolment(EnrolmentState::Completed);
            let person = story.record.enrolments[0].person;
            story.record.enrolments[1].person = person;
            story.record.enrolments[1].root_id = if own_root { second } else { first };
            story.record.sequences[0].re_entry = policy;
            assert_broken(&check(&story.record), broken);
        }
    }

    #[test]
    fn a_lead_that_never_entered_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        story.enrolment(EnrolmentState::Completed);
        let phone = Phone::from_e164("+60129999999").unwrap();
        let mut lead = Lead::new(LeadId::MIN, story.user, None, phone, T0);
        lead.triggers = TokenSet::parse("other").unwrap();
        story.record.leads.push(lead);
        assert_holds(&check(&story.record));
        story.record.leads[0].triggers = TokenSet::parse("in").unwrap();
        assert_broken(&check(&story.record), 1);
        let person = PersonKey::of(&story.record.facts.seed, story.user, &phone);
        story.add(1.0, What::Suppressed(story.user, person));
        assert_holds(&check(&story.record));
    }
}
