//! Campaigns whose audience is the pool: leads without a device, shared out with a limit per device.

use super::stage::{Stage, failed, requeue, sent, skipped, unknown};
use super::world::World;
use crate::domain::access::RequestScope;
use crate::domain::audience::{Audience, AudienceCursor, TargetFilter};
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::delivery::Delivery;
use crate::domain::lead::{Lead, TargetStatus};
use crate::domain::message::{IdempotencyKey, Message, MessageScope, MessageState, Reason};
use crate::domain::token::{Token, TokenSet};
use crate::id::{CampaignId, DeviceId, LeadId, MessageId, UserId};
use crate::store::{Assignment, Change, LeftOver, PlannedRow, StoreErrorKind, Taken, Verdict};
use crate::transport::MessageRef;

fn pool_campaign(world: &World, user: UserId, limit: u32) -> Campaign {
    Campaign {
        audience: Audience::Pool {
            niche: None,
            target: TargetFilter::All,
        },
        routing: crate::domain::campaign::Routing::Balanced,
        device_limit: Some(limit),
        ..world.rows.campaign(user)
    }
}

/// A stage whose campaign writes to the pool.
async fn pool_stage(world: &World, limit: u32) -> Stage {
    let stage = world.stage().await;
    let campaign = pool_campaign(world, stage.user, limit);
    world.commit(Change::InsertCampaign(Box::new(campaign.clone()))).await;
    world.start(&campaign).await;
    world.expanded(campaign.id).await;
    Stage {
        campaign: campaign.id,
        ..stage
    }
}

async fn waiting_for(stage: &Stage, lead: &Lead) -> MessageId {
    let rows = &stage.world.rows;
    let mut message = rows.campaign_message(stage.user, stage.campaign, None, lead.phone);
    message.lead_id = Some(lead.id);
    stage.world.insert(message).await
}

/// A message to a new lead of the pool that waits for a device.
async fn waiting(stage: &Stage) -> (MessageId, LeadId) {
    let lead = stage.world.lead(stage.user, None).await;
    (waiting_for(stage, &lead).await, lead.id)
}

fn to(stage: &Stage, message_id: MessageId, device_id: DeviceId) -> Assignment {
    Assignment {
        user_id: stage.user,
        message_id,
        device_id,
    }
}

async fn assign(stage: &Stage, message: MessageId) -> u64 {
    let items = [to(stage, message, stage.device)];
    stage.world.store.assign(&items, stage.now()).await.unwrap()
}

async fn leave_over(stage: &Stage, messages: &[MessageId]) -> u64 {
    let items: Vec<_> = messages
        .iter()
        .map(|message| LeftOver {
            user_id: stage.user,
            message_id: *message,
        })
        .collect();
    stage.world.store.leave_over(&items, stage.now()).await.unwrap()
}

async fn taken(stage: &Stage) -> Vec<(DeviceId, u32, u32)> {
    let rows = stage.world.store.taken(&[stage.campaign]).await.unwrap();
    rows.iter().map(|row| (row.device_id, row.taken, row.open)).collect()
}

async fn device_of(stage: &Stage, lead: LeadId) -> Option<DeviceId> {
    stage.world.lead_of(stage.user, lead).await.device_id
}

/// Sends what waits by the stage's device, with an outcome.
async fn send(stage: &Stage, message: MessageId, verdict: Verdict) {
    assert_eq!(assign(stage, message).await, 1);
    let attempt = stage.begin(message).await;
    stage.settle(message, attempt, verdict).await;
}

async fn complete(stage: &Stage) {
    stage
        .status(&[CampaignStatus::Triggered], CampaignStatus::Completed)
        .await;
}

fn again(stage: &Stage) -> Change {
    Change::TriggerAgain {
        user_id: stage.user,
        campaign_id: stage.campaign,
    }
}

/// The next round of a message that was left over.
fn taken_up(stage: &Stage, of: &Message) -> Message {
    let phone = of.phone.unwrap();
    let round = of.round + 1;
    Message {
        key: IdempotencyKey::campaign(stage.campaign, of.person, round),
        round,
        supersedes: Some(of.id),
        lead_id: of.lead_id,
        ..stage
            .world
            .rows
            .campaign_message(stage.user, stage.campaign, None, phone)
    }
}

