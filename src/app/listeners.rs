use std::net::SocketAddr;

use transport::{Acceptor, AcceptorConfig, Descriptors, Proxies, Share, Shares};

use super::{Addresses, Error};
use crate::config::Config;

/// TCP connections from one address, per transport that `limits.connections_per_address` allows: a polling device has two at a time and
/// a third during an upgrade, and browsers keep one or two idle.
const CONNECTIONS_PER_TRANSPORT: usize = 4;
/// What is assumed of the limit of file descriptors if the system does not tell.
const DEFAULT_DESCRIPTORS: u64 = 1_024;

/// The listeners, before anything is accepted.
pub(super) struct Bound {
    pub(super) clients: Acceptor,
    pub(super) grpc: Acceptor,
    pub(super) admin: Acceptor,
    pub(super) addresses: Addresses,
    pub(super) grpc_share: Share,
    pub(super) devices_share: Share,
}

impl Bound {
    /// Binds them, and divides the file descriptors between them.
    pub(super) async fn bind(config: &Config, proxies: &Proxies) -> Result<Self, Error> {
        let shares = divide_descriptors();
        let per_address = CONNECTIONS_PER_TRANSPORT.saturating_mul(config.limits.connections_per_address as usize);
        let clients =
            bind("clients", config.clients.listen, shares.devices.clone(), Some(per_address), proxies).await?;
        let grpc = bind("grpc", config.grpc.listen, shares.grpc.clone(), None, proxies).await?;
        // One address that connects again and again would displace the probes of others.
        let of_one_address = Some(shares.admin.max() / 2);
        let admin = bind("admin", config.admin.listen, shares.admin, of_one_address, proxies).await?;
        let addresses = Addresses { clients: clients.1, grpc: grpc.1, admin: admin.1 };
        Ok(Self {
            clients: clients.0,
            grpc: grpc.0,
            admin: admin.0,
            addresses,
            grpc_share: shares.grpc,
            devices_share: shares.devices,
        })
    }
}

async fn bind(
    key: &'static str,
    address: SocketAddr,
    share: Share,
    per_address: Option<usize>,
    proxies: &Proxies,
) -> Result<(Acceptor, SocketAddr), Error> {
    let config = AcceptorConfig { listener: key, share, per_address, proxies: proxies.clone() };
    let bound = async {
        let acceptor = Acceptor::bind(address, config).await?;
        let address = acceptor.local_addr()?;
        Ok((acceptor, address))
    };
    bound.await.map_err(|source| Error::Listen { key, address, source })
}

/// Raises the limit of file descriptors, of which each device takes one, as far as the hard limit allows, and divides them between the
/// listeners.
fn divide_descriptors() -> Shares {
    let limit = rlimit::increase_nofile_limit(u64::MAX);
    let limit = limit.or_else(|error| {
        tracing::warn!(%error, "cannot raise the limit of file descriptors");
        rlimit::Resource::NOFILE.get_soft()
    });
    let limit = limit.unwrap_or(DEFAULT_DESCRIPTORS);
    let open = transport::open_descriptors().unwrap_or_default();
    let shares = Descriptors::new(limit, open).divide();
    tracing::info!(
        descriptors.limit = limit,
        descriptors.open = open,
        clients.connections_max = shares.devices.max(),
        grpc.connections_max = shares.grpc.max(),
        admin.connections_max = shares.admin.max(),
        "file descriptors"
    );
    shares
}
