//! Who types to whom. A device says that its user begins, and that they have ended; what it does not say any more ends by itself.

use std::collections::{HashMap, hash_map::Entry};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{
    Error, Messages, TYPING,
    wire::{TypingBody, payload},
};
use crate::delivery::Admission;
use crate::message::{ConnectionId, UserId};

/// Users to whom one connection types at one time.
const MAX_PEERS: usize = 16;

/// By connection and peer: until when.
#[derive(Default)]
pub(super) struct Typists(Mutex<HashMap<ConnectionId, HashMap<UserId, Instant>>>);

impl Typists {
    /// Notes that a connection types to a peer. True if it did not before. `None`: it types to too many.
    fn begin(&self, connection: ConnectionId, peer: &UserId) -> Option<bool> {
        let mut typists = self.0.lock();
        let peers = typists.entry(connection).or_default();
        let (count, until) = (peers.len(), Instant::now() + TYPING);
        match peers.entry(peer.clone()) {
            Entry::Occupied(mut entry) => {
                entry.insert(until);
                Some(false)
            }
            Entry::Vacant(_) if count >= MAX_PEERS => None,
            Entry::Vacant(entry) => {
                entry.insert(until);
                Some(true)
            }
        }
    }

    /// Until when a connection types to a peer.
    fn until(&self, connection: ConnectionId, peer: &UserId) -> Option<Instant> {
        self.0.lock().get(&connection)?.get(peer).copied()
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
            return Err(Error::invalid("receiverId", "is the sender"));
        }
        if let Some(refusal) = self.inner.store.direct_refusal(user, peer, needs_grant).await? {
            return Err(refusal.into());
        }
        match self.inner.typists.begin(connection, peer) {
            None => return Err(Error::Denied("the connection types to 16 users, which is the most")),
            Some(false) => {}
            Some(true) => {
                let (messages, peer, user) = (self.clone(), peer.clone(), user.clone());
                let gone = admission.gone();
                self.inner.lifecycle.spawn(async move { messages.watch_typing(connection, &user, &peer, gone).await });
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
        connection: ConnectionId,
        user: &UserId,
        peer: &UserId,
        gone: impl Future<Output = ()>,
    ) {
        let silence = async {
            while let Some(until) = self.inner.typists.until(connection, peer).filter(|until| *until > Instant::now()) {
                sleep_until(until).await;
            }
        };
        tokio::select! {
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
