//! Statements with their parameters: a row at a time, and arrays of many rows in one statement.

use sqlx::postgres::{PgArguments, PgConnection, PgQueryResult, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, SqlSafeStr};
use uuid::Uuid;

use crate::connections::Line;
use crate::error::Done;
use crate::limit::within;
use crate::row::{Columns, Key, uuid};

/// One parameter. Whole numbers of all widths are sent as `bigint`, which Postgres assigns to narrower columns.
pub(crate) enum Cell {
    Uuid(Option<Uuid>),
    Int(Option<i64>),
    Text(Option<String>),
    Flag(Option<bool>),
    Bytes(Option<Vec<u8>>),
    Uuids(Option<Vec<Uuid>>),
    Ints(Vec<i64>),
    Flags(Vec<bool>),
    Texts(Vec<String>),
}

/// What can be a parameter.
pub(crate) trait Value {
    fn cell(self) -> Cell;
}

impl<K: Key> Value for &K {
    fn cell(self) -> Cell {
        Cell::Uuid(Some(uuid(self)))
    }
}

impl<K: Key> Value for Option<&K> {
    fn cell(self) -> Cell {
        Cell::Uuid(self.map(uuid))
    }
}

macro_rules! values {
    ($($from:ty => $cell:ident $(via $number:ty)?),+ $(,)?) => {$(
        impl Value for $from {
            fn cell(self) -> Cell {
                Cell::$cell(Some($(<$number>::from)?(self)))
            }
        }
        impl Value for Option<$from> {
            fn cell(self) -> Cell {
                Cell::$cell(self$(.map(<$number>::from))?)
            }
        }
    )+};
}

values!(
    Uuid => Uuid,
    i64 => Int,
    i32 => Int via i64,
    u32 => Int via i64,
    u16 => Int via i64,
    u8 => Int via i64,
    bool => Flag,
    String => Text,
    Vec<u8> => Bytes,
    Vec<Uuid> => Uuids,
);

impl Value for Vec<i64> {
    fn cell(self) -> Cell {
        Cell::Ints(self)
    }
}

impl Value for Vec<bool> {
    fn cell(self) -> Cell {
        Cell::Flags(self)
    }
}

impl Value for Vec<String> {
    fn cell(self) -> Cell {
        Cell::Texts(self)
    }
}

/// What takes parameters: a statement, or a row of many.
pub(crate) trait Binds: Sized {
    /// Adds the next parameter.
    fn bind(self, value: impl Value) -> Self;
}

impl Binds for Bound<'_> {
    fn bind(self, value: impl Value) -> Self {
        Bound::bind(self, value)
    }
}

impl Binds for Gathered {
    fn bind(self, value: impl Value) -> Self {
        Gathered::bind(self, value)
    }
}

/// A statement with parameters.
pub(crate) struct Bound<'q>(Query<'q, Postgres, PgArguments>);

/// A statement, to be given its parameters.
pub(crate) fn query<'q>(sql: impl SqlSafeStr) -> Bound<'q> {
    Bound(sqlx::query(sql))
}

impl<'q> Bound<'q> {
    pub(crate) const fn of(query: Query<'q, Postgres, PgArguments>) -> Self {
        Self(query)
    }

    pub(crate) fn bind(self, value: impl Value) -> Self {
        Self(match value.cell() {
            Cell::Uuid(value) => self.0.bind(value),
            Cell::Int(value) => self.0.bind(value),
            Cell::Text(value) => self.0.bind(value),
            Cell::Flag(value) => self.0.bind(value),
            Cell::Bytes(value) => self.0.bind(value),
            Cell::Uuids(value) => self.0.bind(value),
            Cell::Ints(value) => self.0.bind(value),
            Cell::Flags(value) => self.0.bind(value),
            Cell::Texts(value) => self.0.bind(value),
        })
    }

    pub(crate) async fn execute(self, line: &mut impl Line) -> Done<PgQueryResult> {
        let (connection, limit) = line.parts();
        noted(within(limit, self.0.execute(connection)).await, line)
    }

    pub(crate) async fn fetch_all(self, line: &mut impl Line) -> Done<Vec<PgRow>> {
        let (connection, limit) = line.parts();
        noted(within(limit, self.0.fetch_all(connection)).await, line)
    }

    pub(crate) async fn fetch_optional(self, line: &mut impl Line) -> Done<Option<PgRow>> {
        let (connection, limit) = line.parts();
        noted(within(limit, self.0.fetch_optional(connection)).await, line)
    }

    pub(crate) async fn fetch_one(self, line: &mut impl Line) -> Done<PgRow> {
        let (connection, limit) = line.parts();
        noted(within(limit, self.0.fetch_one(connection)).await, line)
    }

