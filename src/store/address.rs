//! What `store.url` names, as far as that can be checked without opening it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sqlx::{any::AnyConnectOptions, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use super::paths::{self, beside, shown};

const SSL_MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
/// What the driver takes besides the parameters that name files. It ignores any other, and logs its value.
const PARAMETERS: [&str; 9] = [
    "sslmode",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "statement-cache-capacity",
];
/// The parameters that name a file, and what its PEM blocks are called.
const FILES: [(&str, &str); 3] =
    [("sslrootcert", "CERTIFICATE-----"), ("sslcert", "CERTIFICATE-----"), (SSL_KEY, "PRIVATE KEY-----")];
const SSL_KEY: &str = "sslkey";

/// A database by its address.
pub(super) enum Address {
    /// SQLite, in memory.
    Memory,
    /// SQLite in a file, which is made unless `is_made` is false.
    File { path: PathBuf, is_made: bool },
    /// PostgreSQL, with these parameters.
    Postgres { has_password: bool, parameters: Vec<(String, String)> },
}

impl Address {
    /// Understands an address, or returns what is wrong with it. No value of PostgreSQL's parameters is told, but for `sslmode`.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let rest = |scheme| url.strip_prefix(scheme).filter(|rest| !rest.is_empty());
        if rest("sqlite:").is_some() {
            sqlite(url)
        } else if rest("postgres://").or_else(|| rest("postgresql://")).is_some() {
            postgres(url)
        } else {
            Err(String::from("is neither sqlite:FILE, sqlite::memory: nor postgres://USER@HOST/NAME"))
        }
    }

    /// Whether the address itself is a secret.
    pub(super) fn is_secret(&self) -> bool {
        match self {
            Self::Memory | Self::File { .. } => false,
            Self::Postgres { has_password, parameters } => {
                let is_secret =
                    |(key, value): &(String, String)| key == "password" || key == SSL_KEY && is_inline(value);
                *has_password || parameters.iter().any(is_secret)
            }
        }
    }

    /// Returns what is wrong with the files that it names.
    pub(super) fn path_problem(&self) -> Option<String> {
        match self {
            Self::Memory => None,
            Self::File { path, is_made } => paths::problem(path, *is_made),
            Self::Postgres { parameters, .. } => {
                FILES.iter().find_map(|(key, block)| pem_problem(key, file_of(parameters, key)?, block))
            }
        }
    }

    /// Returns what is no fault of the files that it names, and still to be told.
    pub(super) fn path_warnings(&self) -> Vec<String> {
        match self {
            Self::File { path, .. } => paths::warnings(path),
            Self::Memory | Self::Postgres { .. } => Vec::new(),
        }
    }

    /// The files that only Bugle should open. They need not exist. SQLite's other files, and the lock, are beside the database itself, not beside a
    /// symbolic link to it.
    pub(super) fn private_files(&self) -> Vec<PathBuf> {
        match self {
            Self::Memory => Vec::new(),
            Self::File { path, .. } => {
                let path = paths::resolve(path).unwrap_or_else(|_| path.clone());
                ["", "-wal", "-shm", ".lock"].map(|suffix| beside(&path, suffix)).into()
            }
            Self::Postgres { parameters, .. } => file_of(parameters, SSL_KEY).map(PathBuf::from).into_iter().collect(),
        }
    }
}

fn sqlite(url: &str) -> Result<Address, String> {
    let options: SqliteConnectOptions = url.parse().map_err(|error| format!("cannot be used: {error}"))?;
    let parameters = url.split_once('?').map(|(_, parameters)| parameters);
    let has = |wanted: &str| parameters.is_some_and(|parameters| parameters.split('&').any(|one| one == wanted));
    if url.contains(":memory:") {
        return Ok(Address::Memory);
    }
    if has("mode=memory") {
        return Err(String::from("has mode=memory: to keep the store in memory, name sqlite::memory:"));
    }
    let is_made = parameters.is_none() || has("mode=rwc");
    Ok(Address::File { path: options.get_filename().to_owned(), is_made })
}

