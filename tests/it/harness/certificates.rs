//! Certificates for servers with TLS.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

pub const AUTHORITIES: [&str; 2] = ["authority", "other"];

/// Makes two authorities in a directory, and with the first of them a certificate for `localhost`.
pub fn make_certificates(directory: &Path) {
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
