use sqlx::{AnyConnection, Row, any::AnyRow};

use super::super::{
    Error, Store,
    rows::{Rows, parts, statement},
};
use crate::message::{DirectMessage, MessageId, Topic, UserId};

pub(super) const COLUMNS: &str =
    "id, sender_id, receiver_id, content, transaction_id, listing_id, is_read, created_at, updated_at";

/// The messages of a list, all of which one user has sent or received.
#[derive(Clone, Debug)]
pub enum Of {
    /// Those of the conversation with this user.
    Peer(UserId),
    /// Those about a transaction.
    Transaction(String),
    /// Those about a listing.
    Listing(String),
}

/// Which part of a list, which begins with the newest one.
#[derive(Clone, Copy, Debug)]
pub struct DirectPage {
    /// So many at most.
    pub limit: u32,
    /// After so many.
    pub offset: u32,
    /// Only those before this one.
    pub before: Before,
}

/// Before what a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// All that there is.
    Now,
    /// A message.
    Message(MessageId),
    /// A time, in milliseconds since 1970.
    Time(i64),
}

/// A conversation as one of its sides sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The other side.
    pub peer: UserId,
    /// Its last message.
    pub last: DirectMessage,
    /// How many messages this side has not read.
    pub unread: u64,
}

/// On which sides of some messages a user is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// The user has sent one of them.
    pub sent: bool,
    /// The user has received one of them.
    pub received: bool,
}

/// The place of a message in an order: its time and what decides between those of one time.
type Place = (i64, String);

impl Store {
    /// A direct message.
    pub async fn direct_message(&self, id: MessageId) -> Result<Option<DirectMessage>, Error> {
        let row = self.inner.database.read(move |connection| Box::pin(async move { by_id(connection, id).await }));
        row.await?.as_ref().map(message).transpose()
    }

    /// On which sides of these messages a user is.
    pub async fn sides_of(&self, user: &UserId, ids: &[MessageId]) -> Result<Sides, Error> {
        let (name, ids) = (user.to_string(), ids.to_vec());
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let mut sides = Sides::default();
                for part in parts(connection, ids.len()) {
                    let rows = Rows::new(connection, ids[part].iter().map(|id| [id.to_string().into()]))?;
                    let sql =
                        format!("SELECT sender_id, receiver_id FROM direct_messages WHERE id IN ({})", rows.sql());
                    for row in rows.query(sql).fetch_all(&mut *connection).await? {
                        sides.sent |= row.try_get::<String, _>(0)? == name;
                        sides.received |= row.try_get::<String, _>(1)? == name;
                    }
                }
                Ok(sides)
            })
        });
        read.await
    }

    /// Messages that a user has sent or received, the newest first. `None`: the user has no message that they are to be before.
    pub async fn direct_messages(
        &self,
        user: &UserId,
        of: &Of,
        page: DirectPage,
    ) -> Result<Option<Vec<DirectMessage>>, Error> {
        let (sql, user, key) = (list_sql(of), user.clone(), of.key().to_owned());
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let place = |message: &DirectMessage| (message.created_at_ms, message.id.to_string());
                let Some((at, id)) = place_before(connection, &user, page.before, place).await? else {
                    return Ok(None);
                };
                let (limit, offset) = (i64::from(page.limit), i64::from(page.offset));
                let query = statement(sql).bind(user.to_string()).bind(key).bind(at).bind(id);
                let query = query.bind(limit + offset).bind(limit).bind(offset);
                query.fetch_all(connection).await.map(Some)
            })
        });
        read.await?.map(|rows| rows.iter().map(message).collect()).transpose()
    }

    /// A user's conversations, the one with the newest message first. `None`: as above.
    pub async fn conversations(
        &self,
        user: &UserId,
        limit: u32,
        before: Before,
    ) -> Result<Option<Vec<Conversation>>, Error> {
        let user = user.clone();
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let own = user.clone();
                let place = move |message: &DirectMessage| {
                    (message.created_at_ms, message.peer_of(&own).map(ToString::to_string).unwrap_or_default())
                };
                let Some((at, peer)) = place_before(connection, &user, before, place).await? else {
                    return Ok(None);
                };
                let query = statement(conversations_sql()).bind(user.to_string()).bind(at).bind(peer);
                query.bind(i64::from(limit)).fetch_all(connection).await.map(Some)
            })
        });
        let conversation = |row: &AnyRow| {
            let peer = user_id(&row.try_get::<String, _>(9)?)?;
            Ok(Conversation { peer, last: message(row)?, unread: row.try_get::<i64, _>(10)?.cast_unsigned() })
        };
        read.await?.map(|rows| rows.iter().map(conversation).collect()).transpose()
    }

    /// How many direct messages a user has not read.
    pub async fn count_unread_direct(&self, user: &UserId) -> Result<u64, Error> {
        let user = user.to_string();
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move { sqlx::query(UNREAD).bind(user).fetch_one(connection).await })
        });
        Ok(read.await?.try_get::<i64, _>(0)?.cast_unsigned())
    }
}

