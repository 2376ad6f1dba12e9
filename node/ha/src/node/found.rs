//! Outside of a formed cluster: finding one, founding one, getting in (protocol.md sections 5 and 6).

use std::collections::BTreeMap;
use std::sync::Arc;

use ais_meta::state::Genesis as NewState;
use ais_meta::{Change, ClusterUuid, Full, NodeId, Outcome, Refusal, RequestId, Stamp, State, VoterId};

use super::handover::Watch;
use super::members::holds;
use super::{Heard, Held, Node, PEERS_MAX, Role, slot};
use crate::genesis::{self, Attempt, Founding, Genesis, Next, Offer, Seen, Start, determine_role};
use crate::io::{ForwardReply, Hello, Message, Millis, Sender, Write};
use crate::mutant::Mutant;
use crate::pacemaker::Backoff;
use crate::quorum;

/// Between two looks at what others said, while outside.
const LOOK_MS: u64 = 200;
/// Nobody else must agree when one gateway founds alone; but its disk may have been wiped, and others may hold the
/// cluster: they are heard out first.
const LISTEN_MS: u64 = 1000;
/// Between two tries after "not primary".
const REDIRECT_MS: u64 = 20;
/// Between two asks of one that may be in.
const AGAIN_MS: u64 = 200;

/// Getting into the Smap.
pub(super) struct Joining {
    request: Option<RequestId>,
    next: Millis,
    /// When it asked last.
    asked: Millis,
    backoff: Backoff,
    look: Millis,
    tried: usize,
    /// Whom somebody named as the primary: asked next, once.
    told: Option<NodeId>,
    /// Why the primary does not let this node in.
    refused: Option<String>,
    /// Since when our cluster was found and nobody knew its primary.
    alone_since: Option<Millis>,
    /// This node's State was given to it by members that had no primary, while it had no record. (A process that is
    /// started afterwards does not remember that; it finds again that nobody leads.)
    pub(super) adopted: bool,
    pub(super) watches: BTreeMap<u64, Watch>,
}

impl Joining {
    pub(super) fn new(now: Millis) -> Self {
        let backoff = Backoff::new(200, 5000);
        Self {
            request: None,
            next: now,
            asked: 0,
            backoff,
            look: now,
            tried: 0,
            told: None,
            refused: None,
            alone_since: None,
            adopted: false,
            watches: BTreeMap::new(),
        }
    }

    pub(super) fn retry_now(&mut self, now: Millis) {
        (self.next, self.look) = (now, now);
        self.backoff.reset();
    }
}

impl Node {
    pub(super) fn on_hello(&mut self, from: Sender, uuid: Option<ClusterUuid>, epoch: u64, hello: Hello) {
        if hello.stopping {
            self.live.stopping(&from);
        }
        if let Some(primary) = hello.primary.clone() {
            self.hint(primary);
        }
        let leader = self.leader.as_mut().filter(|l| l.who == from && l.epoch <= epoch && !hello.leading);
        if let Some(leader) = leader {
            leader.denied = true;
            self.reopen();
        }
        let node = from.id.node.clone();
        if hello.leading {
            // Of all that could be asked most may be waiting themselves, as after a restart of everything.
            self.join.told = Some(node.clone());
        }
        if self.hellos.len() >= PEERS_MAX && !self.hellos.contains_key(&node) {
            return;
        }
        self.hellos.insert(node.clone(), Heard { from, hello, uuid });
        self.tell_formed(&node);
        if matches!(self.role, Role::Outside) {
            self.join.look = self.now;
        }
        self.ask_soon();
    }

    /// Somebody is met, who may lead or know who does: whoever wants in asks at once. Also one that only may have left
    /// the Smap: asking in vain all through a split, it would wait for seconds after it.
    pub(super) fn ask_soon(&mut self) {
        let soon = self.now + REDIRECT_MS;
        if !self.is_in() {
            self.join.next = self.join.next.min(soon);
        } else if self.is_forgotten() {
            // There may be a thousand of these, who all meet all gateways now.
            self.join.next = self.join.next.min(soon.max(self.join.asked + AGAIN_MS));
        }
    }

