//! How enrolments end: by hand, by a reply, by an opt-out, with their lead, their person or their sequence.

use super::drip::{Drip, end_enrolment};
use super::stage::{doubt_until, requeue, sent};
use super::world::World;
use crate::domain::campaign::Routing;
use crate::domain::enrolment::{EnrolmentReason, EnrolmentState};
use crate::domain::message::{MessageState, Reason};
use crate::id::{EnrolmentId, MessageId};
use crate::store::{Begun, Change, Settled, StoreErrorKind};
use crate::transport::TransportMessageId;

pub(super) async fn an_enrolment_ends_once_and_where_it_stands(world: World) {
    let drip = Drip::new(&world).await;
    let (id, _) = drip.enrolled().await;
    let enrolment = drip.enrolment(id).await;
    let steps = drip.steps().await;
    let end = |state, step| Change::EndEnrolment {
        user_id: drip.user(),
        enrolment_id: id,
        step,
        state,
        reason: Some(EnrolmentReason::ByPerson),
        next_id: None,
    };
    let elsewhere = Some(steps.steps[1].id);
    drip.refused(end(EnrolmentState::Ended, elsewhere), StoreErrorKind::Conflict)
        .await;
    drip.refused(end(EnrolmentState::Open, None), StoreErrorKind::Conflict)
        .await;
    let mut foreign = enrolment.clone();
    foreign.user_id = world.user().await;
    let by_other = end_enrolment(&foreign, EnrolmentState::Ended, None);
    drip.refused(by_other, StoreErrorKind::NotFound).await;
    world
        .commit_at(end(EnrolmentState::Ended, Some(enrolment.step_id)), world.at(9))
        .await;
    drip.assert_ended(id, EnrolmentReason::ByPerson).await;
    assert_eq!(drip.enrolment(id).await.ended_at, Some(world.at(9)));
    drip.refused(end(EnrolmentState::Completed, None), StoreErrorKind::Conflict)
        .await;
}

/// One enrolment whose message is queued, one held, one in doubt, one being sent.
async fn in_every_state(drip: &Drip) -> Vec<(EnrolmentId, MessageId)> {
    let stage = &drip.stage;
    let (doubtful, held, queued, sending) = (
        drip.enrolled().await,
        drip.enrolled().await,
        drip.enrolled().await,
        drip.enrolled().await,
    );
    let attempt = stage.begin(doubtful.1).await;
    stage.settle(doubtful.1, attempt, doubt_until(stage.now())).await;
    stage.begin(sending.1).await;
    drip.pause().await;
    let strayed = stage.world.store.sweep(1, stage.now()).await.unwrap();
    assert_eq!(strayed.moved, 1);
    drip.status(crate::domain::sequence::SequenceStatus::Active).await;
    vec![queued, held, doubtful, sending]
}

pub(super) async fn an_end_cancels_what_waits_and_gives_up_what_is_in_doubt(world: World) {
    let drip = Drip::new(&world).await;
    let all = in_every_state(&drip).await;
    for (id, _) in &all {
        world.end(&drip.enrolment(*id).await).await;
    }
    let cancelled = (MessageState::Cancelled, Some(Reason::ScopeEnded));
    let expected = [
        cancelled,
        cancelled,
        (MessageState::Unknown, Some(Reason::EndedInDoubt)),
        (MessageState::Sending, None),
    ];
    for ((_, message), expected) in all.iter().zip(expected) {
        let row = drip.stage.row(*message).await;
        assert_eq!((row.state, row.reason), expected);
    }
    let sending = all[3].1;
    let attempt = drip.stage.row(sending).await.attempt.unwrap().id;
    let settled = drip.stage.settle(sending, attempt, requeue(world.now())).await;
    assert_eq!(
        settled,
        Settled::Yes(MessageState::Cancelled),
        "what is refused then is not tried again"
    );
    assert!(world.marked().await.is_empty());
}

pub(super) async fn what_may_have_been_sent_of_an_ended_enrolment_becomes_unknown(world: World) {
    let drip = Drip::new(&world).await;
    let (id, message) = drip.enrolled().await;
    let attempt = drip.stage.begin(message).await;
    world.end(&drip.enrolment(id).await).await;
    let settled = drip.stage.settle(message, attempt, doubt_until(world.now())).await;
    assert_eq!(settled, Settled::Yes(MessageState::Unknown));
}

