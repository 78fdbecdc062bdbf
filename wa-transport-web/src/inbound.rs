//! What people write to a device, and what its own phone writes.
//!
//! WhatsApp is told that a message arrived only after [`TransportSink::accept`] has committed it; what was not committed is
//! delivered again at the next connection.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use wa_core::domain::phone::Phone;
use wa_core::id::{DeviceId, UserId};
use wa_core::time::Timestamp;
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
}

/// What a message says, for people and for what looks for words in it: the text, the caption, the choice, or what it shows. `None`
/// for what is no message to a person, such as the exchange of keys.
pub(crate) fn text_of(message: &wa::Message) -> Option<String> {
    if message.protocol_message.as_option().is_some() {
        return None;
    }
    let base = message.get_base_message();
    let said = |text: &Option<String>| Some(text.clone().unwrap_or_default());
    if let Some(text) = base.text_content() {
        return Some(text.to_owned());
    }
    if let Some(image) = base.image_message.as_option() {
        return said(&image.caption);
    }
    if let Some(video) = base.video_message.as_option() {
        return said(&video.caption);
    }
    if let Some(document) = base.document_message.as_option() {
        return said(&document.caption.clone().or_else(|| document.file_name.clone()));
    }
    if base.audio_message.as_option().is_some() || base.sticker_message.as_option().is_some() {
        return Some(String::new());
    }
    if let Some(location) = base.location_message.as_option() {
        let (latitude, longitude) = (location.degrees_latitude?, location.degrees_longitude?);
        let name = location.name.as_deref().unwrap_or_default();
        return Some(format!("{name} {latitude},{longitude}").trim().to_owned());
    }
    if let Some(contact) = base.contact_message.as_option() {
        return said(&contact.display_name);
    }
    if let Some(reaction) = base.reaction_message.as_option() {
        return said(&reaction.text);
    }
    if let Some(button) = base.buttons_response_message.as_option() {
        return match &button.response {
            Some(Response::SelectedDisplayText(text)) => Some(text.clone()),
            None => said(&button.selected_button_id),
        };
    }
    if let Some(button) = base.template_button_reply_message.as_option() {
        return said(&button.selected_display_text);
    }
    if let Some(choice) = base.list_response_message.as_option() {
        return said(&choice.title);
    }
    let interactive = base.interactive_response_message.as_option()?;
    said(&interactive.body.as_option().and_then(|body| body.text.clone()))
}

/// Ids of WhatsApp are unique within a chat alone.
fn id_of(id: &str, peer: &Phone) -> Option<TransportMessageId> {
    let digest = Sha256::digest(peer.digits().as_bytes());
    let chat: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    TransportMessageId::new(format!("{id}.{chat}"))
}

async fn read(client: &Client, message: &whatsapp_rust::types::events::InboundMessage) -> Option<InboundMessage> {
    let (info, source) = (&message.info, &message.info.source);
    if source.is_group || info.category == MessageCategory::Peer || !jid::is_person(&source.chat) {
        return None;
    }
    let mut text = text_of(&message.message)?;
    if let Some((at, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
        text.truncate(at);
    }
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
        provider_id: if source.is_from_me {
            // As our own messages are known, so that what another device of the account sent for us is recognised.
            TransportMessageId::new(info.id.as_str())?
        } else {
            id_of(&info.id, &peer)?
        },
        peer,
        peer_name: (!source.is_from_me && !info.push_name.is_empty()).then(|| info.push_name.clone()),
        text,
        media_url: None,
        from_me: source.is_from_me,
        at: Some(Timestamp::from_chrono(info.timestamp)),
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
            events.extend(read(&client, message).await.map(TransportEvent::Inbound));
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
            (wa::Message::text("hello"), "hello"),
            (
                wa::Message {
                    image_message: MessageField::some(wa::message::ImageMessage {
                        caption: some("look"),
                        ..Default::default()
                    }),
                    ..empty()
                },
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
                "offer.pdf",
            ),
            (
                wa::Message {
                    audio_message: MessageField::some(wa::message::AudioMessage::default()),
                    ..empty()
                },
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
                "Shop 3.5,101.25",
            ),
            (
                wa::Message {
                    reaction_message: MessageField::some(wa::message::ReactionMessage {
                        text: some("👍"),
                        ..Default::default()
                    }),
                    ..empty()
                },
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
                "Stop",
            ),
        ];
        for (message, text) in cases {
            assert_eq!(text_of(&message).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_devices_tell_each_other_is_no_message() {
        let keys = wa::Message {
            protocol_message: MessageField::some(wa::message::ProtocolMessage::default()),
            ..wa::Message::default()
        };
        assert_eq!(text_of(&keys), None);
        assert_eq!(text_of(&wa::Message::default()), None);
    }

    #[test]
    fn one_id_from_two_people_is_two_messages() {
        let [one, other] = ["+60123456789", "+60123456780"].map(|text| Phone::from_e164(text).unwrap());
        assert_ne!(id_of("3EB0", &one), id_of("3EB0", &other));
        assert!(!id_of("3EB0", &one).unwrap().as_str().contains("6012"));
    }
}
