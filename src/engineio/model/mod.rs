//! A model of a session. Server, device and network act in a random order. The device gets every message once and in order, or the
//! session ends; an ended session keeps nothing. Each message that is to be proven is so once, when the device has it, or is lost with the
//! session. The kernel under a WebSocket takes a few bytes at a time.
//!
//! `PROPTEST_CASES` is the number of runs.

mod reports;

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Str};
use http::{Extensions, Response};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::{JoinHandle, yield_now},
    time::timeout,
};
use transport::{Bounds, Outgoing, ReportFate, Stream, WriteMode, websocket::Task};

use self::reports::Reports;
use crate::{
    config::EngineIoConfig,
    engine::Engine,
    frame::text_message,
    handler::EngineIoHandler,
    poll::poll,
    probe::{Upgrading, run},
    reply,
    session::{Opening, Session},
    socket::{DisconnectReason, Socket},
};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The server sends this number of messages, each of which is to be proven or not.
    Send(u8, WriteMode, bool),
    /// The server wants all that it has sent proven.
    Prove,
    /// A task of the server begins to wait until little enough waits for the device.
    AwaitRoom,
    /// The device answers a ping, if it has got one.
    Pong,
    /// The device polls, if it does not.
    Poll,
    /// The device gives its poll up.
    Cancel,
    /// The kernel takes an answer whole.
    Taken,
    /// The connection ends with an answer.
    Lost,
    /// The device opens a WebSocket and sends its probe.
    Probe,
    /// The WebSocket of the probe fails.
    Fail,
    /// The device leaves polling.
    Leave,
    /// The device reads up to this number of bytes of its WebSocket.
    Read(u8),
    /// Time passes, in milliseconds.
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let mode = prop_oneof![Just(WriteMode::Inline), Just(WriteMode::Batched), Just(WriteMode::Gathered)];
    prop_oneof![
        3 => (1..4_u8, mode, any::<bool>()).prop_map(|(count, mode, is_unproven)| Step::Send(count, mode, is_unproven)),
        1 => Just(Step::Prove),
        2 => Just(Step::AwaitRoom),
        2 => Just(Step::Pong),
        3 => Just(Step::Poll),
        1 => Just(Step::Cancel),
        3 => Just(Step::Taken),
        1 => Just(Step::Lost),
        2 => Just(Step::Probe),
        1 => Just(Step::Fail),
        2 => Just(Step::Leave),
        3 => (1..40_u8).prop_map(Step::Read),
        1 => (1..700_u16).prop_map(Step::Wait),
    ]
}

pub(crate) struct Handler;

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

impl EngineIoHandler for Handler {
    type Data = ();

    fn on_connect(self: Arc<Self>, _: Arc<Socket<()>>) {}
    fn on_disconnect(&self, _: Arc<Socket<()>>, _: DisconnectReason) {}
    fn on_message(self: &Arc<Self>, _: Str, _: Arc<Socket<()>>) {}
    fn on_binary(self: &Arc<Self>, _: Bytes, _: Arc<Socket<()>>) {}
}

/// There is room while four bytes wait at most.
const BOUNDS: Bounds = Bounds { queue_bytes: 16, exempt_bytes: 0 };

/// A session, and its device with what that has received.
struct World {
    engine: Engine,
    session: Arc<Session>,
    sent: usize,
    received: Arc<AtomicUsize>,
    reports: Reports,
    /// The task that waits for room.
    waiting: Option<JoinHandle<()>>,
    owes_pong: bool,
    poll: Option<JoinHandle<Response<reply::Body>>>,
    upgrade: Option<Upgrade>,
    has_left: bool,
}

struct Upgrade {
    device: DuplexStream,
    task: JoinHandle<()>,
    read: Vec<u8>,
}

/// Lets all tasks run that can.
async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

