//! Roll-outs: their order, what stops them, how they go on, and that they always end.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use ais_operator::apply::Write;
use ais_operator::facts::Trouble;
use ais_operator::names::Role;
use ais_operator::plan::rollout::State;
use ais_operator::view::{NodeView, Report, majority};
use common::{Pass, World};
use proptest::prelude::*;
use serde_json::{Value, json};

const G0: &str = "demo-gateway-0";
const G1: &str = "demo-gateway-1";
const G2: &str = "demo-gateway-2";
const T0: &str = "demo-target-0";
const T1: &str = "demo-target-1";

/// How far a pod is on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Starting,
    Running,
    Ready,
    Whole,
}

/// Nodes beside the facts: they come up in phases, follow whoever leads, and do what the operator asks.
struct Sim {
    world: World,
    leader: String,
    epoch: u64,
    phases: BTreeMap<String, Phase>,
    views: BTreeMap<String, NodeView>,
    /// Revisions whose pods never come up.
    bad: BTreeSet<String>,
    removed: Vec<String>,
    moves: Vec<String>,
    events: Vec<&'static str>,
    made: u32,
}

impl Sim {
    fn new(spec: Value, leader: &str) -> Self {
        let mut world = World::settled(spec);
        world.lead(leader, 5);
        world.step();
        let pods: Vec<String> = world.observed.pods.iter().map(|p| p.name.clone()).collect();
        let views = pods.iter().map(|p| (p.clone(), world.view(p).clone())).collect();
        let phases = pods.into_iter().map(|p| (p, Phase::Whole)).collect();
        let (removed, moves, events) = (Vec::new(), Vec::new(), Vec::new());
        let mut sim = Self {
            world,
            leader: leader.into(),
            epoch: 5,
            phases,
            views,
            bad: BTreeSet::new(),
            removed,
            moves,
            events,
            made: 0,
        };
        sim.publish();
        sim
    }

    /// A new template for both roles.
    fn change(&mut self, version: &str) {
        let template = json!({"template": {"annotations": {"version": version}}});
        self.world.set_spec(json!({"gateways": template, "targets": template}));
        self.step();
    }

    fn change_role(&mut self, role: &str, version: &str) {
        self.world.set_spec(json!({role: {"template": {"annotations": {"version": version}}}}));
        self.step();
    }

