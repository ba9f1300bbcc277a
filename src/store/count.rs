use std::collections::{HashMap, HashSet};

use sqlx::{AnyConnection, Row};

use super::{
    Error, Store,
    rows::{padded, statement},
};
use crate::message::{RoomName, UserId};

/// Users of one statement.
const USERS: usize = 128;

/// The messages of a mailbox that are still of use, and what some users have read of them, as far as counting needs it.
#[derive(Default)]
struct LookedAt {
    /// Ordered.
    positions: Vec<i64>,
    /// By user, what is not for them.
    excepted: HashMap<String, Vec<i64>>,
    /// By user, up to which position everything was read.
    marks: HashMap<String, i64>,
    /// By user, what was read by itself.
    read: HashMap<String, Vec<i64>>,
}

impl Store {
    /// How many messages each of these users has not read, as [`Store::count_unread`] counts them, for many users at once: the mailbox
    /// is looked through once for 128 of them.
    pub async fn count_unread_of(&self, room: &RoomName, users: &[UserId]) -> Result<Vec<u64>, Error> {
        self.count_unread_up_to(room, users, i64::MAX.cast_unsigned()).await
    }

    /// The same of the messages up to a position, this one included.
    pub async fn count_unread_up_to(&self, room: &RoomName, users: &[UserId], up_to: u64) -> Result<Vec<u64>, Error> {
        let (room, users, now) = (room.clone(), users.to_vec(), self.now_ms());
        let up_to = i64::try_from(up_to).unwrap_or(i64::MAX);
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let mut counts = Vec::with_capacity(users.len());
                for users in users.chunks(USERS) {
                    let looked_at = look_at(connection, &room, users, (now, up_to)).await?;
                    counts.extend(users.iter().map(|user| looked_at.unread_by(user)));
                }
                Ok(counts)
            })
        });
        read.await
    }
}

impl LookedAt {
    /// A row of [`look_at`].
    fn add(&mut self, what: i64, position: i64, text: String) {
        match what {
            0 => {
                self.positions.push(position);
                if text == "[]" {
                    return;
                }
                // What is broken is told of when it is read.
                let users: Vec<String> = serde_json::from_str(&text).unwrap_or_default();
                for user in users {
                    self.excepted.entry(user).or_default().push(position);
                }
            }
            1 => drop(self.marks.insert(text, position)),
            _ => self.read.entry(text).or_default().push(position),
        }
    }

    fn unread_by(&self, user: &UserId) -> u64 {
        let user = user.as_str();
        let mark = self.marks.get(user).copied().unwrap_or_default();
        let after_mark = self.positions.len() - self.positions.partition_point(|position| *position <= mark);
        let of_user = |of: &HashMap<String, Vec<i64>>| of.get(user).cloned().unwrap_or_default();
        let not_counted: HashSet<i64> = of_user(&self.read).into_iter().chain(of_user(&self.excepted)).collect();
        let is_counted = |position: &&i64| **position > mark && self.positions.binary_search(position).is_ok();
        (after_mark - not_counted.iter().filter(is_counted).count()) as u64
    }
}

/// Reads it all by one statement, so that it is of one moment. Messages that all of these users have read are left out.
async fn look_at(
    connection: &mut AnyConnection,
    room: &RoomName,
    users: &[UserId],
    (now, up_to): (i64, i64),
) -> sqlx::Result<LookedAt> {
    let mut looked_at = LookedAt::default();
    for (bound, count) in padded(users) {
        let places: Vec<_> = (5..count + 5).map(|place| format!("${place}")).collect();
        let of_users = format!("room = $1 AND user_id IN ({})", places.join(", "));
        let sql = format!(
            "SELECT CAST(0 AS BIGINT), position, except_users FROM messages WHERE room = $1 AND expires_at > $2 AND position <= $3 AND kind <> 'own' \
             AND position > (SELECT CASE WHEN COUNT(*) < $4 THEN 0 ELSE MIN(position) END FROM read_marks WHERE {of_users}) \
             UNION ALL SELECT CAST(1 AS BIGINT), position, user_id FROM read_marks WHERE {of_users} \
             UNION ALL SELECT CAST(2 AS BIGINT), position, user_id FROM read_messages WHERE {of_users}"
        );
        let users = i64::try_from(users.len()).unwrap_or(i64::MAX);
        let mut query = statement(sql).bind(room.as_str()).bind(now).bind(up_to).bind(users);
        for user in bound {
            query = query.bind(user.as_str());
        }
        for row in query.fetch_all(&mut *connection).await? {
            looked_at.add(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        }
    }
    looked_at.positions.sort_unstable();
    Ok(looked_at)
}
