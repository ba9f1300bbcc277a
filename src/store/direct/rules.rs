use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use sqlx::{AnyConnection, Row};

use super::{
    super::{
        Error, NewMessage, Store,
        rows::{Rows, parts, statement},
    },
    DirectRefusal, NewDirect,
};
use crate::message::UserId;

/// Users whom one user may block.
const MAX_BLOCKED: i64 = 10_000;

/// What decides whether users may write to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The user has blocked the peer, or has not any more.
    Blocked(bool),
    /// A backend allows the two a conversation for this time; none: not any more. It is a rule of both.
    Granted(Option<Duration>),
}

#[derive(Clone, Copy, Default)]
struct Known {
    is_blocked: bool,
    granted_until: i64,
}

type Side = (UserId, UserId);

impl Store {
    /// Sets a rule of a user about a peer. False if the user has blocked 10,000 others.
    pub async fn set_rule(&self, user: &UserId, peer: &UserId, rule: Rule) -> Result<bool, Error> {
        let mut sides = vec![(user.clone(), peer.clone())];
        let (column, value) = match rule {
            Rule::Blocked(is_blocked) => ("blocked", i64::from(is_blocked)),
            Rule::Granted(ttl) => {
                sides.push((peer.clone(), user.clone()));
                // Rows are locked in one order.
                sides.sort();
                let ms = |ttl: Duration| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
                ("granted_until", ttl.map_or(0, |ttl| self.now_ms().saturating_add(ms(ttl))))
            }
        };
        let is_block = rule == Rule::Blocked(true);
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                if is_block && count_blocked(connection, &sides[0]).await? >= MAX_BLOCKED {
                    return Ok(false);
                }
                let sql = format!(
                    "INSERT INTO conversation_rules (user_id, peer_id, {column}) VALUES ($1, $2, $3) \
                     ON CONFLICT (user_id, peer_id) DO UPDATE SET {column} = excluded.{column}"
                );
                for (user, peer) in &sides {
                    let query = statement(sql.clone()).bind(user.to_string()).bind(peer.to_string()).bind(value);
                    query.execute(&mut *connection).await?;
                    let sql = "DELETE FROM conversation_rules WHERE user_id = $1 AND peer_id = $2 AND blocked = 0 AND granted_until = 0";
                    sqlx::query(sql).bind(user.to_string()).bind(peer.to_string()).execute(&mut *connection).await?;
                }
                Ok(true)
            })
        });
        write.await
    }

    /// Whom a user has blocked, by id.
    pub async fn blocked_by(&self, user: &UserId) -> Result<Vec<UserId>, Error> {
        let user = user.to_string();
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let sql =
                    "SELECT peer_id FROM conversation_rules WHERE user_id = $1 AND blocked = 1 ORDER BY peer_id LIMIT $2";
                sqlx::query(sql).bind(user).bind(MAX_BLOCKED).fetch_all(connection).await
            })
        });
        let users = read.await?.iter().map(|row| row.try_get::<String, _>(0)).collect::<sqlx::Result<Vec<_>>>()?;
        Ok(users.iter().filter_map(|user| UserId::new(user).ok()).collect())
    }

    /// Why one user may not write to another one now, if so. `needs_grant`: only if a backend allows it.
    pub async fn direct_refusal(
        &self,
        sender: &UserId,
        receiver: &UserId,
        needs_grant: bool,
    ) -> Result<Option<DirectRefusal>, Error> {
        let (sides, now_ms) = ([(sender.clone(), receiver.clone()), (receiver.clone(), sender.clone())], self.now_ms());
        let (sender, receiver) = (sender.clone(), receiver.clone());
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let known = known(connection, &sides.into_iter().collect()).await?;
                Ok(refusal(&known, (&sender, &receiver), needs_grant, now_ms))
            })
        });
        read.await
    }
}

/// How many others than the peer the user has blocked.
async fn count_blocked(connection: &mut AnyConnection, (user, peer): &Side) -> sqlx::Result<i64> {
    let sql = "SELECT COUNT(*) FROM conversation_rules WHERE user_id = $1 AND peer_id <> $2 AND blocked = 1";
    sqlx::query(sql).bind(user.to_string()).bind(peer.to_string()).fetch_one(connection).await?.try_get(0)
}

/// The refusals among these messages, by index.
pub(in crate::store) async fn refused(
    connection: &mut AnyConnection,
    now_ms: i64,
    messages: &[NewMessage],
) -> sqlx::Result<HashMap<usize, DirectRefusal>> {
    let directs: Vec<(usize, &NewDirect)> =
        messages.iter().enumerate().filter_map(|(index, new)| Some((index, new.direct.as_deref()?))).collect();
    let side = |a: &UserId, b: &UserId| (a.clone(), b.clone());
    let sides: BTreeSet<Side> = directs
        .iter()
        .flat_map(|(_, new)| [side(&new.sender, &new.receiver), side(&new.receiver, &new.sender)])
        .collect();
    if sides.is_empty() {
        return Ok(HashMap::new());
    }
    let known = known(connection, &sides).await?;
    let refused = directs.into_iter().filter_map(|(index, new)| {
        Some((index, refusal(&known, (&new.sender, &new.receiver), new.needs_grant, now_ms)?))
    });
    Ok(refused.collect())
}

fn refusal(
    known: &HashMap<Side, Known>,
    (sender, receiver): (&UserId, &UserId),
    needs_grant: bool,
    now_ms: i64,
) -> Option<DirectRefusal> {
    let of = |user: &UserId, peer: &UserId| known.get(&(user.clone(), peer.clone())).copied().unwrap_or_default();
    let (own, others) = (of(sender, receiver), of(receiver, sender));
    match () {
        () if others.is_blocked => Some(DirectRefusal::Blocked),
        () if own.is_blocked => Some(DirectRefusal::HasBlocked),
        () if needs_grant && own.granted_until <= now_ms => Some(DirectRefusal::NotGranted),
        () => None,
    }
}

async fn known(connection: &mut AnyConnection, sides: &BTreeSet<Side>) -> sqlx::Result<HashMap<Side, Known>> {
    let (all, mut known) = (sides.iter().collect::<Vec<_>>(), HashMap::new());
    for part in parts(connection, all.len()) {
        let keys = all[part].iter().map(|(user, peer)| [user.as_str().into(), peer.as_str().into()]);
        let rows = Rows::new(connection, keys)?;
        let sql = format!(
            "SELECT user_id, peer_id, blocked, granted_until FROM conversation_rules WHERE (user_id, peer_id) IN ({})",
            rows.sql()
        );
        for row in rows.query(sql).fetch_all(&mut *connection).await? {
            let (user, peer): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            if let (Ok(user), Ok(peer)) = (UserId::new(&user), UserId::new(&peer)) {
                let is_blocked = row.try_get::<i64, _>(2)? != 0;
                known.insert((user, peer), Known { is_blocked, granted_until: row.try_get(3)? });
            }
        }
    }
    Ok(known)
}
