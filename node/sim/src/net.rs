//! The network as the daemon's transport shows it: every process dials every other and sends on what it dialled.
//! A process that dies is seen; a cut is silence.

use ais_ha::{Input, Packet, Redial, Sender};

use crate::plan::Plan;
use crate::rng::Rng;
use crate::seen::Seen;
use crate::world::{Event, Micros, World, ms};

/// How long a dial waits for an answer.
const CONNECT: Micros = ms(300);

/// One direction between two machines.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// How many faults cut it.
    pub(crate) cuts: u32,
    latency: (Micros, Micros),
}

impl Link {
    pub(crate) fn new(plan: &Plan, rng: &mut Rng) -> Self {
        let (low, high) = plan.latency_us;
        Self { cuts: 0, latency: (low, rng.between(low, high)) }
    }
}

/// A dialled connection: control and bulk beside each other, each in order.
#[derive(Debug)]
pub(crate) struct Wire {
    number: u64,
    to: Sender,
    last: [Micros; 2],
    #[expect(clippy::vec_box, reason = "they come and go as boxes")]
    held: Vec<Box<Packet>>,
}

impl World {
    fn latency(&mut self, from: usize, to: usize) -> Micros {
        let (low, high) = self.links[from][to].latency;
        let usual = self.rng.between(low, high);
        if self.plan.spikes && !self.calm && self.rng.chance(3) { usual + self.rng.between(0, ms(200)) } else { usual }
    }

    pub(crate) fn open(&self, from: usize, to: usize) -> bool {
        self.links[from][to].cuts == 0
    }

    fn both_ways(&self, a: usize, b: usize) -> bool {
        self.open(a, b) && self.open(b, a)
    }

    fn paused(&self, node: usize) -> bool {
        self.hosts[node].process.as_ref().is_some_and(|p| p.paused)
    }

    /// Sends on the connection that `from` dialled, if there is one.
    pub(crate) fn send(&mut self, from: usize, to: usize, packet: Box<Packet>) {
        let Some(wire) = &self.wires[from][to] else { return };
        let stale = self.hosts[to].sender().as_ref() != Some(&wire.to);
        if stale && self.both_ways(from, to) {
            // The other end does not know this connection: reset.
            let peer = wire.to.clone();
            self.wires[from][to] = None;
            return self.ended(from, to, peer);
        }
        if stale {
            return;
        }
        if !self.open(from, to) {
            if let Some(wire) = &mut self.wires[from][to]
                && wire.held.len() < 64
            {
                wire.held.push(packet);
            }
            return;
        }
        // A stream does not lose its beginning; what is lost stands for what a bounded queue dropped.
        let hello = matches!(packet.message, ais_ha::Message::Hello(_));
        if !self.calm && !hello && self.rng.chance(self.plan.loss) {
            return self.counts.saw(Seen::LostPacket);
        }
        let twice = !self.calm && self.rng.chance(self.plan.duplicates);
        let copy = twice.then(|| packet.clone());
        self.carry(from, to, packet);
        if let (Some(copy), Some(run)) = (copy, self.hosts[to].run()) {
            self.counts.saw(Seen::Duplicate);
            let late = self.latency(from, to) + self.rng.between(0, ms(400));
            self.after(late, Event::Arrive { node: to, run, input: Input::Message(copy) });
        }
    }

    fn carry(&mut self, from: usize, to: usize, packet: Box<Packet>) {
        let class = usize::from(packet.message.is_bulk());
        let now = self.now;
        let out = self.uplinks.as_mut().map_or(0, |u| u.send(from, now, &packet));
        let arrives = now + out + self.latency(from, to);
        let Some(wire) = &mut self.wires[from][to] else { return };
        let arrives = arrives.max(wire.last[class] + 1);
        wire.last[class] = arrives;
        let run = wire.to.run;
        self.at(arrives, Event::Arrive { node: to, run, input: Input::Message(packet) });
    }

    /// The end of a connection with `peer` becomes known to `node`, which redials at once.
    fn ended(&mut self, node: usize, peer_at: usize, peer: Sender) {
        let Some(run) = self.hosts[node].run() else { return };
        let last = self.wires[peer_at][node].as_ref().map_or(0, |w| w.last[0] + 1);
        let seen = (self.now + self.latency(peer_at, node)).max(last);
        self.at(seen, Event::Arrive { node, run, input: Input::ConnectionEnded { peer: peer.clone() } });
        let answered = seen + self.rng.between(0, ms(2)) + self.latency(node, peer_at) + self.latency(peer_at, node);
        let lost = !self.both_ways(node, peer_at) || self.paused(peer_at);
        self.at(if lost { seen + CONNECT } else { answered }, Event::Redial { from: node, run, peer });
    }

