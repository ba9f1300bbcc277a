//! A network of its own for a device, which can be cut.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// A network namespace, reached over a pair of virtual interfaces. It goes when this is dropped.
pub struct Namespace {
    name: String,
    outer: String,
    inner: String,
    here: Ipv4Addr,
    there: Ipv4Addr,
}

impl Namespace {
    /// Makes it, or says why that cannot be done.
    pub fn new() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let name = format!("bugle-bench-{process}-{made}");
        let (outer, inner) = (format!("bb{process}-{made}o"), format!("bb{process}-{made}i"));
        // Four addresses for each, of the range for benchmarks (RFC 2544): other processes may have namespaces, too.
        let first = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (process * 8 + made) % (1 << 15) * 4;
        let (here, there) = (Ipv4Addr::from(first + 1), Ipv4Addr::from(first + 2));
        ip(&["netns", "add", &name])?;
        let namespace = Self { name, outer, inner, here, there };
        let Self { name, outer, inner, .. } = &namespace;
        ip(&["link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name])?;
        ip(&["addr", "add", &format!("{here}/30"), "dev", outer])?;
        ip(&["link", "set", outer, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{there}/30"), "dev", inner])?;
        ip(&["-n", name, "link", "set", inner, "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This side's address.
    pub fn here(&self) -> Ipv4Addr {
        self.here
    }

    /// The other side's.
    pub fn there(&self) -> Ipv4Addr {
        self.there
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
        // The namespace stays as long as a process is in it, and the interfaces with it.
        let _ = ip(&["link", "del", &self.outer]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", arguments.join(" "))) }
}
