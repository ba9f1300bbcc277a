//! The state machine of a device, without what it is made of: `K` is kept of an accepted token, `S` is the way to the device.

use secrecy::SecretString;

use super::opening::Opening;
use crate::message::{CloseReason, ConnectionId};

/// How far a device has come. What concerns one connection names it, since a device may leave and connect again: what an earlier
/// connection has begun must not reach a later one.
pub(super) enum Phase<K, S> {
    /// No CONNECT was accepted. One may be under way.
    Opening(Box<Opening>),
    /// A CONNECT was accepted, and its answer is not queued yet: nothing may be sent before that.
    Admitted(Box<Accepted<K, S>>),
    /// It was closed meanwhile, for this reason, of which the device is told behind the answer.
    Closing(Box<Accepted<K, S>>, CloseReason),
    /// The device gets what is sent to it.
    Live(Box<Accepted<K, S>>),
    /// The device has left the namespace `/`, and may connect again with the token of its first request.
    Left(Option<SecretString>),
    /// Its session has ended.
    Ended,
}

/// A connection with an accepted token.
pub(super) struct Accepted<K, S> {
    id: ConnectionId,
    kept: K,
    socket: S,
    /// The token of the first request.
    token: Option<SecretString>,
}

impl<K, S: Clone> Phase<K, S> {
    /// Looks at what is kept until a token is accepted. `None`: one was, or the session has ended.
    pub(super) fn opening(&mut self) -> Option<&mut Opening> {
        match self {
            Self::Opening(opening) => Some(opening),
            Self::Admitted(_) | Self::Closing(..) | Self::Live(_) | Self::Left(_) | Self::Ended => None,
        }
    }

    /// The connection with an accepted token, if it has not ended.
    fn accepted(&mut self) -> Option<&mut Accepted<K, S>> {
        match self {
            Self::Admitted(accepted) | Self::Closing(accepted, _) | Self::Live(accepted) => Some(accepted),
            Self::Opening(_) | Self::Left(_) | Self::Ended => None,
        }
    }

    /// What is kept of the connection that there is.
    pub(super) fn current(&mut self) -> Option<&mut K> {
        self.accepted().map(|accepted| &mut accepted.kept)
    }

    /// What is kept of this connection. `None`: it has ended.
    pub(super) fn kept(&mut self, id: ConnectionId) -> Option<&mut K> {
        self.accepted().filter(|accepted| accepted.id == id).map(|accepted| &mut accepted.kept)
    }

    /// The way to the device of this connection, if it is live.
    pub(super) fn socket(&self, id: ConnectionId) -> Option<S> {
        match self {
            Self::Live(accepted) if accepted.id == id => Some(accepted.socket.clone()),
            Self::Opening(_) | Self::Admitted(_) | Self::Closing(..) | Self::Live(_) | Self::Left(_) | Self::Ended => {
                None
            }
        }
    }

    /// A CONNECT has come. False: it is one too many.
    pub(super) fn announce(&mut self) -> bool {
        match self {
            Self::Opening(opening) => opening.announce(),
            Self::Left(token) => {
                *self = Self::Opening(Box::new(Opening::again(token.take())));
                true
            }
            Self::Admitted(_) | Self::Closing(..) | Self::Live(_) | Self::Ended => false,
        }
    }

    /// The CONNECT of this connection was accepted, and `socket` will be the way to the device. Returns what was kept until then, to be
    /// dropped without a lock; or gives `kept` back if the session has ended, or the device has left, meanwhile.
    pub(super) fn admit(&mut self, id: ConnectionId, kept: K, socket: S) -> Result<Box<Opening>, K> {
        let Some(opening) = self.opening().filter(|opening| opening.is_attempted(id)) else {
            return Err(kept);
        };
        let accepted = Box::new(Accepted { id, kept, socket, token: opening.take_token() });
        let next = match opening.end_attempt() {
            Some(reason) => Self::Closing(accepted, reason),
            None => Self::Admitted(accepted),
        };
        match std::mem::replace(self, next) {
            Self::Opening(opening) => Ok(opening),
            Self::Admitted(_) | Self::Closing(..) | Self::Live(_) | Self::Left(_) | Self::Ended => {
                unreachable!("it was opening above")
            }
        }
    }

