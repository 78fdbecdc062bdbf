//! The transport and its builder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use wa_core::domain::content::MediaKind;
use wa_core::domain::platform::Platform;
use wa_core::transport::net::{HostEntryError, HostPolicy, NameResolver, VettedHost};
use wa_core::transport::{
    Capabilities, InvalidDevice, MediaLimit, NotSentKind, OutgoingMessage, Probe, SendContext, SendError, SendReceipt,
    Transport, TransportDevice, Webhook,
};

use crate::error;
use crate::http::{self, Answer, Http, SystemResolver};
use crate::wire;

/// The vendor's hosts.
pub const HOSTS: [&str; 1] = ["*.whacenter.com"];

/// Where devices speak that have no base URL of their own.
pub const BASE_URL: &str = "https://api.whacenter.com";

/// Longest text, in characters. The vendor documents no limit; this is well below what WhatsApp shows and above any campaign.
pub const TEXT_CHARS_MAX: usize = 4096;

/// Longest caption, in characters. The vendor documents no limit; this is WhatsApp's own.
pub const CAPTION_CHARS_MAX: usize = 1024;

/// Largest picture, in bytes. The vendor documents no limit; this is what comparable gateways take.
pub const IMAGE_BYTES_MAX: u64 = 2_000_000;

/// How long a connection may take to come up, unless the builder says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest credential, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 512;

/// Longest base URL, in bytes.
pub const BASE_URL_BYTES_MAX: usize = 2048;

/// Why a transport cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An entry of the vendor's own hosts cannot be understood.
    #[error(transparent)]
    Hosts(#[from] HostEntryError),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Http(#[source] reqwest::Error),
}

/// Builds a [`Whacenter`]; fails only in [`build`](Self::build).
#[derive(Debug)]
#[must_use]
pub struct WhacenterBuilder {
    policy: Option<HostPolicy>,
    connect_timeout: Duration,
    resolver: Arc<dyn NameResolver>,
}

impl WhacenterBuilder {
    /// The hosts that may be spoken to; without it those of [`HOSTS`] alone.
    pub fn host_policy(mut self, policy: HostPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How long a connection may take to come up; without it [`CONNECT_TIMEOUT`].
    ///
    /// Keep it below the time-out of a send: a connection that fails in this time is certainly not sent, one that runs
    /// into the time-out of the send is in doubt.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Who resolves names; without it the system.
    pub fn resolver(mut self, resolver: Arc<dyn NameResolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Builds the transport.
    ///
    /// # Errors
    /// [`BuildError`] names the setting that cannot work.
    pub fn build(self) -> Result<Whacenter, BuildError> {
        let policy = match self.policy {
            Some(policy) => policy,
            None => HostPolicy::new(HOSTS)?,
        };
        Ok(Whacenter {
            http: Http::new(self.connect_timeout, &self.resolver).map_err(BuildError::Http)?,
            policy,
            capabilities: capabilities(),
        })
    }
}

fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::text(TEXT_CHARS_MAX);
    capabilities.media = vec![MediaLimit {
        kind: MediaKind::Image,
        mimes: vec!["image/jpeg", "image/png"],
        size_max_bytes: IMAGE_BYTES_MAX,
        caption_max: CAPTION_CHARS_MAX,
        by_url: true,
        by_bytes: false,
    }];
    capabilities.inbound = true;
    capabilities
}

/// Carries messages through Whacenter accounts; one instance serves all devices.
pub struct Whacenter {
    pub(crate) http: Http,
    policy: HostPolicy,
    capabilities: Capabilities,
}

impl fmt::Debug for Whacenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whacenter")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Where and as whom a device speaks.
pub(crate) struct Endpoint<'a> {
    pub(crate) host: VettedHost,
    pub(crate) base: Url,
    pub(crate) credential: &'a SecretString,
}

