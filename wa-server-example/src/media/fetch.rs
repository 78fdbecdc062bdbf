//! Fetches pictures from public addresses: vetted names, vetted addresses, no redirects, limits on time and size.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;
use wa_core::transport::net::{HostError, HostPolicy, Reach, VettedHost};

use super::PictureError;

/// How long fetching a picture may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest address.
const URL_BYTES_MAX: usize = 2_048;

/// Lets connections go to vetted addresses alone.
struct Vetting(Reach);

impl Resolve for Vetting {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            let addresses: Addrs = Box::new(
                reach
                    .admit(addresses)?
                    .into_iter()
                    .map(|address| SocketAddr::new(address, 0)),
            );
            Ok(addresses)
        })
    }
}

pub(super) struct Fetcher {
    policy: HostPolicy,
    public: reqwest::Client,
    anywhere: reqwest::Client,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetcher")
    }
}

impl Fetcher {
    pub(super) fn new(policy: HostPolicy) -> Result<Self, reqwest::Error> {
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
                .dns_resolver(Vetting(reach))
                .redirect(reqwest::redirect::Policy::none())
                .timeout(FETCH_TIMEOUT)
                .pool_max_idle_per_host(0)
                .referer(false)
                .no_proxy()
                .build()
        };
        Ok(Self {
            policy,
            public: client(Reach::PublicOnly)?,
            anywhere: client(Reach::Anywhere)?,
        })
    }

    /// Vets an address as far as can be said without resolving its name.
    pub(super) fn vet(&self, url: &str) -> Result<(Url, VettedHost), PictureError> {
        let refused = |text: String| PictureError::Refused(text);
        if url.len() > URL_BYTES_MAX {
            return Err(refused(format!("must be at most {URL_BYTES_MAX} bytes long")));
        }
        let parsed = Url::parse(url.trim()).map_err(|_| refused("must be an http or https address".to_owned()))?;
        let host = self.policy.vet_public_url(&parsed).map_err(|error| match error {
            HostError::Scheme => refused("must be an http or https address".to_owned()),
            error => refused(error.to_string()),
        })?;
        Ok((parsed, host))
    }

    pub(super) async fn fetch(&self, url: &str, bytes_max: u64) -> Result<Vec<u8>, PictureError> {
        let refused = |text: &str| PictureError::Refused(text.to_owned());
        let (url, host) = self.vet(url)?;
        let client = match host.reach() {
            Reach::PublicOnly => &self.public,
            Reach::Anywhere => &self.anywhere,
        };
        let mut response = client.get(url).send().await.map_err(|error| match host_error(&error) {
            Some(error) => PictureError::Refused(error.to_string()),
            None if error.is_timeout() => refused("must be at an address that answers within 15 seconds"),
            None => refused("must be at an address that answers"),
        })?;
        let status = response.status();
        if !status.is_success() {
            return Err(PictureError::Refused(format!(
                "must be at an address that answers with a picture, not with status {}",
                status.as_u16()
            )));
        }
        if response.content_length().is_some_and(|length| length > bytes_max) {
            return Err(PictureError::TooLarge(bytes_max));
        }
        let mut bytes = Vec::new();
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|_| refused("must be at an address that answers within 15 seconds"))?
        {
            if (bytes.len() + part.len()) as u64 > bytes_max {
                return Err(PictureError::TooLarge(bytes_max));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }
}

/// The refusal of an address, from within the error of the connection.
fn host_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a HostError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<HostError>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
