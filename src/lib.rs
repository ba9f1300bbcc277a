//! Bugle delivers what backends say over gRPC to every device of a user over Socket.IO.

pub mod auth;
pub mod clock;
pub mod grpc;
pub mod http;
pub mod lifecycle;
pub mod limits;
pub mod listener;
pub mod message;
pub mod proto;
pub mod socketio;
pub mod telemetry;
