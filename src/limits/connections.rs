use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use dashmap::{DashMap, mapref::entry::Entry};

use super::{Config, Meters, TooFast};

/// Counts device connections and refuses those past the limits. A place is given back when its slot is dropped.
pub struct Connections {
    limits: Config,
    total: AtomicU32,
    by_address: DashMap<IpAddr, u32>,
    connects: Meters<IpAddr>,
}

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitExceeded {
    /// `limits.connections`.
    Total,
    /// `limits.connections_per_address`.
    Address,
    /// `limits.connections_per_user`.
    User,
    /// `limits.connects_per_address`.
    AddressConnects(TooFast),
    /// `limits.connects_per_user`.
    UserConnects(TooFast),
}

/// A place may become free at any time.
const RETRY_AFTER: u64 = 5;

impl LimitExceeded {
    /// The name in logs and metrics, which is that of the configuration's key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Total => "connections",
            Self::Address => "connections_per_address",
            Self::User => "connections_per_user",
            Self::AddressConnects(_) => "connects_per_address",
            Self::UserConnects(_) => "connects_per_user",
        }
    }

    /// Whether nobody at all is let in, and not one address or user alone.
    pub fn is_for_all(self) -> bool {
        matches!(self, Self::Total)
    }

    /// When to try again, in whole seconds, as HTTP's `Retry-After` has it: rather later than too early.
    pub fn retry_after_seconds(self) -> u64 {
        match self {
            Self::Total | Self::Address | Self::User => RETRY_AFTER,
            Self::AddressConnects(TooFast { retry_after }) | Self::UserConnects(TooFast { retry_after }) => {
                retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)
            }
        }
    }
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limits.{} is met: try again in {} s", self.as_str(), self.retry_after_seconds())
    }
}

/// The place of one transport.
pub struct AddressSlot {
    connections: Arc<Connections>,
    /// Or the network that counts as one.
    address: IpAddr,
}

impl Connections {
    /// Counts nothing yet.
    pub fn new(limits: Config) -> Arc<Self> {
        let connects = Meters::new(limits.connects_per_address);
        Arc::new(Self { limits, total: AtomicU32::new(0), by_address: DashMap::new(), connects })
    }

    /// How many transports there are.
    pub fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Takes a place for a transport from this address.
    pub fn admit_address(self: &Arc<Self>, address: IpAddr) -> Result<AddressSlot, LimitExceeded> {
        let address = site(address);
        self.connects.take(&address).map_err(LimitExceeded::AddressConnects)?;
        let limit = self.limits.connections;
        self.total
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |total| (total < limit).then_some(total + 1))
            .map_err(|_| LimitExceeded::Total)?;
        let mut count = self.by_address.entry(address).or_insert(0);
        if *count >= self.limits.connections_per_address {
            self.total.fetch_sub(1, Ordering::SeqCst);
            return Err(LimitExceeded::Address);
        }
        *count += 1;
        Ok(AddressSlot { connections: self.clone(), address })
    }
}

/// Whoever has an address of IPv6 has 2^64 of them (RFC 6177): they count as one.
fn site(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
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
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;
    use crate::limits::{Rate, tests::config};

    fn connections(total: u32, per_address: u32) -> Arc<Connections> {
        Connections::new(Config { connections: total, connections_per_address: per_address, ..config() })
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, last).into()
    }

    #[test]
    fn the_total_is_limited_and_given_back() {
        let connections = connections(2, 9);
        let first = connections.admit_address(address(1)).ok();
        let _second = connections.admit_address(address(2)).ok().unwrap();
        assert_eq!(connections.admit_address(address(3)).err(), Some(LimitExceeded::Total));
        drop(first);
        assert!(connections.admit_address(address(3)).is_ok());
    }

    #[test]
    fn an_address_is_limited_alone() {
        let connections = connections(9, 1);
        let slot = connections.admit_address(address(1)).ok().unwrap();
        assert_eq!(connections.admit_address(address(1)).err(), Some(LimitExceeded::Address));
        assert!(connections.admit_address(address(2)).is_ok());
        let site = connections.admit_address("2001:db8::1".parse().unwrap()).ok().unwrap();
        assert_eq!(connections.admit_address("2001:db8::2".parse().unwrap()).err(), Some(LimitExceeded::Address));
        drop((slot, site));
        assert!(connections.admit_address(address(1)).is_ok());
        assert!(connections.by_address.is_empty(), "nothing is kept of who left");
    }

    #[tokio::test(start_paused = true)]
    async fn connects_from_one_place_have_a_rate() {
        let connects_per_address = Rate { per_second: 1, burst: 2 };
        let connections = Connections::new(Config { connects_per_address, ..config() });
        let connect = |address: &str| connections.admit_address(address.parse().unwrap()).err();
        assert_eq!([connect("::1"), connect("::2"), connect("127.0.0.1")], [None; 3]);
        let refused = connect("::3").unwrap();
        assert_eq!(refused.to_string(), "limits.connects_per_address is met: try again in 1 s");
        assert_eq!(connect("0:0:0:1::1"), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(connect("::4"), None);
    }
}
