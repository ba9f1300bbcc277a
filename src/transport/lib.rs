//! Connections of strangers: accepting them, their addresses, HTTP/1 with upgrades, streams that can be cut, write queues, WebSocket
//! frames. It knows nothing of Bugle.

mod sync;

mod config;
pub use config::Config;

mod throttle;
pub use throttle::Throttle;

mod address;
pub use address::{ClientAddress, Proxies, TcpPeer, counted_address};

mod user_agent;
pub use user_agent::user_agent;

mod place;
pub use place::{Place, PlaceHandle, Share};

mod descriptors;
pub use descriptors::{Descriptors, Shares, open_descriptors};

mod accept;
pub use accept::{Accepted, Acceptor, AcceptorConfig, FIRST_BYTE_WITHIN, has_begun};

mod grpc;
mod pace;
pub use grpc::GrpcStream;

mod strangers;
pub use strangers::{Stranger, StrangerLimits, Strangers, Visit};

mod stream;
pub use stream::{AnswerFate, Duplex, FRAME_COST, Flushers, Handle, QueuedBytes, Spawn, Stream, WriteMode};

mod unfinished;
pub use unfinished::{Part, UnderWay, Unfinished};

mod body;
pub use body::{BODY_WITHIN, BYTE_WITHIN, Body, BodyError};

mod serve;
pub use serve::{ReportFate, Serving, Upgrade, serve};

pub mod websocket;

mod wheel;
pub use wheel::{Entry, Wheel};

mod ledger;
pub use ledger::{Bounds, InFlight, Ledger, Outgoing, Pong, Rejected, Unproven};

mod origin;
pub use origin::Origins;

mod pages;
pub use pages::Pages;

mod compress;
pub use compress::compression;
