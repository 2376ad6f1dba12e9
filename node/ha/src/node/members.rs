//! Who is in the Smap and who votes, as the primary decides it (protocol.md sections 4 and 6). Membership and
//! electorate are separate decisions.

use std::collections::BTreeMap;

use ais_meta::state::Draft;
use ais_meta::{Change, Kind, Node as Member, NodeId, RequestId, Stamp, State, Voter, VoterId, hrw};

use super::lead::{Asked, Lead, QUEUE_MAX};
use super::{Node, Role};
use crate::io::{ForwardReply, Message, Millis, Sender};
use crate::mutant::Mutant;
use crate::quorum;

/// How long a joiner may take to receive the State.
const JOIN_MS_MAX: u64 = 5000;
/// Joiners that are brought up to date at a time.
const JOINS_MAX: usize = 1024;
/// A return within this time counts as flapping.
const FLAP_MS: u64 = 600_000;
/// Wait of the second return; further ones double.
const DAMP_MS: u64 = 30_000;

/// Somebody who asked to be let in.
pub(super) struct JoinAsk {
    pub(super) node: Member,
    request: RequestId,
    low: u64,
    from: NodeId,
    until: Millis,
    queued: bool,
}

/// Remembers who came back how often: a flapping node must be stable before it votes.
#[derive(Default)]
pub(super) struct Damping {
    returns: BTreeMap<NodeId, (u32, Millis)>,
}

impl Damping {
    fn joined(&mut self, node: &NodeId, now: Millis) {
        let entry = self.returns.entry(node.clone()).or_insert((0, now));
        entry.0 = if now.saturating_sub(entry.1) > FLAP_MS { 1 } else { entry.0 + 1 };
        entry.1 = now;
    }

    fn may_vote(&self, node: &NodeId, now: Millis) -> bool {
        match self.returns.get(node) {
            None | Some((0..=1, _)) => true,
            Some((returns, at)) => now >= at + (DAMP_MS << (returns - 2).min(5)).min(FLAP_MS),
        }
    }
}

impl Node {
    /// A node asks to be put into the Smap: it receives the whole State first (section 6).
    pub(super) fn on_join(&mut self, from: &Sender, request: RequestId, low: u64, node: Member) {
        let (now, taken) = (self.now, self.is_taken(&node));
        let Some(lead) = self.lead() else { return };
        if taken {
            let outcome = ais_meta::Outcome::Refused(ais_meta::Refusal::NodeIdTaken(node.id));
            let stamp = lead.tip().stamp();
            return self
                .tell(&from.id.node, Message::Forwarded { request, reply: ForwardReply::Settled { outcome, stamp } });
        }
        if lead.joins.len() >= JOINS_MAX && !lead.joins.contains_key(&node.id) {
            return;
        }
        let until = now + JOIN_MS_MAX;
        let ask = JoinAsk { request, low, from: from.id.node.clone(), until, queued: false, node: node.clone() };
        lead.joins.insert(node.id.clone(), ask);
        self.hint(Voter::from(&node));
        self.sync_members();
        self.replicate();
        self.on_joiner_ack(&node.id);
    }

    /// Same id, another disk: only if the process that has it is dead or silent (section 6).
    fn is_taken(&self, node: &Member) -> bool {
        let Role::Leading(lead) = &self.role else {
            return false;
        };
        if node.id == self.me.id.node {
            return true;
        }
        let Some(old) = lead.tip().nodes().get(&node.id).filter(|n| n.disk != node.disk) else {
            return false;
        };
        let suspect_ms = self.config.timers.suspect_ms;
        let heard = lead.members.get(&node.id).filter(|p| p.id == old.voter_id()).and_then(|p| p.heard);
        !self.live.is_dead(&old.voter_id(), old.run) && heard.is_some_and(|at| self.now < at + suspect_ms)
    }

    /// The joiner has a State of this epoch on its disk: now it can be published.
    pub(super) fn on_joiner_ack(&mut self, node: &NodeId) {
        let Some(lead) = self.lead() else { return };
        let epoch = lead.epoch();
        let current = lead.members.get(node).and_then(|p| p.acked).is_some_and(|a| a.epoch == epoch);
        let Some(join) = lead.joins.get_mut(node).filter(|j| current && !j.queued) else {
            return;
        };
        join.queued = true;
        let change = Change::Join { node: Box::new(join.node.clone()) };
        let asked = Asked { request: join.request.clone(), low: join.low, change, from: Some(join.from.clone()) };
        if lead.queue.len() < QUEUE_MAX {
            lead.queue.push_back(asked);
        }
    }

