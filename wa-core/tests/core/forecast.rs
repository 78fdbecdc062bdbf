//! Forecasts against what then happens, in worlds that are small enough for every run.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use wa_core::domain::audience::{Audience, TargetFilter};
use wa_core::domain::campaign::{Campaign, CampaignStatus, Routing};
use wa_core::domain::content::Content;
use wa_core::domain::lane::Waits;
use wa_core::domain::message::{MessageScope, MessageState, Reason};
use wa_core::domain::pacing::Caps;
use wa_core::domain::platform::Platform;
use wa_core::domain::schedule::QuietHours;
use wa_core::domain::summary::Numbers;
use wa_core::engine::handle::{HandleError, OpenEnd};
use wa_core::id::{CampaignId, EventId, IdSource, SequenceId};
use wa_core::plan::FieldCode;
use wa_core::simulation::forecast::truth::{START, TRIGGER, Truth, TruthPlan, TruthWorld};
use wa_core::simulation::forecast::{
    DeviceStand, Forecast, ForecastControl, ForecastEnd, ForecastOptions, ForecastPhase, ForecastWarningCode, Latency,
    LatencySource,
};
use wa_core::store::{
    CampaignFilter, CampaignStore, Change, ChangeSet, DeviceStore, EnrolmentFilter, EventStore, LeadFilter, LeadStore,
    LeaseStore, MessageFilter, OutboxStore, PageRequest, SequenceFilter, SequenceStore, Store, SuppressionStore,
    WriteClass,
};

const HOUR: Duration = Duration::from_secs(3_600);
const RECIPIENTS: usize = 900;

fn now<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("the memory store never waits")
}

/// Waits in turns, as a server's thread would.
fn patiently<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(work)
}

fn forecast(world: &TruthWorld, options: &ForecastOptions) -> Forecast {
    patiently(world.forecast(options)).expect("there is somebody to write to")
}

fn changed(change: impl FnOnce(&mut ForecastOptions)) -> ForecastOptions {
    let mut options = ForecastOptions::default();
    change(&mut options);
    options
}

fn small() -> TruthPlan {
    TruthPlan {
        busy: 3,
        busy_per_mille: 400,
        every_idle: 10,
        caps: Caps::default().with_hour_max(20).unwrap().with_day_max(75).unwrap(),
        quiet_hours: Some(QuietHours::new("22:00".parse().unwrap(), "08:00".parse().unwrap()).unwrap()),
        begins_after: HOUR * 12,
        expires_after: HOUR * 48,
        ..TruthPlan::plain(30, RECIPIENTS)
    }
}

fn edit(world: &TruthWorld, change: impl FnOnce(&mut Campaign)) {
    let mut campaign = now(world.store.campaign(&world.scope, world.campaign)).unwrap();
    change(&mut campaign);
    let set = ChangeSet::one(Change::UpdateCampaign(Box::new(campaign)));
    now(world.store.commit(set, WriteClass::Api, START)).unwrap();
}

/// Everything that the store tells of the user.
fn dump(world: &TruthWorld) -> String {
    let store = &world.store;
    let scope = &world.scope;
    let json = |value: serde_json::Value| value.to_string();
    let mut parts = Vec::new();
    let devices = now(store.devices(scope, &PageRequest::first(1_000))).unwrap();
    let ids: Vec<_> = devices.rows.iter().map(|device| device.id).collect();
    for owned in now(store.owned(&ids)).unwrap() {
        parts.push(json(serde_json::json!([
            owned.device,
            owned.epoch,
            owned.owner.map(|one| one.to_string())
        ])));
    }
    parts.push(format!("{:?}", now(store.history(&ids, START - HOUR * 48)).unwrap()));
    let mut request = PageRequest::first(1_000);
    loop {
        let page = now(store.leads(scope, &LeadFilter::default(), &request)).unwrap();
        parts.extend(page.rows.iter().map(|lead| json(serde_json::json!(lead))));
        let Some(next) = page.next else { break };
        request = PageRequest::after(next, 1_000);
    }
    let filter = MessageFilter {
        with_superseded: true,
        ..MessageFilter::default()
    };
    let mut request = PageRequest::first(1_000);
    loop {
        let page = now(store.messages(scope, &filter, &request)).unwrap();
        parts.extend(page.rows.iter().map(|message| json(serde_json::json!(message))));
        let Some(next) = page.next else { break };
        request = PageRequest::after(next, 1_000);
    }
    let campaigns = now(store.campaigns(scope, &CampaignFilter::default(), &PageRequest::first(1_000))).unwrap();
    parts.extend(campaigns.rows.iter().map(|campaign| json(serde_json::json!(campaign))));
    let suppressions = now(store.suppressions(scope, &PageRequest::first(1_000))).unwrap();
    parts.push(json(serde_json::json!(suppressions.rows)));
    let sequences = now(store.sequences(scope, &SequenceFilter::default(), &PageRequest::first(1_000))).unwrap();
    parts.push(json(serde_json::json!(sequences.rows)));
    let enrolments = now(store.enrolments(scope, &EnrolmentFilter::default(), &PageRequest::first(1_000))).unwrap();
    parts.push(json(serde_json::json!(enrolments.rows)));
    parts.push(format!("{:?}", now(store.to_advance(1_000)).unwrap()));
    parts.push(format!("{:?}", now(store.nodes()).unwrap()));
    parts.push(format!("{:?}", now(store.leads_to_match(1_000)).unwrap()));
    parts.push(format!("{:?}", now(store.events(scope, EventId::MIN, 10_000)).unwrap()));
    parts.push(format!("{:?}", now(store.backlog()).unwrap()));
    parts.join("\n")
}

