//! A session: from the request that opens it to its end, over a change of transport.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Sid, Str, TransportType};
use http::Extensions;
use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::Instant};
use transport::{Entry, Handle, Ledger, QueuedBytes, Wheel};

pub use crate::timers::Ending;
use crate::{config::EngineIoConfig, polling::Polling, reason::DisconnectReason, timers::Timers};

/// A session of Engine.IO.
pub struct Session {
    id: Sid,
    protocol: ProtocolVersion,
    /// Binary packets need not be in base64 (Engine.IO 3).
    pub(crate) supports_binary: bool,
    pub(crate) engine: Arc<dyn Host>,
    context: Option<Context>,
    state: Mutex<State>,
    /// The WebSocket that carries the session, once one does: the same as in the state, for packets that need nothing else of that.
    pub(crate) stream: OnceLock<Handle>,
    closed: Notify,
    pub(crate) entry: Entry,
}

/// What sessions need of their engine.
pub(crate) trait Host: Send + Sync {
    fn config(&self) -> &EngineIoConfig;
    fn wheel(&self) -> &Wheel<Sid>;
    fn observer(&self) -> Option<&dyn Observer>;
    fn speak_within(&self) -> Option<Duration>;
    fn max_unread_backlog(&self) -> usize;
    fn queued(&self) -> &Arc<QueuedBytes>;
    fn forget(&self, id: Sid);
    /// Tells the library above of a session.
    fn link(&self, session: Arc<Session>) -> Arc<dyn Link>;
}

/// Sees what sessions do before the library above does. No lock of the engine is held meanwhile.
pub trait Observer: Send + Sync + 'static {
    /// A device has sent a text message, without the packet's type.
    fn text(&self, session: &Session, text: &Str) -> Verdict;

    /// A device has sent a binary message.
    fn binary(&self, session: &Session, data: &Bytes) -> Verdict;

    /// The time of [`Session::set_alarm`] has come.
    fn alarm(&self, session: &Session);

    /// A session has ended. It is called once for each.
    fn closed(&self, session: &Session, reason: &DisconnectReason);
}

/// What becomes of a message.
#[derive(Clone, Debug, Default)]
pub enum Verdict {
    /// The library above gets it.
    #[default]
    Pass,
    /// The library above gets this text instead.
    Replace(Str),
    /// The message is dropped.
    Drop,
    /// The session ends.
    Close(DisconnectReason),
}

/// A session's connection to the library above, without the type of what the library keeps.
pub(crate) trait Link: Send + Sync {
    fn message(&self, text: Str);
    fn binary(&self, data: Bytes);
    fn disconnect(&self, reason: DisconnectReason);
}

/// An extension of the request that opens a session: what its server keeps of the session.
#[derive(Clone)]
pub struct Context(pub Arc<dyn Any + Send + Sync>);

/// Why a session accepts no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// As many packets wait as may.
    #[error("the queue is full")]
    Full,
    /// The session has ended.
    #[error("the session has ended")]
    Closed,
}

pub(crate) struct State {
    pub(crate) carrier: Carrier,
    /// An upgrade is under way.
    pub(crate) is_upgrading: bool,
    /// The device's probe was answered: polls are released so that it can leave polling.
    pub(crate) is_probed: bool,
    /// The stream of the upgrade, once there is one.
    pub(crate) probe: Option<Handle>,
    pub(crate) link: LinkState,
    pub(crate) timers: Timers,
    /// Polls that were released for the upgrade that is under way.
    pub(crate) releases: u32,
    /// The last answer to a ping of the device: the number of its packet, or where it ends in the bytes of the WebSocket.
    pub(crate) pong: Option<u64>,
    pub(crate) closed: Option<DisconnectReason>,
}

/// The time between two polls of a device that listens: a round trip or two.
const POLL_PAUSE: Duration = Duration::from_millis(500);

/// What carries a session's packets.
pub(crate) enum Carrier {
    Polling(Box<Polling>),
    WebSocket(Handle),
}

/// The connection to the library above.
pub(crate) enum LinkState {
    /// It has not heard of the session yet.
    Waits,
    Up(Arc<dyn Link>),
    Gone,
}

impl Session {
    /// Opens a session. Nothing is kept of the request but its [`Context`].
    pub(crate) fn open(engine: Arc<dyn Host>, opening: Opening, extensions: &mut Extensions) -> Arc<Self> {
        let Opening { protocol, supports_binary, stream } = opening;
        let context = extensions.remove::<Context>();
        let carrier = match stream.clone() {
            Some(stream) => Carrier::WebSocket(stream),
            None => Carrier::Polling(Box::new(Polling::new(engine.queued().clone()))),
        };
        let state = State {
            carrier,
            is_upgrading: false,
            is_probed: false,
            probe: None,
            link: LinkState::Waits,
            timers: Timers::default(),
            releases: 0,
            pong: None,
            closed: None,
        };
        let session = Arc::new(Self {
            id: Sid::new(),
            protocol,
            supports_binary,
            engine,
            context,
            state: Mutex::new(state),
            stream: stream.map_or_else(OnceLock::new, OnceLock::from),
            closed: Notify::new(),
            entry: Entry::default(),
        });
        let config = session.engine.config();
        let beat = match protocol {
            ProtocolVersion::V4 => config.ping_interval,
            ProtocolVersion::V3 => config.ping_interval + config.ping_timeout,
        };
        let now = Instant::now();
        let mut state = session.lock();
        state.timers.beat = Some(now + beat);
        state.timers.speak_by = session.engine.speak_within().map(|within| now + within);
        if matches!(state.carrier, Carrier::Polling(_)) {
            state.timers.poll_by = Some(now + session.polls_within());
        }
        drop(state);
        session.arm();
        session
    }

