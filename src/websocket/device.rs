use std::{
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;
use transport::{
    Entry, Handle, Ledger, Outgoing, WriteMode,
    websocket::{Opcode, frame},
};

use super::{
    endpoint::Endpoint,
    heartbeat::{Beat, Heartbeat},
    phase::{Ended, Phase},
    timers::Timed,
};
use crate::auth::{ExpiryDue, Identity};
use crate::command::Admission;
use crate::hub::{Connection, Form, Frame, QueueError};
use crate::message::{CloseCode, CloseReason, ConnectionId, EventName, Payload, Transport};

/// How often is looked whether a new token is still being looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How a connection ends whose device does not answer, in logs and metrics.
pub(super) const PING_TIMEOUT: &str = "ping_timeout";

/// An event without a payload.
const NULL: &[u8] = b"null";

/// One device with an accepted token, to the end of its socket. Before that there is nothing but the socket and the task that waits for
/// the token.
pub(super) struct Device {
    id: ConnectionId,
    connected_at: Timestamp,
    address: IpAddr,
    user_agent: Arc<str>,
    stream: Handle,
    endpoint: Arc<Endpoint>,
    entry: Entry,
    state: Mutex<State>,
}

struct State {
    phase: Phase<Live>,
    heartbeat: Heartbeat,
    token_due: Option<Instant>,
    /// A new token is being looked at. Nothing is read from the device meanwhile, so its pongs and the end of the old token do not count.
    is_authenticating: bool,
}

struct Live {
    admission: Arc<Admission>,
    identity: Arc<Identity>,
}

/// The time in which a new token is being looked at.
pub(super) struct Authenticating(Arc<Device>);

impl Drop for Authenticating {
    fn drop(&mut self) {
        self.0.state.lock().is_authenticating = false;
    }
}

impl Device {
    pub(super) fn new(endpoint: &Arc<Endpoint>, address: IpAddr, user_agent: Arc<str>, stream: Handle) -> Arc<Self> {
        let deps = &endpoint.deps;
        let heartbeat = Heartbeat::new(deps.ping_interval, deps.ping_timeout, Instant::now());
        Arc::new(Self {
            id: ConnectionId::random(),
            connected_at: deps.clock.now(),
            address,
            user_agent,
            stream,
            endpoint: endpoint.clone(),
            entry: Entry::default(),
            state: Mutex::new(State { phase: Phase::Opening, heartbeat, token_due: None, is_authenticating: false }),
        })
    }

    /// The hub has let it in, as this user's.
    pub(super) fn admit(self: &Arc<Self>, admission: Arc<Admission>, identity: Identity) {
        let live = Box::new(Live { admission, identity: Arc::new(identity) });
        // It may have been closed meanwhile.
        let not_kept = self.state.lock().phase.admit(live);
        drop(not_kept);
        self.endpoint.timers.add(self.id, self);
        self.watch_token();
    }

    /// A new token is being looked at, until what this returns is dropped.
    pub(super) fn authenticating(self: &Arc<Self>) -> Authenticating {
        self.state.lock().is_authenticating = true;
        Authenticating(self.clone())
    }

    /// What its token says. `None`: it is live no more.
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        self.state.lock().phase.live().map(|live| live.identity.clone())
    }

    /// Replaces what its token says.
    pub(super) fn identify(&self, identity: Identity) {
        let mut identity = Arc::new(identity);
        if let Some(live) = self.state.lock().phase.live() {
            std::mem::swap(&mut live.identity, &mut identity);
        }
        self.watch_token();
    }

    /// The device has said something, whatever it is.
    pub(super) fn heard(&self) {
        let mut state = self.state.lock();
        state.heartbeat.heard(Instant::now());
        self.arm(&state);
    }

    /// The device has answered a ping.
    pub(super) fn pong(&self, payload: &[u8]) {
        let Ok(id) = payload.try_into().map(u64::from_be_bytes) else {
            return;
        };
        // The pong of a heartbeat may prove nothing, and a message behind it still needs its ping.
        if self.stream.ledger(|ledger| ledger.pong(Some(id))).needs_ping {
            self.ping();
        }
    }

    /// Asks the device whether it is there, unless a ping is on its way already.
    fn ping(&self) {
        // A stream that has ended ends the connection by itself.
        let _ = self.stream.ping(|id| frame(Opcode::Ping, &id.to_be_bytes()));
    }

    /// Ends the stream and throws away what was not sent.
    pub(super) fn abort(&self) {
        self.stream.abort();
    }

    /// The socket has ended: nothing is accepted any more.
    pub(super) fn end(&self) -> Ended {
        let before = self.state.lock().phase.end();
        self.endpoint.timers.remove(self.id);
        // What is not proven never will be.
        let in_flight = self.stream.ledger(Ledger::end);
        drop(in_flight);
        Ended::from(&before)
    }

    /// Closes the connection if its token has expired, and has it looked at again when the token does.
    fn watch_token(&self) {
        let mut state = self.state.lock();
        let Some(live) = state.phase.live() else {
            return;
        };
        let (due, next) = self.endpoint.deps.expiry.due(live.identity.expires_at, &mut None);
        let admission = (due == ExpiryDue::Close).then(|| live.admission.clone());
        state.token_due = next.map(|next| Instant::now() + next);
        self.arm(&state);
        drop(state);
        if let Some(admission) = admission {
            admission.close(&CloseCode::Expired.into());
        }
    }

    fn arm(&self, state: &State) {
        self.endpoint.timers.arm(self.id, &self.entry, state.next());
    }
}

