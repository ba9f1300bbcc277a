use std::time::Duration;

use serde_json::{Value, value::RawValue};
use socketioxide::{AckError, ack::AckStream};

use crate::message::AckOutcome;

/// Longer than anybody waits for an acknowledgement: what the library keeps for one goes when it is dropped.
pub(super) const NEVER: Duration = Duration::from_hours(1);

/// What becomes of a frame at a device that was asked for an acknowledgement.
pub(super) async fn outcome(reply: AckStream<Box<RawValue>>) -> AckOutcome {
    match reply.await {
        Ok(arguments) if is_list(&arguments) && !has_binary(&arguments) => AckOutcome::Replied(Some(arguments.into())),
        // The packet's JSON is nobody's before this.
        Ok(_) | Err(AckError::Decode(_)) => AckOutcome::Unsupported,
        Err(AckError::Socket(_) | AckError::Timeout) => AckOutcome::Gone,
    }
}

fn is_list(arguments: &RawValue) -> bool {
    arguments.get().starts_with('[')
}

/// Whether attachments belong to it: their places are marked, and what was attached is not seen here.
fn has_binary(arguments: &RawValue) -> bool {
    const MARK: &str = "_placeholder";
    // Nearly always it is not there.
    arguments.get().contains(MARK)
        && serde_json::from_str::<Value>(arguments.get()).map_or(true, |value| is_marked(&value, MARK))
}

fn is_marked(value: &Value, mark: &str) -> bool {
    match value {
        Value::Object(map) => {
            map.get(mark) == Some(&Value::Bool(true)) || map.values().any(|value| is_marked(value, mark))
        }
        Value::Array(list) => list.iter().any(|value| is_marked(value, mark)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_seen_wherever_they_are() {
        let binary = |text: &str| has_binary(&RawValue::from_string(text.into()).unwrap());
        assert!(binary(r#"[{"_placeholder":true,"num":0}]"#));
        assert!(binary(r#"["a",{"b":[{"num":0,"_placeholder":true}]}]"#));
        assert!(!binary(r#"["_placeholder",{"_placeholder":false},{"a":true}]"#));
        assert!(!binary("[]"));
        let deep = format!(r#"{}"_placeholder"{}"#, "[".repeat(1_000), "]".repeat(1_000));
        assert!(binary(&deep), "what cannot be looked through is not passed on");
    }
}
