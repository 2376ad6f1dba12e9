//! Nodes and StatefulSets in a few lines: enough to see what the operator's steps do to a majority.

use std::collections::{BTreeMap, BTreeSet};

use ais_operator::names::Role;
use ais_operator::plan::order::Order;
use ais_operator::view::{Member, NodeView, Report, Stamp, Voter, majority};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::json;

use crate::common::World;

#[derive(Clone, Copy, Default)]
struct Flags {
    maintenance: bool,
    decommission: bool,
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This pod's process is down until mended.
    Down(usize),
    /// This pod's container is restarted.
    Restart(usize),
    /// Another gateway leads, if a majority is there.
    Elect,
    /// The operator forgets what it had in memory, and status is lost.
    Forget,
    /// Everything runs again.
    Mend,
}

pub(crate) fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (0..9_usize).prop_map(Fault::Down),
        (0..9_usize).prop_map(Fault::Restart),
        Just(Fault::Elect),
        Just(Fault::Forget),
        Just(Fault::Mend),
    ]
}

pub(crate) struct Sim {
    world: World,
    smap: BTreeMap<String, Flags>,
    electorate: Vec<String>,
    idle: BTreeSet<String>,
    down: BTreeSet<String>,
    silent_turns: BTreeMap<String, u32>,
    primary: String,
    epoch: u64,
    smap_version: i64,
}

fn is_gateway(name: &str) -> bool {
    name.contains("-gateway-")
}

impl Sim {
    pub(crate) fn new() -> Self {
        let world = World::settled(json!({"targets": {"replicas": 2}}));
        let smap = world.observed.pods.iter().map(|p| (p.name.clone(), Flags::default())).collect();
        let electorate = world.observed.pods.iter().map(|p| p.name.clone()).collect();
        let (idle, down, silent_turns) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let primary = "demo-gateway-0".to_owned();
        Self { world, smap, electorate, idle, down, silent_turns, primary, epoch: 1, smap_version: 105 }
    }

    pub(crate) fn wish(&mut self, gateways: i32, targets: i32, retain: bool) {
        let policy = if retain { "Retain" } else { "Drain" };
        self.world.set_spec(json!({
            "gateways": {"replicas": gateways}, "targets": {"replicas": targets}, "scaleDown": {"policy": policy}
        }));
    }

    fn exists(&self, name: &str) -> bool {
        self.world.observed.pod(name).is_some()
    }

    fn runs(&self, name: &str) -> bool {
        self.exists(name) && !self.down.contains(name) && !self.idle.contains(name)
    }

    fn here(&self) -> usize {
        self.electorate.iter().filter(|v| self.runs(v)).count()
    }

    fn led(&self) -> bool {
        self.runs(&self.primary) && self.here() >= majority(self.electorate.len())
    }

    pub(crate) fn strike(&mut self, fault: &Fault) {
        let names: Vec<String> = self.world.observed.pods.iter().map(|p| p.name.clone()).collect();
        match fault {
            Fault::Down(n) => {
                // The second one would be a lost majority without any help of the operator.
                if self.down.is_empty() && self.here() > majority(self.electorate.len()) {
                    self.down.insert(names[n % names.len()].clone());
                }
            }
            Fault::Restart(n) => {
                // Its records are gone; whether it joins anew is up to the file.
                self.idle.remove(&names[n % names.len()]);
            }
            Fault::Elect => self.epoch += u64::from(self.elect()),
            Fault::Forget => self.world.observed.cluster.status = None,
            Fault::Mend => self.down.clear(),
        }
    }

    /// Another gateway that runs and is in service.
    fn elect(&mut self) -> bool {
        let fit = |n: &&String| is_gateway(n) && **n != self.primary && self.runs(n) && self.serves(n);
        let Some(next) = self.smap.keys().find(fit).cloned() else { return false };
        if self.here() < majority(self.electorate.len()) {
            return false;
        }
        self.primary = next;
        self.smap_version += 100;
        true
    }

    fn serves(&self, name: &str) -> bool {
        self.smap.get(name).is_some_and(|f| !f.maintenance && !f.decommission)
    }

