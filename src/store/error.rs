use std::sync::Arc;

/// Why the store did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// `store.url` names no database that is known here.
    #[error("is neither sqlite:FILE, sqlite::memory: nor postgres://…")]
    Url,
    /// Several nodes are to share a SQLite database.
    #[error("is a SQLite database, which one process uses: several nodes share a postgres://…")]
    NotShared,
    /// The database did not answer, or does not write. Whether something was kept is not known.
    #[error("the store cannot be reached")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// The database was not asked, as it did not answer the last time or others' reads have taken the time: nothing was kept.
    #[error("the store is known to be out of reach")]
    Unreachable,
    /// The database answers, and says that its data is damaged, or that its disk fails. To ask again is of no use.
    #[error("the store's data is damaged")]
    Damaged(#[source] Arc<sqlx::Error>),
    /// The database answers that a constraint would be violated: rows of a mailbox were changed or lost. Nothing was kept.
    #[error("the mailbox is damaged")]
    Violated(#[source] Arc<sqlx::Error>),
    /// What is kept cannot be understood.
    #[error("the store holds something that is broken: {0}")]
    Broken(&'static str),
    /// What keeps the messages answers, and did not read them this time.
    #[error("they were not read: {0}")]
    Refused(&'static str),
    /// The process is stopping.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// What the database said, for logs.
    pub fn cause(&self) -> Option<tracing::field::DisplayValue<&sqlx::Error>> {
        match self {
            Self::Unavailable(cause) | Self::Damaged(cause) | Self::Violated(cause) => {
                Some(tracing::field::display(&**cause))
            }
            Self::Url | Self::NotShared | Self::Unreachable | Self::Broken(_) | Self::Refused(_) | Self::Closed => None,
        }
    }

    /// Whether it is sure that nothing was kept.
    pub fn has_kept_nothing(&self) -> bool {
        matches!(self, Self::Unreachable | Self::Violated(_))
    }

    /// Whether what was asked for is there and cannot be read, so that the same read fails again.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Violated(_) | Self::Broken(_) => true,
            Self::Url
            | Self::NotShared
            | Self::Unavailable(_)
            | Self::Unreachable
            | Self::Refused(_)
            | Self::Closed => false,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_violated(&error) {
            Self::Violated(error.into())
        } else if is_damaged(&error) {
            Self::Damaged(error.into())
        } else {
            Self::Unavailable(error.into())
        }
    }
}

/// Whether a constraint would be violated. Rows that Bugle writes keep all of them, unless other rows of the same mailbox were changed or lost. A
/// statement says so, and not COMMIT: none of the constraints is deferred.
pub(super) fn is_violated(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().is_some_and(|code| is_violation(&code)))
}

/// Whether the database answers, and says that its data is damaged.
pub(super) fn is_damaged(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        Some(database) => database.code().is_some_and(|code| is_damage(&code) || is_violation(&code)),
        // A column holds what was never written there.
        None => matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)),
    }
}

/// Whether a database's code means damage. PostgreSQL's codes have five characters: class XX is "internal error", which `data_corrupted` and
/// `index_corrupted` belong to, and 58030 is `io_error`. SQLite's are numbers of at most four digits, whose low byte is the primary code.
fn is_damage(code: &str) -> bool {
    const SQLITE_IOERR: u32 = 10;
    const SQLITE_CORRUPT: u32 = 11;
    const SQLITE_NOTADB: u32 = 26;
    if code.len() == 5 {
        return code.starts_with("XX") || code == "58030";
    }
    code.parse().is_ok_and(|code: u32| matches!(code & 0xff, SQLITE_IOERR | SQLITE_CORRUPT | SQLITE_NOTADB))
}

/// Whether a database's code means a violated constraint: PostgreSQL's class 23.
fn is_violation(code: &str) -> bool {
    const SQLITE_CONSTRAINT: u32 = 19;
    if code.len() == 5 {
        return code.starts_with("23");
    }
    code.parse().is_ok_and(|code: u32| code & 0xff == SQLITE_CONSTRAINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_from_a_database_that_is_busy_full_or_away() {
        // SQLITE_CORRUPT, SQLITE_CORRUPT_INDEX, SQLITE_NOTADB, SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ, SQLITE_IOERR_DATA; internal_error,
        // data_corrupted, index_corrupted, io_error.
        for code in ["11", "779", "26", "266", "522", "8202", "XX000", "XX001", "XX002", "58030"] {
            assert!(is_damage(code) && !is_violation(code), "{code}");
        }
        // SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY; unique_violation.
        for code in ["2067", "1555", "23505"] {
            assert!(is_violation(code) && !is_damage(code), "{code}");
        }
        // SQLITE_BUSY, SQLITE_READONLY, SQLITE_FULL, SQLITE_CANTOPEN, SQLITE_BUSY_SNAPSHOT;
        // admin_shutdown, too_many_connections, query_canceled, disk_full, read_only_sql_transaction, undefined_file.
        for code in ["5", "8", "13", "14", "517", "57P01", "53300", "57014", "53100", "25006", "58P01", "", "x"] {
            assert!(!is_damage(code) && !is_violation(code), "{code}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_damaged_and_what_did_not_come_is_not() {
        let undecoded = sqlx::Error::ColumnDecode { index: "4".into(), source: "NULL".into() };
        assert!(matches!(undecoded.into(), Error::Damaged(_)));
        assert!(matches!(sqlx::Error::PoolTimedOut.into(), Error::Unavailable(_)));
    }
}
