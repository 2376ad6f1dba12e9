//! The epoch register: rules 4 to 7, sections 4 and 11, over `Register`, `Ballot` and `Proposal`.
//!
//! The network is a set: messages are lost (never delivered), repeated, and reordered at will. A step is atomic up to
//! its persist, because nothing that reveals a promise or an acknowledgement leaves before its record is durable; the
//! one thing that does leave earlier, a primary's own State, has a step of its own for the persist.

mod judge;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ais_ha::mutant::Mutant;
use ais_ha::quorum::{self, Voters};
use ais_ha::register::{Accept, Ballot, Proposal, Register, Slot, Term, next_incarnation};
use ais_meta::{Digest, DiskId, Stamp, VoterId};
use stateright::{Model, Property};

use super::Judged;

/// The bounds of a search.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub nodes: usize,
    /// The first so many nodes vote at the start; the first leads epoch 1.
    pub voters: usize,
    pub epochs: u64,
    /// States beside the first.
    pub writes: u64,
    pub crashes: u8,
    pub wipes: u8,
    /// Recoveries of a lost majority, by two administrators at most.
    pub recoveries: u8,
    /// They are told only when a majority is lost for good, at the best survivor; otherwise anywhere, at any time.
    pub honest: bool,
    pub reconfigures: bool,
    /// In which epoch a node may stand, when that is narrowed to reach further.
    pub stands: Option<&'static [(usize, u64)]>,
    /// Leaves I6 and I7 to the chain: a mutant must then show what harm it does.
    pub chain_only: bool,
}

/// A State that was written: what the register sees of it, and what it follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Issued {
    pub slot: Slot,
    pub primary: VoterId,
    pub run: u8,
    pub parent: Option<(Stamp, Digest)>,
}

/// What is on the network; nothing ever leaves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Msg {
    Prepare {
        term: Term,
        from: VoterId,
    },
    Promise {
        term: Term,
        from: VoterId,
        to: VoterId,
        accepted: Option<Arc<Issued>>,
    },
    Append(Arc<Issued>),
    Appended {
        from: VoterId,
        stamp: Stamp,
        digest: Digest,
    },
    /// The primary published it.
    Commit {
        stamp: Stamp,
        digest: Digest,
    },
}

/// A message with its hash computed once; messages are compared by that.
#[derive(Clone, Debug)]
pub struct Packet(u64, Arc<Msg>);

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Packet {}
impl Hash for Packet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl std::ops::Deref for Packet {
    type Target = Msg;
    fn deref(&self) -> &Msg {
        &self.1
    }
}

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    promised: Term,
    voted_for: Option<VoterId>,
    accepted: Option<Arc<Issued>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Follower,
    /// Of this epoch; it held this when it stood.
    Candidate(Term, Option<Slot>),
    Leading {
        tip: Arc<Issued>,
        inflight: Option<Proposal>,
        committed: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    id: VoterId,
    run: u8,
    register: Register,
    /// The body of what the register accepted.
    accepted: Option<Arc<Issued>>,
    disk: Disk,
    role: Role,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    nodes: Vec<Arc<Process>>,
    net: Vec<Packet>,
    crashes: u8,
    wipes: u8,
    recoveries: u8,
    /// States of lower incarnations that counted when the last recovery was written.
    before: Vec<Stamp>,
    broken: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Node takes an epoch.
    Stand(usize, u64),
    /// Node hears the message.
    Deliver(usize, Packet),
    /// Candidate counts these promises, has its majority and the body: first write.
    Lead(usize, Vec<Packet>),
    /// The primary's own State reaches its disk.
    Persist(usize),
    /// The primary counts acknowledgements.
    Commit(usize),
    /// The primary writes the next State with these voters.
    Write(usize, Voters),
    Crash(usize),
    Wipe(usize),
    /// An administrator tells the node to go on alone.
    Recover(usize),
}

fn voter(node: usize, disk: u64) -> VoterId {
    let name = ["a", "b", "c", "d", "e"][node];
    VoterId::new(name.parse().unwrap(), DiskId(disk))
}

fn issue(stamp: Stamp, voters: Voters, primary: &VoterId, run: u8, parent: Option<(Stamp, Digest)>) -> Arc<Issued> {
    let mut hasher = DefaultHasher::new();
    (stamp, &voters, primary, run, parent.map(|p| (p.0, p.1.0))).hash(&mut hasher);
    let digest = Digest(u128::from(hasher.finish()));
    Arc::new(Issued { slot: Slot { stamp, digest, voters }, primary: primary.clone(), run, parent })
}

