//! What the tests share: a store in memory with one device that a node owns, and a count of what is asked of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use wa_core::domain::device::Device;
use wa_core::domain::platform::Platform;
use wa_core::id::{DeviceId, IdSource, Incarnation, UserId};
use wa_core::store::{
    Change, ChangeSet, LeaseStore, MemoryStore, Page, PageRequest, SessionKey, SessionOwner, SessionRow, SessionStore,
    SessionWrite, Store, StoreError, StoreErrorKind, WriteClass,
};
use wa_core::time::Timestamp;

pub const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

/// A store in memory that counts, and fails where it is told to.
#[derive(Debug, Default)]
pub struct Counted {
    pub inner: MemoryStore,
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    failing: Mutex<Failing>,
}

/// Which writes fail: so many more of a namespace.
#[derive(Debug, Default)]
struct Failing {
    namespace: &'static str,
    left: u64,
    failed: u64,
}

impl Counted {
    /// Lets the next so many writes fail that put a value of a namespace, of any where it is empty.
    pub fn fail(&self, namespace: &'static str, times: u64) {
        let failed = self.failed();
        *self.failing.lock().unwrap() = Failing {
            namespace,
            left: times,
            failed,
        };
    }

    /// How many writes have failed.
    pub fn failed(&self) -> u64 {
        self.failing.lock().unwrap().failed
    }

    fn fails(&self, writes: &[SessionWrite]) -> bool {
        let mut failing = self.failing.lock().unwrap();
        let of = failing.namespace.as_bytes();
        let fits = writes
            .iter()
            .any(|write| matches!(write, SessionWrite::Put(row) if row.key.as_bytes().starts_with(of)));
        let fails = fits && failing.left > 0;
        if fails {
            failing.left -= 1;
            failing.failed += 1;
        }
        fails
    }

    /// Reads and writes since the last call.
    pub fn since(&self) -> (u64, u64) {
        (
            self.reads.swap(0, Ordering::Relaxed),
            self.writes.swap(0, Ordering::Relaxed),
        )
    }
}

#[async_trait]
impl SessionStore for Counted {
    async fn session_values(&self, device: DeviceId, keys: &[SessionKey]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.session_values(device, keys).await
    }

    async fn scan_session(
        &self,
        device: DeviceId,
        prefix: &[u8],
        page: &PageRequest<SessionKey>,
    ) -> Result<Page<SessionRow, SessionKey>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.scan_session(device, prefix, page).await
    }

    async fn write_session(&self, owner: &SessionOwner, writes: &[SessionWrite]) -> Result<(), StoreError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        if self.fails(writes) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "write_session", "session"));
        }
        self.inner.write_session(owner, writes).await
    }

    async fn wipe_session(&self, owner: &SessionOwner) -> Result<u64, StoreError> {
        self.inner.wipe_session(owner).await
    }

    async fn sweep_sessions(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.inner.sweep_sessions(before, limit).await
    }
}

/// One device of a fresh store, owned by a node.
pub async fn stage() -> (Arc<Counted>, SessionOwner) {
    let store = Arc::new(Counted::default());
    let owner = add_device(&store.inner, 1).await;
    (store, owner)
}

/// A device of a user, owned by a node of its own.
pub async fn add_device(store: &MemoryStore, number: u8) -> SessionOwner {
    let ids = IdSource::seeded([number; 32]);
    let user_id = UserId::new(&ids, NOW);
    let device = Device::new(DeviceId::new(&ids, NOW), user_id, "Sales", Platform::WHATSAPP_WEB, NOW);
    let insert = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
    store.commit(insert, WriteClass::Api, NOW).await.unwrap();
    let incarnation = Incarnation::new(&ids, NOW);
    store.join(incarnation, "node", NOW).await.unwrap();
    let owned = store.claim(incarnation, 100, NOW).await.unwrap();
    let owned = owned.iter().find(|owned| owned.device.id == device.id).unwrap();
    SessionOwner {
        incarnation,
        user_id,
        device_id: device.id,
        epoch: owned.epoch,
    }
}
