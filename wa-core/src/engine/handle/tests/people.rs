use super::world::{World, campaign_draft, conflict, missing, refused};
use crate::domain::access::RequestScope;
use crate::domain::device::{Device, LinkState};
use crate::domain::message::MessageState;
use crate::domain::phone::Phone;
use crate::domain::platform::Platform;
use crate::domain::suppression::SuppressionReason;
use crate::engine::handle::Person;
use crate::event::EventKind;
use crate::id::{DeviceId, IdSource, LeadId};
use crate::plan::{DirectDraft, FieldCode, OnSuppressed, TextAs};
use crate::store::{Change, ChangeSet, MessageFilter, PageRequest, WriteClass};

fn to(phone: &str) -> DirectDraft {
    DirectDraft {
        phone: Some(phone.to_owned()),
        message: Some("Hello".to_owned()),
        ..DirectDraft::default()
    }
}

#[tokio::test]
async fn a_direct_message_goes_out_without_greeting_to_any_number() {
    let world = World::new().await;
    let device = world.device("a").await;
    let draft = DirectDraft {
        device_id: Some(device.id),
        ..to("012-345 6789")
    };
    let sent = world.handle.send_direct(&world.user, &draft).await.unwrap();
    assert!(!sent.duplicate);
    world.run().await;
    let seen = world.transport.sent();
    assert_eq!(
        (seen.len(), seen[0].to.as_e164(), seen[0].text.as_str()),
        (1, "+60123456789", "Hello")
    );
    let message = world
        .handle
        .store()
        .message(&world.user, sent.message_id)
        .await
        .unwrap();
    assert_eq!(message.state, MessageState::Sent);
}

#[tokio::test]
async fn a_direct_message_to_a_lead_goes_through_its_own_device() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456789").await;
    let draft = DirectDraft {
        lead_id: Some(lead.id),
        message: Some("Hi {{name}}".to_owned()),
        text_as: TextAs::Template,
        ..DirectDraft::default()
    };
    world.handle.send_direct(&world.user, &draft).await.unwrap();
    world.run().await;
    assert_eq!(world.transport.sent()[0].text, "Hi Aminah");
    let strange = DirectDraft {
        lead_id: Some(LeadId::MIN),
        ..draft.clone()
    };
    let fields = refused(world.handle.send_direct(&world.user, &strange).await);
    assert_eq!(fields, [("lead_id".to_owned(), FieldCode::NotFound)]);
    let fields = refused(world.handle.send_direct(&world.other, &draft).await);
    assert_eq!(fields, [("lead_id".to_owned(), FieldCode::NotFound)]);
}

#[tokio::test]
async fn a_direct_message_names_everything_that_is_wrong_with_it() {
    let world = World::new().await;
    let device = world.device("a").await;
    let fields = refused(world.handle.send_direct(&world.user, &DirectDraft::default()).await);
    let names: Vec<_> = fields.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(names, ["device_id", "phone", "message"]);
    let foreign = DirectDraft {
        device_id: Some(device.id),
        ..to("0123456789")
    };
    let fields = refused(world.handle.send_direct(&world.other, &foreign).await);
    assert_eq!(fields, [("device_id".to_owned(), FieldCode::NotFound)]);
    let many = vec![foreign; 101];
    assert_eq!(
        refused(world.handle.send_direct_many(&world.user, &many).await)[0].0,
        "messages"
    );
}

#[tokio::test]
async fn a_direct_message_is_refused_from_a_device_that_is_not_linked_to_itself_and_to_a_group() {
    let world = World::new().await;
    let (handle, user) = (&world.handle, &world.user);
    let mut device = Device::new(
        DeviceId::new(&IdSource::seeded([9; 32]), handle.now()),
        user.user_id,
        "web",
        Platform::WHATSAPP_WEB,
        handle.now(),
    );
    device.phone = Some(Phone::from_e164("+60198765432").unwrap());
    let store = handle.store();
    let insert = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
    store.commit(insert, WriteClass::Api, handle.now()).await.unwrap();
    let send = async |phone: &str| {
        let draft = DirectDraft {
            device_id: Some(device.id),
            ..to(phone)
        };
        handle.send_direct(user, &draft).await
    };
    let not_allowed = |field: &str| vec![(field.to_owned(), FieldCode::NotAllowed)];
    for (state, is_linked) in [
        (LinkState::Initializing, false),
        (LinkState::QrReady, false),
        (LinkState::AuthFailed, false),
        (LinkState::LoggedOut, false),
        (LinkState::Ready, true),
        (LinkState::Disconnected, true),
        (LinkState::Restricted, true),
        (LinkState::Error, true),
    ] {
        let change = Change::SetDeviceLink {
            user_id: user.user_id,
            device_id: device.id,
            fence: None,
            state,
            reason: None,
            phone: None,
            jid: None,
        };
        store
            .commit(ChangeSet::one(change), WriteClass::Api, handle.now())
            .await
            .unwrap();
        match send("0123456789").await {
            Ok(_) => assert!(is_linked, "{state:?}"),
            refusal => assert_eq!(refused(refusal), not_allowed("device_id"), "{state:?}"),
        }
    }
    assert_eq!(refused(send("0198765432").await), not_allowed("phone"));
    let group = refused(send("120363041234567890@g.us").await);
    assert_eq!(group, [("phone".to_owned(), FieldCode::Invalid)]);
    let page = PageRequest::first(10);
    let kept = store.messages(user, &MessageFilter::default(), &page).await.unwrap();
    assert_eq!(kept.rows.len(), 4, "what was refused left nothing");
}

