/// What waits for a device, in bytes: what was enqueued, less what its stream has written since.
///
/// The stream also writes what nobody enqueued here, pings above all. So the two are compared anew whenever nothing
/// waits, and the measure is off by no more than the pings of one busy stretch.
#[derive(Debug, Default)]
pub struct Backlog {
    enqueued: u64,
    base: u64,
    /// Of what waits, at most so much does not count against the bound.
    exempt: u64,
}

impl Backlog {
    /// Nothing waits, and the stream has written this much.
    pub fn new(written: u64) -> Self {
        Self { enqueued: 0, base: written, exempt: 0 }
    }

    /// How much waits, now that the stream has written `written` in all.
    pub fn read(&mut self, written: u64) -> u64 {
        let sent = written.saturating_sub(self.base);
        if sent >= self.enqueued {
            *self = Self::new(written);
            return 0;
        }
        let waiting = self.enqueued - sent;
        self.exempt = self.exempt.min(waiting);
        waiting
    }

    /// Whether more waits than this, now that the stream has written `written` in all, apart from what is exempt.
    pub fn is_past(&mut self, bound: usize, written: u64) -> bool {
        let waiting = self.read(written);
        waiting > (bound as u64).saturating_add(self.exempt)
    }

    /// This much more waits.
    pub fn add(&mut self, bytes: usize) {
        self.enqueued += bytes as u64;
    }

    /// The same, and it does not count against the bound while it waits, unless more than `most` would not. False if nothing was added.
    pub fn add_exempt(&mut self, bytes: usize, most: usize) -> bool {
        let exempt = self.exempt + bytes as u64;
        let fits = exempt <= most as u64;
        if fits {
            self.add(bytes);
            self.exempt = exempt;
        }
        fits
    }

    /// What waits now goes out on another stream, which has written this much.
    pub fn move_to(&mut self, old_written: u64, new_written: u64) {
        let waiting = self.read(old_written);
        *self = Self { enqueued: waiting, base: new_written, exempt: self.exempt };
    }
}

/// What a WebSocket frame with a payload of this many bytes takes on the wire, with its header (RFC 6455, section 5.2).
pub fn websocket_frame_size(payload: usize) -> usize {
    let header = match payload {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    };
    payload + header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_enqueued_waits_until_it_is_written() {
        let mut backlog = Backlog::new(100);
        backlog.add(50);
        assert_eq!(backlog.read(100), 50);
        assert_eq!(backlog.read(120), 30);
        assert_eq!(backlog.read(150), 0);
    }

    #[test]
    fn what_is_exempt_does_not_count_while_it_waits_and_is_bounded_itself() {
        let mut backlog = Backlog::new(0);
        assert!(backlog.add_exempt(600, 1_000) && backlog.add_exempt(400, 1_000));
        assert!(!backlog.add_exempt(1, 1_000), "that would be too much");
        backlog.add(10);
        assert!(!backlog.is_past(10, 0));
        backlog.add(1);
        assert!(backlog.is_past(10, 0));
        assert!(!backlog.is_past(10, 1_011), "all is written");
        backlog.add(11);
        assert!(backlog.is_past(10, 1_011));
    }

    #[test]
    fn pings_do_not_hide_what_waits_later() {
        let mut backlog = Backlog::new(0);
        assert_eq!(backlog.read(3_000), 0, "a thousand pings were written");
        backlog.add(50);
        assert_eq!(backlog.read(3_000), 50);
    }

    #[test]
    fn what_waits_moves_to_the_stream_of_an_upgrade() {
        let mut backlog = Backlog::new(0);
        backlog.add(50);
        backlog.move_to(20, 7);
        assert_eq!(backlog.read(7), 30);
    }
}
