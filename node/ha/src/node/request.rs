//! The gateway's side of clients' requests (protocol.md rules 12 and 13): parks mutations while nobody leads, sends
//! them to the primary under one id until one answers, and makes sure that a read is not older than its call.

use std::collections::BTreeMap;

use ais_meta::{Basis, Change, NodeId, RequestId, Stamp, VoterId};

use super::lead::{Asked, QUEUE_MAX};
use super::members::reaches;
use super::{Node, Role};
use crate::io::{Action, ForwardReply, Message, Millis, Reply, Sender};

/// Mutations that one gateway admits before the first of them is answered.
const PARKED_MAX: usize = 1024;
/// A forwarded mutation without an answer is sent again after this time, under the same id.
const RESEND_MS: u64 = 2000;
/// Asking a node that said it does not lead again.
const AGAIN_MS: u64 = 20;
/// How long a read waits to be made fresh.
const PULL_MS_MAX: u64 = 1000;

struct Parked {
    change: Change,
    basis: Option<Basis>,
    until: Millis,
    /// To which primary's epoch it was sent last, and when.
    sent: Option<(u64, Millis)>,
    /// It may have been proposed.
    ever_sent: bool,
    not_before: Millis,
    /// Nobody outside waits for it.
    internal: bool,
}

struct Pull {
    until: Millis,
    /// The epoch of the primary that was asked last.
    asked: Option<u64>,
    stamp: Option<Stamp>,
}

/// What this gateway waits for.
pub(super) struct Requests {
    me: VoterId,
    run: u64,
    next_seq: u64,
    park_ms: u64,
    parked: BTreeMap<RequestId, Parked>,
    /// Sequence numbers that were given out and have not come back as a proposal.
    given: std::collections::BTreeSet<u64>,
    pulls: BTreeMap<u64, Pull>,
}

impl Requests {
    pub(super) fn new(me: Sender, park_ms: u64) -> Self {
        Self {
            me: me.id,
            run: me.run,
            next_seq: 0,
            park_ms,
            parked: BTreeMap::new(),
            given: std::collections::BTreeSet::new(),
            pulls: BTreeMap::new(),
        }
    }

    pub(super) fn next_id(&mut self) -> Option<RequestId> {
        let id = (self.parked.len() + self.given.len() < PARKED_MAX).then(|| self.internal_id());
        self.given.extend(id.is_some().then_some(self.next_seq));
        id
    }

    pub(super) fn internal_id(&mut self) -> RequestId {
        self.next_seq += 1;
        RequestId::Gateway { origin: self.me.clone(), run: self.run, seq: self.next_seq }
    }

    /// The gateway waits for nothing below this.
    pub(super) fn low(&self) -> u64 {
        let own = |id: &RequestId| match id {
            RequestId::Gateway { seq, .. } => Some(*seq),
            RequestId::Client(_) => None,
        };
        let parked = self.parked.keys().find_map(own);
        parked.into_iter().chain(self.given.first().copied()).min().unwrap_or(self.next_seq + 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parked.values().all(|p| p.internal)
    }

    /// What was sent may be lost with a connection: send all again, under the same ids.
    pub(super) fn resend(&mut self) {
        for p in self.parked.values_mut() {
            p.sent = None;
        }
    }

    pub(super) fn due(&self, now: Millis) -> Option<Millis> {
        // Whoever is overdue waits for a primary, whose coming is an input and no matter of time.
        let next = |p: &Parked| {
            let again = p.sent.map_or(p.not_before, |(_, at)| at + RESEND_MS);
            if again > now { p.until.min(again) } else { p.until }
        };
        let pulls = self.pulls.values().map(|p| p.until);
        self.parked.values().map(next).chain(pulls).min()
    }
}

impl Node {
    pub(super) fn park(&mut self, request: RequestId, change: Change, basis: Option<Basis>, internal: bool) {
        if let RequestId::Gateway { seq, .. } = &request {
            self.requests.given.remove(seq);
        }
        if self.requests.parked.len() >= 2 * PARKED_MAX {
            self.actions.push(Action::Reply { request, reply: Reply::Unavailable });
            return;
        }
        let until = self.now + self.requests.park_ms;
        let parked = Parked { change, basis, until, sent: None, ever_sent: false, not_before: 0, internal };
        self.requests.parked.insert(request, parked);
    }

    /// Whom to send mutations to: the primary and its epoch, while it is not down.
    fn destination(&self) -> Option<(NodeId, u64)> {
        if let Role::Leading(lead) = &self.role {
            let open = lead.established() && lead.transfer.is_none();
            return open.then(|| (self.me.id.node.clone(), lead.epoch()));
        }
        let leader = self.leader.as_ref().filter(|l| l.established)?;
        if self.down().is_some() { None } else { Some((leader.who.id.node.clone(), leader.epoch)) }
    }

    pub(super) fn advance_requests(&mut self) {
        self.expire_requests();
        if let Some((to, epoch)) = self.destination() {
            let now = self.now;
            let low = self.requests.low();
            let due =
                |p: &Parked| now >= p.not_before && p.sent.is_none_or(|(e, at)| e != epoch || now >= at + RESEND_MS);
            let mut out = Vec::new();
            for (request, p) in self.requests.parked.iter_mut().filter(|(_, p)| due(p)) {
                (p.sent, p.ever_sent, p.not_before) = (Some((epoch, now)), true, 0);
                out.push((request.clone(), p.change.clone(), p.basis));
            }
            for (request, change, basis) in out {
                self.forward(&to, request, low, change, basis);
            }
        }
        self.advance_pulls();
    }

