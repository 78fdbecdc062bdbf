//! Chats and their messages.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use uuid::Uuid;

use super::MemoryStore;
use super::commit::COMMIT;
use super::flaw::Flaw;
use super::state::{State, conflict, not_found};
use crate::domain::access::RequestScope;
use crate::domain::chat::{Chat, ChatAuthor, ChatMessage, ChatMessagePlace, ChatPlace, ChatWriter, Place};
use crate::domain::phone::PersonKey;
use crate::id::{ChatId, ChatMessageId, DeviceId, UserId};
use crate::store::{
    ChatAddition, ChatFrom, ChatPage, ChatStore, ChatTail, Committed, NewChatMessage, Page, PageRequest, StoreError,
};
use crate::time::Timestamp;
use crate::transport::TransportMessageId;

/// After every id that is given out: where a range of chats ends.
const LAST_CHAT: ChatId = ChatId::from_uuid(Uuid::max());

/// A chat with what the store keeps beside it; its newest message is looked up.
#[derive(Clone)]
pub(super) struct ChatRow {
    pub(super) chat: Chat,
    /// Whether its device was deleted.
    pub(super) gone: bool,
}

/// A message by its chat and its place in it.
pub(super) type MessageKey = (ChatId, ChatMessagePlace);

/// A message with what makes it unique.
#[derive(Clone)]
pub(super) struct MessageRow {
    message: ChatMessage,
    device_id: DeviceId,
    provider_id: TransportMessageId,
}

impl MessageRow {
    fn provider(&self) -> (DeviceId, TransportMessageId) {
        (self.device_id, self.provider_id.clone())
    }
}

/// The chats. Only the two methods that replace change a row, so that no index can miss it.
#[derive(Default)]
pub(super) struct Chats {
    rows: BTreeMap<ChatId, Box<ChatRow>>,
    on_device: BTreeSet<(DeviceId, ChatPlace)>,
    of_person: BTreeSet<(UserId, PersonKey, ChatId)>,
    by_age: BTreeSet<ChatPlace>,
    gone: BTreeSet<ChatId>,
    messages: BTreeMap<MessageKey, Box<MessageRow>>,
    by_provider: BTreeMap<(DeviceId, TransportMessageId), MessageKey>,
    messages_by_age: BTreeSet<(ChatMessagePlace, ChatId)>,
}

impl Chats {
    pub(super) fn replace(&mut self, id: ChatId, new: Option<Box<ChatRow>>) -> Option<Box<ChatRow>> {
        let old = self.rows.remove(&id);
        if let Some(ChatRow { chat, .. }) = old.as_deref() {
            self.on_device.remove(&(chat.device_id, chat.place()));
            self.of_person.remove(&(chat.user_id, chat.person, id));
            self.by_age.remove(&chat.place());
            self.gone.remove(&id);
        }
        if let Some(new) = new {
            let chat = &new.chat;
            self.on_device.insert((chat.device_id, chat.place()));
            self.of_person.insert((chat.user_id, chat.person, id));
            self.by_age.insert(chat.place());
            if new.gone {
                self.gone.insert(id);
            }
            self.rows.insert(id, new);
        }
        old
    }

    pub(super) fn replace_message(&mut self, key: MessageKey, new: Option<Box<MessageRow>>) -> Option<Box<MessageRow>> {
        let old = self.messages.remove(&key);
        if let Some(row) = old.as_deref() {
            let provider = row.provider();
            if self.by_provider.get(&provider) == Some(&key) {
                self.by_provider.remove(&provider);
            }
            self.messages_by_age.remove(&(key.1, key.0));
        }
        if let Some(new) = new {
            self.by_provider.insert(new.provider(), key);
            self.messages_by_age.insert((key.1, key.0));
            self.messages.insert(key, new);
        }
        old
    }

    fn of(&self, chat: ChatId) -> impl DoubleEndedIterator<Item = &ChatMessage> {
        let first = Place {
            at: Timestamp::from_millis(i64::MIN),
            id: ChatMessageId::MIN,
        };
        self.messages
            .range((chat, first)..=(chat, ChatMessagePlace::LAST))
            .map(|(_, row)| &row.message)
    }

    fn keys_of(&self, chat: ChatId) -> Vec<MessageKey> {
        self.of(chat).map(|message| (chat, message.place())).collect()
    }
}

