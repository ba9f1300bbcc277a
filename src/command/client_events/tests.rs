use std::{pin::pin, sync::Arc, time::Duration};

use serde_json::json;

use super::*;
use crate::auth::{KeyConfig, Tokens, mint};
use crate::clock::Clock;
use crate::command::Deps;
use crate::config::Config;
use crate::delivery::{self, Delivery};
use crate::hub::fake::{Behaviour, FakeConnection};
use crate::lifecycle::Lifecycle;
use crate::message::OfNodes;

fn faults(rules: serde_json::Value, on_connect: &[&str]) -> Vec<String> {
    let configs: Vec<ClientEventConfig> = serde_json::from_value(rules).expect("the rules have the right types");
    let on_connect: Vec<_> = on_connect.iter().map(ToString::to_string).collect();
    let faults = Rules::new(&configs, &on_connect).err().unwrap_or_default();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn everything_that_is_wrong_with_the_rules_is_told_at_once() {
    let rules = json!([
        { "event": "bugle:x", "join": "a:{arg}" },
        { "event": "nothing" },
        { "event": "two", "join": "a:{arg}", "leave": "a:{arg}" },
        { "event": "joined", "join": "a:{arg}", "rooms": "joined" },
        { "event": "own", "join": "user:{arg}" },
        { "event": "bare", "leave": "{arg}" },
        { "event": "nobody", "relay": { "payload": { "a": ["{arg"] } } },
        { "event": "both", "relay": { "user": "{arg}", "room": "a", "event": "connect" } },
        { "event": "useless", "reply": { "event": "x", "payload": "{nope}" }, "rooms": "any", "roles": [" "] },
        { "event": "two", "reply": { "event": "x" } },
    ]);
    let unknown = "use `{user}`, `{role}`, `{claim.NAME}`, `{arg}` or `{arg.NAME}`";
    let expected = [
        "client_events[0].event: begins with `bugle:`, which is for Bugle's own events: choose another name",
        "client_events[1].event: has no consequence: give join, leave, relay or reply",
        "client_events[2].leave: stands beside another: one of join, leave and relay is possible",
        "client_events[3].rooms: is joined, but a join is into a room that the connection is not in: granted or any",
        "client_events[4].join: makes rooms that Bugle keeps for itself: do not begin with `user:` or `role:`, nor with \
         `everyone` alone",
        "client_events[5].leave: begins with a placeholder: begin with a literal such as `org:`",
        "client_events[6].relay: needs a user or a room, one of the two",
        "client_events[6].relay.payload: has a `{` that is not closed, at byte 0",
        "client_events[7].relay: needs a user or a room, one of the two",
        "client_events[7].relay.event: is one of Socket.IO's own events: choose another name",
        "client_events[8].roles[0]: is empty",
        "client_events[8].rooms: says which rooms are allowed, but there is no join and no relay to a room",
        &format!("client_events[8].reply.payload: has an unknown placeholder at byte 0: {unknown}"),
        "client_events[9].event: is that of client_events[2]: one rule for each event",
    ];
    assert_eq!(faults(rules, &[]), expected);
}

#[test]
fn no_event_joins_or_leaves_a_room_that_tokens_give() {
    let problem = |key: &str| {
        vec![format!(
            "client_events[0].{key}: makes a room that auth.rooms makes, too: who is in those, tokens alone decide"
        )]
    };
    let join = |template: &str| json!([{ "event": "e", "join": template }]);
    for (template, on_connect) in [
        ("org:{arg}", "org:{claim.org}"),
        ("lobby", "lobby"),
        ("market{arg}", "marketplace"),
        ("org:7:{arg}", "org:{claim.org}:news"),
        ("o{arg}:x", "org:{user}"),
    ] {
        assert_eq!(faults(join(template), &[on_connect]), problem("join"), "{template} {on_connect}");
        let leave = json!([{ "event": "e", "leave": template }]);
        assert_eq!(faults(leave, &[on_connect]), problem("leave"), "{template} {on_connect}");
    }
    for (template, on_connect) in [
        ("listing:{arg}", "org:{claim.org}"),
        ("marketplace:{arg}", "marketplace"),
        ("org:{arg}:chat", "org:{claim.org}:news"),
        ("market{arg}", "market"),
        ("org-{arg}", "org:{user}"),
    ] {
        assert_eq!(faults(join(template), &[on_connect]), [""; 0], "{template} {on_connect}");
    }
}

#[test]
fn the_claims_that_rules_name_are_known() {
    let configs: Vec<ClientEventConfig> = serde_json::from_value(json!([
        { "event": "a", "join": "a:{claim.org.id}:{arg}" },
        { "event": "b", "reply": { "event": "x", "payload": { "n": ["{claim.name}"] } } },
    ]))
    .unwrap();
    let mut claims = Rules::new(&configs, &[]).ok().unwrap().claims();
    claims.sort();
    assert_eq!(claims, ["name", "org.id"]);
}

/// A device that accepts every frame.
struct Silent;

impl Behaviour for Silent {}

#[tokio::test]
async fn a_right_that_is_taken_back_during_a_join_is_no_reason_to_stay() {
    let (mut config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
    let secret = Some("a secret for the tests of 36 bytes..".into());
    let key = KeyConfig { kid: None, algorithm: "HS256".into(), secret, public_key_file: None };
    let claims = json!({ "sub": "42", "exp": 4_102_444_800_u64 });
    let token = mint(&key, claims.as_object().unwrap()).unwrap();
    config.auth.jwt.keys = vec![key];
    let rules = json!([{ "event": "subscribe", "join": "listing:{arg}", "rooms": "granted" }]);
    let rules: Vec<ClientEventConfig> = serde_json::from_value(rules).unwrap();
    let delivery = Delivery::new(delivery::tests::deps(&config, &lifecycle));
    let commands = Commands::new(Deps {
        delivery: delivery.clone(),
        store: None,
        messages: None,
        tokens: Arc::new(Tokens::new(&config.auth, Vec::new(), Clock::system()).unwrap()),
        rules: Rules::new(&rules, &[]).unwrap(),
        limits: &config.limits,
        envelopes: &[],
        lifecycle: lifecycle.clone(),
    });
    let identity = commands.identify_device(Some(&token)).unwrap();
    let admission = commands.connect_device(&identity, Arc::new(FakeConnection::new(Silent)), None).await.unwrap();
    assert!(admission.go_live(None));

    let (caller, room, ttl) = (Arc::from("test"), RoomName::new("listing:7").unwrap(), Duration::from_mins(1));
    assert_eq!(delivery.join_user(&caller, &identity.user, &room, ttl).await, Ok(OfNodes::of_one(1)));
    delivery.allow_user(&caller, &identity.user, &room, ttl).await.unwrap();
    let argument = serde_json::value::to_raw_value("7").unwrap();
    let mut joining = pin!(commands.client_event(&admission, &identity, "subscribe", Some(&argument), None));
    let forbidding = async {
        assert!(futures_util::poll!(joining.as_mut()).is_pending(), "the room is locked");
        delivery.forbid_user(&identity.user, &room).await.unwrap();
    };
    delivery::tests::while_locked(&delivery, &room, forbidding).await;
    assert!(matches!(joining.await, Err(EventRefused::Forbidden(_))));
    assert!(admission.is_in(&room), "JoinRoom keeps it there");
    delivery.leave_user(&identity.user, &room).await.unwrap();
    assert!(!admission.is_in(&room));
    lifecycle.stop_hard();
}
