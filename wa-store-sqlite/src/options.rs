//! How a store is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::lock::DataLock;

/// Where the database is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    File(PathBuf),
    Memory,
}

/// How a [`SqliteStore`](crate::SqliteStore) is opened.
#[derive(Debug, Clone)]
#[must_use]
pub struct SqliteOptions {
    pub(crate) place: Place,
    pub(crate) readers: u32,
    pub(crate) busy_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) cache_kib: u32,
    pub(crate) lock: Option<Arc<DataLock>>,
}

impl SqliteOptions {
    /// Connections that read beside the writer, by default.
    pub const READERS: u32 = 4;
    /// Most connections that read beside the writer.
    pub const READERS_MAX: u32 = 64;
    /// How long a statement waits for a lock of another process, by default: 5 s.
    pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
    /// How long a read waits for a free connection, by default: 30 s.
    pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
    /// Page cache of the writer, by default: 64 MiB; each reader has a quarter of it.
    pub const CACHE_KIB: u32 = 64 * 1024;
    /// Smallest page cache of the writer: 256 KiB.
    pub const CACHE_KIB_MIN: u32 = 256;
    /// Largest page cache of the writer: 64 GiB.
    pub const CACHE_KIB_MAX: u32 = 64 * 1024 * 1024;

    fn new(place: Place) -> Self {
        Self {
            place,
            readers: Self::READERS,
            busy_timeout: Self::BUSY_TIMEOUT,
            read_timeout: Self::READ_TIMEOUT,
            cache_kib: Self::CACHE_KIB,
            lock: None,
        }
    }

    /// A database file; it and its folder are created if they are missing, readable by their owner alone.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(Place::File(path.into()))
    }

    /// A database that lives as long as the store. It has one connection, so reads wait for writes.
    pub fn memory() -> Self {
        Self::new(Place::Memory)
    }

    /// How many connections read beside the writer, 1 to [`Self::READERS_MAX`] (clamped). Of no effect in memory.
    pub fn readers(mut self, readers: u32) -> Self {
        self.readers = readers.clamp(1, Self::READERS_MAX);
        self
    }

    /// How long a statement waits for a lock of another process before it fails with `Unavailable`.
    pub const fn busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout;
        self
    }

    /// How long a read waits for a free connection before it fails with `Unavailable`.
    pub const fn read_timeout(mut self, read_timeout: Duration) -> Self {
        self.read_timeout = read_timeout;
        self
    }

    /// Page cache of the writer, in KiB, [`Self::CACHE_KIB_MIN`] to [`Self::CACHE_KIB_MAX`] (clamped); each reader has a quarter
    /// of it. The caches fill up while the database is read and written, and memory grows by them until they are full.
    pub fn cache_kib(mut self, cache_kib: u32) -> Self {
        self.cache_kib = cache_kib.clamp(Self::CACHE_KIB_MIN, Self::CACHE_KIB_MAX);
        self
    }

    /// The lock on the folder of the file: the proof that no other process uses it, which
    /// [`fence_the_dead`](wa_core::store::LeaseStore::fence_the_dead) needs. The store holds it as long as it lives.
    pub fn lock(mut self, lock: DataLock) -> Self {
        self.lock = Some(Arc::new(lock));
        self
    }
}
