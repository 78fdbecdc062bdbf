//! Which hosts may be spoken to, decided without I/O.
//!
//! Two things are vetted here: the base URL of a gateway ([`HostPolicy::vet`]) and the address of a picture that a user
//! gives ([`HostPolicy::vet_public_url`]). A URL says only a name; what it resolves to is vetted by [`Reach::admit`],
//! and the connection must go to an address that came out of it, else a name server could answer the check with a public
//! address and the connection with a private one.

mod address;

use std::fmt;
use std::net::IpAddr;

use async_trait::async_trait;
use url::{Host, Url};

pub use self::address::is_public;

/// Most entries that the setting `GATEWAY_HOSTS` may hold.
pub const LISTED_HOSTS_MAX: usize = 256;

/// Turns names into addresses. Whoever asks it still lets [`Reach::admit`] decide over the answer.
#[async_trait]
pub trait NameResolver: Send + Sync + fmt::Debug {
    /// All addresses of a name.
    ///
    /// # Errors
    /// The name cannot be resolved now.
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// Why a URL or an address is refused; completes a sentence that begins with the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Neither https nor, where that is allowed, http.
    #[error("must begin with https://")]
    Scheme,
    /// A user name or a password before the host.
    #[error("must not hold a user name or a password")]
    UserInfo,
    /// No host at all.
    #[error("must name a host")]
    NoHost,
    /// Another port than the usual one, and not listed.
    #[error("must use the usual port, or one that the setting GATEWAY_HOSTS lists with its host")]
    Port,
    /// A host that no pattern and no entry allows.
    #[error("must be on a host of the vendor or of the setting GATEWAY_HOSTS")]
    NotAllowed,
    /// A private, local or reserved address, or a name that can only mean one.
    #[error("must be on a public host")]
    NotPublic,
    /// The name has no address.
    #[error("must be on a host that has an address")]
    NoAddress,
}

/// An entry of a host list that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} must be a host, host:port or a pattern such as *.example.com, without scheme and path")]
pub struct HostEntryError {
    /// The entry.
    pub entry: String,
}

/// One entry: a host, or everything below a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    host: Host<String>,
    /// Whether it means the hosts below `host` instead of `host` itself.
    below: bool,
    port: Option<u16>,
}

impl Entry {
    fn parse(entry: &str) -> Result<Self, HostEntryError> {
        let refused = || HostEntryError {
            entry: entry.to_owned(),
        };
        let (below, rest) = match entry.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, entry),
        };
        if rest.is_empty() || rest.contains(['/', '\\', '?', '#', '@', '*', ' ', '\t', '\n', '\r']) {
            return Err(refused());
        }
        let parse = |scheme: &str| Url::parse(&format!("{scheme}://{rest}/")).map_err(|_| refused());
        // `Url` hides the usual port of its scheme, so only both together tell whether one was written.
        let (secure, plain) = (parse("https")?, parse("http")?);
        let host = secure.host().ok_or_else(refused)?.to_owned();
        if below && !matches!(&host, Host::Domain(name) if name.contains('.')) {
            return Err(refused());
        }
        Ok(Self {
            host,
            below,
            port: secure
                .port()
                .or(plain.port())
                .or((plain.port_or_known_default() == Some(443)).then_some(443)),
        })
    }

    fn matches(&self, host: &Host<&str>) -> bool {
        match (host, &self.host) {
            (Host::Domain(name), Host::Domain(own)) if self.below => name
                .strip_suffix(own.as_str())
                .and_then(|head| head.strip_suffix('.'))
                .is_some_and(|head| !head.is_empty()),
            (Host::Domain(name), Host::Domain(own)) => *name == own,
            (Host::Ipv4(address), Host::Ipv4(own)) => address == own,
            (Host::Ipv6(address), Host::Ipv6(own)) => address == own,
            _ => false,
        }
    }

    /// Where an entry of the setting lets connections go: an operator who writes a host out vouches for it.
    fn reach(&self) -> Reach {
        if self.below { Reach::PublicOnly } else { Reach::Anywhere }
    }
}

/// The hosts that a gateway transport may speak to.
///
/// | host | scheme | port | addresses |
/// |---|---|---|---|
/// | below a pattern (`*.wablas.com`) | https | usual, or that of the entry | public only |
/// | listed by name or address | https or http | usual, or that of the entry | any |
/// | any other | refused | | |
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostPolicy {
    vendor: Vec<Entry>,
    listed: Vec<Entry>,
}

