//! Statements over many rows that are given to them, as parameters rather than as JSON, which SQLite would parse again for
//! every value of every row.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Sqlite, query};

use crate::error::Done;

/// A statement with parameters.
pub(crate) type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Rows per statement, most first: a page takes few statements, and there are few shapes, so that each is prepared once
/// per connection. The largest stays below SQLite's limit of 32,766 parameters for rows of up to 127 columns.
const SHAPES: [usize; 9] = [256, 128, 64, 32, 16, 8, 4, 2, 1];

/// A statement with `VALUES` of any number of rows.
pub(crate) struct Rows {
    shapes: [String; SHAPES.len()],
}

impl Rows {
    /// `head` names table and columns, `tail` follows the rows.
    pub(crate) fn insert(head: &str, columns: usize, tail: &str) -> Self {
        let row = vec!["?"; columns].join(",");
        Self::of(&format!("{head} VALUES ({row}) {tail}"))
    }

    /// From the statement for one row, whose only `VALUES (…)` is repeated.
    pub(crate) fn of(one: &str) -> Self {
        const VALUES: &str = "VALUES ";
        let start = one.find(VALUES).expect("the statement has rows") + VALUES.len();
        let end = start + one[start..].find(')').expect("the first row ends") + 1;
        let (head, row, tail) = (&one[..start], &one[start..end], &one[end..]);
        Self {
            shapes: SHAPES.map(|rows| format!("{head}{}{tail}", vec![row; rows].join(","))),
        }
    }

    /// The statement for two rows, which is planned as those for more are.
    #[cfg(test)]
    pub(crate) fn two(&self) -> &str {
        &self.shapes[SHAPES.len() - 2]
    }

    /// Runs it for rows; `bind` adds the parameters of one. Returns how many were written.
    pub(crate) async fn run<T>(
        &'static self,
        connection: &mut SqliteConnection,
        mut rows: &[T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Bound<'q>,
    ) -> Done<u64> {
        let mut written = 0;
        for (sql, size) in self.shapes.iter().zip(SHAPES) {
            while rows.len() >= size {
                let (now, later) = rows.split_at(size);
                let statement = now.iter().fold(query(sql.as_str()), &bind);
                written += statement.execute(&mut *connection).await?.rows_affected();
                rows = later;
            }
        }
        Ok(written)
    }
}
