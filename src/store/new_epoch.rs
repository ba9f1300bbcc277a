use sqlx::Connection;

use super::{
    Config, Error, Sharing,
    lease::{self, Taken},
    schema,
    source::{Kind, Source},
};
use crate::clock::Clock;

/// Forgets all epochs of a store that no process uses, so that every device that comes back is told that it may have missed something: for operators who
/// restored a backup in a way that Bugle cannot notice. False: a process uses the store, and nothing was changed.
pub async fn begin_new_epoch(config: &Config, clock: &Clock) -> Result<bool, Error> {
    let source = Source::new(config, Sharing::Single)?;
    // Held until the end.
    let lock = if source.kind == Kind::Sqlite { source.lock(false).map_err(sqlx::Error::Io)? } else { None };
    if source.kind == Kind::Sqlite && lock.is_none() {
        return Ok(false);
    }
    let mut connection = source.connect(true).await?;
    schema::migrate(&mut connection).await?;
    let mut transaction = connection.begin_with(lease::begin_to_take(source.kind)).await?;
    let clock_ms = clock.now().as_millisecond();
    let Taken::Held(held) = lease::take(&mut transaction, source.kind, "new-epoch", clock_ms).await? else {
        return Ok(false);
    };
    lease::forget_generations(&mut transaction).await?;
    lease::give_back(&mut transaction, &held).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(true)
}
