//! A network of its own for a device, which can be cut.

use std::{net::Ipv4Addr, path::Path, process::Command};

/// A network namespace, reached over a pair of virtual interfaces. It goes when this is dropped.
pub struct Namespace {
    name: String,
    inner: String,
}

impl Namespace {
    /// This side's address: of a range for benchmarks (RFC 2544).
    pub const HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);
    const THERE: &str = "198.18.77.2";

    /// Makes it, or says why that cannot be done.
    pub fn new() -> Result<Self, String> {
        let id = std::process::id();
        let (name, outer, inner) = (format!("bugle-bench-{id}"), format!("bb{id}o"), format!("bb{id}i"));
        ip(&["netns", "add", &name])?;
        let namespace = Self { name, inner };
        let Self { name, inner } = &namespace;
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", inner, "netns", name])?;
        ip(&["addr", "add", &format!("{}/30", Self::HERE), "dev", &outer])?;
        ip(&["link", "set", &outer, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/30", Self::THERE), "dev", inner])?;
        ip(&["-n", name, "link", "set", inner, "up"])?;
        Ok(namespace)
    }

    /// A command in the namespace.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// From now on nothing comes or goes, and nobody is told.
    pub fn cut(&self) {
        ip(&["-n", &self.name, "link", "set", &self.inner, "down"]).expect("an interface can be taken down");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The pair of interfaces goes with it.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", arguments.join(" "))) }
}
