//! Devices that note what arrives. Some leave while a fault lasts, and some come.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::nodes::Nodes;
use crate::{
    NODES,
    harness::{Device, deadline},
};

/// Longer than a fault lasts.
const LONG: Duration = Duration::from_mins(5);
/// The pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);

/// All devices of a scene.
pub struct Devices {
    hearing: JoinSet<Heard>,
    coming: JoinSet<(String, usize, Device)>,
    /// The user and the node of each that is connected.
    places: Vec<(String, usize)>,
    /// Users who had a device.
    gone: Vec<String>,
    /// Closes a device, by its user.
    leavers: BTreeMap<String, CancellationToken>,
}

/// What a device was sent.
#[derive(Debug)]
pub struct Heard {
    pub user: String,
    pub node: usize,
    /// When it was connected and in its rooms.
    pub since: Instant,
    pub numbers: Vec<usize>,
    /// Whether it heard the end: it was connected throughout.
    pub is_whole: bool,
}

fn leaver(node: usize) -> String {
    format!("leaver-{node}")
}

fn comer(node: usize) -> String {
    format!("comer-{node}")
}

impl Devices {
    /// For each node a user with a device there and another one at the next node, one with a device there alone, and one who is to leave.
    pub async fn connect(nodes: &Nodes) -> Self {
        let mut devices = Self {
            hearing: JoinSet::new(),
            coming: JoinSet::new(),
            places: Vec::new(),
            gone: Vec::new(),
            leavers: BTreeMap::new(),
        };
        for node in 0..NODES {
            let spread = format!("spread-{node}");
            for (user, node) in [
                (spread.clone(), node),
                (spread, (node + 1) % NODES),
                (format!("alone-{node}"), node),
                (leaver(node), node),
            ] {
                let device = nodes.device(node, &user).connect().await.expect("the device connects");
                devices.add(user, node, device);
            }
        }
        devices
    }

    fn add(&mut self, user: String, node: usize, device: Device) {
        let leave = CancellationToken::new();
        if user.starts_with("leaver") {
            self.leavers.insert(user.clone(), leave.clone());
        }
        self.places.push((user.clone(), node));
        self.hearing.spawn(hear(device, user, node, leave));
    }

    /// Everyone who has a device at some time.
    pub fn users() -> Vec<String> {
        let names = |name: &'static str| (0..NODES).map(move |node| format!("{name}-{node}"));
        ["spread", "alone", "leaver", "comer"].into_iter().flat_map(names).collect()
    }

    /// Some devices at these nodes leave without a word.
    pub fn leave(&mut self, nodes: &[usize]) {
        for node in nodes {
            let user = leaver(*node);
            if let Some(leave) = self.leavers.remove(&user) {
                leave.cancel();
                self.places.retain(|(other, _)| *other != user);
                self.gone.push(user);
            }
        }
    }

    /// Devices begin to connect to these nodes, and try again until they are let in.
    pub fn come(&mut self, nodes: &Nodes, at: &[usize]) {
        for &node in at {
            let (user, attempts) = (comer(node), nodes.attempts(node));
            self.coming.spawn(async move {
                let mut pauses = interval(PAUSE);
                loop {
                    pauses.tick().await;
                    if let Ok(device) = attempts.device(&user).patience(LONG).connect().await {
                        return (user, node, device);
                    }
                }
            });
        }
    }

    /// Waits until those that came are connected.
    pub async fn have_come(&mut self) {
        while !self.coming.is_empty() {
            let (user, node, device) = timeout(Duration::from_secs(30), self.coming.join_next())
                .await
                .expect("a device is let in")
                .expect("one is coming")
                .expect("it does not panic");
            self.add(user, node, device);
        }
    }

    /// A node has ended, and the devices there are gone.
    pub fn lose(&mut self, node: usize) {
        let lost = self.places.extract_if(.., |(_, other)| *other == node);
        self.gone.extend(lost.map(|(user, _)| user));
    }

    /// How many connections each user should have at these nodes: none whoever has left.
    pub fn expected(&self, nodes: &[usize]) -> BTreeMap<String, usize> {
        let mut expected: BTreeMap<_, _> = self.gone.iter().map(|user| (user.clone(), 0)).collect();
        for (user, node) in &self.places {
            *expected.entry(user.clone()).or_default() += usize::from(nodes.contains(node));
        }
        expected
    }

    /// How many connections there should be at these nodes.
    pub fn count(&self, nodes: &[usize]) -> u64 {
        let count = self.places.iter().filter(|(_, node)| nodes.contains(node)).count();
        count.try_into().expect("there are few")
    }

    /// What each of them has heard when it has heard the end, or its connection is lost.
    pub async fn heard(self) -> Vec<Heard> {
        deadline("the end at all devices", self.hearing.join_all()).await
    }
}

async fn hear(mut device: Device, user: String, node: usize, leave: CancellationToken) -> Heard {
    let since = Instant::now();
    let mut numbers = Vec::new();
    loop {
        let event = tokio::select! {
            event = device.try_next(LONG) => event,
            () = leave.cancelled() => None,
        };
        let Some(event) = event else { return Heard { user, node, since, numbers, is_whole: false } };
        match event.name.as_str() {
            "e" => numbers.push(event.json().parse().expect("a number")),
            "end" => return Heard { user, node, since, numbers, is_whole: true },
            _ => {}
        }
    }
}
