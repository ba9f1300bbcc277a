//! What nodes share, and a node that is alone keeps in memory: idempotency keys, histories, retained values, memberships and grants.

mod shares;

mod idempotency;
pub use idempotency::{Claim, Claimed, FirstEmit, Idempotency, KeyReused, RequestHash, Scope};

mod history;
pub use history::{History, HistoryRule, NewEntry};

mod retained;
pub use retained::{Retained, RetainedFull, Value as RetainedValue};

mod user_rooms;
pub use user_rooms::{TooMany, UserRooms};
