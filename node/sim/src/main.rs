//! `ais-sim`: runs seeds of the simulator and judges them; shows one; measures fail-overs; hunts known defects.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ais_sim::{Report, Totals, latency};
use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Deterministic simulator of the election core", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds and judges them; fails on a violation, or when too little happened.
    Run {
        /// First and one past the last.
        #[arg(long, default_value = "0..1000")]
        seeds: String,
        /// This seed only.
        #[arg(long, conflicts_with = "seeds")]
        seed: Option<u64>,
        /// With --seed: prints what happens, one line each.
        #[arg(long, requires = "seed")]
        trace: bool,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Puts a known defect into the core and succeeds only if it is caught (build with `--features mutants`).
        #[arg(long)]
        mutant: Option<String>,
    },
    /// Measures fail-overs in a healthy world: 1 ms one way, 2 ms a sync.
    Latency {
        /// Runs of each.
        #[arg(long, default_value_t = 50)]
        runs: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run { seed: Some(seed), trace, .. } => one(seed, trace),
        Command::Run { seeds, jobs, mutant: Some(name), .. } => hunt(&range(&seeds)?, jobs, &name),
        Command::Run { seeds, jobs, .. } => judge(&range(&seeds)?, jobs),
        Command::Latency { runs } => latency_table(runs),
    }
}

fn range(text: &str) -> anyhow::Result<std::ops::Range<u64>> {
    let (from, to) = text.split_once("..").context("seeds are given as FIRST..END")?;
    Ok(from.parse()?..to.parse()?)
}

fn one(seed: u64, trace: bool) -> anyhow::Result<()> {
    let report = ais_sim::run_seed(seed, trace);
    println!("seed {seed}: trace hash {:016x}, {} events", report.hash, report.counts.events);
    match report.violation {
        None => Ok(()),
        Some(violation) => bail!("seed {seed}: {violation}"),
    }
}

/// Runs them all, or until the first violation if `stop`.
fn run(seeds: &std::ops::Range<u64>, jobs: usize, stop: bool) -> (Totals, Vec<Report>) {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new((Totals::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let report = ais_sim::run_seed(seed, false);
                    let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    sum.0.add(&report);
                    if let Some(violation) = &report.violation {
                        // At once: a long range may be cut short.
                        eprintln!("seed {seed}: {violation}");
                        // A defect may spin; that catches nothing.
                        if stop && violation.invariant == "busy" {
                            continue;
                        }
                        if stop {
                            next.store(seeds.end, Ordering::Relaxed);
                        }
                        sum.1.push(report);
                    }
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn judge(seeds: &std::ops::Range<u64>, jobs: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    let (totals, failed) = run(seeds, jobs, false);
    print!("{}", totals.table(start.elapsed()));
    for report in failed.iter().take(20) {
        if let Some(violation) = &report.violation {
            println!("seed {}: {violation}", report.seed);
            println!("  again: ais-sim run --seed {} --trace", report.seed);
        }
    }
    let missing = totals.missing();
    for what in &missing {
        println!("too little: {what}");
    }
    if failed.is_empty() && missing.is_empty() {
        return Ok(());
    }
    bail!("{} of {} seeds violate an invariant; {} floors missed", failed.len(), totals.seeds, missing.len())
}

#[cfg(feature = "mutants")]
fn hunt(seeds: &std::ops::Range<u64>, jobs: usize, name: &str) -> anyhow::Result<()> {
    use ais_ha::mutant::{Mutant, set};
    let names: Vec<String> = Mutant::ALL.iter().map(|m| format!("{m:?}")).collect();
    let found = Mutant::ALL.iter().find(|m| format!("{m:?}") == name);
    let mutant = found.with_context(|| format!("no defect is named {name}; there are {}", names.join(", ")))?;
    set(Some(*mutant));
    let start = Instant::now();
    let (totals, failed) = run(seeds, jobs, true);
    set(None);
    match failed.first().and_then(|r| r.violation.as_ref().map(|v| (r.seed, v))) {
        Some((seed, violation)) => {
            println!(
                "{name}: caught by {} in seed {seed}, after {} seeds, {:.1?}",
                violation.invariant,
                totals.seeds,
                start.elapsed()
            );
            println!("  {violation}");
            Ok(())
        }
        None => bail!("{name}: not caught in {} seeds", totals.seeds),
    }
}

#[cfg(not(feature = "mutants"))]
fn hunt(_: &std::ops::Range<u64>, _: usize, name: &str) -> anyhow::Result<()> {
    bail!("{name} is not in this build: cargo build --release -p ais-sim --features mutants")
}

fn latency_table(runs: u64) -> anyhow::Result<()> {
    println!("{:<34} {:>5} {:>8} {:>8} {:>8} {:>8}", "drill", "n", "p50 ms", "p99 ms", "max ms", "bound");
    let mut slow = Vec::new();
    for drill in latency::DRILLS {
        let times = latency::measure(drill, runs).map_err(|v| anyhow::anyhow!("{}: {v}", drill.name))?;
        let (p50, p99, max) = (times.at(50), times.at(99), times.at(100));
        println!("{:<34} {runs:>5} {p50:>8} {p99:>8} {max:>8} {:>8}", drill.name, drill.bound_ms);
        if p50 > drill.bound_ms {
            slow.push(drill.name);
        }
    }
    if slow.is_empty() { Ok(()) } else { bail!("slower than they should be: {}", slow.join(", ")) }
}