#[test]
fn a_forecast_is_what_then_happens_with_other_draws_and_changes_nothing() {
    let world = TruthWorld::new(&small());
    let before = dump(&world);
    let told = forecast(&world, &ForecastOptions::default());
    assert!(before == dump(&world), "the store is as it was");
    let truth = world.live(2, HOUR * 24 * 14);

    assert_eq!(told.end, ForecastEnd::Completed);
    assert_eq!(truth.status, Some(CampaignStatus::Completed));
    assert_eq!(told.numbers, truth.numbers);
    assert!(
        told.days.iter().filter(|day| day.sent > 0).count() > 1,
        "{:?}",
        told.days
    );
    let sent: u64 = truth.days.values().sum();
    for day in &told.days {
        let really = truth.days.get(&day.date).copied().unwrap_or(0);
        assert!(
            day.sent.abs_diff(really) * 100 <= sent,
            "{}: {} for {really}",
            day.date,
            day.sent
        );
    }
    let begun = told.starts_at;
    let (told_span, real_span) = (
        told.last_sent_at.unwrap().since(begun),
        truth.last_sent_at.unwrap().since(begun),
    );
    assert!(
        told_span.abs_diff(real_span) * 50 <= real_span,
        "{told_span:?} for {real_span:?}"
    );
}

#[test]
fn the_same_forecast_twice_is_the_same_and_its_sums_add_up() {
    let world = TruthWorld::new(&small());
    let told = forecast(&world, &ForecastOptions::default());
    assert_eq!(told, forecast(&world, &ForecastOptions::default()));
    let other = changed(|options| {
        options.seed = 2;
    });
    assert_ne!(told.last_sent_at, forecast(&world, &other).last_sent_at);

    assert_eq!(told.numbers.should(), RECIPIENTS as u64);
    let of_devices: u64 = told.devices.iter().map(|device| device.numbers.should()).sum();
    assert_eq!(of_devices, RECIPIENTS as u64);
    let of_days: u64 = told.days.iter().map(|day| day.sent).sum();
    assert_eq!(of_days, told.numbers.done);
    for device in &told.devices {
        let days: u64 = device.days.iter().map(|day| day.sent).sum();
        assert_eq!(days, device.numbers.done, "{}", device.name);
    }
    let not_sent: u64 = told.not_sent.iter().map(|row| row.count).sum();
    assert_eq!(not_sent + told.numbers.done, RECIPIENTS as u64);
    let waited: Waits = told.devices.iter().map(|device| device.waited).sum();
    assert_eq!(waited, told.waited);
    let back: Forecast = serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
    assert_eq!(back, told);
}