    /// One pass of the operator, what it does to the cluster, and a moment of the nodes' own life.
    pub(crate) fn turn(&mut self) -> Result<(), TestCaseError> {
        self.see();
        self.world.after(1);
        let pass = self.world.step();
        if let Some(errand) = &pass.plan.scale.errand
            && self.led()
            && errand.away_from == self.primary
        {
            let to = errand.prefer.iter().find(|n| self.runs(n) && self.serves(n)).cloned();
            if let Some(to) = to {
                (self.primary, self.epoch) = (to, self.epoch + 1);
                self.smap_version += 100;
            }
        }
        if let Some(order) = &pass.plan.order
            && self.led()
        {
            self.obey(order);
        }
        self.sets()?;
        self.live();
        if !self.led() && self.elect() {
            self.epoch += 1;
        }
        Ok(())
    }

    fn obey(&mut self, order: &Order) {
        let busy = self.smap.values().any(|f| f.decommission);
        let (name, edit): (&String, fn(&mut Flags)) = match order {
            Order::Decommission(n) if !busy && *n != self.primary => (n, |f| f.decommission = true),
            Order::StartMaintenance(n) => (n, |f| f.maintenance = true),
            Order::StopMaintenance(n) => (n, |f| f.maintenance = false),
            _ => return,
        };
        if let Some(flags) = self.smap.get_mut(name) {
            edit(flags);
            self.smap_version += 1;
        }
    }

    /// What the StatefulSet controller does; and what it must not be made to do.
    fn sets(&mut self) -> Result<(), TestCaseError> {
        let names = self.world.names();
        for role in Role::ALL {
            let replicas = self.world.observed.sets[&role].replicas;
            let beyond: Vec<String> =
                self.world.observed.pods_of(role).filter(|p| p.ordinal >= replicas).map(|p| p.name.clone()).collect();
            for name in beyond {
                let kept = self.smap.get(&name).is_some_and(|f| f.maintenance);
                prop_assert!(!self.electorate.contains(&name), "{name} voted: {}", self.describe());
                prop_assert!(kept || !self.smap.contains_key(&name), "{name} was a member: {}", self.describe());
                prop_assert!(name != self.primary, "{name} led");
                let before = self.here() >= majority(self.electorate.len());
                self.world.observed.pods.retain(|p| p.name != name);
                self.world.observed.reports.remove(&name);
                self.idle.remove(&name);
                self.down.remove(&name);
                let after = self.here() >= majority(self.electorate.len());
                prop_assert!(!before || after, "{name} took the majority: {}", self.describe());
            }
            for n in 0..replicas {
                let claim = format!("state-{}", names.pod(role, n));
                let removed = self.world.observed.claims.iter().any(|c| c.name == claim && c.removed);
                prop_assert!(
                    self.exists(&names.pod(role, n)) || !removed,
                    "{claim} of the last life is used again: {}",
                    self.describe()
                );
            }
        }
        self.world.start_pods();
        Ok(())
    }

    /// The nodes' own decisions, one a turn.
    fn live(&mut self) {
        if !self.led() {
            return;
        }
        let removed = self.world.observed.discovery.as_ref().unwrap().removed.clone();
        let pods: Vec<String> = self.world.observed.pods.iter().map(|p| p.name.clone()).collect();
        for name in &pods {
            if self.runs(name) && !self.smap.contains_key(name) && !removed.contains(name) {
                self.smap.insert(name.clone(), Flags::default());
                self.smap_version += 1;
            }
        }
        for name in self.smap.keys().chain(&self.electorate).cloned().collect::<BTreeSet<_>>() {
            let turns = self.silent_turns.entry(name.clone()).or_default();
            *turns =
                if self.world.observed.pod(&name).is_some() && !self.down.contains(&name) { 0 } else { *turns + 1 };
        }
        let silent = |n: &str, turns: u32| self.silent_turns.get(n).is_some_and(|t| *t >= turns);
        let lost = self.smap.iter().find(|(n, f)| !f.maintenance && silent(n, 10)).map(|(n, _)| n.clone());
        if let Some(lost) = lost {
            self.smap.remove(&lost);
            self.smap_version += 1;
        }
        let spare = self.smap.keys().find(|n| self.runs(n) && self.serves(n) && !self.electorate.contains(n)).cloned();
        let leaves = |n: &String, f: &Flags| f.decommission || (f.maintenance && !is_gateway(n));
        let leaving = |n: &String| self.smap.get(n).is_some_and(|f| leaves(n, f)) && *n != self.primary;
        let gone = self.electorate.iter().position(|n| silent(n, 60));
        let out = self.electorate.iter().position(leaving).or(gone.filter(|_| spare.is_some()));
        match (out, spare) {
            (Some(_), Some(spare)) if self.electorate.len() < 5 && self.electorate.len() % 2 == 1 => {
                self.electorate.push(spare);
            }
            (Some(at), _) => drop(self.electorate.remove(at)),
            (None, Some(spare)) if self.electorate.len() < 5 => self.electorate.push(spare),
            _ => self.finish(),
        }
    }

