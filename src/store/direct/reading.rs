use std::collections::BTreeMap;

use sqlx::{AnyConnection, Row};

use super::super::{
    Error, Store,
    rows::{Rows, parts},
};
use crate::message::{MessageId, RoomName, UserId};

/// Messages that are marked as read in one transaction.
const ROWS: i64 = 500;

pub(super) const READ_CONVERSATION: &str = "UPDATE direct_messages SET is_read = 1, updated_at = $1 WHERE is_read = 0 AND id IN \
     (SELECT id FROM direct_messages WHERE receiver_id = $2 AND sender_id = $3 AND is_read = 0 \
     ORDER BY created_at LIMIT $4) RETURNING sender_id, id";

/// What a user has read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Who has sent it.
    pub sender: UserId,
    /// The messages that were unread before, at most 500. The user has read others before.
    pub ids: Vec<MessageId>,
    /// When they were read, in milliseconds since 1970.
    pub read_at_ms: i64,
}

impl Store {
    /// Marks those of these messages as read that a user has received, and their entries in the user's mailbox. Returns what was unread, by
    /// sender. Ids of other messages are passed over.
    pub async fn read_direct(&self, user: &UserId, ids: &[MessageId]) -> Result<Vec<ReadOutcome>, Error> {
        let (user, ids, now_ms) = (user.clone(), ids.to_vec(), self.now_ms());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let mut read = Vec::new();
                for part in parts(connection, ids.len()) {
                    let mut rows = Rows::new(connection, ids[part].iter().map(|id| [id.to_string().into()]))?;
                    let sql = format!(
                        "WITH read (id) AS ({}) UPDATE direct_messages SET is_read = 1, updated_at = {} \
                         WHERE id IN (SELECT id FROM read) AND receiver_id = {} AND is_read = 0 RETURNING sender_id, id",
                        rows.sql().to_owned(),
                        rows.add(now_ms)?,
                        rows.add(user.as_str())?
                    );
                    read.extend(rows.query(sql).fetch_all(&mut *connection).await?);
                }
                let read = read.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
                let read = read.collect::<sqlx::Result<Vec<(String, String)>>>()?;
                note_read(connection, &user, &read).await?;
                Ok(read)
            })
        });
        outcomes(write.await?, now_ms)
    }

    /// The same of the first 500 messages of a conversation that the user has not read. Nothing: the user has read all.
    pub async fn read_conversation(&self, user: &UserId, peer: &UserId) -> Result<Option<ReadOutcome>, Error> {
        let (user, peer, now_ms) = (user.clone(), peer.clone(), self.now_ms());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let query = sqlx::query(READ_CONVERSATION)
                    .bind(now_ms)
                    .bind(user.to_string())
                    .bind(peer.to_string())
                    .bind(ROWS);
                let read = query.fetch_all(&mut *connection).await?;
                let read = read.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
                let read = read.collect::<sqlx::Result<Vec<(String, String)>>>()?;
                note_read(connection, &user, &read).await?;
                Ok(read)
            })
        });
        Ok(outcomes(write.await?, now_ms)?.into_iter().next())
    }
}

fn outcomes(read: Vec<(String, String)>, read_at_ms: i64) -> Result<Vec<ReadOutcome>, Error> {
    let mut outcomes = Vec::<ReadOutcome>::new();
    for (sender, id) in read {
        let sender = super::read::user_id(&sender)?;
        let id = id.parse().map_err(|_| Error::Broken("a message id that is none"))?;
        match outcomes.iter_mut().find(|outcome| outcome.sender == sender) {
            Some(outcome) => outcome.ids.push(id),
            None => outcomes.push(ReadOutcome { sender, ids: vec![id], read_at_ms }),
        }
    }
    Ok(outcomes)
}

/// Counts in the user's conversations what was read, and marks the entries of the user's mailbox.
async fn note_read(connection: &mut AnyConnection, user: &UserId, read: &[(String, String)]) -> sqlx::Result<()> {
    let mut counts = BTreeMap::<&str, i64>::new();
    for (sender, _) in read {
        *counts.entry(sender).or_default() += 1;
    }
    let counts: Vec<_> = counts.into_iter().collect();
    for part in parts(connection, counts.len()) {
        let mut rows =
            Rows::new(connection, counts[part].iter().map(|(peer, count)| [(*peer).into(), (*count).into()]))?;
        let sql = format!(
            "WITH read (peer_id, count) AS ({}) UPDATE conversations SET unread = conversations.unread - read.count FROM read \
             WHERE conversations.user_id = {} AND conversations.peer_id = read.peer_id",
            rows.sql().to_owned(),
            rows.add(user.as_str())?
        );
        rows.query(sql).execute(&mut *connection).await?;
    }
    let room = RoomName::of_user(user);
    for part in parts(connection, read.len()) {
        let mut rows = Rows::new(connection, read[part].iter().map(|(_, id)| [id.as_str().into()]))?;
        let sql = format!(
            "WITH read (id) AS ({}) INSERT INTO read_messages (room, user_id, position) \
             SELECT room, {}, position FROM messages WHERE room = {} AND message_id IN (SELECT id FROM read) \
             ON CONFLICT (room, user_id, position) DO NOTHING",
            rows.sql().to_owned(),
            rows.add(user.as_str())?,
            rows.add(room.as_str())?
        );
        rows.query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}
