use std::{collections::HashSet, fmt::Write as _, str::FromStr, time::Duration};

use tokio::time::Instant;

use super::payload::Raw;
use crate::command::{EmitRequest, Error, JoinRoom, Violation};
use crate::message::{
    AckMode, AckRequest, Audience, ConnectionId, Emit, EventName, Exceptions, Invalid, LARGEST_PAGE, Payload, RoomName,
    UserId,
};
use crate::proto::v1::{self, AckOptions, EmitOptions, ack_options};

/// How many users, connections or emits a request may list.
pub(super) const MAX_LISTED: usize = 1_000;
const MAX_EXCEPTED_ROOMS: usize = 100;
const DEFAULT_PAGE: usize = 100;

/// How many violations a refusal lists. They travel in headers, of which some clients take no more than 8 KiB.
const MAX_VIOLATIONS: usize = 10;

/// Collects what is wrong with a request, so that the caller learns of it at once: the first faults, and how many more.
#[derive(Default)]
pub(super) struct Fields {
    violations: Vec<Violation>,
    more: usize,
}

impl Fields {
    /// Keeps a good value, or notes what is wrong with it.
    pub(super) fn take<T>(&mut self, field: impl Into<String>, value: Result<T, Invalid>) -> Option<T> {
        value.map_err(|invalid| self.note(Violation::of(field, &invalid))).ok()
    }

    /// Notes what is wrong with a field.
    pub(super) fn refuse(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.note(Violation::new(field, description));
    }

    fn note(&mut self, violation: Violation) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation);
        } else {
            self.more += 1;
        }
    }

    /// The request, if all of it was good.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Error> {
        let Self { mut violations, more } = self;
        if let Some(value) = value
            && violations.is_empty()
        {
            return Ok(value);
        }
        if more > 0
            && let Some(last) = violations.last_mut()
        {
            // Writing to a text cannot fail.
            let _ = write!(last.description, " (and {more} more)");
        }
        Err(Error::InvalidArgument(violations))
    }

    /// Keeps each good entry of a list, unless the list is too long.
    pub(super) fn list<T>(
        &mut self,
        field: &str,
        entries: &[String],
        max: usize,
        check: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Vec<T> {
        if entries.len() > max {
            self.refuse(field, format!("has {} entries: at most {max} are allowed", entries.len()));
            return Vec::new();
        }
        let checked = entries.iter().enumerate();
        checked.filter_map(|(index, entry)| self.take(format!("{field}[{index}]"), check(entry))).collect()
    }
}

/// One user.
pub(super) fn user(id: &str) -> Result<UserId, Error> {
    let mut fields = Fields::default();
    let user = fields.take("user_id", UserId::new(id));
    fields.finish(user)
}

/// A user and a room.
pub(super) fn user_and_room(fields: &mut Fields, id: &str, name: &str) -> Option<(UserId, RoomName)> {
    let user = fields.take("user_id", UserId::new(id));
    let room = fields.take("room", RoomName::new(name));
    user.zip(room)
}

/// Several users, none twice.
pub(super) fn users(fields: &mut Fields, ids: &[String]) -> Vec<UserId> {
    let users = fields.list("user_ids", ids, MAX_LISTED, UserId::new);
    let mut seen = HashSet::new();
    for (index, id) in ids.iter().enumerate().take(MAX_LISTED) {
        if !seen.insert(id) {
            fields.refuse(format!("user_ids[{index}]"), "stands in the list before: name each user once");
        }
    }
    users
}

/// How many to list, and after which one.
pub(super) fn page<'a>(fields: &mut Fields, size: i32, token: &'a str) -> Option<(usize, &'a str)> {
    const LONGEST_TOKEN: usize = 300;
    let size = usize::try_from(size).map_err(|_| Invalid::new("is negative: ask for 1 to 1,000, or 0 for 100"));
    let size = fields.take("page_size", size).map(|size| if size == 0 { DEFAULT_PAGE } else { size.min(LARGEST_PAGE) });
    if token.len() > LONGEST_TOKEN {
        fields.refuse("page_token", "is none of ours: give the next_page_token of the page before");
    }
    size.map(|size| (size, token))
}

/// A duration that is not negative. The library's own conversion overflows at the ends of what a message can hold.
pub(super) fn duration(given: &prost_types::Duration) -> Result<Duration, Invalid> {
    let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (u64::try_from(given.seconds), nanos) {
        (Ok(seconds), Some(nanos)) => Ok(Duration::new(seconds, nanos)),
        (Ok(_) | Err(_), _) => Err(Invalid::new("is negative or out of range")),
    }
}

/// For how long a right is given.
pub(super) fn right_ttl(fields: &mut Fields, ttl: Option<&prost_types::Duration>) -> Option<Duration> {
    fields.take("ttl", ttl.map_or(Ok(JoinRoom::DEFAULT_TTL), duration))
}

