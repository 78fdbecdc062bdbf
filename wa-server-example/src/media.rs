//! Pictures: checked, made smaller, kept once in files, and loaded for sending.

mod fetch;
mod picture;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;
use wa_core::domain::content::{Media, MediaKind, MediaSource};
use wa_core::id::{IdSource, MediaId, UserId};
use wa_core::media::{MediaError, MediaStore};
use wa_core::time::{Clock, Timestamp};
use wa_core::transport::OutgoingMedia;
use wa_core::transport::net::HostPolicy;

use crate::password;
use crate::settings::Settings;
use fetch::Fetcher;

/// How long the address under which a gateway may fetch a picture is good.
pub const ADDRESS_GOOD_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Most pictures decoded at a time.
pub const AT_A_TIME_MAX: usize = 2;

/// What is wrong with a picture; completes a sentence that begins with the field's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// It cannot be taken as it is.
    #[error("{0}")]
    Refused(String),
    /// It has too many bytes.
    #[error("must have at most {0} bytes")]
    TooLarge(u64),
    /// Its file could not be written or read.
    #[error("could not be kept")]
    Io(#[from] std::io::Error),
}

/// A picture that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: MediaId,
    /// Its media type.
    pub mime: &'static str,
    /// Its size.
    pub size_bytes: u64,
}

/// Pictures in files, one folder per user, readable by the owner of the process alone.
#[derive(Debug)]
pub struct FileMedia {
    folder: PathBuf,
    key: [u8; 32],
    public_base: Option<String>,
    bytes_max: u64,
    compress: bool,
    fetcher: Fetcher,
    turns: Semaphore,
    ids: IdSource,
    clock: Arc<dyn Clock>,
}

/// Media types that are kept, with the endings of their files.
const TYPES: [(&str, &str); 4] = [
    ("image/jpeg", "jpg"),
    ("image/png", "png"),
    ("image/gif", "gif"),
    ("image/webp", "webp"),
];

impl FileMedia {
    /// Opens the folder `media` in the data folder; makes it, and the key that signs addresses, if they are missing.
    ///
    /// # Errors
    /// The folder or the key cannot be used.
    pub fn open(settings: &Settings, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let folder = settings.data_dir.join("media");
        private_folder(&folder)?;
        let policy = HostPolicy::default()
            .with_listed(&settings.gateway_hosts)
            .map_err(std::io::Error::other)?;
        Ok(Self {
            key: key_of(&folder)?,
            folder,
            public_base: settings
                .public_base_url
                .as_ref()
                .map(|url| url.as_str().trim_end_matches('/').to_owned()),
            bytes_max: settings.media_bytes_max,
            compress: settings.image_compression,
            fetcher: Fetcher::new(policy).map_err(std::io::Error::other)?,
            turns: Semaphore::new(AT_A_TIME_MAX),
            ids: IdSource::from_entropy(),
            clock,
        })
    }

    /// Most bytes of a picture.
    #[must_use]
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Checks a picture, makes it smaller where that is on, and keeps it.
    ///
    /// # Errors
    /// [`PictureError`]
    pub async fn keep(&self, user: UserId, bytes: Vec<u8>) -> Result<Kept, PictureError> {
        if bytes.len() as u64 > self.bytes_max {
            return Err(PictureError::TooLarge(self.bytes_max));
        }
        let compress = self.compress;
        let _turn = self.turns.acquire().await;
        let picture = tokio::task::spawn_blocking(move || picture::ready(bytes, compress))
            .await
            .map_err(|_| PictureError::Refused("must be a picture that can be read".to_owned()))??;
        let id = MediaId::new(&self.ids, self.clock.wall());
        let folder = self.folder.join(user.to_string());
        let size_bytes = picture.bytes.len() as u64;
        let name = format!("{id}.{}", ending(picture.mime));
        tokio::task::spawn_blocking(move || write(&folder, &name, &picture.bytes))
            .await
            .map_err(std::io::Error::other)??;
        Ok(Kept {
            id,
            mime: picture.mime,
            size_bytes,
        })
    }

    /// Fetches a picture from a public address and keeps it.
    ///
    /// # Errors
    /// [`PictureError`]; an address that is not public is refused before anything is sent to it.
    pub async fn fetch(&self, user: UserId, url: &str) -> Result<Kept, PictureError> {
        let bytes = self.fetcher.fetch(url, self.bytes_max).await?;
        let kept = self.keep(user, bytes).await?;
        // The address stays beside the picture: some gateways take addresses alone.
        let folder = self.folder.join(user.to_string());
        let (name, url) = (format!("{}.url", kept.id), url.to_owned());
        tokio::task::spawn_blocking(move || write(&folder, &name, url.as_bytes()))
            .await
            .map_err(std::io::Error::other)??;
        Ok(kept)
    }

