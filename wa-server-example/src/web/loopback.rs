//! A simulated WhatsApp on this machine in place of the real one, for demonstrations and tests.
//!
//! Ports are all that can be set, so that no other machine can take WhatsApp's place. Nor can a program on this one: a device
//! that is linked knows WhatsApp's key, and one that is not verifies its certificate.

use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use wa_loopback::RewriteHost;
use wa_transport_web::WebVersion;
use wa_transport_web::whatsapp_rust::anyhow;
use wa_transport_web::whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};
use wa_transport_web::whatsapp_rust::transport::{TokioWebSocketTransportFactory, TransportFactory};

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
