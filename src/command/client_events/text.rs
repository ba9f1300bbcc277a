use std::borrow::Cow;

use serde_json::{Map, Value};

use super::argument::Argument;
use crate::auth::{Identity, Part, Place, Placeholder, text_of};
use crate::message::Invalid;

/// What placeholders stand for: a device, and the argument of the event that it sent.
pub(super) struct Values<'a> {
    pub(super) identity: &'a Identity,
    pub(super) argument: &'a Argument,
}

/// A text with placeholders.
pub(super) struct TextTemplate(Vec<Part>);

/// A payload whose texts have placeholders.
pub(super) enum PayloadTemplate {
    Text(TextTemplate),
    List(Vec<Self>),
    Table(Vec<(String, Self)>),
    /// No text.
    Constant(Value),
}

impl Values<'_> {
    pub(super) fn texts(&self, placeholder: &Placeholder) -> Vec<Cow<'_, str>> {
        match placeholder {
            Placeholder::Argument(field) => {
                self.argument.value(field.as_deref()).and_then(text_of).into_iter().collect()
            }
            Placeholder::User | Placeholder::Role | Placeholder::Claim(_) => self.identity.values_of(placeholder),
        }
    }

    /// The value in its own type. Of several roles a list.
    fn json(&self, placeholder: &Placeholder) -> Value {
        let found = match placeholder {
            Placeholder::User => Some(self.identity.user.as_str().into()),
            Placeholder::Role => match &*self.identity.roles {
                [] => None,
                [role] => Some((**role).into()),
                roles => Some(roles.iter().map(|role| Value::from(&**role)).collect()),
            },
            Placeholder::Claim(name) => self.identity.claim(name).cloned(),
            Placeholder::Argument(field) => self.argument.value(field.as_deref()).cloned(),
        };
        found.unwrap_or_default()
    }
}

impl TextTemplate {
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        Part::all(text, Place::Event).map(Self)
    }

    pub(super) fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(placeholder) => Some(placeholder),
            Part::Literal(_) => None,
        })
    }

    /// The text. Several values of one placeholder stand with commas between them.
    pub(super) fn text(&self, values: &Values<'_>) -> String {
        let text = |part: &Part| match part {
            Part::Literal(literal) => literal.clone(),
            Part::Value(placeholder) => values.texts(placeholder).join(","),
        };
        self.0.iter().map(text).collect()
    }

    /// The text; or the value in its own type, where a placeholder is all there is.
    fn json(&self, values: &Values<'_>) -> Value {
        match &*self.0 {
            [Part::Value(placeholder)] => values.json(placeholder),
            _ => self.text(values).into(),
        }
    }
}

impl PayloadTemplate {
    pub(super) fn parse(value: &Value) -> Result<Self, Invalid> {
        Ok(match value {
            Value::String(text) => Self::Text(TextTemplate::parse(text)?),
            Value::Array(entries) => Self::List(entries.iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(keys) => {
                let parse = |(key, value): (&String, &Value)| Ok((key.clone(), Self::parse(value)?));
                Self::Table(keys.iter().map(parse).collect::<Result<_, Invalid>>()?)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Constant(value.clone()),
        })
    }

    pub(super) fn placeholders(&self) -> Vec<&Placeholder> {
        match self {
            Self::Text(text) => text.placeholders().collect(),
            Self::List(entries) => entries.iter().flat_map(Self::placeholders).collect(),
            Self::Table(keys) => keys.iter().flat_map(|(_, value)| value.placeholders()).collect(),
            Self::Constant(_) => Vec::new(),
        }
    }

    pub(super) fn json(&self, values: &Values<'_>) -> Value {
        match self {
            Self::Text(text) => text.json(values),
            Self::List(entries) => entries.iter().map(|entry| entry.json(values)).collect(),
            Self::Table(keys) => {
                let keys = keys.iter().map(|(key, value)| (key.clone(), value.json(values)));
                Value::Object(keys.collect::<Map<_, _>>())
            }
            Self::Constant(value) => value.clone(),
        }
    }
}
