use std::collections::{HashMap, HashSet};

use sqlx::{AnyConnection, Row};

use super::{
    Error, Store,
    append::{chunks, statement},
};
use crate::message::{RoomName, UserId};

/// The messages of a mailbox that are still of use, as far as counting needs them.
struct Countable {
    /// Ordered.
    positions: Vec<i64>,
    /// By user, what is not for them.
    excepted: HashMap<String, Vec<i64>>,
}

/// What a user has read.
#[derive(Default)]
struct Progress {
    mark: i64,
    /// Messages after the mark, by themselves.
    read: Vec<i64>,
}

impl Store {
    /// How many messages each of these users has not read, as [`Store::count_unread`] counts them, for many users at once: the mailbox
    /// is looked through once for all of them.
    pub async fn count_unread_of(&self, room: &RoomName, users: &[UserId]) -> Result<Vec<u64>, Error> {
        let (room, users, now) = (room.clone(), users.to_vec(), self.now_ms());
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let countable = countable(connection, &room, now).await?;
                let progress = progress_of(connection, &room, &users).await?;
                let untouched = Progress::default();
                let progress = |user: &UserId| progress.get(user.as_str()).unwrap_or(&untouched);
                Ok(users.iter().map(|user| countable.unread_by(user, progress(user))).collect())
            })
        });
        read.await
    }
}

impl Countable {
    fn unread_by(&self, user: &UserId, progress: &Progress) -> u64 {
        let after_mark = self.positions.len() - self.positions.partition_point(|position| *position <= progress.mark);
        let excepted = self.excepted.get(user.as_str()).map(Vec::as_slice).unwrap_or_default();
        let not_counted: HashSet<i64> = progress.read.iter().chain(excepted).copied().collect();
        let is_counted = |position: &&i64| **position > progress.mark && self.positions.binary_search(position).is_ok();
        (after_mark - not_counted.iter().filter(is_counted).count()) as u64
    }
}

async fn countable(connection: &mut AnyConnection, room: &RoomName, now: i64) -> sqlx::Result<Countable> {
    let sql = "SELECT position FROM messages WHERE room = $1 AND expires_at > $2 ORDER BY position";
    let rows = sqlx::query(sql).bind(room.as_str()).bind(now).fetch_all(&mut *connection).await?;
    let positions = rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>()?;
    let sql = "SELECT position, except_users FROM messages WHERE room = $1 AND except_users <> '[]'";
    let mut excepted = HashMap::<String, Vec<i64>>::new();
    for row in sqlx::query(sql).bind(room.as_str()).fetch_all(&mut *connection).await? {
        let (position, users): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        // What is broken is told of when it is read.
        let users: Vec<String> = serde_json::from_str(&users).unwrap_or_default();
        for user in users {
            excepted.entry(user).or_default().push(position);
        }
    }
    Ok(Countable { positions, excepted })
}

async fn progress_of(
    connection: &mut AnyConnection,
    room: &RoomName,
    users: &[UserId],
) -> sqlx::Result<HashMap<String, Progress>> {
    let mut progress = HashMap::<String, Progress>::new();
    for chunk in chunks(users) {
        let places: Vec<_> = (2..chunk.len() + 2).map(|place| format!("${place}")).collect();
        let places = places.join(", ");
        for (table, is_mark) in [("read_marks", true), ("read_messages", false)] {
            let sql = format!("SELECT user_id, position FROM {table} WHERE room = $1 AND user_id IN ({places})");
            let mut query = statement(sql).bind(room.as_str());
            for user in chunk {
                query = query.bind(user.as_str());
            }
            for row in query.fetch_all(&mut *connection).await? {
                let (user, position): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
                let progress = progress.entry(user).or_default();
                if is_mark {
                    progress.mark = position;
                } else {
                    progress.read.push(position);
                }
            }
        }
    }
    Ok(progress)
}
