//! `cargo xtask bench`: measurements.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::{bench_kubernetes, bench_metadata, bench_operator, bench_rest, bench_table};
use crate::drill::{self, Drill, Drillable, LocalDrills};
use crate::history::{Answer, Load, Op, Options, Pool};
use crate::processes::{LocalCluster, Spec};
use crate::progress::Progress;

/// From so many runs on the 99th percentile means something.
const P99_FROM: usize = 100;
const PROCESS_RUNS: u32 = 100;
const POD_RUNS: u32 = 5;
const COLD_STARTS: u32 = 20;
const IDLE_S: u32 = 30;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to measure
    #[command(subcommand)]
    pub what: What,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum What {
    /// From a fault to the first committed write under a new primary
    Failover(Failover),
    /// Commits a second and their latency, beside etcd and beside itself with 10,000 buckets
    Metadata(bench_metadata::Metadata),
    /// From empty directories to the first bucket, 3+3
    ColdStart(Little),
    /// Memory and CPU of the nodes of an idle 3+3
    Idle(Little),
    /// The operator on the test Kubernetes: what status shows when, what it costs, 200 clusters
    Operator(bench_operator::Arguments),
    /// All of them on processes, in one go
    All(All),
    /// Write the tables of the docs from figures that were measured before
    Table(Table),
}

