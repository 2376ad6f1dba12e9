//! Leading: first write, group commit, lease, replication, visibility (protocol.md rules 6 to 8, 11, 12).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ais_meta::state::Draft;
use ais_meta::{Basis, Change, Delta, Digest, Full, NodeId, Outcome, Refusal, RequestId, Stamp, State, VoterId};

use super::follow::electable_in;
use super::handover::Transfer;
use super::members::JoinAsk;
use super::replicate::Progress;
use super::transactions::Farewells;
use super::{Leader, Node, Role, slot};
use crate::io::{ForwardReply, Message, Millis, RecoverRefused, Sender, Write};
use crate::mutant::Mutant;
use crate::pacemaker::Rounds;
use crate::quorum;
use crate::register::{Proposal, Term};

/// Mutations that wait for the next State; more are sent back to their gateways, which park them.
pub(super) const QUEUE_MAX: usize = 8192;
/// Mutations folded into one State.
const BATCH_MAX: usize = 1024;

/// A mutation that waits for its State.
pub(super) struct Asked {
    pub(super) request: RequestId,
    pub(super) low: u64,
    pub(super) change: Change,
    /// What its caller's rights were judged by.
    pub(super) basis: Option<Basis>,
    /// The gateway to answer; `None`: ourselves.
    pub(super) from: Option<NodeId>,
}

impl Asked {
    /// Its caller's rights were judged by what is not so here.
    fn is_outdated(&self, state: &State) -> bool {
        self.basis.is_some_and(|basis| basis != state.basis(&self.change))
    }
}

struct Waiter {
    request: RequestId,
    from: Option<NodeId>,
    outcome: Outcome,
}

struct Inflight {
    state: Arc<State>,
    proposal: Proposal,
    waiters: Vec<Waiter>,
    since: Millis,
}

/// A committed State that members have not all published yet.
struct Publishing {
    stamp: Stamp,
    until: Millis,
    members: BTreeSet<NodeId>,
    waiters: Vec<Waiter>,
}

/// The primary of an epoch.
pub(super) struct Lead {
    pub(super) epoch: u64,
    since: Millis,
    /// Since when the primary before was down, for the failover figure.
    down_since: Millis,
    pub(super) tip: Arc<State>,
    pub(super) committed: Option<Arc<State>>,
    inflight: Option<Inflight>,
    /// What was adopted: a member of which nothing is known probably has it, and says so if not.
    pub(super) adopted: Stamp,
    pub(super) full: Option<Arc<Full>>,
    pub(super) members: BTreeMap<NodeId, Progress>,
    pub(super) rounds: Rounds,
    next_heartbeat: Millis,
    pub(super) queue: VecDeque<Asked>,
    publishing: VecDeque<Publishing>,
    pub(super) joins: BTreeMap<NodeId, JoinAsk>,
    /// When each voter was heard of, or had its seat first: by disk, whoever has the node's name now (section 4).
    pub(super) seats: BTreeMap<VoterId, Millis>,
    pub(super) transfer: Option<Transfer>,
    /// A voter can follow in a higher epoch only: this one ends once nothing is on its way.
    pub(super) raises: bool,
    pub(super) farewells: Farewells,
    /// The transaction that members are told of, by the State that began it, and since when.
    pub(super) telling: Option<(Stamp, Millis)>,
    /// Committed at the last heartbeat.
    pub(super) mark: Stamp,
    /// Committed at the heartbeat before: whoever lacks that is behind. (What the last one marked may have been
    /// committed a moment ago.)
    mark_before: Stamp,
}

impl Lead {
    /// Its first State is committed: primary from now on, not before (rule 6).
    pub(super) fn established(&self) -> bool {
        self.committed.is_some()
    }
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }
    /// Nothing would be cut short by going on in a higher epoch.
    pub(super) fn may_raise(&self) -> bool {
        self.established() && self.transfer.is_none() && self.is_drained()
    }
    pub(super) fn since(&self) -> Millis {
        self.since
    }
    pub(super) fn tip(&self) -> &Arc<State> {
        &self.tip
    }
    pub(super) fn committed(&self) -> Option<&Arc<State>> {
        self.committed.as_ref()
    }
    /// Nothing is on its way to commit or to be published.
    pub(super) fn is_drained(&self) -> bool {
        self.inflight.is_none() && self.publishing.is_empty()
    }
    pub(super) fn is_caught_up(&self, node: &NodeId) -> bool {
        self.members.get(node).is_some_and(|p| p.acked.is_some_and(|acked| acked >= self.mark_before))
    }
    fn hear(&mut self, from: &VoterId, now: Millis) {
        if let Some(p) = self.members.get_mut(&from.node).filter(|p| p.id == *from) {
            p.heard = Some(now);
        }
        if let Some(heard) = self.seats.get_mut(from) {
            *heard = now;
        }
    }
    pub(super) fn commit_stamp(&self) -> Stamp {
        self.committed.as_ref().map(|s| s.stamp()).unwrap_or_default()
    }
}

