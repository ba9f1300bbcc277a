use std::{borrow::Cow, collections::BTreeSet};

use crate::message::{Invalid, RoomName};

/// The longest value of a placeholder, in bytes.
const MAX_VALUE: usize = 256;

/// The name of a room with placeholders: `org:{claim.org.id}:news`. It begins with a literal, so that no value decides what
/// kind of room it is.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
    /// Each once, however often it stands in the template: it has one value in all those places.
    placeholders: Vec<Placeholder>,
}

#[derive(Debug)]
enum Part {
    Literal(String),
    /// The value of the placeholder at this index.
    Value(usize),
}

/// What stands between braces.
#[derive(Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{user}`: the user's id.
    User,
    /// `{role}`: each of the user's roles.
    Role,
    /// `{claim.NAME}`: the token's claim, or each element if it is a list. The name may be a path: `{claim.org.id}`.
    Claim(String),
}

/// A template makes more rooms than it may.
#[derive(Debug, PartialEq, Eq)]
pub struct TooManyRooms;

impl Template {
    /// Reads a template of 1 to 256 bytes. What is wrong with it is told with its place.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut template = Self { parts: Vec::new(), placeholders: Vec::new() };
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            at += match rest.find(['{', '}']).unwrap_or(rest.len()) {
                0 => template.take_placeholder(rest, at)?,
                end => template.take_literal(&rest[..end]),
            };
        }
        template.check_beginning()?;
        RoomName::new(text)?;
        Ok(template)
    }

    /// The rooms for these values of the placeholders: one for each combination, except where a value cannot be in the name of a
    /// room, or the whole is too long or one of Bugle's own rooms. Refused if there are more combinations than allowed.
    pub fn rooms<'a>(
        &'a self,
        values_of: impl Fn(&'a Placeholder) -> Vec<Cow<'a, str>>,
        at_most: usize,
    ) -> Result<Vec<RoomName>, TooManyRooms> {
        let values: Vec<_> = self.placeholders.iter().map(|placeholder| usable(values_of(placeholder))).collect();
        let combinations = values.iter().map(Vec::len).fold(1, usize::saturating_mul);
        if combinations > at_most {
            return Err(TooManyRooms);
        }
        Ok((0..combinations).filter_map(|nth| self.room(&values, nth)).collect())
    }

    fn take_literal(&mut self, literal: &str) -> usize {
        self.parts.push(Part::Literal(literal.to_owned()));
        literal.len()
    }

    fn take_placeholder(&mut self, rest: &str, at: usize) -> Result<usize, Invalid> {
        let Some(inner) = rest.strip_prefix('{') else {
            return Err(Invalid::new(format!("has a `}}` that closes nothing, at byte {at}")));
        };
        let Some(end) = inner.find('}') else {
            return Err(Invalid::new(format!("has a `{{` that is not closed, at byte {at}")));
        };
        let Some(placeholder) = Placeholder::parse(&inner[..end]) else {
            let known = "`{user}`, `{role}` or `{claim.NAME}`";
            return Err(Invalid::new(format!("has an unknown placeholder at byte {at}: use {known}")));
        };
        let index = self.placeholders.iter().position(|known| *known == placeholder).unwrap_or_else(|| {
            self.placeholders.push(placeholder);
            self.placeholders.len() - 1
        });
        self.parts.push(Part::Value(index));
        Ok("{}".len() + end)
    }

    fn check_beginning(&self) -> Result<(), Invalid> {
        match self.parts.first() {
            Some(Part::Value(_)) => Err(Invalid::new("begins with a placeholder: begin with a literal such as `org:`")),
            // The prefix of a reserved room is no room without a name after it.
            Some(Part::Literal(literal)) if is_reserved(literal) || is_reserved(&format!("{literal}x")) => {
                Err(Invalid::new(
                    "makes rooms that Bugle keeps for itself: do not begin with `user:` or `role:`, nor with `everyone` alone",
                ))
            }
            Some(Part::Literal(_)) | None => Ok(()),
        }
    }

    fn room(&self, values: &[Vec<Cow<'_, str>>], nth: usize) -> Option<RoomName> {
        let mut rest = nth;
        let mut chosen = Vec::with_capacity(values.len());
        for of_placeholder in values {
            chosen.push(&*of_placeholder[rest % of_placeholder.len()]);
            rest /= of_placeholder.len();
        }
        let name: String = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Literal(literal) => literal,
                Part::Value(index) => chosen[*index],
            })
            .collect();
        // `us{claim.a}:{claim.b}` can still come out as a user's room.
        RoomName::new(&name).ok().filter(|room| !room.is_reserved())
    }
}

impl Placeholder {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "user" => Some(Self::User),
            "role" => Some(Self::Role),
            _ => {
                text.strip_prefix("claim.").filter(|name| is_claim_name(name)).map(|name| Self::Claim(name.to_owned()))
            }
        }
    }
}

fn is_claim_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('{') && name.trim() == name
}

fn is_reserved(name: &str) -> bool {
    RoomName::new(name).is_ok_and(|room| room.is_reserved())
}

