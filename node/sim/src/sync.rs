//! Disks in time: records queue up, a sync covers all that wait, and what is durable is told to the record of facts.

use std::sync::Arc;

use ais_ha::invariant::{self, Verdict, violated};
use ais_ha::{Genesis, Input, Persist};
use ais_meta::{Kind, Stamp, State, Voter};

use crate::disk::Sync;
use crate::seen::Seen;
use crate::world::{Event, World, ms};

impl World {
    pub(crate) fn persist(&mut self, node: usize, persist: Persist) -> Verdict {
        // State(1,1) is told only once it is durable: a founder that dies before may write another.
        if let Some(write) = persist.accepted.as_ref().filter(|w| w.state.stamp().seq > 1) {
            let parent = write.deltas.last().map(|d| d.base);
            self.wrote(&write.state, parent)?;
        }
        self.hosts[node].disk.queue.push_back(persist);
        self.sync(node);
        Ok(())
    }

    /// Starts a sync of all that waits.
    pub(crate) fn sync(&mut self, node: usize) {
        let now = self.now;
        let disk = &self.hosts[node].disk;
        if disk.syncing.is_some() || disk.queue.is_empty() {
            return;
        }
        let (low, high) = disk.sync_us;
        let covers = disk.queue.len();
        let took = self.rng.skewed(low, high);
        self.order += 1;
        let number = self.order;
        let disk = &mut self.hosts[node].disk;
        let done = (now + took).max(disk.hangs_until);
        disk.syncing = Some(Sync { covers, since: now, number });
        self.at(done, Event::Synced { node, number });
    }

    pub(crate) fn on_synced(&mut self, node: usize, number: u64) -> Verdict {
        let now = self.now;
        let disk = &mut self.hosts[node].disk;
        if disk.dead {
            return Ok(());
        }
        let Some(sync) = disk.syncing.take_if(|s| s.number == number) else { return Ok(()) };
        if disk.hangs_until > now {
            let until = disk.hangs_until;
            disk.syncing = Some(sync);
            self.at(until, Event::Synced { node, number });
            return Ok(());
        }
        if disk.full {
            disk.syncing = Some(sync);
            self.after(ms(200), Event::Synced { node, number });
            self.input(node, Input::PersistFailed { why: "no space left on device".to_owned() });
            return Ok(());
        }
        let Some(token) = disk.last_token(sync.covers) else { return Ok(()) };
        let written: Vec<Persist> = disk.queue.drain(..sync.covers).collect();
        self.write_down(node, &written, written.len())?;
        let took_ms = (now - sync.since) / 1000;
        self.input(node, Input::Persisted { token, took_ms });
        self.sync(node);
        Ok(())
    }

    /// A State is on its way to a disk.
    fn wrote(&mut self, state: &Arc<State>, parent: Option<Stamp>) -> Verdict {
        self.record.wrote(state, parent)?;
        if self.known.contains_key(&state.stamp()) {
            return Ok(());
        }
        if let Some(before) = parent.and_then(|p| self.known.get(&p)).cloned() {
            self.count_members(&before, state);
        }
        self.known.insert(state.stamp(), state.clone());
        Ok(())
    }

    /// What a new State does to Smap and electorate.
    fn count_members(&mut self, before: &State, state: &State) {
        let c = &mut self.counts;
        if before.electorate() != state.electorate() {
            let has = |s: &State, v: &Voter| s.electorate().iter().any(|w| w.id == v.id);
            let added = state.electorate().iter().find(|v| !has(before, v));
            let removed = before.electorate().iter().find(|v| !has(state, v));
            match (added, removed) {
                (Some(added), _) => {
                    c.saw(Seen::VoterAdded);
                    if added.kind == Kind::Target {
                        c.saw(Seen::Witness);
                    }
                }
                (None, Some(removed)) => {
                    c.saw(Seen::VoterRemoved);
                    // Its node is here with another disk, whose seat is the next State's.
                    let node = state.nodes().get(&removed.id.node);
                    if node.is_some_and(|n| n.disk != removed.id.disk) {
                        c.saw(Seen::VoterSwapped);
                    }
                }
                (None, None) => {}
            }
        }
        if let (Some(txn), None) = (before.transaction(), state.transaction()) {
            c.saw(Seen::TxnDone);
            if txn.began.epoch != state.stamp().epoch {
                c.saw(Seen::TxnOther);
            }
        }
        if before.nodes().len() > state.nodes().len() {
            c.saw(Seen::Left);
        }
        if before.nodes().len() < state.nodes().len() {
            c.saw(Seen::CameBack);
        }
    }

    /// All States of `records` and the promises of the first `votes` of them are durable now.
    pub(crate) fn write_down(&mut self, node: usize, records: &[Persist], votes: usize) -> Verdict {
        let voter = self.hosts[node].voter();
        for (at, persist) in records.iter().enumerate() {
            let disk = &mut self.hosts[node].disk;
            disk.write_state(persist).or_else(|why| violated("replay", format!("{voter}: {why}")))?;
            if at < votes {
                disk.write_vote(persist);
            }
            let accepted = disk.accepted().map(|s| s.stamp()).unwrap_or_default();
            if let Some(write) = persist.accepted.as_ref().filter(|w| w.state.stamp().epoch == 1) {
                self.wrote(&write.state, write.deltas.last().map(|d| d.base))?;
            }
            let disk = &self.hosts[node].disk;
            let now = invariant::Disk { promised: disk.promised(), accepted, committed: disk.committed() };
            // I4 holds, so the State as it was first seen will do.
            let state = persist.accepted.as_ref().map(|w| self.known.get(&w.state.stamp()).unwrap_or(&w.state));
            self.record.stored(&voter, now, state.map(|s| &**s))?;
            if let Some(bound @ Genesis::Bound(_)) = persist.genesis.as_ref().filter(|_| at < votes) {
                self.has_bound(node, bound);
            }
        }
        Ok(())
    }
}
