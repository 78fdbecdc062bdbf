//! What fills the chats: people, the device's own phone, and the past.

use std::sync::atomic::Ordering;

use wa_core::domain::chat::{Chat, ChatAuthor, ChatKind, ChatMessage, ChatWriter};
use wa_core::domain::delivery::Delivery;
use wa_core::domain::device::LinkState;
use wa_core::domain::message::MessageState;
use wa_core::plan::DirectDraft;
use wa_core::store::{ChatPage, PageRequest};
use wa_core::transport::{ChatHistory, InboundMessage, TransportEvent};
use wa_loopback::{PastChat, Person};
use whatsapp_rust::prelude::{MessageBuilderExt, MessageField, wa};
use whatsapp_rust::waproto::whatsapp::message as parts;
use whatsapp_rust::waproto::whatsapp::message::buttons_response_message::Response;
use whatsapp_rust::{Jid, SendOptions};

use crate::rig::{LIMIT, OWN, Rig, phone};
use crate::town::{Town, until};

const PERSON: &str = "60120000001";

fn inbound(event: &TransportEvent) -> Option<InboundMessage> {
    match event {
        TransportEvent::Inbound(message) => Some(message.clone()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_writes_and_what_the_own_phone_writes_are_told_apart() {
    let rig = Rig::linked().await;
    let person = rig.server.person(PERSON, "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let id = person.send_text(OWN, "how much?").await.unwrap();
    let theirs = rig
        .heard
        .wait_from(0, "what the person wrote", |_, event| inbound(event))
        .await;
    assert_eq!(
        (theirs.peer, theirs.kind, theirs.from_me),
        (phone(PERSON), ChatKind::Text, false)
    );
    assert_eq!(
        (theirs.text.as_str(), theirs.peer_name.as_deref()),
        ("how much?", Some("Aminah"))
    );
    assert!(theirs.provider_id.as_str().starts_with(&id) && theirs.provider_id.as_str() != id);

    let heard = rig.heard.len();
    let own = rig.server.person(OWN, "Sales").await.unwrap();
    own.connect().await.unwrap();
    let id = own.send_text(PERSON, "RM 20").await.unwrap();
    let ours = rig
        .heard
        .wait_from(heard, "what the own phone wrote", |_, event| inbound(event))
        .await;
    assert_eq!(
        (ours.peer, ours.text.as_str(), ours.from_me),
        (phone(PERSON), "RM 20", true)
    );
    assert_eq!(ours.provider_id.as_str(), id);
    assert_eq!(person.next_message(LIMIT).await.unwrap().text(), Some("RM 20"));
}

fn history(event: &TransportEvent) -> Option<ChatHistory> {
    match event {
        TransportEvent::History(history) => Some(history.clone()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_of_the_chats_comes_with_the_link_and_waits_until_it_is_stored() {
    let rig = Rig::new().await;
    let own = rig.server.person(OWN, "Sales").await.unwrap();
    own.connect().await.unwrap();
    let device = own.scan(&rig.qr().await).await.unwrap();
    rig.heard.state(rig.owner.device_id, LinkState::Ready).await;
    rig.heard.refusing.store(true, Ordering::SeqCst);
    let chat = PastChat::with(PERSON)
        .they_wrote("H1", 1_700_000_000, "how much?")
        .i_wrote("H2", 1_700_000_060, "RM 20");
    own.share_history(&device, vec![chat, PastChat::with("60120000002")])
        .await
        .unwrap();
    rig.heard.until_refused().await;
    rig.heard.refusing.store(false, Ordering::SeqCst);
    let past = rig.heard.wait_from(0, "the past", |_, event| history(event)).await;
    assert_eq!((past.peer, past.unread), (phone(PERSON), 0));
    let told: Vec<_> = past
        .messages
        .iter()
        .map(|one| (one.text.as_str(), one.from_me, one.at.unwrap().as_millis()))
        .collect();
    assert_eq!(
        told,
        [
            ("RM 20", true, 1_700_000_060_000),
            ("how much?", false, 1_700_000_000_000)
        ]
    );
    assert_eq!(past.messages[0].provider_id.as_str(), "H2");
    assert!(past.messages[1].provider_id.as_str().starts_with("H1."));
}

/// The only chat there is, and its messages.
async fn only_chat(town: &Town) -> Option<(Chat, Vec<ChatMessage>)> {
    let page = PageRequest::first(10);
    let chats = town.handle.chats(&town.user, town.device_id(), &page).await;
    let mut chats = chats.unwrap().rows;
    assert!(chats.len() <= 1, "{chats:?}");
    let chat = chats.pop()?;
    let page = ChatPage::newest(100);
    let messages = town.handle.chat_messages(&town.user, chat.id, &page).await;
    // Read last, it knows of all of them.
    let chat = town.handle.chat(&town.user, chat.id).await.unwrap();
    Some((chat, messages.unwrap().rows))
}

async fn write(person: &Person, to: Jid, message: wa::Message) {
    let client = person.client().await.unwrap();
    let sent = client.send_message_with_options(to, message, SendOptions::default());
    sent.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_message_can_be_read_in_its_chat() {
    let town = Town::new().await;
    let (person, _) = town.person(PERSON, "Aminah").await;
    let some = |text: &str| Some(text.to_owned());
    let empty = wa::Message::default;
    let written = [
        (wa::Message::text("how much?"), ChatKind::Text, "how much?"),
        (
            wa::Message {
                image_message: MessageField::some(parts::ImageMessage {
                    caption: some("this one"),
                    ..Default::default()
                }),
                ..empty()
            },
            ChatKind::Image,
            "this one",
        ),
        (
            wa::Message {
                video_message: MessageField::some(parts::VideoMessage {
                    caption: some("from all sides"),
                    ..Default::default()
                }),
                ..empty()
            },
            ChatKind::Video,
            "from all sides",
        ),
        (
            wa::Message {
                audio_message: MessageField::some(parts::AudioMessage::default()),
                ..empty()
            },
            ChatKind::Audio,
            "",
        ),
        (
            wa::Message {
                document_message: MessageField::some(parts::DocumentMessage {
                    file_name: some("order.pdf"),
                    ..Default::default()
                }),
                ..empty()
            },
            ChatKind::Document,
            "order.pdf",
        ),
        (
            wa::Message {
                location_message: MessageField::some(parts::LocationMessage {
                    degrees_latitude: Some(3.5),
                    degrees_longitude: Some(101.25),
                    name: some("Kedai"),
                    ..Default::default()
                }),
                ..empty()
            },
            ChatKind::Location,
            "Kedai 3.5,101.25",
        ),
        (
            wa::Message {
                contact_message: MessageField::some(parts::ContactMessage {
                    display_name: some("Ali"),
                    vcard: some("BEGIN:VCARD\nFN:Ali\nTEL:+60120000009\nEND:VCARD"),
                    ..Default::default()
                }),
                ..empty()
            },
            ChatKind::Contact,
            "Ali +60120000009",
        ),
        (
            wa::Message {
                reaction_message: MessageField::some(parts::ReactionMessage {
                    key: MessageField::some(wa::MessageKey {
                        id: some("3EB0"),
                        ..Default::default()
                    }),
                    text: some("👍"),
                    ..Default::default()
                }),
                ..empty()
            },
            ChatKind::Reaction,
            "👍",
        ),
        (
            wa::Message {
                buttons_response_message: MessageField::some(parts::ButtonsResponseMessage {
                    response: Some(Response::SelectedDisplayText("Yes, please".to_owned())),
                    ..Default::default()
                }),
                ..empty()
            },
            ChatKind::ButtonReply,
            "Yes, please",
        ),
    ];
    let mut expected = Vec::new();
    for (message, kind, text) in written {
        write(&person, Jid::pn(OWN), message).await;
        expected.push((kind as u8, text));
        until(&format!("{kind:?}"), async || {
            only_chat(&town).await.filter(|(_, rows)| rows.len() == expected.len())
        })
        .await;
    }
    // By LID it is the same person, and the same chat.
    write(&person, town.server.lid(OWN), wa::Message::text("by LID")).await;
    expected.push((ChatKind::Text as u8, "by LID"));
    let (chat, rows) = until("the last", async || {
        only_chat(&town).await.filter(|(_, rows)| rows.len() == expected.len())
    })
    .await;
    let mut read: Vec<_> = rows.iter().map(|row| (row.kind as u8, row.text.as_str())).collect();
    read.sort_unstable();
    expected.sort_unstable();
    assert_eq!(read, expected);
    assert!(
        rows.iter()
            .all(|row| row.author == ChatAuthor::Writer(ChatWriter::Person))
    );
    assert_eq!(
        (chat.unread, chat.name.as_deref(), chat.phone),
        (10, Some("Aminah"), phone(PERSON))
    );
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_and_the_own_phone_send_stands_in_the_chat_each_once() {
    let town = Town::new().await;
    let (person, _) = town.person(PERSON, "Aminah").await;
    town.campaign("Offer", "Offer").await;
    let offer = person.message_where(LIMIT, "the offer", |got| {
        got.text().is_some_and(|text| text.contains("Offer"))
    });
    offer.await.unwrap();
    person.send_text(OWN, "how much?").await.unwrap();
    until("what she wrote", async || only_chat(&town).await).await;
    let draft = DirectDraft {
        device_id: Some(town.device_id()),
        phone: Some(format!("+{PERSON}")),
        message: Some("RM 20".to_owned()),
        ..DirectDraft::default()
    };
    town.handle.send_direct(&town.user, &draft).await.unwrap();
    let answer = person.message_where(LIMIT, "the answer", |got| got.text() == Some("RM 20"));
    answer.await.unwrap();
    // The phone has had copies of all that before it is there.
    let own = town.server.person(OWN, "Sales").await.unwrap();
    own.connect().await.unwrap();
    own.send_text(PERSON, "each").await.unwrap();
    let engine = |delivery| move |author: ChatAuthor| matches!(author, ChatAuthor::Engine { state: MessageState::Sent, delivery: Some(told), .. } if told == delivery);
    let (chat, rows) = until("the whole chat", async || {
        let (chat, rows) = only_chat(&town).await?;
        let told = |text: &str, fits: &dyn Fn(ChatAuthor) -> bool| {
            rows.iter().any(|row| row.text.contains(text) && fits(row.author))
        };
        let whole = told("Offer", &engine(Delivery::Replied))
            && told("RM 20", &engine(Delivery::Delivered))
            && told("how much?", &|author| author == ChatAuthor::Writer(ChatWriter::Person))
            && told("each", &|author| author == ChatAuthor::Writer(ChatWriter::OwnPhone));
        whole.then_some((chat, rows))
    })
    .await;
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert_eq!(chat.unread, 0, "whoever answers on the phone has read");
    town.close().await;
}
