//! Members leave one at a time and never with the majority; volumes, the orderly stop, deletions.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "scale/sim.rs"]
mod sim;

use ais_operator::apply::{Write, final_writes};
use ais_operator::facts::{ClaimFact, ClaimKind, Kind};
use ais_operator::names::Role;
use ais_operator::perform::TransferOutcome;
use ais_operator::plan::deletion::deletion;
use ais_operator::plan::order::Order;
use ais_operator::plan::storage::milli;
use ais_operator::status;
use common::World;
use proptest::prelude::*;
use serde_json::{Value, json};
use sim::{Fault, Sim};

const G0: &str = "demo-gateway-0";
const G1: &str = "demo-gateway-1";
const G2: &str = "demo-gateway-2";

fn two_gateways() -> World {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"gateways": {"replicas": 2}}));
    world
}

/// The last gateway leaves the map and the electorate, as all nodes publish it.
fn take_out(world: &mut World, pod: &str) {
    world.member(G0, pod).in_smap = false;
    let views: Vec<String> = world.observed.reports.keys().cloned().collect();
    for name in views {
        world.view(&name).electorate.retain(|v| v.node_id != pod);
        world.view(&name).smap_version += 1;
    }
}

#[test]
fn a_gateway_leaves_in_this_order() {
    let mut world = two_gateways();
    let pass = world.step();
    assert_eq!(world.observed.discovery.as_ref().unwrap().removed, [G2], "first the file");
    assert_eq!(pass.plan.order, None);
    assert_eq!(pass.events(), ["GatewayRemovalStarted"]);
    assert_eq!(pass.condition("Progressing"), ("True".into(), "ScalingDown".into()));
    let pass = world.step();
    assert_eq!(pass.plan.order, Some(Order::Decommission(G2.into())), "then the call");
    world.member(G0, G2).decommission = true;
    let pass = world.step();
    assert_eq!((pass.plan.order, pass.plan.replicas.of(Role::Gateway)), (None, 3));
    world.member(G0, G2).in_smap = false;
    assert_eq!(world.step().plan.replicas.of(Role::Gateway), 3, "it still votes");
    take_out(&mut world, G2);
    for pod in [G1, "demo-target-0", "demo-target-1"] {
        world.view(pod).smap_version -= 1;
    }
    assert_eq!(world.step().plan.replicas.of(Role::Gateway), 3, "only the primary says so");
    for pod in [G1, "demo-target-0", "demo-target-1"] {
        world.view(pod).smap_version += 1;
    }
    world.step();
    assert!(world.observed.claims.iter().any(|c| c.removed && c.name == format!("state-{G2}")), "marked");
    let pass = world.step();
    assert_eq!(pass.plan.replicas.of(Role::Gateway), 2);
    assert_eq!(pass.events(), ["GatewayRemovalCompleted"]);
    let pass = world.step();
    assert!(pass.plan.scale.dropped.is_empty(), "the pod is still there");
    assert_eq!(world.observed.discovery.as_ref().unwrap().removed, [G2]);
    world.observed.pods.retain(|p| p.name != G2);
    world.observed.reports.remove(G2);
    let pass = world.step();
    assert_eq!(pass.plan.scale.dropped.len(), 1);
    world.step();
    assert!(world.observed.discovery.as_ref().unwrap().removed.is_empty());
    assert_eq!(world.observed.discovery.as_ref().unwrap().peers.len(), 4);
    let pass = world.pass();
    assert!(pass.writes.is_empty() && pass.status.operation.is_none(), "{:?}", pass.writes);
    assert_eq!(pass.condition("Progressing"), ("False".into(), "Idle".into()));
}

#[test]
fn the_primary_goes_elsewhere_first_and_not_to_one_that_goes_next() {
    let mut world = World::settled(json!({"gateways": {"replicas": 5}}));
    world.lead("demo-gateway-4", 2);
    world.step();
    world.set_spec(json!({"gateways": {"replicas": 2}, "primary": {"preferred": [G1]}}));
    for _ in 0..3 {
        let errand = world.step().plan.scale.errand.unwrap();
        assert_eq!((errand.reason, errand.away_from.as_str()), ("ScaleDown", "demo-gateway-4"));
        assert_eq!(errand.prefer, [G1, G0]);
    }
    assert_eq!(world.pass().plan.order, None);
}

