//! Giving the lead away, and stopping in order (protocol.md rule 9, section 6).

use ais_meta::{Change, NodeId, State, Voter, VoterId, hrw};

use super::follow::electable_in;
use super::lead::Lead;
use super::{Leader, Node, Role};
use crate::io::{Action, Halt, HandOver, Message, Millis, Sender, TransferAnswer, Transferred};
use crate::mutant::Mutant;
use crate::register::Term;

/// How long the node that asked waits for the successor's first State.
const WATCH_MS: u64 = 5000;
/// How long a stopping node takes beyond its drain, at most.
const STOP_MS: u64 = 2000;

/// A hand-over that drains.
pub(super) struct Transfer {
    to: VoterId,
    pub(super) until: Millis,
    /// Who asked: a node and the name of its call; `None`: this node stops.
    caller: Option<(NodeId, u64)>,
}

/// A hand-over that was asked of this node by its driver.
pub(super) struct Watch {
    to: NodeId,
    until: Millis,
    /// The epoch that was given up; a higher one decides.
    given_up: Option<u64>,
}

/// A stop in progress.
pub(super) struct Stop {
    until: Millis,
    left: bool,
    leaving: bool,
}

impl Stop {
    pub(super) fn due(&self) -> Millis {
        self.until
    }
}

impl Node {
    pub(super) fn on_transfer(&mut self, nonce: u64, to: NodeId, primary: Option<NodeId>, epoch: Option<u64>) {
        let until = self.now + self.config.timers.drain_ms + WATCH_MS;
        if matches!(&self.role, Role::Leading(l) if l.established()) {
            self.join.watches.insert(nonce, Watch { to: to.clone(), until, given_up: None });
            let me = self.me.id.node.clone();
            if let Err(result) = self.begin_transfer(Some((me, nonce)), &to, primary, epoch) {
                self.end_transfer(nonce, result);
            }
            return;
        }
        let Some(leader) = self.believed_primary() else {
            self.actions.push(Action::Transferred { nonce, result: Transferred::NoPrimary });
            return;
        };
        self.join.watches.insert(nonce, Watch { to: to.clone(), until, given_up: None });
        let ask = Message::TransferAsk { nonce, to, expected_primary: primary, expected_epoch: epoch };
        self.tell(&leader.id.node, ask);
    }

    pub(super) fn on_transfer_ask(
        &mut self,
        from: &Sender,
        nonce: u64,
        to: NodeId,
        primary: Option<NodeId>,
        epoch: Option<u64>,
    ) {
        let node = from.id.node.clone();
        let result = if matches!(&self.role, Role::Leading(l) if l.established()) {
            self.begin_transfer(Some((node.clone(), nonce)), &to, primary, epoch).map_err(TransferAnswer::Ended)
        } else {
            Err(TransferAnswer::NotPrimary)
        };
        if let Err(result) = result {
            self.tell(&node, Message::TransferAnswer { nonce, result });
        }
    }

    pub(super) fn on_transfer_answer(&mut self, nonce: u64, result: TransferAnswer) {
        match result {
            TransferAnswer::Ended(result) => self.end_transfer(nonce, result),
            TransferAnswer::NotPrimary => self.end_transfer(nonce, Transferred::NoPrimary),
            TransferAnswer::Resigned { epoch } => {
                if let Some(watch) = self.join.watches.get_mut(&nonce) {
                    watch.given_up = Some(epoch);
                }
            }
        }
    }

    fn end_transfer(&mut self, nonce: u64, result: Transferred) {
        if self.join.watches.remove(&nonce).is_some() {
            self.actions.push(Action::Transferred { nonce, result });
        }
    }

    /// Preconditions, then starts to drain.
    fn begin_transfer(
        &mut self,
        caller: Option<(NodeId, u64)>,
        to: &NodeId,
        expected_primary: Option<NodeId>,
        expected_epoch: Option<u64>,
    ) -> Result<(), Transferred> {
        let Role::Leading(lead) = &self.role else {
            return Err(Transferred::NoPrimary);
        };
        let (me, epoch) = (self.me.id.node.clone(), lead.epoch());
        let state = lead.tip().clone();
        if !state.nodes().contains_key(to) {
            return Err(Transferred::UnknownNode);
        }
        if expected_primary.is_some_and(|p| p != me) || expected_epoch.is_some_and(|e| e != epoch) {
            return Err(Transferred::Precondition { primary: me, epoch });
        }
        if *to == me {
            return Err(Transferred::Done { epoch, smap_version: state.smap().version });
        }
        if lead.transfer.is_some() || self.stop.is_some() {
            return Err(Transferred::Busy("another hand-over is in progress".to_owned()));
        }
        let to = self.successor(to).map_err(Transferred::NotEligible)?;
        let until = self.now + self.config.timers.drain_ms;
        if let Some(lead) = self.lead() {
            lead.transfer = Some(Transfer { to, until, caller });
        }
        Ok(())
    }

