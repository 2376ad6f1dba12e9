//! Hearing a primary: leases, promises, accepted States, publication.

use std::sync::Arc;

use ais_meta::{ClusterUuid, Delta, Stamp, State, StateError, Voter, VoterId, hrw};

use super::{Held, Leader, Node, Role, slot};
use crate::genesis::Genesis;
use crate::io::{Action, AppendBody, HandOver, Message, Millis, PreVoteAnswer, Sender, Write};
use crate::mutant::Mutant;
use crate::quorum;
use crate::register::{Accept, Term};

/// How long others stand back for the successor that a resigning primary named (rule 9).
const SUCCESSOR_MS: u64 = 500;
/// Asking again sooner than this is no use (rule 3).
const RETRY_MS_MIN: u64 = 20;

/// Why the primary is down for this node (rule 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Down {
    /// Nothing was heard for `suspect`.
    Silent,
    /// Its process is dead, or says that it does not lead.
    Evidence,
    /// It gave up its epoch.
    Resigned,
}

/// What an append came to.
struct Steps {
    state: Arc<State>,
    deltas: Vec<Arc<Delta>>,
    /// A State on the way that is already committed.
    committed: Option<Arc<State>>,
}

impl Node {
    pub(super) fn down(&self) -> Option<Down> {
        if matches!(self.role, Role::Leading(_)) {
            return None;
        }
        let suspect_ms = self.config.timers.suspect_ms;
        match &self.leader {
            Some(l) if l.resigned.is_some() => Some(Down::Resigned),
            Some(l) if l.denied || self.live.is_dead(&l.who.id, l.who.run) => Some(Down::Evidence),
            Some(l) => (self.now >= l.heard + suspect_ms).then_some(Down::Silent),
            None if self.register.voted_for().is_none_or(|v| self.is_me(v)) => Some(Down::Evidence),
            None if self.holder_dead() => Some(Down::Evidence),
            None => (self.now >= self.alone_since + suspect_ms).then_some(Down::Silent),
        }
    }

    fn holder_dead(&self) -> bool {
        match (&self.lease.holder, self.lease.run) {
            (Some(holder), Some(run)) => self.live.is_dead(holder, run),
            (Some(holder), None) => self.live.is_gone(holder),
            (None, _) => true,
        }
    }

    /// Candidates in order (rule 2): electable voters, then electable learners, each by HRW; the suspected process and
    /// the dead are left out. Order only, never validity.
    pub(super) fn candidates(&self) -> Vec<VoterId> {
        let Some(state) = self.newest() else {
            return Vec::new();
        };
        let mut voters: Vec<VoterId> =
            state.electorate().iter().filter(|v| v.electable).map(|v| v.id.clone()).collect();
        let seated = |id: &VoterId| quorum::seats(state.electorate(), id);
        let mut learners: Vec<VoterId> =
            state.nodes().values().filter(|n| n.electable()).map(|n| n.voter_id()).filter(|id| !seated(id)).collect();
        hrw::succession(&mut voters, |v| v.node.as_str());
        hrw::succession(&mut learners, |v| v.node.as_str());
        voters.append(&mut learners);
        if self.is_new_disk(state) {
            voters.push(self.me.id.clone());
        }
        voters.retain(|id| self.is_me(id) || !(self.live.is_gone(id) || self.is_suspect(id)));
        voters
    }

    fn is_suspect(&self, id: &VoterId) -> bool {
        let leader = self.leader.as_ref();
        leader.is_some_and(|l| l.who.id == *id && self.live.run(id).is_none_or(|run| run == l.who.run))
    }

    /// When this node may stand, given that the primary is down.
    fn stand_at(&self) -> Option<Millis> {
        let since = self.down_since?;
        let rank = self.candidates().iter().position(|id| self.is_me(id))? as u64;
        let held = match self.leader.as_ref().and_then(|l| l.resigned.as_ref()) {
            Some(Some(successor)) if !self.is_me(successor) => SUCCESSOR_MS,
            _ => 0,
        };
        let held = self.stand_back_ms().max(held);
        Some((since + held + rank * self.config.timers.stagger_ms).max(self.not_before))
    }

    /// Notices that the primary is down, and stands when it is this node's turn.
    pub(super) fn advance_leader(&mut self) {
        if !matches!(self.role, Role::Follower) || !self.is_durably_formed() || self.is_left_behind() {
            return;
        }
        if self.down().is_none() {
            self.down_since = None;
            return;
        }
        if self.down_since.is_none() {
            self.down_since = Some(self.now);
            self.call_candidate();
        }
        if self.stop.is_none() && self.disk_ok && self.stand_at().is_some_and(|at| self.now >= at) {
            self.stand(None);
        }
    }

