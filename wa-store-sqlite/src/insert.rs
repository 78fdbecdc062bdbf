//! Inserts of many rows in few statements.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Sqlite, query};

use crate::error::Done;

/// A statement with parameters.
pub(crate) type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Rows per statement, most first: few shapes, so that each is prepared once per connection.
const SHAPES: [usize; 3] = [64, 8, 1];

/// An `INSERT` of any number of rows.
pub(crate) struct Insert {
    shapes: [String; SHAPES.len()],
}

impl Insert {
    /// `head` names table and columns, `tail` follows the rows.
    pub(crate) fn new(head: &str, columns: usize, tail: &str) -> Self {
        let row = format!("({})", vec!["?"; columns].join(","));
        let shapes = SHAPES.map(|rows| format!("{head} VALUES {} {tail}", vec![row.as_str(); rows].join(",")));
        Self { shapes }
    }

    /// Inserts rows; `bind` adds the parameters of one. Returns how many were inserted.
    pub(crate) async fn run<T>(
        &'static self,
        connection: &mut SqliteConnection,
        mut rows: &[T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Bound<'q>,
    ) -> Done<u64> {
        let mut inserted = 0;
        for (sql, size) in self.shapes.iter().zip(SHAPES) {
            while rows.len() >= size {
                let (now, later) = rows.split_at(size);
                let statement = now.iter().fold(query(sql.as_str()), &bind);
                inserted += statement.execute(&mut *connection).await?.rows_affected();
                rows = later;
            }
        }
        Ok(inserted)
    }
}
