//! `cargo xtask test`: every test of the project, step by step, one summary at the end.
//!
//! A step is a command; its tests are counted from the closing lines of `cargo test`, a command without such lines
//! counts as one test. A failed step does not hide the others: all run, then the summary says which failed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::root;
use crate::testbed::binaries::cache_dir;

/// Version of `cargo deny` that the project is checked with.
const DENY: &str = "0.20.2";
/// Seeds of the simulator in CI, and in the inner loop.
const SEEDS: u32 = 10_000;
const SEEDS_FAST: u32 = 300;

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The inner loop: no Kubernetes, fewer seeds
    #[arg(long)]
    pub fast: bool,
    /// Only steps whose name contains this
    #[arg(long)]
    pub only: Option<String>,
}

/// One command of the run.
struct Step {
    name: &'static str,
    /// Part of the inner loop.
    fast: bool,
    program: String,
    args: Vec<String>,
    limit: Duration,
}

/// How a step went.
#[derive(Debug, Default)]
struct Outcome {
    passed: u32,
    failed: u32,
    skipped: u32,
    took: Duration,
}

fn step(name: &'static str, fast: bool, minutes: u64, command: &str) -> Step {
    let mut words = command.split_whitespace().map(str::to_owned);
    let program = words.next().unwrap_or_default();
    Step { name, fast, program, args: words.collect(), limit: Duration::from_secs(60 * minutes) }
}

fn steps(fast: bool) -> Result<Vec<Step>> {
    let seeds = if fast { SEEDS_FAST } else { SEEDS };
    let sim = root().join("target/release/ais-sim");
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let deny = cache_dir()?.join(format!("cargo-deny-{DENY}/bin/cargo-deny"));
    let mut all = vec![
        step("format", true, 2, "cargo fmt --all --check"),
        step("build", true, 40, "cargo build --release --workspace --bins"),
        step("clippy", true, 30, "cargo clippy --release --workspace --all-targets -- -D warnings"),
        step("unit and component tests", true, 40, "cargo test --release --workspace --exclude ais-tests"),
        step("known defects are caught", false, 20, "cargo xtask mutants --seconds 30"),
        step("simulator", true, 20, &format!("{} run --seeds 1..{} --jobs 2", sim.display(), seeds + 1)),
        step("fuzz targets, 10 s each", false, 20, &format!("{} fuzz --seconds 10", own.display())),
        step("harness", true, 20, "cargo test --release -p ais-tests --lib --bins"),
        step("processes", false, 20, "cargo test --release -p ais-tests --test processes -- --test-threads=1"),
        step(
            "processes with TLS",
            false,
            15,
            "cargo test --release -p ais-tests --test processes_tls -- --test-threads=1",
        ),
        step(
            "processes in namespaces",
            false,
            20,
            "cargo test --release -p ais-tests --test processes_faults -- --test-threads=1",
        ),
        step(
            "the control API on processes",
            false,
            15,
            "cargo test --release -p ais-tests --test control -- --test-threads=1",
        ),
        step("disks of processes", false, 15, "cargo test --release -p ais-tests --test disks -- --test-threads=1"),
        step("Python SDK on processes", false, 15, "cargo test --release -p ais-tests --test sdk -- --test-threads=1"),
        step("test Kubernetes", false, 40, "cargo test --release -p ais-tests --test testbed -- --test-threads=1"),
        step("Kubernetes", false, 45, "cargo test --release -p ais-tests --test kubernetes -- --test-threads=1"),
        step("licences and duplicates", false, 5, &format!("{} check licenses bans sources", deny.display())),
    ];
    all.retain(|s| s.fast || !fast);
    Ok(all)
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.fast {
        ensure_deny()?;
    }
    let started = Instant::now();
    let mut results = Vec::new();
    for step in steps(arguments.fast)? {
        if arguments.only.as_ref().is_some_and(|only| !step.name.contains(only.as_str())) {
            continue;
        }
        eprintln!("\n=== {}: {} {}", step.name, step.program, step.args.join(" "));
        let outcome = execute(&step).with_context(|| format!("step '{}'", step.name))?;
        results.push((step.name, outcome));
    }
    summary(&results, started.elapsed())
}

fn summary(results: &[(&str, Outcome)], took: Duration) -> Result<()> {
    println!("\n{:<34} {:>7} {:>7} {:>8} {:>9}", "step", "passed", "failed", "skipped", "seconds");
    for (name, o) in results {
        println!("{name:<34} {:>7} {:>7} {:>8} {:>9.1}", o.passed, o.failed, o.skipped, o.took.as_secs_f64());
    }
    let sum = |f: fn(&Outcome) -> u32| results.iter().map(|(_, o)| f(o)).sum::<u32>();
    let (passed, failed, skipped) = (sum(|o| o.passed), sum(|o| o.failed), sum(|o| o.skipped));
    println!("took {:.0} s", took.as_secs_f64());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        let names: Vec<&str> = results.iter().filter(|(_, o)| o.failed > 0).map(|(name, _)| *name).collect();
        bail!("failed: {}", names.join(", "));
    }
    if passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Runs one step, echoing its output as it comes and counting the closing lines of its tests.
fn execute(step: &Step) -> Result<Outcome> {
    let started = Instant::now();
    let mut child = Command::new(&step.program)
        .args(&step.args)
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", step.program))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let (ended, end) = channel();
    std::thread::spawn(move || {
        let mut counted = Outcome::default();
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            println!("{line}");
            counted.count(&line);
        }
        let _ = ended.send(counted);
    });
    // The end of its output is the end of the step: no polling.
    let counted = end.recv_timeout(step.limit);
    if counted.is_err() {
        eprintln!("the step takes longer than {} s; ending it", step.limit.as_secs());
        child.kill()?;
    }
    let ok = child.wait()?.success() && counted.is_ok();
    let mut outcome = counted.unwrap_or_default();
    outcome.took = started.elapsed();
    match (ok, outcome.passed + outcome.failed) {
        (true, 0) => outcome.passed = 1,
        (false, _) if outcome.failed == 0 => outcome.failed = 1,
        _ => {}
    }
    Ok(outcome)
}

impl Outcome {
    /// Adds a closing line of `cargo test`: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn count(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u32>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// `cargo deny` is a tool of its own, kept outside the tree.
fn ensure_deny() -> Result<()> {
    let home = cache_dir()?.join(format!("cargo-deny-{DENY}"));
    if home.join("bin/cargo-deny").exists() {
        return Ok(());
    }
    eprintln!("installing cargo-deny {DENY} (once)");
    let install = step("cargo-deny", false, 30, &format!("cargo install --locked --quiet cargo-deny@{DENY} --root"));
    let args = install.args.into_iter().chain([home.display().to_string()]).collect();
    let outcome = execute(&Step { args, ..step("cargo-deny", false, 30, "cargo") })?;
    if outcome.failed > 0 {
        bail!("cannot install cargo-deny; try: cargo install --locked cargo-deny@{DENY}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn closing_lines_are_counted() {
        let mut o = Outcome::default();
        o.count("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s");
        o.count("test result: FAILED. 2 passed; 5 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.2s");
        o.count("test something ... ok");
        assert_eq!((o.passed, o.failed, o.skipped), (5, 5, 1));
    }
}