    /// Caught up, electable, connected, not stopping.
    fn successor(&self, to: &NodeId) -> Result<VoterId, String> {
        let Role::Leading(lead) = &self.role else {
            return Err("not primary".to_owned());
        };
        let Some(node) = lead.tip().nodes().get(to) else {
            return Err(format!("{to} is not in the cluster map"));
        };
        let id = node.voter_id();
        if !electable_in(lead.tip(), &id) {
            return Err(format!("{to} is not electable: a target, non-electable, or in maintenance"));
        }
        if !self.live.is_connected(&id) {
            return Err(format!("{to} is not connected"));
        }
        if self.live.is_stopping(&id) {
            return Err(format!("{to} is stopping"));
        }
        if !lead.is_caught_up(to) {
            return Err(format!("{to} has not caught up"));
        }
        Ok(id)
    }

    /// Drained: gives the epoch up. Not drained in time: keeps leading and says so.
    pub(super) fn advance_transfer(&mut self) {
        let now = self.now;
        let Some(lead) = self.lead() else { return };
        let drained = lead.is_drained();
        let Some(transfer) = lead.transfer.take_if(|t| drained || now >= t.until) else {
            return;
        };
        if !drained && self.stop.is_none() {
            return self.fail_transfer(transfer, "the State in flight did not commit in time; still leading");
        }
        self.resign(Some(transfer));
    }

    fn fail_transfer(&mut self, transfer: Transfer, why: &str) {
        self.say(transfer.caller, TransferAnswer::Ended(Transferred::Busy(why.to_owned())));
    }

    /// The lead was lost while a hand-over drained.
    pub(super) fn transfer_ended(&mut self, transfer: Transfer) {
        self.fail_transfer(transfer, "the primary lost its lead before it could hand over");
    }

    fn say(&mut self, caller: Option<(NodeId, u64)>, result: TransferAnswer) {
        match caller {
            Some((node, nonce)) if node == self.me.id.node => self.on_transfer_answer(nonce, result),
            Some((node, nonce)) => self.tell(&node, Message::TransferAnswer { nonce, result }),
            None => {}
        }
    }

    /// Gives up the lease of this epoch for good: nothing ever resumes it (rule 9).
    fn resign(&mut self, transfer: Option<Transfer>) {
        let Role::Leading(lead) = &self.role else {
            return;
        };
        self.stats.resigns += 1;
        let epoch = lead.epoch();
        let members: Vec<NodeId> = lead.members.keys().cloned().collect();
        let successor = transfer.as_ref().map(|t| t.to.clone());
        for node in members {
            self.send(&node, epoch, Message::Resign { successor: successor.clone() });
        }
        if let Some(t) = transfer {
            let token = HandOver { epoch, from: self.me.id.clone(), to: t.to.clone(), nonce: self.jitter.next_u64() };
            self.send(&t.to.node, epoch, Message::Token(token));
            self.say(t.caller, TransferAnswer::Resigned { epoch });
        }
        if Mutant::ResumesAfterResign.on() {
            return;
        }
        self.follow();
        let who = self.me.clone();
        let resigned = Some(successor);
        self.leader = Some(Leader { who, epoch, heard: self.now, established: true, resigned, denied: false });
        self.announce();
    }

    /// Resigns without draining (rule 8): a stuck or full disk, a State that does not commit.
    pub(super) fn give_up_lead(&mut self) {
        self.resign(None);
    }

    // ---- stop

    pub(super) fn on_stop(&mut self) {
        if self.stop.is_some() {
            return;
        }
        let until = self.now + self.config.timers.suspect_ms + STOP_MS;
        self.stop = Some(Stop { until, left: false, leaving: false });
        self.announce();
        let established = matches!(&self.role, Role::Leading(l) if l.established());
        if established && !self.is_stopping_cluster() {
            self.hand_over_to_best();
        }
    }

