//! Chats: what is kept of them, what is shown, and what takes them away.

use super::drip::Drip;
use super::stage::{Stage, failed, sent};
use super::world::{World, assert_kind};
use crate::domain::access::RequestScope;
use crate::domain::chat::{Chat, ChatAuthor, ChatKind, ChatMessage, ChatMessagePlace, ChatPlace, ChatWriter, Place};
use crate::domain::delivery::Delivery;
use crate::domain::message::MessageState;
use crate::domain::phone::Phone;
use crate::id::{ChatId, ChatMessageId, DeviceId, UserId};
use crate::store::{
    Begun, Change, ChangeSet, ChatAddition, ChatFrom, ChatPage, NewChatMessage, PageRequest, StoreErrorKind,
};
use crate::time::Timestamp;
use crate::transport::TransportMessageId;

fn vendor(id: &str) -> TransportMessageId {
    TransportMessageId::new(id).unwrap()
}

/// Nothing yet for the chat of a device and a number.
fn addition(world: &World, (user_id, device_id): (UserId, DeviceId), phone: Phone) -> ChatAddition {
    let person = world.rows.person(user_id, &phone);
    ChatAddition {
        chat_id: ChatId::of(world.rows.seed(), device_id, person),
        user_id,
        device_id,
        person,
        phone,
        name: None,
        messages: Vec::new(),
        opened_at: None,
    }
}

fn written(world: &World, by: ChatWriter, id: &str, at: Timestamp) -> NewChatMessage {
    NewChatMessage {
        id: ChatMessageId::new(world.rows.ids(), world.now()),
        provider_id: vendor(id),
        by,
        kind: ChatKind::Text,
        text: format!("text of {id}"),
        at,
        unread: by == ChatWriter::Person,
    }
}

/// One chat of a stage.
struct Room<'a> {
    stage: &'a Stage,
    phone: Phone,
    id: ChatId,
}

impl<'a> Room<'a> {
    fn new(stage: &'a Stage) -> Self {
        Self::with(stage, stage.world.rows.fresh_phone())
    }

    fn with(stage: &'a Stage, phone: Phone) -> Self {
        let id = addition(&stage.world, (stage.user, stage.device), phone).chat_id;
        Self { stage, phone, id }
    }

    fn adds(&self, messages: Vec<NewChatMessage>) -> Change {
        let empty = addition(&self.stage.world, (self.stage.user, self.stage.device), self.phone);
        Change::AddToChat(Box::new(ChatAddition { messages, ..empty }))
    }

    fn written(&self, by: ChatWriter, id: &str, seconds: u64) -> NewChatMessage {
        written(&self.stage.world, by, id, self.stage.world.at(seconds))
    }

    /// Adds one message; returns how many were added.
    async fn add(&self, by: ChatWriter, id: &str, seconds: u64) -> u64 {
        let set = self.adds(vec![self.written(by, id, seconds)]);
        self.stage.world.commit(set).await.chat_messages
    }

    fn scope(&self) -> RequestScope {
        RequestScope::user(self.stage.user)
    }

    async fn chat(&self) -> Chat {
        self.stage.world.store.chat(&self.scope(), self.id).await.unwrap()
    }

    async fn read(&self, from: ChatFrom, limit: u32) -> (Vec<ChatMessage>, Option<ChatMessagePlace>) {
        let page = ChatPage { from, limit };
        let store = &self.stage.world.store;
        let page = store.chat_messages(&self.scope(), self.id, &page).await.unwrap();
        (page.rows, page.next)
    }

    async fn texts(&self) -> Vec<String> {
        let (rows, _) = self.read(ChatFrom::Newest, 100).await;
        rows.into_iter().map(|row| row.text).collect()
    }

    async fn is_gone(&self) {
        let store = &self.stage.world.store;
        assert_kind(store.chat(&self.scope(), self.id).await, StoreErrorKind::NotFound);
        let messages = store.chat_messages(&self.scope(), self.id, &ChatPage::newest(10)).await;
        assert_kind(messages, StoreErrorKind::NotFound);
    }
}