pub(super) async fn what_is_sent_again_of_an_ended_enrolment_is_cancelled(world: World) {
    let drip = Drip::new(&world).await;
    let (id, message) = drip.enrolled().await;
    drip.tried(message, super::stage::failed()).await;
    world.end(&drip.enrolment(id).await).await;
    let again = world.rows.resend(&drip.stage.row(message).await);
    let again = world.insert(again).await;
    let row = drip.stage.row(again).await;
    assert_eq!(
        (row.state, row.reason),
        (MessageState::Cancelled, Some(Reason::ScopeEnded))
    );
    assert_eq!(drip.stage.try_begin(&drip.stage.item(again)).await, Begun::Gone);
}

fn reply(drip: &Drip, lead: &crate::domain::lead::Lead, provider_id: &str) -> Change {
    Change::Replied {
        user_id: drip.user(),
        device_id: drip.stage.device,
        phone: lead.phone,
        person: drip.world().rows.person(drip.user(), &lead.phone),
        provider_id: TransportMessageId::new(provider_id).unwrap(),
        at: drip.stage.now(),
    }
}

pub(super) async fn a_reply_ends_what_exits_on_a_reply_and_nothing_else(world: World) {
    let drip = Drip::new(&world).await;
    let stays = world.sequence(drip.user(), &["COLD"]).await;
    drip.edit(|sequence| sequence.exit_on_reply = true).await;
    let lead = drip.lead("COLD").await;
    let (id, message) = drip.enrol(&lead).await;
    let other_sequence = world.enrolled(&lead, stays).await;
    let (other_person, _) = drip.enrolled().await;
    world.commit(reply(&drip, &lead, "in-1")).await;
    drip.assert_ended(id, EnrolmentReason::Replied).await;
    assert_eq!(drip.stage.state(message).await, MessageState::Cancelled);
    for open in [other_sequence, other_person] {
        assert_eq!(world.enrolment(open).await.state, EnrolmentState::Open);
    }
    drip.edit(|sequence| sequence.re_entry = crate::domain::sequence::ReEntry::Always)
        .await;
    let (again, _) = drip.enrol(&lead).await;
    world.commit(reply(&drip, &lead, "in-1")).await;
    let state = drip.enrolment(again).await.state;
    assert_eq!(state, EnrolmentState::Open, "one that was seen before ends nothing");
}

fn took_over(drip: &Drip, lead: &crate::domain::lead::Lead, provider_id: &str) -> Change {
    Change::TakenOver {
        user_id: drip.user(),
        device_id: drip.stage.device,
        phone: lead.phone,
        person: drip.world().rows.person(drip.user(), &lead.phone),
        provider_id: TransportMessageId::new(provider_id).unwrap(),
        at: drip.stage.now(),
    }
}

pub(super) async fn a_human_who_takes_over_ends_what_exits_on_a_reply_and_makes_nothing_replied(world: World) {
    let drip = Drip::new(&world).await;
    let stays = world.sequence(drip.user(), &["COLD"]).await;
    drip.edit(|sequence| sequence.exit_on_reply = true).await;
    let lead = drip.lead("COLD").await;
    let earlier = world
        .rows
        .direct_message(drip.user(), Some(drip.stage.device), lead.phone);
    let earlier = world.insert(earlier).await;
    drip.tried(earlier, sent()).await;
    let (id, message) = drip.enrol(&lead).await;
    let other_sequence = world.enrolled(&lead, stays).await;
    let (other_person, _) = drip.enrolled().await;
    let done = world.commit(took_over(&drip, &lead, "own-1")).await;
    assert!(done.reply_is_new && done.matched.is_empty());
    drip.assert_ended(id, EnrolmentReason::TakenOver).await;
    assert_eq!(drip.stage.state(message).await, MessageState::Cancelled);
    assert_eq!(drip.stage.row(earlier).await.delivery, None);
    for open in [other_sequence, other_person] {
        assert_eq!(world.enrolment(open).await.state, EnrolmentState::Open);
    }
    assert!(!world.commit(took_over(&drip, &lead, "own-1")).await.reply_is_new);
}