    /// Tells the first candidate that an election begins (rule 2).
    fn call_candidate(&mut self) {
        if let Some(first) = self.candidates().into_iter().find(|id| !self.is_me(id)) {
            self.tell(&first.node, Message::ElectionBegins);
        }
    }

    /// Who was just told (or, as the founder, is about to declare) that the cluster is formed takes no part in
    /// elections before the disk knows it, too: a founder would depose itself.
    fn is_durably_formed(&self) -> bool {
        self.durable.genesis == self.genesis
    }

    pub(super) fn leader_due(&self) -> Option<Millis> {
        if !matches!(self.role, Role::Follower) || !self.is_durably_formed() || self.is_left_behind() {
            return None;
        }
        if self.down_since.is_some() {
            return if self.stop.is_none() && self.disk_ok { self.stand_at() } else { None };
        }
        let heard = self.leader.as_ref().map_or(self.alone_since, |l| l.heard);
        Some(heard + self.config.timers.suspect_ms)
    }

    pub(super) fn on_evidence(&mut self, peer: &Sender, evidence: bool) {
        if evidence && self.leader.as_ref().is_some_and(|l| l.who.id == peer.id) {
            // Whoever stands already asks again at once instead of waiting out our lease.
            self.call_candidate();
            self.reopen();
        }
    }

    pub(super) fn on_election_begins(&mut self) {
        self.reopen();
    }

    /// Takes `from` as the primary of `epoch`, unless that epoch is promised to somebody else or was given up.
    fn heed(&mut self, from: &Sender, epoch: u64) -> bool {
        if self.register.may_promise(self.term(epoch), &from.id).is_err() && !Mutant::FenceByVersion.on() {
            self.refuse(from, epoch, None);
            return false;
        }
        let known = self.leader.as_ref().filter(|l| l.epoch == epoch && l.who == *from);
        let given_up = known.is_some_and(|l| l.resigned.is_some());
        if given_up || self.leader.as_ref().is_some_and(|l| l.epoch > epoch) {
            return false;
        }
        let established = known.is_some_and(|l| l.established);
        if !matches!(self.role, Role::Follower | Role::Outside) {
            self.follow();
        }
        let who = from.clone();
        self.leader = Some(Leader { who, epoch, heard: self.now, established, resigned: None, denied: false });
        (self.down_since, self.fed) = (None, self.now);
        true
    }

    fn refuse(&mut self, to: &Sender, asked: u64, retry_ms: Option<u64>) {
        let promised = self.promised_epoch();
        self.send(&to.id.node, promised, Message::Refuse { asked, retry_ms });
    }

    pub(super) fn on_heartbeat(&mut self, from: &Sender, epoch: u64, round: u64, commit: Stamp) {
        if !self.heed(from, epoch) {
            return;
        }
        self.extend_lease(from, epoch);
        self.learn_commit(commit);
        let holds = self.durable.promised == self.term(epoch) && self.durable.voted_for.as_ref() == Some(&from.id);
        let published = self.published.as_ref().map(|s| s.stamp()).unwrap_or_default();
        let unwritten = Mutant::HeartbeatTellsUnwritten.on().then(|| self.accepted.as_ref().map(|s| s.stamp()));
        let accepted = unwritten.flatten().unwrap_or(self.durable.accepted);
        let message = Message::HeartbeatAck { round, holds, accepted, published };
        self.send(&from.id.node, epoch, message);
    }

    /// Refusing others is always safe, so the lease runs from receipt although the promise may not be durable yet; it
    /// is *answered* as held only once it is.
    fn extend_lease(&mut self, from: &Sender, epoch: u64) {
        if self.register.promised() == self.term(epoch) && self.register.voted_for() == Some(&from.id) {
            // Never shorter than the primary counts it, whose process may have other timers. It counts nothing of this
            // node before this node has a State of its epoch.
            let theirs = self.accepted.as_ref().filter(|s| *s.primary() == from.id);
            let lease_ms = self.config.timers.lease_under(theirs.map(|s| s.head()));
            self.lease.extend(from, epoch, self.now.saturating_add(lease_ms));
        }
    }

