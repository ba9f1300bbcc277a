use std::collections::{BTreeSet, VecDeque};

use super::{
    super::{
        Undelivered,
        watermark::{GRACE, Unwritten, Watermark},
    },
    row::Row,
};

pub(super) const NODES: usize = 3;

/// What happens. Numbers of connections count those that there are, and begin anew after the last one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// A message is stored.
    Append,
    /// A node sends the next message to its connections, but for those whose bit is set.
    FanOut {
        node: usize,
        dropped: u8,
    },
    Connect {
        node: usize,
        from: From,
    },
    /// A connection that catches up is given the next message, or does not listen for it.
    Give {
        connection: usize,
        is_heard: bool,
    },
    /// A connection that catches up finds a gap, and goes on from where the node stands.
    GiveUp {
        connection: usize,
    },
    /// A device proves the first messages that it has not proven.
    Prove {
        connection: usize,
        count: usize,
    },
    Cut {
        connection: usize,
    },
    /// A node begins to write so many rows.
    Write {
        node: usize,
        max: usize,
    },
    /// A node's transaction ends.
    End {
        node: usize,
        outcome: Outcome,
    },
    Crash {
        node: usize,
    },
    /// A grace ends.
    Wait,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Watermark,
    FirstResume,
    /// The device has seen all up to there.
    Position(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Committed,
    RolledBack,
    /// It is committed, and the node is not told.
    Unknown,
}

#[derive(Debug, Default)]
struct Connection {
    node: usize,
    /// The skipped messages that are still to be given.
    skipped: VecDeque<u64>,
    cursor: u64,
    last_given: u64,
    is_live: bool,
    unproven: VecDeque<u64>,
}

/// What a node writes while no other write of it runs.
enum Writing {
    Chunk(Unwritten),
    /// For this connection, messages after the first number and up to the last one are skipped.
    Skip(u64, (u64, u64)),
}

struct Node {
    watermark: Watermark,
    /// Up to here messages were fanned out.
    head: u64,
    writing: Option<Writing>,
    /// What was proven here.
    proven: BTreeSet<u64>,
}

/// Nodes that share the rows of one user, and what has really happened.
pub(super) struct World {
    nodes: Vec<Node>,
    row: Row,
    connections: Vec<(u64, Connection)>,
    next_connection: u64,
    last: u64,
    now: u64,
    /// What a device has proven, or says to have seen.
    seen: BTreeSet<u64>,
    /// What was proven on nodes that were not killed.
    proven: BTreeSet<u64>,
    /// The first position of the grace, and when it ends.
    grace: (u64, u64),
}