#[test]
fn what_speaks_against_it_is_said_and_after_a_while_louder() {
    let mut world = two_gateways();
    world.step();
    world.lose(G1);
    let pass = world.step();
    assert_eq!(pass.plan.order, None);
    assert_eq!(pass.condition("ScaleDownBlocked"), ("True".into(), "VoterDown".into()));
    assert!(pass.message("ScaleDownBlocked").contains(G1));
    let stuck = world.after(601).step();
    assert_eq!(stuck.condition("Degraded"), ("True".into(), "DecommissionStuck".into()));
    assert!(stuck.message("Degraded").contains(G2) && stuck.message("Degraded").contains(G1));
    // It goes on when it can.
    world.lead(G0, 1);
    world.pod(G1).ready = true;
    assert_eq!(world.step().plan.order, Some(Order::Decommission(G2.into())));
    world.observed.order = Some((Order::Decommission(G2.into()), TransferOutcome::Refused("busy (409)".into())));
    let pass = world.step();
    assert_eq!(pass.condition("ScaleDownBlocked"), ("True".into(), "Refused".into()));
    assert!(pass.message("ScaleDownBlocked").contains("busy (409)"));
    assert_eq!(pass.plan.order, Some(Order::Decommission(G2.into())), "asked again all the same");
    world.set_spec(json!({"paused": true}));
    let pass = world.step();
    assert_eq!((pass.plan.order.clone(), pass.condition("ScaleDownBlocked").1), (None, "Paused".into()));
}

#[test]
fn raising_the_number_again_takes_back_only_what_has_not_begun() {
    let mut world = two_gateways();
    world.step();
    world.set_spec(json!({"gateways": {"replicas": 4}}));
    let pass = world.step();
    assert!(pass.plan.scale.removal.is_none() && pass.plan.replicas.of(Role::Gateway) == 4);
    assert!(world.observed.discovery.as_ref().unwrap().removed.is_empty());

    let mut world = two_gateways();
    world.step();
    world.member(G0, G2).decommission = true;
    world.set_spec(json!({"gateways": {"replicas": 4}}));
    let pass = world.step();
    assert_eq!(pass.plan.scale.removal.unwrap().pod, G2, "cannot be taken back");
    assert_eq!(pass.plan.replicas.of(Role::Gateway), 3);
    take_out(&mut world, G2);
    world.step();
    assert_eq!(world.step().plan.replicas.of(Role::Gateway), 2);
    assert_eq!(world.step().plan.replicas.of(Role::Gateway), 2, "its pod still ends");
    world.observed.pods.retain(|p| p.name != G2);
    world.observed.reports.remove(G2);
    assert_eq!(world.step().plan.replicas.of(Role::Gateway), 2, "its volume of the last life goes first");
    assert_eq!(world.step().plan.replicas.of(Role::Gateway), 4);
}

#[test]
fn a_retained_target_keeps_its_place_and_comes_back_into_service() {
    let mut world = World::settled(json!({"scaleDown": {"policy": "Retain"}}));
    world.set_spec(json!({"targets": {"replicas": 1}}));
    let pod = "demo-target-1";
    assert_eq!(world.step().events(), ["TargetRetireStarted"]);
    assert_eq!(world.step().plan.order, Some(Order::StartMaintenance(pod.into())));
    world.member(G0, pod).maintenance = true;
    assert_eq!(world.step().plan.replicas.of(Role::Target), 2, "it still votes");
    let views: Vec<String> = world.observed.reports.keys().cloned().collect();
    views.iter().for_each(|name| world.view(name).electorate.retain(|v| v.node_id != pod));
    let pass = world.step();
    assert_eq!((pass.events(), pass.plan.replicas.of(Role::Target)), (vec!["TargetRetired"], 1));
    world.observed.pods.retain(|p| p.name != pod);
    world.observed.reports.remove(pod);
    world.member(G0, pod).connected = false;
    let pass = world.step();
    assert!(pass.plan.scale.dropped.is_empty() && pass.plan.scale.removed.is_empty());
    world.set_spec(json!({"targets": {"replicas": 2}}));
    assert_eq!(world.step().plan.replicas.of(Role::Target), 2);
    world.start_pods();
    world.lead(G0, 1);
    world.member(G0, pod).maintenance = true;
    assert_eq!(world.step().plan.order, Some(Order::StopMaintenance(pod.into())));
    world.member(G0, pod).maintenance = false;
    world.step();
    let pass = world.step();
    assert!(pass.plan.order.is_none() && pass.writes.is_empty());
    assert!(world.observed.claims.iter().all(|c| !c.retained));
}

