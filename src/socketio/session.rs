use std::{net::IpAddr, sync::Arc};

use engineioxide::DisconnectReason;
use parking_lot::Mutex;
use secrecy::SecretString;
use transport::{Part, Stranger, Unfinished, Visit};

use super::{attachments::Attachments, connect::Device};
use crate::auth::TokenRefused;
use crate::command::Resume;
use crate::limits::AddressSlot;

/// What is kept of a session of the engine, from its first request to its end.
pub(super) struct Session {
    pub(super) address: IpAddr,
    pub(super) user_agent: Box<str>,
    said: Mutex<Said>,
    state: Mutex<State>,
}

/// What the first request said.
#[derive(Default)]
struct Said {
    /// The token of the query or of the `Authorization` header.
    token: Option<SecretString>,
    /// The positions in the query; they are used once.
    resume: Option<Resume>,
    /// Counts both until a token is accepted.
    part: Option<Part>,
    /// They were dropped, because too much was kept for sessions without an accepted token.
    is_lost: bool,
}

/// Connections of a session that are remembered until a token is accepted: of its first request, and of attempts to upgrade.
const MAX_STRANGERS: usize = 4;
/// CONNECTs that are looked at after one was refused: the refusal stands, and the answer is the same.
const MAX_REPETITIONS: u32 = 3;

#[derive(Default)]
struct State {
    phase: Phase,
    /// The device of the accepted CONNECT.
    device: Option<Arc<Device>>,
    attachments: Attachments,
    /// Packets to namespaces other than `/`.
    foreign_packets: u32,
    /// CONNECTs after a refused one.
    repetitions: u32,
    /// Connections that count as strangers' until a token is accepted.
    strangers: Vec<Visit>,
    /// Its place among the transports, until the end.
    slot: Option<AddressSlot>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// No CONNECT has come.
    #[default]
    Opening,
    /// A CONNECT has come.
    Announced,
    /// A CONNECT was refused: there is no second attempt.
    Refused(TokenRefused),
    /// A CONNECT is being answered, or was accepted.
    Connecting,
    /// The device has left the namespace, and may connect again.
    Left,
    Ended,
}

/// What becomes of a CONNECT.
pub(super) enum Attempt {
    /// It is looked at.
    First,
    /// An earlier one was refused, for this reason.
    Refused(TokenRefused),
    /// An earlier one was accepted, or the session has ended.
    TooLate,
}

/// The first request of a session.
pub(super) struct Opening {
    pub(super) address: IpAddr,
    pub(super) user_agent: Box<str>,
    pub(super) token: Option<SecretString>,
    pub(super) resume: Option<Resume>,
    /// Bytes of the token and of the positions.
    pub(super) bytes: usize,
    pub(super) stranger: Option<Arc<Stranger>>,
    pub(super) slot: AddressSlot,
}

impl Session {
    pub(super) fn new(opening: Opening, unfinished: &Unfinished) -> Arc<Self> {
        let Opening { address, user_agent, token, resume, bytes, stranger, slot } = opening;
        let session = Arc::new(Self {
            address,
            user_agent,
            said: Mutex::new(Said { token, resume, ..Said::default() }),
            state: Mutex::new(State {
                strangers: stranger.iter().map(Stranger::visit).collect(),
                slot: Some(slot),
                ..State::default()
            }),
        });
        let mut part = None;
        unfinished.hold(&mut part, bytes, Some(address), || {
            let session = Arc::downgrade(&session);
            move || {
                let lost = session.upgrade().map(|session| {
                    std::mem::replace(&mut *session.said.lock(), Said { is_lost: true, ..Said::default() })
                });
                drop(lost);
            }
        });
        session.said.lock().part = part;
        session
    }

    /// The token of the first request.
    pub(super) fn token(&self) -> Option<SecretString> {
        self.said.lock().token.clone()
    }

    /// The positions of the first request. They are used once.
    pub(super) fn take_resume(&self) -> Option<Resume> {
        self.said.lock().resume.take()
    }

