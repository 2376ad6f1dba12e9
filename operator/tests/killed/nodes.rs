//! The nodes: they found, follow, elect, vote, take members in and let them go.

use std::collections::BTreeMap;

use ais_operator::facts::PodFact;
use ais_operator::perform::TransferOutcome;
use ais_operator::plan::order::Order;
use ais_operator::plan::primary::Transfer;
use ais_operator::view::{Member, NodeView, Report, Stamp, Voter};

use super::{Model, Pods, is_gateway};

impl Model {
    /// The nodes' own lives, a little a turn; true if nothing happened.
    pub(super) fn live(&mut self) -> bool {
        let Some(file) = self.world.observed.discovery.clone() else { return true };
        let running: Vec<String> =
            self.world.observed.pods.iter().filter(|p| p.running).map(|p| p.name.clone()).collect();
        let map = self.world.observed.primary_map.as_ref().map(|m| m.cluster_uuid.clone()).unwrap_or_default();
        for node in &running {
            // The environment of its process, read when it begins.
            self.disk_of(node, |disk| {
                if disk.uuid.is_empty() {
                    disk.uuid.clone_from(&map)
                }
            });
        }
        if !self.disks.values().any(|d| d.formed) {
            return self.found(&file.initial_voters, &file.cluster_uuid, file.formed);
        }
        let joins = running.iter().find(|n| self.disk(n).is_some_and(|d| !d.formed)).cloned();
        if let Some(node) = joins.filter(|_| self.primary.as_ref().is_some_and(|p| self.leads(p))) {
            self.disk_of(&node, |disk| disk.formed = true);
            return false;
        }
        if !self.primary.as_ref().is_some_and(|p| self.leads(p)) {
            return !self.elect();
        }
        let stays = |n: &&String| self.serves(n) && !self.leaving.contains(*n);
        let grown: Vec<String> = running.iter().filter(stays).cloned().collect();
        let target = if grown.len() >= 5 { 5 } else { 3.min(grown.len()) };
        if self.electorate.len() < target {
            self.electorate = grown.into_iter().take(target).collect();
            return false;
        }
        if self.pods == Pods::Leave && !self.let_go(target) {
            return false;
        }
        let word = self.primary.as_ref().and_then(|p| self.disk(p)).is_some_and(|d| d.stopping);
        let deaf = running.iter().find(|n| self.serves(n) && self.disk(n).is_some_and(|d| d.stopping != word)).cloned();
        deaf.inspect(|node| self.disk_of(node, |disk| disk.stopping = word)).is_none()
    }

    /// All of the list, with the same uuid: bound first, then founded.
    fn found(&mut self, list: &[String], uuid: &str, formed: bool) -> bool {
        let fits = |n: &String| self.runs(n) && self.disk(n).is_some_and(|d| d.uuid == uuid);
        if formed || list.is_empty() {
            return true;
        }
        if let Some(node) = list.iter().find(|n| fits(n) && !self.disk(n).is_some_and(|d| d.bound)).cloned() {
            self.disk_of(&node, |disk| disk.bound = true);
            return false;
        }
        if !list.iter().all(fits) {
            return true;
        }
        for node in list {
            self.disk_of(node, |disk| disk.formed = true);
        }
        self.founded.push(uuid.to_owned());
        (self.electorate, self.primary, self.epoch) = (list.to_vec(), list.first().cloned(), 1);
        false
    }

    fn elect(&mut self) -> bool {
        let next = self.electorate.iter().find(|n| is_gateway(n) && self.leads(n)).cloned();
        let elected = next.is_some();
        if elected {
            (self.primary, self.epoch) = (next, self.epoch + 1);
        }
        elected
    }

    /// What the nodes say now.
    pub(super) fn see(&mut self) {
        let names: Vec<String> = self.world.observed.pods.iter().map(|p| p.name.clone()).collect();
        for name in names {
            let ready = self.serves(&name);
            self.world.pod(&name).ready = ready;
            let report = match self.runs(&name) && !self.idle.contains(&name) {
                true => Report::Live(Box::new(self.view(&name))),
                false => Report::Lost("nobody listens".into()),
            };
            self.world.observed.reports.insert(name, report);
        }
    }

