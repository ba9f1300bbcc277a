use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use dashmap::{DashMap, mapref::entry::Entry};

use super::Config;

/// Counts device connections and refuses those past the limits. A place is given back when its slot is dropped.
pub struct Connections {
    limits: Config,
    total: AtomicU32,
    by_address: DashMap<IpAddr, u32>,
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

impl Connections {
    /// Counts nothing yet.
    pub fn new(limits: Config) -> Arc<Self> {
        Arc::new(Self { limits, total: AtomicU32::new(0), by_address: DashMap::new() })
    }

    /// Takes a place for a transport from this address.
    pub fn admit_address(self: &Arc<Self>, address: IpAddr) -> Result<AddressSlot, Refused> {
        let limit = self.limits.connections;
        self.total
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |total| (total < limit).then_some(total + 1))
            .map_err(|_| Refused::Total)?;
        let mut count = self.by_address.entry(address).or_insert(0);
        if *count >= self.limits.connections_per_address {
            self.total.fetch_sub(1, Ordering::SeqCst);
            return Err(Refused::Address);
        }
        *count += 1;
        Ok(AddressSlot { connections: self.clone(), address })
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.connections.by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.connections.total.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn connections(total: u32, per_address: u32) -> Arc<Connections> {
        Connections::new(Config {
            connections: total,
            connections_per_address: per_address,
            connections_per_user: 9,
            max_payload: 0,
            grpc_calls: 0,
            idempotency_keys: 0,
            memberships: 0,
            grants: 0,
            rooms_per_connection: 0,
        })
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, last).into()
    }

    #[test]
    fn the_total_is_limited_and_given_back() {
        let connections = connections(2, 9);
        let first = connections.admit_address(address(1)).ok();
        let _second = connections.admit_address(address(2)).ok().unwrap();
        assert_eq!(connections.admit_address(address(3)).err(), Some(Refused::Total));
        drop(first);
        assert!(connections.admit_address(address(3)).is_ok());
    }

    #[test]
    fn an_address_is_limited_alone() {
        let connections = connections(9, 1);
        let slot = connections.admit_address(address(1)).ok().unwrap();
        assert_eq!(connections.admit_address(address(1)).err(), Some(Refused::Address));
        assert!(connections.admit_address(address(2)).is_ok());
        drop(slot);
        assert!(connections.admit_address(address(1)).is_ok());
        assert!(connections.by_address.is_empty(), "nothing is kept of who left");
    }
}
