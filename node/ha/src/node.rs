//! One member: takes inputs, gives actions. This file holds what a member is and dispatches; what it does is beside:
//!
//! | file | does |
//! |---|---|
//! | `found.rs` | bootstrap, founding, joining |
//! | `follow.rs` | hears a primary, promises, accepts, publishes |
//! | `elect.rs` | stands as a candidate |
//! | `lead.rs` | writes States, as primary |
//! | `lease.rs` | knows how long it may act, as primary |
//! | `members.rs` | who is in the Smap, as primary |
//! | `seats.rs` | who votes, as primary |
//! | `handover.rs` | gives the lead away, stops |
//! | `replicate.rs` | brings members up to date, as primary |
//! | `recover.rs` | goes on after a lost majority; incarnations |
//! | `remember.rs` | what other disks were shown to hold; copies of a state directory outside of it |
//! | `receive.rs` | fences what others say, and dispatches it |
//! | `recent.rs` | keeps the newest steps, to bring others up to date |
//! | `request.rs` | carries clients' mutations to the primary, as gateway |
//! | `transactions.rs` | finishes membership transactions, as primary; obeys them |

mod elect;
mod follow;
mod found;
mod handover;
mod lead;
mod lease;
mod members;
mod receive;
mod recent;
mod recover;
mod remember;
mod replicate;
mod request;
mod seats;
mod transactions;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ais_meta::{ClusterUuid, NodeId, RequestId, Stamp, State, Voter, VoterId};

use crate::genesis::{Founding, Genesis};
use crate::io::{
    Accepted, Action, Config, Halt, HardState, Hello, Input, Message, Millis, Packet, Persist, Sender, Token, Vote,
    Write,
};
use crate::pacemaker::{Backoff, Jitter, Lease, Liveness, Returns};
use crate::quorum;
use crate::register::{Register, Slot, Term};
use elect::Candidacy;
use lead::Lead;

/// Counters for metrics and for the simulator's coverage floors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pre-vote rounds started.
    pub pre_votes: u64,
    /// Prepares sent.
    pub elections: u64,
    /// First States committed.
    pub wins: u64,
    /// States committed while leading.
    pub commits: u64,
    /// Mutations settled while leading.
    pub settled: u64,
    /// Times the lease lapsed.
    pub lapses: u64,
    /// Hand-overs started as primary.
    pub resigns: u64,
    /// States adopted that were newer than our own.
    pub adoptions: u64,
    /// Voters added.
    pub voters_added: u64,
    /// Voters removed.
    pub voters_removed: u64,
    /// Whole States sent because a base was missing.
    pub fulls: u64,
    /// Membership transactions finished.
    pub transactions: u64,
    /// Milliseconds from noticing that the primary is down to our first committed State, last time.
    pub last_failover_ms: u64,
    /// Accepted States that were dropped for a recovered line (protocol.md section 4).
    pub abandoned: u64,
}

/// The primary as a member knows it.
#[derive(Clone, Debug)]
struct Leader {
    who: Sender,
    epoch: u64,
    heard: Millis,
    /// Its first State is committed, so mutations may be sent to it.
    established: bool,
    /// It gave the epoch up, in favour of.
    resigned: Option<Option<VoterId>>,
    /// Its own process says that it does not lead this epoch.
    denied: bool,
}

enum Role {
    /// Not of a formed cluster.
    Outside,
    /// Follows or waits for somebody to follow.
    Follower,
    /// Asks for votes.
    Candidate(Box<Candidacy>),
    /// Won its election; writes.
    Leading(Box<Lead>),
}

/// Other nodes of which something is remembered that no State says; as many as a Smap may hold.
const PEERS_MAX: usize = 4096;

/// What waits for a persist.
enum Held {
    Send(NodeId, Box<Packet>),
    OwnPromise(u64),
    OwnAccept(Stamp),
    OwnBind(u64),
    Declared,
    Offered,
}

/// What the disk is known to hold.
#[derive(Default)]
struct Durable {
    token: Token,
    promised: Term,
    voted_for: Option<VoterId>,
    accepted: Stamp,
    genesis: Genesis,
}

/// What a process said of itself, and when.
struct Heard {
    from: Sender,
    hello: Hello,
    uuid: Option<ClusterUuid>,
}