impl World {
    fn new() -> Self {
        let engine = Engine::new(Arc::new(Handler), EngineIoConfig::default());
        let opening = Opening { protocol: ProtocolVersion::V4, supports_binary: true, stream: None };
        let session = Session::open(engine.host(), opening, &mut Extensions::new());
        engine.admit(session.clone());
        let (received, reports) = Default::default();
        Self {
            engine,
            session,
            sent: 0,
            received,
            reports,
            waiting: None,
            owes_pong: false,
            poll: None,
            upgrade: None,
            has_left: false,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Send(count, mode, is_unproven) => (0..count).for_each(|_| self.send(mode, is_unproven)),
            Step::Prove => self.prove(),
            Step::AwaitRoom => self.await_room(),
            Step::Pong => self.pong(),
            Step::Poll if self.poll.is_none() && !self.has_left => {
                self.poll = Some(spawn(poll(self.session.clone(), true)));
            }
            Step::Cancel => self.cancel().await,
            Step::Taken => self.answered(true).await,
            // A device that has left has received its last answer.
            Step::Lost => self.answered(self.has_left).await,
            Step::Probe => self.probe().await,
            // Once it has left, the WebSocket is the session's.
            Step::Fail if !self.has_left => self.upgrade = None,
            // Whether its poll was answered or not, and whether the server knows the fate of the answer or not.
            Step::Leave if !self.has_left && self.is_probed() => self.leave().await,
            Step::Read(count) => self.read(count.into()).await,
            Step::Wait(millis) => tokio::time::advance(Duration::from_millis(millis.into())).await,
            Step::Poll | Step::Fail | Step::Leave => {}
        }
        settle().await;
        self.check_waiting();
    }

    fn await_room(&mut self) {
        let session = self.session.clone();
        let waiting = spawn(async move { poll_fn(|cx| session.poll_room(cx, BOUNDS)).await });
        // The one before it may wait no more.
        if let Some(before) = self.waiting.replace(waiting) {
            before.abort();
        }
    }

    /// A task waits for room only while there is none.
    fn check_waiting(&mut self) {
        if let Some(waiting) = &self.waiting {
            let is_over = self.session.is_closed() || self.session.has_room(BOUNDS);
            assert!(waiting.is_finished() || !is_over, "there is room, or the end, and the task was not woken");
        }
    }

    fn send(&mut self, mode: WriteMode, is_unproven: bool) {
        let frames = [text_message(&[self.sent.to_string().as_bytes()])];
        let message = is_unproven.then(|| self.reports.message(self.sent + 1, &self.received));
        let outgoing = Outgoing {
            frames: &frames,
            generation: 0,
            is_exempt: false,
            is_last: false,
            unproven: message.as_ref(),
            bounds: Bounds { queue_bytes: usize::MAX, exempt_bytes: 0 },
        };
        let is_accepted = self.session.deliver(&outgoing, mode).is_ok();
        self.sent += usize::from(is_accepted);
        assert!(!is_accepted || !is_unproven || self.reports.knows_last(), "it is accepted, and not registered");
    }

    fn prove(&mut self) {
        let message = self.reports.message(self.sent, &self.received);
        assert!(self.session.want_proof(1, &message).is_err(), "there is no such generation");
        let is_accepted = self.session.want_proof(0, &message).is_ok();
        assert_eq!(is_accepted, self.reports.knows_last());
    }

    fn pong(&mut self) {
        if std::mem::take(&mut self.owes_pong) {
            self.session.receive_pong(None).expect("a pong is no violation");
        }
    }

    async fn cancel(&mut self) {
        if let Some(poll) = self.poll.take_if(|poll| !poll.is_finished()) {
            poll.abort();
            let _ = poll.await;
        }
    }

    /// The fate of the answer, if there is one.
    async fn answered(&mut self, is_taken: bool) {
        let Some(poll) = self.poll.take_if(|poll| poll.is_finished()) else {
            return;
        };
        let mut response = poll.await.expect("a poll is answered");
        let fate = response.extensions_mut().remove::<ReportFate>();
        if is_taken {
            let body = response.into_body().collect().await.expect("it is in memory").to_bytes();
            let body = String::from_utf8(body.into()).expect("a text");
            body.split('\u{1e}').for_each(|packet| self.receive(packet));
        }
        if let Some(ReportFate(fate)) = fate {
            if is_taken { fate.taken() } else { fate.lost() }
        }
    }

