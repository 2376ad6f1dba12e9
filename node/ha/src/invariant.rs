//! What must hold (protocol.md section 9), as checks over one record of everything that happened.
//!
//! A test bed (model, simulator, history checker) tells [`World`] what it sees, in order; whatever breaks an invariant
//! comes back as a [`Violation`] that names it. The record is of facts on disks and on the wire, never of a node's own
//! opinion, so a node cannot talk itself into being right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ais_meta::{BucketName, ClusterUuid, Digest, Stamp, State, VoterId};
use imbl::ordmap::DiffItem;

use crate::quorum::{self, Voters};
use crate::register::Term;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// I1 to I11, L1 to L5.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Fine, or not.
pub type Verdict = Result<(), Violation>;

/// Makes a [`Violation`].
///
/// # Errors
/// Always.
pub fn violated<T>(invariant: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { invariant, what: what.into() })
}

fn holds(invariant: &'static str, fine: bool, what: impl FnOnce() -> String) -> Verdict {
    if fine { Ok(()) } else { violated(invariant, what()) }
}

/// A State that somebody wrote.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Content.
    pub digest: Digest,
    /// Writer and its run: an epoch belongs to one run of one process.
    pub writer: (VoterId, u64),
    /// Who decides on it.
    pub voters: Voters,
    /// The State it follows on, where that was seen.
    pub parent: Option<Stamp>,
}

/// What a disk is known to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Effective promise.
    pub promised: Term,
    /// Newest accepted State.
    pub accepted: Stamp,
    /// Newest committed stamp.
    pub committed: Stamp,
}

/// What clients know of one bucket name that was asked for by one mutation only.
#[derive(Clone, Debug, Default)]
struct Asked {
    created: Option<Stamp>,
    destroyed: Option<Stamp>,
    destroy_asked: bool,
    never: bool,
    /// A recovery went on from before or beside it: either is right from then on.
    excused: bool,
    creations: u32,
    destructions: u32,
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub struct World {
    states: BTreeMap<Stamp, Fact>,
    holders: BTreeMap<Stamp, Voters>,
    /// Who said that it holds it.
    told: BTreeMap<Stamp, Voters>,
    committed: BTreeSet<Stamp>,
    writers: BTreeMap<(u32, u64), (VoterId, u64)>,
    disks: BTreeMap<VoterId, Disk>,
    wiped: BTreeSet<VoterId>,
    forgetful: BTreeSet<VoterId>,
    published: BTreeMap<(VoterId, u64), Stamp>,
    founded: BTreeMap<ClusterUuid, Digest>,
    asked: BTreeMap<BucketName, Asked>,
    newest: Option<State>,
}

impl World {
    /// Newest committed stamp.
    #[must_use]
    pub fn newest(&self) -> Stamp {
        self.committed.last().copied().unwrap_or_default()
    }

    /// How many States are known to be committed.
    #[must_use]
    pub fn commits(&self) -> usize {
        self.committed.len()
    }

    /// A disk was erased: its name must never vote again.
    pub fn wiped(&mut self, disk: &VoterId) {
        self.wiped.insert(disk.clone());
    }

    /// Whether every State that is or may become the newest would still be remembered by more than half of its voters
    /// if these disks were erased too. Otherwise only an administrator can help (protocol.md section 4). `leaving`: so many
    /// living ones may lose their seats before the primary knows.
    #[must_use]
    pub fn would_remember(&self, also: &[VoterId], leaving: usize) -> bool {
        let gone = |v: &&VoterId| self.wiped.contains(*v) || self.forgetful.contains(*v) || also.contains(v);
        let mut open = self.states.range(self.newest()..).map(|(_, fact)| &fact.voters);
        open.all(|voters| 2 * voters.iter().filter(gone).count() + leaving < voters.len())
    }

    /// The disk came back as it was before: what it acknowledged since is not on it any more, and it counts as one that
    /// remembers nothing. (A driver may do so only where those who were told are there to say so.) What it acknowledged
    /// counts: a primary may have been told already, and the disk never votes again (rule 10).
    pub fn forgot(&mut self, disk: &VoterId, now: Disk) {
        self.forgetful.insert(disk.clone());
        for (stamp, holders) in self.holders.range_mut(now.accepted.next()..) {
            if !self.told.get(stamp).is_some_and(|told| told.contains(disk)) {
                holders.remove(disk);
            }
        }
        self.disks.insert(disk.clone(), now);
    }