pub(super) async fn what_a_device_of_the_user_sent_takes_nothing_over(world: World) {
    let drip = Drip::new(&world).await;
    drip.edit(|sequence| sequence.exit_on_reply = true).await;
    let lead = drip.lead("COLD").await;
    let direct = world
        .rows
        .direct_message(drip.user(), Some(drip.stage.device), lead.phone);
    let mut item = drip.stage.item(world.insert(direct).await);
    item.transport_message_id = TransportMessageId::new("3EB0AA").unwrap();
    assert_eq!(drip.stage.try_begin(&item).await, Begun::Yes);
    drip.stage
        .settle(item.message_id, item.attempt_id, super::stage::unknown())
        .await;
    let (id, message) = drip.enrol(&lead).await;
    let attempt = drip.stage.begin(message).await;
    let ours = TransportMessageId::from_attempt(attempt);
    for own in [ours.as_str(), "3EB0AA"] {
        let done = world.commit(took_over(&drip, &lead, own)).await;
        assert!(!done.reply_is_new);
        assert_eq!(drip.enrolment(id).await.state, EnrolmentState::Open);
    }
    let people = [(lead.phone, world.rows.person(drip.user(), &lead.phone))];
    let known = world.store.acquainted(drip.stage.device, &people).await.unwrap();
    assert!(known.is_empty());
    assert!(world.commit(took_over(&drip, &lead, "3EB0BB")).await.reply_is_new);
    drip.assert_ended(id, EnrolmentReason::TakenOver).await;
    let known = world.store.acquainted(drip.stage.device, &people).await.unwrap();
    assert_eq!(known, [people[0].1]);
}

pub(super) async fn an_opt_out_ends_every_enrolment_of_the_person(world: World) {
    let drip = Drip::new(&world).await;
    let other = world.sequence(drip.user(), &["COLD"]).await;
    let lead = drip.lead("COLD").await;
    let (id, first) = drip.enrol(&lead).await;
    drip.tried(first, sent()).await;
    let second = drip.advance(id).await;
    let elsewhere = world.enrolled(&lead, other).await;
    let done = world.suppress(drip.user(), lead.phone).await;
    assert_eq!(done.moved, 2);
    for id in [id, elsewhere] {
        drip.assert_ended(id, EnrolmentReason::Suppressed).await;
    }
    let row = drip.stage.row(second).await;
    assert_eq!(
        (row.state, row.reason),
        (MessageState::Skipped, Some(Reason::Suppressed))
    );
}

pub(super) async fn an_erased_person_leaves_enrolments_without_a_number(world: World) {
    let drip = Drip::new(&world).await;
    let lead = drip.lead("COLD").await;
    let (id, message) = drip.enrol(&lead).await;
    let erase = Change::ErasePerson {
        user_id: drip.user(),
        person: world.rows.person(drip.user(), &lead.phone),
        phone: lead.phone,
    };
    let (other, _) = drip.enrolled().await;
    world.commit(erase).await;
    drip.assert_ended(id, EnrolmentReason::Erased).await;
    assert_eq!(drip.enrolment(id).await.phone, None);
    let row = drip.stage.row(message).await;
    assert_eq!((row.state, row.reason), (MessageState::Skipped, Some(Reason::Erased)));
    assert_eq!(drip.enrolment(other).await.state, EnrolmentState::Open);
}

pub(super) async fn a_deleted_lead_ends_its_enrolments(world: World) {
    let drip = Drip::new(&world).await;
    let lead = drip.lead("COLD").await;
    let (id, message) = drip.enrol(&lead).await;
    let delete = Change::DeleteLead {
        user_id: drip.user(),
        lead_id: lead.id,
    };
    world.commit(delete).await;
    drip.assert_ended(id, EnrolmentReason::LeadGone).await;
    assert_eq!(drip.stage.state(message).await, MessageState::Cancelled);
}