pub(super) async fn a_message_makes_its_chat_and_comes_back_as_it_was(world: World) {
    let stage = world.stage().await;
    let room = Room::new(&stage);
    room.is_gone().await;
    let mut message = room.written(ChatWriter::Person, "in-1", 5);
    message.kind = ChatKind::Location;
    message.text = "Kedai 🏪 'x' 3.1,101.6".to_owned();
    let mut set = addition(&world, (stage.user, stage.device), room.phone);
    set.name = Some("Aminah".to_owned());
    set.messages = vec![message.clone()];
    let done = world.commit(Change::AddToChat(Box::new(set))).await;
    assert_eq!(done.chat_messages, 1);
    let expected = ChatMessage {
        id: message.id,
        chat_id: room.id,
        author: ChatAuthor::Writer(ChatWriter::Person),
        kind: ChatKind::Location,
        text: message.text,
        at: world.at(5),
        provider_id: Some(vendor("in-1")),
    };
    let chat = Chat {
        id: room.id,
        user_id: stage.user,
        device_id: stage.device,
        person: world.rows.person(stage.user, &room.phone),
        phone: room.phone,
        name: Some("Aminah".to_owned()),
        unread: 1,
        last_at: world.at(5),
        last: Some(expected.clone()),
    };
    assert_eq!(room.chat().await, chat);
    assert_eq!(room.read(ChatFrom::Newest, 10).await, (vec![expected], None));

    assert_eq!(room.add(ChatWriter::Person, "in-2", 3).await, 1);
    let late = room.chat().await;
    assert_eq!(
        (late.unread, late.last_at),
        (2, world.at(5)),
        "what comes late sets nothing back"
    );
    assert_eq!(
        late.name.as_deref(),
        Some("Aminah"),
        "a message without a name leaves the name"
    );
    assert_eq!(late.last.unwrap().id, message.id);
}

pub(super) async fn a_message_that_is_delivered_again_is_kept_once(world: World) {
    let stage = world.stage().await;
    let (room, other) = (Room::new(&stage), Room::new(&stage));
    assert_eq!(room.add(ChatWriter::Person, "in-1", 1).await, 1);
    assert_eq!(room.add(ChatWriter::Person, "in-1", 1).await, 0);
    assert_eq!(
        other.add(ChatWriter::Person, "in-1", 1).await,
        0,
        "ids are taken once per device"
    );
    let batch = vec![
        room.written(ChatWriter::Person, "in-1", 2),
        room.written(ChatWriter::Person, "in-2", 2),
        room.written(ChatWriter::Person, "in-2", 9),
    ];
    assert_eq!(world.commit(room.adds(batch)).await.chat_messages, 1);
    assert_eq!(room.texts().await, ["text of in-2", "text of in-1"]);
    let chat = room.chat().await;
    assert_eq!((chat.unread, chat.last_at), (2, world.at(2)));
    other.is_gone().await;
    let elsewhere = world.stage().await;
    assert_eq!(Room::new(&elsewhere).add(ChatWriter::Person, "in-1", 1).await, 1);
}

pub(super) async fn a_reply_heard_before_adds_nothing_to_its_chat(world: World) {
    let stage = world.stage().await;
    let room = Room::new(&stage);
    let reply = |id: &str, at: u64| {
        ChangeSet::one(Change::Replied {
            user_id: stage.user,
            device_id: stage.device,
            phone: room.phone,
            person: world.rows.person(stage.user, &room.phone),
            provider_id: vendor("reply"),
            at: world.at(at),
        })
        .and(room.adds(vec![room.written(ChatWriter::Person, id, at)]))
    };
    assert_eq!(world.commit(reply("in-1", 1)).await.chat_messages, 1);
    assert_eq!(world.commit(reply("in-2", 2)).await.chat_messages, 0);
    assert_eq!(room.texts().await, ["text of in-1"]);
    // All or nothing, with whatever else the commit has.
    let nobody = ChatId::new(world.rows.ids(), world.now());
    let broken = ChangeSet::one(room.adds(vec![room.written(ChatWriter::Person, "in-3", 3)])).and(Change::ReadChat {
        user_id: stage.user,
        chat_id: nobody,
    });
    world.refused(broken, StoreErrorKind::NotFound).await;
    assert_eq!(room.texts().await, ["text of in-1"]);
    assert_eq!(room.chat().await.unread, 1);
    assert_eq!(room.add(ChatWriter::Person, "in-3", 3).await, 1);
}

