//! The behaviour tests of `tests/it` over three nodes that share a Redis: each call goes through any node, each device connects to any. And what
//! several nodes alone can do.
//!
//! Left out of the tests for callers and devices:
//! - `watermark`: it is about one process's store.
//! - `rates`, `websocket_gate`, and the limits of `devices`: those limits hold for each node.
//! - `audit`, `logs`, `operations`, `stopping`: they are about one process.

#[allow(dead_code, unused_imports, reason = "the same as in tests/it, where the rest is used")]
#[path = "../it/harness/mod.rs"]
mod harness;

/// How many nodes a server has.
const NODES: usize = 3;

#[path = "../it/emits.rs"]
mod emits;

#[path = "../it/emit_options.rs"]
mod emit_options;

#[path = "../it/emit_batch.rs"]
mod emit_batch;

#[path = "../it/emit_stream.rs"]
mod emit_stream;

#[path = "../it/fan_out.rs"]
mod fan_out;

#[path = "../it/acks.rs"]
mod acks;

#[path = "../it/acks_together.rs"]
mod acks_together;

#[path = "../it/idempotency.rs"]
mod idempotency;

#[path = "../it/collapse.rs"]
mod collapse;

#[path = "../it/envelopes.rs"]
mod envelopes;

#[path = "../it/retained.rs"]
mod retained;

#[path = "../it/presence.rs"]
mod presence;

#[path = "../it/rooms.rs"]
mod rooms;

#[path = "../it/room_reasons.rs"]
mod room_reasons;

#[path = "../it/disconnect_user.rs"]
mod disconnect_user;

#[path = "../it/client_events.rs"]
mod client_events;

#[path = "../it/websocket.rs"]
mod websocket;

#[path = "../it/websocket_closing.rs"]
mod websocket_closing;

#[path = "../it/stored.rs"]
mod stored;

#[path = "../it/resume.rs"]
mod resume;

#[path = "../it/messages.rs"]
mod messages;

#[path = "../it/given.rs"]
mod given;

#[path = "../it/message_flapping.rs"]
mod message_flapping;

#[path = "../it/message_rights.rs"]
mod message_rights;

#[path = "../it/mailbox.rs"]
mod mailbox;

#[path = "../it/messages_grpc.rs"]
mod messages_grpc;

#[path = "../it/messages_grpc_erasure.rs"]
mod messages_grpc_erasure;

#[path = "../it/messages_grpc_rights.rs"]
mod messages_grpc_rights;

#[path = "../it/notifications.rs"]
mod notifications;

#[path = "../it/interleavings.rs"]
mod interleavings;

mod stored_across;

mod histories;

mod history_holes;

mod limits;

mod engines;

mod links;

mod tls;

mod collapsing;

mod retaining;

mod leases;

mod no_memory;

mod engine_away;

mod stopped;

#[allow(dead_code, unused_imports, reason = "the bench of faults looks at times, too")]
mod scene;

mod repeating;

mod faults;
