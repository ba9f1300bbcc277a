use serde_json::Value;

use crate::command::Resume;

/// What a device says it has seen: `{ room: position }`. None: it does not resume.
pub(super) fn resume(said: Option<Value>) -> Option<Resume> {
    match said? {
        Value::Null | Value::Bool(false) => None,
        Value::Object(rooms) => {
            let position = |value: Value| value.as_str().and_then(|text| text.parse().ok());
            Some(Resume::new(rooms.into_iter().map(|(room, value)| (room, position(value)))))
        }
        // It means to, and has seen nothing that could be understood.
        Value::Bool(true) | Value::Number(_) | Value::String(_) | Value::Array(_) => Some(Resume::default()),
    }
}

/// The same, of a query, in which it is a JSON text.
pub(super) fn resume_of_query(text: Option<&str>) -> Option<Resume> {
    let text = text.filter(|text| !text.is_empty())?;
    resume(Some(serde_json::from_str(text).unwrap_or(Value::Bool(true))))
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
        assert_eq!(names(resume(Some(json!({ "user:42": "e.1" })))), Some(vec!["user:42".to_owned()]));
        for position in [json!(1), json!(-1), json!(null), json!([]), json!("x"), json!("e.99999999999999999999")] {
            assert_eq!(names(resume(Some(json!({ "a": position })))), Some(vec!["a".to_owned()]));
        }
        assert_eq!(names(resume_of_query(Some(r#"{"a":"e.1"}"#))), Some(vec!["a".to_owned()]));
    }

    #[test]
    fn what_is_no_map_has_seen_nothing() {
        for said in [json!({}), json!(true), json!("a"), json!(7), json!([["a", "e.1"]])] {
            assert_eq!(names(resume(Some(said))), Some(vec![]));
        }
        assert_eq!(names(resume_of_query(Some("{"))), Some(vec![]));
    }

    #[test]
    fn whoever_says_nothing_does_not_resume() {
        for said in [None, Some(json!(null)), Some(json!(false))] {
            assert!(resume(said).is_none());
        }
        assert!(resume_of_query(None).is_none() && resume_of_query(Some("")).is_none());
    }
}