    pub(super) fn is_stopping_cluster(&self) -> bool {
        self.published.as_ref().is_some_and(|s| s.head().stopping)
    }

    /// A primary that was made non-electable, or is being decommissioned, leads until somebody else can.
    pub(super) fn hand_over_if_unfit(&mut self) {
        let unfit = |state: &State| !electable_in(state, &self.me.id);
        let leads = |l: &Lead| l.established() && l.transfer.is_none() && l.committed().is_some_and(|s| unfit(s));
        if matches!(&self.role, Role::Leading(l) if leads(l)) && self.stop.is_none() {
            self.hand_over_to_best();
        }
    }

    /// The first by HRW of those who are fit.
    fn hand_over_to_best(&mut self) {
        let until = self.now + self.config.timers.suspect_ms;
        let Role::Leading(lead) = &self.role else {
            return;
        };
        if lead.transfer.is_some() {
            return;
        }
        let mut fit: Vec<VoterId> = lead.tip().nodes().keys().filter_map(|id| self.successor(id).ok()).collect();
        hrw::succession(&mut fit, |v| v.node.as_str());
        let to = fit.into_iter().find(|id| !self.is_me(id));
        if let (Some(to), Some(lead)) = (to, self.lead()) {
            lead.transfer = Some(Transfer { to, until, caller: None });
        }
    }

    /// Hand over, leave the Smap, say that this process ends, end.
    pub(super) fn advance_stop(&mut self) {
        self.advance_watches();
        let Some(stop) = &self.stop else { return };
        let over = self.now >= stop.until || stop.left || self.is_stopping_cluster() || self.is_last();
        if over && (self.now >= stop.until || self.requests.is_empty()) {
            return self.end();
        }
        let leaving = stop.leaving;
        match &self.role {
            Role::Leading(lead) if lead.established() && lead.transfer.is_none() => self.hand_over_to_best(),
            Role::Follower if !leaving && self.believed_primary().is_some() && self.requests.is_empty() => {
                let request = self.requests.internal_id();
                let node = self.me.id.node.clone();
                self.park(request, Change::Leave { node }, None, true);
                if let Some(stop) = &mut self.stop {
                    stop.leaving = true;
                }
                self.advance_requests();
            }
            Role::Outside => self.end(),
            _ => {}
        }
    }

    /// Nobody else could lead: waiting for a successor is no use.
    fn is_last(&self) -> bool {
        let Some(state) = self.newest() else {
            return true;
        };
        let other = |v: &Voter| v.electable && v.id.node != self.me.id.node;
        let voters = state.electorate().iter().any(other);
        let learners = state.nodes().values().any(|n| other(&Voter::from(&**n)));
        matches!(self.role, Role::Leading(_)) && !voters && !learners
    }

    pub(super) fn on_left(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.left = true;
        }
    }

    fn end(&mut self) {
        self.end_with(Halt::Stopped);
    }

    // ---- calls that wait for the successor

    fn advance_watches(&mut self) {
        let seen = match (&self.role, &self.leader, &self.published) {
            (_, Some(l), Some(p))
                if l.established && l.resigned.is_none() && Term::from(p.stamp()) == self.term(l.epoch) =>
            {
                Some((l.who.id.node.clone(), l.epoch, p.smap().version))
            }
            _ => None,
        };
        let now = self.now;
        let ended: Vec<(u64, Transferred)> = self
            .join
            .watches
            .iter()
            .filter_map(|(nonce, w)| w.result(seen.as_ref(), now).map(|result| (*nonce, result)))
            .collect();
        for (nonce, result) in ended {
            self.end_transfer(nonce, result);
        }
    }
}

impl Watch {
    pub(super) fn until(&self) -> Millis {
        self.until
    }

    fn result(&self, seen: Option<&(NodeId, u64, u64)>, now: Millis) -> Option<Transferred> {
        match (self.given_up, seen) {
            (Some(given_up), Some((primary, epoch, smap_version))) if *epoch > given_up => {
                Some(if *primary == self.to {
                    Transferred::Done { epoch: *epoch, smap_version: *smap_version }
                } else {
                    Transferred::Busy(format!("{primary} became primary instead"))
                })
            }
            _ => (now >= self.until).then_some(Transferred::Unknown),
        }
    }
}
