use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use humantime_serde::re::humantime::parse_duration;

use super::{Failure, backend::Backend, print_json, printed::Receipt, read_input};
use crate::message::Payload;
use crate::proto::v1;
use crate::proto::v1::notify_client::NotifyClient;

/// `bugle emit`: to whom.
#[derive(Subcommand)]
pub enum Emit {
    /// To every device of a user.
    User {
        /// The user, as the devices' tokens name them.
        user: String,
        #[command(flatten)]
        event: Event,
    },
    /// To every device in a room.
    Room {
        /// The room.
        room: String,
        #[command(flatten)]
        event: Event,
    },
    /// To every device.
    All {
        #[command(flatten)]
        event: Event,
    },
}

/// What to send, and how.
#[derive(Args)]
pub struct Event {
    /// What the devices listen for.
    #[arg(value_name = "EVENT")]
    name: String,
    /// The event's one argument; - reads it from standard input. None: no argument.
    #[arg(allow_negative_numbers = true)]
    json: Option<String>,
    #[command(flatten)]
    backend: Backend,
    /// Let a connection whose queue is full lose the event, instead of closing it as slow.
    #[arg(long)]
    volatile: bool,
    /// Wrap the payload as { event, timestamp, data }.
    #[arg(long)]
    envelope: bool,
    /// Keep the payload as the room's last value of this event: whoever joins later gets it, too.
    #[arg(long)]
    retain: bool,
    /// Thin out what follows quickly: of the emits of this event to this audience with the same key, the first goes at once, then
    /// the last of each window.
    #[arg(long, value_name = "KEY")]
    collapse_key: Option<String>,
    /// Make a repetition within 5 minutes harmless: it sends nothing, and answers with the first receipt.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// A user whose devices do not get it; may be given several times.
    #[arg(long, value_name = "USER")]
    except_user: Vec<String>,
    /// Ask the devices for acknowledgements, and wait for one of them or for all; the receipt lists what became of the event at each
    /// connection.
    #[arg(long, value_name = "WHOM")]
    ack: Option<Ack>,
    /// How long to wait for that, 1ms to 60s.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration, requires = "ack")]
    ack_timeout: Duration,
}

/// Whose acknowledgement is waited for.
#[derive(Clone, Copy, ValueEnum)]
enum Ack {
    /// One device's.
    Any,
    /// All devices'.
    All,
}

impl Emit {
    /// Sends the event and prints the receipt.
    pub async fn execute(self) -> Result<(), Failure> {
        let receipt = match self {
            Self::User { user, event } => event.to_user(user).await,
            Self::Room { room, event } => event.to_room(room).await,
            Self::All { event } => event.to_all().await,
        }?;
        let receipt = receipt.ok_or(Failure::Incomplete("the receipt"))?;
        print_json(&Receipt::from(&receipt))
    }
}

impl Event {
    async fn to_user(&self, user_id: String) -> Result<Option<v1::Receipt>, Failure> {
        use crate::proto::v1::emit_to_user_request::Payload;
        let (payload, options) = (self.payload()?.map(Payload::Json), Some(self.options()));
        let request = v1::EmitToUserRequest { user_id, event: self.name.clone(), payload, options };
        let mut client = NotifyClient::new(self.backend.connect().await?);
        Ok(client.emit_to_user(request).await?.into_inner().receipt)
    }

    async fn to_room(&self, room: String) -> Result<Option<v1::Receipt>, Failure> {
        use crate::proto::v1::emit_to_room_request::Payload;
        let (payload, options) = (self.payload()?.map(Payload::Json), Some(self.options()));
        let request = v1::EmitToRoomRequest { room, event: self.name.clone(), payload, options };
        let mut client = NotifyClient::new(self.backend.connect().await?);
        Ok(client.emit_to_room(request).await?.into_inner().receipt)
    }

    async fn to_all(&self) -> Result<Option<v1::Receipt>, Failure> {
        use crate::proto::v1::broadcast_request::Payload;
        let (payload, options) = (self.payload()?.map(Payload::Json), Some(self.options()));
        let request = v1::BroadcastRequest { event: self.name.clone(), payload, options };
        let mut client = NotifyClient::new(self.backend.connect().await?);
        Ok(client.broadcast(request).await?.into_inner().receipt)
    }

    /// The payload's text. The server would refuse what is not JSON, too; but here it is a matter of usage.
    fn payload(&self) -> Result<Option<String>, Failure> {
        let text = match self.json.as_deref() {
            None => return Ok(None),
            Some("-") => read_input()?,
            Some(text) => text.to_owned(),
        };
        Payload::json(&text).map_err(Failure::Payload)?;
        Ok(Some(text))
    }

    fn ack_options(&self, ack: Ack) -> v1::AckOptions {
        let mode = match ack {
            Ack::Any => v1::ack_options::Mode::Any,
            Ack::All => v1::ack_options::Mode::All,
        };
        // What is too long for the message is too long for the server.
        let timeout = self.ack_timeout.try_into().unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 });
        v1::AckOptions { mode: mode.into(), timeout: Some(timeout) }
    }

    fn options(&self) -> v1::EmitOptions {
        v1::EmitOptions {
            idempotency_key: self.idempotency_key.clone().unwrap_or_default(),
            retain: self.retain,
            collapse_key: self.collapse_key.clone().unwrap_or_default(),
            volatile: self.volatile,
            envelope: self.envelope,
            except_user_ids: self.except_user.clone(),
            ack: self.ack.map(|ack| self.ack_options(ack)),
            ..v1::EmitOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        emit: Emit,
    }

    fn event(arguments: &[&str]) -> Event {
        let line = ["emit"].iter().chain(arguments).chain(&["--api-key", "k3y"]);
        match Line::try_parse_from(line).ok().unwrap().emit {
            Emit::User { event, .. } | Emit::Room { event, .. } | Emit::All { event } => event,
        }
    }

    #[test]
    fn arguments_become_the_request() {
        let line = "user 42 paid {} --retain --collapse-key c --volatile --envelope \
                    --idempotency-key i --except-user 1 --except-user 2 --ack all --ack-timeout 1500ms";
        let event = event(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(event.name, "paid");
        let expected = v1::EmitOptions {
            idempotency_key: "i".into(),
            retain: true,
            collapse_key: "c".into(),
            volatile: true,
            envelope: true,
            except_user_ids: vec!["1".into(), "2".into()],
            ack: Some(v1::AckOptions {
                mode: v1::ack_options::Mode::All.into(),
                timeout: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            }),
            ..v1::EmitOptions::default()
        };
        assert_eq!(event.options(), expected);
    }

    #[test]
    fn the_payload_is_sent_to_the_letter_or_not_at_all() {
        let payload = |arguments: &[&str]| event(arguments).payload().unwrap();
        assert_eq!(payload(&["room", "r", "e", r#"{"b":1.10, "a":1}"#]).unwrap(), r#"{"b":1.10, "a":1}"#);
        assert_eq!(payload(&["all", "e", "-5"]).unwrap(), "-5");
        assert_eq!(payload(&["all", "e"]), None);
    }

    #[test]
    fn a_payload_that_is_not_json_is_wrong_usage() {
        let failure = event(&["user", "42", "e", "{x}"]).payload().unwrap_err();
        assert_eq!(failure.report(), "the payload is not JSON: a syntax error at byte 1");
        assert_eq!(failure.exit_code(), 64);
    }
}
