//! One run: found, hurt, heal, and require that everything comes together again.

use ais_ha::Transferred;
use ais_ha::invariant::{Verdict, Violation, violated};
use ais_meta::BucketName;

use crate::counts::Counts;
use crate::plan::{Class, FAULTS_END, Plan};
use crate::seen::Seen;
use crate::world::{Micros, World, ms};

/// After the faults, a fresh update through every gateway commits within this time (L1), and all nodes serve the same
/// State (L2): a started process waits out one lease, a joiner backs off up to 5 s.
const CONVERGE: Micros = ms(12_000);
/// Whoever stops when everything heals is back within this time.
const LEFT: Micros = ms(15_000);
/// Then a hand-over to an electable gateway ends well within this time (L3).
const PREFER: Micros = ms(10_000);
/// A decommission ends at last: a voter that leaves waits for another in its place, and a flapping one is damped for ten
/// minutes at most (protocol.md section 4).
const WOUND_UP: Micros = ms(600_000) + CONVERGE;
/// A run counts with this many faults and mutations.
pub(crate) const FAULTS_MIN: u64 = 5;
/// See [`FAULTS_MIN`].
pub(crate) const MUTATIONS_MIN: u64 = 50;
/// Longest time of faults.
const LONGEST: Micros = ms(300_000);
/// Least length of a run.
const LENGTH: Micros = ms(60_000);
/// And more, when no voter that may lead knew who votes: a gateway waits twice `evict_smap` before it stands for the
/// State that it is given (protocol.md section 4), and once more when it was started again meanwhile.
const HEADLESS: Micros = ms(45_000);
/// What was asked through a gateway so long ago is done or given up.
const GIVEN_UP: Micros = ms(16_000);
/// In a benign world the cluster is complete by then.
const SETTLED: Micros = ms(11_900);

/// What came of a plan.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How often what happened.
    pub counts: Counts,
    /// Virtual time.
    pub virtual_us: Micros,
    /// When the faults ended, if they did.
    pub healed_us: Option<Micros>,
    /// Hash of the transcript.
    pub hash: u64,
    /// What broke.
    pub violation: Option<Violation>,
}

/// Runs what a seed stands for.
#[must_use]
pub fn run_seed(seed: u64, show: bool) -> Report {
    run_plan(Plan::of(seed), show)
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: Plan, show: bool) -> Report {
    let seed = plan.seed;
    let mut world = World::new(plan, show);
    let mut healed_us = None;
    let violation = world.live(&mut healed_us).err();
    world.count_all();
    let hash = world.trace.hash();
    Report { seed, counts: world.counts, virtual_us: world.now, healed_us, hash, violation }
}

impl World {
    fn live(&mut self, healed_us: &mut Option<Micros>) -> Verdict {
        let benign = self.plan.class == Class::Benign;
        if benign {
            self.run_until(SETTLED)?;
        }
        let led = (self.primary(), self.record.newest().epoch);
        self.run_until(self.plan.heal_us.unwrap_or(FAULTS_END))?;
        // A founding held up by faults takes its share of the time: the run is longer then.
        while self.plan.heal_us.is_none() && self.is_thin() && self.now < LONGEST {
            self.run_until(self.now + ms(1000))?;
        }
        self.heal();
        *healed_us = Some(self.now);
        let headless = if self.nemesis.headless { HEADLESS } else { 0 };
        self.converge(self.now + CONVERGE + headless)?;
        if benign {
            self.undeposed(led)?;
        }
        self.prefer()?;
        self.wind_up()?;
        self.run_until(LENGTH.max(self.now))?;
        self.record.settle()
    }

    /// What healing left under way is finished by itself.
    fn wind_up(&mut self) -> Verdict {
        let until = self.now + WOUND_UP;
        while let Some(txn) = self.pending_txn() {
            self.counts.saw(Seen::TxnWaits);
            if self.now >= until {
                return violated(
                    "L1",
                    format!("{} of {:?} is not finished, phase {:?}", txn.action, txn.nodes, txn.phase),
                );
            }
            self.run_until(self.now + ms(1000))?;
        }
        Ok(())
    }

