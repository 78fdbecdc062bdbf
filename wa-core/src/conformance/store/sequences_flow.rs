//! How enrolments move from step to step: marks, moves, the gate, steps that are sent again.

use super::drip::Drip;
use super::stage::{Stage, doubt_until, failed, not_found, requeue, sent, skipped, unknown};
use super::world::World;
use crate::domain::delivery::Delivery;
use crate::domain::message::{MessageState, Reason};
use crate::domain::sequence::SequenceStatus;
use crate::id::{EnrolmentId, MessageId, SequenceId};
use crate::store::{Advance, Begun, Change, Due, LaneLook, Settled, StoreErrorKind, Verdict};
use crate::transport::{MessageRef, TransportMessageId};

async fn assert_marked(drip: &Drip, id: EnrolmentId, by: &str) {
    let marked = drip.world().marked().await;
    let [one] = marked.as_slice() else {
        panic!("{by}: {} marks", marked.len())
    };
    assert_eq!(one.enrolment, drip.enrolment(id).await, "{by}");
    assert_eq!(one.message, drip.active(id).await, "{by}");
    drip.world().end(&one.enrolment).await;
    assert!(drip.world().marked().await.is_empty(), "an end takes the mark away");
}

pub(super) async fn whatever_a_settlement_settles_marks_its_enrolment(world: World) {
    let drip = Drip::new(&world).await;
    for verdict in [sent(), failed(), unknown(), skipped()] {
        let (id, message) = drip.enrolled().await;
        drip.tried(message, verdict.clone()).await;
        assert_marked(&drip, id, &format!("{verdict:?}")).await;
    }
    let (id, message) = drip.enrolled().await;
    let attempt = drip.stage.begin(message).await;
    drip.stage.settle(message, attempt, doubt_until(world.now())).await;
    assert!(world.marked().await.is_empty(), "in doubt is not settled");
    drip.stage.settle(message, attempt, not_found(world.now())).await;
    assert!(world.marked().await.is_empty(), "what is put back is not settled");
    let attempt = drip.stage.begin(message).await;
    drip.stage.settle(message, attempt, requeue(world.now())).await;
    assert!(world.marked().await.is_empty());
    drip.world().end(&drip.enrolment(id).await).await;
}

pub(super) async fn every_other_road_that_settles_marks_its_enrolment_too(world: World) {
    let drip = Drip::new(&world).await;
    for state in [MessageState::Skipped, MessageState::Failed] {
        let (id, message) = drip.enrolled().await;
        let declined = drip.stage.declined(message, state);
        world.store.decline(&[declined], world.now()).await.unwrap();
        assert_marked(&drip, id, "declined").await;
    }
    let (id, message_id) = drip.enrolled().await;
    let put_off = drip.stage.declined(message_id, MessageState::Queued);
    world.store.decline(&[put_off], world.now()).await.unwrap();
    assert!(world.marked().await.is_empty(), "what is put off is not settled");
    let cancel = Change::CancelMessage {
        user_id: drip.user(),
        message_id,
    };
    world.commit(cancel).await;
    assert_marked(&drip, id, "cancelled by a person").await;

    let (id, message) = drip.enrolled().await;
    let attempt = drip.stage.begin(message).await;
    drip.stage.settle(message, attempt, doubt_until(world.now())).await;
    world.commit(receipt(&drip, message).await).await;
    assert_marked(&drip, id, "a receipt").await;

    let (id, message) = drip.enrolled().await;
    drip.stage.begin(message).await;
    world.commit(receipt(&drip, message).await).await;
    assert!(world.marked().await.is_empty(), "it is still being sent");
    drip.stage.take_over().await;
    assert_eq!(drip.stage.state(message).await, MessageState::Sent);
    assert_marked(&drip, id, "a takeover of what a receipt proved").await;
}

