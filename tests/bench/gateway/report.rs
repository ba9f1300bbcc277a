//! What was found, as a table.

use crate::figures::machine;

/// Collects figures, and whether what must hold does.
#[derive(Default)]
pub struct Report {
    scenario: &'static str,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    figure: String,
    target: String,
    holds: bool,
    scenario: &'static str,
}

impl Report {
    /// What follows was found by this scenario.
    pub fn begin(&mut self, scenario: &'static str) {
        self.scenario = scenario;
    }

    /// A figure without a target.
    pub fn figure(&mut self, what: impl Into<String>, figure: impl Into<String>) {
        self.add(what.into(), figure.into(), String::new(), true);
    }

    /// A figure that is at most `most`.
    pub fn at_most(&mut self, what: impl Into<String>, figure: f64, most: f64, unit: &str) {
        let most_text = format!("{most:.2}");
        let most_text = most_text.trim_end_matches('0').trim_end_matches('.');
        self.add(what.into(), format!("{figure:.2} {unit}"), format!("≤ {most_text} {unit}"), figure <= most);
    }

    /// Something that must be so.
    pub fn must(&mut self, what: impl Into<String>, figure: impl Into<String>, holds: bool) {
        self.add(what.into(), figure.into(), "must hold".into(), holds);
    }

    /// A scenario that cannot run here.
    pub fn skipped(&mut self, why: &str) {
        self.add("skipped".into(), why.into(), String::new(), true);
    }

    fn add(&mut self, what: String, figure: String, target: String, holds: bool) {
        eprintln!("  {what}: {figure}{}", if holds { "" } else { " — MISSED" });
        self.rows.push(Row { what, figure, target, holds, scenario: self.scenario });
    }

    /// Whether every target was met.
    pub fn all_holds(&self) -> bool {
        self.rows.iter().all(|row| row.holds)
    }

    /// Prints the table, and what it was measured on.
    pub fn print(&self) {
        println!("\n| what | figure | target | command |");
        println!("|---|---|---|---|");
        for Row { what, figure, target, holds, scenario } in &self.rows {
            let missed = if *holds { "" } else { " **missed**" };
            println!("| {what} | {figure}{missed} | {target} | `cargo bench --bench gateway -- {scenario}` |");
        }
        println!("\n{}", machine());
    }
}

/// The figure below which a share of all lies.
pub fn percentile(sorted: &[u32], share: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small")]
    let place = (sorted.len() as f64 * share) as usize;
    sorted[place.min(sorted.len() - 1)]
}
