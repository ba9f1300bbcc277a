//! The histories of rooms at the engine in memory.

use std::collections::BTreeMap;

use super::memory::{State, bulk, integer};
use crate::cluster::{KeptMessage, decode_kept};

/// Messages of one page, at most: the engine returns fewer than are asked for if they are large.
const PAGE: usize = 3;

/// As much of `history.lua` as is needed: nothing is taken away or expires.
#[derive(Default)]
pub(super) struct Histories {
    /// The sequences so far, in their order, each with the run of the engine in which it began.
    sequences: Vec<(u64, u64)>,
    /// The messages of the rooms in the last sequence, each with its time.
    rooms: BTreeMap<Vec<u8>, Vec<(Vec<u8>, u64)>>,
}

impl Histories {
    /// The sequence that began in a run. `None`: one is to begin.
    fn sequence(&self, run: u64) -> Option<u64> {
        self.sequences.last().filter(|(_, other)| *other == run).map(|(sequence, _)| *sequence)
    }

    fn begin(&mut self, run: u64) -> u64 {
        self.sequence(run).unwrap_or_else(|| {
            self.rooms.clear();
            // Later ones are not larger.
            let sequence = (self.sequences.len() as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.sequences.push((sequence, run));
            sequence
        })
    }

    fn last(&self, room: &[u8]) -> u64 {
        self.rooms.get(room).map_or(0, |messages| messages.len() as u64)
    }

    fn append(&mut self, run: u64, room: &[u8], message: &[u8], time: u64) -> (u64, u64) {
        let sequence = self.begin(run);
        self.rooms.entry(room.to_vec()).or_default().push((message.to_vec(), time));
        (sequence, self.last(room))
    }

    /// Counts the sequences up to this one. `None`: there is no such sequence.
    pub(super) fn order(&self, sequence: u64) -> Option<u64> {
        self.sequences.iter().position(|(other, _)| *other == sequence).map(|place| place as u64 + 1)
    }

    /// Counts the sequences so far.
    pub(super) fn count(&self) -> u64 {
        self.sequences.len() as u64
    }

    /// The messages of a room in the sequence of a run.
    pub(super) fn messages(&self, run: u64, room: &[u8]) -> Vec<KeptMessage> {
        let messages = self.sequence(run).and_then(|_| self.rooms.get(room));
        let decode = |(message, _): &(Vec<u8>, u64)| decode_kept(message.clone().into()).unwrap();
        messages.into_iter().flatten().map(decode).collect()
    }
}

impl State {
    /// Keeps a message, and publishes its frame.
    pub(super) fn keep(&mut self, keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Vec<u8> {
        let [channel, start, rest] = &arguments[..3] else { panic!("{arguments:?}") };
        let now = u64::try_from(self.now_ms()).unwrap();
        let (sequence, number) = self.histories.append(self.starts, &keys[5], &arguments[12], now);
        let numbers = [0, sequence, number].map(u64::to_be_bytes).concat();
        integer(self.publish(channel, &[start, &numbers[..], rest].concat()))
    }

    /// Where a room stands.
    pub(super) fn stand(&self, room: &[u8]) -> Vec<u8> {
        match self.histories.sequence(self.starts) {
            Some(sequence) => place(sequence, self.histories.last(room)),
            None => b"_\r\n".to_vec(),
        }
    }

    /// The same of a room that is to begin.
    pub(super) fn begin(&mut self, room: &[u8]) -> Vec<u8> {
        place(self.histories.begin(self.starts), self.histories.last(room))
    }

    pub(super) fn read_messages(&self, room: &[u8], arguments: &[Vec<u8>]) -> Vec<u8> {
        let number = |word: &[u8]| String::from_utf8_lossy(word).parse::<u64>().unwrap();
        let (after, max, last) = (number(&arguments[1]), number(&arguments[2]), self.histories.last(room));
        let sequence = self.histories.sequence(self.starts).map(u64::to_be_bytes);
        if sequence.is_none_or(|sequence| sequence[..] != arguments[0]) || after > last {
            return b"*0\r\n".to_vec();
        }
        let up_to = last.min(after + max.min(PAGE as u64));
        let mut page = vec![integer(up_to), integer(last)];
        for (number, (message, time)) in (1..).zip(self.histories.rooms.get(room).into_iter().flatten()) {
            if number > after && number <= up_to {
                page.extend([integer(number), bulk(message), integer(*time)]);
            }
        }
        [format!("*{}\r\n", page.len()).into_bytes(), page.concat()].concat()
    }
}

fn place(sequence: u64, number: u64) -> Vec<u8> {
    [b"*2\r\n".to_vec(), bulk(&sequence.to_be_bytes()), integer(number)].concat()
}
