//! One run: found, hurt, heal, and require that everything comes together again.

use ais_ha::invariant::{Verdict, Violation, violated};
use ais_meta::BucketName;

use crate::plan::{FAULTS_END, Plan};
use crate::world::{Counts, Micros, World, ms};

/// After the faults, a fresh update through every gateway commits within this time (L1), and all nodes serve the same
/// State (L2): a started process waits out one lease, a joiner backs off up to 5 s.
const CONVERGE: Micros = ms(12_000);
/// A run counts with this many faults and mutations.
pub(crate) const FAULTS_MIN: u64 = 5;
/// See [`FAULTS_MIN`].
pub(crate) const MUTATIONS_MIN: u64 = 50;
/// Longest time of faults.
const LONGEST: Micros = ms(300_000);
/// Least length of a run.
const LENGTH: Micros = ms(60_000);

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How often what happened.
    pub counts: Counts,
    /// Virtual time.
    pub virtual_us: Micros,
    /// Hash of the transcript.
    pub hash: u64,
    /// What broke.
    pub violation: Option<Violation>,
}

/// Runs a seed.
#[must_use]
pub fn run_seed(seed: u64, show: bool) -> Report {
    run_plan(Plan::of(seed), show)
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: Plan, show: bool) -> Report {
    let seed = plan.seed;
    let mut world = World::new(plan, show);
    let violation = world.live().err();
    world.count_all();
    Report { seed, counts: world.counts, virtual_us: world.now, hash: world.trace.hash(), violation }
}

impl World {
    fn live(&mut self) -> Verdict {
        let first = if self.plan.early_faults { ms(100) } else { ms(3000) };
        self.begin_faults(first);
        self.run_until(FAULTS_END)?;
        // A founding held up by faults takes its share of the time: the run is longer then.
        while self.is_thin() && self.now < LONGEST {
            self.run_until(self.now + ms(1000))?;
        }
        self.heal();
        let healed = self.now;
        self.converge(healed + CONVERGE)?;
        self.run_until(LENGTH.max(self.now))?;
        self.record.settle()
    }

    fn is_thin(&self) -> bool {
        self.counts.faults.iter().sum::<u64>() < FAULTS_MIN || self.counts.mutations < MUTATIONS_MIN
    }

    /// L1, L2 and the rest of "everything works again".
    fn converge(&mut self, until: Micros) -> Verdict {
        let mut probes: Vec<Option<BucketName>> = vec![None; self.plan.gateways];
        let mut runs = vec![None; self.plan.gateways];
        loop {
            if self.now >= until {
                return self.blame(&probes);
            }
            self.run_until(self.now + ms(50))?;
            for gateway in 0..self.plan.gateways {
                // A gateway that was about to stop when everything healed takes its mutations with it.
                let run = self.hosts[gateway].run();
                if runs[gateway] != run {
                    runs[gateway] = run;
                    probes[gateway] = self.probe(gateway);
                }
            }
            if self.together(&probes) {
                return Ok(());
            }
        }
    }

    fn together(&self, probes: &[Option<BucketName>]) -> bool {
        let newest = self.record.newest();
        let primary = self.primary();
        primary.is_some()
            && (0..self.hosts.len()).all(|node| {
                let served = self.served(node);
                let view = || self.hosts[node].process.as_ref().is_some_and(|p| p.core.view().ready);
                served.is_some_and(|s| {
                    s.stamp() == newest
                        && probes.iter().all(|p| p.as_ref().is_some_and(|name| s.buckets().contains_key(name)))
                }) && view()
            })
    }

    fn blame(&self, probes: &[Option<BucketName>]) -> Verdict {
        let newest = self.record.newest();
        let mut text = format!("newest committed {newest}, probes {probes:?}, primary {:?}", self.primary());
        for (node, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else {
                text.push_str(&format!("; {} is down", host.id));
                continue;
            };
            let view = process.core.view();
            let primary = view.primary.map(|p| p.id.node);
            text.push_str(&format!(
                "; {} {:?} e{} serves {} accepted {:?} primary {primary:?} ready {} '{}'",
                host.id,
                view.role,
                view.promised,
                self.served_stamp(node),
                view.accepted.map(|s| s.to_string()),
                view.ready,
                view.reason
            ));
        }
        violated(if self.primary().is_none() { "L1" } else { "L2" }, text)
    }
}
