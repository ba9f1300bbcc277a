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
    Admitted(Box<Accepted<K>>),
    /// It was closed meanwhile, for this reason, of which the device is told behind the answer.
    Closing(Box<Accepted<K>>, CloseReason),
    /// The device gets what is sent to it.
    Live(Box<Accepted<K>>, S),
    /// The device has left the namespace `/`, and may connect again with the token of its first request.
    Left(Option<SecretString>),
    /// Its session has ended.
    Ended,
}

/// A connection with an accepted token.
pub(super) struct Accepted<K> {
    id: ConnectionId,
    kept: K,
    /// The token of the first request.
    token: Option<SecretString>,
}

/// What follows when a CONNECT has been answered.
#[derive(Debug)]
pub(super) enum Answered {
    /// The connection goes live.
    Live,
    /// It was closed meanwhile.
    Closed(CloseReason),
    /// Its session has ended, or the device has left.
    Ended,
}

impl<K, S: Clone> Phase<K, S> {
    /// Looks at what is kept until a token is accepted. `None`: one was, or the session has ended.
    pub(super) fn opening(&mut self) -> Option<&mut Opening> {
        match self {
            Self::Opening(opening) => Some(opening),
            Self::Admitted(_) | Self::Closing(..) | Self::Live(..) | Self::Left(_) | Self::Ended => None,
        }
    }

    /// The connection with an accepted token, if it has not ended.
    fn accepted(&mut self) -> Option<&mut Accepted<K>> {
        match self {
            Self::Admitted(accepted) | Self::Closing(accepted, _) | Self::Live(accepted, _) => Some(accepted),
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
            Self::Live(accepted, socket) if accepted.id == id => Some(socket.clone()),
            Self::Opening(_) | Self::Admitted(_) | Self::Closing(..) | Self::Live(..) | Self::Left(_) | Self::Ended => {
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
            Self::Admitted(_) | Self::Closing(..) | Self::Live(..) | Self::Ended => false,
        }
    }

    /// The CONNECT of this connection was accepted. Returns what was kept until then, to be dropped without a lock; or gives `kept` back
    /// if the session has ended, or the device has left, meanwhile.
    pub(super) fn admit(&mut self, id: ConnectionId, kept: K) -> Result<Box<Opening>, K> {
        let Some(opening) = self.opening().filter(|opening| opening.is_attempted(id)) else {
            return Err(kept);
        };
        let accepted = Box::new(Accepted { id, kept, token: opening.take_token() });
        let next = match opening.end_attempt() {
            Some(reason) => Self::Closing(accepted, reason),
            None => Self::Admitted(accepted),
        };
        match std::mem::replace(self, next) {
            Self::Opening(opening) => Ok(opening),
            Self::Admitted(_) | Self::Closing(..) | Self::Live(..) | Self::Left(_) | Self::Ended => {
                unreachable!("it was opening above")
            }
        }
    }

    /// The answer to the CONNECT is queued: from now on the device can be sent to.
    pub(super) fn answered(&mut self, socket: S) -> Answered {
        match std::mem::replace(self, Self::Ended) {
            Self::Admitted(accepted) => {
                *self = Self::Live(accepted, socket);
                Answered::Live
            }
            Self::Closing(accepted, reason) => {
                *self = Self::Live(accepted, socket);
                Answered::Closed(reason)
            }
            other @ (Self::Opening(_) | Self::Live(..) | Self::Left(_) | Self::Ended) => {
                *self = other;
                Answered::Ended
            }
        }
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
            Self::Live(accepted, socket) => {
                *self = Self::Live(accepted, socket.clone());
                Some(socket)
            }
            other @ (Self::Opening(_) | Self::Closing(..) | Self::Left(_) | Self::Ended) => {
                *self = other;
                None
            }
        }
    }

