use std::collections::VecDeque;

/// How many events of one device may wait to be handled: what a client has kept while it was offline comes at once.
const MAX_EVENTS: usize = 4_096;

/// A device's events, handled one after the other in the order in which they came. The library would run a task for each.
pub(super) struct Inbox<E> {
    events: VecDeque<(E, usize)>,
    bytes: usize,
    is_handled: bool,
}

/// What follows when an event was put into an inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// No task handles the inbox: the caller starts one.
    First,
    /// It is being handled.
    Waits,
    /// Too much waits.
    Full,
}

impl<E> Default for Inbox<E> {
    fn default() -> Self {
        Self { events: VecDeque::new(), bytes: 0, is_handled: false }
    }
}

impl<E> Inbox<E> {
    /// Puts an event of `bytes` bytes behind the others, of which there may be `max_bytes` with it.
    pub(super) fn push(&mut self, event: E, bytes: usize, max_bytes: usize) -> Pushed {
        if self.events.len() >= MAX_EVENTS || self.bytes.saturating_add(bytes) > max_bytes {
            return Pushed::Full;
        }
        self.bytes += bytes;
        self.events.push_back((event, bytes));
        if std::mem::replace(&mut self.is_handled, true) { Pushed::Waits } else { Pushed::First }
    }

    /// The next event. `None`: there is none, and the next that comes is the first.
    pub(super) fn next(&mut self) -> Option<E> {
        let Some((event, bytes)) = self.events.pop_front() else {
            *self = Self::default();
            return None;
        };
        self.bytes -= bytes;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_that_finds_the_inbox_empty_handles_it() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.push('a', 1, 10), Pushed::First);
        assert_eq!(inbox.push('b', 1, 10), Pushed::Waits);
        assert_eq!((inbox.next(), inbox.next()), (Some('a'), Some('b')));
        assert_eq!(inbox.push('c', 1, 10), Pushed::Waits, "the handler has not seen the end");
        assert_eq!((inbox.next(), inbox.next()), (Some('c'), None));
        assert_eq!(inbox.push('d', 1, 10), Pushed::First);
    }

    #[test]
    fn an_inbox_is_bounded_in_bytes_and_in_events() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.push(0, 10, 10), Pushed::First);
        assert_eq!(inbox.push(1, 1, 10), Pushed::Full);
        inbox.next();
        for number in 0..MAX_EVENTS {
            assert_eq!(inbox.push(number, 0, 10), Pushed::Waits);
        }
        assert_eq!(inbox.push(0, 0, 10), Pushed::Full);
    }
}
