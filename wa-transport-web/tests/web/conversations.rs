//! What people write, and what a human writes on the device's own phone: it ends what must end, also what is queued already.

use wa_core::domain::enrolment::{Enrolment, EnrolmentReason, EnrolmentState};
use wa_core::domain::message::{MessageScope, MessageState, Reason};
use wa_core::engine::handle::{EnrolBy, OpenEnd};
use wa_core::event::EventKind;
use wa_core::id::{EventId, LeadId, SequenceId};
use wa_core::plan::{SequenceDraft, StepDraft};
use wa_core::store::{EnrolmentFilter, EventStore, PageRequest, SequenceStore};
use wa_loopback::Person;

use crate::rig::{LIMIT, OWN};
use crate::town::{Town, until};

const AMINAH: &str = "60120000001";
const ALI: &str = "60120000002";

/// What a reply does to a sequence.
#[derive(Clone, Copy, PartialEq)]
enum OnReply {
    Ends,
    GoesOn,
}

struct Pair {
    people: [Person; 2],
    leads: [LeadId; 2],
}

async fn aminah_and_ali(town: &Town) -> Pair {
    let (one, other) = (town.person(AMINAH, "Aminah").await, town.person(ALI, "Ali").await);
    Pair {
        leads: [one.1, other.1],
        people: [one.0, other.0],
    }
}

/// An active sequence of two steps, a day apart, in which both are, and of which both have got the first step.
async fn drip(town: &Town, pair: &Pair, name: &str, on_reply: OnReply) -> SequenceId {
    let step = |text: &str| StepDraft {
        message: Some(text.to_owned()),
        ..StepDraft::default()
    };
    let mut first = step(&format!("{name}, first"));
    first.trigger = Some(name.to_owned());
    let draft = SequenceDraft {
        name: Some(name.to_owned()),
        steps: Some(vec![first, step(&format!("{name}, second"))]),
        greeting: Some(false),
        exit_on_reply: Some(on_reply == OnReply::Ends),
        ..SequenceDraft::default()
    };
    let created = town.handle.create_sequence(&town.user, &draft).await.unwrap();
    let id = created.saved.sequence.id;
    let activated = town.handle.activate_sequence(&town.user, id, OpenEnd::Allow).await;
    activated.unwrap();
    let by = EnrolBy::default();
    let enrolled = town.handle.enrol_leads(&town.user, id, &pair.leads, &by).await;
    assert_eq!(enrolled.unwrap().len(), 2);
    for person in &pair.people {
        let first = format!("{name}, first");
        let fits = person.message_where(LIMIT, "the first step", |got| got.text() == Some(first.as_str()));
        fits.await.unwrap();
        second_step(town, id, person.phone(), MessageState::Queued).await;
    }
    id
}

/// Waits until the second step for somebody is in a state; tells why.
async fn second_step(town: &Town, sequence: SequenceId, phone: &str, state: MessageState) -> Option<Reason> {
    until(&format!("the second step to be {state:?}"), async || {
        let messages = town.messages(Some(MessageScope::Sequence(sequence))).await;
        let mut theirs: Vec<_> = messages
            .into_iter()
            .filter(|message| message.phone.is_some_and(|to| to.digits() == phone))
            .collect();
        theirs.sort_unstable_by_key(|message| message.due_at);
        let second = theirs.get(1)?;
        (second.state == state).then_some(second.reason)
    })
    .await
}

