//! What is exported, and that it goes with its cluster.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use ais_operator::metrics::Metrics;
use common::World;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::json;

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

fn condition(kind: &str, status: &str) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: "Test".to_owned(),
        message: String::new(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }
}

/// `UPDATE_EXPECT=1` writes the table anew.
#[test]
fn the_manual_lists_every_metric() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    // A family shows itself with its first sample only.
    metrics.write("ConfigMap");
    metrics.reconciled("ok", 0.1);
    metrics.failed("apply");
    metrics.transition("ns", "demo", "Failback", "Succeeded", Some(0.1));
    metrics.cluster("ns", "demo", true, Some(1));
    metrics.conditions("ns", "demo", &[condition("Ready", "True")]);
    metrics.unreadable("ns", "other", true);
    metrics.stopped("ns", "demo", false);
    metrics.formed("ns", "demo", true);
    metrics.leader(true);
    let text = text(&registry);
    let registered = include_str!("../src/metrics.rs").matches("registry.register(").count();
    assert_eq!(text.matches("# TYPE ").count(), registered, "a metric without a sample in this test");
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let rows = kinds.map(|(name, kind)| {
        let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} "))).unwrap();
        let end = if kind == "counter" { "_total" } else { "" };
        format!("| `{name}{end}` | {kind} | {} |\n", help.trim_end_matches('.'))
    });
    let table: String = rows.collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let manual = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = manual.split_once("<!-- operator -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end of operator -->").unwrap();
    let head = "| metric | kind | meaning |\n|---|---|---|\n";
    let wanted = format!("{before}<!-- operator -->\n{head}{table}<!-- end of operator -->{after}");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    assert!(manual == wanted || std::env::var_os("UPDATE_EXPECT").is_some(), "docs/metrics.md is stale:\n{table}");
}

fn samples(registry: &Registry, metric: &str) -> Vec<String> {
    let (text, begin) = (text(registry), format!("{metric}{{"));
    let mut all: Vec<_> = text.lines().filter(|line| line.starts_with(&begin)).map(str::to_owned).collect();
    all.sort();
    all
}

#[test]
fn conditions_go_with_their_cluster() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    metrics.conditions("ns", "one", &[condition("Ready", "True"), condition("Degraded", "Unknown")]);
    metrics.conditions("ns", "two", &[condition("Ready", "False")]);
    let of = |cluster: &str, kind: &str, value: i8| {
        format!("aisop_condition{{namespace=\"ns\",cluster=\"{cluster}\",condition=\"{kind}\"}} {value}")
    };
    assert_eq!(
        samples(&registry, "aisop_condition"),
        [of("one", "Degraded", -1), of("one", "Ready", 1), of("two", "Ready", 0)]
    );
    metrics.forget("ns", "one");
    assert_eq!(samples(&registry, "aisop_condition"), [of("two", "Ready", 0)]);
}

/// One lost Kubernetes node under four primaries is one failover of each, not four of one.
#[test]
fn moves_are_counted_by_cluster_and_go_with_it() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    metrics.cluster("ns", "one", true, Some(1));
    metrics.cluster("ns", "two", true, Some(1));
    let begun = samples(&registry, "aisop_primary_transitions_total");
    assert!(begun.len() == 10 && begun.iter().all(|line| line.ends_with("} 0")), "{begun:?}");
    metrics.transition("ns", "one", "Failover", "Succeeded", None);
    metrics.transition("ns", "one", "Failback", "Expired", None);
    let of = |cluster: &str, value: u8| {
        let labels = format!("namespace=\"ns\",cluster=\"{cluster}\",reason=\"Failover\",result=\"Succeeded\"");
        format!("aisop_primary_transitions_total{{{labels}}} {value}")
    };
    let counted = samples(&registry, "aisop_primary_transitions_total");
    assert!(counted.contains(&of("one", 1)) && counted.contains(&of("two", 0)), "{counted:?}");
    metrics.forget("ns", "one");
    let left = samples(&registry, "aisop_primary_transitions_total");
    assert!(left.len() == 5 && left.contains(&of("two", 0)), "{left:?}");
}

#[test]
fn whether_it_was_founded_goes_with_its_cluster() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    metrics.formed("ns", "one", false);
    assert_eq!(samples(&registry, "aisop_formed"), ["aisop_formed{namespace=\"ns\",cluster=\"one\"} 0"]);
    metrics.forget("ns", "one");
    assert!(samples(&registry, "aisop_formed").is_empty());
}

/// Regression: a stopped cluster kept the version of the map that it had.
#[test]
fn the_map_of_a_stopped_cluster_has_no_version() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let mut world = World::settled(json!({}));
    let told = |world: &mut World| {
        let pass = world.step();
        metrics.cluster("ns", "demo", pass.plan.primary.preferred, pass.status.smap.version);
        samples(&registry, "aisop_smap_version")
    };
    let series = |version: u32| [format!("aisop_smap_version{{namespace=\"ns\",cluster=\"demo\"}} {version}")];
    assert_eq!(told(&mut world), series(105));
    world.set_spec(json!({"state": "Stopped"}));
    told(&mut world);
    world.observed.pods.clear();
    world.observed.reports.clear();
    assert_eq!(told(&mut world), [""; 0]);
    world.set_spec(json!({"state": "Running"}));
    world.step();
    world.start_pods();
    world.lead("demo-gateway-0", 2);
    assert_eq!(told(&mut world), series(205));
}