    /// The primary says what is committed; publishes it once it is here (commit stamps and bodies travel apart).
    /// Within an epoch a State follows only on a committed one, so an older one of that epoch is committed too.
    fn learn_commit(&mut self, commit: Stamp) {
        let incarnation = self.incarnation;
        let Some(leader) = &mut self.leader else { return };
        leader.established |= Term::from(commit) == Term::new(incarnation, leader.epoch);
        self.heard_commit = self.heard_commit.max(commit);
        let heard = self.heard_commit;
        let known = |s: &Arc<State>| s.stamp() == heard || (Term::from(s.stamp()) == heard.into() && s.stamp() < heard);
        if let Some(state) = self.accepted.clone().filter(known) {
            self.publish(state);
        }
    }

    /// I8: committed only, and monotonic.
    pub(super) fn publish(&mut self, state: Arc<State>) {
        if self.published.as_ref().is_some_and(|p| p.stamp() >= state.stamp()) {
            return;
        }
        let (stamp, was_in) = (state.stamp(), self.is_in());
        self.register.commit(stamp);
        self.count_returns(&state);
        self.note_stopping(&state);
        self.published = Some(state.clone());
        if was_in && !self.is_in() {
            // It left the Smap while it was cut off, and whoever tells it so can let it in.
            self.join.retry_now(self.now);
        }
        self.actions.push(Action::Publish(state));
        if let Some(l) = self.leader.as_ref().filter(|_| !matches!(self.role, Role::Leading(_))) {
            let (to, epoch) = (l.who.id.node.clone(), l.epoch);
            self.send(&to, epoch, Message::Published { stamp });
        }
    }

    pub(super) fn on_append(
        &mut self,
        from: Sender,
        epoch: u64,
        uuid: Option<ClusterUuid>,
        round: u64,
        commit: Stamp,
        body: AppendBody,
    ) {
        let Some(uuid) = uuid.filter(|_| self.may_be_told()) else {
            return;
        };
        if !self.heed(&from, epoch) {
            return;
        }
        self.learn_commit(commit);
        match self.steps(&body, commit) {
            Ok(None) => self.extend_lease(&from, epoch),
            Ok(Some(steps)) if steps.state.primary() != &from.id || steps.state.uuid() != &uuid => {}
            Ok(Some(steps)) => self.take(&from, epoch, round, commit, uuid, steps),
            Err(StateError::Base { .. } | StateError::Digest { .. }) if !matches!(body, AppendBody::Full(_)) => {
                let have = self.accepted.as_ref().map(|s| s.stamp()).unwrap_or_default();
                self.send(&from.id.node, epoch, Message::NeedFull { have });
            }
            Err(e) => self.reason = format!("the primary's State cannot be used: {e}"),
        }
    }

    /// Walks from the accepted State to the newest that the append brings.
    fn steps(&self, body: &AppendBody, commit: Stamp) -> Result<Option<Steps>, StateError> {
        let deltas = match body {
            AppendBody::Commit => return Ok(None),
            AppendBody::Full(full) if self.accepted.as_ref().is_some_and(|s| s.stamp() > full.stamp) => {
                return Ok(None);
            }
            AppendBody::Full(full) => {
                // Decoding the whole is dear, and may come to nothing new.
                if let Some(state) =
                    self.accepted.clone().filter(|s| (s.stamp(), s.digest()) == (full.stamp, full.digest))
                {
                    return Ok(Some(Steps { state, deltas: Vec::new(), committed: None }));
                }
                let state = Arc::new(State::from_full(full)?);
                return Ok(Some(Steps { state, deltas: Vec::new(), committed: None }));
            }
            AppendBody::Deltas(deltas) => deltas,
        };
        let wanted = deltas.first().map(|d| d.base).unwrap_or_default();
        let Some(mut state) = self.accepted.clone() else {
            return Err(StateError::Base { wanted, have: Stamp::default() });
        };
        let (mut taken, mut committed) = (Vec::new(), None);
        for delta in deltas.iter().filter(|d| d.stamp > self.register.accepted().map(|a| a.stamp).unwrap_or_default()) {
            state = Arc::new(state.apply(delta)?);
            taken.push(delta.clone());
            if state.stamp() == commit {
                committed = Some(state.clone());
            }
        }
        let newest = deltas.last().map(|d| (d.stamp, d.digest));
        if taken.is_empty() && newest != Some((state.stamp(), state.digest())) {
            // Older than what we have: nothing to do, unless two contents share a stamp, which `take` finds.
            return Ok(newest.filter(|(stamp, _)| *stamp == state.stamp()).map(|_| Steps {
                state,
                deltas: taken,
                committed,
            }));
        }
        Ok(Some(Steps { state, deltas: taken, committed }))
    }