async fn enrolment(town: &Town, sequence: SequenceId, lead: LeadId) -> Enrolment {
    let filter = EnrolmentFilter {
        sequence_id: Some(sequence),
        lead_id: Some(lead),
        ..EnrolmentFilter::default()
    };
    let page = town
        .store
        .enrolments(&town.user, &filter, &PageRequest::first(10))
        .await;
    let mut rows = page.unwrap().rows;
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

async fn ended(town: &Town, sequence: SequenceId, lead: LeadId) -> Option<EnrolmentReason> {
    until("the enrolment to end", async || {
        let enrolment = enrolment(town, sequence, lead).await;
        (enrolment.state == EnrolmentState::Ended).then_some(enrolment.reason)
    })
    .await
}

fn texts(person: &Person) -> Vec<String> {
    let inbox = person.inbox();
    inbox.iter().filter_map(|got| Some(got.text()?.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_writes_stop_gets_nothing_more_of_what_is_queued_nor_of_what_comes() {
    let town = Town::new().await;
    let pair = aminah_and_ali(&town).await;
    let drips = [
        drip(&town, &pair, "welcome", OnReply::GoesOn).await,
        drip(&town, &pair, "care", OnReply::Ends).await,
    ];
    // The device does not send, so that the campaign's messages are queued when she writes.
    town.handle.hold_device(&town.user, town.device_id()).await.unwrap();
    let queued = [
        MessageScope::Campaign(town.campaign("Offer", "Offer").await),
        MessageScope::Campaign(town.campaign("News", "News").await),
    ];
    for scope in queued {
        for phone in [AMINAH, ALI] {
            town.wait_message(scope, phone, MessageState::Queued).await;
        }
    }
    pair.people[0].send_text(OWN, " stop ").await.unwrap();
    for scope in queued {
        let message = town.wait_message(scope, AMINAH, MessageState::Skipped).await;
        assert_eq!(message.reason, Some(Reason::Suppressed));
    }
    // The second ends by what she wrote, whatever that was.
    let ends = [
        (EnrolmentReason::Suppressed, MessageState::Skipped),
        (EnrolmentReason::Replied, MessageState::Cancelled),
    ];
    for (sequence, (reason, state)) in drips.into_iter().zip(ends) {
        assert_eq!(ended(&town, sequence, pair.leads[0]).await, Some(reason));
        second_step(&town, sequence, AMINAH, state).await;
        assert_eq!(
            enrolment(&town, sequence, pair.leads[1]).await.state,
            EnrolmentState::Open
        );
    }
    town.handle.resume_device(&town.user, town.device_id()).await.unwrap();
    for scope in queued {
        town.wait_message(scope, ALI, MessageState::Sent).await;
    }
    let later = MessageScope::Campaign(town.campaign("Later", "Later").await);
    town.wait_message(later, ALI, MessageState::Sent).await;
    let message = town.wait_message(later, AMINAH, MessageState::Skipped).await;
    assert_eq!(message.reason, Some(Reason::Suppressed));
    for text in ["Offer", "News", "Later"] {
        let read = pair.people[1].message_where(LIMIT, text, |got| got.text().is_some_and(|got| got.contains(text)));
        read.await.unwrap();
    }
    assert_eq!(texts(&pair.people[0]), ["welcome, first", "care, first"]);
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_ends_the_sequence_that_asks_for_it_and_no_other() {
    let town = Town::new().await;
    let pair = aminah_and_ali(&town).await;
    let ends = drip(&town, &pair, "ask", OnReply::Ends).await;
    let goes_on = drip(&town, &pair, "tell", OnReply::GoesOn).await;
    pair.people[0].send_text(OWN, "How much is it?").await.unwrap();
    assert_eq!(ended(&town, ends, pair.leads[0]).await, Some(EnrolmentReason::Replied));
    second_step(&town, ends, AMINAH, MessageState::Cancelled).await;
    for (sequence, lead) in [(ends, 1), (goes_on, 0), (goes_on, 1)] {
        let open = enrolment(&town, sequence, pair.leads[lead]).await;
        assert_eq!(open.state, EnrolmentState::Open);
    }
    second_step(&town, goes_on, AMINAH, MessageState::Queued).await;
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_human_on_the_phone_is_seen_and_ends_the_sequence_that_a_reply_ends() {
    let town = Town::new().await;
    let pair = aminah_and_ali(&town).await;
    let ends = drip(&town, &pair, "ask", OnReply::Ends).await;
    let goes_on = drip(&town, &pair, "tell", OnReply::GoesOn).await;
    let own = town.server.person(OWN, "Sales").await.unwrap();
    own.connect().await.unwrap();
    own.send_text(AMINAH, "stop").await.unwrap();
    assert_eq!(
        ended(&town, ends, pair.leads[0]).await,
        Some(EnrolmentReason::TakenOver)
    );
    second_step(&town, ends, AMINAH, MessageState::Cancelled).await;
    for (sequence, lead) in [(ends, 1), (goes_on, 0), (goes_on, 1)] {
        let open = enrolment(&town, sequence, pair.leads[lead]).await;
        assert_eq!(open.state, EnrolmentState::Open);
    }
    let events = town.store.events(&town.user, EventId::MIN, 100).await.unwrap();
    let is_told =
        |kind: &EventKind| matches!(kind, EventKind::TakenOver { device_id } if *device_id == town.device_id());
    assert_eq!(events.iter().filter(|event| is_told(&event.kind)).count(), 1);
    let opted_out = |kind: &EventKind| matches!(kind, EventKind::OptedOut { .. } | EventKind::Reply { .. });
    assert!(!events.iter().any(|event| opted_out(&event.kind)), "she said nothing");
    town.close().await;
}