/// A receipt of the newest attempt of a message.
async fn receipt(drip: &Drip, message: MessageId) -> Change {
    let attempt = drip.stage.row(message).await.attempt.unwrap();
    Change::Receipt {
        user_id: drip.user(),
        device_id: drip.stage.device,
        message: MessageRef::Ours(attempt.transport_message_id),
        delivery: Delivery::Delivered,
        at: drip.stage.now(),
    }
}

pub(super) async fn a_step_that_expires_marks_its_enrolment(world: World) {
    let drip = Drip::new(&world).await;
    let (id, message) = drip.enrolled().await;
    let at = drip.stage.row(message).await.expires_at;
    world.store.expire(10, at).await.unwrap();
    let row = drip.stage.row(message).await;
    assert_eq!((row.state, row.reason), (MessageState::Skipped, Some(Reason::Expired)));
    assert_marked(&drip, id, "expired").await;
}

pub(super) async fn a_step_of_a_deleted_device_marks_its_enrolment(world: World) {
    let drip = Drip::new(&world).await;
    let (id, message) = drip.enrolled().await;
    drip.stage.delete_device().await;
    world.sweep_at(world.now()).await;
    let row = drip.stage.row(message).await;
    assert_eq!(
        (row.state, row.reason),
        (MessageState::Skipped, Some(Reason::DeviceGone))
    );
    assert_marked(&drip, id, "swept").await;
}

pub(super) async fn marks_are_told_oldest_first_and_also_of_what_does_not_run(world: World) {
    let drip = Drip::new(&world).await;
    let mut expected = Vec::new();
    for _ in 0..3 {
        let (id, message) = drip.enrolled().await;
        drip.tried(message, sent()).await;
        expected.push(id);
    }
    assert_eq!(world.marked_ids().await, expected);
    assert_eq!(world.store.to_advance(2).await.unwrap().len(), 2);
    drip.pause().await;
    assert_eq!(world.marked_ids().await, expected);
    drip.advance(expected[0]).await;
    assert_eq!(world.marked_ids().await, expected[1..]);
}

pub(super) async fn evidence_that_comes_later_marks_nobody_again(world: World) {
    let drip = Drip::new(&world).await;
    let (id, message) = drip.enrolled().await;
    drip.tried(message, unknown()).await;
    let attempt = drip.stage.row(message).await.attempt.unwrap().id;
    drip.advance(id).await;
    let before = drip.enrolment(id).await;
    drip.stage.settle(message, attempt, sent()).await;
    assert_eq!(drip.stage.state(message).await, MessageState::Sent);
    assert!(world.marked().await.is_empty());
    assert_eq!(drip.enrolment(id).await, before);
}

pub(super) async fn a_move_sets_step_and_due_time_and_enqueues_the_next_message(world: World) {
    let drip = Drip::new(&world).await;
    let (id, message) = drip.enrolled().await;
    drip.tried(message, sent()).await;
    let advance = drip.advance_after(id, MessageState::Sent).await;
    let done = world.commit(Change::AdvanceEnrolment(Box::new(advance.clone()))).await;
    assert_eq!((done.messages_inserted, done.wake), (1, vec![drip.stage.device]));
    let enrolment = drip.enrolment(id).await;
    assert_eq!((enrolment.step_id, enrolment.due_at), (advance.to, advance.due_at));
    assert_eq!(drip.active(id).await, advance.messages[0]);
    assert!(world.marked().await.is_empty());
    let again = Change::AdvanceEnrolment(Box::new(advance));
    drip.refused(again, StoreErrorKind::Conflict).await;
}

