//! The callbacks that a gateway makes to the server.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wa_core::time::Timestamp;

use super::client::http_client;
use super::ledger::{Accepted, Progress};
use super::script::{GatewayDevice, Vendor};

/// Most callbacks under way at once.
const IN_FLIGHT_MAX: usize = 16;

/// What a person writes to a device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// The device.
    pub serial: String,
    /// Who writes, digits only.
    pub number: String,
    /// What.
    pub text: String,
}

impl Inbound {
    /// A text of a person to a device.
    #[must_use]
    pub fn new(serial: impl Into<String>, number: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            serial: serial.into(),
            number: number.into(),
            text: text.into(),
        }
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

/// Makes callbacks, once each: neither vendor documents that it tries again.
#[derive(Debug)]
pub(super) struct Callbacks {
    client: reqwest::Client,
    slots: Semaphore,
}

impl Callbacks {
    pub fn new() -> Self {
        Self {
            client: http_client(),
            slots: Semaphore::new(IN_FLIGHT_MAX),
        }
    }

    /// Wablas: how a message fares.
    pub async fn tracking(&self, device: &GatewayDevice, message: &Accepted, progress: Progress) -> bool {
        let body = json!({
            "id": message.id,
            "phone": message.number,
            "status": progress.as_str(),
            "note": "",
            "sender": device.phone,
            "deviceId": device.serial,
        });
        self.post(device, "tracking", &body).await
    }

    /// Both: a person wrote.
    pub async fn inbound(&self, vendor: Vendor, device: &GatewayDevice, inbound: &Inbound, now: Timestamp) -> bool {
        let body = match vendor {
            Vendor::Wablas => json!({
                "id": inbound_id(inbound, now),
                "pushName": "",
                "isGroup": false,
                "group": {"sender": "", "subject": "", "owner": "", "desc": "", "participants": []},
                "message": inbound.text,
                "phone": inbound.number,
                "messageType": "text",
                "file": "",
                "url": "",
                "mimeType": "",
                "deviceId": device.serial,
                "sender": device.phone,
                "isFromMe": false,
                "timestamp": now.to_string(),
                "profileImage": "",
            }),
            // Whacenter names the device by what is its credential.
            Vendor::Whacenter => json!({
                "device_id": device.credential,
                "from": inbound.number,
                "message": inbound.text,
                "pushName": "",
                "isGroup": false,
            }),
        };
        self.post(device, "inbound", &body).await
    }

    /// Whether the server answered as a gateway needs it: 200 and nothing, else the customer would get the answer.
    async fn post(&self, device: &GatewayDevice, kind: &str, body: &Value) -> bool {
        let Some(hook) = &device.hook else { return false };
        let Ok(_slot) = self.slots.acquire().await else {
            return false;
        };
        let Ok(response) = self.client.post(format!("{hook}/{kind}")).json(body).send().await else {
            return false;
        };
        let right_status = response.status() == reqwest::StatusCode::OK;
        right_status && response.bytes().await.is_ok_and(|body| body.is_empty())
    }
}

/// An id as WhatsApp makes them: 32 capital hexadecimal digits.
fn inbound_id(inbound: &Inbound, now: Timestamp) -> String {
    let mut hash = Sha256::new();
    for part in [&inbound.serial, &inbound.number, &inbound.text] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(now.as_millis().to_be_bytes());
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02X}")).collect()
}
