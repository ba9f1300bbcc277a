//! A Redis with TLS.

use std::path::PathBuf;

use tempfile::TempDir;

use super::{
    TestRedis,
    certificates::{AUTHORITIES, make_certificates},
};

/// A server that takes connections with TLS and without, and a user with a password.
pub struct TlsRedis {
    port: u16,
    _redis: TestRedis,
    _directory: TempDir,
    /// The certificate of the authority that has signed the server's, which is for `localhost` and not for `127.0.0.1`.
    pub authority: PathBuf,
    /// The certificate of another authority.
    pub other_authority: PathBuf,
}

impl TlsRedis {
    /// The user's password.
    pub const PASSWORD: &str = "correct-horse";

    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        make_certificates(directory.path());
        let file = |name: &str| directory.path().join(name);
        let text = |name: &str| file(name).display().to_string();
        let files = [
            ["--tls-cert-file", &text("server.pem")],
            ["--tls-key-file", &text("server.key")],
            ["--tls-ca-cert-file", &text("authority.pem")],
            ["--tls-auth-clients", "no"],
        ];
        let (redis, port) = TestRedis::start_with_port("--tls-port", files.as_flattened());
        redis.cli(&["ACL", "SETUSER", "bugle", "reset", "on", &format!(">{}", Self::PASSWORD), "+@all", "~*", "&*"]);
        let [authority, other_authority] = AUTHORITIES.map(|name| file(&format!("{name}.pem")));
        Self { port, _redis: redis, _directory: directory, authority, other_authority }
    }

    /// Its address with TLS, by this name of the host.
    pub fn url(&self, host: &str) -> String {
        format!("rediss://bugle:{}@{host}:{}", Self::PASSWORD, self.port)
    }
}
