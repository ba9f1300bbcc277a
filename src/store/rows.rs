//! Rows as parameters of a statement.
//!
//! A statement is executed for many rows at once. PostgreSQL gets each column as one array, so that the text of a statement, and its number of round
//! trips, do not depend on the number of rows. The library's [`Any`] has no arrays: they are sent as texts, `{1,2,3}`, and byte strings as parts of
//! one parameter. A single row costs less as `VALUES`. SQLite has no arrays, and no round trips: it gets `VALUES`, in a few sizes, so that it meets
//! the same statements again.

use std::{borrow::Cow, fmt::Write, ops::Range};

use sqlx::{Any, AnyConnection, Arguments, any::AnyArguments, error::BoxDynError, query::Query};

/// Numbers of rows in a statement for SQLite.
const SIZES: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];
/// Items of a list in a statement.
pub(super) const MAX_LIST: usize = SIZES[0];

/// One value of a row.
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    fn add_to(self, arguments: &mut AnyArguments) -> Result<(), BoxDynError> {
        match self {
            Self::Text(text) => arguments.add(text.into_owned()),
            Self::Integer(integer) => arguments.add(integer),
            Self::Bytes(bytes) => arguments.add(bytes),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value<'_> {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

/// Rows that are the first parameters of a statement.
pub(super) struct Rows {
    /// A query that returns them, without names of columns.
    sql: String,
    is_sqlite: bool,
    arguments: AnyArguments,
}

impl Rows {
    /// `rows` has at least one, and each has the same types.
    pub(super) fn new<'a, const N: usize>(
        connection: &AnyConnection,
        rows: impl IntoIterator<Item = [Value<'a>; N]>,
    ) -> sqlx::Result<Self> {
        let is_sqlite = is_sqlite(connection);
        let mut arguments = AnyArguments::default();
        let mut rows = rows.into_iter();
        let (first, second) = (rows.next(), rows.next());
        let is_single = second.is_none();
        let rows = first.into_iter().chain(second).chain(rows);
        let sql =
            if is_sqlite || is_single { values(rows, is_sqlite, &mut arguments) } else { arrays(rows, &mut arguments) };
        Ok(Self { sql: sql.map_err(sqlx::Error::Encode)?, is_sqlite, arguments })
    }

    /// A query that returns the rows, `VALUES …` or `SELECT …`. It stands before all other parameters in a statement.
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// Adds a parameter. Returns its placeholder: they stand in a statement in the order in which they are added.
    pub(super) fn add<'a>(&mut self, value: impl Into<Value<'a>>) -> sqlx::Result<String> {
        value.into().add_to(&mut self.arguments).map_err(sqlx::Error::Encode)?;
        Ok(if self.is_sqlite { "?".to_owned() } else { format!("${}", self.arguments.len()) })
    }

    /// A statement with these parameters.
    pub(super) fn query<'q>(self, sql: String) -> Query<'q, Any, AnyArguments> {
        sqlx::query_with(sqlx::AssertSqlSafe(sql), self.arguments)
    }
}

/// The parts of `count` rows that each have a statement of their own: PostgreSQL gets all rows in one.
pub(super) fn parts(connection: &AnyConnection, count: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let is_sqlite = is_sqlite(connection);
    let mut begin = 0;
    std::iter::from_fn(move || {
        let left = count - begin;
        let size = if is_sqlite { SIZES.into_iter().find(|size| *size <= left)? } else { left };
        let part = begin..begin + size;
        begin = part.end;
        (!part.is_empty()).then_some(part)
    })
}

/// A statement whose text is made here.
pub(super) fn statement<'q>(sql: String) -> Query<'q, Any, AnyArguments> {
    sqlx::query(sqlx::AssertSqlSafe(sql))
}

/// The same items, in as few lists as can be, each with a length of [`SIZES`]: a list that is too short repeats its last item, which does not matter
/// to `IN`.
pub(super) fn padded<T>(all: &[T]) -> impl Iterator<Item = (impl Iterator<Item = &T>, usize)> {
    all.chunks(MAX_LIST).map(|list| {
        let size = list.len().next_power_of_two();
        (list.iter().chain(list.last().into_iter().cycle()).take(size), size)
    })
}

/// Placeholders of a list of `count` parameters, the first of which is the statement's parameter with this number. They are bound in this order, and
/// all that stand before them first.
pub(super) fn list(connection: &AnyConnection, first: usize, count: usize) -> String {
    if is_sqlite(connection) {
        return vec!["?"; count].join(", ");
    }
    let places: Vec<_> = (first..first + count).map(|place| format!("${place}")).collect();
    places.join(", ")
}

pub(super) fn is_sqlite(connection: &AnyConnection) -> bool {
    connection.backend_name() == "SQLite"
}

type Encoded = Result<String, BoxDynError>;

fn values<'a, const N: usize>(
    rows: impl Iterator<Item = [Value<'a>; N]>,
    is_sqlite: bool,
    arguments: &mut AnyArguments,
) -> Encoded {
    let mut sql = "VALUES ".to_owned();
    for (n, row) in rows.enumerate() {
        sql.push_str(if n == 0 { "(" } else { "), (" });
        for (column, value) in row.into_iter().enumerate() {
            value.add_to(arguments)?;
            sql.push_str(if column == 0 { "" } else { ", " });
            // To SQLite `$1` is a name, which the library looks for anew among all of them.
            let _ = if is_sqlite { write!(sql, "?") } else { write!(sql, "${}", arguments.len()) };
        }
    }
    sql.push(')');
    Ok(sql)
}

/// A column of parameters, as texts of arrays.
enum Column {
    Texts(String),
    Integers(String),
    /// Where in the parameter with all byte strings they begin, and how long they are.
    Bytes(String, String),
}

impl Column {
    fn new(first: &Value) -> Self {
        match first {
            Value::Text(_) => Self::Texts(String::new()),
            Value::Integer(_) => Self::Integers(String::new()),
            Value::Bytes(_) => Self::Bytes(String::new(), String::new()),
        }
    }

    fn push(&mut self, value: &Value, all_bytes: &mut Vec<u8>) {
        match (self, value) {
            (Self::Texts(array), Value::Text(text)) => push_quoted(array, text),
            (Self::Integers(array), Value::Integer(integer)) => push(array, integer),
            (Self::Bytes(starts, lengths), Value::Bytes(bytes)) => {
                push(starts, all_bytes.len() + 1);
                push(lengths, bytes.len());
                all_bytes.extend_from_slice(bytes);
            }
            _ => debug_assert!(false, "rows have the same types"),
        }
    }
}

fn arrays<'a, const N: usize>(rows: impl Iterator<Item = [Value<'a>; N]>, arguments: &mut AnyArguments) -> Encoded {
    let (mut columns, mut all_bytes) = (Vec::with_capacity(N), Vec::new());
    for row in rows {
        if columns.is_empty() {
            columns.extend(row.iter().map(Column::new));
        }
        for (column, value) in columns.iter_mut().zip(&row) {
            column.push(value, &mut all_bytes);
        }
    }
    let (mut selected, mut unnested, mut names) = (String::new(), String::new(), String::new());
    let mut array = |text: String, of: &str, arguments: &mut AnyArguments| {
        arguments.add(text + "}")?;
        let comma = if names.is_empty() { "" } else { ", " };
        let place = arguments.len();
        let _ = write!(unnested, "{comma}${place}::TEXT::{of}[]");
        let _ = write!(names, "{comma}c{place}");
        Ok::<_, BoxDynError>(place)
    };
    if columns.iter().any(|column| matches!(column, Column::Bytes(..))) {
        arguments.add(all_bytes)?;
    }
    for column in columns {
        if !selected.is_empty() {
            selected.push_str(", ");
        }
        let _ = match column {
            Column::Texts(texts) => write!(selected, "c{}", array(texts, "TEXT", arguments)?),
            Column::Integers(integers) => write!(selected, "c{}", array(integers, "BIGINT", arguments)?),
            Column::Bytes(starts, lengths) => {
                let start = array(starts, "INT", arguments)?;
                let length = array(lengths, "INT", arguments)?;
                write!(selected, "SUBSTRING($1, c{start}, c{length})")
            }
        };
    }
    Ok(format!("SELECT {selected} FROM UNNEST({unnested}) AS parameters ({names})"))
}

fn push(array: &mut String, item: impl std::fmt::Display) {
    array.push(if array.is_empty() { '{' } else { ',' });
    let _ = write!(array, "{item}");
}

fn push_quoted(array: &mut String, text: &str) {
    array.push_str(if array.is_empty() { "{\"" } else { ",\"" });
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\\']) {
        array.push_str(&rest[..at]);
        array.push('\\');
        array.push_str(&rest[at..=at]);
        rest = &rest[at + 1..];
    }
    array.push_str(rest);
    array.push('"');
}
