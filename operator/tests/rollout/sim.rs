//! Nodes and a kubelet beside the facts of a world.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use ais_operator::apply::Write;
use ais_operator::facts::Trouble;
use ais_operator::names::Role;
use ais_operator::view::{NodeView, Report, Voter, majority};
use serde_json::{Value, json};

use crate::common::{Pass, World};

pub const G0: &str = "demo-gateway-0";

/// How far a pod is on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Starting,
    Running,
    Ready,
    Whole,
}

/// Nodes beside the facts: they come up in phases, follow whoever leads, and do what the operator asks.
pub struct Sim {
    pub world: World,
    pub leader: String,
    pub epoch: u64,
    pub phases: BTreeMap<String, Phase>,
    pub views: BTreeMap<String, NodeView>,
    /// Revisions whose pods never come up.
    pub bad: BTreeSet<String>,
    /// Largest electorate that each process was started with.
    pub voters: BTreeMap<String, usize>,
    /// Nodes do not say that number, as older daemons.
    pub terse: bool,
    /// Nobody gets a seat.
    pub frozen: bool,
    pub removed: Vec<String>,
    pub moves: Vec<String>,
    pub events: Vec<&'static str>,
    pub made: u32,
}

impl Sim {
    pub fn new(spec: Value, leader: &str) -> Self {
        let mut world = World::settled(spec);
        world.lead(leader, 5);
        world.step();
        let pods: Vec<String> = world.observed.pods.iter().map(|p| p.name.clone()).collect();
        let views = pods.iter().map(|p| (p.clone(), world.view(p).clone())).collect();
        let most = usize::try_from(world.observed.cluster.spec.ha.voters).unwrap();
        let voters = pods.iter().map(|p| (p.clone(), most)).collect();
        let phases = pods.into_iter().map(|p| (p, Phase::Whole)).collect();
        let (removed, moves, events) = (Vec::new(), Vec::new(), Vec::new());
        let mut sim = Self {
            world,
            leader: leader.into(),
            epoch: 5,
            phases,
            views,
            bad: BTreeSet::new(),
            voters,
            terse: false,
            frozen: false,
            removed,
            moves,
            events,
            made: 0,
        };
        sim.seat();
        sim.seat();
        sim.publish();
        sim
    }

    /// A new template for both roles.
    pub fn change(&mut self, version: &str) {
        let template = json!({"template": {"annotations": {"version": version}}});
        self.world.set_spec(json!({"gateways": template, "targets": template}));
        self.step();
    }

    pub fn change_role(&mut self, role: &str, version: &str) {
        self.world.set_spec(json!({role: {"template": {"annotations": {"version": version}}}}));
        self.step();
    }

    /// Facts as the nodes and the kubelet make them.
    pub fn publish(&mut self) {
        let members = self.members();
        let stamp = |view: &NodeView| view.stamp.map(|s| ais_operator::view::Stamp { epoch: self.epoch, ..s });
        self.world.observed.reports.clear();
        for (name, phase) in &self.phases {
            let Some(pod) = self.world.observed.pods.iter_mut().find(|p| p.name == *name) else { continue };
            let bad = self.bad.contains(&pod.revision);
            pod.running = *phase >= Phase::Running;
            pod.ready = *phase >= Phase::Ready;
            let trouble = || Trouble { reason: "ImagePullBackOff".into(), message: "no:such".into() };
            pod.trouble = bad.then(trouble);
            pod.unready_since = (!pod.ready).then_some(self.world.observed.now);
            let leads = *name == self.leader;
            let view = &self.views[name];
            let view = NodeView {
                role: if leads { "primary" } else { "follower" }.into(),
                primary: Some(self.leader.clone()),
                primary_since_ms: leads.then_some(1_767_225_000_000),
                stamp: stamp(view),
                promised: Some(self.epoch),
                members: if leads { members.clone() } else { Vec::new() },
                voters_max: (!self.terse).then_some(self.voters[name]),
                ..view.clone()
            };
            let report = if *phase >= Phase::Ready { Report::Live(Box::new(view)) } else { Report::Lost("no".into()) };
            self.world.observed.reports.insert(name.clone(), report);
        }
    }

    /// The primary gives or takes one seat, up to what its own process was started with.
    pub fn seat(&mut self) {
        let most = self.voters[&self.leader];
        let mut electorate = self.views[G0].electorate.clone();
        let odd = |n: usize| if n.is_multiple_of(2) { n.saturating_sub(1) } else { n };
        let next = self
            .phases
            .iter()
            .find(|(name, phase)| **phase == Phase::Whole && electorate.iter().all(|v| v.node_id != **name));
        if electorate.len() > most {
            let last = electorate.iter().rposition(|v| v.node_id != self.leader).unwrap();
            electorate.remove(last);
        } else if let Some((name, _)) =
            next.filter(|_| !self.frozen && electorate.len() < odd(most.min(self.phases.len())))
        {
            let kind = if name.contains("-gateway-") { "gateway" } else { "target" };
            let seat = Voter { node_id: name.clone(), disk_id: format!("disk-{name}"), kind: kind.into() };
            electorate.push(seat);
        }
        self.views.values_mut().for_each(|view| view.electorate.clone_from(&electorate));
    }

