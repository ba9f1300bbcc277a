use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;

use super::*;

const UNLIMITED: StrangerLimits = StrangerLimits {
    connections: usize::MAX,
    connections_per_address: usize::MAX,
    body_bytes: usize::MAX,
    body_bytes_per_address: usize::MAX,
};

/// A registry whose connections note their names when they are aborted.
struct Lab {
    strangers: Strangers,
    aborted: Arc<Mutex<Vec<String>>>,
}

impl Lab {
    fn new(limits: StrangerLimits) -> Self {
        Self { strangers: Strangers::new(limits), aborted: Arc::default() }
    }

    fn enter(&self, name: &str, address: Option<&str>) -> Stranger {
        let (aborted, name) = (Arc::clone(&self.aborted), name.to_owned());
        let address = address.map(|address| address.parse().unwrap());
        self.strangers.enter(address, move || aborted.lock().unwrap().push(name.clone()))
    }

    fn aborted(&self) -> Vec<String> {
        std::mem::take(&mut self.aborted.lock().unwrap())
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_oldest_connection_is_aborted_when_there_are_too_many() {
    let lab = Lab::new(StrangerLimits { connections: 2, ..UNLIMITED });
    let _a = lab.enter("a", Some("1.1.1.1"));
    let _b = lab.enter("b", None);
    assert!(lab.aborted().is_empty());
    let _c = lab.enter("c", Some("2.2.2.2"));
    assert_eq!(lab.aborted(), ["a"]);
    assert_eq!(lab.strangers.len(), 2);
}

#[test]
fn the_oldest_connection_of_an_address_is_aborted_when_it_has_too_many() {
    let lab = Lab::new(StrangerLimits { connections_per_address: 2, ..UNLIMITED });
    let _other = lab.enter("other", Some("2.2.2.2"));
    let _a = lab.enter("a", Some("1.1.1.1"));
    let _b = lab.enter("b", Some("::ffff:1.1.1.1"));
    let _c = lab.enter("c", Some("1.1.1.1"));
    assert_eq!(lab.aborted(), ["a"]);
}

#[test]
fn an_ipv6_network_counts_as_one_address() {
    let lab = Lab::new(StrangerLimits { connections_per_address: 1, ..UNLIMITED });
    let _a = lab.enter("a", Some("2001:db8::1"));
    let _b = lab.enter("b", Some("2001:db8:0:1::1"));
    let _c = lab.enter("c", Some("2001:db8::ffff:1"));
    assert_eq!(lab.aborted(), ["a"]);
}

#[test]
fn connections_without_an_address_have_no_limit_per_address() {
    let lab = Lab::new(StrangerLimits { connections_per_address: 1, ..UNLIMITED });
    let _strangers = ["a", "b", "c"].map(|name| lab.enter(name, None));
    assert!(lab.aborted().is_empty());
}

#[test]
fn a_connection_counts_for_the_address_that_it_was_located_at() {
    let lab = Lab::new(StrangerLimits { connections_per_address: 1, ..UNLIMITED });
    let a = lab.enter("a", None);
    let b = lab.enter("b", None);
    b.locate(address("1.1.1.1"));
    b.locate(address("1.1.1.1"));
    assert!(lab.aborted().is_empty());
    a.locate(address("1.1.1.1"));
    assert_eq!(lab.aborted(), ["b"], "its request is older");
    a.locate(address("2.2.2.2"));
    let _c = lab.enter("c", Some("1.1.1.1"));
    assert!(lab.aborted().is_empty());
}

#[test]
fn a_known_or_dropped_connection_no_longer_counts() {
    let lab = Lab::new(StrangerLimits { connections: 1, body_bytes: 10, ..UNLIMITED });
    let a = lab.enter("a", None);
    a.known();
    a.add_body_bytes(100);
    drop(lab.enter("b", None));
    let _c = lab.enter("c", None);
    drop(a);
    assert!(lab.aborted().is_empty());
    assert_eq!((lab.strangers.len(), lab.strangers.body_bytes()), (1, 0));
}

#[test]
fn a_proxys_connection_is_a_strangers_again_with_its_next_request() {
    let lab = Lab::new(StrangerLimits { body_bytes: 100, ..UNLIMITED });
    let own = lab.enter("own", Some("1.1.1.1"));
    let proxys = lab.enter("proxys", None);
    for stranger in [&own, &proxys] {
        stranger.locate(address("1.1.1.1"));
        stranger.known();
    }
    assert!(lab.strangers.is_empty());
    own.locate(address("1.1.1.1"));
    assert!(lab.strangers.is_empty());
    proxys.locate(address("2.2.2.2"));
    let proxys = Arc::new(proxys);
    let earlier = proxys.visit();
    proxys.locate(address("3.3.3.3"));
    earlier.known();
    assert_eq!(lab.strangers.len(), 1, "what becomes of the client before does not matter");
    proxys.add_body_bytes(101);
    assert_eq!(lab.aborted(), ["proxys"]);
}

#[test]
fn the_oldest_connection_that_holds_bytes_is_aborted_when_there_are_too_many() {
    let lab = Lab::new(StrangerLimits { body_bytes: 100, ..UNLIMITED });
    let _empty = lab.enter("empty", None);
    let a = lab.enter("a", None);
    let b = lab.enter("b", None);
    let c = lab.enter("c", None);
    a.add_body_bytes(60);
    b.add_body_bytes(40);
    a.release_body_bytes(60);
    c.add_body_bytes(60);
    assert!(lab.aborted().is_empty());
    c.add_body_bytes(1);
    assert_eq!(lab.aborted(), ["b"]);
    assert_eq!(lab.strangers.body_bytes(), 61);
    b.release_body_bytes(40);
    assert_eq!(lab.strangers.body_bytes(), 61);
}

#[test]
fn an_address_with_too_many_bytes_ends_no_connection_of_another() {
    let lab = Lab::new(StrangerLimits { body_bytes: 100, body_bytes_per_address: 50, ..UNLIMITED });
    let other = lab.enter("other", Some("2.2.2.2"));
    let a = lab.enter("a", Some("1.1.1.1"));
    let b = lab.enter("b", Some("1.1.1.1"));
    other.add_body_bytes(50);
    a.add_body_bytes(30);
    b.add_body_bytes(30);
    assert_eq!(lab.aborted(), ["a"]);
    assert_eq!(lab.strangers.body_bytes(), 80);
}

#[test]
fn one_body_that_is_too_large_ends_its_own_connection() {
    let lab = Lab::new(StrangerLimits { body_bytes: 100, ..UNLIMITED });
    let a = lab.enter("a", None);
    a.add_body_bytes(usize::MAX);
    assert_eq!(lab.aborted(), ["a"]);
    assert_eq!(lab.strangers.body_bytes(), 0);
}

#[test]
fn an_abort_may_drop_its_connection() {
    let strangers = Strangers::new(StrangerLimits { connections: 1, ..UNLIMITED });
    let own: Arc<Mutex<Option<Stranger>>> = Arc::default();
    let aborted = Arc::clone(&own);
    let first = strangers.enter(None, move || drop(aborted.lock().unwrap().take()));
    *own.lock().unwrap() = Some(first);
    let _second = strangers.enter(None, || {});
    assert!(own.lock().unwrap().is_none());
    assert_eq!(strangers.len(), 1);
}

#[test]
fn unknown_keys_of_the_configuration_are_refused() {
    use serde::de::{Deserialize, IntoDeserializer, value::MapDeserializer};
    type Read = Result<StrangerLimits, serde::de::value::Error>;
    let keys = ["connections", "connections_per_address", "body_bytes", "body_bytes_per_address"];
    let read = |keys: &[&'static str]| -> Read {
        let pairs = keys.iter().map(|key| (*key, 7_usize));
        StrangerLimits::deserialize(MapDeserializer::new(pairs).into_deserializer())
    };
    assert_eq!(read(&keys).unwrap().body_bytes, 7);
    assert!(read(&[&keys[..], &["bodies"]].concat()).is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Enter(Option<u8>),
    Keep(usize),
    Locate(usize, u8),
    Add(usize, usize),
    Release(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::option::of(0..3_u8).prop_map(Step::Enter),
        1 => any::<usize>().prop_map(Step::Keep),
        1 => (any::<usize>(), 0..3_u8).prop_map(|(which, address)| Step::Locate(which, address)),
        2 => (any::<usize>(), 0..40_usize).prop_map(|(which, bytes)| Step::Add(which, bytes)),
        1 => (any::<usize>(), 0..40_usize).prop_map(|(which, bytes)| Step::Release(which, bytes)),
    ]
}

proptest! {
    #[test]
    fn limits_are_kept_whatever_happens(steps in prop::collection::vec(step(), 0..200)) {
        let limits = StrangerLimits { connections: 6, connections_per_address: 3, body_bytes: 100, body_bytes_per_address: 50 };
        let lab = Lab::new(limits);
        let mut strangers: Vec<Stranger> = Vec::new();
        for step in steps {
            let count = strangers.len().max(1);
            let v4 = |address: u8| IpAddr::from([1, 1, 1, address]);
            match step {
                Step::Enter(address) => strangers.push(lab.enter("", address.map(|a| v4(a).to_string()).as_deref())),
                Step::Keep(which) => strangers.truncate(which % count),
                Step::Locate(which, address) => strangers.get(which % count).into_iter().for_each(|s| s.locate(v4(address))),
                Step::Add(which, bytes) => strangers.get(which % count).into_iter().for_each(|s| s.add_body_bytes(bytes)),
                Step::Release(which, bytes) => {
                    strangers.get(which % count).into_iter().for_each(|s| s.release_body_bytes(bytes));
                }
            }
            let (len, bytes) = (lab.strangers.len(), lab.strangers.body_bytes());
            prop_assert!(len <= 6 && bytes <= 100, "{len} connections, {bytes} bytes");
        }
        strangers.clear();
        prop_assert_eq!((lab.strangers.len(), lab.strangers.body_bytes()), (0, 0));
    }
}