impl Process {
    /// All that was handed to the disk so far is on it.
    fn persist(&mut self) {
        self.disk = Disk {
            promised: self.register.promised(),
            voted_for: self.register.voted_for().cloned(),
            accepted: self.accepted.clone(),
        };
    }

    fn accept(&mut self, issued: &Arc<Issued>) -> Option<Accept> {
        let result = self.register.accept(&issued.slot, &issued.primary).ok()?;
        self.accepted = Some(issued.clone());
        Some(result)
    }
}

impl World {
    fn send(&mut self, msg: Msg) {
        let mut hasher = DefaultHasher::new();
        msg.hash(&mut hasher);
        let hash = hasher.finish();
        if let Err(at) = self.net.binary_search_by_key(&hash, |p| p.0) {
            self.net.insert(at, Packet(hash, Arc::new(msg)));
        }
    }
}

impl Judged for World {
    fn broken(&self) -> Option<&'static str> {
        self.broken
    }
}

impl Bounds {
    fn may_stand(&self, node: usize, epoch: u64) -> bool {
        self.stands.is_none_or(|list| list.contains(&(node, epoch)))
    }

    fn writes_left(&self, stamp: Stamp) -> bool {
        stamp.seq <= self.writes
    }

    /// Whether hearing this now would do anything.
    fn hears(&self, world: &World, node: usize, msg: &Msg) -> bool {
        let p = &world.nodes[node];
        let formed = p.register.accepted().is_some();
        match msg {
            Msg::Prepare { term, from } => formed && *from != p.id && p.register.may_promise(*term, from).is_ok(),
            // Learners get committed States only (rule 11).
            Msg::Append(issued) => {
                issued.primary.node != p.id.node
                    && (issued.slot.voters.contains(&p.id) || world.published(issued))
                    && p.register.accepted() != Some(&issued.slot)
            }
            // Counted by `Step::Lead` and `Step::Commit`: what was counted so far need not be part of the state.
            Msg::Promise { .. } | Msg::Appended { .. } | Msg::Commit { .. } => false,
        }
    }

    fn deliver(&self, w: &mut World, node: usize, msg: &Msg) -> Option<()> {
        let p = Arc::make_mut(&mut w.nodes[node]);
        match msg {
            Msg::Prepare { term, from } => {
                let raised = *term > p.register.promised();
                p.register.promise(*term, from).ok()?;
                if raised {
                    p.role = Role::Follower;
                }
                if !Mutant::VotesNotPersisted.on() {
                    p.persist();
                }
                let promise =
                    Msg::Promise { term: *term, from: p.id.clone(), to: from.clone(), accepted: p.accepted.clone() };
                w.send(promise);
            }
            Msg::Append(issued) => {
                let before = (p.register.promised(), p.register.accepted().map(|a| a.stamp));
                let fork = p.register.check_fork(issued.slot.stamp, issued.slot.digest).is_err();
                let accepted = p.accept(issued).is_some();
                if accepted {
                    p.role = Role::Follower;
                    p.persist();
                }
                let after = (p.register.promised(), p.register.accepted().map(|a| a.stamp));
                let from = p.id.clone();
                w.break_if(!fork, "I4: two contents under one stamp");
                w.break_if(after >= before, "I2: promise or accepted stamp went down");
                if !accepted {
                    return None;
                }
                w.send(Msg::Appended { from, stamp: issued.slot.stamp, digest: issued.slot.digest });
                w.judge_chain(self.chain_only, self.honest);
            }
            Msg::Promise { .. } | Msg::Appended { .. } | Msg::Commit { .. } => return None,
        }
        Some(())
    }

    fn stand(&self, w: &mut World, node: usize, term: Term) -> Option<()> {
        let p = Arc::make_mut(&mut w.nodes[node]);
        p.register.promise(term, &p.id.clone()).ok()?;
        p.persist();
        let own = p.accepted.as_ref().map(|i| i.slot.clone());
        p.role = Role::Candidate(term, own);
        let from = p.id.clone();
        w.send(Msg::Prepare { term, from });
        Some(())
    }