pub(super) async fn the_audience_of_the_pool_are_leads_without_a_device(world: World) {
    let stage = world.stage().await;
    let mut all = Vec::new();
    for (device, niche, target_status) in [
        (None, "EXA", TargetStatus::Customer),
        (None, "exa, vitac", TargetStatus::Prospect),
        (None, "exama", TargetStatus::Prospect),
        (Some(stage.device), "exa", TargetStatus::Prospect),
    ] {
        let mut lead = world.rows.lead(stage.user, device);
        lead.niches = TokenSet::parse(niche).unwrap();
        lead.target_status = target_status;
        world.insert_lead(&lead).await;
        all.push(lead.id);
    }
    let exa = Token::parse("exa").ok();
    for (niche, target, expected) in [
        (None, TargetFilter::All, &all[..3]),
        (exa.clone(), TargetFilter::All, &all[..2]),
        (exa, TargetFilter::Prospect, &all[1..2]),
    ] {
        let mut campaign = pool_campaign(&world, stage.user, 5);
        campaign.audience = Audience::Pool { niche, target };
        world.commit(Change::InsertCampaign(Box::new(campaign.clone()))).await;
        assert_eq!(world.campaign_of(stage.user, campaign.id).await, campaign);
        let store = &world.store;
        let page = store.audience_page(&campaign, LeadId::MIN, 10).await.unwrap();
        assert_eq!(page.iter().map(|lead| lead.id).collect::<Vec<_>>(), expected);
        assert_eq!(store.audience_size(&campaign).await.unwrap(), expected.len() as u64);
    }
}

pub(super) async fn a_limit_is_kept_with_its_campaign(world: World) {
    let stage = pool_stage(&world, 5).await;
    stage.pause().await;
    let mut campaign = world.campaign_of(stage.user, stage.campaign).await;
    assert_eq!(campaign.device_limit, Some(5));
    campaign.device_limit = Some(6);
    world.commit(Change::UpdateCampaign(Box::new(campaign.clone()))).await;
    let edited = world.campaign_of(stage.user, stage.campaign).await;
    assert_eq!(edited.device_limit, Some(6));
}

pub(super) async fn a_device_takes_no_more_of_a_campaign_than_its_limit(world: World) {
    let stage = pool_stage(&world, 2).await;
    let other = world.device(stage.user).await;
    let mut messages = Vec::new();
    for _ in 0..5 {
        messages.push(waiting(&stage).await.0);
    }
    let all: Vec<_> = messages[..3].iter().map(|id| to(&stage, *id, stage.device)).collect();
    assert_eq!(world.store.assign(&all, world.now()).await.unwrap(), 2);
    assert_eq!(stage.row(messages[2]).await.device_id, None, "it still waits");
    assert_eq!(assign(&stage, messages[2]).await, 0);
    let elsewhere = [to(&stage, messages[2], stage.device), to(&stage, messages[2], other)];
    assert_eq!(world.store.assign(&elsewhere, world.now()).await.unwrap(), 1);
    let mut expected = [(stage.device, 2, 2), (other, 1, 1)];
    expected.sort_unstable();
    assert_eq!(taken(&stage).await, expected);
    let free = world.stage().await;
    let unlimited = world
        .rows
        .campaign_message(free.user, free.campaign, None, world.rows.fresh_phone());
    let unlimited = world.insert(unlimited).await;
    assert_eq!(assign(&free, unlimited).await, 1);
}

pub(super) async fn what_was_or_may_have_been_sent_or_failed_counts_and_what_was_skipped_does_not(world: World) {
    let stage = pool_stage(&world, 3).await;
    for (verdict, count) in [(sent(), 1), (skipped(), 1), (failed(), 2), (unknown(), 3)] {
        let (message, _) = waiting(&stage).await;
        send(&stage, message, verdict).await;
        assert_eq!(taken(&stage).await, [(stage.device, count, 0)]);
    }
    let (message, _) = waiting(&stage).await;
    assert_eq!(assign(&stage, message).await, 0);
}

pub(super) async fn what_goes_back_to_the_pool_gives_its_place_back(world: World) {
    let stage = pool_stage(&world, 1).await;
    let ((first, _), (second, _)) = (waiting(&stage).await, waiting(&stage).await);
    assert_eq!((assign(&stage, first).await, assign(&stage, second).await), (1, 0));
    world.store.unassign(stage.user, stage.device).await.unwrap();
    assert_eq!(taken(&stage).await, []);
    assert_eq!((assign(&stage, second).await, assign(&stage, first).await), (1, 0));
}

