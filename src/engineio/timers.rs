use tokio::time::Instant;

use crate::reason::DisconnectReason;

/// When something is to be done about a session. All deadlines of a session share one entry in the wheel.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// A session that has sent no message by then ends.
    pub(crate) speak_by: Option<Instant>,
    /// Engine.IO 4: the next ping is due, or the pong of the last. Engine.IO 3: the next ping of the client is.
    pub(crate) beat: Option<Instant>,
    /// A session whose poll was cancelled polls again by then, or ends.
    pub(crate) poll_by: Option<Instant>,
    /// A poll that is held during an upgrade is released.
    pub(crate) release: Option<Instant>,
    /// A session that nobody uses ends.
    pub(crate) idle_by: Option<Instant>,
    /// A deadline that the library above has set.
    pub(crate) deadline: Option<Instant>,
    /// The server is told.
    pub(crate) alarm: Option<Instant>,
    /// The session ends, in this way.
    pub(crate) end: Option<(Instant, Ending, DisconnectReason)>,
}

/// How a session's transport is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// What is queued is still sent, as far as the peer takes it in a moment.
    Cut,
    /// What is queued is thrown away.
    Abort,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    NeverSpoke,
    Beat,
    NoPoll,
    Idle,
    Release,
    Deadline,
    Alarm,
    End(Ending, DisconnectReason),
}

impl Timers {
    /// When to look again.
    pub(crate) fn next(&self) -> Option<Instant> {
        let end = self.end.as_ref().map(|(at, ..)| *at);
        [self.speak_by, self.beat, self.poll_by, self.idle_by, self.release, self.deadline, self.alarm, end]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes something that is due by now.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let is_due = |at: &mut Instant| *at <= now;
        if let Some((_, how, reason)) = self.end.take_if(|(at, ..)| *at <= now) {
            return Some(Due::End(how, reason));
        }
        if self.speak_by.take_if(is_due).is_some() {
            return Some(Due::NeverSpoke);
        }
        if self.poll_by.take_if(is_due).is_some() {
            return Some(Due::NoPoll);
        }
        if self.idle_by.take_if(is_due).is_some() {
            return Some(Due::Idle);
        }
        if self.deadline.take_if(is_due).is_some() {
            return Some(Due::Deadline);
        }
        if self.release.take_if(is_due).is_some() {
            return Some(Due::Release);
        }
        if self.alarm.take_if(is_due).is_some() {
            return Some(Due::Alarm);
        }
        self.beat.take_if(is_due).map(|_| Due::Beat)
    }
}
