//! What the operator costs while nothing happens.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::bench_rest::{cpu_ticks, rss_mib};
use super::place::Place;
use super::rows::Row;
use crate::progress::Progress;
use crate::wait::Wait;

const CALM: Duration = Duration::from_secs(3);
const CALM_TIMEOUT: Duration = Duration::from_secs(120);

/// What was seen of the acting instance.
pub(super) struct Rest {
    pub(super) rss_mib: f64,
    pub(super) cpu_percent: f64,
    /// Everything at the pod's interface: the API server's answers, and the streams of the nodes.
    pub(super) received_kib_s: f64,
    pub(super) sent_kib_s: f64,
    /// Writes of all kinds that the operator writes.
    pub(super) writes: f64,
    /// Which ones.
    pub(super) written: String,
}

/// Bytes received and sent at the interface of a process' network.
fn traffic(pid: u32) -> Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).context("the operator ended")?;
    parse_traffic(&text).context("the operator has no eth0")
}

fn parse_traffic(text: &str) -> Option<(f64, f64)> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:"))?;
    let mut fields = line.split_whitespace();
    Some((fields.next()?.parse().ok()?, fields.nth(7)?.parse().ok()?))
}

/// Waits until nothing is written any more, and looks for so long.
pub(super) fn look(place: &Place, seconds: u64) -> Result<Rest> {
    Wait::new("calm", CALM_TIMEOUT).until(|| {
        let before = place.operator.api_writes()?;
        std::thread::sleep(CALM);
        Ok((place.operator.api_writes()? == before).then_some(()))
    })?;
    let (_, process) = place.operator.acting_operator(&place.testbed)?;
    let pid = process.pid();
    let begin = Instant::now();
    let (writes, ticks, bytes) = (place.operator.api_writes()?, cpu_ticks(pid)?, traffic(pid)?);
    std::thread::sleep(Duration::from_secs(seconds));
    let (ticks, now) = (cpu_ticks(pid)? - ticks, traffic(pid)?);
    let took_s = begin.elapsed().as_secs_f64();
    let after = place.operator.api_writes()?;
    let more = after.iter().map(|(what, count)| (what, count - writes.get(what).unwrap_or(&0.0)));
    let more: Vec<(&String, f64)> = more.filter(|(_, count)| *count > 0.0).collect();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let round = |value: f64| (value * 100.0).round() / 100.0;
    Ok(Rest {
        rss_mib: rss_mib(pid)?,
        cpu_percent: round(ticks as f64 / per_second / took_s * 100.0),
        received_kib_s: round((now.0 - bytes.0) / 1024.0 / took_s),
        sent_kib_s: round((now.1 - bytes.1) / 1024.0 / took_s),
        writes: more.iter().fold(0.0, |sum, (_, count)| sum + count),
        written: more.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", "),
    })
}

/// The rows of so many real clusters at rest.
pub(super) fn figures(place: &Place, clusters: usize, seconds: u64, progress: &Progress) -> Result<Vec<Row>> {
    progress.line(format!("at rest for {seconds} s, clusters: {clusters}"));
    let rest = look(place, seconds)?;
    let all = if clusters == 1 { "1 cluster".to_owned() } else { format!("{clusters} clusters") };
    let of = |what: &str| format!("{what}, {all} of 3+3 at rest");
    let memory = Row::of(of("resident memory"), "MiB", vec![rest.rss_mib]);
    let memory = if clusters == 10 { memory.aim("< 25 MiB") } else { memory };
    let what = format!("API writes in {seconds} s, leases apart, {all} at rest");
    let writes = Row::of(what, "writes", vec![rest.writes]).aim("0").beside(or_dash(rest.written));
    Ok(vec![memory, Row::of(of("CPU"), "%", vec![rest.cpu_percent]), writes])
}

pub(super) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_name() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    \
            lo:     10       1    0    0    0     0          0         0       10       1 0 0 0 0 0 0\n  \
            eth0: 12345      20    0    0    0     0          0         0     678       9 0 0 0 0 0 0\n";
        assert_eq!(parse_traffic(text), Some((12345.0, 678.0)));
        assert_eq!(parse_traffic("lo: 1 2"), None);
    }
}
