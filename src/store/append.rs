use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sqlx::{AnyConnection, Row};

use super::{
    DirectRefusal, Error, IdempotencyKey, NewMessage, Store, direct,
    rows::{Rows, parts},
    unread::quoted,
};
use crate::message::{DirectMessage, MessageId, Payload, Position, RoomName};

/// For how long a repetition is known, in milliseconds: five minutes.
const ONCE_KEPT_MS: i64 = 5 * 60 * 1000;
/// The same of a direct message: a device may have been away meanwhile.
const DIRECT_KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It was kept.
    New {
        /// Its place.
        position: Position,
        /// The direct message whose entry it is.
        direct: Option<Arc<DirectMessage>>,
    },
    /// It had been kept before, under the same idempotency key.
    Known {
        /// The first one's place.
        position: Position,
        /// The first one's id.
        id: MessageId,
    },
    /// The idempotency key was used for something else.
    KeyReused,
    /// The entry of a direct message that may not be sent.
    Refused(DirectRefusal),
}

impl Store {
    /// Keeps messages, all or none, and says of each what became of it. Those of one room get their positions in this order. They are
    /// on disk when this is done.
    pub async fn append(&self, messages: Vec<NewMessage>) -> Result<Vec<Appended>, Error> {
        self.inner.database.append(messages).await
    }
}

type Scope = (Arc<str>, RoomName, Arc<str>);

struct Earlier {
    request_hash: Vec<u8>,
    position: i64,
    id: MessageId,
}

/// Keeps these messages in one transaction, and says what became of each.
pub(super) async fn append_all(
    connection: &mut AnyConnection,
    (epoch, generation): (&Arc<str>, i64),
    now_ms: i64,
    messages: &[NewMessage],
) -> sqlx::Result<Vec<Appended>> {
    let refused = direct::refused(connection, now_ms, messages).await?;
    let (mut news, mut counts) = (Vec::new(), BTreeMap::<&RoomName, i64>::new());
    // Of two in one batch the second is a repetition of the first.
    let mut first_of = HashMap::<Scope, usize>::new();
    for (index, message) in messages.iter().enumerate().filter(|(index, _)| !refused.contains_key(index)) {
        let scope = message.idempotency.as_ref().map(|key| scope(key, &message.room));
        if scope.is_none_or(|scope| !first_of.contains_key(&scope) && first_of.insert(scope, index).is_none()) {
            *counts.entry(&message.room).or_default() += 1;
            news.push(index);
        }
    }
    // Whoever has advanced a mailbox has it alone until the transaction ends. So what another node has stored under a key of it is there to be seen.
    let mut next_in = advance(connection, &counts).await?;
    let mut known = earlier(connection, now_ms, messages).await?;
    if !known.is_empty() {
        first_of.retain(|scope, _| !known.contains_key(scope));
        let mut unused = BTreeMap::<&RoomName, i64>::new();
        news.retain(|index| {
            let message = &messages[*index];
            let is_known =
                message.idempotency.as_ref().is_some_and(|key| known.contains_key(&scope(key, &message.room)));
            if is_known {
                *unused.entry(&message.room).or_default() -= 1;
            }
            !is_known
        });
        advance(connection, &unused).await?;
    }
    let mut positions = HashMap::new();
    for &index in &news {
        let next = next_in.get_mut(&messages[index].room).ok_or(sqlx::Error::RowNotFound)?;
        positions.insert(index, *next);
        *next += 1;
    }
    let directs = direct::write(connection, now_ms, messages, &news).await?;
    let payloads = payloads(messages, &news, &directs);
    insert_messages(connection, (generation, now_ms), messages, &payloads, &positions).await?;
    insert_emits(connection, now_ms, messages, &news, &positions).await?;
    for (scope, index) in first_of {
        let message = &messages[index];
        let request_hash = message.idempotency.as_ref().map(|key| key.request_hash.to_vec()).unwrap_or_default();
        if let Some(&position) = positions.get(&index) {
            known.insert(scope, Earlier { request_hash, position, id: message.id });
        }
    }
    let answer = |(index, message): (usize, &NewMessage)| {
        let place = |position: i64| Position::new(epoch.clone(), position.cast_unsigned());
        if let Some(&position) = positions.get(&index) {
            let direct = message.direct.as_ref().and_then(|_| directs.get(&message.id).cloned());
            return Appended::New { position: place(position), direct };
        }
        let key = message.idempotency.as_ref();
        match key.and_then(|key| Some((key, known.get(&scope(key, &message.room))?))) {
            // It was stored before it would be refused.
            Some((key, earlier)) if earlier.request_hash == key.request_hash => {
                Appended::Known { position: place(earlier.position), id: earlier.id }
            }
            Some(_) | None => refused.get(&index).map_or(Appended::KeyReused, |refusal| Appended::Refused(*refusal)),
        }
    };
    Ok(messages.iter().enumerate().map(answer).collect())
}

fn scope(key: &IdempotencyKey, room: &RoomName) -> Scope {
    (key.caller.clone(), room.clone(), key.key.clone())
}

