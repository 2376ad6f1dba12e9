//! `cargo xtask kubernetes`: the test Kubernetes without the project in it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::progress::Progress;
use crate::testbed::kubectl::condition;
use crate::testbed::layout::NODE;
use crate::testbed::{Cluster, components};

/// Arguments of `cargo xtask kubernetes`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Which cluster: its addresses are 10.NUMBER.0.0/16
    #[arg(long, global = true, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=254))]
    number: u8,
    /// Its state folder
    #[arg(long, global = true)]
    state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring it up and leave it running
    Up {
        /// Offer this many local volumes of 1 GiB
        #[arg(long, default_value_t = 0)]
        volumes: usize,
    },
    /// End it
    Down {
        /// Keep its data for the next `up`
        #[arg(long)]
        keep: bool,
    },
    /// Say whether it runs, and how
    Status,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let progress = Progress::new("kubernetes");
    let number = arguments.number;
    let state = arguments.state.clone().unwrap_or_else(|| super::state_dir().join(format!("kubernetes-{number}")));
    match arguments.action {
        Action::Up { volumes } => {
            let cluster = match Cluster::attach(number, &state, &progress)? {
                Some(cluster) => {
                    progress.line("it runs already");
                    cluster
                }
                None => Cluster::up(number, &state, &progress)?,
            };
            cluster.create_volumes(volumes, 1)?;
            println!("export KUBECONFIG={}", cluster.kubeconfig().display());
            println!("{} get pods --all-namespaces", cluster.binaries().kubectl().display());
            cluster.detach()
        }
        Action::Down { keep } => {
            match Cluster::attach(number, &state, &progress)? {
                Some(cluster) if keep => cluster.halt()?,
                Some(cluster) => cluster.down()?,
                None if keep => {}
                None => Cluster::remove(number, &state)?,
            }
            progress.line("down");
            Ok(())
        }
        Action::Status => status(number, &state, &progress),
    }
}

fn status(number: u8, state: &std::path::Path, progress: &Progress) -> Result<()> {
    let Some(cluster) = Cluster::attach(number, state, progress)? else {
        bail!("test Kubernetes {number} is down");
    };
    println!("first process: {}", cluster.init().pid());
    for name in components::ALL {
        match cluster.component(name)?.pid() {
            Ok(pid) => println!("{name}: {pid}"),
            Err(_) => println!("{name}: down"),
        }
    }
    let node = cluster.kubectl().get(&format!("node/{NODE}"))?;
    println!("node Ready: {}", condition(&node, "Ready").unwrap_or("not known"));
    println!("KUBECONFIG={}", cluster.kubeconfig().display());
    cluster.detach()
}
