//! `cargo xtask soak`: random faults for as long as wanted, a continuous check, a summary.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::progress::Progress;
use crate::soak::{self, Options};

/// Arguments of `cargo xtask soak`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How long faults go on
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Decides on the plan of faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Gateways
    #[arg(long, default_value_t = 5)]
    gateways: usize,
    /// Targets
    #[arg(long, default_value_t = 4)]
    targets: usize,
    /// Between two buckets of one client, of which each gateway has two
    #[arg(long, default_value_t = 25)]
    pause_ms: u64,
    /// Only faults of this name, for instance split, hand-overs or "kill -9"; may be given more than once
    #[arg(long)]
    only: Vec<String>,
    /// What the nodes log
    #[arg(long, default_value = "info,ais_node::peers=debug")]
    log_level: String,
    /// Where the logs of faults are kept that took two seconds or more to heal
    #[arg(long, default_value = "target/soak-slow")]
    slow_dir: PathBuf,
    /// Also write the summary here
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { minutes, seed, gateways, targets, pause_ms, ref out, .. } = *arguments;
    anyhow::ensure!(gateways >= 3 && targets >= 1 && gateways + targets <= 40, "3 gateways and 1 target at least");
    super::build_node()?;
    let options = Options {
        time: Duration::from_secs(60 * minutes),
        seed,
        gateways,
        targets,
        pause: Duration::from_millis(pause_ms),
        only: arguments.only.clone(),
        log_level: arguments.log_level.clone(),
        slow_dir: arguments.slow_dir.clone(),
    };
    let (summary, done) = soak::run(&options, &Progress::new("soak"));
    println!("{summary}");
    if let Some(path) = out {
        std::fs::write(path, summary.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    done
}
