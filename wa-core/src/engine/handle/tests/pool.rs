//! Campaigns whose audience is the pool of leads without a device.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::world::{World, campaign_draft, conflict, refused};
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::device::Device;
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageState, Reason};
use crate::engine::handle::{CampaignNumbers, RecipientFilter, Resend, Rule, TraceOf, WaitsFor};
use crate::id::{CampaignId, DeviceId};
use crate::plan::{CampaignDraft, Edit, FieldCode, LeadDraft};
use crate::store::{OnDuplicate, PageRequest};
use crate::transport::{NotSentKind, SendError};

fn pool_draft(limit: u32) -> CampaignDraft {
    CampaignDraft {
        audience: Some("pool".to_owned()),
        device_limit: Some(limit),
        ..campaign_draft()
    }
}

impl World {
    async fn pool_lead(&self, number: u32) -> Lead {
        let draft = LeadDraft {
            name: Some("Aminah".to_owned()),
            phone: Some(format!("+60123456{number:03}")),
            ..LeadDraft::default()
        };
        let created = self.handle.create_lead(&self.user, &draft, OnDuplicate::Refuse).await;
        created.unwrap().lead().clone()
    }

    async fn pool(&self, leads: u32) {
        for number in 0..leads {
            self.pool_lead(number).await;
        }
    }

    /// A campaign over the pool, triggered and run as far as it goes.
    async fn triggered(&self, limit: u32) -> CampaignId {
        let campaign = self.draft(&pool_draft(limit)).await;
        self.trigger(campaign.id).await;
        campaign.id
    }

    async fn trigger(&self, id: CampaignId) -> Campaign {
        let saved = self.handle.trigger_campaign(&self.user, id).await.unwrap();
        self.run().await;
        saved.campaign
    }

    async fn numbers(&self, id: CampaignId) -> CampaignNumbers {
        self.handle.campaign_numbers(&self.user, id).await.unwrap()
    }

    async fn rows(&self, id: CampaignId) -> Vec<Message> {
        let filter = RecipientFilter::default();
        let page = PageRequest::first(500);
        let rows = self.handle.recipients(&self.user, id, &filter, &page).await;
        rows.unwrap().rows
    }

    async fn lead_now(&self, lead: &Lead) -> Lead {
        self.handle.store().lead(&self.user, lead.id).await.unwrap()
    }

    async fn in_pool(&self) -> u64 {
        let filter = crate::store::LeadFilter {
            without_device: true,
            ..Default::default()
        };
        self.handle.store().lead_count(&self.user, &filter).await.unwrap()
    }

    fn refuse(&self, times: usize) {
        for _ in 0..times {
            let refusal = SendError::not_sent(NotSentKind::Rejected, "no");
            self.transport.answer_next(Err(refusal));
        }
    }
}