    /// Whether the newest State on this disk is one that it told of: only then can others know that it forgot.
    #[must_use]
    pub fn has_told(&self, disk: &VoterId) -> bool {
        let newest = self.disks.get(disk).map(|d| d.accepted).unwrap_or_default();
        self.told.get(&newest).is_some_and(|told| told.contains(disk))
    }

    /// Whether it was erased.
    #[must_use]
    pub fn is_wiped(&self, disk: &VoterId) -> bool {
        self.wiped.contains(disk)
    }

    /// A State was seen on its way to a disk; `parent`, where the step to it was seen.
    ///
    /// # Errors
    /// I1, I4, I6, I11.
    pub fn wrote(&mut self, state: &State, parent: Option<Stamp>) -> Verdict {
        let stamp = state.stamp();
        if (stamp.epoch, stamp.seq) == (1, 1) {
            // Before I4, which a second founding breaks too: this names the cause.
            i11(&self.founded, state)?;
            self.founded.insert(state.uuid().clone(), state.digest());
        }
        if let Some(fact) = self.states.get_mut(&stamp) {
            fact.parent = fact.parent.or(parent);
            let digest = fact.digest;
            return i4(stamp, digest, state.digest());
        }
        let writer = (state.primary().clone(), state.head().run);
        i1(self.writers.entry((stamp.incarnation, stamp.epoch)).or_insert_with(|| writer.clone()), &writer, stamp)?;
        let voters = quorum::names(state.electorate());
        if let Some(before) = parent.and_then(|p| self.states.get(&p).map(|f| (p, f))) {
            i6(before.0, &before.1.voters, stamp, &voters)?;
        }
        self.states.insert(stamp, Fact { digest: state.digest(), writer, voters, parent });
        Ok(())
    }

    /// A step between two States was seen on the wire.
    ///
    /// # Errors
    /// I6.
    pub fn followed(&mut self, stamp: Stamp, parent: Stamp) -> Verdict {
        let before = self.states.get(&parent).map(|f| f.voters.clone());
        match (self.states.get_mut(&stamp), before) {
            (Some(fact), Some(before)) if fact.parent.is_none() => {
                fact.parent = Some(parent);
                i6(parent, &before, stamp, &fact.voters)
            }
            _ => Ok(()),
        }
    }

    /// This is now on the disk.
    ///
    /// # Errors
    /// I2; I3 and I10 where it completes a majority.
    pub fn stored(&mut self, disk: &VoterId, now: Disk, state: Option<&State>) -> Verdict {
        let before = self.disks.entry(disk.clone()).or_default();
        i2(disk, *before, now)?;
        *before = now;
        let Some(state) = state else { return Ok(()) };
        let stamp = state.stamp();
        let holders = self.holders.entry(stamp).or_default();
        holders.insert(disk.clone());
        let fact = self.states.get(&stamp);
        if fact.is_some_and(|f| quorum::decides(&f.voters, |v| holders.contains(v))) && self.committed.insert(stamp) {
            self.i3(stamp)?;
            self.i10_commit(state)?;
        }
        Ok(())
    }

    /// The node answered that it durably accepted this, or promised this epoch.
    ///
    /// # Errors
    /// I4, I5, I7.
    pub fn acknowledged(
        &mut self,
        voter: &VoterId,
        promised: Term,
        accepted: Option<(Stamp, Option<Digest>)>,
    ) -> Verdict {
        i7(&self.wiped, voter)?;
        let disk = self.disks.get(voter).copied().unwrap_or_default();
        i5(voter, disk, promised, accepted.map(|(stamp, _)| stamp).unwrap_or_default())?;
        if let Some((stamp, _)) = accepted {
            self.told.entry(stamp).or_default().insert(voter.clone());
        }
        match accepted {
            Some((stamp, Some(digest))) => {
                self.states.get(&stamp).map_or(Ok(()), |fact| i4(stamp, fact.digest, digest))
            }
            _ => Ok(()),
        }
    }

    /// The process serves this State from now on.
    ///
    /// # Errors
    /// I4, I8.
    pub fn published(&mut self, process: (VoterId, u64), state: &State) -> Verdict {
        let stamp = state.stamp();
        let who = process.0.clone();
        let before = self.published.insert(process, stamp);
        i8(&who, before, stamp, self.committed.contains(&stamp))?;
        self.states.get(&stamp).map_or(Ok(()), |fact| i4(stamp, fact.digest, state.digest()))
    }

