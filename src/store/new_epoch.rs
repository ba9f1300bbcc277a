use std::{future::Future, io, time::Duration};

use sqlx::{Any, AnyConnection, Connection, Transaction};
use tokio::time::timeout;

use super::{
    Config, Error, Sharing, Status,
    database::is_newer_schema,
    deadlines::PATIENCE,
    lease::{self, Taken},
    schema,
    source::{Kind, Source},
};
use crate::clock::Clock;

/// The name of the command in the lease.
const HOLDER: &str = "new-epoch";

/// Why no new epoch was begun.
#[derive(Debug, thiserror::Error)]
pub enum NewEpochError {
    /// A SQLite file cannot be locked: nothing was changed. The error names the file.
    #[error(transparent)]
    NotLocked(io::Error),
    /// A newer version of Bugle has changed the tables.
    #[error("{}", Status::NewerSchema)]
    NewerSchema,
    /// The database failed before the new epoch was begun.
    #[error(transparent)]
    NotBegun(#[from] Error),
    /// The database failed when the new epoch was being committed: it may have been begun.
    #[error(transparent)]
    Uncertain(Error),
}

impl From<sqlx::Error> for NewEpochError {
    fn from(error: sqlx::Error) -> Self {
        if is_newer_schema(&error) { Self::NewerSchema } else { Self::NotBegun(error.into()) }
    }
}

/// Forgets all epochs of a store that no process uses, so that every device that comes back is told that it may have missed something: for operators who
/// restored a backup in a way that Bugle cannot notice. False: a process uses the store, and nothing was changed, unless that process took the lease
/// after this call had found it free: then the tables may have been brought up to date. Each step ends with an error after the time that the server
/// gives it, 8 s.
pub async fn begin_new_epoch(config: &Config, clock: &Clock) -> Result<bool, NewEpochError> {
    let source = Source::new(config, Sharing::Single)?;
    // Held until the end.
    let mut lock = None;
    if !source.lock(&mut lock, false).map_err(NewEpochError::NotLocked)? {
        return Ok(false);
    }
    let mut connection = step(source.connect(true)).await?;
    let is_begun = begin(&mut connection, source.kind, clock).await?;
    // It is committed.
    let _ = step(connection.close()).await;
    Ok(is_begun)
}

/// False: a process holds the lease.
async fn begin(connection: &mut AnyConnection, kind: Kind, clock: &Clock) -> Result<bool, NewEpochError> {
    let tables = step(schema::look(connection)).await?;
    // The holder may be of another version, whose tables are not changed.
    if tables.have_lease() && step(lease::free_generation(connection, kind, HOLDER)).await?.is_none() {
        return Ok(false);
    }
    if !tables.are_current() {
        step(schema::migrate(connection)).await?;
        step(schema::add(connection)).await?;
    }
    let Some(transaction) = step(forget(connection, kind, clock)).await? else {
        return Ok(false);
    };
    step(transaction.commit()).await.map_err(|error| NewEpochError::Uncertain(error.into()))?;
    Ok(true)
}

/// What is to be committed. `None`: a process holds the lease.
async fn forget<'a>(
    connection: &'a mut AnyConnection,
    kind: Kind,
    clock: &Clock,
) -> sqlx::Result<Option<Transaction<'a, Any>>> {
    let mut transaction = connection.begin_with(lease::begin_to_take(kind)).await?;
    let clock_ms = clock.now().as_millisecond();
    let Taken::Held(held) = lease::take(&mut transaction, kind, HOLDER, clock_ms).await? else {
        return Ok(None);
    };
    lease::forget_generations(&mut transaction).await?;
    lease::give_back(&mut transaction, &held).await?;
    Ok(Some(transaction))
}

async fn step<T>(work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(sqlx::Error::Io(silent(PATIENCE))))
}

fn silent(time: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("it did not answer within {} s", time.as_secs()))
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_database_that_accepts_connections_and_does_not_answer_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://bugle:hidden@{}/bugle", silent.local_addr().unwrap());
        let config = Config { url: url.into(), max_age: Duration::from_hours(1), max_messages: 100 };
        let begun = Instant::now();
        let done =
            timeout(PATIENCE * 100, begin_new_epoch(&config, &Clock::system())).await.expect("it has a deadline");
        let Err(NewEpochError::NotBegun(Error::Unavailable(cause))) = done else { panic!("{done:?}") };
        assert!(cause.to_string().contains("it did not answer within 8 s"), "{cause}");
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
