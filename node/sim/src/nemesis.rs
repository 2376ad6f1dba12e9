//! Faults.

use ais_ha::Input;
use ais_meta::DiskId;

use crate::disk::Disk;
use crate::world::{Event, Micros, World, ms};

/// Kinds of fault, in the order of [`crate::Counts::faults`].
pub const KINDS: [&str; 16] = [
    "kill",
    "bounce",
    "stop",
    "pause",
    "cut one way",
    "cut both ways",
    "isolate",
    "split",
    "reset",
    "slow disk",
    "hung disk",
    "full disk",
    "wipe",
    "hand-over",
    "reset and isolate",
    "late answers",
];

/// The end of a fault.
#[derive(Clone, Debug)]
pub(crate) enum Mend {
    Resume(usize),
    Links(Vec<(usize, usize)>),
    Fast(usize),
    Room(usize),
    /// Not an end: its outgoing links are cut now, for so long.
    Silence(usize, Micros),
}

/// What the faults have done that limits further ones.
#[derive(Default)]
pub(crate) struct Nemesis {
    pub(crate) wiped_voters: usize,
    nonce: u64,
    /// Cuts in force.
    cuts: Vec<(usize, usize)>,
}

impl World {
    /// Schedules the first fault.
    pub(crate) fn begin_faults(&mut self, from: Micros) {
        self.at(from, Event::Fault);
    }

    fn victim(&mut self) -> usize {
        match self.primary() {
            Some(primary) if self.rng.chance(500) => primary,
            _ => self.rng.index(self.hosts.len()),
        }
    }

    pub(crate) fn on_fault(&mut self) {
        if self.calm {
            return;
        }
        let kind = self.rng.index(KINDS.len());
        let victim = self.victim();
        if self.strike(kind, victim) {
            self.counts.faults[kind] += 1;
            self.trace.note(self.now, &format!("fault: {} of {}", KINDS[kind], self.hosts[victim].id));
        }
        let mean = self.plan.fault_us;
        let next = self.rng.between(mean / 4, mean * 7 / 4);
        self.after(next, Event::Fault);
    }

    /// False: not possible now.
    pub(crate) fn strike(&mut self, kind: usize, victim: usize) -> bool {
        let lasts = self.rng.skewed(ms(50), ms(9000));
        let alive = self.hosts[victim].process.is_some();
        match kind {
            0 | 1 if alive => {
                self.end_process(victim);
                let back = if kind == 0 { lasts } else { self.rng.between(ms(1), ms(20)) };
                self.after(back, Event::Start { node: victim });
            }
            2 if alive => self.stop(victim),
            3 if alive => {
                if let Some(process) = &mut self.hosts[victim].process {
                    process.paused = true;
                }
                self.after(lasts, Event::Mend(Mend::Resume(victim)));
            }
            4 | 5 => {
                let other = self.rng.index(self.hosts.len());
                if other == victim {
                    return false;
                }
                let mut links = vec![(victim, other)];
                if kind == 5 {
                    links.push((other, victim));
                }
                self.cut_all(links, lasts);
            }
            6 => {
                let one_way = self.rng.chance(300);
                let others = (0..self.hosts.len()).filter(|o| *o != victim);
                let links = others.flat_map(|o| [(victim, o), (o, victim)]);
                let links = links.filter(|(from, _)| !one_way || *from == victim).collect();
                self.cut_all(links, lasts);
            }
            7 => {
                let side: Vec<bool> = (0..self.hosts.len()).map(|_| self.rng.chance(500)).collect();
                let all = (0..side.len()).flat_map(|a| (0..side.len()).map(move |b| (a, b)));
                let links = all.filter(|(a, b)| side[*a] != side[*b]).collect();
                self.cut_all(links, lasts);
            }
            8 => {
                let other = self.rng.index(self.hosts.len());
                if other != victim {
                    self.reset(victim, other);
                }
            }
            9 => {
                let high = ms(self.rng.between(50, 3000));
                self.hosts[victim].disk.sync_us = (ms(20), high);
                self.after(lasts, Event::Mend(Mend::Fast(victim)));
            }
            10 => self.hosts[victim].disk.hangs_until = self.now + lasts,
            11 => {
                self.hosts[victim].disk.full = true;
                self.after(lasts, Event::Mend(Mend::Room(victim)));
            }
            12 => return self.wipe(victim),
            13 => return self.hand_over(victim),
            14 => self.sever(victim, lasts),
            15 => self.delay_answers(victim),
            _ => return false,
        }
        true
    }

    pub(crate) fn stop(&mut self, node: usize) {
        if let Some(process) = &mut self.hosts[node].process {
            process.stopping = true;
        }
        self.input(node, Input::Stop);
    }

    fn cut_all(&mut self, links: Vec<(usize, usize)>, lasts: Micros) {
        for (from, to) in &links {
            self.cut(*from, *to);
        }
        self.nemesis.cuts.extend(links.iter().copied());
        self.after(lasts, Event::Mend(Mend::Links(links)));
    }

    /// Connections are reset, and then nothing gets through: a redial that times out says nothing about the process.
    fn sever(&mut self, node: usize, lasts: Micros) {
        let others: Vec<usize> = (0..self.hosts.len()).filter(|o| *o != node).collect();
        for other in &others {
            self.reset(node, *other);
        }
        self.cut_all(others.iter().flat_map(|o| [(node, *o), (*o, node)]).collect(), lasts);
    }