async fn send(stage: &Stage, phone: Phone, seconds: u64) -> crate::store::BeginItem {
    let message = stage.world.rows.direct_message(stage.user, Some(stage.device), phone);
    let mut item = stage.item(stage.world.insert(message).await);
    item.attempted_at = stage.world.at(seconds);
    assert_eq!(stage.try_begin(&item).await, Begun::Yes);
    item
}

fn states(rows: &[ChatMessage]) -> Vec<Option<MessageState>> {
    rows.iter()
        .map(|row| match row.author {
            ChatAuthor::Engine { state, .. } => Some(state),
            ChatAuthor::Writer(_) => None,
        })
        .collect()
}

pub(super) async fn what_the_engine_sent_is_shown_among_what_was_written(world: World) {
    let stage = world.stage().await;
    let room = Room::new(&stage);
    room.add(ChatWriter::Person, "in-1", 1).await;
    room.add(ChatWriter::Person, "in-2", 30).await;
    let first = send(&stage, room.phone, 10).await;
    stage.settle(first.message_id, first.attempt_id, sent()).await;
    let second = send(&stage, room.phone, 40).await;
    let (rows, _) = room.read(ChatFrom::Newest, 10).await;
    assert_eq!(
        states(&rows),
        [Some(MessageState::Sending), None, Some(MessageState::Sent), None]
    );
    assert_eq!(rows[2].text, first.text);
    assert_eq!(
        (rows[2].at, &rows[2].provider_id),
        (world.at(10), &Some(first.transport_message_id.clone()))
    );
    let last = room.chat().await.last.unwrap();
    assert_eq!(last, rows[0], "the newest message is the engine's");
    stage.settle(second.message_id, second.attempt_id, failed()).await;
    let receipt = Change::Receipt {
        user_id: stage.user,
        device_id: stage.device,
        message: crate::transport::MessageRef::Ours(first.transport_message_id.clone()),
        delivery: Delivery::Read,
        at: world.at(50),
    };
    world.commit(receipt).await;
    let (rows, _) = room.read(ChatFrom::Newest, 10).await;
    assert_eq!(
        states(&rows),
        [Some(MessageState::Failed), None, Some(MessageState::Sent), None]
    );
    assert!(matches!(
        rows[2].author,
        ChatAuthor::Engine {
            delivery: Some(Delivery::Read),
            ..
        }
    ));

    // What a person sends by hand shows while it waits; a campaign shows what it sent.
    let waiting = world.rows.direct_message(stage.user, Some(stage.device), room.phone);
    world.insert(waiting).await;
    stage.queued_to(room.phone).await;
    let another = world.device(stage.user).await;
    let elsewhere = world.rows.direct_message(stage.user, Some(another), room.phone);
    world.insert(elsewhere).await;
    let (rows, _) = room.read(ChatFrom::Newest, 10).await;
    let queued = states(&rows)
        .into_iter()
        .filter(|state| *state == Some(MessageState::Queued));
    assert_eq!((rows.len(), queued.count()), (5, 1));
}

pub(super) async fn what_campaigns_and_sequences_sent_is_shown_too(world: World) {
    let drip = Drip::new(&world).await;
    let stage = &drip.stage;
    let (enrolment, step) = drip.enrolled().await;
    let phone = drip.active(enrolment).await.phone.unwrap();
    let room = Room::with(stage, phone);
    room.add(ChatWriter::Person, "in-1", 1).await;
    let waiting = [(step, 10), (stage.queued_to(phone).await, 20)];
    assert_eq!(states(&room.read(ChatFrom::Newest, 10).await.0), [None], "what waits");
    for (message, seconds) in waiting {
        let mut item = stage.item(message);
        item.attempted_at = world.at(seconds);
        assert_eq!(stage.try_begin(&item).await, Begun::Yes);
        stage.settle(message, item.attempt_id, sent()).await;
    }
    let (rows, _) = room.read(ChatFrom::Newest, 10).await;
    assert_eq!(
        states(&rows),
        [Some(MessageState::Sent), Some(MessageState::Sent), None]
    );
    let of = |row: &ChatMessage| match row.author {
        ChatAuthor::Engine { message_id, .. } => Some(message_id),
        ChatAuthor::Writer(_) => None,
    };
    assert_eq!((of(&rows[0]), of(&rows[1])), (Some(waiting[1].0), Some(step)));
    assert_eq!(room.chat().await.last, Some(rows[0].clone()));
}