/// The values that can be in the name of a room without changing what kind of room it is, each once.
fn usable(values: Vec<Cow<'_, str>>) -> Vec<Cow<'_, str>> {
    let usable = |value: &Cow<'_, str>| {
        (1..=MAX_VALUE).contains(&value.len()) && !value.contains(|c: char| c.is_control() || c == ':' || c == '*')
    };
    values.into_iter().filter(usable).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(template: &str, values: &[(&str, &[&str])], at_most: usize) -> Result<Vec<String>, TooManyRooms> {
        let values_of = |placeholder: &Placeholder| {
            let name = match placeholder {
                Placeholder::User => "user",
                Placeholder::Role => "role",
                Placeholder::Claim(name) => name.as_str(),
            };
            let values = values.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, values)| values);
            values.iter().map(|value| Cow::Owned((*value).to_owned())).collect()
        };
        let rooms = Template::parse(template).unwrap().rooms(values_of, at_most)?;
        Ok(rooms.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn templates_are_refused_with_what_is_wrong_and_where() {
        let refusal = |text: &str| Template::parse(text).unwrap_err().to_string();
        let unknown = "has an unknown placeholder at byte 4: use `{user}`, `{role}` or `{claim.NAME}`";
        for text in ["org:{}", "org:{name}", "org:{claim}", "org:{claim.}", "org:{ user }", "org:{User}", "org:{us{er}"]
        {
            assert_eq!(refusal(text), unknown, "{text}");
        }
        assert_eq!(refusal("org:{user"), "has a `{` that is not closed, at byte 4");
        assert_eq!(refusal("é:{user}-{"), "has a `{` that is not closed, at byte 10");
        assert_eq!(refusal("org:user}"), "has a `}` that closes nothing, at byte 8");
        assert_eq!(refusal("{user}"), "begins with a placeholder: begin with a literal such as `org:`");
        assert_eq!(refusal(""), "is empty: give 1 to 256 bytes");
        assert_eq!(refusal("a\n{user}"), "has a control character at byte 1");
        assert_eq!(refusal(&"a".repeat(257)), "has 257 bytes: at most 256 are allowed");
    }

    #[test]
    fn bugles_own_rooms_have_no_template() {
        for text in ["user:", "user:{user}", "user:42", "role:x{role}", "role:admin", "everyone", "everyone{user}"] {
            let refusal = Template::parse(text).unwrap_err().to_string();
            assert!(refusal.starts_with("makes rooms that Bugle keeps for itself"), "{text}: {refusal}");
        }
        for text in ["users", "user{user}", "everyone:{user}", "every{user}"] {
            assert!(Template::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_constant_is_one_room() {
        assert_eq!(rooms("lobby", &[], 1), Ok(vec!["lobby".to_owned()]));
    }

    #[test]
    fn there_is_a_room_for_each_combination_of_values() {
        let values: &[(&str, &[&str])] = &[("a", &["1", "2", "1"]), ("role", &["x", "y"]), ("user", &["7"])];
        let all = ["r:1-x-7-1", "r:2-x-7-2", "r:1-y-7-1", "r:2-y-7-2"].map(str::to_owned).to_vec();
        assert_eq!(rooms("r:{claim.a}-{role}-{user}-{claim.a}", values, 4), Ok(all));
        assert_eq!(rooms("r:{claim.a}-{role}", values, 3), Err(TooManyRooms));
    }

    #[test]
    fn combinations_are_counted_without_making_them() {
        let many: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let values: &[(&str, &[&str])] =
            &[("a", &many), ("b", &many), ("c", &many), ("d", &many), ("e", &many), ("f", &many)];
        let template = "r:{claim.a}{claim.b}{claim.c}{claim.d}{claim.e}{claim.f}";
        assert_eq!(rooms(template, values, 256), Err(TooManyRooms));
        assert_eq!(rooms(&format!("{template}{{claim.absent}}"), values, 256), Ok(vec![]));
    }

    #[test]
    fn values_that_would_change_the_kind_of_room_make_none() {
        let long = "a".repeat(257);
        let values: &[(&str, &[&str])] = &[("a", &["x:y", "*", "", "a\nb", &long, "ok"])];
        assert_eq!(rooms("r:{claim.a}", values, 256), Ok(vec!["r:ok".to_owned()]));
        assert_eq!(rooms("r:{claim.absent}", values, 256), Ok(vec![]));
    }

    #[test]
    fn no_combination_of_values_makes_one_of_bugles_own_rooms() {
        let values: &[(&str, &[&str])] = &[("a", &["er", "e"]), ("b", &["42"]), ("c", &["one"])];
        assert_eq!(rooms("us{claim.a}:{claim.b}", values, 256), Ok(vec!["use:42".to_owned()]));
        assert_eq!(rooms("every{claim.c}", values, 256), Ok(vec![]));
    }

    #[test]
    fn a_name_that_gets_too_long_is_no_room() {
        let long = "a".repeat(256);
        assert_eq!(rooms("r:{claim.a}", &[("a", &[&long, "b"])], 256), Ok(vec!["r:b".to_owned()]));
    }
}