    /// The answer to a CONNECT is queued: from now on the device can be sent to, if `is_its` says so of the way to it. Returns what is
    /// kept of the connection, and the reason if it was closed meanwhile. `None`: the connection has ended.
    pub(super) fn answered(&mut self, is_its: impl Fn(&S) -> bool) -> Option<(&mut K, Option<CloseReason>)> {
        if !matches!(self, Self::Admitted(accepted) | Self::Closing(accepted, _) if is_its(&accepted.socket)) {
            return None;
        }
        let reason = match std::mem::replace(self, Self::Ended) {
            Self::Admitted(accepted) => {
                *self = Self::Live(accepted);
                None
            }
            Self::Closing(accepted, reason) => {
                *self = Self::Live(accepted);
                Some(reason)
            }
            Self::Opening(_) | Self::Live(_) | Self::Left(_) | Self::Ended => {
                unreachable!("it waited for its answer above")
            }
        };
        self.current().map(|kept| (kept, reason))
    }

    /// The hub has closed this connection. Returns the way to tell the device; `None`: it is told later, or has none any more.
    pub(super) fn close(&mut self, id: ConnectionId, reason: &CloseReason) -> Option<S> {
        if let Self::Opening(opening) = self {
            opening.close_attempt(id, reason);
            return None;
        }
        self.accepted().filter(|accepted| accepted.id == id)?;
        match std::mem::replace(self, Self::Ended) {
            Self::Admitted(accepted) => {
                *self = Self::Closing(accepted, reason.clone());
                None
            }
            other @ (Self::Opening(_) | Self::Closing(..) | Self::Live(_) | Self::Left(_) | Self::Ended) => {
                *self = other;
                self.socket(id)
            }
        }
    }

    /// The device has left the namespace. Returns what it was before, to be dropped without a lock; `None`: it had not connected.
    pub(super) fn leave(&mut self) -> Option<Self> {
        let token = match self {
            Self::Opening(opening) if opening.is_connecting() => opening.take_token(),
            Self::Admitted(accepted) | Self::Closing(accepted, _) | Self::Live(accepted) => accepted.token.take(),
            Self::Opening(_) | Self::Left(_) | Self::Ended => return None,
        };
        Some(std::mem::replace(self, Self::Left(token)))
    }

    /// The session has ended. Returns what the device was before, to be dropped without a lock.
    pub(super) fn end(&mut self) -> Self {
        std::mem::replace(self, Self::Ended)
    }