    pub fn members(&self) -> Vec<ais_operator::view::Member> {
        let mut members = self.views[G0].members.clone();
        if members.is_empty() {
            members = self.views.values().find(|v| !v.members.is_empty()).unwrap().members.clone();
        }
        for member in &mut members {
            let whole = self.phases[&member.node_id] == Phase::Whole;
            member.connected = whole && member.node_id != self.leader;
            member.acked = member.acked.filter(|_| whole).map(|s| ais_operator::view::Stamp { epoch: self.epoch, ..s });
        }
        members
    }

    /// One pass, and what follows from it at once.
    pub fn step(&mut self) -> Pass {
        let pass = self.world.step();
        for write in &pass.writes {
            if let Write::DeletePod { name, .. } = write {
                self.judge_removal(name, &pass);
                self.removed.push(name.clone());
                self.phases.insert(name.clone(), Phase::Starting);
                let most = self.world.observed.cluster.spec.ha.voters;
                self.voters.insert(name.clone(), usize::try_from(most).unwrap());
            }
        }
        self.events.extend(pass.events());
        self.world.observed.outcome = None;
        if let Some(transfer) = &pass.plan.primary.transfer {
            assert_eq!(self.phases[&transfer.to], Phase::Whole, "the primary goes to a whole gateway");
            self.moves.push(transfer.to.clone());
            self.leader.clone_from(&transfer.to);
            self.epoch += 1;
        }
        // Pods of that name come back as other pods.
        let before: BTreeSet<String> = self.world.observed.pods.iter().map(|p| p.uid.clone()).collect();
        self.world.start_pods();
        for pod in self.world.observed.pods.iter_mut().filter(|p| !before.contains(&p.uid)) {
            self.made += 1;
            pod.uid = format!("{}-{}", pod.name, self.made);
        }
        self.world.observed.pods.sort_by_key(|p| (p.role, p.ordinal));
        self.world.after(1);
        self.publish();
        pass
    }

    /// Whatever it is: the rest has a majority. What is of use leaves only when nobody else is away.
    pub fn judge_removal(&self, name: &str, pass: &Pass) {
        let away: Vec<&String> =
            self.phases.iter().filter(|(n, p)| *n != name && **p != Phase::Whole).map(|(n, _)| n).collect();
        let electorate = &self.views[G0].electorate;
        let votes = |n: &str| electorate.iter().any(|v| v.node_id == n);
        if self.phases[name] != Phase::Starting && electorate.len() > 2 {
            let here = electorate.iter().filter(|v| v.node_id != name && !away.contains(&&v.node_id)).count();
            assert!(here >= majority(electorate.len()), "{name} leaves {here} of {}", electorate.len());
        }
        if self.phases[name] == Phase::Whole {
            let most = self.world.observed.cluster.spec.update.targets.max_unavailable;
            let bearable = away.iter().all(|n| n.contains("-target-") && !votes(n)) && !votes(name);
            let limit = if bearable { usize::try_from(most).unwrap() - 1 } else { 0 };
            assert!(away.len() <= limit, "{name} goes while {away:?} are away");
            let alone = self.world.observed.cluster.spec.gateways.replicas == 1;
            assert!(*name != self.leader || alone, "{name} leads, and was deleted");
            assert!(pass.plan.primary.transfer.is_none());
        }
    }

    /// Everybody who can goes one phase on.
    pub fn come_up(&mut self) {
        for (name, phase) in &mut self.phases {
            let revision = self.world.observed.pods.iter().find(|p| p.name == *name).map(|p| p.revision.clone());
            if revision.is_some_and(|r| self.bad.contains(&r)) {
                *phase = Phase::Starting;
                continue;
            }
            *phase = match phase {
                Phase::Starting => Phase::Running,
                Phase::Running => Phase::Ready,
                Phase::Ready | Phase::Whole => Phase::Whole,
            };
        }
        self.seat();
        self.publish();
    }

    pub fn run(&mut self, steps: usize) -> Pass {
        for _ in 0..steps {
            self.step();
            self.come_up();
        }
        self.step()
    }

    pub fn revision(&self, role: Role) -> String {
        self.world.observed.sets[&role].revision.clone()
    }

    pub fn told(&self) -> Vec<&'static str> {
        self.events.iter().copied().filter(|e| e.starts_with("Rollout")).collect()
    }

    pub fn is_done(&self) -> bool {
        let status = self.world.observed.cluster.status.as_ref().unwrap();
        status.rollout.as_ref().is_some_and(|r| r.state == "Completed")
            && self.world.observed.pods.iter().all(|p| p.revision == self.revision(p.role.unwrap()))
    }
}
