use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Serialize, Serializer};

/// `[auth]`: who devices are, and which rooms they join on connect.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How tokens are verified.
    pub jwt: JwtConfig,
    /// Rooms that each connection joins, besides its user's and its roles': constants, or templates that begin with a literal,
    /// with `{user}`, `{role}` and `{claim.NAME}`. At most 256.
    pub rooms: Vec<String>,
    /// What happens to a live connection when its token expires.
    pub on_expiry: OnExpiry,
    /// How long before that the device is told; zero: never.
    #[serde(with = "humantime_serde")]
    pub expiring_notice: Duration,
}

/// What happens to a live connection when its token expires.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// It is closed, unless the device refreshed the token.
    Close,
    /// Nothing: tokens are verified on connection only.
    Keep,
}

/// `[auth.jwt]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// The keys that sign tokens; several: rotation.
    pub keys: Vec<KeyConfig>,
    /// Accepted `iss`; empty: any.
    pub issuer: Vec<String>,
    /// Accepted `aud`; empty: any.
    pub audience: Vec<String>,
    /// How far clocks may be apart.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
    /// The claim that names the user: a text of 1 to 256 bytes, or an integer. A name with dots is also tried as a path into
    /// objects, here and wherever a claim is named.
    pub user_claim: String,
    /// The claim that names the role, or lists up to 64: texts or integers. Without it there are no roles.
    pub role_claim: String,
    /// The claim with the rooms that a device may join by an event: a pattern such as `listing:*`, or a list of them.
    pub rooms_claim: String,
}

/// `[[auth.jwt.keys]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Which tokens it verifies, by their header's `kid`; none: any. Tokens without a `kid` are tried with every key.
    pub kid: Option<String>,
    /// The one algorithm that the key is good for: `HS256`, `HS384`, `HS512`, `RS256`, `RS384`, `RS512`, `PS256`, `ES256`,
    /// `ES384` or `EdDSA`.
    pub algorithm: String,
    /// The secret of an HS algorithm, 32 bytes or more: the text as it stands, not decoded.
    #[serde(serialize_with = "masked", skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretString>,
    /// The PEM file with the public key of any other algorithm. RSA keys have 2048 to 4096 bits.
    pub public_key_file: Option<PathBuf>,
}

/// `[[grpc.api_keys]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The backend's name in logs and metrics.
    pub name: String,
    /// The key itself, 32 bytes or more, in ASCII without blanks.
    #[serde(serialize_with = "masked", skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretString>,
    /// Or its SHA-256, in hexadecimal.
    pub key_sha256: Option<String>,
    /// What the backend may do: `emit`, `emit:user`, `emit:room:PATTERN`, `emit:broadcast`, `presence`, `rooms`, `disconnect`, `mailbox`, `messages`,
    /// `messages:PATTERN`.
    pub scopes: Vec<String>,
}

/// Writes a secret as what may be shown of it. serde passes a reference to the field.
#[expect(clippy::ref_option, reason = "serde's signature")]
fn masked<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "***").serialize(serializer)
}
