//! What users have read. Many marks are written by few statements, as the database may be far away.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use sqlx::{AnyConnection, Row};
use tokio::sync::oneshot;

use super::{
    Error, Store, Which,
    rows::{Rows, parts},
    unread::quoted,
};
use crate::message::{MessageId, RoomName, UserId};

/// A user has read messages of a mailbox.
pub(super) struct Mark {
    room: RoomName,
    user: UserId,
    which: Which,
    /// What to answer once it is committed.
    outcome: Result<Option<bool>, Error>,
    answer: oneshot::Sender<Result<Option<bool>, Error>>,
}

/// Whether the message that a mark is of is for the user: nearly none has exceptions.
const IS_FOR_USER: &str =
    "(messages.except_users = '[]' OR REPLACE(messages.except_users, marks.quoted, '') = messages.except_users)";
/// The position up to which the user has read.
const MARK: &str = "COALESCE((SELECT read_marks.position FROM read_marks WHERE read_marks.room = marks.room \
     AND read_marks.user_id = marks.user_id), 0)";
/// Whether the message was read by itself.
const IS_READ: &str = "EXISTS (SELECT 1 FROM read_messages WHERE read_messages.room = marks.room \
     AND read_messages.user_id = marks.user_id AND read_messages.position = messages.position)";

impl Store {
    /// Notes that a user has read messages of a mailbox: what was read stays read, and a mark stands at the last message at most. Says
    /// whether that made any fewer unread; none if the one message is not there, or not for this user.
    pub async fn mark_read(&self, room: &RoomName, user: &UserId, which: Which) -> Result<Option<bool>, Error> {
        let (room, user) = (room.clone(), user.clone());
        self.inner.database.mark(|answer| Mark { room, user, which, outcome: Ok(None), answer }).await
    }
}

impl Mark {
    /// It alone could not be written.
    pub(super) fn failed(&mut self, error: sqlx::Error) {
        self.outcome = Err(error.into());
    }

    pub(super) fn answer(self, committed: Result<(), Error>) {
        // The caller may be gone.
        let _ = self.answer.send(committed.and(self.outcome));
    }
}

/// The marks that are written by the same statements: of one user in one room either messages, each once, or one position.
#[derive(Default)]
struct Round(HashMap<(RoomName, UserId), OfUser>);

struct OfUser {
    messages: HashSet<MessageId>,
    /// Later marks wait for the next round.
    is_full: bool,
}

impl Round {
    fn takes(&mut self, mark: &Mark) -> bool {
        let id = match mark.which {
            Which::Message(id) => Some(id),
            Which::UpTo(_) => None,
        };
        match self.0.entry((mark.room.clone(), mark.user.clone())) {
            Entry::Vacant(entry) => {
                entry.insert(OfUser { messages: id.into_iter().collect(), is_full: id.is_none() });
                true
            }
            Entry::Occupied(mut entry) => {
                let of_user = entry.get_mut();
                of_user.is_full |= id.is_none_or(|id| !of_user.messages.insert(id));
                !of_user.is_full
            }
        }
    }
}

/// Writes marks, within a transaction. Of one user in one room the later ones come after the earlier ones.
pub(super) async fn write(connection: &mut AnyConnection, marks: &mut [Mark], now_ms: i64) -> sqlx::Result<()> {
    // They may have been written before, in a transaction that was rolled back.
    for mark in marks.iter_mut() {
        mark.outcome = Ok(None);
    }
    let mut left: Vec<&mut Mark> = marks.iter_mut().collect();
    while !left.is_empty() {
        let mut taken = Round::default();
        let (round, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|mark| taken.takes(mark));
        let (mut messages, mut positions) = (Vec::new(), Vec::new());
        for mark in round {
            match mark.which {
                Which::Message(id) => messages.push((mark, id)),
                Which::UpTo(position) => positions.push((mark, position.cast_signed())),
            }
        }
        note_messages(connection, &mut messages, now_ms).await?;
        advance(connection, &mut positions, now_ms).await?;
        left = later;
    }
    Ok(())
}

