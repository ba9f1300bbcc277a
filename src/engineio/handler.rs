//! What a library above the engine implements.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use engineioxide_core::Str;

use crate::socket::{DisconnectReason, Socket};

/// Receives what happens to sockets. No lock of the engine is held meanwhile.
pub trait EngineIoHandler: fmt::Debug + Send + Sync + 'static {
    /// What the handler keeps per socket.
    type Data: Default + Send + Sync + 'static;

    /// A socket has connected. With Engine.IO 4 this is called together with the socket's first message, so that a session that never
    /// sends one costs the handler nothing.
    fn on_connect(self: Arc<Self>, socket: Arc<Socket<Self::Data>>);

    /// A socket that had connected has ended.
    fn on_disconnect(&self, socket: Arc<Socket<Self::Data>>, reason: DisconnectReason);

    /// A socket has sent a text.
    fn on_message(self: &Arc<Self>, message: Str, socket: Arc<Socket<Self::Data>>);

    /// A socket has sent bytes.
    fn on_binary(self: &Arc<Self>, data: Bytes, socket: Arc<Socket<Self::Data>>);
}