/// Arguments of the small measurements.
#[derive(Debug, Args)]
pub struct Little {
    /// How many runs, or seconds
    #[arg(long)]
    pub n: Option<u32>,
    /// Write one JSON object a line to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Arguments of `cargo xtask bench all`.
#[derive(Debug, Args)]
pub struct All {
    /// Write one JSON object a line to this file
    #[arg(long)]
    pub json: PathBuf,
    /// Write the tables from it to this file
    #[arg(long)]
    pub write: Option<PathBuf>,
}

/// Arguments of `cargo xtask bench table`.
#[derive(Debug, Args)]
pub struct Table {
    /// Figures, one JSON object a line
    #[arg(long)]
    pub json: PathBuf,
    /// Where the tables go
    #[arg(long, default_value = "docs/benchmarks.md")]
    pub write: PathBuf,
}

/// Arguments of `cargo xtask bench failover`.
#[derive(Debug, Args)]
pub struct Failover {
    /// Processes on this machine (the default)
    #[arg(long, conflicts_with = "kubernetes")]
    pub processes: bool,
    /// Pods in the test Kubernetes
    #[arg(long)]
    pub kubernetes: bool,
    /// Only this drill: kill9, sigterm, planned, planned-dead, two-plus-one, sigstop, black-hole
    #[arg(long)]
    pub drill: Option<String>,
    /// How many runs of each
    #[arg(long)]
    pub n: Option<u32>,
    /// Write one JSON object a line to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// `failover`.
    pub figure: &'static str,
    /// Which drill.
    pub drill: &'static str,
    /// Processes or Kubernetes.
    #[serde(rename = "where")]
    pub place: &'static str,
    /// How many runs.
    pub n: usize,
    /// Half of the runs took no longer.
    pub p50_ms: f64,
    /// 99 of 100 runs took no longer; only from 100 runs up.
    pub p99_ms: Option<f64>,
    /// The longest.
    pub max_ms: f64,
    /// Calls of the steady writer that were answered 503, 504 or not at all.
    pub failed_writes: usize,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let progress = Progress::new("bench");
    if !matches!(arguments.what, What::Table(_) | What::Operator(_)) {
        super::build_node()?;
    }
    match &arguments.what {
        What::Failover(wanted) => failover(wanted, &progress),
        What::Metadata(wanted) => {
            let lines = bench_metadata::run(wanted, &progress)?;
            report(&lines, wanted.json.as_deref())
        }
        What::ColdStart(wanted) => {
            let line = bench_rest::cold_start(wanted.n.unwrap_or(COLD_STARTS), &progress)?;
            report(&[line], wanted.json.as_deref())
        }
        What::Idle(wanted) => {
            let lines = bench_rest::idle(wanted.n.unwrap_or(IDLE_S), &progress)?;
            report(&lines, wanted.json.as_deref())
        }
        What::Operator(wanted) => bench_operator::run(wanted, &progress),
        What::All(wanted) => all(wanted, &progress),
        What::Table(wanted) => bench_table::write(&wanted.json, &wanted.write),
    }
}

/// Prints the lines and keeps them.
pub(super) fn report(lines: &[Value], json: Option<&Path>) -> Result<()> {
    for line in lines {
        println!("{line}");
        if let Some(path) = json {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

fn all(wanted: &All, progress: &Progress) -> Result<()> {
    // The tables are of one run: what an earlier one left would be shown beside it.
    std::fs::write(&wanted.json, "").with_context(|| format!("cannot write {}", wanted.json.display()))?;
    let json = Some(wanted.json.as_path());
    report(&[bench_table::machine()?], json)?;
    let metadata = bench_metadata::Metadata::default();
    report(&bench_metadata::run(&metadata, progress)?, json)?;
    report(&[bench_rest::cold_start(COLD_STARTS, progress)?], json)?;
    report(&bench_rest::idle(IDLE_S, progress)?, json)?;
    for drill in Drill::ALL {
        let figures = on_processes(drill, PROCESS_RUNS, progress)?;
        report(&[serde_json::to_value(figures)?], json)?;
    }
    match &wanted.write {
        Some(path) => bench_table::write(&wanted.json, path),
        None => Ok(()),
    }
}

fn failover(failover: &Failover, progress: &Progress) -> Result<()> {
    let only = failover.drill.as_deref().map(Drill::parse).transpose()?;
    let place = if failover.kubernetes { "kubernetes" } else { "processes" };
    let pods = failover.kubernetes.then(|| bench_kubernetes::Place::up(progress)).transpose()?;
    let mut all = Vec::new();
    for drill in Drill::ALL.into_iter().filter(|drill| only.is_none_or(|only| only == *drill)) {
        let n = failover.n.unwrap_or(if failover.kubernetes { POD_RUNS } else { PROCESS_RUNS });
        let figures = match &pods {
            Some(pods) => pods.measure(drill, n, progress)?,
            None => Some(on_processes(drill, n, progress)?),
        };
        let Some(figures) = figures else { continue };
        report(&[serde_json::to_value(&figures)?], failover.json.as_deref())?;
        all.push((drill, figures));
    }
    if let Some(pods) = pods {
        pods.down()?;
    }
    if all.is_empty() {
        bail!("no such drill on {place}");
    }
    print!("{}", table(&all));
    Ok(())
}

/// One drill on processes, on a cluster of its own with the shipped timers.
pub fn on_processes(drill: Drill, n: u32, progress: &Progress) -> Result<Figures> {
    let spec = match drill {
        Drill::TwoPlusOne => Spec::new(2, 1),
        Drill::BlackHole => Spec::new(3, 3).in_namespaces(),
        _ => Spec::new(3, 3),
    };
    let mut cluster = LocalCluster::start(spec)?;
    if drill == Drill::PlannedDead {
        kill_a_follower(&mut cluster)?;
    }
    let figures = measure(&mut LocalDrills::new(&mut cluster), drill, n, progress)?;
    cluster.finish();
    Ok(figures)
}

/// A gateway that votes dies and stays dead.
fn kill_a_follower(cluster: &mut LocalCluster) -> Result<()> {
    let (primary, _) = cluster.wait_led(0)?;
    let (victim, _) = cluster.survivors(&primary).pop().context("no other gateway")?;
    cluster.node_mut(&victim)?.kill9().map(drop)
}

/// So many runs of a drill beside a steady writer.
pub fn measure(cluster: &mut dyn Drillable, drill: Drill, n: u32, progress: &Progress) -> Result<Figures> {
    cluster.settle()?;
    let pool = Pool::new(cluster.survivors(""));
    let writer = Options { clients: 1, pause: Duration::from_millis(5), ..Options::new("steady-") };
    let load = Load::start(&pool, &writer);
    let mut took_ms = Vec::new();
    for i in 1..=n {
        let run = drill::run(cluster, drill, Some(&pool)).with_context(|| format!("run {i} of {n}"))?;
        took_ms.push(run.took.as_secs_f64() * 1000.0);
        if i % 10 == 0 || run.took > Duration::from_secs(1) {
            progress.line(format!(
                "{} {i}/{n}: {:.1} ms, epoch {}",
                drill.name(),
                run.took.as_secs_f64() * 1000.0,
                run.epoch
            ));
        }
    }
    let ops = load.stop()?;
    let failed_writes = failed_writes(&ops, progress);
    took_ms.sort_by(f64::total_cmp);
    Ok(Figures {
        figure: "failover",
        drill: drill.name(),
        place: cluster.place(),
        n: took_ms.len(),
        p50_ms: rank(&took_ms, 50),
        p99_ms: (took_ms.len() >= P99_FROM).then(|| rank(&took_ms, 99)),
        max_ms: rank(&took_ms, 100),
        failed_writes,
    })
}

/// Mutations of the steady writer that were answered 503, 504 or not at all.
pub(super) fn failed_writes(ops: &[Op], progress: &Progress) -> usize {
    let failed = |answer| matches!(answer, Answer::Refused | Answer::Unknown | Answer::Failed(_));
    let failed: Vec<_> = ops.iter().filter(|op| op.action.is_mutation() && failed(op.answer)).collect();
    for op in failed.iter().take(5) {
        progress.line(format!("a write of the steady writer failed: {op:?}"));
    }
    failed.len()
}

/// The smallest value that so many of a hundred do not exceed, with one decimal.
pub(super) fn rank(sorted: &[f64], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).map_or(f64::NAN, |value| (value * 10.0).round() / 10.0)
}

fn table(all: &[(Drill, Figures)]) -> String {
    let mut text = format!(
        "{:<13} {:<11} {:>4} {:>9} {:>9} {:>9} {:>7}   targets, ms\n",
        "drill", "where", "n", "p50 ms", "p99 ms", "max ms", "failed"
    );
    for (drill, figures) in all {
        let (p50, p99) = drill.targets_ms();
        let p50 = p50.map_or(String::new(), |ms| format!("p50 < {ms}, "));
        let shown = figures.p99_ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        text.push_str(&format!(
            "{:<13} {:<11} {:>4} {:>9.1} {shown:>9} {:>9.1} {:>7}   {p50}p99 < {p99}\n",
            figures.drill, figures.place, figures.n, figures.p50_ms, figures.max_ms, figures.failed_writes
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([50, 99, 100].map(|p| rank(&hundred, p)), [50.0, 99.0, 100.0]);
        assert_eq!([50, 100].map(|p| rank(&[7.0], p)), [7.0, 7.0]);
    }
}
