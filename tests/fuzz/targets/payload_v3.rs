//! The polling payloads of Engine.IO 3, text and binary: decoding never panics, and what is encoded is decoded back.
#![no_main]

#[path = "../../../src/engineio/payload/mod.rs"]
#[allow(dead_code)]
mod payload;

use arbitrary::Arbitrary;
use bytes::Bytes;
use engineioxide_core::ProtocolVersion::V3;
use libfuzzer_sys::fuzz_target;
use payload::{Inbound, Packet};

#[derive(Arbitrary, Debug)]
struct Input {
    body: Vec<u8>,
    is_binary: bool,
    supports_binary: bool,
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
                let payload = format!("4{text}").into();
                (Packet { is_binary: false, payload }, Inbound::Message(text.clone().into()))
            }
            Self::Binary(data) => {
                let payload = [&[4][..], data].concat().into();
                (Packet { is_binary: true, payload }, Inbound::Binary(Bytes::copy_from_slice(data)))
            }
        }
    }
}

fuzz_target!(|input: Input| {
    const MAX_PACKETS: usize = 100;
    if let Ok(text) = std::str::from_utf8(&input.body) {
        let _ = payload::packet(V3, text);
    }
    let body = Bytes::from(input.body);
    let _ = payload::binary_packet(V3, body.clone());
    if let Ok(packets) = payload::decode(V3, input.is_binary, body, MAX_PACKETS) {
        assert!(packets.len() <= MAX_PACKETS);
    }

    let (queue, expected): (Vec<_>, Vec<_>) = input.queue.iter().map(Message::queued).unzip();
    let supports_binary = input.supports_binary;
    let (content_type, body) = payload::encode(V3, supports_binary, &queue);
    if !queue.is_empty() {
        assert!(body.len() <= queue.iter().map(|packet| payload::encoded_len(V3, supports_binary, packet)).sum());
        let is_binary = content_type == "application/octet-stream";
        assert_eq!(payload::decode(V3, is_binary, body, queue.len()), Ok(expected));
    }
});
