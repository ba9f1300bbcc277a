//! What nodes share, and a node that is alone keeps in memory: idempotency keys, histories, retained values, memberships and grants.

mod shares;

mod idempotency;
pub use idempotency::{Claim, Claimed, FirstEmit, Idempotency, KeyReused, RequestHash, Scope};

mod executed;
pub use executed::Executed;

mod history;
pub use history::{History, HistoryRule, NewEntry};

mod retained;
pub use retained::{Retained, RetainedFull, Value as RetainedValue};

mod user_rooms;
pub use user_rooms::{TooMany, UserRooms};

mod keys;

mod shared_user_rooms;
pub use shared_user_rooms::{PutError, SharedUserRooms};

mod shared_claim;
pub use shared_claim::SharedClaim;

mod shared_idempotency;
pub use shared_idempotency::{FirstElsewhere, SharedClaimed, SharedIdempotency};

mod shared_retained;
pub use shared_retained::{EmitCall, RetainedPut, SharedRetained, SharedValue};

mod shared_history;
pub use shared_history::{NewMessage, Page, SharedHistory};

mod shared_collapse;
pub use shared_collapse::{NotPublished, SharedCollapse};

#[cfg(test)]
mod tests;