    /// What others said, in sum.
    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        let over = self.genesis.ended();
        let mut formed = self.hellos.values().filter_map(|h| match &h.hello.genesis {
            // What is left of a cluster that this disk saw the end of is no cluster.
            Genesis::Formed(uuid) if Some(uuid) != over => Some(uuid),
            _ => None,
        });
        match &self.config.uuid {
            Some(ours) => {
                let (mine, other): (Vec<_>, Vec<_>) = formed.partition(|u| *u == ours);
                (seen.ours, seen.foreign) = (!mine.is_empty(), other.first().map(|u| (*u).clone()));
            }
            None => {
                let first = formed.next().cloned();
                let mixed = formed.any(|u| Some(u) != first.as_ref());
                (seen.ours, seen.foreign) = (first.is_some() && !mixed, first.filter(|_| mixed));
            }
        }
        seen
    }

    pub(super) fn start(&self) -> Start {
        if let (Some(kept), Some(given)) = (&self.remembered, &self.config.uuid)
            && kept != given
        {
            return Start::Refuse(format!(
                "the copies on the mountpaths belong to cluster {kept}, AIS_CLUSTER_UUID is {given}: correct one of them"
            ));
        }
        determine_role(&self.me.id, self.config.uuid.as_ref(), &self.genesis, &self.seen(), &self.config.discovery)
    }

    /// A node outside may be told by the cluster that it belongs to.
    pub(super) fn may_be_told(&self) -> bool {
        let refused = || matches!(self.start(), Start::Refuse(_));
        self.genesis.is_formed() || (matches!(self.role, Role::Outside) && !refused())
    }

    pub(super) fn advance_outside(&mut self) {
        if self.refused_record() {
            return;
        }
        if !matches!(self.role, Role::Outside) || self.now < self.join.look || self.stop.is_some() {
            return;
        }
        self.join.look = self.now + LOOK_MS;
        match self.start() {
            Start::Rejoin => self.role = Role::Follower,
            Start::Join => {
                let why = self.join.refused.clone().unwrap_or_else(|| "asking to join".to_owned());
                self.say_why(&why);
                self.look_for_state();
            }
            Start::Found(list) => self.found(&list),
            Start::GoOn(offer) if offer.founder == self.me.id && self.durable.genesis == self.genesis => {
                let listed = self.config.discovery.initial_voters.clone();
                let same = || offer.voters.iter().map(|v| v.node.clone()).collect();
                self.found(&if listed.is_empty() { same() } else { listed });
            }
            Start::GoOn(offer) => self.go_on(offer),
            Start::Wait(why) | Start::Refuse(why) => self.say_why(&why),
        }
    }

    /// A record of another cluster than the one that was configured: take no part at all.
    fn refused_record(&mut self) -> bool {
        let Start::Refuse(why) = self.start() else {
            return false;
        };
        if !self.genesis.is_formed() {
            return false;
        }
        self.role = Role::Outside;
        self.say_why(&why);
        true
    }

    pub(super) fn outside_due(&self) -> Option<Millis> {
        let watches = self.join.watches.values().map(Watch::until).min();
        matches!(self.role, Role::Outside).then_some(self.join.look).into_iter().chain(watches).min()
    }

    pub(super) fn say_why(&mut self, why: &str) {
        if self.reason != why {
            why.clone_into(&mut self.reason);
        }
    }

    /// Founder: waits until every initial voter is here and says "unformed", then offers; offers again when one came
    /// back with another disk, or (while nobody is bound) the list changed.
    fn found(&mut self, list: &[NodeId]) {
        let bound = |id: &VoterId| self.founding.as_ref().filter(|f| f.is_bound(id)).map(|f| f.offer.clone());
        let mut heard = BTreeMap::new();
        for (node, h) in self.hellos.iter().filter(|(_, h)| self.live.is_connected(&h.from.id)) {
            // What it said by binding is newer than its greeting.
            let said = bound(&h.from.id).map_or_else(|| h.hello.genesis.clone(), Genesis::Bound);
            heard.insert(node.clone(), (h.from.id.clone(), said));
        }
        let uuid = self.config.uuid.as_ref().unwrap_or(&self.config.fresh_uuid);
        let attempt = Attempt { me: &self.me.id, record: &self.genesis, uuid, list, heard: &heard };
        match (attempt.offer(), self.genesis.offer().cloned()) {
            (Err(why), _) => self.say_why(&why),
            (Ok(None), Some(own)) => self.go_on(own),
            (Ok(None), None) => {}
            (Ok(Some(offer)), _) if offer.voters.len() == 1 && self.now < self.alone_since + LISTEN_MS => {
                self.say_why("founding alone: listening whether a member says that the cluster is formed");
            }
            (Ok(Some(offer)), _) => {
                // On the disk before anybody hears of it: one founder disk never makes two offers of one number.
                self.founding = None;
                self.set_genesis(Genesis::Offered(offer));
                self.hold(Held::Offered);
            }
        }
    }

    fn set_genesis(&mut self, genesis: Genesis) {
        self.genesis = genesis.clone();
        self.persist(Some(genesis), None);
    }

    pub(super) fn on_offered(&mut self) {
        self.join.look = self.now;
    }

    /// The founder with its offer on disk: asks the others to bind, binds itself last, declares.
    fn go_on(&mut self, offer: Offer) {
        if self.durable.genesis != self.genesis {
            return;
        }
        if Mutant::AnyBoundFounds.on() && offer.founder != self.me.id {
            return self.declare(&offer);
        }
        if self.founding.as_ref().is_none_or(|f| f.offer != offer) {
            let mut founding = Founding::new(offer.clone());
            if matches!(self.genesis, Genesis::Bound(_)) {
                founding.bind(self.me.id.clone(), offer.number);
            }
            self.founding = Some(founding);
        }
        match self.founding.as_ref().map(Founding::next) {
            Some(Next::Ask(voters)) => {
                let names: Vec<String> = voters.iter().map(|v| v.node.to_string()).collect();
                self.say_why(&format!("founding: waiting for {} to bind", names.join(", ")));
                for voter in voters {
                    self.tell(&voter.node, Message::Offer(Box::new(offer.clone())));
                }
            }
            Some(Next::BindSelf) => {
                let number = offer.number;
                self.set_genesis(Genesis::Bound(offer));
                self.hold(Held::OwnBind(number));
                self.join.look = self.now;
            }
            Some(Next::Declare) => self.declare(&offer),
            None => {}
        }
    }

    pub(super) fn on_offer(&mut self, from: &Sender, offer: Offer) {
        if offer.founder != from.id || !matches!(self.role, Role::Outside) {
            return;
        }
        match genesis::may_bind(&self.me.id, self.config.uuid.as_ref(), &self.genesis, &offer) {
            Err(why) => self.say_why(&format!("not binding to the founding offer of {}: {why}", from.id.node)),
            Ok(()) => {
                let number = offer.number;
                if self.genesis != Genesis::Bound(offer.clone()) {
                    self.set_genesis(Genesis::Bound(offer));
                }
                self.send_durable(&from.id.node, 0, Message::Bound { offer: number });
            }
        }
    }

    pub(super) fn on_bound(&mut self, from: Sender, number: u64) {
        if let Some(founding) = &mut self.founding
            && founding.offer.voters.contains(&from.id)
        {
            founding.bind(from.id, number);
            self.join.look = self.now;
        }
    }

    /// All have bound: the founder alone declares the cluster formed, durably, and tells with State(1,1).
    fn declare(&mut self, offer: &Offer) {
        let mut nodes = Vec::with_capacity(offer.voters.len());
        for voter in &offer.voters {
            let heard = self.hellos.get(&voter.node).filter(|h| h.from.id == *voter).map(|h| h.hello.member.clone());
            let Some(member) = heard.or_else(|| self.is_me(voter).then(|| self.config.member.clone())) else {
                return self.say_why(&format!("founding: waiting for gateway {}", voter.node));
            };
            nodes.push(member);
        }
        let (uuid, founder, run) = (offer.uuid.clone(), self.me.id.clone(), self.me.run);
        let (lease_ms, created_s) = (self.config.timers.lease_ms, self.config.started_unix_s);
        let new = NewState { uuid: uuid.clone(), nodes, founder: founder.clone(), run, lease_ms, created_s };
        let state = match State::genesis(new) {
            Ok(state) => Arc::new(state),
            Err(e) => return self.broken(&format!("State(1,1) does not encode: {e}")),
        };
        if self.register.accept(&slot(&state), &founder).is_err() {
            return self.say_why("founding: this disk has promised an epoch already; it can only join");
        }
        self.accepted = Some(state.clone());
        self.become_formed(Genesis::Formed(uuid));
        self.persist(Some(self.genesis.clone()), Some(Write { state, deltas: Vec::new() }));
        self.hold(Held::Declared);
    }

    pub(super) fn on_declared(&mut self) {
        if let Some(state) = self.accepted.clone().filter(|s| s.stamp() == Stamp::new(0, 1, 1)) {
            self.propose_first(state);
            self.announce();
        }
    }

    pub(super) fn become_formed(&mut self, genesis: Genesis) {
        self.genesis = genesis;
        self.founding = None;
        self.reason.clear();
        (self.alone_since, self.fed) = (self.now, self.now);
        if matches!(self.role, Role::Outside) {
            self.role = Role::Follower;
        }
    }

    /// A bound node does not vote until it is told that the cluster is formed. The founder declared it; every member
    /// knows it from there and may pass it on, with the newest State that it has accepted: no other message than the
    /// primary's own, late. (Told by the founder alone, a voter that missed the word would stay out for good once the
    /// founder's disk is lost.)
    pub(super) fn tell_formed(&mut self, node: &NodeId) {
        let Some(state) = self.accepted.clone() else {
            return;
        };
        let heard = self.hellos.get(node).map(|h| &h.hello.genesis);
        if self.genesis.is_formed() && matches!(heard, Some(Genesis::Bound(offer)) if offer.uuid == *state.uuid()) {
            let full = Arc::new(state.full());
            self.tell(node, Message::Body { full });
        }
    }

    /// A bound node hears that the cluster of its offer is formed; or a gateway without a record, which asked because
    /// nobody leads our cluster, is given what a member has accepted.
    pub(super) fn on_told(&mut self, full: &Full) {
        let Ok(state) = State::from_full(full) else {
            return;
        };
        let bound = matches!(&self.genesis, Genesis::Bound(offer) if offer.uuid == *state.uuid());
        let adopts = !bound && self.adopts() && self.config.uuid.as_ref().is_none_or(|u| u == state.uuid());
        if !(bound || adopts) || self.register.accept(&slot(&state), state.primary()).is_err() {
            return;
        }
        self.join.adopted = adopts;
        let (uuid, state) = (state.uuid().clone(), Arc::new(state));
        self.accepted = Some(state.clone());
        self.become_formed(Genesis::Formed(uuid));
        self.persist(Some(self.genesis.clone()), Some(Write { state, deltas: Vec::new() }));
    }

    /// Section 4: members of our cluster are there and none has heard of a primary for twice `evict_smap`. Whoever may
    /// lead their State has lost its disk.
    pub(super) fn is_stranded(&self) -> bool {
        let wait_ms = 2 * self.config.timers.evict_smap_ms;
        self.join.alone_since.is_some_and(|at| self.now >= at + wait_ms)
    }

    fn note_alone(&mut self) {
        let led = self.believed_primary().is_some() || self.join.refused.is_some();
        self.join.alone_since = if led { None } else { self.join.alone_since.or(Some(self.now)) };
    }

    /// Then an electable gateway without a record may stand, so it asks for the State. (An offer of its own is none: it
    /// may have made one before it heard of the cluster.)
    fn adopts(&self) -> bool {
        let empty = !self.genesis.is_formed() && self.genesis.ended().is_none();
        empty && self.config.member.electable() && self.is_stranded()
    }

    fn look_for_state(&mut self) {
        self.note_alone();
        if !self.adopts() {
            return;
        }
        let formed = |h: &&Heard| h.hello.genesis.is_formed() && self.live.is_connected(&h.from.id);
        // The best State that was shown; whoever has it is asked.
        let best = self.hellos.values().filter(formed).max_by_key(|h| h.hello.accepted).map(|h| h.from.id.node.clone());
        if let Some(best) = best {
            self.tell(&best, Message::Fetch { stamp: Stamp::default() });
        }
    }

    // ---- joining

    /// The published Smap holds this very process.
    pub(super) fn is_in(&self) -> bool {
        self.published.as_ref().is_some_and(|s| holds(s, &self.config.member))
    }

    fn wants_in(&self) -> bool {
        let outside = matches!(self.role, Role::Outside);
        let asks = !outside || (self.start() == Start::Join);
        self.stop.is_none() && asks && (!self.is_in() || self.is_forgotten() || self.is_left_behind())
    }

    /// A learner that hears no primary may have left the Smap without having been told, and nobody dials a learner
    /// that left: the Smap that it knows is no proof of being in. Nor is its seat, for a voter, once no heartbeat came
    /// for `evict_smap`: it may have gone to somebody else meanwhile. (A probe that says "I lead" feeds nobody.)
    fn is_forgotten(&self) -> bool {
        let seated = || self.newest().is_some_and(|s| quorum::seats(s.electorate(), &self.me.id));
        self.waits() && (self.now >= self.unfed_at() || (self.down().is_some() && !seated()))
    }

    fn waits(&self) -> bool {
        matches!(self.role, Role::Follower | Role::Candidate(_)) && self.stop.is_none()
    }

    fn unfed_at(&self) -> Millis {
        self.fed + self.config.timers.evict_smap_ms
    }

    pub(super) fn join_due(&self) -> Option<Millis> {
        if self.wants_in() {
            return Some(self.join.next);
        }
        (self.waits() && self.down().is_some()).then(|| self.unfed_at()).filter(|at| *at > self.now)
    }

    /// Asks the primary, or any gateway of our cluster, which says who the primary is.
    pub(super) fn advance_join(&mut self) {
        if !self.wants_in() {
            self.join.request = None;
            return;
        }
        if self.now < self.join.next {
            return;
        }
        if self.genesis.is_formed() {
            // It may have been given its State while nobody led, and started again before it could lead.
            self.note_alone();
        }
        self.join.asked = self.now;
        self.join.next = self.now + self.join.backoff.wait_ms(&mut self.jitter);
        let low = self.requests.low();
        let request = self.requests.internal_id();
        self.join.request = Some(request.clone());
        let change = Change::Join { node: Box::new(self.config.member.clone()) };
        if let Role::Leading(lead) = &self.role {
            if lead.established() {
                // A primary whose run is newer than its Smap entry says so itself.
                self.park(request, change, None, true);
            }
            return;
        }
        if let Some(to) = self.ask_whom() {
            self.tell(&to, Message::Forward { request, low, change, basis: None });
        }
    }

    fn ask_whom(&mut self) -> Option<NodeId> {
        if let Some(primary) = self.believed_primary() {
            return Some(primary.id.node);
        }
        if let Some(told) = self.join.told.take().filter(|id| self.live.process(id).is_some()) {
            return Some(told);
        }
        let hinted = self.hints.keys().filter(|id| self.live.process(id).is_some()).cloned();
        let formed = self.hellos.iter().filter(|(_, h)| h.hello.genesis.is_formed() && h.uuid.as_ref() == self.our(h));
        let heard = formed.map(|(id, _)| id.clone()).filter(|id| self.live.process(id).is_some());
        let mut all: Vec<NodeId> = hinted.chain(heard).collect();
        all.dedup();
        self.join.tried = self.join.tried.wrapping_add(1);
        let at = self.join.tried.checked_rem(all.len())?;
        all.into_iter().nth(at)
    }

    fn our<'a>(&'a self, heard: &'a Heard) -> Option<&'a ClusterUuid> {
        self.uuid().or(heard.uuid.as_ref())
    }

    pub(super) fn is_join(&self, request: &RequestId) -> bool {
        self.join.request.as_ref() == Some(request) && !matches!(self.role, Role::Leading(_))
    }

    pub(super) fn on_join_reply(&mut self, reply: ForwardReply) {
        match reply {
            ForwardReply::Settled { outcome: Outcome::Refused(why @ Refusal::DiskLost { options, .. }), .. } => {
                self.on_lost_disk(options, &why);
            }
            ForwardReply::Settled { outcome: Outcome::Refused(Refusal::Stale), .. } => {
                // Whatever a client asked for through this node meanwhile was settled first.
                self.join.next = self.now + REDIRECT_MS;
            }
            ForwardReply::Settled { outcome: Outcome::Refused(why), .. } => {
                let why = format!("not let in: {why}");
                self.say_why(&why);
                (self.join.refused, self.join.alone_since) = (Some(why), None);
            }
            ForwardReply::Settled { outcome: Outcome::Done | Outcome::Began(_), .. } => {
                self.reason.clear();
                self.join.backoff.reset();
                (self.join.refused, self.join.alone_since) = (None, None);
            }
            ForwardReply::NotPrimary { primary: Some(primary) } => {
                self.join.alone_since = None;
                self.join.told = Some(primary.id.node.clone());
                self.hint(primary);
                self.join.next = self.now + REDIRECT_MS;
            }
            ForwardReply::NotPrimary { primary: None } | ForwardReply::Lost => {}
        }
    }
}