#[test]
fn caps_quiet_hours_and_devices_that_cannot_send_show_what_they_cost_and_who_is_skipped() {
    let world = TruthWorld::new(&small());
    let told = forecast(&world, &ForecastOptions::default());
    let Waits {
        delay_ms,
        hour_cap_ms,
        day_cap_ms,
        quiet_hours_ms,
        offline_ms,
        ..
    } = told.waited;
    for waited in [delay_ms, hour_cap_ms, day_cap_ms, quiet_hours_ms, offline_ms] {
        assert!(waited > 0, "{:?}", told.waited);
    }
    let count = |reason| {
        let mut rows = told.not_sent.iter();
        rows.find(|row| (row.state, row.reason) == (MessageState::Skipped, Some(reason)))
            .map_or(0, |row| row.count)
    };
    assert_eq!(count(Reason::Suppressed), 2);
    let cannot = told
        .devices
        .iter()
        .filter(|device| device.stand != Some(DeviceStand::Online));
    let (waiting, lost): (Vec<_>, u64) = (
        cannot.clone().map(|device| device.waited.offline_ms).collect(),
        cannot.map(|device| device.numbers.should()).sum(),
    );
    assert!(
        waiting.len() == 3 && waiting.iter().all(|waited| *waited >= 48 * 3_600_000),
        "{waiting:?}"
    );
    assert!(lost >= count(Reason::Expired) && count(Reason::Expired) > 0);
    let codes: Vec<_> = told.warnings.iter().map(|warning| warning.code).collect();
    for code in [
        ForecastWarningCode::DevicesOffline,
        ForecastWarningCode::Expires,
        ForecastWarningCode::Skipped,
        ForecastWarningCode::Capped,
    ] {
        assert!(codes.contains(&code), "{code:?} in {codes:?}");
    }
}

#[test]
fn ten_thousand_contacts_over_fifteen_devices_at_eighty_an_hour_take_more_than_eight_hours() {
    let world = TruthWorld::new(&TruthPlan::plain(15, 10_000));
    let told = forecast(&world, &ForecastOptions::default());
    let hours = told.last_sent_at.unwrap().since(told.starts_at).as_secs_f64() / 3_600.0;
    assert!(hours > 8.0, "{hours}");
    // 80 an hour for the first 10 hours are the 800 of a day that each may send.
    assert_eq!(told.numbers.done, 10_000 - 20);
    assert!(hours < 9.0, "{hours}");
}

#[test]
fn an_empty_audience_and_a_campaign_that_is_over_cannot_be_forecast_and_say_why() {
    let world = TruthWorld::new(&TruthPlan::plain(3, 30));
    edit(&world, |campaign| {
        campaign.audience = Audience::Leads {
            niche: Some("NOBODY".parse().unwrap()),
            target: TargetFilter::All,
            device_id: None,
        };
    });
    let empty = patiently(world.forecast(&ForecastOptions::default())).unwrap_err();
    let HandleError::Invalid(errors) = &empty else {
        panic!("{empty}")
    };
    assert_eq!(
        (errors[0].field.as_ref(), errors[0].code),
        ("audience", FieldCode::Required)
    );
    assert!(empty.to_string().contains("nothing to forecast"), "{empty}");

    let world = TruthWorld::new(&TruthPlan::plain(3, 30));
    let _ = world.live(2, HOUR * 24);
    let over = patiently(world.forecast(&ForecastOptions::default())).unwrap_err();
    assert!(over.to_string().contains("it is completed"), "{over}");
}

#[test]
fn an_audience_beyond_the_limit_a_wrong_share_and_a_cancelled_forecast_are_refused() {
    let world = TruthWorld::new(&TruthPlan::plain(3, 2_500));
    let few = changed(|options| {
        options.recipients_max = 2_000;
    });
    let error = patiently(world.forecast(&few)).unwrap_err();
    assert!(error.to_string().contains("at most 2000 recipients"), "{error}");

    let wrong = changed(|options| {
        options.failed_per_mille = 1_001;
    });
    let error = patiently(world.forecast(&wrong)).unwrap_err();
    assert!(error.to_string().contains("failed_per_mille"), "{error}");

    let (options, control) = (ForecastOptions::default(), ForecastControl::new());
    let handle = world.handle();
    let mut work = Box::pin(handle.forecast_campaign(&world.scope, world.campaign, &options, &control));
    let mut turns = 0;
    while control.progress().phase != ForecastPhase::Running || control.progress().settled < 100 {
        assert!(work.as_mut().now_or_never().is_none(), "it gives way in between");
        turns += 1;
    }
    assert!(turns > 10, "{turns}");
    assert!(control.progress().simulated_at > Some(START) && control.progress().read == 2_500);
    control.cancel();
    let error = patiently(work).unwrap_err();
    assert_eq!(error.to_string(), "forecast: it was cancelled");
}

