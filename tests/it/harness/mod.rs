//! What the tests speak: backends, devices, and raw sockets for what no decent caller would send.

mod deadline;
pub use deadline::{PATIENCE, deadline};

mod backend;
pub use backend::{Backend, violations};

mod http;
pub use http::{Caller as HttpCaller, ConnectError, HttpClient, raw_http};

mod device;
pub use device::{Arg, Closed, ClosedBy, Device, DeviceBuilder, Event, Protocol, Transport, Welcome};

mod raw_socket;
pub use raw_socket::{RawMessage, RawSocket};

mod server;
pub use server::{API_KEY, SECRET, TestServer, api_key, token, token_with};
