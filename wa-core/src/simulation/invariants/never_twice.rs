//! I2: nothing that may have been sent is sent again, but where that is harmless.

use std::collections::BTreeMap;

use super::Violation;
use crate::id::{AttemptId, MessageId};
use crate::simulation::gateway::GatewayKind;
use crate::simulation::history::{CallSeen, Record, What};
use crate::transport::{Reconciled, SendError};

const NAME: &str = "I2";
/// How often a gateway must say that it never had a message.
const NOT_FOUND_NEEDED: u32 = 2;

/// What is known of one attempt by those who sent it.
struct Known {
    kind: GatewayKind,
    calls: u32,
    refused: u32,
    not_found: u32,
}

impl Known {
    fn over(kind: GatewayKind) -> Self {
        Self {
            kind,
            calls: 0,
            refused: 0,
            not_found: 0,
        }
    }

    /// Whether the message may have been sent by it.
    fn maybe_sent(&self) -> bool {
        self.refused < self.calls && !(self.kind == GatewayKind::Reconcile && self.not_found >= NOT_FOUND_NEEDED)
    }
}

/// No recipient gets a message twice, and no request is made while an earlier one may have been accepted: unless the
/// network drops the repeated id, or the gateway said twice that it never had it.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut received: BTreeMap<MessageId, u32> = BTreeMap::new();
    let mut attempts: BTreeMap<MessageId, BTreeMap<AttemptId, Known>> = BTreeMap::new();
    let mut message_of: BTreeMap<AttemptId, MessageId> = BTreeMap::new();
    for moment in &record.moments {
        match &moment.what {
            What::Received(call) => {
                let count = received.entry(call.message_id).or_default();
                *count += 1;
                if *count > 1 {
                    let what = format!("{} was received {count} times", call.message_id);
                    broken.push(Violation::at(NAME, moment.at, what));
                }
            }
            What::Called(call) => {
                let kind = record.facts.kinds.get(&call.device_id).copied();
                let kind = kind.unwrap_or(GatewayKind::Silent);
                let known = attempts.entry(call.message_id).or_default();
                if let Some(why) = wrong(call, known) {
                    broken.push(Violation::at(NAME, moment.at, format!("{}: {why}", call.message_id)));
                }
                known.entry(call.attempt_id).or_insert_with(|| Known::over(kind)).calls += 1;
                message_of.insert(call.attempt_id, call.message_id);
            }
            What::Answered(attempt, Err(SendError::NotSent(_))) => {
                if let Some(known) = known_of(&mut attempts, &message_of, *attempt) {
                    known.refused += 1;
                }
            }
            What::Asked(attempt, Some(Reconciled::NotFound)) => {
                if let Some(known) = known_of(&mut attempts, &message_of, *attempt) {
                    known.not_found += 1;
                }
            }
            _ => {}
        }
    }
    broken
}

fn known_of<'a>(
    attempts: &'a mut BTreeMap<MessageId, BTreeMap<AttemptId, Known>>,
    message_of: &BTreeMap<AttemptId, MessageId>,
    attempt: AttemptId,
) -> Option<&'a mut Known> {
    attempts.get_mut(message_of.get(&attempt)?)?.get_mut(&attempt)
}

fn wrong(call: &CallSeen, known: &BTreeMap<AttemptId, Known>) -> Option<&'static str> {
    for (attempt, known) in known {
        let same = *attempt == call.attempt_id;
        if same && known.kind != GatewayKind::SameId {
            return Some("sent twice with one id where the network does not drop it");
        }
        if !same && known.maybe_sent() {
            return Some("sent again although it may have been sent");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::message::MessageState;
    use crate::transport::NotSentKind;

    fn twice(kind: GatewayKind, between: impl Fn(&mut Story, AttemptId)) -> Vec<Violation> {
        let mut story = Story::of(kind);
        let message = story.row(MessageState::Sent);
        let (first, second) = (story.attempt(), story.attempt());
        story.called(1.0, message, first);
        between(&mut story, first);
        story.called(9.0, message, second);
        check(&story.record)
    }

    #[test]
    fn a_second_request_needs_a_refusal_or_two_answers_that_it_never_arrived() {
        let refused = || Err(SendError::not_sent(NotSentKind::Unavailable, ""));
        for kind in GatewayKind::ALL {
            assert_holds(&twice(kind, |story, first| {
                story.add(2.0, What::Answered(first, refused()))
            }));
            assert_broken(&twice(kind, |_, _| {}), 1);
        }
        let asked = |times: u32| {
            move |story: &mut Story, first| {
                (0..times).for_each(|_| story.add(3.0, What::Asked(first, Some(Reconciled::NotFound))));
            }
        };
        assert_holds(&twice(GatewayKind::Reconcile, asked(2)));
        assert_broken(&twice(GatewayKind::Reconcile, asked(1)), 1);
        assert_broken(&twice(GatewayKind::Silent, asked(2)), 1);
    }

    #[test]
    fn one_id_may_be_repeated_only_where_the_network_drops_it() {
        for (kind, broken) in [(GatewayKind::SameId, 0), (GatewayKind::Reconcile, 1)] {
            let mut story = Story::of(kind);
            let message = story.row(MessageState::Sent);
            let attempt = story.attempt();
            story.called(1.0, message, attempt);
            story.called(9.0, message, attempt);
            assert_broken(&check(&story.record), broken);
        }
    }

    #[test]
    fn a_recipient_who_gets_a_message_twice_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let message = story.row(MessageState::Sent);
        let attempt = story.attempt();
        story.received(1.0, message, attempt);
        assert_holds(&check(&story.record));
        story.received(2.0, message, attempt);
        assert_broken(&check(&story.record), 1);
    }
}
