//! Standing for primary: pre-vote, prepare, adopt (protocol.md rules 3 to 5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ais_meta::{Full, Stamp, State, Voter, VoterId};

use super::follow::Down;
use super::{Held, Node, PEERS_MAX, Role, slot};
use crate::io::{Accepted, HandOver, Message, Millis, PreVoteAnswer, Sender};
use crate::mutant::Mutant;
use crate::quorum;
use crate::register::{Ballot, Slot};

/// Between two questions to a voter that does not answer.
const ASK_MS: u64 = 150;

/// A candidate.
pub(super) struct Candidacy {
    phase: Phase,
    /// When to ask a voter again.
    again: BTreeMap<VoterId, Millis>,
    /// A State that a peer has and this node has not: its voters are asked, too. Nothing else is made of it.
    ahead: Option<Arc<State>>,
    /// When to look for one.
    look: Millis,
    /// The epoch that this node gave up to stand.
    left: Option<u64>,
}

enum Phase {
    /// Is it really down? Nothing is recorded, nothing can be lost.
    PreVote { round: u64, yes: BTreeSet<VoterId>, probe_until: Millis, probed: bool },
    /// Promises are asked for.
    Prepare {
        ballot: Ballot,
        token: Option<HandOver>,
        body: Option<Arc<State>>,
        until: Millis,
        /// They promised this epoch to somebody else.
        refused: quorum::Voters,
    },
}

impl Candidacy {
    pub(super) fn due(&self) -> Option<Millis> {
        let again = self.again.values().min().copied();
        let phase = match &self.phase {
            Phase::PreVote { probe_until, probed, .. } => (!probed).then_some(*probe_until).or(Some(self.look)),
            Phase::Prepare { until, .. } => Some(*until),
        };
        again.into_iter().chain(phase).min()
    }

    fn ahead(&self) -> quorum::Voters {
        self.ahead.as_ref().map(|s| quorum::names(s.electorate())).unwrap_or_default()
    }
}

impl Node {
    /// Stands: with a token at once (rule 9), otherwise after asking whether the primary is really down (rule 3).
    pub(super) fn stand(&mut self, token: Option<HandOver>) {
        if token.is_some() {
            return self.prepare(token);
        }
        self.stats.pre_votes += 1;
        let probe = self.down() == Some(Down::Silent);
        let leader = self.leader.as_ref().map(|l| l.who.id.node.clone());
        if let Some(leader) = leader.filter(|_| probe) {
            self.tell(&leader, Message::Probe);
        }
        let probe_until = self.now + if probe { self.config.timers.probe_ms } else { 0 };
        let phase = Phase::PreVote { round: self.stats.pre_votes, yes: BTreeSet::new(), probe_until, probed: !probe };
        let look = self.now + self.config.timers.lease_ms;
        let candidacy = Candidacy { phase, again: BTreeMap::new(), ahead: None, look, left: None };
        self.role = Role::Candidate(Box::new(candidacy));
        self.ask_pre_votes(false);
        self.advance_candidate();
    }

    /// The voters that a pre-vote asks: of the newest State known here.
    fn pre_voters(&self) -> quorum::Voters {
        self.newest().map(|s| quorum::names(s.electorate())).unwrap_or_default()
    }

    fn ask_pre_votes(&mut self, all: bool) {
        let voters = self.pre_voters();
        let Role::Candidate(candidacy) = &mut self.role else {
            return;
        };
        let Phase::PreVote { round, yes, .. } = &candidacy.phase else {
            return;
        };
        let due = |v: &VoterId| all || candidacy.again.get(v).is_none_or(|at| self.now >= *at);
        let voters: quorum::Voters = voters.into_iter().chain(candidacy.ahead()).collect();
        let asked: Vec<VoterId> =
            voters.into_iter().filter(|v| *v != self.me.id && !yes.contains(v) && due(v)).collect();
        let round = *round;
        for voter in &asked {
            candidacy.again.insert(voter.clone(), self.now + ASK_MS);
        }
        for voter in asked {
            self.tell(&voter.node, Message::PreVote { round });
        }
    }

    /// Somebody learnt something: ask again at once (rule 3).
    pub(super) fn reopen(&mut self) {
        self.ask_pre_votes(true);
    }

    pub(super) fn on_probe_reply(&mut self, from: &Sender, epoch: u64, leading: bool) {
        let suspect = self.leader.as_ref().is_some_and(|l| l.who == *from);
        if !suspect || epoch < self.promised_epoch() {
            return;
        }
        if leading {
            if let (Role::Candidate(c), Some(l)) = (&self.role, &mut self.leader)
                && matches!(c.phase, Phase::PreVote { .. })
                && l.resigned.is_none()
            {
                (l.heard, l.denied) = (self.now, false);
                self.follow();
            }
        } else {
            if let Some(l) = &mut self.leader {
                l.denied = true;
            }
            if let Role::Candidate(c) = &mut self.role
                && let Phase::PreVote { probed, .. } = &mut c.phase
            {
                *probed = true;
            }
        }
    }

