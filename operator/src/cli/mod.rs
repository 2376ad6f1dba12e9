//! What a person at a terminal asks for: `status`, `failback`, `promote`, `refound`. Works on the resource alone,
//! with the rights of whoever calls it; no secret is read and no node is called.
//!
//! Exit codes: 0 done, 1 it ended otherwise or failed, 2 wrong usage, 3 still waiting when the time was over.

mod moves;
mod page;
mod refound;
mod watch;

use std::time::Duration;

use ais_crds::AISCluster;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use kube::config::{Config, KubeConfigOptions};
use kube::{Api, Client};

pub use moves::{Outcome, applied_by, outcome, with_first};
pub use page::page;
pub use refound::{Progress, progress};

/// It is as asked.
pub const DONE: u8 = 0;
/// It ended otherwise.
pub const OTHERWISE: u8 = 1;
/// The time was over.
pub const WAITING: u8 = 3;

/// Which cluster.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Name of the cluster.
    pub name: String,
    /// Namespace; default: that of the kubeconfig's context.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Context of the kubeconfig.
    #[arg(long)]
    pub context: Option<String>,
}

/// How long to wait.
#[derive(Args, Clone, Copy, Debug)]
pub struct Patience {
    /// Seconds to wait for the result. What was asked stays asked.
    #[arg(long, default_value_t = 900)]
    pub timeout: u64,
}

impl Patience {
    fn time(self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Shows a cluster: members, primary, electorate, what the operator waits for and why.
    Status {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Shows it again at each change.
        #[arg(short, long)]
        watch: bool,
    },
    /// Asks once more to move the primary to the preferred gateway, and waits for the result.
    Failback {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// How long.
        #[command(flatten)]
        patience: Patience,
    },
    /// Puts a gateway first in spec.primary.preferred, asks to move the primary there, and waits for the result.
    Promote {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// The gateway: name of its pod, or its number.
        gateway: String,
        /// How long.
        #[command(flatten)]
        patience: Patience,
    },
    /// Gives up a founding that cannot be completed and founds anew, under another uuid and on fresh state volumes.
    Refound {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// The name once more, in place of typing it.
        #[arg(long)]
        confirm: Option<String>,
        /// How long.
        #[command(flatten)]
        patience: Patience,
    },
}

/// Does what was asked; the exit code.
///
/// # Errors
/// If the API server cannot be reached, refuses, or the cluster does not exist.
pub async fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Status { which, watch } => status(&connect(&which).await?, &which.name, watch).await,
        Command::Failback { which, patience } => {
            moves::failback(&connect(&which).await?, &which.name, patience.time()).await
        }
        Command::Promote { which, gateway, patience } => {
            moves::promote(&connect(&which).await?, &which.name, &gateway, patience.time()).await
        }
        Command::Refound { which, confirm, patience } => {
            refound::refound(&connect(&which).await?, &which.name, confirm, patience.time()).await
        }
    }
}

async fn connect(which: &Which) -> anyhow::Result<Api<AISCluster>> {
    let config = match &which.context {
        None => Config::infer().await.context("no way to the API server")?,
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await.with_context(|| format!("context {context}"))?
        }
    };
    let namespace = which.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok(Api::namespaced(Client::try_from(config)?, &namespace))
}

async fn get(api: &Api<AISCluster>, name: &str) -> anyhow::Result<AISCluster> {
    api.get(name).await.with_context(|| format!("AISCluster {name}"))
}

async fn status(api: &Api<AISCluster>, name: &str, watch: bool) -> anyhow::Result<u8> {
    if watch {
        return watch::pages(api, name).await;
    }
    print!("{}", page(&get(api, name).await?, jiff::Timestamp::now()));
    Ok(DONE)
}
