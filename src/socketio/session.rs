use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use secrecy::SecretString;

use super::connect::Device;
use crate::auth::TokenRefused;
use crate::limits::AddressSlot;
use crate::listener::StreamHandle;

/// What is known of a transport from its first request on. It is an extension of that request, and so lives exactly as long as
/// the library's own session.
pub(super) struct Session {
    /// Shared with the connection.
    pub(super) wire: Arc<Wire>,
    /// The token of the query or of the `Authorization` header.
    pub(super) token: Option<SecretString>,
    /// Between the accepted CONNECT and going live. If that never happens, it goes with the session, and takes the connection
    /// out of the hub.
    pub(super) device: Mutex<Option<Arc<Device>>>,
    /// Why a CONNECT was refused: there is no second attempt.
    pub(super) refused: OnceLock<TokenRefused>,
    /// A CONNECT was accepted and the device has not left since.
    pub(super) connected: AtomicBool,
    _slot: AddressSlot,
}

/// Where a transport's bytes go, and who is at the other end.
pub(super) struct Wire {
    pub(super) address: IpAddr,
    pub(super) user_agent: Box<str>,
    /// The stream of a session that began as a WebSocket.
    pub(super) stream: Option<StreamHandle>,
    polled: AtomicU64,
}

impl Session {
    pub(super) fn new(wire: Wire, token: Option<SecretString>, slot: AddressSlot) -> Arc<Self> {
        Arc::new(Self {
            wire: Arc::new(wire),
            token,
            device: Mutex::new(None),
            refused: OnceLock::new(),
            connected: AtomicBool::new(false),
            _slot: slot,
        })
    }
}

impl Wire {
    pub(super) fn new(address: IpAddr, user_agent: Box<str>, stream: Option<StreamHandle>) -> Self {
        Self { address, user_agent, stream, polled: AtomicU64::new(0) }
    }

    /// Bytes that polls have fetched so far.
    pub(super) fn polled(&self) -> u64 {
        self.polled.load(Ordering::Acquire)
    }

    /// A poll has fetched this much.
    pub(super) fn add_polled(&self, bytes: u64) {
        self.polled.fetch_add(bytes, Ordering::AcqRel);
    }
}
