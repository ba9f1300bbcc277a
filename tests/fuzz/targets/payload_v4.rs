//! The polling payloads of Engine.IO 4: decoding never panics, and what is encoded is decoded back.
#![no_main]

#[path = "../../../src/engineio/payload/mod.rs"]
#[allow(dead_code)]
mod payload;

use arbitrary::Arbitrary;
use bytes::Bytes;
use engineioxide_core::ProtocolVersion::V4;
use libfuzzer_sys::fuzz_target;
use payload::{Inbound, Packet};

#[derive(Arbitrary, Debug)]
struct Input {
    body: Vec<u8>,
    is_binary: bool,
    queue: Vec<Message>,
}

#[derive(Arbitrary, Debug)]
enum Message {
    Text(String),
    Binary(Vec<u8>),
}

impl Message {
    fn queued(&self) -> (Packet, Inbound) {
        match self {
            Self::Text(text) => {
                // The separator cannot be in a packet: JSON escapes it.
                let text = text.replace('\x1e', "");
                let payload = format!("4{text}").into();
                (Packet { is_binary: false, payload }, Inbound::Message(text.into()))
            }
            Self::Binary(data) => {
                let data = Bytes::copy_from_slice(data);
                (Packet { is_binary: true, payload: data.clone() }, Inbound::Binary(data))
            }
        }
    }
}

fuzz_target!(|input: Input| {
    const MAX_PACKETS: usize = 100;
    if let Ok(text) = std::str::from_utf8(&input.body) {
        let _ = payload::packet(V4, text);
    }
    let body = Bytes::from(input.body);
    if let Ok(packets) = payload::decode(V4, input.is_binary, body, MAX_PACKETS) {
        assert!(!packets.is_empty() && packets.len() <= MAX_PACKETS && !input.is_binary);
    }

    let (queue, expected): (Vec<_>, Vec<_>) = input.queue.iter().map(Message::queued).unzip();
    let (_, body) = payload::encode(V4, true, &queue);
    assert!(body.len() <= queue.iter().map(|packet| payload::encoded_len(V4, true, packet)).sum());
    if !queue.is_empty() {
        assert_eq!(payload::decode(V4, false, body, queue.len()), Ok(expected));
    }
});
