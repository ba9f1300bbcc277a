use std::fmt::Write as _;

use bytes::Bytes;
use prost_types::{ListValue, Struct, Value, value::Kind};

use crate::message::{Invalid, Payload};
use crate::proto::v1::{broadcast_request, emit, emit_to_room_request, emit_to_user_request, emit_to_users_request};

/// A payload as a request brings it.
pub(super) enum Raw {
    Json(String),
    Value(Value),
    Binary(Bytes),
}

macro_rules! raw_from {
    ($($message:ident),*) => {$(
        impl From<$message::Payload> for Raw {
            fn from(payload: $message::Payload) -> Self {
                match payload {
                    $message::Payload::Json(text) => Self::Json(text),
                    $message::Payload::Value(value) => Self::Value(value),
                    $message::Payload::Binary(bytes) => Self::Binary(bytes),
                }
            }
        }
    )*};
}

raw_from!(broadcast_request, emit, emit_to_room_request, emit_to_user_request, emit_to_users_request);

impl Raw {
    /// The name of the field that it came in.
    pub(super) fn field(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Value(_) => "value",
            Self::Binary(_) => "binary",
        }
    }

    /// Checks it.
    pub(super) fn check(self) -> Result<Payload, Invalid> {
        match self {
            Self::Json(text) => Payload::json(&text),
            Self::Value(value) => {
                let mut text = String::new();
                write_value(&value, &mut text)?;
                Payload::json(&text)
            }
            Self::Binary(bytes) => Ok(Payload::Binary(bytes)),
        }
    }
}

fn write_value(value: &Value, text: &mut String) -> Result<(), Invalid> {
    match &value.kind {
        None => return Err(Invalid::new("holds a Value of no kind: null is `null_value`")),
        Some(Kind::NullValue(_)) => text.push_str("null"),
        Some(Kind::BoolValue(value)) => text.push_str(if *value { "true" } else { "false" }),
        Some(Kind::NumberValue(number)) => write_number(*number, text)?,
        Some(Kind::StringValue(string)) => write_string(string, text),
        Some(Kind::ListValue(list)) => write_list(list, text)?,
        Some(Kind::StructValue(object)) => write_object(object, text)?,
    }
    Ok(())
}

fn write_number(number: f64, text: &mut String) -> Result<(), Invalid> {
    if !number.is_finite() {
        return Err(Invalid::new("holds NaN or an infinity, which JSON does not have"));
    }
    // Whole numbers get no fraction this way.
    let _ = write!(text, "{number}");
    Ok(())
}

fn write_string(string: &str, text: &mut String) {
    text.push_str(&serde_json::Value::from(string).to_string());
}

fn write_list(list: &ListValue, text: &mut String) -> Result<(), Invalid> {
    text.push('[');
    for (index, value) in list.values.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_value(value, text)?;
    }
    text.push(']');
    Ok(())
}

fn write_object(object: &Struct, text: &mut String) -> Result<(), Invalid> {
    text.push('{');
    for (index, (key, value)) in object.fields.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(key, text);
        text.push(':');
        write_value(value, text)?;
    }
    text.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    fn json(value: Value) -> Result<String, Invalid> {
        match Raw::Value(value).check()? {
            Payload::Json(raw) => Ok(raw.get().to_owned()),
            Payload::None | Payload::Binary(_) => panic!("not JSON"),
        }
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        for (number, text) in [
            (100.0, "100"),
            (100.5, "100.5"),
            (-1.0, "-1"),
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1e-7, "0.0000001"),
        ] {
            assert_eq!(json(value(Kind::NumberValue(number))).unwrap(), text);
        }
    }

    #[test]
    fn every_kind_becomes_json() {
        let list = ListValue { values: vec![value(Kind::NullValue(0)), value(Kind::BoolValue(true))] };
        let fields = [
            ("a\"b".to_owned(), value(Kind::StringValue("é\n".into()))),
            ("l".to_owned(), value(Kind::ListValue(list))),
        ];
        let object = value(Kind::StructValue(Struct { fields: fields.into() }));
        assert_eq!(json(object).unwrap(), r#"{"a\"b":"é\n","l":[null,true]}"#);
    }

    #[test]
    fn what_json_does_not_have_is_refused() {
        assert!(json(value(Kind::NumberValue(f64::NAN))).is_err());
        assert!(json(Value { kind: None }).is_err());
    }
}