    /// The device has left the namespace. Returns what was kept of it; to be dropped without a lock.
    pub(super) fn leave(&mut self) -> Option<K> {
        match std::mem::replace(self, Self::Ended) {
            Self::Opening(mut opening) if opening.is_connecting() => {
                *self = Self::Left(opening.take_token());
                None
            }
            Self::Admitted(accepted) | Self::Closing(accepted, _) | Self::Live(accepted, _) => {
                let Accepted { kept, token, .. } = *accepted;
                *self = Self::Left(token);
                Some(kept)
            }
            other @ (Self::Opening(_) | Self::Left(_) | Self::Ended) => {
                *self = other;
                None
            }
        }
    }
}

impl<K> Accepted<K> {
    pub(super) fn into_kept(self) -> K {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{super::opening::Attempt, *};
    use crate::message::CloseCode;

    /// What may happen to a device and to its connections, which are numbered.
    #[derive(Clone, Debug)]
    enum Step {
        /// The device sends a CONNECT.
        Connect,
        /// The server has looked at its token and asks the hub.
        Begin,
        /// The hub has let the last connection in.
        Admit,
        /// The answer to its CONNECT is queued.
        Answer,
        /// The hub closes a connection.
        Close(usize),
        /// The device leaves the namespace.
        Leave,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Connect),
            Just(Step::Begin),
            Just(Step::Admit),
            Just(Step::Answer),
            (0..4_usize).prop_map(Step::Close),
            Just(Step::Leave),
        ]
    }

    #[derive(Default)]
    struct World {
        connections: Vec<ConnectionId>,
        /// Those that the hub has closed, and those whose devices were told, or whose sessions were left.
        closed: BTreeSet<usize>,
        told: BTreeSet<usize>,
        gone: BTreeSet<usize>,
    }

    impl World {
        fn step(&mut self, phase: &mut Phase<usize, ()>, step: &Step) {
            let last = self.connections.len().checked_sub(1);
            match step {
                Step::Connect if phase.announce() => {
                    if let Some(opening) = phase.opening()
                        && let Attempt::First(_) = opening.attempt()
                    {}
                }
                Step::Begin => {
                    let id = ConnectionId::random();
                    if phase.opening().is_some_and(|opening| opening.is_connecting() && opening.begin_attempt(id)) {
                        self.connections.push(id);
                    }
                }
                Step::Admit => {
                    if let Some(last) = last.filter(|last| !self.gone.contains(last))
                        && phase.current().is_none()
                        && phase.admit(self.connections[last], last).is_err()
                    {
                        self.gone.insert(last);
                    }
                }
                Step::Answer => {
                    let current = phase.current().copied();
                    if let Answered::Closed(_) = phase.answered(())
                        && let Some(current) = current
                    {
                        assert!(self.told.insert(current), "told twice");
                    }
                }
                // The hub closes a connection once.
                Step::Close(number) if *number < self.connections.len() && self.closed.insert(*number) => {
                    if phase.close(self.connections[*number], &CloseCode::Disconnected.into()).is_some() {
                        assert!(self.told.insert(*number), "told twice");
                    }
                }
                Step::Leave => self.gone.extend(phase.leave()),
                Step::Connect | Step::Close(_) => {}
            }
        }
    }

    proptest! {
        #[test]
        fn the_device_of_a_closed_connection_is_told_once_and_that_of_no_other(
            steps in prop::collection::vec(step(), 0..24),
        ) {
            let (mut world, mut phase) = (World::default(), Phase::Opening(Box::default()));
            for step in &steps {
                world.step(&mut phase, step);
            }
            // What is under way comes to its end.
            world.step(&mut phase, &Step::Admit);
            world.step(&mut phase, &Step::Answer);
            prop_assert!(world.told.is_subset(&world.closed), "{:?} told of {:?}", world.told, world.closed);
            if let Some(current) = phase.current().copied() {
                prop_assert!(
                    !world.closed.contains(&current) || world.told.contains(&current),
                    "connection {current} is closed, and its device is not told"
                );
            }
        }
    }
}
