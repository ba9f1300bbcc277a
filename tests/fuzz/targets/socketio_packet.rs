//! The inspection of Socket.IO packets: the rewritten packet has the same array, with a name that the library reads.
#![no_main]

#[path = "../../../src/socketio/packet.rs"]
#[allow(dead_code)]
mod packet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use packet::{Kind, Rewrite, inspect};
use serde_json::value::RawValue;

#[derive(Arbitrary, Debug)]
enum Input {
    Packet(String),
    /// An event whose name is this inside of its quotes.
    Event(String),
}

/// The elements of an event's array as they are written, unless it is no valid JSON.
fn elements(packet: &str) -> Option<Vec<&RawValue>> {
    let array = packet.find('[')?;
    serde_json::from_str(&packet[array..]).ok()
}

fn name<'a>(elements: &[&'a RawValue]) -> Option<&'a str> {
    serde_json::from_str(elements.first()?.get()).ok()
}

fn assert_same(text: &str, rewrite: &Rewrite) {
    let Some(sent) = elements(text) else { return };
    let rest = |elements: &[&RawValue]| elements.iter().skip(1).map(|raw| raw.get().to_owned()).collect::<Vec<_>>();
    match rewrite {
        Rewrite::Unneeded => assert!(name(&sent).is_some(), "the library cannot read the name"),
        Rewrite::Unescaped(rewritten) => {
            let elements = elements(rewritten).expect("the rewritten packet is valid JSON");
            let unescaped: String = serde_json::from_str(sent[0].get()).expect("the name is text");
            assert_eq!(name(&elements), Some(&*unescaped));
            assert_eq!(rest(&elements), rest(&sent));
        }
        Rewrite::Marked(rewritten) => {
            let elements = elements(rewritten).expect("the marked packet is valid JSON");
            assert_eq!(name(&elements), Some(""));
            assert_eq!(elements[1].get(), sent[0].get());
            assert_eq!(rest(&elements[1..]), rest(&sent));
        }
    }
}

fuzz_target!(|input: Input| {
    let text = match input {
        Input::Packet(text) => text,
        Input::Event(name) => format!("2[\"{name}\",{{\"a\":[1]}}]"),
    };
    let Ok(inspected) = inspect(&text) else { return };
    assert!(inspected.namespace.starts_with('/'));
    let is_event = matches!(inspected.kind, Kind::Event | Kind::BinaryEvent { .. });
    // A namespace with a bracket would be taken for the array.
    if is_event && !inspected.namespace.contains('[') {
        assert_same(&text, &inspected.rewrite);
    } else if !is_event {
        assert_eq!(inspected.rewrite, Rewrite::Unneeded);
    }
});
