//! I1: everybody of an audience is accounted for once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, campaign_of};
use crate::domain::audience::AudienceCursor;
use crate::domain::message::Reason;
use crate::simulation::history::{Record, What};

const NAME: &str = "I1";

/// One row per key, one message per campaign, person and round, one per enrolment, step and round, and a row for every lead and entry of the audience.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut keys = BTreeSet::new();
    let mut rounds = BTreeSet::new();
    for row in &record.rows {
        if !keys.insert(row.key) {
            broken.push(Violation::end(NAME, format!("two rows have the key of {}", row.id)));
        }
        let flow = row.flow.map(|flow| (flow.enrolment_id, flow.step_id));
        let round = (row.scope, flow, row.person, row.round);
        if row.reason != Some(Reason::Duplicate) && !rounds.insert(round) {
            let what = format!("{} is the second message to its person in round {}", row.id, row.round);
            broken.push(Violation::end(NAME, what));
        }
    }
    broken.extend(lost(record));
    broken
}

fn lost(record: &Record) -> Vec<Violation> {
    // A wall clock that is wrong at the start decides otherwise who was there by then.
    if !record.facts.wall_is_true {
        return Vec::new();
    }
    let deleted: BTreeSet<_> = record
        .moments
        .iter()
        .filter_map(|moment| match moment.what {
            What::LeadDeleted(lead) => Some(lead),
            _ => None,
        })
        .collect();
    let mut rows_of_leads = BTreeMap::new();
    let mut first_rows: BTreeMap<_, usize> = BTreeMap::new();
    for row in record.rows.iter().filter(|row| row.round == 0) {
        let Some(campaign) = campaign_of(row) else { continue };
        *first_rows.entry(campaign).or_default() += 1;
        if let Some(lead) = row.lead_id {
            *rows_of_leads.entry((campaign, lead)).or_insert(0) += 1;
        }
    }
    let mut broken = Vec::new();
    for campaign in record
        .campaigns
        .iter()
        .filter(|campaign| campaign.cursor == AudienceCursor::Done)
    {
        for lead in record.facts.leads.get(&campaign.id).into_iter().flatten() {
            let count = rows_of_leads.get(&(campaign.id, *lead)).copied().unwrap_or(0);
            if count > 1 || (count == 0 && !deleted.contains(lead)) {
                broken.push(Violation::end(
                    NAME,
                    format!("{lead} has {count} rows in {}", campaign.id),
                ));
            }
        }
        if let Some(entries) = record.facts.entries.get(&campaign.id) {
            let count = first_rows.get(&campaign.id).copied().unwrap_or(0);
            if count != *entries {
                let what = format!("{} has {count} rows for {entries} entries", campaign.id);
                broken.push(Violation::end(NAME, what));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, T0, assert_broken, assert_holds};
    use super::*;
    use crate::domain::enrolment::EnrolmentState;
    use crate::domain::message::MessageState;
    use crate::id::{IdSource, LeadId};
    use crate::simulation::gateway::GatewayKind;

    #[test]
    fn a_lead_without_a_row_a_key_twice_and_a_person_twice_are_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let first = story.row(MessageState::Sent);
        let second = story.row(MessageState::Sent);
        story.record.campaigns[0].cursor = AudienceCursor::Done;
        let ids = IdSource::seeded([1; 32]);
        let leads = vec![LeadId::new(&ids, T0), LeadId::new(&ids, T0)];
        story.change(first, |row| row.lead_id = Some(leads[0]));
        story.change(second, |row| row.lead_id = Some(leads[1]));
        story.record.facts.leads.insert(story.campaign, leads.clone());
        assert_holds(&check(&story.record));
        story.change(second, |row| row.lead_id = None);
        assert_broken(&check(&story.record), 1);
        story.add(1.0, What::LeadDeleted(leads[1]));
        assert_holds(&check(&story.record));
        let (key, person) = (story.record.rows[0].key, story.record.rows[0].person);
        story.change(second, |row| row.key = key);
        assert_broken(&check(&story.record), 1);
        story.change(second, |row| row.person = person);
        assert_broken(&check(&story.record), 2);
    }

    #[test]
    fn a_step_of_a_run_twice_in_one_round_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let run = story.enrolment(EnrolmentState::Open);
        let first = story.flow(run, 0, MessageState::Failed);
        let again = story.flow(run, 0, MessageState::Sent);
        assert_broken(&check(&story.record), 1);
        story.change(again, |row| (row.round, row.supersedes) = (1, Some(first)));
        assert_holds(&check(&story.record));
    }

    #[test]
    fn an_entry_without_a_row_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        story.row(MessageState::Sent);
        story.record.campaigns[0].cursor = AudienceCursor::Done;
        story.record.facts.entries.insert(story.campaign, 1);
        assert_holds(&check(&story.record));
        story.record.facts.entries.insert(story.campaign, 2);
        assert_broken(&check(&story.record), 1);
    }
}
