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
    /// The first frame that the kernel has not taken yet; it may have a part of it. Nearly always there is one at most, for which a
    /// queue would have to be allocated.
    first: Option<Bytes>,
    /// Those behind it; none, if there is no first.
    others: VecDeque<Bytes>,
    /// What the owner has written.
    pub(super) owners: PacketCounter,
}

/// How many frames go into the kernel with one call.
const MOST_SLICES: usize = 64;

impl Outbox {
    pub(super) fn new(tcp: OwnedWriteHalf) -> Self {
        Self { tcp: Some(tcp), first: None, others: VecDeque::new(), owners: PacketCounter::default() }
    }

    /// Lets go of the stream.
    pub(super) fn close(&mut self) {
        if let Some(tcp) = self.tcp.take() {
            tcp.forget();
        }
        self.first = None;
        self.others = VecDeque::new();
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
        self.first.is_some()
    }

    /// Whether what waits may go out: the owner is not in the middle of a frame.
    pub(super) fn may_go_out(&self) -> bool {
        self.owners.is_between_frames()
    }

    /// Puts a frame behind all that waits. False: the stream is no more.
    pub(super) fn put(&mut self, frame: Bytes) -> bool {
        if self.tcp.is_none() {
            return false;
        }
        if self.first.is_none() {
            self.first = Some(frame);
        } else {
            self.others.push_back(frame);
        }
        true
    }

    /// Writes of what waits as much as the kernel takes now, and says how much that was.
    pub(super) fn flush(&mut self) -> io::Result<usize> {
        let tcp = self.tcp.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let Some(first) = &self.first else {
            return Ok(0);
        };
        let written = if self.others.is_empty() {
            taken(tcp.try_write(first))?
        } else {
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let frames = std::iter::once(first).chain(&self.others);
            slices.iter_mut().zip(frames).for_each(|(slice, frame)| *slice = IoSlice::new(frame));
            let count = (1 + self.others.len()).min(MOST_SLICES);
            taken(tcp.try_write_vectored(&slices[..count]))?
        };
        self.forget(written);
        Ok(written)
    }

    /// The kernel has taken so many bytes.
    fn forget(&mut self, mut count: usize) {
        while let Some(first) = &mut self.first {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.first = self.others.pop_front();
        }
        self.others = VecDeque::new();
    }
}

/// How much the kernel has taken: nothing, if it has no room.
fn taken(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
