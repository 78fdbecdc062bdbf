//! The numbers of scopes per device, changed in the transaction that changes what they count.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteConnection;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::message::{MessageScope, MessageState};
use wa_core::domain::summary::Numbers;
use wa_core::id::{DeviceId, UserId};

use crate::error::Done;
use crate::insert::{Bound, Rows};
use crate::row::{blob, hex_list};

/// What a message counts as, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) user_id: UserId,
    pub(crate) scope: MessageScope,
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

/// Changes of numbers that are written together.
#[derive(Default)]
pub(crate) struct Tallies {
    cells: BTreeMap<Cell, Sums>,
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
        let sums = self.cells.entry(cell).or_default();
        for (sum, number) in sums.iter_mut().zip(columns(&one)) {
            *sum += sign * number;
        }
    }

    /// Writes the changes.
    pub(crate) async fn write(self, connection: &mut SqliteConnection) -> Done<()> {
        let changed = self
            .cells
            .into_iter()
            .filter(|(_, sums)| sums.iter().any(|sum| *sum != 0));
        let (raised, changed): (Vec<_>, Vec<_>) = changed.partition(|(_, sums)| sums.iter().all(|sum| *sum >= 0));
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
        Ok(())
    }
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
