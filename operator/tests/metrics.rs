//! What is exported, and that it goes with its cluster.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use ais_operator::metrics::Metrics;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

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
    metrics.transition("Failback", "Succeeded", Some(0.1));
    metrics.cluster("ns", "demo", true, Some(1));
    metrics.conditions("ns", "demo", &[condition("Ready", "True")]);
    metrics.unreadable("ns", "other", true);
    metrics.stopped("ns", "demo", false);
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

#[test]
fn conditions_go_with_their_cluster() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    metrics.conditions("ns", "one", &[condition("Ready", "True"), condition("Degraded", "Unknown")]);
    metrics.conditions("ns", "two", &[condition("Ready", "False")]);
    let samples = |registry: &Registry| -> Vec<String> {
        let text = text(registry);
        let mut all: Vec<_> = text.lines().filter(|l| l.starts_with("aisop_condition{")).map(str::to_owned).collect();
        all.sort();
        all
    };
    let of = |cluster: &str, kind: &str, value: u8| {
        format!("aisop_condition{{namespace=\"ns\",cluster=\"{cluster}\",condition=\"{kind}\"}} {value}")
    };
    assert_eq!(samples(&registry), [of("one", "Degraded", 0), of("one", "Ready", 1), of("two", "Ready", 0)]);
    metrics.forget("ns", "one");
    assert_eq!(samples(&registry), [of("two", "Ready", 0)]);
}
