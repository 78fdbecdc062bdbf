//! The storage of one linked device, as whatsapp-rust asks for it, over the session values of a store.
//!
//! Keys are `namespace NUL part NUL part`; JIDs and addresses hold no NUL, and parts of any bytes come last. What two calls
//! must not do between each other's read and write takes turns: a session has one owner, so one lock in this process is
//! enough. Every write names the owner, so that a node that lost the device writes nothing more ([`Backend::is_lost`]). A key that
//! would be too long is a digest in a namespace of its own, whose name ends with `#`; no scan finds it.
//!
//! | namespace | what |
//! |---|---|
//! | `dv` | the device: keys, identity, settings; `rest`: it stays disconnected |
//! | `sg` | Signal sessions (`s`) and identities (`i`) by address |
//! | `pk`, `sp`, `gk` | prekeys, signed prekeys, sender keys |
//! | `ak`, `al`, `av`, `am` | app state: keys, which came last, versions, MACs |
//! | `li`, `pn` | phone number of a LID, LID of a phone number |
//! | `bk`, `dl`, `tc` | base keys, device lists, privacy tokens |
//! | `sk`, `gm` | who has a group's sender key, groups |
//! | `nc`, `up` | which numbers are on WhatsApp, pictures that were uploaded; these end |
//! | `sm`, `pi`, `ms` | sent messages (for retries), messages received and not yet committed, message secrets: these end |

mod app_sync;
mod device;
mod numbers;
mod pending;
mod protocol;
mod secrets;
mod signal;
mod uploads;

use self::pending::Owed;
use self::secrets::Waiting;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Notify, RwLock};
use wa_core::id::DeviceId;
use wa_core::store::{
    PAGE_MAX, PageRequest, SESSION_KEY_BYTES_MAX, SESSION_KEYS_MAX, SessionKey, SessionOwner, SessionRow, SessionStore,
    SessionWrite, StoreErrorKind,
};
use wa_core::time::{Clock, Timestamp};
use whatsapp_rust::wacore::store::error::{Result, StoreError};

use crate::vault::{VALUE_BYTES_MAX, Vault};

/// How long a sent message is kept, so that it can be encrypted anew when the recipient asks for it.
pub const SENT_MESSAGES_KEPT_FOR: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a received message that was not committed waits to be delivered again.
pub const PENDING_KEPT_FOR: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The storage of one linked device, until its session is wiped: then only who wiped it writes on.
#[derive(Clone)]
pub struct Backend(Arc<Inner>, u64);

struct Inner {
    store: Arc<dyn SessionStore>,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    owner: SessionOwner,
    /// Held by what reads a value and writes what follows from it.
    turn: Mutex<()>,
    /// Secrets of messages that go with the next write.
    secrets: Mutex<Waiting>,
    /// Received messages whose copies are not written yet; nothing else is written before them.
    owed: Mutex<Owed>,
    /// How often the session was wiped. A client of the session before must not write into the one after.
    wiped: RwLock<u64>,
    lost: AtomicBool,
    lost_now: Notify,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("owner", &self.0.owner)
            .finish_non_exhaustive()
    }
}

/// A key of a namespace. Parts come from other people too, ids of messages for instance: where they make it too long, a digest of them
/// stands in its place.
fn key(namespace: &str, parts: &[&[u8]]) -> Result<SessionKey> {
    let mut bytes = namespace.as_bytes().to_vec();
    for part in parts {
        bytes.push(0);
        bytes.extend_from_slice(part);
    }
    if bytes.len() > SESSION_KEY_BYTES_MAX {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        bytes = [namespace.as_bytes(), b"#\0", &digest.finalize()].concat();
    }
    SessionKey::new(bytes).ok_or_else(|| StoreError::Validation(format!("a key of {namespace} is too long")))
}

/// What a namespace's keys begin with; `parts` come first in them.
fn prefix(namespace: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = namespace.as_bytes().to_vec();
    bytes.push(0);
    for part in parts {
        bytes.extend_from_slice(part);
        bytes.push(0);
    }
    bytes
}

/// The part of a key after its prefix, as text.
fn text_after(row: &SessionRow, prefix: &[u8]) -> Result<String> {
    let rest = row.key.as_bytes().get(prefix.len()..).unwrap_or_default();
    String::from_utf8(rest.to_vec()).map_err(|error| StoreError::Serialization(Box::new(error)))
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| StoreError::Serialization(Box::new(error)))
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Serialization(Box::new(error)))
}

/// An instant of WhatsApp, in seconds since 1970.
fn at_seconds(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1_000))
}

impl Backend {
    /// The session of the owner's device in a store.
    #[must_use]
    pub fn new(store: Arc<dyn SessionStore>, vault: Arc<Vault>, clock: Arc<dyn Clock>, owner: SessionOwner) -> Self {
        let inner = Inner {
            store,
            vault,
            clock,
            owner,
            turn: Mutex::new(()),
            secrets: Mutex::default(),
            owed: Mutex::default(),
            wiped: RwLock::new(0),
            lost: AtomicBool::new(false),
            lost_now: Notify::new(),
        };
        Self(Arc::new(inner), 0)
    }

    /// Whether the store has refused a write because this node does not own the device any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }

    /// Who writes.
    pub(crate) fn owner(&self) -> &SessionOwner {
        &self.0.owner
    }

    /// The store has said elsewhere that this node does not own the device any more.
    pub(crate) fn lose(&self) {
        self.0.lost.store(true, Ordering::Release);
        self.0.lost_now.notify_waiters();
    }

