//! Logs of the crates below.

/// Targets of the crate `log` under which whatsapp-rust 0.7.0 writes phone numbers in clear (seen in runs). Who passes the records of
/// `log` on (`tracing-log`, `env_logger`) turns these off and leaves the others at `info`: `debug` shows whole stanzas.
pub const TARGETS_WITH_NUMBERS: [&str; 6] = [
    "usync",
    "wacore::send",
    "wacore_libsignal",
    "whatsapp_rust::prekeys",
    "whatsapp_rust::usync",
    "Client",
];
