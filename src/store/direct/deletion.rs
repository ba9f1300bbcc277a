use std::collections::{BTreeMap, BTreeSet, HashSet};

use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    super::{
        Error, Store,
        delete::delete_by_id,
        rows::{Rows, parts, statement},
    },
    read::{by_id, message, user_id},
};
use crate::message::{DirectMessage, MessageId, RoomName, UserId};

/// A user and a peer.
pub(super) type Side = (String, String);

/// Messages that are deleted in one transaction.
const ROWS: i64 = 200;

impl Store {
    /// Deletes a direct message, for both sides, and its entries in their mailboxes. Returns it. Nothing: it is not there.
    pub async fn delete_direct(&self, id: MessageId) -> Result<Option<DirectMessage>, Error> {
        let now_ms = self.now_ms();
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let Some(row) = by_id(connection, id).await? else { return Ok(None) };
                Ok((forget(connection, &[id.to_string()], now_ms).await? > 0).then_some(row))
            })
        });
        write.await?.as_ref().map(message).transpose()
    }

    /// Deletes all conversations of a user, a few hundred messages in a transaction, and the rules of and about the user. Returns how many messages
    /// there were, and the users who had not read all of theirs. If it fails, a part of them may be deleted.
    pub async fn erase_conversations(&self, user: &UserId) -> Result<(u64, BTreeSet<UserId>), Error> {
        let (mut deleted, mut unread_by) = (0, BTreeSet::new());
        while let Some((count, peer)) = self.erase_some(user).await? {
            deleted += count;
            unread_by.extend(peer.as_deref().map(user_id).transpose()?);
        }
        self.erase_rules(user).await?;
        Ok((deleted, unread_by))
    }

    /// Deletes the rules of a user, and those of others about that user.
    async fn erase_rules(&self, user: &UserId) -> Result<(), Error> {
        let name = user.to_string();
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                for side in ["user_id", "peer_id"] {
                    let sql = format!("DELETE FROM conversation_rules WHERE {side} = $1");
                    statement(sql).bind(name.clone()).execute(&mut *connection).await?;
                }
                Ok(())
            })
        });
        write.await
    }

    /// Deletes messages of one conversation. Returns how many there were, and the peer if that had not read all of them. `None`: there is none.
    async fn erase_some(&self, user: &UserId) -> Result<Option<(u64, Option<String>)>, Error> {
        let (user, now_ms) = (user.to_string(), self.now_ms());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let sql = "SELECT peer_id FROM conversations WHERE user_id = $1 LIMIT 1";
                let Some(row) = sqlx::query(sql).bind(user.clone()).fetch_optional(&mut *connection).await? else {
                    return Ok(None);
                };
                let peer: String = row.try_get(0)?;
                let ids = oldest(connection, (&user, &peer), ROWS).await?;
                if ids.is_empty() {
                    remove_conversation(connection, (&user, &peer)).await?;
                }
                let sql = "SELECT 1 FROM conversations WHERE user_id = $1 AND peer_id = $2 AND unread > 0";
                let unread = sqlx::query(sql).bind(peer.clone()).bind(user).fetch_optional(&mut *connection).await?;
                let count = forget(connection, &ids, now_ms).await?;
                Ok(Some((count, unread.map(|_| peer))))
            })
        });
        write.await
    }
}

/// The messages at one end of a conversation of `$1` and `$2`, `$3` at most.
pub(super) fn ends_sql(order: &str) -> String {
    let ranges = ["sender_id = $1 AND receiver_id = $2", "sender_id = $2 AND receiver_id = $1"].map(|sides| {
        format!(
            "SELECT * FROM (SELECT id, created_at FROM direct_messages WHERE {sides} ORDER BY {order} LIMIT $3) AS one_way"
        )
    });
    format!("SELECT id, created_at FROM ({}) AS both_ways ORDER BY {order} LIMIT $3", ranges.join(" UNION ALL "))
}

/// The ids of the first messages of a conversation.
pub(super) async fn oldest(
    connection: &mut AnyConnection,
    (user, peer): (&str, &str),
    count: i64,
) -> sqlx::Result<Vec<String>> {
    let query = statement(ends_sql("created_at")).bind(user.to_owned()).bind(peer.to_owned()).bind(count);
    query.fetch_all(connection).await?.iter().map(|row| row.try_get(0)).collect()
}

/// Deletes messages, and their entries in mailboxes, and has the conversations say what is left. Returns how many there were.
pub(super) async fn forget(connection: &mut AnyConnection, ids: &[String], now_ms: i64) -> sqlx::Result<u64> {
    let mut gone = Vec::new();
    for part in parts(connection, ids.len()) {
        let rows = Rows::new(connection, ids[part].iter().map(|id| [id.as_str().into()]))?;
        let sql = format!(
            "DELETE FROM direct_messages WHERE id IN ({}) RETURNING id, sender_id, receiver_id, is_read",
            rows.sql()
        );
        gone.extend(rows.query(sql).fetch_all(&mut *connection).await?);
    }
    note_gone(connection, &gone, now_ms).await?;
    Ok(gone.len() as u64)
}

