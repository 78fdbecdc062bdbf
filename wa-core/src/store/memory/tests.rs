//! What the reference store does at its gate; the conformance suite checks the rest of the port.

mod drive;

use futures::FutureExt;

use super::*;
use crate::domain::access::RequestScope;
use crate::domain::audience::AudienceCursor;
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::content::Content;
use crate::domain::delivery::Delivery;
use crate::domain::device::{Device, Epoch};
use crate::domain::message::{IdempotencyKey, Message, MessageScope, MessageState, Reason};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::platform::Platform;
use crate::domain::summary::Numbers;
use crate::domain::suppression::{Suppression, SuppressionReason};
use crate::event::{Event, EventKind};
use crate::id::{AttemptId, CampaignId, DeviceId, EventId, IdSource, Incarnation, MessageId, UserId};
use crate::seed::Seed;
use crate::store::*;
use crate::transport::{MaybeSentCause, MessageRef, TransportMessageId};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + seconds * 1_000)
}

/// Futures of this store never wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the memory store never waits")
}

struct World {
    store: MemoryStore,
    ids: IdSource,
    user: UserId,
    node: Incarnation,
    device: DeviceId,
    campaign: CampaignId,
}

impl World {
    fn new() -> Self {
        let ids = IdSource::seeded([1; 32]);
        let (user, node) = (UserId::new(&ids, at(0)), Incarnation::new(&ids, at(0)));
        let (device, campaign) = (DeviceId::new(&ids, at(0)), CampaignId::new(&ids, at(0)));
        let world = Self {
            store: MemoryStore::new(),
            ids,
            user,
            node,
            device,
            campaign,
        };
        let mut running = Campaign::draft(campaign, user, "a", Content::text("hello"), at(0));
        running.status = CampaignStatus::Triggered;
        running.cursor = AudienceCursor::Done;
        running.started_at = Some(at(0));
        world.commit(
            ChangeSet::one(Change::InsertDevice(Box::new(Device::new(
                device,
                user,
                "d",
                Platform::STUB,
                at(0),
            ))))
            .and(Change::InsertCampaign(Box::new(running))),
        );
        now(world.store.join(node, "n", at(0))).unwrap();
        assert_eq!(now(world.store.claim(node, 10, at(0))).unwrap().len(), 1);
        world
    }

    fn commit(&self, set: ChangeSet) -> Committed {
        now(self.store.commit(set, WriteClass::Api, at(0))).unwrap()
    }

    fn scope(&self) -> RequestScope {
        RequestScope::user(self.user)
    }

    fn phone(number: u32) -> Phone {
        Phone::from_e164(&format!("+6012{number:07}")).unwrap()
    }

    fn person(&self, number: u32) -> PersonKey {
        PersonKey::of(&Seed::from_number(1), self.user, &Self::phone(number))
    }

    fn message(&self, number: u32) -> Message {
        let id = MessageId::new(&self.ids, at(0));
        let person = self.person(number);
        Message {
            id,
            user_id: self.user,
            scope: MessageScope::Campaign(self.campaign),
            key: IdempotencyKey::campaign(self.campaign, person, 0),
            round: 0,
            supersedes: None,
            superseded: false,
            lead_id: None,
            phone: Some(Self::phone(number)),
            person,
            name: String::new(),
            custom: Default::default(),
            device_id: Some(self.device),
            flow: None,
            from_pool: false,
            content: None,
            override_suppression: false,
            due_at: at(0),
            delay: None,
            expires_at: at(1_000),
            held_at: None,
            state: MessageState::Queued,
            reason: None,
            detail: None,
            refusal_count: 0,
            attempt: None,
            doubt: None,
            delivery: None,
            delivery_at: None,
            settled_at: None,
            created_at: at(0),
        }
    }

    fn insert(&self, number: u32) -> MessageId {
        let message = self.message(number);
        let id = message.id;
        let done = self.commit(ChangeSet::one(Change::InsertMessages(vec![message])));
        assert_eq!(done.messages_inserted, 1);
        id
    }

    fn item(&self, message_id: MessageId, epoch: i64, seconds: i64) -> BeginItem {
        let attempt_id = AttemptId::new(&self.ids, at(seconds));
        BeginItem {
            user_id: self.user,
            device_id: self.device,
            epoch: Epoch(epoch),
            message_id,
            attempt_id,
            transport_message_id: TransportMessageId::from_attempt(attempt_id),
            text: "hello".to_owned(),
            greeting: None,
            attempted_at: at(seconds),
            again: false,
        }
    }

