//! Chats and their messages.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::{PAGE_MAX, Page, PageRequest, StoreError};
use crate::domain::access::RequestScope;
use crate::domain::chat::{Chat, ChatKind, ChatMessage, ChatMessagePlace, ChatPlace, ChatWriter};
use crate::domain::phone::{PersonKey, Phone};
use crate::id::{ChatId, ChatMessageId, DeviceId, UserId};
use crate::time::Timestamp;
use crate::transport::TransportMessageId;

/// How long chats and their messages are kept by default: 30 days.
pub const CHATS_KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A message of a person or of a device's own phone, to be added to a chat.
#[derive(Clone, PartialEq, Eq)]
pub struct NewChatMessage {
    /// Its id.
    pub id: ChatMessageId,
    /// The vendor's id; one that the device has already is left aside. So is a message of the own phone whose id is that of the newest
    /// attempt of a message of the device: the vendor tells of what the engine sent.
    pub provider_id: TransportMessageId,
    /// Who wrote it.
    pub by: ChatWriter,
    /// What it is.
    pub kind: ChatKind,
    /// The text or caption.
    pub text: String,
    /// When it was written.
    pub at: Timestamp,
    /// Whether it counts as not read.
    pub unread: bool,
}

impl fmt::Debug for NewChatMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewChatMessage")
            .field("id", &self.id)
            .field("provider_id", &self.provider_id)
            .field("by", &self.by)
            .field("kind", &self.kind)
            .field("text_len", &self.text.len())
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// What is added to a chat, which is made when it is not there.
#[derive(Clone)]
pub struct ChatAddition {
    /// The chat, see [`ChatId::of`].
    pub chat_id: ChatId,
    /// The device's user.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The person.
    pub person: PersonKey,
    /// The person's number.
    pub phone: Phone,
    /// The name that the person gave themselves; without one that is there stays.
    pub name: Option<String>,
    /// The messages.
    pub messages: Vec<NewChatMessage>,
    /// Set where somebody writes to the person by hand at that instant: the chat comes forward without a message of its own.
    pub opened_at: Option<Timestamp>,
}

impl fmt::Debug for ChatAddition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatAddition")
            .field("chat_id", &self.chat_id)
            .field("device_id", &self.device_id)
            .field("phone", &self.phone)
            .field("messages", &self.messages)
            .field("opened_at", &self.opened_at)
            .finish_non_exhaustive()
    }
}

impl ChatAddition {
    /// The messages, each vendor's id once.
    #[must_use]
    pub fn distinct(&self) -> Vec<&NewChatMessage> {
        let mut seen = BTreeSet::new();
        let messages = self.messages.iter();
        messages.filter(|message| seen.insert(&message.provider_id)).collect()
    }
}

/// How a chat ends: what is not read of it, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChatTail {
    /// Messages that nobody has read.
    pub unread: u32,
    /// The instant that chats are ordered by; `None` where there is no chat yet.
    pub last_at: Option<Timestamp>,
}

impl ChatTail {
    /// The tail after messages that were really added, in order, and a message by hand. Who answers on the own phone has read what
    /// came before.
    #[must_use]
    pub fn after(mut self, added: &[&NewChatMessage], opened_at: Option<Timestamp>) -> Self {
        for message in added {
            let newest = self.last_at.is_none_or(|last| message.at >= last);
            if message.by == ChatWriter::OwnPhone && newest {
                self.unread = 0;
            }
            if message.unread {
                self.unread = self.unread.saturating_add(1);
            }
            self.last_at = self.last_at.max(Some(message.at));
        }
        self.last_at = self.last_at.max(opened_at);
        self
    }
}

/// From where messages of a chat are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatFrom {
    /// The newest, newest first.
    Newest,
    /// Those before a place, newest first.
    Before(ChatMessagePlace),
    /// Those after a place, oldest first.
    After(ChatMessagePlace),
}

/// Asks for a page of the messages of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatPage {
    /// From where.
    pub from: ChatFrom,
    /// Most messages wanted, 1 to [`PAGE_MAX`]; stores clamp it.
    pub limit: u32,
}

impl ChatPage {
    /// The newest messages.
    #[must_use]
    pub const fn newest(limit: u32) -> Self {
        Self {
            from: ChatFrom::Newest,
            limit,
        }
    }

    /// The limit, clamped.
    #[must_use]
    pub fn clamped(&self) -> usize {
        self.limit.clamp(1, PAGE_MAX) as usize
    }

    /// The place from which it is read, itself excluded.
    #[must_use]
    pub const fn edge(&self) -> ChatMessagePlace {
        match self.from {
            ChatFrom::Newest => ChatMessagePlace::LAST,
            ChatFrom::Before(place) | ChatFrom::After(place) => place,
        }
    }

    /// Whether it is read from older to newer.
    #[must_use]
    pub const fn rises(&self) -> bool {
        matches!(self.from, ChatFrom::After(_))
    }

