//! How often each thing happened in a run.

use ais_ha::Stats;

use crate::fault::KINDS;
use crate::seen::{SEEN, Seen};

/// How often each thing happened.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// By [`KINDS`].
    pub faults: [u64; KINDS.len()],
    /// By [`SEEN`].
    pub seen: [u64; SEEN.len()],
    /// Events processed.
    pub events: u64,
    /// States committed.
    pub commits: u64,
    /// Mutations that clients asked for.
    pub mutations: u64,
    /// Answered from a committed State.
    pub settled: u64,
    /// The gateway died first, or the client gave up.
    pub abandoned: u64,
}

impl Default for Counts {
    fn default() -> Self {
        let (faults, seen) = ([0; KINDS.len()], [0; SEEN.len()]);
        Self { faults, seen, events: 0, commits: 0, mutations: 0, settled: 0, abandoned: 0 }
    }
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.faults.iter_mut().zip(other.faults) {
            *sum += count;
        }
        for (sum, count) in self.seen.iter_mut().zip(other.seen) {
            *sum += count;
        }
        self.events += other.events;
        self.commits += other.commits;
        self.mutations += other.mutations;
        self.settled += other.settled;
        self.abandoned += other.abandoned;
    }

    /// Once more.
    pub(crate) fn saw(&mut self, what: Seen) {
        self.seen[what as usize] += 1;
    }

    /// How often.
    #[must_use]
    pub fn of(&self, what: Seen) -> u64 {
        self.seen[what as usize]
    }

    /// A fault of this kind struck.
    pub(crate) fn struck(&mut self, kind: &str) {
        if let Some(at) = KINDS.iter().position(|(name, _)| *name == kind) {
            self.faults[at] += 1;
        }
    }

    /// Faults that struck.
    #[must_use]
    pub fn strikes(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// Adds what a process counted.
    pub(crate) fn add_stats(&mut self, s: &Stats) {
        self.commits += s.commits;
        let both = [
            (Seen::PreVoteRound, s.pre_votes),
            (Seen::Won, s.wins),
            (Seen::Lapse, s.lapses),
            (Seen::Adoption, s.adoptions),
        ];
        for (what, count) in both {
            self.seen[what as usize] += count;
        }
    }
}
