use super::world::{World, campaign_draft};
use crate::domain::chat::ChatKind;
use crate::domain::delivery::Delivery;
use crate::domain::device::LinkState;
use crate::domain::message::{MessageState, Reason};
use crate::domain::phone::Phone;
use crate::domain::suppression::SuppressionReason;
use crate::engine::handle::Person;
use crate::event::EventKind;
use crate::id::DeviceId;
use crate::store::PageRequest;
use crate::transport::{InboundMessage, MessageRef, TransportEvent, TransportMessageId, TransportSink};

pub(super) fn wrote(id: &str, text: &str) -> Vec<TransportEvent> {
    vec![TransportEvent::Inbound(InboundMessage {
        provider_id: TransportMessageId::new(id).unwrap(),
        peer: Phone::from_e164("+60123456000").unwrap(),
        peer_name: None,
        kind: ChatKind::Text,
        text: text.to_owned(),
        media_url: None,
        from_me: false,
        at: None,
    })]
}

impl World {
    pub(super) async fn hear(&self, device: DeviceId, events: Vec<TransportEvent>) -> Vec<EventKind> {
        self.heard.take();
        self.handle.accept(self.user.user_id, device, events).await.unwrap();
        self.heard.take().into_iter().map(|event| event.kind).collect()
    }

    async fn suppressed(&self) -> Vec<SuppressionReason> {
        let page = self
            .handle
            .store()
            .suppressions(&self.user, &PageRequest::first(10))
            .await;
        page.unwrap().rows.into_iter().map(|row| row.reason).collect()
    }
}

#[tokio::test]
async fn a_reply_is_counted_and_told_once_however_often_it_is_delivered() {
    let world = World::new().await;
    let (device, campaign) = world.campaign_of(1).await;
    let told = world.hear(device.id, wrote("m1", "Thanks")).await;
    assert!(matches!(told[..], [EventKind::Reply { .. }]), "{told:?}");
    assert!(world.hear(device.id, wrote("m1", "Thanks")).await.is_empty());
    let numbers = world.handle.campaign_numbers(&world.user, campaign.id).await.unwrap();
    assert_eq!((numbers.total.replied, numbers.total.read), (1, 1));
    let lead = world
        .handle
        .export_person(&world.user, &Person::Phone("+60123456000".to_owned()))
        .await;
    assert_eq!(lead.unwrap().leads[0].last_interaction_at, Some(world.handle.now()));
}

#[tokio::test]
async fn an_opt_out_word_takes_effect_at_once_and_its_repetition_does_not_undo_an_opt_in() {
    let world = World::new().await;
    let (device, _) = world.campaign_of(1).await;
    world.handle.hold_device(&world.user, device.id).await.unwrap();
    let campaign = world.draft(&campaign_draft()).await;
    world.handle.start_campaign_now(&world.user, campaign.id).await.unwrap();
    world.run().await;
    assert_eq!(world.states(campaign.id).await, [MessageState::Queued]);
    let told = world.hear(device.id, wrote("m1", " Stop\n")).await;
    assert!(
        matches!(
            told[..],
            [EventKind::Reply { .. }, EventKind::OptedOut { lead_id: Some(_), .. }]
        ),
        "{told:?}"
    );
    assert_eq!(world.suppressed().await, [SuppressionReason::OptOutWord]);
    let page = world
        .handle
        .recipients(&world.user, campaign.id, &Default::default(), &PageRequest::first(10))
        .await
        .unwrap();
    assert_eq!(
        (page.rows[0].state, page.rows[0].reason),
        (MessageState::Skipped, Some(Reason::Suppressed))
    );
    let person = Person::Phone("+60123456000".to_owned());
    world.handle.opt_in(&world.user, &person).await.unwrap();
    assert!(world.hear(device.id, wrote("m1", " Stop\n")).await.is_empty());
    assert!(world.suppressed().await.is_empty());
    world.hear(device.id, wrote("m2", "please stop it")).await;
    assert!(
        world.suppressed().await.is_empty(),
        "only the whole message is an opt-out"
    );
}

#[tokio::test]
async fn a_receipt_moves_the_message_that_it_names() {
    let world = World::new().await;
    let (device, campaign) = world.campaign_of(1).await;
    let page = world
        .handle
        .recipients(&world.user, campaign.id, &Default::default(), &PageRequest::first(10))
        .await
        .unwrap();
    let attempt = page.rows[0].attempt.as_ref().unwrap();
    let receipt = |delivery| {
        vec![TransportEvent::Receipt {
            message: MessageRef::Ours(attempt.transport_message_id.clone()),
            delivery,
            at: None,
            note: None,
        }]
    };
    world.hear(device.id, receipt(Delivery::Read)).await;
    world.hear(device.id, receipt(Delivery::Delivered)).await;
    let numbers = world.handle.campaign_numbers(&world.user, campaign.id).await.unwrap();
    assert_eq!((numbers.total.delivered, numbers.total.read), (1, 1));
}

#[tokio::test]
async fn a_link_is_recorded_and_told_when_it_changes() {
    let world = World::new().await;
    let device = world.device("a").await;
    let link = |state| {
        vec![TransportEvent::Link {
            state,
            reason: Some("said so".to_owned()),
            phone: Some(Phone::from_e164("+60111111111").unwrap()),
            jid: Some("60111111111:3@s.whatsapp.net".to_owned()),
        }]
    };
    let told = world.hear(device.id, link(LinkState::Disconnected)).await;
    let expected = EventKind::DeviceLink {
        device_id: device.id,
        state: LinkState::Disconnected,
    };
    assert_eq!(told, [expected]);
    assert!(world.hear(device.id, link(LinkState::Disconnected)).await.is_empty());
    let device = world.handle.store().device(&world.user, device.id).await.unwrap();
    assert_eq!(device.link_reason.as_deref(), Some("said so"));
    assert_eq!(device.phone, Phone::from_e164("+60111111111").ok());
    assert_eq!(device.jid.as_deref(), Some("60111111111:3@s.whatsapp.net"));
}

#[tokio::test]
async fn what_a_device_that_is_gone_reports_is_dropped_and_not_asked_for_again() {
    let world = World::new().await;
    assert!(world.hear(DeviceId::MIN, wrote("m1", "stop")).await.is_empty());
    assert!(world.suppressed().await.is_empty());
}
