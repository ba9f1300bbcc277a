use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::{Config, JwtConfig, KeyConfig, OnExpiry, Tokens};
use crate::clock::Clock;
use crate::message::Fault;

mod algorithms;
mod api_keys;
mod faults;
mod identities;
mod mint;
mod refusals;

const SECRET: &str = "a secret for the tests of 36 bytes..";
const OTHER_SECRET: &str = "another secret, one of 36 bytes.....";

const RSA_PUBLIC: &str = include_str!("../testdata/rsa.pub.pem");

fn secret_key(algorithm: &str, kid: Option<&str>, secret: &str) -> KeyConfig {
    let kid = kid.map(str::to_owned);
    KeyConfig { kid, algorithm: algorithm.to_owned(), secret: Some(secret.into()), public_key_file: None }
}

fn public_key(algorithm: &str, file: &str) -> KeyConfig {
    let path = format!("{}/src/auth/testdata/{file}", env!("CARGO_MANIFEST_DIR"));
    KeyConfig { kid: None, algorithm: algorithm.to_owned(), secret: None, public_key_file: Some(path.into()) }
}

fn config(keys: Vec<KeyConfig>) -> Config {
    Config {
        jwt: JwtConfig {
            keys,
            issuer: Vec::new(),
            audience: Vec::new(),
            leeway: Duration::from_secs(5),
            user_claim: "sub".to_owned(),
            role_claim: "role".to_owned(),
            rooms_claim: "rooms".to_owned(),
        },
        rooms: Vec::new(),
        on_expiry: OnExpiry::Close,
        expiring_notice: Duration::ZERO,
    }
}

fn hs256() -> Config {
    config(vec![secret_key("HS256", None, SECRET)])
}

/// Verifies by this configuration, and with a clock of its own.
struct Gate {
    tokens: Tokens,
    clock: Clock,
}

impl Gate {
    fn new(config: &Config) -> Self {
        let clock = Clock::movable();
        let tokens = Tokens::new(config, vec!["org".to_owned()], clock.clone()).unwrap();
        Self { tokens, clock }
    }

    fn now(&self) -> i64 {
        self.clock.now().as_second()
    }

    /// The claims of a user for an hour, and these besides or instead. `null` takes one away.
    fn claims(&self, more: &Value) -> Value {
        let mut claims = json!({ "sub": "42", "exp": self.now() + 3600 });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    /// What becomes of a good token with these claims besides or instead.
    fn verify(&self, more: &Value) -> Result<super::Identity, &'static str> {
        self.verify_text(&signed("HS256", &self.claims(more)))
    }

    fn verify_text(&self, token: &str) -> Result<super::Identity, &'static str> {
        self.tokens.verify(Some(token)).map_err(|refused| refused.reason())
    }
}

fn faults_of(config: &Config) -> Vec<String> {
    let faults = Tokens::new(config, Vec::new(), Clock::system()).unwrap_err();
    faults.iter().map(Fault::to_string).collect()
}

/// A token with the header that goes with the algorithm, signed by the test's key for it.
fn signed(algorithm: &str, claims: &Value) -> String {
    let header = json!({ "typ": "JWT", "alg": algorithm }).to_string();
    signed_parts(algorithm, SECRET, &header, claims.to_string().as_bytes())
}

/// A token with any header and payload at all, and a true signature.
fn signed_parts(algorithm: &str, secret: &str, header: &str, payload: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let (key, algorithm) = signing_key(algorithm, secret);
    let signature = crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn signing_key(algorithm: &str, secret: &str) -> (EncodingKey, Algorithm) {
    let key = match &algorithm[..2] {
        "HS" => EncodingKey::from_secret(secret.as_bytes()),
        "RS" | "PS" => EncodingKey::from_rsa_pem(include_bytes!("../testdata/rsa.key.pem")).unwrap(),
        "Ed" => EncodingKey::from_ed_pem(include_bytes!("../testdata/ed25519.key.pem")).unwrap(),
        _ if algorithm == "ES256" => EncodingKey::from_ec_pem(include_bytes!("../testdata/p256.key.pem")).unwrap(),
        _ => EncodingKey::from_ec_pem(include_bytes!("../testdata/p384.key.pem")).unwrap(),
    };
    (key, algorithm.parse().unwrap())
}