/// What all emits have.
pub(super) struct EmitParts {
    pub(super) event: String,
    pub(super) payload: Option<Raw>,
    pub(super) options: Option<EmitOptions>,
    pub(super) received: Instant,
}

impl EmitParts {
    /// Checks an emit for an audience, of which what is wrong was noted before.
    pub(super) fn check(self, mut fields: Fields, audience: Option<Audience>) -> Result<EmitRequest, Error> {
        let options = self.options.unwrap_or_default();
        let event = fields.take("event", EventName::new(&self.event));
        let payload = match self.payload {
            None => Some(Payload::None),
            Some(raw) => fields.take(raw.field(), raw.check()),
        };
        let idempotency_key =
            fields.take("options.idempotency_key", EmitRequest::key(&options.idempotency_key)).flatten();
        let collapse_key = fields.take("options.collapse_key", EmitRequest::key(&options.collapse_key)).flatten();
        let ttl = options.ttl.as_ref().and_then(|given| fields.take("options.ttl", ttl(given)));
        let ack = options.ack.as_ref().and_then(|ack| ack_request(&mut fields, ack, &options.collapse_key));
        let except = Exceptions {
            connections: fields.list(
                "options.except_connection_ids",
                &options.except_connection_ids,
                MAX_LISTED,
                ConnectionId::from_str,
            ),
            users: fields.list("options.except_user_ids", &options.except_user_ids, MAX_LISTED, UserId::new),
            rooms: fields.list("options.except_rooms", &options.except_rooms, MAX_EXCEPTED_ROOMS, RoomName::new),
        };
        let emit = audience.zip(event).zip(payload).map(|((audience, event), payload)| Emit {
            audience,
            except,
            event,
            payload,
            volatile: options.volatile,
            envelope: options.envelope,
            retain: options.retain,
            store: options.store,
            ttl,
            collapse_key,
            ack: ack.map(Box::new),
            alone: true,
        });
        fields.finish(emit.map(|emit| EmitRequest { emit, idempotency_key, received: self.received }))
    }
}

/// The longest time that a message may be worth delivering: ten years.
const LONGEST_TTL: Duration = Duration::from_hours(10 * 365 * 24);

fn ttl(given: &prost_types::Duration) -> Result<Duration, Invalid> {
    let ttl = duration(given)?;
    if (Duration::from_millis(1)..=LONGEST_TTL).contains(&ttl) {
        return Ok(ttl);
    }
    Err(Invalid::new("must be between 1 millisecond and 3650 days"))
}

/// How to wait for acknowledgements.
fn ack_request(fields: &mut Fields, ack: &AckOptions, collapse_key: &str) -> Option<AckRequest> {
    if !collapse_key.is_empty() {
        fields.refuse("options.ack", "is given with options.collapse_key, whose emits may be sent after the answer");
    }
    let mode = match ack_options::Mode::try_from(ack.mode) {
        Ok(ack_options::Mode::Any) => Ok(AckMode::Any),
        Ok(ack_options::Mode::All) => Ok(AckMode::All),
        Ok(ack_options::Mode::Unspecified) | Err(_) => Err(Invalid::new("is none: say MODE_ANY or MODE_ALL")),
    };
    let mode = fields.take("options.ack.mode", mode);
    let timeout = ack.timeout.as_ref().map_or(Ok(AckRequest::DEFAULT_TIMEOUT), duration);
    let is_allowed = |timeout: &Duration| AckRequest::TIMEOUTS.contains(timeout);
    let timeout = timeout.ok().filter(is_allowed).ok_or_else(|| Invalid::new("is not between 1 ms and 60 s"));
    let timeout = fields.take("options.ack.timeout", timeout);
    mode.zip(timeout).map(|(mode, timeout)| AckRequest::new(mode, timeout))
}
/// Checks one emit of a batch or a stream.
pub(super) fn emit(emit: v1::Emit, received: Instant) -> Result<EmitRequest, Error> {
    use v1::emit::Target;

    let mut fields = Fields::default();
    let audience = match emit.target {
        Some(Target::UserId(id)) => fields.take("user_id", Audience::user_id(&id)),
        Some(Target::Room(name)) => fields.take("room", RoomName::new(&name)).map(Audience::of_room),
        Some(Target::Everyone(true)) => Some(Audience::everyone()),
        Some(Target::Everyone(false)) => {
            fields.refuse("everyone", "is false: say true, or name a user or a room");
            None
        }
        None => {
            fields.refuse("target", "is missing: give user_id, room or everyone");
            None
        }
    };
    let payload = emit.payload.map(Raw::from);
    EmitParts { event: emit.event, payload, options: emit.options, received }.check(fields, audience)
}
