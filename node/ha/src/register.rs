//! The epoch register: one versioned value, promised, accepted and adopted (protocol.md rules 4 to 7).
//!
//! No notion of time, so safety cannot depend on it. It sees stamps, electorates and digests, never bodies: the model
//! checker runs it as it is.

use std::collections::BTreeMap;
use std::fmt;

use ais_meta::{Digest, Stamp, VoterId};
use serde::{Deserialize, Serialize};

use crate::mutant::Mutant;
use crate::quorum::{self, Voters};

/// An epoch of an incarnation, ordered lexicographically: an epoch is promised within its incarnation, and a higher
/// incarnation is above every epoch of the lower ones (protocol.md section 4, recovery).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Raised only by an administrator's recovery of a lost majority.
    pub incarnation: u32,
    /// One primary's.
    pub epoch: u64,
}

impl Term {
    /// Puts the two together.
    #[must_use]
    pub fn new(incarnation: u32, epoch: u64) -> Self {
        Self { incarnation, epoch }
    }
}

impl From<Stamp> for Term {
    fn from(stamp: Stamp) -> Self {
        Self { incarnation: stamp.incarnation, epoch: stamp.epoch }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.epoch)
    }
}

/// Every disk recovers into incarnations of its own: two administrators who act at two survivors make two lines of
/// different names, of which the higher one wins when they meet. With one name they would be two contents of one stamp.
/// (Disk ids are random: two of them share a slot once in so many times.)
pub const INCARNATION_SLOTS: u32 = 4096;

/// The lowest incarnation above `known` that belongs to `slot`; `None` when there is none left.
#[must_use]
pub fn next_incarnation(known: u32, slot: u32) -> Option<u32> {
    let first = known.checked_add(1)?;
    first.checked_add((INCARNATION_SLOTS + slot % INCARNATION_SLOTS - first % INCARNATION_SLOTS) % INCARNATION_SLOTS)
}

/// A State as the register sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Its name.
    pub stamp: Stamp,
    /// Its content.
    pub digest: Digest,
    /// Who decides on it.
    pub voters: Voters,
}

/// What a node has promised and accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Register {
    promised: Term,
    voted_for: Option<VoterId>,
    accepted: Option<Slot>,
    committed: Stamp,
}

/// The epoch or stamp asked for is behind what this node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The effective promise.
    pub promised: Term,
}

/// What became of an accepted State.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// It is new: write it down, then acknowledge it.
    New,
    /// This very State was accepted before: acknowledge it again once it is durable.
    Again,
}

/// Two contents under one stamp: I4 is broken, the process must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forked {
    /// The stamp.
    pub stamp: Stamp,
}

impl Register {
    /// What the disk remembers. The order in which promise and State were written does not matter.
    #[must_use]
    pub fn load(
        promised: Term,
        voted_for: Option<VoterId>,
        accepted: Option<(Slot, VoterId)>,
        committed: Stamp,
    ) -> Self {
        let mut register = Self { promised, voted_for, accepted: None, committed };
        if let Some((slot, primary)) = accepted {
            let term = Term::from(slot.stamp);
            if term >= register.promised {
                (register.promised, register.voted_for) = (term, Some(primary));
            }
            register.accepted = Some(slot);
        }
        register
    }

    /// No message of a lower one is heeded.
    #[must_use]
    pub fn promised(&self) -> Term {
        self.promised
    }

    /// Whose the promised epoch is.
    #[must_use]
    pub fn voted_for(&self) -> Option<&VoterId> {
        self.voted_for.as_ref()
    }

    /// The accepted State.
    #[must_use]
    pub fn accepted(&self) -> Option<&Slot> {
        self.accepted.as_ref()
    }

    /// The newest stamp known to be committed.
    #[must_use]
    pub fn committed(&self) -> Stamp {
        self.committed
    }

    /// Whether `asker` could get `term` as far as the register goes (leases are the caller's).
    ///
    /// # Errors
    /// [`Refused`] with the effective promise.
    pub fn may_promise(&self, term: Term, asker: &VoterId) -> Result<(), Refused> {
        let again = term == self.promised && self.voted_for.as_ref() == Some(asker);
        if term > self.promised || again { Ok(()) } else { Err(Refused { promised: self.promised }) }
    }

    /// Promises `term` to `asker` (rule 4). The caller makes it durable before anybody hears of it. A candidate asks
    /// within the incarnation of the State that it accepted; only a recovery takes a new one.
    ///
    /// # Errors
    /// As [`Register::may_promise`]; nothing changed then.
    pub fn promise(&mut self, term: Term, asker: &VoterId) -> Result<(), Refused> {
        self.may_promise(term, asker)?;
        (self.promised, self.voted_for) = (term, Some(asker.clone()));
        Ok(())
    }

