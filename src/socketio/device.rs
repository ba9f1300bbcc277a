use std::{net::IpAddr, sync::Arc};

use engineioxide::{Sid, session::Session};
use jiff::Timestamp;
use parking_lot::Mutex;
use socketioxide::extract::SocketRef;
use transport::{Part, Stranger};

use super::{
    attachments::{Attachments, Progress},
    edge::Edge,
    event::ClientEvent,
    inbox::Inbox,
    opening::{Attempt, FirstRequest, Opening},
    phase::Phase,
};
use crate::auth::{Identity, TokenRefused};
use crate::command::Admission;
use crate::limits::AddressSlot;
use crate::message::{CloseReason, ConnectionId};

impl Edge {
    /// A session and its device. `None`: the session has ended.
    pub(super) fn device(&self, id: Sid) -> Option<(Arc<Session>, Arc<Device>)> {
        let session = self.engine()?.session(id)?;
        let device = session.context::<Device>()?;
        Some((session, device))
    }
}

/// One device, from the first request of its session to the end of that. The engine keeps it for the session.
pub(super) struct Device {
    pub(super) edge: Arc<Edge>,
    pub(super) address: IpAddr,
    pub(super) user_agent: Arc<str>,
    state: Mutex<State>,
}

struct State {
    phase: Phase<Admitted, SocketRef>,
    /// Packets to namespaces other than `/`.
    foreign_packets: u32,
    /// The binary packet whose attachments have not all arrived.
    attachments: Option<Box<Attachments>>,
    /// Its place among the transports, until the end.
    slot: Option<AddressSlot>,
}

/// What is kept of a device with an accepted token.
pub(super) struct Admitted {
    pub(super) session: Arc<Session>,
    /// Of the session's ledger.
    pub(super) generation: u32,
    pub(super) admission: Arc<Admission>,
    pub(super) identity: Arc<Identity>,
    pub(super) inbox: Inbox<ClientEvent>,
    /// The expiry that the device was told of.
    pub(super) told_of: Option<Timestamp>,
}

/// A connection whose CONNECT has been answered.
pub(super) struct Answered {
    pub(super) admission: Arc<Admission>,
    pub(super) generation: u32,
    /// It was closed meanwhile.
    pub(super) closed: Option<CloseReason>,
}

impl Device {
    pub(super) fn new(edge: &Arc<Edge>, request: FirstRequest) -> Arc<Self> {
        let FirstRequest { address, user_agent, token, resume, bytes, stranger, slot } = request;
        let opening = Opening::new(token, resume, stranger.as_ref());
        let phase = Phase::Opening(Box::new(opening));
        let state = State { phase, foreign_packets: 0, attachments: None, slot: Some(slot) };
        let device = Arc::new(Self { edge: edge.clone(), address, user_agent, state: Mutex::new(state) });
        let mut part = None;
        edge.deps.unfinished.hold(&mut part, bytes, Some(address), || {
            let device = Arc::downgrade(&device);
            move || drop(device.upgrade().and_then(|device| device.opening(Opening::lose)))
        });
        device.opening(|opening| opening.part = part);
        device
    }

    /// Looks at what is kept until a token is accepted. `None`: one was, or the session has ended.
    fn opening<T>(&self, look: impl FnOnce(&mut Opening) -> T) -> Option<T> {
        self.state.lock().phase.opening().map(look)
    }

    /// Looks at what is kept of this connection. `None`: it has ended.
    pub(super) fn connection<T>(&self, id: ConnectionId, look: impl FnOnce(&mut Admitted) -> T) -> Option<T> {
        self.state.lock().phase.kept(id).map(look)
    }

    /// Looks at what is kept of the connection that there is. `None`: there is none.
    pub(super) fn current<T>(&self, look: impl FnOnce(&mut Admitted) -> T) -> Option<T> {
        self.state.lock().phase.current().map(look)
    }

    /// The library's socket of this connection, if it is live.
    pub(super) fn socket(&self, id: ConnectionId) -> Option<SocketRef> {
        self.state.lock().phase.socket(id)
    }

