//! Chats: what a device and a person wrote to each other, and what the device's own phone wrote.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::content::MediaKind;
use super::delivery::Delivery;
use super::message::{Message, MessageState};
use super::phone::{PersonKey, Phone};
use crate::id::{ChatId, ChatMessageId, DeviceId, MessageId, UserId};
use crate::seed::Seed;
use crate::time::Timestamp;
use crate::transport::TransportMessageId;

/// Longest text of a chat's message that is kept, in characters; what is longer is cut.
pub const CHAT_TEXT_CHARS_MAX: usize = 10_000;

/// Longest name of a person that is kept with a chat, in characters; what is longer is cut.
pub const CHAT_NAME_CHARS_MAX: usize = 100;

impl ChatId {
    /// The id of the chat of a device and a person: always the same, and nobody without the seed can compute or reverse it, so that
    /// it may stand in addresses and logs where a number must not.
    #[must_use]
    pub fn of(seed: &Seed, device: DeviceId, person: PersonKey) -> Self {
        let key = [device.as_bytes().as_slice(), person.as_bytes()].concat();
        let digest = seed.digest(&key, "chat");
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self::from_uuid(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum ChatKind {
    /// Words.
    Text = 1,
    /// A picture, perhaps with a caption; a sticker too.
    Image = 2,
    /// A film, perhaps with a caption.
    Video = 3,
    /// A sound or voice recording.
    Audio = 4,
    /// A file; its text is the caption or the name.
    Document = 5,
    /// A place; its text has the name and the coordinates.
    Location = 6,
    /// Somebody's card; its text is the name.
    Contact = 7,
    /// A sign put on another message; its text is the sign, empty when it was taken away.
    Reaction = 8,
    /// A choice among answers that were offered; its text is the answer.
    ButtonReply = 9,
}

impl ChatKind {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Text),
            2 => Some(Self::Image),
            3 => Some(Self::Video),
            4 => Some(Self::Audio),
            5 => Some(Self::Document),
            6 => Some(Self::Location),
            7 => Some(Self::Contact),
            8 => Some(Self::Reaction),
            9 => Some(Self::ButtonReply),
            _ => None,
        }
    }

    const fn of_media(media: MediaKind) -> Self {
        match media {
            MediaKind::Image => Self::Image,
            MediaKind::Video => Self::Video,
            MediaKind::Audio => Self::Audio,
            MediaKind::Document => Self::Document,
        }
    }
}

/// Who wrote a message that a chat keeps itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ChatWriter {
    /// The person.
    Person = 1,
    /// Whoever holds the device's own phone.
    OwnPhone = 2,
}

impl ChatWriter {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Person),
            2 => Some(Self::OwnPhone),
            _ => None,
        }
    }
}

/// Where a message of a chat came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatAuthor {
    /// The person or the device's own phone wrote it.
    Writer(ChatWriter),
    /// The engine: it is a row of the outbox.
    Engine {
        /// The row.
        message_id: MessageId,
        /// How far it is.
        state: MessageState,
        /// What receipts said of it.
        delivery: Option<Delivery>,
    },
}

/// One message of a chat, as people see it.
#[derive(Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Its id; that of its row in the outbox where the engine sent it.
    pub id: ChatMessageId,
    /// Its chat.
    pub chat_id: ChatId,
    /// Who wrote it.
    pub author: ChatAuthor,
    /// What it is.
    pub kind: ChatKind,
    /// The text or caption, at most [`CHAT_TEXT_CHARS_MAX`] characters where the chat keeps it itself.
    pub text: String,
    /// When it was written; what waits to be sent has the instant at which it was asked for.
    pub at: Timestamp,
    /// The vendor's id, or the id under which the engine sent it.
    pub provider_id: Option<TransportMessageId>,
}

impl fmt::Debug for ChatMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatMessage")
            .field("id", &self.id)
            .field("chat_id", &self.chat_id)
            .field("author", &self.author)
            .field("kind", &self.kind)
            .field("text_len", &self.text.len())
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl ChatMessage {
    /// Where it stands in its chat.
    #[must_use]
    pub const fn place(&self) -> ChatMessagePlace {
        Place {
            at: self.at,
            id: self.id,
        }
    }

    /// What a chat shows of a row of the outbox: what was or may have been sent, what failed when it was tried, and what a person
    /// wrote that waits. Campaigns and sequences show what they sent, not what they are about to send; of an erased person nothing
    /// is shown.
    #[must_use]
    pub fn of_outbox(chat_id: ChatId, message: &Message) -> Option<Self> {
        use MessageState::{Failed, Held, InDoubt, Queued, Sending, Sent, Unknown};
        message.phone?;
        let attempt = message.attempt.as_ref();
        let at = match message.state {
            Queued | Held if !message.scope.is_bulk() => message.created_at,
            Sending | InDoubt | Sent | Failed | Unknown => attempt?.attempted_at,
            _ => return None,
        };
        let content = message.content.as_ref();
        let text = match attempt {
            Some(attempt) => attempt.text.clone(),
            None => content.map(|content| content.text.clone()).unwrap_or_default(),
        };
        let media = content.and_then(|content| content.media.as_ref());
        Some(Self {
            id: ChatMessageId::from_uuid(*message.id.as_uuid()),
            chat_id,
            author: ChatAuthor::Engine {
                message_id: message.id,
                state: message.state,
                delivery: message.delivery,
            },
            kind: media.map_or(ChatKind::Text, |media| ChatKind::of_media(media.kind)),
            text,
            at,
            provider_id: attempt.map(|attempt| attempt.transport_message_id.clone()),
        })
    }
}

