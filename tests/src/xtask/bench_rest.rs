//! Cold start, and what an idle cluster costs.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::bench::rank;
use crate::client;
use crate::processes::{LocalCluster, Spec};
use crate::progress::Progress;
use crate::wait::Wait;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// After growth of the electorate, before the idle cluster is looked at.
const SETTLE: Duration = Duration::from_secs(5);

/// From six processes started on empty directories to the first bucket made.
pub fn cold_start(runs: u32, progress: &Progress) -> Result<Value> {
    let mut took_ms = Vec::new();
    for run in 1..=runs {
        let mut cluster = LocalCluster::prepare(Spec::new(3, 3))?;
        let begin = Instant::now();
        for id in cluster.ids() {
            cluster.start_node(&id)?;
        }
        let gateway = cluster.node("g1")?.public.clone();
        Wait::new("the first bucket", START_TIMEOUT).every(LOOK_EVERY).until(|| {
            let reply = client::create_bucket(&gateway, "first", None)?;
            Ok(reply.is_success().then_some(()))
        })?;
        took_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
        cluster.wait_agreed()?;
        cluster.finish();
        if run % 5 == 0 {
            progress.line(format!("cold start {run}/{runs}"));
        }
    }
    took_ms.sort_by(f64::total_cmp);
    Ok(json!({
        "figure": "cold-start", "n": took_ms.len(), "p50_ms": rank(&took_ms, 50), "max_ms": rank(&took_ms, 100),
    }))
}

/// Memory and CPU of each of six nodes that nobody asks anything.
pub fn idle(seconds: u32, progress: &Progress) -> Result<Vec<Value>> {
    let cluster = LocalCluster::start(Spec::new(3, 3))?;
    std::thread::sleep(SETTLE);
    let pids: Vec<(String, u32)> =
        cluster.nodes.iter().filter_map(|node| Some((node.id.clone(), node.pid()?))).collect();
    let ticks = |pids: &[(String, u32)]| pids.iter().map(|(_, pid)| cpu_ticks(*pid)).collect::<Result<Vec<u64>>>();
    let (begin, before) = (Instant::now(), ticks(&pids)?);
    progress.line(format!("an idle cluster of 3+3 for {seconds} s"));
    std::thread::sleep(Duration::from_secs(seconds.into()));
    let (after, took_s) = (ticks(&pids)?, begin.elapsed().as_secs_f64());
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let mut lines = Vec::new();
    for (i, (id, pid)) in pids.iter().enumerate() {
        let used_s = (after[i] - before[i]) as f64 / per_second;
        let percent = (used_s / took_s * 10_000.0).round() / 100.0;
        lines.push(json!({
            "figure": "idle", "node": id, "rss_mib": rss_mib(*pid)?, "cpu_percent": percent, "seconds": seconds,
        }));
    }
    cluster.finish();
    Ok(lines)
}

/// User and system time of a process, in clock ticks.
pub(super) fn cpu_ticks(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("a node ended")?;
    // The program's name may hold anything; what follows its last parenthesis is fields from the third on.
    let fields: Vec<&str> = text.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    let field = |i: usize| fields.get(i).and_then(|text| text.parse::<u64>().ok()).context("no CPU time");
    Ok(field(11)? + field(12)?)
}

/// Resident memory, in MiB with one decimal.
pub(super) fn rss_mib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("a node ended")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    Ok((kib.context("no VmRSS")? / 1024.0 * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let own = std::process::id();
        assert!(rss_mib(own).unwrap() > 0.5);
        let before = cpu_ticks(own).unwrap();
        let begin = Instant::now();
        while cpu_ticks(own).unwrap() == before {
            assert!(begin.elapsed() < Duration::from_secs(60), "no CPU time is counted");
        }
    }
}
