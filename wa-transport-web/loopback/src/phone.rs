//! What a phone tells the devices that are linked to it: its keys, and the chats that it has.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rand::Rng as _;
use whatsapp_rust::buffa::{Message as _, MessageField};
use whatsapp_rust::wacore::messages::MessageUtils;
use whatsapp_rust::waproto::whatsapp::{self as wa, message as parts};
use whatsapp_rust::{Jid, NodeBuilder};

use crate::error::PersonError;
use crate::person::{Person, client_error};

/// A chat of the time before a device was linked.
#[derive(Debug, Clone)]
#[must_use]
pub struct PastChat {
    with: Jid,
    messages: Vec<wa::HistorySyncMsg>,
}

impl PastChat {
    /// A chat with a number, without messages yet.
    pub fn with(phone: &str) -> Self {
        Self {
            with: Jid::pn(phone),
            messages: Vec::new(),
        }
    }

    /// A text of the other person, at a time in seconds since 1970.
    pub fn they_wrote(self, id: &str, at_s: u64, text: &str) -> Self {
        self.message(id, at_s, text, Side::Theirs)
    }

    /// A text of the phone's owner, at a time in seconds since 1970.
    pub fn i_wrote(self, id: &str, at_s: u64, text: &str) -> Self {
        self.message(id, at_s, text, Side::Mine)
    }

    fn message(mut self, id: &str, at_s: u64, text: &str, side: Side) -> Self {
        let info = wa::WebMessageInfo {
            key: MessageField::some(wa::MessageKey {
                remote_jid: Some(self.with.to_string()),
                from_me: Some(side == Side::Mine),
                id: Some(id.to_owned()),
                participant: None,
            }),
            message: MessageField::some(wa::Message {
                conversation: Some(text.to_owned()),
                ..Default::default()
            }),
            message_timestamp: Some(at_s),
            ..Default::default()
        };
        let order = self.messages.len() as u64 + 1;
        self.messages.push(wa::HistorySyncMsg {
            message: MessageField::some(info),
            msg_order_id: Some(order),
        });
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Mine,
    Theirs,
}

impl Person {
    /// Sends a linked device the key of the account's settings, as a phone does when it has linked one. The device
    /// waits ten seconds for it before it is ready.
    ///
    /// # Errors
    /// When the phone is offline, or its client fails.
    pub async fn share_keys(&self, device: &Jid) -> Result<(), PersonError> {
        let mut rng = self.rng("settings key");
        let (mut id, mut key) = (vec![0; 6], vec![0; 32]);
        rng.fill_bytes(&mut id);
        rng.fill_bytes(&mut key);
        let share = parts::AppStateSyncKeyShare {
            keys: vec![parts::AppStateSyncKey {
                key_id: MessageField::some(parts::AppStateSyncKeyId { key_id: Some(id) }),
                key_data: MessageField::some(parts::AppStateSyncKeyData {
                    key_data: Some(key),
                    fingerprint: MessageField::some(parts::AppStateSyncKeyFingerprint {
                        raw_id: Some(1),
                        current_index: Some(u32::from(device.device)),
                        device_indexes: vec![0, u32::from(device.device)],
                    }),
                    timestamp: Some(1_700_000_000),
                }),
            }],
        };
        self.tell(
            device,
            parts::ProtocolMessage {
                r#type: Some(parts::protocol_message::Type::APP_STATE_SYNC_KEY_SHARE),
                app_state_sync_key_share: MessageField::some(share),
                ..Default::default()
            },
        )
        .await
    }

    /// Sends a linked device the chats that the phone has from before.
    ///
    /// # Errors
    /// When the phone is offline, or its client fails.
    pub async fn share_history(&self, device: &Jid, chats: Vec<PastChat>) -> Result<(), PersonError> {
        let history = wa::HistorySync {
            sync_type: wa::history_sync::HistorySyncType::INITIAL_BOOTSTRAP,
            conversations: chats
                .into_iter()
                .map(|chat| wa::Conversation {
                    id: chat.with.to_string(),
                    messages: chat.messages,
                    ..Default::default()
                })
                .collect(),
            progress: Some(100),
            ..Default::default()
        };
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        let packed = zlib
            .write_all(&history.encode_to_vec())
            .and_then(|()| zlib.finish())
            .map_err(client_error)?;
        let notification = parts::HistorySyncNotification {
            file_length: Some(packed.len() as u64),
            sync_type: Some(parts::HistorySyncType::INITIAL_BOOTSTRAP),
            initial_hist_bootstrap_inline_payload: Some(packed),
            chunk_order: Some(1),
            progress: Some(100),
            ..Default::default()
        };
        self.tell(
            device,
            parts::ProtocolMessage {
                r#type: Some(parts::protocol_message::Type::HISTORY_SYNC_NOTIFICATION),
                history_sync_notification: MessageField::some(notification),
                ..Default::default()
            },
        )
        .await
    }

    /// Sends one of the account's own devices what people do not see.
    async fn tell(&self, device: &Jid, content: parts::ProtocolMessage) -> Result<(), PersonError> {
        let client = self.client().await?;
        let message = wa::Message {
            protocol_message: MessageField::some(content),
            ..Default::default()
        };
        let signal = client.signal();
        signal
            .assert_sessions(std::slice::from_ref(device))
            .await
            .map_err(client_error)?;
        let (kind, sealed) = signal
            .encrypt_message(device, &MessageUtils::encode_and_pad(&message))
            .await
            .map_err(client_error)?;
        let enc = NodeBuilder::new("enc")
            .attr("v", "2")
            .attr("type", kind.as_wire_str())
            .bytes(sealed)
            .build();
        let stanza = NodeBuilder::new("message")
            .attr("to", device)
            .attr("id", client.generate_message_id())
            .attr("type", "protocol")
            .attr("category", "peer")
            .attr("push_priority", "high")
            .children([enc])
            .build();
        client.send_node(stanza).await.map_err(client_error)
    }
}
