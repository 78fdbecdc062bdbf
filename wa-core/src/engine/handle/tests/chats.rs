use std::time::Duration;

use super::inbound::wrote;
use super::world::{World, missing};
use crate::domain::chat::{ChatAuthor, ChatWriter};
use crate::domain::device::{Device, LinkState};
use crate::domain::message::MessageState;
use crate::domain::phone::Phone;
use crate::domain::platform::Platform;
use crate::event::EventKind;
use crate::id::DeviceId;
use crate::plan::DirectDraft;
use crate::store::{Change, ChangeSet, ChatPage, PageRequest, WriteClass};
use crate::transport::{ChatHistory, TransportEvent};

/// A device that is linked; a gateway does not say what its own phone wrote.
async fn linked(world: &World) -> Device {
    let now = world.handle.now();
    let id = DeviceId::from_slice(&[7; 16]).unwrap();
    let mut device = Device::new(id, world.user.user_id, "Sales", Platform::WHATSAPP_WEB, now);
    device.link_state = LinkState::Ready;
    let set = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
    world.handle.store().commit(set, WriteClass::Api, now).await.unwrap();
    device
}

#[tokio::test]
async fn what_is_written_and_what_is_sent_by_hand_is_one_chat_that_screens_hear_of() {
    let world = World::new().await;
    let device = linked(&world).await;
    world.hear(device.id, wrote("m1", "how much?")).await;
    let page = PageRequest::first(10);
    let chats = world.handle.chats(&world.user, device.id, &page).await.unwrap().rows;
    assert_eq!((chats.len(), chats[0].unread), (1, 1));
    let chat = chats[0].id;
    assert_eq!(
        chat,
        world.handle.chat_id(world.user.user_id, device.id, &chats[0].phone)
    );
    let update = EventKind::ChatUpdate {
        device_id: device.id,
        chat_id: Some(chat),
    };

    world.heard.take();
    for _ in 0..2 {
        world.handle.read_chat(&world.user, chat).await.unwrap();
    }
    let told: Vec<_> = world.heard.take().into_iter().map(|event| event.kind).collect();
    assert_eq!(
        told,
        std::slice::from_ref(&update),
        "what was read before tells nothing"
    );
    assert_eq!(world.handle.chat(&world.user, chat).await.unwrap().unread, 0);

    let mut own = wrote("m2", "RM 20");
    if let TransportEvent::Inbound(message) = &mut own[0] {
        message.from_me = true;
    }
    let taken_over = EventKind::TakenOver { device_id: device.id };
    assert_eq!(world.hear(device.id, own.clone()).await, [taken_over, update]);
    assert!(
        world.hear(device.id, own).await.is_empty(),
        "delivered again it is no news"
    );

    world.clock.advance(Duration::from_secs(60));
    let draft = DirectDraft {
        device_id: Some(device.id),
        phone: Some("+60123456000".to_owned()),
        message: Some("each".to_owned()),
        ..DirectDraft::default()
    };
    let sent = world.handle.send_direct(&world.user, &draft).await.unwrap();
    let moved = world.handle.chat(&world.user, chat).await.unwrap();
    assert_eq!(moved.last_at, world.handle.now());
    let page = world
        .handle
        .chat_messages(&world.user, chat, &ChatPage::newest(10))
        .await;
    let rows = page.unwrap().rows;
    let authors: Vec<_> = rows.iter().map(|row| (row.author, row.text.as_str())).collect();
    let expected = [
        (
            ChatAuthor::Engine {
                message_id: sent.message_id,
                state: MessageState::Queued,
                delivery: None,
            },
            "each",
        ),
        (ChatAuthor::Writer(ChatWriter::OwnPhone), "RM 20"),
        (ChatAuthor::Writer(ChatWriter::Person), "how much?"),
    ];
    assert_eq!(authors, expected);
    assert_eq!(missing(world.handle.chat(&world.other, chat).await), "chat");
    assert_eq!(missing(world.handle.read_chat(&world.other, chat).await), "chat");
    assert_eq!(
        world.handle.chat(&world.user, chat).await.unwrap().last.unwrap().text,
        "each"
    );
}

#[tokio::test]
async fn the_past_fills_chats_once_and_what_is_old_is_removed() {
    let world = World::new().await;
    let device = linked(&world).await;
    let now = world.handle.now();
    let past = |phone: &str, days: u64| {
        let mut messages = Vec::new();
        for (id, text) in [("one", "hello"), ("two", "are you there?")] {
            let TransportEvent::Inbound(mut message) = wrote(&format!("{phone} {id}"), text).remove(0) else {
                panic!("no message");
            };
            message.at = Some(now - Duration::from_secs(days * 86_400));
            messages.push(message);
        }
        TransportEvent::History(ChatHistory {
            peer: Phone::from_e164(phone).unwrap(),
            peer_name: None,
            messages,
            unread: 1,
        })
    };
    let events = vec![
        past("+60123456001", 2),
        past("+60123456002", 20),
        past("+60123456003", 31),
    ];
    let told = world.hear(device.id, events.clone()).await;
    let several = EventKind::ChatUpdate {
        device_id: device.id,
        chat_id: None,
    };
    assert_eq!(told, [several]);
    assert!(world.hear(device.id, events).await.is_empty());
    let chats = async || {
        let page = PageRequest::first(10);
        let chats = world.handle.chats(&world.user, device.id, &page).await.unwrap();
        let shown = chats
            .rows
            .iter()
            .map(|chat| (chat.phone.as_e164().to_owned(), chat.unread));
        shown.collect::<Vec<_>>()
    };
    let both = [("+60123456001".to_owned(), 1), ("+60123456002".to_owned(), 1)];
    assert_eq!(chats().await, both);
    world.engine.prune().await.unwrap();
    assert_eq!(chats().await, both);
    world.clock.advance(Duration::from_secs(11 * 86_400));
    world.engine.prune().await.unwrap();
    assert_eq!(chats().await, both[..1]);
}
