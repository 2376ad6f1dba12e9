//! The world: virtual time, one queue of events, and the production core at every node.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use ais_ha::invariant::{self, Verdict, violated};
use ais_ha::register::Term;
use ais_ha::{Action, Halt, Input, Message, Packet, Sender, Transferred};
use ais_meta::{DiskId, NodeId, Stamp, State};

use crate::client::Clients;
use crate::counts::Counts;
use crate::disk::Disk;
use crate::fault::Fault;
use crate::host::Host;
use crate::net::{Link, Wire};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::seen::Seen;
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
    /// A starved process is done with the head of its inbox.
    Work { node: usize, run: u64 },
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
    /// The next fault of the plan.
    Fault { at: usize },
    /// A part of a fault, or its end.
    Later(crate::nemesis::Later),
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
    pub(crate) admin: crate::admin::Admin,
    pub(crate) record: invariant::World,
    /// Every State once: what nodes decode for themselves is shared again, so that comparing is cheap.
    pub(crate) known: BTreeMap<Stamp, Arc<State>>,
    pub(crate) counts: Counts,
    pub(crate) trace: Trace,
    /// No more faults.
    pub(crate) calm: bool,
    pub(crate) failed: Option<invariant::Violation>,
    pub(crate) halted: Vec<usize>,
    /// Halted, and its records are not to be used again.
    pub(crate) doomed: Vec<usize>,
    pub(crate) transfers: Vec<(u64, Transferred)>,
    pub(crate) nemesis: crate::nemesis::Nemesis,
    /// What sending costs, where that is measured.
    pub(crate) uplinks: Option<crate::scale::Uplinks>,
    /// See [`EVENTS_MAX`].
    pub(crate) events_max: u64,
}

