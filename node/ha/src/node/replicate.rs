//! Bringing members up to date, as primary (protocol.md rules 11 and 12, section 7): voters get the newest State,
//! learners the newest committed one, as the steps they lack; a member without the base asks for the whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use ais_meta::{NodeId, Stamp, VoterId};

use super::{Node, Role};
use crate::io::{AppendBody, MemberView, Message, Millis, Sender};
use crate::quorum;

/// What the primary knows of a member.
pub(super) struct Progress {
    pub(super) id: VoterId,
    pub(super) heard: Option<Millis>,
    pub(super) acked: Option<Stamp>,
    pub(super) published: Option<Stamp>,
    pub(super) sent: Option<Stamp>,
    sent_at: Millis,
    needs_full: bool,
    /// What it had when it asked for what it lacks, and when that was answered.
    asked: Option<(Stamp, Millis)>,
    pub(super) slow: bool,
}

impl Progress {
    fn new(id: VoterId) -> Self {
        let (heard, acked, published, sent) = (None, None, None, None);
        Self { id, heard, acked, published, sent, sent_at: 0, needs_full: false, asked: None, slow: false }
    }
}

impl Node {
    /// Rule 12: commit stamps are pushed at once, to those who have the State.
    pub(super) fn push_commit(&mut self) {
        let now = self.now;
        let Some(lead) = self.lead() else { return };
        let (round, commit, epoch) = (lead.rounds.start(now), lead.commit_stamp(), lead.epoch);
        let informed: Vec<NodeId> =
            lead.members.iter().filter(|(_, p)| p.sent >= Some(commit)).map(|(id, _)| id.clone()).collect();
        for node in informed {
            self.send(&node, epoch, Message::Append { round, commit, body: AppendBody::Commit });
        }
    }

    /// What is not acknowledged after so long is sent again.
    fn retry_ms(&self) -> Millis {
        3 * self.config.timers.heartbeat_ms
    }

    /// Sends every member what it lacks: voters the newest State, learners the newest committed one (rule 11).
    pub(super) fn replicate(&mut self) {
        let (now, retry_ms) = (self.now, self.retry_ms());
        let Role::Leading(lead) = &mut self.role else {
            return;
        };
        let (commit, tip, epoch) = (lead.commit_stamp(), lead.tip.clone(), lead.epoch);
        let mut out = Vec::new();
        for (node, p) in &mut lead.members {
            let target = if quorum::seats(tip.electorate(), &p.id) { tip.stamp() } else { commit };
            let lost = p.acked < p.sent && now >= p.sent_at + retry_ms;
            if !self.live.is_connected(&p.id) || target == Stamp::default() || (p.sent >= Some(target) && !lost) {
                continue;
            }
            let base = if lost { p.acked } else { p.sent.or(p.acked).or(Some(lead.adopted)) };
            out.push((node.clone(), base.filter(|_| !p.needs_full), target));
            (p.sent, p.sent_at, p.needs_full) = (Some(target), now, false);
        }
        let round = lead.rounds.start(now);
        for (node, base, target) in out {
            let Some(body) = self.body(base, target) else {
                continue;
            };
            self.send(&node, epoch, Message::Append { round, commit, body });
        }
    }

    fn body(&mut self, base: Option<Stamp>, target: Stamp) -> Option<AppendBody> {
        if let Some(steps) = base.and_then(|b| self.recent.path(b, target)) {
            return Some(AppendBody::Deltas(steps));
        }
        let lead = self.lead()?;
        if base == Some(target) {
            return Some(AppendBody::Commit);
        }
        let state = if lead.tip.stamp() == target { lead.tip.clone() } else { lead.committed.clone()? };
        let cached = lead.full.take().filter(|f| f.stamp == target);
        let full = cached.unwrap_or_else(|| Arc::new(state.full()));
        lead.full = Some(full.clone());
        self.stats.fulls += 1;
        Some(AppendBody::Full(full))
    }

    pub(super) fn on_need_full(&mut self, from: &Sender, have: Stamp) {
        let (known, now, retry_ms) = (self.recent.starts_at(have), self.now, self.retry_ms());
        let Some(lead) = self.lead() else { return };
        // A member that was cut off asks at each step that had waited for it, all before the first answer reaches it.
        // One is enough: a hundred whole States keep it from everything else for seconds.
        let answered = |p: &Progress| p.asked.is_some_and(|(had, at)| had == have && now < at + retry_ms);
        if let Some(p) = lead.members.get_mut(&from.id.node).filter(|p| p.id == from.id && !answered(p)) {
            p.asked = Some((have, now));
            // Our own chain starts there only if digests agree too, which the member just denied if we tried it.
            p.needs_full = !known || p.acked == Some(have);
            (p.acked, p.sent) = (Some(have), None);
            self.replicate();
        }
    }

    /// A process came (back): what was sent to it may be lost.
    pub(super) fn reconnected(&mut self, peer: &Sender) {
        if let Some(lead) = self.lead()
            && let Some(p) = lead.members.get_mut(&peer.id.node).filter(|p| p.id == peer.id)
        {
            // Another disk under a member's id is nobody until it is let in: what is known of the member stays, so that
            // a living one keeps its name (section 6).
            (p.sent, p.asked) = (None, None);
        }
        self.replicate();
        if self.leader.as_ref().is_some_and(|l| l.who.id == peer.id) {
            self.requests.resend();
        }
    }

    /// Members to keep: the Smap, the electorate, whoever asked to join.
    pub(super) fn sync_members(&mut self) {
        let (me, now) = (self.me.id.clone(), self.now);
        let Some(lead) = self.lead() else { return };
        let voters = quorum::names(lead.tip.electorate());
        lead.seats.retain(|id, _| voters.contains(id));
        for id in voters {
            lead.seats.entry(id).or_insert(now);
        }
        let mut wanted: BTreeMap<NodeId, VoterId> =
            lead.tip.electorate().iter().map(|v| (v.id.node.clone(), v.id.clone())).collect();
        wanted.extend(lead.tip.nodes().values().map(|n| (n.id.clone(), n.voter_id())));
        wanted.extend(lead.joins.iter().map(|(id, j)| (id.clone(), j.node.voter_id())));
        for (node, id) in lead.farewells.members() {
            wanted.entry(node).or_insert(id);
        }
        wanted.remove(&me.node);
        lead.members.retain(|node, p| wanted.get(node) == Some(&p.id));
        for (node, id) in wanted {
            lead.members.entry(node).or_insert_with(|| Progress::new(id));
        }
    }

    pub(super) fn member_views(&self) -> BTreeMap<NodeId, MemberView> {
        let Role::Leading(lead) = &self.role else {
            return BTreeMap::new();
        };
        let view = |(node, p): (&NodeId, &Progress)| {
            let kind = self.find(&p.id).map_or(ais_meta::Kind::Gateway, |v| v.kind);
            let member = MemberView {
                id: p.id.clone(),
                kind,
                voter: quorum::seats(lead.tip.electorate(), &p.id),
                connected: self.live.is_connected(&p.id),
                acked: p.acked,
                published: p.published,
                heard: p.heard,
            };
            (node.clone(), member)
        };
        let own = MemberView {
            id: self.me.id.clone(),
            kind: self.config.member.kind,
            voter: quorum::seats(lead.tip.electorate(), &self.me.id),
            connected: true,
            acked: Some(self.durable.accepted),
            published: self.published.as_ref().map(|s| s.stamp()),
            heard: Some(self.now),
        };
        lead.members.iter().map(view).chain([(self.me.id.node.clone(), own)]).collect()
    }
}
