//! The numbers of scopes per device, changed in the transaction that changes what they count.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use uuid::Uuid;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::enrolment::{EnrolmentReason, EnrolmentState};
use wa_core::domain::message::{MessageScope, MessageState};
use wa_core::domain::summary::Numbers;
use wa_core::id::{DeviceId, SequenceId, StepId, UserId};

use crate::error::Done;
use crate::insert::{Gathered, run_over};
use crate::row::uuid;

/// What a message counts as, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) user_id: UserId,
    pub(crate) scope: MessageScope,
    /// Of a message of a sequence.
    pub(crate) step_id: Option<StepId>,
    pub(crate) device_id: Option<DeviceId>,
    pub(crate) state: MessageState,
    pub(crate) delivery: Option<Delivery>,
    pub(crate) superseded: bool,
}

const COLUMNS: usize = 10;

/// The place of those that wait among them, in the order of [`columns`].
const REMAINING: usize = 5;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    user_id: UserId,
    scope: MessageScope,
    device_id: Option<DeviceId>,
}

/// A step on a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct StepCell {
    sequence_id: SequenceId,
    step_id: StepId,
    device_id: Option<DeviceId>,
}

/// Where enrolments of a sequence stand alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    pub(crate) sequence_id: SequenceId,
    pub(crate) steps_version: i32,
    pub(crate) step_id: StepId,
    pub(crate) device_id: Option<DeviceId>,
    pub(crate) state: EnrolmentState,
    pub(crate) reason: Option<EnrolmentReason>,
}

/// Changes of numbers that are written together.
#[derive(Default)]
pub(crate) struct Tallies {
    cells: BTreeMap<Cell, Sums>,
    steps: BTreeMap<StepCell, Sums>,
    standings: BTreeMap<Standing, i64>,
}

/// Adds to cells, which need not be there yet; the constraints allow it where nothing is lowered. By the primary key. Cells that are there
/// are updated: a conflict that is expected is locked first, which the log holds. Those that somebody else adds just now are a conflict.
pub(crate) const ADD: &str = "
    WITH v AS MATERIALIZED (
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[],
            $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
            $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[]) AS v (user_id, scope_kind, scope_id, device_id,
            done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied)
    ), known AS (
        UPDATE tallies SET
            done = tallies.done + v.done,
            failed = tallies.failed + v.failed,
            skipped = tallies.skipped + v.skipped,
            unknown = tallies.unknown + v.unknown,
            cancelled = tallies.cancelled + v.cancelled,
            remaining = tallies.remaining + v.remaining,
            delivered = tallies.delivered + v.delivered,
            undelivered = tallies.undelivered + v.undelivered,
            read = tallies.read + v.read,
            replied = tallies.replied + v.replied
        FROM v
        WHERE tallies.scope_kind = v.scope_kind AND tallies.scope_id = v.scope_id AND tallies.device_id = v.device_id
    )
    INSERT INTO tallies (user_id, scope_kind, scope_id, device_id,
        done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied)
    SELECT v.* FROM v WHERE (
        SELECT true FROM tallies x
        WHERE x.scope_kind = v.scope_kind AND x.scope_id = v.scope_id AND x.device_id = v.device_id
    ) IS NULL
    ON CONFLICT (scope_kind, scope_id, device_id) DO UPDATE SET
        done = tallies.done + excluded.done,
        failed = tallies.failed + excluded.failed,
        skipped = tallies.skipped + excluded.skipped,
        unknown = tallies.unknown + excluded.unknown,
        cancelled = tallies.cancelled + excluded.cancelled,
        remaining = tallies.remaining + excluded.remaining,
        delivered = tallies.delivered + excluded.delivered,
        undelivered = tallies.undelivered + excluded.undelivered,
        read = tallies.read + excluded.read,
        replied = tallies.replied + excluded.replied";

/// The same of new messages that wait, as nearly all that are new do.
pub(crate) const ADD_WAITING: &str = "
    WITH v AS MATERIALIZED (
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::bigint[])
            AS v (user_id, scope_kind, scope_id, device_id, remaining)
    ), known AS (
        UPDATE tallies SET remaining = tallies.remaining + v.remaining FROM v
        WHERE tallies.scope_kind = v.scope_kind AND tallies.scope_id = v.scope_id AND tallies.device_id = v.device_id
    )
    INSERT INTO tallies (user_id, scope_kind, scope_id, device_id,
        done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied)
    SELECT v.user_id, v.scope_kind, v.scope_id, v.device_id, 0, 0, 0, 0, 0, v.remaining, 0, 0, 0, 0 FROM v WHERE (
        SELECT true FROM tallies x
        WHERE x.scope_kind = v.scope_kind AND x.scope_id = v.scope_id AND x.device_id = v.device_id
    ) IS NULL
    ON CONFLICT (scope_kind, scope_id, device_id) DO UPDATE SET remaining = tallies.remaining + excluded.remaining";

