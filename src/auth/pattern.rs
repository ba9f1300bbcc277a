use crate::message::Invalid;

/// Room names, with `*` for any text, the empty one too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Reads it. Rooms that need no pattern are refused with what they need.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("has no pattern: write emit:room:* for all rooms"));
        }
        if text.starts_with("user:") {
            return Err(Invalid::new("matches no room: emitting to a user's room needs emit:user"));
        }
        if text == "everyone" {
            return Err(Invalid::new("matches no room: emitting to everyone needs emit:broadcast"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let matches = |pattern: &str, name: &str| Pattern::parse(pattern).unwrap().matches(name);
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
