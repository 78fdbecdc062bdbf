//! What is only read any more: messages of campaigns that ended long ago.

use std::ops::Range;
use std::time::Duration;

use super::stage::{Stage, failed, requeue, sent, skipped, unknown};
use super::world::{World, set_status};
use crate::domain::access::RequestScope;
use crate::domain::campaign::CampaignStatus;
use crate::domain::delivery::Delivery;
use crate::domain::message::{Attempt, Message, MessageScope, MessageState};
use crate::domain::summary::{DeviceNumbers, Numbers};
use crate::domain::warmth::Warmth;
use crate::id::{CampaignId, LeadId, MessageId};
use crate::store::{Archived, Change, MessageFilter, PageRequest, RecentOf, RecentOutcomes, Settled, StoreErrorKind};
use crate::time::Timestamp;
use crate::transport::{MessageRef, TransportMessageId};

/// After everything that a case does.
fn late(world: &World) -> Timestamp {
    world.at(90 * 86_400)
}

async fn archive(world: &World, limit: u32, ended_before: Timestamp) -> Archived {
    let now = late(world);
    world.store.archive(limit, ended_before, now).await.unwrap()
}

/// Moves all there is; gives how many messages that were.
async fn archive_all(world: &World) -> u64 {
    let mut moved = 0;
    for _ in 0..1_000 {
        let archived = archive(world, 100, late(world)).await;
        moved += archived.moved;
        if !archived.more {
            return moved;
        }
    }
    panic!("there is always more to archive");
}

/// A campaign with a message of each kind, which was ended by a person at `world.at(50)`.
struct Ended {
    stage: Stage,
    lead: LeadId,
    sent: MessageId,
    failed: MessageId,
    unknown: MessageId,
    cancelled: MessageId,
    count: u64,
}

async fn begun_and_settled(stage: &Stage, verdict: crate::store::Verdict) -> MessageId {
    let message = stage.queued().await;
    let attempt = stage.begin(message).await;
    stage.settle(message, attempt, verdict).await;
    message
}

async fn ended(world: &World) -> Ended {
    let stage = world.stage().await;
    let lead = world.lead(stage.user, Some(stage.device)).await;
    let mut of_lead = stage.message_to(lead.phone);
    of_lead.lead_id = Some(lead.id);
    let sent_to_lead = world.insert(of_lead).await;
    let first = stage.begin(sent_to_lead).await;
    stage.settle(sent_to_lead, first, requeue(stage.now())).await;
    let mut second = stage.item(sent_to_lead);
    second.attempted_at = world.at(70);
    assert_eq!(stage.try_begin(&second).await, crate::store::Begun::Yes);
    stage.settle(sent_to_lead, second.attempt_id, sent()).await;
    let receipt = Change::Receipt {
        user_id: stage.user,
        device_id: stage.device,
        message: MessageRef::Ours(second.transport_message_id),
        delivery: Delivery::Read,
        at: world.at(71),
    };
    world.commit(receipt).await;
    let failed_first = begun_and_settled(&stage, failed()).await;
    let resent = world.rows.resend(&stage.row(failed_first).await);
    world.insert(resent).await;
    let failed = begun_and_settled(&stage, failed()).await;
    let unknown = begun_and_settled(&stage, unknown()).await;
    begun_and_settled(&stage, skipped()).await;
    let cancelled = stage.queued().await;
    let from = &[CampaignStatus::Triggered];
    stage.status_at(from, CampaignStatus::Cancelled, world.at(50)).await;
    world.sweep_at(world.at(51)).await;
    assert_eq!(stage.state(cancelled).await, MessageState::Cancelled);
    Ended {
        stage,
        lead: lead.id,
        sent: sent_to_lead,
        failed,
        unknown,
        cancelled,
        count: 7,
    }
}

