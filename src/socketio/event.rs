use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use socketioxide::{extract::AckSender, handler::Value};

/// An event from a device.
pub(super) struct ClientEvent {
    pub(super) name: String,
    /// The first argument, unless one of them is binary.
    pub(super) argument: Option<Box<RawValue>>,
    pub(super) bytes: usize,
    /// The way to answer, if the device asked for that.
    pub(super) ack: Option<AckSender>,
}

impl ClientEvent {
    /// `None`: it is malformed.
    pub(super) fn parse(value: &Value, ack: Option<AckSender>) -> Option<Self> {
        let Value::Str(text, attachments) = value else {
            return None;
        };
        let Parts { name, argument } = serde_json::from_str(text).ok()?;
        let is_binary = attachments.as_ref().is_some_and(|attachments| !attachments.is_empty());
        Some(Self { name, argument: argument.filter(|_| !is_binary), bytes: text.len(), ack })
    }
}

/// An event's name and first argument; the others are read over, since a stranger decides how many there are.
struct Parts {
    name: String,
    argument: Option<Box<RawValue>>,
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Parts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event's name and its arguments")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Parts, A::Error> {
                let mut name: String = list.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                if name.is_empty() {
                    // The mark of a name that the library cannot read (`packet::Rewrite`): the name itself is next.
                    name = list.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                }
                let argument = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Parts { name, argument })
            }
        }

        deserializer.deserialize_seq(List)
    }
}
