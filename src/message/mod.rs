//! The words of the domain as types: who, where, what, and what became of it. No I/O, nothing asynchronous.

mod name;
pub use name::{EventName, Invalid, RoomName, UserId};

mod pattern;
pub use pattern::EventPattern;

mod room_pattern;
pub use room_pattern::RoomPattern;

mod id;
pub use id::{ConnectionId, MessageId};

mod position;
pub use position::Position;

mod log_entry;
pub use log_entry::LogEntry;

mod payload;
pub use payload::Payload;

mod emit;
pub use emit::{Audience, AudienceKind, Emit, Exceptions, bytes_of_users};

mod ack;
pub use ack::{Ack, AckMode, AckOutcome, AckRequest, Acks};

mod direct_message;
pub use direct_message::{DirectMessage, Topic};

mod receipt;
pub use receipt::Receipt;

mod closing;
pub use closing::{CloseCode, CloseReason};

mod page;
pub use page::{LARGEST_PAGE, Page, RoomUsers};

mod transport;
pub use transport::Transport;

mod fault;
pub use fault::Fault;

mod presence;
pub use presence::{ConnectionInfo, NodeStats, OfNodes, Stats};
