//! `bench metadata`: commits a second and their latency, beside etcd and beside itself with a large State.
//!
//! Both clusters stand on the same disk at the same time and are loaded in turn, round after round, so that whatever
//! else the machine does falls on both. The time of a sync is measured in every round, too.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::bench::rank;
use super::bench_disk;
use super::bench_etcd::Etcd;
use super::bench_load::{self, Seen, Wire};
use crate::processes::{LocalCluster, Spec};
use crate::progress::Progress;

const GATEWAYS: usize = 3;
const CLIENTS: [usize; 3] = [1, 16, 64];
/// How many buckets are there while commits are measured.
const FEW_BUCKETS: usize = 10;
/// At which load a large State is compared with a small one.
const LARGE_STATE_CLIENTS: usize = 16;
const WARM_UP: Duration = Duration::from_secs(2);
const SYNC_TIME: Duration = Duration::from_secs(1);

/// Arguments of `cargo xtask bench metadata`.
#[derive(Debug, Clone, Args)]
pub struct Metadata {
    /// Seconds of each round of each system
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Buckets of the large State
    #[arg(long, default_value_t = 10_000)]
    pub buckets: usize,
    /// Not beside etcd
    #[arg(long)]
    pub alone: bool,
    /// Only the comparison with a large State, or only that without it
    #[arg(long, value_parser = ["commits", "large-state"])]
    pub only: Option<String>,
    /// Write one JSON object a line to this file
    #[arg(long)]
    pub json: Option<std::path::PathBuf>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { seconds: 5, rounds: 3, buckets: 10_000, alone: false, only: None, json: None }
    }
}

/// Runs it; one object per line of the table.
pub fn run(arguments: &Metadata, progress: &Progress) -> Result<Vec<Value>> {
    let small = cluster()?;
    let mut lines = Vec::new();
    let addresses = members(&small)?;
    bench_load::fill(&addresses, FEW_BUCKETS, 1)?;
    if arguments.only.as_deref() != Some("large-state") {
        lines.extend(beside_etcd(arguments, &small, progress)?);
    }
    if arguments.only.as_deref() != Some("commits") {
        lines.extend(large_state(arguments, &small, progress)?);
    }
    small.finish();
    Ok(lines)
}

fn cluster() -> Result<LocalCluster> {
    LocalCluster::start(Spec::new(GATEWAYS, 0)).context("the cluster to measure")
}

/// Public addresses, the primary's first.
fn members(cluster: &LocalCluster) -> Result<Vec<SocketAddr>> {
    let mut nodes: Vec<_> = cluster.nodes.iter().collect();
    let leads = |node: &&crate::processes::Node| node.view().map(|view| view.leads()).unwrap_or(false);
    nodes.sort_by_key(|node| !leads(node));
    nodes.iter().map(|node| node.public.parse().context("a node's address")).collect()
}

/// One system, at one number of clients.
struct Side {
    wire: Wire,
    name: String,
    members: Vec<SocketAddr>,
    buckets: usize,
    seen: Seen,
}

impl Side {
    fn new(wire: Wire, name: &str, members: Vec<SocketAddr>, buckets: usize) -> Self {
        Self { wire, name: name.to_owned(), members, buckets, seen: Seen::default() }
    }

    fn round(&mut self, clients: usize, time: Duration, label: &str) -> Result<f64> {
        let seen = bench_load::run(self.wire, &self.members, clients, time, label)
            .with_context(|| format!("{} with {clients} clients", self.name))?;
        let rate = seen.per_s();
        self.seen.add(seen);
        Ok(rate)
    }
}

/// Both sides in turn, so many rounds; one line each.
fn compare(
    sides: &mut [Side],
    clients: usize,
    arguments: &Metadata,
    cluster: &LocalCluster,
    progress: &Progress,
) -> Result<Vec<Value>> {
    let time = Duration::from_secs(arguments.seconds);
    for side in sides.iter_mut() {
        bench_load::run(side.wire, &side.members, clients, WARM_UP, "warm")?;
    }
    let mut syncs_ms = Vec::new();
    for round in 1..=arguments.rounds {
        syncs_ms.extend(bench_disk::syncs_ms(cluster.dir(), SYNC_TIME)?);
        let mut said = Vec::new();
        for side in sides.iter_mut() {
            let rate = side.round(clients, time, &format!("c{clients}r{round}"))?;
            said.push(format!("{} {rate:.0}/s", side.name));
        }
        progress.line(format!("{clients} clients, round {round}: {}", said.join(", ")));
    }
    syncs_ms.sort_by(f64::total_cmp);
    let line = |side: &Side| {
        let [p50, p99] = side.seen.percentiles_ms([50, 99]);
        json!({
            "figure": "metadata", "system": side.name, "clients": clients, "buckets": side.buckets,
            "n": side.seen.took_ms.len(), "per_s": side.seen.per_s().round(), "p50_ms": p50, "p99_ms": p99,
            "sync_p50_ms": hundredth(rank_exact(&syncs_ms, 50)), "sync_p99_ms": hundredth(rank_exact(&syncs_ms, 99)),
        })
    };
    Ok(sides.iter().map(line).collect())
}

fn rank_exact(sorted: &[f64], percent: usize) -> f64 {
    let scaled: Vec<f64> = sorted.iter().map(|ms| ms * 100.0).collect();
    rank(&scaled, percent) / 100.0
}

fn hundredth(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn beside_etcd(arguments: &Metadata, small: &LocalCluster, progress: &Progress) -> Result<Vec<Value>> {
    let etcd = match arguments.alone {
        true => None,
        false => Some((Etcd::start(&small.dir().join("etcd"), progress)?, Etcd::version(progress)?)),
    };
    let mut lines = Vec::new();
    for clients in CLIENTS {
        let mut sides = vec![Side::new(Wire::Buckets, "ais-node", members(small)?, FEW_BUCKETS)];
        if let Some((etcd, version)) = &etcd {
            sides.push(Side::new(Wire::Etcd, version, etcd.clients()?, 0));
        }
        lines.extend(compare(&mut sides, clients, arguments, small, progress)?);
    }
    Ok(lines)
}

fn large_state(arguments: &Metadata, small: &LocalCluster, progress: &Progress) -> Result<Vec<Value>> {
    let large = cluster()?;
    progress.line(format!("making {} buckets", arguments.buckets));
    bench_load::fill(&members(&large)?, arguments.buckets, 64)?;
    let mut sides = [
        Side::new(Wire::Buckets, "ais-node", members(small)?, FEW_BUCKETS),
        Side::new(Wire::Buckets, "ais-node", members(&large)?, arguments.buckets),
    ];
    let mut lines = compare(&mut sides, LARGE_STATE_CLIENTS, arguments, small, progress)?;
    for line in &mut lines {
        line["figure"] = json!("large-state");
    }
    large.finish();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_keep_two_decimals() {
        assert!((rank_exact(&[0.123, 0.456, 0.789], 50) - 0.456).abs() < 1e-3);
        assert!((hundredth(0.456) - 0.46).abs() < 1e-9);
    }
}
