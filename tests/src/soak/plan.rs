//! What happens when: a function of the seed.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::history::Random;

/// A fault that is not among so many of a plan is in none.
const LOOKS_MAX: usize = 10_000;

/// Whom a fault strikes, told when it strikes: the same plan fits every course of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever leads then.
    Primary,
    /// One of the other gateways.
    Gateway(usize),
    /// One of the targets.
    Target(usize),
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, of two nodes at once for instance; started again when the fault ends.
    Kill(Vec<Who>),
    /// `kill -9` and a start at once.
    KillRestart(Who),
    /// SIGTERM, started again when the fault ends.
    Term(Who),
    /// SIGSTOP until the fault ends.
    Pause(Who),
    /// Hears nobody and is heard by nobody, clients neither.
    BlackHole(Who),
    /// Hears nobody.
    Deaf(Who),
    /// Is heard by nobody.
    Mute(Who),
    /// Its link is down.
    Cable(Who),
    /// Two sides; the bits say who is on the first.
    Split(u64),
    /// All nodes lose so many per mille of what other nodes send.
    Lossy(u32),
    /// All processes are killed and started in an order.
    RestartAll(u64),
    /// A voter's or another's disk is replaced.
    Wipe(Vec<Who>),
    /// No room on the disk.
    DiskFull(Who),
    /// No write or sync on that disk ends.
    DiskHangs(Who),
    /// Restarted with syncs that take so many milliseconds longer.
    SlowDisk(Who, u64),
    /// The wall clock jumps, in seconds.
    Clock(Who, i64),
    /// So many per mille of a processor.
    Starve(Who, u64),
    /// Planned, one after the other.
    HandOvers(usize),
    /// A new node joins while the primary is killed; it leaves when the fault ends.
    JoinWhileElecting(usize),
}

impl Fault {
    /// For the tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill(who) if who.len() > 1 => "kill -9 of two",
            Self::Kill(_) => "kill -9",
            Self::KillRestart(_) => "kill -9, restart at once",
            Self::Term(_) => "SIGTERM",
            Self::Pause(_) => "SIGSTOP",
            Self::BlackHole(_) => "black hole",
            Self::Deaf(_) => "one way: deaf",
            Self::Mute(_) => "one way: mute",
            Self::Cable(_) => "link down",
            Self::Split(_) => "split",
            Self::Lossy(_) => "loss of packets",
            Self::RestartAll(_) => "restart of all",
            Self::Wipe(who) if who.len() > 1 => "wipe of two",
            Self::Wipe(_) => "wipe",
            Self::DiskFull(_) => "disk full",
            Self::DiskHangs(_) => "disk hangs",
            Self::SlowDisk(..) => "slow syncs",
            Self::Clock(..) => "clock step",
            Self::Starve(..) => "starved of CPU",
            Self::HandOvers(_) => "hand-overs",
            Self::JoinWhileElecting(_) => "join in an election",
        }
    }
}

/// One fault with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub fault: Fault,
    /// How long it lasts.
    pub hold: Duration,
    /// Between the time when all is whole again and the next fault.
    pub rest: Duration,
}

/// An endless list of steps.
#[derive(Debug)]
pub struct Plan {
    random: Random,
    gateways: usize,
    targets: usize,
    only: Vec<String>,
    given: usize,
}

impl Plan {
    /// The plan of a seed for a cluster of this size.
    pub fn new(seed: u64, gateways: usize, targets: usize) -> Self {
        let mut random = Random::new(seed);
        // The first numbers of near seeds are near each other.
        for _ in 0..16 {
            random.below(2);
        }
        Self { random, gateways, targets, only: Vec::new(), given: 0 }
    }

    /// Of the same plan only the faults of these names; of all when there are none.
    pub fn only(mut self, names: &[String]) -> Result<Self> {
        for name in names {
            let known = |plan: &mut Self| (0..LOOKS_MAX).any(|_| plan.fault().name() == name);
            ensure!(known(&mut Self::new(0, self.gateways, self.targets)), "there is no fault '{name}'");
        }
        names.clone_into(&mut self.only);
        Ok(self)
    }

