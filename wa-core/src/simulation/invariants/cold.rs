//! Strangers are left alone while WhatsApp says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Violation, rows_by_id};
use crate::domain::message::MessageState;
use crate::domain::phone::Phone;
use crate::domain::restriction::UNKNOWN_RESTRICTION_FOR;
use crate::id::{AttemptId, DeviceId, Incarnation, MessageId};
use crate::simulation::history::{Record, What};
use crate::store::{Begun, Settled};
use crate::transport::{NotSentKind, RestrictionScope, SendError};

const NAME: &str = "cold";

/// Clocks of lanes and the timeline agree to the millisecond.
const GRAIN: Duration = Duration::from_millis(2);

/// No message to somebody who does not know the device is begun by a node that has recorded that WhatsApp refused such a message,
/// as long as that restriction lasts.
///
/// Whoever may have got a message of the device, or wrote to it, counts as known. Only judged where wall clocks are right, because
/// the end of a restriction is kept by them.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    if !record.facts.wall_is_true {
        return Vec::new();
    }
    let rows = rows_by_id(record);
    // However it came about that they count as sent.
    let mut sent: BTreeMap<(DeviceId, Phone), BTreeSet<MessageId>> = BTreeMap::new();
    for row in &record.rows {
        if let (MessageState::Sent, Some(device), Some(phone)) = (row.state, row.device_id, row.phone) {
            sent.entry((device, phone)).or_default().insert(row.id);
        }
    }
    let mut known: BTreeSet<(DeviceId, Phone)> = BTreeSet::new();
    let mut called: BTreeMap<AttemptId, (DeviceId, Phone)> = BTreeMap::new();
    let mut refused: BTreeSet<AttemptId> = BTreeSet::new();
    let mut closed: BTreeMap<(DeviceId, Incarnation), (Duration, Duration)> = BTreeMap::new();
    let mut broken = Vec::new();
    for moment in &record.moments {
        match &moment.what {
            // As long as nobody says that it does not, it may arrive.
            What::Called(call) if known.insert((call.device_id, call.to)) => {
                called.insert(call.attempt_id, (call.device_id, call.to));
            }
            What::Wrote(device, phone) => drop(known.insert((*device, *phone))),
            What::Answered(attempt, Err(SendError::NotSent(refusal))) => {
                let cold = NotSentKind::Restricted {
                    until: None,
                    scope: RestrictionScope::Cold,
                };
                if let Some(to) = called.remove(attempt) {
                    known.remove(&to);
                    if refusal.kind == cold {
                        refused.insert(*attempt);
                    }
                }
            }
            What::Settle(settle) if refused.contains(&settle.attempt_id) => {
                if matches!(settle.answer, Settled::Yes(_) | Settled::Already) {
                    let until = moment.at + UNKNOWN_RESTRICTION_FOR;
                    closed.insert((settle.device_id, settle.incarnation), (moment.at, until));
                }
            }
            What::Held(device, false) => closed.retain(|(of, _), _| of != device),
            What::Begin(begin) if begin.answer == Begun::Yes && !begin.again => {
                let Some((since, until)) = closed.get(&(begin.device_id, begin.incarnation)) else {
                    continue;
                };
                let phone = rows.get(&begin.message_id).and_then(|row| row.phone);
                let is_stranger = phone.is_some_and(|phone| {
                    let to = (begin.device_id, phone);
                    let others = sent
                        .get(&to)
                        .is_some_and(|ids| ids.iter().any(|id| *id != begin.message_id));
                    !others && !known.contains(&to)
                });
                if is_stranger && begin.asked_at > *since && begin.asked_at + GRAIN < *until {
                    let what = format!("{} went to a stranger in spite of a restriction", begin.message_id);
                    broken.push(Violation::at(NAME, begin.asked_at, what));
                }
            }
            _ => {}
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::device::Epoch;
    use crate::simulation::gateway::GatewayKind;

    fn refused(begun_again_at: f64) -> Story {
        let mut story = Story::of(GatewayKind::SameId);
        story.record.facts.wall_is_true = true;
        let (first, second) = (story.row(MessageState::Queued), story.row(MessageState::Queued));
        let attempt = AttemptId::MIN;
        story.begin(0.0, first, attempt);
        story.called(0.0, first, attempt);
        let kind = NotSentKind::Restricted {
            until: None,
            scope: RestrictionScope::Cold,
        };
        story.add(1.0, What::Answered(attempt, Err(SendError::not_sent(kind, ""))));
        let verdict = crate::store::Verdict::Requeue {
            reason: crate::domain::message::Reason::Restricted,
            due_at: super::super::testing::T0,
            counts: false,
        };
        story.settled(2.0, Epoch(1), verdict, Settled::Yes(MessageState::Queued));
        let attempt = story.attempt();
        story.begin(begun_again_at, second, attempt);
        story
    }

    #[test]
    fn a_stranger_written_to_within_a_restriction_is_found_and_one_afterwards_is_none() {
        assert_broken(&check(&refused(60.0).record), 1);
        assert_holds(&check(&refused(3_700.0).record));
    }

    #[test]
    fn somebody_who_wrote_may_be_written_to() {
        let mut story = refused(60.0);
        let (device, phone) = (story.device, story.record.rows[1].phone.unwrap());
        let begin = story.record.moments.pop().unwrap();
        story.add(30.0, What::Wrote(device, phone));
        story.record.moments.push(begin);
        assert_holds(&check(&story.record));
    }

    #[test]
    fn who_lost_the_restriction_from_sight_is_judged_only_by_what_it_heard() {
        let mut story = refused(60.0);
        story.record.facts.wall_is_true = false;
        assert_holds(&check(&story.record));
        story.record.facts.wall_is_true = true;
        let device = story.device;
        let begin = story.record.moments.pop().unwrap();
        story.add(30.0, What::Held(device, false));
        story.record.moments.push(begin);
        assert_holds(&check(&story.record));
    }
}
