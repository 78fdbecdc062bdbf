//! What one has read, another has changed: the later commit finds out.

use futures::future::join_all;

use super::stage::sent;
use super::world::{World, set_status};
use crate::domain::audience::AudienceCursor;
use crate::domain::campaign::CampaignStatus;
use crate::domain::message::{MessageScope, MessageState};
use crate::store::{Begun, Change, ChangeSet, StoreErrorKind};

pub(super) async fn two_edits_of_one_snapshot_give_one_conflict(world: World) {
    let stage = world.stage().await;
    let lead = world.lead(stage.user, None).await;
    let (device, campaign) = (
        world.device_of(stage.user, stage.device).await,
        world.draft(stage.user).await,
    );
    let saved = world.rows.saved_text(stage.user);
    world.commit(Change::InsertSavedText(Box::new(saved.clone()))).await;
    for change in [
        Change::UpdateLead(Box::new(lead)),
        Change::UpdateDevice(Box::new(device)),
        Change::UpdateCampaign(Box::new(campaign)),
        Change::UpdateSavedText(Box::new(saved)),
    ] {
        let edits = join_all([world.try_commit(change.clone()), world.try_commit(change.clone())]).await;
        let lost = edits.iter().filter(|edit| edit.is_err()).count();
        assert_eq!(lost, 1, "{change:?}");
        world.refused(change, StoreErrorKind::Conflict).await;
    }
}

pub(super) async fn a_page_planned_twice_is_committed_once(world: World) {
    let user = world.user().await;
    let device = world.device(user).await;
    let id = world.expanding(user).await;
    let page = |n| {
        ChangeSet::one(Change::AdvanceCursor {
            campaign_id: id,
            from: AudienceCursor::Start,
            to: AudienceCursor::Entry(1),
        })
        .and(Change::InsertMessages(vec![world.rows.campaign_message(
            user,
            id,
            Some(device),
            world.rows.phone(n),
        )]))
    };
    let pages = join_all((0..4).map(|n| world.try_commit(page(n)))).await;
    assert_eq!(pages.iter().filter(|page| page.is_ok()).count(), 1, "{pages:?}");
    for lost in pages.into_iter().filter_map(Result::err) {
        assert_eq!(lost.kind, StoreErrorKind::Conflict);
    }
    let scope = crate::domain::access::RequestScope::user(user);
    let numbers = world.store.numbers(&scope, MessageScope::Campaign(id)).await.unwrap();
    assert_eq!(numbers[0].numbers.should(), 1);
}

pub(super) async fn a_page_planned_before_a_pause_is_refused_after_it(world: World) {
    let user = world.user().await;
    let id = world.expanding(user).await;
    let page = ChangeSet::one(Change::AdvanceCursor {
        campaign_id: id,
        from: AudienceCursor::Start,
        to: AudienceCursor::Done,
    });
    world
        .commit(set_status(
            user,
            id,
            &[CampaignStatus::Triggered],
            CampaignStatus::Paused,
        ))
        .await;
    world.refused(page.clone(), StoreErrorKind::Conflict).await;
    world
        .commit(set_status(
            user,
            id,
            &[CampaignStatus::Paused],
            CampaignStatus::Triggered,
        ))
        .await;
    world.commit(page).await;
}

pub(super) async fn a_pause_between_due_and_begin_is_seen_by_begin(world: World) {
    let stage = world.stage().await;
    stage.queued().await;
    let due = stage.due_at(world.now()).await;
    stage.pause().await;
    let begun = stage.try_begin(&stage.item(due[0].id)).await;
    assert_eq!(begun, Begun::Stray(MessageState::Held, None));
}

pub(super) async fn an_opt_out_between_due_and_begin_is_seen_by_begin(world: World) {
    let stage = world.stage().await;
    stage.queued().await;
    let due = stage.due_at(world.now()).await;
    stage.opt_out(due[0].id).await;
    assert_ne!(stage.try_begin(&stage.item(due[0].id)).await, Begun::Yes);
    assert_eq!(stage.state(due[0].id).await, MessageState::Skipped);
}

pub(super) async fn a_campaign_starts_once_however_many_planners_try(world: World) {
    let user = world.user().await;
    let draft = world.draft(user).await;
    world
        .commit(set_status(
            user,
            draft.id,
            &[CampaignStatus::Draft],
            CampaignStatus::Scheduled,
        ))
        .await;
    let start = || set_status(user, draft.id, &[CampaignStatus::Scheduled], CampaignStatus::Triggered);
    let tries = join_all((0..5).map(|_| world.try_commit(start()))).await;
    assert_eq!(tries.iter().filter(|done| done.is_ok()).count(), 1);
}

pub(super) async fn a_message_enqueued_by_many_at_once_is_there_once(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(1);
    let tries = join_all((0..5).map(|_| world.try_commit(Change::InsertMessages(vec![stage.message_to(phone)])))).await;
    let inserted: u64 = tries.iter().map(|done| done.as_ref().unwrap().messages_inserted).sum();
    assert_eq!(inserted, 1);
    let first = tries
        .iter()
        .find_map(|done| done.as_ref().ok()?.duplicates.first().copied());
    assert_eq!(stage.row(first.unwrap().1).await.phone, Some(phone));
}

pub(super) async fn a_takeover_between_send_and_settle_leaves_evidence_and_no_second_attempt(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    let by = stage.take_over().await;
    let owned = world.claim(by).await;
    let next = super::stage::Stage {
        node: by,
        epoch: owned[0].epoch,
        world: world.clone(),
        ..stage
    };
    assert_eq!(
        next.try_begin(&next.item(id)).await,
        Begun::Gone,
        "it is in doubt, not queued"
    );
    assert!(next.due_at(world.at(600)).await.is_empty());
    let late = next.outcome(id, attempt, sent());
    next.settle_as(by, late).await.unwrap();
    assert_eq!(next.state(id).await, MessageState::Sent);
}

pub(super) async fn a_takeover_and_a_beat_at_once_leave_one_winner(world: World) {
    for _ in 0..6 {
        let stage = world.stage().await;
        let by = world.node().await;
        let nodes = world.store.nodes().await.unwrap();
        let seen = nodes.iter().find(|node| node.incarnation == stage.node).unwrap().beat;
        let (store, node, now) = (&world.store, stage.node, world.now());
        let (beaten, taken) = futures::join!(store.beat(node, now), store.fence(by, node, seen, now));
        assert_ne!(beaten.is_ok(), taken.is_ok(), "{beaten:?} {taken:?}");
    }
}

pub(super) async fn an_opt_out_and_a_begin_at_once_leave_no_queued_message(world: World) {
    for n in 0..8 {
        let stage = world.stage().await;
        let phone = world.rows.phone(n);
        let id = stage.queued_to(phone).await;
        let item = stage.item(id);
        let (begun, suppressed) = futures::join!(stage.begin_items(vec![item]), world.suppress(stage.user, phone));
        let begun = begun.unwrap()[0];
        let state = stage.state(id).await;
        match begun {
            Begun::Yes => assert_eq!((state, suppressed.moved), (MessageState::Sending, 0)),
            _ => assert_eq!(state, MessageState::Skipped),
        }
    }
}

pub(super) async fn settling_by_many_at_once_records_once(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    let settled = join_all((0..5).map(|_| stage.settle(id, attempt, sent()))).await;
    let recorded = settled
        .iter()
        .filter(|settled| **settled == crate::store::Settled::Yes(MessageState::Sent))
        .count();
    assert_eq!(recorded, 1, "{settled:?}");
}
