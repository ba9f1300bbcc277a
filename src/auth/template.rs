use std::{borrow::Cow, collections::BTreeSet};

use super::placeholder::{Part, Place, Placeholder};
use crate::message::{Invalid, RoomName};

/// The longest value of a placeholder, in bytes.
const MAX_VALUE: usize = 256;
/// Stands for any value that a placeholder can have: itself it cannot be in one.
const ANY_VALUE: &str = "*";

/// The name of a room with placeholders: `org:{claim.org.id}:news`. It begins with a literal, so that no value decides what
/// kind of room it is.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Piece>,
    /// Each once, however often it stands in the template: it has one value in all those places.
    placeholders: Vec<Placeholder>,
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    /// The value of the placeholder at this index.
    Value(usize),
}

/// A template makes more rooms than it may.
#[derive(Debug, PartialEq, Eq)]
pub struct TooManyRooms;

impl Template {
    /// Reads a template of 1 to 256 bytes for rooms that are joined: Bugle's own are none of those. What is wrong with it is told
    /// with its place.
    pub fn parse(text: &str, place: Place) -> Result<Self, Invalid> {
        let template = Self::read(text, place)?;
        template.check_beginning()?;
        RoomName::new(text)?;
        Ok(template)
    }

    /// The same, for rooms that are written to.
    pub fn of_any_room(text: &str, place: Place) -> Result<Self, Invalid> {
        let template = Self::read(text, place)?;
        RoomName::new(text)?;
        Ok(template)
    }

    fn read(text: &str, place: Place) -> Result<Self, Invalid> {
        let mut template = Self { parts: Vec::new(), placeholders: Vec::new() };
        for part in Part::all(text, place)? {
            template.add(part);
        }
        if let Some(Piece::Value(_)) = template.parts.first() {
            return Err(Invalid::new("begins with a placeholder: begin with a literal such as `org:`"));
        }
        Ok(template)
    }

    /// What has to be filled in.
    pub fn placeholders(&self) -> &[Placeholder] {
        &self.placeholders
    }

    /// The rooms for these values of the placeholders: one for each combination, except where a value cannot be in the name of a
    /// room, or the whole is too long or one of Bugle's own rooms. Refused if there are more combinations than allowed.
    pub fn rooms<'a>(
        &'a self,
        values_of: impl Fn(&'a Placeholder) -> Vec<Cow<'a, str>>,
        at_most: usize,
    ) -> Result<Vec<RoomName>, TooManyRooms> {
        let mut all = self.made(values_of, at_most)?;
        // `us{claim.a}:{claim.b}` can still come out as a user's room.
        all.retain(|room| !room.is_reserved());
        Ok(all)
    }

    /// The same, and Bugle's own rooms as well if the template itself names them: no value makes one of another room.
    pub fn any_rooms<'a>(
        &'a self,
        values_of: impl Fn(&'a Placeholder) -> Vec<Cow<'a, str>>,
        at_most: usize,
    ) -> Result<Vec<RoomName>, TooManyRooms> {
        let names_own = match &*self.parts {
            [Piece::Literal(constant)] => is_reserved(constant),
            [Piece::Literal(beginning), ..] => is_reserved(&format!("{beginning}x")),
            _ => false,
        };
        let mut all = self.made(values_of, at_most)?;
        all.retain(|room| names_own || !room.is_reserved());
        Ok(all)
    }

    fn made<'a>(
        &'a self,
        values_of: impl Fn(&'a Placeholder) -> Vec<Cow<'a, str>>,
        at_most: usize,
    ) -> Result<Vec<RoomName>, TooManyRooms> {
        let names = self.names(|placeholder| usable(values_of(placeholder)), at_most)?;
        Ok(names.iter().filter_map(|name| RoomName::new(name).ok()).collect())
    }