    /// I3: committed States of one incarnation form one chain. `stamp` was just added. (What a recovery goes on from is
    /// the administrator's word: what only the lost majority held is lost.)
    fn i3(&self, stamp: Stamp) -> Verdict {
        let same = |s: &Stamp| s.incarnation == stamp.incarnation;
        let earlier = self.committed.range(..stamp).next_back().copied().filter(same);
        let later = self.committed.range(stamp.next()..).next().copied().filter(same);
        for (low, high) in earlier.map(|e| (e, stamp)).into_iter().chain(later.map(|l| (stamp, l))) {
            holds("I3", low.seq < high.seq, || format!("{high} is committed, but {low} counts further: one is lost"))?;
            let mut at = high;
            while at > low {
                // A step that was never seen ends the walk; the sequence numbers above still hold it together.
                let Some(parent) = self.states.get(&at).and_then(|f| f.parent) else {
                    break;
                };
                at = parent;
            }
            holds("I3", at >= low, || format!("committed {high} follows on {at}, not on committed {low}"))?;
        }
        Ok(())
    }

    // ---- mutations

    /// A client asks for this bucket: the only mutation that ever makes it, under one id.
    pub fn asks_create(&mut self, name: &BucketName) {
        self.asked.entry(name.clone()).or_default();
    }

    /// A client asks to destroy it.
    pub fn asks_destroy(&mut self, name: &BucketName) {
        self.asked.entry(name.clone()).or_default().destroy_asked = true;
    }

    /// Answered as done, by this State.
    ///
    /// # Errors
    /// I10.
    pub fn done(&mut self, name: &BucketName, create: bool, stamp: Stamp) -> Verdict {
        let committed = self.committed.contains(&stamp);
        holds("I10", committed, || format!("{name} was answered from {stamp}, which is not committed"))?;
        let recovered = self.newest.as_ref().is_some_and(|n| n.stamp().incarnation > stamp.incarnation);
        let asked = self.asked.entry(name.clone()).or_default();
        asked.excused |= recovered;
        if create {
            asked.created = Some(stamp);
        } else {
            asked.destroyed = Some(stamp);
        }
        let took = if create { asked.creations } else { asked.destructions };
        holds("I10", took > 0 || asked.excused, || {
            format!("{name} was answered as done by {stamp}, but no committed State did it")
        })
    }

    /// Answered as refused or not proposed: it must never take effect.
    ///
    /// # Errors
    /// I10.
    pub fn never(&mut self, name: &BucketName) -> Verdict {
        let asked = self.asked.entry(name.clone()).or_default();
        asked.never = true;
        holds("I10", asked.creations == 0 || asked.excused, || format!("{name} was refused, and exists"))
    }

    /// A fresh read through some node; `since`: names that were answered as created before it began.
    ///
    /// # Errors
    /// L5.
    pub fn read(&self, by: &VoterId, state: &State, created: &[BucketName], gone: &[BucketName]) -> Verdict {
        for name in created {
            let excused = self.asked.get(name).is_some_and(|a| a.destroy_asked || a.excused);
            holds("L5", excused || state.buckets().contains_key(name), || {
                format!("{by} does not know {name} in {}, which was answered as created before", state.stamp())
            })?;
        }
        for name in gone {
            let excused = self.asked.get(name).is_some_and(|a| a.excused);
            holds("L5", excused || !state.buckets().contains_key(name), || {
                format!("{by} still shows {name} in {}, which was answered as destroyed before", state.stamp())
            })?;
        }
        Ok(())
    }

    /// I10: what a committed State did, and what every later one must still hold.
    fn i10_commit(&mut self, state: &State) -> Verdict {
        let newer = self.newest.as_ref().is_none_or(|n| n.stamp() < state.stamp());
        if !newer {
            return Ok(());
        }
        let before = self.newest.replace(state.clone());
        let old = before.as_ref().map(|s| s.buckets().clone()).unwrap_or_default();
        let recovered = before.is_some_and(|b| b.stamp().incarnation < state.stamp().incarnation);
        for change in old.diff(state.buckets()) {
            let (name, made) = match change {
                DiffItem::Add(name, _) => (name, true),
                DiffItem::Remove(name, _) => (name, false),
                DiffItem::Update { .. } => continue,
            };
            let Some(asked) = self.asked.get_mut(name) else {
                return violated("I10", format!("{} holds {name}, which nobody asked for", state.stamp()));
            };
            asked.excused |= recovered;
            if asked.excused {
                continue;
            }
            if made {
                asked.creations += 1;
            } else {
                asked.destructions += 1;
            }
            holds("I10", !(made && asked.never), || format!("{name} was refused, and {} made it", state.stamp()))?;
            holds("I10", asked.creations < 2, || format!("{name} was made a second time by {}", state.stamp()))?;
            let unasked = !made && !asked.destroy_asked;
            holds("I10", !unasked, || format!("{name} is gone in {}, and nobody asked for that", state.stamp()))?;
        }
        Ok(())
    }

