use std::fmt;

use tokio::sync::watch;

/// Whether the store can be used, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was not reached yet.
    Opening,
    /// It answers, and messages can be stored.
    Serving,
    /// It can be read, but not written: the disk is full, or the database is read-only.
    Unwritable,
    /// It does not answer.
    Unreachable,
    /// Another process holds its lease.
    HeldByAnother,
    /// Its file was deleted or replaced, and none that can be used stands in its place.
    FileGone,
    /// A newer version of Bugle has changed its tables.
    NewerSchema,
}

impl Status {
    /// Whether messages can be read.
    pub fn can_read(self) -> bool {
        matches!(self, Self::Serving | Self::Unwritable)
    }

    /// Whether messages can be stored.
    pub fn can_write(self) -> bool {
        self == Self::Serving
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "the store was not reached yet (store.url)",
            Self::Serving => "the store can be written",
            Self::Unwritable => {
                "the store cannot be written, since its disk is full or it is read-only: emits with `store` are refused"
            }
            Self::Unreachable => "the store cannot be reached (store.url): emits with `store` are refused",
            Self::HeldByAnother => {
                "another process holds the store (store.url): this one waits until that one has stopped"
            }
            Self::FileGone => {
                "the file of the store was deleted or replaced: move it back, or restart to begin with an empty one"
            }
            Self::NewerSchema => "the tables of the store are of a newer version of Bugle: run that version",
        })
    }
}

/// The status, for those who wait for another one.
pub(super) struct Statuses(watch::Sender<Status>);

impl Statuses {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Status::Opening))
    }

    pub(super) fn get(&self) -> Status {
        *self.0.borrow()
    }

    /// Returns the status before.
    pub(super) fn set(&self, status: Status) -> Status {
        let mut before = status;
        self.0.send_if_modified(|known| {
            before = std::mem::replace(known, status);
            before != status
        });
        before
    }

    /// The status once the first attempt to reach the store has ended.
    pub(super) async fn settled(&self) -> Status {
        let mut status = self.watch();
        // The sender is kept here.
        status.wait_for(|status| *status != Status::Opening).await.map_or(Status::Unreachable, |status| *status)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }
}
