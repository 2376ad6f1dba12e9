//! What is believed of what nodes say, and how much of it is copied.
#![allow(clippy::unwrap_used)]

mod common;

use ais_operator::view::{NodeView, Report, Stamp, TlsView, Voter, agree};
use common::World;
use serde_json::json;

const G0: &str = "demo-gateway-0";
const G1: &str = "demo-gateway-1";
const G2: &str = "demo-gateway-2";
const T0: &str = "demo-target-0";

/// Who leads, and in which epoch.
fn leader(world: &World) -> Option<(String, u64)> {
    let uuid = world.observed.primary_map.as_ref().unwrap().cluster_uuid.clone();
    agree(&uuid, &world.observed.reports).leader.map(|l| (l.node_id, l.reign.1))
}

fn leads(node: &str, epoch: u64) -> Option<(String, u64)> {
    Some((node.to_owned(), epoch))
}

/// `pod` says that it leads, in an electorate of its own choice.
fn usurp(world: &mut World, pod: &str, stamp: Stamp, voters: &[&str]) {
    let voter = |id: &&str| Voter { node_id: (*id).into(), disk_id: format!("disk-{id}"), kind: "gateway".into() };
    let electorate = voters.iter().map(voter).collect();
    let view = world.view(pod);
    *view = NodeView {
        role: "primary".into(),
        stamp: Some(stamp),
        promised: Some(stamp.epoch),
        primary: Some(pod.into()),
        electorate,
        ..view.clone()
    };
}

fn epoch(epoch: u64) -> Stamp {
    Stamp { incarnation: 0, epoch, seq: 1 }
}

/// Found by a review: a node that holds the secret led by its own word, with a later epoch and itself as the electorate.
#[test]
fn a_claim_of_one_node_alone_is_not_believed() {
    for (pod, claim) in [(G2, epoch(9)), (T0, epoch(9)), (G2, Stamp { incarnation: 1, epoch: 1, seq: 1 })] {
        let mut world = World::settled(json!({}));
        usurp(&mut world, pod, claim, &[pod]);
        assert_eq!(leader(&world), leads(G0, 1), "{pod} claims {claim:?}");
        // Nor while the others elect somebody.
        world.leaderless();
        usurp(&mut world, pod, claim, &[pod]);
        assert_eq!(leader(&world), None, "{pod} claims {claim:?}");
    }
    let mut world = World::settled(json!({}));
    usurp(&mut world, G2, epoch(9), &[G0, G1, G2]);
    assert_eq!(leader(&world), leads(G0, 1), "who is named does not follow by that");
}

#[test]
fn a_new_reign_counts_once_a_majority_says_so() {
    let mut world = World::settled(json!({"gateways": {"replicas": 3}, "targets": {"replicas": 1}}));
    let old = world.observed.reports.clone();
    world.lead(G1, 2);
    let new = world.observed.reports.clone();
    let electorate = [G0, G1, G2];
    for told in 0..=electorate.len() {
        world.observed.reports.clone_from(&old);
        for pod in &electorate[..told] {
            world.observed.reports.insert((*pod).into(), new[*pod].clone());
        }
        assert_eq!(leader(&world), if told < 2 { leads(G0, 1) } else { leads(G1, 2) }, "{told} know of it");
    }
}

/// One voter after the other leaves; whoever left may still say what it knew.
#[test]
fn a_shrunk_electorate_is_believed() {
    let mut world = World::settled(json!({"gateways": {"replicas": 3}, "targets": {"replicas": 1}}));
    // The last word of the one that left is of the reign before.
    usurp(&mut world, G1, epoch(2), &[G1, G2]);
    let follower = world.view(G1).clone();
    *world.view(G2) = NodeView { node_id: G2.into(), role: "follower".into(), ..follower };
    assert_eq!(leader(&world), leads(G1, 2));
    world.observed.reports.retain(|pod, _| pod == G1);
    usurp(&mut world, G1, epoch(3), &[G1]);
    assert_eq!(leader(&world), leads(G1, 3), "a cluster may have one voter");
}

#[test]
fn what_a_node_says_is_copied_up_to_a_bound() {
    let view = || {
        let voter = |n: usize| Voter { node_id: format!("demo-gateway-{n}"), ..Voter::default() };
        NodeView { node_id: G0.into(), electorate: (0..9).map(voter).collect(), ..NodeView::default() }
    };
    // Characters of several bytes: a cut in the middle of one would end the process.
    let long = || "ä".repeat(100_000);
    let tls = TlsView { problem: Some(long()), authorities: vec![String::new(); 100_000], ..TlsView::default() };
    let mut talker = NodeView { version: long(), role: long(), reason: long(), ..view() };
    talker.electorate[0].kind = long();
    talker.credentials.tls = Some(tls);
    talker.credentials.secrets = vec![String::new(); 100_000];
    let report = Report::of(G0, talker);
    let text = serde_json::to_string(report.view().unwrap()).unwrap();
    assert!(text.len() < 8192, "{} bytes", text.len());

    let refused: [fn(&mut NodeView); 6] = [
        |v| v.electorate.push(Voter::default()),
        |v| v.electorate[0].disk_id = "x".repeat(254),
        |v| v.primary = Some("x".repeat(254)),
        |v| v.cluster_uuid = Some("x".repeat(254)),
        |v| v.members = vec![Default::default(); 20_000],
        |v| v.disk_id = "x".repeat(254),
    ];
    assert!(Report::of(G0, view()).view().is_some());
    for (number, spoil) in refused.into_iter().enumerate() {
        let mut spoilt = view();
        spoil(&mut spoilt);
        assert!(Report::of(G0, spoilt).view().is_none(), "line {number}");
    }
}

#[test]
fn the_messages_of_a_large_cluster_fit() {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"gateways": {"replicas": 200}, "targets": {"replicas": 200}}));
    let pass = world.step();
    assert!(pass.status.nodes.len() > 300);
    for condition in &pass.status.conditions {
        assert!(condition.message.chars().count() <= 2000, "{}", condition.type_);
    }
    assert!(pass.message("MembershipConverged").chars().count() == 2000, "cut, not left out");
}
