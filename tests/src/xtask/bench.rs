//! `cargo xtask bench`: measurements.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

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
    /// Only this drill
    #[arg(long)]
    pub drill: Option<String>,
    /// How many runs of each
    #[arg(long)]
    pub n: Option<u32>,
    /// Write one JSON object a line to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Runs it.
pub fn run(_arguments: &Arguments) -> Result<()> {
    bail!("`bench` is not there yet")
}