impl Node {
    fn new() -> Self {
        Self { watermark: Watermark::new(true), head: 0, writing: None, proven: BTreeSet::new() }
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            nodes: (0..NODES).map(|_| Node::new()).collect(),
            row: Row::default(),
            connections: Vec::new(),
            next_connection: 0,
            last: 0,
            now: 0,
            seen: BTreeSet::new(),
            proven: BTreeSet::new(),
            grace: (0, 0),
        }
    }

    pub(super) fn apply(&mut self, op: Op) {
        let before = self.row.position;
        match op {
            Op::Append => self.last += 1,
            Op::FanOut { node, dropped } => self.fan_out(node, dropped),
            Op::Connect { node, from } => self.connect(node, from),
            Op::Give { connection, is_heard } => self.with(connection, |world, _, connection| {
                world.give(connection, is_heard);
            }),
            Op::GiveUp { connection } => self.with(connection, Self::give_up),
            Op::Prove { connection, count } => self.with(connection, |world, _, connection| {
                for number in connection.unproven.drain(..count.min(connection.unproven.len())) {
                    let node = &mut world.nodes[connection.node];
                    node.watermark.proven(number);
                    node.proven.insert(number);
                    world.seen.insert(number);
                    world.proven.insert(number);
                }
            }),
            Op::Cut { connection } => self.cut(connection),
            Op::Write { node, max } => {
                let Node { watermark, writing, .. } = &mut self.nodes[node];
                writing.get_or_insert_with(|| Writing::Chunk(watermark.unwritten(max)));
            }
            Op::End { node, outcome } => self.end(node, outcome),
            Op::Crash { node } => self.crash(node),
            Op::Wait => self.now += GRACE.as_secs() + 1,
        }
        assert!(self.row.position >= before, "the watermark went back");
        self.check();
    }

    /// All that is in memory is written.
    pub(super) fn finish(&mut self) {
        for node in 0..NODES {
            self.end(node, Outcome::Committed);
            self.write_all(node);
        }
        self.check();
        let again: Vec<_> = self.proven.intersection(&self.row.skipped).collect();
        assert!(again.is_empty(), "{again:?} are proven, and skipped in the database");
        assert!(self.proven.last() <= Some(&self.row.position), "a proof did not move the watermark");
    }

    /// No message that no device has proven is lost, whatever node the next device comes to, and if all nodes are killed.
    fn check(&self) {
        let views = self.nodes.iter().map(|node| self.row.undelivered(&node.watermark));
        for undelivered in views.chain([self.row.undelivered(&Watermark::new(true))]) {
            self.check_whole(&undelivered);
        }
    }

    #[track_caller]
    fn check_whole(&self, Undelivered { after, skipped }: &Undelivered) {
        let is_lost = |number: &u64| !self.seen.contains(number) && number <= after && !skipped.contains(number);
        let lost: Vec<_> = (1..=self.last).filter(is_lost).collect();
        assert!(lost.is_empty(), "{lost:?} are lost: after {after}, skipped {skipped:?}, row {:?}", self.row);
    }

    fn with(&mut self, connection: usize, run: impl FnOnce(&mut Self, u64, &mut Connection)) {
        if self.connections.is_empty() {
            return;
        }
        let index = connection % self.connections.len();
        let (id, mut connection) = std::mem::take(&mut self.connections[index]);
        run(self, id, &mut connection);
        self.connections[index] = (id, connection);
    }

    fn fan_out(&mut self, node: usize, dropped: u8) {
        let Node { watermark, head, .. } = &mut self.nodes[node];
        let mut connections: Vec<_> =
            self.connections.iter_mut().map(|(_, connection)| connection).filter(|one| one.node == node).collect();
        if *head == self.last || connections.is_empty() {
            return;
        }
        *head += 1;
        watermark.sent(*head, false);
        let mut is_partial = false;
        for (place, connection) in connections.iter_mut().enumerate().filter(|(_, one)| one.is_live) {
            if dropped >> place & 1 == 1 {
                is_partial = true;
            } else {
                watermark.sent(*head, false);
                connection.unproven.push_back(*head);
            }
        }
        watermark.published(*head, is_partial);
    }

    fn connect(&mut self, node: usize, from: From) {
        if !self.connections.iter().any(|(_, connection)| connection.node == node) {
            self.nodes[node].head = self.last;
        }
        let head = self.nodes[node].head;
        let undelivered = match from {
            From::Watermark => self.row.undelivered(&self.nodes[node].watermark),
            From::FirstResume => self.begin_first_resume(node),
            From::Position(position) => {
                let after = position.min(head);
                self.seen.extend(1..=after);
                Undelivered { after, skipped: Vec::new() }
            }
        };
        // Frames of other nodes may have come to them before: what is later comes live.
        let cursor = undelivered.after.min(head);
        let skipped = undelivered.skipped.into_iter().filter(|number| *number <= cursor).collect();
        self.connections.push((self.next_connection, Connection { node, skipped, cursor, ..Connection::default() }));
        self.next_connection += 1;
    }

    fn begin_first_resume(&mut self, node: usize) -> Undelivered {
        self.end(node, Outcome::Committed);
        let unwritten = self.nodes[node].watermark.unwritten(3);
        self.row.merge(&unwritten);
        self.nodes[node].watermark.written(&unwritten);
        let after = self.row.begin_first_resume(self.now);
        let Undelivered { mut skipped, .. } = self.row.undelivered(&self.nodes[node].watermark);
        skipped.retain(|number| *number <= after);
        let (begin, until) = self.grace;
        assert!(self.now >= until || after <= begin, "a first resume in the grace begins after {after}, not {begin}");
        self.grace = (if self.now < until { begin.min(after) } else { after }, self.now + GRACE.as_secs());
        let undelivered = Undelivered { after, skipped };
        self.check_whole(&undelivered);
        undelivered
    }

    fn give(&mut self, connection: &mut Connection, is_heard: bool) {
        let Node { watermark, head, .. } = &mut self.nodes[connection.node];
        if connection.is_live {
            return;
        }
        if let Some(number) = connection.skipped.pop_front() {
            if is_heard {
                watermark.sent(number, true);
                connection.unproven.push_back(number);
            }
            return;
        }
        if connection.cursor < *head {
            let number = connection.cursor + 1;
            if is_heard {
                watermark.sent(number, true);
                connection.unproven.push_back(number);
                connection.last_given = number;
            } else {
                watermark.skip(number);
                watermark.settle(connection.last_given, number);
            }
            connection.cursor = number;
            return;
        }
        if *head > 0 {
            watermark.settle(connection.last_given, *head);
        }
        connection.is_live = true;
    }

    fn give_up(&mut self, id: u64, connection: &mut Connection) {
        let Node { watermark, head, writing, .. } = &mut self.nodes[connection.node];
        if connection.is_live || writing.is_some() {
            return;
        }
        let after = self.row.undelivered(watermark).after;
        watermark.expect_skips(*head);
        *writing = Some(Writing::Skip(id, (after, *head)));
    }

    fn cut(&mut self, connection: usize) {
        if self.connections.is_empty() {
            return;
        }
        let (_, Connection { node, unproven, .. }) = self.connections.remove(connection % self.connections.len());
        for number in unproven {
            self.nodes[node].watermark.lost(number);
        }
    }

    fn end(&mut self, node: usize, outcome: Outcome) {
        let Node { watermark, writing, .. } = &mut self.nodes[node];
        let Some(writing) = writing.take().filter(|_| outcome != Outcome::RolledBack) else { return };
        match writing {
            Writing::Chunk(unwritten) => {
                self.row.merge(&unwritten);
                if outcome == Outcome::Committed {
                    watermark.written(&unwritten);
                }
            }
            Writing::Skip(id, (after, to)) => {
                self.row.skip_range((after, to));
                let connection = self.connections.iter_mut().find(|(one, _)| *one == id);
                if let Some((_, connection)) = connection.filter(|_| outcome == Outcome::Committed) {
                    watermark.advance(to);
                    *connection = Connection {
                        skipped: VecDeque::new(),
                        cursor: to,
                        is_live: self.nodes[node].head == to,
                        ..std::mem::take(connection)
                    };
                }
            }
        }
    }

    fn crash(&mut self, node: usize) {
        // What it has not written is lost, and comes again.
        let killed = std::mem::replace(&mut self.nodes[node], Node::new());
        self.proven.retain(|number| !killed.proven.contains(number));
        self.connections.retain(|(_, connection)| connection.node != node);
    }

    fn write_all(&mut self, node: usize) {
        while self.nodes[node].watermark.is_unwritten() {
            let unwritten = self.nodes[node].watermark.unwritten(3);
            self.row.merge(&unwritten);
            self.nodes[node].watermark.written(&unwritten);
        }
    }
}