    /// At the end: everything that was answered is in the newest committed State.
    ///
    /// # Errors
    /// I10.
    pub fn settle(&self) -> Verdict {
        let Some(state) = &self.newest else { return Ok(()) };
        for (name, asked) in self.asked.iter().filter(|(_, a)| !a.excused) {
            let held = state.buckets().contains_key(name);
            let lost = asked.created.is_some() && !asked.destroy_asked && !held;
            holds("I10", !lost, || format!("{name} was answered as created and is not in {}", state.stamp()))?;
            let back = asked.destroyed.is_some() && held;
            holds("I10", !back, || format!("{name} was answered as destroyed and is in {}", state.stamp()))?;
        }
        Ok(())
    }
}

/// I1: at most one node (one run of it) writes in an epoch.
///
/// # Errors
/// The two writers.
pub fn i1(known: &(VoterId, u64), writer: &(VoterId, u64), stamp: Stamp) -> Verdict {
    holds("I1", known == writer, || {
        format!("{stamp} is written by {} run {}, its epoch belongs to {} run {}", writer.0, writer.1, known.0, known.1)
    })
}

/// I2: promised, accepted and committed never decrease on a disk.
///
/// # Errors
/// What decreased.
pub fn i2(disk: &VoterId, before: Disk, now: Disk) -> Verdict {
    let fine = now.promised >= before.promised && now.accepted >= before.accepted && now.committed >= before.committed;
    holds("I2", fine, || format!("{disk} went from {before:?} to {now:?}"))
}

/// I4: equal stamp, equal digest.
///
/// # Errors
/// The stamp.
pub fn i4(stamp: Stamp, known: Digest, found: Digest) -> Verdict {
    holds("I4", known == found, || format!("{stamp} has two contents, {known} and {found}"))
}

/// I5: what is acknowledged is on that disk, and so is what is promised.
///
/// # Errors
/// What is missing.
pub fn i5(voter: &VoterId, disk: Disk, promised: Term, accepted: Stamp) -> Verdict {
    let fine = disk.promised >= promised && disk.accepted >= accepted;
    holds("I5", fine, || format!("{voter} told of promise {promised} and State {accepted}, its disk holds {disk:?}"))
}

/// I6: successive electorates differ by at most one voter; an epoch's first State keeps the electorate; the first State
/// of an incarnation has its writer alone.
///
/// # Errors
/// The two States.
pub fn i6(before: Stamp, old: &Voters, stamp: Stamp, new: &Voters) -> Verdict {
    if before.incarnation != stamp.incarnation {
        // A recovery: the administrator says that the others are lost; its electorate is its writer alone.
        return holds("I6", new.len() == 1, || format!("recovered {stamp} has the electorate {new:?}"));
    }
    let fine = if before.epoch == stamp.epoch { quorum::one_apart(old, new) } else { old == new };
    holds("I6", fine, || format!("electorate {old:?} of {before} became {new:?} in {stamp}"))
}

/// I7: a wiped disk never votes under an id that it had before.
///
/// # Errors
/// The voter.
pub fn i7(wiped: &BTreeSet<VoterId>, voter: &VoterId) -> Verdict {
    holds("I7", !wiped.contains(voter), || format!("{voter} was wiped and votes"))
}

/// I8: publication is monotonic within a process, and of committed States only.
///
/// # Errors
/// What was published.
pub fn i8(who: &VoterId, before: Option<Stamp>, stamp: Stamp, committed: bool) -> Verdict {
    holds("I8", committed, || format!("{who} published {stamp}, which is not committed"))?;
    holds("I8", before.is_none_or(|b| b <= stamp), || format!("{who} published {stamp} after {before:?}"))
}

/// I9: at most one unexpired lease at any time (bounded drift, true evidence).
///
/// # Errors
/// The holders.
pub fn i9(holders: &[(VoterId, u64)]) -> Verdict {
    holds("I9", holders.len() < 2, || format!("leases at one time: {holders:?}"))
}

/// I11: at most one founding completes per uuid, and one test bed founds one cluster.
///
/// # Errors
/// The second founding.
pub fn i11(founded: &BTreeMap<ClusterUuid, Digest>, state: &State) -> Verdict {
    let second = founded.iter().find(|(uuid, digest)| *uuid != state.uuid() || **digest != state.digest());
    holds("I11", second.is_none(), || format!("{} founds {} again: {founded:?}", state.primary(), state.uuid()))
}
