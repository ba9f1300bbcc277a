//! From an emit to a receipt; who is in which room; who is connected. What concerns this node alone is the hub's, what
//! is shared with others `state`'s, and here the two meet.
//!
//! An emit is *accepted* (deduplicated, appended to its room's log) and then *executed* (the room is locked, the frame fanned out, and what
//! became of it counted).

mod config;
pub use config::{CollapseConfig, HistoryConfig, RetainConfig, RoomConfig, RoomHistory};

mod node;
pub use node::{Delivery, Deps};

mod sweeps;

mod idempotency_key;
pub use idempotency_key::IdempotencyKey;

mod accepted;
pub use accepted::{EmitError, Place, Published, Publishing};

mod publish;

mod ask;

mod across;

mod laned;

mod frame_lanes;

mod direct_append;

mod sendings;
pub use sendings::{DirectAnswer, SendingConnection};

mod direct;
pub use direct::DirectEmit;

mod fills;

mod faulty_logs;
mod fill;

mod stored_frames;

mod stored_across;

mod wakes;

mod waking;

mod polling;

mod history_heads;

mod kept_frames;

mod history_fill;

mod histories_across;

mod receive;

mod nodes;

mod execute;

mod envelope;

mod acks;

mod acks_across;

mod gathered_acks;
pub use acks::PendingAcks;

mod collapse_windows;

mod collapse;

mod collapsing;

mod collapse_across;

mod retained_changes;

mod retained;

mod late;

mod log_lanes;

mod log_lane;

mod proof;

mod unread;
pub use unread::Deletion;

mod unread_across;
mod untold_counts;

mod presence;

mod memberships;

mod rooms_across;

mod grants;
pub use grants::Granted;

mod rights;

mod rooms;

mod resume;
pub use resume::Resume;

mod resumed;

mod catch_up;

mod missed;

mod log_reads;

mod page_entry;

mod replay;

mod replay_start;

mod replay_reports;

mod gap;

mod overload;

mod ready_deadlines;

mod devices;
pub use devices::Admission;

// What goes through delivery unchanged.
pub use crate::cluster::{BusError, StartError};
pub use crate::hub::Connection;
pub use crate::state::{PutError, RetainedValue, TooMany};

#[cfg(test)]
mod broken;

#[cfg(test)]
pub(crate) mod tests;