    fn is_thin(&self) -> bool {
        self.counts.strikes() < FAULTS_MIN || self.counts.mutations < MUTATIONS_MIN
    }

    /// L4: nothing that befell the others took the lead from a healthy primary.
    fn undeposed(&mut self, (primary, epoch): (Option<usize>, u64)) -> Verdict {
        let now = self.record.newest().epoch;
        if primary.is_none() {
            // Nobody led yet: nothing is proven.
            return Ok(());
        }
        if now == epoch && self.primary() == primary {
            self.counts.saw(Seen::Undeposed);
            return Ok(());
        }
        let what = format!("{primary:?} led epoch {epoch} in health; epoch {now} is of {:?}", self.primary());
        violated("L4", what)
    }

    /// L3: whoever is preferred and may lead does so when asked.
    pub(crate) fn prefer(&mut self) -> Verdict {
        let Some(primary) = self.primary() else { return violated("L3", "nobody leads") };
        let may = |g: &usize| {
            let state = self.served(*g).filter(|_| *g != primary);
            state.and_then(|s| s.nodes().get(&self.hosts[*g].id)).is_some_and(|n| n.electable())
        };
        let able: Vec<usize> = (0..self.plan.gateways).filter(may).collect();
        let Some(to) = self.rng.pick(&able) else { return Ok(()) };
        let mut via = self.rng.index(self.plan.gateways);
        let mut run = self.hosts[via].run();
        let until = self.now + PREFER;
        let mut nonce = self.transfer(via, to);
        let mut told = Vec::new();
        while self.now < until {
            self.run_until(self.now + ms(20))?;
            let Some((_, result)) = self.transfers.iter().find(|(n, _)| *n == nonce).cloned() else {
                if self.hosts[via].run() != run {
                    // A gateway that was ordered to end took the question with it.
                    via = to;
                    run = self.hosts[via].run();
                    nonce = self.transfer(via, to);
                }
                continue;
            };
            match result {
                Transferred::Done { .. } if self.leads(to) => {
                    self.counts.saw(Seen::Preferred);
                    return Ok(());
                }
                // Another may be under way, or a member is still catching up: whoever wants it asks again.
                Transferred::Busy(_) | Transferred::NotEligible(_) | Transferred::NoPrimary => {
                    told.push(result);
                    self.run_until(self.now + ms(500))?;
                    nonce = self.transfer(via, to);
                }
                other => {
                    told.push(other);
                    break;
                }
            }
        }
        violated("L3", format!("{} did not become primary: {told:?}", self.hosts[to].id))
    }

    /// L1, L2 and the rest of "everything works again".
    fn converge(&mut self, mut until: Micros) -> Verdict {
        // Whoever was about to stop when everything healed is back a little later.
        let last = until + LEFT;
        let mut probes: Vec<Option<BucketName>> = vec![None; self.plan.gateways];
        let mut runs = vec![None; self.plan.gateways];
        let mut asked = vec![self.now; self.plan.gateways];
        loop {
            if self.now >= until {
                return self.blame(&probes);
            }
            self.run_until(self.now + ms(50))?;
            if (0..self.hosts.len()).any(|node| !self.is_up(node)) {
                until = until.max(self.now + CONVERGE).min(last);
            }
            for gateway in 0..self.plan.gateways {
                // A gateway that was about to stop when everything healed takes its mutations with it; and what nobody
                // could be asked for in time is given up (rule 13).
                let run = self.hosts[gateway].run();
                if runs[gateway] != run || self.now >= asked[gateway] + GIVEN_UP {
                    (runs[gateway], asked[gateway]) = (run, self.now);
                    probes[gateway] = self.probe(gateway);
                }
            }
            if self.all_in_service() && self.together(&probes) {
                return self.check_admin();
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
                view.promised.epoch,
                self.served_stamp(node),
                view.accepted.map(|s| s.to_string()),
                view.ready,
                view.reason
            ));
        }
        violated(if self.primary().is_none() { "L1" } else { "L2" }, text)
    }
}
