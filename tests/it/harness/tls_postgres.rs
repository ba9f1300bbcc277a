//! A PostgreSQL with TLS, and its certificates.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use super::postgres::{Postgres, psql};

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
        let server = SERVER.get_or_init(|| {
            // Beside the directory of the data, where paths begin.
            let files = ["-c", "ssl_cert_file=../server.pem", "-c", "ssl_key_file=../server.key"];
            Postgres::start(&[&["-c", "ssl=on"], &files[..]].concat(), make_certificates)
        });
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

const AUTHORITIES: [&str; 2] = ["authority", "other"];

/// Makes two authorities in a directory, and with the first of them a certificate for `localhost`.
fn make_certificates(directory: &Path) {
    let openssl = |arguments: &[&[&str]]| {
        let made =
            Command::new("openssl").args(arguments.concat()).current_dir(directory).stderr(Stdio::null()).status();
        assert!(made.expect("openssl runs").success(), "openssl {arguments:?}");
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"];
    for name in AUTHORITIES {
        let (secret, certificate, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        openssl(&[&["req", "-x509"], &key, &[&secret, "-out", &certificate, "-days", "2", "-subj", &subject]]);
    }
    let extensions = "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n";
    fs::write(directory.join("extensions"), extensions).expect("a file is written");
    openssl(&[&["req"], &key, &["server.key", "-out", "server.csr", "-subj", "/CN=localhost"]]);
    let signer = ["-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"];
    let files = ["-in", "server.csr", "-out", "server.pem", "-days", "2", "-extfile", "extensions"];
    openssl(&[&["x509", "-req"], &signer, &files]);
}
