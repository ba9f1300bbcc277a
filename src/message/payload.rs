use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Invalid;

/// An event's one argument.
#[derive(Clone, Debug)]
pub enum Payload {
    /// No argument at all.
    None,
    /// A JSON text, kept to the letter.
    Json(Arc<RawValue>),
    /// Bytes, sent as a Socket.IO attachment.
    Binary(Bytes),
}

impl Payload {
    /// Takes a JSON text as it stands, after a check that it is one.
    pub fn json(text: &str) -> Result<Self, Invalid> {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) => Ok(Self::Json(raw.to_owned().into())),
            Err(error) => Err(not_json(text, &error)),
        }
    }

    /// How many bytes the payload has.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Json(raw) => raw.get().len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether there is no argument at all.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Json(a), Self::Json(b)) => a.get() == b.get(),
            (Self::Binary(a), Self::Binary(b)) => a == b,
            (Self::None | Self::Json(_) | Self::Binary(_), _) => false,
        }
    }
}

fn not_json(text: &str, error: &serde_json::Error) -> Invalid {
    if error.is_eof() {
        return Invalid::new(format!("is not JSON: it ends too early, at byte {}", text.len()));
    }
    let line_start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = line_start + error.column().saturating_sub(1);
    Invalid::new(format!("is not JSON: a syntax error at byte {offset}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_to_the_letter() {
        let text = r#"{"b":1.10,"a":12345678901234567890,"_placeholder":true,"s":"🎺\u2028"}"#;
        let Payload::Json(raw) = Payload::json(text).unwrap() else {
            panic!("not JSON");
        };
        assert_eq!(raw.get(), text);
    }

    #[test]
    fn white_space_around_json_is_dropped() {
        assert_eq!(Payload::json(" 1\n").unwrap().len(), 1);
    }

    #[test]
    fn malformed_json_is_refused_with_its_offset() {
        let refusal = |text: &str| Payload::json(text).unwrap_err().to_string();
        assert_eq!(refusal(r#"{"a":x}"#), "is not JSON: a syntax error at byte 5");
        assert_eq!(refusal("{\n \"a\": 1,\n ]"), "is not JSON: a syntax error at byte 12");
        assert_eq!(refusal(r#"{"a""#), "is not JSON: it ends too early, at byte 4");
        assert_eq!(refusal(""), "is not JSON: it ends too early, at byte 0");
        assert_eq!(refusal("1 2"), "is not JSON: a syntax error at byte 2");
    }
}