/// Does what is left to be done after messages were deleted, of which these rows are `id, sender_id, receiver_id, is_read`. Their entries go before the
/// conversations are changed: appends lock mailboxes before conversations, and sweeps entries before mailboxes.
pub(super) async fn note_gone(connection: &mut AnyConnection, gone: &[AnyRow], now_ms: i64) -> sqlx::Result<()> {
    let (mut sides, mut entries) = (BTreeMap::<Side, (i64, i64)>::new(), BTreeMap::new());
    let mut ids = HashSet::with_capacity(gone.len());
    for row in gone {
        let (id, sender, receiver): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let unread = 1 - row.try_get::<i64, _>(3)?;
        for (user, peer, unread) in [(&sender, &receiver, 0), (&receiver, &sender, unread)] {
            let side = sides.entry((user.clone(), peer.clone())).or_default();
            *side = (side.0 + 1, side.1 + unread);
            if let Ok(user) = user_id(user) {
                entries.insert((RoomName::of_user(&user), id.clone()), 0);
            }
        }
        ids.insert(id);
    }
    delete_by_id(connection, &entries, now_ms).await?;
    for side in subtract(connection, &sides, &ids).await? {
        set_last(connection, (&side.0, &side.1)).await?;
    }
    Ok(())
}

/// Takes messages off the counts of conversations, and ends those that have none left. Returns the sides of the others whose last message is gone.
async fn subtract(
    connection: &mut AnyConnection,
    sides: &BTreeMap<Side, (i64, i64)>,
    gone: &HashSet<String>,
) -> sqlx::Result<Vec<Side>> {
    let (all, mut without_last) = (sides.iter().collect::<Vec<_>>(), Vec::new());
    for part in parts(connection, all.len()) {
        let some = &all[part];
        let changes = some.iter().map(|((user, peer), (total, unread))| {
            [user.as_str().into(), peer.as_str().into(), (*total).into(), (*unread).into()]
        });
        let rows = Rows::new(connection, changes)?;
        let sql = format!(
            "WITH gone (user_id, peer_id, total, unread) AS ({}) UPDATE conversations \
             SET total = conversations.total - gone.total, unread = conversations.unread - gone.unread FROM gone \
             WHERE conversations.user_id = gone.user_id AND conversations.peer_id = gone.peer_id \
             RETURNING conversations.user_id, conversations.peer_id, conversations.last_id, conversations.total",
            rows.sql()
        );
        for row in rows.query(sql).fetch_all(&mut *connection).await? {
            let (last, total): (String, i64) = (row.try_get(2)?, row.try_get(3)?);
            if total > 0 && gone.contains(&last) {
                without_last.push((row.try_get(0)?, row.try_get(1)?));
            }
        }
        let rows =
            Rows::new(connection, some.iter().map(|((user, peer), _)| [user.as_str().into(), peer.as_str().into()]))?;
        let sql = format!("DELETE FROM conversations WHERE (user_id, peer_id) IN ({}) AND total <= 0", rows.sql());
        rows.query(sql).execute(&mut *connection).await?;
    }
    Ok(without_last)
}

/// Has one side of a conversation show the message that is the last one now. Without one the conversation ends.
async fn set_last(connection: &mut AnyConnection, (user, peer): (&str, &str)) -> sqlx::Result<()> {
    let query = statement(ends_sql("created_at DESC")).bind(user.to_owned()).bind(peer.to_owned()).bind(1_i64);
    let Some(row) = query.fetch_optional(&mut *connection).await? else {
        return remove_conversation(connection, (user, peer)).await;
    };
    let sql = "UPDATE conversations SET last_id = $3, last_at = $4 WHERE user_id = $1 AND peer_id = $2";
    let query = sqlx::query(sql).bind(user.to_owned()).bind(peer.to_owned());
    let query = query.bind(row.try_get::<String, _>(0)?).bind(row.try_get::<i64, _>(1)?);
    query.execute(connection).await.map(drop)
}

/// Ends one side of a conversation, unless another node has stored a message meanwhile.
async fn remove_conversation(connection: &mut AnyConnection, (user, peer): (&str, &str)) -> sqlx::Result<()> {
    let sql = "DELETE FROM conversations WHERE user_id = $1 AND peer_id = $2 \
               AND NOT EXISTS (SELECT 1 FROM direct_messages WHERE sender_id = $1 AND receiver_id = $2) \
               AND NOT EXISTS (SELECT 1 FROM direct_messages WHERE sender_id = $2 AND receiver_id = $1)";
    sqlx::query(sql).bind(user.to_owned()).bind(peer.to_owned()).execute(connection).await.map(drop)
}
