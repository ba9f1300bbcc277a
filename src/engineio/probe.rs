//! Upgrades ("Upgrade" in the protocol): polling goes on until the device sends `5` on the WebSocket. An attempt that fails
//! before leaves the session as it was.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::{Instant, timeout};
use transport::{
    Handle, Stream, WriteMode,
    websocket::{Message, WebSocket},
};

use crate::{
    engine::Engine,
    frame::packet,
    reply::{Body, RequestError},
    session::{Carrier, Session},
    websocket::{SessionPeer, accept, agree},
};

/// Agrees to the WebSocket of an upgrade.
pub(crate) fn upgrade<B>(
    engine: &Engine,
    session: Arc<Session>,
    request: Request<B>,
) -> Result<Response<Body>, RequestError> {
    let upgrading = Upgrading::begin(session).ok_or(RequestError::BadRequest)?;
    agree(engine, request, move |stream, read, _| run(upgrading, stream, read))
}

/// The one upgrade that a session may attempt at a time.
pub(crate) struct Upgrading(Arc<Session>);

impl Upgrading {
    pub(crate) fn begin(session: Arc<Session>) -> Option<Self> {
        let mut state = session.lock();
        let may_upgrade = matches!(state.carrier, Carrier::Polling(_)) && !state.is_upgrading && state.closed.is_none();
        state.is_upgrading |= may_upgrade;
        drop(state);
        may_upgrade.then(|| Self(session))
    }
}

impl Drop for Upgrading {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_upgrading = false;
        state.is_probed = false;
        state.releases = 0;
        state.probe = None;
    }
}

pub(crate) async fn run(upgrading: Upgrading, stream: Stream, read: Bytes) -> Option<(WebSocket, SessionPeer)> {
    let session = upgrading.0.clone();
    let mut websocket = accept(&*session.engine, stream, read);
    session.lock().probe = Some(websocket.handle().clone());
    if session.is_closed() {
        return None;
    }
    let within = session.engine.config().upgrade_timeout;
    let is_upgraded = matches!(timeout(within, probe(&session, &mut websocket)).await, Ok(true));
    // Without a Close frame if it has failed: python-socketio takes one for the answer to its probe, and fails on it.
    let outcome = if is_upgraded { "completed" } else { "failed" };
    metrics::counter!("engineio_upgrades_total", "outcome" => outcome).increment(1);
    drop(upgrading);
    is_upgraded.then(|| (websocket, SessionPeer::new(session)))
}

/// Answers the probe, and waits until the device leaves polling. False: it did not.
async fn probe(session: &Session, websocket: &mut WebSocket) -> bool {
    if !is_next(websocket, "2probe").await {
        return false;
    }
    websocket.handle().enqueue(&[packet("3probe")], WriteMode::Inline);
    session.answered_probe();
    if !is_next(websocket, "5").await {
        return false;
    }
    let stream = websocket.handle().clone();
    poll_fn(|cx| session.poll_switch(cx, &stream)).await
}

/// Whether this is the next message.
async fn is_next(websocket: &mut WebSocket, expected: &str) -> bool {
    loop {
        match websocket.next().await {
            Ok(Message::Text(text)) => return text == expected,
            Ok(Message::Ping | Message::Pong(_)) => {}
            Ok(Message::Binary(_)) | Err(_) => return false,
        }
    }
}

impl Session {
    /// The device may leave polling: its poll is released.
    fn answered_probe(&self) {
        let mut state = self.lock();
        state.is_probed = true;
        if let Carrier::Polling(polling) = &state.carrier
            && polling.is_answering
        {
            state.release_later();
            self.arm_locked(&state);
        }
    }

    /// Moves what was not fetched to the WebSocket, in order; from here on it carries the session. Waits for the fate of the last
    /// answer, and for a POST to end: the device has completed both, and the server notices in a moment. False: the session has ended.
    fn poll_switch(&self, cx: &mut Context<'_>, stream: &Handle) -> Poll<bool> {
        let mut state = self.lock();
        if state.closed.is_some() {
            return Poll::Ready(false);
        }
        let Carrier::Polling(polling) = &mut state.carrier else {
            return Poll::Ready(false);
        };
        if polling.is_settling() || polling.is_posting {
            polling.switching = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (frames, ledger) = (polling.drain(), std::mem::take(&mut polling.ledger));
        polling.wake();
        stream.adopt(ledger, &frames);
        self.carry_on(&mut state, stream.clone());
        state.pong = None;
        state.timers.poll_by = None;
        state.timers.release = None;
        self.ping_if_wanted(&mut state, Instant::now());
        self.arm_locked(&state);
        Poll::Ready(true)
    }
}
