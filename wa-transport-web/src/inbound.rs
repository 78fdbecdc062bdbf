//! What people write to a device, and what its own phone writes.
//!
//! WhatsApp is told that a message arrived only after [`TransportSink::accept`] has committed it; what was not committed is
//! delivered again at the next connection. That may be days away, therefore the sink is asked again: for a few seconds by whoever
//! brings the message, then by the session ([`Missed`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use wa_core::domain::chat::ChatKind;
use wa_core::domain::phone::Phone;
use wa_core::id::{DeviceId, UserId};
use wa_core::time::{Clock, Timestamp};
use wa_core::transport::{InboundMessage, TransportEvent, TransportMessageId, TransportSink};
use whatsapp_rust::anyhow;
use whatsapp_rust::prelude::{MessageExt, wa};
use whatsapp_rust::types::events::InboundMessage as Delivered;
use whatsapp_rust::types::message::MessageCategory;
use whatsapp_rust::waproto::whatsapp::message::buttons_response_message::Response;
use whatsapp_rust::{Client, InboundDurabilityHook};

use crate::jid;

/// Longest text that is taken, in characters.
pub(crate) const TEXT_CHARS_MAX: usize = 65_536;

/// How long after the sink took no messages it is asked again, by whoever brings them; meanwhile those after them in their chat wait.
const AGAIN_AFTER: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// Most messages of a device that are kept until the sink takes them; WhatsApp is asked for those beyond.
const MISSED_MAX: usize = 1_000;

/// Where events go; set once the engine's handle is there.
pub(crate) type Sink = Arc<OnceLock<Arc<dyn TransportSink>>>;

/// Takes the messages of one device.
pub(crate) struct Inbox {
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
    pub(crate) sink: Sink,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) missed: Arc<Missed>,
}

/// What the sink did not take of a device's messages.
#[derive(Default)]
pub(crate) struct Missed {
    held: Mutex<Held>,
    /// Rings when there is more.
    bell: Notify,
}

#[derive(Default)]
struct Held {
    messages: VecDeque<TransportEvent>,
    /// Whether there are others, which only WhatsApp has.
    others: bool,
}

