//! What the suite of stores cannot ask: the file, the lock, the schema, the writer and embedded transactions.

use std::sync::{Arc, Mutex};

use sqlx::{AssertSqlSafe, Connection};
use wa_core::conformance::fixtures::Fixtures;
use wa_core::domain::access::RequestScope;
use wa_core::id::{DeviceId, UserId};
use wa_core::store::{
    Change, ChangeSet, DeviceStore, LeadFilter, LeadStore, LeaseStore, OnDuplicate, OutboxStore, PageRequest, Store,
    StoreErrorKind, WriteClass,
};
use wa_store_sqlite::{DataLock, LockError, SqliteOptions, SqliteStore};

use crate::folder::Folder;

/// A store with one device of one user.
struct Stage {
    store: SqliteStore,
    rows: Fixtures,
    user: UserId,
    device: DeviceId,
    _folder: Option<Folder>,
}

impl Stage {
    async fn memory() -> Self {
        Self::on(SqliteStore::open(SqliteOptions::memory()).await.unwrap(), None).await
    }

    async fn file() -> Self {
        let folder = Folder::new();
        let options = SqliteOptions::file(folder.path().join("wa.db"));
        Self::on(SqliteStore::open(options).await.unwrap(), Some(folder)).await
    }

    async fn on(store: SqliteStore, folder: Option<Folder>) -> Self {
        let rows = Fixtures::new(1);
        let user = rows.user().id;
        let device = rows.device(user);
        let set = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
        store.commit(set, WriteClass::Api, rows.start()).await.unwrap();
        Self {
            store,
            rows,
            user,
            device: device.id,
            _folder: folder,
        }
    }

    fn message(&self) -> ChangeSet {
        let phone = self.rows.fresh_phone();
        let message = self.rows.direct_message(self.user, Some(self.device), phone);
        ChangeSet::one(Change::InsertMessages(vec![message]))
    }

    fn lead(&self) -> Change {
        Change::InsertLead {
            lead: Box::new(self.rows.lead(self.user, Some(self.device))),
            on_duplicate: OnDuplicate::Refuse,
        }
    }

    async fn queued(&self) -> u64 {
        self.store.backlog().await.unwrap().queued
    }

    async fn leads(&self) -> u64 {
        let scope = RequestScope::user(self.user);
        self.store.lead_count(&scope, &LeadFilter::default()).await.unwrap()
    }
}