    fn take(&mut self, from: &Sender, epoch: u64, round: u64, commit: Stamp, uuid: ClusterUuid, steps: Steps) {
        let new = slot(&steps.state);
        if self.register.check_fork(new.stamp, new.digest).is_err() {
            return self.broken("I4: two contents under one stamp");
        }
        match self.register.accept(&new, &from.id) {
            Err(_) => return,
            Ok(Accept::Again) => {}
            Ok(Accept::New) => {
                let held = self.accepted.as_ref().map(|s| s.stamp());
                self.note_abandoned(held, &steps.state);
                self.accepted = Some(steps.state.clone());
                if steps.deltas.is_empty() {
                    self.recent.clear();
                }
                for delta in &steps.deltas {
                    self.recent.push(delta.clone());
                }
                let genesis = (!self.genesis.is_formed()).then_some(Genesis::Formed(uuid));
                if let Some(formed) = &genesis {
                    self.become_formed(formed.clone());
                }
                self.persist(genesis, Some(Write { state: steps.state, deltas: steps.deltas }));
            }
        }
        self.extend_lease(from, epoch);
        if let Some(state) = steps.committed {
            self.publish(state);
        }
        self.learn_commit(commit);
        let message = Message::Appended { round, stamp: new.stamp, digest: new.digest };
        self.send_durable(&from.id.node, epoch, message);
    }

    /// Whether this node would promise the asker now, leases considered (rule 4).
    ///
    /// # Errors
    /// In how many milliseconds to ask again.
    pub(super) fn would_promise(&self, asker: &Sender, token: Option<&HandOver>) -> Result<(), u64> {
        if matches!(self.role, Role::Leading(_)) && asker.id != self.me.id {
            return Err(self.own_lease_left_ms().max(RETRY_MS_MIN));
        }
        let left_ms = self.lease.left_ms(self.now);
        let own = self.lease.holder.as_ref() == Some(&asker.id) && self.lease.run.is_none_or(|run| asker.run >= run);
        let handed = token.is_some_and(|t| t.to == asker.id && self.register.promised() <= self.term(t.epoch));
        if left_ms == 0 || own || handed || self.holder_dead() {
            return Ok(());
        }
        let pending = self.lease.holder.as_ref().is_some_and(|h| self.live.is_pending(h, self.now));
        Err(if pending { RETRY_MS_MIN } else { left_ms.max(RETRY_MS_MIN) })
    }

    pub(super) fn on_pre_vote(&mut self, from: &Sender, _epoch: u64, round: u64) {
        let answer = match self.pre_vote(from) {
            Ok(()) => PreVoteAnswer::Yes,
            Err(retry_ms) => PreVoteAnswer::No { retry_ms },
        };
        self.tell(&from.id.node, Message::PreVoteReply { round, answer });
    }

    /// Is it down for me, and would I promise?
    pub(super) fn pre_vote(&self, asker: &Sender) -> Result<(), u64> {
        self.would_promise(asker, None)?;
        if self.down().is_none() {
            let heard = self.leader.as_ref().map_or(self.alone_since, |l| l.heard);
            return Err((heard + self.config.timers.suspect_ms).saturating_sub(self.now).max(RETRY_MS_MIN));
        }
        if let (Some(at), Some(other)) = (self.promised_at, self.register.voted_for())
            && *other != asker.id
            && !self.live.is_gone(other)
        {
            let until = at + self.step_ms();
            if self.now < until {
                return Err((until - self.now).max(RETRY_MS_MIN));
            }
        }
        Ok(())
    }

    pub(super) fn on_prepare(&mut self, from: &Sender, epoch: u64, token: Option<HandOver>) {
        if self.register.may_promise(self.term(epoch), &from.id).is_err() {
            return self.refuse(from, epoch, None);
        }
        if let Err(retry_ms) = self.would_promise(from, token.as_ref()) {
            return self.refuse(from, epoch, Some(retry_ms));
        }
        if self.term(epoch) > self.register.promised() {
            if !matches!(self.role, Role::Follower) {
                self.follow();
            }
            if self.register.promise(self.term(epoch), &from.id).is_err() {
                return;
            }
            self.promised_at = Some(self.now);
            if Mutant::VotesNotPersisted.on() {
                let accepted = self.accepted_meta();
                return self.send(&from.id.node, epoch, Message::Promise { accepted });
            }
            self.persist(None, None);
        }
        let accepted = self.accepted_meta();
        self.send_durable(&from.id.node, epoch, Message::Promise { accepted });
    }

