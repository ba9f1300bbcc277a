use std::collections::BTreeMap;

use sqlx::{AnyConnection, Row, any::AnyRow};
use tokio::task::yield_now;

use super::{
    Error, Store,
    read::{COLUMNS, log_entry},
    rows::{MAX_LIST, list, padded, statement},
    unread::{IS_FOR_USER, IS_READ, IS_UNREAD, quoted},
};
use crate::message::{LogEntry, RoomName, UserId};

/// Which messages of a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Those after this position.
    pub after: u64,
    /// The most messages to read.
    pub max: u32,
}

/// Messages that are decoded before other tasks get a chance to run.
const STRETCH: usize = 16;
/// Payloads of one page of messages, in bytes; one that is larger comes alone.
const PAGE_BYTES: i64 = 2 << 20;

/// Whose state counts in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The user: what is not for them is not listed.
    pub user: UserId,
    /// What they have read is not listed either.
    pub unread_only: bool,
}

/// A message in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The message.
    pub message: LogEntry,
    /// Whether the reader has read it; none: there is no reader.
    pub is_read: Option<bool>,
}

impl Store {
    /// The messages of a mailbox that are still of use, in order, and whether more follow. There may be fewer than were asked for though
    /// more follow: what is large comes in small pages.
    pub async fn list(
        &self,
        room: &RoomName,
        window: Window,
        reader: Option<&Reader>,
    ) -> Result<(Vec<Listed>, bool), Error> {
        #[cfg(test)]
        if let Some(model) = &self.inner.model {
            let (messages, more) = model.read(&self.inner.database, |data| data.list(room, window)).await?;
            return Ok((messages.into_iter().map(|message| Listed { message, is_read: None }).collect(), more));
        }
        let (room, reader, now) = (room.clone(), reader.cloned(), self.now_ms());
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let query = statement(heads_sql(reader.as_ref())).bind(room.as_str()).bind(window.after.cast_signed());
                let query = query.bind(now).bind(i64::from(window.max) + 1);
                let query = match &reader {
                    Some(reader) => query.bind(reader.user.as_str()).bind(quoted(&reader.user)),
                    None => query,
                };
                let heads = query.fetch_all(&mut *connection).await?;
                let fitting = fitting(&heads, window.max as usize)?;
                let more = heads.len() > fitting.len();
                let Some((last, _)) = fitting.last_key_value() else {
                    return Ok((Vec::new(), fitting, more));
                };
                let sql = format!(
                    "SELECT {COLUMNS} FROM messages WHERE room = $1 AND position > $2 AND position <= $3 ORDER BY position"
                );
                let query = statement(sql).bind(room.as_str()).bind(window.after.cast_signed()).bind(*last);
                Ok((query.fetch_all(connection).await?, fitting, more))
            })
        });
        let (rows, is_read, more) = read.await?;
        let mut listed = Vec::with_capacity(is_read.len());
        for (index, row) in rows.iter().enumerate() {
            breathe(index).await;
            // Others in between have expired, or are not for this reader.
            if let Some(is_read) = is_read.get(&row.try_get(0)?) {
                listed.push(Listed { message: log_entry(row)?, is_read: *is_read });
            }
        }
        Ok((listed, more))
    }

    /// The messages of a mailbox at the first of these positions, which are in order, as many as one page holds: those of them that are
    /// still of use, and the number of positions that were looked at, at least one.
    pub async fn messages_at(&self, room: &RoomName, positions: &[u64]) -> Result<(Vec<LogEntry>, usize), Error> {
        #[cfg(test)]
        if let Some(model) = &self.inner.model {
            let messages = model.read(&self.inner.database, |data| data.at(room, positions)).await?;
            return Ok((messages, positions.len()));
        }
        if positions.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let chunk: Vec<_> = positions.iter().take(MAX_LIST).map(|position| position.cast_signed()).collect();
        let (room, now, count) = (room.clone(), self.now_ms(), chunk.len());
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let head = "position, CAST(LENGTH(payload) AS BIGINT), CAST(NULL AS BIGINT)";
                let heads = at(connection, head, (&room, now), &chunk).await?;
                let fitting = fitting(&heads, count)?;
                let looked_at = match heads.get(fitting.len()) {
                    None => count,
                    Some(next) => {
                        let next: i64 = next.try_get(0)?;
                        chunk.partition_point(|position| *position < next)
                    }
                };
                if fitting.is_empty() {
                    return Ok((Vec::new(), looked_at));
                }
                Ok((at(connection, COLUMNS, (&room, now), &chunk[..looked_at]).await?, looked_at))
            })
        });
        let (messages, looked_at) = read.await?;
        let mut entries = Vec::with_capacity(messages.len());
        for (index, row) in messages.iter().enumerate() {
            breathe(index).await;
            entries.push(log_entry(row)?);
        }
        Ok((entries, looked_at))
    }
}

/// Gives other tasks a chance to run now and then while a page is decoded: many devices may catch up at one time.
async fn breathe(index: usize) {
    if index % STRETCH == STRETCH - 1 {
        yield_now().await;
    }
}

/// Reads these columns of the messages at these positions that are still of use.
async fn at(
    connection: &mut AnyConnection,
    columns: &str,
    (room, now): (&RoomName, i64),
    positions: &[i64],
) -> sqlx::Result<Vec<AnyRow>> {
    let mut messages = Vec::with_capacity(positions.len());
    for (some, count) in padded(positions) {
        let sql = format!(
            "SELECT {columns} FROM messages WHERE room = {} AND expires_at > {} AND position IN ({}) ORDER BY position",
            list(connection, 1, 1),
            list(connection, 2, 1),
            list(connection, 3, count)
        );
        let query = statement(sql).bind(room.to_string()).bind(now);
        let query = some.fold(query, |query, position| query.bind(*position));
        messages.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(messages)
}

/// What tells which messages a page has: position, bytes, and whether it was read, if anybody reads.
fn heads_sql(reader: Option<&Reader>) -> String {
    let (is_read, condition) = match reader {
        None => ("NULL".to_owned(), "1 = 1"),
        Some(Reader { unread_only: true, .. }) => ("0".to_owned(), IS_UNREAD),
        Some(Reader { unread_only: false, .. }) => (format!("CASE WHEN {IS_READ} THEN 1 ELSE 0 END"), IS_FOR_USER),
    };
    format!(
        "SELECT position, CAST(LENGTH(payload) AS BIGINT), CAST({is_read} AS BIGINT) FROM messages \
         WHERE room = $1 AND position > $2 AND expires_at > $3 AND {condition} ORDER BY position LIMIT $4"
    )
}

/// The first of these, as many as one page holds.
fn fitting(heads: &[AnyRow], max: usize) -> sqlx::Result<BTreeMap<i64, Option<bool>>> {
    let mut bytes = 0;
    let mut fitting = BTreeMap::new();
    for head in heads.iter().take(max) {
        bytes += head.try_get::<i64, _>(1)?;
        if bytes > PAGE_BYTES && !fitting.is_empty() {
            break;
        }
        fitting.insert(head.try_get(0)?, head.try_get::<Option<i64>, _>(2)?.map(|is_read| is_read != 0));
    }
    Ok(fitting)
}