pub(super) async fn a_limit_holds_however_many_assign_at_once(world: World) {
    let stage = pool_stage(&world, 3).await;
    let mut items = Vec::new();
    for _ in 0..8 {
        items.push([to(&stage, waiting(&stage).await.0, stage.device)]);
    }
    let tries = items.iter().map(|item| world.store.assign(item, world.now()));
    let assigned = futures::future::join_all(tries).await;
    let total: u64 = assigned.into_iter().map(Result::unwrap).sum();
    assert_eq!(total, 3);
    assert_eq!(taken(&stage).await, [(stage.device, 3, 3)]);
}

pub(super) async fn what_devices_have_taken_is_told_by_campaign(world: World) {
    let one = pool_stage(&world, 3).await;
    let campaign = pool_campaign(&world, one.user, 3);
    world.commit(Change::InsertCampaign(Box::new(campaign.clone()))).await;
    world.start(&campaign).await;
    let two = Stage {
        world: world.clone(),
        campaign: campaign.id,
        ..one
    };
    for stage in [&one, &one, &two] {
        let (message, _) = waiting(stage).await;
        assert_eq!(assign(stage, message).await, 1);
    }
    waiting(&two).await;
    let row = |campaign_id: CampaignId, taken| Taken {
        campaign_id,
        device_id: one.device,
        taken,
        open: taken,
    };
    let ids = [two.campaign, one.campaign, two.campaign];
    let mut expected = [row(one.campaign, 2), row(two.campaign, 1)];
    expected.sort_by_key(|row| row.campaign_id);
    assert_eq!(world.store.taken(&ids).await.unwrap(), expected);
    assert_eq!(world.store.taken(&[]).await.unwrap(), []);
}

pub(super) async fn a_campaign_triggered_again_plans_and_shares_out_anew(world: World) {
    let stage = pool_stage(&world, 1).await;
    let (first, _) = waiting(&stage).await;
    send(&stage, first, sent()).await;
    complete(&stage).await;
    let before = world.campaign_of(stage.user, stage.campaign).await;
    world.commit_at(again(&stage), world.at(60)).await;
    let after = world.campaign_of(stage.user, stage.campaign).await;
    let expected = Campaign {
        status: CampaignStatus::Triggered,
        reason: None,
        status_at: world.at(60),
        cursor: AudienceCursor::Start,
        started_at: Some(world.at(60)),
        ended_at: None,
        version: before.version + 1,
        ..before
    };
    assert_eq!(after, expected);
    let expanding = world.store.campaigns_expanding(10).await.unwrap();
    assert_eq!(expanding.iter().map(|one| one.id).collect::<Vec<_>>(), [stage.campaign]);
    assert_eq!(taken(&stage).await, [], "what was taken before does not count any more");
    for _ in 0..2 {
        let (message, _) = waiting(&stage).await;
        assign(&stage, message).await;
    }
    assert_eq!(taken(&stage).await, [(stage.device, 1, 1)], "and the limit holds again");
}

pub(super) async fn a_message_sent_again_takes_the_place_of_the_one_it_replaces(world: World) {
    let stage = pool_stage(&world, 1).await;
    let (message, _) = waiting(&stage).await;
    send(&stage, message, failed()).await;
    let of = stage.row(message).await;
    let resent = Message {
        device_id: None,
        from_pool: true,
        ..world.rows.resend(&of)
    };
    let resent = world.insert(resent).await;
    assert_eq!(taken(&stage).await, []);
    assert_eq!(assign(&stage, resent).await, 1);
    assert_eq!(taken(&stage).await, [(stage.device, 1, 1)]);
}

pub(super) async fn only_a_completed_campaign_of_the_pool_is_triggered_again(world: World) {
    let conflict = StoreErrorKind::Conflict;
    let stage = pool_stage(&world, 1).await;
    world.refused(again(&stage), conflict).await;
    stage.pause().await;
    world.refused(again(&stage), conflict).await;
    stage.resume().await;
    complete(&stage).await;
    let stranger = Change::TriggerAgain {
        user_id: world.user().await,
        campaign_id: stage.campaign,
    };
    world.refused(stranger, StoreErrorKind::NotFound).await;
    world.commit(again(&stage)).await;
    world.refused(again(&stage), conflict).await;
    stage.cancel().await;
    world.refused(again(&stage), conflict).await;
    let ordinary = world.stage().await;
    complete(&ordinary).await;
    world.refused(again(&ordinary), conflict).await;
}

