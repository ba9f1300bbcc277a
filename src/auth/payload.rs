use std::collections::HashMap;

use secrecy::SecretString;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{InvalidToken, TokenRefused};

/// The JSON object with which a device says who it is. Its members are read one by one: what is wrong with one of them, such as a lone surrogate
/// (valid JSON, but not Unicode text) or too deep a nesting, does not hide the others.
pub struct AuthPayload<'a>(HashMap<String, &'a RawValue>);

impl<'a> AuthPayload<'a> {
    /// Reads it. Another JSON value than an object has no members.
    pub fn parse(json: &'a str) -> Result<Self, TokenRefused> {
        match serde_json::from_str(json) {
            Ok(members) => Ok(Self(members)),
            Err(_) if !json.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(json).is_ok() => {
                Ok(Self(HashMap::new()))
            }
            Err(_) => Err(TokenRefused::Unreadable),
        }
    }

    /// The JSON of a member.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|member| member.get())
    }

    /// The token in the member of this name. `None`: there is none, or `null`.
    pub fn token(&self, name: &str) -> Result<Option<SecretString>, TokenRefused> {
        let Some(json) = self.get(name) else { return Ok(None) };
        serde_json::from_str(json).map_err(|_| InvalidToken::Malformed.into())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn token(json: &str) -> Result<Option<String>, TokenRefused> {
        let token = AuthPayload::parse(json)?.token("token")?;
        Ok(token.map(|token| token.expose_secret().to_owned()))
    }

    #[test]
    fn a_token_is_found_whatever_the_other_members_are() {
        let deep = format!(r#"{{"token":"t","a":{}{}}}"#, "[".repeat(1_000), "]".repeat(1_000));
        for json in [
            r#"{"token":"t"}"#,
            r#" {"a":"\ud800","token":"t","b":{"\udc00":1},"c":1e999} "#,
            r#"{"token":1,"token":"t"}"#,
            r#"{"\u0074oken":"\u0074"}"#,
            &deep,
        ] {
            assert_eq!(token(json), Ok(Some("t".to_owned())), "{json}");
        }
    }

    #[test]
    fn another_value_than_an_object_has_no_token() {
        for json in
            ["null", "true", "5", "1e999", r#""token""#, r#""\ud800""#, r#"["token"]"#, "{}", r#"{"token":null}"#]
        {
            assert_eq!(token(json), Ok(None), "{json}");
        }
    }

    #[test]
    fn a_token_that_is_no_text_is_invalid() {
        for json in [r#"{"token":5}"#, r#"{"token":["t"]}"#, r#"{"token":{"token":"t"}}"#, r#"{"token":"t\ud800"}"#] {
            assert_eq!(token(json), Err(InvalidToken::Malformed.into()), "{json}");
        }
    }

    #[test]
    fn what_is_no_json_or_has_a_name_that_is_no_text_is_unreadable() {
        for json in [
            "",
            "hello",
            "\0",
            "{",
            r#"{"token":"t""#,
            r#"{"token":"t"} x"#,
            "[1",
            "[1] x",
            r#"{"\ud800":1,"token":"t"}"#,
        ] {
            assert_eq!(token(json), Err(TokenRefused::Unreadable), "{json}");
        }
    }
}
