//! `cargo xtask down`: removes what `up` left running.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::up;
use crate::product::{NAME, NAMESPACE, OPERATOR_NAMESPACE, RELEASE};
use crate::progress::Progress;

const GONE_TIMEOUT: Duration = Duration::from_secs(120);

/// Arguments of `cargo xtask down`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The processes of `up --local`
    #[arg(long)]
    pub local: bool,
    /// What `up --context` put into that Kubernetes of yours, volumes included
    #[arg(long, conflicts_with = "local")]
    pub context: Option<String>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.local {
        return super::local::down();
    }
    let progress = Progress::new("down");
    if let Some(context) = &arguments.context {
        return elsewhere(context, &progress);
    }
    match up::attach(&progress)? {
        Some(testbed) => testbed.down()?,
        None => up::remove()?,
    }
    // Nothing else is in it once the last one is down; if there is, it stays.
    drop(std::fs::remove_dir(super::state_dir()));
    progress.line("the test Kubernetes of `up` is gone, with all that was in it");
    Ok(())
}

/// In the order that lets each part clean up after itself: the resource while the operator lives, then the operator,
/// then the definition, which Helm keeps.
fn elsewhere(context: &str, progress: &Progress) -> Result<()> {
    let (kubectl, helm) = up::tools(context, progress)?;
    if kubectl.try_get("crd/aisclusters.aiscluster.dev")?.is_some() {
        kubectl.in_namespace(NAMESPACE).delete(&format!("aisc/{NAME}"), GONE_TIMEOUT)?;
    }
    progress.line(format!("AISCluster {NAME} is gone"));
    helm.run(&["uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "--wait"])
        .context("cannot remove the operator")?;
    for what in [
        &format!("namespace/{NAMESPACE}"),
        &format!("namespace/{OPERATOR_NAMESPACE}"),
        "crd/aisclusters.aiscluster.dev",
    ] {
        kubectl.delete(what, GONE_TIMEOUT)?;
        progress.line(format!("{what} is gone"));
    }
    Ok(())
}
