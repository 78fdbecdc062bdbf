//! Sessions of devices that are linked to WhatsApp Web, as keys and values.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use super::{Page, PageRequest, StoreError, StoreErrorKind};
use crate::domain::device::Epoch;
use crate::id::{DeviceId, Incarnation, UserId};
use crate::time::Timestamp;

/// Longest key, in bytes.
pub const SESSION_KEY_BYTES_MAX: usize = 512;

/// Longest value, in bytes.
pub const SESSION_VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Most keys of one call that reads or writes by key.
pub const SESSION_KEYS_MAX: usize = 1_000;

/// The name of a value within the session of one device: 1 to [`SESSION_KEY_BYTES_MAX`] bytes, ordered bytewise.
///
/// Keys may hold phone numbers, so no output shows them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(Vec<u8>);

impl SessionKey {
    /// Takes the bytes of a key; `None` if there are none or too many.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (!bytes.is_empty() && bytes.len() <= SESSION_KEY_BYTES_MAX).then_some(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({} bytes)", self.0.len())
    }
}

/// One value of a session; no output shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Its name.
    pub key: SessionKey,
    /// Up to [`SESSION_VALUE_BYTES_MAX`] bytes, which mean something to the transport alone.
    pub value: Vec<u8>,
    /// From then on a sweep may take it; until one does, it is there.
    pub expires_at: Option<Timestamp>,
}

impl fmt::Debug for SessionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRow")
            .field("key", &self.key)
            .field("value_len", &self.value.len())
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

/// One change of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionWrite {
    /// Adds or replaces a value, its end included.
    Put(SessionRow),
    /// Removes a value; nothing happens when there is none.
    Delete(SessionKey),
}

impl SessionWrite {
    /// The key that it is about.
    #[must_use]
    pub const fn key(&self) -> &SessionKey {
        match self {
            Self::Put(row) => &row.key,
            Self::Delete(key) => key,
        }
    }
}

/// Who writes a session: the node that owns the device, at the epoch at which it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOwner {
    /// The node.
    pub incarnation: Incarnation,
    /// The device's user.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The device's epoch as the node knows it.
    pub epoch: Epoch,
}

/// What a batch comes to: the last write of each key, in order of keys.
///
/// # Errors
/// `Unsupported` for more than [`SESSION_KEYS_MAX`] writes or a value above [`SESSION_VALUE_BYTES_MAX`].
pub fn session_batch(writes: &[SessionWrite]) -> Result<Vec<&SessionWrite>, StoreError> {
    let refused = |entity| StoreError::new(StoreErrorKind::Unsupported, "write_session", entity);
    if writes.len() > SESSION_KEYS_MAX {
        return Err(refused("batch of more session keys than are taken"));
    }
    let mut last = BTreeMap::new();
    for write in writes {
        if matches!(write, SessionWrite::Put(row) if row.value.len() > SESSION_VALUE_BYTES_MAX) {
            return Err(refused("session value longer than is taken"));
        }
        last.insert(write.key(), write);
    }
    Ok(last.into_values().collect())
}

/// Where a page of the keys with a prefix begins, itself included, and where it ends, itself excluded.
#[must_use]
pub fn session_range(prefix: &[u8], page: &PageRequest<SessionKey>) -> (Vec<u8>, Vec<u8>) {
    let from = match &page.after {
        // The least key above it.
        Some(key) if key.as_bytes() >= prefix => [key.as_bytes(), &[0]].concat(),
        _ => prefix.to_vec(),
    };
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX);
    let to = match kept {
        Some(at) => {
            let mut to = prefix[..=at].to_vec();
            to[at] += 1;
            to
        }
        // Above every key, since none is as long.
        None => vec![u8::MAX; SESSION_KEY_BYTES_MAX + 1],
    };
    (from, to)
}

/// Sessions of linked devices.
///
/// To ensure correctness: a session has one writer, the owner of its device. Each write names it, and is refused as `Fenced`
/// when the node is fenced, has left, or does not own the device of that user at that epoch; the owner of a deleted device may
/// write until it gives the device back. A reader sees a batch as a whole or not at all.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// The values of up to [`SESSION_KEYS_MAX`] keys, in their order; `None` for those that are not there.
    ///
    /// # Errors
    /// `Unsupported` for more keys.
    async fn session_values(&self, device: DeviceId, keys: &[SessionKey]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// A page of the values whose keys begin with a prefix, in order of keys.
    async fn scan_session(
        &self,
        device: DeviceId,
        prefix: &[u8],
        page: &PageRequest<SessionKey>,
    ) -> Result<Page<SessionRow, SessionKey>, StoreError>;

    /// Writes a batch: all or nothing, durable on return. Of two writes of one key the later counts.
    ///
    /// Idempotent.
    ///
    /// # Errors
    /// `Fenced`: close the connection of the device. `Unsupported`: see [`session_batch`].
    async fn write_session(&self, owner: &SessionOwner, writes: &[SessionWrite]) -> Result<(), StoreError>;

    /// Removes the whole session of a device; returns how many values there were.
    ///
    /// # Errors
    /// `Fenced` as for a write.
    async fn wipe_session(&self, owner: &SessionOwner) -> Result<u64, StoreError>;

    /// Removes up to `limit` values, of all devices, whose end is before `before`, those that ended first first; returns how
    /// many. Any node may.
    async fn sweep_sessions(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> SessionKey {
        SessionKey::new(bytes).unwrap()
    }

    #[test]
    fn a_range_holds_what_begins_with_the_prefix_and_comes_after_the_page_before() {
        let first = PageRequest::first(10);
        assert_eq!(session_range(b"ab", &first), (b"ab".to_vec(), b"ac".to_vec()));
        assert_eq!(session_range(b"a\xff\xff", &first).1, b"b");
        let all = session_range(b"", &first);
        assert!(all.0.is_empty() && all.1.len() > SESSION_KEY_BYTES_MAX);
        let after = PageRequest::after(key(b"abc"), 10);
        assert_eq!(session_range(b"ab", &after).0, b"abc\0");
        let before = PageRequest::after(key(b"aa"), 10);
        assert_eq!(session_range(b"ab", &before).0, b"ab");
    }

    #[test]
    fn no_output_shows_keys_or_values() {
        let row = SessionRow {
            key: key(b"60123456789"),
            value: b"secret".to_vec(),
            expires_at: None,
        };
        let shown = format!(
            "{:?} {:?}",
            SessionWrite::Put(row.clone()),
            SessionWrite::Delete(row.key)
        );
        assert!(!shown.contains("6012") && !shown.contains("115, 101"), "{shown}");
    }
}