pub(super) async fn a_move_that_does_not_fit_is_refused(world: World) {
    let drip = Drip::new(&world).await;
    let other_device = world.device(drip.user()).await;
    let (id, message) = drip.enrolled().await;
    let early = drip.advance_after(id, MessageState::Sent).await;
    let refused = async |edit: &(dyn Fn(&mut Advance) + Sync), kind| {
        let mut advance = early.clone();
        edit(&mut advance);
        drip.refused(Change::AdvanceEnrolment(Box::new(advance)), kind).await;
    };
    refused(&|_| (), StoreErrorKind::Conflict).await;
    refused(&|one| one.after = MessageState::Queued, StoreErrorKind::Conflict).await;
    drip.tried(message, failed()).await;
    refused(&|_| (), StoreErrorKind::Conflict).await;
    let other = world.user().await;
    refused(&|one| one.user_id = other, StoreErrorKind::NotFound).await;
    let fits = |one: &mut Advance| one.after = MessageState::Failed;
    let stale: [&(dyn Fn(&mut Advance) + Sync); 5] = [
        &|one| one.from = one.to,
        &|one| one.from_version = 2,
        &|one| one.to_version = 2,
        &|one| one.sequence_id = SequenceId::MIN,
        &|one| one.messages[0].device_id = Some(other_device),
    ];
    for edit in stale {
        refused(
            &|one| {
                fits(one);
                edit(one);
            },
            StoreErrorKind::Conflict,
        )
        .await;
    }
    assert_eq!(world.marked_ids().await, [id], "the mark stays");
    drip.edit_steps(|steps| steps.steps[1].wait *= 2).await;
    refused(&fits, StoreErrorKind::Conflict).await;
    let mut again = drip.advance_after(id, MessageState::Failed).await;
    world.end(&drip.enrolment(id).await).await;
    again.after = MessageState::Failed;
    drip.refused(Change::AdvanceEnrolment(Box::new(again)), StoreErrorKind::Conflict)
        .await;
}

async fn settle_with(drip: &Drip, message: MessageId, verdict: Verdict, advance: Advance) -> Settled {
    let attempt = drip.stage.begin(message).await;
    let mut outcome = drip.stage.outcome(message, attempt, verdict);
    outcome.advance = Some(Box::new(advance));
    drip.stage.settle_as(drip.stage.node, outcome).await.unwrap()
}

pub(super) async fn a_settlement_moves_its_enrolment_on_where_its_plan_fits(world: World) {
    let drip = Drip::new(&world).await;
    let (id, message) = drip.enrolled().await;
    let advance = drip.advance_after(id, MessageState::Sent).await;
    let settled = settle_with(&drip, message, sent(), advance.clone()).await;
    assert_eq!(settled, Settled::Yes(MessageState::Sent));
    assert!(world.marked().await.is_empty(), "the mark is never seen");
    let enrolment = drip.enrolment(id).await;
    assert_eq!((enrolment.step_id, enrolment.due_at), (advance.to, advance.due_at));
    assert_eq!(drip.active(id).await, advance.messages[0]);
}

pub(super) async fn a_settlement_stands_where_its_plan_does_not_fit_any_more(world: World) {
    let drip = Drip::new(&world).await;
    let other = drip.enrolled().await;
    let (id, message) = drip.enrolled().await;
    let advance = drip.advance_after(id, MessageState::Sent).await;
    let settled = settle_with(&drip, message, failed(), advance).await;
    assert_eq!(settled, Settled::Yes(MessageState::Failed));
    assert_marked(&drip, id, "it ended otherwise").await;

    let (id, message) = drip.enrolled().await;
    let advance = drip.advance_after(id, MessageState::Sent).await;
    drip.edit_steps(|steps| steps.steps[1].wait *= 2).await;
    assert_eq!(
        settle_with(&drip, message, sent(), advance).await,
        Settled::Yes(MessageState::Sent)
    );
    assert_marked(&drip, id, "the steps were edited").await;

    let (id, message) = drip.enrolled().await;
    let mut advance = drip.advance_after(id, MessageState::Sent).await;
    advance.messages[0].lead_id = Some(crate::id::LeadId::MIN);
    assert_eq!(
        settle_with(&drip, message, sent(), advance).await,
        Settled::Yes(MessageState::Sent)
    );
    assert_eq!(drip.messages(id).await.len(), 1, "half a move leaves nothing behind");
    assert_marked(&drip, id, "the move cannot be made").await;

    let (id, message) = drip.enrolled().await;
    let advance = drip.advance_after(other.0, MessageState::Sent).await;
    assert_eq!(
        settle_with(&drip, message, sent(), advance).await,
        Settled::Yes(MessageState::Sent)
    );
    assert_eq!(drip.active(other.0).await.id, other.1, "another's move moves nobody");
    assert_marked(&drip, id, "the plan of another").await;

    let (id, message) = drip.enrolled().await;
    let advance = drip.advance_after(id, MessageState::Sent).await;
    let attempt = drip.stage.begin(message).await;
    world.end(&drip.enrolment(id).await).await;
    let mut outcome = drip.stage.outcome(message, attempt, sent());
    outcome.advance = Some(Box::new(advance));
    let settled = drip.stage.settle_as(drip.stage.node, outcome).await.unwrap();
    assert_eq!(settled, Settled::Yes(MessageState::Sent));
    assert_eq!(drip.messages(id).await.len(), 1, "nothing follows an end");
    assert!(world.marked().await.is_empty());
}

