//! Connections from which no accepted token has been seen: how many there may be, and how many bytes of request bodies and
//! messages they may hold.

mod limits;
pub use limits::StrangerLimits;

mod registry;

#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use self::registry::{Abort, Ended, Registry};
use crate::{PlaceHandle, address::counted_address, throttle::Throttle};

/// The registry of the connections from which no accepted token has been seen.
///
/// When a limit is exceeded, the oldest connections that count towards it are aborted until it is kept, so that new connections
/// always get their chance. Each operation takes time in the logarithm of the number of connections.
#[derive(Clone)]
pub struct Strangers(Arc<Inner>);

struct Inner {
    limits: StrangerLimits,
    registry: Mutex<Registry>,
    log: Throttle,
}

/// A connection from which no accepted token has been seen. Dropping it removes the connection from the registry.
pub struct Stranger {
    strangers: Arc<Inner>,
    entered: Mutex<Entered>,
    /// Of a trusted proxy's connection: each of its requests may be another client's, and enters anew.
    abort_of_proxy: Option<Abort>,
    place: Option<PlaceHandle>,
}

/// How a connection stands in the registry.
#[derive(Clone, Copy)]
struct Entered {
    number: u64,
    address: Option<IpAddr>,
}

/// One client's use of a connection: of a trusted proxy's, one request.
pub struct Visit {
    stranger: Arc<Stranger>,
    number: u64,
}

impl Strangers {
    /// Creates an empty registry.
    pub fn new(limits: StrangerLimits) -> Self {
        Self(Arc::new(Inner { limits, registry: Mutex::default(), log: Throttle::default() }))
    }

    /// Creates a registry that never ends a connection.
    pub fn unlimited() -> Self {
        Self::new(StrangerLimits::UNLIMITED)
    }

    /// Registers a new connection. `address` is its client's, or `None` if a trusted proxy has not named it yet.
    ///
    /// `abort` closes the connection without waiting. It is called at most once, from the task that exceeds a limit (even this
    /// one, before `enter` returns) and without any lock of the registry; the connection has left the registry by then.
    pub fn enter(&self, address: Option<IpAddr>, abort: impl Fn() + Send + Sync + 'static) -> Stranger {
        let (address, abort) = (address.map(counted_address), Arc::new(abort) as Abort);
        let abort_of_proxy = address.is_none().then(|| abort.clone());
        let number = self.0.update(|registry, limits, ended| registry.enter(address, abort, limits, ended));
        let entered = Mutex::new(Entered { number, address });
        Stranger { strangers: Arc::clone(&self.0), entered, abort_of_proxy, place: None }
    }

    /// Returns how many connections are registered.
    pub fn len(&self) -> usize {
        self.0.registry.lock().len()
    }

    /// Returns whether no connection is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many bytes of bodies and messages the registered connections hold.
    pub fn body_bytes(&self) -> usize {
        self.0.registry.lock().body_bytes()
    }
}

impl Stranger {
    /// Makes [`Stranger::known`] keep the connection's place, too.
    #[must_use]
    pub fn at(mut self, place: PlaceHandle) -> Self {
        self.place = Some(place);
        self
    }

    /// Removes the connection from the registry, because a token was accepted. No limit of strangers applies to it any more; a trusted
    /// proxy's is a stranger's again with its next request.
    pub fn known(&self) {
        if let Some(place) = &self.place {
            place.known();
        }
        self.strangers.leave(self.number());
    }

    /// Sets the client's address, once a trusted proxy has named it with a request. If the connection had another address, it counts for
    /// the new one only.
    pub fn locate(&self, address: IpAddr) {
        let address = counted_address(address);
        let mut entered = self.entered.lock();
        let Entered { number, .. } = *entered;
        let number = self.strangers.update(|registry, limits, ended| {
            let Some(abort) = &self.abort_of_proxy else {
                registry.locate(number, address, limits, ended);
                return number;
            };
            registry.leave(number);
            registry.enter(Some(address), abort.clone(), limits, ended)
        });
        *entered = Entered { number, address: Some(address) };
    }

    /// Returns the client's address as it is counted, once it is known.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.entered.lock().address
    }

    /// Returns the visit of the client whose request the connection carries now.
    pub fn visit(self: &Arc<Self>) -> Visit {
        Visit { stranger: self.clone(), number: self.number() }
    }

    fn number(&self) -> u64 {
        self.entered.lock().number
    }

    /// Counts bytes of a request body, or of a message, that have arrived.
    pub fn add_body_bytes(&self, bytes: usize) {
        let number = self.number();
        self.strangers.update(|registry, limits, ended| registry.add_body_bytes(number, bytes, limits, ended));
    }

    /// Stops counting bytes that were added, because they are no longer in memory.
    pub fn release_body_bytes(&self, bytes: usize) {
        let number = self.number();
        self.strangers.registry.lock().release_body_bytes(number, bytes);
    }
}

impl Visit {
    /// The same as [`Stranger::known`], unless the connection carries another client's request by now.
    pub fn known(&self) {
        if self.stranger.number() == self.number {
            self.stranger.known();
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.leave(self.number());
    }
}

impl Inner {
    /// Runs an operation under the lock, and then, without it, aborts the connections that the operation ended.
    fn update<T>(&self, operation: impl FnOnce(&mut Registry, &StrangerLimits, &mut Vec<Ended>) -> T) -> T {
        let mut ended = Vec::new();
        let result = operation(&mut self.registry.lock(), &self.limits, &mut ended);
        for ended in ended {
            self.abort(&ended);
        }
        result
    }

    fn abort(&self, ended: &Ended) {
        let reason = ended.limit.as_str();
        metrics::counter!("transport_strangers_ended_total", "reason" => reason).increment(1);
        if let Some(suppressed) = self.log.permit() {
            tracing::info!(
                reason,
                client.address = ended.address.map(tracing::field::display),
                body.size_bytes = ended.body_bytes,
                suppressed,
                "closed a connection without an accepted token: too many of them or of their bytes (limits.unauthenticated)"
            );
        }
        (ended.abort)();
    }

    fn leave(&self, number: u64) {
        // The abort function is dropped after the lock: it may own the last reference to a stream.
        let entry = self.registry.lock().leave(number);
        drop(entry);
    }
}