    /// What was kept of the connection.
    pub(super) fn into_kept(self) -> Option<K> {
        match self {
            Self::Admitted(accepted) | Self::Closing(accepted, _) | Self::Live(accepted) => Some(accepted.kept),
            Self::Opening(_) | Self::Left(_) | Self::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{super::opening::Attempt, *};
    use crate::auth::{InvalidToken, TokenRefused};
    use crate::message::CloseCode;

    /// What may happen to a device and to its connections, which are numbered; late as well, when there is a newer one.
    #[derive(Clone, Debug)]
    enum Step {
        /// The device sends a CONNECT.
        Connect,
        /// The server begins to look at it.
        Attempt,
        /// Its token is refused.
        Refuse,
        /// Its token is good: the hub is asked.
        Begin,
        /// The hub has let a connection in.
        Admit(usize),
        /// The answer to its CONNECT is queued.
        Answer(usize),
        /// The hub closes it.
        Close(usize),
        /// The device leaves the namespace.
        Leave,
        /// The session ends.
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        let any = || 0..4_usize;
        prop_oneof![
            4 => Just(Step::Connect),
            4 => Just(Step::Attempt),
            1 => Just(Step::Refuse),
            4 => Just(Step::Begin),
            4 => any().prop_map(Step::Admit),
            4 => any().prop_map(Step::Answer),
            3 => any().prop_map(Step::Close),
            2 => Just(Step::Leave),
            1 => Just(Step::End),
        ]
    }

    /// Connections by their numbers.
    #[derive(Default)]
    struct World {
        connections: Vec<ConnectionId>,
        is_looking: bool,
        /// Let in, live, closed by the hub, those whose devices were told, and those of which what was kept was given back.
        admitted: BTreeSet<usize>,
        live: BTreeSet<usize>,
        closed: BTreeSet<usize>,
        told: BTreeSet<usize>,
        gone: BTreeSet<usize>,
    }

    impl World {
        fn step(&mut self, phase: &mut Phase<usize, usize>, step: &Step) {
            match *step {
                Step::Connect => _ = phase.announce(),
                Step::Attempt => {
                    let attempt = phase.opening().map(Opening::attempt);
                    self.is_looking |= matches!(attempt, Some(Attempt::First(_)));
                }
                Step::Refuse if std::mem::take(&mut self.is_looking) => {
                    let refused = TokenRefused::Invalid(InvalidToken::Expired);
                    phase.opening().into_iter().for_each(|opening| opening.refuse(refused));
                }
                Step::Begin if std::mem::take(&mut self.is_looking) => {
                    let id = ConnectionId::random();
                    phase.opening().into_iter().for_each(|opening| opening.begin_attempt(id));
                    self.connections.push(id);
                }
                Step::Admit(number) if number < self.connections.len() && self.admitted.insert(number) => {
                    if let Err(kept) = phase.admit(self.connections[number], number, number) {
                        self.let_go(Some(kept));
                    }
                }
                Step::Answer(number) if self.admitted.contains(&number) => {
                    if let Some((kept, reason)) = phase.answered(|socket| *socket == number) {
                        assert_eq!(*kept, number, "another connection went live");
                        assert!(self.live.insert(number), "it went live twice");
                        assert!(reason.is_none() || self.told.insert(number), "it was told twice");
                    }
                }
                // The hub closes a connection once.
                Step::Close(number) if number < self.connections.len() && self.closed.insert(number) => {
                    if let Some(socket) = phase.close(self.connections[number], &CloseCode::Disconnected.into()) {
                        assert_eq!(socket, number, "another device was told");
                        assert!(self.live.contains(&number), "it was told before its answer");
                        assert!(self.told.insert(number), "it was told twice");
                    }
                }
                Step::Leave => self.let_go(phase.leave().and_then(Phase::into_kept)),
                Step::End => self.let_go(phase.end().into_kept()),
                Step::Refuse | Step::Begin | Step::Admit(_) | Step::Answer(_) | Step::Close(_) => {}
            }
        }

        fn let_go(&mut self, kept: Option<usize>) {
            if let Some(kept) = kept {
                assert!(self.gone.insert(kept), "it ended twice");
            }
        }
    }

    proptest! {
        #[test]
        fn each_connection_goes_live_is_told_and_ends_once_and_no_other_in_its_place(
            steps in prop::collection::vec(step(), 0..40),
            ends in any::<bool>(),
        ) {
            let (mut world, mut phase) = (World::default(), Phase::Opening(Box::default()));
            for step in &steps {
                world.step(&mut phase, step);
            }
            // What is under way comes to its end.
            for number in 0..world.connections.len() {
                world.step(&mut phase, &Step::Admit(number));
                world.step(&mut phase, &Step::Answer(number));
            }
            prop_assert!(world.told.is_subset(&world.closed), "{:?} told of {:?}", world.told, world.closed);
            if let Some(current) = phase.current().copied() {
                prop_assert!(world.live.contains(&current), "connection {} is stuck", current);
                let is_told = !world.closed.contains(&current) || world.told.contains(&current);
                prop_assert!(is_told, "connection {} is closed, and its device is not told", current);
            }
            // A device that has not ended, nor was refused, can connect, unless it is connected.
            if phase.opening().is_none() && phase.current().is_none() && !matches!(phase, Phase::Ended) {
                prop_assert!(phase.announce(), "no way back");
            }
            world.step(&mut phase, if ends { &Step::End } else { &Step::Leave });
            prop_assert!(phase.current().is_none());
            prop_assert_eq!(&world.gone, &world.admitted, "each ends");
        }
    }
}