impl World {
    /// As the plan says; nothing runs yet.
    #[must_use]
    pub fn new(plan: Plan, show: bool) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x5eed);
        let count = plan.nodes();
        let hosts: Vec<Host> = (0..count).map(|at| Self::host(&plan, at, &mut rng)).collect();
        let links = (0..count).map(|_| (0..count).map(|_| Link::new(&plan, &mut rng)).collect()).collect();
        let mut world = Self {
            now: 0,
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            order: 0,
            clients: Clients::new(&plan),
            admin: crate::admin::Admin::default(),
            record: invariant::World::default(),
            known: BTreeMap::new(),
            counts: Counts::default(),
            trace: Trace::new(show),
            hosts,
            links,
            wires: (0..count).map(|_| (0..count).map(|_| None).collect()).collect(),
            wire_count: 0,
            calm: false,
            failed: None,
            halted: Vec::new(),
            doomed: Vec::new(),
            transfers: Vec::new(),
            nemesis: crate::nemesis::Nemesis::default(),
            uplinks: None,
            events_max: EVENTS_MAX,
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
        if let Some(Fault { at_us, .. }) = world.plan.faults.first() {
            world.at(*at_us, Event::Fault { at: 0 });
        }
        world
    }

    fn host(plan: &Plan, at: usize, rng: &mut Rng) -> Host {
        let (kind, name) = plan.name(at);
        let id: NodeId = name.parse().expect("a generated name is a node id");
        let disk = Disk::format(DiskId(rng.bits()), plan.sync_us, plan.bytes);
        let drift = i64::try_from(rng.between(0, 2 * plan.drift_ppm)).unwrap_or(0);
        let drift_ppm = drift - i64::try_from(plan.drift_ppm).unwrap_or(0);
        let all = 0..plan.nodes();
        let book = all.filter(|other| *other != at && (plan.whole_book || *other < plan.gateways)).collect();
        let (clock_ms, since) = (rng.between(1, 1_000_000), plan.starts[at]);
        Host { id, kind, disk, process: None, clock_ms, drift_ppm, book, since, moves: 0, away_until: 0 }
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
        self.at(self.now.saturating_add(delay), event);
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
                if self.counts.events > self.events_max {
                    return violated("busy", format!("more than {} events: something spins", self.events_max));
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
            Event::Work { node, run } => self.on_work(node, run),
            Event::Dial { from, to, run } => self.on_dial(from, to, run),
            Event::Dialled { from, to, from_run, to_run } => self.on_dialled(from, to, from_run, to_run),
            Event::Redial { from, run, peer } => self.on_redial(from, run, &peer),
            Event::Stalled { from, to, gen_ } => self.on_stalled(from, to, gen_),
            Event::Synced { node, number } => return self.on_synced(node, number),
            Event::Client { client, turn } => return self.on_client(client, turn),
            Event::Start { node } => return self.start(node),
            Event::Fault { at } => self.on_fault(at),
            Event::Later(later) => self.on_later(later),
        }
        while let Some(node) = self.doomed.pop() {
            self.set_aside(node);
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
            self.input(node, Input::Tick);
        }
    }

    /// Hands an input to the node, or lets it wait while its process is paused or slow.
    pub(crate) fn input(&mut self, node: usize, input: Input) {
        let Some(process) = &mut self.hosts[node].process else { return };
        if process.is_prompt() {
            return self.step(node, input);
        }
        process.inbox.push_back(input);
        self.work(node);
    }

    fn work(&mut self, node: usize) {
        let Some(process) = &mut self.hosts[node].process else { return };
        if !process.paused && !process.busy && !process.inbox.is_empty() {
            process.busy = true;
            let (delay, run) = (process.step_us, process.run);
            self.after(delay, Event::Work { node, run });
        }
    }

    fn on_work(&mut self, node: usize, run: u64) {
        let Some(process) = self.hosts[node].process.as_mut().filter(|p| p.run == run) else { return };
        process.busy = false;
        if process.paused {
            return;
        }
        if let Some(input) = process.inbox.pop_front() {
            self.step(node, input);
        }
        self.work(node);
    }

    pub(crate) fn resume(&mut self, node: usize) {
        let Some(process) = &mut self.hosts[node].process else { return };
        process.paused = false;
        process.inbox.push_back(Input::Tick);
        self.work(node);
    }

    fn step(&mut self, node: usize, input: Input) {
        if self.failed.is_some() {
            return;
        }
        if let Some(what) = Seen::heard(&input) {
            self.counts.saw(what);
        }
        self.trace.input(self.now, &self.hosts[node].id, node, &input);
        let host = &mut self.hosts[node];
        let clock = host.clock(self.now);
        let Some(process) = &mut host.process else { return };
        let actions = process.core.step(clock, input);
        for action in actions {
            let fatal = self.is_fatal(node, &action);
            if let Err(violation) = self.carry_out(node, action) {
                self.failed = Some(violation);
                return;
            }
            if fatal {
                return self.die(node);
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
                if let Some(what) = Seen::sent(&packet) {
                    self.counts.saw(what);
                }
                self.check_said(node, &packet)?;
                if let Some(to) = self.find(&to) {
                    self.send(node, to, packet);
                }
            }
            Action::Reply { request, reply } => {
                self.on_admin_reply(&request, &reply)?;
                return self.on_reply(node, &request, &reply);
            }
            Action::Transferred { nonce, result } => {
                if matches!(result, Transferred::Done { .. }) {
                    self.counts.saw(Seen::HandedOver);
                }
                self.transfers.push((nonce, result));
            }
            Action::Pulled { nonce, fresh } => return self.on_pulled(node, nonce, fresh),
            Action::Publish(state) => {
                let host = &mut self.hosts[node];
                let voter = host.voter();
                let Some(process) = &mut host.process else { return Ok(()) };
                process.published = Some(state.clone());
                let run = process.run;
                return self.record.published((voter, run), &state);
            }
            Action::RoleChanged => self.refresh_book(node),
            Action::Recovered { nonce, result } => return self.on_recovered(nonce, &result),
            Action::Abandoned { .. } => {}
            Action::Halt(Halt::Stopped) => self.halted.push(node),
            Action::Halt(Halt::Shutdown) => {
                self.counts.saw(Seen::Ordered);
                self.halted.push(node);
            }
            Action::Halt(Halt::Decommissioned { .. }) => {
                self.counts.saw(Seen::Ordered);
                self.doomed.push(node);
            }
            Action::Halt(Halt::SetAside(_)) => {
                self.counts.saw(Seen::SetAside);
                self.doomed.push(node);
            }
            Action::Halt(Halt::Broken(why)) => return violated("asserted", format!("{}: {why}", self.hosts[node].id)),
        }
        Ok(())
    }

    /// I5, I7: whatever a node says it holds is on its disk.
    fn check_said(&mut self, node: usize, packet: &Packet) -> Verdict {
        let voter = || self.hosts[node].voter();
        let term = Term::new(packet.incarnation, packet.epoch);
        match &packet.message {
            Message::Appended { stamp, digest, .. } => {
                self.record.acknowledged(&voter(), (*stamp).into(), Some((*stamp, Some(*digest))))
            }
            Message::HeartbeatAck { holds, accepted, .. } => {
                let promised = if *holds { term } else { Term::default() };
                self.record.acknowledged(&voter(), promised, Some((*accepted, None)))
            }
            Message::Promise { accepted } => {
                let accepted = accepted.as_ref().map(|a| (a.stamp, Some(a.digest)));
                self.record.acknowledged(&voter(), term, accepted)
            }
            Message::Append { body: ais_ha::AppendBody::Deltas(steps), .. } => {
                steps.iter().try_for_each(|d| self.record.followed(d.stamp, d.base))
            }
            Message::Prepare { .. } => self.record.acknowledged(&voter(), term, None),
            Message::Heartbeat { held, .. } => self.record.acknowledged(&voter(), term, Some((*held, None))),
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

    // ---- looking

    /// Who leads, in the opinion of the one with the highest epoch.
    pub(crate) fn primary(&self) -> Option<usize> {
        let leads = |(at, h): (usize, &Host)| {
            let process = h.process.as_ref()?;
            process.core.lease_valid(h.clock(self.now)).map(|epoch| (epoch, at))
        };
        self.hosts.iter().enumerate().filter_map(leads).max().map(|(_, at)| at)
    }

    /// Whether this node believes to lead.
    pub(crate) fn leads(&self, node: usize) -> bool {
        let host = &self.hosts[node];
        host.process.as_ref().is_some_and(|p| p.core.lease_valid(host.clock(self.now)).is_some())
    }

    /// The newest State that this node serves.
    pub(crate) fn served(&self, node: usize) -> Option<&Arc<State>> {
        self.hosts[node].process.as_ref().and_then(|p| p.published.as_ref())
    }

    pub(crate) fn served_stamp(&self, node: usize) -> Stamp {
        self.served(node).map(|s| s.stamp()).unwrap_or_default()
    }
}
