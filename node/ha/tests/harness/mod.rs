//! A small deterministic world for the production core: virtual time, messages that take one millisecond, disks that
//! are instant unless held. It plays the driver's part as `io.rs` describes it.

#![allow(unreachable_pub, missing_docs)]

mod story;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use ais_ha::{
    Action, Config, Discovery, Genesis, Halt, HardState, Input, Message, Millis, Node, Packet, Persist, PrimaryEp,
    Redial, Sender, Timers,
};
use ais_meta::node::flags;
use ais_meta::{Address, Addresses, BootId, DiskId, Extra, Kind, Node as Member, NodeId, Stamp, State, VoterId, hrw};

pub use story::tell;

/// One node: its disk, and its process if it runs.
pub struct Machine {
    disk: DiskId,
    run: u64,
    boot: u64,
    hard: HardState,
    /// A copy of the volume: run, disk, record.
    copy: Option<(u64, DiskId, HardState)>,
    node: Option<Node>,
    /// Neither hears nor speaks, but its connections stay (SIGSTOP, black hole).
    frozen: bool,
    /// Persists wait.
    held: bool,
    waiting: VecDeque<Persist>,
    inbox: VecDeque<Input>,
    electable: bool,
    domain: String,
    shown: String,
}

struct Flight {
    due: Millis,
    from: Sender,
    to: String,
    packet: Box<Packet>,
}

/// All machines and what is under way between them.
pub struct World {
    pub now: Millis,
    machines: BTreeMap<String, Machine>,
    flights: VecDeque<Flight>,
    /// Things that were lost on purpose: (from, to).
    cuts: BTreeSet<(String, String)>,
    discovery: Discovery,
    uuid: String,
    timers: Timers,
    voters: usize,
    trace: bool,
    kept: Vec<(String, Packet)>,
    keep: Vec<String>,
    /// What happened since it was taken last.
    pub log: String,
    boots: u64,
    published: BTreeMap<(String, Stamp), ais_meta::Digest>,
    /// Requests that were answered, how often.
    pub replies: BTreeMap<String, Vec<String>>,
}

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn port(name: &str) -> Address {
    Address { host: name.into(), port: 1 }
}

impl World {
    pub fn new() -> Self {
        Self {
            now: 10_000,
            machines: BTreeMap::new(),
            flights: VecDeque::new(),
            cuts: BTreeSet::new(),
            discovery: Discovery::default(),
            uuid: "uuid-of-story".to_owned(),
            timers: Timers::default(),
            voters: 5,
            trace: false,
            kept: Vec::new(),
            keep: Vec::new(),
            log: String::new(),
            boots: 0,
            published: BTreeMap::new(),
            replies: BTreeMap::new(),
        }
    }

    fn say(&mut self, what: &str) {
        let at = self.now - 10_000;
        let _ = writeln!(self.log, "{at:>7} {what}");
    }

    fn machine(&mut self, name: &str) -> &mut Machine {
        let seed = hrw::digest(name) % 0xffff;
        self.machines.entry(name.to_owned()).or_insert_with(|| Machine {
            disk: DiskId(seed),
            run: 0,
            boot: 0,
            hard: HardState::default(),
            copy: None,
            node: None,
            frozen: false,
            held: false,
            waiting: VecDeque::new(),
            inbox: VecDeque::new(),
            electable: true,
            domain: String::new(),
            shown: String::new(),
        })
    }

    fn sender(&self, name: &str) -> Sender {
        let m = &self.machines[name];
        Sender { id: VoterId::new(id(name), m.disk), run: m.run, boot: BootId(m.boot) }
    }

    fn running(&self) -> Vec<String> {
        self.machines.iter().filter(|(_, m)| m.node.is_some()).map(|(n, _)| n.clone()).collect()
    }

