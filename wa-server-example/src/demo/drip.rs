//! The second part of the demonstration: a sequence of five steps, on a clock on which days are seconds.

use std::collections::{BTreeMap, BTreeSet};

use wa_core::domain::access::RequestScope;
use wa_core::domain::summary::Numbers;
use wa_core::engine::handle::{BATCH_MAX, EnrolBy, Handle, HandleError, OpenEnd, SequenceNumbers};
use wa_core::id::SequenceId;
use wa_core::plan::{SequenceDraft, StepDraft};
use wa_core::store::{AppStore, SequenceCounts, Span, StoreError};
use wa_core::time::Timestamp;

use super::snapshot::same;
use super::stage::StagedLead;

/// How many steps there are.
pub(super) const STEPS: usize = 5;
/// How long after a step was sent the next one is due, in seconds.
pub(super) const WAIT_SECS: i64 = 4;
/// One lead of so many takes part: the first ones, which are dealt out evenly to all devices.
const ONE_OF: usize = 20;

/// What every text of a step holds, and no other text.
fn mark(step: usize) -> String {
    format!("[hari {step}/{STEPS}]")
}

/// A sequence with those who run through it.
#[derive(Debug)]
pub(super) struct Drip {
    pub id: SequenceId,
    /// How many people entered.
    pub people: u64,
}

/// Where a sequence stands at one moment.
#[derive(Debug, Clone)]
pub(super) struct DripMoment {
    pub numbers: SequenceNumbers,
    /// What counting the rows says, when it says another thing.
    pub wrong: Option<String>,
}

impl Drip {
    /// Makes the sequence, activates it and lets some of the leads enter by hand.
    ///
    /// # Errors
    /// As the handle's.
    pub async fn begin(handle: &Handle, scope: &RequestScope, leads: &[StagedLead]) -> Result<Self, HandleError> {
        let steps = (1..=STEPS).map(|step| StepDraft {
            trigger: (step == 1).then(|| "kursus".to_owned()),
            message: Some(format!("{} {{{{name|Anda}}}}, nota kursus anda.", mark(step))),
            wait_secs: Some(WAIT_SECS),
            ..StepDraft::default()
        });
        let draft = SequenceDraft {
            name: Some("Kursus lima hari".to_owned()),
            steps: Some(steps.collect()),
            ..SequenceDraft::default()
        };
        let id = handle.create_sequence(scope, &draft).await?.saved.sequence.id;
        handle.activate_sequence(scope, id, OpenEnd::Refuse).await?;
        let numbers: BTreeSet<_> = leads
            .iter()
            .take(leads.len().div_ceil(ONE_OF))
            .map(|lead| format!("+{}", lead.digits))
            .collect();
        let numbers: Vec<_> = numbers.into_iter().collect();
        for page in numbers.chunks(BATCH_MAX) {
            handle.enrol_numbers(scope, id, page, &EnrolBy::default()).await?;
        }
        let numbers = handle.sequence_numbers(scope, id, &Span::default()).await?;
        Ok(Self {
            id,
            people: numbers.contacts.total,
        })
    }

    /// Where it stands. Tallies and rows are two independent counts; they are compared once nothing can move between the two reads.
    ///
    /// # Errors
    /// As the handle's and the store's.
    pub async fn look(
        &self,
        handle: &Handle,
        store: &dyn AppStore,
        scope: &RequestScope,
    ) -> Result<DripMoment, HandleError> {
        let numbers = handle.sequence_numbers(scope, self.id, &Span::default()).await?;
        let mut wrong = None;
        if numbers.should != self.people * STEPS as u64 {
            wrong = Some(format!(
                "{} flows for {} people and {STEPS} steps",
                numbers.should, self.people
            ));
        }
        if has_ended(&numbers) && !self.agrees(store, scope).await? {
            wrong = Some("tallies and rows do not agree".to_owned());
        }
        Ok(DripMoment { numbers, wrong })
    }

    async fn agrees(&self, store: &dyn AppStore, scope: &RequestScope) -> Result<bool, StoreError> {
        let tallies = store.sequence_counts(scope, self.id, &Span::default()).await?;
        let rows = store.recount_sequence(scope, self.id).await?;
        let sum = |counts: &SequenceCounts| counts.steps.iter().map(|row| row.numbers).sum::<Numbers>();
        Ok(same(&sum(&tallies), &sum(&rows)).is_some() && tallies.enrolments == rows.enrolments)
    }
}

/// Whether everybody is through.
pub(super) fn has_ended(numbers: &SequenceNumbers) -> bool {
    numbers.contacts.open == 0 && numbers.total.remaining == 0
}

/// Of what a gateway recorded, what belongs to the sequence: how many messages, and what is wrong with their order.
/// Messages are numbers and texts with when they were recorded.
pub(super) fn order<'a>(messages: impl Iterator<Item = (&'a str, &'a str, Timestamp)>) -> (u64, Option<String>) {
    let mut steps: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    let mut count = 0;
    for (number, text, at) in messages {
        if let Some(step) = (1..=STEPS).find(|step| text.contains(&mark(*step))) {
            steps.entry(number).or_default().push((at, step));
            count += 1;
        }
    }
    let wrong = steps.values_mut().find_map(|got| {
        got.sort_unstable();
        let steps: Vec<_> = got.iter().map(|(_, step)| *step).collect();
        let rises = steps.is_sorted_by(|one, next| one < next);
        (!rises).then(|| format!("one person got the steps {steps:?}"))
    });
    (count, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_come_twice_or_in_another_order_are_seen_and_other_texts_are_not() {
        let message = |number: &str, at: i64, text: &str| {
            let at = Timestamp::from_millis(at);
            (number.to_owned(), text.to_owned(), at)
        };
        let of = |rows: &[(String, String, Timestamp)]| {
            order(
                rows.iter()
                    .map(|(number, text, at)| (number.as_str(), text.as_str(), *at)),
            )
        };
        let right = [
            message("1", 5, &mark(2)),
            message("1", 3, &mark(1)),
            message("2", 4, "Promosi"),
            message("2", 4, &mark(3)),
        ];
        assert_eq!(of(&right), (3, None));
        assert!(of(&[message("1", 1, &mark(1)), message("1", 2, &mark(1))]).1.is_some());
        assert!(of(&[message("1", 2, &mark(1)), message("1", 1, &mark(2))]).1.is_some());
    }
}
