//! `ais-sim`: runs seeds of the simulator and judges them; shows and shrinks one; measures fail-overs; hunts known
//! defects.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ais_sim::{Plan, Report, Totals, latency, run_plan, scale, shrink};
use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Deterministic simulator of the election core", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds and judges them; fails on a violation, or when too little happened.
    Run(Run),
    /// Prints the plan that a seed stands for, as JSON.
    Plan {
        /// Which.
        #[arg(long)]
        seed: u64,
    },
    /// Measures how a change spreads over many members: time and the primary's bytes.
    Scale {
        /// Members, 5 gateways among them; with fewer sizes below it, to show growth.
        #[arg(long, default_value_t = 1000)]
        members: usize,
    },
    /// Measures fail-overs in a healthy world: 1 ms one way, 2 ms a sync.
    Latency {
        /// Runs of each.
        #[arg(long, default_value_t = 50)]
        runs: u64,
    },
}

#[derive(Args)]
struct Run {
    /// First and one past the last.
    #[arg(long, default_value = "0..1000")]
    seeds: String,
    /// This seed only.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// This plan only: a JSON file.
    #[arg(long, conflicts_with_all = ["seeds", "seed"])]
    plan: Option<PathBuf>,
    /// With --seed or --plan: prints what happens, one line each.
    #[arg(long)]
    trace: bool,
    /// With --seed or --plan: looks for the smallest plan that breaks the same, prints it and what happens.
    #[arg(long)]
    shrink: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Ends after so many seconds, however far it is.
    #[arg(long)]
    seconds: Option<u64>,
    /// Writes a line to this file every minute.
    #[arg(long)]
    progress: Option<PathBuf>,
    /// Puts a known defect into the core and succeeds only if it is caught (build with `--features mutants`).
    #[arg(long)]
    mutant: Option<String>,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Plan { seed } => {
            println!("{}", serde_json::to_string_pretty(&Plan::of(seed))?);
            Ok(())
        }
        Command::Latency { runs } => latency_table(runs),
        Command::Scale { members } => scale_table(members),
    }
}

fn range(text: &str) -> anyhow::Result<std::ops::Range<u64>> {
    let (from, to) = text.split_once("..").context("seeds are given as FIRST..END")?;
    Ok(from.parse()?..to.parse()?)
}

