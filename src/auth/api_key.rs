use std::{fmt, sync::Arc};

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    ApiKeyConfig, MissingScope, Right,
    scope::{Scope, needed},
};
use crate::message::{Audience, Fault, UserId};

/// The shortest key that is accepted, in bytes.
const MIN_KEY: usize = 32;

type Hash = [u8; 32];

/// The backends that may call. Of their keys only the hashes are kept.
#[derive(Clone)]
pub struct ApiKeys(Vec<ApiKey>);

#[derive(Clone)]
struct ApiKey {
    sha256: Hash,
    caller: Arc<Caller>,
}

/// A backend, known by its API key, and what it may do.
#[derive(Debug)]
pub struct Caller {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    scopes: Vec<Scope>,
}

/// Why a call has no caller. It repeats nothing of what was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// There is no `authorization`.
    #[error("an API key is required: send `authorization: Bearer <key>`")]
    Missing,
    /// There is one, but not `Bearer` and a key.
    #[error("`authorization` is not `Bearer <key>`")]
    Malformed,
    /// There is a key, but nobody's.
    #[error("the API key is not known here")]
    Unknown,
}

impl ApiKeys {
    /// All keys, or all that is wrong with them.
    pub fn new(configs: &[ApiKeyConfig]) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        if configs.is_empty() {
            faults.push(Fault::new("grpc.api_keys", "is empty: give a key to each backend that calls"));
        }
        let mut hashes = Vec::with_capacity(configs.len());
        let mut keys = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            let mut fault = |field: &str, problem: &str| {
                faults.push(Fault::new(format!("grpc.api_keys[{index}].{field}"), problem));
            };
            let names = configs[..index].iter().map(|other| other.name.as_str());
            check_name(&config.name, names, &mut fault);
            let scopes = scopes(config, &mut fault);
            let Some((field, sha256)) = hash(config, &mut fault) else {
                continue;
            };
            if hashes.contains(&sha256) {
                fault(field, "is the key of an earlier entry: give each backend its own");
            }
            hashes.push(sha256);
            keys.push(ApiKey { sha256, caller: Arc::new(Caller { name: config.name.as_str().into(), scopes }) });
        }
        if faults.is_empty() { Ok(Self(keys)) } else { Err(faults) }
    }

    /// Who shows this value of the header or metadata `authorization`. Takes the same time whatever key is shown.
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Arc<Caller>, KeyRefused> {
        let shown = bearer(authorization.ok_or(KeyRefused::Missing)?).ok_or(KeyRefused::Malformed)?;
        let shown = Hash::from(Sha256::digest(shown));
        let mut found = Err(KeyRefused::Unknown);
        for key in &self.0 {
            if bool::from(key.sha256.ct_eq(&shown)) {
                found = Ok(&key.caller);
            }
        }
        found.cloned()
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.caller)).finish()
    }
}

impl Caller {
    /// Whether the backend may emit to this audience.
    pub fn may_emit_to(&self, audience: &Audience) -> Result<(), MissingScope> {
        if self.scopes.iter().any(|scope| scope.covers(audience)) {
            return Ok(());
        }
        Err(self.lacks(&needed(audience)))
    }

    /// Whether the backend has this right.
    pub fn may(&self, right: Right) -> Result<(), MissingScope> {
        if self.scopes.contains(&Scope::Right(right)) {
            return Ok(());
        }
        Err(self.lacks(&format!("the scope `{}`", right.as_str())))
    }

    /// Whether the backend may act for this user in direct messages.
    pub fn may_act_for(&self, user: &UserId) -> Result<(), MissingScope> {
        if self.scopes.iter().any(|scope| scope.covers_user(user)) {
            return Ok(());
        }
        Err(self.lacks("the scope `messages`, or one `messages:PATTERN` whose pattern matches the user"))
    }

    fn lacks(&self, scope: &str) -> MissingScope {
        MissingScope(format!("the API key `{}` lacks {scope}", self.name))
    }
}

fn check_name<'a>(name: &str, mut earlier: impl Iterator<Item = &'a str>, fault: &mut impl FnMut(&str, &str)) {
    if name.trim().is_empty() {
        fault("name", "is empty: it tells the backends apart in logs and metrics");
    } else if name.contains(char::is_control) {
        fault("name", "has a control character");
    } else if earlier.any(|other| other == name) {
        fault("name", "is that of an earlier entry");
    }
}

fn scopes(config: &ApiKeyConfig, fault: &mut impl FnMut(&str, &str)) -> Vec<Scope> {
    let mut scopes = Vec::with_capacity(config.scopes.len());
    for (index, text) in config.scopes.iter().enumerate() {
        match Scope::parse(text) {
            Ok(scope) => scopes.push(scope),
            Err(invalid) => fault(&format!("scopes[{index}]"), &invalid.to_string()),
        }
    }
    scopes
}

/// The key's hash, and the field that it comes from.
fn hash(config: &ApiKeyConfig, fault: &mut impl FnMut(&str, &str)) -> Option<(&'static str, Hash)> {
    match (&config.key, &config.key_sha256) {
        (Some(key), None) => {
            let key = key.expose_secret().as_bytes();
            if key.len() < MIN_KEY {
                fault("key", &format!("has {} bytes: at least {MIN_KEY} are needed", key.len()));
                return None;
            }
            if !key.iter().all(u8::is_ascii_graphic) {
                fault("key", "has a blank, or a character that is not ASCII, and such a header cannot be sent");
                return None;
            }
            Some(("key", Sha256::digest(key).into()))
        }
        (None, Some(hexadecimal)) => {
            let hash = from_hexadecimal(hexadecimal);
            if hash.is_none() {
                fault("key_sha256", "is not a SHA-256: those are 64 hexadecimal digits");
            }
            Some(("key_sha256", hash?))
        }
        (None, None) => {
            fault("key", "is missing: give key or key_sha256");
            None
        }
        (Some(_), Some(_)) => {
            fault("key_sha256", "stands beside key: give one of the two");
            None
        }
    }
}

fn from_hexadecimal(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() {
        return None;
    }
    let digit = |character: u8| char::from(character).to_digit(16);
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(hash)
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = authorization.trim_ascii().split_at_checked("Bearer".len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer") && key.first().is_some_and(u8::is_ascii_whitespace);
    is_bearer.then(|| key.trim_ascii_start())
}