#[test]
fn a_running_campaign_is_forecast_from_where_it_stands_with_what_its_lanes_have_sent() {
    let plan = TruthPlan {
        caps: Caps::default().with_hour_max(20).unwrap(),
        ..TruthPlan::plain(5, 400)
    };
    let world = TruthWorld::new(&plan);
    let half = world.live(2, HOUR * 2);
    assert_eq!(half.status, Some(CampaignStatus::Triggered));
    assert!(
        half.numbers.done > 100 && half.numbers.remaining > 100,
        "{:?}",
        half.numbers
    );
    let told = forecast(&world, &ForecastOptions::default());
    assert_eq!(told.before.done, half.numbers.done);
    assert!(told.made_at >= START + HOUR * 2);
    let truth = world.live(3, HOUR * 24);
    assert_eq!(told.numbers, truth.numbers);
    let off = told.last_sent_at.unwrap().as_millis() - truth.last_sent_at.unwrap().as_millis();
    // The caps of the hour roll on: without the history a whole window would be free at once.
    assert!(off.abs() < 5 * 60_000, "{off} ms");
}

#[test]
fn a_paused_campaign_is_forecast_as_if_it_went_on_now() {
    let plan = TruthPlan {
        caps: Caps::default().with_hour_max(20).unwrap(),
        ..TruthPlan::plain(5, 400)
    };
    let world = TruthWorld::new(&plan);
    let half = world.live(2, HOUR * 2);
    patiently(world.handle().pause_campaign(&world.scope, world.campaign)).unwrap();
    let told = forecast(&world, &ForecastOptions::default());
    assert_eq!(told.numbers.done + told.numbers.skipped + told.numbers.remaining, 400);
    assert!(told.numbers.done > half.numbers.done && told.end == ForecastEnd::Completed);
    assert!(
        told.warnings
            .iter()
            .any(|warning| warning.code == ForecastWarningCode::Paused)
    );
}

#[test]
fn devices_that_come_back_send_what_waited_for_them() {
    let world = TruthWorld::new(&small());
    let stay = forecast(&world, &ForecastOptions::default());
    let options = changed(|options| {
        options.offline_for = Some(HOUR * 14);
    });
    let back = forecast(&world, &options);
    assert!(back.numbers.done > stay.numbers.done);
    let offline = back
        .devices
        .iter()
        .filter(|device| device.stand == Some(DeviceStand::Offline));
    for device in offline {
        assert!(device.first_sent_at.unwrap() >= START + HOUR * 24 && device.numbers.skipped == 0);
        assert_eq!(device.waited.offline_ms, 2 * 3_600_000);
    }
}

#[test]
fn texts_that_are_too_long_and_an_assumed_share_of_failures_are_found() {
    let world = TruthWorld::new(&TruthPlan::plain(3, 300));
    edit(&world, |campaign| campaign.content = Content::text("x".repeat(4_097)));
    let told = forecast(&world, &ForecastOptions::default());
    assert_eq!(told.numbers.skipped, 300);
    assert!(
        told.warnings
            .iter()
            .any(|warning| warning.code == ForecastWarningCode::NobodyCanSend)
    );

    let world = TruthWorld::new(&TruthPlan::plain(3, 300));
    let some = changed(|options| {
        options.failed_per_mille = 50;
    });
    let told = forecast(&world, &some);
    assert!((3..=40).contains(&told.numbers.failed), "{:?}", told.numbers);
    let many = changed(|options| {
        options.failed_per_mille = 900;
    });
    let told = forecast(&world, &many);
    assert!(
        matches!(told.end, ForecastEnd::Stopped { reason: Some(_) }),
        "{:?}",
        told.end
    );
    assert!(told.numbers.remaining > 0);
}

