use std::time::Duration;

use super::world::{START, World, campaign_draft, missing};
use crate::domain::device::{Device, HoldReason};
use crate::domain::lane::LaneReason;
use crate::domain::platform::Platform;
use crate::engine::handle::{Person, Rule, Ruling, Trace, TraceOf, WaitsFor};
use crate::engine::{LanePhase, LaneStatus};
use crate::id::{DeviceId, IdSource};
use crate::plan::{CampaignDraft, Edit, LeadDraft, QuietDraft, SaveAs};
use crate::store::{Change, ChangeSet, OnDuplicate, WriteClass};
use crate::time::Timestamp;

fn stops(trace: &Trace) -> Vec<Rule> {
    trace.stops().map(|check| check.rule).collect()
}

fn waits(trace: &Trace) -> (Option<WaitsFor>, &str) {
    let last = trace.messages.last().expect("there is a message");
    (last.waits_for, &last.why)
}

#[tokio::test]
async fn a_trace_names_every_rule_that_keeps_a_lead_out_of_a_campaign() {
    let world = World::new().await;
    let (a, b) = (world.device("a").await, world.device("b").await);
    let (handle, user) = (&world.handle, &world.user);
    let draft = CampaignDraft {
        niche: Some("vip".to_owned()),
        target_status: Some("customer".to_owned()),
        audience_device_id: Some(b.id),
        ..campaign_draft()
    };
    let saved = handle.create_campaign(user, &draft, SaveAs::Draft).await.unwrap();
    let of = TraceOf::Campaign(saved.campaign.id);
    let lead = world.lead(&a, "0123456780").await;
    let trace = handle.trace(user, lead.id, of, &[]).await.unwrap();
    assert_eq!(
        stops(&trace),
        [Rule::Status, Rule::Niche, Rule::TargetStatus, Rule::Device]
    );
    assert!(!trace.is_in);
    handle.start_campaign_now(user, saved.campaign.id).await.unwrap();
    world.run().await;
    let fitting = LeadDraft {
        phone: Some("0123456781".to_owned()),
        device_id: Some(b.id),
        niche: Some("VIP".to_owned()),
        target_status: Some("customer".to_owned()),
        ..LeadDraft::default()
    };
    let late = handle.create_lead(user, &fitting, OnDuplicate::Refuse).await.unwrap();
    let late = late.lead();
    let trace = handle.trace(user, late.id, of, &[]).await.unwrap();
    assert_eq!(stops(&trace), [Rule::CreatedBefore]);
    handle.opt_out(user, &Person::Lead(late.id), "").await.unwrap();
    let trace = handle.trace(user, late.id, of, &[]).await.unwrap();
    assert_eq!(stops(&trace), [Rule::CreatedBefore, Rule::Suppression]);
    assert_eq!(missing(handle.trace(&world.other, lead.id, of, &[]).await), "lead");
}

#[tokio::test]
async fn a_trace_of_a_message_that_was_sent_says_when() {
    let world = World::new().await;
    let (_, campaign) = world.campaign_of(1).await;
    let (handle, user) = (&world.handle, &world.user);
    let leads = handle
        .store()
        .leads(user, &Default::default(), &crate::store::PageRequest::first(1))
        .await
        .unwrap();
    let of = TraceOf::Campaign(campaign.id);
    let trace = handle.trace(user, leads.rows[0].id, of, &[]).await.unwrap();
    assert_eq!((trace.is_in, stops(&trace)), (true, vec![]));
    let (waits_for, why) = waits(&trace);
    assert_eq!(waits_for, None);
    assert!(why.starts_with("was sent at 09:00"), "{why}");
}

#[tokio::test]
async fn a_trace_says_why_a_lead_does_not_enter_a_sequence() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456780").await;
    let (handle, user) = (&world.handle, &world.user);
    let sequence = world.sequence("a_start", 2).await.sequence;
    let of = TraceOf::Sequence(sequence.id);
    let trace = handle.trace(user, lead.id, of, &[]).await.unwrap();
    assert_eq!(stops(&trace), [Rule::Trigger]);
    assert_eq!(
        trace.stops().next().unwrap().why,
        "the lead has no trigger of an entry point (a_start); it enters by hand only"
    );
    let mut draft = LeadDraft::from(&lead);
    draft.trigger = Some("A_Start".to_owned());
    handle
        .edit_lead(user, lead.id, &Edit::new(lead.version, draft))
        .await
        .unwrap();
    let trace = handle.trace(user, lead.id, of, &[]).await.unwrap();
    assert_eq!(stops(&trace), []);
    let waiting: Vec<_> = trace
        .checks
        .iter()
        .filter(|check| check.ruling == Ruling::Waits)
        .collect();
    assert_eq!(waiting.len(), 1, "it is not matched yet");
    let run = world.enrolled(sequence.id, &[&lead]).await[0];
    let trace = handle.trace(user, lead.id, of, &[]).await.unwrap();
    assert_eq!(
        (stops(&trace), trace.runs.len(), trace.is_in),
        (vec![Rule::AlreadyIn], 1, true)
    );
    handle.end_enrolment(user, run).await.unwrap();
    let trace = handle.trace(user, lead.id, of, &[]).await.unwrap();
    assert_eq!(stops(&trace), [Rule::ReEntry]);
    assert!(
        waits(&trace)
            .1
            .starts_with("was cancelled at 09:00: its campaign or run ended")
    );
}