impl Missed {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, messages: Vec<TransportEvent>) {
        {
            let mut held = self.held();
            let room = MISSED_MAX.saturating_sub(held.messages.len());
            held.others |= messages.len() > room;
            held.messages.extend(messages.into_iter().take(room));
        }
        self.bell.notify_one();
    }

    /// Some message could not even be read.
    fn add_unread(&self) {
        self.held().others = true;
        self.bell.notify_one();
    }

    /// Waits until there is more.
    pub(crate) async fn rang(&self) {
        self.bell.notified().await;
    }

    /// All that are kept, the oldest first.
    pub(crate) fn messages(&self) -> Vec<TransportEvent> {
        self.held().messages.iter().cloned().collect()
    }

    /// The sink has taken a message.
    pub(crate) fn taken(&self, message: &TransportEvent) {
        let mut held = self.held();
        if let Some(at) = held.messages.iter().position(|one| one == message) {
            held.messages.remove(at);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held().messages.is_empty()
    }

    /// Whether there are others, which WhatsApp has to deliver again; asked once.
    pub(crate) fn take_others(&self) -> bool {
        std::mem::take(&mut self.held().others)
    }
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
pub(crate) fn cut(text: String) -> String {
    cut_to(text, TEXT_CHARS_MAX)
}

/// A text, cut to so many characters.
pub(crate) fn cut_to(mut text: String, chars_max: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(chars_max) {
        text.truncate(at);
    }
    text
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Ids of WhatsApp are unique within a chat alone. The sender chooses them: a digest stands for one that cannot be kept.
fn id_of(id: &str, peer: &Phone) -> Option<TransportMessageId> {
    let chat = hexadecimal(&Sha256::digest(peer.digits().as_bytes())[..4]);
    let short = TransportMessageId::new(format!("{id}.{chat}"));
    short.or_else(|| TransportMessageId::new(format!("#{}.{chat}", hexadecimal(&Sha256::digest(id.as_bytes())))))
}

/// The id by which a message is told: what the own phone wrote in the form of our own ids, so that what another device of the account
/// sent for us is recognised.
pub(crate) fn known_as(id: &str, peer: &Phone, from_me: bool) -> Option<TransportMessageId> {
    if from_me {
        TransportMessageId::new(id).or_else(|| id_of(id, peer))
    } else {
        id_of(id, peer)
    }
}

async fn read(client: &Client, message: &Delivered, now: Timestamp) -> anyhow::Result<Option<InboundMessage>> {
    let (info, source) = (&message.info, &message.info.source);
    if source.is_group || info.category == MessageCategory::Peer || !jid::is_person(&source.chat) {
        return Ok(None);
    }
    let Some((kind, text)) = said(&message.message) else {
        return Ok(None);
    };
    let peer = if source.is_from_me {
        let other = source.recipient_alt.as_ref().or(info.peer_recipient_pn.as_ref());
        jid::phone_of(client, &source.chat, other).await?
    } else {
        jid::phone_of(client, &source.sender, source.sender_alt.as_ref()).await?
    };
    let Some(peer) = peer else {
        tracing::warn!("a message of somebody whose number WhatsApp does not tell was left aside");
        return Ok(None);
    };
    let Some(provider_id) = known_as(&info.id, &peer, source.is_from_me) else {
        return Ok(None);
    };
    Ok(Some(InboundMessage {
        provider_id,
        peer,
        peer_name: (!source.is_from_me && !info.push_name.is_empty()).then(|| info.push_name.clone()),
        kind,
        text: cut(text),
        media_url: None,
        from_me: source.is_from_me,
        at: Some(written_at(Timestamp::from_chrono(info.timestamp), now)),
    }))
}

impl Inbox {
    async fn read(&self, client: &Client, batch: &[Delivered]) -> anyhow::Result<Vec<TransportEvent>> {
        let mut events = Vec::new();
        for message in batch {
            let read = read(client, message, self.clock.wall()).await?;
            events.extend(read.map(TransportEvent::Inbound));
        }
        Ok(events)
    }

    async fn pass_on(&self, events: Vec<TransportEvent>) -> anyhow::Result<()> {
        let sink = self
            .sink
            .get()
            .ok_or_else(|| anyhow::anyhow!("nobody takes events yet"))?;
        Ok(sink.accept(self.user_id, self.device_id, events).await?)
    }
}

#[async_trait]
impl InboundDurabilityHook for Inbox {
    async fn on_messages(&self, client: Arc<Client>, batch: &[Delivered]) -> anyhow::Result<()> {
        let mut again_after = AGAIN_AFTER.into_iter();
        let mut read: Option<Vec<TransportEvent>> = None;
        loop {
            let tried = match &read {
                Some(events) => Ok(events.clone()),
                None => self.read(&client, batch).await,
            };
            let tried = match tried {
                Ok(events) if events.is_empty() => return Ok(()),
                Ok(events) => {
                    read = Some(events.clone());
                    self.pass_on(events).await
                }
                Err(error) => Err(error),
            };
            let Err(error) = tried else { return Ok(()) };
            let Some(wait) = again_after.next() else {
                tracing::warn!(device = %self.device_id, %error, "messages could not be stored; it is tried again from time to time");
                match read {
                    Some(events) => self.missed.add(events),
                    None => self.missed.add_unread(),
                }
                return Err(anyhow::anyhow!("not committed"));
            };
            tokio::time::sleep(wait).await;
        }
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
        let long = "A".repeat(600);
        assert_ne!(id_of(&long, &one), id_of(&"A".repeat(601), &one));
        assert_ne!(id_of(&long, &one), id_of(&long, &other));
        for from_me in [false, true] {
            assert!(known_as(&long, &one, from_me).is_some());
        }
    }
}
