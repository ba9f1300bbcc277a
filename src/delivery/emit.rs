use std::{
    convert::Infallible,
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::{sync::oneshot, time::Instant};

use super::{Delivery, acks::Asking, collapse::Topic};
use crate::cluster::{Fingerprint, KeyReused, RetainedFull, RetainedValue, Scope};
use crate::hub::{Counts, Frame, Turn};
use crate::message::{Audience, Emit, EventName, MessageId, Payload, Receipt, RoomName, UserId};
use crate::telemetry;

/// Makes an emit's repetition harmless.
#[derive(Clone, Debug)]
pub struct Once {
    caller: Arc<str>,
    key: Arc<str>,
    asked: Fingerprint,
}

/// Why an emit was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// No more payloads can be retained.
    #[error("retain.max_entries is met")]
    RetainedFull,
    /// No more of this room.
    #[error("retain.max_room_bytes is met")]
    RetainedRoomFull,
    /// No more collapse keys can have a window.
    #[error("collapse.max_keys is met")]
    CollapseFull {
        /// When some of them are closed.
        retry_after: Duration,
    },
}

impl From<KeyReused> for Refused {
    fn from(_: KeyReused) -> Self {
        Self::KeyReused
    }
}

impl From<RetainedFull> for Refused {
    fn from(full: RetainedFull) -> Self {
        match full {
            RetainedFull::Entries => Self::RetainedFull,
            RetainedFull::RoomBytes => Self::RetainedRoomFull,
        }
    }
}

/// An emit that is on its way.
pub(super) struct Accepted {
    pub(super) emit: Emit,
    pub(super) message_id: MessageId,
    /// Later emits have larger ones.
    pub(super) number: u64,
    time: Timestamp,
    pub(super) received: Instant,
    /// Kept until it is sent.
    sent: Option<SentSignal>,
}

/// Goes when an emit is sent, or will not be, though its answer may wait for acknowledgements.
pub type SentSignal = oneshot::Sender<Infallible>;

impl Once {
    /// For this emit, or the same to another audience, by this caller (the name of the API key) under this idempotency key.
    pub fn new(caller: Arc<str>, key: Arc<str>, emit: &Emit) -> Self {
        Self { caller, key, asked: fingerprint(emit) }
    }

    fn scope(&self, audience: &Audience) -> Scope {
        Scope { caller: self.caller.clone(), audience: audience.clone(), key: self.key.clone() }
    }
}

