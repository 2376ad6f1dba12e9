//! Rules and dashboard ask for metrics that are exported.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::product::chart;
use crate::xtask::root;

const KEYWORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "inf", "nan"];
/// Words before a list of labels.
const LABELLED: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The metrics that a PromQL expression names.
fn metrics(expression: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        match first {
            '"' => rest = after(&rest[1..], '"')?,
            '{' => rest = after(rest, '}')?,
            '[' => rest = after(rest, ']')?,
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c)).unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                rest = behind;
                let called = behind.trim_start().starts_with('(');
                if LABELLED.contains(&word) && called {
                    rest = after(behind, ')')?;
                } else if !called && !KEYWORDS.contains(&word) && !is_aggregated(behind) {
                    found.insert(word.to_owned());
                }
            }
            // A duration or number with its letters.
            c if c.is_ascii_digit() => {
                rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
            }
            c => rest = &rest[c.len_utf8()..],
        }
    }
    Ok(found)
}

/// The word before is an aggregation with its labels in front: `sum by (x) (...)`.
fn is_aggregated(rest: &str) -> bool {
    let next: String = rest.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    rest.starts_with(' ') && ["by", "without"].contains(&next.as_str())
}

/// What stands behind the next `end`.
fn after(text: &str, end: char) -> Result<&str> {
    // Label values may hold any bracket.
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if end != '"' => quoted = !quoted,
            c if c == end && !quoted => return Ok(&text[at + c.len_utf8()..]),
            _ => {}
        }
    }
    anyhow::bail!("no {end} in {text}")
}

/// The metrics that the manual lists; tests of the programs compare it with what they export.
fn exported() -> Result<BTreeSet<String>> {
    let manual = fs::read_to_string(root().join("docs/metrics.md")).context("docs/metrics.md")?;
    let mut names = BTreeSet::new();
    for line in manual.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (name, rest) = line.split_once("` | ").context("a row without a name")?;
        if rest.starts_with("histogram") {
            names.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        } else {
            names.insert(name.to_owned());
        }
    }
    ensure!(names.len() > 30, "docs/metrics.md lists {names:?} only");
    Ok(names)
}

/// The expressions of all rules.
fn rules() -> Result<Vec<String>> {
    let text = fs::read_to_string(chart().join("files/rules.yaml"))?;
    let found: Vec<String> =
        text.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned).collect();
    ensure!(found.len() == text.matches("- alert: ").count() && !found.is_empty(), "an expression on several lines");
    Ok(found)
}

/// The expressions and variables of the dashboard.
fn panels() -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(chart().join("files/dashboard.json"))?)?;
    let mut found = Vec::new();
    let mut todo = vec![&dashboard];
    while let Some(value) = todo.pop() {
        match value {
            Value::Object(map) => {
                found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
                // `label_values(metric, label)`: the label is no metric.
                let variable = map.get("definition").and_then(Value::as_str);
                found.extend(
                    variable.and_then(|v| Some(v.rsplit_once(',')?.0.trim_start_matches("label_values(").to_owned())),
                );
                todo.extend(map.values());
            }
            Value::Array(list) => todo.extend(list),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::Cmd;
    use crate::progress::Progress;
    use crate::testbed::packages;

    #[test]
    fn rules_and_dashboard_ask_for_what_is_exported() {
        let exported = exported().unwrap();
        let (rules, panels) = (rules().unwrap(), panels().unwrap());
        assert!(rules.len() >= 15 && panels.len() >= 25, "{} rules, {} expressions", rules.len(), panels.len());
        for expression in rules.iter().chain(&panels) {
            let asked = metrics(expression).unwrap();
            assert!(!asked.is_empty(), "no metric in {expression}");
            for name in asked {
                assert!(exported.contains(&name), "{name} is not exported: {expression}");
            }
        }
    }

    #[test]
    fn metrics_are_found_in_expressions() {
        let of = |text: &str| metrics(text).unwrap().into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(of("absent(a_b) or sum(c) == 0"), "a_b c");
        assert_eq!(of(r#"sum by (ns, le) (rate(x_bucket{a="b}",c=~"$d"}[5m])) > 0.05"#), "x_bucket");
        assert_eq!(of("count by (a) (b == 1) > 1 and on (a) c offset 5m"), "b c");
        assert_eq!(of("histogram_quantile(0.99, sum without(pod) (rate(h_bucket[1h])))"), "h_bucket");
        assert!(metrics("a{b").is_err());
    }

    fn yaml(file: &str) -> Value {
        serde_saphyr::from_str(&fs::read_to_string(chart().join(file)).unwrap()).unwrap()
    }

    /// An alert that no test lets fire may as well not be there; one that fires at rest is switched off.
    #[test]
    fn every_rule_is_seen_to_fire_and_to_rest() {
        let (rules, cases) = (yaml("files/rules.yaml"), yaml("ci/rules-test.yaml"));
        let groups = rules["groups"].as_array().unwrap().iter();
        let alerts: BTreeSet<&str> =
            groups.flat_map(|g| g["rules"].as_array().unwrap()).map(|rule| rule["alert"].as_str().unwrap()).collect();
        let (mut fire, mut rest) = (BTreeSet::new(), BTreeSet::new());
        for case in cases["tests"].as_array().unwrap() {
            for asked in case["alert_rule_test"].as_array().unwrap() {
                let name = asked["alertname"].as_str().unwrap();
                assert!(alerts.contains(name), "no alert {name}");
                if !asked["exp_alerts"].as_array().unwrap().is_empty() {
                    fire.insert(name);
                } else if case["name"] == "a cluster at rest" {
                    rest.insert(name);
                }
            }
        }
        assert_eq!(fire, alerts, "left: seen to fire; right: all of them");
        assert_eq!(rest, alerts, "left: seen to rest; right: all of them");
    }

    /// What Prometheus itself makes of the rules, and when they fire.
    #[test]
    fn promtool_accepts_the_rules_and_they_fire() {
        let tool = packages::promtool(&Progress::new("promtool")).unwrap();
        let chart = chart();
        let told = Cmd::new(&tool).args(["check", "rules"]).arg(chart.join("files/rules.yaml")).run().unwrap();
        assert!(told.contains("SUCCESS"), "{told}");
        let tests = chart.join("ci/rules-test.yaml");
        Cmd::new(&tool).args(["test", "rules"]).arg(tests).dir(chart.join("ci")).run().unwrap();
    }
}