pub(super) async fn what_the_vendor_tells_of_the_engines_own_messages_is_left_aside(world: World) {
    let stage = world.stage().await;
    let room = Room::new(&stage);
    let item = send(&stage, room.phone, 10).await;
    stage.settle(item.message_id, item.attempt_id, sent()).await;
    let told = |by: ChatWriter, id: &TransportMessageId| NewChatMessage {
        provider_id: id.clone(),
        ..room.written(by, "told", 10)
    };
    let ours = &item.transport_message_id;
    let echo = || vec![told(ChatWriter::OwnPhone, ours)];
    assert_eq!(world.commit(room.adds(echo())).await.chat_messages, 0);
    room.is_gone().await;
    let typed = told(ChatWriter::OwnPhone, &vendor("typed on the phone"));
    assert_eq!(world.commit(room.adds(vec![typed])).await.chat_messages, 1);
    assert_eq!(room.texts().await.len(), 2);
    // What a person writes is theirs whatever its id, and another device's own ids are its own.
    let theirs = vec![told(ChatWriter::Person, ours)];
    assert_eq!(world.commit(room.adds(theirs)).await.chat_messages, 1);
    let elsewhere = world.device(stage.user).await;
    let mut set = addition(&world, (stage.user, elsewhere), room.phone);
    set.messages = echo();
    assert_eq!(world.commit(Change::AddToChat(Box::new(set))).await.chat_messages, 1);
}

pub(super) async fn chats_are_told_newest_first_page_by_page(world: World) {
    let stage = world.stage().await;
    let rooms: Vec<Room<'_>> = (0..5).map(|_| Room::new(&stage)).collect();
    for (room, seconds) in rooms.iter().zip([3, 1, 2, 2, 9]) {
        room.add(ChatWriter::Person, &format!("in-{}", room.id), seconds).await;
    }
    // A chat that somebody writes in by hand comes forward, without a message of its own.
    let mut opened = addition(&world, (stage.user, stage.device), rooms[1].phone);
    opened.opened_at = Some(world.at(20));
    assert_eq!(world.commit(Change::AddToChat(Box::new(opened))).await.chat_messages, 0);
    let mut expected: Vec<ChatPlace> = rooms
        .iter()
        .zip([3, 20, 2, 2, 9])
        .map(|(room, seconds)| Place {
            at: world.at(seconds),
            id: room.id,
        })
        .collect();
    expected.sort_unstable();
    expected.reverse();
    let scope = rooms[0].scope();
    for limit in [1, 2, 5, 100] {
        let mut told = Vec::new();
        let mut page = PageRequest::first(limit);
        loop {
            let got = world.store.chats(&scope, stage.device, &page).await.unwrap();
            assert!(got.rows.len() <= limit as usize);
            told.extend(got.rows.iter().map(Chat::place));
            assert!(told.len() <= expected.len(), "{limit} at a time it comes to no end");
            let Some(next) = got.next else { break };
            page.after = Some(next);
        }
        assert_eq!(told, expected, "{limit} at a time");
    }
    let all = world
        .store
        .chats(&scope, stage.device, &PageRequest::first(10))
        .await
        .unwrap();
    for chat in all.rows {
        assert_eq!(chat, world.store.chat(&scope, chat.id).await.unwrap());
    }
    let another = world.device(stage.user).await;
    let none = world
        .store
        .chats(&scope, another, &PageRequest::first(10))
        .await
        .unwrap();
    assert!(none.rows.is_empty());
}

