use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use config::{Map, Source, Value, ValueKind};
use serde_json::Value as Json;

use super::place::Place;
use crate::message::Fault;

const PREFIX: &str = "BUGLE_";
/// What a dot is in a variable's name.
const SEPARATOR: &str = "__";
/// The command line's own, see [`crate::cli`].
const NOT_KEYS: [&str; 3] = ["BUGLE_API_KEY", "BUGLE_SERVER", "BUGLE_BENCH_SECRET"];
const FILE: &str = "BUGLE_CONFIG";

/// What the variables that begin with `BUGLE_` say.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    keys: Map<String, Value>,
    /// The file to read, if no other is named.
    pub(super) file: Option<PathBuf>,
    /// Variables that name no key, or cannot be the value of theirs.
    pub(super) faults: Vec<Fault>,
}

impl Environment {
    /// Sorts the variables into a tree of keys. Every value is a text; the example tells which of them are lists, numbers
    /// or truth values, so that a secret of digits stays what it is.
    pub(super) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>, example: &Json) -> Self {
        let mut own = Self::default();
        let mut sorted = BTreeMap::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            if name == FILE {
                own.file = Some(value.into());
                continue;
            }
            match value.into_string() {
                Ok(text) => {
                    sorted.insert(name.to_owned(), text);
                }
                Err(_) => own.faults.push(Fault::new(name, "is not UTF-8")),
            }
        }
        // A list comes before its numbered entries.
        for (variable, text) in sorted {
            if NOT_KEYS.contains(&variable.as_str()) || is_service_link(&variable, &text) {
                continue;
            }
            if let Err(problem) = own.place(&variable, text, example) {
                own.faults.push(Fault::new(variable, problem));
            }
        }
        let keys = std::mem::take(&mut own.keys);
        if let ValueKind::Table(keys) = own.number_lists(keys, example, PREFIX) {
            own.keys = keys;
        }
        own
    }

    fn place(&mut self, variable: &str, text: String, example: &Json) -> Result<(), String> {
        let path = variable.strip_prefix(PREFIX).unwrap_or_default().to_lowercase();
        let path: Vec<&str> = path.split(SEPARATOR).collect();
        let value = value(variable, text, Place::of_segments(path.iter().copied()).in_example(example))?;
        insert(&mut self.keys, &path, value)
    }

    /// Turns tables of numbered entries into the lists that they stand for. `prefix`: how the variables inside begin.
    fn number_lists(&mut self, table: Map<String, Value>, example: &Json, prefix: &str) -> ValueKind {
        if !example.is_array() {
            let table = table.into_iter().map(|(key, value)| {
                let example = example.get(&key);
                let value = self.number_list(value, example, prefix, &key);
                (key, value)
            });
            return ValueKind::Table(table.collect());
        }
        let entries: BTreeMap<usize, Value> =
            table.into_iter().filter_map(|(key, value)| Some((key.parse().ok()?, value))).collect();
        if entries.keys().enumerate().any(|(position, number)| position != *number) {
            let variable = prefix.trim_end_matches(SEPARATOR);
            self.faults.push(Fault::new(variable, "number its entries 0, 1, 2 and so on, without a gap"));
        }
        let example = example.get(0);
        let entries =
            entries.into_iter().map(|(number, value)| self.number_list(value, example, prefix, &number.to_string()));
        ValueKind::Array(entries.collect())
    }

    fn number_list(&mut self, value: Value, example: Option<&Json>, prefix: &str, key: &str) -> Value {
        let origin = value.origin().map(str::to_owned);
        match (value.kind, example) {
            (ValueKind::Table(table), Some(example)) => {
                let prefix = format!("{prefix}{}{SEPARATOR}", key.to_uppercase());
                Value::new(origin.as_ref(), self.number_lists(table, example, &prefix))
            }
            (kind, _) => Value::new(origin.as_ref(), kind),
        }
    }
}

impl Source for Environment {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.keys.clone())
    }
}

/// The text as what its key wants; as it is, where it is not that: the fault is found with the others.
fn value(variable: &str, text: String, example: Option<&Json>) -> Result<Value, String> {
    let origin = Some(variable.to_owned());
    let of_text = |text: String| Value::new(origin.as_ref(), text);
    let kind = match example {
        None => return Err(String::from("names no key of the configuration; a dot is two underscores here")),
        Some(Json::Object(keys)) => {
            let keys: Vec<_> = keys.keys().map(|key| format!("{variable}{SEPARATOR}{}", key.to_uppercase())).collect();
            return Err(format!("names a table, not a key: set {}", keys.join(", ")));
        }
        Some(Json::Array(entries)) if entries.iter().all(Json::is_object) => {
            return Err(format!(
                "names a list of tables: number its entries, as in {variable}{SEPARATOR}0{SEPARATOR}…"
            ));
        }
        Some(Json::Array(_)) => {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            ValueKind::Array(entries.map(|entry| of_text(entry.to_owned())).collect())
        }
        Some(Json::Number(_)) => of_text(text.clone()).into_int().map_or(ValueKind::String(text), ValueKind::I64),
        Some(Json::Bool(_)) => of_text(text.clone()).into_bool().map_or(ValueKind::String(text), ValueKind::Boolean),
        Some(Json::String(_) | Json::Null) => ValueKind::String(text),
    };
    Ok(Value::new(origin.as_ref(), kind))
}

