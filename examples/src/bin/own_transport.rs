//! An own transport: implement `Transport`, and prove it with the conformance suite.
//!
//! This one appends to a file in place of a network. `cargo run -p wa-examples --bin own_transport`

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use wa_core::domain::phone::Phone;
use wa_core::domain::platform::Platform;
use wa_core::id::{AttemptId, DeviceId, MessageId, UserId};
use wa_core::transport::{
    Capabilities, InvalidDevice, NotSentKind, OutgoingMessage, SendContext, SendError, SendReceipt, Transport,
    TransportDevice,
};

/// Writes each message as a line.
#[derive(Debug)]
struct Ledger {
    path: PathBuf,
    file: Mutex<std::fs::File>,
    capabilities: Capabilities,
    platform: Platform,
}

impl Ledger {
    fn open(path: PathBuf) -> std::io::Result<Self> {
        let file = Mutex::new(std::fs::OpenOptions::new().create(true).append(true).open(&path)?);
        let platform = "ledger".parse().expect("the name is well-formed");
        Ok(Self {
            path,
            file,
            capabilities: Capabilities::text(4_096),
            platform,
        })
    }
}

#[async_trait]
impl Transport for Ledger {
    fn platform(&self) -> Platform {
        self.platform.clone()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn check_device(&self, device: &TransportDevice) -> Result<(), InvalidDevice> {
        match &device.base_url {
            None => Ok(()),
            Some(_) => Err(InvalidDevice::new("base_url", "must be empty: a ledger has no address")),
        }
    }

    async fn send(&self, _context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        let line = format!("{}\t{}\n", message.attempt_id, message.to.as_e164());
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write: nothing of it reaches the file if it fails here, so the message certainly was not sent.
        file.write_all(line.as_bytes())
            .map_err(|error| SendError::not_sent(NotSentKind::Unavailable, error.to_string()))?;
        Ok(SendReceipt::default())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ledger = Ledger::open(std::env::temp_dir().join("wa-ledger.tsv"))?;
    let device = TransportDevice {
        id: DeviceId::MIN,
        user_id: UserId::MIN,
        platform: ledger.platform(),
        phone: None,
        credential: None,
        base_url: None,
    };
    ledger.check_device(&device)?;
    let context = SendContext {
        device: Arc::new(device),
        timeout: std::time::Duration::from_secs(5),
    };
    let attempt_id = AttemptId::MIN;
    let message = OutgoingMessage {
        message_id: MessageId::MIN,
        attempt_id,
        transport_message_id: ledger.message_id(attempt_id),
        to: Phone::from_e164("+60123456789")?,
        text: "Apa khabar?".to_owned(),
        media: None,
    };
    ledger.send(&context, &message).await?;
    println!("written to {}", ledger.path.display());
    Ok(())
}
