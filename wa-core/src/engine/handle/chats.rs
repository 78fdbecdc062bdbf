//! Chats: what a device and its people wrote to each other.

use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::chat::{Chat, ChatMessage, ChatMessagePlace, ChatPlace};
use crate::domain::message::Message;
use crate::domain::phone::Phone;
use crate::event::EventKind;
use crate::id::{ChatId, DeviceId, UserId};
use crate::store::{Change, ChangeSet, ChatAddition, ChatPage, Page, PageRequest, WriteClass};

impl Handle {
    /// A page of the chats of a device, newest first. Chats are those in which a person or the device's own phone wrote, or to which
    /// somebody wrote by hand; what campaigns and sequences sent is shown in them and makes none.
    ///
    /// # Errors
    /// `NotFound` when the device is not within the scope.
    pub async fn chats(
        &self,
        scope: &RequestScope,
        device: DeviceId,
        page: &PageRequest<ChatPlace>,
    ) -> Result<Page<Chat, ChatPlace>, HandleError> {
        Ok(self.core.store.chats(scope, device, page).await?)
    }

    /// One chat.
    ///
    /// # Errors
    /// `NotFound` when it is not within the scope.
    pub async fn chat(&self, scope: &RequestScope, id: ChatId) -> Result<Chat, HandleError> {
        Ok(self.core.store.chat(scope, id).await?)
    }

    /// A page of the messages of a chat, in either direction.
    ///
    /// # Errors
    /// As [`chat`](Self::chat).
    pub async fn chat_messages(
        &self,
        scope: &RequestScope,
        id: ChatId,
        page: &ChatPage,
    ) -> Result<Page<ChatMessage, ChatMessagePlace>, HandleError> {
        Ok(self.core.store.chat_messages(scope, id, page).await?)
    }

    /// The id of the chat of a device and a number, whether it is there or not.
    #[must_use]
    pub fn chat_id(&self, user: UserId, device: DeviceId, phone: &Phone) -> ChatId {
        ChatId::of(&self.core.seed, device, self.person(user, phone))
    }

    /// Marks a chat read here; the person is not told.
    ///
    /// # Errors
    /// As [`chat`](Self::chat).
    pub async fn read_chat(&self, scope: &RequestScope, id: ChatId) -> Result<(), HandleError> {
        let chat = self.core.store.chat(scope, id).await?;
        if chat.unread == 0 {
            return Ok(());
        }
        let set = ChangeSet::one(Change::ReadChat {
            user_id: chat.user_id,
            chat_id: id,
        });
        self.commit_repeatable(set, WriteClass::Api).await?;
        self.tell_chat(chat.user_id, chat.device_id, Some(id)).await;
        Ok(())
    }

    /// The chat that a message by hand brings forward.
    pub(super) fn opened_chat(&self, message: &Message) -> Option<ChatAddition> {
        let (device_id, phone) = (message.device_id?, message.phone?);
        Some(ChatAddition {
            chat_id: ChatId::of(&self.core.seed, device_id, message.person),
            user_id: message.user_id,
            device_id,
            person: message.person,
            phone,
            name: None,
            messages: Vec::new(),
            opened_at: Some(message.created_at),
        })
    }

    /// Tells screens that a chat changed, or several.
    pub(super) async fn tell_chat(&self, user: UserId, device_id: DeviceId, chat_id: Option<ChatId>) {
        let event = self.core.event(user, EventKind::ChatUpdate { device_id, chat_id });
        self.core.bus.publish(&[event]).await;
    }
}