    pub(super) fn on_pre_vote_reply(&mut self, from: &Sender, of: u64, answer: PreVoteAnswer) {
        // Every voter's lease ends at about the same time: without the order of rule 2 here, too, all candidates would
        // ask again at that moment, and each would refuse the others for the epoch it had just promised itself.
        let rank = self.candidates().iter().position(|id| self.is_me(id)).unwrap_or_default() as u64;
        let stagger_ms = rank * self.config.timers.stagger_ms;
        let Role::Candidate(candidacy) = &mut self.role else {
            return;
        };
        let Phase::PreVote { round, yes, .. } = &mut candidacy.phase else {
            return;
        };
        if *round != of {
            return;
        }
        match answer {
            PreVoteAnswer::Yes => {
                yes.insert(from.id.clone());
                candidacy.again.remove(&from.id);
            }
            PreVoteAnswer::No { retry_ms } => {
                yes.remove(&from.id);
                candidacy.again.insert(from.id.clone(), self.now + retry_ms.clamp(20, 500) + stagger_ms);
            }
        }
    }

    /// Whatever became due for a candidate.
    pub(super) fn advance_candidate(&mut self) {
        let Role::Candidate(candidacy) = &self.role else {
            return;
        };
        if self.stop.is_some() || !self.disk_ok {
            return self.follow();
        }
        match &candidacy.phase {
            Phase::PreVote { .. } if self.down().is_none() => self.follow(),
            Phase::PreVote { yes, probe_until, probed, .. } => {
                let own = self.pre_vote(&self.me).is_ok();
                let agreed = |v: &VoterId| yes.contains(v) || (own && self.is_me(v));
                let known = [self.pre_voters(), candidacy.ahead()];
                if (*probed || self.now >= *probe_until) && known.iter().any(|v| quorum::decides(v, agreed)) {
                    self.prepare(None);
                } else {
                    self.look_ahead();
                    self.ask_pre_votes(false);
                }
            }
            Phase::Prepare { until, .. } if self.now >= *until => self.lose(),
            Phase::Prepare { .. } => self.ask_promises(),
        }
    }

    pub(super) fn candidate_due(&self) -> Option<Millis> {
        let Role::Candidate(candidacy) = &self.role else {
            return None;
        };
        let own = self.pre_vote(&self.me).err().map(|ms| self.now + ms);
        candidacy.due().into_iter().chain(own.filter(|_| matches!(candidacy.phase, Phase::PreVote { .. }))).min()
    }

    /// A majority of the voters that this node knows of may be gone for good, while another one decides on a newer State
    /// that was committed without this node: whoever has it is asked, after as long as the longest wait for a voter that
    /// lives.
    fn look_ahead(&mut self) {
        let newest = self.newest().map(|s| s.stamp());
        let voters = self.pre_voters();
        let lease_ms = self.config.timers.lease_ms;
        let Role::Candidate(candidacy) = &mut self.role else {
            return;
        };
        if self.now < candidacy.look {
            return;
        }
        candidacy.look = self.now + lease_ms;
        let stamp = newest.max(candidacy.ahead.as_ref().map(|s| s.stamp())).unwrap_or_default().next();
        let mut asked: quorum::Voters = voters.into_iter().chain(candidacy.ahead()).collect();
        asked.remove(&self.me.id);
        for voter in asked {
            self.tell(&voter.node, Message::Fetch { stamp });
        }
    }

    /// Only a round that sent Prepare and lost backs off (rule 3).
    pub(super) fn lose(&mut self) {
        self.not_before = self.now + self.lost.wait_ms(&mut self.jitter);
        self.withdraw();
        self.follow();
    }

    /// It never acts in the epoch that it asked for: who promised need not hold back for it. Nor does one that won and
    /// could not commit its first State in time: who heard its heartbeats need not wait out that lease.
    fn withdraw(&mut self) {
        match &self.role {
            Role::Candidate(candidacy) => {
                let Phase::Prepare { ballot, .. } = &candidacy.phase else {
                    return;
                };
                let (epoch, left, mut asked) = (ballot.epoch, candidacy.left, ballot.asked());
                asked.extend(candidacy.ahead());
                asked.remove(&self.me.id);
                for voter in asked {
                    // It never acts in the epoch that it gave up, either.
                    if let Some(left) = left {
                        self.send(&voter.node, left, Message::Resign { successor: None });
                    }
                    self.send_durable(&voter.node, epoch, Message::Resign { successor: None });
                }
            }
            Role::Leading(lead) => {
                // Its promise is on the disk since before it asked, and what does not get there may be why it lost.
                let (epoch, members) = (lead.epoch(), lead.members.keys().cloned().collect::<Vec<_>>());
                for node in members {
                    self.send(&node, epoch, Message::Resign { successor: None });
                }
            }
            Role::Outside | Role::Follower => {}
        }
    }

