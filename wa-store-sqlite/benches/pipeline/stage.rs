//! The people, devices and the one campaign that every measurement starts from.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use wa_core::domain::audience::AudienceCursor;
use wa_core::domain::campaign::{Campaign, CampaignStatus};
use wa_core::domain::content::Content;
use wa_core::domain::device::Device;
use wa_core::domain::lead::Lead;
use wa_core::domain::message::{IdempotencyKey, Message, MessageScope, MessageState};
use wa_core::domain::phone::PersonKey;
use wa_core::domain::platform::Platform;
use wa_core::id::{CampaignId, DeviceId, IdSource, LeadId, MessageId, UserId};
use wa_core::seed::Seed;
use wa_core::store::{Change, ChangeSet, LeaseStore, OnDuplicate, Store, WriteClass};
use wa_core::time::{Clock, SystemClock, Timestamp};
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use crate::by_hand;
use crate::fill::phone;

/// Rows per change set, as the engine commits them.
pub const PAGE: usize = 500;

/// What everything that is drawn comes from.
pub static SEED: LazyLock<Seed> = LazyLock::new(|| Seed::from_number(1));

/// A folder that goes away with its value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("wa-bench-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the folder for databases can be made");
        Self(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A database that is copied for every run, and what is in it.
#[derive(Debug)]
pub struct Stage {
    pub clock: Arc<SystemClock>,
    pub ids: IdSource,
    pub now: Timestamp,
    pub user: UserId,
    pub campaign: CampaignId,
    pub devices: Vec<DeviceId>,
    pub messages: Vec<Message>,
    file: PathBuf,
}

impl Stage {
    /// Devices, leads spread over them, and a campaign for all of them; where `expanded`, its cursor has passed them.
    pub async fn build(folder: &Folder, name: &str, devices: usize, leads: usize, expanded: bool) -> Self {
        let clock = Arc::new(SystemClock::new());
        let ids = IdSource::seeded([7; 32]);
        let now = clock.wall();
        let user = UserId::new(&ids, now);
        let file = folder.file(&format!("{name}.db"));
        let store = open(&file).await;
        let seed = store.seed(&SEED).await.expect("the seed is kept");
        let devices: Vec<_> = (0..devices).map(|_| DeviceId::new(&ids, now)).collect();
        for (page, chunk) in devices.chunks(PAGE).enumerate() {
            let changes = chunk.iter().enumerate().map(|(at, id)| {
                let name = format!("device {}", page * PAGE + at);
                Change::InsertDevice(Box::new(Device::new(*id, user, name, Platform::STUB, now)))
            });
            commit(&store, changes.collect(), now).await;
        }
        let campaign = CampaignId::new(&ids, now);
        let mut draft = Campaign::draft(
            campaign,
            user,
            "offer",
            Content::text("Hi {{name}}, {buy|take} it today"),
            now,
        );
        draft.status = CampaignStatus::Triggered;
        draft.started_at = Some(now);
        if expanded {
            draft.cursor = AudienceCursor::Done;
        }
        let expires_at = now + draft.expires_after;
        commit(&store, vec![Change::InsertCampaign(Box::new(draft))], now).await;
        let mut messages = Vec::with_capacity(leads);
        let numbers: Vec<usize> = (0..leads).collect();
        for chunk in numbers.chunks(PAGE) {
            let mut changes = Vec::with_capacity(chunk.len());
            for number in chunk {
                let device = devices[number % devices.len()];
                let phone = phone(*number);
                let mut lead = Lead::new(LeadId::new(&ids, now), user, Some(device), phone, now);
                lead.name = format!("Ali bin Abu {number}");
                let person = PersonKey::of(&seed, user, &phone);
                messages.push(message(&ids, now, expires_at, &lead, person, campaign));
                changes.push(Change::InsertLead {
                    lead: Box::new(lead),
                    on_duplicate: OnDuplicate::Refuse,
                });
            }
            commit(&store, changes, now).await;
        }
        store.close().await;
        by_hand::checkpoint(&file).await;
        Self {
            clock,
            ids,
            now,
            user,
            campaign,
            devices,
            messages,
            file,
        }
    }

    /// A copy of the database for one run, in the place of the one before.
    pub fn copy(&self, folder: &Folder, name: &str) -> PathBuf {
        let to = folder.file(&format!("{name}.db"));
        for companion in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.file(&format!("{name}.db{companion}")));
        }
        std::fs::copy(&self.file, &to).expect("the database can be copied");
        // What the copy left to be written must not be paid for by the run.
        let copied = std::fs::File::open(&to).and_then(|file| file.sync_all());
        copied.expect("the copy reaches the disk");
        to
    }

    /// The database that is copied.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Seconds since the clock's start.
    pub fn seconds(&self) -> f64 {
        self.clock.monotonic().since_start().as_secs_f64()
    }
}

/// Opens a database as a program that embeds the engine does.
pub async fn open(file: &Path) -> SqliteStore {
    SqliteStore::open(SqliteOptions::file(file))
        .await
        .expect("the database opens")
}

/// Commits what a measurement starts from.
pub async fn commit(store: &SqliteStore, changes: Vec<Change>, now: Timestamp) {
    let set = ChangeSet {
        changes,
        events: Vec::new(),
    };
    store
        .commit(set, WriteClass::Bulk, now)
        .await
        .expect("the stage is set");
}

fn message(
    ids: &IdSource,
    now: Timestamp,
    expires_at: Timestamp,
    lead: &Lead,
    person: PersonKey,
    campaign: CampaignId,
) -> Message {
    Message {
        id: MessageId::new(ids, now),
        user_id: lead.user_id,
        scope: MessageScope::Campaign(campaign),
        key: IdempotencyKey::campaign(campaign, person, 0),
        round: 0,
        supersedes: None,
        superseded: false,
        lead_id: Some(lead.id),
        phone: Some(lead.phone),
        person,
        name: String::new(),
        custom: Default::default(),
        device_id: lead.device_id,
        flow: None,
        from_pool: false,
        content: None,
        override_suppression: false,
        due_at: now,
        delay: None,
        expires_at,
        held_at: None,
        state: MessageState::Queued,
        reason: None,
        detail: None,
        refusal_count: 0,
        attempt: None,
        doubt: None,
        delivery: None,
        delivery_at: None,
        settled_at: None,
        created_at: now,
    }
}