    /// What others answered arrives late, and meanwhile they hear nothing new.
    fn delay_answers(&mut self, node: usize) {
        let others: Vec<usize> = (0..self.hosts.len()).filter(|o| *o != node).collect();
        let (held, silent) = (ms(self.rng.between(300, 1700)), ms(self.rng.between(2500, 5000)));
        self.cut_all(others.iter().map(|o| (*o, node)).collect(), held);
        // Its last round is still on its way out.
        let delay = ms(self.rng.between(1, 300));
        self.after(delay, Event::Mend(Mend::Silence(node, silent)));
    }

    /// A new disk under the old name. Never so many voters that their majority forgets: that is an administrator's
    /// recovery, and none while the cluster is being founded or is small.
    fn wipe(&mut self, node: usize) -> bool {
        let voter = self.hosts[node].voter();
        let newest = self.hosts.iter().filter_map(|h| h.disk.accepted()).max_by_key(|s| s.stamp());
        let Some(newest) = newest else { return false };
        let size = self.hosts.iter().filter_map(|h| h.disk.accepted()).map(|s| s.electorate().len()).min().unwrap_or(0);
        let votes =
            self.hosts.iter().filter_map(|h| h.disk.accepted()).any(|s| s.electorate().iter().any(|v| v.id == voter));
        let proposed = newest.electorate().iter().any(|v| v.id == voter) || votes;
        if self.record.commits() < 3 || (proposed && (self.nemesis.wiped_voters + 1) * 2 >= size) {
            return false;
        }
        // Without a record, nobody electable would be left that knows the cluster.
        let other = |v: &ais_meta::Voter| v.electable && v.id != voter && !self.record.is_wiped(&v.id);
        if !newest.electorate().iter().any(other) {
            return false;
        }
        // A seat that is being given away right now would be lost beside those that are counted.
        if !proposed && self.primary().is_none() {
            return false;
        }
        self.nemesis.wiped_voters += usize::from(proposed);
        self.end_process(node);
        let fresh = DiskId(self.rng.bits());
        let (sync_us, bytes) = (self.plan.sync_us, self.hosts[node].disk.keeps_bytes());
        if ais_ha::mutant::Mutant::WipedKeepsId.on() {
            let (id, run) = (self.hosts[node].disk.id, self.hosts[node].disk.run);
            self.record.wiped(&voter);
            self.hosts[node].disk = Disk::format(id, sync_us, bytes);
            self.hosts[node].disk.run = run;
        } else {
            self.record.wiped(&voter);
            self.hosts[node].disk = Disk::format(fresh, sync_us, bytes);
        }
        let back = self.rng.skewed(ms(5), ms(4000));
        self.after(back, Event::Start { node });
        true
    }

    fn hand_over(&mut self, to: usize) -> bool {
        let gateway = self.rng.index(self.plan.gateways);
        let to = if to < self.plan.gateways { to } else { self.rng.index(self.plan.gateways) };
        if self.hosts[gateway].process.is_none() {
            return false;
        }
        if let Some(primary) = self.primary().filter(|p| *p != to && self.rng.chance(300)) {
            // The successor's word does not reach the old primary.
            let lasts = ms(self.rng.between(500, 3000));
            self.cut_all(vec![(to, primary)], lasts);
        }
        self.nemesis.nonce += 1;
        let (nonce, to) = (self.nemesis.nonce, self.hosts[to].id.clone());
        self.input(gateway, Input::Transfer { nonce, to, expected_primary: None, expected_epoch: None });
        true
    }

    pub(crate) fn on_mend(&mut self, mend: Mend) {
        match mend {
            Mend::Resume(node) => self.resume(node),
            Mend::Links(links) => {
                for (from, to) in links {
                    if let Some(at) = self.nemesis.cuts.iter().position(|c| *c == (from, to)) {
                        self.nemesis.cuts.swap_remove(at);
                        self.mend(from, to);
                    }
                }
            }
            Mend::Fast(node) => self.hosts[node].disk.sync_us = self.plan.sync_us,
            Mend::Silence(..) if self.calm => {}
            Mend::Silence(node, lasts) => {
                self.cut_all((0..self.hosts.len()).filter(|o| *o != node).map(|o| (node, o)).collect(), lasts);
            }
            Mend::Room(node) => self.hosts[node].disk.full = false,
        }
    }

    /// Everything works again; who is down comes up.
    pub(crate) fn heal(&mut self) {
        self.calm = true;
        self.trace.note(self.now, "everything heals");
        for (from, to) in std::mem::take(&mut self.nemesis.cuts) {
            self.mend(from, to);
        }
        for node in 0..self.hosts.len() {
            let now = self.now;
            let disk = &mut self.hosts[node].disk;
            (disk.sync_us, disk.full, disk.hangs_until) = (self.plan.sync_us, false, disk.hangs_until.min(now));
            if let Some(number) = disk.syncing.as_ref().map(|s| s.number) {
                self.after(0, Event::Synced { node, number });
            }
            if self.hosts[node].process.as_ref().is_some_and(|p| p.paused) {
                self.resume(node);
            }
            if self.hosts[node].process.is_none() {
                self.after(ms(1), Event::Start { node });
            }
        }
    }
}
