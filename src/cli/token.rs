use std::time::Duration;

use clap::{Args, Subcommand};
use humantime_serde::re::humantime::parse_duration;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{ConfigFile, Failure, print, print_json, read_input};
use crate::auth::{Identity, JwtConfig, KeyConfig, Tokens, mint};
use crate::clock::Clock;
use crate::config::{Config, ConfigError};
use crate::message::{RoomName, UserId};

/// `bugle token`.
#[derive(Subcommand)]
pub enum Token {
    /// Make a token for a device, with a secret of the configuration or one that is given. For trying things out and for backends
    /// without a JWT library.
    Mint(Mint),
    /// Tell whether devices get in with a token, and whom it names, as a line of JSON.
    Verify(Verify),
}

/// `bugle token mint`.
#[derive(Args)]
pub struct Mint {
    /// Whom the token names.
    #[arg(long)]
    user: String,
    /// A role of the user; may be given several times.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// For how long the token is good.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
    /// A further claim, stronger than those that Bugle sets; may be given several times. A value that is not JSON is a text.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// Sign with the configuration's key of this id; with --secret, the id to put into the token's header.
    #[arg(long)]
    kid: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// Sign with this secret by HS256, whatever the configuration says. Other users of the machine can see it.
    #[arg(long, conflicts_with = "path")]
    secret: Option<SecretString>,
}

/// `bugle token verify`.
#[derive(Args)]
pub struct Verify {
    /// The token; - reads it from standard input.
    token: String,
    #[command(flatten)]
    file: ConfigFile,
}

impl Token {
    /// Mints or verifies.
    pub fn execute(self) -> Result<(), Failure> {
        match self {
            Self::Mint(mint) => mint.execute(),
            Self::Verify(verify) => verify.execute(),
        }
    }
}

impl Mint {
    fn execute(self) -> Result<(), Failure> {
        let token = self.token(Clock::system().now())?;
        print(&format!("{token}\n"))
    }

    fn token(self, now: Timestamp) -> Result<String, Failure> {
        let (names, key) = if let Some(secret) = self.secret {
            (Config::defaults()?.auth.jwt, secret_key(self.kid, secret))
        } else {
            let names = Config::load(self.file.path.as_deref())?.auth.jwt;
            let key = signing_key(&names, self.kid.as_deref())?.clone();
            (names, key)
        };
        let user = UserId::new(&self.user).map_err(Failure::User)?;
        let mut claims = claims(&names, &user, &self.roles, now, self.ttl)?;
        claims.extend(self.claims);
        Ok(mint(&key, &claims)?)
    }
}

impl Verify {
    fn execute(self) -> Result<(), Failure> {
        let config = Config::load(self.file.path.as_deref())?;
        let tokens = Tokens::new(&config.auth, Vec::new(), Clock::system()).map_err(ConfigError::Faults)?;
        let token = if self.token == "-" { read_input()? } else { self.token };
        let identity = tokens.verify(Some(token.trim())).map_err(Failure::TokenRefused)?;
        print_json(&Printed::from(&identity))
    }
}

/// A token for whoever tries Bugle out; nothing if the configuration's keys only verify.
pub fn for_dev(config: &Config, user: &UserId, ttl: Duration) -> Result<Option<SecretString>, Failure> {
    let names = &config.auth.jwt;
    let Ok(key) = signing_key(names, None) else {
        return Ok(None);
    };
    let claims = claims(names, user, &[], Clock::system().now(), ttl)?;
    Ok(Some(mint(key, &claims)?.into()))
}

fn secret_key(kid: Option<String>, secret: SecretString) -> KeyConfig {
    KeyConfig { kid, algorithm: String::from("HS256"), secret: Some(secret), public_key_file: None }
}

/// The key of this id, or else the first that can sign.
fn signing_key<'a>(config: &'a JwtConfig, kid: Option<&str>) -> Result<&'a KeyConfig, Failure> {
    let is_asked_for = |key: &&KeyConfig| match kid {
        Some(kid) => key.kid.as_deref() == Some(kid),
        None => key.secret.is_some(),
    };
    config.keys.iter().find(is_asked_for).ok_or(Failure::NoSigningKey)
}

/// What Bugle wants to see in a token, under the names that are configured.
fn claims(
    names: &JwtConfig,
    user: &UserId,
    roles: &[String],
    now: Timestamp,
    ttl: Duration,
) -> Result<Map<String, Value>, Failure> {
    let ttl = SignedDuration::try_from(ttl).map_err(Failure::Ttl)?;
    let expiry = now.checked_add(ttl).map_err(Failure::Ttl)?;
    let mut claims = Map::new();
    claims.insert(names.user_claim.clone(), user.as_str().into());
    match roles {
        [] => {}
        [role] => {
            claims.insert(names.role_claim.clone(), role.as_str().into());
        }
        several => {
            claims.insert(names.role_claim.clone(), several.into());
        }
    }
    for (claim, accepted) in [("iss", &names.issuer), ("aud", &names.audience)] {
        if let Some(first) = accepted.first() {
            claims.insert(claim.to_owned(), first.as_str().into());
        }
    }
    claims.insert(String::from("iat"), now.as_second().into());
    claims.insert(String::from("exp"), expiry.as_second().into());
    Ok(claims)
}

