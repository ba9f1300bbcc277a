use std::{net::IpAddr, sync::Arc};

use engineioxide::{Sid, session::Session};
use jiff::Timestamp;
use parking_lot::Mutex;
use secrecy::SecretString;
use socketioxide::extract::SocketRef;
use transport::{Part, Stranger};

use super::{
    attachments::{Attachments, Progress},
    edge::Edge,
    event::ClientEvent,
    inbox::Inbox,
    opening::{Attempt, FirstRequest, Opening},
};
use crate::auth::{Identity, TokenRefused};
use crate::command::Admission;
use crate::limits::AddressSlot;
use crate::message::CloseReason;

impl Edge {
    /// A session and its device. `None`: the session has ended.
    pub(super) fn device(&self, id: Sid) -> Option<(Arc<Session>, Arc<Device>)> {
        let session = self.engine.get()?.session(id)?;
        let device = session.context::<Device>()?;
        Some((session, device))
    }
}

/// One device, from the first request of its session to the end of that. The engine keeps it for the session.
pub(super) struct Device {
    pub(super) edge: Arc<Edge>,
    pub(super) address: IpAddr,
    pub(super) user_agent: Box<str>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Packets to namespaces other than `/`.
    foreign_packets: u32,
    /// The binary packet whose attachments have not all arrived.
    attachments: Option<Box<Attachments>>,
    /// Its place among the transports, until the end.
    slot: Option<AddressSlot>,
}

/// How far a device has come.
enum Phase {
    /// No CONNECT was accepted.
    Opening(Box<Opening>),
    /// The CONNECT was accepted, and its answer is not queued yet: nothing may be sent before that.
    Admitted(Box<Admitted>),
    /// It was closed meanwhile, for this reason, of which it is told behind the answer.
    Closing(Box<Admitted>, CloseReason),
    /// It gets what is sent to it.
    Live(Box<Admitted>, SocketRef),
    /// It has left the namespace `/`, and may connect again with the token of its first request.
    Left(Option<SecretString>),
    Ended,
}

/// What is kept of a device with an accepted token.
pub(super) struct Admitted {
    pub(super) session: Arc<Session>,
    pub(super) admission: Arc<Admission>,
    pub(super) identity: Arc<Identity>,
    pub(super) inbox: Inbox<ClientEvent>,
    /// The expiry that the device was told of.
    pub(super) told_of: Option<Timestamp>,
    /// That of the first request.
    pub(super) token: Option<SecretString>,
}

/// What follows when the CONNECT has been answered.
pub(super) enum GoesLive {
    Now(Arc<Admission>),
    /// It was closed meanwhile.
    Closed(CloseReason),
    /// Its session has ended.
    Ended,
}

impl Device {
    pub(super) fn new(edge: &Arc<Edge>, request: FirstRequest) -> Arc<Self> {
        let FirstRequest { address, user_agent, token, resume, bytes, stranger, slot } = request;
        let opening = Opening::new(token, resume, stranger.as_ref());
        let phase = Phase::Opening(Box::new(opening));
        let state = State { phase, foreign_packets: 0, attachments: None, slot: Some(slot) };
        let device = Arc::new(Self { edge: edge.clone(), address, user_agent, state: Mutex::new(state) });
        let mut part = None;
        edge.parameters.unfinished.hold(&mut part, bytes, Some(address), || {
            let device = Arc::downgrade(&device);
            move || drop(device.upgrade().and_then(|device| device.opening(Opening::lose)))
        });
        device.opening(|opening| opening.part = part);
        device
    }

    /// Looks at what is kept until a token is accepted. `None`: one was, or the session has ended.
    fn opening<T>(&self, look: impl FnOnce(&mut Opening) -> T) -> Option<T> {
        match &mut self.state.lock().phase {
            Phase::Opening(opening) => Some(look(opening)),
            Phase::Admitted(_) | Phase::Closing(..) | Phase::Live(..) | Phase::Left(_) | Phase::Ended => None,
        }
    }

    /// Looks at what is kept of a device with an accepted token. `None`: there is none, or it has left.
    pub(super) fn admitted<T>(&self, look: impl FnOnce(&mut Admitted) -> T) -> Option<T> {
        match &mut self.state.lock().phase {
            Phase::Admitted(admitted) | Phase::Closing(admitted, _) | Phase::Live(admitted, _) => Some(look(admitted)),
            Phase::Opening(_) | Phase::Left(_) | Phase::Ended => None,
        }
    }