pub(super) async fn what_no_device_may_take_is_left_over(world: World) {
    let stage = pool_stage(&world, 1).await;
    let ((taken, _), (over, lead)) = (waiting(&stage).await, waiting(&stage).await);
    assign(&stage, taken).await;
    assert_eq!(leave_over(&stage, &[taken, over, over]).await, 1);
    assert_eq!(leave_over(&stage, &[over]).await, 0);
    let row = stage.row(over).await;
    assert_eq!(
        (row.state, row.reason, row.settled_at),
        (MessageState::Skipped, Some(Reason::DeviceLimit), Some(world.now()))
    );
    assert!(row.is_left_over());
    assert_eq!(stage.row(taken).await.state, MessageState::Queued);
    assert_eq!(device_of(&stage, lead).await, None, "it stays in the pool");
    assert_eq!(world.store.left_over(stage.campaign).await.unwrap(), 1);
    let scope = RequestScope::user(stage.user);
    let numbers = world
        .store
        .numbers(&scope, MessageScope::Campaign(stage.campaign))
        .await
        .unwrap();
    let found: Vec<_> = numbers
        .iter()
        .map(|row| (row.device_id, row.numbers.skipped, row.numbers.remaining))
        .collect();
    assert_eq!(found, [(None, 1, 0), (Some(stage.device), 0, 1)]);
}

pub(super) async fn only_what_waits_in_a_campaign_with_a_limit_is_left_over(world: World) {
    let stage = world.stage().await;
    let unlimited = world
        .rows
        .campaign_message(stage.user, stage.campaign, None, world.rows.fresh_phone());
    let unlimited = world.insert(unlimited).await;
    let own = stage.queued().await;
    assert_eq!(leave_over(&stage, &[unlimited, own]).await, 0);
    let limited = pool_stage(&world, 1).await;
    let (over, _) = waiting(&limited).await;
    let foreign = LeftOver {
        user_id: stage.user,
        message_id: over,
    };
    assert_eq!(world.store.leave_over(&[foreign], world.now()).await.unwrap(), 0);
    assert_eq!(limited.state(over).await, MessageState::Queued);
}

pub(super) async fn what_is_left_over_of_a_paused_or_ended_campaign_goes_where_that_asks(world: World) {
    let paused = pool_stage(&world, 1).await;
    let (message, _) = waiting(&paused).await;
    paused.pause().await;
    leave_over(&paused, &[message]).await;
    assert_eq!(paused.state(message).await, MessageState::Held);
    paused.resume().await;
    world.sweep_at(world.now()).await;
    assert_eq!(paused.state(message).await, MessageState::Queued);
    let cancelled = pool_stage(&world, 1).await;
    let (message, _) = waiting(&cancelled).await;
    cancelled.cancel().await;
    leave_over(&cancelled, &[message]).await;
    assert_eq!(cancelled.state(message).await, MessageState::Cancelled);
    assert_eq!(world.store.left_over(cancelled.campaign).await.unwrap(), 0);
}

pub(super) async fn what_was_left_over_is_taken_up_once(world: World) {
    let stage = pool_stage(&world, 1).await;
    let (over, _) = waiting(&stage).await;
    leave_over(&stage, &[over]).await;
    complete(&stage).await;
    world.commit(again(&stage)).await;
    let of = stage.row(over).await;
    let next = taken_up(&stage, &of);
    let inserted = world.commit(Change::InsertMessages(vec![next.clone()])).await;
    assert_eq!(inserted.messages_inserted, 1);
    assert!(stage.row(over).await.superseded);
    assert_eq!(stage.state(next.id).await, MessageState::Queued);
    assert_eq!(world.store.left_over(stage.campaign).await.unwrap(), 0);
    let repeated = world.commit(Change::InsertMessages(vec![next.clone()])).await;
    assert_eq!(repeated.duplicates, [(next.key, next.id)]);
    let other = Message {
        key: IdempotencyKey::unique(next.id),
        ..taken_up(&stage, &of)
    };
    let twice = Change::InsertMessages(vec![other]);
    world.refused(twice, StoreErrorKind::Conflict).await;
    let (skipped_one, _) = waiting(&stage).await;
    send(&stage, skipped_one, skipped()).await;
    let not_left_over = taken_up(&stage, &stage.row(skipped_one).await);
    let refused = Change::InsertMessages(vec![not_left_over]);
    world.refused(refused, StoreErrorKind::Conflict).await;
}

