//! The numbers of scopes per device, changed in the transaction that changes what they count.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteConnection;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::enrolment::{EnrolmentReason, EnrolmentState};
use wa_core::domain::message::{MessageScope, MessageState};
use wa_core::domain::summary::Numbers;
use wa_core::id::{DeviceId, SequenceId, StepId, UserId};

use crate::error::Done;
use crate::insert::{Bound, Rows};
use crate::row::{blob, hex_list};

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

/// Adds to cells, which need not be there yet; the constraints allow it where nothing is lowered. By the primary key.
pub(crate) const ADD: &str = "
    INSERT INTO tallies (user_id, scope_kind, scope_id, device_id,
        done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied)
    VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)
    ON CONFLICT DO UPDATE SET
        done = done + excluded.done, failed = failed + excluded.failed, skipped = skipped + excluded.skipped,
        unknown = unknown + excluded.unknown, cancelled = cancelled + excluded.cancelled,
        remaining = remaining + excluded.remaining, delivered = delivered + excluded.delivered,
        undelivered = undelivered + excluded.undelivered, read = read + excluded.read,
        replied = replied + excluded.replied";
static ADDS: LazyLock<Rows> = LazyLock::new(|| Rows::of(ADD));

/// Changes cells where something is lowered, so that they are there. By the primary key.
pub(crate) const CHANGE: &str = "
    UPDATE tallies SET
        done = done + v.column5, failed = failed + v.column6, skipped = skipped + v.column7,
        unknown = unknown + v.column8, cancelled = cancelled + v.column9, remaining = remaining + v.column10,
        delivered = delivered + v.column11, undelivered = undelivered + v.column12, read = read + v.column13,
        replied = replied + v.column14
    FROM (VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)) AS v
    WHERE tallies.user_id = v.column1 AND tallies.scope_kind = v.column2 AND tallies.scope_id = v.column3
        AND tallies.device_id = v.column4";
pub(crate) static CHANGES: LazyLock<Rows> = LazyLock::new(|| Rows::of(CHANGE));

/// As [`ADD`], the same to the cells of a list of devices.
pub(crate) const ADD_ALL: &str = "
    INSERT INTO tallies (device_id, user_id, scope_kind, scope_id,
        done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied)
    SELECT unhex(value), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14 FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET
        done = done + excluded.done, failed = failed + excluded.failed, skipped = skipped + excluded.skipped,
        unknown = unknown + excluded.unknown, cancelled = cancelled + excluded.cancelled,
        remaining = remaining + excluded.remaining, delivered = delivered + excluded.delivered,
        undelivered = undelivered + excluded.undelivered, read = read + excluded.read,
        replied = replied + excluded.replied";

/// The same of steps. By the primary key.
pub(crate) const ADD_STEP: &str = "
    INSERT INTO step_tallies (sequence_id, step_id, device_id,
        done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied)
    VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
    ON CONFLICT DO UPDATE SET
        done = done + excluded.done, failed = failed + excluded.failed, skipped = skipped + excluded.skipped,
        unknown = unknown + excluded.unknown, cancelled = cancelled + excluded.cancelled,
        remaining = remaining + excluded.remaining, delivered = delivered + excluded.delivered,
        undelivered = undelivered + excluded.undelivered, read = read + excluded.read,
        replied = replied + excluded.replied";
static STEP_ADDS: LazyLock<Rows> = LazyLock::new(|| Rows::of(ADD_STEP));

/// The same of steps. By the primary key.
pub(crate) const CHANGE_STEP: &str = "
    UPDATE step_tallies SET
        done = done + v.column4, failed = failed + v.column5, skipped = skipped + v.column6,
        unknown = unknown + v.column7, cancelled = cancelled + v.column8, remaining = remaining + v.column9,
        delivered = delivered + v.column10, undelivered = undelivered + v.column11, read = read + v.column12,
        replied = replied + v.column13
    FROM (VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)) AS v
    WHERE step_tallies.sequence_id = v.column1 AND step_tallies.step_id = v.column2
        AND step_tallies.device_id = v.column3";
pub(crate) static STEP_CHANGES: LazyLock<Rows> = LazyLock::new(|| Rows::of(CHANGE_STEP));

/// Adds to the counts of enrolments. By the primary key.
pub(crate) const ADD_COUNT: &str = "
    INSERT INTO enrolment_counts (sequence_id, steps_version, step_id, device_id, state, reason, count)
    VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET count = count + excluded.count";
