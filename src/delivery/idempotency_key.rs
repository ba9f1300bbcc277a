use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::message::{Audience, Emit, Payload};
use crate::state::{RequestHash, Scope};
use crate::store;

/// Makes an emit's repetition harmless.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    caller: Arc<str>,
    key: Arc<str>,
    request_hash: RequestHash,
}

impl IdempotencyKey {
    /// For this emit, or the same to another audience, by this caller (the name of the API key) under this idempotency key.
    pub fn new(caller: Arc<str>, key: Arc<str>, emit: &Emit) -> Self {
        Self { caller, key, request_hash: request_hash(emit) }
    }

    /// A digest of what is asked for.
    pub(super) fn request_hash(&self) -> RequestHash {
        self.request_hash
    }

    /// The same for the store.
    pub(super) fn stored(&self) -> store::IdempotencyKey {
        store::IdempotencyKey { caller: self.caller.clone(), key: self.key.clone(), request_hash: self.request_hash }
    }

    pub(super) fn scope(&self, audience: &Audience) -> Scope {
        Scope { caller: self.caller.clone(), audience: audience.clone(), key: self.key.clone() }
    }
}

/// A digest of all that makes two emits to one audience the same. Each part is preceded by its length, so that none runs into the next.
fn request_hash(emit: &Emit) -> RequestHash {
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
    part(&[emit.volatile, emit.envelope, emit.retain, emit.store].map(u8::from));
    part(&emit.ttl.map_or([0; 16], |ttl| (ttl.as_nanos() + 1).to_le_bytes()));
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
    use std::time::Duration;

    use crate::delivery::tests::example as emit;
    use crate::message::{AckMode, AckRequest, EventName, Exceptions, UserId};

    #[test]
    fn every_part_of_an_emit_is_in_its_hash() {
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
            Emit { store: true, ..emit("1") },
            Emit { ttl: Some(Duration::ZERO), ..emit("1") },
            Emit { collapse_key: Some("k".into()), ..emit("1") },
            Emit { ack: ack(AckMode::Any, 1), ..emit("1") },
            Emit { ack: ack(AckMode::All, 1), ..emit("1") },
            Emit { ack: ack(AckMode::All, 2), ..emit("1") },
            Emit { except: except(vec![user("12")]), ..emit("1") },
            Emit { except: except(vec![user("1"), user("2")]), ..emit("1") },
        ];
        let hashes: std::collections::HashSet<_> = emits.iter().map(request_hash).collect();
        assert_eq!(hashes.len(), emits.len());
        assert_eq!(request_hash(&emit("1")), request_hash(&emit("1")));
        let streamed = Emit { alone: false, ..emit("1") };
        assert_eq!(request_hash(&streamed), request_hash(&emit("1")), "how it comes is not what it is");
    }
}