impl State {
    pub(super) fn add_to_chat(&mut self, addition: &ChatAddition, done: &mut Committed) -> Result<(), StoreError> {
        let device = self.devices.get(&addition.device_id).map(Box::as_ref);
        let device = device
            .filter(|row| row.device.user_id == addition.user_id || self.flawed(Flaw::ChatCrossesUsers))
            .ok_or(not_found(COMMIT, "device"))?;
        if !device.is_live() {
            return Ok(());
        }
        let row = self.chats.rows.get(&addition.chat_id).cloned();
        let same = |chat: &Chat| {
            (chat.user_id, chat.device_id, chat.person) == (addition.user_id, addition.device_id, addition.person)
        };
        if row.as_ref().is_some_and(|row| !same(&row.chat)) {
            return Err(conflict(COMMIT, "chat"));
        }
        let added: Vec<&NewChatMessage> = addition
            .distinct()
            .into_iter()
            .filter(|message| self.is_new_to(addition.device_id, message))
            .collect();
        if added.is_empty() && addition.opened_at.is_none() {
            return Ok(());
        }
        let before = row.as_ref().map(|row| ChatTail {
            unread: row.chat.unread,
            last_at: Some(row.chat.last_at),
        });
        let before = before.unwrap_or_default();
        let mut tail = before.after(&added, addition.opened_at);
        if self.flawed(Flaw::LateMessagePutsChatBack) {
            tail.last_at = added.last().map(|message| message.at).or(tail.last_at);
        }
        let counts = |message: &&&NewChatMessage| message.unread || self.flawed(Flaw::PastCountsAsUnread);
        if self.flawed(Flaw::AnswerLeavesUnread) || self.flawed(Flaw::PastCountsAsUnread) {
            tail.unread = before.unread + added.iter().filter(counts).count() as u32;
        }
        let Some(last_at) = tail.last_at else { return Ok(()) };
        let known = row.and_then(|row| row.chat.name);
        let known = known.filter(|_| !self.flawed(Flaw::ChatForgetsName));
        self.put_chat(ChatRow {
            chat: Chat {
                id: addition.chat_id,
                user_id: addition.user_id,
                device_id: addition.device_id,
                person: addition.person,
                phone: addition.phone,
                name: addition.name.clone().or(known),
                unread: tail.unread,
                last_at,
                last: None,
            },
            gone: false,
        });
        for message in &added {
            let row = MessageRow {
                message: ChatMessage {
                    id: message.id,
                    chat_id: addition.chat_id,
                    author: ChatAuthor::Writer(message.by),
                    kind: message.kind,
                    text: message.text.clone(),
                    at: message.at,
                    provider_id: Some(message.provider_id.clone()),
                },
                device_id: addition.device_id,
                provider_id: message.provider_id.clone(),
            };
            self.put_chat_message((addition.chat_id, row.message.place()), Some(row));
        }
        done.chat_messages += added.len() as u64;
        Ok(())
    }

    /// Whether neither the device has it already nor the engine sent it.
    fn is_new_to(&self, device: DeviceId, message: &NewChatMessage) -> bool {
        let known = self
            .chats
            .by_provider
            .contains_key(&(device, message.provider_id.clone()));
        let sent = message.by == ChatWriter::OwnPhone && self.messages.has_ours(device, &message.provider_id);
        (!known || self.flawed(Flaw::ChatMessageIsKeptTwice)) && (!sent || self.flawed(Flaw::ChatKeepsWhatWasSent))
    }

    pub(super) fn read_chat(&mut self, user: UserId, id: ChatId) -> Result<(), StoreError> {
        let row = self
            .chats
            .rows
            .get(&id)
            .filter(|row| row.chat.user_id == user || self.flawed(Flaw::ReadCrossesUsers))
            .filter(|row| !row.gone);
        let mut row = ChatRow::clone(row.ok_or(not_found(COMMIT, "chat"))?);
        if !self.flawed(Flaw::ChatStaysUnread) {
            row.chat.unread = 0;
        }
        self.put_chat(row);
        Ok(())
    }

    /// Chats of a deleted device are not seen any more; a sweep takes them.
    pub(super) fn leave_chats(&mut self, device: DeviceId) {
        if self.flawed(Flaw::ChatsOutliveDevice) {
            return;
        }
        let theirs: Vec<ChatId> = self.chats_on(device).map(|place| place.id).collect();
        for id in theirs {
            let mut row = ChatRow::clone(&self.chats.rows[&id]);
            row.gone = true;
            self.put_chat(row);
        }
    }

    pub(super) fn erase_chats(&mut self, user: UserId, person: PersonKey) {
        if self.flawed(Flaw::ChatsOutliveErasure) {
            return;
        }
        let theirs = (user, person, ChatId::MIN)..=(user, person, LAST_CHAT);
        let theirs: Vec<ChatId> = self.chats.of_person.range(theirs).map(|(_, _, id)| *id).collect();
        for id in theirs {
            for key in self.chats.keys_of(id) {
                self.put_chat_message(key, None);
            }
            self.remove_chat(id);
        }
    }

    /// The places of the chats of a device, oldest first.
    fn chats_on(&self, device: DeviceId) -> impl DoubleEndedIterator<Item = ChatPlace> {
        let first = Place {
            at: Timestamp::from_millis(i64::MIN),
            id: ChatId::MIN,
        };
        let all = (device, first)..=(device, ChatPlace::LAST);
        self.chats.on_device.range(all).map(|(_, place)| *place)
    }

    fn visible_chat(&self, scope: &RequestScope, id: ChatId, operation: &'static str) -> Result<&Chat, StoreError> {
        let row = self.chats.rows.get(&id).filter(|row| !row.gone);
        row.map(|row| &row.chat)
            .filter(|chat| chat.user_id == scope.user_id || self.flawed(Flaw::ForeignRowsShow))
            .filter(|chat| scope.sees(chat.device_id) || self.flawed(Flaw::DeviceScopeIsIgnored))
            .ok_or(not_found(operation, "chat"))
    }