/// How many messages each device sent.
fn by_device(rows: &[Message]) -> BTreeMap<DeviceId, u32> {
    let mut counts = BTreeMap::new();
    for message in rows.iter().filter(|message| message.state == MessageState::Sent) {
        *counts.entry(message.device_id.unwrap()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn the_pool_is_shared_out_within_the_limit_and_the_rest_stays_and_is_shown() {
    let world = World::new().await;
    let (a, b) = (world.device("a").await, world.device("b").await);
    world.pool(12).await;
    let id = world.triggered(4).await;
    let rows = world.rows(id).await;
    assert_eq!(by_device(&rows), BTreeMap::from([(a.id, 4), (b.id, 4)]));
    let numbers = world.numbers(id).await;
    assert_eq!(numbers.status, CampaignStatus::Completed);
    assert_eq!(
        (
            numbers.should,
            numbers.total.done,
            numbers.total.skipped,
            numbers.left_over
        ),
        (12, 8, 4, 4)
    );
    let over: Vec<_> = rows.iter().filter(|message| message.is_left_over()).collect();
    assert_eq!((over.len(), over[0].reason), (4, Some(Reason::DeviceLimit)));
    for message in &rows {
        let lead = message.lead_id.unwrap();
        let lead = world.handle.store().lead(&world.user, lead).await.unwrap();
        assert_eq!(
            lead.device_id, message.device_id,
            "who was sent to belongs to the device"
        );
    }
    assert_eq!(world.in_pool().await, 4);
    let of = TraceOf::Campaign(id);
    let lead = over[0].lead_id.unwrap();
    let trace = world.handle.trace(&world.user, lead, of, &[]).await.unwrap();
    let why = &trace.messages[0].why;
    assert!(why.contains("every device reached the limit"), "{why}");
    assert!(why.contains("stays in the pool"), "{why}");
    let sent = rows.iter().find(|message| message.state == MessageState::Sent).unwrap();
    let trace = world
        .handle
        .trace(&world.user, sent.lead_id.unwrap(), of, &[])
        .await
        .unwrap();
    let stops: Vec<_> = trace.stops().map(|check| check.rule).collect();
    assert_eq!(stops, [Rule::Device], "it is not in the pool any more");
}

#[tokio::test]
async fn a_second_trigger_takes_up_the_rest_and_who_came_since_and_doubles_nobody() {
    let world = World::new().await;
    let (a, b) = (world.device("a").await, world.device("b").await);
    world.pool(10).await;
    world.refuse(1);
    let id = world.triggered(3).await;
    let first = world.numbers(id).await;
    assert_eq!(
        (first.total.done, first.total.failed, first.left_over),
        (5, 1, 4),
        "a failed one has used its place"
    );
    let failed = world.rows(id).await;
    let failed = failed
        .iter()
        .find(|message| message.state == MessageState::Failed)
        .unwrap();
    let failed_lead = failed.lead_id.unwrap();
    let lead = world.handle.store().lead(&world.user, failed_lead).await.unwrap();
    assert_eq!(lead.device_id, None, "who was not reached stays in the pool");
    world.pool_lead(500).await;
    world.clock.advance(Duration::from_secs(60));
    let again = world.trigger(id).await;
    assert_eq!(again.status, CampaignStatus::Triggered);
    let second = world.numbers(id).await;
    assert_eq!(
        (second.status, second.should, second.total.done, second.total.failed),
        (CampaignStatus::Completed, 11, 10, 1)
    );
    assert_eq!((second.total.skipped, second.left_over), (0, 0));
    let rows = world.rows(id).await;
    assert_eq!(rows.len(), 11, "the failed one is not planned again");
    let persons: BTreeSet<_> = rows.iter().map(|message| message.person).collect();
    assert_eq!(persons.len(), 11);
    let numbers: BTreeSet<_> = world.transport.sent().iter().map(|sent| sent.to).collect();
    assert_eq!(
        (numbers.len(), world.transport.sent().len()),
        (11, 11),
        "nobody is written to twice"
    );
    assert!(by_device(&rows).values().all(|sent| *sent <= 6));
    assert_eq!(
        by_device(&rows).keys().copied().collect::<BTreeSet<_>>(),
        BTreeSet::from([a.id, b.id])
    );
    world.clock.advance(Duration::from_secs(60));
    world.trigger(id).await;
    assert_eq!(world.rows(id).await.len(), 11, "there is nobody left");
    assert_eq!(world.status(id).await, CampaignStatus::Completed);
}

#[tokio::test]
async fn a_second_trigger_leaves_over_what_is_too_much_for_it_too() {
    let world = World::new().await;
    world.device("a").await;
    world.pool(7).await;
    let id = world.triggered(3).await;
    for (done, left_over) in [(3, 4), (6, 1), (7, 0)] {
        let numbers = world.numbers(id).await;
        assert_eq!(
            (numbers.should, numbers.total.done, numbers.left_over),
            (7, done, left_over)
        );
        world.clock.advance(Duration::from_secs(60));
        world.trigger(id).await;
    }
    assert_eq!(world.transport.sent().len(), 7);
}

#[tokio::test]
async fn the_less_loaded_device_gets_more_of_the_pool() {
    let world = World::new().await;
    let (busy, idle) = (world.device("a").await, world.device("b").await);
    for number in 900..906 {
        world.lead(&busy, &format!("+60123456{number}")).await;
    }
    let before = world.draft(&campaign_draft()).await;
    world.handle.start_campaign_now(&world.user, before.id).await.unwrap();
    world.run().await;
    world.pool(3).await;
    let id = world.triggered(2).await;
    let rows = world.rows(id).await;
    assert_eq!(
        by_device(&rows),
        BTreeMap::from([(busy.id, 1), (idle.id, 2)]),
        "the idle one up to its limit, then the busy one"
    );
}

#[tokio::test]
async fn a_person_with_two_leads_in_the_pool_is_written_to_once() {
    let world = World::new().await;
    world.device("a").await;
    world.pool(3).await;
    let twin = LeadDraft {
        phone: Some("+60123456001".to_owned()),
        niche: Some("vip".to_owned()),
        ..LeadDraft::default()
    };
    let create = world.handle.create_lead(&world.user, &twin, OnDuplicate::Refuse);
    create.await.unwrap();
    let id = world.triggered(1).await;
    for done in 1..=3 {
        let numbers = world.numbers(id).await;
        assert_eq!((numbers.should, numbers.total.done), (4, done), "{numbers:?}");
        assert_eq!(numbers.left_over, 3 - done);
        world.clock.advance(Duration::from_secs(60));
        world.trigger(id).await;
    }
    assert_eq!(world.transport.sent().len(), 3);
}

#[tokio::test]
async fn without_a_device_online_the_pool_waits_and_says_so() {
    let world = World::new().await;
    let device = world.device("a").await;
    world.handle.hold_device(&world.user, device.id).await.unwrap();
    world.pool(2).await;
    let id = world.triggered(1).await;
    let rows = world.rows(id).await;
    assert!(rows.iter().all(|message| message.state == MessageState::Queued));
    let progress = world.handle.campaign_progress(&world.user, id).await.unwrap();
    assert!(progress.pool_waits);
    let lead = rows[0].lead_id.unwrap();
    let trace = world.handle.trace(&world.user, lead, TraceOf::Campaign(id), &[]).await;
    assert_eq!(trace.unwrap().messages[0].waits_for, Some(WaitsFor::AnyDevice));
    world.handle.resume_device(&world.user, device.id).await.unwrap();
    world.run().await;
    let numbers = world.numbers(id).await;
    assert_eq!((numbers.total.done, numbers.left_over), (1, 1));
}

#[tokio::test]
async fn what_waits_on_a_device_that_closes_goes_to_another_within_its_limit() {
    let world = World::new().await;
    let (a, b) = (world.device("a").await, world.device("b").await);
    world.pool(4).await;
    let campaign = world.draft(&pool_draft(2)).await;
    world.handle.trigger_campaign(&world.user, campaign.id).await.unwrap();
    world.engine.balance().await.unwrap();
    world.engine.refresh(None).await.unwrap();
    world.engine.plan().await.unwrap();
    let rows = world.rows(campaign.id).await;
    let on = |device: &Device| rows.iter().filter(|row| row.device_id == Some(device.id)).count();
    assert_eq!((on(&a), on(&b)), (2, 2));
    let lead = rows[0].lead_id.unwrap();
    let lead = world.handle.store().lead(&world.user, lead).await.unwrap();
    assert_eq!(lead.device_id, None, "to be sent is not sent");
    world.handle.hold_device(&world.user, a.id).await.unwrap();
    world.run().await;
    let rows = world.rows(campaign.id).await;
    assert_eq!(by_device(&rows), BTreeMap::from([(b.id, 2)]));
    assert_eq!(world.numbers(campaign.id).await.left_over, 2);
}

#[tokio::test]
async fn a_device_at_its_limit_that_has_not_finished_keeps_the_rest_waiting() {
    let world = World::new().await;
    world.device("a").await;
    world.pool(2).await;
    let campaign = world.draft(&pool_draft(1)).await;
    world.handle.trigger_campaign(&world.user, campaign.id).await.unwrap();
    world.engine.balance().await.unwrap();
    world.engine.refresh(None).await.unwrap();
    world.engine.plan().await.unwrap();
    world.engine.plan().await.unwrap();
    let rows = world.rows(campaign.id).await;
    let waiting = rows.iter().find(|row| row.device_id.is_none()).unwrap();
    assert_eq!(waiting.state, MessageState::Queued);
    let of = TraceOf::Campaign(campaign.id);
    let trace = world.handle.trace(&world.user, waiting.lead_id.unwrap(), of, &[]).await;
    let trace = trace.unwrap();
    assert_eq!(trace.messages[0].waits_for, Some(WaitsFor::DeviceLimit));
    // What the device was to send turns out to be no recipient: its place is free again.
    world
        .handle
        .opt_out(
            &world.user,
            &crate::engine::handle::Person::Lead(
                rows.iter()
                    .find(|row| row.device_id.is_some())
                    .unwrap()
                    .lead_id
                    .unwrap(),
            ),
            "",
        )
        .await
        .unwrap();
    world.run().await;
    let numbers = world.numbers(campaign.id).await;
    assert_eq!(
        (numbers.total.done, numbers.total.skipped, numbers.left_over),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn pause_cancel_and_resend_are_as_of_any_campaign() {
    let world = World::new().await;
    let device = world.device("a").await;
    world.pool(4).await;
    world.refuse(1);
    let id = world.triggered(3).await;
    assert_eq!(world.numbers(id).await.total.failed, 1);
    let resent = world.handle.resend_failed(&world.user, id, &Resend::default()).await;
    assert_eq!(
        resent.unwrap().resent,
        1,
        "what was left over is not sent again by that"
    );
    world.run().await;
    let numbers = world.numbers(id).await;
    assert_eq!((numbers.total.done, numbers.left_over, numbers.should), (3, 1, 4));
    world.clock.advance(Duration::from_secs(60));
    world.handle.trigger_campaign(&world.user, id).await.unwrap();
    world.handle.pause_campaign(&world.user, id).await.unwrap();
    world.run().await;
    assert_eq!(world.numbers(id).await.total.done, 3, "paused");
    assert!(conflict(world.handle.trigger_campaign(&world.user, id).await).contains("paused"));
    let paused = world.campaign(id).await;
    let edit = Edit::new(
        paused.version,
        CampaignDraft {
            device_limit: Some(9),
            ..CampaignDraft::from(&paused)
        },
    );
    let edited = world.handle.edit_campaign(&world.user, id, &edit).await.unwrap();
    assert_eq!(edited.campaign.device_limit, Some(9));
    world.handle.resume_campaign(&world.user, id).await.unwrap();
    world.run().await;
    assert_eq!(world.numbers(id).await.total.done, 4);
    let copy = world.handle.clone_campaign(&world.user, id).await.unwrap();
    assert_eq!((copy.device_limit, copy.audience.is_pool()), (Some(9), true));
    world.pool_lead(700).await;
    world.handle.hold_device(&world.user, device.id).await.unwrap();
    world.clock.advance(Duration::from_secs(60));
    world.trigger(id).await;
    world.handle.cancel_campaign(&world.user, id).await.unwrap();
    world.run().await;
    let numbers = world.numbers(id).await;
    assert_eq!((numbers.total.cancelled, numbers.total.remaining), (1, 0));
    assert_eq!(world.in_pool().await, 1);
    assert!(conflict(world.handle.trigger_campaign(&world.user, id).await).contains("cancelled"));
}

#[tokio::test]
async fn what_a_campaign_of_the_pool_needs_is_said_field_by_field() {
    let world = World::new().await;
    let device = world.device("a").await;
    let (handle, user) = (&world.handle, &world.user);
    let create = async |draft: CampaignDraft| {
        let save_as = crate::plan::SaveAs::Draft;
        refused(handle.create_campaign(user, &draft, save_as).await)
    };
    let one = |field: &str, code| vec![(field.to_owned(), code)];
    let no_limit = CampaignDraft {
        device_limit: None,
        ..pool_draft(1)
    };
    assert_eq!(create(no_limit).await, one("device_limit", FieldCode::Required));
    for limit in [0, 10_001] {
        assert_eq!(
            create(pool_draft(limit)).await,
            one("device_limit", FieldCode::OutOfRange)
        );
    }
    let of_leads = CampaignDraft {
        device_limit: Some(5),
        ..campaign_draft()
    };
    assert_eq!(create(of_leads).await, one("device_limit", FieldCode::NotAllowed));
    let own = CampaignDraft {
        routing: Some("own_device".to_owned()),
        device_id: Some(device.id),
        ..pool_draft(1)
    };
    let refused_fields = create(own).await;
    assert_eq!(
        refused_fields,
        [
            ("device_id".to_owned(), FieldCode::NotAllowed),
            ("routing".to_owned(), FieldCode::NotAllowed)
        ]
    );
    let ordinary = world.draft(&campaign_draft()).await;
    let why = conflict(handle.trigger_campaign(user, ordinary.id).await);
    assert!(why.contains("not the pool"), "{why}");
}

#[tokio::test]
async fn a_lead_shows_what_became_of_it_until_it_leaves_the_pool() {
    let world = World::new().await;
    world.device("a").await;
    let (reached, refused_one) = (world.pool_lead(1).await, world.pool_lead(2).await);
    world
        .transport
        .answer_next(Ok(crate::transport::SendReceipt::default()));
    world.refuse(1);
    let id = world.triggered(5).await;
    assert!(world.lead_now(&reached).await.device_id.is_some());
    assert_eq!(world.lead_now(&refused_one).await.device_id, None);
    let ids = [reached.id, refused_one.id];
    let newest = world.handle.store().newest_of_leads(&world.user, &ids).await.unwrap();
    let found: Vec<_> = newest.iter().map(|row| (row.lead_id, row.state)).collect();
    assert_eq!(
        found,
        [
            (Some(reached.id), MessageState::Sent),
            (Some(refused_one.id), MessageState::Failed)
        ]
    );
    assert_eq!(world.numbers(id).await.left_over, 0);
}
