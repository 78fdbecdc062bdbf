//! The HTTP client with which loopback gateways and those who watch them speak to this machine.

use std::time::Duration;

/// A client for this machine: no proxy, no redirects, 10 s at most for one request.
///
/// # Panics
/// Never: the settings are fixed.
#[must_use]
pub fn http_client() -> reqwest::Client {
    crate::tls::choose();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(10))
        .build()
        .expect("a client with fixed settings can be built")
}