#[test]
fn a_maintenance_that_somebody_else_began_stays() {
    let mut world = World::settled(json!({}));
    world.member(G0, "demo-target-1").maintenance = true;
    assert_eq!(world.step().plan.order, None);
}

#[test]
fn a_set_that_is_made_anew_loses_nobody() {
    let mut world = World::settled(json!({}));
    world.observed.sets.remove(&Role::Gateway);
    world.observed.live.remove(&(Kind::StatefulSet, "demo-gateway".into()));
    world.set_spec(json!({"gateways": {"replicas": 1}}));
    world.step();
    assert_eq!(world.observed.sets[&Role::Gateway].replicas, 3);
}

fn stopping(world: &mut World, yes: bool) {
    let pods: Vec<String> = world.observed.reports.keys().cloned().collect();
    pods.iter().for_each(|pod| world.view(pod).cluster_stopping = yes);
}

#[test]
fn a_stop_is_announced_before_the_first_pod_goes() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"state": "Stopped"}));
    let pass = world.step();
    assert_eq!((pass.plan.order, pass.plan.replicas.of(Role::Gateway)), (Some(Order::Stopping(true)), 3));
    world.view(G0).cluster_stopping = true;
    let pass = world.step();
    assert_eq!(pass.plan.replicas.of(Role::Gateway), 3, "the majority does not know");
    stopping(&mut world, true);
    let pass = world.step();
    assert_eq!(pass.condition("Available"), ("False".into(), "Stopping".into()));
    assert_eq!(pass.status.phase.as_deref(), Some("Stopping"));
    let replicas = |w: &World| Role::ALL.map(|r| (w.observed.sets[&r].replicas, w.observed.sets[&r].replicas_asked));
    assert_eq!(replicas(&world), [(0, 3), (0, 2)]);
    // One after the other they end, and nobody leads any more: it does not turn back.
    for pod in [G0, G1, "demo-target-0"] {
        world.observed.pods.retain(|p| p.name != pod);
        world.observed.reports.remove(pod);
        world.step();
        assert_eq!(replicas(&world), [(0, 3), (0, 2)]);
    }
    world.observed.pods.clear();
    world.observed.reports.clear();
    let pass = world.step();
    assert_eq!(pass.condition("Available"), ("False".into(), "Stopped".into()));
    assert_eq!(pass.condition("Progressing"), ("False".into(), "Stopped".into()));
    assert_eq!(pass.condition("Degraded").0, "False");
    assert_eq!(pass.status.phase.as_deref(), Some("Stopped"));
    assert_eq!(pass.status.gateways.summary, "0/3");
    // Found by an audit: for weeks `kubectl get` showed who had led last, and voters that were connected.
    let memory = &pass.status.primary;
    assert_eq!((&memory.current, &memory.current_node_id, &memory.since, memory.epoch), (&None, &None, &None, None));
    assert_eq!((pass.status.electorate.len(), pass.status.smap.version), (0, None));
    assert_eq!(pass.status.smap.summary, "0/5");
    assert_eq!(world.observed.discovery.as_ref().unwrap().peers.len(), 5, "the members stay");
    let rest = world.after(86_400).step();
    assert!(rest.writes.is_empty() && rest.condition("Degraded").0 == "False");

    world.set_spec(json!({"state": "Running"}));
    let pass = world.step();
    assert_eq!(replicas(&world), [(3, 3), (2, 2)]);
    assert_eq!(pass.condition("Degraded").0, "False", "nobody was missed while it was stopped");
    assert_eq!(pass.status.phase.as_deref(), Some("Starting"), "nobody is needed for it");
    world.start_pods();
    world.pod(G1).ready = false;
    assert_eq!(world.after(20).step().condition("Degraded").0, "False");
    world.pod(G1).ready = true;
    world.lead(G1, 2);
    world.step();
    let pass = world.step();
    assert_eq!(pass.condition("Ready").0, "True");
    assert!(pass.status.operation.is_none());
}