    fn boot(&mut self, name: &str) {
        self.boots += 1;
        let (boots, discovery, timers, now) = (self.boots, self.discovery.clone(), self.timers.clone(), self.now);
        let (uuid, voters) = (self.uuid.parse().ok(), self.voters);
        let m = self.machine(name);
        assert!(m.node.is_none(), "{name} runs already");
        (m.run, m.boot, m.frozen) = (m.run + 1, boots, false);
        let member = Member {
            id: id(name),
            disk: m.disk,
            run: m.run,
            kind: if name.starts_with('t') { Kind::Target } else { Kind::Gateway },
            addresses: Addresses { public: port(name), control: port(name), peer: port(name) },
            flags: if m.electable { 0 } else { flags::NON_ELECTABLE },
            domain: m.domain.clone(),
            extra: Extra::new(),
        };
        let config = Config {
            member,
            boot: BootId(boots),
            uuid,
            fresh_uuid: "uuid-generated".parse().unwrap(),
            seed: boots,
            voters,
            timers,
            discovery,
            started_unix_s: 0,
        };
        m.node = Some(Node::boot(config, m.hard.clone(), now));
        m.inbox = VecDeque::from([Input::Tick]);
        self.drain(name);
        for other in self.running() {
            self.connect(&other, name);
            self.connect(name, &other);
        }
    }

    /// `from` opens a connection to `to`.
    fn connect(&mut self, from: &str, to: &str) {
        let cut = self.is_cut(from, to) || self.is_cut(to, from);
        if from == to || cut || self.machines[from].frozen || self.machines[to].frozen {
            return;
        }
        let peer = self.sender(to);
        self.feed(from, Input::Connected { peer });
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cuts.contains(&(from.to_owned(), to.to_owned()))
    }

    fn feed(&mut self, name: &str, input: Input) {
        let m = self.machine(name);
        if m.node.is_some() {
            m.inbox.push_back(input);
            if !m.frozen {
                self.drain(name);
            }
        }
    }

    fn drain(&mut self, name: &str) {
        let now = self.now;
        loop {
            let m = self.machine(name);
            let Some(input) = m.inbox.pop_front() else { return };
            let Some(node) = &mut m.node else { return };
            for action in node.step(now, input) {
                self.act(name, action);
            }
        }
    }

    fn act(&mut self, name: &str, action: Action) {
        match action {
            Action::Send { to, packet } => {
                let flight = Flight { due: self.now + 1, from: self.sender(name), to: to.to_string(), packet };
                self.flights.push_back(flight);
            }
            Action::Persist(persist) => {
                let m = self.machine(name);
                m.waiting.push_back(persist);
                if !m.held {
                    self.sync(name);
                }
            }
            Action::Reply { request, reply } => {
                self.replies.entry(request.to_string()).or_default().push(format!("{reply:?}"));
                self.say(&format!("{name} answers {}: {}", story::short(&request), story::reply(&reply)));
            }
            Action::Transferred { result, .. } => self.say(&format!("{name} hand-over: {result:?}")),
            Action::Pulled { fresh, .. } => self.say(&format!("{name} pulled: fresh {fresh}")),
            Action::Publish(state) => self.check_published(name, &state),
            Action::RoleChanged => self.role_changed(name),
            Action::Halt(Halt::Stopped) => {
                self.say(&format!("{name} ends"));
                self.end(name, Some(Redial::Refused));
            }
            Action::Halt(Halt::Shutdown) => {
                self.say(&format!("{name} ends as it is told"));
                self.end(name, Some(Redial::Refused));
            }
            Action::Halt(Halt::Decommissioned { ended: None, .. }) => {
                self.say(&format!("{name} ends, decommissioned"));
                self.end(name, Some(Redial::Refused));
            }
            Action::Halt(Halt::Decommissioned { ended: Some(end), .. }) => {
                self.say(&format!("{name} ends and forgets {}, which {} ended", end.uuid, end.stamp));
                self.end(name, Some(Redial::Refused));
                self.replace_disk(name, Genesis::Ended(end));
            }
            Action::Recovered { result, .. } => match result {
                Ok(stamp) => self.say(&format!("{name} recovers with {stamp}")),
                Err(why) => self.say(&format!("{name} does not recover: {why}")),
            },
            Action::Abandoned { held, by } => self.say(&format!("{name} drops {held} for {by}")),
            Action::Halt(Halt::SetAside(why)) => {
                self.say(&format!("{name} sets its record aside: {why}"));
                self.end(name, Some(Redial::Refused));
                self.replace_disk(name, Genesis::JoinOnly);
            }
            Action::Halt(Halt::Broken(what)) => panic!("{name}: {what}\n{}", self.log),
        }
    }

    fn replace_disk(&mut self, name: &str, genesis: Genesis) {
        let m = self.machine(name);
        (m.disk, m.run) = (DiskId(m.disk.0 + 0x20_0000), 0);
        m.hard = HardState { genesis, ..HardState::default() };
    }

