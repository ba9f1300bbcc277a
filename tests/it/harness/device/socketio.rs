//! Socket.IO packets: <https://socket.io/docs/v4/socket-io-protocol/>.

use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// An event that reached the device.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: String,
    pub args: Vec<Arg>,
    /// The packet as it was on the wire, without its attachments.
    pub raw: String,
    /// The id of the acknowledgement that the server asks for.
    pub ack: Option<u64>,
    /// When it was whole.
    pub at: Instant,
}

/// An argument of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// The JSON text as it was on the wire.
    Json(String),
    Binary(Bytes),
}

impl Event {
    /// The JSON text of the only argument.
    #[track_caller]
    pub fn json(&self) -> &str {
        match self.args.as_slice() {
            [Arg::Json(text)] => text,
            _ => panic!("{} has not one JSON argument: {}", self.name, self.raw),
        }
    }

    /// The arguments, parsed.
    #[track_caller]
    pub fn values(&self) -> Vec<Value> {
        let value = |arg: &Arg| match arg {
            Arg::Json(text) => serde_json::from_str(text).expect("an argument is JSON"),
            Arg::Binary(_) => panic!("{} has a binary argument: {}", self.name, self.raw),
        };
        self.args.iter().map(value).collect()
    }

    /// The only argument, parsed.
    #[track_caller]
    pub fn value(&self) -> Value {
        serde_json::from_str(self.json()).expect("an argument is JSON")
    }

    /// The bytes of the only argument.
    #[track_caller]
    pub fn binary(&self) -> &Bytes {
        match self.args.as_slice() {
            [Arg::Binary(bytes)] => bytes,
            _ => panic!("{} has not one binary argument: {}", self.name, self.raw),
        }
    }
}

#[derive(Debug)]
pub enum Packet {
    Connect,
    Disconnect,
    Event(Event),
    Ack { id: u64, args: Vec<Value> },
    ConnectError { message: String },
}

/// Puts packets together from messages and their attachments.
#[derive(Default)]
pub struct Decoder {
    incomplete: Option<Incomplete>,
}

struct Incomplete {
    frame: Frame,
    attachments: Vec<Bytes>,
}

/// A packet's text, taken apart.
struct Frame {
    kind: char,
    attachments: usize,
    id: Option<u64>,
    data: String,
    raw: String,
}

impl Decoder {
    /// Takes a message; answers the packet if that makes it whole.
    pub fn text(&mut self, text: &str) -> Option<Packet> {
        assert!(self.incomplete.is_none(), "the server sent {text:?} where an attachment was due");
        let frame = Frame::parse(text);
        if frame.attachments == 0 {
            return Some(frame.into_packet(&[]));
        }
        self.incomplete = Some(Incomplete { frame, attachments: Vec::new() });
        None
    }

    /// Takes an attachment; answers the packet if that makes it whole.
    pub fn binary(&mut self, bytes: Bytes) -> Option<Packet> {
        let incomplete = self.incomplete.as_mut().expect("an attachment follows its packet");
        incomplete.attachments.push(bytes);
        let whole =
            self.incomplete.take_if(|incomplete| incomplete.attachments.len() == incomplete.frame.attachments)?;
        Some(whole.frame.into_packet(&whole.attachments))
    }
}

impl Frame {
    fn parse(raw: &str) -> Self {
        let mut characters = raw.chars();
        let kind = characters.next().unwrap_or_else(|| panic!("the server sent an empty Socket.IO packet"));
        let mut rest = characters.as_str();
        let mut attachments = 0;
        if matches!(kind, '5' | '6') {
            let (count, after) = rest.split_once('-').unwrap_or_else(|| panic!("no count of attachments: {raw}"));
            attachments = count.parse().unwrap_or_else(|_| panic!("no count of attachments: {raw}"));
            rest = after;
        }
        if rest.starts_with('/') {
            rest = rest.split_once(',').map_or("", |(_, after)| after);
        }
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let (id, data) = rest.split_at(digits);
        Self { kind, attachments, id: id.parse().ok(), data: data.into(), raw: raw.into() }
    }

    fn into_packet(self, attachments: &[Bytes]) -> Packet {
        match self.kind {
            '0' => Packet::Connect,
            '1' => Packet::Disconnect,
            '2' | '5' => Packet::Event(self.into_event(attachments)),
            '3' | '6' => Packet::Ack { id: self.id.expect("an acknowledgement has an id"), args: self.json() },
            '4' => Packet::ConnectError { message: self.error_message() },
            _ => panic!("the server sent no Socket.IO packet: {}", self.raw),
        }
    }

