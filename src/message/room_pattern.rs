use serde::{Deserialize, Serialize};

use super::Invalid;

/// Which rooms are meant: names, with `*` for any text, the empty one too.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoomPattern(Box<str>);

impl RoomPattern {
    /// Reads it.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("is empty: write * for all rooms"));
        }
        Ok(Self(text.into()))
    }

    /// Whether this room is meant.
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return *self.0 == *name;
        };
        let Some(name) = name.strip_prefix(first) else {
            return false;
        };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(mut name) = name.strip_suffix(last) else {
            return false;
        };
        // What the leftmost match leaves is the most that there can be for the next piece.
        middle.split('*').all(|piece| match name.split_once(piece) {
            Some((_, left)) => {
                name = left;
                true
            }
            None => false,
        })
    }
}

impl TryFrom<String> for RoomPattern {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(&text)
    }
}

impl From<RoomPattern> for String {
    fn from(pattern: RoomPattern) -> Self {
        pattern.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let matches = |pattern: &str, name: &str| RoomPattern::new(pattern).unwrap().matches(name);
        let yes = [
            ("*", "a"),
            ("*", "a:b:c"),
            ("lobby", "lobby"),
            ("listing:*", "listing:1:bids"),
            ("listing:*", "listing:"),
            ("*:news", "org:1:news"),
            ("org:*:news", "org:1:news"),
            ("org:*:*:news", "org:1:2:news"),
            ("a*b*c*d", "a-b-b-c-d-d"),
            ("a**b", "ab"),
            ("a*é*", "aéé"),
        ];
        for (pattern, name) in yes {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        let no = [
            ("lobby", "lobby2"),
            ("listing:*", "listings:1"),
            ("*:news", "org:news:1"),
            ("org:*:news", "org:news"),
            ("a*a", "a"),
            ("a*b*b", "ab"),
            ("a*c*b*d", "a-b-c-d"),
            ("Lobby", "lobby"),
        ];
        for (pattern, name) in no {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
