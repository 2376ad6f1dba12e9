//! A machine: a name, a disk, a clock, at most one process. Its start, its end.

use std::collections::VecDeque;
use std::sync::Arc;

use ais_ha::invariant::{Verdict, violated};
use ais_ha::{Config, Discovery, Input, Node, Persist, PrimaryEp, Sender, Timers};
use ais_meta::{Address, Addresses, BootId, ClusterUuid, Kind, Node as Member, NodeId, State, VoterId};

use crate::disk::Disk;
use crate::plan::Plan;
use crate::seen::Seen;
use crate::world::{Event, Micros, World};

/// A clock that is further off than this when a run ends has drifted: over a minute or more, by up to 0.5 or 3 %.
const DRIFTED_MS: u64 = 100;

/// A running process.
pub(crate) struct Process {
    pub(crate) core: Node,
    pub(crate) run: u64,
    pub(crate) boot: BootId,
    /// Stopped by a signal: nothing is processed, what arrives waits.
    pub(crate) paused: bool,
    /// Every input takes so long, when not 0.
    pub(crate) step_us: Micros,
    /// What waits while the process is paused or busy.
    pub(crate) inbox: VecDeque<Input>,
    /// The head of the inbox is being worked on.
    pub(crate) busy: bool,
    pub(crate) timer: Option<Micros>,
    pub(crate) published: Option<Arc<State>>,
    /// Has taken the clients' and the network's first input.
    pub(crate) stopping: bool,
}

impl Process {
    /// The process takes what arrives at once.
    pub(crate) fn is_prompt(&self) -> bool {
        !self.paused && self.step_us == 0 && self.inbox.is_empty()
    }
}

/// A machine.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) kind: Kind,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    pub(crate) clock_ms: u64,
    pub(crate) drift_ppm: i64,
    /// Whom it dials.
    pub(crate) book: Vec<usize>,
    /// Comes up for the first time at.
    pub(crate) since: Micros,
    /// Raised when it gets another address.
    pub(crate) moves: u64,
    /// Stays down until then.
    pub(crate) away_until: Micros,
}

impl Host {
    /// Its monotonic clock.
    pub(crate) fn clock(&self, now: Micros) -> u64 {
        self.clock_ms + self.scale(now) / 1000
    }

    fn scale(&self, now: Micros) -> u64 {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        // Parts per million of a run of minutes: far from any bound.
        u64::try_from(now.saturating_add(now.saturating_mul(self.drift_ppm) / 1_000_000)).unwrap_or(0)
    }

    /// When its clock shows `at`, or soon after.
    pub(crate) fn when(&self, at: u64) -> Micros {
        let local_us = at.saturating_sub(self.clock_ms).saturating_mul(1000);
        let rate = u64::try_from(1_000_000 + self.drift_ppm).unwrap_or(1_000_000);
        (local_us / rate).saturating_mul(1_000_000) + (local_us % rate) * 1_000_000 / rate + 1
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

    fn member(&self, plan: &Plan, node: usize, run: u64) -> Member {
        let name = if self.moves == 0 { self.id.to_string() } else { format!("{}-{}", self.id, self.moves) };
        let at = |port| Address { host: name.as_str().into(), port };
        Member {
            id: self.id.clone(),
            disk: self.disk.id,
            run,
            kind: self.kind,
            addresses: Addresses { public: at(51080), control: at(51082), peer: at(51084) },
            flags: if plan.non_electable == Some(node) { ais_meta::node::flags::NON_ELECTABLE } else { 0 },
            domain: String::new(),
            extra: ais_meta::Extra::new(),
        }
    }
}

fn discovery(plan: &Plan, node: usize, formed: bool) -> Discovery {
    let named = |at: &usize| plan.name(*at).1.parse::<NodeId>();
    let primary_ep = match plan.primary_ep {
        Some(named) if named == node => PrimaryEp::Us,
        Some(at) => named(&at).map_or(PrimaryEp::Unknown, PrimaryEp::Peer),
        None => PrimaryEp::Unset,
    };
    Discovery {
        initial_voters: plan.initial.iter().filter_map(|at| named(at).ok()).collect(),
        formed,
        primary_ep,
        standalone: plan.gateways == 1,
    }
}

impl World {
    pub(crate) fn start(&mut self, node: usize) -> Verdict {
        let now = self.now;
        let host = &self.hosts[node];
        if host.process.is_some() || host.disk.dead {
            return Ok(());
        }
        if host.away_until > now && !self.calm {
            self.at(host.away_until, Event::Start { node });
            return Ok(());
        }
        let boot = BootId(self.rng.bits());
        let fresh = format!("fresh-{:016x}", self.rng.bits());
        let seed = self.rng.bits();
        // A wall clock that is years off, another way at each start.
        let skew_s =
            if self.plan.wall_steps { i64::try_from(seed % 400_000_000).unwrap_or(0) - 200_000_000 } else { 0 };
        let host = &mut self.hosts[node];
        host.disk.run += 1;
        let run = host.disk.run;
        let mut timers = Timers { evict_voter_ms: self.plan.evict_voter_ms, ..Timers::default() };
        timers.lease_ms = self.plan.leases_ms.get(node).copied().unwrap_or(timers.lease_ms);
        let config = Config {
            member: host.member(&self.plan, node, run),
            boot,
            uuid: self.plan.uuid_given.then(|| "simulated-cluster".parse::<ClusterUuid>().ok()).flatten(),
            fresh_uuid: fresh.parse().expect("a generated name is a uuid"),
            seed,
            voters: self.plan.voters,
            timers,
            discovery: discovery(&self.plan, node, self.nemesis.formed_told),
            started_unix_s: 1_700_000_000 + skew_s,
        };
        let hard = host.disk.load().or_else(|why| violated("replay", why))?;
        let clock = host.clock(now);
        let core = Node::boot(config, hard, clock);
        let inbox = VecDeque::new();
        let (timer, published, busy) = (None, None, false);
        let (paused, stopping, step_us) = (false, false, 0);
        host.process = Some(Process { core, run, boot, paused, step_us, inbox, busy, timer, published, stopping });
        self.trace.note(now, || format!("{} starts, run {run}", self.hosts[node].id));
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
        self.trace.note(self.now, || format!("{} ends", self.hosts[node].id));
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
        // A disk that hangs lets nothing through any more.
        let (states, votes) = if self.hosts[node].disk.dead { (0, 0) } else { (states, votes) };
        if states < waiting {
            self.counts.saw(Seen::Unsynced);
        }
        // A State reaches the disk before the promise that goes with it.
        if let Err(violation) = self.write_down(node, &queue[..states], votes) {
            self.failed = Some(violation);
        }
    }

    /// Adds the counters of everybody who still runs, and what became of the clocks.
    pub(crate) fn count_all(&mut self) {
        for node in 0..self.hosts.len() {
            let host = &self.hosts[node];
            if (host.clock(self.now) - host.clock_ms).abs_diff(self.now / 1000) > DRIFTED_MS {
                self.counts.saw(Seen::Drift);
            }
            if let Some(stats) = self.hosts[node].process.as_ref().map(|p| p.core.stats()) {
                self.counts.add_stats(&stats);
            }
        }
    }
}
