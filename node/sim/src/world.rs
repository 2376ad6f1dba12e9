//! The world: virtual time, one queue of events, and the production core at every node.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use ais_ha::invariant::{self, Verdict, violated};
use ais_ha::{Action, Config, Discovery, Halt, Input, Message, Node, Packet, Persist, PrimaryEp, Sender, Stats};
use ais_meta::{Address, Addresses, BootId, ClusterUuid, DiskId, Kind, Node as Member, NodeId, Stamp, State, VoterId};

use crate::client::Clients;
use crate::disk::Disk;
use crate::net::{Link, Wire};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::trace::Trace;

/// Microseconds of virtual time.
pub type Micros = u64;

/// Milliseconds as microseconds.
#[must_use]
pub const fn ms(ms: u64) -> Micros {
    ms * 1000
}

/// A run takes some 10,000; far more means that a node wakes up for nothing.
const EVENTS_MAX: u64 = 500_000;

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// The node's own deadline.
    Timer { node: usize },
    /// Something for the process of this run arrives at the node.
    Arrive { node: usize, run: u64, input: Input },
    /// A dial is tried.
    Dial { from: usize, to: usize, run: u64 },
    /// A dial came through.
    Dialled { from: usize, to: usize, from_run: u64, to_run: u64 },
    /// An immediate redial of an ended connection is answered.
    Redial { from: usize, run: u64, peer: Sender },
    /// A blocked connection is given up.
    Stalled { from: usize, to: usize, gen_: u64 },
    /// A sync ends.
    Synced { node: usize, number: u64 },
    /// A client acts, or gives up waiting.
    Client { client: usize, turn: u64 },
    /// A process starts.
    Start { node: usize },
    /// The next fault.
    Fault,
    /// A fault ends.
    Mend(crate::nemesis::Mend),
}

/// A running process.
pub(crate) struct Process {
    pub(crate) core: Node,
    pub(crate) run: u64,
    pub(crate) boot: BootId,
    /// Stopped by a signal: nothing is processed, what arrives waits.
    pub(crate) paused: bool,
    inbox: VecDeque<Input>,
    timer: Option<Micros>,
    pub(crate) published: Option<Arc<State>>,
    /// Has taken the clients' and the network's first input.
    pub(crate) stopping: bool,
}

/// A machine: a name, a disk, a clock, at most one process.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) kind: Kind,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    clock_ms: u64,
    drift_ppm: i64,
    /// Whom it dials.
    pub(crate) book: Vec<usize>,
    /// Comes up for the first time at.
    pub(crate) since: Micros,
}

impl Host {
    /// Its monotonic clock.
    pub(crate) fn clock(&self, now: Micros) -> u64 {
        self.clock_ms + self.scale(now) / 1000
    }
    fn scale(&self, now: Micros) -> u64 {
        let skew = i128::from(now) * i128::from(self.drift_ppm) / 1_000_000;
        u64::try_from(i128::from(now) + skew).unwrap_or(0)
    }
    /// When its clock shows `at`, or soon after.
    fn when(&self, at: u64) -> Micros {
        let local_us = i128::from(at.saturating_sub(self.clock_ms)) * 1000;
        let real = local_us * 1_000_000 / i128::from(1_000_000 + self.drift_ppm) + 1;
        u64::try_from(real).unwrap_or(0)
    }
    pub(crate) fn voter(&self) -> VoterId {
        VoterId::new(self.id.clone(), self.disk.id)
    }
    pub(crate) fn sender(&self) -> Option<Sender> {
        self.process.as_ref().map(|p| Sender { id: self.voter(), run: p.run, boot: p.boot })
    }
    pub(crate) fn run(&self) -> Option<u64> {
        self.process.as_ref().map(|p| p.run)
    }
}

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// By [`crate::nemesis::KINDS`].
    pub faults: [u64; crate::nemesis::KINDS.len()],
    /// Summed over all processes.
    pub stats: Stats,
    /// Events processed.
    pub events: u64,
    /// Mutations that clients asked for.
    pub mutations: u64,
    /// Answered from a committed State.
    pub settled: u64,
    /// 504.
    pub unknown: u64,
    /// 503.
    pub unavailable: u64,
    /// The gateway died first, or the client gave up.
    pub abandoned: u64,
    /// Reads that were fresh.
    pub reads: u64,
    /// Hand-overs that ended well.
    pub transferred: u64,
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.faults.iter_mut().zip(other.faults) {
            *sum += count;
        }
        self.add_stats(&other.stats);
        self.events += other.events;
        self.mutations += other.mutations;
        self.settled += other.settled;
        self.unknown += other.unknown;
        self.unavailable += other.unavailable;
        self.abandoned += other.abandoned;
        self.reads += other.reads;
        self.transferred += other.transferred;
    }

    fn add_stats(&mut self, s: &Stats) {
        let t = &mut self.stats;
        t.pre_votes += s.pre_votes;
        t.elections += s.elections;
        t.wins += s.wins;
        t.commits += s.commits;
        t.settled += s.settled;
        t.lapses += s.lapses;
        t.resigns += s.resigns;
        t.adoptions += s.adoptions;
        t.voters_added += s.voters_added;
        t.voters_removed += s.voters_removed;
        t.fulls += s.fulls;
    }
}

