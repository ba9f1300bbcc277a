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
use crate::command::Resume;
use crate::limits::AddressSlot;
use crate::listener::{StreamHandle, polled_packets};

/// What is known of a transport from its first request on. It is an extension of that request, and so lives exactly as long as
/// the library's own session.
pub(super) struct Session {
    /// Shared with the connection.
    pub(super) wire: Arc<Wire>,
    /// The token of the query or of the `Authorization` header.
    pub(super) token: Option<SecretString>,
    /// What the device says in the query that it has seen; it is asked for once.
    pub(super) resume: Mutex<Option<Resume>>,
    pending: Mutex<Pending>,
    /// Why a CONNECT was refused: there is no second attempt.
    pub(super) refused: OnceLock<TokenRefused>,
    /// A CONNECT was accepted. There is one for each transport: when a device leaves, the library forgets it by the session's id,
    /// late enough to forget its successor on the same transport instead.
    pub(super) accepted: AtomicBool,
    _slot: AddressSlot,
}

/// A device between its accepted CONNECT and going live.
#[derive(Default)]
struct Pending {
    device: Option<Arc<Device>>,
    /// The transport has ended: no device will go live on it. The library says so of live devices alone, and keeps the
    /// session of others for a while.
    has_ended: bool,
}

/// Where a transport's bytes go, and who is at the other end.
pub(super) struct Wire {
    pub(super) address: IpAddr,
    pub(super) user_agent: Box<str>,
    /// The stream of a session that began as a WebSocket.
    pub(super) stream: Option<StreamHandle>,
    polled: AtomicU64,
    /// Packets that polls have fetched; none: they cannot be counted.
    polled_packets: Option<AtomicU64>,
}

impl Session {
    pub(super) fn new(wire: Wire, token: Option<SecretString>, resume: Option<Resume>, slot: AddressSlot) -> Arc<Self> {
        let stream = wire.stream.clone();
        let session = Arc::new(Self {
            wire: Arc::new(wire),
            token,
            resume: Mutex::new(resume),
            pending: Mutex::default(),
            refused: OnceLock::new(),
            accepted: AtomicBool::new(false),
            _slot: slot,
        });
        if let Some(stream) = stream {
            let session = Arc::downgrade(&session);
            stream.at_end(move || {
                if let Some(session) = session.upgrade() {
                    session.transport_ended();
                }
            });
        }
        session
    }

    /// Keeps a device until it goes live. False if it is too late.
    pub(super) fn keep(&self, device: Arc<Device>) -> bool {
        let mut pending = self.pending.lock();
        if !pending.has_ended {
            pending.device = Some(device);
        }
        !pending.has_ended
    }

    /// The device that was kept. If nobody takes it, it goes with the session, and takes the connection out of the hub.
    pub(super) fn take(&self) -> Option<Arc<Device>> {
        self.pending.lock().device.take()
    }

    fn transport_ended(&self) {
        let device = {
            let mut pending = self.pending.lock();
            pending.has_ended = true;
            pending.device.take()
        };
        if let Some(device) = device {
            device.admission.ended("transport_close");
        }
    }
}

impl Wire {
    /// `counts_polls`: a poll's answer shows how many packets it has.
    pub(super) fn new(address: IpAddr, user_agent: Box<str>, stream: Option<StreamHandle>, counts_polls: bool) -> Self {
        let polled_packets = counts_polls.then(AtomicU64::default);
        Self { address, user_agent, stream, polled: AtomicU64::new(0), polled_packets }
    }

    /// Bytes that polls have fetched so far.
    pub(super) fn polled(&self) -> u64 {
        self.polled.load(Ordering::Acquire)
    }

    /// Packets that they have fetched, if that is known.
    pub(super) fn polled_packets(&self) -> Option<u64> {
        self.polled_packets.as_ref().map(|packets| packets.load(Ordering::Acquire))
    }

    /// A poll has fetched this.
    pub(super) fn add_polled(&self, body: &[u8]) {
        self.polled.fetch_add(body.len() as u64, Ordering::AcqRel);
        if let Some(packets) = &self.polled_packets {
            packets.fetch_add(polled_packets(body), Ordering::AcqRel);
        }
    }
}