    /// The bytes of a picture of a user, with its media type.
    ///
    /// # Errors
    /// The file cannot be read; `None` when there is none.
    pub async fn read(&self, user: UserId, id: MediaId) -> std::io::Result<Option<(&'static str, Vec<u8>)>> {
        for (mime, ending) in TYPES {
            let path = self.folder.join(user.to_string()).join(format!("{id}.{ending}"));
            match tokio::fs::read(path).await {
                Ok(bytes) => return Ok(Some((mime, bytes))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Removes a picture that nothing uses; one that stays because that fails does no harm.
    pub async fn forget(&self, user: UserId, id: MediaId) {
        let folder = self.folder.join(user.to_string());
        for ending in TYPES.iter().map(|(_, ending)| *ending).chain(["url"]) {
            match tokio::fs::remove_file(folder.join(format!("{id}.{ending}"))).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, picture = %id, "a picture that nothing uses could not be removed");
                }
                _ => {}
            }
        }
    }

    /// The token of an address under which a picture may be fetched without a login until `until`.
    fn token(&self, user: UserId, id: MediaId, until: Timestamp) -> String {
        let mut bytes = Vec::with_capacity(56);
        bytes.extend_from_slice(user.as_bytes());
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&until.as_millis().to_be_bytes());
        let mac = self.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..16]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(bytes);
        mac
    }

    /// The picture that a token opens now.
    #[must_use]
    pub fn open_token(&self, token: &str) -> Option<(UserId, MediaId)> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signed, mac) = bytes.split_at_checked(40)?;
        self.mac(signed).verify_truncated_left(mac).ok()?;
        if mac.len() != 16 {
            return None;
        }
        let until = Timestamp::from_millis(i64::from_be_bytes(signed[32..].try_into().ok()?));
        let fresh = self.clock.wall() < until;
        fresh.then_some((
            UserId::from_slice(&signed[..16])?,
            MediaId::from_slice(&signed[16..32])?,
        ))
    }
}

#[async_trait]
impl MediaStore for FileMedia {
    async fn load(&self, user: UserId, media: &Media) -> Result<OutgoingMedia, MediaError> {
        if media.kind != MediaKind::Image {
            return Err(MediaError::Gone("only pictures are kept".to_owned()));
        }
        let id = match &media.source {
            MediaSource::Stored(id) => *id,
            MediaSource::Url(url) => {
                self.fetcher
                    .vet(url)
                    .map_err(|error| MediaError::Gone(error.to_string()))?;
                return wa_core::media::UrlMedia.load(user, media).await;
            }
        };
        let read = self.read(user, id).await;
        let (mime, bytes) = read
            .map_err(|error| MediaError::Unavailable(error.to_string()))?
            .ok_or_else(|| MediaError::Gone("there is no such picture".to_owned()))?;
        let url = match &self.public_base {
            Some(base) => {
                let until = self.clock.wall() + ADDRESS_GOOD_FOR;
                Some(format!("{base}/media/{}", self.token(user, id, until)))
            }
            None => {
                let path = self.folder.join(user.to_string()).join(format!("{id}.url"));
                tokio::fs::read_to_string(path).await.ok()
            }
        };
        let file_name = media.file_name.clone();
        Ok(OutgoingMedia {
            kind: media.kind,
            mime: mime.to_owned(),
            file_name: file_name.unwrap_or_else(|| format!("image.{}", ending(mime))),
            url,
            bytes: Some(bytes.into()),
        })
    }
}

fn ending(mime: &str) -> &'static str {
    TYPES
        .iter()
        .find(|(known, _)| *known == mime)
        .map_or("bin", |(_, ending)| ending)
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Writes a file that is there whole or not at all.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    private_folder(folder)?;
    let unready = folder.join(format!("{name}.part"));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unready)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(unready, folder.join(name))
}

fn key_of(folder: &Path) -> std::io::Result<[u8; 32]> {
    let path = folder.join("key");
    match std::fs::read(&path) {
        Ok(bytes) => bytes
            .try_into()
            .map_err(|_| std::io::Error::other(format!("{} must have 32 bytes", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = password::random();
            write(folder, "key", &key)?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}
