//! Files with secrets that other users of the machine can read: nothing that keeps Bugle from running, but told.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value as Json;

use super::Config;
use crate::cluster;
use crate::message::Fault;
use crate::store::is_secret_url;

/// Any permission of the group or of others.
const OTHERS: u32 = 0o077;

/// Whether a configuration file, by itself, has a secret in it.
pub(super) fn holds_secret(file: &Json) -> bool {
    let has = |list: &str, key: &str| {
        let entries = file.pointer(list).and_then(Json::as_array);
        entries.is_some_and(|entries| entries.iter().any(|entry| entry.get(key).is_some()))
    };
    let url = file.pointer("/store/url").and_then(Json::as_str);
    let engines = file.pointer("/cluster/redis").and_then(Json::as_array);
    let mut engines = engines.into_iter().flatten().filter_map(Json::as_str);
    has("/auth/jwt/keys", "secret")
        || has("/grpc/api_keys", "key")
        || url.is_some_and(is_secret_url)
        || engines.any(cluster::Config::holds_secret)
}

/// What is to be told of the files that exist. `secret_file`: the configuration file, if it holds a secret.
pub(super) fn warnings(config: &Config, secret_file: Option<&Path>) -> Vec<Fault> {
    let store = config.store.private_files();
    let of_store = store.iter().map(|path| ("store.url", path.as_path()));
    let others = [("log.audit", config.log.audit.as_path())];
    let of_file = secret_file.map(|path| ("the configuration file", path));
    let files = of_file.into_iter().chain(of_store).chain(others);
    files.filter_map(|(key, path)| Some(Fault::new(key, problem(path)?))).collect()
}

fn problem(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.permissions().mode() & 0o7777;
    let shown = path.display();
    (mode & OTHERS != 0).then(|| {
        format!("`{shown}` has the mode {mode:04o}, which lets other users read or write it: run chmod 600 '{shown}'")
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::reading::read_text;

    /// A file with this mode.
    fn file(directory: &Path, name: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, "s3cret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn is_secret(text: &str) -> bool {
        let config = read_text(text, []).unwrap();
        config.secret_file.is_some()
    }

    #[test]
    fn a_file_holds_a_secret_if_it_has_a_key_or_a_password() {
        assert!(is_secret("[[auth.jwt.keys]]\nalgorithm = 'HS256'\nsecret = 's3cret'"));
        assert!(is_secret("grpc.api_keys = [{ name = 'a', key = 's3cret', scopes = [] }]"));
        assert!(is_secret("store.url = 'postgres://a:s3cret@db/a'"));
        assert!(is_secret("store.url = 'postgres://a@db/a?password=s3cret'"));
        assert!(is_secret("cluster.redis = ['redis://a', 'redis://:s3cret@b']"));
        assert!(!is_secret(""));
        assert!(!is_secret("cluster.redis = ['redis://a']"));
        assert!(!is_secret("[[auth.jwt.keys]]\nalgorithm = 'ES256'\npublic_key_file = 'k.pem'"));
        assert!(!is_secret("grpc.api_keys = [{ name = 'a', key_sha256 = '00', scopes = [] }]"));
        assert!(!is_secret("store.url = 'postgres://a@db/a'"));
    }

    #[test]
    fn each_file_that_others_can_read_is_named_with_the_remedy_and_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let toml = file(directory, "bugle.toml", 0o644);
        let mut config = Config::defaults().unwrap();
        config.store.url = format!("sqlite:{}", file(directory, "bugle.db", 0o640).display()).into();
        file(directory, "bugle.db-wal", 0o604);
        file(directory, "bugle.db-shm", 0o600);
        config.log.audit = file(directory, "audit.log", 0o644);
        let told: Vec<_> = warnings(&config, Some(&toml)).iter().map(ToString::to_string).collect();
        let wanted = |key: &str, name: &str, mode: &str| {
            let path = directory.join(name).display().to_string();
            let problem = "which lets other users read or write it: run chmod 600";
            format!("{key}: `{path}` has the mode {mode}, {problem} '{path}'")
        };
        assert_eq!(
            told,
            [
                wanted("the configuration file", "bugle.toml", "0644"),
                wanted("store.url", "bugle.db", "0640"),
                wanted("store.url", "bugle.db-wal", "0604"),
                wanted("log.audit", "audit.log", "0644"),
            ]
        );
        assert_eq!(warnings(&config, None).len(), 3, "a file without secrets may be read");
        let key = file(directory, "key.pem", 0o644);
        let certificate = file(directory, "certificate.pem", 0o644);
        let parameters = format!("sslcert={}&sslkey={}", certificate.display(), key.display());
        config.store.url = format!("postgres://bugle:s3cret@db/bugle?{parameters}").into();
        config.log.audit = PathBuf::new();
        let told: Vec<_> = warnings(&config, None).iter().map(ToString::to_string).collect();
        assert_eq!(told, [wanted("store.url", "key.pem", "0644")]);
    }
}
