//! A model of the write queue: threads that send, the flusher and the task that owns the stream, over a kernel that takes what it
//! likes, in the orders that `shuttle` thinks of. A lost wakeup is a deadlock here.
//!
//! `cargo test -p transport --features model model`; `MODEL_RUNS` is the number of runs.

use std::{collections::VecDeque, task::Waker};

use shuttle::{
    future::block_on,
    rand::{Rng, thread_rng},
    sync::{Condvar, Mutex as Lock},
    thread,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ledger::{Bounds, Rejected};

const SENDERS: u8 = 3;
const PACKETS: u8 = 4;
const MODES: [WriteMode; 3] = [WriteMode::Inline, WriteMode::Batched, WriteMode::Gathered];

/// The kernel's side of a stream.
#[derive(Clone, Default)]
struct Kernel(Arc<(Lock<Taken>, Condvar)>);

#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    /// So many it takes before it is full.
    room: usize,
    waker: Option<Waker>,
}

impl Kernel {
    /// Takes more whenever somebody waits for that, until it has so many bytes, or `None`: until nobody waits any more.
    fn take_until(&self, bytes: usize) {
        let (taken, changed) = &*self.0;
        let mut taken = taken.lock().unwrap();
        while taken.bytes.len() < bytes {
            match taken.waker.take() {
                Some(waker) => {
                    taken.room = thread_rng().gen_range(1..8);
                    waker.wake();
                }
                None => taken = changed.wait(taken).unwrap(),
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().bytes.clone()
    }
}

impl AsyncRead for Kernel {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Kernel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let (taken, changed) = &*self.0;
        let mut taken = taken.lock().unwrap();
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let count = bytes.len().min(taken.room);
        if count == 0 {
            // A write without a task that waits comes from a sender, and changes nothing.
            if !cx.waker().will_wake(Waker::noop()) {
                taken.waker = Some(cx.waker().clone());
            }
            changed.notify_all();
            return Poll::Pending;
        }
        taken.room -= count;
        taken.bytes.extend_from_slice(&bytes[..count]);
        changed.notify_all();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A packet of one or two frames. Each frame says whose it is, the packet's number, how many frames follow, and how long it is.
fn packet(sender: u8, number: u8) -> Vec<Bytes> {
    let frames = 1 + (sender + number) % 2;
    let frame = |left: u8| {
        let padding = number % 3;
        let head = [sender, number, left, padding];
        Bytes::from([&head[..], &vec![0xff; padding.into()]].concat())
    };
    (0..frames).rev().map(frame).collect()
}

/// The packets in what the kernel has: sender and number. Whatever is cut off at the end is left out.
fn packets(bytes: &[u8]) -> Vec<(u8, u8)> {
    let (mut rest, mut begun, mut packets) = (bytes, None, Vec::new());
    while let [sender, number, left, padding, ..] = *rest {
        let length = 4 + usize::from(padding);
        let Some(payload) = rest.get(4..length) else { break };
        assert!(sender < SENDERS && payload.iter().all(|byte| *byte == 0xff), "a frame is torn: {bytes:?}");
        if let Some(expected) = begun {
            assert_eq!((sender, number, left), expected, "something is between two frames of a packet");
        }
        begun = (left > 0).then(|| (sender, number, left - 1));
        if left == 0 {
            packets.push((sender, number));
        }
        rest = &rest[length..];
    }
    packets
}

struct World {
    kernel: Kernel,
    flushers: Flushers,
    done: CancellationToken,
    flushing: Vec<thread::JoinHandle<()>>,
}

impl World {
    fn new() -> Self {
        let (kernel, done) = (Kernel::default(), CancellationToken::new());
        // In half of the runs the kernel is never full, so that only senders and the flusher write.
        kernel.0.0.lock().unwrap().room = if thread_rng().gen_bool(0.5) { usize::MAX } else { 0 };
        let flushing = Arc::new(Lock::new(Vec::new()));
        let started = flushing.clone();
        let spawn: Spawn = Arc::new(move |task| started.lock().unwrap().push(thread::spawn(|| block_on(task))));
        let flushers = Flushers::with(1, &spawn, &done, QueuedBytes::new(u64::MAX));
        let flushing = std::mem::take(&mut *flushing.lock().unwrap());
        Self { kernel, flushers, done, flushing }
    }

    /// Runs the task that owns the stream, until the stream is cut.
    fn own(&self) -> (Handle, thread::JoinHandle<()>) {
        let stream = Stream::other(self.kernel.clone(), &self.flushers);
        let handle = stream.handle();
        let owner = thread::spawn(move || {
            block_on(std::future::poll_fn(|cx| stream.poll_drain(cx)));
        });
        (handle, owner)
    }

    fn end(self) {
        self.done.cancel();
        self.flushing.into_iter().for_each(|flusher| flusher.join().unwrap());
        assert_eq!(self.flushers.queued().total(), 0, "nothing is queued any more");
    }
}

/// Sends all packets of a sender. Returns how many the queue accepted, which are the first ones.
fn send_all(handle: &Handle, sender: u8) -> u8 {
    let mode = MODES[usize::from(sender) % MODES.len()];
    let accepted = |number: &u8| handle.send(&packet(sender, *number), mode) != Err(Rejected::Ended);
    u8::try_from((0..PACKETS).take_while(accepted).count()).unwrap()
}

fn senders(handle: &Handle) -> VecDeque<thread::JoinHandle<u8>> {
    (0..SENDERS)
        .map(|sender| (handle.clone(), sender))
        .map(|(handle, sender)| thread::spawn(move || send_all(&handle, sender)))
        .collect()
}

fn assert_in_order(packets: &[(u8, u8)]) -> [u8; SENDERS as usize] {
    let mut next = [0; SENDERS as usize];
    for (sender, number) in packets {
        assert_eq!(*number, next[usize::from(*sender)], "a packet is lost, doubled or out of order: {packets:?}");
        next[usize::from(*sender)] += 1;
    }
    next
}

/// Tries half of the orders at random, and half with few changes of the thread that runs, which find what takes many steps of one.
#[expect(clippy::disallowed_methods, reason = "how often a test runs is no configuration of the server")]
fn check(run: fn()) {
    let runs = std::env::var("MODEL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(4_000);
    shuttle::check_random(run, runs / 2);
    shuttle::check_pct(run, runs / 2, 3);
}

#[test]
fn every_packet_arrives_once_whole_and_in_its_senders_order() {
    check(|| {
        let total: usize = (0..SENDERS)
            .flat_map(|sender| (0..PACKETS).flat_map(move |number| packet(sender, number)))
            .map(|frame| frame.len())
            .sum();
        let world = World::new();
        let (handle, owner) = world.own();
        let senders = senders(&handle);
        world.kernel.take_until(total);
        for sender in senders {
            assert_eq!(sender.join().unwrap(), PACKETS);
        }
        assert_eq!(assert_in_order(&packets(&world.kernel.bytes())), [PACKETS; SENDERS as usize]);
        let (queued, taken) = handle.offsets();
        assert_eq!((queued, taken, handle.backlog()), (total as u64, total as u64, 0));
        handle.cut();
        owner.join().unwrap();
        world.end();
    });
}

#[test]
fn a_stream_that_is_cut_at_any_moment_has_written_a_prefix_of_what_it_accepted_and_ends() {
    check(|| {
        let world = World::new();
        let (handle, owner) = world.own();
        let senders = senders(&handle);
        world.kernel.take_until(thread_rng().gen_range(0..30));
        if thread_rng().gen_bool(0.5) {
            handle.cut();
        } else {
            handle.abort();
        }
        owner.join().unwrap();
        let accepted: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        let written = assert_in_order(&packets(&world.kernel.bytes()));
        assert!(written.iter().zip(&accepted).all(|(written, accepted)| written <= accepted));
        assert_eq!(handle.send(&packet(0, 0), WriteMode::Inline), Err(Rejected::Ended));
        world.end();
    });
}

/// A task that sends its packets one by one, each once there is room. Returns how many the queue accepted.
fn replay_all(handle: &Handle, sender: u8) -> u8 {
    // There is room while no more than two packets wait.
    const BOUNDS: Bounds = Bounds { queue_bytes: 4 * 16, exempt_bytes: 0 };
    let accepted = |number: &u8| {
        block_on(std::future::poll_fn(|cx| handle.poll_room(cx, BOUNDS)));
        handle.send(&packet(sender, *number), WriteMode::Batched) != Err(Rejected::Ended)
    };
    u8::try_from((0..PACKETS).take_while(accepted).count()).unwrap()
}

#[test]
fn a_task_that_waits_for_room_goes_on_when_there_is_some_and_at_the_end_of_the_stream() {
    check(|| {
        let world = World::new();
        let (handle, owner) = world.own();
        let replayed = handle.clone();
        let replaying = thread::spawn(move || replay_all(&replayed, 0));
        let sending = handle.clone();
        let sending = thread::spawn(move || send_all(&sending, 1));
        let bytes: usize =
            (0..2).flat_map(|sender| (0..PACKETS).flat_map(move |n| packet(sender, n))).map(|frame| frame.len()).sum();
        let is_cut = thread_rng().gen_bool(0.3);
        world.kernel.take_until(if is_cut { thread_rng().gen_range(0..bytes) } else { bytes });
        if is_cut {
            if thread_rng().gen_bool(0.5) {
                handle.cut();
            } else {
                handle.abort();
            }
            assert!(replaying.join().unwrap() <= PACKETS && sending.join().unwrap() <= PACKETS);
        } else {
            assert_eq!((replaying.join().unwrap(), sending.join().unwrap()), (PACKETS, PACKETS));
            handle.cut();
        }
        owner.join().unwrap();
        assert_in_order(&packets(&world.kernel.bytes()));
        world.end();
    });
}
