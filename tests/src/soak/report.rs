//! What a soak says at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Options;
use super::monitor::Monitor;
use super::plan::Step;
use crate::history::{Answer, History, Report, Views};

/// A time without a committed write counts as a window from here on: shorter ones are clients that pause.
const WINDOW_MIN: Duration = Duration::from_millis(250);

/// Figures of one kind of fault.
#[derive(Debug, Default)]
struct Kind {
    count: usize,
    /// Windows without a committed write that began during the fault or its healing.
    windows: Vec<Duration>,
    /// From the end of the fault until all was whole.
    healed: Vec<Duration>,
}

/// All that was seen.
#[derive(Debug, Default)]
pub struct Summary {
    seed: u64,
    gateways: usize,
    targets: usize,
    took: Duration,
    rounds: usize,
    kinds: BTreeMap<&'static str, Kind>,
    /// Of the round under way: kind, begin and end since its load began.
    under_way: Vec<(&'static str, Duration, Duration)>,
    windows: Vec<Duration>,
    done: usize,
    reads: usize,
    repeated: usize,
    /// Answered 503: not proposed.
    refused: usize,
    /// Answered 504, or the connection ended.
    unknown: usize,
    failed: usize,
    epochs: usize,
    members: usize,
    monitor: Monitor,
}

impl Summary {
    pub(super) fn new(options: &Options) -> Self {
        Self { seed: options.seed, gateways: options.gateways, targets: options.targets, ..Self::default() }
    }

    /// A fault between two times of the round's load, and how long it took to heal.
    pub(super) fn fault(&mut self, step: &Step, from: Duration, to: Duration, healed: Duration) {
        let kind = self.kinds.entry(step.fault.name()).or_default();
        kind.count += 1;
        kind.healed.push(healed);
        self.under_way.push((step.fault.name(), from, to));
    }

    /// A round that was judged good.
    pub(super) fn round(&mut self, history: &History, report: &Report) {
        self.rounds += 1;
        self.done += report.done;
        self.reads += report.reads;
        self.repeated += report.repeated;
        self.failed += report.failed_writes;
        let writes = || history.ops.iter().filter(|op| op.action.is_mutation());
        self.refused += writes().filter(|op| op.answer == Answer::Refused).count();
        self.unknown += writes().filter(|op| op.answer == Answer::Unknown).count();
        let mut done: Vec<Duration> = writes().filter(|op| op.answer == Answer::Done).map(|op| op.returned).collect();
        done.sort();
        for pair in done.windows(2) {
            let gap = pair[1] - pair[0];
            if gap < WINDOW_MIN {
                continue;
            }
            self.windows.push(gap);
            let during = |(_, from, to): &&(&str, Duration, Duration)| pair[1] >= *from && pair[0] <= *to;
            if let Some((name, ..)) = self.under_way.iter().find(during) {
                self.kinds.entry(name).or_default().windows.push(gap);
            }
        }
        self.under_way.clear();
    }

    pub(super) fn end(&mut self, took: Duration, views: &Views, monitor: Monitor, members: usize) {
        (self.took, self.epochs, self.monitor, self.members) = (took, views.epochs(), monitor, members);
    }

    /// One line, for the progress.
    pub(super) fn line(&self) -> String {
        let faults: usize = self.kinds.values().map(|kind| kind.count).sum();
        format!(
            "round {}: {faults} faults, {} writes, {} without a certain answer, {} windows, longest {:.1} s",
            self.rounds,
            self.done,
            self.failed,
            self.windows.len(),
            percentile(&self.windows, 100).as_secs_f64()
        )
    }
}

/// The value that so many percent of them do not exceed; 0 of none.
fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: usize = self.kinds.values().map(|kind| kind.count).sum();
        let s = |d: Duration| format!("{:.1}", d.as_secs_f64());
        writeln!(
            f,
            "seed {}, {} gateways and {} targets, {:.0} minutes, {faults} faults in {} rounds; {} nodes agree at the end",
            self.seed,
            self.gateways,
            self.targets,
            self.took.as_secs_f64() / 60.0,
            self.rounds,
            self.members
        )?;
        writeln!(
            f,
            "{} writes done, {} reads, {} calls repeated under their id; {} calls answered 503, {} of unknown fate; \
             {} writes without a certain answer; {} epochs, none with two primaries",
            self.done, self.reads, self.repeated, self.refused, self.unknown, self.failed, self.epochs
        )?;
        writeln!(
            f,
            "times without a committed write, from {} ms on: {}, p50 {} s, p99 {} s, longest {} s, together {} s\n",
            WINDOW_MIN.as_millis(),
            self.windows.len(),
            s(percentile(&self.windows, 50)),
            s(percentile(&self.windows, 99)),
            s(percentile(&self.windows, 100)),
            s(self.windows.iter().sum())
        )?;
        writeln!(f, "| fault | times | windows | longest s | whole again p50 s | longest s |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for (name, kind) in &self.kinds {
            let (longest, windows) = (s(percentile(&kind.windows, 100)), kind.windows.len());
            let (p50, last) = (s(percentile(&kind.healed, 50)), s(percentile(&kind.healed, 100)));
            writeln!(f, "| {name} | {} | {windows} | {longest} | {p50} | {last} |", kind.count)?;
        }
        writeln!(
            f,
            "\n| node | RSS max MiB | RSS last | oldest process: looks, RSS first, last | files max | files last |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for (id, u) in &self.monitor.nodes {
            let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
            let (looks, first, last) = u.oldest;
            writeln!(
                f,
                "| {id} | {} | {} | {looks}, {}, {} | {} | {} |",
                mib(u.rss_max_kib),
                mib(u.rss_last_kib),
                mib(first),
                mib(last),
                u.fds_max,
                u.fds_last
            )?;
        }
        let counted: Vec<String> = self.monitor.counted.iter().map(|(name, n)| format!("{name} {n}")).collect();
        writeln!(f, "\ncounters, all nodes: {}", counted.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let ms: Vec<Duration> = (1..=10).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&ms, 50), Duration::from_millis(5));
        assert_eq!(percentile(&ms, 99), Duration::from_millis(10));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
