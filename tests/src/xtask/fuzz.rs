//! `cargo xtask fuzz`: every decoder under libFuzzer, guided by coverage, from the kept corpus.
//!
//! It needs nothing but the pinned toolchain and a C++ compiler: LLVM's coverage pass is asked for through `-C passes`,
//! which the stable compiler takes. There is no address sanitizer (that does need a nightly compiler), and no need of
//! one: the project denies `unsafe`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::root;
use crate::cmd::Cmd;
use crate::progress::Progress;
use crate::testbed::packages;

/// What makes LLVM count edges and comparisons where libFuzzer finds them.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";
const INPUT_MAX_BYTES: usize = 16 << 10;
/// Of each target the smallest inputs are kept in the repository, in so many bytes of text; real values, which are
/// larger, are made by the targets themselves.
const KEPT_MAX_BYTES: usize = 32 << 10;
const RSS_MAX_MB: usize = 2048;
/// One input may not take longer.
const INPUT_TIMEOUT_S: u64 = 10;
/// Stack of the decoding thread: that of the daemon's own threads.
const STACK_KIB: usize = 2048;
const BUILD_TIMEOUT: Duration = Duration::from_secs(3600);
/// Beyond the time that was asked for: start, reading the corpus, the last input.
const GRACE: Duration = Duration::from_secs(120);

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Only targets whose name contains this
    #[arg(long)]
    pub target: Option<String>,
    /// Add what reaches new code to the kept corpus, minimised
    #[arg(long)]
    pub keep: bool,
    /// Targets that run at a time
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
}

/// What one target did.
#[derive(Debug)]
struct Outcome {
    target: String,
    /// Inputs run.
    runs: u64,
    /// Edges reached.
    edges: u64,
    /// Inputs that reached something new.
    added: u64,
    /// The input that broke a property, and what was said of it.
    broken: Option<String>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let progress = Progress::new("fuzz");
    packages::ensure_for_fuzz(&progress)?;
    let work = target_dir()?.join("fuzz");
    progress.line("building the targets with coverage");
    let binary = build(&work)?;
    let all = targets()?;
    let wanted: Vec<String> =
        all.into_iter().filter(|name| arguments.target.as_ref().is_none_or(|part| name.contains(part))).collect();
    if wanted.is_empty() {
        bail!("no such target; there are {}", targets()?.join(", "));
    }
    let fuzzer = Fuzzer { binary, work, seconds: arguments.seconds, keep: arguments.keep };
    let outcomes = side_by_side(&fuzzer, &wanted, arguments.jobs.max(1), &progress)?;
    println!("{:<16} {:>12} {:>8} {:>6}", "target", "inputs", "edges", "new");
    for o in &outcomes {
        println!("{:<16} {:>12} {:>8} {:>6}", o.target, o.runs, o.edges, o.added);
    }
    let broken: Vec<&Outcome> = outcomes.iter().filter(|o| o.broken.is_some()).collect();
    for o in &broken {
        println!("\n{}: {}", o.target, o.broken.as_deref().unwrap_or_default());
    }
    // Counted by `cargo xtask test` like the closing line of a test binary.
    let verdict = if broken.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {} passed; {} failed", outcomes.len() - broken.len(), broken.len());
    if broken.is_empty() { Ok(()) } else { bail!("{} targets are broken", broken.len()) }
}

fn side_by_side(fuzzer: &Fuzzer, wanted: &[String], jobs: usize, progress: &Progress) -> Result<Vec<Outcome>> {
    let queue = std::sync::Mutex::new(wanted.iter());
    let next = || queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
    let worker = || -> Result<Vec<Outcome>> {
        let mut done = Vec::new();
        while let Some(target) = next() {
            let outcome = fuzzer.fuzz(target).with_context(|| format!("target {target}"))?;
            let word = if outcome.broken.is_some() { "BROKEN" } else { "ok" };
            progress.line(format!("{target}: {} inputs, {word}", outcome.runs));
            done.push(outcome);
        }
        Ok(done)
    };
    let mut outcomes = std::thread::scope(|scope| -> Result<Vec<Outcome>> {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??);
        }
        Ok(all)
    })?;
    outcomes.sort_by_key(|o| wanted.iter().position(|name| *name == o.target));
    Ok(outcomes)
}

