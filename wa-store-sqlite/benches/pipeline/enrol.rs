//! Leads that match a sequence of 30 steps, each enrolled with the message of its first step.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use wa_core::domain::content::Content;
use wa_core::domain::lead::Lead;
use wa_core::domain::sequence::{Sequence, SequenceReason, SequenceStatus, SequenceSteps, Step};
use wa_core::domain::token::Token;
use wa_core::id::{LeadId, SequenceId, StepId};
use wa_core::plan::enrolment::{EnrolmentContext, Entry, enrol};
use wa_core::store::{Change, NewEnrolment, SequenceStore};

use crate::begin::{BATCH, Side};
use crate::by_hand::{self, ROWS, run, values};
use crate::engine::Rig;
use crate::fill::Filler;
use crate::report::{Compared, Cost, at_share, median};
use crate::stage::{Folder, SEED, Stage, commit, open};

/// Steps of the sequence.
const STEPS: usize = 30;
/// Messages of the campaign beside it.
const SENT: usize = 50_000;
/// Batches of it before the enrolment begins.
const ALONE: usize = 100;

/// An active sequence, and the leads that match it.
struct Setting {
    stage: Stage,
    sequence: Sequence,
    steps: SequenceSteps,
}

impl Setting {
    async fn build(folder: &Folder, devices: usize, leads: usize) -> Self {
        let stage = Stage::build(folder, "enrol", devices, 0, true).await;
        let mut filler = Filler::open(&stage, stage.file()).await;
        filler.leads(leads, "cold").await;
        filler.close().await;
        let (sequence, steps) = active(&stage, STEPS).await;
        Self { stage, sequence, steps }
    }

    fn plan(&self, leads: &[Lead]) -> Vec<NewEnrolment> {
        let context = EnrolmentContext {
            ids: &self.stage.ids,
            seed: &SEED,
            now: self.stage.now,
        };
        let enrolled = leads.iter().map(|lead| {
            let (step_id, token) = self
                .sequence
                .entry_for(lead, &self.steps)
                .expect("a lead that was found matches");
            let entry = Entry {
                sequence: &self.sequence,
                steps: &self.steps,
                step_id,
                token,
            };
            enrol(lead, entry, context)
        });
        enrolled.collect()
    }

    /// Everything that is to be written, ready in memory.
    async fn rows(&self) -> Vec<NewEnrolment> {
        let store = open(self.stage.file()).await;
        let mut rows = Vec::new();
        let mut after = LeadId::MIN;
        loop {
            let leads = store.match_page(&self.sequence, after, 1_000).await;
            let leads = leads.expect("the leads are found");
            let Some(last) = leads.last() else { break };
            after = last.id;
            rows.extend(self.plan(&leads));
        }
        store.close().await;
        rows
    }

