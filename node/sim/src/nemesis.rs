//! Carrying out the faults of a plan. Nothing is drawn here that the plan could say.

use ais_ha::{Action, Genesis, Input, invariant};
use ais_meta::{DiskId, VoterId};

use crate::disk::Disk;
use crate::fault::{Moment, Strike, Who};
use crate::host::{Host, Process};
use crate::plan::FAULTS_END;
use crate::rng::Rng;
use crate::seen::Seen;
use crate::world::{Event, Micros, World, ms};

/// Who was told what a disk forgot is left alone for so long, to say so.
const FORGETS: Micros = ms(4000);

/// A part of a fault that comes later, mostly its end.
#[derive(Clone, Debug)]
pub(crate) enum Later {
    Resume(usize),
    Links(Vec<(usize, usize)>),
    Fast(usize),
    Room(usize),
    /// It has bound, and its volume is recreated.
    Recreate(usize, Micros),
    /// The volume comes back as it was, if the processes that met it since still run.
    Restore(usize, Vec<Option<u64>>),
    /// The administrator of a lost majority tries.
    Recover,
    /// Another process on the mended disk.
    Repair(usize),
    /// Gets its share of the processor again.
    Brisk(usize),
    /// Not an end: its outgoing links are cut now, for so long.
    Silence(usize, Micros),
    /// One more round of a storm.
    Storm {
        side: u64,
        times: u32,
        gap_us: Micros,
    },
    /// One more hand-over.
    HandOver {
        times: u32,
        gap_us: Micros,
    },
}

/// What the faults have done that limits further ones.
#[derive(Default)]
pub(crate) struct Nemesis {
    nonce: u64,
    /// Cuts in force.
    cuts: Vec<(usize, usize)>,
    /// The volume of the next initial voter that binds is recreated, and comes up after.
    recreate: Option<Micros>,
    /// A snapshot of a volume.
    snapshot: Option<Disk>,
    /// Nothing else happens before then.
    quiet_until: Micros,
    /// Somebody is killed at this moment, and back after.
    armed: Option<(Moment, Micros)>,
    /// A disk that was lost left no voter that may lead and knows who votes.
    pub(crate) headless: bool,
    /// A wipe left no initial voter with a record: from then on the operator's record that the cluster is formed is all
    /// that keeps them from founding it again while they hear nobody else (section 5, seed 6834).
    pub(crate) formed_told: bool,
}

impl World {
    pub(crate) fn on_fault(&mut self, at: usize) {
        let Some(fault) = self.plan.faults.get(at).cloned() else { return };
        if self.calm {
            return;
        }
        let kind = fault.strike.kind();
        self.trace.note(self.now, || format!("fault: {:?}", fault.strike));
        if self.now >= self.nemesis.quiet_until && self.strike(fault.strike) {
            self.counts.struck(kind);
        } else {
            self.trace.note(self.now, || "not possible now".to_owned());
        }
        if let Some(next) = self.plan.faults.get(at + 1) {
            let when = next.at_us;
            self.at(when, Event::Fault { at: at + 1 });
        }
    }

    /// Which node that is now.
    pub(crate) fn who(&self, who: Who) -> usize {
        let all = self.hosts.len();
        match (who, self.primary()) {
            (Who::Primary(_), Some(primary)) => primary,
            (Who::Other(at), Some(primary)) if all > 1 => {
                let at = at % (all - 1);
                if at < primary { at } else { at + 1 }
            }
            (Who::Primary(at) | Who::Node(at) | Who::Other(at), _) => at % all,
        }
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.hosts[node].process.is_some()
    }