/// Notes messages that were read by themselves.
async fn note_messages(
    connection: &mut AnyConnection,
    marks: &mut [(&mut Mark, MessageId)],
    now_ms: i64,
) -> sqlx::Result<()> {
    let mut read = Vec::new();
    for part in parts(connection, marks.len()) {
        let marks = &mut marks[part];
        let row = |(n, (mark, id)): (i64, &(&mut Mark, MessageId))| {
            [
                n.into(),
                mark.room.as_str().to_owned().into(),
                mark.user.as_str().to_owned().into(),
                quoted(&mark.user).into(),
                id.to_string().into(),
            ]
        };
        let mut rows = Rows::new(connection, (0_i64..).zip(marks.iter()).map(row))?;
        let sql = format!(
            "WITH marks (n, room, user_id, quoted, message_id) AS ({}) \
             SELECT marks.n, messages.position, CAST(CASE WHEN messages.position <= {MARK} OR {IS_READ} THEN 1 ELSE 0 END AS BIGINT) \
             FROM marks JOIN messages ON messages.room = marks.room AND messages.message_id = marks.message_id \
             WHERE {IS_FOR_USER} AND messages.expires_at > {}",
            rows.sql().to_owned(),
            rows.add(now_ms)?,
        );
        for row in rows.query(sql).fetch_all(&mut *connection).await? {
            let (n, position, is_read): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if let Some((mark, _)) = usize::try_from(n).ok().and_then(|n| marks.get_mut(n)) {
                mark.outcome = Ok(Some(is_read == 0));
                if is_read == 0 {
                    read.push((mark.room.clone(), mark.user.clone(), position));
                }
            }
        }
    }
    // All nodes lock rows in one order.
    read.sort_unstable();
    for part in parts(connection, read.len()) {
        let read = read[part].iter();
        let rows = Rows::new(
            connection,
            read.map(|(room, user, position)| [room.as_str().into(), user.as_str().into(), (*position).into()]),
        )?;
        let sql = format!(
            "INSERT INTO read_messages (room, user_id, position) {} ON CONFLICT (room, user_id, position) DO NOTHING",
            rows.sql()
        );
        rows.query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Moves marks on, to the last message of their mailbox at most.
async fn advance(connection: &mut AnyConnection, marks: &mut [(&mut Mark, i64)], now_ms: i64) -> sqlx::Result<()> {
    for part in parts(connection, marks.len()) {
        let marks = &mut marks[part];
        let unread = unread(connection, marks, now_ms).await?;
        let row = |(mark, position): &(&mut Mark, i64)| {
            [mark.room.as_str().to_owned().into(), mark.user.as_str().to_owned().into(), (*position).into()]
        };
        let rows = Rows::new(connection, marks.iter().map(row))?;
        let sql = format!(
            "WITH marks (room, user_id, position) AS ({}) \
             INSERT INTO read_marks (room, user_id, position) \
             SELECT marks.room, marks.user_id, CASE WHEN mailboxes.last < marks.position THEN mailboxes.last ELSE marks.position END \
             FROM marks JOIN mailboxes ON mailboxes.room = marks.room WHERE 1 = 1 ORDER BY marks.room, marks.user_id \
             ON CONFLICT (room, user_id) DO UPDATE SET position = excluded.position \
             WHERE excluded.position > read_marks.position",
            rows.sql()
        );
        rows.query(sql).execute(&mut *connection).await?;
        let row =
            |(mark, _): &(&mut Mark, i64)| [mark.room.as_str().to_owned().into(), mark.user.as_str().to_owned().into()];
        let rows = Rows::new(connection, marks.iter().map(row))?;
        let sql = format!(
            "DELETE FROM read_messages WHERE (room, user_id) IN ({}) AND position <= \
             (SELECT read_marks.position FROM read_marks WHERE read_marks.room = read_messages.room \
             AND read_marks.user_id = read_messages.user_id)",
            rows.sql()
        );
        rows.query(sql).execute(&mut *connection).await?;
        for (n, (mark, _)) in (0_i64..).zip(marks.iter_mut()) {
            mark.outcome = Ok(Some(unread.contains(&n)));
        }
    }
    Ok(())
}

/// The numbers of those marks that make a message fewer unread.
async fn unread(connection: &mut AnyConnection, marks: &[(&mut Mark, i64)], now_ms: i64) -> sqlx::Result<HashSet<i64>> {
    let row = |(n, (mark, position)): (i64, &(&mut Mark, i64))| {
        [
            n.into(),
            mark.room.as_str().to_owned().into(),
            mark.user.as_str().to_owned().into(),
            quoted(&mark.user).into(),
            (*position).into(),
        ]
    };
    let mut rows = Rows::new(connection, (0_i64..).zip(marks).map(row))?;
    let sql = format!(
        "WITH marks (n, room, user_id, quoted, position) AS ({}) \
         SELECT marks.n FROM marks WHERE EXISTS (SELECT 1 FROM messages WHERE messages.room = marks.room \
         AND messages.position <= marks.position AND messages.position > {MARK} AND NOT {IS_READ} AND {IS_FOR_USER} \
         AND messages.expires_at > {})",
        rows.sql().to_owned(),
        rows.add(now_ms)?,
    );
    rows.query(sql).fetch_all(connection).await?.iter().map(|row| row.try_get(0)).collect()
}