    /// Whether what the first request said was dropped.
    pub(super) fn has_lost_token(&self) -> bool {
        self.said.lock().is_lost
    }

    /// A CONNECT has come. False: it is one too many.
    pub(super) fn announce(&self) -> bool {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Opening | Phase::Left => {
                state.phase = Phase::Announced;
                true
            }
            Phase::Refused(_) => {
                state.repetitions += 1;
                state.repetitions <= MAX_REPETITIONS
            }
            Phase::Announced | Phase::Connecting | Phase::Ended => false,
        }
    }

    /// Begins to answer a CONNECT. In Socket.IO 4 there is none: the device is connected at once.
    pub(super) fn attempt(&self) -> Attempt {
        let phase = &mut self.state.lock().phase;
        match *phase {
            Phase::Opening | Phase::Announced => {
                *phase = Phase::Connecting;
                Attempt::First
            }
            Phase::Refused(refused) => Attempt::Refused(refused),
            Phase::Connecting | Phase::Left | Phase::Ended => Attempt::TooLate,
        }
    }

    /// A CONNECT was refused. The first refusal stands.
    pub(super) fn refuse(&self, refused: TokenRefused) {
        let phase = &mut self.state.lock().phase;
        if *phase == Phase::Connecting {
            *phase = Phase::Refused(refused);
        }
    }

    /// Keeps the device of an accepted CONNECT. False: the session has ended, or the device has left already.
    pub(super) fn keep(&self, device: Arc<Device>) -> bool {
        let mut state = self.state.lock();
        if state.phase != Phase::Connecting {
            return false;
        }
        state.device = Some(device);
        self.said.lock().part = None;
        let strangers = std::mem::take(&mut state.strangers);
        drop(state);
        for stranger in strangers {
            stranger.known();
        }
        true
    }

    /// A connection carries a request of the session. It counts as a stranger's until a token is accepted. `may_stay`: it may become
    /// the session's WebSocket, and make no other request.
    pub(super) fn meet(&self, stranger: &Arc<Stranger>, may_stay: bool) {
        let mut state = self.state.lock();
        if state.device.is_some() {
            drop(state);
            stranger.known();
        } else if may_stay && state.strangers.len() < MAX_STRANGERS {
            state.strangers.push(stranger.visit());
        }
    }

    /// The device of the accepted CONNECT.
    pub(super) fn device(&self) -> Option<Arc<Device>> {
        self.state.lock().device.clone()
    }

    /// The device has left the namespace.
    pub(super) fn leave(&self) -> Option<Arc<Device>> {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Announced | Phase::Connecting) {
            state.phase = Phase::Left;
        }
        state.device.take()
    }

    /// The session has ended.
    pub(super) fn end(&self) -> Option<Arc<Device>> {
        let mut state = self.state.lock();
        state.phase = Phase::Ended;
        // The library may keep the session for a while.
        let held = (std::mem::take(&mut state.strangers), state.slot.take(), std::mem::take(&mut state.attachments));
        let device = state.device.take();
        drop(state);
        drop(held);
        device
    }

    /// Looks at the attachments of a binary packet. None: there is no device that may send any.
    pub(super) fn attachments<T>(&self, look: impl FnOnce(&mut Attachments) -> T) -> Option<T> {
        let mut state = self.state.lock();
        state.device.as_ref()?;
        Some(look(&mut state.attachments))
    }

    /// Counts a packet to another namespace than `/`. False: there were too many.
    pub(super) fn allows_foreign_packet(&self, max: u32) -> bool {
        let mut state = self.state.lock();
        state.foreign_packets += 1;
        state.foreign_packets <= max
    }
}

/// A reason's name in logs and metrics.
pub(super) fn reason_name(reason: &DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose => "transport_close",
        DisconnectReason::TransportError => "transport_error",
        DisconnectReason::MultipleHttpPollingError => "several_polls",
        DisconnectReason::PacketParsingError => "malformed_packet",
        DisconnectReason::HeartbeatTimeout => "ping_timeout",
        DisconnectReason::ClosingServer => "draining",
    }
}