    /// Takes an epoch nobody has seen, promises it to itself durably, and asks for it (rule 4).
    fn prepare(&mut self, token: Option<HandOver>) {
        let mut epoch = self.epoch_seen.max(self.promised_epoch()) + 1;
        if Mutant::EpochReused.on() && self.register.voted_for() == Some(&self.me.id) {
            epoch = self.promised_epoch();
        }
        let me = self.me.id.clone();
        if self.would_promise(&self.me, token.as_ref()).is_err()
            || self.register.promise(self.term(epoch), &me).is_err()
        {
            return self.lose();
        }
        self.stats.elections += 1;
        self.epoch_seen = epoch;
        self.promised_at = Some(self.now);
        self.persist(None, None);
        let ballot = Ballot::new(epoch, self.accepted.as_ref().map(|s| slot(s)));
        let (until, refused) = (self.now + self.step_ms(), quorum::Voters::new());
        let phase = Phase::Prepare { ballot, token, body: None, until, refused };
        let ahead = match &self.role {
            Role::Candidate(candidacy) => candidacy.ahead.clone(),
            _ => None,
        };
        let look = self.now + self.config.timers.lease_ms;
        let candidacy = Candidacy { phase, again: BTreeMap::new(), ahead, look, left: None };
        self.role = Role::Candidate(Box::new(candidacy));
        self.hold(Held::OwnPromise(epoch));
        self.ask_promises();
    }

    /// Asks every voter of every State that was given and has not promised yet.
    fn ask_promises(&mut self) {
        let Role::Candidate(candidacy) = &mut self.role else {
            return;
        };
        let Phase::Prepare { ballot, token, .. } = &candidacy.phase else {
            return;
        };
        let due = |v: &VoterId| candidacy.again.get(v).is_none_or(|at| self.now >= *at);
        let known = ballot.asked().into_iter().chain(candidacy.ahead()).collect::<quorum::Voters>();
        let asked: Vec<VoterId> = known.into_iter().filter(|v| *v != self.me.id && !ballot.has(v) && due(v)).collect();
        let (epoch, token) = (ballot.epoch, token.clone());
        for voter in &asked {
            candidacy.again.insert(voter.clone(), self.now + ASK_MS);
        }
        for voter in asked {
            self.send_durable(&voter.node, epoch, Message::Prepare { token: token.clone() });
        }
    }

    fn ballot(&mut self, epoch: u64) -> Option<&mut Ballot> {
        let Role::Candidate(candidacy) = &mut self.role else {
            return None;
        };
        match &mut candidacy.phase {
            Phase::Prepare { ballot, .. } if ballot.epoch == epoch => Some(ballot),
            _ => None,
        }
    }

    pub(super) fn on_own_promise(&mut self, epoch: u64) {
        let (me, own) = (self.me.id.clone(), self.accepted.as_ref().map(|s| slot(s)));
        if let Some(ballot) = self.ballot(epoch) {
            ballot.promise(me, own);
            self.count();
        }
    }

    pub(super) fn on_promise(&mut self, from: Sender, epoch: u64, accepted: Option<Accepted>) {
        let Some(ballot) = self.ballot(epoch) else {
            return;
        };
        let given =
            accepted.as_ref().map(|a| Slot { stamp: a.stamp, digest: a.digest, voters: quorum::names(&a.electorate) });
        ballot.promise(from.id.clone(), given);
        if let Role::Candidate(candidacy) = &mut self.role {
            candidacy.again.remove(&from.id);
        }
        for voter in accepted.into_iter().flat_map(|a| a.electorate) {
            self.hint(voter);
        }
        self.ask_promises();
        self.count();
    }

    /// Remembers where a node listens that our State may not name.
    pub(super) fn hint(&mut self, voter: Voter) {
        let room = self.hints.len() < PEERS_MAX || self.hints.contains_key(&voter.id.node);
        if voter.id.node != self.me.id.node && room {
            self.hints.insert(voter.id.node.clone(), voter);
        }
    }

    pub(super) fn on_refuse(&mut self, from: &Sender, promised: u64, asked: u64, retry_ms: Option<u64>) {
        if let Role::Leading(lead) = &self.role {
            let known = lead.members.get(&from.id.node).is_some_and(|p| p.id == from.id);
            if lead.epoch() == asked && promised > asked {
                self.follow();
                self.announce();
            } else if lead.epoch() == asked && promised == asked && known && retry_ms.is_none() {
                self.want_higher_epoch();
            }
            return;
        }
        let now = self.now;
        if self.ballot(asked).is_none() {
            return;
        }
        if let (Some(retry_ms), Role::Candidate(c)) = (retry_ms, &mut self.role)
            && promised < asked
        {
            c.again.insert(from.id.clone(), now + retry_ms.clamp(20, 500));
        } else if promised != asked || !self.may_still_win(&from.id) {
            // Another who stands in the same epoch is no end: who is left may still be a majority for one of us.
            self.lose();
        }
    }

