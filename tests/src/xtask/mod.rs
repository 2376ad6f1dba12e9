//! `cargo xtask`: the project's one command, a module per subcommand.

pub mod bench;
pub mod bench_disk;
pub mod bench_etcd;
pub mod bench_kubernetes;
pub mod bench_load;
pub mod bench_metadata;
pub mod bench_operator;
pub mod bench_rest;
pub mod bench_table;
mod demo;
pub mod down;
pub mod fuzz;
pub mod kubernetes;
pub mod local;
pub mod mutants;
pub mod package;
pub mod soak;
pub mod test;
pub mod up;
mod values_table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use crate::testbed::init;

/// Builds, shows, tests and measures the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Bring up a test Kubernetes with the operator and a cluster in it, and show what it does
    Up(up::Arguments),
    /// Remove every trace of `up`
    Down(down::Arguments),
    /// Run every test of the project
    Test(test::Arguments),
    /// Measure
    Bench(bench::Arguments),
    /// Random faults for a long time, with a continuous check
    Soak(soak::Arguments),
    /// Put every known defect back and show which rung finds it
    Mutants(mutants::Arguments),
    /// Run the fuzz targets of all decoders
    Fuzz(fuzz::Arguments),
    /// Pack the chart, and make plain manifests of it
    Package(package::Arguments),
    /// The bare test Kubernetes, by hand
    Kubernetes(kubernetes::Arguments),
    /// First process of the test Kubernetes; not for people
    #[command(name = init::SUBCOMMAND, hide = true)]
    TestbedInit {
        /// What to do
        plan: PathBuf,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Up(arguments) => up::run(&arguments),
        Task::Down(arguments) => down::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Mutants(arguments) => mutants::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Package(arguments) => package::run(&arguments),
        Task::Kubernetes(arguments) => kubernetes::run(&arguments),
        Task::TestbedInit { plan } => init::run(&plan),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where the command keeps what it leaves running; not under version control.
pub fn state_dir() -> PathBuf {
    root().join(".xtask")
}

/// Builds `ais-node` from the sources as they are: what an earlier build left beside this program proves nothing.
///
/// # Errors
/// If it cannot be built.
fn build_node() -> Result<()> {
    if std::env::var_os("AIS_NODE_BIN").is_some() {
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "ais-node"])
        .current_dir(root())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cannot build ais-node");
    Ok(())
}