/// A member.
pub struct Node {
    config: Config,
    me: Sender,
    now: Millis,
    /// When it was booted.
    began: Millis,
    jitter: Jitter,
    actions: Vec<Action>,

    register: Register,
    genesis: Genesis,
    accepted: Option<Arc<State>>,
    published: Option<Arc<State>>,
    recent: recent::Recent,
    /// The highest incarnation that is known of; the register's own is never above it.
    incarnation: u32,
    /// The highest epoch of it that was seen.
    epoch_seen: u64,

    next_token: Token,
    pending: VecDeque<(Token, Millis, Vote, Stamp, Genesis)>,
    held: VecDeque<(Token, Held)>,
    durable: Durable,
    disk_ok: bool,
    sync_ms: u64,

    live: Liveness,
    returns: Returns,
    hellos: BTreeMap<NodeId, Heard>,
    hints: BTreeMap<NodeId, Voter>,
    lease: Lease,
    promised_at: Option<Millis>,
    leader: Option<Leader>,
    alone_since: Millis,
    /// When a primary fed this node last: a heartbeat or a State.
    fed: Millis,
    heard_commit: Stamp,
    down_since: Option<Millis>,

    role: Role,
    not_before: Millis,
    lost: Backoff,

    founding: Option<Founding>,
    reason: String,
    join: found::Joining,
    requests: request::Requests,
    stop: Option<handover::Stop>,
    winding_down: transactions::WindingDown,
    /// The administrator's call that waits for the other survivors.
    asked: Option<recover::Asked>,
    /// The administrator's call that waits for the first State of the new incarnation.
    recovery: Option<u64>,
    /// The cluster that copies outside of the state directory name.
    remembered: Option<ClusterUuid>,
    memory: remember::Memory,
    halted: bool,
    stats: Stats,
    shown: Option<(crate::io::RoleName, Option<VoterId>, u64, String)>,
}

pub(crate) fn slot(state: &State) -> Slot {
    Slot { stamp: state.stamp(), digest: state.digest(), voters: quorum::names(state.electorate()) }
}

impl Node {
    /// A member as its disk remembers it. Step it once with [`Input::Tick`] right away.
    #[must_use]
    pub fn boot(mut config: Config, hard: HardState, now: Millis) -> Self {
        // Timers are no matter of safety (a primary says in its States how long a lease it counts): a State that was only
        // accepted will do, and in a quiet cluster the newest one is not known to be committed on this disk.
        if let Some(state) = hard.accepted.as_ref().or(hard.committed.as_ref()) {
            config.timers = config.timers.under(state.config());
        }
        let me = Sender { id: config.member.voter_id(), run: config.member.run, boot: config.boot };
        let accepted = hard.accepted.as_ref().map(|s| (slot(s), s.primary().clone()));
        let committed = hard.committed.as_ref().map(|s| s.stamp()).unwrap_or_default();
        let promised = Term::new(hard.vote.incarnation, hard.vote.promised);
        let register = Register::load(promised, hard.vote.voted_for, accepted, committed);
        let durable = Durable {
            token: 0,
            promised: register.promised(),
            voted_for: register.voted_for().cloned(),
            accepted: hard.accepted.as_ref().map(|s| s.stamp()).unwrap_or_default(),
            genesis: hard.genesis.clone(),
        };
        let mut lease = Lease { epoch: register.promised().epoch, ..Lease::default() };
        if let Some(holder) = register.voted_for().filter(|v| **v != me.id) {
            // Heartbeats are forgotten over a restart: wait one lease, as if one had come just now (rule 8).
            let theirs = hard.accepted.as_ref().filter(|s| s.primary() == holder).map(|s| s.head());
            let lease_ms = config.timers.lease_under(theirs);
            let run = theirs.map(|head| head.run);
            lease = Lease { holder: Some(holder.clone()), run, until: now.saturating_add(lease_ms), ..lease };
        }
        let role = if hard.genesis.is_formed() { Role::Follower } else { Role::Outside };
        Self {
            jitter: Jitter::new(config.seed),
            epoch_seen: register.promised().epoch,
            incarnation: register.promised().incarnation,
            requests: request::Requests::new(me.clone(), config.timers.park_ms),
            published: None,
            recent: recent::Recent::default(),
            accepted: hard.accepted,
            genesis: hard.genesis,
            register,
            durable,
            lease,
            role,
            me,
            now,
            began: now,
            actions: hard.committed.map(Action::Publish).into_iter().collect(),
            next_token: 1,
            pending: VecDeque::new(),
            held: VecDeque::new(),
            disk_ok: true,
            sync_ms: 0,
            live: Liveness::default(),
            returns: Returns::default(),
            hellos: BTreeMap::new(),
            hints: BTreeMap::new(),
            promised_at: None,
            leader: None,
            alone_since: now,
            fed: now,
            heard_commit: Stamp::default(),
            down_since: None,
            not_before: 0,
            lost: Backoff::new(100, 2000),
            founding: None,
            reason: String::new(),
            join: found::Joining::new(now),
            stop: None,
            winding_down: transactions::WindingDown::default(),
            asked: None,
            recovery: None,
            remembered: None,
            memory: remember::Memory::default(),
            halted: false,
            stats: Stats::default(),
            shown: None,
            config,
        }
        .with_published()
        .with_remembered(hard.remembered)
    }

