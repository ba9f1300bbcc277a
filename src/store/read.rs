use sqlx::{Row, any::AnyRow};

use super::{
    Error, Store,
    rows::{list, padded, statement},
};
use crate::message::{EventName, LogEntry, MessageId, Payload, RoomName, UserId};

pub(super) const COLUMNS: &str = "position, message_id, event, kind, payload, except_users, stored_at";

impl Store {
    /// Those of these messages that are in a mailbox, in order.
    pub async fn messages_by_id(&self, room: &RoomName, ids: &[MessageId]) -> Result<Vec<LogEntry>, Error> {
        let (room, ids, now) = (room.clone(), ids.to_vec(), self.now_ms());
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let mut rows = Vec::new();
                for (some, count) in padded(&ids) {
                    let (room_at, now_at) = (list(connection, 1, 1), list(connection, 2, 1));
                    let mut query = statement(format!(
                        "SELECT {COLUMNS} FROM messages WHERE room = {room_at} AND expires_at > {now_at} AND message_id IN ({})",
                        list(connection, 3, count)
                    ));
                    query = query.bind(room.as_str()).bind(now);
                    for id in some {
                        query = query.bind(id.to_string());
                    }
                    rows.extend(query.fetch_all(&mut *connection).await?);
                }
                Ok(rows)
            })
        });
        let mut messages: Vec<_> = read.await?.iter().map(log_entry).collect::<Result<_, _>>()?;
        messages.sort_by_key(|message| message.number);
        Ok(messages)
    }
}

pub(super) fn log_entry(row: &AnyRow) -> Result<LogEntry, Error> {
    let text = |column: usize| row.try_get::<String, _>(column);
    let payload: Vec<u8> = row.try_get(4)?;
    let payload = match &*text(3)? {
        "none" => Payload::None,
        "binary" => Payload::Binary(payload.into()),
        _ => {
            let json = String::from_utf8(payload).map_err(|_| Error::Broken("a payload that is not UTF-8"))?;
            Payload::json(&json).map_err(|_| Error::Broken("a payload that is not JSON"))?
        }
    };
    let except: Vec<String> =
        serde_json::from_str(&text(5)?).map_err(|_| Error::Broken("excepted users that are no list"))?;
    Ok(LogEntry {
        number: row.try_get::<i64, _>(0)?.cast_unsigned(),
        id: text(1)?.parse().map_err(|_| Error::Broken("a message id that is none"))?,
        event: EventName::new(&text(2)?).map_err(|_| Error::Broken("an event that is none"))?,
        payload,
        except_users: except.iter().filter_map(|user| UserId::new(user).ok()).collect(),
        stored_at_ms: row.try_get(6)?,
    })
}
