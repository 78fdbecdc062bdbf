use std::time::Duration;

use super::sequences::sequence_draft;
use super::world::{World, conflict, missing, refused};
use crate::domain::enrolment::{EnrolmentState, FlowState};
use crate::domain::message::MessageState;
use crate::engine::handle::{
    ContactFilter, EnrolBy, Enrolled, Person, ResendStep, StepResent, TimelineItem, TimelineKey,
};
use crate::event::EventKind;
use crate::id::{LeadId, MessageId, StepId};
use crate::plan::FieldCode;
use crate::store::{LeadFilter, PageRequest};

fn numbers(list: &[&str]) -> Vec<String> {
    list.iter().map(|number| (*number).to_owned()).collect()
}

fn words(answers: &[Enrolled]) -> Vec<&'static str> {
    let word = |answer: &Enrolled| match answer {
        Enrolled::Enrolled { lead_created: true, .. } => "created",
        Enrolled::Enrolled { .. } => "enrolled",
        Enrolled::AlreadyIn { .. } => "already in",
        Enrolled::ReEntryRefused => "re-entry refused",
        Enrolled::Suppressed => "suppressed",
        Enrolled::NoDevice => "no device",
        Enrolled::NotFound => "not found",
        Enrolled::Refused { .. } => "refused",
    };
    answers.iter().map(word).collect()
}

#[tokio::test]
async fn numbers_enrol_once_each_and_every_one_gets_an_answer() {
    let world = World::new().await;
    let device = world.device("a").await;
    let known = world.lead(&device, "0123456780").await;
    let (handle, user) = (&world.handle, &world.user);
    handle
        .opt_out(user, &Person::Phone("0123456785".to_owned()), "")
        .await
        .unwrap();
    let id = world.sequence("a_start", 2).await.sequence.id;
    let list = numbers(&["+60123456780", "0123456781", "012-345 6781", "12", "0123456785"]);
    world.heard.take();
    let answers = handle
        .enrol_numbers(user, id, &list, &EnrolBy::default())
        .await
        .unwrap();
    assert_eq!(
        words(&answers),
        ["enrolled", "created", "already in", "refused", "suppressed"]
    );
    let Enrolled::Enrolled { lead_id, .. } = answers[0] else {
        panic!()
    };
    assert_eq!(lead_id, known.id);
    let started = |kind: &EventKind| matches!(kind, EventKind::EnrolmentStarted { .. });
    assert_eq!(
        world.heard.take().iter().filter(|event| started(&event.kind)).count(),
        2
    );
    let leads = handle.store().lead_count(user, &LeadFilter::default()).await.unwrap();
    assert_eq!(leads, 2, "none for a number that is refused or suppressed");
    let again = handle
        .enrol_numbers(user, id, &list, &EnrolBy::default())
        .await
        .unwrap();
    assert_eq!(
        words(&again),
        ["already in", "already in", "already in", "refused", "suppressed"]
    );
    let Enrolled::Enrolled { enrolment_id, .. } = answers[0] else {
        panic!()
    };
    handle.end_enrolment(user, enrolment_id).await.unwrap();
    let again = handle
        .enrol_leads(user, id, &[known.id], &EnrolBy::default())
        .await
        .unwrap();
    assert_eq!(words(&again), ["re-entry refused"]);
}

#[tokio::test]
async fn a_number_without_a_lead_needs_a_device_where_there_are_several() {
    let world = World::new().await;
    let (a, b) = (world.device("a").await, world.device("b").await);
    let id = world.sequence("a_start", 1).await.sequence.id;
    let (handle, user) = (&world.handle, &world.user);
    let list = numbers(&["0123456781"]);
    let answers = handle
        .enrol_numbers(user, id, &list, &EnrolBy::default())
        .await
        .unwrap();
    let Enrolled::Refused { errors } = &answers[0] else {
        panic!("{answers:?}")
    };
    assert_eq!(
        (errors[0].field.as_ref(), errors[0].code),
        ("device_id", FieldCode::Required)
    );
    let by = EnrolBy {
        device_id: Some(b.id),
        ..EnrolBy::default()
    };
    // Of two leads with that number, the one of the asked device enters.
    world.lead(&a, "0123456782").await;
    let own = world.lead(&b, "0123456782").await;
    let list = numbers(&["0123456781", "0123456782"]);
    let answers = handle.enrol_numbers(user, id, &list, &by).await.unwrap();
    assert_eq!(words(&answers), ["created", "enrolled"]);
    let Enrolled::Enrolled { lead_id, .. } = answers[1] else {
        panic!()
    };
    assert_eq!(lead_id, own.id);
    assert_eq!(
        missing(handle.enrol_numbers(&world.other, id, &list, &by).await),
        "sequence"
    );
}

