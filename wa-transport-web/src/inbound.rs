//! What people write to a device, and what its own phone writes.
//!
//! WhatsApp is told that a message arrived only after [`TransportSink::accept`] has committed it; what was not committed is
//! delivered again at the next connection.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use wa_core::domain::chat::ChatKind;
use wa_core::domain::phone::Phone;
use wa_core::id::{DeviceId, UserId};
use wa_core::time::{Clock, Timestamp};
use wa_core::transport::{InboundMessage, TransportEvent, TransportMessageId, TransportSink};
use whatsapp_rust::anyhow;
use whatsapp_rust::prelude::{MessageExt, wa};
use whatsapp_rust::types::message::MessageCategory;
use whatsapp_rust::waproto::whatsapp::message::buttons_response_message::Response;
use whatsapp_rust::{Client, InboundDurabilityHook};

use crate::jid;

/// Longest text that is taken, in characters.
pub(crate) const TEXT_CHARS_MAX: usize = 65_536;

/// Where events go; set once the engine's handle is there.
pub(crate) type Sink = Arc<OnceLock<Arc<dyn TransportSink>>>;

/// Takes the messages of one device.
pub(crate) struct Inbox {
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
    pub(crate) sink: Sink,
    pub(crate) clock: Arc<dyn Clock>,
}

/// When a message was written of which WhatsApp tells the second: at its end, if that has come. So it stands after what was sent
/// before it came.
fn written_at(second: Timestamp, now: Timestamp) -> Timestamp {
    now.min(second + Duration::from_millis(999)).max(second)
}

/// What a message is and says, for people and for what looks for words in it: the text, the caption, the choice, or what it shows.
/// `None` for what is no message to a person, such as the exchange of keys.
pub(crate) fn said(message: &wa::Message) -> Option<(ChatKind, String)> {
    if message.protocol_message.as_option().is_some() {
        return None;
    }
    let base = message.get_base_message();
    let some = |kind: ChatKind, text: &Option<String>| Some((kind, text.clone().unwrap_or_default()));
    if let Some(text) = base.text_content() {
        return Some((ChatKind::Text, text.to_owned()));
    }
    if let Some(image) = base.image_message.as_option() {
        return some(ChatKind::Image, &image.caption);
    }
    if let Some(video) = base.video_message.as_option().or(base.ptv_message.as_option()) {
        return some(ChatKind::Video, &video.caption);
    }
    if let Some(document) = base.document_message.as_option() {
        let words = document.caption.clone().or_else(|| document.file_name.clone());
        return some(ChatKind::Document, &words);
    }
    if base.audio_message.as_option().is_some() {
        return Some((ChatKind::Audio, String::new()));
    }
    if base.sticker_message.as_option().is_some() {
        return Some((ChatKind::Image, String::new()));
    }
    if let Some(location) = base.location_message.as_option() {
        let (latitude, longitude) = (location.degrees_latitude?, location.degrees_longitude?);
        let name = location.name.as_deref().unwrap_or_default();
        let words = format!("{name} {latitude},{longitude}");
        return Some((ChatKind::Location, words.trim().to_owned()));
    }
    if let Some(location) = base.live_location_message.as_option() {
        let (latitude, longitude) = (location.degrees_latitude?, location.degrees_longitude?);
        return Some((ChatKind::Location, format!("{latitude},{longitude}")));
    }
    if let Some(contact) = base.contact_message.as_option() {
        return Some((ChatKind::Contact, card(contact)));
    }
    if let Some(contacts) = base.contacts_array_message.as_option() {
        let cards: Vec<String> = contacts.contacts.iter().map(card).collect();
        return Some((ChatKind::Contact, cards.join("\n")));
    }
    if let Some(reaction) = base.reaction_message.as_option() {
        return some(ChatKind::Reaction, &reaction.text);
    }
    if let Some(button) = base.buttons_response_message.as_option() {
        return match &button.response {
            Some(Response::SelectedDisplayText(text)) => Some((ChatKind::ButtonReply, text.clone())),
            None => some(ChatKind::ButtonReply, &button.selected_button_id),
        };
    }
    if let Some(button) = base.template_button_reply_message.as_option() {
        return some(ChatKind::ButtonReply, &button.selected_display_text);
    }
    if let Some(choice) = base.list_response_message.as_option() {
        return some(ChatKind::ButtonReply, &choice.title);
    }
    let interactive = base.interactive_response_message.as_option()?;
    let body = interactive.body.as_option().and_then(|body| body.text.clone());
    some(ChatKind::ButtonReply, &body)
}

