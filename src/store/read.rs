use std::collections::HashMap;

use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    Error, Mailbox, Store,
    append::{chunks, statement},
};
use crate::message::{EventName, KeptMessage, MessageId, Payload, RoomName, UserId};

/// Which messages of a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Those after this position.
    pub after: u64,
    /// So many at most.
    pub most: u32,
}

pub(super) const COLUMNS: &str = "position, message_id, event, kind, payload, except_users, stored_at";

impl Store {
    /// How the mailboxes of these rooms stand, those in which anything was ever kept.
    pub async fn mailboxes(&self, rooms: &[RoomName]) -> Result<HashMap<RoomName, Mailbox>, Error> {
        let rooms = rooms.to_vec();
        self.inner.database.read(move |connection| Box::pin(async move { mailboxes(connection, &rooms).await })).await
    }

    /// How a room's mailbox stands; none if nothing was ever kept there.
    pub async fn mailbox(&self, room: &RoomName) -> Result<Option<Mailbox>, Error> {
        Ok(self.mailboxes(std::slice::from_ref(room)).await?.remove(room))
    }

    /// Those of these messages that are in a mailbox, in order.
    pub async fn messages_by_id(&self, room: &RoomName, ids: &[MessageId]) -> Result<Vec<KeptMessage>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM messages WHERE room = $1 AND message_id = $2 AND expires_at > $3");
        let (room, ids, now) = (room.clone(), ids.to_vec(), self.now_ms());
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let mut rows = Vec::new();
                for id in ids {
                    let query = statement(sql.clone()).bind(room.as_str()).bind(id.to_string()).bind(now);
                    rows.extend(query.fetch_optional(&mut *connection).await?);
                }
                Ok(rows)
            })
        });
        let mut messages: Vec<_> = read.await?.iter().map(kept).collect::<Result<_, _>>()?;
        messages.sort_by_key(|message| message.number);
        Ok(messages)
    }
}

async fn mailboxes(connection: &mut AnyConnection, rooms: &[RoomName]) -> sqlx::Result<HashMap<RoomName, Mailbox>> {
    let mut found = HashMap::new();
    for chunk in chunks(rooms) {
        let places: Vec<_> = (1..=chunk.len()).map(|place| format!("${place}")).collect();
        let sql = format!("SELECT room, last, trimmed FROM mailboxes WHERE room IN ({})", places.join(", "));
        let mut query = statement(sql);
        for room in chunk {
            query = query.bind(room.as_str());
        }
        for row in query.fetch_all(&mut *connection).await? {
            let (name, last, trimmed): (String, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if let Some(room) = chunk.iter().find(|room| room.as_str() == name) {
                let mailbox = Mailbox { last: last.cast_unsigned(), trimmed: trimmed.cast_unsigned() };
                found.insert(room.clone(), mailbox);
            }
        }
    }
    Ok(found)
}

pub(super) fn kept(row: &AnyRow) -> Result<KeptMessage, Error> {
    let text = |column: usize| row.try_get::<String, _>(column);
    let payload: Vec<u8> = row.try_get(4)?;
    let payload = match &*text(3)? {
        "none" => Payload::None,
        "binary" => Payload::Binary(payload.into()),
        _ => {
            let json = String::from_utf8(payload).map_err(|_| Error::Broken("a payload that is not UTF-8"))?;
            Payload::json(json).map_err(|_| Error::Broken("a payload that is not JSON"))?
        }
    };
    let except: Vec<String> =
        serde_json::from_str(&text(5)?).map_err(|_| Error::Broken("excepted users that are no list"))?;
    Ok(KeptMessage {
        number: row.try_get::<i64, _>(0)?.cast_unsigned(),
        id: text(1)?.parse().map_err(|_| Error::Broken("a message id that is none"))?,
        event: EventName::new(&text(2)?).map_err(|_| Error::Broken("an event that is none"))?,
        payload,
        except_users: except.iter().filter_map(|user| UserId::new(user).ok()).collect(),
        kept_at_ms: row.try_get(6)?,
    })
}
