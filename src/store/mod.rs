//! What outlives a process: mailboxes, the messages in them, and what users have read. All SQL is here.
//!
//! A mailbox is a room's sequence of messages, numbered from 1 without gaps as they are kept. Writers do not write by themselves: what
//! they ask for at one time goes into one transaction.

mod config;
pub use config::Config;

mod error;
pub use error::Error;

mod message;
pub use message::{IdempotencyKey, Mailbox, NewMessage};

mod database;

mod append;
pub use append::Appended;

mod writer;

mod read;

mod lookups;

mod unread;
pub use unread::Which;

mod list;
pub use list::{Listed, Reader, Window};

mod count;

mod delete;

mod watermarks;
pub use watermarks::{Incarnation, Undelivered, WatermarkReports};

mod retention;

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::{database::Database, lookups::Lookups, watermarks::Watermarks, writer::Request};
use crate::clock::Clock;
use crate::lifecycle::Lifecycle;
use crate::message::Position;

/// The mailboxes of all rooms. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    writer: mpsc::Sender<Request>,
    lookups: Lookups,
    watermarks: Watermarks,
    clock: Clock,
    config: Config,
    closed: CancellationToken,
}

/// How many rooms' messages wait for the writer before those who bring more must wait, too.
const QUEUE: usize = 4_096;
/// How often a database that does not answer is asked again.
const PROBE_AGAIN: Duration = Duration::from_millis(500);
/// How often one is that does.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

impl Store {
    /// Opens the store. A database that cannot be reached now is tried again until it can: meanwhile all is refused as unavailable.
    pub fn open(config: &Config, clock: Clock, lifecycle: &Lifecycle) -> Result<Self, Error> {
        let database = Database::new(config)?;
        let closed = CancellationToken::new();
        let (writer, requests) = mpsc::channel(QUEUE);
        lifecycle.spawn_vital("store writer", writer::run(database.clone(), requests, closed.clone()));
        let lookups = Lookups::start(database.clone(), lifecycle, closed.clone());
        let store = Self {
            inner: Arc::new(Inner {
                database,
                writer,
                lookups,
                watermarks: Watermarks::default(),
                clock,
                config: config.clone(),
                closed,
            }),
        };
        lifecycle.spawn_vital("store retention", retention::run(store.clone()));
        lifecycle.spawn_vital("store watermarks", watermarks::run(store.clone()));
        lifecycle.spawn_vital("store probe", store.clone().probe_loop());
        Ok(store)
    }

    /// Ends its tasks once they have written what they hold.
    pub fn close(&self) {
        self.inner.closed.cancel();
    }

    /// Whether messages can be kept, as far as is known. While they cannot, all is refused at once, and the database is asked again every
    /// half second.
    pub fn is_reachable(&self) -> bool {
        *self.reachable().borrow()
    }

    /// Tells when the database can be reached again.
    pub fn reachable(&self) -> watch::Receiver<bool> {
        self.inner.database.reachable()
    }

    /// The place with this number.
    pub async fn position(&self, number: u64) -> Result<Position, Error> {
        Ok(Position::new(self.inner.database.epoch().await?, number))
    }

    /// The place with this number. `None`: the database has not been reached yet.
    pub fn known_position(&self, number: u64) -> Option<Position> {
        Some(Position::new(self.inner.database.known_epoch()?, number))
    }

    async fn probe_loop(self) {
        let probing = async {
            loop {
                let was_reachable = self.is_reachable();
                tokio::time::sleep(if was_reachable { PROBE_INTERVAL } else { PROBE_AGAIN }).await;
                match self.inner.database.probe().await {
                    Ok(()) if !was_reachable => tracing::info!("the store can be reached again"),
                    Err(error) if was_reachable => {
                        tracing::warn!(%error, error.cause = error.cause(), "the store is out of reach");
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        };
        tokio::select! {
            () = probing => {}
            () = self.inner.closed.cancelled() => {}
        }
    }

    fn now_ms(&self) -> i64 {
        self.inner.clock.now().as_millisecond()
    }
}