/// Somebody's card: the name, and the numbers of its vCard (RFC 6350).
fn card(contact: &wa::message::ContactMessage) -> String {
    let name = contact.display_name.iter().map(String::as_str);
    let lines = contact.vcard.as_deref().unwrap_or_default().lines();
    let numbers = lines.filter_map(|line| {
        let (property, value) = line.trim().split_once(':')?;
        let property = property.rsplit('.').next()?.split(';').next()?;
        let number = value.strip_prefix("tel:").unwrap_or(value);
        property.eq_ignore_ascii_case("TEL").then_some(number)
    });
    name.chain(numbers).collect::<Vec<_>>().join(" ")
}

/// A text, cut to [`TEXT_CHARS_MAX`].
pub(crate) fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
        text.truncate(at);
    }
    text
}

/// Ids of WhatsApp are unique within a chat alone.
fn id_of(id: &str, peer: &Phone) -> Option<TransportMessageId> {
    let digest = Sha256::digest(peer.digits().as_bytes());
    let chat: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    TransportMessageId::new(format!("{id}.{chat}"))
}

/// The id by which a message is told: what the own phone wrote in the form of our own ids, so that what another device of the account
/// sent for us is recognised.
pub(crate) fn known_as(id: &str, peer: &Phone, from_me: bool) -> Option<TransportMessageId> {
    if from_me {
        TransportMessageId::new(id)
    } else {
        id_of(id, peer)
    }
}

async fn read(
    client: &Client,
    message: &whatsapp_rust::types::events::InboundMessage,
    now: Timestamp,
) -> Option<InboundMessage> {
    let (info, source) = (&message.info, &message.info.source);
    if source.is_group || info.category == MessageCategory::Peer || !jid::is_person(&source.chat) {
        return None;
    }
    let (kind, text) = said(&message.message)?;
    let peer = if source.is_from_me {
        let other = source.recipient_alt.as_ref().or(info.peer_recipient_pn.as_ref());
        jid::phone_of(client, &source.chat, other).await
    } else {
        jid::phone_of(client, &source.sender, source.sender_alt.as_ref()).await
    };
    let Some(peer) = peer else {
        tracing::warn!("a message of somebody whose number WhatsApp does not tell was left aside");
        return None;
    };
    Some(InboundMessage {
        provider_id: known_as(&info.id, &peer, source.is_from_me)?,
        peer,
        peer_name: (!source.is_from_me && !info.push_name.is_empty()).then(|| info.push_name.clone()),
        kind,
        text: cut(text),
        media_url: None,
        from_me: source.is_from_me,
        at: Some(written_at(Timestamp::from_chrono(info.timestamp), now)),
    })
}

#[async_trait]
impl InboundDurabilityHook for Inbox {
    async fn on_messages(
        &self,
        client: Arc<Client>,
        batch: &[whatsapp_rust::types::events::InboundMessage],
    ) -> anyhow::Result<()> {
        let mut events = Vec::new();
        for message in batch {
            let read = read(&client, message, self.clock.wall()).await;
            events.extend(read.map(TransportEvent::Inbound));
        }
        if events.is_empty() {
            return Ok(());
        }
        let sink = self
            .sink
            .get()
            .ok_or_else(|| anyhow::anyhow!("nobody takes events yet"))?;
        sink.accept(self.user_id, self.device_id, events).await.map_err(|error| {
            tracing::warn!(device = %self.device_id, %error, "messages could not be stored; they are delivered again");
            anyhow::anyhow!("not committed")
        })
    }
}

