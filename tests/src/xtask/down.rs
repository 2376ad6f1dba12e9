//! `cargo xtask down`: removes what `up` left running.

use anyhow::{Result, bail};
use clap::Args;

/// Arguments of `cargo xtask down`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The processes of `up --local`
    #[arg(long)]
    pub local: bool,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.local {
        return super::local::down();
    }
    bail!("`down` is not there yet; `cargo xtask kubernetes down` ends the bare test Kubernetes")
}