pub(super) async fn an_enrolment_moves_on_while_its_sequence_is_paused_and_waits(world: World) {
    let drip = Drip::new(&world).await;
    let (id, message) = drip.enrolled().await;
    let advance = drip.advance_after(id, MessageState::Sent).await;
    let attempt = drip.stage.begin(message).await;
    drip.pause().await;
    let mut outcome = drip.stage.outcome(message, attempt, sent());
    outcome.advance = Some(Box::new(advance));
    drip.stage.settle_as(drip.stage.node, outcome).await.unwrap();
    let next = drip.active(id).await;
    assert_eq!((next.state, next.held_at), (MessageState::Held, Some(world.now())));
    drip.status(SequenceStatus::Active).await;
    assert_eq!(world.sweep_at(world.at(5)).await, 1);
    assert_eq!(drip.stage.state(next.id).await, MessageState::Queued);
}

pub(super) async fn steps_that_an_edit_removed_are_recorded_as_cancelled(world: World) {
    let drip = Drip::new(&world).await;
    let (id, message) = drip.enrolled().await;
    let old = drip.steps().await;
    drip.tried(message, sent()).await;
    let added = world.rows.step("LAST");
    drip.edit_steps(|steps| {
        steps.steps.remove(1);
        steps.steps.push(added.clone());
    })
    .await;
    drip.advance(id).await;
    let rows = drip.messages(id).await;
    let removed = rows
        .iter()
        .find(|row| row.flow.unwrap().step_id == old.steps[1].id)
        .unwrap();
    assert_eq!(
        (removed.state, removed.reason),
        (MessageState::Cancelled, Some(Reason::StepRemoved))
    );
    let enrolment = drip.enrolment(id).await;
    assert_eq!((enrolment.steps_version, enrolment.step_id), (2, old.steps[2].id));
    drip.step(id).await;
    assert_eq!(drip.enrolment(id).await.step_id, added.id, "what was added joins");
}

pub(super) async fn a_step_that_was_recorded_as_removed_does_not_come_again(world: World) {
    let drip = Drip::new(&world).await;
    let (id, first) = drip.enrolled().await;
    drip.tried(first, sent()).await;
    let old = drip.steps().await;
    drip.edit_steps(|steps| drop(steps.steps.remove(1))).await;
    drip.advance(id).await;
    drip.edit_steps(|steps| steps.steps.push(old.steps[1].clone())).await;
    drip.tried(drip.active(id).await.id, sent()).await;
    // Planned as if the row that records the removal were not there.
    let passed = [old.steps[0].id, old.steps[2].id].into();
    let back = drip.advance_past(id, MessageState::Sent, &passed).await;
    let before = drip.enrolment(id).await;
    let back = Change::AdvanceEnrolment(Box::new(back));
    drip.refused(back, StoreErrorKind::Conflict).await;
    assert_eq!(drip.enrolment(id).await, before);
    assert_eq!(world.marked_ids().await, [id]);
}

