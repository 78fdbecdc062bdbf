//! The numbers of scopes per device, changed in the transaction that changes what they count.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::message::{MessageScope, MessageState};
use wa_core::domain::summary::Numbers;
use wa_core::id::{DeviceId, UserId};

use crate::error::Done;
use crate::row::{hex, json};

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
    cells: BTreeMap<Cell, [i64; COLUMNS]>,
    new_cells: bool,
}

#[derive(Serialize)]
struct Line(String, u8, String, String, [i64; COLUMNS]);

/// `INSERT` of cells that are not there yet; before [`CHANGE`], which may then lower what it finds. By the primary key.
pub(crate) const ENSURE: &str = "
    INSERT INTO tallies (user_id, scope_kind, scope_id, device_id,
        done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied)
    SELECT unhex(value->>0), value->>1, unhex(value->>2), unhex(value->>3), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    FROM json_each(?) WHERE true
    ON CONFLICT DO NOTHING";

/// Adds what changed. By the primary key.
pub(crate) const CHANGE: &str = "
    UPDATE tallies SET
        done = done + v.d0, failed = failed + v.d1, skipped = skipped + v.d2, unknown = unknown + v.d3,
        cancelled = cancelled + v.d4, remaining = remaining + v.d5, delivered = delivered + v.d6,
        undelivered = undelivered + v.d7, read = read + v.d8, replied = replied + v.d9
    FROM (
        SELECT unhex(value->>0) AS user_id, value->>1 AS scope_kind, unhex(value->>2) AS scope_id,
            unhex(value->>3) AS device_id,
            value->>'$[4][0]' AS d0, value->>'$[4][1]' AS d1, value->>'$[4][2]' AS d2, value->>'$[4][3]' AS d3,
            value->>'$[4][4]' AS d4, value->>'$[4][5]' AS d5, value->>'$[4][6]' AS d6, value->>'$[4][7]' AS d7,
            value->>'$[4][8]' AS d8, value->>'$[4][9]' AS d9
        FROM json_each(?)
    ) AS v
    WHERE tallies.user_id = v.user_id AND tallies.scope_kind = v.scope_kind AND tallies.scope_id = v.scope_id
        AND tallies.device_id = v.device_id";

impl Tallies {
    /// Counts a new message.
    pub(crate) fn add(&mut self, to: Counted) {
        self.new_cells = true;
        self.count(to, 1);
    }

    /// Counts a message as what it is now instead of what it was.
    pub(crate) fn change(&mut self, from: Counted, to: Counted) {
        if from == to {
            return;
        }
        self.new_cells |= from.device_id != to.device_id;
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
        let lines: Vec<Line> = self
            .cells
            .into_iter()
            .filter(|(_, sums)| sums.iter().any(|sum| *sum != 0))
            .map(|(cell, sums)| {
                Line(
                    hex(cell.user_id.as_bytes()),
                    cell.scope.kind(),
                    hex(&cell.scope.id_bytes(&cell.user_id)),
                    cell.device_id.map(|id| hex(id.as_bytes())).unwrap_or_default(),
                    sums,
                )
            })
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        let lines = json(&lines);
        if self.new_cells {
            sqlx::query(ENSURE)
                .bind(lines.as_str())
                .execute(&mut *connection)
                .await?;
        }
        sqlx::query(CHANGE).bind(lines).execute(&mut *connection).await?;
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