    /// Facts as the nodes and the kubelet make them.
    fn publish(&mut self) {
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
                ..view.clone()
            };
            let report = if *phase >= Phase::Ready { Report::Live(Box::new(view)) } else { Report::Lost("no".into()) };
            self.world.observed.reports.insert(name.clone(), report);
        }
    }

    fn members(&self) -> Vec<ais_operator::view::Member> {
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
    fn step(&mut self) -> Pass {
        let pass = self.world.step();
        for write in &pass.writes {
            if let Write::DeletePod { name, .. } = write {
                self.judge_removal(name, &pass);
                self.removed.push(name.clone());
                self.phases.insert(name.clone(), Phase::Starting);
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
    fn judge_removal(&self, name: &str, pass: &Pass) {
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
    fn come_up(&mut self) {
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
        self.publish();
    }

    fn run(&mut self, steps: usize) -> Pass {
        for _ in 0..steps {
            self.step();
            self.come_up();
        }
        self.step()
    }

    fn revision(&self, role: Role) -> String {
        self.world.observed.sets[&role].revision.clone()
    }

    fn told(&self) -> Vec<&'static str> {
        self.events.iter().copied().filter(|e| e.starts_with("Rollout")).collect()
    }

    fn is_done(&self) -> bool {
        let status = self.world.observed.cluster.status.as_ref().unwrap();
        status.rollout.as_ref().is_some_and(|r| r.state == "Completed")
            && self.world.observed.pods.iter().all(|p| p.revision == self.revision(p.role.unwrap()))
    }
}

fn is(pass: &Pass, kind: &str, status: &str, reason: &str) {
    assert_eq!(pass.condition(kind), (status.to_owned(), reason.to_owned()), "{kind}: {}", pass.message(kind));
}

#[test]
fn without_a_vote_first_then_voters_the_primary_last_after_one_move() {
    let mut sim = Sim::new(json!({"targets": {"replicas": 3}}), G0);
    sim.change("2");
    let first = sim.step();
    is(&first, "Progressing", "True", "RollingTargets");
    is(&first, "RolloutPending", "True", "RollingOut");
    is(&first, "Ready", "False", "RollingOut");
    assert_eq!(first.status.phase.as_deref(), Some("Updating"));
    let last = sim.run(40);
    // Five vote: the three gateways and the first two targets.
    assert_eq!(sim.removed, ["demo-target-2", T1, T0, G2, G1, G0]);
    assert_eq!(sim.moves, [G1]);
    assert_eq!(sim.told(), ["RolloutStarted", "RolloutCompleted"]);
    let rollout = last.status.rollout.clone().unwrap();
    assert_eq!((rollout.state.as_str(), rollout.moves, rollout.updated, rollout.of), ("Completed", 1, 6, 6));
    is(&last, "RolloutPending", "False", "UpToDate");
    is(&last, "Ready", "True", "Ready");
    let history = &last.status.primary.history;
    assert_eq!((history[0].reason.as_str(), history[0].to.as_str()), ("Rollout", G1));
    assert!(sim.step().writes.is_empty());
}

#[test]
fn only_the_role_that_changed_is_rolled() {
    let mut sim = Sim::new(json!({}), G2);
    sim.change_role("targets", "2");
    is(&sim.step(), "Progressing", "True", "RollingTargets");
    sim.run(20);
    assert_eq!((sim.removed.join(" "), sim.moves.len()), (format!("{T1} {T0}"), 0));
    sim.change_role("gateways", "2");
    is(&sim.step(), "Progressing", "True", "RollingGateways");
    sim.run(30);
    assert_eq!((&sim.removed[2..], sim.moves.clone()), (&[G1, G0, G2].map(str::to_owned)[..], vec![G0.to_owned()]));
    assert!(sim.is_done());
}

#[test]
fn the_preferred_primary_leads_again_after_two_moves() {
    let mut sim = Sim::new(json!({"primary": {"preferred": [G1, G0]}}), G1);
    sim.change("2");
    let last = sim.run(40);
    assert_eq!(sim.moves, [G0, G1], "to the next of the list, and back");
    assert_eq!(last.status.rollout.as_ref().unwrap().moves, 2);
    assert_eq!(last.status.primary.current.as_deref(), Some(G1));
    assert!(sim.is_done());
    is(&last, "PrimaryPreferred", "True", "PreferredIsPrimary");
}

#[test]
fn a_preferred_gateway_that_did_not_lead_receives_the_one_move() {
    let mut sim = Sim::new(json!({"primary": {"preferred": [G2]}}), G0);
    sim.change("2");
    sim.run(40);
    assert_eq!(sim.moves, [G2]);
    assert!(sim.is_done());
}

#[test]
fn the_way_back_is_given_up_when_it_stays_closed() {
    let mut sim = Sim::new(json!({"primary": {"preferred": [G0], "requestTTLSeconds": 60}}), G0);
    sim.change("2");
    while sim.moves.is_empty() || sim.removed.last().map(String::as_str) != Some(G0) {
        sim.step();
        sim.come_up();
    }
    for view in sim.views.values_mut() {
        view.members.iter_mut().filter(|m| m.node_id == G0).for_each(|m| m.non_electable = true);
    }
    sim.run(30);
    assert!(!sim.is_done());
    sim.run(60);
    assert_eq!(sim.moves, [G1]);
    assert!(sim.is_done());
}

#[test]
fn a_template_that_does_not_work_stops_at_the_first_pod_and_is_mended_there() {
    let mut sim = Sim::new(json!({}), G0);
    sim.bad.insert(String::new());
    sim.change("broken");
    sim.bad = Role::ALL.map(|r| sim.revision(r)).into();
    sim.run(18);
    is(&sim.step(), "Degraded", "False", "AsExpected");
    let stuck = sim.run(10);
    is(&stuck, "Degraded", "True", "RolloutStuck");
    is(&stuck, "RolloutPending", "True", "RolloutStuck");
    is(&stuck, "Progressing", "False", "RolloutStuck");
    assert!(stuck.plan.requeue.as_secs() >= 5, "no reason to look every second");
    assert!(stuck.message("Degraded").contains(T1) && stuck.message("Degraded").contains("ImagePullBackOff"));
    assert_eq!((sim.removed.clone(), sim.moves.len(), sim.leader.as_str()), (vec![T1.to_owned()], 0, G0));
    let before = sim.world.observed.cluster.status.clone();
    assert!(sim.run(300).writes.is_empty());
    assert_eq!(sim.world.observed.cluster.status, before, "a stuck roll-out is calm");
    // Found by a review: a container that crashes again and again runs for a moment each time, which looked like a new
    // start: conditions and events went to and fro.
    let waited = before.as_ref().and_then(|st| st.rollout.as_ref()?.waits_since.clone()).unwrap();
    sim.world.observed.now = waited.0 + jiff::SignedDuration::from_secs(60);
    let pod = sim.world.pod(T1);
    (pod.trouble, pod.running) = (None, true);
    let runs = sim.world.step();
    is(&runs, "Degraded", "True", "RolloutStuck");
    assert!(runs.events().is_empty(), "{:?}", runs.events());
    sim.publish();
    sim.change("mended");
    sim.run(50);
    assert_eq!(sim.removed[1], T1, "the broken one goes first, at once");
    assert_eq!(sim.told(), ["RolloutStarted", "RolloutPaused", "RolloutResumed", "RolloutCompleted"]);
    assert!(sim.is_done());
    assert_eq!(sim.moves.len(), 1);
}

#[test]
fn taking_a_broken_template_back_replaces_only_the_broken_pod() {
    let mut sim = Sim::new(json!({}), G0);
    let good = Role::ALL.map(|r| sim.revision(r));
    let template = json!({"template": {"annotations": {"version": "broken"}}});
    sim.world.set_spec(json!({"gateways": template, "targets": template}));
    sim.step();
    sim.bad = Role::ALL.map(|r| sim.revision(r)).into();
    sim.run(30);
    let template = json!({"template": {"annotations": null}});
    sim.world.set_spec(json!({"gateways": template, "targets": template}));
    sim.run(20);
    assert_eq!(Role::ALL.map(|r| sim.revision(r)), good);
    assert_eq!(sim.removed, [T1, T1]);
    assert!(sim.is_done() && sim.moves.is_empty());
}

#[test]
fn a_pod_that_never_gets_ready_is_waited_for_longer_without_kubernetes_word() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change("2");
    sim.step();
    for _ in 0..320 {
        sim.step();
    }
    is(&sim.step(), "Degraded", "False", "AsExpected");
    for _ in 0..20 {
        sim.step();
    }
    is(&sim.step(), "Degraded", "True", "RolloutStuck");
    sim.run(40);
    assert!(sim.is_done(), "it came up after all");
}

#[test]
fn a_broken_pod_of_the_old_template_goes_first_and_needs_no_move() {
    let mut sim = Sim::new(json!({}), G0);
    sim.phases.insert(G1.into(), Phase::Starting);
    sim.publish();
    sim.change("2");
    sim.step();
    assert_eq!(sim.removed, [G1]);
    // One that runs and is not ready: only as long as the others have a majority.
    let mut sim = Sim::new(json!({}), G0);
    for pod in [G1, G2] {
        sim.phases.insert(pod.into(), Phase::Running);
    }
    sim.publish();
    sim.change("2");
    sim.step();
    assert_eq!(sim.removed, [G2]);
    sim.step();
    assert_eq!(sim.removed, [G2], "the other one waits until that one's process runs");
}

#[test]
fn supervised_waits_before_the_primary_and_each_way_on_works() {
    type Way = fn(&mut Sim);
    let ways: [Way; 3] = [
        |s| s.world.set_spec(json!({"update": {"gateways": {"strategy": "Unsupervised"}}})),
        |s| s.world.set_spec(json!({"primary": {"preferred": [G2]}})),
        |s| {
            // Its pod was deleted: another gateway was elected.
            s.world.observed.pods.retain(|p| p.name != G0);
            s.phases.insert(G0.into(), Phase::Starting);
            (s.leader, s.epoch) = (G2.into(), s.epoch + 1);
            s.publish();
        },
    ];
    for way in ways {
        let mut sim = Sim::new(json!({"update": {"gateways": {"strategy": "Supervised"}}}), G0);
        sim.change("2");
        let waits = sim.run(40);
        is(&waits, "RolloutPending", "True", "Supervised");
        is(&waits, "Progressing", "False", "Supervised");
        is(&waits, "Degraded", "False", "AsExpected");
        assert!(waits.message("RolloutPending").contains("spec.update.gateways.strategy"));
        assert_eq!((sim.removed.len(), sim.moves.len()), (4, 0));
        assert!(waits.plan.requeue.as_secs() >= 5, "no reason to look every second");
        let before = sim.world.observed.cluster.status.clone();
        assert!(sim.run(100).writes.is_empty());
        assert_eq!(sim.world.observed.cluster.status, before, "waiting for a person is calm");
        way(&mut sim);
        sim.run(30);
        assert!(sim.is_done() && sim.leader != G0, "{:?} {:?}", sim.removed, sim.moves);
        assert_eq!(sim.told(), ["RolloutStarted", "RolloutPaused", "RolloutResumed", "RolloutCompleted"]);
    }
}

#[test]
fn paused_takes_no_pod() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change("2");
    sim.run(3);
    let removed = sim.removed.len();
    sim.world.set_spec(json!({"paused": true}));
    let pass = sim.run(20);
    is(&pass, "RolloutPending", "True", "Paused");
    assert_eq!(sim.removed.len(), removed);
    sim.world.set_spec(json!({"paused": false}));
    sim.run(40);
    assert!(sim.is_done());
}

#[test]
fn one_gateway_is_restarted_without_a_move() {
    let mut sim = Sim::new(json!({"gateways": {"replicas": 1}, "targets": {"replicas": 2}}), G0);
    sim.change("2");
    sim.run(30);
    assert_eq!((sim.removed.clone(), sim.moves.len()), ([T1, T0, G0].map(str::to_owned).to_vec(), 0));
    assert!(sim.is_done());
}

#[test]
fn several_targets_without_a_vote_may_go_together() {
    let spec = json!({"targets": {"replicas": 6}, "update": {"targets": {"maxUnavailable": 3}}});
    let mut sim = Sim::new(spec, G0);
    sim.change_role("targets", "2");
    sim.step();
    assert_eq!(sim.removed, ["demo-target-5", "demo-target-4", "demo-target-3"]);
    sim.run(30);
    assert_eq!(sim.removed[3..], ["demo-target-2", T1, T0].map(str::to_owned));
    assert!(sim.is_done());
}

#[test]
fn a_lost_status_changes_nothing_but_what_is_told() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change("2");
    for _ in 0..40 {
        sim.world.observed.cluster.status.as_mut().unwrap().rollout = None;
        sim.step();
        sim.come_up();
    }
    sim.run(3);
    assert_eq!((sim.removed.len(), sim.moves.len()), (5, 1));
    assert!(sim.world.observed.pods.iter().all(|p| p.revision == sim.revision(p.role.unwrap())));
}