#[test]
fn a_pool_is_shared_out_and_another_campaign_takes_its_turns() {
    let plan = TruthPlan {
        routing: Routing::Balanced,
        ..TruthPlan::plain(5, 300)
    };
    let world = TruthWorld::new(&plan);
    let alone = forecast(&world, &ForecastOptions::default());
    assert_eq!((alone.end, alone.numbers.done), (ForecastEnd::Completed, 299));
    let campaign = now(world.store.campaign(&world.scope, world.campaign)).unwrap();
    let ids = IdSource::seeded([9; 32]);
    let other = Campaign {
        id: CampaignId::new(&ids, START),
        title: "other".to_owned(),
        ..campaign
    };
    let set = ChangeSet::one(Change::InsertCampaign(Box::new(other)));
    now(Arc::clone(&world.store).commit(set, WriteClass::Api, START)).unwrap();
    let shared = forecast(&world, &ForecastOptions::default());
    assert_eq!(shared.numbers, alone.numbers);
    let span = |told: &Forecast| told.last_sent_at.unwrap().since(told.starts_at).as_secs_f64();
    assert!(
        span(&shared) > span(&alone) * 1.6,
        "{} for {}",
        span(&shared),
        span(&alone)
    );
}

#[test]
fn what_the_horizon_does_not_show_is_told_as_unfinished() {
    let world = TruthWorld::new(&TruthPlan::plain(2, 1_000));
    let options = changed(|options| {
        options.horizon = HOUR;
    });
    let told = forecast(&world, &options);
    assert_eq!((told.end, told.ends_at), (ForecastEnd::Horizon, None));
    assert_eq!(told.numbers.done, 160);
    assert!(
        told.warnings
            .iter()
            .any(|warning| warning.code == ForecastWarningCode::Unfinished)
    );
}

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A world whose campaign is out of the way, with people who enter by the trigger.
fn of_sequences() -> TruthPlan {
    TruthPlan {
        devices: 12,
        every_trigger: 3,
        every_idle: 6,
        begins_after: DAY * 300,
        ..small()
    }
}

fn told_of(world: &TruthWorld, id: SequenceId) -> Forecast {
    patiently(world.forecast_sequence(id, &ForecastOptions::default())).expect("somebody matches")
}

fn activate(world: &TruthWorld, id: SequenceId) {
    patiently(world.handle().activate_sequence(&world.scope, id, OpenEnd::Allow)).unwrap();
}

/// Within 1 % a day of all that is sent, and the end within 2 % of the way.
fn agrees(told: &Forecast, truth: &Truth, sent_before: u64) {
    assert_eq!(told.numbers, truth.numbers);
    let sent: u64 = truth.days.values().sum::<u64>() - sent_before;
    for day in told.days.iter().skip(usize::from(sent_before > 0)) {
        let really = truth.days.get(&day.date).copied().unwrap_or(0);
        assert!(
            day.sent.abs_diff(really) * 100 <= sent,
            "{}: {} for {really}",
            day.date,
            day.sent
        );
    }
    let begun = told.made_at;
    let (told_span, real_span) = (
        told.last_sent_at.unwrap().since(begun),
        truth.last_sent_at.unwrap().since(begun),
    );
    assert!(
        told_span.abs_diff(real_span) * 50 <= real_span,
        "{told_span:?} for {real_span:?}"
    );
}

#[test]
fn a_forecast_of_a_sequence_is_what_then_happens_with_other_draws_and_changes_nothing() {
    let world = TruthWorld::new(&of_sequences());
    let id = world.add_sequence(TRIGGER, &[DAY, DAY * 2, HOUR * 30, DAY], None);
    let before = dump(&world);
    let told = told_of(&world, id);
    assert!(before == dump(&world), "the store is as it was");
    activate(&world, id);
    let truth = world.live_sequence(id, 2, DAY * 25);
    agrees(&told, &truth, 0);
    assert_eq!(told.end, ForecastEnd::Completed);
    assert!(
        told.ends_at.unwrap() >= told.made_at + DAY * 4 + HOUR * 6,
        "the last step ends"
    );

    let of = told.sequence.as_ref().unwrap();
    let contacts = &of.contacts;
    assert_eq!((contacts.open, contacts.matching, contacts.suppressed), (0, 300, 1));
    assert_eq!((contacts.entered, contacts.refused, contacts.chained), (299, 0, 0));
    assert_eq!((contacts.completed, contacts.left_open), (299, 0));
    assert_eq!(told.numbers.should(), 299 * 4);
    sums_add_up(&told);
    let steps: Vec<_> = of.steps.iter().map(|step| step.step.as_ref().unwrap().0).collect();
    assert_eq!(steps, [0, 1, 2, 3]);
    for pair in of.steps.windows(2) {
        assert!(pair[1].first_sent_at.unwrap() >= pair[0].first_sent_at.unwrap() + DAY);
    }
    assert!(
        told.warnings
            .iter()
            .any(|warning| warning.message.contains("1 leads that match do not enter"))
    );
    let back: Forecast = serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
    assert_eq!(back, told);
}

