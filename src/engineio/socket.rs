//! A connection as a library above the engine sees it.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Str, TransportType};
use http::request::Parts;
use tokio::sync::mpsc::error::TrySendError;
use transport::WriteMode;

pub use crate::reason::DisconnectReason;
pub use engineioxide_core::Sid;

use crate::{
    frame::{binary_message, text_message},
    session::{SendError, Session},
};

/// A connection with what the library keeps of it.
pub struct Socket<D> {
    /// The session's id.
    pub id: Sid,
    /// The version of Engine.IO that it speaks.
    pub protocol: ProtocolVersion,
    /// What the library keeps.
    pub data: D,
    /// An empty request. That which opened the socket is not kept for the socket's life: it would take up to 1.5 KiB.
    pub req_parts: Arc<Parts>,
    session: Arc<Session>,
}

/// A place in a socket's queue.
pub struct Permit<'a>(&'a Session);

#[expect(clippy::needless_pass_by_value, reason = "the registry's API hands over what is sent")]
impl Permit<'_> {
    /// Queues a text.
    pub fn emit(self, message: Str) {
        self.send(&[text_message(&[message.as_bytes()])]);
    }

    /// Queues bytes.
    pub fn emit_binary(self, data: Bytes) {
        self.send(&[binary_message(self.0.protocol(), &data)]);
    }

    /// Queues a text and the bytes that belong to it, with nothing between them.
    pub fn emit_many(self, message: Str, data: VecDeque<Bytes>) {
        let frames = frames(self.0.protocol(), text_message(&[message.as_bytes()]), data);
        self.send(&frames);
    }

    /// Queues bytes and further bytes that belong to them.
    pub fn emit_many_binary(self, first: Bytes, data: Vec<Bytes>) {
        let frames = frames(self.0.protocol(), binary_message(self.0.protocol(), &first), data);
        self.send(&frames);
    }

    fn send(&self, frames: &[Bytes]) {
        // A session that has ended meanwhile loses what is sent to it.
        let _ = self.0.send(frames, WriteMode::Batched);
    }
}

fn frames(protocol: ProtocolVersion, first: Bytes, data: impl IntoIterator<Item = Bytes>) -> Vec<Bytes> {
    std::iter::once(first).chain(data.into_iter().map(|data| binary_message(protocol, &data))).collect()
}

impl<D: Default> Socket<D> {
    pub(crate) fn new(session: Arc<Session>, req_parts: Arc<Parts>) -> Self {
        Self { id: session.id(), protocol: session.protocol(), data: D::default(), req_parts, session }
    }
}

impl<D> Socket<D> {
    /// Reserves a place in the queue.
    pub fn reserve(&self) -> Result<Permit<'_>, TrySendError<()>> {
        match self.session.may_send() {
            Ok(()) => Ok(Permit(&self.session)),
            Err(SendError::Full) => Err(TrySendError::Full(())),
            Err(SendError::Closed) => Err(TrySendError::Closed(())),
        }
    }

    /// Queues a text.
    pub fn emit(&self, message: impl Into<Str>) -> Result<(), TrySendError<Str>> {
        let message = message.into();
        match self.reserve() {
            Ok(permit) => permit.emit(message),
            Err(error) => return Err(with(error, message)),
        }
        Ok(())
    }

    /// Queues bytes.
    pub fn emit_binary<B: Into<Bytes>>(&self, data: B) -> Result<(), TrySendError<Bytes>> {
        let data = data.into();
        match self.reserve() {
            Ok(permit) => permit.emit_binary(data),
            Err(error) => return Err(with(error, data)),
        }
        Ok(())
    }

    /// Queues a text if nothing waits for the peer, and drops it otherwise.
    pub fn emit_volatile(&self, message: impl Into<Str>) {
        self.if_idle(|permit| permit.emit(message.into()));
    }

    /// The same with bytes.
    pub fn emit_binary_volatile<B: Into<Bytes>>(&self, data: B) {
        self.if_idle(|permit| permit.emit_binary(data.into()));
    }

    /// The same with a text and the bytes that belong to it.
    pub fn emit_many_volatile(&self, message: Str, data: VecDeque<Bytes>) {
        self.if_idle(|permit| permit.emit_many(message, data));
    }

    fn if_idle(&self, emit: impl FnOnce(Permit<'_>)) {
        if self.session.backlog() == 0
            && let Ok(permit) = self.reserve()
        {
            emit(permit);
        }
    }

    /// Ends the connection.
    pub fn close(&self, reason: DisconnectReason) {
        self.session.close(reason);
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Waits until it has ended. Cancel safe.
    pub async fn closed(&self) {
        self.session.closed().await;
    }

    /// The transport that it uses now.
    pub fn transport_type(&self) -> TransportType {
        self.session.transport_type()
    }

    /// The connection as the engine sees it.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

fn with<T>(error: TrySendError<()>, message: T) -> TrySendError<T> {
    match error {
        TrySendError::Full(()) => TrySendError::Full(message),
        TrySendError::Closed(()) => TrySendError::Closed(message),
    }
}

impl<D> fmt::Debug for Socket<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The id is a bearer secret.
        f.debug_struct("Socket").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}