    /// Whether some values might make the same room of both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let shape =
            |template: &Self| template.names(|_| vec![Cow::Borrowed(ANY_VALUE)], 1).unwrap_or_default().concat();
        may_be_alike(&shape(self), &shape(other))
    }

    /// Whether it makes this room of the token's values and some argument or other.
    pub fn could_make<'a>(
        &'a self,
        room: &RoomName,
        values_of: impl Fn(&'a Placeholder) -> Vec<Cow<'a, str>>,
        at_most: usize,
    ) -> bool {
        let shapes = self.names(
            |placeholder| match placeholder {
                Placeholder::Argument(_) => vec![Cow::Borrowed(ANY_VALUE)],
                Placeholder::User | Placeholder::Role | Placeholder::Claim(_) => usable(values_of(placeholder)),
            },
            at_most,
        );
        shapes.is_ok_and(|shapes| shapes.iter().any(|shape| may_be_alike(shape, room.as_str())))
    }

    fn names<'a>(
        &'a self,
        values_of: impl Fn(&'a Placeholder) -> Vec<Cow<'a, str>>,
        at_most: usize,
    ) -> Result<Vec<String>, TooManyRooms> {
        let values: Vec<_> = self.placeholders.iter().map(values_of).collect();
        let combinations = values.iter().map(Vec::len).fold(1, usize::saturating_mul);
        if combinations > at_most {
            return Err(TooManyRooms);
        }
        Ok((0..combinations).map(|nth| self.name(&values, nth)).collect())
    }

    fn add(&mut self, part: Part) {
        let piece = match part {
            Part::Literal(literal) => Piece::Literal(literal),
            Part::Value(placeholder) => {
                let known = self.placeholders.iter().position(|known| *known == placeholder);
                Piece::Value(known.unwrap_or_else(|| {
                    self.placeholders.push(placeholder);
                    self.placeholders.len() - 1
                }))
            }
        };
        self.parts.push(piece);
    }

    fn check_beginning(&self) -> Result<(), Invalid> {
        match self.parts.first() {
            // The prefix of a reserved room is no room without a name after it.
            Some(Piece::Literal(literal)) if is_reserved(literal) || is_reserved(&format!("{literal}x")) => {
                Err(Invalid::new(
                    "makes rooms that Bugle keeps for itself: do not begin with `user:` or `role:`, nor with `everyone` alone",
                ))
            }
            Some(Piece::Literal(_) | Piece::Value(_)) | None => Ok(()),
        }
    }

    fn name(&self, values: &[Vec<Cow<'_, str>>], nth: usize) -> String {
        let mut rest = nth;
        let mut chosen = Vec::with_capacity(values.len());
        for of_placeholder in values {
            chosen.push(&*of_placeholder[rest % of_placeholder.len()]);
            rest /= of_placeholder.len();
        }
        let text = |piece: &Piece| match piece {
            Piece::Literal(literal) => literal.clone(),
            Piece::Value(index) => chosen[*index].to_owned(),
        };
        self.parts.iter().map(text).collect()
    }
}

fn is_reserved(name: &str) -> bool {
    RoomName::new(name).is_ok_and(|room| room.is_reserved())
}

/// Whether two names can be the same, where a `*` in one is any text without a colon. What stands between two stars is not looked at:
/// at worst the answer is a yes too many.
fn may_be_alike(one: &str, other: &str) -> bool {
    let (one, other): (Vec<_>, Vec<_>) = (one.split(':').collect(), other.split(':').collect());
    one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| segments_may_be_alike(one, other))
}

fn segments_may_be_alike(one: &str, other: &str) -> bool {
    let ends = |text: &str| {
        let (first, rest) = text.split_once(ANY_VALUE)?;
        Some((first.to_owned(), rest.rsplit_once(ANY_VALUE).map_or(rest, |(_, last)| last).to_owned()))
    };
    let fits = |literal: &str, (first, last): &(String, String)| {
        literal.len() > first.len() + last.len() && literal.starts_with(&**first) && literal.ends_with(&**last)
    };
    match (ends(one), ends(other)) {
        (None, None) => one == other,
        (None, Some(ends)) => fits(one, &ends),
        (Some(ends), None) => fits(other, &ends),
        (Some(one), Some(other)) => {
            (one.0.starts_with(&*other.0) || other.0.starts_with(&*one.0))
                && (one.1.ends_with(&*other.1) || other.1.ends_with(&*one.1))
        }
    }
}

/// The values that can be in the name of a room without changing what kind of room it is, each once.
fn usable(values: Vec<Cow<'_, str>>) -> Vec<Cow<'_, str>> {
    values.into_iter().filter(|value| is_usable(value)).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether a value can be in the name of a room without changing what kind of room it is.
pub fn is_usable(value: &str) -> bool {
    (1..=MAX_VALUE).contains(&value.len()) && !value.contains(|c: char| c.is_control() || c == ':' || c == '*')
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
                Placeholder::Argument(_) => "arg",
            };
            let values = values.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, values)| values);
            values.iter().map(|value| Cow::Owned((*value).to_owned())).collect()
        };
        let rooms = Template::parse(template, Place::Connect).unwrap().rooms(values_of, at_most)?;
        Ok(rooms.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn templates_are_refused_with_what_is_wrong_and_where() {
        let refusal = |text: &str| Template::parse(text, Place::Connect).unwrap_err().to_string();
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
            let refusal = Template::parse(text, Place::Connect).unwrap_err().to_string();
            assert!(refusal.starts_with("makes rooms that Bugle keeps for itself"), "{text}: {refusal}");
        }
        for text in ["users", "user{user}", "everyone:{user}", "every{user}"] {
            assert!(Template::parse(text, Place::Connect).is_ok(), "{text}");
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