#[test]
fn a_locked_folder_names_the_process_that_holds_it() {
    let folder = Folder::new();
    let lock = DataLock::acquire(folder.path()).unwrap();
    let error = DataLock::acquire(folder.path()).unwrap_err();
    assert!(
        error.to_string().contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    assert!(matches!(error, LockError::Held { holder: Some(_), .. }));
    drop(lock);
    DataLock::acquire(folder.path()).expect("the file alone locks nothing");
}

#[tokio::test]
async fn the_dead_are_fenced_only_with_the_lock_on_the_folder_of_the_file() {
    let folder = Folder::new();
    let file = folder.path().join("wa.db");
    let rows = Fixtures::new(1);
    let (dead, node) = (rows.incarnation(), rows.incarnation());
    let shared = SqliteStore::open(SqliteOptions::file(&file)).await.unwrap();
    for incarnation in [dead, node] {
        shared.join(incarnation, "node", rows.start()).await.unwrap();
    }
    let refused = shared.fence_the_dead(node, rows.start()).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Unsupported);
    shared.close().await;

    let elsewhere = Folder::new();
    let wrong = DataLock::acquire(elsewhere.path()).unwrap();
    let refused = SqliteStore::open(SqliteOptions::file(&file).lock(wrong))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Conflict);

    let lock = DataLock::acquire(folder.path()).unwrap();
    let alone = SqliteStore::open(SqliteOptions::file(&file).lock(lock)).await.unwrap();
    alone.fence_the_dead(node, rows.start()).await.unwrap();
    let nodes = alone.nodes().await.unwrap();
    let fenced = nodes
        .iter()
        .filter(|record| record.fenced)
        .map(|record| record.incarnation);
    assert_eq!(fenced.collect::<Vec<_>>(), [dead]);
    DataLock::acquire(folder.path()).expect_err("the store holds the lock as long as it lives");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_of_the_files_may_read_them() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let data = folder.path().join("data");
    let store = SqliteStore::open(SqliteOptions::file(data.join("wa.db")))
        .await
        .unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let files: Vec<_> = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(files.len() >= 2, "the database and its log: {files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    store.ready().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_opened_again_shows_what_was_committed() {
    let stage = Stage::file().await;
    stage
        .store
        .commit(stage.message(), WriteClass::Api, stage.rows.start())
        .await
        .unwrap();
    let file = stage._folder.as_ref().unwrap().path().join("wa.db");
    stage.store.clone().close().await;
    let again = SqliteStore::open(SqliteOptions::file(file)).await.unwrap();
    again.ready().await.unwrap();
    assert_eq!(again.backlog().await.unwrap().queued, 1);
    let page = again
        .devices(&RequestScope::user(stage.user), &PageRequest::first(10))
        .await
        .unwrap();
    assert_eq!(
        page.rows.iter().map(|device| device.id).collect::<Vec<_>>(),
        [stage.device]
    );
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt() {
    let folder = Folder::new();
    let file = folder.path().join("wa.db");
    std::fs::write(
        &file,
        "nothing that SQLite would write, and longer than a header".repeat(100),
    )
    .unwrap();
    let error = SqliteStore::open(SqliteOptions::file(file)).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error:?}");
}

#[tokio::test]
async fn an_embedded_change_set_lives_and_dies_with_its_transaction() {
    let stage = Stage::memory().await;
    let now = stage.rows.start();

    let mut tx = stage.store.begin_tx(WriteClass::Api).await.unwrap();
    sqlx::query("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        .execute(&mut *tx)
        .await
        .unwrap();
    let done = stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    assert_eq!((done.messages_inserted, done.wake), (1, vec![stage.device]));
    tx.rollback().await.unwrap();
    assert_eq!(stage.queued().await, 0);

    let mut tx = stage.store.begin_tx(WriteClass::Api).await.unwrap();
    stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    drop(tx);
    assert_eq!(stage.queued().await, 0, "dropped is undone");

    let mut tx = stage.store.begin_tx(WriteClass::Api).await.unwrap();
    sqlx::query("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        .execute(&mut *tx)
        .await
        .unwrap();
    stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.queued().await, 1);
}

#[tokio::test]
async fn a_refused_change_set_leaves_the_rest_of_the_callers_transaction() {
    let stage = Stage::memory().await;
    let now = stage.rows.start();
    let mut tx = stage.store.begin_tx(WriteClass::Api).await.unwrap();
    stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    let stranger = Change::DeleteDevice {
        user_id: stage.rows.user().id,
        device_id: stage.device,
    };
    let refused = stage
        .store
        .commit_in(&mut tx, stage.message().and(stranger), now)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::NotFound);
    tx.commit().await.unwrap();
    assert_eq!(stage.queued().await, 1, "the message of the refused set is gone");
}

#[tokio::test]
async fn a_transaction_of_another_store_is_refused() {
    let (stage, other) = (Stage::memory().await, Stage::memory().await);
    let mut tx = other.store.begin_tx(WriteClass::Api).await.unwrap();
    let refused = stage
        .store
        .commit_in(&mut tx, stage.message(), stage.rows.start())
        .await
        .unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Unsupported);
}

#[tokio::test]
async fn reads_do_not_wait_for_a_write() {
    let stage = Stage::file().await;
    let mut tx = stage.store.begin_tx(WriteClass::Bulk).await.unwrap();
    stage
        .store
        .commit_in(&mut tx, stage.message(), stage.rows.start())
        .await
        .unwrap();
    assert_eq!(stage.queued().await, 0, "the last commit is read");
    tx.commit().await.unwrap();
    assert_eq!(stage.queued().await, 1);
}