impl Node {
    /// First write (AIStore's second phase): the adopted State with ourselves as primary, same electorate.
    pub(super) fn lead_from(&mut self, adopted: &Arc<State>, epoch: u64) {
        let stamp = Stamp::new(self.incarnation, epoch, adopted.stamp().seq + 1);
        let mut draft = adopted.draft(stamp);
        draft.take_over(self.me.id.clone(), self.me.run, self.config.timers.lease_ms);
        if Mutant::FirstWriteDropsPrimary.on() && *adopted.primary() != self.me.id {
            draft.remove_voter(adopted.primary());
        }
        if !electable_in(adopted, &self.me.id) {
            // A new disk under a known name, or a new gateway: whoever leads is in the Smap.
            draft.change(&Change::Join { node: Box::new(self.config.member.clone()) });
        }
        self.start_leading(adopted.clone(), epoch);
        self.write(draft, Vec::new());
    }

    /// Takes the role with `tip` as what the next State follows on.
    pub(super) fn start_leading(&mut self, tip: Arc<State>, epoch: u64) {
        let adopted = tip.stamp();
        let lead = Lead {
            epoch,
            since: self.now,
            down_since: self.down_since.unwrap_or(self.now),
            adopted,
            tip,
            committed: None,
            inflight: None,
            full: None,
            members: BTreeMap::new(),
            rounds: Rounds::default(),
            next_heartbeat: self.now + self.config.timers.heartbeat_ms,
            queue: VecDeque::new(),
            publishing: VecDeque::new(),
            joins: BTreeMap::new(),
            seats: BTreeMap::new(),
            transfer: None,
            raises: false,
            farewells: Farewells::default(),
            telling: None,
            mark: adopted,
            mark_before: adopted,
        };
        self.role = Role::Leading(Box::new(lead));
        let who = self.me.clone();
        self.leader = Some(Leader { who, epoch, heard: self.now, established: false, resigned: None, denied: false });
    }

    pub(super) fn lead(&mut self) -> Option<&mut Lead> {
        match &mut self.role {
            Role::Leading(lead) => Some(lead),
            _ => None,
        }
    }

    /// Proposes the draft as the next State.
    pub(super) fn write(&mut self, draft: Draft, asked: Vec<(Asked, Outcome)>) {
        let (state, delta) = match draft.finish() {
            Ok((state, delta)) => (Arc::new(state), Arc::new(delta)),
            Err(e) => return self.broken(&format!("the next State does not encode: {e}")),
        };
        let waiters =
            asked.into_iter().map(|(a, outcome)| Waiter { request: a.request, from: a.from, outcome }).collect();
        self.propose(state, Some(delta), waiters);
    }

    /// Puts a State in flight: one at a time (rule 7).
    fn propose(&mut self, state: Arc<State>, delta: Option<Arc<Delta>>, waiters: Vec<Waiter>) {
        let (new, now, me) = (slot(&state), self.now, self.me.id.clone());
        let Some(lead) = self.lead() else { return };
        let before = quorum::names(lead.tip.electorate());
        let kept = !before.contains(&me) || new.voters.contains(&me);
        let recovers = new.stamp.incarnation > lead.tip.stamp().incarnation && new.voters.len() == 1;
        let apart = recovers || quorum::one_apart(&before, &new.voters);
        let lawful = lead.inflight.is_none() && apart && kept && state.primary() == &me;
        if !lawful && !Mutant::SecondInFlight.on() && !Mutant::TwoVotersAtOnce.on() {
            return self.broken(
                "I6: more than one voter would change at once, or the primary's own, or a State is written by another",
            );
        }
        lead.tip = state.clone();
        lead.full = None;
        let proposal = Proposal::following(new.clone(), &before);
        lead.inflight = Some(Inflight { state: state.clone(), proposal, waiters, since: now });
        if let Some(delta) = &delta {
            self.recent.push(delta.clone());
        }
        self.stats.voters_added += u64::from(new.voters.len() > before.len());
        self.stats.voters_removed += u64::from(new.voters.len() < before.len());
        if self.register.accept(&new, &me).is_err() {
            // Promised to somebody else in the meantime: this epoch is over.
            return self.follow();
        }
        // An adopted State that was fetched is not on this disk: the change would start at nothing there.
        let on_disk = |d: &Arc<Delta>| self.accepted.as_ref().is_some_and(|s| s.stamp() == d.base);
        let deltas = delta.into_iter().filter(on_disk).collect();
        self.accepted = Some(state.clone());
        self.persist(None, Some(Write { state, deltas }));
        self.hold_own_accept(new.stamp);
        self.sync_members();
        self.replicate();
    }

