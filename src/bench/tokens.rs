//! Who the devices are.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::Error;
use crate::auth::{KeyConfig, mint};
use crate::clock::Clock;

/// The role of all devices of a bench.
const ROLE: &str = "bench";
/// The room that a device is in by that role.
pub const ROOM: &str = "role:bench";
const TIME_TO_LIVE: Duration = Duration::from_hours(24);

/// The name of a device's user.
pub fn user(number: usize) -> String {
    format!("bench-{number:06}")
}

/// Tokens (HS256) for so many devices, each of a user of its own.
pub fn tokens(devices: usize, secret: &SecretString) -> Result<Vec<String>, Error> {
    let claims = |number| [("sub".to_owned(), json!(user(number))), ("role".to_owned(), json!(ROLE))];
    (0..devices).map(|number| token(claims(number).into_iter().collect(), secret)).collect()
}

/// A token (HS256) with these claims that is good for a day.
pub fn token(mut claims: Map<String, Value>, secret: &SecretString) -> Result<String, Error> {
    let expires = Clock::system().now() + TIME_TO_LIVE;
    claims.insert("exp".to_owned(), json!(expires.as_second()));
    let secret = Some(secret.clone());
    let key = KeyConfig { kid: None, algorithm: "HS256".to_owned(), secret, public_key_file: None };
    Ok(mint(&key, &claims)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_too_short_is_refused_and_not_repeated() {
        let error = tokens(1, &"short".into()).unwrap_err();
        assert!(matches!(error, Error::Mint(_)));
        assert!(!format!("{error:?}").contains("short\""), "{error:?}");
    }

    #[test]
    fn each_device_has_a_token_of_its_own() {
        let tokens = tokens(3, &"a-secret-of-thirty-two-bytes-or-more".into()).unwrap();
        assert_eq!(tokens.len(), 3);
        assert_ne!(tokens[0], tokens[1]);
    }
}
