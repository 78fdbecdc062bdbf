//! Commits: all or nothing, in order, and safe to repeat.

use super::world::{World, insert_lead};
use crate::domain::access::RequestScope;
use crate::id::EventId;
use crate::store::{Change, ChangeSet, Committed, LeadFilter, PageRequest, StoreErrorKind, WriteClass};

pub(super) async fn an_empty_set_does_nothing(world: World) {
    assert_eq!(world.commit(ChangeSet::default()).await, Committed::default());
}

pub(super) async fn a_store_that_answers_is_ready(world: World) {
    world.store.ready().await.unwrap();
}

pub(super) async fn a_set_whose_last_change_fails_leaves_nothing_behind(world: World) {
    let stage = world.stage().await;
    let before = stage.queued().await;
    let lead = world.lead(stage.user, None).await;
    let (device, fresh) = (world.rows.device(stage.user), world.rows.lead(stage.user, None));
    let message = stage.message_to(world.rows.phone(1));
    let set = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())))
        .and(insert_lead(&fresh))
        .and(Change::InsertMessages(vec![message.clone()]))
        .and(Change::CancelMessage {
            user_id: stage.user,
            message_id: before,
        })
        .and(Change::Suppress(
            world.rows.suppression(stage.user, world.rows.phone(1)),
        ))
        .and(insert_lead(&lead))
        .tell(world.rows.event(stage.user, world.now()));
    world.refused(set, StoreErrorKind::Conflict).await;

    let scope = RequestScope::user(stage.user);
    let devices = world.store.devices(&scope, &PageRequest::first(10)).await.unwrap();
    assert_eq!(devices.rows.len(), 1);
    let filter = LeadFilter::default();
    assert_eq!(world.store.lead_count(&scope, &filter).await.unwrap(), 1);
    super::world::assert_kind(world.store.message(&scope, message.id).await, StoreErrorKind::NotFound);
    assert_eq!(stage.state(before).await, crate::domain::message::MessageState::Queued);
    let suppressed = world.store.suppressed(stage.user, &[message.person]).await.unwrap();
    assert!(suppressed.is_empty());
    let events = world.store.events(&scope, EventId::MIN, 10).await.unwrap();
    assert!(events.is_empty());
    // What a refused commit had claimed is free: the name of the device, the key of the message.
    world.insert_device(&device).await;
    world.insert(message).await;
}

pub(super) async fn changes_apply_in_the_order_given(world: World) {
    let user = world.user().await;
    let device = world.rows.device(user);
    let lead = world.rows.lead(user, Some(device.id));
    let message = world.rows.direct_message(user, Some(device.id), lead.phone);
    let insert_device = || Change::InsertDevice(Box::new(device.clone()));
    let backwards = ChangeSet::one(insert_lead(&lead)).and(insert_device());
    world.refused(backwards, StoreErrorKind::NotFound).await;
    let forwards = ChangeSet::one(insert_device())
        .and(insert_lead(&lead))
        .and(Change::InsertMessages(vec![message.clone()]))
        .and(Change::CancelMessage {
            user_id: user,
            message_id: message.id,
        });
    world.commit(forwards).await;
    let state = world.state(user, message.id).await;
    assert_eq!(state, crate::domain::message::MessageState::Cancelled);
}

pub(super) async fn a_set_sees_its_own_changes(world: World) {
    let stage = world.stage().await;
    let message = stage.message_to(world.rows.phone(1));
    let set = ChangeSet::one(Change::Suppress(
        world.rows.suppression(stage.user, world.rows.phone(1)),
    ))
    .and(Change::InsertMessages(vec![message.clone()]));
    world.commit(set).await;
    let state = stage.state(message.id).await;
    assert_eq!(state, crate::domain::message::MessageState::Skipped);
}

pub(super) async fn every_class_of_write_commits(world: World) {
    let user = world.user().await;
    for class in [WriteClass::Settle, WriteClass::Begin, WriteClass::Api, WriteClass::Bulk] {
        let lead = world.rows.lead(user, None);
        let set = ChangeSet::one(insert_lead(&lead));
        world.store.commit(set, class, world.now()).await.unwrap();
        assert_eq!(world.lead_of(user, lead.id).await, lead);
    }
}

pub(super) async fn a_commit_tells_the_devices_that_got_something_to_do(world: World) {
    let stage = world.stage().await;
    let other = world.device(stage.user).await;
    let to = |device, n| {
        world
            .rows
            .campaign_message(stage.user, stage.campaign, device, world.rows.phone(n))
    };
    let messages = vec![to(Some(stage.device), 1), to(Some(stage.device), 2), to(Some(other), 3)];
    let wake = world.commit(Change::InsertMessages(messages)).await.wake;
    let mut expected = vec![stage.device, other];
    expected.sort_unstable();
    assert_eq!(wake, expected, "each once, sorted");
    stage.pause().await;
    let held = world.commit(Change::InsertMessages(vec![to(Some(other), 4)])).await;
    assert!(held.wake.is_empty(), "a held message is nothing to do");
}

pub(super) async fn what_is_committed_is_there_after_a_restart(world: World) {
    // Stores that can be opened again are opened again after every case; see `Case::run`.
    let stage = world.stage().await;
    let (sending, _) = stage.sending().await;
    assert_eq!(
        stage.state(sending).await,
        crate::domain::message::MessageState::Sending
    );
}