#[test]
fn a_stop_does_not_wait_for_a_primary_for_ever_and_can_be_taken_back() {
    let mut world = World::settled(json!({}));
    world.lose(G0);
    world.lose(G1);
    world.lose(G2);
    world.set_spec(json!({"state": "Stopped"}));
    assert_eq!(world.step().plan.replicas.of(Role::Gateway), 3);
    assert_eq!(world.after(31).step().plan.replicas.of(Role::Gateway), 0);

    let mut world = World::settled(json!({}));
    world.set_spec(json!({"state": "Stopped", "gateways": {"replicas": 2}}));
    world.step();
    stopping(&mut world, true);
    world.set_spec(json!({"state": "Running"}));
    let pass = world.step();
    assert_eq!((pass.plan.order, pass.plan.replicas.of(Role::Gateway)), (Some(Order::Stopping(false)), 3));
    stopping(&mut world, false);
    assert_eq!(world.step().plan.scale.removal.unwrap().pod, G2, "and then the members, one by one");
}

fn deleted(spec: Value) -> World {
    let mut world = World::settled(spec);
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.observed.now);
    world.observed.cluster.metadata.deletion_timestamp = Some(now);
    world
}

fn gone(world: &mut World) {
    world.observed.sets.values_mut().for_each(|s| s.replicas = 0);
    world.observed.pods.clear();
    world.observed.reports.clear();
}

#[test]
fn retain_ends_the_pods_in_order_and_lets_go() {
    let mut world = deleted(json!({}));
    assert_eq!(deletion(&world.observed).order, Some(Order::Stopping(true)));
    stopping(&mut world, true);
    let plan = deletion(&world.observed);
    assert_eq!(plan.emptied.len(), 2);
    assert!(plan.claims.is_empty() && !plan.release);
    gone(&mut world);
    let plan = deletion(&world.observed);
    assert!(plan.release && final_writes(&plan).is_empty());
    assert_eq!(plan.notes[0].reason, "VolumesRetained");
}

#[test]
fn retain_lets_go_after_the_time_out_whatever_happens() {
    let mut world = deleted(json!({"deletionTimeoutSeconds": 60}));
    world.after(61);
    let plan = deletion(&world.observed);
    assert!(plan.release);
    assert_eq!((plan.notes[0].reason, plan.notes[0].warning), ("DeletionTimedOut", true));
    assert!(plan.notes[0].message.contains(G0));
    let mut world = deleted(json!({"paused": true}));
    assert!(deletion(&world.observed).release, "a pause does not hold the resource back");
    world.set_spec(json!({"deletionPolicy": "Delete", "deletionConfirmation": "demo"}));
    let plan = deletion(&world.observed);
    assert!(!plan.release && final_writes(&plan).is_empty(), "but it keeps the data");
}

/// Regression: pods whose set was deleted without them, to grow their volumes, outlived the resource with Retain, and
/// kept it for ever with Delete.
#[test]
fn pods_without_a_set_are_ended_one_by_one() {
    let mut pods: Vec<String> = Vec::new();
    for spec in [json!({}), json!({"deletionPolicy": "Delete", "deletionConfirmation": "demo"})] {
        let mut world = deleted(spec);
        world.observed.sets.remove(&Role::Gateway);
        world.pod(G1).deleting = true;
        stopping(&mut world, true);
        let plan = deletion(&world.observed);
        assert_eq!((plan.emptied.len(), plan.release), (1, false));
        for write in final_writes(&plan) {
            if let Write::DeletePod { name, uid, .. } = write {
                assert_eq!(world.pod(&name).uid, uid);
                pods.push(name);
            }
        }
    }
    assert_eq!(pods, [G0, G2, G0, G2], "those of the set that is there end with it");
    let mut world = deleted(json!({"deletionTimeoutSeconds": 60}));
    world.observed.sets.clear();
    let before = deletion(&world.observed);
    assert!(before.order.is_some() && before.orphans.is_empty(), "not before the nodes know of it");
    world.after(61);
    let plan = deletion(&world.observed);
    assert_eq!((plan.release, plan.orphans.len()), (true, 5), "let go, and nothing is left behind");
}

