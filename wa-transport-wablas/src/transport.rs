//! The transport and its builder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use wa_core::domain::content::MediaKind;
use wa_core::domain::platform::Platform;
use wa_core::transport::net::{HostEntryError, HostError, HostPolicy, NameResolver, VettedHost};
use wa_core::transport::{
    Capabilities, InvalidDevice, MediaLimit, NotSentKind, NumberChecker, OutgoingMessage, Probe, Reconcilable,
    SendContext, SendError, SendReceipt, Transport, TransportDevice, Webhook,
};

use crate::error;
use crate::http::{self, Answer, Http, SystemResolver};
use crate::wire;

/// The vendor's hosts; each account is on one of them.
pub const HOSTS: [&str; 1] = ["*.wablas.com"];

/// Where numbers are checked, for the accounts of all hosts.
pub const NUMBER_CHECK_URL: &str = "https://phone.wablas.com";

/// Longest text and longest caption, in characters (vendor's documentation).
pub const TEXT_CHARS_MAX: usize = 1024;

/// Largest picture, in bytes; the documentation says 2 MB, read here as the smaller of its two meanings.
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
    /// The address for number checks is no URL.
    #[error("number_check_url: must be a URL")]
    NumberCheckUrl(#[source] url::ParseError),
    /// The address for number checks is on a host that is not allowed.
    #[error("number_check_url: {0}")]
    NumberCheckHost(#[source] HostError),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Http(#[source] reqwest::Error),
}

/// Builds a [`Wablas`]; fails only in [`build`](Self::build).
#[derive(Debug)]
#[must_use]
pub struct WablasBuilder {
    policy: Option<HostPolicy>,
    number_check_url: String,
    connect_timeout: Duration,
    resolver: Arc<dyn NameResolver>,
}

impl WablasBuilder {
    /// The hosts that may be spoken to; without it those of [`HOSTS`] alone.
    pub fn host_policy(mut self, policy: HostPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Where numbers are checked; without it [`NUMBER_CHECK_URL`].
    pub fn number_check_url(mut self, url: impl Into<String>) -> Self {
        self.number_check_url = url.into();
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
    pub fn build(self) -> Result<Wablas, BuildError> {
        let policy = match self.policy {
            Some(policy) => policy,
            None => HostPolicy::new(HOSTS)?,
        };
        let number_check_url = Url::parse(&self.number_check_url).map_err(BuildError::NumberCheckUrl)?;
        let number_check_host = policy.vet(&number_check_url).map_err(BuildError::NumberCheckHost)?;
        Ok(Wablas {
            http: Http::new(self.connect_timeout, &self.resolver).map_err(BuildError::Http)?,
            policy,
            number_check: (number_check_url, number_check_host),
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
        caption_max: TEXT_CHARS_MAX,
        by_url: true,
        by_bytes: true,
    }];
    capabilities.reconcile = true;
    capabilities.receipts = true;
    capabilities.inbound = true;
    capabilities.number_check = true;
    capabilities
}

/// Carries messages through Wablas accounts; one instance serves all devices.
pub struct Wablas {
    pub(crate) http: Http,
    policy: HostPolicy,
    pub(crate) number_check: (Url, VettedHost),
    capabilities: Capabilities,
}

impl fmt::Debug for Wablas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wablas")
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
    /// The URL of a call below the base URL.
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        below(&self.base, path)
    }

    /// The header that every call carries.
    pub(crate) fn authorization(&self) -> HeaderValue {
        let mut value =
            HeaderValue::from_str(self.credential.expose_secret()).expect("a checked credential is printable ASCII");
        value.set_sensitive(true);
        value
    }
}

/// `base` with `path` after it, whether or not `base` ends in a slash.
pub(crate) fn below(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    url.path_segments_mut()
        .expect("an http URL has a path")
        .pop_if_empty()
        .extend(path);
    url
}

impl Wablas {
    /// A builder with the vendor's hosts, the system's resolver and the default time-outs.
    pub fn builder() -> WablasBuilder {
        WablasBuilder {
            policy: None,
            number_check_url: NUMBER_CHECK_URL.to_owned(),
            connect_timeout: CONNECT_TIMEOUT,
            resolver: Arc::new(SystemResolver),
        }
    }

    /// Checks the device's settings and says where it speaks.
    pub(crate) fn endpoint<'a>(&self, device: &'a TransportDevice) -> Result<Endpoint<'a>, InvalidDevice> {
        let credential = device
            .credential
            .as_ref()
            .ok_or_else(|| InvalidDevice::new("credential", "must be the device's token, or token.secret_key"))?;
        let secret = credential.expose_secret();
        if secret.is_empty()
            || secret.len() > CREDENTIAL_BYTES_MAX
            || !secret.bytes().all(|byte| byte.is_ascii_graphic())
        {
            let expected = format!(
                "must be the device's token, or token.secret_key: 1 to {CREDENTIAL_BYTES_MAX} printable ASCII characters"
            );
            return Err(InvalidDevice::new("credential", expected));
        }
        let expected = "must be the address of the account's server, such as https://solo.wablas.com";
        let text = device
            .base_url
            .as_deref()
            .filter(|text| text.len() <= BASE_URL_BYTES_MAX)
            .ok_or_else(|| InvalidDevice::new("base_url", expected))?;
        let base = Url::parse(text.trim())
            .ok()
            .filter(|url| url.query().is_none() && url.fragment().is_none())
            .ok_or_else(|| InvalidDevice::new("base_url", expected))?;
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
        let outgoing = wire::outgoing(message, &self.capabilities, &self.policy)?;
        let request = self
            .http
            .post(&endpoint.host, endpoint.url(&["api", outgoing.call]))
            .header(AUTHORIZATION, endpoint.authorization())
            .form(&outgoing.form);
        let answer = http::call(request, context.timeout).await.map_err(error::unanswered)?;
        error::verdict(&answer, message, &error::secrets(&context.device, Some(message)))
    }
}

#[async_trait]
impl Transport for Wablas {
    fn platform(&self) -> Platform {
        Platform::WABLAS
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
            Ok(_) => tracing::debug!(%device, %attempt, ?to, "wablas took the message"),
            Err(reason) => tracing::warn!(%device, %attempt, ?to, %reason, "wablas send failed"),
        }
        result
    }

    fn as_reconcilable(&self) -> Option<&dyn Reconcilable> {
        Some(self)
    }

    fn as_webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }

    fn as_number_checker(&self) -> Option<&dyn NumberChecker> {
        Some(self)
    }

    fn as_probe(&self) -> Option<&dyn Probe> {
        Some(self)
    }
}