    /// The number, or flag, in the only row, if there is one.
    pub(crate) async fn number(self, line: &mut impl Line) -> Done<Option<i64>> {
        let row = self.fetch_optional(line).await?;
        Ok(row.map(|row| Columns::of(&row).opt_int()).transpose()?.flatten())
    }

    /// Whether there is a row.
    pub(crate) async fn exists(self, line: &mut impl Line) -> Done<bool> {
        Ok(self.fetch_optional(line).await?.is_some())
    }
}

/// What a statement returned, of which its connection takes note.
fn noted<T>(done: Done<T>, line: &mut impl Line) -> Done<T> {
    done.inspect_err(|fail| line.note(fail))
}

/// One column of many rows.
enum Array {
    Uuid(Vec<Option<Uuid>>),
    Int(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    Flag(Vec<Option<bool>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

/// Rows that are given to one statement, column by column: its parameters are arrays, which it joins with `unnest`. One shape of
/// statement serves any number of rows, so that each is parsed and planned once per connection.
#[derive(Default)]
pub(crate) struct Gathered {
    columns: Vec<Array>,
    next: usize,
    rows: usize,
}

impl Gathered {
    /// Begins a row.
    fn row(mut self) -> Self {
        debug_assert!(self.next == self.columns.len(), "every row has all columns");
        self.next = 0;
        self.rows += 1;
        self
    }

    /// Adds the next column of the row.
    pub(crate) fn bind(mut self, value: impl Value) -> Self {
        let cell = value.cell();
        if self.next == self.columns.len() {
            self.columns.push(match cell {
                Cell::Uuid(_) => Array::Uuid(Vec::new()),
                Cell::Int(_) => Array::Int(Vec::new()),
                Cell::Text(_) => Array::Text(Vec::new()),
                Cell::Flag(_) => Array::Flag(Vec::new()),
                Cell::Bytes(_) => Array::Bytes(Vec::new()),
                Cell::Uuids(_) | Cell::Ints(_) | Cell::Flags(_) | Cell::Texts(_) => {
                    unreachable!("a row holds single values")
                }
            });
        }
        match (&mut self.columns[self.next], cell) {
            (Array::Uuid(column), Cell::Uuid(value)) => column.push(value),
            (Array::Int(column), Cell::Int(value)) => column.push(value),
            (Array::Text(column), Cell::Text(value)) => column.push(value),
            (Array::Flag(column), Cell::Flag(value)) => column.push(value),
            (Array::Bytes(column), Cell::Bytes(value)) => column.push(value),
            _ => unreachable!("a column has one type"),
        }
        self.next += 1;
        self
    }

    /// The statement with these rows as its first parameters.
    pub(crate) fn into_statement<'q>(self, sql: impl SqlSafeStr) -> Bound<'q> {
        self.add_to(query(sql))
    }

    /// A statement with these rows as its next parameters.
    pub(crate) fn add_to(self, statement: Bound<'_>) -> Bound<'_> {
        self.columns.into_iter().fold(statement, |statement, column| {
            Bound(match column {
                Array::Uuid(column) => statement.0.bind(column),
                Array::Int(column) => statement.0.bind(column),
                Array::Text(column) => statement.0.bind(column),
                Array::Flag(column) => statement.0.bind(column),
                Array::Bytes(column) => statement.0.bind(column),
            })
        })
    }
}

/// The rows of a list; `bind` adds the columns of one.
pub(crate) fn gather<T>(rows: impl IntoIterator<Item = T>, mut bind: impl FnMut(Gathered, T) -> Gathered) -> Gathered {
    rows.into_iter()
        .fold(Gathered::default(), |gathered, row| bind(gathered.row(), row))
}

/// Runs a statement over rows; nothing where there are none. Returns how many were written.
pub(crate) async fn run_over<T>(
    connection: &mut PgConnection,
    sql: impl SqlSafeStr,
    rows: impl IntoIterator<Item = T>,
    bind: impl FnMut(Gathered, T) -> Gathered,
) -> Done<u64> {
    let gathered = gather(rows, bind);
    if gathered.rows == 0 {
        return Ok(0);
    }
    let written = gathered.into_statement(sql).execute(connection).await?;
    Ok(written.rows_affected())
}

/// The parameters of an insert over rows, `unnest($1::uuid[], …)`: a letter per column, u uuid, i number, t text, b flag, y bytes.
pub(crate) fn arrays(columns: &str) -> String {
    let types = columns.chars().enumerate().map(|(at, column)| {
        let name = match column {
            'u' => "uuid",
            'i' => "bigint",
            't' => "text",
            'b' => "boolean",
            _ => "bytea",
        };
        format!("${}::{name}[]", at + 1)
    });
    format!("unnest({})", types.collect::<Vec<_>>().join(", "))
}

/// An insert of rows that are given as arrays.
pub(crate) fn insert(head: &str, columns: &str, tail: &str) -> String {
    format!("{head} SELECT * FROM {} {tail}", arrays(columns))
}