    /// Whether a place is beyond the edge.
    #[must_use]
    pub fn takes(&self, place: ChatMessagePlace) -> bool {
        if self.rises() {
            place > self.edge()
        } else {
            place < self.edge()
        }
    }

    /// The page of messages that were read on two ways, from each at least one more than the limit if there are as many.
    #[must_use]
    pub fn merge(&self, mut kept: Vec<ChatMessage>, sent: Vec<ChatMessage>) -> Page<ChatMessage, ChatMessagePlace> {
        kept.extend(sent);
        kept.sort_unstable_by_key(ChatMessage::place);
        if !self.rises() {
            kept.reverse();
        }
        Page::cut(kept, self.clamped(), ChatMessage::place)
    }
}

/// Reads chats. They are changed by `commit`.
///
/// What the engine sent is in the outbox alone, and is read from there: [`ChatMessage::of_outbox`] says what of it is shown. What
/// campaigns sent is shown until they are archived.
#[async_trait]
pub trait ChatStore: Send + Sync {
    /// One chat, with its newest message.
    ///
    /// # Errors
    /// `NotFound` when it is not within the scope, or its device was deleted.
    async fn chat(&self, scope: &RequestScope, id: ChatId) -> Result<Chat, StoreError>;

    /// A page of the chats of a device, newest first, each with its newest message.
    ///
    /// # Errors
    /// `NotFound` when the device is not within the scope, or was deleted.
    async fn chats(
        &self,
        scope: &RequestScope,
        device: DeviceId,
        page: &PageRequest<ChatPlace>,
    ) -> Result<Page<Chat, ChatPlace>, StoreError>;

    /// A page of the messages of a chat.
    ///
    /// # Errors
    /// As [`chat`](Self::chat).
    async fn chat_messages(
        &self,
        scope: &RequestScope,
        id: ChatId,
        page: &ChatPage,
    ) -> Result<Page<ChatMessage, ChatMessagePlace>, StoreError>;

    /// Removes up to `limit` messages written before `before`, chats that stand before it and have no message left, and all that
    /// belongs to deleted devices; returns how many rows. Any node may; when it returns fewer than `limit`, nothing is left to remove.
    async fn sweep_chats(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::chat::{ChatAuthor, Place};

    fn new(by: ChatWriter, at: i64) -> NewChatMessage {
        NewChatMessage {
            id: ChatMessageId::MIN,
            provider_id: TransportMessageId::new(format!("m{at}")).unwrap(),
            by,
            kind: ChatKind::Text,
            text: String::new(),
            at: Timestamp::from_millis(at),
            unread: by == ChatWriter::Person,
        }
    }

    #[test]
    fn who_answers_on_the_own_phone_has_read_what_came_before() {
        let (first, second, answer) = (
            new(ChatWriter::Person, 1),
            new(ChatWriter::Person, 2),
            new(ChatWriter::OwnPhone, 3),
        );
        let tail = ChatTail::default().after(&[&first, &second], None);
        assert_eq!((tail.unread, tail.last_at), (2, Some(Timestamp::from_millis(2))));
        assert_eq!(tail.after(&[&answer], None).unread, 0);
        let older = new(ChatWriter::OwnPhone, 1);
        assert_eq!(
            tail.after(&[&older], None).unread,
            2,
            "it was written before what is not read"
        );
        let later = Timestamp::from_millis(9);
        assert_eq!(
            tail.after(&[], Some(later)),
            ChatTail {
                unread: 2,
                last_at: Some(later)
            }
        );
    }

    #[test]
    fn a_page_goes_in_its_direction_and_says_where_the_next_begins() {
        let message = |at: i64| ChatMessage {
            id: ChatMessageId::MIN,
            chat_id: ChatId::MIN,
            author: ChatAuthor::Writer(ChatWriter::Person),
            kind: ChatKind::Text,
            text: String::new(),
            at: Timestamp::from_millis(at),
            provider_id: None,
        };
        let place = |at: i64| Place {
            at: Timestamp::from_millis(at),
            id: ChatMessageId::MIN,
        };
        let times = |page: &Page<ChatMessage, ChatMessagePlace>| -> Vec<i64> {
            page.rows.iter().map(|row| row.at.as_millis()).collect()
        };
        let newest = ChatPage::newest(2).merge(vec![message(5), message(1)], vec![message(3)]);
        assert_eq!((times(&newest), newest.next), (vec![5, 3], Some(place(3))));
        let after = ChatPage {
            from: ChatFrom::After(place(1)),
            limit: 5,
        };
        let page = after.merge(vec![message(5)], vec![message(3)]);
        assert_eq!((times(&page), page.next), (vec![3, 5], None));
        assert!(after.takes(place(2)) && !after.takes(place(1)));
        assert!(ChatPage::newest(1).takes(place(i64::MAX)));
    }
}