fn postgres(url: &str) -> Result<Address, String> {
    let options: AnyConnectOptions = url.parse().map_err(|_| String::from("is not a URL"))?;
    let url = options.database_url;
    let mut parameters = Vec::new();
    for (key, value) in url.query_pairs() {
        let is_option = key == "options" || key.starts_with("options[") && key.ends_with(']');
        let is_known = is_option || PARAMETERS.contains(&&*key) || FILES.iter().any(|(file, _)| *file == key);
        if !is_known {
            let known: Vec<_> = PARAMETERS.into_iter().chain(FILES.map(|(file, _)| file)).collect();
            return Err(format!("has the parameter {key:?}, which is none of {} and options", known.join(", ")));
        }
        parameters.push((key.into_owned(), value.into_owned()));
    }
    let value = |wanted: &str| parameters.iter().rfind(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
    let mode = value("sslmode").unwrap_or("prefer");
    if !SSL_MODES.contains(&mode) {
        return Err(format!("has sslmode={mode}, which is none of {}", SSL_MODES.join(", ")));
    }
    if value("sslrootcert").is_some() && !mode.starts_with("verify-") {
        return Err(format!("has sslrootcert, but sslmode={mode} verifies no certificate: set sslmode=verify-full"));
    }
    if value("sslcert").is_some() != value(SSL_KEY).is_some() {
        return Err(String::from("has one of sslcert and sslkey: give both, or none"));
    }
    if url.as_str().parse::<PgConnectOptions>().is_err() {
        return Err(String::from(
            "has a wrong value: port and statement-cache-capacity are numbers, hostaddr is an IP address",
        ));
    }
    Ok(Address::Postgres { has_password: url.password().is_some(), parameters })
}

/// The file that a parameter names. The driver takes the PEM itself, too.
fn file_of<'a>(parameters: &'a [(String, String)], wanted: &str) -> Option<&'a Path> {
    let (_, value) = parameters.iter().rfind(|(key, value)| key == wanted && !is_inline(value))?;
    Some(Path::new(value))
}

fn is_inline(value: &str) -> bool {
    value.trim_start().starts_with("-----BEGIN")
}