    pub(super) fn on_fetch(&mut self, from: &Sender, stamp: Stamp) {
        if let Some(state) = self.accepted.clone().filter(|s| s.stamp() >= stamp) {
            let full = Arc::new(state.full());
            self.tell(&from.id.node, Message::Body { full });
        }
    }

    /// Rule 9: the lease of the epoch is given up for good. No evidence, and nothing cancels it.
    pub(super) fn on_resign(&mut self, from: &Sender, epoch: u64, successor: Option<VoterId>) {
        if self.register.promised() == self.term(epoch) && self.register.voted_for() == Some(&from.id) {
            self.promised_at = None;
        }
        if self.lease.epoch == epoch && self.lease.holder.as_ref() == Some(&from.id) {
            self.lease.resigned = true;
        }
        match &mut self.leader {
            Some(l) if l.epoch == epoch && l.who.id == from.id => {
                l.resigned = Some(successor);
                self.reopen();
            }
            _ => {}
        }
    }

    pub(super) fn on_token(&mut self, from: &Sender, token: HandOver) {
        let mine = self.is_me(&token.to) && token.from == from.id && self.register.promised() <= self.term(token.epoch);
        if mine
            && self.stop.is_none()
            && self.electable()
            && !self.is_left_behind()
            && !matches!(self.role, Role::Leading(_))
        {
            self.stand(Some(token));
        }
    }

    /// Whether this node may lead, as far as it knows.
    pub(super) fn electable(&self) -> bool {
        self.newest().is_some_and(|s| self.may_lead(s))
    }

    /// Rule 5, and section 4: an electable gateway whose disk is gone may lead with its new one.
    pub(super) fn may_lead(&self, state: &State) -> bool {
        electable_in(state, &self.me.id) || self.is_new_disk(state)
    }

    /// The State knows this electable gateway by an older disk, or (when it had no record and nobody led) not at all.
    /// Its own promise does not count there: it has no seat.
    fn is_new_disk(&self, state: &State) -> bool {
        let node = &self.me.id.node;
        let flagged = state
            .past()
            .get(node)
            .is_some_and(|p| !ais_meta::Node { flags: p.flags, ..self.config.member.clone() }.electable());
        (self.join.adopted || self.is_stranded())
            && self.config.member.electable()
            && !flagged
            && state.nodes().get(node).is_none_or(|n| n.disk != self.me.id.disk && n.electable())
            && !quorum::seats(state.electorate(), &self.me.id)
    }

    /// Who leads, with addresses, while it is not down.
    pub(super) fn believed_primary(&self) -> Option<Voter> {
        if let Role::Leading(lead) = &self.role {
            return lead.established().then(|| Voter::from(&self.config.member));
        }
        let leader = self.leader.as_ref().filter(|l| l.established)?;
        if self.down().is_some() { None } else { self.find(&leader.who.id) }
    }

    /// A member or voter with its addresses.
    pub(super) fn find(&self, id: &VoterId) -> Option<Voter> {
        let state = self.newest();
        let node = state.and_then(|s| s.nodes().get(&id.node)).filter(|n| n.disk == id.disk).map(|n| Voter::from(&**n));
        let voter = || state.and_then(|s| s.electorate().iter().find(|v| v.id == *id).cloned());
        let heard = || self.hellos.get(&id.node).filter(|h| h.from.id == *id).map(|h| Voter::from(&h.hello.member));
        node.or_else(voter).or_else(heard)
    }

    /// Gives up whatever role there was and follows.
    pub(super) fn follow(&mut self) {
        match std::mem::replace(&mut self.role, Role::Follower) {
            Role::Leading(lead) => self.put_down(*lead),
            Role::Outside => self.role = Role::Outside,
            Role::Follower | Role::Candidate(_) => {}
        }
        self.down_since = None;
    }

    pub(super) fn on_own_bind(&mut self, number: u64) {
        let me = self.me.id.clone();
        if let Some(founding) = &mut self.founding {
            founding.bind(me, number);
        }
    }

    pub(super) fn hold_own_accept(&mut self, stamp: Stamp) {
        self.hold(Held::OwnAccept(stamp));
    }
}

/// Rule 5: electable in the State's Smap or electorate.
pub(super) fn electable_in(state: &State, id: &VoterId) -> bool {
    match state.nodes().get(&id.node) {
        Some(node) if node.disk == id.disk => node.electable(),
        _ => state.electorate().iter().any(|v| v.id == *id && v.electable),
    }
}