    fn begin_item(&self, item: BeginItem) -> Begun {
        let begin = Begin {
            incarnation: self.node,
            now: item.attempted_at,
            items: vec![item],
        };
        now(self.store.begin(&begin)).unwrap()[0]
    }

    fn begin(&self, id: MessageId) -> (Begun, AttemptId) {
        let item = self.item(id, 1, 10);
        let attempt = item.attempt_id;
        (self.begin_item(item), attempt)
    }

    fn settle(&self, message_id: MessageId, attempt_id: AttemptId, epoch: i64, verdict: Verdict) -> Settled {
        let outcome = Outcome {
            advance: None,
            user_id: self.user,
            device_id: self.device,
            epoch: Epoch(epoch),
            message_id,
            attempt_id,
            verdict,
            detail: None,
        };
        let settle = Settle {
            incarnation: self.node,
            outcomes: vec![outcome],
            now: at(20),
        };
        now(self.store.settle(&settle)).unwrap()[0]
    }

    fn row(&self, id: MessageId) -> Message {
        now(self.store.message(&self.scope(), id)).unwrap()
    }

    fn state(&self, id: MessageId) -> (MessageState, Option<Reason>) {
        let row = self.row(id);
        (row.state, row.reason)
    }

    fn status(&self, from: &'static [CampaignStatus], to: CampaignStatus) {
        self.commit(ChangeSet::one(Change::SetCampaignStatus {
            user_id: self.user,
            campaign_id: self.campaign,
            from,
            to,
            reason: None,
        }));
    }

    fn suppress(&self, number: u32) -> Committed {
        self.commit(ChangeSet::one(Change::Suppress(Suppression {
            user_id: self.user,
            person: self.person(number),
            phone: Some(Self::phone(number)),
            reason: SuppressionReason::OptOutWord,
            note: String::new(),
            since_at: at(0),
        })))
    }

    /// The campaign's numbers, after checking that they are those of its rows, and every index too.
    fn numbers(&self) -> Numbers {
        let state = self.store.lock();
        assert!(
            state.messages == state.messages.rebuilt(),
            "an index or tally missed a row"
        );
        assert!(
            state.enrolments == state.enrolments.rebuilt() && state.sequences == state.sequences.rebuilt(),
            "an index or count missed a sequence or enrolment"
        );
        drop(state);
        let of = MessageScope::Campaign(self.campaign);
        let numbers = now(self.store.numbers(&self.scope(), of)).unwrap();
        assert_eq!(numbers, now(self.store.count(&self.scope(), of)).unwrap());
        numbers.iter().map(|row| row.numbers).sum()
    }
}

const SENT: Verdict = Verdict::Sent {
    provider_id: None,
    delivery: None,
};

fn in_doubt(seconds: i64) -> Verdict {
    Verdict::InDoubt {
        cause: MaybeSentCause::Timeout,
        next_check_at: at(seconds),
        not_found_count: 0,
    }
}

fn lost() -> Verdict {
    Verdict::Unknown {
        reason: Reason::CannotTell,
    }
}

fn requeue(seconds: i64) -> Verdict {
    Verdict::Requeue {
        reason: Reason::RateLimited,
        due_at: at(seconds),
        counts: true,
    }
}

#[test]
fn a_message_is_begun_once_and_settled_once() {
    let world = World::new();
    let (first, second) = (world.insert(1), world.insert(2));
    let (begun, attempt) = world.begin(first);
    assert_eq!(begun, Begun::Yes);
    assert_eq!(world.begin(second).0, Begun::NotOwner, "the device sends another");
    assert_eq!(world.begin(first).0, Begun::Gone, "it is not queued any more");
    assert_eq!(world.settle(first, attempt, 1, SENT), Settled::Yes(MessageState::Sent));
    assert_eq!(world.settle(first, attempt, 1, SENT), Settled::Already);
    assert_eq!(world.settle(first, attempt, 1, requeue(30)), Settled::NotSending);
    assert_eq!((world.numbers().done, world.numbers().remaining), (1, 1));
    let history = now(world.store.history(&[world.device], at(0))).unwrap();
    assert_eq!(history[0].attempts, [at(10)]);
    assert_eq!(history[0].first_attempt_at, Some(at(10)));
}