/// What people read of a user, in every way in which they may ask.
#[derive(PartialEq, Debug)]
struct Told {
    lists: Vec<Vec<Message>>,
    messages: Vec<(Message, Vec<Attempt>)>,
    newest: Vec<Message>,
    numbers: Vec<Vec<DeviceNumbers>>,
    of_device: Numbers,
    left_over: u64,
}

async fn list(world: &World, scope: &RequestScope, filter: &MessageFilter) -> Vec<Message> {
    let mut rows = Vec::new();
    let mut page = PageRequest::first(2);
    loop {
        let got = world.store.messages(scope, filter, &page).await.unwrap();
        rows.extend(got.rows);
        let Some(next) = got.next else { return rows };
        page.after = Some(next);
    }
}

async fn told(world: &World, ended: &Ended) -> Told {
    let stage = &ended.stage;
    let scope = RequestScope::user(stage.user);
    let limited = RequestScope {
        user_id: stage.user,
        devices: Some(vec![stage.device]),
    };
    let of = MessageScope::Campaign(stage.campaign);
    let any = MessageFilter::default;
    let mut lists = Vec::new();
    for filter in [
        any(),
        MessageFilter {
            with_superseded: true,
            ..any()
        },
        MessageFilter {
            scope: Some(of),
            ..any()
        },
        MessageFilter {
            device_id: Some(stage.device),
            states: vec![MessageState::Sent, MessageState::Failed],
            ..any()
        },
        MessageFilter {
            lead_id: Some(ended.lead),
            ..any()
        },
        MessageFilter {
            person: Some(stage.row(ended.unknown).await.person),
            ..any()
        },
        MessageFilter {
            scope: Some(MessageScope::Direct),
            ..any()
        },
    ] {
        for scope in [&scope, &limited] {
            lists.push(list(world, scope, &filter).await);
        }
    }
    let mut messages = Vec::new();
    for message in lists[2].clone() {
        let attempts = world.store.attempts(&scope, message.id).await.unwrap();
        messages.push((stage.row(message.id).await, attempts));
    }
    let store = &world.store;
    let within: Range<Timestamp> = world.now()..world.at(3_600);
    Told {
        lists,
        messages,
        newest: store.newest_of_leads(&scope, &[ended.lead]).await.unwrap(),
        numbers: vec![
            store.numbers(&scope, of).await.unwrap(),
            store.count(&scope, of).await.unwrap(),
            store.count(&limited, of).await.unwrap(),
            store.count_within(&scope, of, &within).await.unwrap(),
        ],
        of_device: store.device_numbers(&scope, stage.device).await.unwrap(),
        left_over: store.left_over(stage.campaign).await.unwrap(),
    }
}

pub(super) async fn what_is_archived_reads_as_before(world: World) {
    let ended = ended(&world).await;
    let stage = &ended.stage;
    let direct = stage.direct().await;
    let before = told(&world, &ended).await;
    assert_eq!(
        before.lists[2].len() as u64,
        ended.count + 1,
        "a direct message is there too"
    );
    assert_eq!(
        before
            .messages
            .iter()
            .find(|(row, _)| row.id == ended.sent)
            .unwrap()
            .1
            .len(),
        2
    );
    assert_eq!(before.newest.len(), 1);
    assert_eq!(archive_all(&world).await, ended.count);
    assert_eq!(told(&world, &ended).await, before);
    assert_eq!(archive_all(&world).await, 0, "what is there is not moved again");
    let campaign = world.campaign_of(stage.user, stage.campaign).await;
    assert_eq!(campaign.archived_at, Some(late(&world)));
    assert_eq!(campaign.status, CampaignStatus::Cancelled);
    // The lane goes on with what is not archived.
    let due = stage.due_at(world.at(10)).await;
    assert_eq!(due.iter().map(|message| message.id).collect::<Vec<_>>(), [direct]);
    let attempt = stage.begin(direct).await;
    assert_eq!(
        stage.settle(direct, attempt, sent()).await,
        Settled::Yes(MessageState::Sent)
    );
    let other = world.user().await;
    let foreign = world.store.message(&RequestScope::user(other), ended.sent).await;
    assert_eq!(foreign.unwrap_err().kind, StoreErrorKind::NotFound);
}