    /// Waits until the store refuses a write because this node does not own the device any more.
    pub async fn lost(&self) {
        loop {
            let told = self.0.lost_now.notified();
            if self.is_lost() {
                return;
            }
            told.await;
        }
    }

    /// Removes the whole session. Whatever was cloned before writes nothing any more: a client that is still ending would bring
    /// parts of it back.
    ///
    /// # Errors
    /// The store did not do it.
    pub async fn wipe(&mut self) -> std::result::Result<u64, wa_core::store::StoreError> {
        let inner = Arc::clone(&self.0);
        let _turn = inner.turn.lock().await;
        let mut secrets = inner.secrets.lock().await;
        let mut count = inner.wiped.write().await;
        *count += 1;
        self.1 = *count;
        *secrets = Waiting::default();
        *inner.owed.lock().await = Owed::default();
        let wiped = inner.store.wipe_session(&inner.owner).await;
        self.noted(wiped)
    }

    fn device(&self) -> DeviceId {
        self.0.owner.device_id
    }

    fn noted<T>(
        &self,
        result: std::result::Result<T, wa_core::store::StoreError>,
    ) -> std::result::Result<T, wa_core::store::StoreError> {
        if result.as_ref().is_err_and(wa_core::store::StoreError::is_fenced) {
            self.lose();
        }
        result
    }

    fn failed(error: wa_core::store::StoreError) -> StoreError {
        match error.kind {
            StoreErrorKind::Unavailable => StoreError::Connection(Box::new(error)),
            _ => StoreError::Database(Box::new(error)),
        }
    }

    fn open(&self, key: &SessionKey, stored: &[u8]) -> Result<Vec<u8>> {
        let opened = self.0.vault.open(self.device(), key.as_bytes(), stored);
        opened.map_err(|error| StoreError::Database(Box::new(error)))
    }

    async fn get_all(&self, keys: &[SessionKey]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(SESSION_KEYS_MAX) {
            let stored = self.0.store.session_values(self.device(), keys).await;
            for (key, stored) in keys.iter().zip(stored.map_err(Self::failed)?) {
                values.push(stored.map(|stored| self.open(key, &stored)).transpose()?);
            }
        }
        Ok(values)
    }

    async fn get(&self, key: SessionKey) -> Result<Option<Vec<u8>>> {
        Ok(self.get_all(&[key]).await?.pop().flatten())
    }

    async fn get_json<T: DeserializeOwned>(&self, key: SessionKey) -> Result<Option<T>> {
        self.get(key).await?.map(|bytes| from_json(&bytes)).transpose()
    }

    /// All rows below a prefix, in order of keys.
    async fn scan(&self, prefix: &[u8]) -> Result<Vec<SessionRow>> {
        let mut rows = Vec::new();
        let mut page = PageRequest::first(PAGE_MAX);
        loop {
            let found = self.0.store.scan_session(self.device(), prefix, &page).await;
            let found = found.map_err(Self::failed)?;
            for mut row in found.rows {
                row.value = self.open(&row.key, &row.value)?;
                rows.push(row);
            }
            let Some(next) = found.next else { return Ok(rows) };
            page.after = Some(next);
        }
    }

    fn put(&self, key: SessionKey, value: &[u8]) -> Result<SessionWrite> {
        self.put_until(key, value, None)
    }

    fn put_until(&self, key: SessionKey, value: &[u8], expires_at: Option<Timestamp>) -> Result<SessionWrite> {
        if value.len() > VALUE_BYTES_MAX {
            let length = value.len();
            return Err(StoreError::Validation(format!(
                "a session value of {length} bytes is too long"
            )));
        }
        let value = self.0.vault.seal(self.device(), key.as_bytes(), value);
        Ok(SessionWrite::Put(SessionRow { key, value, expires_at }))
    }

    /// Writes in batches of what a store takes; each is durable on return. The first takes along what waits for a write. Nothing is
    /// written unless copies of the messages that came before are.
    async fn write(&self, writes: &[SessionWrite]) -> Result<()> {
        let wiped = self.0.wiped.read().await;
        self.check_wiped(*wiped)?;
        {
            let mut owed = self.0.owed.lock().await;
            if !owed.is_empty() {
                self.write_owed(&mut owed).await?;
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.write_together(writes).await
    }

    async fn write_together(&self, writes: &[SessionWrite]) -> Result<()> {
        let waiting = self.0.secrets.try_lock().ok();
        let waiting = waiting.filter(|waiting| !waiting.is_empty() && waiting.len() + writes.len() <= SESSION_KEYS_MAX);
        if let Some(mut waiting) = waiting {
            let together: Vec<SessionWrite> = writes.iter().chain(waiting.writes()).cloned().collect();
            self.write_batch(&together).await?;
            waiting.clear();
            return Ok(());
        }
        for writes in writes.chunks(SESSION_KEYS_MAX) {
            self.write_batch(writes).await?;
        }
        Ok(())
    }

    fn check_wiped(&self, wiped: u64) -> Result<()> {
        if wiped == self.1 {
            Ok(())
        } else {
            Err(StoreError::Validation("the session was wiped".to_owned()))
        }
    }

    async fn write_batch(&self, writes: &[SessionWrite]) -> Result<()> {
        let written = self.0.store.write_session(&self.0.owner, writes).await;
        self.noted(written).map_err(Self::failed)
    }

    async fn write_one(&self, write: SessionWrite) -> Result<()> {
        self.write(&[write]).await
    }

    async fn delete_below(&self, prefix: &[u8]) -> Result<()> {
        let rows = self.scan(prefix).await?;
        let writes: Vec<SessionWrite> = rows.into_iter().map(|row| SessionWrite::Delete(row.key)).collect();
        self.write(&writes).await
    }
}
