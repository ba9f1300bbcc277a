use std::sync::Arc;

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Str};
use tokio::time::Instant;

use crate::{
    payload::Inbound,
    reason::DisconnectReason,
    session::{Link, LinkState, Session, Verdict},
};

impl Session {
    /// Takes a packet of the device. An error ends the session with this reason.
    pub(crate) fn receive(self: &Arc<Self>, packet: Inbound) -> Result<(), DisconnectReason> {
        match packet {
            Inbound::Message(text) => self.receive_text(text),
            Inbound::Binary(data) => self.receive_binary(data),
            Inbound::Close => Err(DisconnectReason::TransportClose),
            Inbound::Ping(data) => self.receive_ping(&data),
            Inbound::Pong(_) => self.receive_pong(None),
            // They mean something during an upgrade alone, and Node's server passes over them, too.
            Inbound::Open | Inbound::Upgrade | Inbound::Noop => Ok(()),
        }
    }

    fn receive_text(self: &Arc<Self>, text: Str) -> Result<(), DisconnectReason> {
        let text = match self.observe(|observer| observer.text(self, &text)) {
            Verdict::Pass => text,
            Verdict::Replace(text) => text,
            Verdict::Drop => return Ok(()),
            Verdict::Close(reason) => return Err(reason),
        };
        if let Some(link) = self.link() {
            link.message(text);
        }
        Ok(())
    }

    fn receive_binary(self: &Arc<Self>, data: Bytes) -> Result<(), DisconnectReason> {
        match self.observe(|observer| observer.binary(self, &data)) {
            Verdict::Pass | Verdict::Replace(_) => {}
            Verdict::Drop => return Ok(()),
            Verdict::Close(reason) => return Err(reason),
        }
        if let Some(link) = self.link() {
            link.binary(data);
        }
        Ok(())
    }

    /// Only clients of Engine.IO 3 ping.
    fn receive_ping(&self, data: &str) -> Result<(), DisconnectReason> {
        if self.protocol() == ProtocolVersion::V4 {
            return Err(DisconnectReason::TransportError);
        }
        let mut state = self.lock();
        let config = self.engine.config();
        state.beat_at(Instant::now() + config.ping_interval + config.ping_timeout);
        // Answers must not pile up for a device that does not fetch them: one at a time is enough for it to know.
        if !state.has_unsent_pong() {
            state.send_pong(data);
        }
        self.arm_locked(&state);
        Ok(())
    }

    /// `id`: the ping that a pong of the WebSocket names. Some clients send a pong before the first ping: it means nothing.
    pub(crate) fn receive_pong(&self, id: Option<u64>) -> Result<(), DisconnectReason> {
        if self.protocol() == ProtocolVersion::V3 && id.is_none() {
            return Err(DisconnectReason::TransportError);
        }
        let mut state = self.lock();
        let pong = state.ledger(|ledger| ledger.pong(id));
        if !pong.is_answer {
            return Ok(());
        }
        let now = Instant::now();
        if self.protocol() == ProtocolVersion::V4 {
            state.timers.beat = Some(now + self.engine.config().ping_interval);
        }
        if pong.needs_ping {
            self.ping_if_wanted(&mut state, now);
        }
        self.arm_locked(&state);
        Ok(())
    }

    /// The connection to the library above, which hears of the session now if it has not before.
    pub(crate) fn link(self: &Arc<Self>) -> Option<Arc<dyn Link>> {
        let mut state = self.lock();
        state.timers.speak_by = None;
        match &state.link {
            LinkState::Up(link) => return Some(link.clone()),
            LinkState::Gone => return None,
            LinkState::Waits => {}
        }
        // The packets of a session arrive one at a time, so no other task makes a link meanwhile. The session may be closed meanwhile.
        state.link = LinkState::Gone;
        drop(state);
        let link = self.engine.link(self.clone());
        let mut state = self.lock();
        if let Some(reason) = state.closed.clone() {
            drop(state);
            link.disconnect(reason);
            return None;
        }
        state.link = LinkState::Up(link.clone());
        Some(link)
    }
}