/// Everything.
pub struct World {
    pub(crate) now: Micros,
    heap: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    slots: Vec<Option<Event>>,
    free: Vec<usize>,
    pub(crate) order: u64,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) hosts: Vec<Host>,
    pub(crate) links: Vec<Vec<Link>>,
    pub(crate) wires: Vec<Vec<Option<Wire>>>,
    pub(crate) wire_count: u64,
    pub(crate) clients: Clients,
    pub(crate) record: invariant::World,
    pub(crate) counts: Counts,
    pub(crate) trace: Trace,
    /// No more faults.
    pub(crate) calm: bool,
    pub(crate) failed: Option<invariant::Violation>,
    pub(crate) halted: Vec<usize>,
    pub(crate) transfers: Vec<(u64, ais_ha::Transferred)>,
    pub(crate) nemesis: crate::nemesis::Nemesis,
}

impl World {
    /// As the plan says; nothing runs yet.
    #[must_use]
    pub fn new(plan: Plan, show: bool) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x5eed);
        let count = plan.gateways + plan.targets;
        let mut hosts = Vec::with_capacity(count);
        for at in 0..count {
            let (kind, name) = plan.name(at);
            let id: NodeId = name.parse().expect("a generated name is a node id");
            let disk = Disk::format(DiskId(rng.bits()), plan.sync_us, plan.bytes);
            let drift = i64::try_from(rng.between(0, 2 * plan.drift_ppm)).unwrap_or(0);
            let drift_ppm = drift - i64::try_from(plan.drift_ppm).unwrap_or(0);
            let all = 0..count;
            let book = all.filter(|other| *other != at && (plan.whole_book || *other < plan.gateways)).collect();
            let (clock_ms, since) = (rng.between(1, 1_000_000), plan.starts[at]);
            hosts.push(Host { id, kind, disk, process: None, clock_ms, drift_ppm, book, since });
        }
        let links = (0..count).map(|_| (0..count).map(|_| Link::new(&plan, &mut rng)).collect()).collect();
        let mut world = Self {
            now: 0,
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            order: 0,
            clients: Clients::new(&plan),
            record: invariant::World::default(),
            counts: Counts::default(),
            trace: Trace::new(show),
            hosts,
            links,
            wires: (0..count).map(|_| (0..count).map(|_| None).collect()).collect(),
            wire_count: 0,
            calm: false,
            failed: None,
            halted: Vec::new(),
            transfers: Vec::new(),
            nemesis: crate::nemesis::Nemesis::default(),
            rng,
            plan,
        };
        for node in 0..count {
            world.at(world.hosts[node].since, Event::Start { node });
        }
        for client in 0..world.clients.len() {
            let first = world.rng.between(0, ms(2000));
            world.at(first, Event::Client { client, turn: 0 });
        }
        world
    }

    pub(crate) fn at(&mut self, when: Micros, event: Event) {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(Some(event));
        } else {
            self.slots[slot] = Some(event);
        }
        self.order += 1;
        self.heap.push(Reverse((when.max(self.now), self.order, slot)));
    }

    pub(crate) fn after(&mut self, delay: Micros, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Runs until then, or until something is violated.
    ///
    /// # Errors
    /// The violation.
    pub fn run_until(&mut self, until: Micros) -> Verdict {
        while let Some(Reverse((when, _, slot))) = self.heap.peek().copied() {
            if when > until {
                break;
            }
            self.heap.pop();
            self.now = when;
            if let Some(event) = self.slots[slot].take() {
                self.free.push(slot);
                self.counts.events += 1;
                if self.counts.events > EVENTS_MAX {
                    return violated("busy", format!("more than {EVENTS_MAX} events: something spins"));
                }
                self.happen(event)?;
            }
            if let Some(violation) = self.failed.take() {
                return Err(violation);
            }
        }
        self.now = until;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Verdict {
        match event {
            Event::Timer { node } => self.on_timer(node),
            Event::Arrive { node, run, input } => {
                if self.hosts[node].run() == Some(run) {
                    self.input(node, input);
                }
            }
            Event::Dial { from, to, run } => self.on_dial(from, to, run),
            Event::Dialled { from, to, from_run, to_run } => self.on_dialled(from, to, from_run, to_run),
            Event::Redial { from, run, peer } => self.on_redial(from, run, &peer),
            Event::Stalled { from, to, gen_ } => self.on_stalled(from, to, gen_),
            Event::Synced { node, number } => return self.on_synced(node, number),
            Event::Client { client, turn } => return self.on_client(client, turn),
            Event::Start { node } => return self.start(node),
            Event::Fault => self.on_fault(),
            Event::Mend(mend) => self.on_mend(mend),
        }
        while let Some(node) = self.halted.pop() {
            self.end_process(node);
            if self.plan.restart_stopped || self.calm {
                let delay = self.rng.between(ms(5), ms(3000));
                self.after(delay, Event::Start { node });
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = &mut self.hosts[node].process else { return };
        if process.timer != Some(now) {
            return;
        }
        process.timer = None;
        if !process.paused {
            self.step(node, Input::Tick);
        }
    }

    /// Hands an input to the node, or lets it wait while its process is paused.
    pub(crate) fn input(&mut self, node: usize, input: Input) {
        let Some(process) = &mut self.hosts[node].process else { return };
        if process.paused {
            process.inbox.push_back(input);
        } else {
            self.step(node, input);
        }
    }

    pub(crate) fn resume(&mut self, node: usize) {
        let Some(process) = &mut self.hosts[node].process else { return };
        process.paused = false;
        let waiting = std::mem::take(&mut process.inbox);
        for input in waiting {
            self.input(node, input);
        }
        self.input(node, Input::Tick);
    }

    fn step(&mut self, node: usize, input: Input) {
        if self.failed.is_some() {
            return;
        }
        self.trace.input(self.now, &self.hosts[node].id, node, &input);
        let host = &mut self.hosts[node];
        let clock = host.clock(self.now);
        let Some(process) = &mut host.process else { return };
        let actions = process.core.step(clock, input);
        for action in actions {
            if let Err(violation) = self.carry_out(node, action) {
                self.failed = Some(violation);
                return;
            }
        }
        self.arm(node);
        if let Err(violation) = self.check_leases(node) {
            self.failed = Some(violation);
        }
    }

    fn arm(&mut self, node: usize) {
        let now = self.now;
        let host = &mut self.hosts[node];
        let Some(due) = host.process.as_ref().and_then(|p| p.core.deadline()) else { return };
        let when = host.when(due).max(now + 1);
        if let Some(process) = &mut host.process
            && process.timer.is_none_or(|t| when < t)
        {
            process.timer = Some(when);
            self.at(when, Event::Timer { node });
        }
    }

    /// I9, judged whenever somebody who leads does something.
    fn check_leases(&self, node: usize) -> Verdict {
        let lease = |host: &Host| {
            let process = host.process.as_ref()?;
            process.core.lease_valid(host.clock(self.now)).map(|epoch| (host.voter(), epoch))
        };
        if lease(&self.hosts[node]).is_none() {
            return Ok(());
        }
        let holders: Vec<_> = self.hosts.iter().filter_map(lease).collect();
        invariant::i9(&holders)
    }

    fn carry_out(&mut self, node: usize, action: Action) -> Verdict {
        self.trace.action(self.now, &self.hosts[node].id, node, &action);
        match action {
            Action::Persist(persist) => return self.persist(node, persist),
            Action::Send { to, packet } => {
                self.check_said(node, &packet)?;
                if let Some(to) = self.find(&to) {
                    self.send(node, to, packet);
                }
            }
            Action::Reply { request, reply } => return self.on_reply(node, &request, &reply),
            Action::Transferred { nonce, result } => {
                self.counts.transferred += u64::from(matches!(result, ais_ha::Transferred::Done { .. }));
                self.transfers.push((nonce, result));
            }
            Action::Pulled { nonce, fresh } => return self.on_pulled(node, nonce, fresh),
            Action::Recovered { .. } => {}
            Action::Publish(state) => {
                let host = &mut self.hosts[node];
                let voter = host.voter();
                let Some(process) = &mut host.process else { return Ok(()) };
                process.published = Some(state.clone());
                let run = process.run;
                return self.record.published((voter, run), &state);
            }
            Action::RoleChanged => self.refresh_book(node),
            Action::Halt(Halt::Stopped | Halt::Shutdown | Halt::Decommissioned { .. }) => self.halted.push(node),
            Action::Halt(Halt::SetAside(why)) => {
                return violated("asserted", format!("{} is told to set its record aside: {why}", self.hosts[node].id));
            }
            Action::Halt(Halt::Broken(why)) => return violated("asserted", format!("{}: {why}", self.hosts[node].id)),
        }
        Ok(())
    }

    /// I5, I7: whatever a node says it holds is on its disk.
    fn check_said(&mut self, node: usize, packet: &Packet) -> Verdict {
        let voter = self.hosts[node].voter();
        match &packet.message {
            Message::Appended { stamp, digest, .. } => {
                self.record.acknowledged(&voter, stamp.epoch, Some((*stamp, Some(*digest))))
            }
            Message::HeartbeatAck { holds, accepted, .. } => {
                let promised = if *holds { packet.epoch } else { 0 };
                self.record.acknowledged(&voter, promised, Some((*accepted, None)))
            }
            Message::Promise { accepted } => {
                let accepted = accepted.as_ref().map(|a| (a.stamp, Some(a.digest)));
                self.record.acknowledged(&voter, packet.epoch, accepted)
            }
            Message::Append { body: ais_ha::AppendBody::Deltas(steps), .. } => {
                steps.iter().try_for_each(|d| self.record.followed(d.stamp, d.base))
            }
            Message::Prepare { .. } => self.record.acknowledged(&voter, packet.epoch, None),
            _ => Ok(()),
        }
    }

    pub(crate) fn find(&self, id: &NodeId) -> Option<usize> {
        self.hosts.iter().position(|h| h.id == *id)
    }

    /// Dials whoever the core wants and the book does not name.
    fn refresh_book(&mut self, node: usize) {
        if self.plan.whole_book {
            return;
        }
        let Some(process) = &self.hosts[node].process else { return };
        let run = process.run;
        let wanted: Vec<usize> = process.core.view().peers.keys().filter_map(|id| self.find(id)).collect();
        for peer in wanted {
            if !self.hosts[node].book.contains(&peer) {
                self.hosts[node].book.push(peer);
                self.after(0, Event::Dial { from: node, to: peer, run });
            }
        }
    }

    // ---- processes

    fn start(&mut self, node: usize) -> Verdict {
        if self.hosts[node].process.is_some() {
            return Ok(());
        }
        let boot = BootId(self.rng.bits());
        let fresh = format!("fresh-{:016x}", self.rng.bits());
        let seed = self.rng.bits();
        let host = &mut self.hosts[node];
        host.disk.run += 1;
        let run = host.disk.run;
        let at = |port| Address { host: host.id.as_str().into(), port };
        let addresses = Addresses { public: at(51080), control: at(51082), peer: at(51084) };
        let member = Member {
            id: host.id.clone(),
            disk: host.disk.id,
            run,
            kind: host.kind,
            addresses,
            flags: if self.plan.non_electable == Some(node) { ais_meta::node::flags::NON_ELECTABLE } else { 0 },
            domain: String::new(),
            extra: ais_meta::Extra::new(),
        };
        let named = |at: &usize| self.plan.name(*at).1.parse::<NodeId>();
        let primary_ep = match self.plan.primary_ep {
            Some(named) if named == node => PrimaryEp::Us,
            Some(at) => named(&at).map_or(PrimaryEp::Unknown, PrimaryEp::Peer),
            None => PrimaryEp::Unset,
        };
        let config = Config {
            member,
            boot,
            uuid: self.plan.uuid_given.then(|| "simulated-cluster".parse::<ClusterUuid>().ok()).flatten(),
            fresh_uuid: fresh.parse().expect("a generated name is a uuid"),
            seed,
            voters: self.plan.voters,
            timers: ais_ha::Timers { evict_voter_ms: self.plan.evict_voter_ms, ..ais_ha::Timers::default() },
            discovery: Discovery {
                initial_voters: self.plan.initial.iter().filter_map(|at| named(at).ok()).collect(),
                formed: false,
                primary_ep,
                standalone: self.plan.gateways == 1,
            },
            started_unix_s: 1_700_000_000,
        };
        let hard = host.disk.load().or_else(|why| violated("replay", why))?;
        let clock = host.clock(self.now);
        let core = Node::boot(config, hard, clock);
        let (inbox, timer, published) = (VecDeque::new(), None, None);
        host.process = Some(Process { core, run, boot, paused: false, inbox, timer, published, stopping: false });
        self.trace.note(self.now, &format!("{} starts, run {run}", self.hosts[node].id));
        self.input(node, Input::Tick);
        for to in self.hosts[node].book.clone() {
            let delay = self.rng.between(0, 2000);
            self.after(delay, Event::Dial { from: node, to, run });
        }
        Ok(())
    }

    /// The process is gone: the kernel ends its connections, un-synced writes may be lost.
    pub(crate) fn end_process(&mut self, node: usize) {
        let Some(sender) = self.hosts[node].sender() else { return };
        self.trace.note(self.now, &format!("{} ends", self.hosts[node].id));
        if let Some(process) = self.hosts[node].process.take() {
            self.counts.add_stats(&process.core.stats());
        }
        self.tear(node);
        self.hang_up(node, &sender);
        self.clients_lose(node);
    }

    fn tear(&mut self, node: usize) {
        let waiting = self.hosts[node].disk.queue.len();
        let (states, both) = (self.rng.between(0, waiting as u64), self.rng.bits());
        let states = usize::try_from(states).unwrap_or(0);
        let votes = usize::try_from(both % (states as u64 + 1)).unwrap_or(0);
        let queue: Vec<Persist> = std::mem::take(&mut self.hosts[node].disk.queue).into();
        self.hosts[node].disk.syncing = None;
        // A State reaches the disk before the promise that goes with it.
        if let Err(violation) = self.write_down(node, &queue[..states], votes) {
            self.failed = Some(violation);
        }
    }

    /// Adds the counters of everybody who still runs.
    pub(crate) fn count_all(&mut self) {
        for node in 0..self.hosts.len() {
            if let Some(stats) = self.hosts[node].process.as_ref().map(|p| p.core.stats()) {
                self.counts.add_stats(&stats);
            }
        }
    }

    // ---- looking

    /// Who leads, in the opinion of the one with the highest epoch.
    pub(crate) fn primary(&self) -> Option<usize> {
        let leads = |(at, h): (usize, &Host)| {
            let process = h.process.as_ref()?;
            process.core.lease_valid(h.clock(self.now)).map(|epoch| (epoch, at))
        };
        self.hosts.iter().enumerate().filter_map(leads).max().map(|(_, at)| at)
    }

    /// The newest State that this node serves.
    pub(crate) fn served(&self, node: usize) -> Option<&Arc<State>> {
        self.hosts[node].process.as_ref().and_then(|p| p.published.as_ref())
    }

    pub(crate) fn served_stamp(&self, node: usize) -> Stamp {
        self.served(node).map(|s| s.stamp()).unwrap_or_default()
    }
}