#[test]
fn a_known_key_is_reported_and_changes_nothing() {
    let world = World::new();
    let id = world.insert(1);
    let again = world.message(1);
    let done = world.commit(ChangeSet::one(Change::InsertMessages(vec![again.clone()])));
    assert_eq!(done.duplicates, [(again.key, id)]);
    assert_eq!((done.messages_inserted, world.numbers().should()), (0, 1));
}

#[test]
fn a_commit_that_fails_leaves_rows_indexes_tallies_and_marks_as_they_were() {
    let world = World::new();
    let id = world.insert(1);
    let before = (world.row(id), world.numbers());
    let set = ChangeSet::one(Change::InsertMessages(vec![world.message(2)]))
        .and(Change::CancelMessage {
            user_id: world.user,
            message_id: id,
        })
        .and(Change::DeleteDevice {
            user_id: world.user,
            device_id: world.device,
        })
        .and(Change::CancelMessage {
            user_id: world.user,
            message_id: id,
        })
        .tell(Event {
            id: EventId::new(&world.ids, at(0)),
            user_id: world.user,
            kind: EventKind::CampaignProgress {
                campaign_id: world.campaign,
            },
            at: at(0),
        });
    let error = now(world.store.commit(set, WriteClass::Api, at(5))).unwrap_err();
    assert!(error.is_conflict());
    assert_eq!((world.row(id), world.numbers()), before);
    assert!(now(world.store.device(&world.scope(), world.device)).is_ok());
    assert_eq!(now(world.store.sweep(10, at(6))).unwrap(), Swept::default());
    let events = now(world.store.events(&world.scope(), EventId::MIN, 10)).unwrap();
    assert!(events.is_empty());
    let look = LaneLook {
        served_sequence: None,
        user_id: world.user,
        device_id: world.device,
        served: None,
    };
    let due = Due {
        lanes: vec![look],
        now: at(5),
    };
    let lanes = now(world.store.due(&due)).unwrap();
    assert_eq!(lanes[0].heads[0].id, id);
    assert_eq!(now(world.store.backlog()).unwrap().queued, 1);
}

#[test]
fn begin_obeys_a_pause_before_the_sweep_and_the_sweep_follows_in_pages() {
    let world = World::new();
    let ids: Vec<_> = (1..=3).map(|number| world.insert(number)).collect();
    world.status(&[CampaignStatus::Triggered], CampaignStatus::Paused);
    assert_eq!(world.begin(ids[0]).0, Begun::Stray(MessageState::Held, None));
    let swept = now(world.store.sweep(1, at(100))).unwrap();
    assert_eq!((swept.moved, swept.more), (1, true));
    let swept = now(world.store.sweep(10, at(100))).unwrap();
    assert_eq!((swept.moved, swept.more), (1, false));
    assert_eq!(world.row(ids[1]).held_at, Some(at(100)));
    world.status(&[CampaignStatus::Paused], CampaignStatus::Triggered);
    let swept = now(world.store.sweep(10, at(160))).unwrap();
    assert_eq!((swept.moved, swept.wake), (3, vec![world.device]));
    let row = world.row(ids[1]);
    assert_eq!((row.state, row.held_at), (MessageState::Queued, None));
    assert_eq!(row.expires_at, at(1_060), "time on hold does not count");
    world.status(&[CampaignStatus::Triggered], CampaignStatus::Cancelled);
    assert_eq!(now(world.store.sweep(10, at(170))).unwrap().moved, 3);
    assert_eq!(world.state(ids[2]), (MessageState::Cancelled, Some(Reason::ScopeEnded)));
    assert_eq!(world.numbers().cancelled, 3);
    assert_eq!(now(world.store.sweep(10, at(180))).unwrap(), Swept::default());
}