/// A chat of a device and a person.
#[derive(Clone, PartialEq, Eq)]
pub struct Chat {
    /// Its id, see [`ChatId::of`].
    pub id: ChatId,
    /// The device's user.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The person.
    pub person: PersonKey,
    /// The person's number.
    pub phone: Phone,
    /// The name that the person gave themselves, at most [`CHAT_NAME_CHARS_MAX`] characters.
    pub name: Option<String>,
    /// Messages of the person that nobody has read.
    pub unread: u32,
    /// The instant that chats are ordered by: that of the newest message of the person or the own phone, or of the last message
    /// that somebody sent to the person by hand.
    pub last_at: Timestamp,
    /// The newest message, whoever wrote it; `None` when all were removed or none was sent yet.
    pub last: Option<ChatMessage>,
}

impl Chat {
    /// Where it stands among the chats of its device.
    #[must_use]
    pub const fn place(&self) -> ChatPlace {
        Place {
            at: self.last_at,
            id: self.id,
        }
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chat")
            .field("id", &self.id)
            .field("device_id", &self.device_id)
            .field("phone", &self.phone)
            .field("unread", &self.unread)
            .field("last_at", &self.last_at)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// A place in a list that is ordered by instants, and by ids where those are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place<I> {
    /// The instant.
    pub at: Timestamp,
    /// The id.
    pub id: I,
}

impl<I: fmt::Display> fmt::Display for Place<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.as_millis(), self.id)
    }
}

/// A text that is no place where one was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be milliseconds and an id with a dot between them")]
pub struct ParsePlaceError;

impl<I: FromStr> FromStr for Place<I> {
    type Err = ParsePlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (at, id) = text.split_once('.').ok_or(ParsePlaceError)?;
        Ok(Self {
            at: Timestamp::from_millis(at.parse().map_err(|_| ParsePlaceError)?),
            id: id.parse().map_err(|_| ParsePlaceError)?,
        })
    }
}

/// A place among the chats of a device.
pub type ChatPlace = Place<ChatId>;

/// A place among the messages of a chat.
pub type ChatMessagePlace = Place<ChatMessageId>;

/// The highest id there is.
const LAST_ID: Uuid = Uuid::max();

impl ChatPlace {
    /// After every chat: where a list of the newest first begins.
    pub const LAST: Self = Self {
        at: Timestamp::from_millis(i64::MAX),
        id: ChatId::from_uuid(LAST_ID),
    };
}

impl ChatMessagePlace {
    /// After every message: where a list of the newest first begins.
    pub const LAST: Self = Self {
        at: Timestamp::from_millis(i64::MAX),
        id: ChatMessageId::from_uuid(LAST_ID),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_chat_follows_from_device_and_person_and_from_the_seed() {
        let (seed, other) = (Seed::from_number(1), Seed::from_number(2));
        let [one, two] = [1, 2].map(|n| PersonKey::from_slice(&[n; 16]).unwrap());
        let device = DeviceId::MIN;
        assert_eq!(ChatId::of(&seed, device, one), ChatId::of(&seed, device, one));
        assert_ne!(ChatId::of(&seed, device, one), ChatId::of(&seed, device, two));
        assert_ne!(ChatId::of(&seed, device, one), ChatId::of(&other, device, one));
        let elsewhere = DeviceId::from_uuid(Uuid::max());
        assert_ne!(ChatId::of(&seed, device, one), ChatId::of(&seed, elsewhere, one));
    }

    #[test]
    fn a_place_comes_back_as_it_was_written() {
        for place in [
            ChatPlace::LAST,
            Place {
                at: Timestamp::from_millis(-5),
                id: ChatId::MIN,
            },
        ] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for text in ["", "5", "x.y", "5.", "5.x"] {
            assert_eq!(text.parse::<ChatPlace>(), Err(ParsePlaceError), "{text}");
        }
    }

    #[test]
    fn kinds_and_writers_come_back_from_their_numbers() {
        for number in 1..=9 {
            assert_eq!(ChatKind::from_u8(number).map(|kind| kind as u8), Some(number));
        }
        assert_eq!((ChatKind::from_u8(0), ChatKind::from_u8(10)), (None, None));
        for writer in [ChatWriter::Person, ChatWriter::OwnPhone] {
            assert_eq!(ChatWriter::from_u8(writer as u8), Some(writer));
        }
        assert_eq!(ChatWriter::from_u8(3), None);
    }

    #[test]
    fn no_output_shows_what_was_written_or_by_whom() {
        let message = ChatMessage {
            id: ChatMessageId::MIN,
            chat_id: ChatId::MIN,
            author: ChatAuthor::Writer(ChatWriter::Person),
            kind: ChatKind::Text,
            text: "a secret".to_owned(),
            at: Timestamp::from_millis(1),
            provider_id: None,
        };
        let chat = Chat {
            id: ChatId::MIN,
            user_id: UserId::MIN,
            device_id: DeviceId::MIN,
            person: PersonKey::from_slice(&[1; 16]).unwrap(),
            phone: Phone::from_e164("+60123456789").unwrap(),
            name: Some("Aminah".to_owned()),
            unread: 1,
            last_at: Timestamp::from_millis(1),
            last: Some(message),
        };
        let shown = format!("{chat:?}");
        assert!(
            !shown.contains("secret") && !shown.contains("Aminah") && !shown.contains("3456789"),
            "{shown}"
        );
    }
}