pub(super) async fn what_is_left_over_is_counted_in_the_archive(world: World) {
    let stage = world.stage().await;
    for superseded in [false, true] {
        let mut message = stage.message_to(world.rows.fresh_phone());
        message.state = MessageState::Skipped;
        message.reason = Some(crate::domain::message::Reason::DeviceLimit);
        message.superseded = superseded;
        world.insert(message).await;
    }
    stage.cancel().await;
    let of = stage.campaign;
    let before = world.store.left_over(of).await.unwrap();
    assert_eq!(before, 1);
    assert_eq!(archive_all(&world).await, 2);
    assert_eq!(world.store.left_over(of).await.unwrap(), before);
}

pub(super) async fn a_campaign_that_runs_or_is_open_or_young_is_not_archived(world: World) {
    let stage = world.stage().await;
    let (sent, _) = stage.sent().await;
    let queued = stage.queued().await;
    let nothing = Archived::default();
    assert_eq!(archive(&world, 10, late(&world)).await, nothing, "it runs");
    stage.pause().await;
    assert_eq!(archive(&world, 10, late(&world)).await, nothing, "it is paused");
    let from = &[CampaignStatus::Paused];
    stage.status_at(from, CampaignStatus::Cancelled, world.at(50)).await;
    assert_eq!(archive(&world, 10, late(&world)).await, nothing, "a message is open");
    world.sweep_at(world.at(51)).await;
    assert_eq!(
        archive(&world, 10, world.at(50)).await,
        nothing,
        "it did not end before"
    );
    assert_eq!(stage.state(queued).await, MessageState::Cancelled);
    let moved = archive(&world, 10, world.at(50) + Duration::from_millis(1)).await;
    assert_eq!(moved, Archived { moved: 2, more: true });
    assert_eq!(stage.state(sent).await, MessageState::Sent);
    // A campaign that never started has no history, and may still be deleted.
    let draft = world.draft(stage.user).await;
    let from = &[CampaignStatus::Draft];
    world
        .commit(set_status(stage.user, draft.id, from, CampaignStatus::Cancelled))
        .await;
    assert_eq!(archive(&world, 10, late(&world)).await, nothing);
    assert_eq!(world.campaign_of(stage.user, draft.id).await.archived_at, None);
}

pub(super) async fn campaigns_are_archived_in_pages_the_longest_ended_first(world: World) {
    let first = world.stage().await;
    for _ in 0..5 {
        begun_and_settled(&first, failed()).await;
    }
    let second = Stage {
        campaign: world.campaign(first.user).await,
        world: world.clone(),
        ..first
    };
    begun_and_settled(&second, failed()).await;
    let empty = world.campaign(first.user).await;
    let from = &[CampaignStatus::Triggered];
    let cancel = |id: CampaignId| set_status(first.user, id, from, CampaignStatus::Cancelled);
    world.commit_at(cancel(second.campaign), world.at(30)).await;
    world.commit_at(cancel(empty), world.at(40)).await;
    world.commit_at(cancel(first.campaign), world.at(20)).await;
    let archived_at = |id: CampaignId| {
        let world = world.clone();
        let user = first.user;
        async move { world.campaign_of(user, id).await.archived_at }
    };
    let moved = |moved| Archived { moved, more: true };
    assert_eq!(archive(&world, 2, late(&world)).await, moved(2));
    assert!(archived_at(first.campaign).await.is_some(), "from the first page on");
    assert_eq!(archived_at(second.campaign).await, None);
    assert_eq!(archive(&world, 2, late(&world)).await, moved(2));
    assert_eq!(archive(&world, 2, late(&world)).await, moved(1));
    assert_eq!(archive(&world, 2, late(&world)).await, moved(1), "of the second");
    assert_eq!(
        archive(&world, 2, late(&world)).await,
        moved(0),
        "of one without messages"
    );
    assert_eq!(archive(&world, 2, late(&world)).await, Archived::default());
    for id in [first.campaign, second.campaign, empty] {
        assert!(archived_at(id).await.is_some());
    }
}

