//! What a person sees and gets.
#![allow(clippy::unwrap_used)]

mod common;

use ais_crds::AISCluster;
use ais_operator::cli::{Outcome, Progress, applied_by, outcome, page, progress, with_first};
use ais_operator::plan::primary::request_key;
use common::World;
use serde_json::json;

const G0: &str = "demo-gateway-0";
const G1: &str = "demo-gateway-1";

fn show(world: &World) -> String {
    let text = page(&world.observed.cluster, world.observed.now);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    text
}

#[test]
fn a_page_of_a_cluster_at_rest() {
    let mut world = World::settled(json!({"primary": {"preferred": [G0]}}));
    world.after(600);
    expect_test::expect_file!["snapshots/page_rest.txt"].assert_eq(&show(&world));
}

#[test]
fn a_page_of_a_cluster_that_waits() {
    let mut world =
        World::settled(json!({"primary": {"preferred": [G0], "failback": "Automatic", "stabilizationSeconds": 120}}));
    world.lead(G1, 2);
    world.lose("demo-target-1");
    world.step();
    world.after(30).step();
    expect_test::expect_file!["snapshots/page_waits.txt"].assert_eq(&show(&world));
}

#[test]
fn a_page_before_and_during_the_founding_and_of_many_nodes() {
    let mut world = World::new(json!({"targets": {"replicas": 60}}));
    assert!(show(&world).contains("has not looked"));
    world.step();
    let text = show(&world);
    assert!(text.contains("PRIMARY    none") && text.contains("Available=False"), "{text}");
    assert!(text.contains("and 47 more"), "{text}");
    assert!(text.lines().count() < 60);
}

/// Words longer than the page, and no words at all.
#[test]
fn a_page_keeps_its_width_whatever_it_is_told() {
    let mut world = World::settled(json!({}));
    let status = world.observed.cluster.status.as_mut().unwrap();
    status.endpoint = Some("x".repeat(300));
    status.version = None;
    status.conditions[0].status = "False".into();
    status.conditions[0].message = format!("{} \u{1F980} {}", "y".repeat(200), "z ".repeat(100));
    status.nodes[0].reason = "w ".repeat(200);
    status.nodes[0].pod = "v".repeat(70);
    show(&world);
}

fn asked(spec: serde_json::Value) -> (World, String) {
    let mut world = World::settled(json!({}));
    world.set_spec(json!({"primary": spec}));
    let key = request_key(&world.observed.cluster.spec.primary);
    (world, key)
}

fn look(world: &World, key: &str) -> Option<Outcome> {
    outcome(&world.observed.cluster, key)
}

#[test]
fn an_ask_is_followed_to_each_of_its_ends() {
    let (mut world, key) = asked(json!({"preferred": [G1]}));
    assert_eq!(look(&world, &key), None);
    world.step();
    assert_eq!(look(&world, &key), None, "moving");
    world.lead(G1, 2);
    world.step();
    assert_eq!(look(&world, &key), Some(Outcome::Leads(G1.into())));
    world.set_spec(json!({"primary": {"request": "other"}}));
    assert_eq!(look(&world, &key), Some(Outcome::Superseded));

    let (mut world, key) = asked(json!({"preferred": [G0]}));
    world.step();
    assert_eq!(look(&world, &key), Some(Outcome::Leads(G0.into())), "there already");

    let (mut world, key) = asked(json!({"preferred": [G1], "expectedCurrent": G1}));
    world.step();
    let Some(Outcome::Ended(why)) = look(&world, &key) else { panic!("not ended") };
    assert!(why.starts_with("Rejected: the primary is demo-gateway-0"), "{why}");

    let (mut world, key) = asked(json!({"preferred": [G1], "requestTTLSeconds": 10}));
    world.lose(G1);
    world.step();
    assert_eq!(look(&world, &key), None, "waiting");
    world.after(10).step();
    assert!(matches!(look(&world, &key), Some(Outcome::Ended(why)) if why.starts_with("Expired")));
}

/// An end of before is not this one's.
#[test]
fn an_old_failure_is_not_this_asks() {
    let (mut world, _) = asked(json!({"preferred": [G1], "expectedCurrent": G1}));
    world.step();
    world.set_spec(json!({"primary": {"preferred": [G0], "expectedCurrent": ""}}));
    world.step();
    let key = request_key(&world.observed.cluster.spec.primary);
    assert_eq!(look(&world, &key), Some(Outcome::Leads(G0.into())));
}

#[test]
fn a_promotion_keeps_the_others_in_their_order() {
    let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert_eq!(with_first(&list(&["a", "b", "c"]), "c"), ["c", "a", "b"]);
    assert_eq!(with_first(&[], "a"), ["a"]);
    assert_eq!(with_first(&list(&["1", "2", "3", "4", "5", "6", "7", "8"]), "9").len(), 8);
}

#[test]
fn another_tool_that_applies_the_field_is_named() {
    let with = |operation: &str, subresource: Option<&str>| -> AISCluster {
        let mut cluster = common::cluster(json!({}));
        let entry = json!({
            "manager": "argocd", "operation": operation, "subresource": subresource, "apiVersion": "aiscluster.dev/v1alpha1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:primary": {"f:preferred": {}}}},
        });
        cluster.metadata.managed_fields = Some(vec![serde_json::from_value(entry).unwrap()]);
        cluster
    };
    assert_eq!(applied_by(&with("Apply", None), "preferred").as_deref(), Some("argocd"));
    assert_eq!(applied_by(&with("Apply", None), "request"), None);
    assert_eq!(applied_by(&with("Update", None), "preferred"), None);
    assert_eq!(applied_by(&with("Apply", Some("status")), "preferred"), None);
}

#[test]
fn a_new_founding_is_followed_to_its_end() {
    let mut world = World::new(json!({}));
    assert!(matches!(progress(&world.observed.cluster, 2), Progress::Waits(_)));
    world.step();
    assert!(matches!(progress(&world.observed.cluster, 2), Progress::Waits(text) if text.starts_with("Starting")));
    world.start_pods();
    world.lead(G0, 1);
    world.step();
    assert!(matches!(progress(&world.observed.cluster, 2), Progress::Refused(_)), "founded after all");
    assert!(matches!(progress(&world.observed.cluster, 1), Progress::Founded(_)));
}
