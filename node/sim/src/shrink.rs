//! The smallest plan that still breaks the same invariant: delta debugging over the faults, then over the world.

use crate::plan::Plan;
use crate::run::run_plan;

/// Runs that shrinking may take.
const RUNS_MAX: u32 = 3000;

/// What came of shrinking.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest plan found.
    pub plan: Plan,
    /// Runs that it took.
    pub runs: u32,
}

struct Hunt {
    invariant: &'static str,
    best: Plan,
    runs: u32,
}

/// Shrinks a plan that breaks something; `None` when it breaks nothing.
#[must_use]
pub fn shrink(plan: &Plan) -> Option<Shrunk> {
    let report = run_plan(plan.clone(), false);
    let invariant = report.violation?.invariant;
    let mut hunt = Hunt { invariant, best: plan.clone(), runs: 1 };
    // What was never reached cannot matter; and the time of healing must not depend on what is left out.
    let end = report.healed_us.unwrap_or(report.virtual_us);
    hunt.attempt(|p| {
        p.faults.retain(|f| f.at_us <= end);
        p.heal_us = Some(end);
    });
    loop {
        let before = hunt.best.clone();
        hunt.fewer_faults();
        hunt.earlier_end();
        hunt.simpler_world();
        if hunt.best == before || hunt.runs >= RUNS_MAX {
            return Some(Shrunk { plan: hunt.best, runs: hunt.runs });
        }
    }
}

impl Hunt {
    /// Keeps the edited plan if it breaks the same.
    fn attempt(&mut self, edit: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.clone();
        edit(&mut plan);
        if plan == self.best || self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let broken = run_plan(plan.clone(), false).violation.is_some_and(|v| v.invariant == self.invariant);
        if broken {
            self.best = plan;
        }
        broken
    }

    /// Leaves out ever smaller pieces of the list.
    fn fewer_faults(&mut self) {
        let mut piece = self.best.faults.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.best.faults.len() {
                let end = (at + piece).min(self.best.faults.len());
                if !self.attempt(|p| drop(p.faults.drain(at..end))) {
                    at = end;
                }
            }
            if piece == 1 {
                return;
            }
            piece = piece.div_ceil(2);
        }
    }

    fn earlier_end(&mut self) {
        let last = self.best.faults.last().map_or(0, |f| f.at_us);
        for extra_ms in [200, 1000, 3000, 10_000] {
            if self.attempt(|p| p.heal_us = p.heal_us.map(|end| end.min(last + extra_ms * 1000))) {
                return;
            }
        }
    }

    fn simpler_world(&mut self) {
        self.attempt(|p| p.loss = 0);
        self.attempt(|p| p.duplicates = 0);
        self.attempt(|p| p.spikes = false);
        self.attempt(|p| p.drift_ppm = 0);
        self.attempt(|p| p.bytes = false);
        self.attempt(|p| p.wall_steps = false);
        self.attempt(|p| p.non_electable = None);
        self.attempt(|p| p.primary_ep = None);
        self.attempt(|p| p.uuid_given = true);
        self.attempt(|p| p.whole_book = true);
        self.attempt(|p| p.starts.iter_mut().for_each(|s| *s = 0));
        self.attempt(|p| (p.latency_us, p.sync_us) = ((1000, 1000), (2000, 2000)));
        self.attempt(|p| p.clients = 1);
        self.attempt(|p| p.clients = 0);
        while self.best.targets > 0
            && self.attempt(|p| {
                p.targets -= 1;
                p.starts.truncate(p.nodes());
            })
        {}
    }
}
