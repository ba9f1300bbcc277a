//! A server of one's own, as a child process.

use std::{
    fs::{self, DirBuilder, File},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{Admin, Error, Place};

/// A running server. It is killed when this is dropped, and what it wrote is removed.
pub struct Server {
    child: Child,
    directory: Directory,
    devices: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
    api_key: SecretString,
    secret: SecretString,
}

/// What the server is to be like.
pub struct Setup {
    /// Where devices connect, on a port of the system's choice.
    pub devices: IpAddr,
    /// The database; none: a file of the server's own.
    pub store: Option<String>,
    /// More of its configuration (TOML): keys of `[store]`, and then other sections.
    pub more: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self { devices: Ipv4Addr::LOCALHOST.into(), store: None, more: String::new() }
    }
}

const START_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of a log is shown.
const LAST_LINES: usize = 10;

impl Server {
    /// Runs `PROGRAM serve` in a new directory, and waits until it listens.
    pub async fn start(program: &Path, setup: &Setup) -> Result<Self, Error> {
        let directory = Directory::new()?;
        let (api_key, secret) = (random(), random());
        let (config, log) = (directory.0.join("bugle.toml"), directory.0.join("log"));
        let text = setup.configuration(&directory.0, &api_key, &secret);
        let prepare = || {
            fs::write(&config, text)?;
            Command::new(program)
                .args(["serve".as_ref(), "--config".as_ref(), config.as_os_str()])
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(&log)?)
                .spawn()
        };
        let child = prepare().map_err(|source| directory.failed(source))?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Self { child, directory, devices: nowhere, grpc: nowhere, admin: nowhere, api_key, secret };
        let line = server.listening(&log).await?;
        let address = |section| address_in(&line, section).ok_or_else(|| Error::Start(line.clone()));
        (server.devices, server.grpc, server.admin) = (address("clients")?, address("grpc")?, address("admin")?);
        Ok(server)
    }

    /// The line of the log that says where it listens.
    async fn listening(&mut self, log: &Path) -> Result<String, Error> {
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(log).map_err(|source| self.directory.failed(source))?;
            if let Some(line) = text.lines().find(|line| line.contains(r#""clients.listen""#) && line.ends_with('}')) {
                return Ok(line.to_owned());
            }
            let is_running = self.child.try_wait().is_ok_and(|ended| ended.is_none());
            if !is_running || begun.elapsed() > START_TIMEOUT {
                return Err(Error::Start(last_lines(&text)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Where devices connect.
    pub fn devices(&self) -> SocketAddr {
        self.devices
    }

    /// Where backends call.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Where its figures are.
    pub fn admin(&self) -> Admin {
        Admin::new(Place::from(self.admin))
    }

    /// The API key that may do everything.
    pub fn api_key(&self) -> &SecretString {
        &self.api_key
    }

    /// What devices' tokens are signed with (HS256).
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// The process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Setup {
    fn configuration(&self, directory: &Path, api_key: &SecretString, secret: &SecretString) -> String {
        let store = self.store.clone().unwrap_or_else(|| format!("sqlite:{}/bugle.db", directory.display()));
        // What is quoted so is read as in JSON.
        let devices = format!("{:?}", SocketAddr::new(self.devices, 0).to_string());
        let store = format!("{store:?}");
        let (api_key, secret) = (api_key.expose_secret(), secret.expose_secret());
        let more = &self.more;
        format!(
            r#"
            [clients]
            listen = {devices}
            plaintext_public = true
            [grpc]
            listen = "127.0.0.1:0"
            [[grpc.api_keys]]
            name = "bench"
            key = "{api_key}"
            scopes = ["emit", "presence", "rooms", "disconnect"]
            [admin]
            listen = "127.0.0.1:0"
            [[auth.jwt.keys]]
            algorithm = "HS256"
            secret = "{secret}"
            [log]
            format = "json"
            [store]
            url = {store}
            {more}
            "#
        )
    }
}

/// A directory for this user alone, since a secret is in it. It goes when this is dropped.
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("bugle-bench-{}", Uuid::new_v4().simple()));
        let directory = Self(path);
        DirBuilder::new().mode(0o700).create(&directory.0).map_err(|source| directory.failed(source))?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Prepare { directory: self.0.clone(), source }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Of 244 random bits.
pub(super) fn random() -> SecretString {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()).into()
}

pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

fn address_in(line: &str, section: &str) -> Option<SocketAddr> {
    let key = format!(r#""{section}.listen":""#);
    let (_, rest) = line.split_once(&key)?;
    rest.split('"').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_where_the_server_listens() {
        let line = r#"{"message":"listening","clients.listen":"127.0.0.1:1","grpc.listen":"[::1]:2"}"#;
        assert_eq!(address_in(line, "clients"), Some(SocketAddr::from(([127, 0, 0, 1], 1))));
        assert_eq!(address_in(line, "grpc").map(|address| address.port()), Some(2));
        assert_eq!(address_in(line, "admin"), None);
    }

    #[tokio::test]
    async fn a_program_that_ends_is_no_server_and_leaves_nothing() {
        let error = Server::start(Path::new("/bin/false"), &Setup::default()).await.err().unwrap();
        assert!(matches!(error, Error::Start(_)), "{error}");
    }

    #[test]
    fn of_a_long_log_the_end_is_shown() {
        let log: Vec<_> = (0..50).map(|line| line.to_string()).collect();
        assert!(last_lines(&log.join("\n")).starts_with("40\n"));
        assert_eq!(last_lines("one"), "one");
    }
}
