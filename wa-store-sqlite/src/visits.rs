//! What a round costs while many enrolments are open of which few are due: SQLite's own steps are counted, which no other work
//! on the machine changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::AssertSqlSafe;
use wa_core::domain::content::Content;
use wa_core::domain::device::Device;
use wa_core::domain::pacing::PacingPolicy;
use wa_core::domain::platform::Platform;
use wa_core::domain::sequence::{Sequence, SequenceReason, SequenceStatus, SequenceSteps, Step};
use wa_core::domain::token::Token;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::{Engine, EngineBuilder};
use wa_core::id::{DeviceId, IdSource, SequenceId, StepId, UserId};
use wa_core::store::{Change, ChangeSet, Settled, Store, WriteClass};
use wa_core::time::{Clock, SystemClock, Timestamp};
use wa_core::transport::StubTransport;

use crate::row::blob;
use crate::{SqliteOptions, SqliteStore};

/// As [`FILL`] has it too.
const DEVICES: usize = 32;
/// Rounds that are counted, one for each step of the sequence, so that some enrolments move on and others are completed.
const ROUNDS: usize = 3;
const STEPS: usize = 3;
/// How many enrolments are due: as many as all rounds need, and some to spare.
const DUE: usize = DEVICES * (ROUNDS + 2);

/// Rows of so many leads, each enrolled, the first of them due. ?1 the count, ?2 the user, ?3 the sequence, ?4 now, ?5 how many are
/// due, ?6 to ?8 the steps, which they stand at in turn, round by round.
const FILL: &[&str] = &[
    "CREATE TEMP TABLE one AS
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
    SELECT i, ?2 AS user_id, ?3 AS sequence_id, ?4 AS now, unhex(printf('%032x', i)) AS id, randomblob(16) AS person,
        iif(i < ?5, ?4 - 1000, ?4 + 3600000 + i) AS due_at,
        CASE i / 32 % 3 WHEN 0 THEN ?6 WHEN 1 THEN ?7 ELSE ?8 END AS step_id, d.id AS device_id
    FROM n CROSS JOIN (SELECT row_number() OVER (ORDER BY id) - 1 AS n, id FROM devices) d ON d.n = i % 32",
    "INSERT INTO leads (id, user_id, device_id, name, name_key, phone, niches, triggers, tags, target_status, journey,
        pipeline_status, created_at, updated_at, version)
    SELECT id, user_id, device_id, 'Ali', 'ali', printf('+6012%07d', i), '', '', '', 1, '', '', now, now, 1 FROM one",
    "INSERT INTO enrolments (id, user_id, sequence_id, lead_id, phone, person, device_id, root_id, entry_step_id, steps_version,
        step_id, due_at, state, created_at)
    SELECT id, user_id, sequence_id, id, printf('+6012%07d', i), person, device_id, id, step_id, 1, step_id, due_at, 1, now FROM one",
    "INSERT INTO messages (id, user_id, scope_kind, scope_id, enrolment_id, step_id, steps_version, priority, key, round, lead_id,
        phone, person, name, device_id, from_pool, override_suppression, due_at, expires_at, state, created_at)
    SELECT id, user_id, 2, sequence_id, id, step_id, 1, 1, randomblob(16), 0, id, printf('+6012%07d', i), person, 'Ali', device_id,
        0, 0, due_at, due_at + 864000000, 1, now FROM one",
    "INSERT INTO tallies (user_id, scope_kind, scope_id, device_id, done, failed, skipped, unknown, cancelled, remaining, delivered,
        undelivered, read, replied)
    SELECT user_id, 2, sequence_id, device_id, 0, 0, 0, 0, 0, count(*), 0, 0, 0, 0 FROM one GROUP BY device_id",
    "INSERT INTO step_tallies (sequence_id, step_id, device_id, done, failed, skipped, unknown, cancelled, remaining, delivered,
        undelivered, read, replied)
    SELECT sequence_id, step_id, device_id, 0, 0, 0, 0, 0, count(*), 0, 0, 0, 0 FROM one GROUP BY step_id, device_id",
    "INSERT INTO enrolment_counts (sequence_id, steps_version, step_id, device_id, state, reason, count)
    SELECT sequence_id, 1, step_id, device_id, 1, 0, count(*) FROM one GROUP BY step_id, device_id",
    "UPDATE sequences SET cursor_kind = 3, cursor_lead = NULL",
    "DROP TABLE one",
];

/// What SQLite stepped through for each kind of call.
#[derive(Debug, Default)]
struct Visits {
    plan: u64,
    due: u64,
    begin: u64,
    settle: u64,
}

/// An engine over a sequence of three steps with open enrolments.
struct Running {
    engine: Arc<Engine>,
    devices: BTreeSet<DeviceId>,
    counter: Arc<AtomicU64>,
}

