//! Bugle delivers what backends say over gRPC to every device of a user over Socket.IO, or plain WebSocket.
//!
//! ```text
//! backend ──gRPC──▶ command ──▶ delivery ──▶ hub ──▶ Socket.IO / WebSocket ──▶ device
//!                                  │  ▲ ▲
//!                                  ▼  │ └─ state (in memory)
//!                             receipt └─── store (mailboxes, on disk)
//! ```
//!
//! A backend's call is decoded by the edge [`grpc`] into a command. [`command`] asks whether the caller may do that,
//! and within which limits. [`delivery`] takes the emit: an idempotency key that is known answers with the first
//! receipt. Else a stored emit is appended by [`store`] in its room's log lane, without the room lock. Then the room is locked, and
//! [`hub`] puts one shared frame into the queue of each connection in it. What became of it at each of them is counted, and goes back to the backend as the receipt. A device connects
//! through the edge [`socketio`] or [`websocket`], which verifies its token, and is a member of its rooms in the hub until
//! its connection ends. What it sends is a command, too: it does what a rule of the configuration says, or nothing.
//!
//! Below the edges are two crates that know nothing of Bugle. [`transport`] accepts connections, bounds what strangers can take up, and
//! writes queues of frames to streams. [`engineioxide`] (in `src/engineio`) is Engine.IO on top of it, in the place of the registry's crate of
//! that name, and carries the packets of socketioxide.
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
//! | watermark | the position up to which a user's devices have proven the user's own mailbox; a message below it that no device has proven is *skipped*, and goes to the next device |
//! | room lock | the fair lock of a room: its holder publishes to the room or joins a connection to it, and touches nothing but memory |
//! | log lane | the work on one room's mailbox: one thing at a time, in the order in which it came |
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
//! | [`limits`] | counts and rates, by whom and of what | `message`, `transport` |
//! | [`auth`] | who is calling and what they may do; knows no transport | `message` |
//! | [`hub`] | the connections on this node, their rooms, fan-out; [`hub::Connection`] is the one port | `message`, `transport` |
//! | [`store`] | what outlives a process: mailboxes, and what users have read; all SQL is here | `message` |
//! | [`state`] | what nodes share, and one node keeps in memory: idempotency keys, histories, retained values, rooms by `JoinRoom` and `AllowRoom` | `message`, `cluster` |
//! | [`cluster`] | the bus between nodes; one node calls itself | `message`, `proto` |
//! | [`delivery`] | from an emit to a receipt; what is stored, retained and collapsed; proofs and acknowledgements; joins and catching up; the bound of all queues; presence | `message`, `limits`, `hub`, `store`, `state`, `cluster`, `transport` |
//! | [`messages`] | direct messages between users: the rules, the events, the lists; off by default | `message`, `limits`, `delivery`, `store` |
//! | [`command`] | everything that Bugle can be asked to do, by backends and by devices' events | `message`, `limits`, `auth`, `delivery`, `messages`, `store` |
//! | [`grpc`] | edge: backends | `message`, `limits`, `auth`, `command`, `proto`, `transport` |
//! | [`socketio`] | edge: devices | `message`, `limits`, `auth`, `hub`, `command`, `transport`, `engineioxide` |
//! | [`websocket`] | edge: devices over plain WebSocket | `message`, `limits`, `auth`, `hub`, `command`, `transport` |
//! | [`http`] | edge: REST for devices; the console, health and metrics for operators | `message`, `limits`, `auth`, `command`, `transport` |
//! | [`config`] | every module's `Config`, read at one place | the `Config`s, `message`, `transport` |
//! | [`client`] | how a backend reaches a server: an API key in each call | none |
//! | [`mod@bench`] | the load generator: devices, calls, a server as a child process, and what it all takes up | `auth`, `client`, `proto` |
//! | [`cli`] | the command line | `app`, `config`, `auth`, `message`, `client`, `bench`, `proto` |
//! | [`app`] | the composition root: it wires, and does nothing else | everything |
//!
//! | crate | what it is for | imports of ours |
//! |---|---|---|
//! | [`transport`] | accepting, with limits per address and shares of the file descriptors; peer addresses; streams that can be cut; write queues; request bodies with deadlines; WebSocket frames | none |
//! | [`engineioxide`] | Engine.IO 3 and 4: sessions, polling, upgrades, heartbeats, proofs | `transport` |
//!
//! Imports point inward, and edges never see each other. `tests/architecture.rs` checks these tables, which external
//! crate is used where, and that files and functions stay small.
//!
//! # What always holds
//!
//! - A connection counts once as matched, and once as enqueued or dropped, in the receipt of each emit that finds it
//!   in the audience.
//! - Emits to one room are fanned out one at a time, under the room lock: all connections in it see one order.
//! - What is stored is on disk before it is sent, and fanned out in the order of its positions: the log lane of its room commits without the
//!   room lock, and then publishes under it. A device that resumes gets what it missed of a room before anything live of it, unless the
//!   store cannot be read. To one that does not resume plain emits wait 250 ms for it at most, once it is known, and none overtakes a stored
//!   one that was published since it connected.
//! - A connection is catching up, then live, then gone. Gone is final: nothing that runs late revives it.
//! - A message of a user's own mailbox counts as given when a device has proven it: by the pong of a ping that was sent after it, or while
//!   polling by the next poll. Neither an enqueue nor a write nor a close moves the watermark.
//! - Every byte to a device passes the one write queue of its session or WebSocket: frames of the hub and packets of socketioxide in their
//!   order. An emit writes inline or marks the stream dirty for its flusher; what the kernel does not take is written by the connection's own
//!   task. While a device polls, the next poll fetches the queue.
//! - A polling session stays as it is until its upgrade is complete, whatever ends the attempt before.
//! - Nothing reaches a device before its token was verified, and nothing that it sends is handled before.
//! - A connection leaves the hub at the latest with its [`delivery::Admission`]; a room ends with its last member. So
//!   presence has no ghosts. The end of a Socket.IO connection is reported by the engine, not by socketioxide.
//! - The queue of each connection is bounded in bytes, and so are all queues together. If a bound is exceeded, connections are closed as slow,
//!   and no other connection waits for them. What a room retains for those who join has a bound of its own.
//! - Connections without an accepted token or API key are bounded in number, bytes and time. The oldest make room for new ones.
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
pub mod memory;
pub mod message;
pub mod messages;
pub mod proto;
pub mod socketio;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod websocket;
