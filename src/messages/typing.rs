//! Who types to whom. A device says that its user begins, and that they have ended; what it does not say any more ends by itself.

use std::{
    collections::{HashMap, hash_map::Entry},
    convert::Infallible,
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    Error, Field, Messages, TYPING,
    wire::{TypingBody, payload},
};
use crate::delivery::Admission;
use crate::message::{ConnectionId, UserId};

/// Users to whom one connection types at one time.
const MAX_PEERS: usize = 16;

/// By connection and peer.
#[derive(Default)]
pub(super) struct Typists(Mutex<HashMap<ConnectionId, HashMap<UserId, Typing>>>);

/// A connection types to a peer.
struct Typing {
    /// Unless the device says so again before.
    until: Instant,
    /// The task that watches over it ends when this is dropped.
    _watched: oneshot::Sender<Infallible>,
}

/// What became of a sign that a connection types.
enum Begun {
    /// It did not before. The receiver fails when it has ended.
    New(oneshot::Receiver<Infallible>),
    Known,
    /// It types to too many.
    TooMany,
}

impl Typists {
    /// Notes that a connection types to a peer.
    fn begin(&self, connection: ConnectionId, peer: &UserId) -> Begun {
        let mut typists = self.0.lock();
        let peers = typists.entry(connection).or_default();
        let (count, until) = (peers.len(), Instant::now() + TYPING);
        match peers.entry(peer.clone()) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().until = until;
                Begun::Known
            }
            Entry::Vacant(_) if count >= MAX_PEERS => Begun::TooMany,
            Entry::Vacant(entry) => {
                let (sender, ended) = oneshot::channel();
                entry.insert(Typing { until, _watched: sender });
                Begun::New(ended)
            }
        }
    }

    /// Until when a connection types to a peer.
    fn until(&self, connection: ConnectionId, peer: &UserId) -> Option<Instant> {
        Some(self.0.lock().get(&connection)?.get(peer)?.until)
    }

    /// Notes that it types no more. True if it did before.
    fn end(&self, connection: ConnectionId, peer: &UserId) -> bool {
        let mut typists = self.0.lock();
        let Entry::Occupied(mut peers) = typists.entry(connection) else { return false };
        let did = peers.get_mut().remove(peer).is_some();
        if peers.get().is_empty() {
            peers.remove();
        }
        did
    }
}

impl Messages {
    /// A device types to a peer, who is told so, unless one of the two has blocked the other. After 5 s without another call, and when the
    /// connection ends, the peer is told that it has ended.
    pub async fn typing(&self, admission: &Admission, peer: &UserId, needs_grant: bool) -> Result<(), Error> {
        let (user, connection) = (admission.user(), admission.id());
        if user == peer {
            return Err(Error::invalid(Field::Receiver, "is the sender"));
        }
        if let Some(refusal) = self.inner.store.direct_refusal(user, peer, needs_grant).await? {
            return Err(refusal.into());
        }
        match self.inner.typists.begin(connection, peer) {
            Begun::TooMany => return Err(Error::Denied("the connection types to 16 users, which is the most")),
            Begun::Known => {}
            Begun::New(ended) => {
                let (messages, peer, user) = (self.clone(), peer.clone(), user.clone());
                let gone = admission.gone();
                let watching = async move {
                    let ended = async { drop(ended.await) };
                    messages.watch_typing((connection, &user, &peer), gone, ended).await;
                };
                self.inner.lifecycle.spawn(watching);
            }
        }
        self.tell(peer, &self.inner.events.typing_start, payload(&TypingBody::of(user)), None).await;
        Ok(())
    }

    /// A device has ended typing.
    pub async fn typing_ended(&self, admission: &Admission, peer: &UserId) {
        self.end_typing(admission.id(), admission.user(), peer).await;
    }

    async fn watch_typing(
        &self,
        (connection, user, peer): (ConnectionId, &UserId, &UserId),
        gone: impl Future<Output = ()>,
        ended: impl Future<Output = ()>,
    ) {
        let silence = async {
            while let Some(until) = self.inner.typists.until(connection, peer).filter(|until| *until > Instant::now()) {
                sleep_until(until).await;
            }
        };
        tokio::select! {
            () = ended => return,
            () = gone => {}
            () = silence => {}
        }
        self.end_typing(connection, user, peer).await;
    }

    async fn end_typing(&self, connection: ConnectionId, user: &UserId, peer: &UserId) {
        if self.inner.typists.end(connection, peer) {
            self.tell(peer, &self.inner.events.typing_stop, payload(&TypingBody::of(user)), None).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: usize) -> UserId {
        UserId::new(&id.to_string()).unwrap()
    }

    #[test]
    fn a_watcher_ends_when_the_connection_has_ended_typing() {
        let (typists, connection) = (Typists::default(), ConnectionId::random());
        let mut watchers = Vec::new();
        for _ in 0..3 {
            let Begun::New(watcher) = typists.begin(connection, &user(1)) else { panic!("it did not type before") };
            assert!(matches!(typists.begin(connection, &user(1)), Begun::Known));
            assert!(typists.end(connection, &user(1)) && !typists.end(connection, &user(1)));
            watchers.push(watcher);
        }
        assert!(watchers.iter_mut().all(|watcher| watcher.try_recv() == Err(oneshot::error::TryRecvError::Closed)));
        assert!(typists.0.lock().is_empty());
    }

    #[test]
    fn a_connection_types_to_sixteen_users_at_most() {
        let (typists, connection) = (Typists::default(), ConnectionId::random());
        let begun: Vec<_> = (0..20).map(|id| typists.begin(connection, &user(id))).collect();
        assert_eq!(begun.iter().filter(|begun| matches!(begun, Begun::New(_))).count(), MAX_PEERS);
        assert!(matches!(typists.begin(connection, &user(0)), Begun::Known));
        assert!(typists.end(connection, &user(0)) && matches!(typists.begin(connection, &user(19)), Begun::New(_)));
    }
}