    fn receive(&mut self, packet: &str) {
        if let Some(number) = packet.strip_prefix('4') {
            let expected = self.received.fetch_add(1, Ordering::Relaxed);
            assert_eq!(number, expected.to_string(), "a message is lost, doubled or out of order");
        }
        self.owes_pong |= packet == "2";
    }

    async fn probe(&mut self) {
        if self.upgrade.is_some() {
            return;
        }
        let Some(upgrading) = Upgrading::begin(self.session.clone()) else {
            return;
        };
        let (mut device, server) = tokio::io::duplex(24);
        let stream = Stream::other(server, self.engine.flushers());
        let task = spawn(Task::new(async move { run(upgrading, stream, Bytes::new()).await }));
        device.write_all(&masked("2probe")).await.expect("it has room");
        self.upgrade = Some(Upgrade { device, task, read: Vec::new() });
    }

    fn is_probed(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.read.starts_with(b"\x81\x063probe"))
    }

    async fn leave(&mut self) {
        if let Some(upgrade) = &mut self.upgrade {
            self.has_left = upgrade.device.write_all(&masked("5")).await.is_ok();
        }
    }

    async fn read(&mut self, count: usize) {
        let Some(upgrade) = &mut self.upgrade else {
            return;
        };
        let mut bytes = vec![0; count];
        if let Ok(Ok(length)) = timeout(Duration::ZERO, upgrade.device.read(&mut bytes)).await {
            upgrade.read.extend_from_slice(&bytes[..length]);
        }
        // The answer to the probe stays, as the sign that it came.
        let packets: Vec<_> = std::iter::from_fn(|| upgrade.next()).collect();
        for packet in packets {
            self.receive(&packet);
        }
    }

    /// What a good device does until it has everything; `false`: its session has ended meanwhile.
    async fn finish(&mut self) -> bool {
        while self.received() < self.sent || self.reports.wait() || (self.has_left && self.poll.is_some()) {
            if self.session.is_closed() {
                return false;
            }
            self.pong();
            if self.has_left {
                self.answered(true).await;
                self.read(64).await;
            } else {
                self.step(Step::Poll).await;
                self.step(Step::Taken).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    async fn end(mut self) {
        self.session.close(DisconnectReason::ClosingServer);
        self.upgrade = None;
        settle().await;
        self.check_waiting();
        self.answered(true).await;
        let Self { engine, session, reports, .. } = self;
        drop(session);
        settle().await;
        assert!(!reports.wait(), "each is proven or lost");
        assert_eq!(engine.sessions(), 0);
        assert_eq!(engine.flushers().queued().total(), 0, "an ended session keeps nothing");
    }
}

impl Upgrade {
    /// The next packet behind the answer to the probe.
    fn next(&mut self) -> Option<String> {
        const PROBE: usize = 8;
        let length = usize::from(*self.read.get(PROBE + 1)?);
        let packet = self.read.get(PROBE + 2..PROBE + 2 + length)?;
        let packet = String::from_utf8(packet.to_vec()).expect("a text");
        self.read.drain(PROBE..PROBE + 2 + length);
        Some(packet)
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[expect(clippy::disallowed_methods, reason = "a test has no lifecycle")]
pub(crate) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let future: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
    tokio::spawn(future)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_device_gets_every_message_once_and_in_order_or_its_session_ends(steps in prop::collection::vec(step(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
            }
            // Shorter than the deadline of an upgrade, which would wake what was forgotten.
            let finished = timeout(Duration::from_secs(8), world.finish()).await;
            assert!(finished.is_ok(), "the session has no way out: {} of {} came", world.received(), world.sent);
            world.end().await;
        });
    }
}