impl Delivery {
    /// Sends an event to its audience; `received` is when it was asked for, and `sent` goes once it is sent. Once begun it is finished, even if the caller goes away: half a room would have the
    /// event, and a repetition would send it twice. So `done` is told in any case.
    pub async fn emit(
        &self,
        emit: Emit,
        once: Option<Once>,
        received: Instant,
        sent: Option<SentSignal>,
        done: impl FnOnce(Result<Receipt, Refused>) + Send + 'static,
    ) -> Result<Receipt, Refused> {
        let delivery = self.clone();
        let mut sending = Box::pin(async move {
            let result = delivery.send_once(emit, once, received, sent).await;
            done(result.clone());
            result
        });
        // Nearly always this is all: no other has the room's turn, and the room is small.
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await {
            return done;
        }
        let (answer, answered) = oneshot::channel();
        self.inner.lifecycle.spawn(async move {
            let _ = answer.send(sending.await);
        });
        match answered.await {
            Ok(done) => done,
            // A hard stop dropped the task: the caller's connection goes the same way.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether the key was used for another emit to this audience.
    pub fn is_reused(&self, audience: &Audience, once: &Once) -> bool {
        self.inner.idempotency.is_reused(&once.scope(audience), once.asked)
    }

    async fn send_once(
        &self,
        emit: Emit,
        once: Option<Once>,
        received: Instant,
        sent: Option<SentSignal>,
    ) -> Result<Receipt, Refused> {
        let now = self.inner.clock.now();
        let number = self.inner.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        let mut accepted = Accepted { emit, message_id: MessageId::at(now), number, time: now, received, sent };
        let Some(once) = once else {
            return self.pass(accepted).await;
        };
        let scope = once.scope(&accepted.emit.audience);
        if self.inner.idempotency.knows(&scope) {
            // It will not be sent, and the first one's answer may wait for acknowledgements.
            accepted.sent = None;
        }
        self.inner.idempotency.once(scope, once.asked, self.pass(accepted)).await
    }

    async fn pass(&self, accepted: Accepted) -> Result<Receipt, Refused> {
        match accepted.emit.collapse_key.clone() {
            Some(key) => self.collapse(accepted, key).await,
            None => self.send(accepted).await,
        }
    }

    pub(super) async fn send(&self, accepted: Accepted) -> Result<Receipt, Refused> {
        let room = accepted.emit.audience.room();
        let overtakes =
            accepted.emit.collapse_key.is_none() && self.inner.collapse.has_waiting(|| Topic::of(&accepted.emit));
        // What is retained is for those who are not there yet, so the turn is wanted whoever is.
        let turn = if accepted.emit.retain || overtakes {
            Some(self.hub().turn_in_line(&room).await)
        } else {
            self.hub().turn_in_line_if_occupied(&room).await
        };
        if overtakes && let Some(turn) = &turn {
            // It came before, and without a key nothing asks for another order.
            for earlier in self.inner.collapse.take_earlier(&Topic::of(&accepted.emit), accepted.number) {
                // Rare, and so kept out of the way of the rest.
                Box::pin(self.send_deferred(earlier, turn)).await;
            }
        }
        let (receipt, asking) = self.send_in(turn.as_ref(), accepted).await?;
        drop(turn);
        match asking {
            None => Ok(receipt),
            Some(asking) => Ok(Box::pin(self.acknowledged(receipt, asking)).await),
        }
    }

    /// Sends in a room's turn. There is none if nobody is in the room and nothing is to be retained. Whoever is asked for an
    /// acknowledgement is to be waited for when the turn is over.
    pub(super) async fn send_in(
        &self,
        turn: Option<&Turn<'_>>,
        accepted: Accepted,
    ) -> Result<(Receipt, Option<Asking>), Refused> {
        let Accepted { emit, message_id, number, time, received, sent: _sent } = accepted;
        let room = emit.audience.room();
        // Wrapped for somebody alone: the same large payload may go to a thousand users who are away.
        let payload = if emit.envelope && turn.is_some() { enveloped(&emit, time) } else { emit.payload.clone() };
        if emit.retain && !self.inner.collapse.is_outdated(|| Topic::of(&emit), number) {
            // An envelope around nothing is not nothing, which takes the value away.
            let is_empty = matches!(emit.payload, Payload::None);
            let kept = if is_empty { Payload::None } else { payload.clone() };
            let value = RetainedValue { payload: kept, except_users: emit.except.users.clone() };
            self.inner.retained.put(&room, &emit.event, value)?;
            self.inner.collapse.note_retained(|| Topic::of(&emit), number);
        }
        let frame = Frame { volatile: emit.volatile, ..Frame::new(emit.event, payload) };
        let (counts, asking) = match (turn, emit.ack) {
            (Some(turn), None) => (turn.fan_out(frame, &emit.except).await, None),
            // Out of the way of all that ask for nothing.
            (Some(turn), Some(ack)) => Box::pin(Asking::send(turn, frame, &emit.except, *ack)).await,
            (None, _) => (Counts::default(), None),
        };
        let Counts { matched, enqueued, dropped } = counts;
        telemetry::fanned_out(enqueued, dropped, received.elapsed());
        tracing::debug!(message.id = %message_id, room.name = %room, matched, enqueued, dropped, "emitted");
        Ok((Receipt { matched, enqueued, dropped, ..Receipt::new(message_id) }, asking))
    }

    /// Whether an event could be kept, and could wait, for each of these users, as far as can be told before.
    pub fn check_capacity(&self, emit: &Emit, users: &[UserId]) -> Result<(), Refused> {
        if emit.collapse_key.is_some() {
            self.inner.collapse.has_room_for(users.len())?;
        }
        if !emit.retain {
            return Ok(());
        }
        let rooms: Vec<_> = users.iter().map(RoomName::of_user).collect();
        self.can_retain(&rooms, &emit.event, &emit.payload)
    }

    pub(super) fn can_retain<'a>(
        &self,
        rooms: impl IntoIterator<Item = &'a RoomName>,
        event: &EventName,
        payload: &Payload,
    ) -> Result<(), Refused> {
        Ok(self.inner.retained.has_room_for(rooms, event, payload)?)
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    event: &'a str,
    timestamp: String,
    data: Option<&'a RawValue>,
}

/// Wraps a payload as `{ event, timestamp, data }`; the timestamp is RFC 3339 in UTC with three decimals.
fn enveloped(emit: &Emit, now: Timestamp) -> Payload {
    let data = match &emit.payload {
        Payload::Json(raw) => Some(&**raw),
        Payload::None => None,
        Payload::Binary(_) => return emit.payload.clone(),
    };
    let envelope = Envelope { event: emit.event.as_str(), timestamp: format!("{now:.3}"), data };
    serde_json::value::to_raw_value(&envelope).map_or(Payload::None, |raw| Payload::Json(raw.into()))
}

/// A digest of all that makes two emits to one audience the same. Each part is preceded by its length, so that none runs into the next.
fn fingerprint(emit: &Emit) -> Fingerprint {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    part(emit.event.as_str().as_bytes());
    match &emit.payload {
        Payload::None => part(b"none"),
        Payload::Json(raw) => {
            part(b"json");
            part(raw.get().as_bytes());
        }
        Payload::Binary(bytes) => {
            part(b"binary");
            part(bytes);
        }
    }
    part(&[u8::from(emit.volatile), u8::from(emit.envelope), u8::from(emit.retain)]);
    part(emit.collapse_key.as_deref().unwrap_or_default().as_bytes());
    // What is kept of the replies is no part of what was asked for.
    part(emit.ack.as_ref().map_or_else(String::new, |ack| format!("{:?} {:?}", ack.mode, ack.timeout)).as_bytes());
    let except = &emit.except;
    part(&[except.connections.len(), except.users.len(), except.rooms.len()].map(usize::to_le_bytes).concat());
    except.connections.iter().for_each(|id| part(id.to_string().as_bytes()));
    except.users.iter().for_each(|user| part(user.as_str().as_bytes()));
    except.rooms.iter().for_each(|room| part(room.as_str().as_bytes()));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::Config;
    use crate::delivery::Parameters;
    use crate::lifecycle::Lifecycle;
    use crate::message::{AckMode, AckRequest, EventName, Exceptions, RoomName, UserId};

    fn emit(json: &str) -> Emit {
        Emit {
            audience: Audience::Everyone,
            except: Exceptions::default(),
            event: EventName::new("earnings:new").unwrap(),
            payload: Payload::json(json.into()).unwrap(),
            volatile: false,
            envelope: true,
            retain: false,
            collapse_key: None,
            ack: None,
        }
    }

    fn json(payload: &Payload) -> &str {
        let Payload::Json(raw) = payload else { panic!("not JSON") };
        raw.get()
    }

    #[test]
    fn an_envelope_has_three_decimals_and_the_payload_to_the_letter() {
        for (time, text) in [
            ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00.000Z"),
            ("2026-01-31T09:30:00.0129Z", "2026-01-31T09:30:00.012Z"),
        ] {
            let payload = enveloped(&emit(r#"{"b":1.10,"a":2}"#), time.parse().unwrap());
            let expected = format!(r#"{{"event":"earnings:new","timestamp":"{text}","data":{{"b":1.10,"a":2}}}}"#);
            assert_eq!(json(&payload), expected);
        }
    }

    #[test]
    fn an_envelope_without_a_payload_holds_null() {
        let emit = Emit { payload: Payload::None, ..emit("1") };
        let payload = enveloped(&emit, Timestamp::UNIX_EPOCH);
        assert!(json(&payload).ends_with(r#""data":null}"#));
    }

    #[tokio::test]
    async fn a_caller_may_go_away_and_it_is_done_and_told_all_the_same() {
        let config = Config::defaults().unwrap();
        let delivery = Delivery::new(Parameters {
            limits: &config.limits,
            retain: config.retain,
            collapse: config.collapse,
            waiting_bytes: config.socketio.queue_bytes,
            clock: Clock::system(),
            lifecycle: Lifecycle::new(),
        });
        let turn = delivery.hub().turn(&RoomName::everyone()).await;
        let (done, told) = oneshot::channel();
        let tell = move |result: Result<Receipt, Refused>| done.send(result).expect("somebody listens");
        let mut emitting =
            Box::pin(delivery.emit(Emit { retain: true, ..emit("1") }, None, Instant::now(), None, tell));
        assert!(futures_util::poll!(emitting.as_mut()).is_pending(), "another has the turn");
        drop(emitting);
        drop(turn);
        assert!(told.await.unwrap().is_ok());
        assert_eq!(delivery.retained_in(&RoomName::everyone()).len(), 1);
    }

    #[test]
    fn every_part_of_an_emit_is_in_its_fingerprint() {
        let user = |id| UserId::new(id).unwrap();
        let except = |users| Exceptions { users, ..Exceptions::default() };
        let ack = |mode, seconds| Some(AckRequest::new(mode, Duration::from_secs(seconds)).into());
        let emits = [
            emit("1"),
            emit("2"),
            Emit { payload: Payload::None, ..emit("1") },
            Emit { payload: Payload::Binary("1".into()), ..emit("1") },
            Emit { event: EventName::new("e").unwrap(), ..emit("1") },
            Emit { volatile: true, ..emit("1") },
            Emit { envelope: false, ..emit("1") },
            Emit { retain: true, ..emit("1") },
            Emit { collapse_key: Some("k".into()), ..emit("1") },
            Emit { ack: ack(AckMode::Any, 1), ..emit("1") },
            Emit { ack: ack(AckMode::All, 1), ..emit("1") },
            Emit { ack: ack(AckMode::All, 2), ..emit("1") },
            Emit { except: except(vec![user("12")]), ..emit("1") },
            Emit { except: except(vec![user("1"), user("2")]), ..emit("1") },
        ];
        let fingerprints: std::collections::HashSet<_> = emits.iter().map(fingerprint).collect();
        assert_eq!(fingerprints.len(), emits.len());
        assert_eq!(fingerprint(&emit("1")), fingerprint(&emit("1")));
    }
}