static COUNT_ADDS: LazyLock<Rows> = LazyLock::new(|| Rows::of(ADD_COUNT));

/// Lowers the counts of enrolments. By the primary key.
pub(crate) const LOWER_COUNT: &str = "
    UPDATE enrolment_counts SET count = count + v.column7 FROM (VALUES (?,?,?,?,?,?,?)) AS v
    WHERE enrolment_counts.sequence_id = v.column1 AND enrolment_counts.steps_version = v.column2
        AND enrolment_counts.step_id = v.column3 AND enrolment_counts.device_id = v.column4
        AND enrolment_counts.state = v.column5 AND enrolment_counts.reason = v.column6";
pub(crate) static COUNTS_LOWERED: LazyLock<Rows> = LazyLock::new(|| Rows::of(LOWER_COUNT));

fn bind_step<'q>(statement: Bound<'q>, (cell, sums): &(StepCell, Sums)) -> Bound<'q> {
    let device = cell.device_id.as_ref().map(|id| blob(id).to_vec());
    let statement = statement
        .bind(blob(&cell.sequence_id).to_vec())
        .bind(blob(&cell.step_id).to_vec())
        .bind(device.unwrap_or_default());
    sums.iter().fold(statement, |statement, sum| statement.bind(*sum))
}

fn bind_count<'q>(statement: Bound<'q>, (standing, count): &(Standing, i64)) -> Bound<'q> {
    let device = standing.device_id.as_ref().map(|id| blob(id).to_vec());
    statement
        .bind(blob(&standing.sequence_id).to_vec())
        .bind(standing.steps_version)
        .bind(blob(&standing.step_id).to_vec())
        .bind(device.unwrap_or_default())
        .bind(standing.state as u8)
        .bind(standing.reason.map_or(0, |reason| reason as u8))
        .bind(*count)
}

/// From how many cells on that change alike they are written as a list of devices.
const ALIKE_MIN: usize = 4;

type Sums = [i64; COLUMNS];

fn bind<'q>(statement: Bound<'q>, (cell, sums): &(Cell, Sums)) -> Bound<'q> {
    let device = cell.device_id.as_ref().map(|id| blob(id).to_vec());
    let statement = statement
        .bind(blob(&cell.user_id).to_vec())
        .bind(cell.scope.kind())
        .bind(cell.scope.id_bytes(&cell.user_id).to_vec())
        .bind(device.unwrap_or_default());
    sums.iter().fold(statement, |statement, sum| statement.bind(*sum))
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
    pub(crate) async fn write(self, connection: &mut SqliteConnection) -> Done<()> {
        let (raised, changed) = split(self.cells);
        // A page of a campaign raises the numbers of most of its devices alike.
        let mut alike: BTreeMap<(UserId, MessageScope, Sums), Vec<DeviceId>> = BTreeMap::new();
        for (cell, sums) in &raised {
            if let Some(device) = cell.device_id {
                alike.entry((cell.user_id, cell.scope, *sums)).or_default().push(device);
            }
        }
        alike.retain(|_, devices| devices.len() >= ALIKE_MIN);
        let alone = |(cell, sums): &(Cell, Sums)| {
            cell.device_id.is_none() || !alike.contains_key(&(cell.user_id, cell.scope, *sums))
        };
        let alone: Vec<_> = raised.into_iter().filter(alone).collect();
        ADDS.run(connection, &alone, bind).await?;
        for ((user, scope, sums), devices) in &alike {
            let statement = sqlx::query(ADD_ALL)
                .bind(hex_list(devices))
                .bind(blob(user).to_vec())
                .bind(scope.kind())
                .bind(scope.id_bytes(user).to_vec());
            let statement = sums.iter().fold(statement, |statement, sum| statement.bind(*sum));
            statement.execute(&mut *connection).await?;
        }
        CHANGES.run(connection, &changed, bind).await?;
        let (raised, changed) = split(self.steps);
        STEP_ADDS.run(connection, &raised, bind_step).await?;
        STEP_CHANGES.run(connection, &changed, bind_step).await?;
        let standings = self.standings.into_iter().filter(|(_, count)| *count != 0);
        let (raised, lowered): (Vec<_>, Vec<_>) = standings.partition(|(_, count)| *count > 0);
        COUNT_ADDS.run(connection, &raised, bind_count).await?;
        COUNTS_LOWERED.run(connection, &lowered, bind_count).await?;
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
