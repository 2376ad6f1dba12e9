//! `cargo xtask up`: the newcomer's first command.

use anyhow::{Result, bail};
use clap::Args;

/// Arguments of `cargo xtask up`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Processes on this machine instead of a Kubernetes
    #[arg(long)]
    pub local: bool,
    /// How many gateways
    #[arg(long, default_value_t = 3)]
    pub gateways: u32,
    /// How many targets
    #[arg(long, default_value_t = 3)]
    pub targets: u32,
    /// A context of your own kubeconfig: use that cluster (it is touched only when named here)
    #[arg(long, requires = "image", conflicts_with = "local")]
    pub context: Option<String>,
    /// The image to run there
    #[arg(long, requires = "context")]
    pub image: Option<String>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.local {
        return super::local::up(arguments.gateways as usize, arguments.targets as usize);
    }
    bail!("`up` is not there yet; `cargo xtask kubernetes up` brings up the bare test Kubernetes")
}
