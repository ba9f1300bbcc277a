//! The edge for backends: `bugle.v1` over gRPC, with reflection and health.

mod guard;

mod incoming;

mod services;

mod status;

mod decode;

mod payload;

mod encode;

mod acks;

mod emit_stream;

mod notify;

mod presence;

mod rooms;

mod mailbox;

mod messages;

mod edge;
pub use edge::{Config, Deps, Edge, Error};
