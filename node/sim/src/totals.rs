//! What a range of seeds came to, and whether enough happened for it to mean anything.

use std::fmt::Write as _;
use std::time::Duration;

use crate::counts::Counts;
use crate::fault::KINDS;
use crate::run::{FAULTS_MIN, MUTATIONS_MIN, Report};
use crate::seen::SEEN;

/// Sums.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Seeds run.
    pub seeds: u64,
    virtual_us: u64,
    counts: Counts,
    /// Runs with too few faults or mutations to count.
    thin: Vec<u64>,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.virtual_us += report.virtual_us;
        self.counts.add(&report.counts);
        let few = report.counts.strikes() < FAULTS_MIN || report.counts.mutations < MUTATIONS_MIN;
        if report.violation.is_none() && few {
            self.thin.push(report.seed);
        }
    }

    /// What was expected of so many seeds and did not happen. Floors are per thousand seeds and are rounded down.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let c = &self.counts;
        let own = [("commits", c.commits, 20_000), ("mutations settled", c.settled, 20_000)];
        let faults = KINDS.iter().zip(c.faults).map(|((name, floor), count)| (*name, count, *floor));
        let seen = SEEN.iter().zip(c.seen).map(|((name, floor), count)| (*name, count, *floor));
        let all = own.into_iter().chain(faults).chain(seen);
        let mut missing: Vec<String> = all
            .map(|(name, count, floor)| (name, count, floor * self.seeds / 1000))
            .filter(|(_, count, need)| count < need)
            .map(|(name, count, need)| format!("{name}: {count} of {need}"))
            .collect();
        if !self.thin.is_empty() {
            let (runs, some) = (self.thin.len(), &self.thin[..self.thin.len().min(5)]);
            missing.push(format!(
                "{runs} runs with fewer than {FAULTS_MIN} faults or {MUTATIONS_MIN} mutations: {some:?}"
            ));
        }
        missing
    }

    /// One line: how far a long run is.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown only")]
    pub fn line(&self, wall: Duration) -> String {
        let (c, seconds, wall_s) = (&self.counts, self.virtual_us as f64 / 1e6, wall.as_secs_f64().max(1e-9));
        format!(
            "seeds {}  virtual {seconds:.0} s  wall {wall_s:.1} s  {:.0} virtual s/s  events {}  faults {}",
            self.seeds,
            seconds / wall_s,
            c.events,
            c.strikes()
        )
    }

    /// For people.
    #[must_use]
    pub fn table(&self, wall: Duration) -> String {
        let c = &self.counts;
        let mut text = format!("{}\n", self.line(wall));
        let _ = writeln!(
            text,
            "commits {}  mutations {}: settled {}, abandoned {}",
            c.commits, c.mutations, c.settled, c.abandoned
        );
        let named = |all: &[(&str, u64)], counts: &[u64]| {
            let parts: Vec<String> = all.iter().zip(counts).map(|((name, _), n)| format!("{name} {n}")).collect();
            parts.join(" | ")
        };
        let _ = writeln!(text, "faults: {}", named(&KINDS, &c.faults));
        let _ = writeln!(text, "rules: {}", named(SEEN, &c.seen));
        text
    }
}
