use std::{ffi::OsString, net::IpAddr, path::Path};

use config::{Value, ValueKind};
use ipnet::IpNet;
use serde_json::Value as Json;

use super::{
    Config, ConfigError, Reading,
    environment::Environment,
    example::example,
    place::Place,
    readable::holds_secret,
    sources::{self, Text},
};
use crate::message::Fault;

/// No file has as many faults; more means that one of them does not go away.
const MAX_FAULTS: usize = 1_000;

/// Lists whose values are not shown.
const SECRETS: [&str; 3] = ["auth.jwt.keys", "grpc.api_keys", "cluster.redis"];

pub(super) fn read(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Reading, ConfigError> {
    let example = example()?;
    let environment = Environment::new(variables, &example);
    let file = match file.or(environment.file.as_deref()) {
        Some(path) => Some(Text::read(path)?),
        None => None,
    };
    put_together(file.as_ref(), environment, &example)
}

fn put_together(file: Option<&Text>, mut environment: Environment, example: &Json) -> Result<Reading, ConfigError> {
    let mut faults = std::mem::take(&mut environment.faults);
    let merged = sources::merge(file, environment)?;
    let mut tree = json(&merged);
    complete_addresses(&mut tree);
    let (mut config, more) = deserialize(tree, example, &merged)?;
    faults.extend(more);
    for path in [&mut config.socketio.path, &mut config.console.path, &mut config.rest.path] {
        if let Some(stripped) = path.strip_suffix('/').filter(|path| !path.is_empty()) {
            *path = stripped.to_owned();
        }
    }
    let secret_file = match file {
        Some(file) if holds_secret(&json(&sources::alone(file)?)) => Some(file.path.clone()),
        Some(_) | None => None,
    };
    Ok(Reading { config, faults, secret_file })
}

/// An address is a network of one.
fn complete_addresses(tree: &mut Json) {
    let proxies = tree.pointer_mut("/clients/trusted_proxies").and_then(Json::as_array_mut);
    for proxy in proxies.into_iter().flatten() {
        if let Some(Ok(address)) = proxy.as_str().map(str::parse::<IpAddr>) {
            *proxy = IpNet::from(address).to_string().into();
        }
    }
}

fn json(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(truth) => (*truth).into(),
        ValueKind::I64(number) => (*number).into(),
        ValueKind::U64(number) => (*number).into(),
        ValueKind::Float(number) => (*number).into(),
        ValueKind::I128(number) => number.to_string().into(),
        ValueKind::U128(number) => number.to_string().into(),
        ValueKind::String(text) => text.as_str().into(),
        ValueKind::Array(entries) => entries.iter().map(json).collect(),
        ValueKind::Table(table) => Json::Object(table.iter().map(|(key, value)| (key.clone(), json(value))).collect()),
    }
}

/// Deserializes as often as it takes to find everything that is wrong: each time, what was wrong is replaced by what the example has.
fn deserialize(mut tree: Json, example: &Json, merged: &Value) -> Result<(Config, Vec<Fault>), ConfigError> {
    let mut faults = Vec::new();
    while faults.len() < MAX_FAULTS {
        let error = match serde_path_to_error::deserialize::<_, Config>(&tree) {
            Ok(config) => return Ok((config, faults)),
            Err(error) => error,
        };
        let mut place = Place::of_error(error.path());
        let message = error.inner().to_string();
        let mended = match missing_field(&message) {
            Some(field) => {
                place.enter(field);
                place.set(&mut tree, example)
            }
            None if message.starts_with(UNKNOWN_FIELD) => place.remove(&mut tree),
            None => place.set(&mut tree, example),
        };
        faults.push(fault(&place, &message, merged));
        if !mended {
            break;
        }
    }
    Err(ConfigError::Faults(faults))
}

fn fault(place: &Place, message: &str, merged: &Value) -> Fault {
    let key = place.to_string();
    let is_secret = SECRETS.iter().any(|table| key.starts_with(table));
    let mut problem = problem(message, is_secret);
    if let Some(variable) = place.origin(merged) {
        problem.push_str(" (set by ");
        problem.push_str(variable);
        problem.push(')');
    }
    Fault::new(key, problem)
}

const UNKNOWN_FIELD: &str = "unknown field ";
const MISSING_FIELD: &str = "missing field ";
const WRONG: [&str; 2] = ["invalid type: ", "invalid value: "];

fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix(MISSING_FIELD).map(|field| field.trim_matches('`'))
}

/// What serde says, in other words. A value that may be a secret is left out.
fn problem(message: &str, is_secret: bool) -> String {
    let (found, wanted) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    if missing_field(message).is_some() {
        return String::from("is missing");
    }
    if found.starts_with(UNKNOWN_FIELD) {
        let known = wanted.trim_start_matches("one of ").replace('`', "");
        return format!("is no key; here are: {known}");
    }
    if let Some(found) = WRONG.iter().find_map(|prefix| found.strip_prefix(prefix)) {
        let wanted = match wanted {
            "a boolean" => "true or false",
            "u32" => "a whole number from 0 to 4294967295",
            "usize" | "u64" => "a whole number",
            "a sequence" => "a list",
            _ if wanted.starts_with("struct ") => "a table",
            _ => wanted,
        };
        return if is_secret { format!("must be {wanted}") } else { format!("is {found}, but must be {wanted}") };
    }
    match message {
        "invalid socket address syntax" => String::from("must be an address and a port, such as 127.0.0.1:3000"),
        "invalid IP address syntax" => String::from("must be an address or a network, such as 10.0.0.0/8"),
        _ => message.to_owned(),
    }
}

