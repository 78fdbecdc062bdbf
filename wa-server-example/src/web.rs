//! WhatsApp Web, as the settings ask for it.

#[cfg(feature = "demo")]
pub mod loopback;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use wa_core::store::SessionStore;
use wa_core::time::Clock;
use wa_core::transport::Transport;
use wa_transport_web::vault::Vault;
use wa_transport_web::{WebOptions, WebVersion, WhatsAppWeb};

use crate::assemble::StartError;

/// What the settings say of WhatsApp Web.
#[derive(Debug, Clone)]
pub struct WebSettings {
    /// `WHATSAPP_SESSION_KEY`
    pub session_key: Option<SecretString>,
    /// `WHATSAPP_WEB_VERSION`
    pub version: Option<WebVersion>,
    /// `APP_OS`
    pub system: String,
    /// `WHATSAPP_ACCOUNT_VALIDATION`
    pub check_numbers: bool,
    /// `WHATSAPP_TYPING_FOR`
    pub typing_for: Duration,
    /// `WHATSAPP_LOOPBACK`
    #[cfg(feature = "demo")]
    pub loopback: Option<loopback::LoopbackPorts>,
}

/// Reads a version such as `2.3000.1020304050`.
pub(crate) fn version(text: &str) -> Option<WebVersion> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

/// The transport over the sessions of a store.
///
/// # Errors
/// A setting cannot be used.
pub(crate) fn transport(
    settings: &WebSettings,
    store: Arc<dyn SessionStore>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Transport>, StartError> {
    let vault = match &settings.session_key {
        Some(key) => {
            Vault::with_key(key).map_err(|error| StartError::Unusable(format!("WHATSAPP_SESSION_KEY: {error}")))?
        }
        None => Vault::plain(),
    };
    let mut options = WebOptions::default();
    options.version = settings.version;
    options.system.clone_from(&settings.system);
    options.check_numbers = settings.check_numbers;
    options.typing_for = (!settings.typing_for.is_zero()).then_some(settings.typing_for);
    let builder = WhatsAppWeb::builder(store, clock).vault(vault);
    #[cfg(feature = "demo")]
    let builder = match settings.loopback {
        Some(ports) => {
            // Only WhatsApp itself knows which version is the newest.
            options.version.get_or_insert(loopback::VERSION);
            builder
                .connections(loopback::connections(ports))
                .http(loopback::http(ports))
        }
        None => builder,
    };
    let transport = builder
        .options(options)
        .build()
        .map_err(|error| StartError::Unusable(error.to_string()))?;
    Ok(Arc::new(transport))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_three_numbers() {
        assert_eq!(version("2.3000.1020304050"), Some((2, 3000, 1_020_304_050)));
        for bad in ["", "2.3000", "2.3000.1.1", "2.x.1", "2..1"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }
}
