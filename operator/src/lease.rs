//! One instance acts at a time.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Seconds a lease is valid after its last renewal.
const DURATION_S: u64 = 15;
/// Seconds before its end at which it is renewed: early enough for a second try before it counts as lost
/// (`tenure.rs`).
const GRACE_S: u64 = 10;
/// How long the release may take when the process ends.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// A lease that is held or waited for.
pub struct Lease {
    held: watch::Receiver<bool>,
    task: JoinHandle<Result<LeaseManager, LeaseManagerError>>,
}

impl Lease {
    /// Starts to compete.
    ///
    /// # Errors
    /// If the lease cannot be read or made.
    pub async fn compete(client: Client, namespace: &str, name: &str, identity: &str) -> anyhow::Result<Self> {
        let manager = LeaseManagerBuilder::new(client, name)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION_S)
            .with_grace(GRACE_S)
            .build()
            .await?;
        let (held, task) = manager.watch().await;
        Ok(Self { held, task })
    }

    /// Resolves when it is held.
    ///
    /// # Errors
    /// If competing came to an end.
    pub async fn acquired(&mut self) -> anyhow::Result<()> {
        self.held.wait_for(|held| *held).await?;
        Ok(())
    }

    /// Resolves when it is lost.
    pub async fn lost(&mut self) {
        // An error means that the task ended, and with it the renewals.
        let _ = self.held.wait_for(|held| !*held).await;
    }

    /// Gives it up, so that another instance takes over at once.
    pub async fn release(self) {
        drop(self.held);
        if let Ok(Ok(Ok(manager))) = tokio::time::timeout(RELEASE_TIMEOUT, self.task).await {
            let _ = tokio::time::timeout(RELEASE_TIMEOUT, manager.release()).await;
        }
    }
}
