//! A simulated WhatsApp on this machine in place of the real one, for demonstrations and tests.
//!
//! Ports are all that can be set, so that no other machine can take WhatsApp's place. Nor can a program on this one: a device
//! that is linked knows WhatsApp's key, and one that is not verifies its certificate.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use wa_core::id::{DeviceId, IdSource, Incarnation};
use wa_core::store::{AppStore, SessionOwner, SessionStore, StoreError, StoreErrorKind};
use wa_core::time::{Clock, SystemClock};
use wa_loopback::{Loopback, RewriteHost};
use wa_transport_web::WebVersion;
use wa_transport_web::backend::Backend;
use wa_transport_web::vault::Vault;
use wa_transport_web::whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};
use wa_transport_web::whatsapp_rust::transport::{TokioWebSocketTransportFactory, TransportFactory};
use wa_transport_web::whatsapp_rust::{Jid, anyhow};

use crate::loopback::http_client;

/// The version as which devices connect to it.
pub(super) const VERSION: WebVersion = (2, 3000, 1_000_000_000);

/// Where a simulated WhatsApp listens on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopbackPorts {
    /// For clients.
    pub clients: u16,
    /// For media.
    pub media: u16,
}

/// A text that is not two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not two ports")]
pub struct NotTwoPorts;

impl FromStr for LoopbackPorts {
    type Err = NotTwoPorts;

    fn from_str(text: &str) -> Result<Self, NotTwoPorts> {
        let port = |text: &str| text.trim().parse().ok().filter(|port| *port > 0).ok_or(NotTwoPorts);
        let (clients, media) = text.split_once(',').ok_or(NotTwoPorts)?;
        Ok(Self {
            clients: port(clients)?,
            media: port(media)?,
        })
    }
}

/// Gives devices the sessions that they would have kept if they had been linked, while no server owns them; gives their addresses.
///
/// # Errors
/// As the store's; `NotFound` for a device that belongs to a server.
pub(crate) async fn link<'a>(
    whatsapp: &Loopback,
    store: &Arc<dyn AppStore>,
    ids: &IdSource,
    devices: impl Iterator<Item = (DeviceId, &'a str)>,
) -> Result<Vec<Jid>, StoreError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let node = Incarnation::new(ids, clock.wall());
    store.join(node, "linking", clock.wall()).await?;
    let claimed = store.claim(node, u32::MAX, clock.wall()).await?;
    let claimed: HashMap<_, _> = claimed.into_iter().map(|owned| (owned.device.id, owned)).collect();
    let sessions: Arc<dyn SessionStore> = store.clone();
    let vault = Arc::new(Vault::plain());
    let failed = |kind| StoreError::new(kind, "link", "device");
    let mut linked = Vec::new();
    for (device_id, digits) in devices {
        let owned = claimed
            .get(&device_id)
            .ok_or_else(|| failed(StoreErrorKind::NotFound))?;
        let owner = SessionOwner {
            incarnation: node,
            user_id: owned.device.user_id,
            device_id,
            epoch: owned.epoch,
        };
        let backend = Backend::new(Arc::clone(&sessions), Arc::clone(&vault), Arc::clone(&clock), owner);
        let seeded = whatsapp.seed_device(digits, &backend).await;
        linked.push(seeded.map_err(|error| failed(StoreErrorKind::Backend).caused_by(error))?);
    }
    store.leave(node, clock.wall()).await?;
    Ok(linked)
}

/// Connections to it.
pub(super) fn connections(ports: LoopbackPorts) -> Arc<dyn TransportFactory> {
    let url = format!("ws://127.0.0.1:{}/ws/chat", ports.clients);
    Arc::new(TokioWebSocketTransportFactory::new().with_url(url))
}

/// Its media, whatever host a client names.
pub(super) fn http(ports: LoopbackPorts) -> Arc<dyn HttpClient> {
    let plain = Plain(http_client());
    Arc::new(RewriteHost::new(plain, format!("http://127.0.0.1:{}", ports.media)))
}

/// Calls without encryption, to this machine alone.
struct Plain(reqwest::Client);

#[async_trait]
impl HttpClient for Plain {
    async fn execute(&self, request: HttpRequest) -> anyhow::Result<HttpResponse> {
        let method = reqwest::Method::from_bytes(request.method.as_bytes())?;
        let mut call = self.0.request(method, &request.url);
        for (name, value) in &request.headers {
            // The address is another one than that which was meant.
            if !name.eq_ignore_ascii_case("host") {
                call = call.header(name, value);
            }
        }
        if let Some(body) = request.body {
            call = call.body(body);
        }
        let response = call.send().await?;
        Ok(HttpResponse {
            status_code: response.status().as_u16(),
            body: response.bytes().await?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_two_ports_of_this_machine_can_be_named() {
        let ports = LoopbackPorts {
            clients: 40001,
            media: 40002,
        };
        assert_eq!("40001, 40002".parse(), Ok(ports));
        for bad in [
            "",
            "40001",
            "0,40002",
            "40001,70000",
            "40001,40002,40003",
            "127.0.0.1:40001,40002",
            "ws://192.0.2.1:40001,40002",
            "evil.example,evil.example",
        ] {
            assert_eq!(bad.parse::<LoopbackPorts>(), Err(NotTwoPorts), "{bad}");
        }
    }
}
