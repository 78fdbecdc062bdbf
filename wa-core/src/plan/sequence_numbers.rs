//! The numbers of a sequence: what its messages and its enrolments add up to, counted in one place.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::enrolment::{EnrolmentReason, EnrolmentState};
use crate::domain::sequence::SequenceSteps;
use crate::domain::summary::{Bucket, DeviceNumbers, Numbers};
use crate::id::{DeviceId, StepId};
use crate::store::SequenceCounts;

/// The flows of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepTotals {
    /// The step; one that an edit removed keeps its numbers.
    pub step_id: StepId,
    /// Over all devices.
    pub total: Numbers,
    /// By device; `None` is the pool.
    pub devices: Vec<DeviceNumbers>,
}

/// How many runs through a sequence there are, by where they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ContactNumbers {
    /// All of them.
    pub total: u64,
    /// Still going on.
    pub open: u64,
    /// Every step is settled.
    pub completed: u64,
    /// Ended before the last step.
    pub ended: u64,
    /// Of those that ended: why, by reason.
    pub ended_by: Vec<(EnrolmentReason, u64)>,
    /// Of those completed: why they were not chained on, by reason.
    pub not_chained: Vec<(EnrolmentReason, u64)>,
}

/// The numbers of a sequence; their unit is the flow, one lead and one step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlowTotals {
    /// Over all steps and devices.
    pub total: Numbers,
    /// By step, in the order of the newest steps; then those that were removed.
    pub steps: Vec<StepTotals>,
    /// By device over all steps, the pool first.
    pub devices: Vec<DeviceNumbers>,
    /// The runs.
    pub contacts: ContactNumbers,
}

/// Adds up what the store counted.
///
/// A flow that was active has a message, and counts by its state. One that was not has none: it is a step after the one at
/// which its enrolment stands, in that enrolment's version of the steps. It remains while the enrolment is open, and is cancelled
/// once that has ended; a completed one has none. `versions` are all versions that the counts name, and the newest.
#[must_use]
pub fn flow_totals(counts: &SequenceCounts, versions: &[SequenceSteps]) -> FlowTotals {
    let mut cells: BTreeMap<(StepId, Option<DeviceId>), Numbers> = BTreeMap::new();
    for row in &counts.steps {
        *cells.entry((row.step_id, row.device_id)).or_default() += row.numbers;
    }
    let mut contacts = ContactNumbers::default();
    let mut ended_by = BTreeMap::new();
    let mut not_chained = BTreeMap::new();
    for row in &counts.enrolments {
        contacts.total += row.count;
        let bucket = match row.state {
            EnrolmentState::Open => {
                contacts.open += row.count;
                Bucket::Remaining
            }
            EnrolmentState::Ended => {
                contacts.ended += row.count;
                if let Some(reason) = row.reason {
                    *ended_by.entry(reason).or_insert(0) += row.count;
                }
                Bucket::Cancelled
            }
            EnrolmentState::Completed => {
                contacts.completed += row.count;
                if let Some(reason) = row.reason {
                    *not_chained.entry(reason).or_insert(0) += row.count;
                }
                continue;
            }
        };
        let version = versions.iter().find(|version| version.version == row.steps_version);
        for step in version.map_or(&[][..], |version| version.after(row.step_id)) {
            *cells.entry((step.id, row.device_id)).or_default().counter(bucket) += row.count;
        }
    }
    contacts.ended_by = ended_by.into_iter().collect();
    contacts.not_chained = not_chained.into_iter().collect();
    let mut by_step: BTreeMap<StepId, Vec<DeviceNumbers>> = BTreeMap::new();
    let mut by_device: BTreeMap<Option<DeviceId>, Numbers> = BTreeMap::new();
    for ((step_id, device_id), numbers) in cells {
        by_step
            .entry(step_id)
            .or_default()
            .push(DeviceNumbers { device_id, numbers });
        *by_device.entry(device_id).or_default() += numbers;
    }
    let newest = versions.iter().max_by_key(|version| version.version);
    let place = |id: &StepId| newest.and_then(|newest| newest.position(*id)).unwrap_or(usize::MAX);
    for step in newest.map_or(&[][..], |newest| &newest.steps) {
        by_step.entry(step.id).or_default();
    }
    let totals = by_step.into_iter().map(|(step_id, devices)| StepTotals {
        step_id,
        total: devices.iter().map(|row| row.numbers).sum(),
        devices,
    });
    let mut steps: Vec<StepTotals> = totals.collect();
    steps.sort_by_key(|step| (place(&step.step_id), step.step_id));
    FlowTotals {
        total: steps.iter().map(|step| step.total).sum(),
        steps,
        devices: by_device
            .into_iter()
            .map(|(device_id, numbers)| DeviceNumbers { device_id, numbers })
            .collect(),
        contacts,
    }
}