#[test]
fn an_opted_out_person_gets_nothing_whatever_state_their_messages_are_in() {
    let world = World::new();
    let (queued, doubtful) = (world.insert(1), world.insert(2));
    let (_, attempt) = world.begin(doubtful);
    assert_eq!(
        world.settle(doubtful, attempt, 1, in_doubt(50)),
        Settled::Yes(MessageState::InDoubt)
    );
    assert_eq!((world.suppress(1).moved, world.suppress(2).moved), (1, 1));
    assert_eq!(world.state(queued), (MessageState::Skipped, Some(Reason::Suppressed)));
    assert_eq!(
        world.state(doubtful),
        (MessageState::Unknown, Some(Reason::EndedInDoubt))
    );
    // What was asked before is evidence still.
    assert_eq!(
        world.settle(doubtful, attempt, 1, SENT),
        Settled::Yes(MessageState::Sent)
    );
    assert_eq!(world.numbers().done, 1);
}

#[test]
fn an_opt_out_while_sending_ends_the_doubt_and_the_requeue() {
    let world = World::new();
    let (doubtful, refused) = (world.insert(1), world.insert(2));
    let (_, attempt) = world.begin(doubtful);
    world.suppress(1);
    assert_eq!(
        world.settle(doubtful, attempt, 1, in_doubt(50)),
        Settled::Yes(MessageState::Unknown)
    );
    let (_, attempt) = world.begin(refused);
    world.suppress(2);
    assert_eq!(
        world.settle(refused, attempt, 1, requeue(30)),
        Settled::Yes(MessageState::Skipped)
    );
}

#[test]
fn a_takeover_moves_sending_to_in_doubt_and_leaves_the_old_owner_evidence_only() {
    let world = World::new();
    let (first, second) = (world.insert(1), world.insert(2));
    let (_, attempt) = world.begin(first);
    let other = Incarnation::new(&world.ids, at(0));
    now(world.store.join(other, "m", at(0))).unwrap();
    now(world.store.beat(world.node, at(1))).unwrap();
    let error = now(world.store.fence(other, world.node, 0, at(30))).unwrap_err();
    assert!(error.is_conflict(), "it has beaten");
    let taken = now(world.store.fence(other, world.node, 1, at(30))).unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(world.row(first).doubt.unwrap().next_check_at, at(10));
    assert!(now(world.store.fence(other, world.node, 1, at(31))).unwrap().is_empty());
    let begin = Begin {
        incarnation: world.node,
        items: vec![world.item(second, 1, 40)],
        now: at(40),
    };
    assert!(now(world.store.begin(&begin)).unwrap_err().is_fenced());
    assert!(now(world.store.beat(world.node, at(41))).unwrap_err().is_fenced());

    let claimed = now(world.store.claim(other, 10, at(50))).unwrap();
    assert_eq!(claimed[0].epoch, Epoch(3));
    assert_eq!(now(world.store.doubts(other, at(60), 10)).unwrap().len(), 1);
    let late = World { node: other, ..world };
    assert_eq!(late.settle(first, attempt, 1, requeue(70)), Settled::Lost(false));
    assert_eq!(late.settle(first, attempt, 1, SENT), Settled::Lost(true));
    assert_eq!(late.settle(first, attempt, 1, SENT), Settled::Already);
    assert_eq!(late.numbers().done, 1);
}

#[test]
fn a_message_in_doubt_is_sent_again_with_the_same_attempt_and_counts_it() {
    let world = World::new();
    let id = world.insert(1);
    let first = world.item(id, 1, 10);
    assert_eq!(world.begin_item(first.clone()), Begun::Yes);
    world.settle(id, first.attempt_id, 1, in_doubt(50));
    let again = BeginItem {
        again: true,
        attempted_at: at(60),
        ..first.clone()
    };
    assert_eq!(world.begin_item(again.clone()), Begun::Yes);
    world.settle(id, first.attempt_id, 1, in_doubt(90));
    let row = world.row(id);
    let doubt = row.doubt.unwrap();
    assert_eq!((doubt.resend_count, doubt.since_at), (1, at(20)));
    let attempts = now(world.store.attempts(&world.scope(), id)).unwrap();
    assert_eq!((attempts.len(), attempts[0].attempted_at), (1, at(60)));

    world.status(&[CampaignStatus::Triggered], CampaignStatus::Paused);
    assert_eq!(
        world.begin_item(again.clone()),
        Begun::Stray(MessageState::InDoubt, None)
    );
    assert!(now(world.store.doubts(world.node, at(99), 10)).unwrap().is_empty());
    world.status(&[CampaignStatus::Paused], CampaignStatus::Cancelled);
    assert_eq!(
        world.begin_item(again),
        Begun::Stray(MessageState::Unknown, Some(Reason::EndedInDoubt))
    );
}

