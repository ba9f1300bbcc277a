use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::Arc,
};

use sqlx::{Any, AnyConnection, Row, any::AnyArguments, query::Query};

use super::{Error, IdempotencyKey, NewMessage, Store, unread::quoted};
use crate::message::{MessageId, Payload, Position, RoomName};

/// Rows of one statement: a few sizes, so that the database meets the same statements again.
const CHUNKS: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];
/// For how long a repetition is known, in milliseconds: five minutes.
const ONCE_KEPT_MS: i64 = 5 * 60 * 1000;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It was kept.
    New {
        /// Its place.
        position: Position,
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
    let (mut news, mut counts) = (Vec::new(), BTreeMap::<&RoomName, i64>::new());
    // Of two in one batch the second is a repetition of the first.
    let mut first_of = HashMap::<Scope, usize>::new();
    for (index, message) in messages.iter().enumerate() {
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
    insert_messages(connection, (generation, now_ms), messages, &news, &positions).await?;
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
            return Appended::New { position: place(position) };
        }
        let key = message.idempotency.as_ref();
        match key.and_then(|key| Some((key, known.get(&scope(key, &message.room))?))) {
            Some((key, earlier)) if earlier.request_hash == key.request_hash => {
                Appended::Known { position: place(earlier.position), id: earlier.id }
            }
            Some(_) | None => Appended::KeyReused,
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
    for chunk in chunks(&keyed) {
        let sql = format!(
            "SELECT caller, room, key, asked, message_id, position FROM emits \
             WHERE expires_at > {} AND (caller, room, key) IN (VALUES {})",
            place(connection, 1),
            rows(connection, 2, chunk.len(), 3)
        );
        let mut query = statement(sql).bind(now_ms);
        for (key, room) in chunk {
            query = query.bind(&*key.caller).bind(room.as_str()).bind(key.key.as_bytes());
        }
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
    for chunk in chunks(&counts) {
        let sql = format!(
            "INSERT INTO mailboxes (room, last) VALUES {} \
             ON CONFLICT (room) DO UPDATE SET last = mailboxes.last + excluded.last RETURNING room, last",
            rows(connection, 1, chunk.len(), 2)
        );
        let mut query = statement(sql);
        for (room, count) in chunk {
            query = query.bind(room.as_str()).bind(*count);
        }
        let counts: HashMap<&str, i64> = chunk.iter().map(|(room, count)| (room.as_str(), *count)).collect();
        for row in query.fetch_all(&mut *connection).await? {
            let (room, last): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            let begin = last - counts.get(&*room).copied().unwrap_or_default() + 1;
            if let Ok(room) = RoomName::new(&room) {
                next_in.insert(room, begin);
            }
        }
    }
    Ok(next_in)
}

async fn insert_messages(
    connection: &mut AnyConnection,
    (generation, now_ms): (i64, i64),
    messages: &[NewMessage],
    news: &[usize],
    positions: &HashMap<usize, i64>,
) -> sqlx::Result<()> {
    for chunk in chunks(news) {
        let sql = format!(
            "INSERT INTO messages (room, position, message_id, event, kind, payload, except_users, stored_at, expires_at, generation) \
             VALUES {}",
            rows(connection, 1, chunk.len(), 10)
        );
        let mut query = statement(sql);
        for index in chunk {
            let message = &messages[*index];
            let (kind, payload) = match &message.payload {
                Payload::None => ("none", Vec::new()),
                Payload::Json(raw) => ("json", raw.get().as_bytes().to_vec()),
                Payload::Binary(bytes) => ("binary", bytes.to_vec()),
            };
            let except: Vec<_> = message.except_users.iter().map(quoted).collect();
            let ttl = message.ttl.map_or(i64::MAX, |ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
            query = query
                .bind(message.room.as_str())
                .bind(positions.get(index).copied().unwrap_or_default())
                .bind(message.id.to_string())
                .bind(message.event.as_str())
                .bind(kind)
                .bind(payload)
                .bind(format!("[{}]", except.join(",")))
                .bind(now_ms)
                .bind(now_ms.saturating_add(ttl))
                .bind(generation);
        }
        query.execute(&mut *connection).await?;
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
    let keyed: Vec<_> =
        news.iter().filter_map(|index| Some((*index, messages[*index].idempotency.as_ref()?))).collect();
    for chunk in chunks(&keyed) {
        let sql = format!(
            "INSERT INTO emits (caller, room, key, asked, message_id, position, expires_at) VALUES {} \
             ON CONFLICT (caller, room, key) DO UPDATE SET asked = excluded.asked, message_id = excluded.message_id, \
             position = excluded.position, expires_at = excluded.expires_at",
            rows(connection, 1, chunk.len(), 7)
        );
        let mut query = statement(sql);
        for (index, key) in chunk {
            let message = &messages[*index];
            query = query
                .bind(&*key.caller)
                .bind(message.room.as_str())
                .bind(key.key.as_bytes())
                .bind(key.request_hash.as_slice())
                .bind(message.id.to_string())
                .bind(positions.get(index).copied().unwrap_or_default())
                .bind(now_ms.saturating_add(ONCE_KEPT_MS));
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

pub(super) fn statement<'a>(sql: String) -> Query<'a, Any, AnyArguments> {
    sqlx::query(sqlx::AssertSqlSafe(sql))
}

pub(super) fn chunks<T>(mut all: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = CHUNKS.into_iter().find(|size| *size <= all.len())?;
        let (chunk, rest) = all.split_at(size);
        all = rest;
        Some(chunk)
    })
}

/// The same in as few pieces as can be, each with the length of the list of parameters it needs: what is missing to one of the sizes repeats the
/// last one, which does not matter to `IN`.
pub(super) fn padded<T>(all: &[T]) -> impl Iterator<Item = (impl Iterator<Item = &T>, usize)> {
    all.chunks(CHUNKS[0]).map(|chunk| {
        let size = chunk.len().next_power_of_two();
        (chunk.iter().chain(chunk.last().into_iter().cycle()).take(size), size)
    })
}

pub(super) fn chunks_mut<T>(mut all: &mut [T]) -> impl Iterator<Item = &mut [T]> {
    std::iter::from_fn(move || {
        let size = CHUNKS.into_iter().find(|size| *size <= all.len())?;
        let (chunk, rest) = std::mem::take(&mut all).split_at_mut(size);
        all = rest;
        Some(chunk)
    })
}

/// The statement's parameter with this number. They are to be bound in the order in which they stand in it.
pub(super) fn place(connection: &AnyConnection, number: usize) -> String {
    // To SQLite `$1` is a name, which the library looks for anew among all of them.
    if connection.backend_name() == "SQLite" { "?".into() } else { format!("${number}") }
}

/// So many rows of parameters, the first of which is the statement's parameter with this number. They are to be bound in this order, and
/// all that stand before them first.
pub(super) fn rows(connection: &AnyConnection, first: usize, count: usize, columns: usize) -> String {
    // To SQLite `$1` is a name, which the library looks for anew among all of them.
    let is_numbered = connection.backend_name() != "SQLite";
    let mut rows = String::with_capacity(count * columns * 6);
    for place in 0..count * columns {
        rows.push_str(match place % columns {
            0 if place == 0 => "(",
            0 => "), (",
            _ => ", ",
        });
        let _ = if is_numbered { write!(rows, "${}", first + place) } else { write!(rows, "?") };
    }
    rows.push(')');
    rows
}
