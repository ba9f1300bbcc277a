//! The process: delivery and the store, without edges.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{Connection, Executor};
use tokio::{
    task::yield_now,
    time::{Instant, advance},
};

use super::{
    device::{UNHEARD, room},
    oracle::{MAX_MESSAGES, NewMessage, TTL},
};
use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::{
    Delivery, Deps,
    tests::{deps, example},
};
use crate::lifecycle::Lifecycle;
use crate::message::{Audience, Emit, EventName, Exceptions, MessageId, Payload, RoomName, UserId};
use crate::store::{self, Appended, Sharing, Status, Store, Which};

pub(super) struct Server {
    pub(super) delivery: Delivery,
    pub(super) store: Store,
    lifecycle: Lifecycle,
    clock: Clock,
}

pub(super) fn user() -> UserId {
    UserId::new("42").unwrap()
}

/// Waits until something is so. The time of the test stands still meanwhile.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_mins(1), "waited in vain until {what}");
        yield_now().await;
    }
}

impl Server {
    pub(super) async fn start(path: &Path, clock: &Clock) -> Self {
        let (config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
        let of_store = store::Config {
            url: format!("sqlite:{}", path.display()).into(),
            max_messages: u32::try_from(MAX_MESSAGES).unwrap(),
            ..config.store.clone()
        };
        let store = Store::open(&of_store, Sharing::Single, clock.clone(), &lifecycle).unwrap();
        let deps = deps(&config, &lifecycle);
        let delivery = Delivery::new(Deps { store: Some(store.clone()), clock: clock.clone(), ..deps });
        until("the store was reached", || store.status() != Status::Opening).await;
        while store.status() != Status::Serving {
            // A connection of the process before may close its file still. The store tries again soon.
            advance(Duration::from_millis(500)).await;
            until("the store was reached again", || store.status() != Status::Opening).await;
        }
        store.sweep().await.unwrap();
        Self { delivery, store, lifecycle, clock: clock.clone() }
    }

    /// Nothing is written or reported any more.
    pub(super) async fn kill(self) {
        let Self { delivery, store, lifecycle, .. } = self;
        lifecycle.stop_hard();
        drop((delivery, store));
        lifecycle.ended().await;
    }

    /// Waits until tasks have done what they can do now.
    pub(super) async fn settle(&self) {
        for _ in 0..2 {
            for _ in 0..30 {
                yield_now().await;
            }
            // It is written after what waits for the writer.
            self.store.mark_read(&RoomName::new("marker").unwrap(), &user(), Which::UpTo(0)).await.unwrap();
        }
        for _ in 0..30 {
            yield_now().await;
        }
    }

    pub(super) async fn back_up(&self, from: &Path, to: &Path) {
        let options: sqlx::sqlite::SqliteConnectOptions = format!("sqlite:{}", from.display()).parse().unwrap();
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        let sql = format!("VACUUM INTO '{}'", to.display());
        connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Emits a message. Returns its id and its number.
    pub(super) async fn emit(&self, seq: u64, new: NewMessage) -> (MessageId, u64) {
        let emit = Emit {
            audience: Audience::of_room(room(new.room)),
            except: Exceptions { users: excepted(new), ..Exceptions::default() },
            event: event(new),
            payload: payload(seq),
            envelope: false,
            store: true,
            ttl: ttl(new),
            ..example("0")
        };
        let publishing = self.delivery.publish(&Arc::from("test"), emit, None, Instant::now());
        let (receipt, _) = publishing.done().await.unwrap();
        (receipt.message_id, receipt.position.unwrap().number)
    }

    /// Stores a message without publishing it.
    pub(super) async fn store(&self, seq: u64, new: NewMessage) -> (MessageId, u64) {
        let id = MessageId::at(self.clock.now());
        let message = store::NewMessage {
            room: room(new.room),
            id,
            event: event(new),
            payload: payload(seq),
            except_users: excepted(new),
            ttl: ttl(new),
            idempotency: None,
            direct: None,
        };
        let appended = self.store.append(vec![message]).await.unwrap().remove(0);
        let Appended::New { position, .. } = appended else { panic!("{appended:?}") };
        (id, position.number)
    }
}

pub(super) fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}

fn event(new: NewMessage) -> EventName {
    EventName::new(if new.is_unheard { UNHEARD } else { "e" }).unwrap()
}

fn payload(seq: u64) -> Payload {
    Payload::json(&seq.to_string()).unwrap()
}

fn ttl(new: NewMessage) -> Option<Duration> {
    new.has_ttl.then_some(Duration::from_secs(TTL))
}

fn excepted(new: NewMessage) -> Vec<UserId> {
    if new.is_excepted { vec![user()] } else { Vec::new() }
}