#[tokio::test]
async fn leads_enter_at_an_entry_point_and_only_where_somebody_can_write_to_them() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456780").await;
    let (handle, user) = (&world.handle, &world.user);
    let mut draft = sequence_draft("a_start", 3);
    draft.steps.as_mut().unwrap()[1].entry_point = Some(true);
    let created = handle.create_sequence(user, &draft).await.unwrap().saved;
    let (id, steps) = (created.sequence.id, created.list().to_vec());
    let why = conflict(handle.enrol_leads(user, id, &[lead.id], &EnrolBy::default()).await);
    assert!(why.starts_with("sequence: it is draft"), "{why}");
    world.activated(id).await;
    let at = |step: StepId| EnrolBy {
        step_id: Some(step),
        ..EnrolBy::default()
    };
    let fields = refused(handle.enrol_leads(user, id, &[lead.id], &at(steps[2].id)).await);
    assert_eq!(fields, [("step_id".to_owned(), FieldCode::NotFound)]);
    let pool = crate::plan::LeadDraft {
        phone: Some("0123456789".to_owned()),
        ..Default::default()
    };
    let pool = handle
        .create_lead(user, &pool, crate::store::OnDuplicate::Refuse)
        .await
        .unwrap();
    let ids = [lead.id, pool.lead().id, LeadId::MIN];
    let answers = handle.enrol_leads(user, id, &ids, &at(steps[1].id)).await.unwrap();
    assert_eq!(words(&answers), ["enrolled", "no device", "not found"]);
    let page = handle
        .contacts(user, id, &ContactFilter::default(), &PageRequest::first(10))
        .await
        .unwrap();
    let flows: Vec<_> = page.rows[0]
        .flows
        .iter()
        .map(|flow| (flow.step_id, flow.state))
        .collect();
    let expected = [(steps[1].id, FlowState::Active), (steps[2].id, FlowState::Pending)];
    assert_eq!(flows, expected, "the step before the entry point is not its");
}

#[tokio::test]
async fn contacts_show_every_step_with_its_times_from_enrolment_on() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456780").await;
    let (handle, user) = (&world.handle, &world.user);
    let of = world.sequence("a_start", 3).await;
    let id = of.sequence.id;
    let run = world.enrolled(id, &[&lead]).await[0];
    let start = handle.now();
    let day = Duration::from_secs(24 * 3_600);
    let contact = handle.contact(user, run).await.unwrap();
    assert_eq!(contact.name, "Aminah");
    let dues: Vec<_> = contact.flows.iter().map(|flow| flow.due_at.unwrap()).collect();
    assert_eq!(dues, [start, start + day, start + day * 2]);
    world.settle_step(run, MessageState::Failed).await;
    let flows = handle.contact(user, run).await.unwrap().flows;
    let states: Vec<_> = flows.iter().map(|flow| (flow.state, flow.device_id)).collect();
    let own = Some(device.id);
    assert_eq!(
        states,
        [
            (FlowState::Failed, own),
            (FlowState::Active, own),
            (FlowState::Pending, own)
        ]
    );
    assert!(flows[0].completed_at.is_some() && flows[1].completed_at.is_none());
    handle.end_enrolment(user, run).await.unwrap();
    let flows = handle.contact(user, run).await.unwrap().flows;
    let states: Vec<_> = flows.iter().map(|flow| flow.state).collect();
    assert_eq!(states, [FlowState::Failed, FlowState::Cancelled, FlowState::Cancelled]);
    let open = ContactFilter {
        states: vec![EnrolmentState::Open],
        ..ContactFilter::default()
    };
    let page = handle.contacts(user, id, &open, &PageRequest::first(10)).await.unwrap();
    assert!(page.rows.is_empty());
    assert_eq!(missing(handle.contact(&world.other, run).await), "enrolment");
}

