//! What the tests speak: backends, devices, and raw sockets for what no decent caller would send.

mod deadline;
pub use deadline::{PATIENCE, deadline, eventually, eventually_within};

mod any_node;
pub use any_node::any_of;

mod backend;
pub use backend::{Backend, Keyed, violations};

mod requests;
pub use requests::{
    answer, counts, emit_to, is_node_count, named, refused, to_everyone, to_room, to_user, to_users, with_options,
};

mod raw_grpc;
pub use raw_grpc::{RawAnswer, RawGrpc, grpc_frame};

mod http;
pub use http::{Caller as HttpCaller, ConnectError, HttpClient, raw_http};

mod device;
pub use device::{Arg, Closed, ClosedBy, Device, DeviceBuilder, EVERY_WAY, Event, Protocol, Transport, Welcome};

mod wire;
pub use wire::{
    ACCEPT, Answer, HANDSHAKE, KEY, Wire, WireFrame, announced, ask, ask_with, frame, http_request, request_head,
};

mod raw_socket;
pub use raw_socket::{RawMessage, RawSocket};

mod plain_device;
pub use plain_device::{PlainDevice, PlainDeviceBuilder, PlainFrame, auth_message};

mod postgres;
pub use postgres::{Postgres, new_database};

mod certificates;

mod redis;
pub use redis::TestRedis;

mod tls_redis;
pub use tls_redis::TlsRedis;

mod sql;
pub use sql::{OpenTransaction, connections, count, execute, no_connections, set_read_only, waits_for_lock};

mod damage;
pub use damage::damage;

mod tls_postgres;
pub use tls_postgres::TlsDatabase;

mod slow_proxy;
pub use slow_proxy::SlowProxy;

mod process;
pub use process::{Ended, Launch, ServerProcess};

mod hanging_file;
pub use hanging_file::HangingFile;

mod not_run;
pub use not_run::not_run;

mod own_mounts;
pub use own_mounts::{OwnMounts, fill, make_room, make_writable, seen_by};

mod server;
pub use server::{API_KEY, SECRET, TestServer, api_key, token, token_with};
