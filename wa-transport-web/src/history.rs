//! What chats held before a device was linked, as its phone tells when it is.
//!
//! The phone announces each part of the past by a message. The client confirms the part to the phone before it reads it, which cannot
//! be held back, and tells of it once: what is read waits in the session's line until the store takes it, and is lost with a process
//! that dies before.

use wa_core::domain::chat::{CHAT_TEXT_CHARS_MAX, ChatKind};
use wa_core::time::Timestamp;
use wa_core::transport::{ChatHistory, InboundMessage};
use whatsapp_rust::prelude::wa;
use whatsapp_rust::types::events::LazyHistorySync;
use whatsapp_rust::{Client, Jid};

use crate::inbound::{cut_to, known_as, said};
use crate::jid;

/// Most chats that are taken of one part of the past; phones tell the newest first.
pub(crate) const HISTORY_CHATS_MAX: usize = 1_000;

/// Most messages that are taken of one chat of one part, the newest.
pub(crate) const HISTORY_MESSAGES_MAX: usize = 200;

/// A chat as the phone tells it, whose person may be named by a LID.
pub(crate) struct PastChat {
    chat: Jid,
    other: Option<Jid>,
    name: Option<String>,
    unread: u32,
    messages: Vec<PastMessage>,
}

struct PastMessage {
    id: String,
    from_me: bool,
    at: Timestamp,
    kind: ChatKind,
    text: String,
}

fn message(info: &wa::WebMessageInfo) -> Option<PastMessage> {
    let key = info.key.as_option()?;
    let (kind, text) = said(info.message.as_option()?)?;
    let seconds = i64::try_from(info.message_timestamp?).ok()?;
    Some(PastMessage {
        id: key.id.clone()?,
        from_me: key.from_me.unwrap_or(false),
        at: Timestamp::from_millis(seconds.checked_mul(1_000)?),
        kind,
        text: cut_to(text, CHAT_TEXT_CHARS_MAX),
    })
}

fn chat(conversation: &wa::Conversation) -> Option<PastChat> {
    let chat: Jid = conversation.id.parse().ok()?;
    if !jid::is_person(&chat) {
        return None;
    }
    let infos = conversation.messages.iter().filter_map(|one| one.message.as_option());
    let mut messages: Vec<PastMessage> = infos.filter_map(message).collect();
    messages.sort_by_key(|message| std::cmp::Reverse(message.at));
    messages.truncate(HISTORY_MESSAGES_MAX);
    let name = conversation.display_name.clone().or_else(|| conversation.name.clone());
    (!messages.is_empty()).then(|| PastChat {
        chat,
        other: conversation.pn_jid.as_ref().and_then(|jid| jid.parse().ok()),
        name,
        unread: conversation.unread_count.unwrap_or(0),
        messages,
    })
}

/// Reads the personal chats of a part of the past. It may have megabytes: not for a thread that others wait for.
pub(crate) fn read(history: &LazyHistorySync) -> Vec<PastChat> {
    let mut chats = Vec::new();
    let mut stream = history.stream();
    loop {
        match stream.next_conversation() {
            Ok(Some(conversation)) => chats.extend(chat(&conversation)),
            Ok(None) => return chats,
            Err(error) => {
                tracing::warn!(%error, "a part of the past of a device could not be read to its end");
                return chats;
            }
        }
        if chats.len() == HISTORY_CHATS_MAX {
            tracing::info!("a part of the past of a device has more chats than are taken");
            return chats;
        }
    }
}

/// The same by numbers; nothing where WhatsApp does not tell the number of a person.
pub(crate) async fn by_number(client: &Client, past: PastChat) -> Option<ChatHistory> {
    let peer = jid::phone_of(client, &past.chat, past.other.as_ref()).await;
    let peer = peer
        .inspect_err(
            |error| tracing::warn!(%error, "whose chat a part of the past is could not be read; it is left aside"),
        )
        .ok()??;
    let messages = past.messages.into_iter().filter_map(|message| {
        Some(InboundMessage {
            provider_id: known_as(&message.id, &peer, message.from_me)?,
            peer,
            peer_name: None,
            kind: message.kind,
            text: message.text,
            media_url: None,
            from_me: message.from_me,
            at: Some(message.at),
        })
    });
    Some(ChatHistory {
        peer,
        peer_name: past.name,
        messages: messages.collect(),
        unread: past.unread,
    })
}

#[cfg(test)]
mod tests {
    use whatsapp_rust::prelude::{MessageBuilderExt, MessageField};

    use super::*;

    fn told(id: &str, at_s: Option<u64>, message: Option<wa::Message>) -> wa::HistorySyncMsg {
        let info = wa::WebMessageInfo {
            key: MessageField::some(wa::MessageKey {
                id: Some(id.to_owned()),
                ..Default::default()
            }),
            message: message.map_or_else(MessageField::default, MessageField::some),
            message_timestamp: at_s,
            ..Default::default()
        };
        wa::HistorySyncMsg {
            message: MessageField::some(info),
            ..Default::default()
        }
    }

    fn conversation(id: &str, messages: Vec<wa::HistorySyncMsg>) -> wa::Conversation {
        wa::Conversation {
            id: id.to_owned(),
            messages,
            unread_count: Some(2),
            ..Default::default()
        }
    }

    #[test]
    fn the_newest_messages_of_personal_chats_are_taken() {
        let text = || Some(wa::Message::text("hello"));
        let many = (0..=HISTORY_MESSAGES_MAX as u64).map(|at| told(&format!("m{at}"), Some(at), text()));
        let past = chat(&conversation("60123456789@s.whatsapp.net", many.collect())).unwrap();
        assert_eq!((past.messages.len(), past.unread), (HISTORY_MESSAGES_MAX, 2));
        assert_eq!(
            past.messages[0].at,
            Timestamp::from_millis(HISTORY_MESSAGES_MAX as i64 * 1_000)
        );
        assert!(
            past.messages.iter().all(|message| message.id != "m0"),
            "the oldest is left aside"
        );
        for id in [
            "120363000000000001@g.us",
            "status@broadcast",
            "120363000000000001@newsletter",
            "no address",
        ] {
            assert!(
                chat(&conversation(id, vec![told("m", Some(1), text())])).is_none(),
                "{id}"
            );
        }
    }

    #[test]
    fn what_says_nothing_or_has_no_time_is_left_aside() {
        let text = || Some(wa::Message::text("hello"));
        let empty = vec![
            told("a", Some(1), None),
            told("b", None, text()),
            told("c", Some(1), Some(wa::Message::default())),
            told("d", Some(u64::MAX), text()),
        ];
        assert!(chat(&conversation("60123456789@s.whatsapp.net", empty)).is_none());
    }
}
