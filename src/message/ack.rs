use std::time::Duration;

use super::{ConnectionId, UserId};

/// The most bytes of replies that are kept for one answer.
pub const MAX_REPLY_BYTES: usize = 1024 * 1024;

/// That an emit asks the devices for acknowledgements, and how long it waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRequest {
    /// What is waited for.
    pub mode: AckMode,
    /// How long.
    pub timeout: Duration,
    /// How many bytes of replies are kept; later ones count without what they say.
    pub max_reply_bytes: usize,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// One reply.
    Any,
    /// What became of the event at every connection.
    All,
}

/// What became of an emit at each of its connections.
#[derive(Debug, PartialEq, Eq)]
pub struct Acks {
    /// First those that replied, in the order in which they did.
    pub list: Vec<Ack>,
    /// How many replied.
    pub replied: u64,
}

/// What became of an emit at one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Whose connection it is.
    pub user: UserId,
    /// The connection.
    pub connection: ConnectionId,
    /// What became of the event there.
    pub outcome: AckOutcome,
    /// From sending until that was known.
    pub elapsed: Duration,
}

/// What became of an event that asks for an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckOutcome {
    /// The device replied with these arguments, a JSON array; none if there was no room to keep them.
    Replied(Option<Box<str>>),
    /// It did not in time.
    Timeout,
    /// The connection ended first.
    Gone,
    /// The connection knows no acknowledgements, or the reply is not JSON.
    Unsupported,
    /// The event did not get into the connection's queue.
    Dropped,
    /// It was not waited for any longer.
    Pending,
}

impl AckRequest {
    /// The shortest and the longest timeout.
    pub const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_mins(1);
    /// The timeout where none is given.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

    /// The request of one emit that has an answer of its own.
    pub fn new(mode: AckMode, timeout: Duration) -> Self {
        Self { mode, timeout, max_reply_bytes: MAX_REPLY_BYTES }
    }

    /// The same for one of so many emits that are answered together.
    pub fn one_of(self, emits: usize) -> Self {
        Self { max_reply_bytes: MAX_REPLY_BYTES / emits.max(1), ..self }
    }
}

impl AckOutcome {
    /// The name in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Replied(_) => "replied",
            Self::Timeout => "timeout",
            Self::Gone => "gone",
            Self::Unsupported => "unsupported",
            Self::Dropped => "dropped",
            Self::Pending => "pending",
        }
    }
}

impl Acks {
    /// About what they take up in memory, in bytes.
    pub fn size(&self) -> usize {
        self.list.iter().map(Ack::size).sum()
    }
}

impl Ack {
    fn size(&self) -> usize {
        let reply = match &self.outcome {
            AckOutcome::Replied(Some(reply)) => reply.len(),
            AckOutcome::Replied(None)
            | AckOutcome::Timeout
            | AckOutcome::Gone
            | AckOutcome::Unsupported
            | AckOutcome::Dropped
            | AckOutcome::Pending => 0,
        };
        size_of::<Self>() + reply
    }
}
