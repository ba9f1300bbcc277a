use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::limits::{Limit, StrangerLimits};

pub(super) type Abort = Arc<dyn Fn() + Send + Sync>;

/// The connections by number, which is their age: the first is the oldest.
#[derive(Default)]
pub(super) struct Registry {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    /// What they hold in all.
    held: Held,
    /// Those that have connections.
    addresses: HashMap<IpAddr, Address>,
}

/// A registered connection.
pub(super) struct Entry {
    address: Option<IpAddr>,
    body_bytes: usize,
    abort: Abort,
}

/// A connection that was removed because a limit was exceeded. Its abort function has to be called.
pub(super) struct Ended {
    pub(super) limit: Limit,
    pub(super) address: Option<IpAddr>,
    pub(super) body_bytes: usize,
    pub(super) abort: Abort,
}

#[derive(Default)]
struct Address {
    connections: BTreeSet<u64>,
    held: Held,
}

/// Bytes of bodies, and the connections that hold any.
#[derive(Default)]
struct Held {
    bytes: usize,
    holders: BTreeSet<u64>,
}

impl Registry {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.held.bytes
    }

    /// Adds a connection. Returns its number.
    pub(super) fn enter(
        &mut self,
        address: Option<IpAddr>,
        abort: Abort,
        limits: &StrangerLimits,
        ended: &mut Vec<Ended>,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        self.insert(number, Entry { address, body_bytes: 0, abort });
        self.enforce(address, limits, ended);
        number
    }

    /// Removes a connection, if it is still here.
    pub(super) fn leave(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.held.set(number, entry.body_bytes, 0);
        if let Some(address) = entry.address
            && let Some(of_address) = self.addresses.get_mut(&address)
        {
            of_address.connections.remove(&number);
            of_address.held.set(number, entry.body_bytes, 0);
            if of_address.connections.is_empty() {
                self.addresses.remove(&address);
            }
        }
        Some(entry)
    }

    /// Moves a connection to another address, if it is still here.
    pub(super) fn locate(&mut self, number: u64, address: IpAddr, limits: &StrangerLimits, ended: &mut Vec<Ended>) {
        if self.entries.get(&number).is_none_or(|entry| entry.address == Some(address)) {
            return;
        }
        if let Some(entry) = self.leave(number) {
            self.insert(number, Entry { address: Some(address), ..entry });
            self.enforce(Some(address), limits, ended);
        }
    }

    pub(super) fn add_body_bytes(
        &mut self,
        number: u64,
        bytes: usize,
        limits: &StrangerLimits,
        ended: &mut Vec<Ended>,
    ) {
        let address = self.change_body_bytes(number, |held| held.saturating_add(bytes));
        self.enforce(address, limits, ended);
    }

    pub(super) fn release_body_bytes(&mut self, number: u64, bytes: usize) {
        self.change_body_bytes(number, |held| held.saturating_sub(bytes));
    }

    /// Changes how many bytes a connection holds, if it is still here. Returns its address.
    fn change_body_bytes(&mut self, number: u64, change: impl FnOnce(usize) -> usize) -> Option<IpAddr> {
        let entry = self.entries.get_mut(&number)?;
        let (before, after) = (entry.body_bytes, change(entry.body_bytes));
        entry.body_bytes = after;
        self.held.set(number, before, after);
        if let Some(of_address) = entry.address.and_then(|address| self.addresses.get_mut(&address)) {
            of_address.held.set(number, before, after);
        }
        entry.address
    }

    fn insert(&mut self, number: u64, entry: Entry) {
        self.held.set(number, 0, entry.body_bytes);
        if let Some(address) = entry.address {
            let of_address = self.addresses.entry(address).or_default();
            of_address.connections.insert(number);
            of_address.held.set(number, 0, entry.body_bytes);
        }
        self.entries.insert(number, entry);
    }

    /// Ends connections until the limits of the address and those in all are kept. An address's own come first, so that a
    /// client that exceeds them ends no connection of another.
    fn enforce(&mut self, address: Option<IpAddr>, limits: &StrangerLimits, ended: &mut Vec<Ended>) {
        while let Some((limit, number)) = self.exceeded(address, limits) {
            let Some(Entry { address, body_bytes, abort }) = self.leave(number) else {
                return;
            };
            ended.push(Ended { limit, address, body_bytes, abort });
        }
    }

    /// Returns a limit that is exceeded, and the oldest connection that counts towards it.
    fn exceeded(&self, address: Option<IpAddr>, limits: &StrangerLimits) -> Option<(Limit, u64)> {
        if let Some(of_address) = address.and_then(|address| self.addresses.get(&address)) {
            if of_address.connections.len() > limits.connections_per_address {
                return Some((Limit::ConnectionsPerAddress, *of_address.connections.first()?));
            }
            if of_address.held.bytes > limits.body_bytes_per_address {
                return Some((Limit::BodyBytesPerAddress, *of_address.held.holders.first()?));
            }
        }
        if self.entries.len() > limits.connections {
            return Some((Limit::Connections, *self.entries.first_key_value()?.0));
        }
        if self.held.bytes > limits.body_bytes {
            return Some((Limit::BodyBytes, *self.held.holders.first()?));
        }
        None
    }
}

impl Held {
    /// Changes what a connection holds from `before` to `after` bytes.
    fn set(&mut self, number: u64, before: usize, after: usize) {
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        if after == 0 {
            self.holders.remove(&number);
        } else if before == 0 {
            self.holders.insert(number);
        }
    }
}