    /// Once a heartbeat: forgets joiners that came to nothing or are in.
    pub(super) fn keep_members(&mut self) {
        let now = self.now;
        let Some(lead) = self.lead() else { return };
        let tip = lead.tip().clone();
        let in_smap =
            |j: &JoinAsk| tip.nodes().get(&j.node.id).is_some_and(|n| n.disk == j.node.disk && n.run >= j.node.run);
        let done: Vec<NodeId> = lead.joins.iter().filter(|(_, j)| in_smap(j)).map(|(id, _)| id.clone()).collect();
        for id in done {
            lead.joins.remove(&id);
            lead.damping.joined(&id, now);
        }
        lead.joins.retain(|_, j| now < j.until);
    }

    /// The primary's own edits of the next State.
    pub(super) fn edit_members(&self, draft: &mut Draft, me: &VoterId) {
        let Role::Leading(lead) = &self.role else {
            return;
        };
        if !draft.state().head().stopping {
            for id in self.lost_members(draft.state(), lead, me) {
                draft.change(&Change::Leave { node: id });
            }
        }
        if let Some(voter) = self.wanted_voter(draft.state(), lead) {
            draft.add_voter(voter);
            if Mutant::TwoVotersAtOnce.on()
                && let Some(second) = self.wanted_voter(draft.state(), lead)
            {
                draft.add_voter(second);
            }
        }
    }

    /// Members with dead evidence, at once, and silent ones after `evict_smap`. Their seats stay.
    fn lost_members(&self, state: &State, lead: &Lead, me: &VoterId) -> Vec<NodeId> {
        let evict_ms = self.config.timers.evict_smap_ms;
        let lost = |n: &Member| {
            let id = n.voter_id();
            let heard = lead.members.get(&n.id).filter(|p| p.id == id).and_then(|p| p.heard).unwrap_or(lead.since());
            self.live.is_dead(&id, n.run) || self.now >= heard + evict_ms
        };
        state.nodes().values().filter(|n| n.id != me.node && lost(n)).map(|n| n.id.clone()).collect()
    }

    /// Growth: odd and at least 3 where members allow, one voter per State, newcomers caught up (section 4).
    fn wanted_voter(&self, state: &State, lead: &Lead) -> Option<Voter> {
        let seated = state.electorate();
        let room = self.config.voters.checked_sub(seated.len()).filter(|room| *room > 0)?;
        let before = quorum::names(lead.tip().electorate());
        if before != quorum::names(seated) && !Mutant::TwoVotersAtOnce.on() {
            return None;
        }
        let mut fit: Vec<&Member> =
            state.nodes().values().map(|n| &**n).filter(|n| self.may_be_seated(n, seated, lead)).collect();
        order(&mut fit);
        let odd = seated.len() % 2 == 1;
        let enough = if odd { room >= 2 && fit.len() >= 2 } else { !fit.is_empty() };
        fit.first().filter(|_| enough).map(|n| Voter::from(*n))
    }

    fn may_be_seated(&self, node: &Member, seated: &[Voter], lead: &Lead) -> bool {
        let has_seat = seated.iter().any(|v| v.id.node == node.id);
        let fits = node.electable() || (node.kind == Kind::Target && node.flags == 0);
        let current = self.live.is_connected(&node.voter_id()) && lead.is_caught_up(&node.id);
        let fresh = lead.members.get(&node.id).and_then(|p| p.heard);
        let heard = fresh.is_some_and(|at| self.now < at + 2 * self.config.timers.heartbeat_ms);
        !has_seat
            && fits
            && current
            && heard
            && !self.live.is_stopping(&node.voter_id())
            && lead.damping.may_vote(&node.id, self.now)
    }
}

/// Electable gateways by HRW, then witnesses: another failure domain first, then HRW.
fn order(nodes: &mut Vec<&Member>) {
    hrw::succession(nodes, |n| n.id.as_str());
    let mut domains: BTreeMap<&str, usize> = BTreeMap::new();
    let mut keyed: Vec<((Kind, usize), &Member)> = Vec::with_capacity(nodes.len());
    for node in nodes.iter() {
        let taken = domains.entry(node.domain.as_str()).or_default();
        keyed.push(((node.kind, if node.domain.is_empty() { 0 } else { *taken }), node));
        *taken += 1;
    }
    keyed.sort_by_key(|(key, _)| *key);
    *nodes = keyed.into_iter().map(|(_, n)| n).collect();
}

/// Whether a State holds this very process of the node.
pub(super) fn holds(state: &State, member: &Member) -> bool {
    let same = |n: &Member| n.disk == member.disk && n.run == member.run && n.addresses == member.addresses;
    state.nodes().get(&member.id).is_some_and(|n| same(n))
}

/// The stamp a State must have reached to be as new as `stamp`.
pub(super) fn reaches(state: Option<&State>, stamp: Stamp) -> bool {
    state.is_some_and(|s| s.stamp() >= stamp)
}
