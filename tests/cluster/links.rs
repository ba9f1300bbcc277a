//! The network between one node and the engine, which is slow, or loses everything for a while.

use std::time::Duration;

use bugle::{
    config::Config,
    proto::v1::{EmitToUserRequest, ack_options::Mode},
};
use futures_util::future::join_all;
use tonic::Code;

use crate::{
    NODES,
    acks::{LONG, acks, in_background},
    harness::{Backend, Device, SlowProxy, TestRedis, TestServer, answer, deadline, to_user, token},
};

const SHORT_LEASE: Duration = Duration::from_secs(1);

/// Three nodes, the first of which reaches the engine by a proxy. Leases are short.
async fn start(redis: &TestRedis, delay: Duration) -> (TestServer, SlowProxy) {
    let proxy = SlowProxy::start_before_redis(redis.address(), delay).await;
    let change = |number: usize, config: &mut Config| {
        let url = if number == 0 { proxy.url().to_owned() } else { redis.url() };
        config.cluster.redis = vec![url.into()];
        (config.cluster.lease, config.cluster.heartbeat) = (SHORT_LEASE, SHORT_LEASE / 4);
        config.limits.connections_per_user = 100;
    };
    let server = TestServer::start_each_with(change).await;
    (server, proxy)
}

/// Emits until a receipt is complete and counts this many.
async fn complete(backend: &Backend, user: &str, matched: u64) {
    let complete = async {
        loop {
            let sent = answer(backend.notify().emit_to_user(to_user(user, "again", "0"))).await;
            let receipt = sent.ok().and_then(|response| response.receipt);
            if receipt.is_some_and(|receipt| !receipt.partial && receipt.matched == matched) {
                return;
            }
        }
    };
    Box::pin(deadline("a complete receipt", Box::pin(complete))).await;
}

#[tokio::test]
async fn a_node_with_a_slow_link_is_waited_for() {
    let redis = TestRedis::start(false);
    let (server, _proxy) = start(&redis, Duration::from_millis(20)).await;
    let mut slow = server.device_at(0, "42").connect().await.expect("the device connects");
    let mut fast = server.device_at(1, "42").connect().await.expect("the device connects");
    for number in [0, 1, 2] {
        let receipt = server.backend_of(number).await.emit_to_user("42", "hello", "1").await;
        assert_eq!((receipt.matched, receipt.nodes, receipt.partial), (2, 2, false), "{receipt:?}");
        assert_eq!(slow.expect_event("hello").await.json(), "1");
        assert_eq!(fast.expect_event("hello").await.json(), "1");
    }
}

