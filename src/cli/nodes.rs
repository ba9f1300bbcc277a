//! `bugle bench --nodes`.

use std::fmt::Write;

use clap::{Args, value_parser};

use super::figures::{count, micros};
use crate::bench::{Nodes, NodesReport, Spread};

/// Several nodes of the bench's own.
#[derive(Args)]
pub struct ManyNodes {
    /// Start so many nodes and a redis-server (from PATH) between them, and measure emits that enter at the first node and go to
    /// users whose devices are on the second, by a call each and on a stream; beside one node that is alone, in turn, five rounds.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(2..=64))]
    nodes: Option<u32>,
    /// How many devices, all on the second node.
    #[arg(long, value_name = "N", default_value_t = 64, requires = "nodes", value_parser = value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// How many emits a round, of each call; a tenth of it goes before, to warm up.
    #[arg(long, value_name = "N", default_value_t = 20_000, requires = "nodes", value_parser = value_parser!(u64).range(1..=1_000_000_000))]
    emits: u64,
    /// The size of the JSON payload.
    #[arg(long, value_name = "BYTES", default_value_t = 100, requires = "nodes", value_parser = value_parser!(u32).range(0..=3_145_728))]
    payload: u32,
    /// How many emits are without an answer at most; it is measured with one, too.
    #[arg(long, value_name = "N", default_value_t = 64, requires = "nodes", value_parser = value_parser!(u32).range(1..=4_096))]
    concurrency: u32,
    /// Print the figures as one JSON object.
    #[arg(long, requires = "nodes")]
    pub json: bool,
}

impl ManyNodes {
    /// None if no number of nodes is given.
    pub fn plan(&self) -> Option<Nodes> {
        let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Some(Nodes {
            nodes: size(self.nodes?),
            devices: size(self.devices),
            emits: self.emits,
            payload_bytes: size(self.payload),
            in_flight: size(self.concurrency),
        })
    }
}

/// A report for people.
pub fn table(report: &NodesReport) -> String {
    let mut text = format!(
        "bugle bench: {} nodes beside one alone, {} devices, {} emits of {} bytes a round; medians of {} rounds\n\n",
        report.nodes,
        count(report.devices as u64),
        count(report.emits),
        count(report.payload_bytes as u64),
        report.rounds,
    );
    // Writing into a text does not fail.
    let _ = writeln!(
        text,
        "{:<19}{:>9} {:>9} {:>9} {:>9} {:>9}  {:>11} {:>11}",
        "CPU of each emit", "alone", "sender", "receiver", "engine", "others", "nodes more", "all more"
    );
    for figures in &report.calls {
        let (solo, several) = (&figures.solo, &figures.several);
        let of =
            [solo.cpu_us, several.sender_cpu_us, several.receiver_cpu_us, several.engine_cpu_us, several.others_cpu_us];
        let of = of.map(|cpu| format!("{:>9}", micros(cpu))).join(" ");
        let (nodes, all) = (figures.nodes_over_solo_us, figures.all_over_solo_us);
        let _ =
            writeln!(text, "{}{of}  {:>11} {:>11}", load(figures.call, figures.in_flight), micros(nodes), micros(all));
    }
    let _ = writeln!(text, "\n{:<19}{:>20} {:>20}   p50, p99", "answered", "alone", "several");
    for figures in &report.calls {
        let spreads = [figures.solo.answer_us, figures.several.answer_us].map(spread).join(" ");
        let _ = writeln!(text, "{}{spreads}", load(figures.call, figures.in_flight));
    }
    let _ = writeln!(text, "delivered");
    for figures in &report.calls {
        let spreads = [figures.solo.delivery_us, figures.several.delivery_us].map(spread).join(" ");
        let _ = writeln!(text, "{}{spreads}", load(figures.call, figures.in_flight));
    }
    let frames: Vec<_> = report.frames_received.iter().map(|&frames| count(frames)).collect();
    let _ = writeln!(text, "\nframes received, by node: {}", frames.join(" · "));
    let _ = writeln!(text, "partial receipts: {}", count(report.partial_receipts));
    text
}

fn load(call: &str, in_flight: usize) -> String {
    format!("{:<19}", format!("  {call}, {in_flight} in flight"))
}

fn spread(Spread { p50, p99 }: Spread) -> String {
    format!("{:>9}, {:>9}", micros(p50), micros(p99))
}

/// What is wrong with a run that has figures.
pub fn faults(report: &NodesReport) -> Option<String> {
    let others = report.frames_at_others();
    let moved = (others > 0).then(|| format!("{others} frames came to nodes that have nothing to do with the emits"));
    let partial = report.partial_receipts;
    let partial = (partial > 0).then(|| format!("{partial} receipts were partial, though all nodes were there"));
    let faults: Vec<_> = moved.into_iter().chain(partial).collect();
    (!faults.is_empty()).then(|| faults.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(frames_received: Vec<u64>, partial_receipts: u64) -> NodesReport {
        NodesReport {
            nodes: frames_received.len(),
            devices: 1,
            emits: 10,
            payload_bytes: 100,
            rounds: 5,
            calls: Vec::new(),
            frames_received,
            partial_receipts,
        }
    }

    #[test]
    fn frames_at_other_nodes_and_partial_receipts_are_faults() {
        assert_eq!(faults(&report(vec![10, 10, 0], 0)), None);
        let told = faults(&report(vec![10, 10, 3, 1], 2)).unwrap();
        assert!(told.contains("4 frames came") && told.contains("2 receipts"), "{told}");
    }

    #[test]
    fn the_frames_of_each_node_are_shown() {
        assert!(table(&report(vec![1_000, 10, 0], 0)).contains("by node: 1,000 · 10 · 0\n"));
    }
}
