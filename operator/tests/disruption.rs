//! One disruption at a time: what closes the door, one line each, and that it opens again.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::plan::disruption::{Ground, may_disrupt};
use common::World;
use serde_json::json;

const G0: &str = "demo-gateway-0";
const G1: &str = "demo-gateway-1";
const T0: &str = "demo-target-0";
const T1: &str = "demo-target-1";

/// The reason why `pod` must stay, or an empty text.
fn closed(world: &World, pod: &str) -> &'static str {
    let plan = world.pass().plan;
    let ground = Ground { observed: &world.observed, agreement: &plan.agreement, replicas: &plan.replicas };
    may_disrupt(&ground, pod).map_or_else(|c| c.reason, |()| "")
}

#[test]
fn a_whole_cluster_lets_any_one_pod_go() {
    let world = World::settled(json!({}));
    for pod in [G0, G1, T0, T1] {
        assert_eq!(closed(&world, pod), "", "{pod}");
    }
}

#[test]
fn each_weakness_of_another_closes_the_door_and_its_own_does_not() {
    type Break = fn(&mut World);
    let table: [(&str, &str, Break); 12] = [
        ("NodesNotReady", T1, |w| w.pod(T1).ready = false),
        ("NodesNotReady", T1, |w| w.pod(T1).deleting = true),
        ("NodesNotReady", T1, |w| w.observed.pods.retain(|p| p.name != T1)),
        ("NodesNotReady", T1, |w| w.view(G0).members.retain(|m| m.node_id != T1)),
        ("NodesNotReady", T1, |w| w.member(G0, T1).connected = false),
        ("NodesNotReady", T1, |w| drop(w.observed.reports.remove(T1))),
        ("VoterDown", T1, |w| w.member(G0, T1).acked = None),
        ("VoterDown", T1, |w| w.member(G0, T1).acked.as_mut().unwrap().epoch -= 1),
        ("VoterDown", T1, |w| {
            w.view(G0).stamp.as_mut().unwrap().seq += 1000;
            w.member(G0, G1).acked.as_mut().unwrap().seq += 1000;
            w.member(G0, "demo-gateway-2").acked.as_mut().unwrap().seq += 1000;
            w.member(G0, T0).acked.as_mut().unwrap().seq += 1000;
        }),
        ("VoterDown", T1, |w| w.member(G0, T1).disk_id = "another".into()),
        ("SplitBrainSuspected", "", |w| w.view(T1).role = "primary".into()),
        ("ClusterBusy", "", |w| w.view(G0).cluster_stopping = true),
    ];
    for (number, (reason, weak, spoil)) in table.into_iter().enumerate() {
        let mut world = World::settled(json!({}));
        spoil(&mut world);
        assert_eq!(closed(&world, G1), reason, "line {number}");
        if !weak.is_empty() {
            assert_eq!(closed(&world, weak), "", "line {number}: the weak one itself may go");
        }
    }
}

#[test]
fn an_electorate_that_grows_is_left_alone() {
    let mut world = World::settled(json!({}));
    for size in [1, 2, 3, 4] {
        world.lead(G0, 1);
        for pod in [G0, G1, "demo-gateway-2", T0, T1] {
            world.view(pod).electorate.truncate(size);
        }
        assert_eq!(closed(&world, T1), "ElectorateChanging", "{size} of five");
    }
    // Three are all that the spec allows.
    let mut world = World::settled(json!({"ha": {"voters": 3}}));
    for pod in [G0, G1, "demo-gateway-2", T0, T1] {
        world.view(pod).electorate.truncate(3);
    }
    assert_eq!(closed(&world, T1), "");
}

#[test]
fn the_primarys_process_says_how_many_shall_vote() {
    let mut world = World::settled(json!({"ha": {"voters": 3}}));
    for pod in [G0, G1, "demo-gateway-2", T0, T1] {
        world.view(pod).electorate.truncate(3);
        world.view(pod).voters_max = Some(3);
    }
    world.set_spec(json!({"ha": {"voters": 5}}));
    world.step();
    assert_eq!(closed(&world, T1), "", "it knows of three only");
    world.view(G0).voters_max = None;
    assert_eq!(closed(&world, T1), "", "an older one, whose pod was made for another number");
    world.view(G0).voters_max = Some(5);
    assert_eq!(closed(&world, T1), "ElectorateChanging");
}

#[test]
fn nobody_goes_while_the_primary_moves_or_there_is_none() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"primary": {"preferred": [G1]}}));
    world.step();
    assert_eq!(closed(&world, T1), "SwitchingPrimary");
    let mut world = World::settled(json!({}));
    for pod in [G0, G1, "demo-gateway-2", T0, T1] {
        world.view(pod).primary = None;
    }
    assert_eq!(closed(&world, T1), "ClusterBusy");
}

#[test]
fn the_smallest_clusters_can_be_disrupted_at_all() {
    let mut world = World::settled(json!({"gateways": {"replicas": 1}, "targets": {"replicas": 1}}));
    world.lead(G0, 1);
    for pod in [G0, T0] {
        world.view(pod).electorate.truncate(1);
    }
    assert_eq!((closed(&world, G0), closed(&world, T0)), ("", ""));
    world.pod(T0).ready = false;
    assert_eq!((closed(&world, G0), closed(&world, T0)), ("NodesNotReady", ""));
}