#[tokio::test]
async fn urgent_writes_go_first_and_equal_ones_in_turn() {
    let stage = Stage::memory().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let running = stage.store.begin_tx(WriteClass::Bulk).await.unwrap();
    let asked = [
        (WriteClass::Bulk, 1),
        (WriteClass::Api, 2),
        (WriteClass::Begin, 3),
        (WriteClass::Settle, 4),
        (WriteClass::Settle, 5),
    ];
    let mut tasks = Vec::new();
    for (class, number) in asked {
        let (store, order) = (stage.store.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            let tx = store.begin_tx(class).await.unwrap();
            order.lock().unwrap().push(number);
            tx.commit().await.unwrap();
        }));
        // On one thread a task that was spawned takes its place in the queue as soon as this one yields.
        tokio::task::yield_now().await;
    }
    running.commit().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [4, 5, 3, 2, 1]);
}

#[tokio::test]
async fn a_caller_that_is_dropped_leaves_all_or_nothing() {
    let stage = Stage::memory().await;
    for polls in 0..40 {
        let before = stage.leads().await;
        let set = ChangeSet::one(stage.lead()).and(stage.lead());
        let mut commit = stage.store.commit(set, WriteClass::Api, stage.rows.start());
        for _ in 0..polls {
            if futures::poll!(&mut commit).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(commit);
        // The next write takes its turn after whatever the dropped one left running.
        stage
            .store
            .begin_tx(WriteClass::Api)
            .await
            .unwrap()
            .commit()
            .await
            .unwrap();
        let added = stage.leads().await - before;
        assert!(added == 0 || added == 2, "{added} of 2 leads after {polls} polls");
    }
}

#[tokio::test]
async fn a_caller_that_is_dropped_anywhere_leaves_no_transaction_open_on_a_connection() {
    use std::task::Poll;

    use wa_core::store::SequenceStore;
    // Polls a future as often as it is woken, but not more than so many times, and drops it.
    async fn polled<F: Future>(times: usize, future: F) {
        let mut future = std::pin::pin!(future);
        let mut left = times;
        std::future::poll_fn(move |context| {
            left -= 1;
            match future.as_mut().poll(context) {
                Poll::Pending if left > 0 => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
    }
    let stage = Stage::file().await;
    let now = stage.rows.start();
    let scope = RequestScope::user(stage.user);
    let (sequence, _) = stage.rows.sequence(stage.user, &[]);
    for round in 0..40 {
        let polls = 1 + round / 4;
        match round % 4 {
            0 | 1 => polled(polls, stage.store.recount_sequence(&scope, sequence.id)).await,
            2 => polled(polls, stage.store.begin_tx(WriteClass::Api)).await,
            _ => polled(polls, stage.store.commit(stage.message(), WriteClass::Api, now)).await,
        }
        stage.store.commit(stage.message(), WriteClass::Api, now).await.unwrap();
        // More than there are connections, so that each of them is read on.
        let mut counts = futures::future::join_all((0..8).map(|_| stage.queued())).await;
        counts.dedup();
        assert_eq!(counts.len(), 1, "{counts:?} after {polls} polls");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room_again() {
    let stage = Stage::file().await;
    let limit = async |pages: &'static str| {
        let mut tx = stage.store.begin_tx(WriteClass::Api).await.unwrap();
        sqlx::query(pages).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    };
    limit("PRAGMA max_page_count = 1").await;
    let many = (0..500).fold(ChangeSet::default(), |set, _| set.and(stage.lead()));
    for _ in 0..3 {
        let refused = stage
            .store
            .commit(many.clone(), WriteClass::Bulk, stage.rows.start())
            .await
            .unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{refused:?}");
    }
    assert_eq!(stage.leads().await, 0);
    limit("PRAGMA max_page_count = 1000000").await;
    stage
        .store
        .commit(many, WriteClass::Bulk, stage.rows.start())
        .await
        .unwrap();
    assert_eq!(stage.leads().await, 500);
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_by_itself_does_not_stop_the_writer() {
    let stage = Stage::memory().await;
    for savepoints in 0..3 {
        let mut tx = stage.store.begin_tx(WriteClass::Api).await.unwrap();
        for _ in 0..savepoints {
            std::mem::forget(tx.begin().await.unwrap());
        }
        // As SQLite does on some failures of the disk.
        sqlx::query("ROLLBACK").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap_err();
    }
    stage
        .store
        .commit(stage.message(), WriteClass::Api, stage.rows.start())
        .await
        .unwrap();
    assert_eq!(stage.queued().await, 1);
}

#[tokio::test]
async fn the_database_itself_refuses_what_must_never_be() {
    let stage = Stage::memory().await;
    let other_user = stage.rows.user().id;
    let start = stage.rows.start();
    for _ in 0..2 {
        stage
            .store
            .commit(stage.message(), WriteClass::Api, start)
            .await
            .unwrap();
    }
    let campaign = stage.rows.campaign(stage.user);
    let set = ChangeSet::one(Change::InsertCampaign(Box::new(campaign))).and(stage.lead());
    stage.store.commit(set, WriteClass::Api, start).await.unwrap();
    let foreign = format!("user_id = x'{}'", other_user.as_uuid().simple());
    let sending = "attempt_id = randomblob(16), epoch = 1";
    let bad = [
        (
            "two messages being sent by one device",
            format!("UPDATE messages SET state = 3, {sending}"),
        ),
        (
            "sending without an attempt",
            "UPDATE messages SET state = 3 WHERE seq = 1".into(),
        ),
        (
            "sending without a device",
            format!("UPDATE messages SET state = 3, device_id = NULL, {sending} WHERE seq = 1"),
        ),
        (
            "in doubt without a next check",
            format!("UPDATE messages SET state = 4, {sending} WHERE seq = 1"),
        ),
        (
            "held without a time",
            "UPDATE messages SET state = 2 WHERE seq = 1".into(),
        ),
        (
            "settled without a time",
            "UPDATE messages SET state = 5 WHERE seq = 1".into(),
        ),
        (
            "open with a time of settlement",
            "UPDATE messages SET settled_at = 0 WHERE seq = 1".into(),
        ),
        (
            "an unknown state",
            "UPDATE messages SET state = 10, settled_at = 0 WHERE seq = 1".into(),
        ),
        (
            "a key twice",
            "UPDATE messages SET key = (SELECT key FROM messages WHERE seq = 2) WHERE seq = 1".into(),
        ),
        (
            "another user's device in a message",
            format!("UPDATE messages SET {foreign} WHERE seq = 1"),
        ),
        (
            "another user's campaign in a message",
            "UPDATE messages SET scope_kind = 1 WHERE seq = 1".into(),
        ),
        ("another user's device of a lead", format!("UPDATE leads SET {foreign}")),
        ("a phone that is none", "UPDATE leads SET phone = '0123456789'".into()),
        ("an unknown campaign status", "UPDATE campaigns SET status = 8".into()),
        (
            "a cursor without its lead",
            "UPDATE campaigns SET cursor_kind = 1".into(),
        ),
        (
            "an owner that is no node",
            "UPDATE devices SET owner = randomblob(16)".into(),
        ),
        ("numbers below zero", "UPDATE tallies SET remaining = -1".into()),
        (
            "a text where a number belongs",
            "UPDATE messages SET due_at = 'soon'".into(),
        ),
    ];
    for (what, sql) in bad {
        let mut tx = stage.store.begin_tx(WriteClass::Api).await.unwrap();
        let result = sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await;
        let code = result
            .err()
            .and_then(|error| Some(error.as_database_error()?.code()?.into_owned()));
        // The low byte of every code of a broken constraint is 19, https://sqlite.org/rescode.html.
        let primary = code.and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff);
        assert_eq!(primary, Some(19), "{what}");
        tx.rollback().await.unwrap();
    }
}