impl Running {
    async fn with(enrolments: u32) -> Self {
        let store = SqliteStore::open(SqliteOptions::memory()).await.unwrap();
        let clock = Arc::new(SystemClock::new());
        let (ids, now) = (IdSource::seeded([5; 32]), clock.wall());
        let user = UserId::new(&ids, now);
        let devices: BTreeSet<DeviceId> = (0..DEVICES).map(|_| DeviceId::new(&ids, now)).collect();
        let changes = devices.iter().map(|id| {
            let device = Device::new(*id, user, id.to_string(), Platform::STUB, now);
            Change::InsertDevice(Box::new(device))
        });
        let sequence = SequenceId::new(&ids, now);
        let steps: Vec<Step> = (0..STEPS).map(|at| step(&ids, now, at)).collect();
        let step_ids: Vec<StepId> = steps.iter().map(|step| step.id).collect();
        let set = ChangeSet {
            changes: changes.chain(active(sequence, user, steps, now)).collect(),
            events: Vec::new(),
        };
        store.commit(set, WriteClass::Bulk, now).await.unwrap();
        let mut tx = store.begin_tx(WriteClass::Bulk).await.unwrap();
        for sql in FILL {
            let filled = sqlx::query(AssertSqlSafe(*sql));
            let filled = if sql.contains("?1") {
                let due = i64::try_from(DUE).unwrap();
                let filled = filled.bind(enrolments).bind(blob(&user).to_vec());
                let filled = filled.bind(blob(&sequence).to_vec()).bind(now.as_millis()).bind(due);
                step_ids
                    .iter()
                    .fold(filled, |filled, id| filled.bind(blob(id).to_vec()))
            } else {
                filled
            };
            filled.execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
        let counter = Arc::new(AtomicU64::new(0));
        let mut turn = store.writer.turn(WriteClass::Api).await.unwrap();
        let count = counter.clone();
        turn.lock_handle().await.unwrap().set_progress_handler(1, move || {
            count.fetch_add(1, Ordering::Relaxed);
            true
        });
        drop(turn);
        let config = EngineConfig::new("visits").pacing(PacingPolicy::unpaced());
        let builder = EngineBuilder::new(Arc::new(store), clock, config).transport(Arc::new(StubTransport::new()));
        let engine = Engine::start(builder.open().await.unwrap()).await.unwrap();
        while engine.plan().await.unwrap().more {}
        Self {
            engine,
            devices,
            counter,
        }
    }

    fn taken(&self) -> u64 {
        self.counter.swap(0, Ordering::Relaxed)
    }

    /// Sends one message of each device, and plans what follows.
    async fn round(&self, visits: &mut Visits) {
        let engine = &self.engine;
        engine.wake(&self.devices);
        self.taken();
        let candidates = engine.look().await.unwrap();
        visits.due += self.taken();
        assert_eq!(candidates.len(), DEVICES);
        let dispatches = engine.begin(candidates).await.unwrap();
        visits.begin += self.taken();
        let mut finished = Vec::new();
        for dispatch in dispatches {
            finished.push(dispatch.run().await);
        }
        assert_eq!(finished.len(), DEVICES);
        self.taken();
        let settled = engine.settle(&finished).await.unwrap();
        visits.settle += self.taken();
        assert!(settled.iter().all(|settled| matches!(settled, Settled::Yes(_))));
        assert!(!engine.plan().await.unwrap().more);
        visits.plan += self.taken();
    }
}

fn step(ids: &IdSource, now: Timestamp, at: usize) -> Step {
    Step {
        id: StepId::new(ids, now),
        day: u16::try_from(at + 1).unwrap(),
        trigger: Token::parse(&format!("cold {at}")).unwrap(),
        next_trigger: None,
        entry_point: at == 0,
        wait: Step::WAIT,
        content: Content::text("Hi {{name}}"),
        send_time: None,
        delay: None,
    }
}

fn active(id: SequenceId, user: UserId, steps: Vec<Step>, now: Timestamp) -> [Change; 2] {
    let mut sequence = Sequence::draft(id, user, "drip", now);
    sequence.steps_version = 1;
    let steps = SequenceSteps {
        sequence_id: id,
        version: 1,
        steps,
    };
    let insert = Change::InsertSequence {
        sequence: Box::new(sequence),
        steps: Some(Box::new(steps)),
    };
    let start = Change::SetSequenceStatus {
        user_id: user,
        sequence_id: id,
        from: &[SequenceStatus::Draft],
        to: SequenceStatus::Active,
        reason: Some(SequenceReason::ByPerson),
    };
    [insert, start]
}

#[tokio::test]
async fn a_round_visits_as_many_rows_with_a_hundred_thousand_open_enrolments_as_with_ten_thousand() {
    let (few, many) = (Running::with(10_000).await, Running::with(100_000).await);
    let (mut of_few, mut of_many) = (Visits::default(), Visits::default());
    for _ in 0..ROUNDS {
        few.round(&mut of_few).await;
        many.round(&mut of_many).await;
    }
    for (name, few, many) in [
        ("plan", of_few.plan, of_many.plan),
        ("due", of_few.due, of_many.due),
        ("begin", of_few.begin, of_many.begin),
        ("settle", of_few.settle, of_many.settle),
    ] {
        assert!(few > 0, "{name} is counted");
        assert!(
            many <= few + few / 10,
            "{name}: {few} steps of SQLite with few, {many} with many"
        );
    }
}