pub(super) async fn messages_are_told_in_both_directions_page_by_page(world: World) {
    let stage = world.stage().await;
    let room = Room::new(&stage);
    for (id, seconds) in [("in-1", 1), ("in-2", 1), ("in-3", 7), ("in-4", 30)] {
        room.add(ChatWriter::Person, id, seconds).await;
    }
    for seconds in [1, 5, 40] {
        let item = send(&stage, room.phone, seconds).await;
        stage.settle(item.message_id, item.attempt_id, sent()).await;
    }
    let (all, _) = room.read(ChatFrom::Newest, 100).await;
    assert_eq!(all.len(), 7);
    assert!(all.windows(2).all(|pair| pair[0].place() > pair[1].place()));
    for limit in [1, 2, 3, 7] {
        let (mut told, mut next) = room.read(ChatFrom::Newest, limit).await;
        while let Some(place) = next {
            let (more, after) = room.read(ChatFrom::Before(place), limit).await;
            told.extend(more);
            assert!(told.len() <= all.len(), "{limit} at a time it comes to no end");
            next = after;
        }
        assert_eq!(told, all, "{limit} at a time, from the newest");
        let mut told = vec![all[6].clone()];
        let mut next = Some(all[6].place());
        while let Some(place) = next {
            let (more, after) = room.read(ChatFrom::After(place), limit).await;
            told.extend(more);
            assert!(told.len() <= all.len(), "{limit} at a time it comes to no end");
            next = after;
        }
        told.reverse();
        assert_eq!(told, all, "{limit} at a time, from the oldest");
    }
}

pub(super) async fn a_chat_that_was_read_has_nothing_unread(world: World) {
    let stage = world.stage().await;
    let room = Room::new(&stage);
    let read = || Change::ReadChat {
        user_id: stage.user,
        chat_id: room.id,
    };
    world.refused(read(), StoreErrorKind::NotFound).await;
    room.add(ChatWriter::Person, "in-1", 1).await;
    room.add(ChatWriter::Person, "in-2", 2).await;
    assert_eq!(room.chat().await.unread, 2);
    for _ in 0..2 {
        world.commit(read()).await;
        assert_eq!(room.chat().await.unread, 0);
    }
    room.add(ChatWriter::Person, "in-3", 3).await;
    room.add(ChatWriter::OwnPhone, "out-1", 2).await;
    assert_eq!(room.chat().await.unread, 1, "it was written before");
    room.add(ChatWriter::OwnPhone, "out-2", 4).await;
    assert_eq!(room.chat().await.unread, 0, "who answers has read");
    let silent = NewChatMessage {
        unread: false,
        ..room.written(ChatWriter::Person, "old", 5)
    };
    world.commit(room.adds(vec![silent])).await;
    assert_eq!(room.chat().await.unread, 0);
}

pub(super) async fn a_chat_is_its_users_and_its_devices_alone(world: World) {
    let stage = world.stage().await;
    let room = Room::new(&stage);
    room.add(ChatWriter::Person, "in-1", 1).await;
    let other = world.user().await;
    let another = world.device(stage.user).await;
    let strangers = [
        RequestScope::user(other),
        RequestScope {
            user_id: stage.user,
            devices: Some(vec![another]),
        },
    ];
    for scope in &strangers {
        let store = &world.store;
        assert_kind(store.chat(scope, room.id).await, StoreErrorKind::NotFound);
        let chats = store.chats(scope, stage.device, &PageRequest::first(10)).await;
        assert_kind(chats, StoreErrorKind::NotFound);
        let messages = store.chat_messages(scope, room.id, &ChatPage::newest(10)).await;
        assert_kind(messages, StoreErrorKind::NotFound);
    }
    let own = RequestScope {
        user_id: stage.user,
        devices: Some(vec![stage.device]),
    };
    assert_eq!(world.store.chat(&own, room.id).await.unwrap().id, room.id);
    let foreign = Change::ReadChat {
        user_id: other,
        chat_id: room.id,
    };
    world.refused(foreign, StoreErrorKind::NotFound).await;
    let message = || vec![room.written(ChatWriter::Person, "in-2", 2)];
    let theirs = addition(&world, (other, stage.device), room.phone);
    let theirs = ChatAddition {
        messages: message(),
        ..theirs
    };
    world
        .refused(Change::AddToChat(Box::new(theirs)), StoreErrorKind::NotFound)
        .await;
    // The id of a chat is that of one device and person.
    let wrong = addition(&world, (stage.user, another), room.phone);
    let wrong = ChatAddition {
        chat_id: room.id,
        messages: message(),
        ..wrong
    };
    world
        .refused(Change::AddToChat(Box::new(wrong)), StoreErrorKind::Conflict)
        .await;
    assert_eq!(room.texts().await, ["text of in-1"]);
}

