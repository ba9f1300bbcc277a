use std::{borrow::Cow, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::InvalidToken;
use crate::message::{RoomName, UserId};

/// The most roles that a token may name.
const MAX_ROLES: usize = 64;

/// What a token says, after its signature was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Reads a JSON object. Of claims with the same name the last one counts (RFC 7519, section 4).
    pub fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok().map(Self)
    }

    /// The claim of this name, or else the one that it leads to as a path: `org.id` is `id` in the object `org`. An absent
    /// claim and `null` are the same.
    pub fn find(&self, name: &str) -> Option<&Value> {
        let value = self.0.get(name).or_else(|| {
            let (first, path) = name.split_once('.')?;
            path.split('.').try_fold(self.0.get(first)?, |value, step| value.as_object()?.get(step))
        });
        value.filter(|value| !value.is_null())
    }

    /// These claims alone, each under the name by which it was found.
    pub fn only(&self, names: &[String]) -> Self {
        let found = names.iter().filter_map(|name| Some((name.clone(), self.find(name)?.clone())));
        Self(found.collect())
    }

    /// When the token expires, if now it has not, and its time has come: `exp` and `nbf`, each with the leeway.
    pub fn valid_until(&self, now: Timestamp, leeway: Duration) -> Result<Timestamp, InvalidToken> {
        let exp = self.time("exp").ok().flatten().ok_or(InvalidToken::NoExpiry)?;
        let nbf = self.time("nbf").map_err(|NotATime| InvalidToken::Malformed)?;
        let expires_at = later(exp, leeway);
        if now >= expires_at {
            return Err(InvalidToken::Expired);
        }
        if nbf.is_some_and(|nbf| nbf > later(now, leeway)) {
            return Err(InvalidToken::NotYetValid);
        }
        Ok(expires_at)
    }

    /// Whether the claim is one of the accepted texts.
    pub fn is_one_of(&self, name: &str, accepted: &[String]) -> bool {
        self.find(name).is_some_and(|value| is_among(value, accepted))
    }

    /// Whether the claim, which may be a list, has one of the accepted texts.
    pub fn has_one_of(&self, name: &str, accepted: &[String]) -> bool {
        self.find(name).map(elements).unwrap_or_default().iter().any(|value| is_among(value, accepted))
    }

    /// The user, if the claim is a user id or an integer.
    pub fn user(&self, name: &str) -> Option<UserId> {
        UserId::new(&text_of(self.find(name)?)?).ok()
    }

    /// The roles, each once: none if there is no such claim; nothing if the claim holds something else than roles.
    pub fn roles(&self, name: &str) -> Option<Vec<Arc<str>>> {
        let values = self.find(name).map(elements).unwrap_or_default();
        if values.len() > MAX_ROLES {
            return None;
        }
        let mut roles: Vec<Arc<str>> = Vec::with_capacity(values.len());
        for value in values {
            let role = text_of(value)?;
            RoomName::of_role(&role).ok()?;
            if !roles.iter().any(|known| **known == *role) {
                roles.push(role.into());
            }
        }
        Some(roles)
    }

    /// The texts and integers of the claim, which may be a list. Anything else in it is passed over.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        self.find(name).map(elements).unwrap_or_default().iter().filter_map(text_of)
    }

    /// A time (RFC 7519: seconds, perhaps with a fraction). What is out of the calendar is its first or last moment.
    fn time(&self, name: &str) -> Result<Option<Timestamp>, NotATime> {
        let Some(value) = self.find(name) else {
            return Ok(None);
        };
        let since_epoch = match value.as_i64() {
            Some(seconds) => SignedDuration::from_secs(seconds),
            None => fraction(value.as_f64().ok_or(NotATime)?),
        };
        Ok(Some(Timestamp::UNIX_EPOCH.saturating_add(since_epoch).map_err(|_| NotATime)?))
    }
}

/// A claim that should be a time is no number.
struct NotATime;

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn fraction(seconds: f64) -> SignedDuration {
    let out_of_range = if seconds < 0.0 { SignedDuration::MIN } else { SignedDuration::MAX };
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(out_of_range)
}

fn is_among(value: &Value, accepted: &[String]) -> bool {
    value.as_str().is_some_and(|text| accepted.iter().any(|one| one == text))
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// The text that names somebody or something: a text itself, or an integer.
pub fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        // What has a fraction, or is too large to be told exactly, names nobody.
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(Cow::Owned(number.to_string())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        Claims::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_is_a_claim_before_it_is_a_path() {
        let claims =
            claims(r#"{"org":{"id":7,"a":{"b":"deep"}},"org.name":"flat","https://x.example/role":"r","n":null}"#);
        assert_eq!(claims.find("org.id"), Some(&Value::from(7)));
        assert_eq!(claims.find("org.a.b"), Some(&Value::from("deep")));
        assert_eq!(claims.find("org.name"), Some(&Value::from("flat")));
        assert_eq!(claims.find("https://x.example/role"), Some(&Value::from("r")));
        for absent in ["n", "org.b", "org.id.x", "org.", ".", ""] {
            assert_eq!(claims.find(absent), None, "{absent}");
        }
    }

    #[test]
    fn times_may_have_a_fraction_and_never_leave_the_calendar() {
        let time = |json: &str| claims(&format!(r#"{{"exp":{json}}}"#)).time("exp").map_err(|_| ());
        let at = |text: &str| Ok(Some(text.parse().unwrap()));
        assert_eq!(time("0"), at("1970-01-01T00:00:00Z"));
        assert_eq!(time("1767225600.25"), at("2026-01-01T00:00:00.25Z"));
        assert_eq!(time("-1.5"), at("1969-12-31T23:59:58.5Z"));
        for late in ["1e300", "253402300800", "9223372036854775807", "18446744073709551615", "9223372036854775808.0"] {
            assert_eq!(time(late), Ok(Some(Timestamp::MAX)), "{late}");
        }
        for early in ["-1e300", "-9223372036854775808", "-9223372036854775809"] {
            assert_eq!(time(early), Ok(Some(Timestamp::MIN)), "{early}");
        }
        assert_eq!(time("null"), Ok(None));
        for other in [r#""1767225600""#, "true", "[1]", "{}"] {
            assert_eq!(time(other), Err(()), "{other}");
        }
    }

    #[test]
    fn the_leeway_ends_to_the_second() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let leeway = Duration::from_secs(5);
        let claims = claims(r#"{"exp":1000,"nbf":900}"#);
        assert_eq!(claims.valid_until(at(894), leeway), Err(InvalidToken::NotYetValid));
        assert_eq!(claims.valid_until(at(895), leeway), Ok(at(1005)));
        assert_eq!(claims.valid_until(at(1004), leeway), Ok(at(1005)));
        assert_eq!(claims.valid_until(at(1005), leeway), Err(InvalidToken::Expired));
    }

    #[test]
    fn of_claims_with_the_same_name_the_last_one_counts() {
        assert_eq!(claims(r#"{"a":1,"a":2}"#).find("a"), Some(&Value::from(2)));
    }
}
