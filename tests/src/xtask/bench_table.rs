//! `docs/benchmarks.md`, written from the lines that the benchmarks left.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::bench_operator::rows;
use crate::cmd::Cmd;
use crate::drill::Drill;

/// How AIStore 5.0 did on the same kind of machine, where it was measured.
const AISTORE_DRILLS: &[(Drill, &str)] = &[
    (Drill::Kill9, "23.1 s"),
    (Drill::Sigterm, "23.2 s"),
    (Drill::Planned, "31 ms"),
    (Drill::PlannedDead, "refused"),
    (Drill::TwoPlusOne, "never (needs 4 members)"),
    (Drill::Sigstop, "45 s"),
    (Drill::BlackHole, "not measured"),
];
const HEAD: &str = "# Benchmarks\n\n\
    Written by `cargo xtask bench all --json FILE --write docs/benchmarks.md` (`bench table` writes it again from the\n\
    file). One program measures everything on one machine, each system with its shipped settings and real syncs.\n\
    The figures of AIStore 5.0 were measured before this project began, on the same kind of machine; they are not of\n\
    this run. Aims are those of the protocol's section 8.\n";

/// Begins the part of the page that `bench operator` writes.
const OPERATOR: &str = "\n## Operator\n";

/// What was measured on: processors, memory, disk, kernel, day, and how busy it was.
pub fn machine() -> Result<Value> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let field = |text: &str, name: &str| -> String {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, v)| v.trim()));
        value.unwrap_or("unknown").to_owned()
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_kib: f64 = field(&read("/proc/meminfo")?, "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
    let disk = Cmd::new("findmnt").args(["-no", "FSTYPE", "-T"]).arg(std::env::temp_dir()).run()?;
    Ok(json!({
        "figure": "machine", "cpus": cpus, "cpu": field(&read("/proc/cpuinfo")?, "model name"),
        "memory_gib": (memory_kib / 1_048_576.0).round(), "kernel": read("/proc/sys/kernel/osrelease")?.trim(),
        "disk": disk.trim(), "day": Cmd::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).run()?.trim(),
        "load": read("/proc/loadavg")?.split_whitespace().next().unwrap_or_default(),
    }))
}

