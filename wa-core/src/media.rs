//! Port to where media are kept.

use std::fmt;

use async_trait::async_trait;

use crate::domain::content::{Media, MediaSource};
use crate::id::UserId;
use crate::transport::OutgoingMedia;

/// Media that cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// It does not exist, is refused, or is not what it says; trying again makes no sense.
    #[error("media cannot be used: {0}")]
    Gone(String),
    /// It cannot be reached now.
    #[error("media cannot be reached: {0}")]
    Unavailable(String),
}

/// Loads media for sending.
///
/// To ensure correctness: only media of that user; bytes are limited in size; a URL that users gave is fetched from public
/// addresses alone.
#[async_trait]
pub trait MediaStore: Send + Sync + fmt::Debug {
    /// Loads one medium: its bytes, a URL that a vendor can fetch, or both.
    ///
    /// # Errors
    /// [`MediaError`]; only `Unavailable` is tried again.
    async fn load(&self, user: UserId, media: &Media) -> Result<OutgoingMedia, MediaError>;
}

/// Passes URLs on to the vendor and keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct UrlMedia;

#[async_trait]
impl MediaStore for UrlMedia {
    async fn load(&self, _user: UserId, media: &Media) -> Result<OutgoingMedia, MediaError> {
        let MediaSource::Url(url) = &media.source else {
            return Err(MediaError::Gone("no media store is configured".to_owned()));
        };
        let last = url.rsplit('/').next().unwrap_or_default();
        let name = last.split(['?', '#']).next().unwrap_or_default();
        Ok(OutgoingMedia {
            kind: media.kind,
            mime: media.mime.clone().unwrap_or_else(|| "image/jpeg".to_owned()),
            file_name: media.file_name.clone().unwrap_or_else(|| name.to_owned()),
            url: Some(url.clone()),
            bytes: None,
        })
    }
}
