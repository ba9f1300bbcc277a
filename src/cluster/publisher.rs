//! What this node publishes at one engine. Frames that come while a round trip is under way go out together in the next one, in their order.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use redis::{Cmd, Pipeline, Value};
use tokio::{sync::Notify, time::Instant};

use super::{
    BusError, Ticket, codec,
    frame::Frame,
    functions,
    head::Head,
    pending::{PublishError, Published},
    shard::Shard,
};
use crate::telemetry;

/// Frames of one round trip, and the bytes of their commands. The last one may exceed the bytes.
const MAX_FRAMES: usize = 512;
const MAX_BYTES: usize = 1 << 20;
/// Bytes of commands that wait to be sent: frames, and what is kept of their emits. With more, frames are refused.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Frames that wait to be published.
#[derive(Default)]
pub(super) struct Outgoing {
    queue: Mutex<VecDeque<Waiting>>,
    /// Bytes of the commands in the queue.
    bytes: AtomicUsize,
    filled: Notify,
}

struct Waiting {
    number: u64,
    command: Cmd,
    bytes: usize,
    since: Instant,
}

impl Shard {
    /// Publishes a frame to the nodes that have its room, or to all, after what was published before. The ticket waits for their answers.
    pub(super) fn publish(&self, frame: &Frame) -> Result<Ticket, BusError> {
        self.publish_with(frame, |frame, channel| {
            const PUBLISH: &str = "PUBLISH";
            let mut publish = Cmd::with_capacity(3, PUBLISH.len() + channel.len() + frame.len());
            publish.arg(PUBLISH).arg(channel).arg(frame);
            publish
        })
    }

    /// The same by a function of ours, which is given the frame before and after the numbers that it puts in, and the channel. It
    /// returns the number of receivers first, or a negative number.
    pub(super) fn publish_by(
        &self,
        frame: &Frame,
        command: impl FnOnce(&[u8], &[u8], &str) -> Cmd,
    ) -> Result<Ticket, BusError> {
        self.publish_with(frame, |frame, channel| {
            let (start, rest) = Head::around_numbers(frame);
            command(start, rest, channel)
        })
    }

    fn publish_with(&self, frame: &Frame, command: impl FnOnce(&[u8], &str) -> Cmd) -> Result<Ticket, BusError> {
        let asks = matches!(frame, Frame::Emit(frame) if frame.emit.ack.is_some());
        let ticket = self.enqueue(asks, |head| {
            let bytes = codec::encode(head, frame, self.clock.now_ms());
            let channel = match frame.room() {
                Some(room) => self.channel_of_room(room.as_str()),
                None => self.engine.single("all"),
            };
            command(&bytes, &channel)
        })?;
        telemetry::bus_frame("sent", frame.kind());
        Ok(ticket)
    }

    /// Publishes an emit that waits at the engine, by a function of ours, which is given what the frame begins with now.
    pub(super) fn publish_waiting(&self, command: impl FnOnce(&[u8]) -> Cmd) -> Result<Ticket, BusError> {
        self.enqueue(false, |head| {
            let mut frame = Vec::with_capacity(Head::LEN);
            head.write(&mut frame);
            command(Head::around_numbers(&frame).0)
        })
    }

    /// Has a command wait to be sent. It is made for the head of the frame that it publishes.
    fn enqueue(&self, asks: bool, command: impl FnOnce(&Head) -> Cmd) -> Result<Ticket, BusError> {
        // Nodes would take a frame of an unknown time for a late one.
        if !self.engine.is_connected() || !self.clock.is_set() {
            return Err(BusError::Away);
        }
        let ticket = self.pending.begin(asks);
        let version = self.version.load(Ordering::Relaxed);
        let command = command(&Head::plain(version, self.incarnation(), ticket.number));
        self.outgoing.put(ticket.number, command)?;
        Ok(ticket)
    }

    /// Publishes what waits, again and again.
    pub(super) async fn publish_loop(self: Arc<Self>) {
        loop {
            let batch = self
                .outgoing
                .take(|number| self.pending.failed(number, PublishError::Bus(BusError::Away)), self.config.deadline);
            if batch.is_empty() {
                self.outgoing.filled.notified().await;
                continue;
            }
            self.publish_batch(batch).await;
        }
    }

    /// In a transaction: the nodes that are ready are counted at the moment at which the frames are published.
    async fn publish_batch(&self, batch: Vec<Waiting>) {
        let mut commands = Pipeline::with_capacity(batch.len() + 1);
        commands.atomic().ignore_errors();
        let mut numbers = Vec::with_capacity(batch.len());
        for Waiting { number, command, .. } in batch {
            numbers.push(number);
            commands.add_command(command);
        }
        let known = self.known.lock().clone();
        commands.cmd("PUBSUB").arg("NUMSUB");
        for (channel, _) in &known.channels {
            commands.arg(channel);
        }
        let published = async {
            let connected = self.engine.connected()?;
            let connection = connected.generation;
            let mut answers = self.engine.query_all_over::<Vec<Value>>(connected, &commands).await?;
            let ready = answers.pop().map_or(0, |answer| ready_peers(&answer, &known.channels));
            Ok((answers, ready, known.live(connection)))
        };
        let published = match published.await {
            // Nothing was done: an engine without memory takes no transactions.
            Err(BusError::Full) => self.publish_each(&commands, numbers.len()).await,
            published => published,
        };
        match published {
            Ok((answers, ready, live)) if answers.len() == numbers.len() => {
                self.note_published(&numbers, &answers, ready, live).await;
            }
            Ok(_) => self.fail_all(&numbers, BusError::Refused),
            Err(error) => self.fail_all(&numbers, error),
        }
    }

