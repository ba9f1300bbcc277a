//! What each emit carries: when it was due, and which it is.

use std::fmt::Write;

/// The event that all emits are of.
pub const EVENT: &str = "bench";

/// The JSON text of an emit's payload, of exactly so many bytes if that is enough for what must be in it.
pub fn payload(at: u64, number: u64, bytes: usize) -> String {
    const END: &str = r#""}"#;
    let mut text = String::with_capacity(bytes.max(64));
    // Writing into a text does not fail.
    let _ = write!(text, r#"{{"at":{at},"n":{number},"pad":""#);
    let padding = bytes.saturating_sub(text.len() + END.len());
    text.push_str(&"x".repeat(padding));
    text.push_str(END);
    text
}

/// When the emit was due, from the front of the event's array.
pub fn due(event: &[u8]) -> Option<u64> {
    let number = event.strip_prefix(br#"["bench",{"at":"#)?;
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit());
    let mut due = None;
    for digit in digits {
        due = due.unwrap_or(0_u64).checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_exactly_the_bytes_that_were_asked_for() {
        for (at, number) in [(0, 0), (1_234_567_890, 17), (u64::MAX, u64::MAX)] {
            for bytes in [70, 100, 4_096] {
                let text = payload(at, number, bytes);
                assert_eq!(text.len(), bytes);
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!((value["at"].as_u64(), value["n"].as_u64()), (Some(at), Some(number)));
            }
        }
    }

    #[test]
    fn a_payload_that_is_too_short_has_what_must_be_in_it() {
        assert_eq!(payload(5, 6, 0), r#"{"at":5,"n":6,"pad":""}"#);
    }

    #[test]
    fn the_due_time_is_read_without_a_parser() {
        let event = format!(r#"["{EVENT}",{}]"#, payload(987_654_321, 1, 100));
        assert_eq!(due(event.as_bytes()), Some(987_654_321));
        assert_eq!(due(br#"["bench",{"at":,"n":1}]"#), None);
        assert_eq!(due(br#"["bench",{"at":99999999999999999999,"n":1}]"#), None);
        assert_eq!(due(br#"["other",{"at":1}]"#), None);
    }
}