#[tokio::test]
async fn the_same_idempotency_key_sends_once() {
    let world = World::new().await;
    let device = world.device("a").await;
    let draft = DirectDraft {
        device_id: Some(device.id),
        idempotency_key: Some("order-1".to_owned()),
        ..to("0123456789")
    };
    let drafts = [draft.clone(), draft, to("x")];
    let results = world.handle.send_direct_many(&world.user, &drafts).await.unwrap();
    let (first, second) = (results[0].as_ref().unwrap(), results[1].as_ref().unwrap());
    assert_eq!(
        (first.message_id, first.duplicate, second.duplicate),
        (second.message_id, false, true)
    );
    assert!(results[2].is_err());
    world.run().await;
    assert_eq!(world.transport.sent().len(), 1);
}

#[tokio::test]
async fn a_suppressed_person_is_written_to_only_by_an_explicit_override() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456789").await;
    let (handle, user) = (&world.handle, &world.user);
    world.heard.take();
    let person = Person::Phone("012-3456789".to_owned());
    let suppression = handle.opt_out(user, &person, " asked by phone ").await.unwrap();
    assert_eq!(
        (suppression.reason, suppression.note.as_str()),
        (SuppressionReason::ByPerson, "asked by phone")
    );
    let told = world.heard.take();
    assert!(matches!(told[0].kind, EventKind::OptedOut { lead_id: Some(id), .. } if id == lead.id));
    let draft = DirectDraft {
        lead_id: Some(lead.id),
        message: Some("Hello".to_owned()),
        ..DirectDraft::default()
    };
    assert!(conflict(handle.send_direct(user, &draft).await).contains("must not be written to"));
    let anyway = DirectDraft {
        on_suppressed: OnSuppressed::SendAnyway,
        ..draft.clone()
    };
    let sent = handle.send_direct(user, &anyway).await.unwrap();
    world.run().await;
    let message = handle.store().message(user, sent.message_id).await.unwrap();
    assert!(message.override_suppression && message.state == MessageState::Sent);
    handle.opt_in(user, &Person::Lead(lead.id)).await.unwrap();
    assert!(handle.send_direct(user, &draft).await.is_ok());
    assert_eq!(
        missing(handle.opt_out(&world.other, &Person::Lead(lead.id), "").await),
        "lead"
    );
    let long = handle.opt_out(user, &person, &"x".repeat(201)).await;
    assert_eq!(refused(long), [("note".to_owned(), FieldCode::TooLong)]);
    let limited = RequestScope {
        devices: Some(vec![device.id]),
        ..user.clone()
    };
    assert_eq!(missing(handle.opt_out(&limited, &person, "").await), "person");
}

#[tokio::test]
async fn an_imported_list_takes_numbers_and_tells_the_rest() {
    let world = World::new().await;
    let phones = ["0123456781", "x", "0123456782"].map(str::to_owned);
    let import = world
        .handle
        .import_opt_outs(&world.user, &phones, "list")
        .await
        .unwrap();
    assert_eq!((import.taken, import.refused.len(), import.refused[0].0), (2, 1, 1));
    let list = world
        .handle
        .store()
        .suppressions(&world.user, &PageRequest::first(10))
        .await
        .unwrap();
    assert_eq!(list.rows.len(), 2);
    assert!(list.rows.iter().all(|row| row.reason == SuppressionReason::Imported));
}

#[tokio::test]
async fn everything_of_a_person_can_be_had_and_erased() {
    let world = World::new().await;
    let (_, campaign) = world.campaign_of(1).await;
    let person = Person::Phone("+60123456000".to_owned());
    let (handle, user) = (&world.handle, &world.user);
    let export = handle.export_person(user, &person).await.unwrap();
    assert_eq!(
        (export.leads.len(), export.messages.len(), export.complete),
        (1, 1, true)
    );
    let json = serde_json::to_string(&export).unwrap();
    assert!(json.contains("+60123456000") && json.contains("Hi Aminah"), "{json}");
    handle.erase_person(user, &person).await.unwrap();
    let export = handle.export_person(user, &person).await.unwrap();
    assert!(export.leads.is_empty());
    let json = serde_json::to_string(&export.messages).unwrap();
    assert!(!json.contains("+60123456000") && !json.contains("Aminah"), "{json}");
    let suppression = export.suppression.unwrap();
    assert_eq!(
        (suppression.reason, suppression.phone),
        (SuppressionReason::Erased, None)
    );
    let numbers = handle.campaign_numbers(user, campaign.id).await.unwrap();
    assert_eq!(
        (numbers.should, numbers.total.done),
        (1, 1),
        "rows stay for the numbers"
    );
    assert!(
        handle
            .create_campaign(user, &campaign_draft(), crate::plan::SaveAs::Draft)
            .await
            .is_ok()
    );
}