pub(super) async fn an_archived_campaign_never_changes(world: World) {
    let stage = world.stage().await;
    begun_and_settled(&stage, failed()).await;
    let key = stage.message_to(world.rows.fresh_phone());
    let known = world.insert(key.clone()).await;
    let attempt = stage.begin(known).await;
    stage.settle(known, attempt, sent()).await;
    assert_eq!(world.complete(10, world.at(50)).await.len(), 1);
    // One page of two: already then nobody starts it anew.
    archive(&world, 1, late(&world)).await;
    let conflict = StoreErrorKind::Conflict;
    for _ in 0..2 {
        let from = &[CampaignStatus::Completed];
        let again = set_status(stage.user, stage.campaign, from, CampaignStatus::Triggered);
        world.refused(again, conflict).await;
        let same = set_status(stage.user, stage.campaign, from, CampaignStatus::Completed);
        world.refused(same, conflict).await;
        let campaign = world.campaign_of(stage.user, stage.campaign).await;
        assert_eq!(campaign.status, CampaignStatus::Completed);
        world
            .refused(Change::UpdateCampaign(Box::new(campaign)), conflict)
            .await;
        let trigger = Change::TriggerAgain {
            user_id: stage.user,
            campaign_id: stage.campaign,
        };
        world.refused(trigger, conflict).await;
        let mut unknown_key = stage.message_to(world.rows.fresh_phone());
        world
            .refused(Change::InsertMessages(vec![unknown_key.clone()]), conflict)
            .await;
        unknown_key.state = MessageState::Skipped;
        world.refused(Change::InsertMessages(vec![unknown_key]), conflict).await;
        archive_all(&world).await;
    }
    // Nobody gets it twice: its keys are not known any more, and it takes none.
    world.refused(Change::InsertMessages(vec![key]), conflict).await;
    assert_eq!(world.state(stage.user, known).await, MessageState::Sent);
}

pub(super) async fn an_archived_message_never_changes(world: World) {
    let ended = ended(&world).await;
    let stage = &ended.stage;
    let late_attempt = stage.row(ended.unknown).await.attempt.unwrap();
    let sent_attempt = stage.row(ended.sent).await.attempt.unwrap();
    archive_all(&world).await;
    let before = told(&world, &ended).await;
    let conflict = StoreErrorKind::Conflict;
    let mark = |message_id| Change::MarkMessage {
        user_id: stage.user,
        message_id,
        sent: true,
    };
    world.refused(mark(ended.unknown), conflict).await;
    let cancel = Change::CancelMessage {
        user_id: stage.user,
        message_id: ended.cancelled,
    };
    world.refused(cancel, conflict).await;
    let resend = world.rows.resend(&stage.row(ended.failed).await);
    world.refused(Change::InsertMessages(vec![resend]), conflict).await;
    let other = mark(MessageId::new(world.rows.ids(), world.now()));
    world.refused(other, StoreErrorKind::NotFound).await;

    let settled = stage.settle(ended.unknown, late_attempt.id, sent()).await;
    assert_eq!(settled, Settled::NotSending);
    let settled = stage.settle(ended.sent, sent_attempt.id, sent()).await;
    assert_eq!(settled, Settled::NotSending, "also of what was recorded");
    let phone = before.newest[0].phone.unwrap();
    for message in [
        MessageRef::Ours(sent_attempt.transport_message_id),
        MessageRef::Provider(sent_attempt.provider_id.unwrap()),
        MessageRef::Ours(late_attempt.transport_message_id),
        MessageRef::NewestTo(phone),
    ] {
        let receipt = Change::Receipt {
            user_id: stage.user,
            device_id: stage.device,
            message,
            delivery: Delivery::Replied,
            at: world.at(100),
        };
        assert_eq!(world.commit(receipt).await.matched, []);
    }
    let replied = Change::Replied {
        user_id: stage.user,
        device_id: stage.device,
        phone,
        person: world.rows.person(stage.user, &phone),
        provider_id: TransportMessageId::new("in-1").unwrap(),
        at: world.at(100),
    };
    let done = world.commit(replied).await;
    assert!(done.reply_is_new);
    assert_eq!(done.matched, []);
    assert_eq!(told(&world, &ended).await, before);
    let of = RecentOf::Device(stage.device);
    let recent = world.store.recent(of, world.now(), 100).await.unwrap();
    assert_eq!(
        recent,
        RecentOutcomes::default(),
        "nor does it count for the error rate"
    );
}