#[test]
fn delete_removes_the_claims_of_this_cluster_only_and_waits_for_them() {
    let mut world = deleted(json!({"deletionPolicy": "Delete", "deletionConfirmation": "demo"}));
    world.observed.claims[0].cluster_id = Some("another".into());
    let plan = deletion(&world.observed);
    assert_eq!((plan.order.clone(), plan.emptied.len(), plan.claims.len()), (None, 2, 0), "without asking the nodes");
    world.observed.pods.clear();
    assert_eq!(deletion(&world.observed).claims.len(), 0, "pods that are not made yet would come after all");
    gone(&mut world);
    world.after(601);
    let plan = deletion(&world.observed);
    assert_eq!((plan.notes[0].reason, plan.claims.len()), ("DataDeletionConfirmed", 6));
    assert!(!plan.release);
    let status = status::deleting(&world.observed, &plan);
    let told = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).map(|c| (&*c.status, &*c.reason));
    assert_eq!(told("Degraded"), Some(("True", "DeletionStuck")));
    // Found by an audit: it was Available, with a primary, until its last volume was gone.
    for kind in ["Ready", "Available", "HighlyAvailable"] {
        assert_eq!(told(kind), Some(("False", "Deleting")), "{kind}");
    }
    assert_eq!((&status.primary.current, status.electorate.len(), status.nodes.len()), (&None, 0, 0));
    assert_eq!((&*status.gateways.summary, &*status.targets.summary, &*status.smap.summary), ("0/3", "0/2", "0/5"));
    let uids: Vec<_> = world.observed.claims.iter().map(|c| c.uid.clone()).collect();
    for write in final_writes(&plan) {
        let Write::DeleteClaim { uid, .. } = write else { panic!("{write:?}") };
        assert!(uids.contains(&uid));
    }
    world.observed.claims[1..].iter_mut().for_each(|c| c.deleting = true);
    let plan = deletion(&world.observed);
    assert!(plan.notes.is_empty() && plan.claims.is_empty() && !plan.release, "told once");
    // The user may change his mind: what is left stays.
    world.set_spec(json!({"deletionPolicy": "Retain"}));
    assert!(deletion(&world.observed).release);
    world.set_spec(json!({"deletionPolicy": "Delete"}));
    world.observed.claims.truncate(1);
    let plan = deletion(&world.observed);
    assert_eq!((plan.release, plan.notes[0].reason), (true, "DataDeleted"));
}

#[test]
fn volumes_grow_and_then_the_set_is_made_anew() {
    let mut world = World::settled(json!({}));
    let pods = world.observed.pods.clone();
    world.set_spec(json!({"targets": {"storage": {"size": "2Gi"}}}));
    let pass = world.step();
    assert_eq!(pass.plan.storage.resizes.len(), 2);
    assert_eq!(pass.condition("StorageResized"), ("False".into(), "Resizing".into()));
    assert!(!pass.writes.iter().any(|w| matches!(w, Write::Apply(_))), "the set keeps its template");
    let pass = world.step();
    assert_eq!(pass.plan.storage.orphaned.len(), 1);
    let pass = world.step();
    assert!(pass.writes.iter().any(|w| matches!(w, Write::Apply(set) if set.key.1 == "demo-target")));
    let set = &world.observed.live[&(Kind::StatefulSet, "demo-target".into())];
    assert_eq!(set["spec"]["volumeClaimTemplates"][1]["spec"]["resources"]["requests"]["storage"], "2Gi");
    assert_eq!(world.observed.pods, pods);
    let data = |w: &mut World, size: &str| {
        w.observed.claims.iter_mut().filter(|c| c.kind == ClaimKind::Data).for_each(|c| c.capacity = Some(size.into()));
    };
    assert_eq!(world.step().condition("StorageResized").1, "Resizing");
    data(&mut world, "2Gi");
    world.step();
    let pass = world.step();
    assert_eq!(pass.condition("StorageResized"), ("True".into(), "AsAsked".into()));
    assert!(pass.writes.is_empty());
}