    fn view(&self, name: &str) -> NodeView {
        let disk = self.disk(name).cloned().unwrap_or_default();
        let uuid = Some(disk.uuid.clone()).filter(|u| !u.is_empty());
        let own = NodeView {
            node_id: name.into(),
            disk_id: format!("disk-{name}"),
            cluster_uuid: uuid,
            credentials: self.credentials(name),
            ..NodeView::default()
        };
        if !disk.formed {
            return NodeView { role: "founding".into(), bound: disk.bound, ..own };
        }
        let stamp = Stamp { incarnation: 0, epoch: self.epoch, seq: 7 };
        let kind = |n: &str| if is_gateway(n) { "gateway" } else { "target" };
        let primary = self.primary.clone().filter(|p| self.leads(p));
        let leads = primary.as_deref() == Some(name);
        let voter = |n: &String| Voter { node_id: n.clone(), disk_id: format!("disk-{n}"), kind: kind(n).into() };
        let member = |p: &PodFact| Member {
            node_id: p.name.clone(),
            disk_id: format!("disk-{}", p.name),
            kind: kind(&p.name).into(),
            voter: self.electorate.contains(&p.name),
            connected: p.name != name,
            acked: Some(stamp),
            decommission: self.leaving.contains(&p.name),
            ..Member::default()
        };
        let members = self.world.observed.pods.iter().filter(|p| leads && self.serves(&p.name)).map(member).collect();
        NodeView {
            formed: true,
            role: if leads { "primary" } else { "follower" }.into(),
            stamp: Some(stamp),
            promised: Some(self.epoch),
            primary,
            electorate: self.electorate.iter().map(voter).collect(),
            smap_version: 100 * i64::try_from(self.epoch).unwrap(),
            config_version: 1,
            settings: Some(BTreeMap::new()),
            voters_max: Some(5),
            ready: true,
            cluster_stopping: disk.stopping,
            members,
            ..own
        }
    }

    /// A voter more or less, or the end of a member that has no vote any more; true if nothing of it is due.
    fn let_go(&mut self, target: usize) -> bool {
        let surplus = |v: &&String| self.electorate.len() > target && self.primary.as_ref() != Some(v);
        let goes = self.electorate.iter().find(|v| self.leaving.contains(*v));
        if let Some(voter) = goes.or_else(|| self.electorate.iter().rev().find(surplus)).cloned() {
            self.electorate.retain(|v| *v != voter);
            return false;
        }
        let next = self.leaving.pop_first();
        next.map(|node| self.idle.insert(node)).is_none()
    }

    /// What the primary does when it is asked; false if that changes nothing.
    pub(super) fn obey(&mut self, order: &Order) -> bool {
        let Some(primary) = self.primary.clone().filter(|p| self.leads(p)) else { return false };
        match order {
            Order::Stopping(value) => self.disk_of(&primary, |disk| disk.stopping = *value),
            Order::Decommission(node) => {
                assert!(self.pods == Pods::Leave && *node != primary, "{node} is taken out: {}", self.describe());
                assert!(self.leaving.is_empty() && self.idle.is_empty(), "two leave: {}", self.describe());
                self.alone(node);
                let removed = &self.world.observed.discovery.as_ref().unwrap().removed;
                assert!(removed.contains(node), "{node} would join again after a restart");
                self.leaving.insert(node.clone());
            }
            other => panic!("nobody rests here: {other}"),
        }
        true
    }

    /// A call of set-primary: it says who has to lead, and in which epoch.
    pub(super) fn hand_over(&mut self, transfer: &Transfer) -> bool {
        self.world.observed.outcome = None;
        let Transfer { from, to, epoch, .. } = transfer;
        let fits = self.primary.as_ref() == Some(from) && self.leads(from) && self.epoch == *epoch;
        if !fits || !self.serves(to) || self.leaving.contains(to) {
            self.world.observed.outcome = Some(TransferOutcome::Refused("somebody else leads".to_owned()));
            return false;
        }
        self.alone("");
        (self.primary, self.epoch) = (Some(to.clone()), self.epoch + 1);
        self.moves.push(to.clone());
        true
    }

    /// Nobody but this one is away, so that a majority stays whatever becomes of it.
    pub(super) fn alone(&self, node: &str) {
        let others = self.world.observed.pods.iter().map(|p| &p.name).filter(|n| *n != node && !self.idle.contains(*n));
        let away: Vec<&String> = others.chain(&self.electorate).filter(|n| *n != node && !self.serves(n)).collect();
        assert!(away.is_empty(), "{node}, while {away:?} are away: {}", self.describe());
    }

    /// Whole or not, it goes only if nobody else is away, it does not lead, and its successor is another one.
    pub(super) fn judge_replacement(&self, name: &str, uid: &str) {
        assert!(self.pods == Pods::Roll, "{name} is replaced without a reason");
        let pod = self.world.observed.pod(name).unwrap();
        let newest = &self.world.observed.sets[&pod.role.unwrap()].revision;
        assert!(pod.uid == uid && pod.revision != *newest, "{name} is replaced again: {}", self.describe());
        assert!(self.primary.as_deref() != Some(name), "{name} is replaced while it leads: {}", self.describe());
        self.alone(name);
    }
}