    /// A process ended: its connections do, both those it dialled and those it accepted.
    pub(crate) fn hang_up(&mut self, node: usize, sender: &Sender) {
        for other in 0..self.hosts.len() {
            if other == node {
                continue;
            }
            let accepted = self.wires[other][node].as_ref().is_some_and(|w| w.to == *sender);
            let dialled = self.wires[node][other].is_some();
            if self.open(node, other) {
                if accepted {
                    self.ended(other, node, sender.clone());
                    self.wires[other][node] = None;
                }
                if dialled {
                    self.ended(other, node, sender.clone());
                }
            }
            self.wires[node][other] = None;
        }
    }

    /// A connection is reset although both processes live.
    pub(crate) fn reset(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            if self.wires[from][to].take().is_some()
                && let (Some(one), Some(other)) = (self.hosts[from].sender(), self.hosts[to].sender())
            {
                self.ended(from, to, other);
                self.ended(to, from, one);
            }
        }
    }

    pub(crate) fn on_redial(&mut self, from: usize, run: u64, peer: &Sender) {
        if self.hosts[from].run() != Some(run) {
            return;
        }
        let Some(to) = self.find(&peer.id.node) else { return };
        let there = self.hosts[to].sender();
        let result = if !self.both_ways(from, to) || self.paused(to) {
            Redial::Unknown
        } else {
            match &there {
                None => Redial::Refused,
                Some(now) if now == peer => Redial::SameBoot,
                Some(now) if now.id == peer.id => Redial::OtherBoot,
                Some(_) => Redial::Unknown,
            }
        };
        self.input(from, Input::Redialled { peer: peer.clone(), result });
        match there {
            Some(there) if self.both_ways(from, to) && !self.paused(to) => {
                // What answered is kept as the new connection, also where an older one stands.
                self.wires[from][to] = None;
                self.on_dialled(from, to, run, there.run);
            }
            _ => self.retry(from, to, run),
        }
    }

    fn retry(&mut self, from: usize, to: usize, run: u64) {
        let delay = self.rng.between(ms(100), ms(600));
        self.after(delay, Event::Dial { from, to, run });
    }

    pub(crate) fn on_dial(&mut self, from: usize, to: usize, run: u64) {
        if self.hosts[from].run() != Some(run) {
            return;
        }
        let there = self.hosts[to].sender();
        if self.wires[from][to].as_ref().is_some_and(|w| Some(&w.to) == there.as_ref()) {
            return;
        }
        if self.paused(from) || self.paused(to) || !self.both_ways(from, to) {
            return self.after(CONNECT + ms(100), Event::Dial { from, to, run });
        }
        match self.hosts[to].run() {
            None => self.retry(from, to, run),
            Some(to_run) => {
                let trip = self.latency(from, to) + self.latency(to, from);
                self.after(trip, Event::Dialled { from, to, from_run: run, to_run });
            }
        }
    }

    pub(crate) fn on_dialled(&mut self, from: usize, to: usize, from_run: u64, to_run: u64) {
        if self.hosts[from].run() != Some(from_run) || self.wires[from][to].as_ref().is_some_and(|w| w.to.run == to_run)
        {
            return;
        }
        let Some(peer) = self.hosts[to].sender().filter(|s| s.run == to_run && self.both_ways(from, to)) else {
            return self.retry(from, to, from_run);
        };
        self.wire_count += 1;
        self.wires[from][to] = Some(Wire { number: self.wire_count, to: peer.clone(), last: [0; 2], held: Vec::new() });
        // Whoever is dialled dials back, without waiting for its own next try.
        if self.wires[to][from].as_ref().is_none_or(|w| w.to.run != from_run) {
            self.after(0, Event::Dial { from: to, to: from, run: to_run });
        }
        self.input(from, Input::Connected { peer });
    }

    /// Cuts one direction.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.links[from][to].cuts += 1;
        for (a, b) in [(from, to), (to, from)] {
            if let Some(gen_) = self.wires[a][b].as_ref().map(|w| w.number) {
                let patience = self.rng.between(ms(800), ms(4000));
                self.after(patience, Event::Stalled { from: a, to: b, gen_ });
            }
        }
    }

    /// Mends one direction: what was held back arrives, if the connection still stands.
    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        self.links[from][to].cuts = self.links[from][to].cuts.saturating_sub(1);
        if self.open(from, to) {
            let held = self.wires[from][to].as_mut().map(|w| std::mem::take(&mut w.held)).unwrap_or_default();
            for packet in held {
                self.send(from, to, packet);
            }
        }
    }

    /// Our own time-out: the connection is given up, and that is no evidence of anything.
    pub(crate) fn on_stalled(&mut self, from: usize, to: usize, gen_: u64) {
        let same = self.wires[from][to].as_ref().is_some_and(|w| w.number == gen_);
        if same && !self.both_ways(from, to) {
            self.wires[from][to] = None;
            if let Some(run) = self.hosts[from].run() {
                self.retry(from, to, run);
            }
        }
    }
}