fn claim(text: &str) -> Result<(String, Value), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            Ok((name.to_owned(), value))
        }
        Some(_) | None => Err("give NAME=VALUE, such as tenant=acme or level=3"),
    }
}

/// Whom a token names, as it is printed.
#[derive(Serialize)]
struct Printed<'a> {
    user: &'a str,
    roles: Vec<&'a str>,
    rooms: Vec<&'a str>,
    expires_at: String,
}

impl<'a> From<&'a Identity> for Printed<'a> {
    fn from(identity: &'a Identity) -> Self {
        Self {
            user: identity.user.as_str(),
            roles: identity.roles.iter().map(AsRef::as_ref).collect(),
            rooms: identity.rooms.iter().map(RoomName::as_str).collect(),
            expires_at: identity.expires_at.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        mint: Mint,
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn parse(arguments: &[&str]) -> Mint {
        Line::try_parse_from(["mint", "--user", "42"].iter().chain(arguments)).ok().unwrap().mint
    }

    fn names() -> JwtConfig {
        Config::defaults().unwrap().auth.jwt
    }

    #[test]
    fn claims_have_the_configured_names_and_the_first_issuer_and_audience() {
        let names = JwtConfig {
            user_claim: "userId".into(),
            role_claim: "roles".into(),
            issuer: vec!["https://a.example".into(), "https://b.example".into()],
            audience: vec!["bugle".into()],
            ..names()
        };
        let user = UserId::new("42").unwrap();
        let now = Timestamp::from_second(1_000).unwrap();
        let roles = [String::from("admin"), String::from("agent")];
        let made = claims(&names, &user, &roles, now, Duration::from_mins(1)).unwrap();
        let expected = json!({
            "userId": "42", "roles": ["admin", "agent"], "iss": "https://a.example", "aud": "bugle", "iat": 1000, "exp": 1060
        });
        assert_eq!(Value::Object(made), expected);
        let made = claims(&names, &user, &roles[..1], now, Duration::MAX);
        assert_eq!(made.unwrap_err().exit_code(), 64, "past the end of the calendar");
    }

    #[test]
    fn a_minted_token_is_verified_with_its_extra_claims() {
        let arguments =
            ["--role", "admin", "--claim", "tenant=acme", "--claim", "level=3", "--secret", SECRET, "--kid", "a"];
        let token = parse(&arguments).token(Clock::system().now()).unwrap();
        let mut config = Config::defaults().unwrap();
        config.auth.rooms = vec!["tenant:{claim.tenant}".into(), "level:{claim.level}".into()];
        config.auth.jwt.keys = vec![secret_key(Some("a".into()), SECRET.into())];
        let tokens = Tokens::new(&config.auth, Vec::new(), Clock::system()).ok().unwrap();
        let identity = tokens.verify(Some(&token)).unwrap();
        let line = serde_json::to_value(Printed::from(&identity)).unwrap();
        assert_eq!(line["user"], "42");
        assert_eq!(line["roles"], json!(["admin"]));
        for room in ["user:42", "role:admin", "tenant:acme", "level:3"] {
            assert!(line["rooms"].as_array().unwrap().contains(&json!(room)), "{line}");
        }
    }

    #[test]
    fn claims_are_json_or_else_texts() {
        assert_eq!(claim("level=3"), Ok(("level".into(), json!(3))));
        assert_eq!(claim("tags=[\"a\"]"), Ok(("tags".into(), json!(["a"]))));
        assert_eq!(claim("tenant=acme"), Ok(("tenant".into(), json!("acme"))));
        assert_eq!(claim("equation=a=b"), Ok(("equation".into(), json!("a=b"))));
        assert!(claim("level").is_err() && claim("=3").is_err());
    }

    #[test]
    fn the_key_is_the_one_of_the_id_or_the_first_that_can_sign() {
        let mut names = names();
        assert_eq!(signing_key(&names, None).unwrap_err().exit_code(), 64);
        let public =
            KeyConfig { secret: None, algorithm: "ES256".into(), ..secret_key(Some("public".into()), SECRET.into()) };
        names.keys =
            vec![public, secret_key(Some("a".into()), SECRET.into()), secret_key(Some("b".into()), SECRET.into())];
        let kid = |kid: Option<&str>| signing_key(&names, kid).unwrap().kid.clone().unwrap();
        assert_eq!(kid(None), "a");
        assert_eq!(kid(Some("b")), "b");
        assert_eq!(kid(Some("public")), "public", "the refusal to sign with it says why");
        assert!(signing_key(&names, Some("c")).is_err());
    }

    #[test]
    fn a_secret_and_a_file_exclude_each_other() {
        assert!(Line::try_parse_from(["mint", "--user", "42", "--secret", SECRET, "--config", "bugle.toml"]).is_err());
    }
}