fn pem_problem(key: &str, path: &Path, block: &str) -> Option<String> {
    let shown = shown(path);
    match fs::read(path) {
        Ok(pem) if String::from_utf8_lossy(&pem).contains(block) => None,
        Ok(_) => Some(format!("names {shown} as {key}, which has no PEM block with a {}", block.trim_end_matches('-'))),
        Err(error) => Some(format!("names {shown} as {key}, which cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        path::absolute,
    };

    use super::*;

    fn problem(url: &str) -> String {
        match Address::parse(url) {
            Ok(address) => address.path_problem().unwrap_or_default(),
            Err(problem) => problem,
        }
    }

    #[test]
    fn each_way_to_name_a_database_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().display();
        for url in [
            "sqlite::memory:",
            "sqlite://:memory:",
            "sqlite:not-there.db",
            &format!("sqlite:{directory}/f.db"),
            &format!("sqlite://{directory}/f.db"),
            &format!("sqlite:{directory}/f.db?mode=rwc"),
            &format!("sqlite:{directory}/f%3f.db?cache=private&mode=rwc"),
            "postgres://bugle@db/bugle",
            "postgresql://bugle:secret@db:5432/bugle?sslmode=require&application_name=bugle&options[lock_timeout]=1s",
        ] {
            assert_eq!(problem(url), "", "{url}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        fs::write(at("file"), "").unwrap();
        assert_eq!(problem(&format!("sqlite:{}", at("file"))), "", "an empty file is an empty database");
        fs::write(at("text"), "This is no database.").unwrap();
        let told = problem(&format!("sqlite:{}", at("text")));
        let wanted = "which is not a SQLite database: name another file, or move this one away";
        assert_eq!(told, format!("names `{}`, {wanted}", at("text")));
        fs::write(at("text-journal"), "").unwrap();
        assert_eq!(problem(&format!("sqlite:{}", at("text"))), "", "SQLite may restore it");
        fs::write(at("database"), "SQLite format 3\0and more").unwrap();
        assert_eq!(problem(&format!("sqlite:{}", at("database"))), "");
        fs::create_dir(at("directory")).unwrap();
        let told = problem(&format!("sqlite:{}", at("directory")));
        assert_eq!(told, format!("names `{}`, which is a directory: name a file in it", at("directory")));
        for url in [format!("sqlite:{}", at("none/f.db")), format!("sqlite://{}?mode=rwc", at("none/f.db"))] {
            let wanted = format!("but the directory `{}` does not exist: make it (mkdir -p)", at("none"));
            assert!(problem(&url).ends_with(&wanted), "{}", problem(&url));
        }
        let told = problem(&format!("sqlite:{}", at("file/f.db")));
        assert!(told.contains(&at("file")), "{told}");
        let told = problem(&format!("sqlite:{}?mode=rw", at("f.db")));
        assert!(told.ends_with("add mode=rwc to its parameters to have it made"), "{told}");
        assert!(problem("sqlite:f.db?mode=memory").ends_with("name sqlite::memory:"));
        assert!(problem("sqlite:f.db?mode=wr").contains("unknown value \"wr\" for `mode`"));
    }

    #[test]
    fn a_relative_path_is_told_from_the_root_on() {
        let told = problem("sqlite:no-such-directory/f.db");
        let root = absolute("no-such-directory").unwrap();
        assert!(told.contains(&format!("the directory `{}` does not exist", root.display())), "{told}");
    }

    #[test]
    fn a_file_that_exists_and_cannot_be_written_has_no_problem() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f.db");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(problem(&format!("sqlite:{}", file.display())), "");
    }

    #[test]
    fn the_files_that_only_bugle_should_open_are_beside_the_database_and_not_beside_a_link_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let directory = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(directory.join("data")).unwrap();
        symlink("data/f.db", directory.join("link.db")).unwrap();
        let address = Address::parse(&format!("sqlite:{}", directory.join("link.db").display())).ok().unwrap();
        let wanted = ["f.db", "f.db-wal", "f.db-shm", "f.db.lock"].map(|name| directory.join("data").join(name));
        assert_eq!(address.private_files(), wanted);
    }

    #[test]
    fn parameters_that_would_be_ignored_are_refused_and_their_values_are_not_told() {
        let url = |parameters: &str| problem(&format!("postgres://bugle:hidden@db/bugle?{parameters}"));
        for (parameters, wanted) in [
            ("sslmode=allow", "has sslmode=allow, which is none of disable, prefer, require, verify-ca, verify-full"),
            ("sslmode=verify", "has sslmode=verify, which is none of"),
            ("pasword=hidden", "has the parameter \"pasword\", which is none of sslmode, host,"),
            ("sslrootcert=/ca.pem", "has sslrootcert, but sslmode=prefer verifies no certificate"),
            ("sslmode=require&sslrootcert=/ca.pem", "has sslrootcert, but sslmode=require verifies no certificate"),
            ("sslkey=/key.pem", "has one of sslcert and sslkey"),
            ("port=hidden", "has a wrong value: port"),
            ("sslmode=verify-full&sslrootcert=/no/ca.pem", "names `/no/ca.pem` as sslrootcert, which cannot be read"),
            ("sslmode=verify-full&sslrootcert=Cargo.toml", "which has no PEM block with a CERTIFICATE"),
        ] {
            let told = url(parameters);
            assert!(told.contains(wanted) && !told.contains("hidden"), "{parameters}: {told}");
        }
    }

    #[test]
    fn an_address_with_a_password_or_a_key_is_a_secret() {
        let is_secret = |url: &str| Address::parse(url).ok().unwrap().is_secret();
        assert!(is_secret("postgres://bugle:hidden@db/bugle"));
        assert!(is_secret("postgres://bugle@db/bugle?password=hidden"));
        assert!(is_secret("postgres://db/bugle?sslcert=c.pem&sslkey=-----BEGIN%20PRIVATE%20KEY-----"));
        assert!(!is_secret("postgres://bugle@db/bugle?sslcert=c.pem&sslkey=k.pem"));
        assert!(!is_secret("sqlite:bugle.db"));
    }
}