    fn with_published(mut self) -> Self {
        if let Some(Action::Publish(state)) = self.actions.first() {
            self.published = Some(state.clone());
        }
        self
    }

    /// Takes one input at the driver's time. The actions are to be carried out in order.
    #[must_use]
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Action> {
        self.now = self.now.max(now);
        if !self.halted {
            self.input(input);
            self.advance();
            self.notice();
        }
        std::mem::take(&mut self.actions)
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Tick => {}
            Input::Message(packet) => self.receive(*packet),
            Input::Connected { peer } => self.on_connected(&peer),
            Input::ConnectionEnded { peer } => {
                let evidence = self.live.ended(&peer, self.now);
                self.on_evidence(&peer, evidence);
            }
            Input::Redialled { peer, result } => {
                let evidence = self.live.redialled(&peer, result);
                self.on_evidence(&peer, evidence);
            }
            Input::Persisted { token, took_ms } => self.on_persisted(token, took_ms),
            Input::PersistFailed { why } => self.on_persist_failed(why),
            Input::Propose { request, change, basis } => self.park(request, change, basis, false),
            Input::Transfer { nonce, to, expected_primary, expected_epoch } => {
                self.on_transfer(nonce, to, expected_primary, expected_epoch);
            }
            Input::Pull { nonce } => self.on_pull(nonce),
            Input::Recover { nonce, stamp } => self.on_recover(nonce, stamp),
            Input::Discovery(discovery) => {
                self.config.discovery = discovery;
                self.join.retry_now(self.now);
            }
            Input::Stop => self.on_stop(),
        }
    }

    /// Whatever time or the last input made due.
    fn advance(&mut self) {
        self.obey();
        if self.halted {
            return;
        }
        self.advance_outside();
        self.advance_join();
        self.advance_leader();
        self.advance_candidate();
        self.advance_recovery();
        self.advance_lead();
        self.advance_requests();
        self.advance_stop();
    }

    /// When the next [`Input::Tick`] is wanted.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        if self.halted {
            return None;
        }
        let due = [
            self.outside_due(),
            self.join_due(),
            self.leader_due(),
            self.candidate_due(),
            self.recovery_due(),
            self.lead_due(),
            self.requests.due(self.now),
            self.stop.as_ref().map(handover::Stop::due),
            self.farewell_due(),
        ];
        due.into_iter().flatten().min().map(|at| at.max(self.now + 1))
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The id of the next mutation that this gateway admits. `None`: too many wait already, answer 503.
    pub fn request_id(&mut self) -> Option<RequestId> {
        self.requests.next_id()
    }

    // ---- identity

    fn uuid(&self) -> Option<&ClusterUuid> {
        match &self.genesis {
            Genesis::Formed(uuid) => Some(uuid),
            _ => self.config.uuid.as_ref(),
        }
    }

    fn is_me(&self, id: &VoterId) -> bool {
        *id == self.me.id
    }

    /// The newest State known here, committed or not.
    fn newest(&self) -> Option<&Arc<State>> {
        self.accepted.as_ref().or(self.published.as_ref())
    }

    fn accepted_meta(&self) -> Option<Accepted> {
        self.accepted.as_ref().map(|s| Accepted {
            stamp: s.stamp(),
            digest: s.digest(),
            electorate: s.electorate().clone(),
        })
    }

    /// Deadline of a step that waits for others' disks.
    fn step_ms(&self) -> u64 {
        (4 * self.sync_ms).max(500)
    }

    // ---- sending

    fn packet(&self, epoch: u64, message: Message) -> Box<Packet> {
        let uuid = self.uuid().cloned();
        Box::new(Packet { uuid, incarnation: self.incarnation, epoch, from: self.me.clone(), message })
    }

    fn send(&mut self, to: &NodeId, epoch: u64, message: Message) {
        if self.is_recovery_secret() {
            return;
        }
        let packet = self.packet(epoch, message);
        self.actions.push(Action::Send { to: to.clone(), packet });
    }

    fn tell(&mut self, to: &NodeId, message: Message) {
        self.send(to, self.promised_epoch(), message);
    }

    /// Sends once everything that was handed to the disk so far is durable.
    fn send_durable(&mut self, to: &NodeId, epoch: u64, message: Message) {
        let packet = self.packet(epoch, message);
        self.hold(Held::Send(to.clone(), packet));
    }

    // ---- disk

    fn persist(&mut self, genesis: Option<Genesis>, accepted: Option<Write>) {
        let token = self.next_token;
        self.next_token += 1;
        let Term { incarnation, epoch: promised } = self.register.promised();
        let vote = Vote { incarnation, promised, voted_for: self.register.voted_for().cloned() };
        let stamp = self.accepted.as_ref().map(|s| s.stamp()).unwrap_or_default();
        self.pending.push_back((token, self.now, vote.clone(), stamp, self.genesis.clone()));
        let committed = self.register.committed();
        self.actions.push(Action::Persist(Persist { token, vote, genesis, accepted, committed }));
    }

    fn hold(&mut self, what: Held) {
        let token = self.next_token - 1;
        if token <= self.durable.token {
            self.let_go(what);
        } else {
            self.held.push_back((token, what));
        }
    }

    fn let_go(&mut self, what: Held) {
        match what {
            Held::Send(to, packet) => self.actions.push(Action::Send { to, packet }),
            Held::OwnPromise(epoch) => self.on_own_promise(epoch),
            Held::OwnAccept(stamp) => self.on_own_accept(stamp),
            Held::OwnBind(number) => self.on_own_bind(number),
            Held::Declared => self.on_declared(),
            Held::Offered => self.on_offered(),
        }
    }

    fn on_persisted(&mut self, token: Token, took_ms: u64) {
        if !self.disk_ok {
            self.disk_ok = true;
            self.reason.clear();
        }
        self.sync_ms = took_ms;
        while let Some((t, ..)) = self.pending.front()
            && *t <= token
        {
            let Some((t, _, vote, accepted, genesis)) = self.pending.pop_front() else {
                break;
            };
            let promised = Term::new(vote.incarnation, vote.promised);
            if promised < self.durable.promised || accepted < self.durable.accepted {
                return self.broken("I2: a later record holds less than an earlier one");
            }
            self.durable = Durable { token: t, promised, voted_for: vote.voted_for, accepted, genesis };
        }
        while let Some((t, _)) = self.held.front()
            && *t <= self.durable.token
        {
            if let Some((_, what)) = self.held.pop_front() {
                self.let_go(what);
            }
        }
    }

    fn on_persist_failed(&mut self, why: String) {
        self.disk_ok = false;
        self.reason = format!("cannot write the state directory: {why}");
        self.give_up_lead();
    }

    /// Since when the oldest unfinished persist waits.
    fn persist_age_ms(&self) -> u64 {
        self.pending.front().map_or(0, |(_, at, ..)| self.now.saturating_sub(*at))
    }

    /// An invariant does not hold: nothing that this process says can be trusted any more.
    fn broken(&mut self, what: &str) {
        self.halted = true;
        self.actions.push(Action::Halt(Halt::Broken(what.to_owned())));
    }
}
