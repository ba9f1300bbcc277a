//! The gateway as its callers see it: backends over gRPC, devices over Socket.IO and plain WebSocket.

#[allow(dead_code, unused_imports, reason = "the tests that use the rest come with the server")]
mod harness;

/// How many nodes a server has. `tests/cluster` runs some of these tests with more.
const NODES: usize = 1;

mod devices;

mod engineio;
mod hostile_devices;
mod rfc6455;
mod strangers;

mod logs;

mod audit;

mod main_job;

mod emits;

mod emit_options;

mod idempotency;

mod acks;
mod acks_together;

mod emit_batch;

mod emit_stream;

mod disconnect_user;

mod presence;

mod storm;

mod far_store;

mod deletions;
mod shared_watermarks;
mod watermark;

mod fan_out;

mod bad_bytes;

mod operations;

mod bad_calls;

mod cancelled_calls;

mod bad_fields;

mod room_reasons;
mod rooms;

mod api_keys;

mod services;

mod stopping;
mod stopping_in_faults;
#[allow(dead_code, reason = "the bench of the gateway has the list of all")]
mod stops;

mod websocket;
mod websocket_closing;
mod websocket_gate;

mod retained;

mod collapse;

mod client_events;

mod envelopes;

mod rates;

mod compression;

mod console;

mod processes;

mod private_files;

mod shared_epochs;
mod shared_store;
mod standby;
mod store;
mod store_faults;
mod store_logs;
mod store_process;
mod store_reads;
mod store_tls;

mod stored;

mod unreadable_log;

mod resume;

mod interleavings;

mod slow_store;

mod crash;

mod bench;

mod direct_model;
mod direct_plans;
mod direct_store;

mod given;
mod mailbox;
mod mailbox_refusals;
mod message_flapping;
mod message_rights;
mod messages;
mod messages_grpc;
mod messages_grpc_erasure;
mod messages_grpc_rights;
mod notifications;
