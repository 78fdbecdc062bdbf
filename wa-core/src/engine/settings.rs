//! Port to what users chose for all their work.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::access::UserSettings;
use crate::id::UserId;
use crate::store::{AccessStore, StoreError};

/// Tells what users chose: opt-out words, the region of numbers without a country code, time zone, randomizer.
#[async_trait]
pub trait UserSettingsSource: Send + Sync + fmt::Debug {
    /// The settings of a user; the defaults for one who chose nothing.
    ///
    /// # Errors
    /// The settings cannot be read now.
    async fn settings(&self, user: UserId) -> Result<UserSettings, StoreError>;
}

/// The same settings for every user.
#[derive(Debug, Clone, Default)]
pub struct SameSettings(pub UserSettings);

#[async_trait]
impl UserSettingsSource for SameSettings {
    async fn settings(&self, _user: UserId) -> Result<UserSettings, StoreError> {
        Ok(self.0.clone())
    }
}

/// The settings kept with the users of a server.
#[derive(Clone)]
pub struct AccessSettings(Arc<dyn AccessStore>);

impl AccessSettings {
    /// Reads them from a store of people.
    #[must_use]
    pub fn new(store: Arc<dyn AccessStore>) -> Self {
        Self(store)
    }
}

impl fmt::Debug for AccessSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessSettings")
    }
}

#[async_trait]
impl UserSettingsSource for AccessSettings {
    async fn settings(&self, user: UserId) -> Result<UserSettings, StoreError> {
        match self.0.user(user).await {
            Ok(user) => Ok(user.settings),
            Err(error) if error.is_not_found() => Ok(UserSettings::default()),
            Err(error) => Err(error),
        }
    }
}