#[cfg(test)]
mod tests {
    use whatsapp_rust::prelude::{MessageBuilderExt, MessageField};

    use super::*;

    #[test]
    fn every_kind_of_message_says_something() {
        let empty = wa::Message::default;
        let some = |text: &str| Some(text.to_owned());
        let cases = [
            (wa::Message::text("hello"), ChatKind::Text, "hello"),
            (
                wa::Message {
                    image_message: MessageField::some(wa::message::ImageMessage {
                        caption: some("look"),
                        ..Default::default()
                    }),
                    ..empty()
                },
                ChatKind::Image,
                "look",
            ),
            (
                wa::Message {
                    document_message: MessageField::some(wa::message::DocumentMessage {
                        file_name: some("offer.pdf"),
                        ..Default::default()
                    }),
                    ..empty()
                },
                ChatKind::Document,
                "offer.pdf",
            ),
            (
                wa::Message {
                    audio_message: MessageField::some(wa::message::AudioMessage::default()),
                    ..empty()
                },
                ChatKind::Audio,
                "",
            ),
            (
                wa::Message {
                    location_message: MessageField::some(wa::message::LocationMessage {
                        degrees_latitude: Some(3.5),
                        degrees_longitude: Some(101.25),
                        name: some("Shop"),
                        ..Default::default()
                    }),
                    ..empty()
                },
                ChatKind::Location,
                "Shop 3.5,101.25",
            ),
            (
                wa::Message {
                    contact_message: MessageField::some(wa::message::ContactMessage {
                        display_name: some("Ali"),
                        vcard: some(
                            "BEGIN:VCARD\r\nFN:Ali\r\nitem1.TEL;waid=60123456789:+60 12-345 6789\r\nTEL;VALUE=uri:tel:+60120000000\r\nEND:VCARD",
                        ),
                        ..Default::default()
                    }),
                    ..empty()
                },
                ChatKind::Contact,
                "Ali +60 12-345 6789 +60120000000",
            ),
            (
                wa::Message {
                    reaction_message: MessageField::some(wa::message::ReactionMessage {
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
                    buttons_response_message: MessageField::some(wa::message::ButtonsResponseMessage {
                        response: Some(Response::SelectedDisplayText("Stop".to_owned())),
                        ..Default::default()
                    }),
                    ..empty()
                },
                ChatKind::ButtonReply,
                "Stop",
            ),
        ];
        for (message, kind, text) in cases {
            assert_eq!(said(&message), Some((kind, text.to_owned())));
        }
    }

    #[test]
    fn what_devices_tell_each_other_is_no_message() {
        let keys = wa::Message {
            protocol_message: MessageField::some(wa::message::ProtocolMessage::default()),
            ..wa::Message::default()
        };
        assert_eq!(said(&keys), None);
        assert_eq!(said(&wa::Message::default()), None);
    }

    #[test]
    fn what_was_written_in_this_second_was_written_just_now() {
        let at = Timestamp::from_millis;
        for (second, now, expected) in [(5_000, 5_400, 5_400), (5_000, 9_000, 5_999), (5_000, 4_000, 5_000)] {
            assert_eq!(written_at(at(second), at(now)), at(expected));
        }
    }

    #[test]
    fn one_id_from_two_people_is_two_messages() {
        let [one, other] = ["+60123456789", "+60123456780"].map(|text| Phone::from_e164(text).unwrap());
        assert_ne!(id_of("3EB0", &one), id_of("3EB0", &other));
        assert!(!id_of("3EB0", &one).unwrap().as_str().contains("6012"));
    }
}