/// Found by an audit: a claim that a drained target had left was resized for ever, and one without a volume, which the
/// API server refuses to grow, was told as a class that does not expand and kept the set from being made anew.
#[test]
fn only_volumes_of_members_grow() {
    let mut world = World::settled(json!({}));
    let claim = |world: &World, name: &str| world.observed.claims.iter().find(|c| c.name == name).unwrap().clone();
    let left = ClaimFact { name: "data-demo-target-7".into(), ordinal: 7, ..claim(&world, "data-demo-target-1") };
    world.observed.claims.push(left);
    let pending = "data-demo-target-1";
    let set = |world: &mut World, name: &str, capacity: Option<&str>| {
        let claim = world.observed.claims.iter_mut().find(|c| c.name == name).unwrap();
        claim.capacity = capacity.map(str::to_owned);
    };
    set(&mut world, pending, None);
    world.set_spec(json!({"targets": {"storage": {"size": "2Gi"}}}));
    let pass = world.step();
    let asked: Vec<&str> = pass.plan.storage.resizes.iter().map(|r| r.claim.as_str()).collect();
    assert_eq!(asked, ["data-demo-target-0"]);
    set(&mut world, "data-demo-target-0", Some("2Gi"));
    assert_eq!(world.step().plan.storage.orphaned.len(), 1, "the set is made anew all the same");
    world.step();
    let pass = world.step();
    assert_eq!((pass.condition("StorageResized").1.as_str(), pass.writes.len()), ("AsAsked", 0));
    // Each when its time comes: a volume is bound, a target comes back to the one it left.
    set(&mut world, pending, Some("1Gi"));
    assert_eq!(world.step().plan.storage.resizes.len(), 1);
    set(&mut world, pending, Some("2Gi"));
    world.set_spec(json!({"targets": {"replicas": 8}}));
    world.step();
    assert_eq!(claim(&world, "data-demo-target-7").requested, "2Gi");
}

#[test]
fn a_class_that_does_not_expand_is_named_and_nothing_repeated() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"gateways": {"stateStorage": {"size": "2Gi"}}}));
    for n in 0..3 {
        world.observed.refused.insert(format!("state-demo-gateway-{n}"), "only dynamically provisioned".into());
    }
    let pass = world.step();
    assert!(pass.writes.is_empty() && pass.plan.storage.orphaned.is_empty());
    assert_eq!(pass.condition("StorageResized"), ("False".into(), "ClassDoesNotExpand".into()));
    assert_eq!(pass.condition("Ready").0, "True");
}

#[test]
fn quantities_are_compared_and_not_their_texts() {
    for (a, b) in [("1Gi", "1024Mi"), ("1.5Gi", "1536Mi"), ("1e3", "1k"), ("1500m", "1.5"), ("0.5Ki", "512")] {
        assert_eq!(milli(a).unwrap(), milli(b).unwrap(), "{a} {b}");
    }
    assert!(milli("999Mi") < milli("1Gi") && milli("1G") < milli("1Gi"));
    assert_eq!((milli("x"), milli(""), milli("1Xi"), milli("1e99")), (None, None, None, None));
}

/// Found by the test below: the seats of targets that were retained one after the other were never given up.
#[test]
fn several_retained_targets_do_not_keep_the_majority_of_the_seats() {
    let mut sim = Sim::new();
    for (gateways, targets, retain) in [(1, 4, false), (1, 1, true)] {
        sim.wish(gateways, targets, retain);
        (0..200).for_each(|_| sim.turn().unwrap());
        assert!(sim.is_as_wished(gateways, targets), "{}", sim.describe());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever numbers are asked for one after the other, and whatever goes wrong meanwhile: no step of the operator
    /// takes the majority, nobody who votes loses his pod, and it ends.
    #[test]
    fn members_leave_one_by_one_and_never_with_the_majority(
        wishes in prop::collection::vec((1..=5_i32, 1..=4_i32, any::<bool>()), 1..4),
        faults in prop::collection::vec((0..60_usize, sim::fault()), 0..8),
    ) {
        let mut sim = Sim::new();
        for (gateways, targets, retain) in wishes {
            sim.wish(gateways, targets, retain);
            for at in 0..60 {
                for (_, fault) in faults.iter().filter(|(when, _)| *when == at) {
                    sim.strike(fault);
                }
                sim.turn()?;
            }
            sim.strike(&Fault::Mend);
            for _ in 0..150 {
                sim.turn()?;
            }
            prop_assert!(sim.is_as_wished(gateways, targets), "not reached: {}", sim.describe());
        }
    }
}
