//! This node among its peers, and what is shared among them. There are no peers yet: what would be shared is in memory.

mod idempotency;
pub use idempotency::{Fingerprint, Idempotency, KeyReused, Scope};

mod history;
pub use history::{History, HistoryRule, NewEntry};

mod retained;
pub use retained::{Retained, RetainedFull, Value as RetainedValue};

mod user_rooms;
pub use user_rooms::{TooMany, UserRooms};