pub(super) async fn erasing_a_person_takes_the_chats_with_them(world: World) {
    let stage = world.stage().await;
    let (room, kept) = (Room::new(&stage), Room::new(&stage));
    let another = world.device(stage.user).await;
    let mut elsewhere = addition(&world, (stage.user, another), room.phone);
    elsewhere.messages = vec![room.written(ChatWriter::Person, "in-2", 1)];
    let elsewhere_id = elsewhere.chat_id;
    world.commit(Change::AddToChat(Box::new(elsewhere))).await;
    room.add(ChatWriter::Person, "in-1", 1).await;
    kept.add(ChatWriter::Person, "in-3", 1).await;
    let item = send(&stage, room.phone, 3).await;
    stage.settle(item.message_id, item.attempt_id, sent()).await;
    let erase = Change::ErasePerson {
        user_id: stage.user,
        person: world.rows.person(stage.user, &room.phone),
        phone: room.phone,
    };
    world.commit(erase).await;
    room.is_gone().await;
    assert_kind(
        world.store.chat(&room.scope(), elsewhere_id).await,
        StoreErrorKind::NotFound,
    );
    assert_eq!(kept.texts().await, ["text of in-3"]);
    assert_eq!(
        room.add(ChatWriter::Person, "in-1", 9).await,
        1,
        "nothing of it is remembered"
    );
    assert_eq!(
        room.texts().await,
        ["text of in-1"],
        "what was sent before is not shown"
    );
}

pub(super) async fn chats_of_a_deleted_device_are_not_seen_and_are_swept(world: World) {
    let stage = world.stage().await;
    let room = Room::new(&stage);
    for id in 0..3 {
        room.add(ChatWriter::Person, &format!("in-{id}"), 10).await;
    }
    stage.delete_device().await;
    room.is_gone().await;
    let chats = world
        .store
        .chats(&room.scope(), stage.device, &PageRequest::first(10))
        .await;
    assert_kind(chats, StoreErrorKind::NotFound);
    let read = Change::ReadChat {
        user_id: stage.user,
        chat_id: room.id,
    };
    world.refused(read, StoreErrorKind::NotFound).await;
    assert_eq!(
        room.add(ChatWriter::Person, "late", 11).await,
        0,
        "a deleted device keeps nothing"
    );
    let mut swept = Vec::new();
    for _ in 0..4 {
        swept.push(world.store.sweep_chats(world.at(0), 2).await.unwrap());
    }
    assert_eq!(swept, [2, 2, 0, 0], "three messages and a chat");
}

pub(super) async fn a_sweep_takes_what_is_old_up_to_its_limit(world: World) {
    let stage = world.stage().await;
    let (old, mixed, young) = (Room::new(&stage), Room::new(&stage), Room::new(&stage));
    for (room, id, seconds) in [
        (&old, "in-1", 1),
        (&old, "in-2", 2),
        (&mixed, "in-3", 3),
        (&mixed, "in-4", 10),
        (&young, "in-5", 11),
    ] {
        room.add(ChatWriter::Person, id, seconds).await;
    }
    let sweep = |limit| world.store.sweep_chats(world.at(10), limit);
    assert_eq!(sweep(2).await.unwrap(), 2);
    assert_eq!(
        sweep(2).await.unwrap(),
        2,
        "one message and the chat that it leaves empty"
    );
    assert_eq!(sweep(2).await.unwrap(), 0);
    old.is_gone().await;
    assert_eq!(mixed.texts().await, ["text of in-4"]);
    assert_eq!(young.texts().await, ["text of in-5"]);
}
