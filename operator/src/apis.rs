//! What the API server offers beyond Kubernetes itself.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;

/// How long an answer counts: what is installed later is seen after at most this time.
const FRESH: Duration = Duration::from_secs(15);
const MONITORING: &str = "monitoring.coreos.com";

/// Optional APIs, asked for now and then.
#[derive(Debug, Default)]
pub struct Apis(Mutex<Option<(Instant, bool)>>);

impl Apis {
    /// The Prometheus operator's API is installed. When the question is not answered, the last answer counts.
    pub async fn pod_monitors(&self, client: &Client) -> bool {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, found)) = known
            && at.elapsed() < FRESH
        {
            return found;
        }
        let found = match client.list_api_group_resources(&format!("{MONITORING}/v1")).await {
            Ok(list) => list.resources.iter().any(|resource| resource.name == "podmonitors"),
            Err(kube::Error::Api(status)) if status.code == 404 => false,
            Err(error) => {
                tracing::debug!(%error, "whether there is a PodMonitor API");
                known.is_some_and(|(_, found)| found)
            }
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), found));
        found
    }
}
