use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    Config, Identity, InvalidToken, JwtConfig, TokenRefused,
    claims::Claims,
    identity::{MAX_ROOMS, rooms},
    key::{Key, Method},
    placeholder::Place,
    template::Template,
};
use crate::clock::Clock;
use crate::message::{Fault, RoomPattern};

/// The longest token that is read, in bytes.
pub const MAX_TOKEN: usize = 8192;

/// Verifies what devices show. Tokens are JSON web tokens (RFC 7519) with a signature (RFC 7515, compact).
#[derive(Debug)]
pub struct Tokens {
    keys: Vec<Key>,
    issuer: Vec<String>,
    audience: Vec<String>,
    leeway: Duration,
    user_claim: String,
    role_claim: String,
    rooms_claim: String,
    /// What is kept of a token's claims.
    kept_claims: Vec<String>,
    rooms: Vec<Template>,
    clock: Clock,
}

/// What Bugle heeds in a token's header.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood.
    crit: Option<IgnoredAny>,
}

impl Tokens {
    /// Reads the keys and their files, or finds all that is wrong with the configuration. `kept_claims`: those that an identity is to be
    /// asked for.
    pub fn new(config: &Config, kept_claims: Vec<String>, clock: Clock) -> Result<Self, Vec<Fault>> {
        let keys = Key::all(&config.jwt.keys);
        let rooms = templates(&config.rooms);
        let names = check_names(&config.jwt);
        match (keys, rooms, names) {
            (Ok(keys), Ok(rooms), Ok(())) => Ok(Self {
                keys,
                issuer: config.jwt.issuer.clone(),
                audience: config.jwt.audience.clone(),
                leeway: config.jwt.leeway,
                user_claim: config.jwt.user_claim.clone(),
                role_claim: config.jwt.role_claim.clone(),
                rooms_claim: config.jwt.rooms_claim.clone(),
                kept_claims,
                rooms,
                clock,
            }),
            (keys, rooms, names) => {
                Err([keys.err(), names.err(), rooms.err()].into_iter().flatten().flatten().collect())
            }
        }
    }

    /// Whose token this is. `Bearer` and blanks before it are fine; more than 8192 bytes are refused unread. Blocks while the
    /// signature is verified.
    pub fn verify(&self, token: Option<&str>) -> Result<Identity, TokenRefused> {
        let token = without_scheme(token.unwrap_or_default());
        if token.is_empty() {
            return Err(TokenRefused::Missing);
        }
        if token.len() > MAX_TOKEN {
            return Err(InvalidToken::TooLong.into());
        }
        let claims = self.signed_claims(token)?;
        Ok(self.identify(&claims)?)
    }

    fn signed_claims(&self, token: &str) -> Result<Claims, InvalidToken> {
        let (message, signature) = token.rsplit_once('.').ok_or(InvalidToken::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(InvalidToken::Malformed)?;
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| InvalidToken::Malformed)?;
        if header.crit.is_some() || payload.contains('.') {
            return Err(InvalidToken::Malformed);
        }
        self.check_signature(&header, message, signature)?;
        Claims::from_json(&decoded(payload)?).ok_or(InvalidToken::Malformed)
    }

    fn check_signature(&self, header: &Header, message: &str, signature: &str) -> Result<(), InvalidToken> {
        let method = Method::named(&header.alg).ok_or(InvalidToken::Algorithm)?;
        let mut refusal = InvalidToken::UnknownKey;
        for key in self.keys.iter().filter(|key| key.may_have_signed(header.kid.as_deref())) {
            if !key.is_for(method) {
                // A wrong signature by a key with the algorithm says more.
                if refusal != InvalidToken::Signature {
                    refusal = InvalidToken::Algorithm;
                }
            } else if key.signed(message, signature) {
                return Ok(());
            } else {
                refusal = InvalidToken::Signature;
            }
        }
        Err(refusal)
    }

    fn identify(&self, claims: &Claims) -> Result<Identity, InvalidToken> {
        let expires_at = claims.valid_until(self.clock.now(), self.leeway)?;
        if !self.issuer.is_empty() && !claims.is_one_of("iss", &self.issuer) {
            return Err(InvalidToken::Issuer);
        }
        if !self.audience.is_empty() && !claims.has_one_of("aud", &self.audience) {
            return Err(InvalidToken::Audience);
        }
        let user = claims.user(&self.user_claim).ok_or(InvalidToken::UserClaim)?;
        let roles = claims.roles(&self.role_claim).ok_or(InvalidToken::RoleClaim)?;
        let rooms = rooms(&self.rooms, &user, &roles, claims)?;
        // What is no pattern allows nothing.
        let allowed_rooms = claims.texts(&self.rooms_claim).filter_map(|text| RoomPattern::new(&text).ok()).collect();
        Ok(Identity { user, roles, rooms, expires_at, allowed_rooms, claims: claims.only(&self.kept_claims) })
    }
}

fn templates(texts: &[String]) -> Result<Vec<Template>, Vec<Fault>> {
    let mut faults = Vec::new();
    if texts.len() > MAX_ROOMS {
        faults.push(Fault::new("auth.rooms", format!("has {} entries: at most {MAX_ROOMS} are allowed", texts.len())));
    }
    let mut templates = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match Template::parse(text, Place::Connect) {
            Ok(template) => templates.push(template),
            Err(invalid) => faults.push(Fault::new(format!("auth.rooms[{index}]"), invalid.to_string())),
        }
    }
    if faults.is_empty() { Ok(templates) } else { Err(faults) }
}

fn check_names(config: &JwtConfig) -> Result<(), Vec<Fault>> {
    let lists = [("issuer", &config.issuer), ("audience", &config.audience)];
    let in_lists = lists.into_iter().flat_map(|(list, names)| {
        names.iter().enumerate().map(move |(index, name)| (format!("{list}[{index}]"), name))
    });
    let claims =
        [("user_claim", &config.user_claim), ("role_claim", &config.role_claim), ("rooms_claim", &config.rooms_claim)];
    let claims = claims.map(|(key, name)| (key.to_owned(), name));
    let faults: Vec<_> = in_lists
        .chain(claims)
        .filter(|(_, name)| name.trim().is_empty())
        .map(|(key, _)| Fault::new(format!("auth.jwt.{key}"), "is empty"))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// The token without blanks around it and `Bearer` before it.
fn without_scheme(text: &str) -> &str {
    let text = text.trim();
    match text.split_at_checked("Bearer".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => {
            if token.is_empty() || token.starts_with(char::is_whitespace) { token.trim_start() } else { text }
        }
        Some(_) | None => text,
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, InvalidToken> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidToken::Malformed)
}
