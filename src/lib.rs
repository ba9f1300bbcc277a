//! Bugle delivers what backends say over gRPC to every device of a user over Socket.IO, or plain WebSocket.

pub mod app;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
pub mod delivery;
pub mod grpc;
pub mod http;
pub mod hub;
pub mod lifecycle;
pub mod limits;
pub mod listener;
pub mod message;
pub mod proto;
pub mod socketio;
pub mod telemetry;
pub mod websocket;