pub(super) async fn nothing_begins_of_what_does_not_run_or_has_ended(world: World) {
    let drip = Drip::new(&world).await;
    let stage = &drip.stage;
    let held = Begun::Stray(MessageState::Held, None);
    let cancelled = Begun::Stray(MessageState::Cancelled, Some(Reason::ScopeEnded));
    let (_, one) = drip.enrolled().await;
    drip.pause().await;
    assert_eq!(stage.try_begin(&stage.item(one)).await, held);
    drip.status(SequenceStatus::Inactive).await;
    drip.status(SequenceStatus::Active).await;
    world.sweep_at(world.now()).await;
    stage.begin(one).await;
    let attempt = stage.row(one).await.attempt.unwrap().id;
    stage.settle(one, attempt, sent()).await;

    let (_, two) = drip.enrolled().await;
    drip.delete().await;
    assert_eq!(stage.try_begin(&stage.item(two)).await, cancelled);
}

pub(super) async fn a_pause_holds_steps_and_a_resume_releases_them(world: World) {
    let drip = Drip::new(&world).await;
    let (_, one) = drip.enrolled().await;
    let campaign = drip.stage.queued().await;
    drip.pause().await;
    assert_eq!(world.sweep_at(world.at(1)).await, 1);
    assert_eq!(drip.stage.state(one).await, MessageState::Held);
    assert_eq!(
        drip.stage.state(campaign).await,
        MessageState::Queued,
        "another scope goes on"
    );
    drip.status(SequenceStatus::Active).await;
    let swept = world.store.sweep(10, world.at(2)).await.unwrap();
    assert_eq!((swept.moved, swept.wake), (1, vec![drip.stage.device]));
    assert_eq!(drip.stage.state(one).await, MessageState::Queued);
}

/// An enrolment whose first step failed and whose second is queued.
async fn first_failed(drip: &Drip) -> (EnrolmentId, MessageId, MessageId) {
    let (id, first) = drip.enrolled().await;
    drip.tried(first, failed()).await;
    let second = drip.advance(id).await;
    (id, first, second)
}

async fn resend(drip: &Drip, of: MessageId) -> MessageId {
    let again = drip.world().rows.resend(&drip.stage.row(of).await);
    drip.world().insert(again).await
}

pub(super) async fn a_step_sent_again_holds_the_later_ones_until_it_is_settled(world: World) {
    let drip = Drip::new(&world).await;
    let stage = &drip.stage;
    for verdict in [sent(), failed()] {
        let (id, first, second) = first_failed(&drip).await;
        let again = resend(&drip, first).await;
        let begun = stage.try_begin(&stage.item(second)).await;
        assert_eq!(begun, Begun::Stray(MessageState::Held, None));
        let before = drip.enrolment(id).await;
        drip.pause().await;
        drip.status(SequenceStatus::Active).await;
        world.sweep_at(world.now()).await;
        assert_eq!(stage.state(second).await, MessageState::Held, "it still waits");
        drip.tried(again, verdict).await;
        assert_eq!(stage.state(second).await, MessageState::Queued, "at once");
        assert_eq!(drip.enrolment(id).await, before, "what is sent again moves nobody");
        assert!(world.marked().await.is_empty());
        world.end(&before).await;
    }
}

pub(super) async fn a_step_is_not_sent_again_after_a_later_one_began(world: World) {
    let drip = Drip::new(&world).await;
    let (_, first, second) = first_failed(&drip).await;
    let again = world.rows.resend(&drip.stage.row(first).await);
    let insert = || Change::InsertMessages(vec![again.clone()]);
    let (_, others_first, _) = first_failed(&drip).await;
    let mut of_other = again.clone();
    of_other.supersedes = Some(others_first);
    drip.refused(Change::InsertMessages(vec![of_other]), StoreErrorKind::Conflict)
        .await;
    drip.stage.begin(second).await;
    drip.refused(insert(), StoreErrorKind::Conflict).await;
}

