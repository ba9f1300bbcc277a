use super::*;
use crate::state::{PutError, SharedUserRooms, TooMany};

async fn names(user_rooms: &SharedUserRooms, id: &str) -> Vec<RoomName> {
    let mut names: Vec<_> = user_rooms.rooms(&user(id)).await.unwrap().into_iter().map(|(room, _)| room).collect();
    names.sort();
    names
}

async fn take(shards: &Shards, user_rooms: &SharedUserRooms, id: &str, from: &str) {
    let call = user_rooms.take_command(&user(id), &room(from), ("channel", b"head", b"tail"));
    let receivers: Vec<u64> = shards.of(&RoomName::of_user(&user(id))).run(&call).await.unwrap();
    assert_eq!(receivers, [0]);
}

#[tokio::test]
async fn another_node_sees_what_was_put_together_and_what_is_left_of_its_time() {
    let server = RedisServer::start();
    let (a, shards) = (server.connect().await, server.connect().await);
    let (a, b) = (SharedUserRooms::new(a, "j", 9), SharedUserRooms::new(shards.clone(), "j", 9));
    a.put(&caller(), &user("1"), &room("a"), HOUR).await.unwrap();
    a.put(&caller(), &user("1"), &room("b"), 2 * HOUR).await.unwrap();
    assert_eq!(names(&b, "1").await, [room("a"), room("b")]);
    assert_eq!(names(&b, "2").await, []);
    assert!(b.has(&user("1"), &room("a")).await.unwrap() && !b.has(&user("1"), &room("c")).await.unwrap());
    let left = b.rooms(&user("1")).await.unwrap().into_iter().find(|(name, _)| *name == room("b")).unwrap().1;
    assert!(left > HOUR && left <= 2 * HOUR, "{left:?}");
    take(&shards, &b, "1", "a").await;
    take(&shards, &b, "1", "a").await;
    assert_eq!(names(&a, "1").await, [room("b")]);
}

#[tokio::test]
async fn memberships_and_grants_are_apart() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let (memberships, grants) = (SharedUserRooms::new(shards.clone(), "j", 1), SharedUserRooms::new(shards, "g", 1));
    memberships.put(&caller(), &user("1"), &room("a"), HOUR).await.unwrap();
    assert!(!grants.has(&user("1"), &room("a")).await.unwrap());
    grants.put(&caller(), &user("1"), &room("b"), HOUR).await.expect("it has a limit of its own");
}

#[tokio::test]
async fn each_ends_with_its_time_and_leaves_nothing_behind() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let user_rooms = SharedUserRooms::new(shards.clone(), "j", 2);
    user_rooms.put(&caller(), &user("1"), &room("a"), SOON).await.unwrap();
    user_rooms.put(&caller(), &user("1"), &room("b"), HOUR).await.unwrap();
    eventually(async || !user_rooms.has(&user("1"), &room("a")).await.unwrap()).await;
    assert_eq!(names(&user_rooms, "1").await, [room("b")]);
    user_rooms.put(&caller(), &user("2"), &room("a"), SOON).await.expect("what has ended makes room");
    assert_eq!(user_rooms.held_by("test").await.unwrap(), 2);
    take(&shards, &user_rooms, "1", "b").await;
    eventually(async || !user_rooms.has(&user("2"), &room("a")).await.unwrap()).await;
    assert!(!user_rooms.sweep().await.unwrap());
    assert_eq!(user_rooms.held_by("test").await.unwrap(), 0);
    assert_eq!(keys(&shards).await, [""; 0]);
}

#[tokio::test]
async fn they_are_bounded_and_one_that_is_put_again_takes_no_more() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let user_rooms = SharedUserRooms::new(shards.clone(), "j", 2);
    user_rooms.put(&caller(), &user("1"), &room("a"), HOUR).await.unwrap();
    user_rooms.put(&caller(), &user("1"), &room("b"), 2 * HOUR).await.unwrap();
    user_rooms.put(&caller(), &user("1"), &room("a"), HOUR).await.expect("it is kept already");
    let refused = user_rooms.put(&caller(), &user("2"), &room("a"), HOUR).await;
    let Err(PutError::TooMany(TooMany { retry_after })) = refused else { panic!("{refused:?}") };
    assert!(retry_after > HOUR / 2 && retry_after <= HOUR, "{retry_after:?}");
    take(&shards, &user_rooms, "1", "a").await;
    user_rooms.put(&caller(), &user("2"), &room("a"), SOON).await.unwrap();
    let refused = user_rooms.put(&caller(), &user("3"), &room("a"), HOUR).await;
    if let Err(error) = refused {
        let retry_after = Duration::from_secs(1);
        assert_eq!(error, PutError::TooMany(TooMany { retry_after }), "not before it is swept");
    }
}

#[tokio::test]
async fn one_user_has_a_thousand_rooms_at_most() {
    let server = RedisServer::start();
    let user_rooms = SharedUserRooms::new(server.connect().await, "j", 10_000);
    let put = |number: usize| {
        let user_rooms = user_rooms.clone();
        async move { user_rooms.put(&caller(), &user("1"), &room(&number.to_string()), HOUR).await }
    };
    let put_all = futures_util::future::join_all((0..1_000).map(put)).await;
    assert!(put_all.iter().all(Result::is_ok));
    assert!(matches!(put(1_000).await, Err(PutError::TooMany(_))));
    user_rooms.put(&caller(), &user("2"), &room("a"), HOUR).await.expect("another user");
}

#[tokio::test]
async fn an_api_key_holds_what_it_has_put_last() {
    let server = RedisServer::start();
    let (user_rooms, other) = (SharedUserRooms::new(server.connect().await, "g", 9), Arc::from("other key"));
    user_rooms.put(&caller(), &user("1"), &room("a"), HOUR).await.unwrap();
    user_rooms.put(&caller(), &user("1"), &room("b"), SOON).await.unwrap();
    let is_over = async || !user_rooms.has(&user("1"), &room("b")).await.unwrap();
    eventually(is_over).await;
    user_rooms.put(&other, &user("1"), &room("b"), 2 * HOUR).await.unwrap();
    user_rooms.sweep().await.unwrap();
    assert!(user_rooms.has(&user("1"), &room("b")).await.unwrap(), "the one that ended was the other's");
    assert_eq!((user_rooms.held_by("test").await, user_rooms.held_by("other key").await), (Ok(1), Ok(1)));
}

#[tokio::test]
async fn the_rooms_of_many_users_are_read_from_all_shards_in_their_order() {
    let server = RedisServer::start_shards(3);
    let user_rooms = SharedUserRooms::new(server.connect().await, "j", 10_000);
    let users: Vec<_> = (0..400).map(|number| user(&number.to_string())).collect();
    for user in users.iter().step_by(2) {
        user_rooms.put(&caller(), user, &room(user.as_str()), HOUR).await.unwrap();
    }
    let rooms = user_rooms.rooms_of_many(&users).await.unwrap();
    assert_eq!(rooms.len(), users.len());
    for (index, (user, rooms)) in users.iter().zip(rooms).enumerate() {
        let names: Vec<_> = rooms.into_iter().map(|(room, _)| room).collect();
        let expected = if index % 2 == 0 { vec![room(user.as_str())] } else { Vec::new() };
        assert_eq!(names, expected);
    }
    assert_eq!(user_rooms.held_by("test").await, Ok(200));
}
