//! One instance acts at a time.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease as Object;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error, ResourceExt};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Seconds a lease is valid after its last renewal.
const DURATION_S: u64 = 15;
/// Seconds before its end at which it is renewed: early enough for a second try before it counts as lost
/// (`tenure.rs`).
const GRACE_S: u64 = 10;
/// Between two looks at a lease that another instance holds.
const LOOK: Duration = Duration::from_secs(2);
/// How long the release may take when the process ends.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

type Running = (watch::Receiver<bool>, AbortOnDropHandle<Result<LeaseManager, LeaseManagerError>>);

/// A lease that is held or waited for.
pub struct Lease {
    claim: Claim,
    held: watch::Receiver<bool>,
    renewals: AbortOnDropHandle<Result<LeaseManager, LeaseManagerError>>,
}

/// Whose lease, and which.
struct Claim {
    client: Client,
    leases: Api<Object>,
    namespace: String,
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
        let [namespace, name, identity] = [namespace, name, identity].map(str::to_owned);
        let claim = Claim { client, leases, namespace, name, identity };
        let (held, renewals) = claim.begin().await?;
        Ok(Self { claim, held, renewals })
    }

    /// Resolves when it is held.
    ///
    /// # Errors
    /// If competing came to an end.
    pub async fn acquired(&mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                held = self.held.wait_for(|held| *held) => return Ok(held.map(drop)?),
                () = self.claim.is_free() => {}
            }
            // The crate sleeps until the lease that it saw last would end, although that one was given up.
            match self.claim.begin().await {
                Ok((held, renewals)) => (self.held, self.renewals) = (held, renewals),
                Err(error) => tracing::warn!(lease = self.claim.name, %error, "cannot compete now"),
            }
        }
    }

    /// Resolves when it is lost.
    pub async fn lost(&mut self) {
        // An error means that the task ended, and with it the renewals.
        let _ = self.held.wait_for(|held| !*held).await;
    }

    /// Gives it up, so that another instance takes over at once. In a few seconds, or not at all: the crate's own way
    /// waits for a pause of up to half a minute when calls failed before.
    pub async fn release(self) {
        let Self { claim, held, renewals } = self;
        drop((held, renewals));
        match tokio::time::timeout(RELEASE_TIMEOUT, claim.free()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(lease = claim.name, %error, "not released: it ends by itself"),
            Err(_) => tracing::warn!(lease = claim.name, "not released: it ends by itself"),
        }
    }
}

impl Claim {
    async fn begin(&self) -> Result<Running, LeaseManagerError> {
        let manager = LeaseManagerBuilder::new(self.client.clone(), &self.name)
            .with_namespace(&self.namespace)
            .with_identity(&self.identity)
            .with_duration(DURATION_S)
            .with_grace(GRACE_S)
            .build()
            .await?;
        let (held, task) = manager.watch().await;
        Ok((held, AbortOnDropHandle::new(task)))
    }

    /// Resolves when nobody holds it.
    async fn is_free(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.leases.get(&self.name).await {
                Ok(lease) if holder(&lease).is_none() => return,
                Ok(_) => {}
                Err(error) => tracing::warn!(lease = self.name, %error, "cannot be read now"),
            }
        }
    }

    /// Only while it is ours, as it was read. A last renewal may still arrive in between.
    async fn free(&self) -> kube::Result<()> {
        loop {
            let lease = self.leases.get(&self.name).await?;
            if holder(&lease) != Some(&self.identity) {
                return Ok(());
            }
            let patch = json!({
                "metadata": {"resourceVersion": lease.resource_version()},
                "spec": {"holderIdentity": null, "acquireTime": null, "renewTime": null, "leaseDurationSeconds": null},
            });
            match self.leases.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Err(Error::Api(status)) if status.is_conflict() => {}
                result => return result.map(drop),
            }
        }
    }
}

fn holder(lease: &Object) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|identity| !identity.is_empty())
}