    /// How many steps were given out.
    pub fn given(&self) -> usize {
        self.given
    }

    /// The next one.
    pub fn next_step(&mut self) -> Step {
        loop {
            let step = self.any_step();
            if self.only.is_empty() || self.only.iter().any(|name| name == step.fault.name()) {
                return step;
            }
        }
    }

    fn any_step(&mut self) -> Step {
        self.given += 1;
        let fault = self.fault();
        let long = self.random.below(8) == 0;
        let hold_ms = self.random.between(500, if long { 12_000 } else { 5_000 });
        let rest_ms = self.random.between(100, 2_000);
        Step { fault, hold: Duration::from_millis(hold_ms), rest: Duration::from_millis(rest_ms) }
    }

    fn who(&mut self) -> Who {
        match self.random.below(5) {
            0..3 => Who::Primary,
            3 => Who::Gateway(self.random.below(self.gateways.max(2) - 1)),
            _ => Who::Target(self.random.below(self.targets.max(1))),
        }
    }

    fn two(&mut self) -> Vec<Who> {
        let second = self.random.below(self.gateways.max(2) - 1);
        let first = if self.random.below(2) == 0 { Who::Primary } else { Who::Target(self.random.below(self.targets)) };
        vec![first, Who::Gateway(second)]
    }

    fn fault(&mut self) -> Fault {
        let who = self.who();
        match self.random.below(23) {
            0 | 1 => Fault::Kill(vec![who]),
            2 => Fault::Kill(self.two()),
            3 => Fault::KillRestart(who),
            4 => Fault::Term(who),
            5 => Fault::Pause(who),
            6 => Fault::BlackHole(who),
            7 => Fault::Deaf(who),
            8 => Fault::Mute(who),
            9 => Fault::Cable(who),
            10 | 11 => Fault::Split(self.random.between(1, (1 << (self.gateways + self.targets)) - 2)),
            12 => Fault::Lossy(u32::try_from(self.random.between(50, 300)).unwrap_or(100)),
            13 => Fault::RestartAll(self.random.between(0, 1 << 20)),
            14 => Fault::Wipe(vec![who]),
            15 => Fault::Wipe(self.two()),
            16 => Fault::DiskFull(who),
            17 => Fault::DiskHangs(who),
            18 => Fault::SlowDisk(who, self.random.between(20, 300)),
            19 => Fault::Clock(who, if self.random.below(2) == 0 { 3600 } else { -3600 }),
            20 => Fault::Starve(who, self.random.between(10, 60)),
            21 => Fault::HandOvers(self.random.below(10) + 1),
            _ => Fault::JoinWhileElecting(self.random.below(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn steps(seed: u64, count: usize) -> Vec<Step> {
        let mut plan = Plan::new(seed, 5, 4);
        (0..count).map(|_| plan.next_step()).collect()
    }

    #[test]
    fn a_seed_gives_one_plan_and_every_fault_comes_up() {
        assert_eq!(steps(7, 300), steps(7, 300));
        assert_ne!(steps(7, 300), steps(8, 300));
        let names: BTreeSet<&str> = steps(7, 300).iter().map(|step| step.fault.name()).collect();
        assert_eq!(names.len(), 21, "{names:?}");
    }

    #[test]
    fn a_plan_of_one_fault_takes_that_one_from_the_whole_plan() {
        let splits = |step: &Step| matches!(step.fault, Fault::Split(_));
        let all: Vec<Step> = steps(7, 2000).into_iter().filter(splits).collect();
        let mut plan = Plan::new(7, 5, 4).only(&["split".to_owned()]).unwrap();
        assert_eq!((0..all.len()).map(|_| plan.next_step()).collect::<Vec<_>>(), all);
        assert!(Plan::new(7, 5, 4).only(&["spilt".to_owned()]).is_err());
    }
}
