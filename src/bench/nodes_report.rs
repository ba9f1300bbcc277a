//! What was found with several nodes.

use serde::Serialize;

use super::{latency::Percentiles, report::round};

/// All figures of a bench of several nodes; each is the median of its rounds.
#[derive(Clone, Debug, Serialize)]
pub struct NodesReport {
    /// How many nodes there were.
    pub nodes: usize,
    /// How many devices, all on the second node.
    pub devices: usize,
    /// How many emits were measured in each round, of each call.
    pub emits: u64,
    /// Of each payload.
    pub payload_bytes: usize,
    /// How many rounds.
    pub rounds: usize,
    /// One for each call and number in flight.
    pub calls: Vec<CallFigures>,
    /// Frames that the nodes received from the first warm-up to the last emit, in their order: the first sends, the second has the devices.
    pub frames_received: Vec<u64>,
    /// Receipts that said that a node is missing.
    pub partial_receipts: u64,
}

/// One call at one number in flight.
#[derive(Clone, Debug, Serialize)]
pub struct CallFigures {
    /// `user` (`EmitToUser`) or `stream` (`EmitStream`).
    pub call: &'static str,
    /// How many emits were without an answer at most.
    pub in_flight: usize,
    /// One node alone, without an engine.
    pub solo: Solo,
    /// The nodes.
    pub several: Several,
    /// In microseconds of processor time for each emit: the sending and the receiving node together, less the node that is alone.
    pub nodes_over_solo_us: f64,
    /// The same with the engine.
    pub all_over_solo_us: f64,
}

/// One node alone, and what an emit took it.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit is a part of each name in the JSON")]
pub struct Solo {
    /// Processor time for each emit, in microseconds.
    pub cpu_us: f64,
    /// From the call to its receipt.
    pub answer_us: Spread,
    /// From the call to the device.
    pub delivery_us: Spread,
}

/// Several nodes, and what an emit took each.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit is a part of each name in the JSON")]
pub struct Several {
    /// Processor time of the node that was called, for each emit, in microseconds.
    pub sender_cpu_us: f64,
    /// That of the node with the devices.
    pub receiver_cpu_us: f64,
    /// That of the engine.
    pub engine_cpu_us: f64,
    /// That of all other nodes together.
    pub others_cpu_us: f64,
    /// From the call to its receipt.
    pub answer_us: Spread,
    /// From the call to the device.
    pub delivery_us: Spread,
}

/// Of latencies, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    /// The median.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
}

/// What one round found at one node, or at several.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// For each emit, of each process.
    pub cpu_us: Vec<f64>,
    pub answered: Spread,
    pub delivered: Spread,
}

impl NodesReport {
    /// How many frames the nodes received that have nothing to do with the emits.
    pub fn frames_at_others(&self) -> u64 {
        self.frames_received.iter().skip(2).sum()
    }
}

impl From<Option<Percentiles>> for Spread {
    fn from(percentiles: Option<Percentiles>) -> Self {
        percentiles.map_or_else(Self::default, |Percentiles { p50, p99, .. }| Self { p50, p99 })
    }
}

impl CallFigures {
    /// Of rounds; the processes of several nodes are the engine, and the nodes in their order.
    pub(super) fn of(call: &'static str, in_flight: usize, solo: &[Round], several: &[Round]) -> Self {
        let of_process = |rounds: &[Round], process: usize| median_of(rounds, |round| cpu(round, process));
        let more = |first: usize| {
            let pairs = solo.iter().zip(several);
            let differences = pairs.map(|(solo, several)| {
                (first..=2).map(|process| cpu(several, process)).sum::<f64>() - solo.cpu_us.iter().sum::<f64>()
            });
            median(differences.collect())
        };
        Self {
            call,
            in_flight,
            solo: Solo {
                cpu_us: of_process(solo, 0),
                answer_us: spread(solo, |round| round.answered),
                delivery_us: spread(solo, |round| round.delivered),
            },
            several: Several {
                engine_cpu_us: of_process(several, 0),
                sender_cpu_us: of_process(several, 1),
                receiver_cpu_us: of_process(several, 2),
                others_cpu_us: median_of(several, |round| round.cpu_us.iter().skip(3).sum()),
                answer_us: spread(several, |round| round.answered),
                delivery_us: spread(several, |round| round.delivered),
            },
            nodes_over_solo_us: more(1),
            all_over_solo_us: more(0),
        }
    }
}

fn cpu(round: &Round, process: usize) -> f64 {
    round.cpu_us.get(process).copied().unwrap_or_default()
}

fn spread(rounds: &[Round], of: impl Fn(&Round) -> Spread) -> Spread {
    Spread { p50: median_of(rounds, |round| of(round).p50), p99: median_of(rounds, |round| of(round).p99) }
}

fn median_of(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(figure).collect())
}

/// To a hundredth.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    // Of nothing the sum is -0.
    figures.get(figures.len() / 2).map_or(0.0, |&figure| round(figure, 100.0) + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(cpu_us: &[&[f64]]) -> Vec<Round> {
        let round = |cpu_us: &&[f64]| Round {
            cpu_us: cpu_us.to_vec(),
            answered: Spread::default(),
            delivered: Spread::default(),
        };
        cpu_us.iter().map(round).collect()
    }

    fn assert_equal(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }

    #[test]
    fn figures_are_medians_and_differences_are_of_one_round() {
        let solo = rounds(&[&[30.0], &[50.0], &[31.0]]);
        let several =
            rounds(&[&[4.0, 25.0, 20.0, 1.0, 1.0], &[5.0, 40.0, 30.0, 0.0, 0.0], &[3.0, 26.0, 19.0, 0.0, 1.0]]);
        let figures = CallFigures::of("user", 1, &solo, &several);
        assert_equal(figures.solo.cpu_us, 31.0);
        assert_equal(figures.several.engine_cpu_us, 4.0);
        assert_equal(figures.several.sender_cpu_us, 26.0);
        assert_equal(figures.several.receiver_cpu_us, 20.0);
        assert_equal(figures.several.others_cpu_us, 1.0);
        assert_equal(figures.nodes_over_solo_us, 15.0);
        assert_equal(figures.all_over_solo_us, 19.0);
    }

    #[test]
    fn frames_of_sender_and_receiver_are_not_those_of_others() {
        let report = |frames_received| NodesReport {
            nodes: 4,
            devices: 1,
            emits: 1,
            payload_bytes: 1,
            rounds: 1,
            calls: Vec::new(),
            frames_received,
            partial_receipts: 0,
        };
        assert_eq!(report(vec![7, 8, 0, 2]).frames_at_others(), 2);
        assert_eq!(report(vec![7, 8]).frames_at_others(), 0);
    }
}
