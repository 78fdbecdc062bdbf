//! WhatsApp Web, as the settings ask for it.

use std::sync::Arc;

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
    let transport = WhatsAppWeb::builder(store, clock)
        .vault(vault)
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
