use std::borrow::Cow;

use secrecy::SecretString;

use crate::auth::{AuthPayload, TokenRefused};

/// What a device says.
#[derive(Debug)]
pub(super) enum ClientMessage {
    /// `{"type":"auth","access_token":"…","data":{}}`: the token.
    Auth(Result<Option<SecretString>, TokenRefused>),
    /// What cannot be read.
    Unreadable,
    /// Anything else: nothing that means anything here.
    Other,
}

impl ClientMessage {
    /// Reads a text frame.
    pub(super) fn parse(text: &str) -> Self {
        let Ok(message) = AuthPayload::parse(text) else { return Self::Unreadable };
        let kind = message.get("type").and_then(|json| serde_json::from_str::<Cow<str>>(json).ok());
        if kind.is_some_and(|kind| kind == "auth") { Self::Auth(message.token("access_token")) } else { Self::Other }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn an_auth_message_brings_a_token_whatever_else_is_in_it() {
        for text in [
            r#"{"type":"auth","access_token":"t","data":{}}"#,
            r#"{"access_token":"t","type":"auth"}"#,
            r#" {"type":"auth","data":[1],"access_token":"t","more":null} "#,
        ] {
            let ClientMessage::Auth(Ok(Some(token))) = ClientMessage::parse(text) else { panic!("{text}") };
            assert_eq!(token.expose_secret(), "t");
        }
    }

    #[test]
    fn a_token_that_is_null_is_none() {
        for text in [r#"{"type":"auth"}"#, r#"{"type":"auth","access_token":null}"#] {
            assert!(matches!(ClientMessage::parse(text), ClientMessage::Auth(Ok(None))), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_unreadable() {
        for text in ["", "auth", r#"{"type":"auth""#] {
            assert!(matches!(ClientMessage::parse(text), ClientMessage::Unreadable), "{text}");
        }
    }

    #[test]
    fn all_else_is_something_else() {
        for text in ["5", r#""auth""#, "{}", r#"{"type":"\ud800"}"#, r#"{"type":"AUTH"}"#, r#"{"type":["auth"]}"#] {
            assert!(matches!(ClientMessage::parse(text), ClientMessage::Other), "{text}");
        }
    }
}