    fn ballot(&self, p: &Process, promises: &[Packet]) -> Option<Ballot> {
        let Role::Candidate(term, own) = &p.role else { return None };
        let mut ballot = Ballot::new(term.epoch, own.clone());
        ballot.promise(p.id.clone(), own.clone());
        for promise in promises {
            if let Msg::Promise { from, accepted, .. } = &**promise {
                ballot.promise(from.clone(), accepted.as_ref().map(|i| i.slot.clone()));
            }
        }
        Some(ballot)
    }

    /// Which promises a candidate may have heard when it had enough of them.
    fn wins(&self, w: &World, p: &Process) -> Vec<Vec<Packet>> {
        let Role::Candidate(asked, _) = &p.role else { return Vec::new() };
        let mine = |m: &&Packet| matches!(&***m, Msg::Promise { term, to, .. } if term == asked && *to == p.id);
        let all: Vec<Packet> = w.net.iter().filter(mine).cloned().collect();
        let subset = |bits: u32| {
            all.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0).map(|(_, m)| m.clone()).collect::<Vec<_>>()
        };
        (0..1_u32 << all.len()).map(subset).filter(|s| self.ballot(p, s).is_some_and(|b| b.won())).collect()
    }

    /// Rule 5, then the first write of rule 6.
    fn lead(&self, w: &mut World, node: usize, promises: &[Packet]) -> Option<()> {
        let p = &w.nodes[node];
        let ballot = self.ballot(p, promises)?;
        let adopted = ballot.adopted().filter(|_| ballot.won())?.clone();
        let Role::Candidate(term, _) = &p.role else { return None };
        let stamp = Stamp::new(term.incarnation, ballot.epoch, adopted.stamp.seq + 1);
        if !self.writes_left(Stamp { seq: adopted.stamp.seq, ..stamp }) {
            return None;
        }
        let mut voters = adopted.voters.clone();
        let old = w.issued().find(|i| i.slot == adopted)?.primary.clone();
        if Mutant::FirstWriteDropsPrimary.on() && old != p.id {
            voters.remove(&old);
        }
        let (id, run) = (p.id.clone(), p.run);
        let new = issue(stamp, voters, &id, run, Some((adopted.stamp, adopted.digest)));
        self.propose(w, node, new, &adopted.voters)
    }

    fn propose(&self, w: &mut World, node: usize, new: Arc<Issued>, before: &Voters) -> Option<()> {
        let p = Arc::make_mut(&mut w.nodes[node]);
        let committed = matches!(p.role, Role::Leading { .. });
        p.accept(&new)?;
        let inflight = Some(Proposal::following(new.slot.clone(), before));
        p.role = Role::Leading { tip: new.clone(), inflight, committed };
        w.judge_issue(&new, self.chain_only);
        w.send(Msg::Append(new));
        Some(())
    }

    fn commit(&self, w: &mut World, node: usize) -> Option<()> {
        let Role::Leading { inflight, tip, committed } = &mut Arc::make_mut(&mut w.nodes[node]).role else {
            return None;
        };
        let proposal = inflight.as_mut()?;
        for msg in &w.net {
            if let Msg::Appended { from, stamp, digest } = &**msg {
                proposal.ack(from, *stamp, *digest);
            }
        }
        if !proposal.committed() {
            return None;
        }
        let (stamp, digest) = (tip.slot.stamp, tip.slot.digest);
        (*inflight, *committed) = (None, true);
        w.send(Msg::Commit { stamp, digest });
        w.judge_chain(self.chain_only, self.honest);
        Some(())
    }

    /// The electorates that the next State may have (rule 7).
    fn next_voters(&self, w: &World, node: usize) -> Vec<Voters> {
        let Role::Leading { tip, inflight, committed } = &w.nodes[node].role else { return Vec::new() };
        let busy = inflight.is_some() && !Mutant::SecondInFlight.on();
        if busy || !*committed || !self.writes_left(tip.slot.stamp) {
            return Vec::new();
        }
        let now = &tip.slot.voters;
        let mut all = vec![now.clone()];
        if self.reconfigures {
            let toggles: Vec<VoterId> = w
                .nodes
                .iter()
                .map(|p| p.id.clone())
                .chain(now.iter().cloned())
                .collect::<Voters>()
                .into_iter()
                .collect();
            for bits in 1_u32..1 << toggles.len() {
                let mut voters = now.clone();
                for (_, v) in toggles.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0) {
                    if !voters.remove(v) {
                        voters.insert(v.clone());
                    }
                }
                let lawful = quorum::one_apart(now, &voters) || Mutant::TwoVotersAtOnce.on() && bits.count_ones() == 2;
                // A primary without a seat may give itself one, or change others' first; it never removes its own.
                let me = &w.nodes[node].id;
                if lawful && !voters.is_empty() && (voters.contains(me) || !now.contains(me)) {
                    all.push(voters);
                }
            }
        }
        all
    }

    /// An administrator's duty: no living disk's State has a living majority, and nobody holds a newer one.
    fn may_recover(&self, w: &World, p: &Process) -> bool {
        let held = |p: &Process| p.register.accepted().map(|a| a.stamp);
        let durable = p.accepted.is_some() && p.accepted == p.disk.accepted;
        let living = |v: &VoterId| w.nodes.iter().any(|p| p.id == *v);
        let lost = |a: &Slot| !quorum::decides(&a.voters, living);
        let duty = || w.nodes.iter().all(|o| held(o) <= held(p) && o.register.accepted().is_none_or(lost));
        durable && (!self.honest || duty())
    }

    fn recover(&self, w: &mut World, node: usize) -> Option<()> {
        w.recoveries += 1;
        let p = Arc::make_mut(&mut w.nodes[node]);
        let (id, run, held) = (p.id.clone(), p.run, p.accepted.clone()?);
        let slot = u32::try_from(node).unwrap() + 1;
        // The lowest epoch, as far below the promised one as it can be: the incarnation alone must fence.
        let term = Term::new(next_incarnation(p.register.promised().incarnation, slot)?, 1);
        p.register.promise(term, &id).ok()?;
        w.before = w.counting().map(|i| i.slot.stamp).filter(|s| s.incarnation < term.incarnation).collect();
        let stamp = Stamp::new(term.incarnation, term.epoch, held.slot.stamp.seq + 1);
        let new = issue(stamp, Voters::from([id]), &w.nodes[node].id, run, Some((held.slot.stamp, held.slot.digest)));
        let voters = new.slot.voters.clone();
        self.propose(w, node, new, &voters)
    }

    fn crash(&self, w: &mut World, node: usize) {
        w.crashes += 1;
        let p = Arc::make_mut(&mut w.nodes[node]);
        let accepted = p.disk.accepted.as_ref().map(|i| (i.slot.clone(), i.primary.clone()));
        p.register = Register::load(p.disk.promised, p.disk.voted_for.clone(), accepted, Stamp::default());
        (p.accepted, p.role, p.run) = (p.disk.accepted.clone(), Role::Follower, p.run + 1);
    }

    fn wipe(&self, w: &mut World, node: usize) {
        w.wipes += 1;
        let disk = if Mutant::WipedKeepsId.on() { w.nodes[node].id.disk.0 } else { u64::from(w.wipes) };
        let p = Arc::make_mut(&mut w.nodes[node]);
        p.id = voter(node, disk);
        p.register = Register::default();
        (p.accepted, p.role, p.run) = (None, Role::Follower, 1);
        p.persist();
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let ids: Vec<VoterId> = (0..self.nodes).map(|n| voter(n, 0)).collect();
        let voters: Voters = ids[..self.voters].iter().cloned().collect();
        let first = issue(Stamp::new(0, 1, 1), voters.clone(), &ids[0], 1, None);
        let mut world = World {
            nodes: Vec::new(),
            net: Vec::new(),
            crashes: 0,
            wipes: 0,
            recoveries: 0,
            before: Vec::new(),
            broken: None,
        };
        for id in ids {
            let mut p = Process {
                id: id.clone(),
                run: 1,
                register: Register::default(),
                accepted: None,
                disk: Disk { promised: Term::default(), voted_for: None, accepted: None },
                role: Role::Follower,
            };
            if p.accept(&first).is_some() {
                p.persist();
            }
            if id == first.primary {
                p.role = Role::Leading { tip: first.clone(), inflight: None, committed: true };
            }
            world.nodes.push(Arc::new(p));
            if voters.contains(&id) {
                world.send(Msg::Appended { from: id, stamp: first.slot.stamp, digest: first.slot.digest });
            }
        }
        world.send(Msg::Commit { stamp: first.slot.stamp, digest: first.slot.digest });
        world.send(Msg::Append(first));
        vec![world]
    }

    fn actions(&self, w: &World, out: &mut Vec<Step>) {
        if w.broken.is_some() {
            return;
        }
        for (node, p) in w.nodes.iter().enumerate() {
            let promised = p.register.promised();
            // Only a State of the incarnation takes a node into it.
            if p.register.accepted().is_some_and(|a| a.stamp.incarnation == promised.incarnation) {
                let reuse = Mutant::EpochReused.on() && p.register.voted_for() == Some(&p.id) && p.run > 1;
                let first = if reuse { promised.epoch } else { promised.epoch + 1 };
                out.extend((first..=self.epochs).filter(|e| self.may_stand(node, *e)).map(|e| Step::Stand(node, e)));
            }
            if w.recoveries < self.recoveries && self.may_recover(w, p) {
                out.push(Step::Recover(node));
            }
            out.extend(self.wins(w, p).into_iter().map(|promises| Step::Lead(node, promises)));
            if p.accepted != p.disk.accepted {
                out.push(Step::Persist(node));
            }
            if matches!(&p.role, Role::Leading { inflight: Some(_), .. }) {
                out.push(Step::Commit(node));
            }
            out.extend(self.next_voters(w, node).into_iter().map(|v| Step::Write(node, v)));
            out.extend(w.net.iter().filter(|m| self.hears(w, node, m)).map(|m| Step::Deliver(node, m.clone())));
            if w.crashes < self.crashes {
                out.push(Step::Crash(node));
            }
            if w.wipes < self.wipes {
                out.push(Step::Wipe(node));
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut w = world.clone();
        match step {
            Step::Stand(node, epoch) => {
                let incarnation = w.nodes[node].register.promised().incarnation;
                self.stand(&mut w, node, Term::new(incarnation, epoch))?;
            }
            Step::Deliver(node, msg) => self.deliver(&mut w, node, &msg)?,
            Step::Lead(node, promises) => self.lead(&mut w, node, &promises)?,
            Step::Persist(node) => {
                let p = Arc::make_mut(&mut w.nodes[node]);
                p.persist();
                let (from, slot) = (p.id.clone(), p.accepted.as_ref()?.slot.clone());
                w.send(Msg::Appended { from, stamp: slot.stamp, digest: slot.digest });
                w.judge_chain(self.chain_only, self.honest);
            }
            Step::Commit(node) => self.commit(&mut w, node)?,
            Step::Write(node, voters) => {
                let p = &w.nodes[node];
                let Role::Leading { tip, .. } = &p.role else { return None };
                let (stamp, before) = (tip.slot.stamp.next(), tip.slot.voters.clone());
                let new = issue(stamp, voters, &p.id, p.run, Some((tip.slot.stamp, tip.slot.digest)));
                self.propose(&mut w, node, new, &before)?;
            }
            Step::Crash(node) => self.crash(&mut w, node),
            Step::Wipe(node) => self.wipe(&mut w, node),
            Step::Recover(node) => self.recover(&mut w, node)?,
        }
        Some(w)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("invariants", |_, w: &World| w.broken.is_none()),
            Property::sometimes("a later epoch goes on", |m: &Self, w: &World| {
                let recovers = m.recoveries > 0;
                let last = |s: Stamp| s.epoch == m.epochs && (s.incarnation > 0) == recovers;
                let first = w.issued().filter(|i| last(i.slot.stamp));
                first.filter(|i| w.published(i)).count() > usize::from(!recovers)
            }),
        ];
        if self.reconfigures {
            properties.push(Property::sometimes("a voter comes, a voter goes", |_, w: &World| {
                let change = |more: bool| {
                    w.issued().filter(|i| w.published(i)).any(|i| {
                        let before = i.parent.and_then(|(stamp, _)| w.issued().find(|b| b.slot.stamp == stamp));
                        before.is_some_and(|b| match more {
                            true => i.slot.voters.len() > b.slot.voters.len(),
                            false => i.slot.voters.len() < b.slot.voters.len(),
                        })
                    })
                };
                change(true) && change(false)
            }));
            properties.push(Property::sometimes(
                "somebody without a seat leads, and changes voters",
                |_, w: &World| {
                    let learner = |i: &Issued| i.slot.stamp.epoch > 1 && !i.slot.voters.contains(&i.primary);
                    w.issued().filter(|i| learner(i)).any(|i| w.published(i))
                },
            ));
        }
        properties
    }
}
