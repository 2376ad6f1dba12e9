//! What a range of seeds came to, and whether enough happened for it to mean anything.

use std::fmt::Write as _;
use std::time::Duration;

use crate::nemesis::KINDS;
use crate::run::{FAULTS_MIN, MUTATIONS_MIN, Report};
use crate::world::Counts;

/// Sums.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Seeds run.
    pub seeds: u64,
    virtual_us: u64,
    counts: Counts,
    /// Runs with too few faults or mutations to count.
    thin: u64,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.virtual_us += report.virtual_us;
        self.counts.add(&report.counts);
        let faults: u64 = report.counts.faults.iter().sum();
        self.thin +=
            u64::from(report.violation.is_none() && (faults < FAULTS_MIN || report.counts.mutations < MUTATIONS_MIN));
    }

    /// What was expected of so many seeds and did not happen.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let (c, s) = (&self.counts, &self.counts.stats);
        let mut floors = vec![
            ("commits", s.commits, 40),
            ("elections", s.elections, 2),
            ("wins", s.wins, 2),
            ("mutations settled", c.settled, 30),
            ("fresh reads", c.reads, 2),
            ("voters added", s.voters_added, 1),
            ("voters removed", s.voters_removed, 0),
        ];
        floors.extend(KINDS.iter().zip(c.faults).map(|(kind, count)| (*kind, count, 0)));
        let enough = |(_, count, per): &(&str, u64, u64)| *count >= (per * self.seeds).max(self.seeds / 10);
        let mut missing: Vec<String> =
            floors.into_iter().filter(|f| !enough(f)).map(|(what, count, _)| format!("{what}: {count}")).collect();
        if self.thin > 0 {
            missing.push(format!("{} runs with fewer than 5 faults or 50 mutations", self.thin));
        }
        missing
    }

    /// For people.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown only")]
    pub fn table(&self, wall: Duration) -> String {
        let (c, s) = (&self.counts, &self.counts.stats);
        let seconds = self.virtual_us as f64 / 1e6;
        let mut text = format!(
            "seeds {}  virtual {seconds:.0} s  wall {:.1} s  {:.0} virtual s/s  events {}\n",
            self.seeds,
            wall.as_secs_f64(),
            seconds / wall.as_secs_f64().max(1e-9),
            c.events
        );
        let _ = writeln!(
            text,
            "commits {}  pre-votes {}  elections {}  wins {}  resigns {}  lapses {}  adoptions {}  voters added {} removed {}  whole States {}",
            s.commits,
            s.pre_votes,
            s.elections,
            s.wins,
            s.resigns,
            s.lapses,
            s.adoptions,
            s.voters_added,
            s.voters_removed,
            s.fulls
        );
        let _ = writeln!(
            text,
            "mutations {}: settled {}  unknown {}  unavailable {}  abandoned {}; fresh reads {}; hand-overs done {}",
            c.mutations, c.settled, c.unknown, c.unavailable, c.abandoned, c.reads, c.transferred
        );
        let faults: Vec<String> = KINDS.iter().zip(c.faults).map(|(kind, count)| format!("{kind} {count}")).collect();
        let _ = writeln!(text, "faults: {}", faults.join("  "));
        text
    }
}
