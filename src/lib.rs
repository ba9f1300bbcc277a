//! Bugle delivers what backends say over gRPC to every device of a user over Socket.IO, or plain WebSocket.
//!
//! ```text
//! backend ──gRPC──▶ command ──▶ delivery ──▶ hub ──▶ Socket.IO / WebSocket ──▶ device
//!                                  │  ▲ ▲
//!                                  ▼  │ └─ cluster (alone so far: in memory)
//!                             receipt └─── store (mailboxes, on disk)
//! ```
//!
//! A backend's call is decoded by the edge [`grpc`] into a command. [`command`] asks whether the caller may do that,
//! and within which limits. [`delivery`] takes the emit: an idempotency key that is known answers with the first
//! receipt; else the room's turn is taken, [`store`] keeps what is to be stored, and [`hub`] puts one shared frame into the queue of each connection in the
//! room. What became of it at each of them is counted, and goes back to the backend as the receipt. A device comes in
//! through the edge [`socketio`] or [`websocket`], which verifies its token, and is a member of its rooms in the hub until
//! its connection ends. What it sends is a command, too: it does what a rule of the configuration says, or nothing.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | backend | a service that calls gRPC, known by its API key |
//! | user | whoever a token names: an opaque string id |
//! | connection | one live Socket.IO socket or WebSocket of a user; a user has many (phone, tablet, tabs) |
//! | room | a named set of connections. `user:{id}` and `role:{role}` are joined on connect; `everyone` is a room too |
//! | event | a name (what the device listens for) with one payload: JSON, or bytes |
//! | audience | whom an emit is for: a user, users, a room, everyone |
//! | emit | one instruction to send an event to an audience |
//! | receipt | what became of an emit: matched, enqueued, dropped, stored, acknowledged |
//! | mailbox | the stored messages of one room (so of one user: `user:{id}`), numbered by position |
//! | position | a message's place in its room's sequence: the text `epoch.number`, opaque to devices |
//! | turn | the right to act on a room: whoever holds it stores, sends, or joins; one at a time, in order |
//! | node | one running `bugle serve` |
//!
//! These words stand in code, proto, logs, metrics and documentation, and no synonyms for them.
//!
//! # Modules
//!
//! | module | what it is for | imports of ours, besides the leaves |
//! |---|---|---|
//! | [`message`] | the words above as types; no I/O, no async | none |
//! | [`clock`], [`lifecycle`], [`telemetry`] | leaves: the time of day; tasks and stops; logs and metrics | none |
//! | [`memory`] | giving memory back to the system when many connections have ended | none |
//! | [`proto`] | the generated code | none |
//! | [`listener`] | accepting, the peer's address, frames into a stream, bytes written, its cut | none |
//! | [`limits`] | counts and rates, by whom and of what | `message` |
//! | [`auth`] | who is calling and what they may do; knows no transport | `message` |
//! | [`hub`] | the connections on this node, their rooms, fan-out; [`hub::Connection`] is the one port | `message` |
//! | [`store`] | what outlives a process: mailboxes, and what users have read; all SQL is here | `message` |
//! | [`cluster`] | what nodes share: idempotency keys, histories, retained values, rooms by `JoinRoom` and `AllowRoom` | `message`, `proto` |
//! | [`delivery`] | from an emit to a receipt; what is stored, retained and collapsed; acknowledgements; joins and catching up; presence | `message`, `limits`, `hub`, `store`, `cluster` |
//! | [`command`] | everything that Bugle can be asked to do, by backends and by devices' events | `message`, `limits`, `auth`, `delivery`, `store` |
//! | [`grpc`] | edge: backends | `message`, `limits`, `auth`, `command`, `proto` |
//! | [`socketio`] | edge: devices | `message`, `limits`, `auth`, `hub`, `command`, `listener` |
//! | [`websocket`] | edge: devices over plain WebSocket | `message`, `limits`, `auth`, `hub`, `command`, `listener` |
//! | [`http`] | edge: REST for devices; the console, health and metrics for operators | `message`, `limits`, `auth`, `command`, `listener` |
//! | [`config`] | every module's `Config`, read at one place | the `Config`s, `message` |
//! | [`client`] | how a backend reaches a server: an API key in each call | none |
//! | [`mod@bench`] | the load generator: devices, calls, a server as a child process, and what it all takes up | `auth`, `client`, `proto` |
//! | [`cli`] | the command line | `app`, `config`, `auth`, `message`, `client`, `bench`, `proto` |
//! | [`app`] | the composition root: it wires, and does nothing else | everything |
//!
//! Imports point inward, and edges never see each other. `tests/architecture.rs` checks this table, which external
//! crate is used where, and that files and functions stay small.
//!
//! # What always holds
//!
//! - A connection counts once as matched, and once as enqueued or dropped, in the receipt of each emit that finds it
//!   in the audience.
//! - Emits to one room are fanned out one at a time, under the room's turn: all connections in it see one order.
//! - What is stored is on disk before it is sent, and fanned out in the order of its positions, under the same turn. A connection that has
//!   missed messages of a room gets them before anything live of that room: the last of them are read under the turn, too.
//! - A connection is catching up, then live, then gone. Gone is final: nothing that runs late revives it.
//! - Nothing reaches a device before its token was verified, and nothing that it sends is handled before.
//! - A connection leaves the hub at the latest with its [`delivery::Admission`]; a room ends with its last member. So
//!   presence has no ghosts.
//! - What waits for a connection is bounded in bytes. Past the bound it is closed, and nobody else waits for it. What a room
//!   retains for those who join has a bound of its own.
//! - A device joins the rooms that its token, a backend or a rule gives it, and no others; never one of Bugle's own by an event.
//! - A device is sent away only for a reason of the closed list [`message::CloseCode`]; a command is refused only
//!   with one of [`command::Error`].
//! - What is not built is refused, never ignored.
//! - No token, payload, query string or API key is logged. The id of a Socket.IO session is a secret too: a
//!   connection has an id of its own.
//! - Each task runs under [`lifecycle::Lifecycle`]: a stop waits for it, and the death of a vital one stops the
//!   server with failure.
//! - The time of day comes from [`clock::Clock`], the environment from [`config`], and from nowhere
//!   else. Only [`mod@bench`] asks the system where temporary files go.

pub mod app;
pub mod auth;
pub mod bench;
pub mod cli;
pub mod client;
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
pub mod memory;
pub mod message;
pub mod proto;
pub mod socketio;
pub mod store;
pub mod telemetry;
pub mod websocket;