pub(super) async fn what_is_planned_for_persons_is_told_with_what_became_of_it(world: World) {
    let stage = pool_stage(&world, 1).await;
    let (over, lead) = waiting(&stage).await;
    leave_over(&stage, &[over]).await;
    let of = stage.row(over).await;
    let mut duplicate = world
        .rows
        .campaign_message(stage.user, stage.campaign, None, of.phone.unwrap());
    duplicate.key = IdempotencyKey::campaign_duplicate(stage.campaign, &[1]);
    duplicate.state = MessageState::Skipped;
    duplicate.reason = Some(Reason::Duplicate);
    let duplicate = world.insert(duplicate).await;
    let elsewhere = world.stage().await;
    elsewhere.queued_to(of.phone.unwrap()).await;
    waiting(&stage).await;
    let row = |message_id, lead_id, reason| PlannedRow {
        message_id,
        person: of.person,
        lead_id,
        round: 0,
        state: MessageState::Skipped,
        reason: Some(reason),
    };
    let planned = world
        .store
        .planned(stage.campaign, &[of.person, of.person])
        .await
        .unwrap();
    let expected = [
        row(over, Some(lead), Reason::DeviceLimit),
        row(duplicate, None, Reason::Duplicate),
    ];
    assert_eq!(planned, expected);
    let next = taken_up(&stage, &of);
    world.insert(next.clone()).await;
    let planned = world.store.planned(stage.campaign, &[of.person]).await.unwrap();
    let ids: Vec<_> = planned.iter().map(|row| (row.message_id, row.round)).collect();
    assert_eq!(ids, [(duplicate, 0), (next.id, 1)], "replaced ones are left out");
}

pub(super) async fn a_lead_of_the_pool_belongs_to_the_device_that_sent_to_it_and_not_before(world: World) {
    let stage = pool_stage(&world, 10).await;
    let (message, lead) = waiting(&stage).await;
    let version = world.lead_of(stage.user, lead).await.version;
    assign(&stage, message).await;
    assert_eq!(device_of(&stage, lead).await, None, "queued is not sent");
    let attempt = stage.begin(message).await;
    assert_eq!(device_of(&stage, lead).await, None, "nor is being sent");
    stage.settle(message, attempt, sent()).await;
    let given = world.lead_of(stage.user, lead).await;
    assert_eq!((given.device_id, given.version), (Some(stage.device), version + 1));
    for verdict in [failed(), skipped(), unknown()] {
        let (message, lead) = waiting(&stage).await;
        send(&stage, message, verdict).await;
        assert_eq!(device_of(&stage, lead).await, None);
    }
}

pub(super) async fn evidence_and_a_persons_word_give_a_lead_to_its_device_too(world: World) {
    let stage = pool_stage(&world, 10).await;
    let (message, by_receipt) = waiting(&stage).await;
    send(&stage, message, unknown()).await;
    let id = stage.row(message).await.attempt.unwrap().transport_message_id;
    world
        .commit(Change::Receipt {
            user_id: stage.user,
            device_id: stage.device,
            message: MessageRef::Ours(id),
            delivery: Delivery::Read,
            at: world.now(),
        })
        .await;
    assert_eq!(device_of(&stage, by_receipt).await, Some(stage.device));
    let (message, late) = waiting(&stage).await;
    assign(&stage, message).await;
    let attempt = stage.begin(message).await;
    let id = stage.row(message).await.attempt.unwrap().transport_message_id;
    stage.settle(message, attempt, requeue(world.now())).await;
    world.store.unassign(stage.user, stage.device).await.unwrap();
    assert_eq!(stage.row(message).await.device_id, None);
    world
        .commit(Change::Receipt {
            user_id: stage.user,
            device_id: stage.device,
            message: MessageRef::Ours(id),
            delivery: Delivery::Delivered,
            at: world.now(),
        })
        .await;
    assert_eq!(stage.state(message).await, MessageState::Sent);
    assert_eq!(
        device_of(&stage, late).await,
        Some(stage.device),
        "it sent to it after all"
    );
    for (sent, expected) in [(true, Some(stage.device)), (false, None)] {
        let (message, lead) = waiting(&stage).await;
        send(&stage, message, unknown()).await;
        world
            .commit(Change::MarkMessage {
                user_id: stage.user,
                message_id: message,
                sent,
            })
            .await;
        assert_eq!(device_of(&stage, lead).await, expected);
    }
}