#[tokio::test]
async fn receipts_are_partial_while_a_node_with_devices_is_slower_than_the_deadline_and_what_is_late_is_not_sent() {
    let redis = TestRedis::start(false);
    let (server, proxy) = start(&redis, Duration::ZERO).await;
    let mut slow = server.device_at(0, "42").connect().await.expect("the device connects");
    let backend = server.backend_of(1).await;
    proxy.hang();
    let receipt = backend.emit_to_user("42", "lost", "1").await;
    assert!(receipt.partial && receipt.matched == 0, "{receipt:?}");
    let cut_off = server.backend_of(0).await;
    let refused = answer(cut_off.notify().emit_to_user(to_user("42", "refused", "1"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    // Its lease ends, and the others no longer wait for it.
    Box::pin(complete(&backend, "43", 0)).await;
    assert_eq!(backend.get_user("42").await.connections, []);
    proxy.go_on();
    Box::pin(complete(&backend, "42", 1)).await;
    Box::pin(complete(&cut_off, "42", 1)).await;
    let heard = slow.expect_event("again").await;
    assert_eq!(heard.json(), "0", "what was published meanwhile came too late");
}

#[tokio::test]
async fn devices_stay_and_come_while_their_node_is_cut_off_and_are_in_their_rooms_afterwards() {
    let redis = TestRedis::start(false);
    let (server, proxy) = start(&redis, Duration::ZERO).await;
    let mut before = server.device_at(0, "42").connect().await.expect("the device connects");
    let backend = server.backend_of(1).await;
    proxy.hang();
    let _partial = backend.emit_to_user("42", "lost", "1").await;
    let mut meanwhile = server.device_at(0, "42").connect().await.expect("the device connects");
    assert_eq!(backend.join_room("listing:7", "42").await, 0, "its node does not hear of it");
    proxy.go_on();
    for device in [&mut before, &mut meanwhile] {
        let joined = async {
            loop {
                let receipt = backend.emit_to_room("listing:7", "bid", "1").await;
                if receipt.matched == 2 && !receipt.partial {
                    return;
                }
            }
        };
        deadline("the room to be joined", Box::pin(joined)).await;
        assert_eq!(device.expect_event("bid").await.json(), "1");
    }
}

/// Devices of one user that are 40 ms away, one at each node, and the proxies between.
async fn far_devices(server: &TestServer) -> (Vec<SlowProxy>, Vec<Device>) {
    let (mut proxies, mut devices) = (Vec::new(), Vec::new());
    for number in 0..NODES {
        let proxy = SlowProxy::start_before_node(server.clients_of(number), Duration::from_millis(40)).await;
        let device = Device::builder(proxy.address()).token(token("42")).connect();
        devices.push(device.await.expect("the device connects"));
        proxies.push(proxy);
    }
    (proxies, devices)
}

/// A link for each node to an engine that is 5 ms and up to 40 ms more away: what nodes publish at one time crosses.
pub(crate) async fn far_from_engine(redis: &TestRedis) -> Vec<SlowProxy> {
    let mut links = Vec::new();
    for _ in 0..NODES {
        let link = SlowProxy::start_before_redis(redis.address(), Duration::from_millis(5)).await;
        link.set_jitter(Duration::from_millis(40));
        links.push(link);
    }
    links
}

/// Three nodes, each over such a link.
async fn start_far_from_engine(redis: &TestRedis) -> (TestServer, Vec<SlowProxy>) {
    let proxies = far_from_engine(redis).await;
    let server = TestServer::start_each_with(|number, config| {
        config.cluster.redis = vec![proxies[number].url().to_owned().into()];
        // A busy machine is slow besides.
        config.cluster.deadline = Duration::from_secs(10);
    })
    .await;
    (server, proxies)
}

#[tokio::test]
async fn far_devices_at_nodes_far_from_the_engine_get_everything_in_one_order_and_receipts_are_exact() {
    const EMITS: usize = 12;
    let redis = TestRedis::start(false);
    let (server, _links) = start_far_from_engine(&redis).await;
    let (_proxies, mut devices) = far_devices(&server).await;
    let backends = join_all((0..2 * NODES).map(|sender| server.backend_of(sender % NODES))).await;
    let emitting = backends.into_iter().enumerate().map(|(sender, backend)| {
        in_background(async move {
            for number in 0..EMITS {
                let json = format!("\"{sender} {number}\"");
                let receipt = match number % 3 {
                    0 => backend.broadcast("e", &json).await,
                    _ => backend.emit_to_user("42", "e", &json).await,
                };
                let counts = (receipt.matched, receipt.enqueued, receipt.dropped, receipt.nodes, receipt.partial);
                assert_eq!(counts, (3, 3, 0, 3, false), "{receipt:?}");
            }
        })
    });
    let emitting = join_all(emitting.collect::<Vec<_>>());
    for emitted in deadline("all receipts", Box::pin(emitting)).await {
        emitted.expect("each receipt is exact");
    }
    let mut orders = Vec::new();
    for device in &mut devices {
        let (mut everyone, mut user) = (Vec::new(), Vec::new());
        for _ in 0..2 * NODES * EMITS {
            let json = device.expect_event("e").await.json().to_owned();
            let (sender, number) = json.trim_matches('"').split_once(' ').expect("two numbers");
            let number: usize = number.parse().expect("a number");
            let of_room = if number.is_multiple_of(3) { &mut everyone } else { &mut user };
            of_room.push((sender.to_owned(), number));
        }
        for sender in 0..2 * NODES {
            let sender = sender.to_string();
            let own = everyone.iter().chain(&user).filter(|(other, _)| *other == sender).map(|(_, number)| *number);
            let mut own: Vec<_> = own.collect();
            assert!(own.len() == EMITS && own[..EMITS / 3].is_sorted() && own[EMITS / 3..].is_sorted(), "{own:?}");
            own.sort_unstable();
            own.dedup();
            assert_eq!(own.len(), EMITS);
        }
        orders.push((everyone, user));
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "each room has one order at all nodes");
}

#[tokio::test]
async fn acknowledgements_of_far_devices_at_nodes_far_from_the_engine_arrive() {
    let redis = TestRedis::start(false);
    let (server, _links) = start_far_from_engine(&redis).await;
    let (_proxies, mut devices) = far_devices(&server).await;
    for number in 0..NODES {
        let mut notify = server.backend_of(number).await.notify();
        let request = EmitToUserRequest { options: Some(acks(Mode::All, LONG)), ..to_user("42", "asks", "1") };
        let receipt = in_background(async move { notify.emit_to_user(request).await });
        for device in &mut devices {
            let asked = device.expect_event("asks").await;
            device.acknowledge(&asked, "[2]");
        }
        let receipt = deadline("the receipt", receipt).await.expect("the call ends").expect("it is accepted");
        let receipt = receipt.into_inner().receipt.expect("there is a receipt");
        assert_eq!((receipt.matched, receipt.replied, receipt.nodes, receipt.partial), (3, 3, 3, false), "{receipt:?}");
        assert!(receipt.acks.iter().all(|ack| ack.json == "[2]"), "{receipt:?}");
    }
}