pub(super) const UNREAD: &str = "SELECT CAST(COALESCE(SUM(unread), 0) AS BIGINT) FROM conversations WHERE user_id = $1";

impl Of {
    fn key(&self) -> &str {
        match self {
            Self::Peer(user) => user.as_str(),
            Self::Transaction(id) | Self::Listing(id) => id,
        }
    }
}

/// Two ranges of an index, what the user `$1` has sent and what they have received, each in its order: no more is read than the page takes.
pub(super) fn list_sql(of: &Of) -> String {
    let conditions = match of {
        Of::Peer(_) => ["sender_id = $1 AND receiver_id = $2", "sender_id = $2 AND receiver_id = $1"],
        Of::Transaction(_) => ["sender_id = $1 AND transaction_id = $2", "receiver_id = $1 AND transaction_id = $2"],
        Of::Listing(_) => ["sender_id = $1 AND listing_id = $2", "receiver_id = $1 AND listing_id = $2"],
    };
    let ranges = conditions.map(|condition| {
        format!(
            "SELECT * FROM (SELECT {COLUMNS} FROM direct_messages WHERE {condition} AND (created_at, id) < ($3, $4) \
             ORDER BY created_at DESC, id DESC LIMIT $5) AS one_way"
        )
    });
    format!(
        "SELECT * FROM ({}) AS both_ways ORDER BY created_at DESC, id DESC LIMIT $6 OFFSET $7",
        ranges.join(" UNION ALL ")
    )
}

pub(super) fn conversations_sql() -> String {
    let columns = COLUMNS.replace(", ", ", direct_messages.");
    format!(
        "SELECT direct_messages.{columns}, conversations.peer_id, conversations.unread FROM conversations \
         JOIN direct_messages ON direct_messages.id = conversations.last_id \
         WHERE conversations.user_id = $1 AND (conversations.last_at, conversations.peer_id) < ($2, $3) \
         ORDER BY conversations.last_at DESC, conversations.peer_id DESC LIMIT $4"
    )
}

pub(super) async fn by_id(connection: &mut AnyConnection, id: MessageId) -> sqlx::Result<Option<AnyRow>> {
    let sql = format!("SELECT {COLUMNS} FROM direct_messages WHERE id = $1");
    statement(sql).bind(id.to_string()).fetch_optional(connection).await
}

/// Where a page begins. `None`: the user is no side of the message.
async fn place_before(
    connection: &mut AnyConnection,
    user: &UserId,
    before: Before,
    place: impl Fn(&DirectMessage) -> Place,
) -> sqlx::Result<Option<Place>> {
    let id = match before {
        Before::Now => return Ok(Some((i64::MAX, String::new()))),
        Before::Time(at) => return Ok(Some((at, String::new()))),
        Before::Message(id) => id,
    };
    let row = by_id(connection, id).await?;
    let message = row.as_ref().and_then(|row| message(row).ok());
    Ok(message.filter(|message| message.peer_of(user).is_some()).map(|message| place(&message)))
}

pub(super) fn message(row: &AnyRow) -> Result<DirectMessage, Error> {
    let text = |column: usize| row.try_get::<String, _>(column);
    let named = |column: usize| Ok::<_, Error>(row.try_get::<Option<String>, _>(column)?.map(Into::into));
    Ok(DirectMessage {
        id: text(0)?.parse().map_err(|_| Error::Broken("a message id that is none"))?,
        sender: user_id(&text(1)?)?,
        receiver: user_id(&text(2)?)?,
        content: text(3)?.into(),
        topic: Topic { transaction: named(4)?, listing: named(5)? },
        is_read: row.try_get::<i64, _>(6)? != 0,
        created_at_ms: row.try_get(7)?,
        updated_at_ms: row.try_get(8)?,
    })
}

pub(super) fn user_id(text: &str) -> Result<UserId, Error> {
    UserId::new(text).map_err(|_| Error::Broken("a user id that is none"))
}