impl State {
    /// When there is something to do next.
    fn next(&self) -> Instant {
        let beat = self.heartbeat.due();
        self.token_due.map_or(beat, |token| token.min(beat))
    }
}

impl Timed for Device {
    fn entry(&self) -> &Entry {
        &self.entry
    }

    fn fire(&self, now: Instant) -> Option<Instant> {
        if self.state.lock().is_authenticating {
            return Some(now + LOOK_AGAIN);
        }
        if self.state.lock().token_due.take_if(|due| *due <= now).is_some() {
            self.watch_token();
        }
        let mut state = self.state.lock();
        state.phase.live()?;
        match state.heartbeat.beat(now) {
            Beat::Early => {}
            Beat::Ask => {
                self.ping();
                self.stream.note_progress();
            }
            Beat::Gone if self.stream.note_progress() => state.heartbeat.extend(now),
            Beat::Gone => {
                let live = state.phase.silence();
                drop(state);
                if let Some(live) = live {
                    // Before the stream has ended: an emit that finds that would take it for the device's end.
                    live.admission.ended(PING_TIMEOUT);
                }
                self.stream.abort();
                return None;
            }
        }
        Some(state.next())
    }

    fn look_at_token(&self) {
        let mut state = self.state.lock();
        if state.token_due.is_some() {
            state.token_due = Some(Instant::now());
            self.arm(&state);
        }
    }
}

impl Connection for Device {
    fn id(&self) -> ConnectionId {
        self.id
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn address(&self) -> IpAddr {
        self.address
    }

    fn user_agent(&self) -> &str {
        &self.user_agent
    }

    fn connected_at(&self) -> Timestamp {
        self.connected_at
    }

    fn listens_to(&self, event: &EventName) -> bool {
        self.endpoint.config.events.iter().any(|pattern| pattern.matches(event))
    }

    fn has_room(&self) -> bool {
        self.stream.has_room(self.endpoint.deps.bounds())
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_room(cx, self.endpoint.deps.bounds())
    }

    fn backlog(&self) -> u64 {
        self.stream.backlog() as u64
    }

    fn enqueue(&self, frame: &Frame, mode: WriteMode) -> Result<(), QueueError> {
        let bytes = frame.written.get_or_write(Form::Payload, || payload_frame(&frame.payload));
        let (frames, bounds) = (std::slice::from_ref(bytes), self.endpoint.deps.bounds());
        let (is_exempt, unproven) = (frame.on_join, frame.unproven.as_ref());
        self.stream.deliver(&Outgoing { frames, generation: 0, is_exempt, is_last: false, unproven, bounds }, mode)?;
        if unproven.is_some() && self.stream.ledger(|ledger| ledger.needs_ping()) {
            self.ping();
        }
        Ok(())
    }

    fn touch(&self) {
        self.stream.touch();
    }

    fn close(&self, reason: &CloseReason) {
        let Some(before) = self.state.lock().phase.close(reason) else {
            return;
        };
        drop(before);
        if !reason.code.is_announced() {
            self.stream.abort();
            return;
        }
        if self.stream.backlog() > self.endpoint.deps.queue_bytes {
            // The device would be cut off before it has all of it. So that there is room to tell it why, it goes at once.
            self.stream.drop_unwritten();
        }
        self.stream.cut();
    }
}

/// A payload, alone in a frame.
fn payload_frame(payload: &Payload) -> Bytes {
    match payload {
        Payload::None => frame(Opcode::Text, NULL),
        Payload::Json(raw) => frame(Opcode::Text, raw.get().as_bytes()),
        Payload::Binary(bytes) => frame(Opcode::Binary, bytes),
    }
}