#[test]
fn a_requeued_message_keeps_its_attempts_and_fails_after_too_many_refusals() {
    let world = World::new();
    let id = world.insert(1);
    for refusal in 0..=Message::REFUSALS_MAX {
        let (begun, attempt) = world.begin(id);
        assert_eq!(begun, Begun::Yes);
        let state = if refusal < Message::REFUSALS_MAX {
            MessageState::Queued
        } else {
            MessageState::Failed
        };
        assert_eq!(world.settle(id, attempt, 1, requeue(30)), Settled::Yes(state));
    }
    let attempts = now(world.store.attempts(&world.scope(), id)).unwrap();
    assert_eq!(attempts.len(), usize::from(Message::REFUSALS_MAX) + 1);
    assert_eq!(world.row(id).reason, Some(Reason::RefusedTooOften));
    let recent = now(world.store.recent(RecentOf::Campaign(world.campaign), at(0), 50)).unwrap();
    assert_eq!((recent.settled, recent.bad), (1, 1));
}

#[test]
fn a_receipt_proves_that_a_message_was_sent_also_while_it_is_being_sent() {
    let world = World::new();
    let receipt = |attempt: AttemptId, delivery| {
        world.commit(ChangeSet::one(Change::Receipt {
            user_id: world.user,
            device_id: world.device,
            message: MessageRef::Ours(TransportMessageId::from_attempt(attempt)),
            delivery,
            at: at(15),
        }))
    };
    let id = world.insert(1);
    let (_, attempt) = world.begin(id);
    assert_eq!(receipt(attempt, Delivery::Read).matched, [id]);
    assert_eq!(world.state(id).0, MessageState::Sending);
    assert_eq!(
        world.settle(id, attempt, 1, requeue(30)),
        Settled::Yes(MessageState::Sent),
        "it would be sent twice"
    );
    receipt(attempt, Delivery::Delivered);
    assert_eq!(world.row(id).delivery, Some(Delivery::Read), "never backwards");

    let requeued = world.insert(2);
    let (_, attempt) = world.begin(requeued);
    world.settle(requeued, attempt, 1, requeue(30));
    receipt(attempt, Delivery::Delivered);
    assert_eq!(world.state(requeued).0, MessageState::Sent);
    assert_eq!((world.numbers().delivered, world.numbers().read), (2, 1));
}

#[test]
fn a_deleted_device_that_nobody_owns_leaves_no_message_open() {
    let world = World::new();
    let (queued, doubtful) = (world.insert(1), world.insert(2));
    let (_, attempt) = world.begin(doubtful);
    world.settle(doubtful, attempt, 1, in_doubt(50));
    world.commit(ChangeSet::one(Change::DeleteDevice {
        user_id: world.user,
        device_id: world.device,
    }));
    assert_eq!(now(world.store.sweep(10, at(60))).unwrap().moved, 1);
    assert_eq!(world.state(queued), (MessageState::Skipped, Some(Reason::DeviceGone)));
    assert!(
        now(world.store.complete_campaigns(&[EventId::MIN], at(61)))
            .unwrap()
            .is_empty()
    );
    now(world.store.leave(world.node, at(70))).unwrap();
    assert_eq!(now(world.store.sweep(10, at(71))).unwrap().moved, 1);
    assert_eq!(world.state(doubtful), (MessageState::Unknown, Some(Reason::CannotTell)));
    let completed = now(world.store.complete_campaigns(&[EventId::MIN], at(72))).unwrap();
    assert_eq!(completed[0].status, CampaignStatus::Completed);
    assert_eq!(completed[0].reason, None);
}

#[test]
fn a_resend_replaces_the_row_in_the_numbers() {
    let world = World::new();
    let id = world.insert(1);
    let (_, attempt) = world.begin(id);
    world.settle(id, attempt, 1, lost());
    let mut next = world.message(1);
    next.round = 1;
    next.supersedes = Some(id);
    next.key = IdempotencyKey::resend(id, 1);
    let done = world.commit(ChangeSet::one(Change::InsertMessages(vec![next])));
    assert_eq!(done.wake, [world.device]);
    assert!(world.row(id).superseded);
    assert_eq!((world.numbers().unknown, world.numbers().remaining), (0, 1));
}