    /// The session's id: a bearer secret.
    pub fn id(&self) -> Sid {
        self.id
    }

    /// The version of Engine.IO that it speaks.
    pub fn protocol(&self) -> ProtocolVersion {
        self.protocol
    }

    /// What the server keeps of it, if that is a `T`.
    pub fn context<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.context.clone()?.0.downcast().ok()
    }

    /// The transport that it uses now.
    pub fn transport_type(&self) -> TransportType {
        match self.lock().carrier {
            Carrier::Polling(_) => TransportType::Polling,
            Carrier::WebSocket(_) => TransportType::Websocket,
        }
    }

    /// Whether the device hears soon what is sent now: it has a WebSocket, or a poll, or had one half a second ago.
    pub fn is_listening(&self) -> bool {
        match &self.lock().carrier {
            Carrier::Polling(polling) => polling.is_answering || polling.last_polled.elapsed() < POLL_PAUSE,
            Carrier::WebSocket(_) => true,
        }
    }

    /// Ends the session's transport after a delay, and then the session. It is safe to call with any lock held: what it leads to
    /// happens in a task of its own, even if the delay is zero. Of two calls the earlier time counts.
    pub fn end_after(&self, delay: Duration, how: Ending, reason: DisconnectReason) {
        let mut state = self.lock();
        let at = Instant::now() + delay;
        if state.closed.is_none() && state.timers.end.as_ref().is_none_or(|(other, ..)| at < *other) {
            state.timers.end = Some((at, how, reason));
        }
        if how == Ending::Abort
            && delay.is_zero()
            && let Carrier::WebSocket(stream) = &state.carrier
        {
            stream.abort();
        }
        self.arm_locked(&state);
    }

    /// Ends the session after a delay unless this is called again with `None`: for one that nobody uses. It takes nothing back that
    /// [`Session::end_after`] has planned.
    pub fn end_if_idle(&self, within: Option<Duration>) {
        let mut state = self.lock();
        state.timers.idle_by = within.map(|within| Instant::now() + within);
        self.arm_locked(&state);
    }

    /// Sets or clears the one deadline that the server may have for a session: when it passes, the session ends with
    /// [`DisconnectReason::PacketParsingError`].
    pub fn set_deadline(&self, within: Option<Duration>) {
        let mut state = self.lock();
        state.timers.deadline = within.map(|within| Instant::now() + within);
        self.arm_locked(&state);
    }

    /// Sets or clears the one alarm that the server may have for a session: see [`crate::engine::Observer::alarm`].
    pub fn set_alarm(&self, within: Option<Duration>) {
        let mut state = self.lock();
        state.timers.alarm = within.map(|within| Instant::now() + within);
        self.arm_locked(&state);
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// Waits until the session has ended. Cancel safe.
    pub async fn closed(&self) {
        let closed = self.closed.notified();
        tokio::pin!(closed);
        closed.as_mut().enable();
        if !self.is_closed() {
            closed.await;
        }
    }

    /// Ends the session. The server and the library above hear of it before this returns, so no lock of theirs may be held.
    pub fn close(&self, reason: DisconnectReason) {
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(reason.clone());
        state.timers = Timers::default();
        let link = std::mem::replace(&mut state.link, LinkState::Gone);
        if let Some(probe) = state.probe.take() {
            probe.cut();
        }
        state.ledger(Ledger::wake);
        match &mut state.carrier {
            // The poll that is held is answered with what waits.
            Carrier::Polling(polling) if polling.is_answering => polling.wake(),
            Carrier::Polling(polling) => drop(polling.drain()),
            Carrier::WebSocket(stream) => stream.cut(),
        }
        drop(state);
        self.engine.forget(self.id);
        self.closed.notify_waiters();
        self.observe(|observer| observer.closed(self, &reason));
        if let LinkState::Up(link) = link {
            link.disconnect(reason);
        }
    }

    /// From now on a WebSocket carries the session.
    pub(crate) fn carry_on(&self, state: &mut State, stream: Handle) {
        state.carrier = Carrier::WebSocket(stream.clone());
        // A session changes its transport once.
        let _ = self.stream.set(stream);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Lets the server see something. No lock may be held.
    pub(crate) fn observe<T: Default>(&self, see: impl FnOnce(&dyn Observer) -> T) -> T {
        self.engine.observer().map(see).unwrap_or_default()
    }

    pub(crate) fn arm(&self) {
        self.arm_locked(&self.lock());
    }

    pub(crate) fn arm_locked(&self, state: &State) {
        if let Some(at) = state.timers.next() {
            self.engine.wheel().arm(self.id, &self.entry, at);
        }
    }
}

/// How a session begins.
pub(crate) struct Opening {
    pub(crate) protocol: ProtocolVersion,
    pub(crate) supports_binary: bool,
    /// The stream of a session that begins as a WebSocket.
    pub(crate) stream: Option<Handle>,
}

impl State {
    /// Has the held poll answered, with nothing if nothing waits.
    pub(crate) fn release_poll(&mut self) {
        if let Carrier::Polling(polling) = &mut self.carrier {
            polling.is_released = true;
            polling.wake();
        }
    }

    pub(crate) fn abort_if(&self, how: Ending) {
        if let (Ending::Abort, Carrier::WebSocket(stream)) = (how, &self.carrier) {
            stream.abort();
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The id is a bearer secret.
        f.debug_struct("Session").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}
