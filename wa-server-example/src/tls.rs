//! The cryptography of https, chosen once per process.

/// Chooses it, unless the program has done so.
pub fn choose() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
