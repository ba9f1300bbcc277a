use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sqlx::{AnyConnection, Row};

use super::{
    super::{
        NewMessage,
        rows::{Rows, parts},
    },
    NewDirect,
};
use crate::message::{DirectMessage, MessageId, RoomName, UserId};

/// What new messages change of one side's conversation.
#[derive(Default)]
struct Change<'a> {
    total: i64,
    unread: i64,
    last: Option<&'a NewMessage>,
}

/// A user and a peer.
type Sides<'a> = BTreeMap<(&'a UserId, &'a UserId), Change<'a>>;

/// Writes those direct messages of a transaction that are new. Says of each entry of a mailbox which one it has. The rows of conversations are locked in
/// one order, after those of mailboxes: of a conversation one transaction at a time gives times to messages.
pub(in crate::store) async fn write(
    connection: &mut AnyConnection,
    now_ms: i64,
    messages: &[NewMessage],
    news: &[usize],
) -> sqlx::Result<HashMap<MessageId, Arc<DirectMessage>>> {
    // Each is an entry of its receiver's mailbox, and of its sender's.
    let directs: Vec<(&NewMessage, &NewDirect)> = news
        .iter()
        .filter_map(|index| Some((&messages[*index], messages[*index].direct.as_deref()?)))
        .filter(|(new, direct)| new.room == RoomName::of_user(&direct.receiver))
        .collect();
    if directs.is_empty() {
        return Ok(HashMap::new());
    }
    let mut sides = Sides::new();
    for (new, direct) in &directs {
        for (side, unread) in [((&direct.sender, &direct.receiver), 0), ((&direct.receiver, &direct.sender), 1)] {
            let change = sides.entry(side).or_default();
            change.total += 1;
            change.unread += unread;
            change.last = Some(new);
        }
    }
    let ends = advance(connection, now_ms, &sides).await?;
    // Both sides of a conversation have the same times.
    let mut next_at = BTreeMap::new();
    for ((user, peer), change) in sides.iter().filter(|((user, peer), _)| user < peer) {
        let end = ends.get(&(user.to_string(), peer.to_string())).ok_or(sqlx::Error::RowNotFound)?;
        next_at.insert((*user, *peer), end - change.total + 1);
    }
    let mut written = Vec::with_capacity(directs.len());
    for (new, direct) in &directs {
        let (sender, receiver) = (&direct.sender, &direct.receiver);
        let next = next_at.get_mut(&(sender.min(receiver), sender.max(receiver))).ok_or(sqlx::Error::RowNotFound)?;
        written.push(Arc::new(direct.stored(new.id, *next)));
        *next += 1;
    }
    insert(connection, &written).await?;
    Ok(written.into_iter().map(|message| (message.id, message)).collect())
}

/// Counts the new messages. Returns the time of the last message of each conversation: the new ones have the times up to it, a millisecond apart, each of
/// which is later than that of any message before, and not before now.
async fn advance(
    connection: &mut AnyConnection,
    now_ms: i64,
    sides: &Sides<'_>,
) -> sqlx::Result<HashMap<(String, String), i64>> {
    let (all, mut ends) = (sides.iter().collect::<Vec<_>>(), HashMap::new());
    for part in parts(connection, all.len()) {
        let rows = all[part].iter().map(|((user, peer), change)| {
            [
                user.as_str().into(),
                peer.as_str().into(),
                now_ms.saturating_add(change.total - 1).into(),
                change.last.map(|new| new.id.to_string()).unwrap_or_default().into(),
                change.total.into(),
                change.unread.into(),
            ]
        });
        let rows = Rows::new(connection, rows)?;
        let sql = format!(
            "INSERT INTO conversations (user_id, peer_id, last_at, last_id, total, unread) {} \
             ON CONFLICT (user_id, peer_id) DO UPDATE SET last_id = excluded.last_id, \
             last_at = CASE WHEN excluded.last_at > conversations.last_at + excluded.total THEN excluded.last_at \
             ELSE conversations.last_at + excluded.total END, \
             total = conversations.total + excluded.total, unread = conversations.unread + excluded.unread \
             RETURNING user_id, peer_id, last_at",
            rows.sql()
        );
        for row in rows.query(sql).fetch_all(&mut *connection).await? {
            ends.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
        }
    }
    Ok(ends)
}

async fn insert(connection: &mut AnyConnection, written: &[Arc<DirectMessage>]) -> sqlx::Result<()> {
    for part in parts(connection, written.len()) {
        let rows = written[part].iter().map(|message| {
            let DirectMessage { id, sender, receiver, content, topic, created_at_ms, .. } = &**message;
            let named = |name: &Option<Arc<str>>| name.as_deref().unwrap_or_default().to_owned();
            [
                id.to_string().into(),
                sender.as_str().into(),
                receiver.as_str().into(),
                (&**content).into(),
                named(&topic.transaction).into(),
                named(&topic.listing).into(),
                (*created_at_ms).into(),
            ]
        });
        let rows = Rows::new(connection, rows)?;
        let sql = format!(
            "WITH added (id, sender_id, receiver_id, content, transaction_id, listing_id, created_at) AS ({}) \
             INSERT INTO direct_messages \
             (id, sender_id, receiver_id, content, transaction_id, listing_id, is_read, created_at, updated_at) \
             SELECT id, sender_id, receiver_id, content, NULLIF(transaction_id, ''), NULLIF(listing_id, ''), 0, created_at, created_at \
             FROM added",
            rows.sql()
        );
        rows.query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}

impl NewDirect {
    fn stored(&self, id: MessageId, created_at_ms: i64) -> DirectMessage {
        DirectMessage {
            id,
            sender: self.sender.clone(),
            receiver: self.receiver.clone(),
            content: self.content.clone(),
            topic: self.topic.clone(),
            is_read: false,
            created_at_ms,
            updated_at_ms: created_at_ms,
        }
    }
}