    /// A CONNECT has come. False: it is one too many.
    pub(super) fn announce(&self) -> bool {
        self.state.lock().phase.announce()
    }

    /// Begins to answer a CONNECT.
    pub(super) fn attempt(&self) -> Attempt {
        self.opening(Opening::attempt).unwrap_or(Attempt::TooLate)
    }

    /// The CONNECT was refused.
    pub(super) fn refuse(&self, refused: TokenRefused) {
        self.opening(|opening| opening.refuse(refused));
    }

    /// The hub is asked to let this connection in: it may close it from now on.
    pub(super) fn begin(&self, id: ConnectionId) {
        self.opening(|opening| opening.begin_attempt(id));
    }

    /// The CONNECT of this connection was accepted, and `socket` will be the way to the device. Gives `admitted` back if the session has
    /// ended, or the device has left, meanwhile.
    pub(super) fn admit(&self, id: ConnectionId, admitted: Admitted, socket: SocketRef) -> Result<(), Admitted> {
        let opening = self.state.lock().phase.admit(id, admitted, socket)?;
        opening.known();
        Ok(())
    }

    /// The answer to the CONNECT of this socket is queued. `None`: its connection has ended.
    pub(super) fn answered(&self, socket: &SocketRef) -> Option<Answered> {
        let mut state = self.state.lock();
        // Sockets of one session have the same id.
        let (admitted, closed) = state.phase.answered(|its| std::ptr::eq(&raw const **its, &raw const **socket))?;
        Some(Answered { admission: admitted.admission.clone(), generation: admitted.generation, closed })
    }

    /// The hub has closed this connection. Returns the way to tell the device; `None`: it is told later, or has none any more.
    pub(super) fn close(&self, id: ConnectionId, reason: &CloseReason) -> Option<SocketRef> {
        self.state.lock().phase.close(id, reason)
    }

    /// The device has left the namespace. Returns what was kept of it; to be dropped without a lock.
    pub(super) fn leave(&self) -> Option<Admitted> {
        let before = self.state.lock().phase.leave();
        before?.into_kept()
    }

    /// The session has ended. Returns what was kept of the device; to be dropped without a lock.
    pub(super) fn end(&self) -> Option<Admitted> {
        let mut state = self.state.lock();
        // The library may keep the session for a while.
        let before = state.phase.end();
        let held = (state.slot.take(), state.attachments.take());
        drop(state);
        drop(held);
        before.into_kept()
    }

    /// A connection carries a request of the session. It counts as a stranger's until a token is accepted. `may_stay`: it may become
    /// the session's WebSocket, and make no other request.
    pub(super) fn meet(&self, stranger: &Arc<Stranger>, may_stay: bool) {
        if self.current(|_| ()).is_some() {
            stranger.known();
        } else if may_stay {
            self.opening(|opening| opening.meet(stranger));
        }
    }

    /// Notes a binary packet, or an attachment. Returns how far its packet has come, the bytes of that, and what counts them, for
    /// [`Device::keep_part`]. `None`: there is no device that may send any.
    pub(super) fn attachments(
        &self,
        note: impl FnOnce(&mut Attachments) -> Progress,
    ) -> Option<(Progress, usize, Option<Part>)> {
        let mut state = self.state.lock();
        state.phase.current()?;
        let attachments = state.attachments.get_or_insert_default();
        let progress = note(attachments);
        let (bytes, part) = attachments.held();
        if progress == Progress::Complete {
            state.attachments = None;
        }
        Some((progress, bytes, part))
    }

    /// Keeps what counts the binary packet whose attachments have not all arrived. To count takes locks of other devices, so it is done
    /// without this device's.
    pub(super) fn keep_part(&self, part: Option<Part>) {
        if let Some(attachments) = &mut self.state.lock().attachments {
            attachments.part = part;
        }
    }

    /// Counts a packet to another namespace than `/`. False: there were too many.
    pub(super) fn allows_foreign_packet(&self, max: u32) -> bool {
        let mut state = self.state.lock();
        state.foreign_packets += 1;
        state.foreign_packets <= max
    }
}
