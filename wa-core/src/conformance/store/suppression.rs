//! People who must not be written to, and people who are forgotten.

use super::stage::sent;
use super::world::World;
use crate::domain::access::RequestScope;
use crate::domain::message::{MessageState, Reason};
use crate::domain::suppression::{Suppression, SuppressionReason};
use crate::store::{Change, ChangeSet, LeadFilter, MessageFilter, PageRequest, Settled};

pub(super) async fn opting_out_stops_every_open_message_in_the_same_commit(world: World) {
    let stage = world.stage().await;
    let (phone, other_campaign) = (world.rows.phone(1), world.campaign(stage.user).await);
    let queued = stage.queued_to(phone).await;
    let doubtful = {
        let message = world.rows.direct_message(stage.user, Some(stage.device), phone);
        let id = world.insert(message).await;
        let attempt = stage.begin(id).await;
        let verdict = super::stage::doubt_until(world.now());
        stage.settle(id, attempt, verdict).await;
        id
    };
    let held = world
        .insert(
            world
                .rows
                .campaign_message(stage.user, other_campaign, Some(stage.device), phone),
        )
        .await;
    let from = &[crate::domain::campaign::CampaignStatus::Triggered];
    let to = crate::domain::campaign::CampaignStatus::Paused;
    world
        .commit(super::world::set_status(stage.user, other_campaign, from, to))
        .await;
    world.sweep_at(world.now()).await;
    let bystander = stage.queued_to(world.rows.phone(2)).await;
    let done = world
        .commit_at(Change::Suppress(world.rows.suppression(stage.user, phone)), world.at(7))
        .await;
    assert_eq!(done.moved, 3);
    for (id, expected) in [
        (queued, (MessageState::Skipped, Some(Reason::Suppressed))),
        (held, (MessageState::Skipped, Some(Reason::Suppressed))),
        (doubtful, (MessageState::Unknown, Some(Reason::EndedInDoubt))),
    ] {
        let row = stage.row(id).await;
        assert_eq!((row.state, row.reason), expected);
        assert_eq!(row.settled_at, Some(world.at(7)));
    }
    assert_eq!(stage.state(bystander).await, MessageState::Queued);
}

pub(super) async fn opting_out_leaves_what_is_settled_in_the_air_or_meant_all_the_same(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(1);
    let direct = || world.rows.direct_message(stage.user, Some(stage.device), phone);
    let done = world.insert(direct()).await;
    let attempt = stage.begin(done).await;
    stage.settle(done, attempt, sent()).await;
    let sending = world.insert(direct()).await;
    let attempt = stage.begin(sending).await;
    let mut meant = direct();
    meant.override_suppression = true;
    let meant = world.insert(meant).await;
    let suppressed = world.suppress(stage.user, phone).await;
    assert_eq!(suppressed.moved, 0);
    assert_eq!(stage.state(done).await, MessageState::Sent);
    assert_eq!(stage.state(sending).await, MessageState::Sending);
    assert_eq!(stage.state(meant).await, MessageState::Queued);
    assert_eq!(
        stage.settle(sending, attempt, sent()).await,
        Settled::Yes(MessageState::Sent)
    );
}

pub(super) async fn an_opt_out_holds_for_one_user(world: World) {
    let (stage, other) = (world.stage().await, world.stage().await);
    let phone = world.rows.phone(1);
    let theirs = other.queued_to(phone).await;
    let mine = stage.queued_to(phone).await;
    world.suppress(stage.user, phone).await;
    assert_eq!(stage.state(mine).await, MessageState::Skipped);
    assert_eq!(other.state(theirs).await, MessageState::Queued);
    other.begin(theirs).await;
}

pub(super) async fn a_person_suppressed_twice_is_listed_once(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(1);
    world.suppress(stage.user, phone).await;
    world
        .commit(Change::Suppress(Suppression {
            reason: SuppressionReason::ByPerson,
            ..world.rows.suppression(stage.user, phone)
        }))
        .await;
    let scope = RequestScope::user(stage.user);
    let page = world.store.suppressions(&scope, &PageRequest::first(10)).await.unwrap();
    assert_eq!(page.rows.len(), 1);
}

pub(super) async fn the_suppressed_among_some_persons_are_found(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let phones = [world.rows.phone(1), world.rows.phone(2), world.rows.phone(3)];
    let persons = phones.map(|phone| world.rows.person(user, &phone));
    world.suppress(user, phones[0]).await;
    world.suppress(user, phones[2]).await;
    world.suppress(other, phones[1]).await;
    let mut found = world.store.suppressed(user, &persons).await.unwrap();
    found.sort_by_key(|suppression| suppression.phone);
    let expected = [phones[0], phones[2]].map(|phone| world.rows.suppression(user, phone));
    assert_eq!(found, expected);
    assert!(world.store.suppressed(user, &persons[1..2]).await.unwrap().is_empty());
    assert!(world.store.suppressed(user, &[]).await.unwrap().is_empty());
}

pub(super) async fn a_person_may_be_written_to_again_from_then_on(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(1);
    let before = stage.queued_to(phone).await;
    world.suppress(stage.user, phone).await;
    let person = world.rows.person(stage.user, &phone);
    world
        .commit(Change::Unsuppress {
            user_id: stage.user,
            person,
        })
        .await;
    assert!(world.store.suppressed(stage.user, &[person]).await.unwrap().is_empty());
    assert_eq!(
        stage.state(before).await,
        MessageState::Skipped,
        "terminal stays terminal"
    );
    let direct = world.rows.direct_message(stage.user, Some(stage.device), phone);
    let next = world.insert(direct).await;
    stage.begin(next).await;
}