/// Changes cells where something is lowered, so that they are there. By the primary key.
pub(crate) const CHANGE: &str = "
    UPDATE tallies SET
        done = tallies.done + v.done,
        failed = tallies.failed + v.failed,
        skipped = tallies.skipped + v.skipped,
        unknown = tallies.unknown + v.unknown,
        cancelled = tallies.cancelled + v.cancelled,
        remaining = tallies.remaining + v.remaining,
        delivered = tallies.delivered + v.delivered,
        undelivered = tallies.undelivered + v.undelivered,
        read = tallies.read + v.read,
        replied = tallies.replied + v.replied
    FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[],
        $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
        $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[]) AS v (user_id, scope_kind, scope_id, device_id,
        done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied)
    WHERE tallies.user_id = v.user_id AND tallies.scope_kind = v.scope_kind AND tallies.scope_id = v.scope_id
        AND tallies.device_id = v.device_id";

/// The same of steps. By the primary key.
pub(crate) const ADD_STEP: &str = "
    INSERT INTO step_tallies (sequence_id, step_id, device_id,
        done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[],
        $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
        $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])
    ON CONFLICT (sequence_id, step_id, device_id) DO UPDATE SET
        done = step_tallies.done + excluded.done,
        failed = step_tallies.failed + excluded.failed,
        skipped = step_tallies.skipped + excluded.skipped,
        unknown = step_tallies.unknown + excluded.unknown,
        cancelled = step_tallies.cancelled + excluded.cancelled,
        remaining = step_tallies.remaining + excluded.remaining,
        delivered = step_tallies.delivered + excluded.delivered,
        undelivered = step_tallies.undelivered + excluded.undelivered,
        read = step_tallies.read + excluded.read,
        replied = step_tallies.replied + excluded.replied";

/// The same of steps. By the primary key.
pub(crate) const CHANGE_STEP: &str = "
    UPDATE step_tallies SET
        done = step_tallies.done + v.done,
        failed = step_tallies.failed + v.failed,
        skipped = step_tallies.skipped + v.skipped,
        unknown = step_tallies.unknown + v.unknown,
        cancelled = step_tallies.cancelled + v.cancelled,
        remaining = step_tallies.remaining + v.remaining,
        delivered = step_tallies.delivered + v.delivered,
        undelivered = step_tallies.undelivered + v.undelivered,
        read = step_tallies.read + v.read,
        replied = step_tallies.replied + v.replied
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[],
        $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
        $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[]) AS v (sequence_id, step_id, device_id,
        done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied)
    WHERE step_tallies.sequence_id = v.sequence_id AND step_tallies.step_id = v.step_id
        AND step_tallies.device_id = v.device_id";

/// Adds to the counts of enrolments. By the primary key.
pub(crate) const ADD_COUNT: &str = "
    INSERT INTO enrolment_counts (sequence_id, steps_version, step_id, device_id, state, reason, count)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[])
    ON CONFLICT (sequence_id, steps_version, step_id, device_id, state, reason)
    DO UPDATE SET count = enrolment_counts.count + excluded.count";

/// Lowers the counts of enrolments. By the primary key.
pub(crate) const LOWER_COUNT: &str = "
    UPDATE enrolment_counts SET count = enrolment_counts.count + v.count
    FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[])
        AS v (sequence_id, steps_version, step_id, device_id, state, reason, count)
    WHERE enrolment_counts.sequence_id = v.sequence_id AND enrolment_counts.steps_version = v.steps_version
        AND enrolment_counts.step_id = v.step_id AND enrolment_counts.device_id = v.device_id
        AND enrolment_counts.state = v.state AND enrolment_counts.reason = v.reason";

fn device_of(device: Option<&DeviceId>) -> Uuid {
    device.map_or(Uuid::nil(), uuid)
}

fn bind_sums(row: Gathered, sums: &Sums) -> Gathered {
    sums.iter().fold(row, |row, sum| row.bind(*sum))
}

fn bind_step(row: Gathered, (cell, sums): &(StepCell, Sums)) -> Gathered {
    let row = row
        .bind(&cell.sequence_id)
        .bind(&cell.step_id)
        .bind(device_of(cell.device_id.as_ref()));
    bind_sums(row, sums)
}