    /// The founder's State(1,1): on its disk already, waits for the others.
    pub(super) fn propose_first(&mut self, state: Arc<State>) {
        let (new, now) = (slot(&state), self.now);
        self.start_leading(state.clone(), state.stamp().epoch);
        if let Some(lead) = self.lead() {
            // Nobody else has anything yet.
            lead.adopted = Stamp::default();
            lead.inflight =
                Some(Inflight { state, proposal: Proposal::new(new.clone()), waiters: Vec::new(), since: now });
        }
        self.sync_members();
        self.replicate();
        self.on_own_accept(new.stamp);
    }

    pub(super) fn on_own_accept(&mut self, stamp: Stamp) {
        let me = self.me.id.clone();
        if let Some(lead) = self.lead()
            && let Some(inflight) = &mut lead.inflight
        {
            let digest = inflight.proposal.slot.digest;
            inflight.proposal.ack(&me, stamp, digest);
            self.check_commit();
        }
    }

    pub(super) fn on_appended(&mut self, from: &Sender, epoch: u64, round: u64, stamp: Stamp, digest: Digest) {
        let now = self.now;
        let Some(lead) = self.lead().filter(|l| l.epoch == epoch) else {
            return;
        };
        if stamp.epoch == epoch || Mutant::LeaseByOwnTimers.on() {
            lead.rounds.answer(&from.id, round, now);
        }
        lead.hear(&from.id, now);
        if let Some(p) = lead.members.get_mut(&from.id.node).filter(|p| p.id == from.id) {
            p.acked = p.acked.max(Some(stamp));
        }
        if let Some(inflight) = &mut lead.inflight {
            inflight.proposal.ack(&from.id, stamp, digest);
        }
        self.on_joiner_ack(&from.id.node);
        self.check_commit();
    }

    /// Rule 6: committed when a majority of the electorate inside it acknowledged it.
    fn check_commit(&mut self) {
        let publish_ms = self.config.timers.publish_wait_ms;
        let now = self.now;
        let Role::Leading(lead) = &mut self.role else { return };
        let Some(inflight) = lead.inflight.take_if(|i| i.proposal.committed()) else {
            return;
        };
        let (state, first) = (inflight.state, lead.committed.is_none());
        let stamp = state.stamp();
        let took_ms = now.saturating_sub(lead.down_since);
        lead.committed = Some(state.clone());
        let term = Term::from(state.stamp());
        let follows = |p: &Progress| p.acked.is_some_and(|a| Term::from(a) == term) && !p.slow;
        let waited: BTreeSet<NodeId> = lead
            .members
            .iter()
            .filter(|(_, p)| follows(p) && self.live.is_connected(&p.id))
            .map(|(id, _)| id.clone())
            .collect();
        let until = now + publish_ms;
        lead.publishing.push_back(Publishing {
            stamp: state.stamp(),
            until,
            members: waited,
            waiters: inflight.waiters,
        });
        self.stats.commits += 1;
        self.publish(state);
        if first {
            self.stats.wins += 1;
            self.stats.last_failover_ms = took_ms;
            self.lost.reset();
            if let Some(leader) = &mut self.leader {
                leader.established = true;
            }
            // Who waits outside for a primary need not find it by trying.
            self.announce();
            self.recovery_ended(Ok(stamp));
        }
        self.push_commit();
        self.replicate();
        self.release();
        self.write_next();
    }