pub(super) async fn a_lead_stays_where_it_is_when_it_cannot_belong_to_the_device(world: World) {
    let stage = pool_stage(&world, 10).await;
    let twin = world.lead(stage.user, Some(stage.device)).await;
    let mut lead = world.rows.lead(stage.user, None);
    lead.phone = twin.phone;
    world.insert_lead(&lead).await;
    let message = waiting_for(&stage, &lead).await;
    send(&stage, message, sent()).await;
    assert_eq!(
        device_of(&stage, lead.id).await,
        None,
        "the device has the same lead already"
    );
    let other = world.device(stage.user).await;
    let (message, moved) = waiting(&stage).await;
    assign(&stage, message).await;
    let attempt = stage.begin(message).await;
    let mut row = world.lead_of(stage.user, moved).await;
    row.device_id = Some(other);
    world.commit(Change::UpdateLead(Box::new(row))).await;
    stage.settle(message, attempt, sent()).await;
    assert_eq!(
        device_of(&stage, moved).await,
        Some(other),
        "a person gave it to another"
    );
    let (message, lead) = waiting(&stage).await;
    assign(&stage, message).await;
    let attempt = stage.begin(message).await;
    stage.delete_device().await;
    stage.settle(message, attempt, sent()).await;
    assert_eq!(device_of(&stage, lead).await, None, "the device is gone");
}

pub(super) async fn leads_of_other_campaigns_stay_as_they_are_when_they_are_sent_to(world: World) {
    let stage = world.stage().await;
    let (message, lead) = waiting(&stage).await;
    send(&stage, message, sent()).await;
    assert_eq!(device_of(&stage, lead).await, None);
}

pub(super) async fn the_newest_campaign_message_of_leads_is_told(world: World) {
    let stage = pool_stage(&world, 10).await;
    let (over, lead) = waiting(&stage).await;
    leave_over(&stage, &[over]).await;
    let of = stage.row(over).await;
    let mut direct = world
        .rows
        .direct_message(stage.user, Some(stage.device), of.phone.unwrap());
    direct.lead_id = Some(lead);
    world.insert(direct).await;
    let (_, unsent) = (waiting(&stage).await, world.lead(stage.user, None).await);
    let scope = RequestScope::user(stage.user);
    let ids = [unsent.id, lead, lead];
    let newest = async |scope: &RequestScope| {
        let rows = world.store.newest_of_leads(scope, &ids).await.unwrap();
        rows.iter().map(|row| (row.lead_id, row.id)).collect::<Vec<_>>()
    };
    assert_eq!(newest(&scope).await, [(Some(lead), over)]);
    let resent = taken_up(&stage, &of);
    world.insert(resent.clone()).await;
    assert_eq!(newest(&scope).await, [(Some(lead), resent.id)]);
    assert_eq!(newest(&RequestScope::user(world.user().await)).await, []);
    let some = RequestScope {
        user_id: stage.user,
        devices: Some(vec![stage.device]),
    };
    assert_eq!(newest(&some).await, [], "what waits in the pool belongs to no device");
}

pub(super) async fn a_replaced_message_is_no_leads_newest(world: World) {
    let stage = pool_stage(&world, 10).await;
    let (over, lead) = waiting(&stage).await;
    let older = stage.row(over).await;
    leave_over(&stage, &[over]).await;
    let row = stage.row(over).await;
    let mut next = taken_up(&stage, &row);
    next.id = MessageId::from_uuid(uuid::Uuid::from_u128(older.id.as_uuid().as_u128() - 1));
    world.insert(next.clone()).await;
    let scope = RequestScope::user(stage.user);
    let newest = world.store.newest_of_leads(&scope, &[lead]).await.unwrap();
    assert_eq!(newest.iter().map(|row| row.id).collect::<Vec<_>>(), [next.id]);
}