    /// What a chat shows of the outbox.
    fn sent_in<'a>(&'a self, chat: &'a Chat) -> impl Iterator<Item = ChatMessage> {
        let theirs = self.messages.of_person(chat.user_id, chat.person);
        theirs
            .filter_map(|id| self.messages.live(id))
            .filter(|message| message.device_id == Some(chat.device_id) || self.flawed(Flaw::ChatShowsOtherDevices))
            .filter(|message| !(message.scope.is_bulk() && self.flawed(Flaw::ChatHidesWhatCampaignsSent)))
            .filter_map(|message| ChatMessage::of_outbox(chat.id, message))
    }

    fn with_last(&self, chat: &Chat) -> Chat {
        let kept = self.chats.of(chat.id).next_back().cloned();
        let last = kept
            .into_iter()
            .chain(self.sent_in(chat))
            .max_by_key(ChatMessage::place);
        Chat { last, ..chat.clone() }
    }

    fn sweep_chats(&mut self, before: Timestamp, limit: u32) -> u64 {
        let early = self.flawed(Flaw::ChatsEndEarly);
        let limit = if self.flawed(Flaw::ChatSweepIgnoresLimit) {
            usize::MAX
        } else {
            limit as usize
        };
        let old = self.chats.messages_by_age.iter();
        let mut messages: Vec<MessageKey> = old
            .take_while(|(place, _)| place.at < before || early)
            .map(|(place, chat)| (*chat, *place))
            .take(limit)
            .collect();
        let gone = self.chats.gone.iter().flat_map(|chat| self.chats.keys_of(*chat));
        let gone: Vec<MessageKey> = gone
            .filter(|key| key.1.at >= before)
            .take(limit - messages.len())
            .collect();
        messages.extend(gone);
        for key in &messages {
            self.put_chat_message(*key, None);
        }
        let old = self.chats.by_age.iter().take_while(|place| place.at < before);
        let ended = old.map(|place| place.id).chain(self.chats.gone.iter().copied());
        let ended = ended.filter(|id| self.chats.of(*id).next().is_none());
        let ended: BTreeSet<ChatId> = ended.filter(|_| !self.flawed(Flaw::EmptyChatsStay)).collect();
        let ended: Vec<ChatId> = ended.into_iter().take(limit - messages.len()).collect();
        for id in &ended {
            self.remove_chat(*id);
        }
        (messages.len() + ended.len()) as u64
    }
}

#[async_trait]
impl ChatStore for MemoryStore {
    async fn chat(&self, scope: &RequestScope, id: ChatId) -> Result<Chat, StoreError> {
        let state = self.lock();
        let chat = state.visible_chat(scope, id, "chat")?;
        Ok(state.with_last(chat))
    }

    async fn chats(
        &self,
        scope: &RequestScope,
        device: DeviceId,
        page: &PageRequest<ChatPlace>,
    ) -> Result<Page<Chat, ChatPlace>, StoreError> {
        let state = self.lock();
        let limit = page.clamped();
        let live = state.device_of(scope.user_id, device).filter(|row| row.is_live());
        let foreign = state.flawed(Flaw::ForeignRowsShow) || state.flawed(Flaw::DeviceScopeIsIgnored);
        if live.is_none_or(|_| !scope.sees(device)) && !foreign {
            return Err(not_found("chats", "device"));
        }
        let edge = page.after.unwrap_or(ChatPlace::LAST);
        let mut rows: Vec<Chat> = state
            .chats_on(device)
            .rev()
            .filter(|place| *place < edge)
            .skip(usize::from(page.after.is_some() && state.flawed(Flaw::PageSkipsARow)))
            .take(limit + 1)
            .map(|place| state.with_last(&state.chats.rows[&place.id].chat))
            .collect();
        if state.flawed(Flaw::ChatsStandInOrderOfIds) {
            rows.sort_unstable_by_key(|chat| chat.id);
        }
        Ok(Page::cut(rows, limit, Chat::place))
    }

    async fn chat_messages(
        &self,
        scope: &RequestScope,
        id: ChatId,
        page: &ChatPage,
    ) -> Result<Page<ChatMessage, ChatMessagePlace>, StoreError> {
        let state = self.lock();
        let chat = state.visible_chat(scope, id, "chat_messages")?;
        let takes = |message: &ChatMessage| page.takes(message.place());
        let kept = state.chats.of(id).filter(|message| takes(message)).cloned().collect();
        let on_every = state.flawed(Flaw::SentIsOnEveryPage);
        let sent = state.sent_in(chat).filter(|message| on_every || takes(message));
        let mut told = page.merge(kept, sent.collect());
        if state.flawed(Flaw::ChatIsReadBackwards) && page.rises() {
            told.rows.reverse();
        }
        if state.flawed(Flaw::ChatPageSkipsAMessage) && page.from != ChatFrom::Newest && !told.rows.is_empty() {
            told.rows.remove(0);
        }
        Ok(told)
    }

    async fn sweep_chats(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        Ok(self.lock().sweep_chats(before, limit))
    }
}