#[test]
fn no_pod_goes_in_a_pass_that_writes_objects_or_knows_no_revision() {
    let mut sim = Sim::new(json!({}), G0);
    sim.change("2");
    let template = json!({"template": {"annotations": {"version": "3"}}});
    sim.world.set_spec(json!({"gateways": template, "targets": template}));
    let pass = sim.world.pass();
    assert!(pass.writes.iter().any(|w| matches!(w, Write::Apply(_))));
    assert!(!pass.writes.iter().any(|w| matches!(w, Write::DeletePod { .. })));
    sim.step();
    sim.world.observed.sets.get_mut(&Role::Gateway).unwrap().revision = String::new();
    let pass = sim.step();
    assert_eq!(pass.plan.rollout.state, State::Rolling);
    assert!(sim.removed.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens in between (elections, restarts of nodes, a lost status), pods go one at a time, a majority
    /// stays, and everything is of the newest template at the end.
    #[test]
    fn a_roll_out_always_ends_and_never_takes_a_majority(
        gateways in 1..5i32, targets in 1..5i32, max_unavailable in 1..3i32, preferred in proptest::option::of(0..4i32),
        leader in 0..4i32, faults in proptest::collection::vec((0..40usize, 0..4u8, 0..8usize), 0..6),
    ) {
        let mut spec = json!({
            "gateways": {"replicas": gateways}, "targets": {"replicas": targets},
            "update": {"targets": {"maxUnavailable": max_unavailable}},
        });
        let preferred = preferred.map(|n| format!("demo-gateway-{}", n % gateways));
        if let Some(name) = &preferred {
            spec["primary"] = json!({"preferred": [name], "requestTTLSeconds": 30});
        }
        let leader = format!("demo-gateway-{}", leader % gateways);
        let mut sim = Sim::new(spec, &leader);
        // An ask that was open at the start is none of the roll-out's moves.
        sim.run(5);
        let (first, asked) = (sim.leader.clone(), sim.moves.len());
        sim.change("2");
        for step in 0..100 {
            for (_, fault, at) in faults.iter().filter(|(when, ..)| *when == step) {
                let pods: Vec<String> = sim.phases.keys().cloned().collect();
                let pod = &pods[at % pods.len()];
                match fault {
                    0 if *pod != sim.leader => { sim.phases.insert(pod.clone(), Phase::Running); }
                    1 if *pod != sim.leader => { sim.phases.insert(pod.clone(), Phase::Starting); }
                    2 if pod.contains("gateway") && sim.phases[pod] == Phase::Whole => {
                        (sim.leader, sim.epoch) = (pod.clone(), sim.epoch + 1);
                    }
                    3 => sim.world.observed.cluster.status.as_mut().unwrap().rollout = None,
                    _ => {}
                }
                sim.publish();
            }
            sim.step();
            if step % 2 == 0 { sim.come_up(); }
        }
        prop_assert!(sim.world.observed.pods.iter().all(|p| p.revision == sim.revision(p.role.unwrap())),
            "removed {:?}, moves {:?}, {:?}", sim.removed, sim.moves, sim.world.observed.cluster.status);
        if faults.is_empty() {
            let expected = if gateways == 1 { 0 } else if preferred.as_deref() == Some(first.as_str()) { 2 } else { 1 };
            prop_assert_eq!(sim.moves.len() - asked, expected);
            prop_assert_eq!(sim.removed.len(), usize::try_from(gateways + targets).unwrap());
            prop_assert!(sim.is_done());
        }
    }
}
