//! Who is in the Smap, as the primary decides it (protocol.md section 6). Who votes is a separate decision: `seats.rs`.

use ais_meta::state::Draft;
use ais_meta::{Change, Node as Member, NodeId, RequestId, Stamp, State, Voter, VoterId};

use super::lead::{Asked, Lead, QUEUE_MAX};
use super::{Node, Role};
use crate::io::{ForwardReply, Message, Millis, Sender};
use crate::register::Term;

/// How long a joiner may take to receive the State.
const JOIN_MS_MAX: u64 = 5000;
/// Joiners that are brought up to date at a time.
const JOINS_MAX: usize = 1024;
/// Somebody who asked to be let in.
pub(super) struct JoinAsk {
    pub(super) node: Member,
    request: RequestId,
    low: u64,
    from: NodeId,
    until: Millis,
    queued: bool,
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
        let same = |a: &&mut Asked| matches!(&a.change, Change::Join { node: n } if **n == node);
        if let Some(asked) = lead.queue.iter_mut().find(same) {
            // It asked again before its turn came, and waits for the answer to this one.
            (asked.request, asked.low) = (request, low);
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
        let suspect_ms = self.config.timers.suspect_ms;
        let lives = |heard: Option<Millis>| heard.is_some_and(|at| self.now < at + suspect_ms);
        // A voter that left the Smap has its name still.
        let mut seats = lead.seats.iter().filter(|(v, _)| v.node == node.id && v.disk != node.disk);
        if seats.any(|(v, heard)| !self.live.is_gone(v) && lives(Some(*heard))) {
            return true;
        }
        let Some(old) = lead.tip().nodes().get(&node.id).filter(|n| n.disk != node.disk) else {
            return false;
        };
        let heard = lead.members.get(&node.id).filter(|p| p.id == old.voter_id()).and_then(|p| p.heard);
        !self.live.is_dead(&old.voter_id(), old.run) && lives(heard)
    }

    /// The joiner has a State of this epoch on its disk: now it can be published.
    pub(super) fn on_joiner_ack(&mut self, node: &NodeId) {
        let incarnation = self.incarnation;
        let Some(lead) = self.lead() else { return };
        let term = Term::new(incarnation, lead.epoch());
        let current = lead.members.get(node).and_then(|p| p.acked).is_some_and(|a| Term::from(a) == term);
        let room = lead.queue.len() < QUEUE_MAX;
        let Some(join) = lead.joins.get_mut(node).filter(|j| current && room && !j.queued) else {
            return;
        };
        join.queued = true;
        let change = Change::Join { node: Box::new(join.node.clone()) };
        let (request, from) = (join.request.clone(), Some(join.from.clone()));
        let asked = Asked { request, low: join.low, change, basis: None, from };
        lead.queue.push_back(asked);
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
        }
        lead.joins.retain(|_, j| now < j.until);
    }

    /// The primary's own edits of the next State.
    pub(super) fn edit_members(&self, draft: &mut Draft, me: &VoterId) {
        let Role::Leading(lead) = &self.role else {
            return;
        };
        // Everything is being stopped in order: who is silent then is no loss.
        if draft.state().head().stopping {
            return;
        }
        for id in self.lost_members(draft.state(), lead, me) {
            draft.change(&Change::Leave { node: id });
        }
        self.edit_electorate(draft, lead);
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