/// Steps, devices, days and reasons tell the same as the whole.
fn sums_add_up(told: &Forecast) {
    let of = told.sequence.as_ref().unwrap();
    let steps: Numbers = of.steps.iter().map(|step| step.numbers).sum();
    let devices: Numbers = told.devices.iter().map(|device| device.numbers).sum();
    assert_eq!(steps, devices);
    assert_eq!(told.before + steps, told.numbers);
    let days: u64 = told.days.iter().map(|day| day.sent).sum();
    assert_eq!(days, steps.done);
    for step in &of.steps {
        let days: u64 = step.days.iter().map(|day| day.sent).sum();
        assert_eq!(days, step.numbers.done);
    }
    let not_sent: u64 = told.not_sent.iter().map(|row| row.count).sum();
    assert_eq!(not_sent + steps.done, steps.should());
}

#[test]
fn a_running_sequence_is_forecast_from_where_everybody_stands() {
    let world = TruthWorld::new(&of_sequences());
    let id = world.add_sequence(TRIGGER, &[DAY, DAY, DAY], None);
    activate(&world, id);
    let before = world.live_sequence(id, 2, HOUR * 30);
    assert!(before.numbers.done > 100 && before.numbers.remaining > 100);
    // One is taken out by a person while no engine is there to plan what follows.
    let filter = MessageFilter {
        scope: Some(MessageScope::Sequence(id)),
        states: vec![MessageState::Queued],
        ..MessageFilter::default()
    };
    let page = now(world.store.messages(&world.scope, &filter, &PageRequest::first(1))).unwrap();
    let handle = world.handle();
    patiently(handle.cancel_message(&world.scope, page.rows[0].id)).unwrap();
    assert_eq!(now(world.store.to_advance(10)).unwrap().len(), 1);

    let dumped = dump(&world);
    let told = told_of(&world, id);
    assert!(dumped == dump(&world), "the store is as it was");
    assert_eq!(told.before.done, before.numbers.done);
    sums_add_up(&told);
    let contacts = &told.sequence.as_ref().unwrap().contacts;
    assert_eq!((contacts.open, contacts.matching), (299, 0));
    let sent_before = before.days.values().sum();
    let truth = world.live_sequence(id, 3, DAY * 25);
    agrees(&told, &truth, sent_before);
}

#[test]
fn a_paused_sequence_is_forecast_as_if_it_went_on_now_and_one_with_a_chain_as_far_as_it_leads() {
    let world = TruthWorld::new(&of_sequences());
    let first = world.add_sequence(TRIGGER, &[DAY], Some("ADVANCED"));
    let second = world.add_sequence("ADVANCED", &[DAY, DAY], Some(TRIGGER));
    activate(&world, second);
    activate(&world, first);
    let _ = world.live_sequence(first, 2, HOUR * 26);
    let running = told_of(&world, second);
    let contacts = &running.sequence.as_ref().unwrap().contacts;
    assert!(contacts.open > 100 && contacts.chained > 0, "{contacts:?}");
    assert_eq!(contacts.open + contacts.chained, contacts.completed);
    // The first one takes nobody a second time: the circle ends.
    assert_eq!(running.end, ForecastEnd::Completed);
    sums_add_up(&running);

    patiently(world.handle().pause_sequence(&world.scope, second)).unwrap();
    let paused = told_of(&world, second);
    assert_eq!(paused.numbers.should(), running.numbers.should());
    let codes: Vec<_> = paused.warnings.iter().map(|warning| warning.code).collect();
    assert!(codes.contains(&ForecastWarningCode::Paused), "{codes:?}");
}

