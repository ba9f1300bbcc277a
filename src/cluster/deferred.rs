use std::{sync::Arc, time::Duration};

use prost::Message;

use super::codec::{decode_emit, encode_emit};
use crate::message::{Emit, MessageId, Payload};
use crate::proto::bus::v1;

/// An emit that waits at the engine for the end of a collapse window. Any node may publish it then.
#[derive(Clone, Debug, PartialEq)]
pub struct Deferred {
    /// The API key that sent it.
    pub caller: Arc<str>,
    /// Its id.
    pub message_id: MessageId,
    /// The emit, with its payload as it is sent.
    pub emit: Emit,
    /// Whether the value that it retains is none: it takes the one away that is there.
    pub takes_away: bool,
}

impl Deferred {
    /// As bytes, for the engine.
    pub fn encode(&self) -> Vec<u8> {
        let deferred = v1::Deferred {
            emit: Some(encode_emit(self.message_id, &self.emit)),
            caller: self.caller.to_string(),
            retain: self.emit.retain,
            takes_away: self.takes_away,
            ttl_ms: self.emit.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        };
        deferred.encode_to_vec()
    }

    /// Reads what [`Deferred::encode`] wrote. `None`: a node of another version did.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let v1::Deferred { emit, caller, retain, takes_away, ttl_ms } = v1::Deferred::decode(bytes).ok()?;
        let (message_id, emit) = decode_emit(emit?)?;
        let emit = Emit { retain, ttl: ttl_ms.map(Duration::from_millis), ..emit };
        Some(Self { caller: caller.into(), message_id, emit, takes_away })
    }

    /// What is retained of it.
    pub fn retained(&self) -> &Payload {
        if self.takes_away { &Payload::None } else { &self.emit.payload }
    }
}
