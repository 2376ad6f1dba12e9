//! `cargo xtask test`: every test of the project.

use anyhow::{Result, bail};
use clap::Args;

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The inner loop: no Kubernetes
    #[arg(long)]
    pub fast: bool,
}

/// Runs it.
pub fn run(_arguments: &Arguments) -> Result<()> {
    bail!("`test` is not there yet; use `cargo test --release --workspace`")
}
