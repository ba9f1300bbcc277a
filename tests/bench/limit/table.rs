//! What was found, as a table.

use crate::figures::{machine, median, micros};

/// Collects comparisons.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    bugle: f64,
    limit: f64,
    multiple: f64,
    most: Option<f64>,
}

/// What both cost in each round, in microseconds.
#[derive(Default)]
pub struct Rounds(Vec<(f64, f64)>);

impl Rounds {
    /// One more round of Bugle, and of the limit next to it.
    pub fn add(&mut self, bugle: f64, limit: f64) {
        self.0.push((bugle, limit));
    }

    /// What Bugle costs.
    pub fn bugle(&self) -> f64 {
        median(self.0.iter().map(|(bugle, _)| *bugle).collect())
    }

    fn limit(&self) -> f64 {
        median(self.0.iter().map(|(_, limit)| *limit).collect())
    }

    /// Each round's own, since the machine is not as fast in each.
    fn multiple(&self) -> f64 {
        median(self.0.iter().map(|(bugle, limit)| bugle / limit).collect())
    }
}

impl Table {
    /// Bugle costs at most so many times the limit.
    pub fn at_most(&mut self, what: String, rounds: &Rounds, most: f64) {
        let (bugle, limit, multiple) = (rounds.bugle(), rounds.limit(), rounds.multiple());
        self.add(Row { what, bugle, limit, multiple, most: Some(most) });
    }

    /// Of what Bugle costs, so much is this part of it.
    pub fn part(&mut self, what: String, bugle: f64, part: f64) {
        self.add(Row { what, bugle, limit: part, multiple: bugle / part, most: None });
    }

    fn add(&mut self, row: Row) {
        eprintln!("{}", row.text());
        self.rows.push(row);
    }

    /// Whether every target was met.
    pub fn is_met(&self) -> bool {
        self.rows.iter().all(Row::is_met)
    }

    /// Prints the table, and what it was measured on.
    pub fn print(&self) {
        println!("\n| server CPU | Bugle | limit | multiple | target | |");
        println!("|---|---|---|---|---|---|");
        for row in &self.rows {
            println!("{}", row.text());
        }
        println!("\n{}", machine());
    }
}

impl Row {
    fn is_met(&self) -> bool {
        self.most.is_none_or(|most| self.multiple <= most)
    }

    fn text(&self) -> String {
        let Self { what, bugle, limit, multiple, most } = self;
        let target = most.map(|most| format!("≤ {most:.1}")).unwrap_or_default();
        let (multiple, verdict) = match (most, self.is_met()) {
            (None, _) => (format!("a share of {:.1} %", 100.0 / multiple), ""),
            (Some(_), true) => (format!("{multiple:.2}"), "met"),
            (Some(_), false) => (format!("{multiple:.2}"), "**missed**"),
        };
        let (bugle, limit) = (micros(*bugle), micros(*limit));
        format!("| {what} | {bugle} | {limit} | {multiple} | {target} | {verdict} |")
    }
}