    /// False: not possible now.
    pub(crate) fn strike(&mut self, strike: Strike) -> bool {
        match strike {
            Strike::Kill { who, back_us } => self.kill(self.who(who), back_us),
            Strike::KillAt { moment, back_us } => self.nemesis.armed = Some((moment, back_us)),
            Strike::Stop { who } => return self.term(self.who(who), 0),
            Strike::Leave { who, back_us } => return self.term(self.who(who), back_us),
            Strike::Pause { who, lasts_us } => return self.pause(self.who(who), lasts_us),
            Strike::StopTheWorld { lasts_us } => {
                for node in 0..self.hosts.len() {
                    self.pause(node, lasts_us);
                }
            }
            Strike::Starve { who, step_us, lasts_us } => return self.starve(self.who(who), step_us, lasts_us),
            Strike::Cut { from, to, both, lasts_us } => return self.cut_pair(from, to, both, lasts_us),
            Strike::Isolate { who, deaf, mute, lasts_us } => {
                let node = self.who(who);
                let mut links: Vec<_> = self.others(node).map(|o| (node, o)).collect();
                links.retain(|_| !deaf || mute);
                links.extend(self.others(node).map(|o| (o, node)).filter(|_| !mute || deaf));
                self.cut_all(links, lasts_us);
            }
            Strike::Split { side, lasts_us } => {
                let all = (0..self.hosts.len()).flat_map(|a| (0..self.hosts.len()).map(move |b| (a, b)));
                let links = all.filter(|(a, b)| (side >> a & 1) != (side >> b & 1)).collect();
                self.cut_all(links, lasts_us);
            }
            Strike::Reset { a, b } => {
                let (a, b) = (self.who(a), self.who(b));
                if a == b {
                    return false;
                }
                self.reset(a, b);
            }
            Strike::Sever { who, lasts_us } => self.sever(self.who(who), lasts_us),
            Strike::LateAnswers { who, held_us, after_us, silent_us } => {
                let node = self.who(who);
                self.cut_all(self.others(node).map(|o| (o, node)).collect(), held_us);
                // Its last round is still on its way out.
                self.after(after_us, Event::Later(Later::Silence(node, silent_us)));
            }
            Strike::HandOver { via, to, deaf_us } => return self.hand_over(via, to, deaf_us),
            Strike::HandOvers { times, gap_us } => self.on_later(Later::HandOver { times, gap_us }),
            Strike::Storm { side, times, gap_us } => self.on_later(Later::Storm { side, times, gap_us }),
            Strike::JoinInElection { who, back_us } => return self.join_in_election(self.who(who), back_us),
            Strike::Move { who, back_us } => {
                let node = self.who(who);
                self.hosts[node].moves += 1;
                self.kill(node, back_us);
            }
            Strike::LoseMajority { order, admin_us } => return self.lose_majority(order, admin_us),
            Strike::Ask { via, what } => return self.ask(via, what),
            Strike::AllDown { orderly, down_us, order } => self.all_down(orderly, down_us, order),
            strike => return self.strike_disk(&strike),
        }
        true
    }

    fn strike_disk(&mut self, strike: &Strike) -> bool {
        let now = self.now;
        match *strike {
            Strike::SlowDisk { who, high_us, lasts_us } => {
                let node = self.who(who);
                self.hosts[node].disk.sync_us = (ms(20), high_us.max(ms(20)));
                self.after(lasts_us, Event::Later(Later::Fast(node)));
            }
            Strike::HungDisk { who, lasts_us } => {
                let node = self.who(who);
                self.hosts[node].disk.hangs_until = now + lasts_us;
            }
            Strike::DeadDisk { who, back_us } => {
                let node = self.who(who);
                if self.hosts.iter().any(|h| h.disk.dead) {
                    return false;
                }
                self.hosts[node].disk.dead = true;
                self.after(back_us, Event::Later(Later::Repair(node)));
            }
            Strike::FullDisk { who, lasts_us } => {
                let node = self.who(who);
                self.hosts[node].disk.full = true;
                self.after(lasts_us, Event::Later(Later::Room(node)));
            }
            Strike::Wipe { who, back_us } => return self.wipe(&[self.who(who)], back_us, &Genesis::Unformed),
            Strike::Torn { who, back_us } => return self.wipe(&[self.who(who)], back_us, &Genesis::JoinOnly),
            Strike::Recreate { back_us } => self.nemesis.recreate = Some(back_us),
            Strike::Restore { who, after_us } => return self.snapshot(self.who(who), after_us),
            Strike::WipeTwo { a, b, back_us } => {
                let (a, b) = (self.who(a), self.who(b));
                return a != b && self.wipe(&[a, b], back_us, &Genesis::Unformed);
            }
            _ => return false,
        }
        true
    }

