//! An engine that cannot be reached when a device or a node comes.

use std::time::Duration;

use tokio::net::TcpListener;

use crate::harness::{
    Device, Launch, ServerProcess, TestRedis, TestServer, answer, connections, deadline, eventually, new_database,
    raw_http, to_user,
};

async fn server_with_short_leases(redis: &TestRedis, connect_timeout: Duration) -> TestServer {
    TestServer::start_with(|config| {
        config.cluster.redis = vec![redis.url().into()];
        (config.cluster.lease, config.cluster.heartbeat) = (Duration::from_secs(1), Duration::from_millis(200));
        config.socketio.connect_timeout = connect_timeout;
    })
    .await
}

/// Waits until an emit to the device's user comes to it.
async fn is_whole_again(server: &TestServer, device: &mut Device) {
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
async fn a_device_that_comes_as_the_engine_goes_is_let_in_though_that_takes_longer_than_a_connect_may() {
    let redis = TestRedis::start(false);
    let server = server_with_short_leases(&redis, Duration::from_millis(200)).await;
    redis.kill_9();
    let mut device = server.connect("42").await;
    redis.restart();
    is_whole_again(&server, &mut device).await;
}

#[tokio::test]
async fn a_device_is_let_in_though_the_engine_refuses_leases_and_has_closed_the_subscriptions() {
    let redis = TestRedis::start(false);
    let server = server_with_short_leases(&redis, Duration::from_secs(10)).await;
    redis.cli(&["ACL", "SETUSER", "default", "-fcall"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let mut device = server.connect("42").await;
    redis.cli(&["ACL", "SETUSER", "default", "+fcall"]);
    is_whole_again(&server, &mut device).await;
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
