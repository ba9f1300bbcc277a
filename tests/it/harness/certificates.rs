//! Certificates for servers with TLS.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

pub const AUTHORITIES: [&str; 2] = ["authority", "other"];

/// An authority that signs what was good for one day, long ago.
const SIGNS_EXPIRED: &str = "[ca]
default_ca = expired
[expired]
database = index
rand_serial = yes
new_certs_dir = .
default_md = sha256
policy = any
default_startdate = 20200101000000Z
default_enddate = 20200102000000Z
[any]
commonName = supplied
";

/// Makes two authorities in a directory, and with the first of them a certificate for `localhost`, and `expired.pem` for the same key.
pub fn make_certificates(directory: &Path) {
    let openssl = |arguments: &[&[&str]]| {
        let made = Command::new("openssl")
            .args(arguments.concat())
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
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
    fs::write(directory.join("expired.cnf"), SIGNS_EXPIRED).expect("a file is written");
    fs::write(directory.join("index"), "").expect("a file is written");
    let signer = ["-config", "expired.cnf", "-cert", "authority.pem", "-keyfile", "authority.key"];
    let files = ["-in", "server.csr", "-out", "expired.pem", "-extfile", "extensions"];
    openssl(&[&["ca", "-batch", "-notext"], &signer, &files]);
}