#[tokio::test]
async fn a_trace_says_what_a_queued_step_waits_for() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456780").await;
    let (handle, user) = (&world.handle, &world.user);
    let of = world.sequence("a_start", 2).await;
    let id = of.sequence.id;
    let run = world.enrolled(id, &[&lead]).await[0];
    let of_sequence = TraceOf::Sequence(id);
    let asked = async |lanes: &[LaneStatus]| handle.trace(user, lead.id, of_sequence, lanes).await.unwrap();

    assert_eq!(
        waits(&asked(&[]).await),
        (Some(WaitsFor::Turn), "waits for its turn on its device")
    );
    let until = Timestamp::from_millis(START + 5 * 3_600_000 + 5 * 60_000);
    let lane = LaneStatus {
        device_id: device.id,
        user_id: user.user_id,
        phase: LanePhase::Idle,
        may_send: true,
        waits_for: Some(LaneReason::HourCap),
        waits_until: Some(until),
        sent_this_hour: 80,
        sent_this_day: 80,
    };
    let reason = LaneReason::HourCap;
    assert_eq!(
        waits(&asked(&[lane]).await),
        (
            Some(WaitsFor::Lane { reason, until }),
            "waits for the cap of the hour until 14:05"
        )
    );

    let mut draft = of.draft();
    draft.quiet_hours = Some(QuietDraft {
        from: "08:00".to_owned(),
        until: "10:00".to_owned(),
    });
    handle
        .edit_sequence(user, id, &Edit::new(of.sequence.version, draft))
        .await
        .unwrap();
    assert_eq!(
        waits(&asked(&[]).await).1,
        "waits for the end of quiet hours until 10:00"
    );

    let since = handle.now();
    handle.hold_device(user, device.id).await.unwrap();
    let hold = WaitsFor::DeviceHold {
        reason: HoldReason::ByPerson,
        since,
    };
    assert_eq!(waits(&asked(&[]).await).0, Some(hold));
    handle.resume_device(user, device.id).await.unwrap();

    handle.pause_sequence(user, id).await.unwrap();
    assert_eq!(waits(&asked(&[]).await).0, Some(WaitsFor::Resume));
    handle.store().sweep(100, handle.now()).await.unwrap();
    assert_eq!(waits(&asked(&[]).await).0, Some(WaitsFor::Resume));
    handle.resume_sequence(user, id).await.unwrap();
    handle.store().sweep(100, handle.now()).await.unwrap();

    world
        .settle_step(run, crate::domain::message::MessageState::Failed)
        .await;
    let trace = asked(&[]).await;
    let due = handle.now() + Duration::from_secs(24 * 3_600);
    assert_eq!(
        waits(&trace),
        (
            Some(WaitsFor::Due { until: due }),
            "waits for its time at 2026-11-22 09:00"
        )
    );
    assert_eq!(trace.messages[0].waits_for, None);
    assert!(
        trace.messages[0]
            .why
            .starts_with("failed at 09:00: the gateway refused it for good")
    );
}

#[tokio::test]
async fn a_trace_says_since_when_a_linked_device_is_offline() {
    let world = World::new().await;
    let (handle, user) = (&world.handle, &world.user);
    let store = handle.store();
    let device_id = DeviceId::new(&IdSource::seeded([9; 32]), handle.now());
    let device = Device::new(device_id, user.user_id, "web", Platform::WHATSAPP_WEB, handle.now());
    let insert = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
    store.commit(insert, WriteClass::Api, handle.now()).await.unwrap();
    let lead = world.lead(&device, "0123456780").await;
    let id = world.sequence("a_start", 1).await.sequence.id;
    world.enrolled(id, &[&lead]).await;
    world.clock.advance(Duration::from_secs(3_600));
    let trace = handle.trace(user, lead.id, TraceOf::Sequence(id), &[]).await.unwrap();
    let since = device.link_at;
    let expected = (
        Some(WaitsFor::DeviceOnline { since }),
        "waits for its device, which is offline since 09:00",
    );
    assert_eq!(waits(&trace), expected);
}
