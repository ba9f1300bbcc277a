use std::{net::IpAddr, sync::Arc};

use engineioxide::DisconnectReason;
use parking_lot::Mutex;
use secrecy::SecretString;
use transport::{Stranger, Visit};

use super::{attachments::Attachments, connect::Device};
use crate::auth::TokenRefused;
use crate::command::Resume;
use crate::limits::AddressSlot;

/// What is kept of a session of the engine, from its first request to its end.
pub(super) struct Session {
    pub(super) address: IpAddr,
    pub(super) user_agent: Box<str>,
    /// The token of the query or of the `Authorization` header.
    pub(super) token: Option<SecretString>,
    /// The positions in the query; they are used once.
    pub(super) resume: Mutex<Option<Resume>>,
    state: Mutex<State>,
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
    pub(super) stranger: Option<Arc<Stranger>>,
    pub(super) slot: AddressSlot,
}

impl Session {
    pub(super) fn new(opening: Opening) -> Arc<Self> {
        let Opening { address, user_agent, token, resume, stranger, slot } = opening;
        Arc::new(Self {
            address,
            user_agent,
            token,
            resume: Mutex::new(resume),
            state: Mutex::new(State {
                strangers: stranger.iter().map(Stranger::visit).collect(),
                slot: Some(slot),
                ..State::default()
            }),
        })
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