    /// Publishes the first commands of a transaction that was refused, each by itself. The nodes that were ready are not known.
    async fn publish_each(&self, refused: &Pipeline, count: usize) -> Result<(Vec<Value>, u64, u64), BusError> {
        let mut commands = Pipeline::with_capacity(count);
        commands.ignore_errors();
        for command in refused.cmd_iter().take(count) {
            commands.add_command(command.clone());
        }
        Ok((self.engine.query_all(&commands).await?, 0, 1))
    }

    fn fail_all(&self, numbers: &[u64], error: BusError) {
        for number in numbers {
            self.pending.failed(*number, PublishError::Bus(error));
        }
    }

    async fn note_published(&self, numbers: &[u64], answers: &[Value], ready: u64, live: u64) {
        let mut are_missing = false;
        for (number, answer) in numbers.iter().zip(answers) {
            match receivers(answer) {
                Some(Ok(receivers)) => self.pending.published(*number, Published { receivers, ready, live }),
                Some(Err(rejected)) => self.pending.failed(*number, PublishError::Rejected(rejected)),
                None if functions::is_missing_in(answer) => {
                    // It is not tried again here: later frames of the room are published already.
                    are_missing = true;
                    self.pending.failed(*number, PublishError::Bus(BusError::Away));
                }
                None => self.pending.failed(*number, PublishError::Bus(self.engine.refusal(answer))),
            }
        }
        if are_missing {
            // If this fails, it is done again at the next connection.
            let _ = self.engine.load_functions().await;
        }
    }
}

impl Outgoing {
    /// Adds a command behind the others, unless too many bytes wait.
    fn put(&self, number: u64, command: Cmd) -> Result<(), BusError> {
        let bytes = command.args_iter().map(|arg| if let redis::Arg::Simple(arg) = arg { arg.len() } else { 0 }).sum();
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) > MAX_WAITING_BYTES {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(BusError::Away);
        }
        self.queue.lock().push_back(Waiting { number, command, bytes, since: Instant::now() });
        self.filled.notify_one();
        Ok(())
    }

    /// The next frames. Those that have waited for the whole deadline are given up.
    fn take(&self, give_up: impl Fn(u64), deadline: Duration) -> Vec<Waiting> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut queue = self.queue.lock();
        while batch.len() < MAX_FRAMES
            && bytes < MAX_BYTES
            && let Some(waiting) = queue.pop_front()
        {
            self.bytes.fetch_sub(waiting.bytes, Ordering::Relaxed);
            if waiting.since.elapsed() > deadline {
                give_up(waiting.number);
            } else {
                bytes += waiting.bytes;
                batch.push(waiting);
            }
        }
        batch
    }
}

/// The number of receivers, or why a function did not publish.
fn receivers(answer: &Value) -> Option<Result<u64, i64>> {
    let first = if let Value::Array(list) = answer { list.first()? } else { answer };
    let Value::Int(number) = first else { return None };
    Some(u64::try_from(*number).map_err(|_| *number))
}

/// The one count of an answer to `PUBSUB NUMSUB`.
pub(super) fn subscribers(answer: &Value) -> u64 {
    counts(answer).first().copied().unwrap_or_default()
}

/// How many of the names have all their peers subscribed.
fn ready_peers(answer: &Value, channels: &[(String, u64)]) -> u64 {
    let counts = counts(answer);
    channels.iter().zip(counts).filter(|((_, peers), count)| count >= peers).count() as u64
}

/// The counts of an answer to `PUBSUB NUMSUB`, in the order of the channels.
fn counts(answer: &Value) -> Vec<u64> {
    let count = |value: &Value| if let Value::Int(count) = value { u64::try_from(*count).ok() } else { None };
    if let Value::Map(map) = answer {
        map.iter().filter_map(|(_, value)| count(value)).collect()
    } else if let Value::Array(list) = answer {
        list.iter().filter_map(count).collect()
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_an_emit_counts_for_the_bytes_that_wait() {
        let outgoing = Outgoing::default();
        let keep =
            || redis::cmd("FCALL").arg("keep").arg("frame").arg(vec![b'm'; 1 << 20]).arg(vec![b'v'; 1 << 20]).clone();
        let put = (0..1_000).take_while(|number| outgoing.put(*number, keep()).is_ok()).count();
        // The last one may exceed the bytes.
        assert_eq!(put, MAX_WAITING_BYTES / (2 << 20));
        let taken = outgoing.take(|_| {}, Duration::from_hours(1));
        assert_eq!(taken.len(), 1, "one has the bytes of a round trip");
        assert!(outgoing.put(1_000, keep()).is_ok());
    }
}