    pub(super) fn on_heartbeat_ack(
        &mut self,
        from: &Sender,
        epoch: u64,
        round: u64,
        holds: bool,
        accepted: Stamp,
        published: Stamp,
    ) {
        let now = self.now;
        let Some(lead) = self.lead().filter(|l| l.epoch == epoch) else {
            return;
        };
        // Only who has a State of this epoch on disk knows how long a lease this primary counts.
        if holds && (accepted.epoch == epoch || Mutant::LeaseByOwnTimers.on()) {
            lead.rounds.answer(&from.id, round, now);
        }
        lead.hear(&from.id, now);
        if let Some(p) = lead.members.get_mut(&from.id.node).filter(|p| p.id == from.id) {
            p.acked = p.acked.max(Some(accepted).filter(|a| *a != Stamp::default()));
        }
        // It is on that disk (I5), and a stamp names one content (I4): what acknowledged it may have been lost.
        if let Some(inflight) = &mut lead.inflight
            && inflight.proposal.slot.stamp == accepted
        {
            let digest = inflight.proposal.slot.digest;
            inflight.proposal.ack(&from.id, accepted, digest);
        }
        self.on_joiner_ack(&from.id.node);
        self.check_commit();
        self.on_member_published(from, published);
        self.replicate();
    }

    pub(super) fn on_member_published(&mut self, from: &Sender, stamp: Stamp) {
        let Some(lead) = self.lead() else { return };
        let newest = lead.commit_stamp();
        if let Some(p) = lead.members.get_mut(&from.id.node).filter(|p| p.id == from.id) {
            p.published = p.published.max(Some(stamp));
            p.slow &= stamp < newest;
        }
        self.release();
    }

    /// Rule 12: answers once everybody who follows has published, or the wait is over.
    fn release(&mut self) {
        let now = self.now;
        while let Role::Leading(lead) = &mut self.role
            && let Some(first) = lead.publishing.front()
        {
            let live = &self.live;
            let late = |p: &Progress| p.published < Some(first.stamp) && live.is_connected(&p.id);
            let behind = |id: &&NodeId| lead.members.get(*id).is_some_and(late);
            let late: Vec<NodeId> = first.members.iter().filter(behind).cloned().collect();
            if !late.is_empty() && now < first.until {
                return;
            }
            for node in late {
                if let Some(p) = lead.members.get_mut(&node) {
                    p.slow = true;
                }
            }
            let Some(done) = lead.publishing.pop_front() else {
                return;
            };
            if !done.waiters.is_empty() && self.lease_lapsed() {
                if let Some(lead) = self.lead() {
                    lead.publishing.push_front(done);
                }
                return self.lapse();
            }
            for w in done.waiters {
                self.stats.settled += 1;
                let reply = ForwardReply::Settled { outcome: w.outcome, stamp: done.stamp };
                self.answer(w.from, w.request, reply);
            }
        }
    }

    /// Answers the gateway that admitted the mutation.
    pub(super) fn answer(&mut self, from: Option<NodeId>, request: RequestId, reply: ForwardReply) {
        match from {
            Some(node) => self.tell(&node, Message::Forwarded { request, reply }),
            None => {
                let me = self.me.clone();
                self.on_forwarded(&me, request, reply);
            }
        }
    }

    /// Whatever became due for a primary.
    pub(super) fn advance_lead(&mut self) {
        let Role::Leading(lead) = &self.role else {
            return;
        };
        let stuck_ms = self.config.timers.suspect_ms;
        let state_age_ms = lead.inflight.as_ref().map_or(0, |i| self.now.saturating_sub(i.since));
        if !lead.established() {
            if self.now >= lead.since + self.step_ms() {
                return self.lose();
            }
        } else if self.lease_lapsed() {
            return self.lapse();
        } else if self.persist_age_ms() > stuck_ms || state_age_ms > stuck_ms {
            return self.give_up_lead();
        }
        self.heartbeat();
        self.release();
        self.hand_over_if_unfit();
        self.advance_transfer();
        self.advance_raise();
        self.write_next();
    }

    pub(super) fn lead_due(&self) -> Option<Millis> {
        let Role::Leading(lead) = &self.role else {
            return None;
        };
        let stuck_ms = self.config.timers.suspect_ms + 1;
        let due = [
            Some(lead.next_heartbeat),
            lead.publishing.front().map(|p| p.until),
            lead.inflight.as_ref().map(|i| i.since + stuck_ms),
            self.pending.front().map(|(_, at, ..)| at + stuck_ms),
            lead.transfer.as_ref().map(|t| t.until),
            (!lead.established()).then(|| lead.since + self.step_ms()),
            self.lease_until().filter(|_| lead.established()),
        ];
        due.into_iter().flatten().min()
    }