    fn forward(&mut self, to: &NodeId, request: RequestId, low: u64, change: Change, basis: Option<Basis>) {
        if *to == self.me.id.node {
            self.enqueue(Asked { request, low, change, basis, from: None });
            self.write_next();
        } else {
            self.tell(to, Message::Forward { request, low, change, basis });
        }
    }

    fn enqueue(&mut self, asked: Asked) {
        let open = |l: &&mut super::Lead| l.established() && l.transfer.is_none() && l.queue.len() < QUEUE_MAX;
        match self.lead().filter(open) {
            Some(lead) => lead.queue.push_back(asked),
            None => {
                let primary = self.believed_primary().filter(|v| v.id != self.me.id);
                self.answer(asked.from, asked.request, ForwardReply::NotPrimary { primary });
            }
        }
    }

    pub(super) fn on_forward(
        &mut self,
        from: Sender,
        request: RequestId,
        low: u64,
        change: Change,
        basis: Option<Basis>,
    ) {
        let leads = matches!(&self.role, Role::Leading(l) if l.established() && l.transfer.is_none());
        if !leads && matches!(change, Change::Join { .. }) {
            // An initial voter that missed the word asks to join; it does not vote, so nobody can lead before it knows.
            self.tell_formed(&from.id.node);
        }
        match change {
            Change::Join { node } if leads => self.on_join(&from, request, low, *node),
            change => {
                self.enqueue(Asked { request, low, change, basis, from: Some(from.id.node) });
                self.write_next();
            }
        }
    }

    pub(super) fn on_forwarded(&mut self, from: &Sender, request: RequestId, reply: ForwardReply) {
        if self.is_join(&request) {
            return self.on_join_reply(reply);
        }
        let now = self.now;
        let Some(parked) = self.requests.parked.get_mut(&request) else {
            return;
        };
        match reply {
            ForwardReply::Settled { outcome, stamp } => {
                let (internal, left) = (parked.internal, matches!(parked.change, Change::Leave { .. }));
                self.requests.parked.remove(&request);
                if internal && left {
                    self.on_left();
                } else if !internal {
                    self.actions.push(Action::Reply { request, reply: Reply::Settled { outcome, stamp } });
                }
            }
            ForwardReply::NotPrimary { primary } => {
                (parked.sent, parked.not_before) = (None, now + AGAIN_MS);
                if let Some(primary) = primary.filter(|p| p.id != from.id) {
                    self.hint(primary);
                }
            }
            ForwardReply::Lost => (parked.sent, parked.not_before) = (None, now + 1),
        }
    }

    /// Not proposed within the time: 503; proposed and fate unknown: 504; never mixed.
    fn expire_requests(&mut self) {
        let now = self.now;
        let over: Vec<RequestId> =
            self.requests.parked.iter().filter(|(_, p)| now >= p.until).map(|(id, _)| id.clone()).collect();
        for request in over {
            let Some(parked) = self.requests.parked.remove(&request) else {
                continue;
            };
            let reply = if parked.ever_sent { Reply::Unknown } else { Reply::Unavailable };
            if !parked.internal {
                self.actions.push(Action::Reply { request, reply });
            }
        }
    }

    // ---- reads

    pub(super) fn on_pull(&mut self, nonce: u64) {
        let until = self.now + PULL_MS_MAX;
        self.requests.pulls.insert(nonce, Pull { until, asked: None, stamp: None });
    }

    pub(super) fn on_pull_ask(&mut self, from: &Sender, nonce: u64) {
        let stamp = match &self.role {
            Role::Leading(lead) if !self.lease_lapsed() => lead.committed().map(|s| s.stamp()),
            _ => None,
        };
        self.tell(&from.id.node, Message::PullReply { nonce, stamp });
    }

    pub(super) fn on_pull_reply(&mut self, nonce: u64, stamp: Option<Stamp>) {
        if let (Some(pull), Some(stamp)) = (self.requests.pulls.get_mut(&nonce), stamp) {
            pull.stamp = Some(stamp);
        }
    }

    /// Asks whoever leads, the next primary too if it changes meanwhile.
    fn advance_pulls(&mut self) {
        let (now, destination) = (self.now, self.destination());
        let leads = matches!(self.role, Role::Leading(_)) && !self.lease_lapsed();
        let published = self.published.as_deref();
        let (mut ended, mut out) = (Vec::new(), Vec::new());
        for (nonce, pull) in &mut self.requests.pulls {
            let fresh = pull.stamp.is_some_and(|stamp| reaches(published, stamp));
            match &destination {
                _ if fresh || now >= pull.until => ended.push((*nonce, fresh)),
                Some((to, _)) if *to == self.me.id.node && leads => ended.push((*nonce, true)),
                Some((to, _)) if *to == self.me.id.node => {}
                Some((to, epoch)) if pull.stamp.is_none() && pull.asked != Some(*epoch) => {
                    pull.asked = Some(*epoch);
                    out.push((to.clone(), *nonce));
                }
                _ => {}
            }
        }
        for (to, nonce) in out {
            self.tell(&to, Message::Pull { nonce });
        }
        for (nonce, fresh) in ended {
            self.end_pull(nonce, fresh);
        }
    }

    fn end_pull(&mut self, nonce: u64, fresh: bool) {
        if self.requests.pulls.remove(&nonce).is_some() {
            self.actions.push(Action::Pulled { nonce, fresh });
        }
    }
}