    /// Accepts a State of `primary` (rule 6): raises the promise with it.
    ///
    /// # Errors
    /// [`Refused`] if its epoch is promised away or it is not newer than the accepted one.
    ///
    /// # Panics
    /// Never; a fork is reported by [`Register::check_fork`], which callers ask first.
    pub fn accept(&mut self, slot: &Slot, primary: &VoterId) -> Result<Accept, Refused> {
        let refused = Refused { promised: self.promised };
        if !Mutant::FenceByVersion.on() {
            self.may_promise(slot.stamp.into(), primary).map_err(|_| refused)?;
        }
        if self.accepted.as_ref() == Some(slot) {
            return Ok(Accept::Again);
        }
        if self.accepted.as_ref().is_some_and(|a| slot.stamp <= a.stamp) {
            return Err(refused);
        }
        if !Mutant::AcceptKeepsPromise.on() {
            (self.promised, self.voted_for) = (slot.stamp.into(), Some(primary.clone()));
        }
        self.accepted = Some(slot.clone());
        Ok(Accept::New)
    }

    /// I4: equal stamp, equal digest.
    ///
    /// # Errors
    /// [`Forked`] when the accepted State has this stamp and another content.
    pub fn check_fork(&self, stamp: Stamp, digest: Digest) -> Result<(), Forked> {
        match &self.accepted {
            Some(a) if a.stamp == stamp && a.digest != digest => Err(Forked { stamp }),
            _ => Ok(()),
        }
    }

    /// Learns that everything up to `stamp` is committed. True if that was news.
    pub fn commit(&mut self, stamp: Stamp) -> bool {
        let news = stamp > self.committed;
        self.committed = self.committed.max(stamp);
        news
    }
}

/// A candidate's collection of promises (rules 4 and 5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ballot {
    /// The epoch that is asked for.
    pub epoch: u64,
    promises: BTreeMap<VoterId, Option<Slot>>,
    own: Option<Slot>,
}

impl Ballot {
    /// Starts with what the candidate itself has accepted; its own promise is added by [`Ballot::promise`] like any
    /// other, once durable.
    #[must_use]
    pub fn new(epoch: u64, own: Option<Slot>) -> Self {
        Self { epoch, promises: BTreeMap::new(), own }
    }

    /// Counts a promise of this epoch.
    pub fn promise(&mut self, from: VoterId, accepted: Option<Slot>) {
        self.promises.insert(from, accepted);
    }

    /// The State to adopt: the highest stamp among all that were given.
    #[must_use]
    pub fn adopted(&self) -> Option<&Slot> {
        if Mutant::NoAdoption.on() {
            return self.own.as_ref();
        }
        self.promises.values().flatten().chain(&self.own).max_by_key(|s| s.stamp)
    }

    /// Who gave the State of this stamp.
    #[must_use]
    pub fn holder(&self, stamp: Stamp) -> Option<&VoterId> {
        self.promises.iter().find(|(_, s)| s.as_ref().is_some_and(|s| s.stamp == stamp)).map(|(v, _)| v)
    }

    /// Everybody to ask: the voters of every State that was given.
    #[must_use]
    pub fn asked(&self) -> Voters {
        self.promises.values().flatten().chain(&self.own).flat_map(|s| s.voters.iter().cloned()).collect()
    }

    /// Whether this voter promised.
    #[must_use]
    pub fn has(&self, voter: &VoterId) -> bool {
        self.promises.contains_key(voter)
    }

    /// Whether a majority of the adopted State's own electorate promised.
    #[must_use]
    pub fn won(&self) -> bool {
        if Mutant::MajorityOfResponders.on() {
            return self.adopted().is_some() && self.promises.len() >= 2;
        }
        let counted = if Mutant::OwnElectorate.on() { self.own.as_ref() } else { self.adopted() };
        counted.is_some_and(|a| quorum::decides(&a.voters, |v| self.has(v)))
    }
}

/// A State that waits for acknowledgements (rule 6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The State.
    pub slot: Slot,
    acks: Voters,
}

impl Proposal {
    /// Nobody acknowledged yet, its writer included.
    #[must_use]
    pub fn new(slot: Slot) -> Self {
        Self { slot, acks: Voters::new() }
    }

    /// As [`Proposal::new`]; `before` are the voters of the State before, which do not count.
    #[must_use]
    pub fn following(slot: Slot, before: &Voters) -> Self {
        let mut proposal = Self::new(slot);
        if Mutant::CommitInOldElectorate.on() {
            proposal.slot.voters = before.clone();
        }
        proposal
    }

    /// Counts an acknowledgement of exactly this State.
    pub fn ack(&mut self, from: &VoterId, stamp: Stamp, digest: Digest) {
        if stamp == self.slot.stamp && digest == self.slot.digest {
            self.acks.insert(from.clone());
        }
    }

    /// Whether a majority of the electorate *inside* the State acknowledged it.
    #[must_use]
    pub fn committed(&self) -> bool {
        if Mutant::CommitOnLocalPersist.on() {
            return !self.acks.is_empty();
        }
        quorum::decides(&self.slot.voters, |v| self.acks.contains(v))
    }
}