/// Cargo's target folder: this program is in it.
fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let release = own.ancestors().find(|dir| dir.ends_with("release") || dir.ends_with("debug"));
    release.and_then(Path::parent).map(Path::to_owned).context("this program is in no target folder")
}

/// A folder of its own: the flags would make cargo build everything else again.
fn build(work: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let told = Cmd::new("rustc").args(["-vV"]).dir(root()).run()?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?.to_owned();
    // Naming the platform keeps the flags away from build scripts and macros.
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "ais-fuzz", "--features", "libfuzzer", "--target", &host])
        .arg("--target-dir")
        .arg(work)
        .env("RUSTFLAGS", COVERAGE)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(root())
        .stdin(Stdio::null())
        .spawn()
        .context("cannot run cargo")
        .and_then(|mut child| crate::cmd::wait_child(&mut child, BUILD_TIMEOUT))?;
    if !status.is_some_and(|status| status.success()) {
        bail!("cannot build the fuzz targets");
    }
    Ok(work.join(host).join("release/ais-fuzz"))
}

fn corpus_dir() -> PathBuf {
    root().join("tests/fuzz/corpus")
}

/// Every target has a kept corpus; `tests/fuzz/tests/corpus.rs` sees to that.
fn targets() -> Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(corpus_dir()).context("cannot read the corpus")? {
        let name = entry?.file_name();
        names.extend(name.to_string_lossy().strip_suffix(".txt").map(str::to_owned));
    }
    Ok(names.into_iter().collect())
}

struct Fuzzer {
    binary: PathBuf,
    work: PathBuf,
    seconds: u64,
    keep: bool,
}

impl Fuzzer {
    fn fuzz(&self, target: &str) -> Result<Outcome> {
        let place = self.work.join("run").join(target);
        // What earlier runs found is not used: a run is as good as the kept corpus.
        if place.exists() {
            fs::remove_dir_all(&place).with_context(|| format!("cannot empty {}", place.display()))?;
        }
        let (inputs, seeds) = (place.join("inputs"), place.join("seeds"));
        fs::create_dir_all(&inputs)?;
        fs::create_dir_all(&seeds)?;
        let kept = corpus_dir().join(format!("{target}.txt"));
        for (i, line) in fs::read_to_string(&kept)?.lines().enumerate() {
            fs::write(seeds.join(format!("kept-{i}")), unescape(line)?)?;
        }
        let said = self.call(
            target,
            &place,
            &[
                &format!("-max_total_time={}", self.seconds),
                "-print_final_stats=1",
                &inputs.to_string_lossy(),
                &seeds.to_string_lossy(),
            ],
        )?;
        let stats = stats(&said.stderr);
        let stat = |name: &str| stats.get(name).copied().unwrap_or_default();
        let broken = (!said.ok()).then(|| explain(&place, &said.stderr));
        if broken.is_none() && self.keep {
            self.minimise(target, &place, &kept)?;
        }
        let (runs, added) = (stat("number_of_executed_units"), stat("new_units_added"));
        if broken.is_none() && runs == 0 {
            bail!("it ran nothing: {}", crate::cmd::tail(&said.stderr));
        }
        Ok(Outcome { target: target.to_owned(), runs, edges: edges(&said.stderr), added, broken })
    }

    fn call(&self, target: &str, place: &Path, args: &[&str]) -> Result<crate::cmd::Output> {
        let line = format!("ulimit -s {STACK_KIB} && exec \"$0\" \"$@\"");
        Cmd::new("sh")
            .arg("-c")
            .arg(line)
            .arg(&self.binary)
            .arg(format!("-max_len={INPUT_MAX_BYTES}"))
            .arg(format!("-rss_limit_mb={RSS_MAX_MB}"))
            .arg(format!("-timeout={INPUT_TIMEOUT_S}"))
            .arg(format!("-artifact_prefix={}/", place.display()))
            .args(args)
            .env("AIS_FUZZ_TARGET", target)
            .env("AIS_FUZZ_SEEDS", place.join("seeds"))
            .timeout(Duration::from_secs(self.seconds) + GRACE)
            .output()
    }

