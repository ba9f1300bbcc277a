use super::super::messages::MessageEvent;
use super::{
    AllowedRooms, ClientEventConfig, RelayConfig, ReplyConfig,
    argument::Wanted,
    text::{PayloadTemplate, TextTemplate, Values},
};
use crate::auth::{Place, Placeholder, Template};
use crate::message::{EventName, Fault, Invalid, Payload};

/// What one event does.
pub(super) struct Rule {
    pub(super) roles: Vec<String>,
    pub(super) action: Option<Action>,
    pub(super) reply: Option<Message>,
    pub(super) wanted: Vec<Wanted>,
    /// The claims that its templates name.
    pub(super) claims: Vec<String>,
}

pub(super) enum Action {
    Join(Rooms),
    Leave(Template),
    Relay(Recipient, Message),
    /// What `[messages]` does.
    Message(MessageEvent),
}

pub(super) enum Recipient {
    User(TextTemplate),
    Rooms(Rooms),
}

pub(super) struct Rooms {
    pub(super) template: Template,
    pub(super) allowed: AllowedRooms,
}

/// An event that a rule sends.
pub(super) struct Message {
    pub(super) event: EventName,
    payload: Option<PayloadTemplate>,
}

impl Message {
    pub(super) fn payload(&self, values: &Values<'_>) -> Payload {
        let json = self.payload.as_ref().map(|payload| payload.json(values));
        json.and_then(|json| serde_json::value::to_raw_value(&json).ok())
            .map_or(Payload::None, |raw| Payload::Json(raw.into()))
    }
}

/// Reads one rule, and notes whatever is wrong with it.
pub(super) struct Reader<'a> {
    pub(super) key: String,
    /// The rooms that are joined on connect.
    pub(super) on_connect: &'a [Template],
    pub(super) faults: Vec<Fault>,
}

impl Reader<'_> {
    pub(super) fn read(&mut self, config: &ClientEventConfig) -> Option<Rule> {
        let event = self.take("event", EventName::new(&config.event));
        for (index, role) in config.roles.iter().enumerate() {
            if role.trim().is_empty() {
                self.add(&format!("roles[{index}]"), "is empty");
            }
        }
        let ways =
            [("join", config.join.is_some()), ("leave", config.leave.is_some()), ("relay", config.relay.is_some())];
        let given: Vec<_> = ways.into_iter().filter(|(_, given)| *given).map(|(way, _)| way).collect();
        match *given {
            [] if config.reply.is_none() => self.add("event", "has no consequence: give join, leave, relay or reply"),
            [_, other, ..] => self.add(other, "stands beside another: one of join, leave and relay is possible"),
            _ => {}
        }
        let has_rooms = config.join.is_some() || config.relay.as_ref().is_some_and(|relay| relay.room.is_some());
        if config.rooms.is_some() && !has_rooms {
            self.add("rooms", "says which rooms are allowed, but there is no join and no relay to a room");
        }
        let action = self.action(config, event.as_ref());
        let reply = config.reply.as_ref().and_then(|reply| self.reply(reply));
        self.faults.is_empty().then(|| Rule::new(config.roles.clone(), action, reply))
    }

    fn action(&mut self, config: &ClientEventConfig, event: Option<&EventName>) -> Option<Action> {
        if let Some(text) = &config.join {
            let allowed = config.rooms.unwrap_or(AllowedRooms::Granted);
            if allowed == AllowedRooms::Joined {
                self.add("rooms", "is joined, but a join is into a room that the connection is not in: granted or any");
            }
            return Some(Action::Join(Rooms { template: self.entered("join", text)?, allowed }));
        }
        if let Some(text) = &config.leave {
            return self.entered("leave", text).map(Action::Leave);
        }
        self.relay(config.relay.as_ref()?, config.rooms, event)
    }

    /// A template of rooms that devices join and leave as they like.
    fn entered(&mut self, key: &str, text: &str) -> Option<Template> {
        let template = self.take(key, Template::parse(text, Place::Event))?;
        if self.on_connect.iter().any(|other| template.overlaps(other)) {
            self.add(key, "makes a room that auth.rooms makes, too: who is in those, tokens alone decide");
        }
        Some(template)
    }

    fn relay(
        &mut self,
        config: &RelayConfig,
        rooms: Option<AllowedRooms>,
        event: Option<&EventName>,
    ) -> Option<Action> {
        let recipient = match (&config.user, &config.room) {
            (Some(user), None) => self.take("relay.user", TextTemplate::parse(user)).map(Recipient::User),
            (None, Some(room)) => {
                let allowed = rooms.unwrap_or(AllowedRooms::Joined);
                let template = self.take("relay.room", Template::of_any_room(room, Place::Event));
                template.map(|template| Recipient::Rooms(Rooms { template, allowed }))
            }
            (Some(_), Some(_)) | (None, None) => {
                self.add("relay", "needs a user or a room, one of the two");
                None
            }
        };
        let event = match &config.event {
            Some(name) => self.take("relay.event", EventName::new(name)),
            None => event.cloned(),
        };
        let payload = self.payload("relay.payload", config.payload.as_ref());
        Some(Action::Relay(recipient?, Message { event: event?, payload }))
    }

    fn reply(&mut self, config: &ReplyConfig) -> Option<Message> {
        let event = self.take("reply.event", EventName::new(&config.event));
        let payload = self.payload("reply.payload", config.payload.as_ref());
        Some(Message { event: event?, payload })
    }

    fn payload(&mut self, key: &str, payload: Option<&serde_json::Value>) -> Option<PayloadTemplate> {
        self.take(key, payload.map(PayloadTemplate::parse).transpose()).flatten()
    }

    fn take<T>(&mut self, key: &str, read: Result<T, Invalid>) -> Option<T> {
        read.map_err(|invalid| self.add(key, &invalid.to_string())).ok()
    }

    fn add(&mut self, key: &str, problem: &str) {
        self.faults.push(Fault::new(format!("{}.{key}", self.key), problem));
    }
}

impl Rule {
    fn new(roles: Vec<String>, action: Option<Action>, reply: Option<Message>) -> Self {
        let (mut named, mut sent): (Vec<&Placeholder>, Vec<&Placeholder>) = Default::default();
        match &action {
            Some(Action::Join(Rooms { template, .. }) | Action::Leave(template)) => {
                named.extend(template.placeholders());
            }
            Some(Action::Relay(recipient, message)) => {
                match recipient {
                    Recipient::User(text) => named.extend(text.placeholders()),
                    Recipient::Rooms(rooms) => named.extend(rooms.template.placeholders()),
                }
                sent.extend(message.payload.iter().flat_map(PayloadTemplate::placeholders));
            }
            Some(Action::Message(_)) | None => {}
        }
        sent.extend(reply.iter().flat_map(|reply| &reply.payload).flat_map(PayloadTemplate::placeholders));
        let all = named.into_iter().map(|placeholder| (placeholder, true));
        let all = all.chain(sent.into_iter().map(|placeholder| (placeholder, false)));
        let (mut wanted, mut claims) = (Vec::new(), Vec::new());
        for (placeholder, in_name) in all {
            match placeholder {
                Placeholder::Argument(field) => wanted.push(Wanted { field: field.clone(), in_name }),
                Placeholder::Claim(name) => claims.push(name.clone()),
                Placeholder::User | Placeholder::Role => {}
            }
        }
        Self { roles, action, reply, wanted, claims }
    }
}