pub(super) async fn an_erased_person_leaves_numbers_and_nothing_else(world: World) {
    let stage = world.stage().await;
    let lead = world.lead(stage.user, Some(stage.device)).await;
    let phone = lead.phone;
    let mut message = world.rows.rich_message(stage.user, stage.device, lead.id);
    message.phone = Some(phone);
    message.person = world.rows.person(stage.user, &phone);
    let sent_id = world.insert(message).await;
    let mut attempts = Vec::new();
    for n in 0..2 {
        let mut item = stage.item(sent_id);
        item.text = "Dear person".to_owned();
        assert_eq!(stage.try_begin(&item).await, crate::store::Begun::Yes);
        let verdict = if n == 0 {
            super::stage::requeue(world.now())
        } else {
            sent()
        };
        stage.settle(sent_id, item.attempt_id, verdict).await;
        attempts.push(item.attempt_id);
    }
    let queued = stage.queued_to(phone).await;
    let upload = world.draft(stage.user).await.id;
    let mut entry = world.rows.entry(upload, 1);
    entry.phone = phone;
    world
        .commit(Change::InsertEntries(vec![entry, world.rows.entry(upload, 2)]))
        .await;
    let bystander = world.lead(stage.user, Some(stage.device)).await;
    let other = world.user().await;
    let mut theirs = world.rows.lead(other, None);
    theirs.phone = phone;
    world.insert_lead(&theirs).await;

    let person = world.rows.person(stage.user, &phone);
    let erase = Change::ErasePerson {
        user_id: stage.user,
        person,
        phone,
    };
    let suppress = Change::Suppress(Suppression {
        phone: None,
        reason: SuppressionReason::Erased,
        note: String::new(),
        ..world.rows.suppression(stage.user, phone)
    });
    world.commit(ChangeSet::one(suppress).and(erase)).await;

    let scope = RequestScope::user(stage.user);
    let leads = world
        .store
        .leads(&scope, &LeadFilter::default(), &PageRequest::first(10))
        .await
        .unwrap();
    assert_eq!(leads.rows, [bystander]);
    world.lead_of(other, theirs.id).await;
    for id in [sent_id, queued] {
        let row = stage.row(id).await;
        assert_eq!((row.phone, row.name.as_str()), (None, ""));
        assert!(row.custom.is_empty() && row.content.is_none());
        assert!(row.attempt.is_none_or(|attempt| attempt.text.is_empty()));
    }
    let log = world.store.attempts(&scope, sent_id).await.unwrap();
    assert_eq!(log.iter().map(|attempt| attempt.id).collect::<Vec<_>>(), attempts);
    assert!(log.iter().all(|attempt| attempt.text.is_empty()));
    assert_eq!(stage.state(sent_id).await, MessageState::Sent);
    assert!(!stage.state(queued).await.is_open());
    let entries = world.store.entries_page(upload, 0, 10).await.unwrap();
    assert!(
        entries
            .iter()
            .all(|entry| entry.phone != phone || entry.name.is_empty())
    );
    assert_eq!(
        world.store.suppressed(stage.user, &[person]).await.unwrap()[0].phone,
        None
    );
    let filter = MessageFilter {
        person: Some(person),
        ..MessageFilter::default()
    };
    let rows = world
        .store
        .messages(&scope, &filter, &PageRequest::first(10))
        .await
        .unwrap();
    assert_eq!(rows.rows.len(), 2, "rows stay for the numbers");
}

pub(super) async fn erasing_a_person_stops_every_open_message_even_one_that_was_meant(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(1);
    let queued = stage.queued_to(phone).await;
    let mut meant = world.rows.direct_message(stage.user, Some(stage.device), phone);
    meant.override_suppression = true;
    let meant = world.insert(meant).await;
    let doubtful = world.rows.direct_message(stage.user, Some(stage.device), phone);
    let doubtful = world.insert(doubtful).await;
    let attempt = stage.begin(doubtful).await;
    let verdict = super::stage::doubt_until(world.now());
    stage.settle(doubtful, attempt, verdict).await;
    let erase = Change::ErasePerson {
        user_id: stage.user,
        person: world.rows.person(stage.user, &phone),
        phone,
    };
    assert_eq!(world.commit(erase).await.moved, 3);
    for (id, expected) in [
        (queued, (MessageState::Skipped, Some(Reason::Erased))),
        (meant, (MessageState::Skipped, Some(Reason::Erased))),
        (doubtful, (MessageState::Unknown, Some(Reason::EndedInDoubt))),
    ] {
        let row = stage.row(id).await;
        assert_eq!((row.state, row.reason), expected);
    }
}

pub(super) async fn a_newer_suppression_replaces_what_was_recorded(world: World) {
    let user = world.user().await;
    let phone = world.rows.phone(1);
    world.suppress(user, phone).await;
    let newer = Suppression {
        phone: None,
        reason: SuppressionReason::Erased,
        note: "on request".to_owned(),
        since_at: world.at(9),
        ..world.rows.suppression(user, phone)
    };
    world.commit(Change::Suppress(newer.clone())).await;
    assert_eq!(world.store.suppressed(user, &[newer.person]).await.unwrap(), [newer]);
}

pub(super) async fn lifting_a_suppression_that_is_not_there_does_nothing(world: World) {
    let user = world.user().await;
    let person = world.rows.person(user, &world.rows.phone(1));
    world.commit(Change::Unsuppress { user_id: user, person }).await;
    assert!(world.store.suppressed(user, &[person]).await.unwrap().is_empty());
}
