use std::{borrow::Cow, collections::HashMap};

use serde_json::value::RawValue;

use crate::command::Resume;

/// What a device says it has seen, in JSON: `{ room: position }`. None: it does not resume.
pub(super) fn resume(json: Option<&str>) -> Option<Resume> {
    let json = json?;
    if let "null" | "false" = json.trim() {
        return None;
    }
    // Without a map it means to, and has seen nothing that could be understood.
    let rooms: HashMap<String, &RawValue> = serde_json::from_str(json).unwrap_or_default();
    let position = |json: &RawValue| serde_json::from_str::<Cow<str>>(json.get()).ok()?.parse().ok();
    Some(Resume::new(rooms.into_iter().map(|(room, json)| (room, position(json)))))
}

/// The same, of a query.
pub(super) fn resume_of_query(json: Option<&str>) -> Option<Resume> {
    resume(json.filter(|json| !json.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(resume: Option<Resume>) -> Option<Vec<String>> {
        resume.map(|resume| resume.rooms().map(ToString::to_string).collect())
    }

    #[test]
    fn a_map_of_rooms_resumes_whatever_the_positions_are() {
        assert_eq!(names(resume(Some(r#"{"user:42":"e.1"}"#))), Some(vec!["user:42".to_owned()]));
        for position in [json!(1), json!(-1), json!(null), json!([]), json!("x"), json!("e.99999999999999999999")] {
            assert_eq!(names(resume(Some(&json!({ "a": position }).to_string()))), Some(vec!["a".to_owned()]));
        }
        for json in [r#"{"a":"e.1"}"#, r#"{"a":"\ud800"}"#, r#"{"a":1e999}"#] {
            assert_eq!(names(resume_of_query(Some(json))), Some(vec!["a".to_owned()]));
        }
    }

    #[test]
    fn what_is_no_map_has_seen_nothing() {
        for json in ["{}", "true", r#""a""#, r#""\ud800""#, "7", r#"[["a","e.1"]]"#, r#"{"\ud800":"e.1"}"#] {
            assert_eq!(names(resume(Some(json))), Some(vec![]));
        }
        assert_eq!(names(resume_of_query(Some("{"))), Some(vec![]));
    }

    #[test]
    fn whoever_says_nothing_does_not_resume() {
        for json in [None, Some("null"), Some("false"), Some(" null ")] {
            assert!(resume(json).is_none());
        }
        assert!(resume_of_query(None).is_none() && resume_of_query(Some("")).is_none());
    }
}