/// Reads figures, one JSON object a line, and writes the page.
pub fn write(json: &Path, page: &Path) -> Result<()> {
    let text = fs::read_to_string(json).with_context(|| format!("cannot read {}", json.display()))?;
    let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let lines = lines.with_context(|| format!("{} is not JSON lines", json.display()))?;
    // The operator is measured by itself: what the page says of it stays.
    let before = fs::read_to_string(page).unwrap_or_default();
    let text = render(&lines)? + operator_part(&before).1;
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

/// Writes the operator's part of the page and leaves the rest as it is.
pub fn write_operator(lines: &[Value], page: &Path) -> Result<()> {
    let before = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let (head, _, tail) = operator_part(&before);
    let text = format!("{head}{}{tail}", operator(lines)?);
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

/// What is before the operator's part of a page, that part, and what comes after it.
fn operator_part(page: &str) -> (&str, &str, &str) {
    let Some(at) = page.find(OPERATOR) else { return (page, "", "") };
    let (head, rest) = page.split_at(at);
    let end = rest[OPERATOR.len()..].find("\n## ").map_or(rest.len(), |end| OPERATOR.len() + end);
    (head, &rest[..end], &rest[end..])
}

fn operator(lines: &[Value]) -> Result<String> {
    let of = |figure: &'static str| lines.iter().filter(move |line| line["figure"] == figure);
    let mut text = OPERATOR.to_owned();
    text.push_str(
        "\nWritten by `cargo xtask bench operator --write docs/benchmarks.md`, on a test Kubernetes of one node that \
         shares the\nmachine with everything measured. Times end when a watch (`kubectl get aisc -w`) brings the status \
         that says so. Clusters\nare real, 3 gateways and 3 targets with the shipped timers, but for the simulated ones: \
         there the API server and the\noperator are real, and one process answers for all nodes. Largest of few values \
         stands for their 99th percentile.\n",
    );
    for machine in of("operator-machine") {
        name_machine(&mut text, machine)?;
    }
    text.push('\n');
    text.push_str(&rows::markdown(&of("operator").collect::<Vec<_>>())?);
    Ok(text)
}

fn name_machine(page: &mut String, m: &Value) -> Result<()> {
    writeln!(
        page,
        "\nMachine: {} processors ({}), {} GiB, {}, kernel {}; {}. Load when it began: {}.",
        m["cpus"],
        text(&m["cpu"]),
        m["memory_gib"],
        text(&m["disk"]),
        text(&m["kernel"]),
        text(&m["day"]),
        text(&m["load"])
    )?;
    Ok(())
}

fn render(lines: &[Value]) -> Result<String> {
    let of = |figure: &'static str| lines.iter().filter(move |line| line["figure"] == figure);
    if of("machine").next().is_none() {
        bail!("the figures do not name their machine; `bench all` writes that");
    }
    let mut page = HEAD.to_owned();
    for m in of("machine") {
        name_machine(&mut page, m)?;
    }
    failover(&mut page, &of("failover").collect::<Vec<_>>())?;
    metadata(&mut page, &of("metadata").collect::<Vec<_>>(), &of("large-state").collect::<Vec<_>>())?;
    rest(&mut page, of("cold-start").next(), &of("idle").collect::<Vec<_>>())?;
    Ok(page)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn failover(page: &mut String, lines: &[&Value]) -> Result<()> {
    page.push_str(
        "\n## Failover\n\nFrom the fault to the first bucket committed under a new primary, through a gateway that \
         lives; 3 gateways and 3 targets\n(`two-plus-one`: 2 and 1), processes on loopback, a steady writer beside it. \
         `failed` counts that writer's failed writes.\n\n\
         | drill | n | p50 ms | p99 ms | max ms | failed | aim | AIStore 5.0 |\n|---|---|---|---|---|---|---|---|\n",
    );
    for line in lines {
        let Ok(drill) = Drill::parse(text(&line["drill"])) else { continue };
        let (p50, p99) = drill.targets_ms();
        let aim = p50.map_or(format!("p99 < {p99}"), |p50| format!("p50 < {p50}, p99 < {p99}"));
        let aistore = AISTORE_DRILLS.iter().find(|(other, _)| *other == drill).map_or("-", |(_, took)| took);
        let p99_ms = line["p99_ms"].as_f64().map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        writeln!(
            page,
            "| {} | {} | {} | {p99_ms} | {} | {} | {aim} | {aistore} |",
            drill.name(),
            line["n"],
            line["p50_ms"],
            line["max_ms"],
            line["failed_writes"]
        )?;
    }
    Ok(())
}

fn metadata(page: &mut String, commits: &[&Value], large: &[&Value]) -> Result<()> {
    let head = "\n| clients | system | buckets there | commits/s | p50 ms | p99 ms | sync p50 ms | sync p99 ms |\n\
        |---|---|---|---|---|---|---|---|\n";
    let rows = |page: &mut String, lines: &[&Value]| -> Result<()> {
        page.push_str(head);
        for l in lines {
            let (system, per_s) = (text(&l["system"]), l["per_s"].as_f64().unwrap_or_default());
            writeln!(
                page,
                "| {} | {system} | {} | {per_s:.0} | {} | {} | {} | {} |",
                l["clients"], l["buckets"], l["p50_ms"], l["p99_ms"], l["sync_p50_ms"], l["sync_p99_ms"]
            )?;
        }
        Ok(())
    };
    page.push_str(
        "\n## Metadata commits\n\nBuckets made and destroyed through 3 gateways, beside puts of 150 bytes into 3 members \
         of etcd: same disk, same\nmoment, in turn, closed-loop clients driven by one thread. `sync` is the time of an \
         append of 1 KiB and fdatasync\non that disk between the rounds. AIStore 5.0: 96 creates/s with one client, \
         13 with 16.\n\nAim: at least etcd's puts at 16 and 64 clients; one client's p50 at most 2 syncs + 1 ms.\n",
    );
    rows(page, commits)?;
    page.push_str("\nThe same with a large State (aim: at least 70 % of the small one's commits).\n");
    rows(page, large)?;
    if let [small, large] = large {
        let part = 100.0 * large["per_s"].as_f64().unwrap_or_default() / small["per_s"].as_f64().unwrap_or(f64::NAN);
        writeln!(page, "\n{part:.0} % of the small one's.")?;
    }
    Ok(())
}

fn rest(page: &mut String, cold: Option<&Value>, idle: &[&Value]) -> Result<()> {
    if let Some(cold) = cold {
        writeln!(
            page,
            "\n## Cold start\n\nFrom starting six processes on empty directories (3+3) to the first bucket: p50 {} ms, \
             longest {} ms of {} runs.\nAim: < 2 s. AIStore 5.0: 15.2 s.",
            cold["p50_ms"], cold["max_ms"], cold["n"]
        )?;
    }
    if !idle.is_empty() {
        page.push_str(
            "\n## Idle\n\nEach node of an idle 3+3. Aim: < 20 MiB resident, < 1 % of a processor. AIStore 5.0: 34 MiB.\
             \n\n| node | resident MiB | CPU % |\n|---|---|---|\n",
        );
        for line in idle {
            writeln!(page, "| {} | {} | {} |", text(&line["node"]), line["rss_mib"], line["cpu_percent"])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_machine_and_every_figure() {
        let lines = [
            json!({"figure": "machine", "cpus": 2, "cpu": "x", "memory_gib": 8, "disk": "ext4", "kernel": "6",
                "day": "d", "load": "0.1"}),
            json!({"figure": "failover", "drill": "kill9", "n": 100, "p50_ms": 30.1, "p99_ms": 40.0, "max_ms": 41.0,
                "failed_writes": 0}),
            json!({"figure": "large-state", "per_s": 100.0}),
            json!({"figure": "large-state", "per_s": 80.0}),
            json!({"figure": "cold-start", "n": 20, "p50_ms": 900.0, "max_ms": 1000.0}),
            json!({"figure": "idle", "node": "g1", "rss_mib": 12.5, "cpu_percent": 0.4}),
        ];
        let page = render(&lines).unwrap();
        for row in ["2 processors (x)", "| kill9 | 100 | 30.1 | 40.0 |", "23.1 s", "80 % of", "| g1 | 12.5 | 0.4 |"] {
            assert!(page.contains(row), "{row} in {page}");
        }
        assert!(render(&lines[1..]).is_err());
    }

    #[test]
    fn the_operators_part_is_replaced_and_the_rest_stays() {
        let line = json!({"figure": "operator", "what": "x", "unit": "ms", "n": 1, "p50": 3.5, "p99": null, "max": 3.5,
            "aim": "-", "reference": "-"});
        let part = operator(&[line]).unwrap();
        for (before, head, tail) in [
            ("# A\n\n## Idle\n\nb\n", "# A\n\n## Idle\n\nb\n", ""),
            ("# A\n\n## Operator\n\nold\n\n## Z\n\nc\n", "# A\n", "\n## Z\n\nc\n"),
        ] {
            let (a, _, c) = operator_part(before);
            assert_eq!((a, c), (head, tail));
            let after = format!("{a}{part}{c}");
            assert!(after.contains("| x | 1 | 3.5 ms |") && !after.contains("old"));
            assert_eq!(operator_part(&after), (a, part.as_str(), c), "it can be replaced again");
        }
    }

    #[test]
    fn this_machine_can_be_named() {
        let machine = machine().unwrap();
        assert!(machine["cpus"].as_u64().is_some_and(|n| n > 0), "{machine}");
    }
}
