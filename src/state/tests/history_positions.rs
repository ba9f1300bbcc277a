//! Where many rooms stand, read at one time.

use super::{history::Node, *};
use crate::cluster::BusError;

#[tokio::test]
async fn a_room_that_the_engine_refuses_fails_no_other() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 1 << 20).await;
    node.shards.all()[0].query::<()>(redis::cmd("SET").arg("p:m:{long:2}").arg("1")).await.unwrap();
    let rooms = ["long:1", "long:2", "long:3"].map(room);
    for (name, position) in node.history.positions(&rooms).await {
        assert_eq!(
            position.map(|position| position.number),
            if name == rooms[1] { Err(BusError::Refused) } else { Ok(0) }
        );
    }
}

#[tokio::test]
async fn rooms_that_were_not_asked_for_yet_do_not_wait_for_an_engine_that_does_not_answer() {
    let server = RedisServer::start();
    let node = Node::over(server.connect_with(Duration::from_millis(200)).await, HOUR, 1 << 20);
    let rooms: Vec<_> = (0..2_000).map(|number| room(&format!("long:{number}"))).collect();
    server.pause();
    let mut positions = node.history.positions(&rooms).await;
    assert_eq!(positions.len(), rooms.len());
    positions.retain(|(_, position)| *position == Err(BusError::Unanswered));
    assert_eq!(positions.len(), 2 * 128, "two round trips are under way at most");
}
