//! What outlives a process: mailboxes, the messages in them, and what users have read. All SQL is here.
//!
//! A mailbox is a room's sequence of messages, numbered from 1 without gaps. One task of a process writes, see `writer.rs`: emits first, then all else,
//! in one transaction, or emits and changes in transactions of their own if nodes share the database, see `writing.rs`. One process holds the store,
//! see `lease.rs`, or the nodes of a cluster do, see `shared_lease.rs`, and positions carry the epoch in which they were given, see `epochs.rs`.
//!
//! Statements are texts that both databases understand, but for rows of parameters, see `rows.rs`. The library's checked statements need a
//! database of each kind when Bugle is compiled, or generated files in the repository, and cannot have a varying number of rows. Instead
//! `tests/it` runs every statement on both databases.

mod paths;

mod address;

mod sharing;
pub use sharing::Sharing;

mod config;
pub use config::{Config, is_secret_url};

mod error;
pub use error::Error;

mod message;
pub use message::{IdempotencyKey, Mailbox, NewMessage};

mod status;
pub use status::Status;

mod byte_lock;

mod remote_time;

mod file_lock;

mod source;

mod deadlines;

mod readers;

mod epochs;

mod lease;

mod shared_lease;

mod schema;

mod database;

mod rows;

mod append;
pub use append::Appended;

mod marks;

mod changes;

mod batch;

mod failure;

mod files;

mod probe;

mod begun;

mod session;
mod set_aside;

mod writing;

mod writer;

mod new_epoch;
pub use new_epoch::{NewEpochError, begin_new_epoch};

mod read;

mod lookups;

mod heads;
pub use heads::{COMMITTED_WITHIN, Recent, STORED_WITHIN};

mod unread;
pub use unread::Which;

mod list;
pub use list::{Listed, Reader, Window};

mod pages;
pub use pages::{Page, Pages};

mod count;

mod delete;

mod direct;
pub use direct::{
    Before, Conversation, DirectPage, DirectRefusal, DirectRetention, NewDirect, Of, ReadOutcome, Render, Rule, Sides,
};

mod watermarks;
pub use watermarks::{Incarnation, Undelivered, WatermarkReports};

mod steady_clock;

mod retention;

#[cfg(test)]
pub(crate) mod broken;

#[cfg(test)]
pub(crate) mod model;

#[cfg(test)]
mod stalled;

#[cfg(test)]
mod sweeps;

use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::{database::Database, lookups::Lookups, steady_clock::SteadyClock, watermarks::Watermarks};
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
    lookups: Lookups,
    /// Pages that are read at one time.
    page_turns: Semaphore,
    watermarks: Watermarks,
    config: Config,
    /// Serializes sweeps. The clock is that of the periodic one.
    sweeps: Mutex<SteadyClock>,
    closed: CancellationToken,
    #[cfg(test)]
    model: Option<model::Link>,
}

impl Store {
    /// Opens the store. A database that cannot be reached now is tried again until it can: meanwhile all is refused as unavailable.
    /// `sharing`: whether other nodes write to it, too.
    pub fn open(config: &Config, sharing: Sharing, clock: Clock, lifecycle: &Lifecycle) -> Result<Self, Error> {
        Self::open_for(config, sharing, None, clock, lifecycle)
    }

    /// The same, with or without tables for direct messages.
    pub fn open_for(
        config: &Config,
        sharing: Sharing,
        direct: Option<DirectRetention>,
        clock: Clock,
        lifecycle: &Lifecycle,
    ) -> Result<Self, Error> {
        let (closed, is_shared) = (CancellationToken::new(), sharing == Sharing::Cluster);
        let database = Database::start(config, sharing, direct, clock, lifecycle)?;
        let lookups = Lookups::start(database.clone(), lifecycle, closed.clone());
        // More would wait for a connection, and could not be joined any more.
        let page_turns = Semaphore::new(database.parts().readers.max());
        let store = Self {
            inner: Arc::new(Inner {
                database,
                lookups,
                page_turns,
                watermarks: Watermarks::new(is_shared),
                config: config.clone(),
                sweeps: Mutex::default(),
                closed,
                #[cfg(test)]
                model: None,
            }),
        };
        let inner = Arc::downgrade(&store.inner);
        store.on_new_epoch(move || {
            if let Some(inner) = inner.upgrade() {
                inner.watermarks.forget_all();
            }
        });
        lifecycle.spawn_vital("store retention", retention::run(store.clone()));
        lifecycle.spawn_vital("store watermarks", watermarks::run(store.clone()));
        if is_shared {
            lifecycle.spawn_vital("store first resumes", watermarks::run_first_resumes(store.clone()));
        }
        Ok(store)
    }

    /// Ends its tasks once they have written what they hold, and lets another process use the database.
    pub fn close(&self) {
        self.inner.database.deadlines().close();
        self.inner.closed.cancel();
    }

    /// How the store stands, as far as is known. While messages cannot be stored, all is refused at once, and the database is asked again every
    /// 400 ms.
    pub fn status(&self) -> Status {
        self.inner.database.status()
    }

    /// Tells when the status changes.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.inner.database.parts().statuses.watch()
    }

    /// Waits until the store can be read, or is closed: then the next read says so.
    pub async fn reached(&self) {
        let mut status = self.watch_status();
        tokio::select! {
            _ = status.wait_for(|status| status.can_read()) => {}
            () = self.inner.closed.cancelled() => {}
        }
    }

    /// Whether it was closed: nothing more is read.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.is_cancelled()
    }

    /// Has `forget` called whenever the database turns out to have lost what was committed, before anything else is stored: what was known
    /// of it is wrong then. `forget` must not wait.
    pub fn on_new_epoch(&self, forget: impl Fn() + Send + 'static) {
        self.inner.database.parts().on_new_epoch.lock().push(Box::new(forget));
    }

    /// The place with this number.
    pub async fn position(&self, number: u64) -> Result<Position, Error> {
        Ok(Position::new(self.inner.database.epoch().await?, number))
    }

    /// The epoch of what is stored now. `None`: the database has not been reached yet.
    pub fn epoch(&self) -> Option<Arc<str>> {
        self.inner.database.parts().epochs.current()
    }

    /// Whether positions of this epoch may be of this store.
    pub fn knows(&self, epoch: &str) -> bool {
        self.inner.database.parts().epochs.number(epoch).is_some()
    }

    fn now_ms(&self) -> i64 {
        self.inner.database.now_ms()
    }
}