    fn finish(&mut self) {
        let done = |n: &&String| self.smap[*n].decommission && !self.electorate.contains(n);
        if let Some(name) = self.smap.keys().find(done).cloned() {
            self.smap.remove(&name);
            self.smap_version += 1;
            self.idle.insert(name);
        }
    }

    /// What the nodes say now.
    fn see(&mut self) {
        let stamp = Stamp { incarnation: 0, epoch: self.epoch, seq: 7 };
        let kind = |n: &str| if is_gateway(n) { "gateway" } else { "target" };
        let disk = |n: &str| format!("disk-{n}");
        let voter = |n: &String| Voter { node_id: n.clone(), disk_id: disk(n), kind: kind(n).into() };
        let electorate: Vec<Voter> = self.electorate.iter().map(voter).collect();
        let all: BTreeSet<&String> = self.smap.keys().chain(&self.electorate).collect();
        let member = |n: &&String| {
            let flags = self.smap.get(*n).copied().unwrap_or_default();
            Member {
                node_id: (*n).clone(),
                disk_id: disk(n),
                kind: kind(n).into(),
                voter: self.electorate.contains(n),
                connected: self.runs(n),
                acked: Some(stamp),
                maintenance: flags.maintenance,
                decommission: flags.decommission,
                in_smap: self.smap.contains_key(*n),
                ..Member::default()
            }
        };
        let members: Vec<Member> = all.iter().map(member).collect();
        let names: Vec<String> = self.world.observed.pods.iter().map(|p| p.name.clone()).collect();
        for name in names {
            let (runs, led) = (self.runs(&name), self.led());
            let ready = runs && self.serves(&name);
            self.world.pod(&name).ready = ready;
            let leads = led && name == self.primary;
            let view = NodeView {
                node_id: name.clone(),
                disk_id: disk(&name),
                cluster_uuid: self.world.observed.primary_map.as_ref().map(|m| m.cluster_uuid.clone()),
                formed: true,
                role: if leads { "primary" } else { "follower" }.into(),
                stamp: Some(stamp),
                primary: led.then(|| self.primary.clone()),
                electorate: electorate.clone(),
                smap_version: self.smap_version,
                ready,
                members: if leads { members.clone() } else { Vec::new() },
                ..NodeView::default()
            };
            let report = if runs { Report::Live(Box::new(view)) } else { Report::Lost("down".into()) };
            self.world.observed.reports.insert(name, report);
        }
    }

    pub(crate) fn is_as_wished(&self, gateways: i32, targets: i32) -> bool {
        let pods = |role| i32::try_from(self.world.observed.pods_of(role).count()).unwrap();
        let names = self.world.names();
        let serve = |role, count| (0..count).all(|n| self.serves(&names.pod(role, n)));
        (pods(Role::Gateway), pods(Role::Target)) == (gateways, targets)
            && serve(Role::Gateway, gateways)
            && serve(Role::Target, targets)
            && self.world.observed.discovery.as_ref().unwrap().removed.is_empty()
    }

    pub(crate) fn describe(&self) -> String {
        let pods: Vec<&str> = self.world.observed.pods.iter().map(|p| p.name.as_str()).collect();
        let flags =
            |f: &Flags| [(f.maintenance, 'm'), (f.decommission, 'd')].iter().filter(|x| x.0).map(|x| x.1).collect();
        let smap: Vec<(&str, String)> = self.smap.iter().map(|(n, f)| (n.as_str(), flags(f))).collect();
        let (votes, idle, down, primary) = (&self.electorate, &self.idle, &self.down, &self.primary);
        let removal = self.world.pass().plan.scale.removal;
        let removed = &self.world.observed.discovery.as_ref().unwrap().removed;
        format!(
            "pods {pods:?} smap {smap:?} votes {votes:?} idle {idle:?} down {down:?} primary {primary} removed {removed:?} {removal:?}"
        )
    }
}