    fn others(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.hosts.len()).filter(move |o| *o != node)
    }

    pub(crate) fn kill(&mut self, node: usize, back_us: Micros) {
        self.end_process(node);
        self.after(back_us, Event::Start { node });
    }

    fn term(&mut self, node: usize, away_us: Micros) -> bool {
        let up = self.is_up(node);
        if up {
            self.hosts[node].away_until = self.now + away_us;
            self.stop(node);
        }
        up
    }

    pub(crate) fn stop(&mut self, node: usize) {
        if let Some(process) = &mut self.hosts[node].process {
            process.stopping = true;
        }
        self.input(node, Input::Stop);
    }

    pub(crate) fn pause(&mut self, node: usize, lasts_us: Micros) -> bool {
        if let Some(process) = &mut self.hosts[node].process {
            process.paused = true;
        }
        self.after(lasts_us, Event::Later(Later::Resume(node)));
        self.is_up(node)
    }

    fn starve(&mut self, node: usize, step_us: Micros, lasts_us: Micros) -> bool {
        if let Some(process) = &mut self.hosts[node].process {
            process.step_us = step_us;
        }
        self.after(lasts_us, Event::Later(Later::Brisk(node)));
        self.is_up(node)
    }

    fn cut_pair(&mut self, from: Who, to: Who, both: bool, lasts_us: Micros) -> bool {
        let (from, to) = (self.who(from), self.who(to));
        if from == to {
            return false;
        }
        let mut links = vec![(from, to)];
        links.extend(both.then_some((to, from)));
        self.cut_all(links, lasts_us);
        true
    }

    fn cut_all(&mut self, links: Vec<(usize, usize)>, lasts_us: Micros) {
        for (from, to) in &links {
            self.cut(*from, *to);
        }
        self.nemesis.cuts.extend(links.iter().copied());
        self.after(lasts_us, Event::Later(Later::Links(links)));
    }

    /// Connections are reset, and then nothing gets through: a redial that times out says nothing about the process.
    fn sever(&mut self, node: usize, lasts_us: Micros) {
        for other in self.others(node) {
            self.reset(node, other);
        }
        self.cut_all(self.others(node).flat_map(|o| [(node, o), (o, node)]).collect(), lasts_us);
    }

    fn join_in_election(&mut self, node: usize, back_us: Micros) -> bool {
        let Some(primary) = self.primary() else { return false };
        if primary == node || self.hosts.len() < 4 {
            return false;
        }
        // It is starting while the others find that the primary is gone.
        self.kill(node, ms(20));
        self.kill(primary, back_us.max(ms(20)));
        true
    }

    fn all_down(&mut self, orderly: bool, down_us: Micros, order: u64) {
        let mut rng = Rng::new(order);
        for node in 0..self.hosts.len() {
            let back_us = down_us + rng.between(0, ms(3000));
            if orderly {
                self.term(node, back_us);
            } else {
                self.kill(node, back_us);
            }
        }
    }

    /// New disks under old names. Never so many that nobody would remember what a majority acknowledged: that is an
    /// administrator's recovery; and none while the cluster is being founded.
    fn wipe(&mut self, nodes: &[usize], back_us: Micros, genesis: &Genesis) -> bool {
        let voters: Vec<VoterId> = nodes.iter().map(|node| self.hosts[*node].voter()).collect();
        if self.record.commits() < 3 || !self.record.would_remember(&voters, self.leaving()) {
            return false;
        }
        if !self.is_led_without(&voters) {
            return false;
        }
        let remembers = |at: &usize| {
            let genesis = if nodes.contains(at) { genesis } else { &self.hosts[*at].disk.genesis };
            matches!(genesis, Genesis::Formed(_) | Genesis::JoinOnly)
        };
        if !self.plan.initial.iter().any(remembers) {
            // One that is up was told the contrary at its start.
            let up = |at: &usize| self.hosts[*at].process.is_some() && !nodes.contains(at);
            if self.plan.initial.iter().any(up) {
                return false;
            }
            self.nemesis.formed_told = true;
        }
        for (node, voter) in nodes.iter().zip(voters) {
            self.end_process(*node);
            self.record.wiped(&voter);
            self.format(*node, genesis.clone());
            self.after(back_us, Event::Start { node: *node });
        }
        true
    }

    /// Whether these disks may go, as far as standing for primary is concerned: where no voter that may lead and knows who
    /// votes now is left, a gateway stands that has no seat, or comes without a record and is given one (section 4). While
    /// all are in maintenance nobody may: that is an administrator's mistake.
    fn is_led_without(&mut self, gone: &[VoterId]) -> bool {
        let newest = self.record.newest();
        let knows = |v: &ais_meta::Voter| {
            let host = self.hosts.iter().find(|h| h.voter() == v.id);
            let held = host.and_then(|h| h.disk.accepted()).is_some_and(|s| s.stamp() >= newest);
            v.electable && held && !gone.contains(&v.id)
        };
        let Some((_, state)) = self.known.last_key_value() else { return false };
        if !state.electorate().iter().any(knows) {
            if !state.nodes().values().any(|n| n.electable()) {
                return false;
            }
            self.nemesis.headless = true;
            self.counts.saw(Seen::Headless);
        }
        true
    }

    /// A disk has bound to an offer: whether its volume is recreated now. Not the founder's, whose offers nobody else
    /// may go on with; and only one: a declared cluster of three can miss no more.
    pub(crate) fn has_bound(&mut self, node: usize, genesis: &Genesis) {
        let voter = self.hosts[node].voter();
        let others = genesis.offer().is_some_and(|o| o.founder != voter && o.voters.len() >= 3);
        if others && let Some(back_us) = self.nemesis.recreate.take() {
            self.after(0, Event::Later(Later::Recreate(node, back_us)));
        }
    }

    fn recreate(&mut self, node: usize, back_us: Micros) {
        if self.hosts[node].disk.genesis.is_formed() {
            return;
        }
        let voter = self.hosts[node].voter();
        self.end_process(node);
        self.record.wiped(&voter);
        self.format(node, Genesis::Unformed);
        self.after(back_us, Event::Start { node });
    }

    fn runs(&self) -> Vec<Option<u64>> {
        self.hosts.iter().map(Host::run).collect()
    }

    fn snapshot(&mut self, node: usize, after_us: Micros) -> bool {
        if self.nemesis.snapshot.is_some() || !self.is_up(node) || self.record.commits() < 3 {
            return false;
        }
        self.nemesis.snapshot = Some(self.hosts[node].disk.snapshot());
        self.after(after_us, Event::Later(Later::Restore(node, self.runs())));
        true
    }

    /// A disk that forgot is caught by those who were told what it forgot: they must be there, and it must hear them
    /// first. Beyond that the protocol only narrows the hazard (rule 10), and nothing is to be checked.
    fn restore(&mut self, node: usize, runs: &[Option<u64>]) {
        let Some(snapshot) = self.nemesis.snapshot.take() else { return };
        let host = &self.hosts[node];
        let (id, voter, run) = (snapshot.id, host.voter(), host.disk.run);
        let prompt = |h: &Host| h.process.as_ref().is_some_and(Process::is_prompt);
        let met = self.runs() == runs && self.hosts.iter().all(prompt) && self.nemesis.cuts.is_empty();
        let heard = self.plan.loss == 0 && !self.plan.spikes && self.plan.whole_book;
        if !met
            || !heard
            || id != host.disk.id
            || run != snapshot.run
            || !self.record.has_told(&voter)
            || self.now + FORGETS > self.plan.heal_us.unwrap_or(FAULTS_END)
            || !self.record.would_remember(std::slice::from_ref(&voter), self.leaving())
            || !self.is_led_without(std::slice::from_ref(&voter))
        {
            return;
        }
        self.trace.note(self.now, || format!("{voter} comes back as it was"));
        self.counts.saw(Seen::Restored);
        self.end_process(node);
        self.hosts[node].disk = snapshot;
        let disk = &self.hosts[node].disk;
        let accepted = disk.accepted().map(|s| s.stamp()).unwrap_or_default();
        let now = invariant::Disk { promised: disk.promised(), accepted, committed: disk.committed() };
        self.record.forgot(&voter, now);
        (self.nemesis.quiet_until, self.nemesis.armed) = (self.now + FORGETS, None);
        self.after(ms(200), Event::Start { node });
    }

    fn format(&mut self, node: usize, genesis: Genesis) {
        let fresh = DiskId(self.rng.bits());
        let disk = &mut self.hosts[node].disk;
        let (id, run) = if ais_ha::mutant::Mutant::WipedKeepsId.on() { (disk.id, disk.run) } else { (fresh, 0) };
        let bytes = disk.keeps_bytes();
        *disk = Disk::format(id, self.plan.sync_us, bytes);
        (disk.run, disk.genesis) = (run, genesis);
    }

    /// The records of a process that ended must not be used again: it goes on with a new disk id and may only join.
    pub(crate) fn set_aside(&mut self, node: usize) {
        let voter = self.hosts[node].voter();
        self.end_process(node);
        self.record.wiped(&voter);
        self.format(node, Genesis::JoinOnly);
        self.after(ms(500), Event::Start { node });
    }

    fn hand_over(&mut self, via: usize, to: usize, deaf_us: Micros) -> bool {
        let (via, to) = (via % self.plan.gateways, to % self.plan.gateways);
        if !self.is_up(via) {
            return false;
        }
        if deaf_us > 0
            && let Some(primary) = self.primary().filter(|p| *p != to)
        {
            self.cut_all(vec![(to, primary)], deaf_us);
        }
        self.transfer(via, to);
        true
    }

    /// Asks for a hand-over; gives the name of the call.
    pub(crate) fn transfer(&mut self, via: usize, to: usize) -> u64 {
        self.nemesis.nonce += 1;
        let (nonce, to) = (self.nemesis.nonce, self.hosts[to].id.clone());
        self.input(via, Input::Transfer { nonce, to, expected_primary: None, expected_epoch: None });
        nonce
    }

    /// Whether somebody waits for this to kill the process.
    pub(crate) fn is_fatal(&self, node: usize, action: &Action) -> bool {
        let Some((moment, _)) = self.nemesis.armed else { return false };
        match (moment, action) {
            (Moment::Commit, Action::Publish(_)) => self.leads(node),
            (Moment::Answer, Action::Send { packet, .. }) => {
                matches!(packet.message, ais_ha::Message::Forwarded { .. }) && self.leads(node)
            }
            (Moment::Resign, Action::Send { packet, .. }) => {
                matches!(packet.message, ais_ha::Message::Resign { .. })
            }
            (Moment::Accept, Action::Persist(p)) => p.accepted.is_some(),
            (Moment::Promise, Action::Persist(p)) => p.accepted.is_none() && p.vote.promised > 1,
            _ => false,
        }
    }

    /// It was killed between two actions of one step.
    pub(crate) fn die(&mut self, node: usize) {
        if let Some((_, back_us)) = self.nemesis.armed.take() {
            self.kill(node, back_us);
        }
    }

    pub(crate) fn on_later(&mut self, later: Later) {
        match later {
            Later::Resume(node) => self.resume(node),
            Later::Links(links) => {
                for (from, to) in links {
                    if let Some(at) = self.nemesis.cuts.iter().position(|c| *c == (from, to)) {
                        self.nemesis.cuts.swap_remove(at);
                        self.mend(from, to);
                    }
                }
            }
            Later::Fast(node) => self.hosts[node].disk.sync_us = self.plan.sync_us,
            Later::Room(node) => self.hosts[node].disk.full = false,
            Later::Recreate(node, back_us) => self.recreate(node, back_us),
            Later::Restore(node, runs) => self.restore(node, &runs),
            Later::Recover => self.recover(),
            Later::Repair(node) => self.repair(node),
            Later::Brisk(node) => {
                if let Some(process) = &mut self.hosts[node].process {
                    process.step_us = 0;
                }
            }
            _ if self.calm => {}
            Later::Silence(node, lasts) => {
                self.cut_all(self.others(node).map(|o| (node, o)).collect(), lasts);
            }
            Later::Storm { side, times, gap_us } => {
                for node in (0..self.hosts.len()).filter(|n| side >> n & 1 == 1) {
                    self.kill(node, gap_us / 3);
                }
                if times > 1 {
                    self.after(gap_us, Event::Later(Later::Storm { side, times: times - 1, gap_us }));
                }
            }
            Later::HandOver { times, gap_us } => {
                let next = self.primary().map_or(0, |p| p + 1) % self.plan.gateways;
                self.hand_over(next, next, 0);
                if times > 1 {
                    self.after(gap_us, Event::Later(Later::HandOver { times: times - 1, gap_us }));
                }
            }
        }
    }

    fn repair(&mut self, node: usize) {
        if self.hosts[node].disk.dead {
            self.end_process(node);
            self.hosts[node].disk.dead = false;
            self.after(ms(1), Event::Start { node });
        }
    }

    /// Everything works again; who is down comes up.
    pub(crate) fn heal(&mut self) {
        self.calm = true;
        self.nemesis.armed = None;
        self.trace.note(self.now, || "everything heals".to_owned());
        for (from, to) in std::mem::take(&mut self.nemesis.cuts) {
            self.mend(from, to);
        }
        for node in 0..self.hosts.len() {
            self.repair(node);
            let now = self.now;
            let disk = &mut self.hosts[node].disk;
            (disk.sync_us, disk.full, disk.hangs_until) = (self.plan.sync_us, false, disk.hangs_until.min(now));
            if let Some(number) = disk.syncing.as_ref().map(|s| s.number) {
                self.after(0, Event::Synced { node, number });
            }
            self.on_later(Later::Brisk(node));
            if self.hosts[node].process.as_ref().is_some_and(|p| p.paused) {
                self.resume(node);
            }
            if !self.is_up(node) {
                self.after(ms(1), Event::Start { node });
            }
        }
    }
}
