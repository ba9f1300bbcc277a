use secrecy::SecretString;
use serde::Deserialize;

/// What a device says.
#[derive(Debug)]
pub(super) enum ClientMessage {
    /// `{"type":"auth","access_token":"…","data":{}}`; without a text as token, there is none.
    Auth(Option<SecretString>),
    /// Anything else: nothing that means anything here.
    Other,
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
struct Auth {
    access_token: SecretString,
}

impl ClientMessage {
    /// Reads a text frame.
    pub(super) fn parse(text: &str) -> Self {
        match serde_json::from_str::<Kind>(text) {
            Ok(kind) if kind.r#type == "auth" => {
                Self::Auth(serde_json::from_str::<Auth>(text).ok().map(|auth| auth.access_token))
            }
            Ok(_) | Err(_) => Self::Other,
        }
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
            let ClientMessage::Auth(Some(token)) = ClientMessage::parse(text) else { panic!("{text}") };
            assert_eq!(token.expose_secret(), "t");
        }
    }

    #[test]
    fn a_token_that_is_no_text_is_none() {
        for text in
            [r#"{"type":"auth"}"#, r#"{"type":"auth","access_token":5}"#, r#"{"type":"auth","access_token":null}"#]
        {
            assert!(matches!(ClientMessage::parse(text), ClientMessage::Auth(None)), "{text}");
        }
    }

    #[test]
    fn all_else_is_something_else() {
        for text in ["", "auth", "5", r#""auth""#, "{}", r#"{"type":"AUTH"}"#, r#"{"type":["auth"]}"#] {
            assert!(matches!(ClientMessage::parse(text), ClientMessage::Other), "{text}");
        }
    }
}
