//! A device that comes back in the middle of a burst: what it missed and what is live, without gap, repetition or disorder.
//!
//! `BUGLE_INTERLEAVINGS=1000 cargo test --release --test it interleavings` looks at more of them.

use bugle::proto::v1::{
    Emit, EmitOptions, EmitStreamRequest,
    emit::{Payload, Target},
};
use futures_util::StreamExt;
use serde_json::json;

use super::resume::{history, kept};
use crate::harness::{Backend, Device, TestServer, deadline};

const BURST: u64 = 40;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// How often, if not as often as `usual`.
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests may want more")]
pub(crate) fn times(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |times| times.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_comes_in_the_middle_of_a_burst_misses_nothing_and_gets_nothing_twice() {
    let server = TestServer::start_with(|config| {
        config.rooms.push(history("live:*"));
        config.auth.rooms.push("live:{user}".into());
    })
    .await;
    let backend = server.backend().await;
    for seed in 0..times("BUGLE_INTERLEAVINGS", 100) {
        Box::pin(interleave(&server, &backend, seed)).await;
    }
}

async fn interleave(server: &TestServer, backend: &Backend, seed: u64) {
    let mut random = Random(seed);
    let user = format!("u{seed}");
    let is_stored = random.below(2) == 0;
    let room = if is_stored { format!("user:{user}") } else { format!("live:{user}") };
    let before = random.below(10);
    let (joins_after, leaves_after) = (random.below(BURST), random.below(BURST));
    burst(backend, &room, is_stored, 0..before, 0).await;
    let mut first = server.device(&user).resume(json!({})).connect().await.expect("it connects");
    // Where the sequence begins, whatever has come before.
    let begin = begin_of(&mut first, &room).await;
    let bursting = {
        let (backend, room) = (backend.clone(), room.clone());
        let plain_every = random.below(5);
        async move { burst(&backend, &room, is_stored, before..before + BURST, plain_every).await }
    };
    let following = async {
        let mut position = begin.clone();
        let mut expected = before;
        while expected < before + joins_after {
            let (n, new) = next_kept(&mut first).await;
            assert_eq!(n, expected, "seed {seed}, the first device");
            (expected, position) = (expected + 1, new);
        }
        let second = server.device(&user).resume(json!({ room.clone(): position })).connect();
        let mut second = second.await.expect("it connects");
        if leaves_after % 3 == 0 {
            // It comes a second time, from where it was then.
            for _ in 0..leaves_after.min(before + BURST - expected) {
                let (n, new) = next_kept(&mut second).await;
                assert_eq!(n, expected, "seed {seed}, before it left");
                (expected, position) = (expected + 1, new);
            }
            second.abort().await;
            second =
                server.device(&user).resume(json!({ room.clone(): position })).connect().await.expect("it connects");
        }
        for n in expected..before + BURST {
            assert_eq!(next_kept(&mut second).await.0, n, "seed {seed}");
        }
        backend.emit_to_room(&room, "end", "0").await;
        second.expect_event("end").ignoring(&["plain", "bugle:resumed"]).await;
    };
    Box::pin(deadline("the interleaving", async { tokio::join!(bursting, following) })).await;
}

async fn begin_of(device: &mut Device, room: &str) -> String {
    let event = device.expect_event("bugle:resumed").ignoring(&["e"]).await;
    event.value()["rooms"][room]["position"].as_str().expect("it is told where the room stands").to_owned()
}

async fn next_kept(device: &mut Device) -> (u64, String) {
    kept(&device.expect_event("e").ignoring(&["plain", "bugle:resumed"]).await)
}

/// Sends numbered events, and now and then one that is not kept.
pub(crate) async fn burst(
    backend: &Backend,
    room: &str,
    is_stored: bool,
    numbers: std::ops::Range<u64>,
    plain_every: u64,
) {
    let emit = |event: &str, n: u64, store: bool| EmitStreamRequest {
        correlation_id: n.to_string(),
        emit: Some(Emit {
            target: Some(Target::Room(room.into())),
            event: event.into(),
            payload: Some(Payload::Json(n.to_string())),
            options: Some(EmitOptions { store, volatile: event == "plain", ..EmitOptions::default() }),
        }),
    };
    let emits: Vec<_> = numbers
        .flat_map(|n| {
            let plain = (plain_every > 0 && n % plain_every == 0).then(|| emit("plain", n, false));
            [Some(emit("e", n, is_stored)), plain].into_iter().flatten()
        })
        .collect();
    let results = backend.notify().emit_stream(tokio_stream::iter(emits)).await.expect("a stream is accepted");
    results.into_inner().for_each(|result| async move { drop(result.expect("an answer")) }).await;
}
