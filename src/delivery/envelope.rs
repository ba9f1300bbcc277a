use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::message::{Emit, Payload};

#[derive(Serialize)]
struct Envelope<'a> {
    event: &'a str,
    timestamp: String,
    data: Option<&'a RawValue>,
}

/// Wraps a payload as `{ event, timestamp, data }`; the timestamp is RFC 3339 in UTC with three decimals.
pub(super) fn enveloped(emit: &Emit, now: Timestamp) -> Payload {
    let data = match &emit.payload {
        Payload::Json(raw) => Some(&**raw),
        Payload::None => None,
        Payload::Binary(_) => return emit.payload.clone(),
    };
    let envelope = Envelope { event: emit.event.as_str(), timestamp: format!("{now:.3}"), data };
    serde_json::value::to_raw_value(&envelope).map_or(Payload::None, |raw| Payload::Json(raw.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::example as emit;

    fn json(payload: &Payload) -> &str {
        let Payload::Json(raw) = payload else { panic!("not JSON") };
        raw.get()
    }

    #[test]
    fn an_envelope_has_three_decimals_and_the_payload_to_the_letter() {
        for (time, text) in [
            ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00.000Z"),
            ("2026-01-31T09:30:00.0129Z", "2026-01-31T09:30:00.012Z"),
        ] {
            let payload = enveloped(&emit(r#"{"b":1.10,"a":2}"#), time.parse().unwrap());
            let expected = format!(r#"{{"event":"earnings:new","timestamp":"{text}","data":{{"b":1.10,"a":2}}}}"#);
            assert_eq!(json(&payload), expected);
        }
    }

    #[test]
    fn an_envelope_without_a_payload_holds_null() {
        let emit = Emit { payload: Payload::None, ..emit("1") };
        let payload = enveloped(&emit, Timestamp::UNIX_EPOCH);
        assert!(json(&payload).ends_with(r#""data":null}"#));
    }
}
