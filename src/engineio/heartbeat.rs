//! What happens to a session in time: deadlines, and pings.

use std::time::Duration;

use engineioxide_core::ProtocolVersion;
use tokio::time::Instant;
use transport::WriteMode;
use transport::websocket::{Opcode, frame};

use crate::{
    frame::packet,
    reason::DisconnectReason,
    session::{Carrier, Ending, Session, State},
    timers::Due,
};

/// The time that a session which has never spoken has after an attempt to upgrade, and how often is looked whether that is over.
const SPEAKS_AFTER_UPGRADE: Duration = Duration::from_secs(2);

impl Session {
    /// Does what is due.
    pub(crate) fn fire(&self, tick: u64, now: Instant) {
        if !self.entry.take(tick) {
            return;
        }
        loop {
            let mut state = self.lock();
            let Some(due) = state.timers.take_due(now) else {
                self.arm_locked(&state);
                return;
            };
            let reason = match due {
                // Some clients send nothing else while they try to upgrade, and that has a deadline of its own.
                Due::NeverSpoke if state.is_upgrading => {
                    state.timers.speak_by = Some(now + SPEAKS_AFTER_UPGRADE);
                    continue;
                }
                Due::NeverSpoke | Due::NoPoll | Due::Idle => DisconnectReason::TransportClose,
                Due::Deadline => DisconnectReason::PacketParsingError,
                Due::Release => {
                    state.release_poll();
                    continue;
                }
                Due::Alarm => {
                    drop(state);
                    self.observe(|observer| observer.alarm(self));
                    continue;
                }
                Due::Beat if self.beat(&mut state, now) => continue,
                Due::Beat => DisconnectReason::HeartbeatTimeout,
                Due::End(how, reason) => {
                    state.abort_if(how);
                    reason
                }
            };
            drop(state);
            self.close(reason);
            return;
        }
    }

    /// False: the peer is gone.
    fn beat(&self, state: &mut State, now: Instant) -> bool {
        let config = self.engine.config();
        if self.protocol() == ProtocolVersion::V4 && !state.ledger(|ledger| ledger.has_ping()) {
            self.ping(state, now);
            return true;
        }
        let is_slow = state.beat_at(now + config.ping_timeout);
        if !is_slow {
            state.abort_if(Ending::Abort);
        }
        is_slow
    }

    /// Sends a ping on a WebSocket if something is to be proven and no ping is on its way.
    pub(crate) fn ping_if_wanted(&self, state: &mut State, now: Instant) {
        if matches!(&state.carrier, Carrier::WebSocket(stream) if stream.ledger(|ledger| ledger.needs_ping())) {
            self.ping(state, now);
        }
    }

    fn ping(&self, state: &mut State, now: Instant) {
        let make = |id: u64| match self.protocol() {
            ProtocolVersion::V4 => packet("2"),
            ProtocolVersion::V3 => frame(Opcode::Ping, &id.to_be_bytes()),
        };
        match &mut state.carrier {
            Carrier::Polling(polling) => {
                let ping = make(polling.ledger.ping());
                polling.send(&[ping]);
            }
            // A transport that has failed ends the session by itself.
            Carrier::WebSocket(stream) => _ = stream.ping(make),
        }
        if self.protocol() == ProtocolVersion::V4 {
            state.beat_at(now + self.engine.config().ping_timeout);
        }
    }
}

impl State {
    /// Sets until when the device has to answer, or to send a ping. Returns whether it may have been slow since this was called last.
    pub(crate) fn beat_at(&mut self, at: Instant) -> bool {
        self.timers.beat = Some(at);
        matches!(&self.carrier, Carrier::WebSocket(stream) if stream.note_progress())
    }

    /// Whether the answer to an earlier ping of the device has not been taken by the kernel, or by a poll.
    pub(crate) fn has_unsent_pong(&self) -> bool {
        match (&self.carrier, self.pong) {
            (_, None) => false,
            (Carrier::Polling(polling), Some(number)) => number > polling.fetched,
            (Carrier::WebSocket(stream), Some(end)) => stream.offsets().1 < end,
        }
    }

    /// Answers a ping of the device.
    pub(crate) fn send_pong(&mut self, data: &str) {
        let number = self.push(&[packet(&format!("3{data}"))], WriteMode::Inline);
        self.pong = number.ok().map(|number| match &self.carrier {
            Carrier::Polling(_) => number,
            Carrier::WebSocket(stream) => stream.offsets().0,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use engineioxide_core::Str;
    use http::Extensions;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio_util::sync::CancellationToken;
    use transport::{Flushers, QueuedBytes, Spawn, Stream, websocket::Task};

    use super::*;
    use crate::{
        config::EngineIoConfig,
        engine::{Attachment, Engine},
        frame::text_message,
        model::{Handler, spawn},
        session::{Observer, Verdict},
        websocket::open,
    };

    /// Far below what is sent, and far above what the pipe holds.
    const MAX_UNREAD_BACKLOG: usize = 1_000;
    const FRAMES: usize = 200;
    const SECOND: Duration = Duration::from_secs(1);

    struct Blind;

    impl Observer for Blind {
        fn text(&self, _: &Session, _: &Str) -> Verdict {
            Verdict::Pass
        }

        fn binary(&self, _: &Session, _: &Bytes) -> Verdict {
            Verdict::Pass
        }

        fn alarm(&self, _: &Session) {}

        fn closed(&self, _: &Session, _: &DisconnectReason) {}
    }

    /// A session whose WebSocket takes 64 bytes until they are read.
    fn session(protocol: ProtocolVersion) -> (Arc<Session>, DuplexStream) {
        let engine = Engine::new(Arc::new(Handler), EngineIoConfig::default());
        let spawner: Spawn = Arc::new(|task| _ = spawn(task));
        engine.attach(Attachment {
            observer: Arc::new(Blind),
            speak_within: None,
            max_unread_backlog: MAX_UNREAD_BACKLOG,
            flushers: Flushers::inline(QueuedBytes::new(u64::MAX)),
            spawn: spawner.clone(),
            spawn_vital: spawner,
            done: CancellationToken::new(),
        });
        let (server, device) = duplex(64);
        let stream = Stream::other(server, engine.flushers());
        let (websocket, peer) = open(&engine, protocol, stream, Bytes::new(), &mut Extensions::new());
        let session = peer.session().clone();
        spawn(Task::new(async move { Some((websocket, peer)) }));
        (session, device)
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_is_not_heard_since_it_is_slow_stays_until_it_takes_nothing() {
        for protocol in [ProtocolVersion::V4, ProtocolVersion::V3] {
            let (session, mut device) = session(protocol);
            for _ in 0..FRAMES {
                session.send(&[text_message(&[&[b'a'; 48]])], WriteMode::Inline).unwrap();
            }
            for second in 0..100 {
                assert!(!session.is_closed(), "{protocol:?}, after {second} s");
                device.read_exact(&mut [0; 50]).await.unwrap();
                tokio::time::sleep(SECOND).await;
            }
            assert!(session.backlog() > MAX_UNREAD_BACKLOG, "nothing was read all the time");
            let stopped = Instant::now();
            session.closed().await;
            assert!(stopped.elapsed() <= 45 * SECOND, "{protocol:?}, after {:?}", stopped.elapsed());
        }
    }
}