/// What was stored under the idempotency keys of these messages. Their mailboxes are locked, so that no other transaction can store anything under
/// them.
async fn earlier(
    connection: &mut AnyConnection,
    now_ms: i64,
    messages: &[NewMessage],
) -> sqlx::Result<HashMap<Scope, Earlier>> {
    let keyed: Vec<_> =
        messages.iter().filter_map(|message| Some((message.idempotency.as_ref()?, &message.room))).collect();
    let mut known = HashMap::new();
    for part in parts(connection, keyed.len()) {
        let keys = keyed[part].iter();
        let keys = keys.map(|(key, room)| [(&*key.caller).into(), room.as_str().into(), key.key.as_bytes().into()]);
        let mut rows = Rows::new(connection, keys)?;
        let sql = format!(
            "SELECT caller, room, key, asked, message_id, position FROM emits \
             WHERE (caller, room, key) IN ({}) AND expires_at > {}",
            rows.sql().to_owned(),
            rows.add(now_ms)?
        );
        let query = rows.query(sql);
        for row in query.fetch_all(&mut *connection).await? {
            let (caller, room, key): (String, String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let id: String = row.try_get(4)?;
            let (Ok(room), Ok(key), Ok(id)) = (RoomName::new(&room), String::from_utf8(key), id.parse()) else {
                continue;
            };
            let scope = (caller.into(), room, key.into());
            known.insert(scope, Earlier { request_hash: row.try_get(3)?, position: row.try_get(5)?, id });
        }
    }
    Ok(known)
}

/// Gives each mailbox so many positions more. Says where they begin.
async fn advance(
    connection: &mut AnyConnection,
    counts: &BTreeMap<&RoomName, i64>,
) -> sqlx::Result<HashMap<RoomName, i64>> {
    let counts: Vec<_> = counts.iter().map(|(room, count)| (*room, *count)).collect();
    let mut next_in = HashMap::new();
    for part in parts(connection, counts.len()) {
        let counts = &counts[part];
        let rows = Rows::new(connection, counts.iter().map(|(room, count)| [room.as_str().into(), (*count).into()]))?;
        let sql = format!(
            "INSERT INTO mailboxes (room, last) {} \
             ON CONFLICT (room) DO UPDATE SET last = mailboxes.last + excluded.last RETURNING room, last",
            rows.sql()
        );
        let counts: HashMap<&str, i64> = counts.iter().map(|(room, count)| (room.as_str(), *count)).collect();
        for row in rows.query(sql).fetch_all(&mut *connection).await? {
            let (room, last): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            let begin = last - counts.get(&*room).copied().unwrap_or_default() + 1;
            if let Ok(room) = RoomName::new(&room) {
                next_in.insert(room, begin);
            }
        }
    }
    Ok(next_in)
}

/// What is stored of each new message.
fn payloads(
    messages: &[NewMessage],
    news: &[usize],
    directs: &HashMap<MessageId, Arc<DirectMessage>>,
) -> Vec<(usize, Payload)> {
    let payload = |index: &usize| {
        let message = &messages[*index];
        let direct = message.direct.as_ref().zip(directs.get(&message.id));
        (*index, direct.map_or_else(|| message.payload.clone(), |(new, stored)| new.render.0(stored)))
    };
    news.iter().map(payload).collect()
}

async fn insert_messages(
    connection: &mut AnyConnection,
    (generation, now_ms): (i64, i64),
    messages: &[NewMessage],
    payloads: &[(usize, Payload)],
    positions: &HashMap<usize, i64>,
) -> sqlx::Result<()> {
    for part in parts(connection, payloads.len()) {
        let rows = payloads[part].iter().map(|(index, payload)| {
            let message = &messages[*index];
            let is_own = message.direct.as_ref().is_some_and(|new| message.room == RoomName::of_user(&new.sender));
            let (kind, payload): (_, &[u8]) = match payload {
                Payload::None => ("none", &[]),
                Payload::Json(raw) if is_own => ("own", raw.get().as_bytes()),
                Payload::Json(raw) => ("json", raw.get().as_bytes()),
                Payload::Binary(bytes) => ("binary", bytes),
            };
            let except: Vec<_> = message.except_users.iter().map(quoted).collect();
            let ttl = message.ttl.map_or(i64::MAX, |ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
            [
                message.room.as_str().into(),
                positions.get(index).copied().unwrap_or_default().into(),
                message.id.to_string().into(),
                message.event.as_str().into(),
                kind.into(),
                payload.into(),
                format!("[{}]", except.join(",")).into(),
                now_ms.into(),
                now_ms.saturating_add(ttl).into(),
                generation.into(),
            ]
        });
        let rows = Rows::new(connection, rows)?;
        let sql = format!(
            "INSERT INTO messages (room, position, message_id, event, kind, payload, except_users, stored_at, expires_at, generation) {}",
            rows.sql()
        );
        rows.query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn insert_emits(
    connection: &mut AnyConnection,
    now_ms: i64,
    messages: &[NewMessage],
    news: &[usize],
    positions: &HashMap<usize, i64>,
) -> sqlx::Result<()> {
    let keyed: Vec<_> = news.iter().copied().filter(|index| messages[*index].idempotency.is_some()).collect();
    for part in parts(connection, keyed.len()) {
        let row = |index: &usize| {
            let message = &messages[*index];
            let key = message.idempotency.as_ref()?;
            let kept_ms = if message.direct.is_some() { DIRECT_KEPT_MS } else { ONCE_KEPT_MS };
            Some([
                (&*key.caller).into(),
                message.room.as_str().into(),
                key.key.as_bytes().into(),
                key.request_hash.as_slice().into(),
                message.id.to_string().into(),
                positions.get(index).copied().unwrap_or_default().into(),
                now_ms.saturating_add(kept_ms).into(),
            ])
        };
        let rows = Rows::new(connection, keyed[part].iter().filter_map(row))?;
        let sql = format!(
            "INSERT INTO emits (caller, room, key, asked, message_id, position, expires_at) {} \
             ON CONFLICT (caller, room, key) DO UPDATE SET asked = excluded.asked, message_id = excluded.message_id, \
             position = excluded.position, expires_at = excluded.expires_at",
            rows.sql()
        );
        rows.query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}
