use bytes::Bytes;
use engineioxide::{
    ProtocolVersion,
    frame::{binary_message, text_message},
};
use serde_json::value::RawValue;

use crate::hub::{Form, Frame};
use crate::message::Payload;

/// Gives `send` the frames of an event, byte for byte as the library would have them written: an EVENT packet of the main namespace,
/// `42["event",payload,meta]`, or a `BINARY_EVENT` and its attachment. `meta` is the second argument; `null` stands before it if there
/// is no payload. They are made once per emit and shared by all devices.
pub(super) fn with_frames<T>(
    frame: &Frame,
    protocol: ProtocolVersion,
    meta: Option<&RawValue>,
    send: impl FnOnce(&[Bytes]) -> T,
) -> T {
    let form = if meta.is_some() { Form::EventAndPosition } else { Form::Event };
    let event = frame.written.get_or_write(form, || event_frame(frame, meta));
    let attachment = match &frame.payload {
        Payload::None | Payload::Json(_) => return send(std::slice::from_ref(event)),
        Payload::Binary(bytes) => bytes,
    };
    let form = match protocol {
        ProtocolVersion::V3 => Form::AttachmentV3,
        ProtocolVersion::V4 => Form::Attachment,
    };
    let attachment = frame.written.get_or_write(form, || binary_message(protocol, attachment));
    send(&[event.clone(), attachment.clone()])
}

fn event_frame(frame: &Frame, meta: Option<&RawValue>) -> Bytes {
    const EVENT: &str = "2[";
    const BINARY_EVENT: &str = "51-[";
    let quoted;
    let name = frame.event.as_str();
    // Nearly all names stand in JSON as they are.
    let [open, name, close] = if name.bytes().any(|byte| byte == b'"' || byte == b'\\' || byte.is_ascii_control()) {
        // Texts always serialise.
        quoted = serde_json::to_string(name).unwrap_or_default();
        ["", &quoted, ""]
    } else {
        ["\"", name, "\""]
    };
    let (start, payload) = match &frame.payload {
        Payload::None => (EVENT, meta.map(|_| "null")),
        Payload::Json(raw) => (EVENT, Some(raw.get())),
        Payload::Binary(_) => (BINARY_EVENT, Some(r#"{"_placeholder":true,"num":0}"#)),
    };
    let [comma, payload] = argument(payload);
    let [second_comma, meta] = argument(meta.map(RawValue::get));
    text_message(&[start, open, name, close, comma, payload, second_comma, meta, "]"].map(str::as_bytes))
}

/// An argument after another, if there is one.
fn argument(text: Option<&str>) -> [&str; 2] {
    text.map_or(["", ""], |text| [",", text])
}

#[cfg(test)]
mod tests;