    fn heartbeat(&mut self) {
        let (now, heartbeat_ms) = (self.now, self.config.timers.heartbeat_ms);
        let Role::Leading(lead) = &mut self.role else { return };
        if now < lead.next_heartbeat {
            return;
        }
        lead.next_heartbeat = now + heartbeat_ms;
        let (round, commit, epoch) = (lead.rounds.start(now), lead.commit_stamp(), lead.epoch);
        let held = self.durable.accepted;
        // A seat whose disk is gone is not kept alive by the node that came back with another; and that node, which is
        // no member yet, must not believe that it is.
        let reached = lead.members.iter().filter(|(_, p)| !self.live.is_superseded(&p.id));
        let members: Vec<NodeId> = reached.map(|(node, _)| node.clone()).collect();
        for node in members {
            self.send(&node, epoch, Message::Heartbeat { round, commit, held });
        }
        self.sync_members();
        self.replicate();
        self.keep_members();
        self.keep_farewells();
        if let Some(lead) = self.lead() {
            (lead.mark_before, lead.mark) = (lead.mark, commit);
        }
    }

    /// The lease is over: writes are refused, heartbeats stop; stays a candidate (rule 8). It never acts in this epoch
    /// again and says so: under a one-way cut voters hear it, and need not wait out a lease that nobody holds.
    fn lapse(&mut self) {
        self.stats.lapses += 1;
        self.give_up_lead();
    }

    /// Tells everybody what this process is now.
    pub(super) fn announce(&mut self) {
        let peers: Vec<NodeId> = self.live.everybody().cloned().collect();
        for peer in peers {
            self.greet(&peer);
        }
    }

    /// Folds what waits into the next State (group commit, rule 7).
    pub(super) fn write_next(&mut self) {
        let me = self.me.clone();
        let up_s = i64::try_from(self.now.saturating_sub(self.began) / 1000).unwrap_or(i64::MAX);
        let Role::Leading(lead) = &mut self.role else {
            return;
        };
        let busy = lead.inflight.is_some() && !Mutant::SecondInFlight.on();
        let ends = lead.transfer.is_some() || lead.raises;
        if !lead.established() || busy || ends {
            return;
        }
        let mut draft = lead.tip.draft(lead.tip.stamp().next());
        draft.at(self.config.started_unix_s.saturating_add(up_s));
        let stamp = lead.commit_stamp();
        let (mut asked, mut known, mut outdated) = (Vec::new(), Vec::new(), Vec::new());
        while asked.len() < BATCH_MAX
            && let Some(a) = lead.queue.pop_front()
        {
            match draft.settled(&a.request) {
                Some(outcome) if asked.iter().any(|(b, _): &(Asked, Outcome)| b.request == a.request) => {
                    asked.push((a, outcome));
                }
                Some(outcome) => known.push((a, outcome)),
                None if a.is_outdated(draft.state()) => outdated.push((a, Outcome::Refused(Refusal::Outdated))),
                None => {
                    let outcome = draft.change(&a.change);
                    draft.settle(&a.request, a.low, outcome.clone());
                    asked.push((a, outcome));
                }
            }
        }
        self.edit_members(&mut draft, &me.id);
        self.edit_transaction(&mut draft);
        let edited = draft.is_edited();
        // What they are outdated by is committed before they hear of it: then no copy on its way can be applied.
        if edited {
            asked.extend(outdated)
        } else {
            known.extend(outdated)
        }
        self.answer_known(stamp, known);
        if edited {
            self.write(draft, asked);
        }
        self.release();
    }

    /// Answers what the committed State settles.
    fn answer_known(&mut self, stamp: Stamp, known: Vec<(Asked, Outcome)>) {
        let until = self.now;
        let Some(lead) = self.lead() else { return };
        for (a, outcome) in known {
            let waiter = Waiter { request: a.request, from: a.from, outcome };
            let publishing = Publishing { stamp, until, members: BTreeSet::new(), waiters: vec![waiter] };
            lead.publishing.push_back(publishing);
        }
    }

    /// Leads no more: whoever waits is told to ask the next primary under the same id.
    pub(super) fn put_down(&mut self, lead: Lead) {
        let inflight = lead.inflight.into_iter().flat_map(|i| i.waiters);
        let published = lead.publishing.into_iter().flat_map(|p| p.waiters);
        for w in published.chain(inflight) {
            self.answer(w.from, w.request, ForwardReply::Lost);
        }
        for a in lead.queue {
            self.answer(a.from, a.request, ForwardReply::NotPrimary { primary: None });
        }
        if let Some(transfer) = lead.transfer {
            self.transfer_ended(transfer);
        }
        let why = "the first State of the new incarnation is not durable yet: look at the view before asking again";
        self.recovery_ended(Err(RecoverRefused::Busy(why.to_owned())));
        self.leader = None;
        (self.alone_since, self.fed) = (self.now, self.now);
    }
}
