use crate::message::Invalid;

/// What stands between braces in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{user}`: the user's id.
    User,
    /// `{role}`: each of the user's roles.
    Role,
    /// `{claim.NAME}`: the token's claim, or each element if it is a list. The name may be a path: `{claim.org.id}`.
    Claim(String),
    /// `{arg}`: the argument of an event that a device sent; `{arg.NAME}`: a field of it.
    Argument(Option<String>),
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Itself.
    Literal(String),
    /// What is filled in.
    Value(Placeholder),
}

/// Where a template stands, and so which placeholders have a value there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On connect there is but the token.
    Connect,
    /// A device's event has an argument, too.
    Event,
}

impl Part {
    /// Takes a template apart. What is wrong with it is told with its place.
    pub fn all(text: &str, place: Place) -> Result<Vec<Self>, Invalid> {
        let mut parts = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let end = rest.find(['{', '}']).unwrap_or(rest.len());
            if end > 0 {
                parts.push(Self::Literal(rest[..end].to_owned()));
                at += end;
                continue;
            }
            let inner = inside_braces(rest, at)?;
            parts.push(Self::Value(Placeholder::parse(inner, place).ok_or_else(|| unknown(place, at))?));
            at += "{}".len() + inner.len();
        }
        Ok(parts)
    }
}

impl Placeholder {
    fn parse(text: &str, place: Place) -> Option<Self> {
        match text {
            "user" => Some(Self::User),
            "role" => Some(Self::Role),
            "arg" if place == Place::Event => Some(Self::Argument(None)),
            _ => match text.split_once('.')? {
                ("claim", name) if is_name(name) => Some(Self::Claim(name.to_owned())),
                ("arg", name) if is_name(name) && place == Place::Event => Some(Self::Argument(Some(name.to_owned()))),
                _ => None,
            },
        }
    }
}

fn inside_braces(rest: &str, at: usize) -> Result<&str, Invalid> {
    let Some(inner) = rest.strip_prefix('{') else {
        return Err(Invalid::new(format!("has a `}}` that closes nothing, at byte {at}")));
    };
    match inner.split_once('}') {
        Some((inner, _)) => Ok(inner),
        None => Err(Invalid::new(format!("has a `{{` that is not closed, at byte {at}"))),
    }
}

fn unknown(place: Place, at: usize) -> Invalid {
    let known = match place {
        Place::Connect => "`{user}`, `{role}` or `{claim.NAME}`",
        Place::Event => "`{user}`, `{role}`, `{claim.NAME}`, `{arg}` or `{arg.NAME}`",
    };
    Invalid::new(format!("has an unknown placeholder at byte {at}: use {known}"))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('{') && name.trim() == name
}