#[test]
fn a_sequence_that_nobody_is_in_or_that_has_no_steps_cannot_be_forecast_and_says_why() {
    let world = TruthWorld::new(&of_sequences());
    let options = ForecastOptions::default();
    let empty = world.add_sequence("NOBODY", &[DAY], None);
    for turn in 0..2 {
        let error = patiently(world.forecast_sequence(empty, &options)).unwrap_err();
        let HandleError::Invalid(errors) = &error else {
            panic!("{error}")
        };
        let told = (errors[0].field.as_ref(), errors[0].code);
        assert_eq!(told, ("audience", FieldCode::Required), "{turn}");
        assert!(error.to_string().contains("no lead matches it now"), "{error}");
        if turn == 0 {
            activate(&world, empty);
        }
    }
    let without = world.add_sequence("WITHOUT", &[], None);
    let error = patiently(world.forecast_sequence(without, &options)).unwrap_err();
    assert!(error.to_string().contains("at least one step"), "{error}");
    let full = world.add_sequence(TRIGGER, &[DAY], None);
    let few = changed(|options| {
        options.recipients_max = 100;
    });
    let error = patiently(world.forecast_sequence(full, &few)).unwrap_err();
    assert!(error.to_string().contains("at most 100 recipients"), "{error}");
}

#[test]
fn those_who_were_in_a_sequence_before_are_told_as_not_taken_again() {
    let world = TruthWorld::new(&of_sequences());
    let id = world.add_sequence(TRIGGER, &[DAY], None);
    activate(&world, id);
    let _ = world.live_sequence(id, 2, DAY * 30);
    // Some gain the trigger again while no engine looks.
    let leads = now(world
        .store
        .leads(&world.scope, &LeadFilter::default(), &PageRequest::first(20)))
    .unwrap();
    for mut lead in leads.rows {
        lead.triggers.insert(TRIGGER.parse().unwrap()).unwrap();
        let set = ChangeSet::one(Change::UpdateLead(Box::new(lead)));
        now(world.store.commit(set, WriteClass::Api, START + DAY * 30)).unwrap();
    }
    let told = told_of(&world, id);
    let contacts = &told.sequence.as_ref().unwrap().contacts;
    assert_eq!((contacts.open, contacts.matching), (0, 20));
    assert!(contacts.refused > 0 && contacts.entered > 0, "{contacts:?}");
    assert_eq!(contacts.refused + contacts.entered + contacts.suppressed, 20);
    sums_add_up(&told);
}

#[test]
fn the_steps_that_follow_in_a_sequence_take_their_places_beside_a_campaign() {
    let plan = TruthPlan {
        every_trigger: 3,
        begins_after: HOUR * 20,
        every_idle: 0,
        expires_after: DAY * 7,
        ..small()
    };
    let world = TruthWorld::new(&plan);
    let alone = forecast(&world, &ForecastOptions::default());
    let id = world.add_sequence(TRIGGER, &[DAY, DAY, DAY], None);
    activate(&world, id);
    let _ = world.live_sequence(id, 2, HOUR * 4);
    let told = forecast(&world, &ForecastOptions::default());
    assert!(told.last_sent_at > alone.last_sent_at);
    let truth = world.live(3, DAY * 14);
    assert_eq!(told.numbers, truth.numbers);
    // With fewer than a thousand messages the last ones may fall into the next send window: chance decides whose turn it is.
    let sent: u64 = truth.days.values().sum();
    for (date, really) in &truth.days {
        let day = told.days.iter().find(|day| day.date == *date);
        let told = day.map_or(0, |day| day.sent);
        assert!(told.abs_diff(*really) * 50 <= sent, "{date}: {told} for {really}");
    }
    let off = told.last_sent_at.unwrap().as_millis() - truth.last_sent_at.unwrap().as_millis();
    let window = i64::try_from(DAY.as_millis()).unwrap();
    assert!(off.abs() <= window, "{off} ms");
}

#[test]
fn a_forecast_says_how_long_gateways_take_in_it_and_where_that_is_known_from() {
    let world = TruthWorld::new(&TruthPlan::plain(3, 30));
    let slow = Latency::Between(Duration::from_secs(20), Duration::from_secs(24));
    let options = changed(|options| {
        options.latencies.insert(Platform::WABLAS, slow);
    });
    let told = forecast(&world, &options);
    let used = |platform| told.latencies.iter().find(|used| used.platform == platform).unwrap();
    let wablas = used(Platform::WABLAS);
    assert_eq!((wablas.source, wablas.measured), (LatencySource::Given, 0));
    assert_eq!(
        (wablas.least_ms, wablas.mean_ms, wablas.most_ms),
        (20_000, 22_000, 24_000)
    );
    let assumed = used(Platform::WHACENTER);
    assert_eq!((assumed.source, assumed.mean_ms), (LatencySource::Assumed, 600));
}