    /// How long a campaign's settlements took, in milliseconds: alone, and while all leads were enrolled.
    async fn settles(&self, file: &Path) -> [Vec<f64>; 2] {
        let mut filler = Filler::open(&self.stage, file).await;
        filler.persons(&SEED, SENT).await;
        filler.campaign(SENT).await;
        filler.close().await;
        let store = open(file).await;
        let mut sender = Side::start(&self.stage, store.clone()).await;
        // It has no lanes, because the sender has them all, but it plans.
        let rig = Arc::new(Rig::on(store.clone(), &self.stage, 0, 64).await);
        let mut steps = 0..SENT / BATCH;
        for step in steps.by_ref().take(ALONE) {
            sender.step(step).await;
        }
        let alone = std::mem::take(&mut sender.times.settle);
        let planner = Arc::clone(&rig);
        let planning = tokio::spawn(async move { planner.plan().await });
        while !planning.is_finished() {
            let step = steps.next().expect("the campaign outlasts the enrolments");
            sender.step(step).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        planning.await.expect("all are enrolled");
        let beside = std::mem::take(&mut sender.times.settle);
        drop((sender, rig));
        store.close().await;
        [alone, beside]
    }
}

/// A sequence that takes whoever has the trigger `cold`, and is active.
pub async fn active(stage: &Stage, steps: usize) -> (Sequence, SequenceSteps) {
    let store = open(stage.file()).await;
    let cold = Token::parse("cold").expect("the token is well formed");
    let id = SequenceId::new(&stage.ids, stage.now);
    let steps = SequenceSteps {
        sequence_id: id,
        version: 1,
        steps: (0..steps).map(|at| step(stage, at, &cold)).collect(),
    };
    let mut sequence = Sequence::draft(id, stage.user, "drip", stage.now);
    sequence.steps_version = 1;
    let insert = Change::InsertSequence {
        sequence: Box::new(sequence),
        steps: Some(Box::new(steps.clone())),
    };
    let start = Change::SetSequenceStatus {
        user_id: stage.user,
        sequence_id: id,
        from: &[SequenceStatus::Draft],
        to: SequenceStatus::Active,
        reason: Some(SequenceReason::ByPerson),
    };
    commit(&store, vec![insert, start], stage.now).await;
    let found = store.sequences_by_id(&[id]).await.expect("the sequence is read");
    let sequence = found.into_iter().next().expect("the sequence is there");
    store.close().await;
    by_hand::checkpoint(stage.file()).await;
    (sequence, steps)
}

fn step(stage: &Stage, at: usize, cold: &Token) -> Step {
    let trigger = match at {
        0 => cold.clone(),
        _ => Token::parse(&format!("cold {at}")).expect("the token is well formed"),
    };
    Step {
        id: StepId::new(&stage.ids, stage.now),
        day: u16::try_from(at + 1).expect("a small number"),
        trigger,
        next_trigger: None,
        entry_point: at == 0,
        wait: Step::WAIT,
        content: Content::text("Hi {{name}}, {buy|take} it today"),
        send_time: None,
        delay: None,
    }
}

/// Writes the same rows: one statement per table and [`ROWS`] rows, with the counts in the same transaction.
async fn enrol_by_hand(connection: &mut SqliteConnection, rows: &[NewEnrolment]) {
    for page in rows.chunks(ROWS) {
        run(connection, "BEGIN IMMEDIATE").await;
        let sql = format!(
            "INSERT INTO enrolments (id, user_id, sequence_id, lead_id, phone, person, device_id, token, root_id,
                entry_step_id, steps_version, step_id, due_at, state, created_at) VALUES {}",
            values("(?,?,?,?,?,?,?,?,?,?,1,?,?,1,?)", page.len())
        );
        let mut insert = sqlx::query(AssertSqlSafe(sql));
        for NewEnrolment { enrolment: e, .. } in page {
            insert = insert
                .bind(e.id.as_bytes().as_slice())
                .bind(e.user_id.as_bytes().as_slice())
                .bind(e.sequence_id.as_bytes().as_slice())
                .bind(e.lead_id.as_bytes().as_slice())
                .bind(e.phone.as_ref().map(|phone| phone.as_e164()))
                .bind(e.person.as_bytes().as_slice())
                .bind(e.device_id.as_ref().map(|id| id.as_bytes().as_slice()))
                .bind(e.token.as_ref().map(|token| token.as_str()))
                .bind(e.root_id.as_bytes().as_slice())
                .bind(e.entry_step_id.as_bytes().as_slice())
                .bind(e.step_id.as_bytes().as_slice())
                .bind(e.due_at.as_millis())
                .bind(e.created_at.as_millis());
        }
        insert.execute(&mut *connection).await.expect("the rows go in");
        let sql = format!(
            "INSERT INTO messages (id, user_id, scope_kind, scope_id, enrolment_id, step_id, steps_version, priority, key,
                round, lead_id, phone, person, name, device_id, from_pool, override_suppression, due_at, expires_at, state,
                created_at) VALUES {}",
            values("(?,?,2,?,?,?,1,1,?,0,?,?,?,?,?,0,0,?,?,1,?)", page.len())
        );
        let mut insert = sqlx::query(AssertSqlSafe(sql));
        for NewEnrolment { enrolment: e, first: m } in page {
            insert = insert
                .bind(m.id.as_bytes().as_slice())
                .bind(m.user_id.as_bytes().as_slice())
                .bind(e.sequence_id.as_bytes().as_slice())
                .bind(e.id.as_bytes().as_slice())
                .bind(e.step_id.as_bytes().as_slice())
                .bind(m.key.as_bytes().as_slice())
                .bind(m.lead_id.as_ref().map(|id| id.as_bytes().as_slice()))
                .bind(m.phone.as_ref().map(|phone| phone.as_e164()))
                .bind(m.person.as_bytes().as_slice())
                .bind(&m.name)
                .bind(m.device_id.as_ref().map(|id| id.as_bytes().as_slice()))
                .bind(m.due_at.as_millis())
                .bind(m.expires_at.as_millis())
                .bind(m.created_at.as_millis());
        }
        insert.execute(&mut *connection).await.expect("the rows go in");
        count_by_hand(connection, page).await;
        run(connection, "COMMIT").await;
    }
}

