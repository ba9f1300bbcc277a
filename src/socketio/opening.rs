use std::{net::IpAddr, sync::Arc};

use secrecy::SecretString;
use transport::{Part, Stranger, Visit};

use crate::auth::TokenRefused;
use crate::command::Resume;
use crate::limits::AddressSlot;
use crate::message::{CloseReason, ConnectionId};

/// Connections of a session that are remembered until a token is accepted: of its first request, and of attempts to upgrade.
const MAX_STRANGERS: usize = 4;
/// CONNECTs that are looked at after one was refused: the refusal stands, and the answer is the same.
const MAX_REPETITIONS: u32 = 3;

/// The first request of a session.
pub(super) struct FirstRequest {
    pub(super) address: IpAddr,
    pub(super) user_agent: Arc<str>,
    /// The token of the query or of the `Authorization` header.
    pub(super) token: Option<SecretString>,
    /// The positions in the query.
    pub(super) resume: Option<Resume>,
    /// Bytes of the token and of the positions.
    pub(super) bytes: usize,
    pub(super) stranger: Option<Arc<Stranger>>,
    pub(super) slot: AddressSlot,
}

/// A session without an accepted token. It is freed when one is accepted.
#[derive(Default)]
pub(super) struct Opening {
    step: Step,
    token: Option<SecretString>,
    resume: Option<Resume>,
    /// Counts both.
    pub(super) part: Option<Part>,
    /// They were dropped, because too much was kept for sessions without an accepted token.
    is_lost: bool,
    /// Connections that count as strangers' until a token is accepted.
    strangers: Vec<Visit>,
    /// The connection that the hub is asked to let in, and the reason for which it has closed that meanwhile.
    attempt: Option<(ConnectionId, Option<CloseReason>)>,
}

#[derive(Clone, Copy, Default)]
enum Step {
    /// No CONNECT has come.
    #[default]
    Silent,
    /// A CONNECT has come.
    Announced,
    /// A CONNECT is being answered.
    Connecting,
    /// A CONNECT was refused: there is no second attempt. It was repeated so often.
    Refused(TokenRefused, u32),
}

/// What becomes of a CONNECT.
pub(super) enum Attempt {
    /// It is looked at.
    First(Said),
    /// An earlier one was refused, for this reason.
    Refused(TokenRefused),
    /// An earlier one was accepted, or the session has ended.
    TooLate,
}

/// What the first request said.
pub(super) struct Said {
    pub(super) token: Option<SecretString>,
    pub(super) resume: Option<Resume>,
    /// It said something that was dropped.
    pub(super) is_lost: bool,
}

impl Opening {
    pub(super) fn new(token: Option<SecretString>, resume: Option<Resume>, stranger: Option<&Arc<Stranger>>) -> Self {
        Self { token, resume, strangers: stranger.into_iter().map(Stranger::visit).collect(), ..Self::default() }
    }

    /// Lets go of what the first request said. To be dropped without a lock.
    pub(super) fn lose(&mut self) -> Self {
        self.is_lost = true;
        Self { token: self.token.take(), resume: self.resume.take(), part: self.part.take(), ..Self::default() }
    }

    /// A CONNECT has come. False: it is one too many.
    pub(super) fn announce(&mut self) -> bool {
        match &mut self.step {
            Step::Silent => {
                self.step = Step::Announced;
                true
            }
            Step::Refused(_, repetitions) => {
                *repetitions += 1;
                *repetitions <= MAX_REPETITIONS
            }
            Step::Announced | Step::Connecting => false,
        }
    }

    /// Begins to answer a CONNECT. In Socket.IO 4 there is none: the device is connected at once.
    pub(super) fn attempt(&mut self) -> Attempt {
        match self.step {
            Step::Silent | Step::Announced => {
                self.step = Step::Connecting;
                // The token is kept: a device that leaves may connect again with it. The positions are used once.
                let (token, resume) = (self.token.clone(), self.resume.take());
                Attempt::First(Said { token, resume, is_lost: self.is_lost })
            }
            Step::Refused(refused, _) => Attempt::Refused(refused),
            Step::Connecting => Attempt::TooLate,
        }
    }

    /// The CONNECT was refused. The first refusal stands.
    pub(super) fn refuse(&mut self, refused: TokenRefused) {
        if matches!(self.step, Step::Connecting) {
            self.step = Step::Refused(refused, 0);
        }
    }

    /// A connection carries a request of the session.
    pub(super) fn meet(&mut self, stranger: &Arc<Stranger>) {
        if self.strangers.len() < MAX_STRANGERS {
            self.strangers.push(stranger.visit());
        }
    }

    /// Opens the session again: its device has left, and sends a CONNECT.
    pub(super) fn again(token: Option<SecretString>) -> Self {
        Self { token, step: Step::Announced, ..Self::default() }
    }

    /// The hub is asked to let this connection in.
    pub(super) fn begin_attempt(&mut self, id: ConnectionId) {
        self.attempt = Some((id, None));
    }

    /// The hub has closed the connection before it was let in for good.
    pub(super) fn close_attempt(&mut self, id: ConnectionId, reason: &CloseReason) {
        if let Some((_, closed)) = self.attempt.as_mut().filter(|(attempted, _)| *attempted == id) {
            closed.get_or_insert_with(|| reason.clone());
        }
    }

    /// Whether the hub is asked to let this connection in.
    pub(super) fn is_attempted(&self, id: ConnectionId) -> bool {
        self.attempt.as_ref().is_some_and(|(attempted, _)| *attempted == id)
    }

    /// The hub has let the connection in. Returns the reason if it has closed it since.
    pub(super) fn end_attempt(&mut self) -> Option<CloseReason> {
        self.attempt.take()?.1
    }

    /// Whether a CONNECT has come that was not refused.
    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.step, Step::Announced | Step::Connecting)
    }

    /// The token of the first request.
    pub(super) fn take_token(&mut self) -> Option<SecretString> {
        self.token.take()
    }

    /// A token was accepted: the session's connections are no strangers'. To be called without a lock.
    pub(super) fn known(self) {
        for stranger in self.strangers {
            stranger.known();
        }
    }
}