#[tokio::test]
async fn a_failed_step_is_sent_again_only_before_a_later_one_begins_and_while_the_run_is_open() {
    let world = World::new().await;
    let device = world.device("a").await;
    let leads = [
        world.lead(&device, "0123456780").await,
        world.lead(&device, "0123456781").await,
    ];
    let (handle, user) = (&world.handle, &world.user);
    let of = world.sequence("a_start", 2).await;
    let (id, first) = (of.sequence.id, of.list()[0].id);
    let runs = world.enrolled(id, &[&leads[0], &leads[1]]).await;
    for run in &runs {
        world.settle_step(*run, MessageState::Failed).await;
    }
    handle.end_enrolment(user, runs[1]).await.unwrap();
    let resent = handle
        .resend_step(user, id, first, &ResendStep::default())
        .await
        .unwrap();
    let expected = StepResent {
        resent: 1,
        left: 1,
        more: false,
    };
    assert_eq!(resent, expected);
    let again = handle
        .resend_step(user, id, first, &ResendStep::default())
        .await
        .unwrap();
    assert_eq!(again.resent, 0, "it is on its way");
    let flows = handle.contact(user, runs[0]).await.unwrap().flows;
    let rounds: Vec<_> = flows
        .iter()
        .map(|flow| (flow.step_id, flow.round, flow.state))
        .collect();
    let second = of.list()[1].id;
    assert_eq!(rounds, [(first, 1, FlowState::Active), (second, 0, FlowState::Active)]);
    let numbers = handle.sequence_numbers(user, id, &Default::default()).await.unwrap();
    assert_eq!(numbers.should, 4, "a round takes the place of the one before");
    let foreign = ResendStep {
        message_ids: Some(vec![flows[1].message_id.unwrap()]),
        ..ResendStep::default()
    };
    assert_eq!(missing(handle.resend_step(user, id, first, &foreign).await), "message");
    let unknown = ResendStep {
        message_ids: Some(vec![MessageId::MIN]),
        ..ResendStep::default()
    };
    assert_eq!(missing(handle.resend_step(user, id, first, &unknown).await), "message");
}

#[tokio::test]
async fn a_timeline_tells_messages_and_runs_in_order_over_its_pages() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456780").await;
    let (handle, user) = (&world.handle, &world.user);
    let of = world.sequence("a_start", 2).await;
    let run = world.enrolled(of.sequence.id, &[&lead]).await[0];
    world.clock.advance(Duration::from_secs(60));
    world.settle_step(run, MessageState::Failed).await;
    world.clock.advance(Duration::from_secs(60));
    let direct = crate::plan::DirectDraft {
        phone: Some("0123456780".to_owned()),
        message: Some("Hello".to_owned()),
        device_id: Some(device.id),
        ..Default::default()
    };
    handle.send_direct(user, &direct).await.unwrap();
    world.clock.advance(Duration::from_secs(60));
    handle.end_enrolment(user, run).await.unwrap();

    let mut kinds = Vec::new();
    let mut after: Option<TimelineKey> = None;
    let mut last_at = None;
    loop {
        let request = PageRequest { after, limit: 1 };
        let page = handle.timeline(user, lead.id, &request).await.unwrap();
        for entry in &page.entries {
            assert!(Some(entry.at) >= last_at);
            last_at = Some(entry.at);
            let kind = match &entry.item {
                TimelineItem::Message(message) => (false, message.flow.is_some()),
                TimelineItem::Enrolment(_) => (true, true),
            };
            let named = entry.scope_name.as_deref() == Some("a_start");
            assert_eq!(named, kind.1);
            assert!(entry.moments.windows(2).all(|pair| pair[0].at <= pair[1].at));
            kinds.push((kind, entry.moments.len()));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected = [
        ((true, true), 2),
        ((false, true), 2),
        ((false, true), 2),
        ((false, false), 1),
    ];
    assert_eq!(kinds, expected, "the run, its two messages, the direct one");
    // Each list fits on a page, both together do not.
    let page = handle.timeline(user, lead.id, &PageRequest::first(3)).await.unwrap();
    let request = PageRequest {
        after: page.next,
        limit: 3,
    };
    assert!(page.next.is_some());
    let rest = handle.timeline(user, lead.id, &request).await.unwrap();
    assert_eq!((page.entries.len(), rest.entries.len(), rest.next), (3, 1, None));
    let none = PageRequest::first(10);
    assert_eq!(missing(handle.timeline(&world.other, lead.id, &none).await), "lead");
}