    /// The fewest and smallest inputs that reach what all of them reach, as the kept corpus.
    fn minimise(&self, target: &str, place: &Path, kept: &Path) -> Result<()> {
        let fewest = place.join("fewest");
        fs::create_dir_all(&fewest)?;
        let folders = [fewest.clone(), place.join("inputs"), place.join("seeds")];
        let [to, from, seeds] = folders.each_ref().map(|folder| folder.to_string_lossy());
        let said = self.call(target, place, &["-merge=1", &to, &from, &seeds])?;
        if !said.ok() {
            bail!("cannot minimise: {}", crate::cmd::tail(&said.stderr));
        }
        let mut lines = Vec::new();
        for entry in fs::read_dir(&fewest)? {
            lines.push(fs::read(entry?.path())?.escape_ascii().to_string());
        }
        let lines = smallest(lines, KEPT_MAX_BYTES);
        let mut text = lines.join("\n");
        text.push('\n');
        fs::write(kept, text).with_context(|| format!("cannot write {}", kept.display()))
    }
}

/// The shortest that fit into so many bytes, in order of their text: a change of the corpus is a small difference.
fn smallest(mut lines: Vec<String>, max_bytes: usize) -> Vec<String> {
    lines.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let mut room = max_bytes;
    let fits = |line: &String| {
        let left = room.checked_sub(line.len() + 1);
        room = left.unwrap_or(room);
        left.is_some()
    };
    let mut kept: Vec<String> = lines.into_iter().take_while(fits).collect();
    kept.sort();
    kept
}

/// As `ais_fuzz::unescape` reads it; that crate is too large to be linked into this program.
fn unescape(line: &str) -> Result<Vec<u8>> {
    let mut input = Vec::with_capacity(line.len());
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        input.push(match byte {
            b'\\' => match rest.next().context("a lone backslash")? {
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let digits: Vec<u8> = rest.by_ref().take(2).collect();
                    u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?
                }
                plain => plain,
            },
            plain => plain,
        });
    }
    Ok(input)
}

/// `stat::name: value` lines.
fn stats(said: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, value) = line.strip_prefix("stat::")?.split_once(':')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    said.lines().filter_map(line).collect()
}

/// The last `cov: N` that was reported.
fn edges(said: &str) -> u64 {
    let number = |line: &str| line.split(" cov: ").nth(1)?.split_whitespace().next()?.parse().ok();
    said.lines().rev().find_map(number).unwrap_or_default()
}

/// What broke, and how to run that input again.
fn explain(place: &Path, said: &str) -> String {
    let why = said.lines().skip_while(|line| !line.contains("panicked") && !line.contains("ERROR: ")).take(4);
    let why: Vec<&str> = why.collect();
    let artifact = fs::read_dir(place).ok().and_then(|entries| {
        let is_input = |name: &str| ["crash-", "oom-", "timeout-"].iter().any(|kind| name.starts_with(kind));
        entries.flatten().find(|entry| is_input(&entry.file_name().to_string_lossy())).map(|entry| entry.path())
    });
    let input = artifact.as_ref().and_then(|path| fs::read(path).ok()).unwrap_or_default();
    format!("{}\ninput ({} bytes): {}", why.join("\n"), input.len(), input.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_read() {
        let said = "#2 INITED cov: 10 ft: 11\n#9 NEW    cov: 12 ft: 30 corp: 2/9b\n\
            stat::number_of_executed_units: 4711\nstat::new_units_added:          7\n";
        assert_eq!(stats(said)["number_of_executed_units"], 4711);
        assert_eq!((stats(said)["new_units_added"], edges(said)), (7, 12));
    }

    #[test]
    fn kept_lines_are_read_as_they_were_written() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&all.escape_ascii().to_string()).unwrap(), all);
        assert!(unescape("\\").is_err() && unescape("\\xz1").is_err());
    }

    #[test]
    fn the_smallest_inputs_are_kept() {
        let lines = ["ccc", "a", "bb"].map(str::to_owned).to_vec();
        assert_eq!(smallest(lines.clone(), 5), ["a", "bb"]);
        assert_eq!(smallest(lines, 100), ["a", "bb", "ccc"]);
    }

    #[test]
    fn every_corpus_names_a_target() {
        assert!(!targets().unwrap().is_empty());
    }
}