/// Reads a file's text and variables of the test's own.
#[cfg(test)]
pub(super) fn read_text<'a>(
    text: &str,
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Reading, ConfigError> {
    let example = example()?;
    let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
    let file = Text { path: "test.toml".into(), text: text.to_owned() };
    put_together(Some(&file), Environment::new(variables, &example), &example)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        read_text(text, []).unwrap().faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_is_found_at_once_with_its_key() {
        let mut found = faults(
            r#"
            grpc.listen = "localhost:50051"
            grpc.colour = "red"
            logs = {}
            [clients]
            trusted_proxies = ["10.0.0.1", "10.0.0.0/8", "nowhere", "10.0.0.0/99"]
            [[envelopes]]
            events = ["e", "a*b"]
            [auth]
            on_expiry = "explode"
            [limits]
            connections = -1
            max_payload = "many"
            [drain]
            pace = 5_000_000_000
            deadline = 30
            [socketio]
            transports = ["websocket", "pigeon"]
            ping_interval = "soon"
            "#,
        );
        found.sort();
        if let Some(line) = found.iter_mut().find(|line| line.starts_with("logs: is no key; here are: clients, grpc, "))
        {
            *line = "logs: is no key; here are: …".to_owned();
        }
        assert_eq!(
            found,
            [
                "auth.on_expiry: unknown variant `explode`, expected `close` or `keep`",
                "clients.trusted_proxies[2]: must be an address or a network, such as 10.0.0.0/8",
                "clients.trusted_proxies[3]: must be an address or a network, such as 10.0.0.0/8",
                "drain.deadline: is integer `30`, but must be a duration",
                "drain.pace: is integer `5000000000`, but must be a whole number from 0 to 4294967295",
                "envelopes[0].events[1]: has a `*` before its end: only the last character may be one",
                "grpc.colour: is no key; here are: listen, plaintext_public, api_keys",
                "grpc.listen: must be an address and a port, such as 127.0.0.1:3000",
                "limits.connections: is integer `-1`, but must be a whole number from 0 to 4294967295",
                "limits.max_payload: is string \"many\", but must be a whole number",
                "logs: is no key; here are: …",
                "socketio.ping_interval: is string \"soon\", but must be a duration",
                "socketio.transports[1]: unknown variant `pigeon`, expected `polling` or `websocket`",
            ]
        );
    }

    #[test]
    fn faults_inside_lists_of_tables_say_which_entry_and_show_no_value() {
        let found = faults(
            r#"
            grpc.api_keys = [{ name = "a", key = 123456, scopes = "s3cret" }, { key = "x", colour = 1 }, "s3cret", 5]
            auth.jwt.keys = "s3cret"
            cluster.redis = "redis://:s3cret@a"
            "#,
        );
        assert_eq!(
            found,
            [
                "auth.jwt.keys: must be a list",
                "cluster.redis: must be a list",
                "grpc.api_keys[0].key: must be a string",
                "grpc.api_keys[0].scopes: must be a list",
                "grpc.api_keys[1].colour: is no key; here are: name, key, key_sha256, scopes",
                "grpc.api_keys[1].name: is missing",
                "grpc.api_keys[1].scopes: is missing",
                "grpc.api_keys[2]: must be a table",
                "grpc.api_keys[3]: must be a table",
            ]
        );
    }

    #[test]
    fn an_entry_for_websockets_needs_a_path_and_events_that_are_good() {
        let found = faults("[[websocket]]\nevents = ['a', 'a*b']\n[[websocket]]\npath = '/a'\nport = 1");
        assert_eq!(
            found,
            [
                "websocket[0].events[1]: has a `*` before its end: only the last character may be one",
                "websocket[0].path: is missing",
                "websocket[1].port: is no key; here are: path, events, auth_timeout",
                "websocket[1].events: is missing",
            ]
        );
        let config = read_text("[[websocket]]\npath = '/a'\nevents = ['a*']", []).unwrap().complete().unwrap();
        assert_eq!(config.websocket[0].auth_timeout.as_secs(), 5);
        let printed = config.to_toml().unwrap();
        assert_eq!(read_text(&printed, []).unwrap().complete().unwrap().to_toml().unwrap(), printed);
    }

    #[test]
    fn a_section_that_is_no_table_is_one_fault() {
        assert_eq!(faults("grpc = 5"), ["grpc: is integer `5`, but must be a table"]);
    }

    #[test]
    fn a_proxy_may_be_an_address() {
        let config = read_text("clients.trusted_proxies = [\"10.0.0.1\", \"::1\"]", []).unwrap().complete().unwrap();
        let proxies: Vec<_> = config.clients.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(proxies, ["10.0.0.1/32", "::1/128"]);
    }

    #[test]
    fn the_slash_behind_the_path_is_dropped() {
        let path = |path: &str| {
            let text = format!("socketio.path = {path:?}");
            read_text(&text, []).unwrap().config.socketio.path
        };
        assert_eq!(path("/socket.io/"), "/socket.io");
        assert_eq!(path("/"), "/", "refused as it is");
    }
}