/// The share of flows that were sent among those that ended with a send, a failure or a skip, 0 to 1; `None` while there are
/// none. What was cancelled never had its turn.
#[must_use]
pub fn success_rate(numbers: &Numbers) -> Option<f64> {
    let settled = numbers.done + numbers.failed + numbers.skipped + numbers.unknown;
    // Counts this large lose no digit that is shown.
    #[allow(clippy::cast_precision_loss)]
    let share = numbers.done as f64 / settled as f64;
    (settled > 0).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::Content;
    use crate::domain::enrolment::{EnrolmentCount, StepNumbers};
    use crate::domain::sequence::Step;
    use crate::domain::token::Token;
    use crate::id::SequenceId;

    fn step_id(number: u128) -> StepId {
        StepId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn version(number: i32, ids: &[u128]) -> SequenceSteps {
        let step = |id: &u128| Step {
            id: step_id(*id),
            day: 1,
            trigger: Token::parse(&format!("t{id}")).unwrap(),
            next_trigger: None,
            entry_point: true,
            wait: Step::WAIT,
            content: Content::text("Hi"),
            send_time: None,
            delay: None,
        };
        SequenceSteps {
            sequence_id: SequenceId::MIN,
            version: number,
            steps: ids.iter().map(step).collect(),
        }
    }

    fn sent(step: u128, done: u64) -> StepNumbers {
        let numbers = Numbers {
            done,
            ..Numbers::default()
        };
        StepNumbers {
            step_id: step_id(step),
            device_id: None,
            numbers,
        }
    }

    fn stand(version: i32, step: u128, state: EnrolmentState, reason: Option<EnrolmentReason>) -> EnrolmentCount {
        EnrolmentCount {
            steps_version: version,
            step_id: step_id(step),
            device_id: None,
            state,
            reason,
            count: 2,
        }
    }

    #[test]
    fn every_step_counts_from_enrolment_on_and_what_never_came_is_cancelled() {
        use EnrolmentState::{Completed, Ended, Open};
        let versions = [version(1, &[1, 2, 3]), version(2, &[1, 3, 4])];
        let counts = SequenceCounts {
            steps: vec![sent(1, 8), sent(2, 2), sent(3, 2), sent(4, 2)],
            enrolments: vec![
                stand(1, 1, Open, None),
                stand(2, 1, Open, None),
                stand(1, 2, Ended, Some(EnrolmentReason::Replied)),
                stand(2, 4, Completed, Some(EnrolmentReason::NobodyHasTrigger)),
            ],
        };
        let totals = flow_totals(&counts, &versions);
        let rows: Vec<_> = totals
            .steps
            .iter()
            .map(|step| {
                (
                    step.step_id,
                    step.total.done,
                    step.total.remaining,
                    step.total.cancelled,
                )
            })
            .collect();
        let expected = [
            (step_id(1), 8, 0, 0),
            (step_id(3), 2, 4, 2),
            (step_id(4), 2, 2, 0),
            (step_id(2), 2, 2, 0),
        ];
        assert_eq!(rows, expected, "removed steps come last");
        assert_eq!((totals.total.should(), totals.total.remaining), (24, 8));
        let devices: Numbers = totals.devices.iter().map(|row| row.numbers).sum();
        assert_eq!(devices, totals.total);
        let contacts = &totals.contacts;
        assert_eq!(
            (contacts.total, contacts.open, contacts.completed, contacts.ended),
            (8, 4, 2, 2)
        );
        assert_eq!(contacts.ended_by, [(EnrolmentReason::Replied, 2)]);
        assert_eq!(contacts.not_chained, [(EnrolmentReason::NobodyHasTrigger, 2)]);
    }

    #[test]
    fn a_step_that_nobody_reached_is_listed_with_nothing() {
        let totals = flow_totals(&SequenceCounts::default(), &[version(1, &[7])]);
        assert_eq!((totals.steps.len(), totals.steps[0].total.should()), (1, 0));
    }

    #[test]
    fn what_was_cancelled_does_not_lower_the_success_rate() {
        let numbers = Numbers {
            done: 3,
            failed: 1,
            cancelled: 9,
            remaining: 5,
            ..Numbers::default()
        };
        assert_eq!(success_rate(&numbers), Some(0.75));
        assert_eq!(success_rate(&Numbers::default()), None);
    }
}
