//! The table that a run prints.

use std::fmt;

/// One figure beside its limit.
#[derive(Debug)]
struct Row {
    what: String,
    figure: String,
    limit: String,
    ratio: f64,
    target: String,
    met: bool,
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// A figure that should be at least `target` times its limit.
    pub(crate) fn at_least(&mut self, what: &str, figure: String, limit: String, ratio: f64, target: f64) {
        let met = ratio >= target;
        self.0.push(Row { what: what.to_owned(), figure, limit, ratio, target: format!(">= {target:.2}"), met });
    }

    /// A figure that should be at most `target` times its limit.
    pub(crate) fn at_most(&mut self, what: &str, figure: String, limit: String, ratio: f64, target: f64) {
        let met = ratio <= target;
        self.0.push(Row { what: what.to_owned(), figure, limit, ratio, target: format!("<= {target:.2}"), met });
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | figure | limit | ratio | target | |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for row in &self.0 {
            let mark = if row.met { "met" } else { "missed" };
            writeln!(
                f,
                "| {} | {} | {} | {:.2} | {} | {mark} |",
                row.what, row.figure, row.limit, row.ratio, row.target
            )?;
        }
        Ok(())
    }
}

/// Bytes in megabytes, for people.
pub(crate) fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
