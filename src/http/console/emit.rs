use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::command::{EmitRequest, Error, Violation};
use crate::message::{Audience, Emit, EventName, Exceptions, Invalid, Payload, Receipt, RoomName};

/// An emit as JSON, with the names that `bugle.v1.Emit` has.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EmitBody {
    user_id: Option<String>,
    room: Option<String>,
    everyone: bool,
    event: String,
    /// A JSON text, sent as it stands; none: no argument.
    json: Option<String>,
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "the API has as many")]
struct Options {
    volatile: bool,
    envelope: bool,
    retain: bool,
    store: bool,
    /// Empty: none.
    collapse_key: String,
}

impl EmitBody {
    /// The emit, or all that is wrong with it.
    pub(super) fn check(self, received: Instant) -> Result<EmitRequest, Error> {
        let mut violations = Vec::new();
        let audience = self.audience(&mut violations);
        let event = take(&mut violations, "event", EventName::new(&self.event));
        let payload = self.json.map_or(Ok(Payload::None), |text| Payload::json(&text));
        let payload = take(&mut violations, "json", payload);
        let Options { volatile, envelope, retain, store, collapse_key } = self.options;
        let collapse_key = take(&mut violations, "options.collapse_key", EmitRequest::key(&collapse_key));
        let (Some(audience), Some(event), Some(payload), Some(collapse_key)) = (audience, event, payload, collapse_key)
        else {
            return Err(Error::InvalidArgument(violations));
        };
        let except = Exceptions::default();
        let (ttl, ack) = (None, None);
        let alone = true;
        let emit =
            Emit { audience, except, event, payload, volatile, envelope, retain, store, ttl, collapse_key, ack, alone };
        Ok(EmitRequest { emit, idempotency_key: None, received })
    }

    fn audience(&self, violations: &mut Vec<Violation>) -> Option<Audience> {
        match (&self.user_id, &self.room, self.everyone) {
            (Some(id), None, false) => take(violations, "user_id", Audience::user_id(id)),
            (None, Some(name), false) => take(violations, "room", RoomName::new(name)).map(Audience::of_room),
            (None, None, true) => Some(Audience::everyone()),
            (None, None, false) => {
                violations.push(Violation::new("target", "is missing: give user_id, room or everyone"));
                None
            }
            (Some(_), Some(_), _) | (Some(_), None, true) | (None, Some(_), true) => {
                violations.push(Violation::new("target", "is given twice: give one of user_id, room and everyone"));
                None
            }
        }
    }
}

fn take<T>(violations: &mut Vec<Violation>, field: &str, value: Result<T, Invalid>) -> Option<T> {
    value.map_err(|invalid| violations.push(Violation::of(field, &invalid))).ok()
}

/// A receipt as JSON, with the names that `bugle.v1.Receipt` has.
#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the API has as many")]
pub(super) struct ReceiptBody {
    message_id: String,
    matched: u64,
    enqueued: u64,
    dropped: u64,
    stored: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
    duplicate: bool,
    deferred: bool,
    nodes: u32,
    partial: bool,
}

impl From<Receipt> for ReceiptBody {
    fn from(receipt: Receipt) -> Self {
        // The console asks for no acknowledgements.
        let Receipt {
            message_id,
            matched,
            enqueued,
            dropped,
            stored,
            position,
            duplicate,
            deferred,
            nodes,
            partial,
            acks: _,
            direct: _,
        } = receipt;
        let (message_id, position) = (message_id.to_string(), position.map(|position| position.to_string()));
        Self { message_id, matched, enqueued, dropped, stored, position, duplicate, deferred, nodes, partial }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<EmitRequest, Vec<String>> {
        let body: EmitBody = serde_json::from_str(body).unwrap();
        body.check(Instant::now()).map_err(|error| {
            let Error::InvalidArgument(violations) = error else {
                panic!("{error}");
            };
            violations.into_iter().map(|violation| violation.field).collect()
        })
    }

    #[test]
    fn each_audience_has_a_field() {
        let audience = |body: &str| check(body).unwrap().emit.audience;
        assert_eq!(audience(r#"{"user_id":"42","event":"e"}"#), Audience::user_id("42").unwrap());
        assert_eq!(audience(r#"{"room":"lobby","event":"e"}"#), Audience::of_room(RoomName::new("lobby").unwrap()));
        assert_eq!(audience(r#"{"room":"user:42","event":"e"}"#), Audience::user_id("42").unwrap());
        assert_eq!(audience(r#"{"everyone":true,"event":"e"}"#), Audience::everyone());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        assert_eq!(check(r#"{"user_id":"","event":"connect","json":"{"}"#).unwrap_err(), ["user_id", "event", "json"]);
        let long = format!(r#"{{"everyone":true,"event":"e","options":{{"collapse_key":"{}"}}}}"#, "k".repeat(257));
        assert_eq!(check(&long).unwrap_err(), ["options.collapse_key"]);
        assert_eq!(check(r#"{"event":"e"}"#).unwrap_err(), ["target"]);
        assert_eq!(check(r#"{"event":"e","user_id":"1","everyone":true}"#).unwrap_err(), ["target"]);
    }

    #[test]
    fn options_and_payload_are_taken_to_the_letter() {
        let options = r#"{"volatile":true,"envelope":true,"retain":true,"collapse_key":"k"}"#;
        let body = format!(r#"{{"room":"r","event":"e","json":"{{\"n\":1.10}}","options":{options}}}"#);
        let emit = check(&body).unwrap().emit;
        assert!(emit.volatile && emit.envelope && emit.retain);
        assert_eq!(emit.collapse_key.as_deref(), Some("k"));
        assert_eq!(emit.payload, Payload::json(r#"{"n":1.10}"#).unwrap());
    }
}
