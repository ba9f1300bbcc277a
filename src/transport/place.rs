use std::{
    collections::{BTreeMap, HashMap, hash_map},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;

/// How many connections may be open beyond a share while those that were aborted to make room for them are being closed.
const MAX_OVERDRAFT: usize = 8;

type Abort = Box<dyn Fn() + Send + Sync>;

/// How many connections one listener may have at a time, and which it has.
#[derive(Clone)]
pub struct Share(Arc<Inner>);

struct Inner {
    max: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    taken: usize,
    next: u64,
    /// Those that may be displaced, by age.
    displaceable: BTreeMap<u64, Abort>,
    /// How many connections each address has, as far as they are limited.
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place in its listener's share. Dropping it frees the place.
pub struct Place {
    share: Share,
    listener: &'static str,
    number: u64,
    counted: Option<IpAddr>,
}

/// Marks the connection of a [`Place`] as known from elsewhere. It does not hold the place.
#[derive(Clone)]
pub struct PlaceHandle {
    share: Share,
    number: u64,
}

/// Why a connection gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The share is used up, and no connection may be displaced.
    Full,
    /// The address has as many connections as it may have.
    Address,
}

/// A place, and the abort function of the connection that has to be closed for it.
pub(crate) struct Granted {
    pub(crate) place: Place,
    pub(crate) displaced: Option<Abort>,
}

impl Share {
    /// Allows `max` connections.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Inner { max, places: Mutex::default() }))
    }

    /// Returns how many connections are allowed.
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// Returns how many connections there are. It exceeds [`Share::max`] by a few while displaced ones are being closed.
    pub fn taken(&self) -> usize {
        self.0.places.lock().taken
    }

    /// Takes a place for a connection of `listener`. If `limited` is given, the address may have that many connections.
    ///
    /// If the share is used up, the oldest connection that may be displaced is: the caller has to call its abort function.
    pub(crate) fn take(&self, listener: &'static str, limited: Option<(IpAddr, usize)>) -> Result<Granted, NoPlace> {
        let mut places = self.0.places.lock();
        if let Some((address, max)) = limited
            && places.by_address.get(&address).copied().unwrap_or_default() >= max
        {
            return Err(NoPlace::Address);
        }
        let mut displaced = None;
        if places.taken >= self.0.max {
            if places.taken >= self.0.max.saturating_add(MAX_OVERDRAFT) {
                return Err(NoPlace::Full);
            }
            let (_, abort) = places.displaceable.pop_first().ok_or(NoPlace::Full)?;
            displaced = Some(abort);
        }
        let counted = limited.map(|(address, _)| address);
        if let Some(address) = counted {
            *places.by_address.entry(address).or_default() += 1;
        }
        let number = places.next;
        places.next += 1;
        places.taken += 1;
        Ok(Granted { place: Place { share: self.clone(), listener, number, counted }, displaced })
    }

    /// Displaces the oldest connection that may be. Returns its abort function.
    pub(crate) fn displace(&self) -> Option<Abort> {
        self.0.places.lock().displaceable.pop_first().map(|(_, abort)| abort)
    }

    /// Closes all connections that are not known.
    pub fn displace_all(&self) {
        let displaced = std::mem::take(&mut self.0.places.lock().displaceable);
        for abort in displaced.into_values() {
            abort();
        }
    }

    fn keep(&self, number: u64) {
        // The abort function is dropped after the lock: it may own the last reference to a stream.
        let abort = self.0.places.lock().displaceable.remove(&number);
        drop(abort);
    }
}

impl Place {
    /// Lets the connection be closed in favour of a new one when the listener's share is used up, until it is known. The oldest
    /// such connection goes first.
    ///
    /// `abort` closes the connection without waiting. It is called at most once, and without any lock of the share. Without it the
    /// connection is never displaced.
    pub fn on_displaced(&self, abort: impl Fn() + Send + Sync + 'static) {
        let previous = self.share.0.places.lock().displaceable.insert(self.number, Box::new(abort));
        drop(previous);
    }

    /// Makes the connection keep its place, because a token or a key of it was accepted.
    pub fn known(&self) {
        self.share.keep(self.number);
    }

    /// Returns whether a token or a key of the connection was accepted.
    pub fn is_known(&self) -> bool {
        !self.share.0.places.lock().displaceable.contains_key(&self.number)
    }

    /// Returns a handle that can mark the connection as known.
    pub fn handle(&self) -> PlaceHandle {
        PlaceHandle { share: self.share.clone(), number: self.number }
    }

    /// Returns the name of the connection's listener.
    pub fn listener(&self) -> &'static str {
        self.listener
    }
}

impl PlaceHandle {
    /// Makes the connection keep its place: see [`Place::known`]. Does nothing if the connection has ended.
    pub fn known(&self) {
        self.share.keep(self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.share.0.places.lock();
        places.taken -= 1;
        let abort = places.displaceable.remove(&self.number);
        if let Some(address) = self.counted
            && let hash_map::Entry::Occupied(mut connections) = places.by_address.entry(address)
        {
            *connections.get_mut() -= 1;
            if *connections.get() == 0 {
                connections.remove();
            }
        }
        drop(places);
        drop(abort);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn take(share: &Share) -> Result<Place, NoPlace> {
        let Granted { place, displaced } = share.take("test", None)?;
        if let Some(abort) = displaced {
            abort();
        }
        Ok(place)
    }

    fn count_aborts(place: &Place) -> Arc<AtomicUsize> {
        let aborts = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&aborts);
        place.on_displaced(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        aborts
    }

    #[test]
    fn a_dropped_place_is_free_again() {
        let share = Share::new(1);
        let place = take(&share).unwrap();
        assert_eq!(take(&share).err(), Some(NoPlace::Full));
        drop(place);
        assert!(take(&share).is_ok());
        assert_eq!(share.taken(), 0);
    }

    #[test]
    fn the_oldest_connection_that_is_not_known_is_displaced() {
        let share = Share::new(3);
        let places: Vec<Place> = (0..3).map(|_| take(&share).unwrap()).collect();
        let aborts: Vec<_> = places.iter().map(count_aborts).collect();
        let aborted = || aborts.iter().map(|aborts| aborts.load(Ordering::Relaxed)).collect::<Vec<_>>();
        places[0].known();
        let _fourth = take(&share).unwrap();
        assert_eq!(aborted(), [0, 1, 0]);
        places[2].handle().known();
        assert_eq!(take(&share).err(), Some(NoPlace::Full));
        assert_eq!(aborted(), [0, 1, 0]);
    }

    #[test]
    fn few_connections_exceed_the_share_while_displaced_ones_are_closed() {
        let share = Share::new(2);
        let mut places = Vec::new();
        let refused = loop {
            match take(&share) {
                Ok(place) => {
                    count_aborts(&place);
                    places.push(place);
                }
                Err(refused) => break refused,
            }
        };
        assert_eq!((refused, places.len()), (NoPlace::Full, 2 + MAX_OVERDRAFT));
    }

    #[test]
    fn an_address_may_have_so_many_connections() {
        let share = Share::new(10);
        let limited = |last: u8| Some((IpAddr::from([1, 1, 1, last]), 1));
        let first = share.take("test", limited(1)).ok();
        assert_eq!(share.take("test", limited(1)).err(), Some(NoPlace::Address));
        assert!(share.take("test", limited(2)).is_ok());
        assert!(share.take("test", None).is_ok());
        drop(first);
        assert!(share.take("test", limited(1)).is_ok());
        assert!(share.0.places.lock().by_address.is_empty());
    }
}