impl HostPolicy {
    /// A policy of the vendor's own patterns, such as `*.wablas.com`; they never vouch for private addresses.
    ///
    /// # Errors
    /// [`HostEntryError`] names the pattern that cannot be understood.
    pub fn new<'a>(vendor: impl IntoIterator<Item = &'a str>) -> Result<Self, HostEntryError> {
        Ok(Self {
            vendor: vendor.into_iter().map(Entry::parse).collect::<Result<_, _>>()?,
            listed: Vec::new(),
        })
    }

    /// Adds the entries of the setting `GATEWAY_HOSTS`: `host`, `host:port` or `*.domain`, separated by commas or blanks.
    ///
    /// # Errors
    /// [`HostEntryError`] names the first entry that cannot be understood, or the first beyond [`LISTED_HOSTS_MAX`].
    pub fn with_listed(mut self, setting: &str) -> Result<Self, HostEntryError> {
        let entries = setting
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|entry| !entry.is_empty());
        for entry in entries {
            if self.listed.len() == LISTED_HOSTS_MAX {
                return Err(HostEntryError {
                    entry: entry.to_owned(),
                });
            }
            self.listed.push(Entry::parse(entry)?);
        }
        Ok(self)
    }

    /// Vets the base URL of a gateway.
    ///
    /// # Errors
    /// [`HostError`] says what is wrong with it.
    pub fn vet(&self, url: &Url) -> Result<VettedHost, HostError> {
        let host = web_host(url)?;
        self.entry_for(url, &host)
            .unwrap_or(Err(HostError::NotAllowed))
            .and_then(|reach| VettedHost::new(url, &host, reach))
    }

    /// Vets a URL that a user gave for others to fetch, such as that of a picture: http or https on the usual port of a
    /// public host, or on a host that the operator listed by name.
    ///
    /// # Errors
    /// [`HostError`] says what is wrong with it.
    pub fn vet_public_url(&self, url: &Url) -> Result<VettedHost, HostError> {
        let host = web_host(url)?;
        if let Some(Ok(Reach::Anywhere)) = self.entry_for(url, &host) {
            return VettedHost::new(url, &host, Reach::Anywhere);
        }
        if url.port().is_some() {
            return Err(HostError::Port);
        }
        if let Host::Domain(name) = host
            && is_local_name(name)
        {
            return Err(HostError::NotPublic);
        }
        VettedHost::new(url, &host, Reach::PublicOnly)
    }

    /// The verdict of the first entry that allows the URL, else of the last that knows its host; `None` for a host that no
    /// entry knows.
    fn entry_for(&self, url: &Url, host: &Host<&str>) -> Option<Result<Reach, HostError>> {
        let mut verdict = None;
        let listed = self.listed.iter().map(|entry| (entry, entry.reach()));
        let vendor = self.vendor.iter().map(|entry| (entry, Reach::PublicOnly));
        for (entry, reach) in listed.chain(vendor).filter(|(entry, _)| entry.matches(host)) {
            let right_port = match entry.port {
                Some(port) => url.port_or_known_default() == Some(port),
                None => url.port().is_none(),
            };
            if !right_port {
                verdict.get_or_insert(Err(HostError::Port));
            } else if url.scheme() != "https" && reach != Reach::Anywhere {
                verdict = Some(Err(HostError::Scheme));
            } else {
                return Some(Ok(reach));
            }
        }
        verdict
    }
}

/// A host that a [`HostPolicy`] allowed; the addresses that its name resolves to are still to be vetted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VettedHost {
    name: String,
    port: u16,
    reach: Reach,
}

impl VettedHost {
    fn new(url: &Url, host: &Host<&str>, reach: Reach) -> Result<Self, HostError> {
        let vetted = Self {
            name: host.to_string(),
            port: url.port_or_known_default().ok_or(HostError::Port)?,
            reach,
        };
        // An address in the URL never passes a resolver, so it is vetted here.
        match host {
            Host::Ipv4(address) => reach.admit(vec![IpAddr::V4(*address)]).map(drop)?,
            Host::Ipv6(address) => reach.admit(vec![IpAddr::V6(*address)]).map(drop)?,
            Host::Domain(_) => {}
        }
        Ok(vetted)
    }

    /// The host as the URL wrote it, normalised; an IPv6 address in brackets.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Which addresses its name may resolve to.
    #[must_use]
    pub const fn reach(&self) -> Reach {
        self.reach
    }
}

/// Which addresses a connection may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Addresses of the public Internet alone.
    PublicOnly,
    /// Any address, because the operator vouches for the host.
    Anywhere,
}

impl Reach {
    /// Vets what a name resolved to; the connection must go to one of the addresses returned.
    ///
    /// One private address among public ones refuses them all: who answers so is no gateway.
    ///
    /// # Errors
    /// [`HostError::NoAddress`] for an empty list, [`HostError::NotPublic`] for an address that is not public.
    pub fn admit(self, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, HostError> {
        if addresses.is_empty() {
            return Err(HostError::NoAddress);
        }
        if self == Self::PublicOnly && !addresses.iter().all(|address| is_public(*address)) {
            return Err(HostError::NotPublic);
        }
        Ok(addresses)
    }
}

/// The host of an http or https URL that names nobody before it.
fn web_host(url: &Url) -> Result<Host<&str>, HostError> {
    if !matches!(url.scheme(), "https" | "http") {
        return Err(HostError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(HostError::UserInfo);
    }
    url.host().ok_or(HostError::NoHost)
}

/// Names that never lead to a public host: without a dot, or below a domain that is kept for local use (RFC 6761, RFC 6762,
/// RFC 8375, and `internal`, which ICANN keeps free for private networks).
fn is_local_name(name: &str) -> bool {
    const LOCAL: [&str; 8] = [
        "localhost",
        "local",
        "internal",
        "home.arpa",
        "test",
        "invalid",
        "lan",
        "onion",
    ];
    let name = name.strip_suffix('.').unwrap_or(name);
    !name.contains('.')
        || LOCAL.iter().any(|local| {
            name.strip_suffix(local)
                .is_some_and(|head| head.is_empty() || head.ends_with('.'))
        })
}

#[cfg(test)]
mod tests;
