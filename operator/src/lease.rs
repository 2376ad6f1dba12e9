//! One instance acts at a time.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease as Object;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

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
    renewals: AbortOnDropHandle<Result<LeaseManager, LeaseManagerError>>,
    leases: Api<Object>,
    name: String,
    identity: String,
}

impl Lease {
    /// Starts to compete.
    ///
    /// # Errors
    /// If the lease cannot be read or made.
    pub async fn compete(client: Client, namespace: &str, name: &str, identity: &str) -> anyhow::Result<Self> {
        let leases = Api::namespaced(client.clone(), namespace);
        let manager = LeaseManagerBuilder::new(client, name)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION_S)
            .with_grace(GRACE_S)
            .build()
            .await?;
        let (held, task) = manager.watch().await;
        let renewals = AbortOnDropHandle::new(task);
        Ok(Self { held, renewals, leases, name: name.to_owned(), identity: identity.to_owned() })
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

    /// Gives it up, so that another instance takes over at once. In a few seconds, or not at all: the crate's own way
    /// waits for a pause of up to half a minute when calls failed before.
    pub async fn release(self) {
        let Self { held, renewals, leases, name, identity } = self;
        drop((held, renewals));
        match tokio::time::timeout(RELEASE_TIMEOUT, free(&leases, &name, &identity)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(lease = name, %error, "not released: it ends by itself"),
            Err(_) => tracing::warn!(lease = name, "not released: it ends by itself"),
        }
    }
}

/// Only while it is ours, as it was read.
async fn free(leases: &Api<Object>, name: &str, identity: &str) -> kube::Result<()> {
    let lease = leases.get(name).await?;
    if lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) != Some(identity) {
        return Ok(());
    }
    let patch = json!({
        "metadata": {"resourceVersion": lease.resource_version()},
        "spec": {"holderIdentity": null, "acquireTime": null, "renewTime": null, "leaseDurationSeconds": null},
    });
    leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}
