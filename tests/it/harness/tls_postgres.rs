//! A PostgreSQL with TLS.

use std::{path::PathBuf, sync::OnceLock};

use super::{
    certificates::{AUTHORITIES, make_certificates},
    postgres::{Postgres, psql},
};

/// A new, empty database of a server that takes connections with TLS and without.
pub struct TlsDatabase {
    port: u16,
    name: String,
    /// The certificate of the authority that has signed the server's, which is for `localhost` and not for `127.0.0.1`.
    pub authority: PathBuf,
    /// The certificate of another authority.
    pub other_authority: PathBuf,
}

impl TlsDatabase {
    pub fn new() -> Self {
        static SERVER: OnceLock<Postgres> = OnceLock::new();
        Self::of(SERVER.get_or_init(|| server("server.pem")))
    }

    /// The same of a server whose certificate has expired.
    pub fn expired() -> Self {
        static SERVER: OnceLock<Postgres> = OnceLock::new();
        Self::of(SERVER.get_or_init(|| server("expired.pem")))
    }

    fn of(server: &Postgres) -> Self {
        let [authority, other_authority] = AUTHORITIES.map(|name| server.directory.join(format!("{name}.pem")));
        Self { port: server.port, name: server.new_database(), authority, other_authority }
    }

    /// Its address, by this name of the host.
    pub fn url(&self, host: &str, parameters: &str) -> String {
        format!("postgres://postgres@{host}:{}/{}?{parameters}", self.port, self.name)
    }

    /// What a query in this database prints.
    pub fn ask(&self, sql: &str) -> String {
        let answer = psql(self.port).args(["-d", &self.name, "-qAtc", sql]).output().expect("psql runs");
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).expect("text").trim().to_owned()
    }
}

fn server(certificate: &str) -> Postgres {
    // Beside the directory of the data, where paths begin.
    let (certificate, key) = (format!("ssl_cert_file=../{certificate}"), "ssl_key_file=../server.key");
    Postgres::start(&["-c", "ssl=on", "-c", &certificate, "-c", key], make_certificates)
}