pub(super) async fn a_mark_outlives_a_step_sent_again(world: World) {
    let drip = Drip::new(&world).await;
    let (id, first) = drip.enrolled().await;
    drip.tried(first, failed()).await;
    let again = resend(&drip, first).await;
    let marked = world.marked().await;
    assert_eq!(marked[0].message.id, first, "the first message counts");
    let second = drip.advance(id).await;
    assert_eq!(
        drip.stage.state(second).await,
        MessageState::Held,
        "it waits from the start"
    );
    drip.tried(again, sent()).await;
    assert_eq!(drip.stage.state(second).await, MessageState::Queued);
}

pub(super) async fn a_flow_belongs_to_a_sequence_and_an_enrolment_of_its_user(world: World) {
    let drip = Drip::new(&world).await;
    let (_, first, _) = first_failed(&drip).await;
    let row = drip.stage.row(first).await;
    let other = world.user().await;
    let theirs = Drip {
        id: world.sequence(other, &["COLD"]).await,
        stage: Stage {
            user: other,
            ..world_stage(&drip)
        },
    };
    let again = world.rows.resend(&row);
    let mut elsewhere = again.clone();
    elsewhere.scope = theirs.scope();
    drip.refused(Change::InsertMessages(vec![elsewhere]), StoreErrorKind::NotFound)
        .await;
    let mut unknown = again.clone();
    unknown.flow.as_mut().unwrap().enrolment_id = EnrolmentId::MIN;
    drip.refused(Change::InsertMessages(vec![unknown]), StoreErrorKind::NotFound)
        .await;
    let mut loose = drip.stage.message_to(world.rows.fresh_phone());
    loose.flow = row.flow;
    drip.refused(Change::InsertMessages(vec![loose]), StoreErrorKind::Conflict)
        .await;
}

fn world_stage(drip: &Drip) -> Stage {
    Stage {
        world: drip.world().clone(),
        ..drip.stage
    }
}

pub(super) async fn sequences_of_a_lane_take_turns(world: World) {
    let drip = Drip::new(&world).await;
    let other = world.sequence(drip.user(), &["OTHER"]).await;
    let (_, one) = drip.enrolled().await;
    drip.enrolled().await;
    let lead = drip.lead("OTHER").await;
    let id = world.enrolled(&lead, other).await;
    let two = world.messages_of(drip.user(), id).await[0].id;
    let campaign = drip.stage.queued().await;
    for (served_sequence, expected) in [(None, one), (Some(drip.id), two), (Some(other), one)] {
        let look = LaneLook {
            served_sequence,
            served: Some(drip.stage.campaign),
            ..drip.stage.look()
        };
        let due = Due {
            lanes: vec![look],
            now: world.now(),
        };
        let heads = world.store.due(&due).await.unwrap().remove(0).heads;
        let ids: Vec<_> = heads.iter().map(|head| head.id).collect();
        assert_eq!(
            ids,
            [expected, campaign],
            "after {served_sequence:?}; sequences before campaigns"
        );
    }
}

pub(super) async fn the_vendors_id_of_a_step_finds_it(world: World) {
    let drip = Drip::new(&world).await;
    let (id, message) = drip.enrolled().await;
    drip.tried(message, sent()).await;
    drip.advance(id).await;
    let delivered = Change::Receipt {
        user_id: drip.user(),
        device_id: drip.stage.device,
        message: MessageRef::Provider(TransportMessageId::new("vendor-1").unwrap()),
        delivery: Delivery::Read,
        at: world.now(),
    };
    assert_eq!(world.commit(delivered).await.matched, [message]);
    assert!(world.marked().await.is_empty());
}
