//! An engine that cannot be reached when a device or a node comes.

use std::time::Duration;

use tokio::net::TcpListener;

use crate::harness::{
    Launch, ServerProcess, TestRedis, TestServer, answer, connections, deadline, eventually, new_database, raw_http,
    to_user,
};

#[tokio::test]
async fn a_device_that_comes_as_the_engine_goes_is_let_in_though_that_takes_longer_than_a_connect_may() {
    let redis = TestRedis::start(false);
    let server = TestServer::start_with(|config| {
        config.cluster.redis = vec![redis.url().into()];
        (config.cluster.lease, config.cluster.heartbeat) = (Duration::from_secs(1), Duration::from_millis(200));
        config.socketio.connect_timeout = Duration::from_millis(200);
    })
    .await;
    redis.kill_9();
    let mut device = server.connect("42").await;
    redis.restart();
    let backend = server.backend().await;
    let sent = async {
        loop {
            let sent = answer(backend.notify().emit_to_user(to_user("42", "again", "1"))).await;
            if sent.ok().and_then(|sent| sent.receipt).is_some_and(|receipt| receipt.enqueued == 1) {
                return;
            }
        }
    };
    Box::pin(deadline("the engine to be back", Box::pin(sent))).await;
    device.expect_event("again").await;
}

#[tokio::test]
async fn a_node_that_has_not_reached_its_engine_is_not_ready() {
    let redis = TestRedis::start(false);
    redis.kill_9();
    let url = redis.url();
    let node = ServerProcess::start_after("", "", &[("BUGLE_CLUSTER__REDIS", &url), ("BUGLE_STORE__URL", "")]);
    let ready = "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = String::from_utf8_lossy(&raw_http(node.admin, ready).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("cluster.redis"), "{answer}");
}

#[tokio::test]
async fn a_node_that_is_stopped_while_it_waits_for_its_engine_stops_in_order() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let engine = format!("redis://{}", silent.local_addr().expect("it has an address"));
    let database = new_database();
    let variables = [("BUGLE_CLUSTER__REDIS", &*engine), ("BUGLE_STORE__URL", &*database)];
    let joining = async {
        deadline("the node to join", silent.accept()).await.expect("it connects");
        // What it has begun by then is to be ended.
        eventually("the store to be reached", async || connections(&database) > 0).await;
    };
    let ended = Launch { variables: &variables, ..Launch::default() }.stop_at(joining).await;
    assert!(ended.is_good && ended.last_message() == "stopped", "{ended:?}");
    assert!(ended.log.contains("SIGTERM") && !ended.log.contains("\"listening\""), "{ended:?}");
}