pub(super) async fn a_deleted_sequence_ends_its_enrolments_in_pages(world: World) {
    let drip = Drip::new(&world).await;
    let all = in_every_state(&drip).await;
    let (completed, message) = drip.enrolled().await;
    let done = end_enrolment(&drip.enrolment(completed).await, EnrolmentState::Completed, None);
    world.commit(done).await;
    drip.delete().await;
    let swept = world.store.sweep(3, world.at(1)).await.unwrap();
    assert_eq!(
        (swept.moved, swept.more),
        (3, true),
        "one by one, each with its messages"
    );
    let swept = world.store.sweep(3, world.at(1)).await.unwrap();
    assert_eq!((swept.moved, swept.more), (1, false));
    for (id, _) in &all {
        drip.assert_ended(*id, EnrolmentReason::SequenceDeleted).await;
    }
    let states: Vec<_> = futures::future::join_all(all.iter().map(|(_, id)| drip.stage.state(*id))).await;
    assert_eq!(
        states,
        [
            MessageState::Cancelled,
            MessageState::Cancelled,
            MessageState::Unknown,
            MessageState::Sending
        ]
    );
    assert_eq!(drip.enrolment(completed).await.state, EnrolmentState::Completed);
    assert_eq!(drip.stage.state(message).await, MessageState::Cancelled);
    assert_eq!(world.store.sweep(3, world.at(2)).await.unwrap().moved, 0);
}

pub(super) async fn a_lead_that_changes_its_device_gets_the_next_step_from_the_new_one(world: World) {
    let drip = Drip::new(&world).await;
    let fixed = {
        let (mut sequence, steps) = world.rows.sequence(drip.user(), &["COLD"]);
        sequence.device_id = Some(drip.stage.device);
        world.insert_sequence(&sequence, Some(&steps)).await;
        world.activate(drip.user(), sequence.id).await;
        sequence.id
    };
    let device = world.device(drip.user()).await;
    let lead = drip.lead("COLD").await;
    let (id, message) = drip.enrol(&lead).await;
    let by_fixed = world.enrolled(&lead, fixed).await;
    let (other, _) = drip.enrolled().await;
    let planned_before = drip.advance_after(id, MessageState::Sent).await;
    let mut moved = world.lead_of(drip.user(), lead.id).await;
    moved.device_id = Some(device);
    world.commit(Change::UpdateLead(Box::new(moved))).await;
    assert_eq!(drip.enrolment(id).await.device_id, Some(device));
    assert_eq!(
        drip.stage.row(message).await.device_id,
        Some(drip.stage.device),
        "the active step stays"
    );
    for id in [by_fixed, other] {
        assert_eq!(world.enrolment(id).await.device_id, Some(drip.stage.device));
    }
    drip.tried(message, sent()).await;
    let stale = Change::AdvanceEnrolment(Box::new(planned_before));
    drip.refused(stale, StoreErrorKind::Conflict).await;
    let next = drip.advance(id).await;
    assert_eq!(drip.stage.row(next).await.device_id, Some(device));
}

pub(super) async fn pool_messages_of_running_sequences_wait_for_a_device(world: World) {
    let drip = Drip::new(&world).await;
    drip.edit(|sequence| sequence.routing = Routing::Balanced).await;
    let (id, message) = drip.enrolled().await;
    let pool = async || world.store.pool(drip.stage.node, world.now(), 10).await.unwrap();
    let waiting = pool().await;
    assert_eq!((waiting.len(), waiting[0].message_id), (1, message));
    assert_eq!(
        (waiting[0].scope, waiting[0].lead_device),
        (drip.scope(), Some(drip.stage.device))
    );
    drip.pause().await;
    assert!(pool().await.is_empty());
    drip.status(crate::domain::sequence::SequenceStatus::Active).await;
    let assignment = crate::store::Assignment {
        user_id: drip.user(),
        message_id: message,
        device_id: drip.stage.device,
    };
    assert_eq!(world.store.assign(&[assignment], world.now()).await.unwrap(), 1);
    assert_eq!(
        drip.enrolment(id).await.device_id,
        Some(drip.stage.device),
        "it keeps its device"
    );
    drip.tried(message, sent()).await;
    let next = drip.advance(id).await;
    assert_eq!(drip.stage.row(next).await.device_id, None, "it waits in the pool again");
    let later = world.now() + std::time::Duration::from_secs(7 * 86_400);
    let waiting = world.store.pool(drip.stage.node, later, 10).await.unwrap();
    assert_eq!(waiting[0].sticky, Some(drip.stage.device));
}
