//! What the devices of each user have proven of the user's own mailbox: one watermark W a user, kept in memory while something is in flight,
//! and written to the database each second.
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
//!            a report moves W or          written each second
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
//! # Invariants
//!
//! - Each message up to W is proven, settled, skipped, or gone.
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

mod writing;
pub(super) use writing::run;

use parking_lot::Mutex;

use self::users::Users;

/// The watermarks of all users, as far as the database does not hold them.
#[derive(Default)]
pub(super) struct Watermarks {
    users: Mutex<Users>,
    /// Held while watermarks or skipped messages are written.
    writing: tokio::sync::Mutex<()>,
}

impl Watermarks {
    /// Forgets what is known of all users, and ignores reports about what was sent before: the database has lost messages, so that their
    /// numbers are given to others.
    pub(super) fn forget_all(&self) {
        let forgotten = self.users.lock().forget_all();
        // 100,000 users take milliseconds to drop: not under the mutex.
        drop(forgotten);
    }

    fn incarnation(&self) -> Incarnation {
        self.users.lock().incarnation()
    }
}