    fn json<'a, T: Deserialize<'a>>(&'a self) -> T {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("bad data ({error}): {}", self.raw))
    }

    fn into_event(self, attachments: &[Bytes]) -> Event {
        let array: Vec<&RawValue> = self.json();
        let [name, args @ ..] = array.as_slice() else { panic!("an event without a name: {}", self.raw) };
        let name = serde_json::from_str(name.get()).unwrap_or_else(|_| panic!("an event's name is text: {}", self.raw));
        let args = args.iter().map(|arg| Arg::new(arg, attachments)).collect();
        Event { name, args, ack: self.id, raw: self.raw, at: Instant::now() }
    }

    /// An object with a message since protocol v5, any JSON before.
    fn error_message(&self) -> String {
        let error: Value = self.json();
        let message = error.get("message").unwrap_or(&error);
        message.as_str().map_or_else(|| message.to_string(), str::to_owned)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Placeholder {
    #[serde(rename = "_placeholder")]
    is_placeholder: bool,
    num: usize,
}

impl Arg {
    fn new(raw: &RawValue, attachments: &[Bytes]) -> Self {
        let json = || Self::Json(raw.get().to_owned());
        if attachments.is_empty() {
            return json();
        }
        match serde_json::from_str::<Placeholder>(raw.get()) {
            Ok(Placeholder { is_placeholder: true, num }) => Self::Binary(attachments[num].clone()),
            Ok(_) | Err(_) => json(),
        }
    }
}

/// The message of an event without attachments.
pub fn event_message(name: &str, args: &[Value], ack: Option<u64>) -> String {
    let ack = ack.map(|id| id.to_string()).unwrap_or_default();
    let array: Vec<_> = [Value::from(name)].into_iter().chain(args.iter().cloned()).collect();
    format!("2{ack}{}", Value::from(array))
}

/// The message of an acknowledgement; what is in it follows as attachments.
pub fn ack_message(id: u64, args: &str, attachments: usize) -> String {
    if attachments == 0 { format!("3{id}{args}") } else { format!("6{attachments}-{id}{args}") }
}

/// The message of an event with one argument, which follows as an attachment.
pub fn binary_event_message(name: &str) -> String {
    let array = serde_json::json!([name, { "_placeholder": true, "num": 0 }]);
    format!("51-{array}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn event(packet: Option<Packet>) -> Event {
        match packet {
            Some(Packet::Event(event)) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    #[test]
    fn an_event_keeps_its_arguments_as_they_were_on_the_wire() {
        let event = event(
            Decoder::default().text(r#"2["x",{"b":1.10, "a":12345678901234567890},{"_placeholder":true,"num":0}]"#),
        );
        let json = |text: &str| Arg::Json(text.into());
        assert_eq!(event.name, "x");
        assert_eq!(
            event.args,
            [json(r#"{"b":1.10, "a":12345678901234567890}"#), json(r#"{"_placeholder":true,"num":0}"#)]
        );
    }

    #[test]
    fn a_binary_event_waits_for_its_attachments() {
        let mut decoder = Decoder::default();
        let text = r#"52-["x",{"_placeholder":true,"num":1},7,{"_placeholder":true,"num":0}]"#;
        assert!(decoder.text(text).is_none());
        assert!(decoder.binary(Bytes::from_static(b"a")).is_none());
        let args = event(decoder.binary(Bytes::from_static(b"b"))).args;
        let binary = |bytes: &'static str| Arg::Binary(bytes.into());
        assert_eq!(args, [binary("b"), Arg::Json("7".into()), binary("a")]);
    }

    #[test]
    fn refusals_of_both_protocols_have_a_message() {
        for text in [r#"4{"message":"no"}"#, r#"4"no""#, r#"4/admin,{"message":"no"}"#] {
            let packet = Decoder::default().text(text);
            assert!(matches!(&packet, Some(Packet::ConnectError { message }) if message == "no"), "{packet:?}");
        }
    }

    #[test]
    fn an_acknowledgement_names_its_event() {
        let packet = Decoder::default().text(r#"317[{"ok":true}]"#);
        assert!(matches!(&packet, Some(Packet::Ack { id: 17, args }) if args.len() == 1), "{packet:?}");
    }
}