fn insert(table: &mut Map<String, Value>, path: &[&str], value: Value) -> Result<(), String> {
    let twice = || String::from("gives a value to a key that another variable gives one, too");
    match path {
        [] => Ok(()),
        [key] => match table.insert((*key).to_owned(), value) {
            Some(_) => Err(twice()),
            None => Ok(()),
        },
        [key, rest @ ..] => {
            let inner = table.entry((*key).to_owned()).or_insert_with(|| Value::new(None, Map::<String, Value>::new()));
            let ValueKind::Table(inner) = &mut inner.kind else {
                return Err(twice());
            };
            insert(inner, rest, value)
        }
    }
}

/// Whether Kubernetes made this variable, as it does for every service whose name begins with `bugle`: such as `BUGLE_SERVICE_HOST`,
/// `BUGLE_PORT` or `BUGLE_PORT_3000_TCP_ADDR`.
fn is_service_link(variable: &str, text: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
    let is_port = variable.split_once("_PORT_").is_some_and(|(_, rest)| {
        let (number, rest) = rest.split_once('_').unwrap_or_default();
        number.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].iter().any(|protocol| rest.starts_with(protocol))
    });
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || (variable.ends_with("_PORT") && is_url)
        || is_port
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::config::{Config, Reading, reading};

    fn read(variables: &[(&str, &str)]) -> Reading {
        let file = r#"
            [clients]
            cors_origins = ["https://file.example"]
            [[grpc.api_keys]]
            name = "file"
            scopes = ["emit"]
        "#;
        reading::read_text(file, variables.iter().copied()).unwrap()
    }

    fn config(variables: &[(&str, &str)]) -> Config {
        read(variables).complete().unwrap()
    }

    fn faults(variables: &[(&str, &str)]) -> Vec<String> {
        read(variables).faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_variable_is_stronger_than_the_file_and_takes_the_type_of_its_key() {
        let config = config(&[
            ("BUGLE_GRPC__LISTEN", "127.0.0.1:6000"),
            ("BUGLE_CLIENTS__PLAINTEXT_PUBLIC", "true"),
            ("BUGLE_LIMITS__MAX_PAYLOAD", "1000"),
            ("BUGLE_DRAIN__DEADLINE", "5m"),
            ("BUGLE_AUTH__JWT__USER_CLAIM", "0123"),
            ("PATH", "/bin"),
        ]);
        assert_eq!(config.grpc.listen.port(), 6000);
        assert!(config.clients.plaintext_public);
        assert_eq!(config.limits.max_payload, 1000);
        assert_eq!(config.drain.deadline.as_secs(), 300);
        assert_eq!(config.auth.jwt.user_claim, "0123");
        assert_eq!(config.clients.cors_origins, ["https://file.example"]);
    }

    #[test]
    fn lists_of_texts_are_split_at_commas() {
        let several = config(&[("BUGLE_CLIENTS__CORS_ORIGINS", "https://a.example, https://b.example,")]);
        assert_eq!(several.clients.cors_origins, ["https://a.example", "https://b.example"]);
        let none = config(&[("BUGLE_CLIENTS__CORS_ORIGINS", "")]);
        assert!(none.clients.cors_origins.is_empty());
        let numbered = config(&[("BUGLE_SOCKETIO__TRANSPORTS__0", "websocket")]);
        assert_eq!(numbered.socketio.transports.len(), 1);
    }

    #[test]
    fn an_address_with_commas_is_numbered() {
        use secrecy::ExposeSecret;
        let redis = |variables: &[(&str, &str)]| {
            let config = config(variables);
            config.cluster.redis.iter().map(|url| url.expose_secret().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(redis(&[("BUGLE_CLUSTER__REDIS", "redis://:1@a, redis://b")]), ["redis://:1@a", "redis://b"]);
        let sentinels = "redis+sentinel://a,b/main";
        assert_eq!(redis(&[("BUGLE_CLUSTER__REDIS__0", sentinels)]), [sentinels]);
        assert!(redis(&[("BUGLE_CLUSTER__REDIS", "")]).is_empty());
    }

    #[test]
    fn numbered_tables_replace_the_files_and_a_secret_of_digits_stays_text() {
        use secrecy::ExposeSecret;
        let config = config(&[
            ("BUGLE_GRPC__API_KEYS__0__NAME", "orders"),
            ("BUGLE_GRPC__API_KEYS__0__KEY", "01234567890123456789012345678901"),
            ("BUGLE_GRPC__API_KEYS__0__SCOPES", "emit:user,presence"),
            ("BUGLE_GRPC__API_KEYS__1__NAME", "42"),
            ("BUGLE_GRPC__API_KEYS__1__SCOPES", ""),
            ("BUGLE_AUTH__JWT__KEYS__0__ALGORITHM", "HS256"),
            ("BUGLE_AUTH__JWT__KEYS__0__SECRET", "0123"),
            ("BUGLE_WEBSOCKET__0__PATH", "/ws/balance"),
            ("BUGLE_WEBSOCKET__0__EVENTS", "balance*, score"),
            ("BUGLE_WEBSOCKET__0__AUTH_TIMEOUT", "2s"),
        ]);
        let names: Vec<_> = config.grpc.api_keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["orders", "42"]);
        assert_eq!(config.grpc.api_keys[0].scopes, ["emit:user", "presence"]);
        let key = config.grpc.api_keys[0].key.as_ref().unwrap();
        assert_eq!(key.expose_secret(), "01234567890123456789012345678901");
        assert_eq!(config.auth.jwt.keys[0].secret.as_ref().unwrap().expose_secret(), "0123");
        let websocket = &config.websocket[0];
        assert_eq!((websocket.path.as_str(), websocket.events.len()), ("/ws/balance", 2));
        assert_eq!(websocket.auth_timeout.as_secs(), 2);
    }

    #[test]
    fn lists_inside_numbered_tables_are_split_too() {
        let config = config(&[
            ("BUGLE_ENVELOPES__0__EVENTS", "earnings:*, notification"),
            ("BUGLE_ENVELOPES__1__EVENTS", "notification:broadcast"),
        ]);
        let events: Vec<_> = config.envelopes.iter().map(|envelope| envelope.events.len()).collect();
        assert_eq!(events, [2, 1]);
    }

    #[test]
    fn a_variable_that_names_no_key_is_a_fault() {
        let unknown = "names no key of the configuration; a dot is two underscores here";
        let found = faults(&[
            ("BUGLE_GRPC__LISTN", "x"),
            ("BUGLE_GRPC_LISTEN", "x"),
            ("BUGLE_GRPC__API_KEYS__0__NAMME", "x"),
            ("BUGLE_GRPC__API_KEYS__X__NAME", "x"),
            ("BUGLE_", "x"),
        ]);
        let names = [
            "BUGLE_",
            "BUGLE_GRPC_LISTEN",
            "BUGLE_GRPC__API_KEYS__0__NAMME",
            "BUGLE_GRPC__API_KEYS__X__NAME",
            "BUGLE_GRPC__LISTN",
        ];
        assert_eq!(found, names.map(|name| format!("{name}: {unknown}")));
    }

    #[test]
    fn a_variable_that_names_more_or_less_than_a_key_is_told_what_to_name() {
        let found = faults(&[
            ("BUGLE_ADMIN", "x"),
            ("BUGLE_GRPC__API_KEYS", "s3cret"),
            ("BUGLE_AUTH__ROOMS", "a"),
            ("BUGLE_AUTH__ROOMS__0", "b"),
            ("BUGLE_AUTH__JWT__AUDIENCE__1", "b"),
        ]);
        assert_eq!(
            found,
            [
                "BUGLE_ADMIN: names a table, not a key: set BUGLE_ADMIN__LISTEN",
                "BUGLE_AUTH__ROOMS__0: gives a value to a key that another variable gives one, too",
                "BUGLE_GRPC__API_KEYS: names a list of tables: number its entries, as in BUGLE_GRPC__API_KEYS__0__…",
                "BUGLE_AUTH__JWT__AUDIENCE: number its entries 0, 1, 2 and so on, without a gap",
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_variable() {
        let found = faults(&[("BUGLE_LIMITS__MAX_PAYLOAD", "many"), ("BUGLE_CLIENTS__PLAINTEXT_PUBLIC", "perhaps")]);
        assert_eq!(
            found,
            [
                "clients.plaintext_public: is string \"perhaps\", but must be true or false (set by \
                 BUGLE_CLIENTS__PLAINTEXT_PUBLIC)",
                "limits.max_payload: is string \"many\", but must be a whole number (set by BUGLE_LIMITS__MAX_PAYLOAD)",
            ]
        );
    }

    #[test]
    fn the_command_lines_own_variables_and_those_of_kubernetes_are_let_be() {
        let found = faults(&[
            ("BUGLE_API_KEY", "k3y"),
            ("BUGLE_SERVER", "http://127.0.0.1:1"),
            ("BUGLE_BENCH_SECRET", "s3cret"),
            ("BUGLE_SERVICE_HOST", "10.0.0.1"),
            ("BUGLE_SERVICE_PORT_GRPC", "50051"),
            ("BUGLE_PORT", "tcp://10.0.0.1:3000"),
            ("BUGLE_PORT_3000_TCP", "tcp://10.0.0.1:3000"),
            ("BUGLE_PORT_3000_TCP_ADDR", "10.0.0.1"),
            ("BUGLE_GRPC_PORT_50051_TCP_PORT", "50051"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_value_that_is_not_utf8_is_a_fault() {
        let variable = (OsString::from("BUGLE_LOG__LEVEL"), OsString::from_vec(vec![0xff]));
        let reading = Config::read_from(None, [variable]).unwrap();
        assert_eq!(reading.faults, [Fault::new("BUGLE_LOG__LEVEL", "is not UTF-8")]);
    }
}