fn bind_count(row: Gathered, (standing, count): &(Standing, i64)) -> Gathered {
    row.bind(&standing.sequence_id)
        .bind(standing.steps_version)
        .bind(&standing.step_id)
        .bind(device_of(standing.device_id.as_ref()))
        .bind(standing.state as u8)
        .bind(standing.reason.map_or(0, |reason| reason as u8))
        .bind(*count)
}

type Sums = [i64; COLUMNS];

fn bind_cell(row: Gathered, cell: &Cell) -> Gathered {
    row.bind(&cell.user_id)
        .bind(cell.scope.kind())
        .bind(Uuid::from_bytes(cell.scope.id_bytes(&cell.user_id)))
        .bind(device_of(cell.device_id.as_ref()))
}

fn bind(row: Gathered, (cell, sums): &(Cell, Sums)) -> Gathered {
    bind_sums(bind_cell(row, cell), sums)
}

/// Whether nothing is counted but messages that wait.
fn waits(sums: &Sums) -> bool {
    sums.iter().enumerate().all(|(at, sum)| at == REMAINING || *sum == 0)
}

impl Tallies {
    /// Counts a new message.
    pub(crate) fn add(&mut self, to: Counted) {
        self.count(to, 1);
    }

    /// Counts a message as what it is now instead of what it was.
    pub(crate) fn change(&mut self, from: Counted, to: Counted) {
        if from == to {
            return;
        }
        self.count(from, -1);
        self.count(to, 1);
    }

    /// Counts a new enrolment.
    pub(crate) fn enrolled(&mut self, to: Standing) {
        *self.standings.entry(to).or_default() += 1;
    }

    /// Counts an enrolment where it stands now instead of where it stood.
    pub(crate) fn moved(&mut self, from: Standing, to: Standing) {
        *self.standings.entry(from).or_default() -= 1;
        *self.standings.entry(to).or_default() += 1;
    }

    fn count(&mut self, what: Counted, sign: i64) {
        if what.superseded {
            return;
        }
        let mut one = Numbers::default();
        one.count(what.state, what.delivery);
        let cell = Cell {
            user_id: what.user_id,
            scope: what.scope,
            device_id: what.device_id,
        };
        let numbers = columns(&one);
        let sums = self.cells.entry(cell).or_default();
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += sign * number;
        }
        let (MessageScope::Sequence(sequence_id), Some(step_id)) = (what.scope, what.step_id) else {
            return;
        };
        let cell = StepCell {
            sequence_id,
            step_id,
            device_id: what.device_id,
        };
        let sums = self.steps.entry(cell).or_default();
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += sign * number;
        }
    }

    /// Writes the changes.
    pub(crate) async fn write(self, connection: &mut PgConnection) -> Done<()> {
        let (raised, changed) = split(self.cells);
        let (waiting, raised): (Vec<_>, Vec<_>) = raised.into_iter().partition(|(_, sums)| waits(sums));
        run_over(connection, ADD_WAITING, &waiting, |row, (cell, sums)| {
            bind_cell(row, cell).bind(sums[REMAINING])
        })
        .await?;
        run_over(connection, ADD, &raised, bind).await?;
        run_over(connection, CHANGE, &changed, bind).await?;
        let (raised, changed) = split(self.steps);
        run_over(connection, ADD_STEP, &raised, bind_step).await?;
        run_over(connection, CHANGE_STEP, &changed, bind_step).await?;
        let standings = self.standings.into_iter().filter(|(_, count)| *count != 0);
        let (raised, lowered): (Vec<_>, Vec<_>) = standings.partition(|(_, count)| *count > 0);
        run_over(connection, ADD_COUNT, &raised, bind_count).await?;
        run_over(connection, LOWER_COUNT, &lowered, bind_count).await?;
        Ok(())
    }
}

/// Cells with what is added to each.
type Changes<C> = Vec<(C, Sums)>;

/// Cells that are only raised, which need not be there yet, and those where something is lowered; unchanged ones are left out.
fn split<C>(cells: BTreeMap<C, Sums>) -> (Changes<C>, Changes<C>) {
    let changed = cells.into_iter().filter(|(_, sums)| sums.iter().any(|sum| *sum != 0));
    changed.partition(|(_, sums)| sums.iter().all(|sum| *sum >= 0))
}

/// The numbers in the order of the table's columns.
fn columns(n: &Numbers) -> [i64; COLUMNS] {
    [
        n.done,
        n.failed,
        n.skipped,
        n.unknown,
        n.cancelled,
        n.remaining,
        n.delivered,
        n.undelivered,
        n.read,
        n.replied,
    ]
    .map(crate::row::int)
}