    /// A voter promised this very epoch to itself and lost: it can never follow in it (rule 6), only in a higher one,
    /// which the holder of the lease is promised at once (rule 4). What is on its way is finished first, and nothing new
    /// begun: among clients that write all the time there would be something on its way for seconds.
    fn want_higher_epoch(&mut self) {
        let wins = self.would_win_again();
        if let Some(lead) = self.lead().filter(|_| wins) {
            lead.raises = true;
        }
        self.advance_raise();
    }

    /// Nobody gives up a lead that it could not win again, or that ends in order.
    fn would_win_again(&self) -> bool {
        let Role::Leading(lead) = &self.role else {
            return false;
        };
        self.disk_ok
            && self.stop.is_none()
            && !self.is_stopping_cluster()
            && self.genesis.ended().is_none()
            && !self.lease_lapsed()
            && self.may_lead(lead.tip())
            && self.would_promise(&self.me, None).is_ok()
    }

    pub(super) fn advance_raise(&mut self) {
        // First what is cheap: this is looked at with every event.
        let wins = matches!(&self.role, Role::Leading(lead) if lead.raises) && self.would_win_again();
        let Some(lead) = self.lead().filter(|l| l.raises) else {
            return;
        };
        lead.raises = wins;
        if !wins || !lead.may_raise() {
            return;
        }
        let epoch = lead.epoch();
        self.follow();
        self.prepare(None);
        if let Role::Candidate(candidacy) = &mut self.role {
            candidacy.left = Some(epoch);
        }
    }

    /// Counts a voter out.
    fn may_still_win(&mut self, refuser: &VoterId) -> bool {
        let Role::Candidate(candidacy) = &mut self.role else {
            return false;
        };
        let Phase::Prepare { ballot, refused, .. } = &mut candidacy.phase else {
            return false;
        };
        refused.insert(refuser.clone());
        ballot.adopted().is_some_and(|a| quorum::decides(&a.voters, |v| !refused.contains(v)))
    }

    /// Rule 5: adopts the highest State once a majority of its own electorate promised and its body is here.
    fn count(&mut self) {
        let Role::Candidate(candidacy) = &self.role else {
            return;
        };
        let Phase::Prepare { ballot, body, .. } = &candidacy.phase else {
            return;
        };
        let Some(adopted) = ballot.adopted().filter(|_| ballot.won()) else {
            return;
        };
        let held = [self.accepted.as_ref(), body.as_ref()];
        let found = held.into_iter().flatten().find(|s| s.stamp() == adopted.stamp).cloned();
        let (epoch, stamp, digest) = (ballot.epoch, adopted.stamp, adopted.digest);
        match found {
            Some(state) if state.digest() != digest => self.broken("I4: two contents under one stamp"),
            Some(state) if !self.may_lead(&state) => self.lose(),
            Some(state) => self.lead_from(&state, epoch),
            None => self.fetch(stamp),
        }
    }

    fn fetch(&mut self, stamp: Stamp) {
        let Role::Candidate(candidacy) = &self.role else {
            return;
        };
        let Phase::Prepare { ballot, .. } = &candidacy.phase else {
            return;
        };
        if let Some(holder) = ballot.holder(stamp).cloned() {
            self.stats.adoptions += 1;
            self.tell(&holder.node, Message::Fetch { stamp });
        }
    }

    pub(super) fn on_body(&mut self, full: &Full) {
        let Ok(state) = State::from_full(full) else {
            return;
        };
        let newest = self.newest().map(|s| s.stamp());
        let Role::Candidate(candidacy) = &mut self.role else {
            return;
        };
        match &mut candidacy.phase {
            Phase::Prepare { ballot, body, .. } if ballot.adopted().is_some_and(|a| a.stamp == state.stamp()) => {
                // Any other body is no answer; asking for it again at once would go round at network speed.
                *body = Some(Arc::new(state));
                self.count();
            }
            Phase::PreVote { .. } if Some(state.stamp()) > newest.max(candidacy.ahead.as_ref().map(|s| s.stamp())) => {
                let state = candidacy.ahead.insert(Arc::new(state)).clone();
                for voter in state.electorate() {
                    self.hint(voter.clone());
                }
                self.reopen();
                self.advance_candidate();
            }
            Phase::PreVote { .. } | Phase::Prepare { .. } => {}
        }
    }
}
