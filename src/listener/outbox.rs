use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::{Buf, Bytes};
use tokio::net::tcp::OwnedWriteHalf;

use super::packets::PacketCounter;

/// The way into a stream for those who do not own it: whole frames go between the frames that the owner writes.
pub(super) struct Outbox {
    /// None: the stream is no more.
    tcp: Option<OwnedWriteHalf>,
    /// Frames that the kernel has not taken yet; it may have a part of the first.
    waiting: VecDeque<Bytes>,
    /// What the owner has written.
    pub(super) owners: PacketCounter,
}

/// How many frames go into the kernel with one call.
const MOST_SLICES: usize = 64;

impl Outbox {
    pub(super) fn new(tcp: OwnedWriteHalf) -> Self {
        Self { tcp: Some(tcp), waiting: VecDeque::new(), owners: PacketCounter::default() }
    }

    /// Lets go of the stream.
    pub(super) fn close(&mut self) {
        if let Some(tcp) = self.tcp.take() {
            tcp.forget();
        }
        self.waiting = VecDeque::new();
    }

    /// Writes what is the owner's.
    pub(super) fn write_owners(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let tcp = self.tcp.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let written = match slices {
            [slice] => tcp.try_write(slice),
            slices => tcp.try_write_vectored(slices),
        }?;
        let mut passed = written;
        for slice in slices {
            let here = slice.len().min(passed);
            self.owners.pass(&slice[..here]);
            passed -= here;
        }
        Ok(written)
    }

    /// Whether something waits, so that the owner must.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether what waits may go out: the owner is not in the middle of a frame.
    pub(super) fn may_go_out(&self) -> bool {
        self.owners.is_between_frames()
    }

    /// Puts a frame behind all that waits. False: the stream is no more.
    pub(super) fn put(&mut self, frame: Bytes) -> bool {
        if self.tcp.is_some() {
            self.waiting.push_back(frame);
        }
        self.tcp.is_some()
    }

    /// Writes of what waits as much as the kernel takes now, and says how much that was.
    pub(super) fn flush(&mut self) -> io::Result<usize> {
        let tcp = self.tcp.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let written = match self.waiting.front() {
            Some(only) if self.waiting.len() == 1 => taken(tcp.try_write(only))?,
            _ => {
                let slices: Vec<_> = self.waiting.iter().take(MOST_SLICES).map(|frame| IoSlice::new(frame)).collect();
                taken(tcp.try_write_vectored(&slices))?
            }
        };
        let mut left = written;
        while let Some(first) = self.waiting.front_mut() {
            if left < first.len() {
                first.advance(left);
                break;
            }
            left -= first.len();
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Ok(written)
    }
}

/// How much the kernel has taken: nothing, if it has no room.
fn taken(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