async fn count_by_hand(connection: &mut SqliteConnection, page: &[NewEnrolment]) {
    let first = &page[0].enrolment;
    let mut counts = std::collections::BTreeMap::new();
    for device in page.iter().filter_map(|one| one.first.device_id) {
        *counts.entry(device).or_insert(0_i64) += 1;
    }
    let rows = |row: &str| values(row, counts.len());
    let sql = format!(
        "INSERT INTO tallies (user_id, scope_kind, scope_id, device_id, remaining, done, failed, skipped, unknown, cancelled,
            delivered, undelivered, read, replied)
        VALUES {} ON CONFLICT DO UPDATE SET remaining = remaining + excluded.remaining",
        rows("(?,2,?,?,?,0,0,0,0,0,0,0,0,0)")
    );
    let mut statement = sqlx::query(AssertSqlSafe(sql));
    for (device, count) in &counts {
        statement = statement
            .bind(first.user_id.as_bytes().as_slice())
            .bind(first.sequence_id.as_bytes().as_slice())
            .bind(device.as_bytes().as_slice())
            .bind(count);
    }
    statement.execute(&mut *connection).await.expect("the tallies go in");
    for sql in [
        format!(
            "INSERT INTO step_tallies (sequence_id, step_id, device_id, remaining, done, failed, skipped, unknown, cancelled,
                delivered, undelivered, read, replied)
            VALUES {} ON CONFLICT DO UPDATE SET remaining = remaining + excluded.remaining",
            rows("(?,?,?,?,0,0,0,0,0,0,0,0,0)")
        ),
        format!(
            "INSERT INTO enrolment_counts (sequence_id, step_id, device_id, count, steps_version, state, reason)
            VALUES {} ON CONFLICT DO UPDATE SET count = count + excluded.count",
            rows("(?,?,?,?,1,1,0)")
        ),
    ] {
        let mut statement = sqlx::query(AssertSqlSafe(sql));
        for (device, count) in &counts {
            statement = statement
                .bind(first.sequence_id.as_bytes().as_slice())
                .bind(first.step_id.as_bytes().as_slice())
                .bind(device.as_bytes().as_slice())
                .bind(count);
        }
        statement.execute(&mut *connection).await.expect("the counts go in");
    }
}

/// Both ways must have done the whole work, in rows and in counts.
async fn check(file: &Path, leads: usize) {
    let mut connection = by_hand::connect(file).await;
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM enrolments WHERE state = 1), (SELECT count(*) FROM messages WHERE state = 1),
            (SELECT sum(remaining) FROM tallies), (SELECT sum(remaining) FROM step_tallies),
            (SELECT sum(count) FROM enrolment_counts)",
    );
    let row = row.fetch_one(&mut connection).await.expect("the numbers are read");
    connection.close().await.expect("the database closes");
    let numbers: [i64; 5] = std::array::from_fn(|at| row.get(at));
    assert_eq!(numbers, [i64::try_from(leads).expect("a small number"); 5]);
}

/// The most memory that this process ever had, in MiB; only Linux tells.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1_024)
}

/// Enrols all leads both ways in turn, and prints how they compare.
pub async fn compare(folder: &Folder, devices: usize, leads: usize, runs: usize) {
    let setting = Setting::build(folder, devices, leads).await;
    let before = peak_mib();
    let mut rows = Vec::new();
    let mut peak = None;
    let mut compared = Compared::new("enrol", leads);
    for _ in 0..runs {
        let file = setting.stage.copy(folder, "engine");
        let rig = Rig::start(&file, &setting.stage, 0, 64).await;
        let started = Cost::so_far(&setting.stage);
        rig.plan().await;
        let took = Cost::since(&setting.stage, started);
        drop(rig.engine);
        rig.store.close().await;
        check(&file, leads).await;
        if rows.is_empty() {
            // Before what is written by hand lies ready in memory.
            peak = peak_mib();
            rows = setting.rows().await;
        }
        let file = setting.stage.copy(folder, "hand");
        let mut connection = by_hand::connect(&file).await;
        let started = Cost::so_far(&setting.stage);
        enrol_by_hand(&mut connection, &rows).await;
        let by_hand = Cost::since(&setting.stage, started);
        connection.close().await.expect("the database closes");
        check(&file, leads).await;
        compared.add(took, by_hand);
    }
    println!("{compared}");
    println!(
        "each of {leads} enrolments with the message of its first step, and {STEPS} flows that are listed from it"
    );
    if let (Some(before), Some(peak)) = (before, peak) {
        println!("memory: at most {before} MiB before, {peak} MiB after the first {leads}");
    }
    let file = setting.stage.copy(folder, "engine");
    let [alone, beside] = setting.settles(&file).await;
    for (times, when) in [(alone, "alone"), (beside, "beside the enrolment")] {
        let (middle, late, longest) = (median(&times), at_share(&times, 0.99), at_share(&times, 1.0));
        let count = times.len();
        println!(
            "{count} settlements of {BATCH} {when}: {middle:.1} ms, 99 % within {late:.1} ms, the longest {longest:.1} ms"
        );
    }
}
