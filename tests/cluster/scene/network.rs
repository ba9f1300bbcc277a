//! The network between one node and the engine, which a firewall can cut.

use std::{net::IpAddr, path::Path};

#[allow(dead_code, reason = "the bench of the gateway cuts it in another way")]
#[path = "../../bench/gateway/namespace.rs"]
mod namespace;
use namespace::Namespace;

/// What a firewall does with packets to the engine.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// It drops them, and those from there.
    Drop,
    /// It answers them with a reset.
    Reject,
}

/// A network namespace with a firewall. Devices and backends reach what is in it, whatever the firewall does.
pub struct Network {
    namespace: Namespace,
}

impl Network {
    /// Makes it, or says why that cannot be done.
    pub fn new() -> Result<Self, String> {
        let needs = |why| format!("needs root, iproute2's `ip netns` and iptables: {why}");
        let network = Self { namespace: Namespace::new().map_err(needs)? };
        network.iptables(&["-L", "-n"]).map_err(needs)?;
        Ok(network)
    }

    /// The address at which it reaches the engine.
    pub fn engine(&self) -> IpAddr {
        self.namespace.here().into()
    }

    /// What has a node listen in it.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        let listen = format!("{}:0", self.namespace.there());
        let listeners = ["BUGLE_CLIENTS__LISTEN", "BUGLE_GRPC__LISTEN", "BUGLE_ADMIN__LISTEN"];
        let listeners = listeners.map(|name| (name, listen.clone()));
        let words = ["BUGLE_CLIENTS__PLAINTEXT_PUBLIC", "BUGLE_GRPC__PLAINTEXT_PUBLIC"];
        listeners.into_iter().chain(words.map(|name| (name, "true".to_owned())))
    }

    /// What runs a program in it.
    pub fn runner(&self) -> [&str; 4] {
        ["ip", "netns", "exec", self.namespace.name()]
    }

    /// From now on the engine at this port is out of reach.
    pub fn cut(&self, cut: Cut, port: u16) {
        let port = port.to_string();
        let to_engine = ["-A", "OUTPUT", "-p", "tcp", "--dport", &port];
        let rules = match cut {
            Cut::Drop => vec![
                [&to_engine[..], &["-j", "DROP"]].concat(),
                vec!["-A", "INPUT", "-p", "tcp", "--sport", &port, "-j", "DROP"],
            ],
            // A reset by this side's kernel, of a connection that is closed here, is let through.
            Cut::Reject => vec![
                [&to_engine[..], &["!", "--tcp-flags", "RST", "RST", "-j", "REJECT", "--reject-with", "tcp-reset"]]
                    .concat(),
            ],
        };
        for rule in rules {
            self.iptables(&rule).expect("the firewall takes the rule");
        }
    }

    /// The engine is within reach again.
    pub fn heal(&self) {
        self.iptables(&["-F"]).expect("the firewall forgets its rules");
    }

    fn iptables(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = self.namespace.command(Path::new("iptables"));
        let output = command.arg("-w").args(arguments).output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(()) } else { Err(format!("iptables {}: {said}", arguments.join(" "))) }
    }
}