impl Endpoint<'_> {
    /// The URL of a call below the base URL, whether or not that ends in a slash.
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("an http URL has a path")
            .pop_if_empty()
            .extend(path);
        url
    }
}

impl Whacenter {
    /// A builder with the vendor's hosts, the system's resolver and the default time-outs.
    pub fn builder() -> WhacenterBuilder {
        WhacenterBuilder {
            policy: None,
            connect_timeout: CONNECT_TIMEOUT,
            resolver: Arc::new(SystemResolver),
        }
    }

    /// Checks the device's settings and says where it speaks.
    pub(crate) fn endpoint<'a>(&self, device: &'a TransportDevice) -> Result<Endpoint<'a>, InvalidDevice> {
        let credential = device
            .credential
            .as_ref()
            .ok_or_else(|| InvalidDevice::new("credential", "must be the device_id of the vendor's panel"))?;
        let secret = credential.expose_secret();
        if secret.is_empty()
            || secret.len() > CREDENTIAL_BYTES_MAX
            || !secret.bytes().all(|byte| byte.is_ascii_graphic())
        {
            let expected = format!(
                "must be the device_id of the vendor's panel: 1 to {CREDENTIAL_BYTES_MAX} printable ASCII characters"
            );
            return Err(InvalidDevice::new("credential", expected));
        }
        let text = device.base_url.as_deref().unwrap_or(BASE_URL).trim();
        let base = Url::parse(text)
            .ok()
            .filter(|url| text.len() <= BASE_URL_BYTES_MAX && url.query().is_none() && url.fragment().is_none())
            .ok_or_else(|| {
                InvalidDevice::new(
                    "base_url",
                    format!("must be the address of the vendor's API, such as {BASE_URL}"),
                )
            })?;
        let host = self
            .policy
            .vet(&base)
            .map_err(|error| InvalidDevice::new("base_url", error.to_string()))?;
        Ok(Endpoint { host, base, credential })
    }

    /// The endpoint of a device that is about to be used; settings that have stopped working are not the message's fault.
    pub(crate) fn ready<'a>(&self, device: &'a TransportDevice) -> Result<Endpoint<'a>, SendError> {
        self.endpoint(device).map_err(|error| {
            let kind = match error.field {
                "credential" => NotSentKind::Unauthenticated,
                _ => NotSentKind::Unavailable,
            };
            SendError::not_sent(kind, error.to_string())
        })
    }

    /// Asks a question that sends nothing, under the device's credential.
    pub(crate) async fn ask(
        &self,
        request: reqwest::RequestBuilder,
        context: &SendContext,
    ) -> Result<Answer, SendError> {
        http::call(request, context.timeout)
            .await
            .map_err(error::unanswered)
            .map_err(error::nothing_sent)
    }

    async fn send_once(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        let endpoint = self.ready(&context.device)?;
        let form = wire::form(endpoint.credential, message, &self.capabilities, &self.policy)?;
        let request = self
            .http
            .post(&endpoint.host, endpoint.url(&["api", "send"]))
            .form(&form);
        let answer = http::call(request, context.timeout).await.map_err(error::unanswered)?;
        error::verdict(&answer, &error::secrets(&context.device, Some(message)))
    }
}

#[async_trait]
impl Transport for Whacenter {
    fn platform(&self) -> Platform {
        Platform::WHACENTER
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn check_device(&self, device: &TransportDevice) -> Result<(), InvalidDevice> {
        self.endpoint(device).map(drop)
    }

    async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        let result = self.send_once(context, message).await;
        let (device, attempt, to) = (context.device.id, message.attempt_id, &message.to);
        match &result {
            Ok(_) => tracing::debug!(%device, %attempt, ?to, "whacenter took the message"),
            Err(reason) => tracing::warn!(%device, %attempt, ?to, %reason, "whacenter send failed"),
        }
        result
    }

    fn as_webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }

    fn as_probe(&self) -> Option<&dyn Probe> {
        Some(self)
    }
}