    /// I3 and I4 as far as they show outside: one digest per published stamp.
    fn check_published(&mut self, name: &str, state: &Arc<State>) {
        let key = (state.uuid().to_string(), state.stamp());
        let known = *self.published.entry(key.clone()).or_insert(state.digest());
        assert_eq!(known, state.digest(), "{name} published another {key:?}");
    }

    /// Writes all that waits.
    fn sync(&mut self, name: &str) {
        let m = self.machine(name);
        let mut last = None;
        while let Some(p) = m.waiting.pop_front() {
            m.hard.vote = p.vote;
            if let Some(genesis) = p.genesis {
                m.hard.genesis = genesis;
            }
            if let Some(write) = p.accepted {
                if m.hard.accepted.as_ref().is_some_and(|a| a.stamp() <= p.committed) {
                    m.hard.committed = m.hard.accepted.take();
                }
                m.hard.accepted = Some(write.state);
            }
            last = Some(p.token);
        }
        if let Some(token) = last {
            self.machine(name).inbox.push_back(Input::Persisted { token, took_ms: 1 });
            if !self.machine(name).frozen {
                self.drain(name);
            }
        }
    }

    /// The process is gone; `evidence` is what a redial says.
    fn end(&mut self, name: &str, evidence: Option<Redial>) {
        let peer = self.sender(name);
        let m = self.machine(name);
        m.node = None;
        m.waiting.clear();
        m.inbox.clear();
        m.shown.clear();
        // What it sent is on the way still.
        let Some(result) = evidence else { return };
        for other in self.running() {
            if !self.is_cut(&other, name) && !self.is_cut(name, &other) {
                self.feed(&other, Input::ConnectionEnded { peer: peer.clone() });
                self.feed(&other, Input::Redialled { peer: peer.clone(), result });
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.step(end) {}
        self.now = end;
    }

    /// One event, if one is due by `end`.
    fn step(&mut self, end: Millis) -> bool {
        let flight = self.flights.front().map(|f| f.due);
        let ticks = self.machines.iter().filter(|(_, m)| !m.frozen);
        let tick = ticks.filter_map(|(n, m)| m.node.as_ref()?.deadline().map(|d| (d.max(self.now), n.clone()))).min();
        let next = flight.into_iter().chain(tick.iter().map(|(d, _)| *d)).min();
        let Some(at) = next.filter(|at| *at <= end) else { return false };
        self.now = self.now.max(at);
        if flight.is_some_and(|due| due <= at) {
            if let Some(f) = self.flights.pop_front() {
                self.arrive(f);
            }
        } else if let Some((_, name)) = tick {
            self.feed(&name, Input::Tick);
        }
        true
    }

    fn arrive(&mut self, f: Flight) {
        let from = f.from.id.node.to_string();
        let kept = self.keep.iter().any(|k| k == f.packet.message.name());
        if kept {
            self.kept.push((f.to.clone(), *f.packet));
            return;
        }
        let up = self.machines.get(&f.to).is_some_and(|m| m.node.is_some());
        if !up || self.is_cut(&from, &f.to) || self.machines[&from].frozen {
            return;
        }
        if self.trace && !matches!(f.packet.message, Message::Heartbeat { .. } | Message::HeartbeatAck { .. }) {
            let line = format!("{from} -> {}: {} e{}", f.to, f.packet.message.name(), f.packet.epoch);
            self.say(&line);
        }
        self.feed(&f.to, Input::Message(f.packet));
    }

    fn role_changed(&mut self, name: &str) {
        let Some(node) = &self.machines[name].node else { return };
        let v = node.view();
        let who = v.primary.as_ref().map_or("nobody".to_owned(), |p| p.id.node.to_string());
        let shown = format!("{name} is {}, follows {who}, epoch {}", v.role.as_str(), v.epoch);
        if self.machines[name].shown != shown {
            self.machine(name).shown.clone_from(&shown);
            self.say(&shown);
        }
    }

    /// Who leads, by its own word.
    pub fn primary(&self) -> Vec<String> {
        let leads =
            |m: &Machine| m.node.as_ref().is_some_and(|n| n.view().role == ais_ha::RoleName::Primary) && !m.frozen;
        self.machines.iter().filter(|(_, m)| leads(m)).map(|(n, _)| n.clone()).collect()
    }

    fn genesis(&self, name: &str) -> &Genesis {
        &self.machines[name].hard.genesis
    }

    fn primary_ep(&self, name: &str) -> PrimaryEp {
        PrimaryEp::Peer(id(name))
    }
}
