//! What the devices of each user have proven of the user's own mailbox: one watermark W a user, kept in memory while something is in flight,
//! and written to the database each second, or every 250 ms if several nodes share it.
//!
//! # A message of a user's own mailbox
//!
//! ```text
//!                   note_in_flight                        note_proven
//!  ┌─────────────┐ ───────────────▶ ┌───────────────────┐ ───────────▶ ┌────────┐
//!  │ undelivered │                  │     in flight     │              │ proven │
//!  │    n > W    │ ◀─────────────── │ to ≥ 1 connection │ ◀──────┐     │ n ≤ W  │
//!  └─────────────┘  note_lost, by   └───────────────────┘        │     └────────┘
//!    │    │         the last one      │                          │          ▲
//!    │    │                           │ W passes it: a later     │          │
//!    │    │                           │ one is proven first; or  │          │
//!    │    │                           │ note_lost by the last,   │          │
//!    │    │                           │ and a live connection    │          │
//!    │    │                           ▼ was not sent it          │          │
//!    │    │ note_skipped, skip_to   ┌─────────┐  note_in_flight  │          │
//!    │    └───────────────────────▶ │ skipped │ ─────────────────┘          │
//!    │                              └─────────┘  (stays noted as skipped    │
//!    │                                            until it is proven)       │
//!    └──────────────────────────────────────────────────────────────────────┘
//!      note_settled: it is not for the user, is gone, or the device has seen it
//! ```
//!
//! A device that does not resume is given what is skipped, and then what is undelivered.
//!
//! # A user
//!
//! ```text
//!            a report moves W or          written periodically
//!  ┌──────┐  notes a skip or a proof ┌───────┐ ───────────▶ ┌──────┐
//!  │ idle │ ───────────────────────▶ │ dirty │              │ idle │  (forgotten once nothing is in flight)
//!  └──────┘                          └───────┘              └──────┘
//!     │                                  ▲
//!     │ begin_first_resume               │ 30 s without another
//!     │           ┌────────┐             │
//!     └─────────▶ │ frozen │ ────────────┘
//!                 └────────┘
//! ```
//!
//! A device that resumes for the first time has no position. If its connection breaks before it is told one, it has received messages that a
//! proof may have covered and that it cannot name. For the 30 s of the *first-resume grace* such devices of the user begin where the first of
//! them began, and W in the database stays where it is, so that the same is true after a crash.
//!
//! # Several nodes
//!
//! Nodes that share a database each know their own connections. A node merges what it knows into the user's rows, see `shared.rs`: under the lock of
//! the user's row in `delivered_marks` it adds skipped messages that W has not passed, raises W, and deletes what it knows to be proven. So what
//! a node holds as skipped is dropped if another node's device has proven it, and what another node has noted as skipped stays until a proof.
//! Each node writes all proofs, as it does not know what others note as skipped. What was proven on one node and is not written yet, for 250 ms
//! and as long as the transaction takes, may be given again by another one.
//!
//! The grace of first resumes is a row then, see `first_resumes.rs`, and does not hold W back: a device that resumes for the first time begins
//! at the row's position, where W stood in the database when the grace began.
//!
//! # Invariants
//!
//! - Each message up to W is proven, settled, skipped, or gone. That is so of W in the database with the skipped messages there, and of W in
//!   memory with those that are in the database or in memory.
//! - A proof is written with or after a W that is not before the message, or not at all: no other node adds the message as skipped after it was
//!   deleted. (In one process alone the grace holds W back, and what is added is known.)
//! - W in the database is at most W in memory. A transaction that writes W contains, or follows, the skipped messages up to it.
//! - What is skipped or cleared in memory and not in the database belongs to a dirty user.
//! - If the database has lost messages, all that is in memory is forgotten, and the *incarnation* changes: a report about a message of an
//!   earlier incarnation is ignored, as the number may belong to another message now.
//! - The mutex is held for one user, or for a bounded number of rows.

mod watermark;

mod users;
pub use users::Incarnation;

mod reports;
pub use reports::WatermarkReports;

mod undelivered;
pub use undelivered::Undelivered;

mod shared;

mod writing;
pub(super) use writing::run;

mod first_resumes;
pub(super) use first_resumes::run as run_first_resumes;

#[cfg(test)]
mod model;

use parking_lot::Mutex;
use tokio::time::Instant;

use self::{first_resumes::FirstResumes, users::Users};

/// The watermarks of all users, as far as the database does not hold them.
#[derive(Default)]
pub(super) struct Watermarks {
    /// Several nodes share the database.
    is_shared: bool,
    users: Mutex<Users>,
    /// Held while watermarks or skipped messages are written.
    writing: tokio::sync::Mutex<()>,
    /// Used if several nodes share the database.
    first_resumes: FirstResumes,
    /// When it was logged that something cannot be written of a user.
    logged: Mutex<Option<Instant>>,
}

impl Watermarks {
    /// `is_shared`: several nodes share the database.
    pub(super) fn new(is_shared: bool) -> Self {
        Self { is_shared, users: Mutex::new(Users::new(is_shared)), ..Self::default() }
    }

    /// Whether several nodes share the database.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Forgets what is known of all users, and ignores reports about what was sent before: the database has lost messages, so that their
    /// numbers are given to others.
    pub(super) fn forget_all(&self) {
        let forgotten = self.users.lock().forget_all();
        // 100,000 users take milliseconds to drop: not under the mutex.
        drop(forgotten);
    }

    /// Keeps what is written of watermarks waiting.
    #[cfg(test)]
    pub(super) async fn hold_writing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    fn incarnation(&self) -> Incarnation {
        self.users.lock().incarnation()
    }
}