    /// The library's socket of a device that is live.
    pub(super) fn socket(&self) -> Option<SocketRef> {
        match &self.state.lock().phase {
            Phase::Live(_, socket) => Some(socket.clone()),
            Phase::Opening(_) | Phase::Admitted(_) | Phase::Closing(..) | Phase::Left(_) | Phase::Ended => None,
        }
    }

    /// A CONNECT has come. False: it is one too many.
    pub(super) fn announce(&self) -> bool {
        let mut state = self.state.lock();
        match &mut state.phase {
            Phase::Opening(opening) => opening.announce(),
            Phase::Left(token) => {
                state.phase = Phase::Opening(Box::new(Opening::again(token.take())));
                true
            }
            Phase::Admitted(_) | Phase::Closing(..) | Phase::Live(..) | Phase::Ended => false,
        }
    }

    /// Begins to answer a CONNECT.
    pub(super) fn attempt(&self) -> Attempt {
        self.opening(Opening::attempt).unwrap_or(Attempt::TooLate)
    }

    /// The CONNECT was refused.
    pub(super) fn refuse(&self, refused: TokenRefused) {
        self.opening(|opening| opening.refuse(refused));
    }

    /// The CONNECT was accepted. Gives it back if the session has ended, or the device has left, meanwhile.
    pub(super) fn admit(&self, admitted: Admitted) -> Result<(), Box<Admitted>> {
        let mut state = self.state.lock();
        let mut admitted = Box::new(admitted);
        let Phase::Opening(opening) = &mut state.phase else {
            return Err(admitted);
        };
        admitted.token = opening.take_token();
        let before = std::mem::replace(&mut state.phase, Phase::Admitted(admitted));
        drop(state);
        if let Phase::Opening(opening) = before {
            opening.known();
        }
        Ok(())
    }

    /// The answer to the CONNECT is queued.
    pub(super) fn go_live(&self, socket: SocketRef) -> GoesLive {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.phase, Phase::Ended) {
            Phase::Admitted(admitted) => {
                let admission = admitted.admission.clone();
                state.phase = Phase::Live(admitted, socket);
                GoesLive::Now(admission)
            }
            Phase::Closing(admitted, reason) => {
                state.phase = Phase::Live(admitted, socket);
                GoesLive::Closed(reason)
            }
            other => {
                state.phase = other;
                GoesLive::Ended
            }
        }
    }

    /// The hub has closed the connection. Returns the way to tell the device; `None`: it has none, or not yet.
    pub(super) fn close(&self, reason: &CloseReason) -> Option<SocketRef> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.phase, Phase::Ended) {
            Phase::Admitted(admitted) => {
                state.phase = Phase::Closing(admitted, reason.clone());
                None
            }
            Phase::Live(admitted, socket) => {
                state.phase = Phase::Live(admitted, socket.clone());
                Some(socket)
            }
            other => {
                state.phase = other;
                None
            }
        }
    }

    /// The device has left the namespace. Returns what was kept of it; to be dropped without a lock.
    pub(super) fn leave(&self) -> Option<Box<Admitted>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.phase, Phase::Ended) {
            Phase::Opening(mut opening) if opening.is_connecting() => {
                state.phase = Phase::Left(opening.take_token());
                drop(state);
                drop(opening);
                None
            }
            Phase::Admitted(mut admitted) | Phase::Closing(mut admitted, _) | Phase::Live(mut admitted, _) => {
                state.phase = Phase::Left(admitted.token.take());
                Some(admitted)
            }
            other => {
                state.phase = other;
                None
            }
        }
    }

    /// The session has ended. Returns what was kept of the device; to be dropped without a lock.
    pub(super) fn end(&self) -> Option<Box<Admitted>> {
        let mut state = self.state.lock();
        // The library may keep the session for a while.
        let before = std::mem::replace(&mut state.phase, Phase::Ended);
        let held = (state.slot.take(), state.attachments.take());
        drop(state);
        drop(held);
        match before {
            Phase::Admitted(admitted) | Phase::Closing(admitted, _) | Phase::Live(admitted, _) => Some(admitted),
            Phase::Opening(_) | Phase::Left(_) | Phase::Ended => None,
        }
    }

    /// A connection carries a request of the session. It counts as a stranger's until a token is accepted. `may_stay`: it may become
    /// the session's WebSocket, and make no other request.
    pub(super) fn meet(&self, stranger: &Arc<Stranger>, may_stay: bool) {
        if self.admitted(|_| ()).is_some() {
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
        if !matches!(state.phase, Phase::Admitted(_) | Phase::Closing(..) | Phase::Live(..)) {
            return None;
        }
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