pub(super) async fn devices_know_those_to_whom_archived_messages_were_sent(world: World) {
    let ended = ended(&world).await;
    let stage = &ended.stage;
    let mut next = Vec::new();
    for id in [ended.sent, ended.failed, ended.unknown] {
        let phone = stage.row(id).await.phone.unwrap();
        let message = world.rows.direct_message(stage.user, Some(stage.device), phone);
        next.push(world.insert(message).await);
    }
    let expected = [Warmth::Warm, Warmth::Cold, Warmth::Cold];
    assert_eq!(world.store.warmth(&next).await.unwrap(), expected);
    archive_all(&world).await;
    assert_eq!(world.store.warmth(&next).await.unwrap(), expected);
}

pub(super) async fn first_and_last_start_of_a_device_outlive_the_archive(world: World) {
    let ended = ended(&world).await;
    let stage = &ended.stage;
    let history = || async {
        let mut lanes = world.store.history(&[stage.device], late(&world)).await.unwrap();
        lanes.remove(0)
    };
    let before = history().await;
    assert_eq!(before.first_attempt_at, Some(world.now()));
    assert_eq!(before.last_attempt_at, Some(world.at(70)));
    archive_all(&world).await;
    assert_eq!(history().await, before);
    // What is sent afterwards is newer.
    let direct = stage.direct().await;
    let mut item = stage.item(direct);
    item.attempted_at = world.at(200);
    assert_eq!(stage.try_begin(&item).await, crate::store::Begun::Yes);
    stage.settle(direct, item.attempt_id, sent()).await;
    let after = history().await;
    assert_eq!(after.first_attempt_at, Some(world.now()));
    assert_eq!(after.last_attempt_at, Some(world.at(200)));
}

pub(super) async fn an_erased_person_is_erased_in_the_archive(world: World) {
    let ended = ended(&world).await;
    let stage = &ended.stage;
    let row = stage.row(ended.sent).await;
    let (person, phone) = (row.person, row.phone.unwrap());
    archive_all(&world).await;
    let numbers = told(&world, &ended).await.numbers;
    let erase = Change::ErasePerson {
        user_id: stage.user,
        person,
        phone,
    };
    world.commit(erase).await;
    let row = stage.row(ended.sent).await;
    assert_eq!((row.phone, row.name.as_str(), row.content), (None, "", None));
    let scope = RequestScope::user(stage.user);
    let attempts = world.store.attempts(&scope, ended.sent).await.unwrap();
    assert_eq!(attempts.iter().map(|a| a.text.as_str()).collect::<Vec<_>>(), ["", ""]);
    let other = stage.row(ended.failed).await;
    assert!(other.phone.is_some() && !other.attempt.unwrap().text.is_empty());
    assert_eq!(
        told(&world, &ended).await.numbers,
        numbers,
        "the rows stay for the numbers"
    );
}
