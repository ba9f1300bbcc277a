use serde_json::{Value, value::RawValue};

use super::EventRefused;
use crate::auth::{is_usable, text_of};

/// The largest argument that is read, in bytes: what rules take from it is far smaller.
const MAX_ARGUMENT: usize = 16 * 1024;
/// The largest value that is taken from it, in bytes.
const MAX_VALUE: usize = 256;

/// The first argument of an event that a device sent.
pub(super) struct Argument(Option<Value>);

/// What a rule takes from the argument: all of it, or a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) field: Option<String>,
    /// It gets into the name of a room or a user.
    pub(super) in_name: bool,
}

impl Argument {
    pub(super) fn parse(raw: Option<&RawValue>) -> Result<Self, EventRefused> {
        let Some(raw) = raw else {
            return Ok(Self(None));
        };
        if raw.get().len() > MAX_ARGUMENT {
            return Err(EventRefused::Argument(format!("the argument has more than {MAX_ARGUMENT} bytes")));
        }
        let refuse = |_| EventRefused::Argument(String::from("the argument is nested too deeply"));
        serde_json::from_str(raw.get()).map(|value| Self(Some(value))).map_err(refuse)
    }

    pub(super) fn check(&self, wanted: &Wanted) -> Result<(), EventRefused> {
        let name =
            wanted.field.as_ref().map_or_else(|| String::from("the argument"), |field| format!("the field {field}"));
        let Some(value) = self.value(wanted.field.as_deref()) else {
            return Err(EventRefused::Argument(format!("{name} is missing")));
        };
        let Some(text) = text_of(value) else {
            return Err(EventRefused::Argument(format!("{name} must be a text or an integer")));
        };
        if !(1..=MAX_VALUE).contains(&text.len()) || text.contains(char::is_control) {
            let problem = format!("{name} must have 1 to {MAX_VALUE} bytes and no control characters");
            return Err(EventRefused::Argument(problem));
        }
        if wanted.in_name && !is_usable(&text) {
            return Err(EventRefused::Argument(format!("{name} must not hold `:` or `*`")));
        }
        Ok(())
    }

    /// The argument itself, or a field of it.
    pub(super) fn value(&self, field: Option<&str>) -> Option<&Value> {
        match field {
            None => self.0.as_ref(),
            Some(field) => self.0.as_ref()?.get(field),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, field: Option<&str>, in_name: bool) -> Result<(), String> {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        let argument = Argument::parse(Some(&raw)).map_err(|refused| refused.to_string())?;
        let wanted = Wanted { field: field.map(str::to_owned), in_name };
        argument.check(&wanted).map_err(|refused| refused.to_string())
    }

    #[test]
    fn texts_and_integers_are_taken() {
        let longest = format!(r#""{}""#, "a".repeat(256));
        for json in [r#""listing-1""#, "0", "-9223372036854775808", "18446744073709551615", r#""é""#, &longest] {
            assert_eq!(check(json, None, true), Ok(()), "{json}");
        }
        assert_eq!(check(r#"{"id":7,"x":[1]}"#, Some("id"), true), Ok(()));
        assert_eq!(check(r#""a:b*""#, None, false), Ok(()), "it names nobody");
    }

    #[test]
    fn all_else_is_refused_with_what_is_wanted() {
        let too_long = format!(r#""{}""#, "a".repeat(257));
        let bytes = "the argument must have 1 to 256 bytes and no control characters";
        for (json, problem) in [
            ("1.5", "the argument must be a text or an integer"),
            ("1e3", "the argument must be a text or an integer"),
            ("null", "the argument must be a text or an integer"),
            ("true", "the argument must be a text or an integer"),
            (r#"["a"]"#, "the argument must be a text or an integer"),
            (r#"{"id":"a"}"#, "the argument must be a text or an integer"),
            (r#""""#, bytes),
            (r#""a\n""#, bytes),
            (&too_long, bytes),
            (r#""a:b""#, "the argument must not hold `:` or `*`"),
            (r#""*""#, "the argument must not hold `:` or `*`"),
        ] {
            assert_eq!(check(json, None, true), Err(problem.to_owned()), "{json}");
        }
        assert_eq!(check(r#"{"x":1}"#, Some("id"), true), Err("the field id is missing".to_owned()));
        assert_eq!(check("7", Some("id"), true), Err("the field id is missing".to_owned()));
        assert_eq!(check(r#"["a"]"#, Some("0"), true), Err("the field 0 is missing".to_owned()));
    }

    #[test]
    fn what_is_huge_is_not_read() {
        let huge = format!(r#"{{"id":7,"x":"{}"}}"#, "a".repeat(MAX_ARGUMENT));
        assert_eq!(check(&huge, Some("id"), true), Err("the argument has more than 16384 bytes".to_owned()));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(check(&deep, None, true), Err("the argument is nested too deeply".to_owned()));
    }
}
