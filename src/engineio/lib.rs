#![doc = include_str!("README.md")]

pub mod config;

mod reason;

pub mod handler;

pub mod frame;

pub mod payload;

mod reply;

mod request;

mod timers;

mod polling;

pub mod session;

mod send;

mod heartbeat;

mod receive;

pub mod socket;

pub mod engine;

mod poll;

mod post;

mod websocket;

mod probe;

mod response;

pub mod service;

pub use engineioxide_core::{ProtocolVersion, Sid, Str, TransportType};
pub use socket::{DisconnectReason, Socket};

#[cfg(test)]
mod model;