impl Run {
    fn run(&self) -> anyhow::Result<()> {
        if let Some(name) = &self.mutant {
            switch(name)?;
        }
        let plan = match (&self.plan, self.seed) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                Some(serde_json::from_str(&text).with_context(|| format!("{} is no plan", file.display()))?)
            }
            (None, Some(seed)) => Some(Plan::of(seed)),
            (None, None) => None,
        };
        match (plan, &self.mutant) {
            (Some(plan), _) if self.shrink => smallest(&plan),
            (Some(plan), _) => one(plan, self.trace),
            (None, Some(name)) => self.hunt(name),
            (None, None) => self.judge(),
        }
    }

    /// Runs them all, or until the first violation if `stop`.
    fn all(&self, stop: bool) -> anyhow::Result<(Totals, Vec<Report>)> {
        let seeds = range(&self.seeds)?;
        let next = AtomicU64::new(seeds.start);
        let start = Instant::now();
        let until = self.seconds.map(|s| start + Duration::from_secs(s));
        let sum = Mutex::new((Totals::default(), Vec::new(), start));
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end || until.is_some_and(|until| Instant::now() >= until) {
                            return;
                        }
                        let report = ais_sim::run_seed(seed, false);
                        let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        sum.0.add(&report);
                        if let Some(file) = self.progress.as_ref().filter(|_| sum.2.elapsed().as_secs() >= 60) {
                            sum.2 = Instant::now();
                            let line = format!("{}  violations {}\n", sum.0.line(start.elapsed()), sum.1.len());
                            if let Err(e) = std::fs::write(file, line) {
                                eprintln!("{}: {e}", file.display());
                            }
                        }
                        let Some(violation) = &report.violation else { continue };
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
                });
            }
        });
        let (totals, failed, _) = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok((totals, failed))
    }

    fn judge(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        let (totals, failed) = self.all(false)?;
        print!("{}", totals.table(start.elapsed()));
        for report in failed.iter().take(20) {
            if let Some(violation) = &report.violation {
                println!("seed {}: {violation}", report.seed);
                println!("  again: ais-sim run --seed {} --shrink", report.seed);
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

    fn hunt(&self, name: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        let (totals, failed) = self.all(true)?;
        let took = start.elapsed().as_secs_f64();
        match failed.first().and_then(|r| r.violation.as_ref().map(|v| (r.seed, v))) {
            Some((seed, violation)) => {
                println!(
                    "{name}: caught by {} in seed {seed}, after {} seeds, {took:.1} s",
                    violation.invariant, totals.seeds
                );
                println!("  {violation}");
                Ok(())
            }
            None => bail!("{name}: not caught in {} seeds, {took:.1} s", totals.seeds),
        }
    }
}

fn one(plan: Plan, trace: bool) -> anyhow::Result<()> {
    let seed = plan.seed;
    let report = run_plan(plan, trace);
    println!("seed {seed}: trace hash {:016x}, {} events", report.hash, report.counts.events);
    match report.violation {
        None => Ok(()),
        Some(violation) => bail!("seed {seed}: {violation}"),
    }
}

fn smallest(plan: &Plan) -> anyhow::Result<()> {
    let Some(shrunk) = shrink::shrink(plan) else {
        println!("seed {}: nothing is violated", plan.seed);
        return Ok(());
    };
    let report = run_plan(shrunk.plan.clone(), true);
    println!("{}", serde_json::to_string_pretty(&shrunk.plan)?);
    println!("{} of {} faults are left, after {} runs", shrunk.plan.faults.len(), plan.faults.len(), shrunk.runs);
    match report.violation {
        None => bail!("the smallest plan breaks nothing: a run is not a function of its plan"),
        Some(violation) => bail!("seed {}: {violation}", plan.seed),
    }
}

#[cfg(feature = "mutants")]
fn switch(name: &str) -> anyhow::Result<()> {
    use ais_ha::mutant::{Mutant, set};
    let names: Vec<String> = Mutant::ALL.iter().map(|m| format!("{m:?}")).collect();
    let found = Mutant::ALL.iter().find(|m| format!("{m:?}") == name);
    set(Some(*found.with_context(|| format!("no defect is named {name}; there are {}", names.join(", ")))?));
    Ok(())
}

#[cfg(not(feature = "mutants"))]
fn switch(name: &str) -> anyhow::Result<()> {
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

#[expect(clippy::cast_precision_loss, reason = "shown only")]
fn scale_table(most: usize) -> anyhow::Result<()> {
    println!("one way 0.2-0.5 ms, a sync 1-4 ms, uplink {} Mbit/s; the processor is not modelled", scale::UPLINK_MBIT);
    println!(
        "| members | buckets | State kB | commit ms | published everywhere ms, p50 | worst | primary kB per change | idle kB/s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut slow = false;
    for members in [10, 100, 1000, most].into_iter().filter(|n| *n <= most) {
        for buckets in [10, 10_000] {
            let m = scale::measure(members, buckets, 1).map_err(|v| anyhow::anyhow!("{members} members: {v}"))?;
            let ms = |us: u64| us as f64 / 1000.0;
            println!(
                "| {} | {} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
                m.members,
                m.buckets,
                m.state_bytes as f64 / 1000.0,
                ms(m.commit_us),
                ms(m.everywhere_us.0),
                ms(m.everywhere_us.1),
                m.change_bytes as f64 / 1000.0,
                m.idle_bytes_per_s as f64 / 1000.0
            );
            slow |= m.everywhere_us.1 >= 1_000_000;
        }
        if members == most {
            break;
        }
    }
    if slow { bail!("publication everywhere took a second or more") } else { Ok(()) }
}
