use secrecy::{ExposeSecret, SecretString};

use crate::app::Addresses;
use crate::config::{Config, DevMode};

/// Whom the token of `--dev` names, and the first event is for.
pub const DEV_USER: &str = "42";

/// What a developer needs to see a first event arrive, ready to be pasted. It holds secrets: those that `--dev` made.
pub fn banner(addresses: &Addresses, config: &Config, dev: &DevMode) -> String {
    let Addresses { clients, grpc, admin } = addresses;
    let path = &config.socketio.path;
    let console = &config.console.path;
    let device = device(addresses, config, dev);
    let backend = backend(addresses, dev);
    let token = match &dev.token {
        Some(token) => format!("A token for user {DEV_USER}, good for 24 hours:\n\n{}", token.expose_secret()),
        None => String::from("Tokens: signed with the private key that belongs to your configuration's public one."),
    };
    format!(
        "\
Bugle runs with --dev: on this machine alone, and what it made at start ends with it.

  devices    http://{clients}{path} (Socket.IO)
  backends   {grpc} (gRPC, with reflection)
  operators  http://{admin}/readyz, /livez and /metrics
  console    http://{admin}{console} (a page to try things out with the token and a key)

{token}

A device, in Node after `npm install socket.io-client`; a page has the same `io` from socket.io-client's bundle:

{device}

An event for it, from a backend:

{backend}

"
    )
}

fn device(addresses: &Addresses, config: &Config, dev: &DevMode) -> String {
    let token =
        dev.token.as_ref().map_or_else(|| String::from("process.env.TOKEN"), |token| quoted(token.expose_secret()));
    let path = quoted(&config.socketio.path);
    format!(
        "\
node -e '
  const {{ io }} = require(\"socket.io-client\");
  const socket = io(\"http://{}\", {{ path: {path}, auth: {{ token: {token} }} }});
  socket.onAny((event, ...payload) => console.log(event, ...payload));
  socket.on(\"connect_error\", (error) => console.log(error.message));
'",
        addresses.clients
    )
}

fn backend(addresses: &Addresses, dev: &DevMode) -> String {
    let grpc = addresses.grpc;
    let header = match dev.api_key.as_ref().map(SecretString::expose_secret) {
        Some(key) => format!("'authorization: Bearer {key}'"),
        None => String::from("\"authorization: Bearer $BUGLE_API_KEY\""),
    };
    let request = format!(r#"{{"user_id":"{DEV_USER}","event":"hello","value":{{"text":"Hello from Bugle"}}}}"#);
    let key = dev.api_key.as_ref().map(|key| format!("BUGLE_API_KEY={} ", key.expose_secret())).unwrap_or_default();
    format!(
        "\
grpcurl -plaintext -H {header} -d '{request}' {grpc} bugle.v1.Notify/EmitToUser

The same without grpcurl:

{key}bugle emit user --server http://{grpc} {DEV_USER} hello '{{\"text\":\"Hello from Bugle\"}}'"
    )
}

/// As a text in JavaScript, within single quotes of the shell.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\'', "\\u0027")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn addresses() -> Addresses {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Addresses { clients: at(3000), grpc: at(50051), admin: at(9090) }
    }

    fn shown(dev: &DevMode) -> String {
        banner(&addresses(), &Config::defaults().unwrap(), dev)
    }

    #[test]
    fn the_command_line_takes_the_command_that_the_banner_has() {
        let dev = DevMode { any_loopback_origin: true, api_key: Some("k3y".into()), token: Some("t0ken".into()) };
        let shown = shown(&dev);
        let command = shown.lines().find_map(|line| line.strip_prefix("BUGLE_API_KEY=k3y ")).unwrap();
        let (words, json) = command.split_once(" '").unwrap();
        let mut arguments: Vec<_> = words.split(' ').collect();
        arguments.extend(["--api-key", "k3y", json.trim_end_matches('\'')]);
        <crate::cli::Cli as clap::Parser>::try_parse_from(arguments).map(drop).unwrap();
    }

    #[test]
    fn the_banner_has_all_that_a_first_event_needs() {
        let dev = DevMode { any_loopback_origin: true, api_key: Some("k3y".into()), token: Some("t0ken".into()) };
        let shown = shown(&dev);
        for part in [
            "\nt0ken\n",
            "io(\"http://127.0.0.1:3000\", { path: \"/socket.io\", auth: { token: \"t0ken\" } })",
            "http://127.0.0.1:9090/",
            "\n  console    http://127.0.0.1:9090/console (",
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        let grpcurl = "grpcurl -plaintext -H 'authorization: Bearer k3y' -d \
            '{\"user_id\":\"42\",\"event\":\"hello\",\"value\":{\"text\":\"Hello from Bugle\"}}' 127.0.0.1:50051 \
            bugle.v1.Notify/EmitToUser";
        assert!(shown.lines().any(|line| line == grpcurl), "{shown}");
    }

    #[test]
    fn the_configurations_own_keys_are_not_shown() {
        let shown = shown(&DevMode { any_loopback_origin: true, api_key: None, token: None });
        assert!(shown.contains("\"authorization: Bearer $BUGLE_API_KEY\""), "{shown}");
        assert!(shown.contains("token: process.env.TOKEN"), "{shown}");
    }

    #[test]
    fn a_quote_in_the_path_does_not_end_the_shells() {
        assert_eq!(quoted("/it's"), "\"/it\\u0027s\"");
    }
}
