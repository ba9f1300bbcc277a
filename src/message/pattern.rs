use serde::{Deserialize, Serialize};

use super::{EventName, Invalid};

/// Which events are meant: one by its name, or all whose names begin alike (`balance*`). Bugle's own events are never meant.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventPattern {
    /// The name, or what the names begin with.
    text: Box<str>,
    is_prefix: bool,
}

const WILDCARD: char = '*';

impl EventPattern {
    /// Reads the pattern.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let prefix = text.strip_suffix(WILDCARD);
        let start = prefix.unwrap_or(text);
        if start.contains(WILDCARD) {
            return Err(Invalid::new("has a `*` before its end: only the last character may be one"));
        }
        match prefix {
            // What is no name itself may well be the beginning of one.
            Some(prefix) => EventName::new(&format!("{prefix}1"))?,
            None => EventName::new(text)?,
        };
        Ok(Self { text: start.into(), is_prefix: prefix.is_some() })
    }

    /// Whether this event is meant.
    pub fn matches(&self, event: &EventName) -> bool {
        let name = event.as_str();
        if self.is_prefix { name.starts_with(&*self.text) && !event.is_own() } else { *name == *self.text }
    }
}

impl TryFrom<String> for EventPattern {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(&text)
    }
}

impl From<EventPattern> for String {
    fn from(pattern: EventPattern) -> Self {
        let mut text = Self::from(pattern.text);
        if pattern.is_prefix {
            text.push(WILDCARD);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, event: &str) -> bool {
        EventPattern::new(pattern).unwrap().matches(&EventName::own(event))
    }

    #[test]
    fn a_name_is_itself_and_a_prefix_all_that_begin_with_it() {
        assert!(matches("balance", "balance") && !matches("balance", "balance:new"));
        for event in ["balance", "balance:new", "balances"] {
            assert!(matches("balance*", event), "{event}");
        }
        assert!(!matches("balance*", "balanc") && !matches("balance:*", "balance"));
    }

    #[test]
    fn everything_is_not_what_bugle_says_of_itself() {
        assert!(
            matches("*", "e")
                && matches("connect*", "connection")
                && !matches("*", "bugle:disconnect")
                && !matches("b*", "bugle:resumed")
        );
    }

    #[test]
    fn patterns_that_no_event_can_meet_are_refused() {
        for pattern in ["", "a*b", "**", "*a", "connect", "bugle:*", "bugle:resumed", "a\nb"] {
            assert!(EventPattern::new(pattern).is_err(), "{pattern:?}");
        }
    }

    #[test]
    fn a_pattern_is_written_as_it_was_read() {
        for text in ["balance", "balance*", "*"] {
            assert_eq!(String::from(EventPattern::new(text).unwrap()), text);
        }
    }
}
