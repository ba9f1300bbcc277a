use super::*;
use crate::message::{MessageId, Payload};
use crate::state::{EmitCall, RetainedFull, RetainedPut, RetainedValue, SharedRetained, SharedValue};

/// Puts a value; `null` takes it away. Returns how many received it, and the number of the change.
async fn put(
    (shards, retained): (&Shards, &SharedRetained),
    (in_room, name): (&str, &str),
    json: &str,
    ttl: Option<Duration>,
) -> Result<(u64, u64), RetainedFull> {
    let (caller, room, event) = (caller(), room(in_room), event(name));
    let payload = if json == "null" { Payload::None } else { Payload::json(json).unwrap() };
    let put = RetainedPut { caller: &caller, payload: &payload, except_users: &[], ttl };
    let channel = format!("channel of {in_room}");
    let call =
        EmitCall { retained: Some(put), channel: &channel, start: b"head", rest: b"tail", ..call(&room, &event) };
    let number: i64 = shards.of(&room).run(&retained.put_command(&call)).await.unwrap();
    let receivers = u64::try_from(number).map_err(|_| SharedRetained::rejected(number))?;
    Ok((receivers, retained.of_room(&room).await.unwrap().0))
}

fn value(json: &str) -> RetainedValue {
    RetainedValue { payload: Payload::json(json).unwrap(), except_users: Vec::new(), expires_at: None }
}

#[tokio::test]
async fn the_last_value_of_each_event_and_room_is_seen_at_another_node_with_the_number_of_the_last_change() {
    let server = RedisServer::start_shards(2);
    let (shards, other) = (server.connect().await, server.connect().await);
    let (a, b) = (SharedRetained::new(shards.clone(), 9, 1_000), SharedRetained::new(other, 9, 1_000));
    let mut changes = Vec::new();
    for (in_room, name, json) in [("a", "x", "1"), ("a", "x", "2"), ("a", "b", "3"), ("c", "x", "4")] {
        let (receivers, number) = put((&shards, &a), (in_room, name), json, None).await.unwrap();
        assert!(receivers == 0 && number > 0);
        changes.push(number);
    }
    assert!(changes[..3].is_sorted_by(|a, b| a < b), "{changes:?}");
    assert_eq!(b.get(&room("a"), "x").await, Ok(Some(value("2"))));
    assert_eq!(b.get(&room("none"), "x").await, Ok(None));
    let shared = |name, json, change| SharedValue { event: event(name), value: value(json), change };
    let values = vec![shared("b", "3", changes[2]), shared("x", "2", changes[1])];
    assert_eq!(b.of_room(&room("a")).await, Ok((changes[2], values)));
    assert_eq!(b.of_room(&room("none")).await, Ok((0, Vec::new())));
    assert_eq!(b.held_by("test").await, Ok(3));
}

#[tokio::test]
async fn bytes_and_excepted_users_are_kept_as_they_were() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let retained = SharedRetained::new(shards.clone(), 9, 1_000);
    let (caller, room, event) = (caller(), room("a"), event("x"));
    let payload = Payload::Binary(vec![0, 255, b'\n', b'\r'].into());
    let except_users = [user("1"), user("2")];
    let put = RetainedPut { caller: &caller, payload: &payload, except_users: &except_users, ttl: Some(HOUR) };
    let call = EmitCall { retained: Some(put), ..call(&room, &event) };
    shards.of(&room).run::<i64>(&retained.put_command(&call)).await.unwrap();
    let kept = retained.get(&room, "x").await.unwrap().unwrap();
    assert_eq!((kept.payload, kept.except_users), (payload, except_users.to_vec()));
    assert!(kept.expires_at.is_some());
}

#[tokio::test]
async fn a_change_is_published_with_its_number_also_when_it_takes_a_value_away_that_is_there() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let retained = SharedRetained::new(shards.clone(), 9, 1_000);
    let mut subscriber = server.subscribe("channel of a").await;
    let mut last = 0;
    for (json, is_change) in [("1", true), ("2", true), ("null", true), ("null", false), ("3", true)] {
        let (receivers, number) = put((&shards, &retained), ("a", "x"), json, None).await.unwrap();
        assert!(receivers == 1 && (number > last) == is_change, "{number} after {last}");
        last = number;
        let frame = [&b"head"[..], &(if is_change { number } else { 0 }).to_be_bytes(), &[0; 16], b"tail"].concat();
        assert_eq!(subscriber.recv().await, Some(frame));
        let (seen, values) = retained.of_room(&room("a")).await.unwrap();
        assert_eq!((seen, values.len()), (number, usize::from(json != "null")));
    }
}

#[tokio::test]
async fn nothing_is_kept_of_a_value_that_was_taken_away() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let retained = SharedRetained::new(shards.clone(), 9, 1_000);
    let node = (&shards, &retained);
    put(node, ("a", "stays"), "1", None).await.unwrap();
    for number in 0..20 {
        let name = number.to_string();
        put(node, ("a", &name), "1", None).await.unwrap();
        put(node, ("a", &name), "null", None).await.unwrap();
    }
    let mut fields: Vec<String> = shards.all()[0].query(redis::cmd("HKEYS").arg("p:v:{a}")).await.unwrap();
    fields.sort();
    assert_eq!(fields, ["b", "hstays", "n", "vstays"]);
}

