use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::Rate;
use crate::message::{EventName, Fault, RoomName, UserId};

/// `[messages]`: direct messages between users.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Off: there is no route, event or table of them.
    pub enabled: bool,
    /// Where their REST routes begin.
    pub path: String,
    /// Who may write to whom.
    pub policy: Policy,
    /// The claim whose texts are the users whom the token's user may write to, under `granted`.
    pub claim: String,
    /// How often one user sends.
    pub rate: Rate,
    /// How often one user sends to one other.
    pub conversation_rate: Rate,
    /// How long messages are kept.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Messages of one conversation; past it the oldest go first.
    pub max_messages: u32,
    /// The room that a device must have a right to in order to name a transaction, with `{id}` in it. Empty: no right is needed.
    pub transaction_room: String,
    /// The same of a listing.
    pub listing_room: String,
    /// What events are called.
    pub events: EventNames,
    /// What fields are called.
    pub fields: FieldNames,
}

/// Who may write to whom.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Each user to each other one, unless one of them has blocked the other.
    Anyone,
    /// Those whom the token's claim names, or a backend has allowed a conversation.
    Granted,
}

/// `[messages.events]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EventNames {
    /// A device sends a message.
    pub send: String,
    /// A device gets one.
    pub received: String,
    /// A device has read messages, and is told that the peer has.
    pub read: String,
    /// A device deletes a message.
    pub delete: String,
    /// A device is told that one was deleted.
    pub deleted: String,
    /// A device blocks a user, or does not any more.
    pub block: String,
    /// A device begins to type, and is told that the peer does.
    pub typing_start: String,
    /// A device has ended typing, and is told that the peer has.
    pub typing_stop: String,
}

/// `[messages.fields]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FieldNames {
    /// Of a message.
    pub id: String,
    /// Of a message.
    pub sender_id: String,
    /// Of a message, and of what is sent.
    pub receiver_id: String,
    /// Of a message, and of what is posted.
    pub content: String,
    /// The content in the event by which a device sends.
    pub text: String,
    /// Of a message, and of what is sent.
    pub transaction_id: String,
    /// Of a message, and of what is sent.
    pub listing_id: String,
    /// Of a message.
    pub is_read: String,
    /// Of a message.
    pub created_at: String,
    /// Of a message.
    pub updated_at: String,
    /// Of what is sent.
    pub client_message_id: String,
}

impl EventNames {
    /// The events that devices send.
    pub fn of_devices(&self) -> [&str; 6] {
        [&self.send, &self.read, &self.delete, &self.block, &self.typing_start, &self.typing_stop].map(String::as_str)
    }

    fn all(&self) -> [(&'static str, &str); 8] {
        [
            ("send", &self.send),
            ("received", &self.received),
            ("read", &self.read),
            ("delete", &self.delete),
            ("deleted", &self.deleted),
            ("block", &self.block),
            ("typing_start", &self.typing_start),
            ("typing_stop", &self.typing_stop),
        ]
        .map(|(key, name)| (key, name.as_str()))
    }
}

impl FieldNames {
    fn of_message(&self) -> [(&'static str, &str); 9] {
        [
            ("id", &self.id),
            ("sender_id", &self.sender_id),
            ("receiver_id", &self.receiver_id),
            ("content", &self.content),
            ("transaction_id", &self.transaction_id),
            ("listing_id", &self.listing_id),
            ("is_read", &self.is_read),
            ("created_at", &self.created_at),
            ("updated_at", &self.updated_at),
        ]
        .map(|(key, name)| (key, name.as_str()))
    }

    fn of_sending(&self) -> [(&'static str, &str); 5] {
        [
            ("receiver_id", &self.receiver_id),
            ("text", &self.text),
            ("transaction_id", &self.transaction_id),
            ("listing_id", &self.listing_id),
            ("client_message_id", &self.client_message_id),
        ]
        .map(|(key, name)| (key, name.as_str()))
    }
}

impl Config {
    /// What is wrong with the names in it. `has_store`: there is a store to keep messages in.
    pub fn faults(&self, has_store: bool) -> Vec<Fault> {
        if !self.enabled {
            return Vec::new();
        }
        let mut faults = Vec::new();
        if !has_store {
            faults.push(Fault::new(
                "messages.enabled",
                "is true, but store.url is empty: messages are kept in the store",
            ));
        }
        let events = self.events.all();
        for (index, (key, name)) in events.iter().enumerate() {
            if let Err(invalid) = EventName::new(name) {
                faults.push(Fault::new(format!("messages.events.{key}"), invalid.to_string()));
            } else if let Some((other, _)) = events[..index].iter().find(|(_, other)| other == name) {
                faults
                    .push(Fault::new(format!("messages.events.{key}"), format!("is that of messages.events.{other}")));
            }
        }
        twice(&self.fields.of_message(), &mut faults);
        twice(&self.fields.of_sending(), &mut faults);
        for (key, room) in [("transaction_room", &self.transaction_room), ("listing_room", &self.listing_room)] {
            let is_good = room.is_empty() || (room.contains("{id}") && room_of(room, "1").is_some());
            if !is_good {
                let problem = "is no room with {id} in it, such as transaction:{id}";
                faults.push(Fault::new(format!("messages.{key}"), problem));
            }
        }
        faults
    }
}

fn twice(fields: &[(&'static str, &str)], faults: &mut Vec<Fault>) {
    for (index, (key, name)) in fields.iter().enumerate() {
        let key = || format!("messages.fields.{key}");
        if let Err(invalid) = UserId::new(name) {
            faults.push(Fault::new(key(), invalid.to_string()));
        } else if let Some((other, _)) = fields[..index].iter().find(|(_, other)| other == name) {
            faults.push(Fault::new(key(), format!("is that of messages.fields.{other}")));
        }
    }
}

/// The room that a template makes of an id. Reserved rooms are none: nobody has a right to them.
pub(super) fn room_of(template: &str, id: &str) -> Option<RoomName> {
    RoomName::new(&template.replace("{id}", id)).ok().filter(|room| !room.is_reserved())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config as Whole;

    fn faults(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Whole::defaults().unwrap().messages;
        config.enabled = true;
        change(&mut config);
        config.faults(true).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_that_are_taken_or_not_good_are_told_with_their_keys() {
        assert_eq!(faults(|_| ()), [""; 0]);
        let found = faults(|config| {
            config.events.read = "message:send".into();
            config.events.deleted = "disconnect".into();
            config.fields.listing_id = "transactionId".into();
            config.fields.text = String::new();
            config.transaction_room = "transaction".into();
            config.listing_room = "user:{id}".into();
        });
        let keys: Vec<_> = found.iter().map(|fault| fault.split(": ").next().unwrap()).collect();
        let expected = [
            "messages.events.read",
            "messages.events.deleted",
            "messages.fields.listing_id",
            "messages.fields.text",
            "messages.fields.listing_id",
            "messages.transaction_room",
            "messages.listing_room",
        ];
        assert_eq!(keys, expected, "{found:?}");
    }

    #[test]
    fn messages_need_a_store() {
        let config = Config { enabled: true, ..Whole::defaults().unwrap().messages };
        assert_eq!(config.faults(false).len(), 1);
        assert!(Config { enabled: false, ..config }.faults(false).is_empty());
    }
}
