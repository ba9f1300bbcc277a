use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use dashmap::{DashMap, mapref::entry::Entry};

use super::Config;
use crate::message::UserId;

/// Counts device connections and refuses those past the limits. A place is given back when its slot is dropped.
pub struct Connections {
    limits: Config,
    total: AtomicU32,
    by_address: DashMap<IpAddr, u32>,
    by_user: DashMap<UserId, u32>,
}

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `limits.connections`.
    Total,
    /// `limits.connections_per_address`.
    Address,
    /// `limits.connections_per_user`.
    User,
}

impl Refused {
    /// The name in logs and metrics, which is that of the configuration's key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Total => "connections",
            Self::Address => "connections_per_address",
            Self::User => "connections_per_user",
        }
    }
}

/// The place of one transport.
pub struct AddressSlot {
    connections: Arc<Connections>,
    address: IpAddr,
}

/// The place of one user's connection.
pub struct UserSlot {
    connections: Arc<Connections>,
    user: UserId,
}

impl Connections {
    /// Counts nothing yet.
    pub fn new(limits: Config) -> Arc<Self> {
        Arc::new(Self { limits, total: AtomicU32::new(0), by_address: DashMap::new(), by_user: DashMap::new() })
    }

    /// Takes a place for a transport from this address.
    pub fn admit_address(self: &Arc<Self>, address: IpAddr) -> Result<AddressSlot, Refused> {
        let limit = self.limits.connections;
        self.total
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |total| (total < limit).then_some(total + 1))
            .map_err(|_| Refused::Total)?;
        if !take(&self.by_address, address, self.limits.connections_per_address) {
            self.total.fetch_sub(1, Ordering::SeqCst);
            return Err(Refused::Address);
        }
        Ok(AddressSlot { connections: self.clone(), address })
    }

    /// Takes a place for a connection of this user.
    pub fn admit_user(self: &Arc<Self>, user: &UserId) -> Result<UserSlot, Refused> {
        if !take(&self.by_user, user.clone(), self.limits.connections_per_user) {
            return Err(Refused::User);
        }
        Ok(UserSlot { connections: self.clone(), user: user.clone() })
    }
}

fn take<K: Eq + std::hash::Hash>(counts: &DashMap<K, u32>, key: K, limit: u32) -> bool {
    if limit == 0 {
        return false;
    }
    let mut count = counts.entry(key).or_insert(0);
    let free = *count < limit;
    if free {
        *count += 1;
    }
    free
}

fn give_back<K: Eq + std::hash::Hash>(counts: &DashMap<K, u32>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        if *entry.get() <= 1 {
            entry.remove();
        } else {
            *entry.get_mut() -= 1;
        }
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        give_back(&self.connections.by_address, self.address);
        self.connections.total.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for UserSlot {
    fn drop(&mut self) {
        give_back(&self.connections.by_user, self.user.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn connections(total: u32, per_address: u32, per_user: u32) -> Arc<Connections> {
        Connections::new(Config {
            connections: total,
            connections_per_address: per_address,
            connections_per_user: per_user,
            max_payload: 0,
            grpc_calls: 0,
            idempotency_keys: 0,
            memberships: 0,
        })
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, last).into()
    }

    #[test]
    fn the_total_is_limited_and_given_back() {
        let connections = connections(2, 9, 9);
        let first = connections.admit_address(address(1)).ok();
        let _second = connections.admit_address(address(2)).ok().unwrap();
        assert_eq!(connections.admit_address(address(3)).err(), Some(Refused::Total));
        drop(first);
        assert!(connections.admit_address(address(3)).is_ok());
    }

    #[test]
    fn an_address_is_limited_alone() {
        let connections = connections(9, 1, 9);
        let slot = connections.admit_address(address(1)).ok().unwrap();
        assert_eq!(connections.admit_address(address(1)).err(), Some(Refused::Address));
        assert!(connections.admit_address(address(2)).is_ok());
        drop(slot);
        assert!(connections.admit_address(address(1)).is_ok());
        assert!(connections.by_address.is_empty(), "nothing is kept of who left");
    }

    #[test]
    fn a_user_is_limited_alone() {
        let connections = connections(9, 9, 1);
        let user = UserId::new("42").unwrap();
        let slot = connections.admit_user(&user).ok().unwrap();
        assert_eq!(connections.admit_user(&user).err(), Some(Refused::User));
        drop(slot);
        assert!(connections.admit_user(&user).is_ok());
        assert!(connections.by_user.is_empty());
    }
}
