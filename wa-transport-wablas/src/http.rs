//! One HTTP call, made at most once, and what is known when it fails.
//!
//! Every call opens a connection of its own. A connection kept open may be closed by the gateway just as the next
//! request is written; then nobody could tell whether that message went.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::RETRY_AFTER;
use url::Url;
use wa_core::transport::MaybeSentCause;
use wa_core::transport::net::{NameResolver, Reach, VettedHost};

/// Longest answer that is read, in bytes; documented ones are below 10 kB.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Longest wait that a gateway may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What the gateway answered, whatever the status.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// No byte of the request can have left: the name, the connection or its encryption failed.
    NotWritten(String),
    /// The request, or a part of it, may have been read.
    Written(MaybeSentCause, String),
}

/// The system's name resolver.
#[derive(Debug)]
pub(crate) struct SystemResolver;

#[async_trait]
impl NameResolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let addresses = tokio::net::lookup_host((host, 0)).await?;
        Ok(addresses.map(|address| address.ip()).collect())
    }
}

/// Lets the connection go to vetted addresses only, so that a name cannot mean one thing when it is checked and another
/// when it is used.
struct VettingResolver {
    inner: Arc<dyn NameResolver>,
    reach: Reach,
}

impl Resolve for VettingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (inner, reach) = (Arc::clone(&self.inner), self.reach);
        Box::pin(async move {
            let addresses = reach.admit(inner.resolve(name.as_str()).await?)?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// Makes calls to vetted hosts.
pub(crate) struct Http {
    public: reqwest::Client,
    anywhere: reqwest::Client,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

impl Http {
    pub(crate) fn new(connect_timeout: Duration, resolver: &Arc<dyn NameResolver>) -> Result<Self, reqwest::Error> {
        let roots = rustls::RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = |reach| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(VettingResolver {
                    inner: Arc::clone(resolver),
                    reach,
                })
                .connect_timeout(connect_timeout)
                .pool_max_idle_per_host(0)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .no_proxy()
                .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
                .build()
        };
        Ok(Self {
            public: client(Reach::PublicOnly)?,
            anywhere: client(Reach::Anywhere)?,
        })
    }

    pub(crate) fn get(&self, host: &VettedHost, url: Url) -> reqwest::RequestBuilder {
        self.client(host).get(url)
    }

    pub(crate) fn post(&self, host: &VettedHost, url: Url) -> reqwest::RequestBuilder {
        self.client(host).post(url)
    }

    fn client(&self, host: &VettedHost) -> &reqwest::Client {
        match host.reach() {
            Reach::PublicOnly => &self.public,
            Reach::Anywhere => &self.anywhere,
        }
    }
}

/// Makes the call once, within `timeout` from the first look-up of the name to the last byte of the answer.
pub(crate) async fn call(request: reqwest::RequestBuilder, timeout: Duration) -> Result<Answer, CallError> {
    let mut response = request.timeout(timeout).send().await.map_err(call_error)?;
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(call_error)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            let detail = format!("HTTP {status} with more than {ANSWER_BYTES_MAX} bytes");
            return Err(CallError::Written(MaybeSentCause::Unreadable, detail));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status,
        retry_after,
        body,
    })
}

fn call_error(error: reqwest::Error) -> CallError {
    // The URL may hold a credential.
    let error = error.without_url();
    let detail = root_cause(&error);
    if error.is_connect() || error.is_builder() {
        CallError::NotWritten(format!("no connection: {detail}"))
    } else if error.is_timeout() {
        CallError::Written(MaybeSentCause::Timeout, "no answer in time".to_owned())
    } else {
        CallError::Written(MaybeSentCause::ConnectionLost, detail)
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