#[tokio::test]
async fn values_are_bounded_replaced_and_taken_away() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let retained = SharedRetained::new(shards.clone(), 1, 1_000);
    let node = (&shards, &retained);
    put(node, ("a", "x"), "1", None).await.unwrap();
    put(node, ("a", "x"), "2", None).await.expect("it takes the place of the other");
    assert_eq!(put(node, ("b", "x"), "1", None).await, Err(RetainedFull::Entries));
    let one = value("1").payload;
    let can = async |room: &RoomName| retained.can_retain(&[room], &event("x"), &one, &[]).await.unwrap();
    assert_eq!(can(&room("b")).await, Err(RetainedFull::Entries));
    assert_eq!(can(&room("a")).await, Ok(()));
    put(node, ("a", "x"), "null", None).await.unwrap();
    assert_eq!(retained.held_by("test").await, Ok(0));
    assert_eq!(keys(&shards).await, ["p:v:{a}"]);
    let left: i64 = shards.all()[0].query(redis::cmd("PTTL").arg("p:v:{a}")).await.unwrap();
    assert!(left > 0, "the number of the last change is kept for some time");
    put(node, ("b", "x"), "1", None).await.unwrap();
}

#[tokio::test]
async fn the_bytes_of_a_room_are_bounded_and_given_back() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let retained = SharedRetained::new(shards.clone(), 9, 200);
    let (node, long) = ((&shards, &retained), format!("\"{}\"", "a".repeat(100)));
    put(node, ("a", "x"), &long, None).await.unwrap();
    assert_eq!(put(node, ("a", "y"), &long, None).await, Err(RetainedFull::RoomBytes));
    let payload = Payload::json(&long).unwrap();
    let can = retained.can_retain(&[&room("b"), &room("a")], &event("y"), &payload, &[]).await.unwrap();
    assert_eq!(can, Err(RetainedFull::RoomBytes));
    put(node, ("b", "y"), &long, None).await.expect("another room has its own bytes");
    put(node, ("a", "x"), "1", None).await.unwrap();
    put(node, ("a", "x"), &long, None).await.expect("it takes the place of the other");
    put(node, ("a", "x"), "null", None).await.unwrap();
    put(node, ("a", "y"), &long, None).await.unwrap();
}

#[tokio::test]
async fn room_for_several_is_counted_together() {
    let server = RedisServer::start();
    let retained = SharedRetained::new(server.connect().await, 2, 1_000);
    let (a, b, c, one) = (room("a"), room("b"), room("c"), value("1").payload);
    let can = async |rooms: &[&RoomName]| retained.can_retain(rooms, &event("x"), &one, &[]).await.unwrap();
    assert_eq!(can(&[&a, &b]).await, Ok(()));
    assert_eq!(can(&[&a, &b, &c]).await, Err(RetainedFull::Entries));
}

#[tokio::test]
async fn a_value_ends_with_its_time_and_is_swept_away() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let retained = SharedRetained::new(shards.clone(), 2, 1_000);
    let node = (&shards, &retained);
    put(node, ("a", "x"), "1", Some(SOON)).await.unwrap();
    put(node, ("a", "y"), "2", Some(HOUR)).await.unwrap();
    eventually(async || retained.get(&room("a"), "x").await.unwrap().is_none()).await;
    let names = async || retained.of_room(&room("a")).await.unwrap().1.into_iter().map(|value| value.event);
    assert_eq!(names().await.collect::<Vec<_>>(), [event("y")]);
    put(node, ("b", "x"), "3", Some(SOON)).await.expect("what has ended makes room");
    eventually(async || retained.get(&room("b"), "x").await.unwrap().is_none()).await;
    assert!(!retained.sweep().await.unwrap());
    assert_eq!(retained.held_by("test").await, Ok(1));
    let bytes: usize = shards.all()[0].query(redis::cmd("HGET").arg("p:v:{b}").arg("b")).await.unwrap();
    assert_eq!(bytes, 0);
}

#[tokio::test]
async fn a_value_that_is_put_again_with_its_message_id_is_no_change_until_another_has_taken_its_place() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let retained = SharedRetained::new(shards.clone(), 9, 1_000);
    let ids = [(); 3].map(|()| MessageId::at(jiff::Timestamp::UNIX_EPOCH));
    let (caller, room, event) = (caller(), room("a"), event("x"));
    let mut frames = server.subscribe("c").await;
    let mut put = async |payload: Payload, once: Option<MessageId>| {
        let put = RetainedPut { caller: &caller, payload: &payload, except_users: &[], ttl: None };
        let call = EmitCall { retained: Some(put), once, ..call(&room, &event) };
        shards.of(&room).run::<i64>(&retained.put_command(&call)).await.unwrap();
        let frame = frames.recv().await.unwrap();
        u64::from_be_bytes(frame[..8].try_into().unwrap())
    };
    let json = |json| Payload::json(json).unwrap();
    let first = put(json("1"), Some(ids[0])).await;
    assert_eq!(put(json("1"), Some(ids[0])).await, first);
    let second = put(json("2"), None).await;
    let anew = put(json("1"), Some(ids[0])).await;
    assert!(first < second && second < anew);
    let third = put(json("3"), Some(ids[1])).await;
    assert!(anew < third);
    let taken_away = put(Payload::None, Some(ids[2])).await;
    assert!(third < taken_away);
    assert_eq!(put(Payload::None, Some(ids[2])).await, 0, "nothing is there that it could take away");
    assert!(put(json("3"), Some(ids[1])).await > taken_away);
    assert!(put(Payload::None, Some(ids[2])).await > taken_away, "that comes after the value");
    assert_eq!(retained.held_by("test").await, Ok(0));
}
