//! Which nodes of Kubernetes take no more pods: a cordoned or drained node is about to lose those it has.
//!
//! # Caveats
//! Without the right to watch nodes (an operator of one namespace only) nothing is known of them; a primary on a
//! drained node then hands over when its pod is told to stop, which takes a little longer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};

use crate::hub::Hub;

/// Taint that `kubectl cordon` and `kubectl drain` set, and that other tools set in their stead.
const TAINT: &str = "node.kubernetes.io/unschedulable";
/// Nodes remembered; beyond that a primary hands over when its pod stops.
const NODES_MAX: usize = 10_000;

/// Names of the nodes that take no pods.
#[derive(Clone, Debug, Default)]
pub struct Nodes(Arc<Mutex<BTreeSet<String>>>);

impl Nodes {
    /// A copy.
    #[must_use]
    pub fn cordoned(&self) -> BTreeSet<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what is so now; true if that is news.
    fn set(&self, name: &str, cordoned: bool) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cordoned && all.len() < NODES_MAX { all.insert(name.to_owned()) } else { all.remove(name) }
    }

    fn keep(&self, seen: &BTreeSet<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name| seen.contains(name));
    }

    /// Follows the nodes for as long as it may; every change makes every cluster be looked at.
    pub async fn follow(self, client: Client, hub: Arc<Hub>) {
        let stream = watcher(Api::<Node>::all(client), watcher::Config::default().page_size(50)).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let mut seen = BTreeSet::new();
        while let Some(event) = stream.next().await {
            let news = match event {
                Ok(watcher::Event::Init) => {
                    seen.clear();
                    false
                }
                Ok(watcher::Event::InitApply(node)) => {
                    seen.insert(node.name_any());
                    self.set(&node.name_any(), is_cordoned(&node))
                }
                Ok(watcher::Event::Apply(node)) => self.set(&node.name_any(), is_cordoned(&node)),
                Ok(watcher::Event::Delete(node)) => self.set(&node.name_any(), false),
                Ok(watcher::Event::InitDone) => {
                    self.keep(&seen);
                    false
                }
                Err(error) if is_forbidden(&error) => {
                    tracing::info!("nodes may not be watched: primaries leave a drained node when their pods stop");
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "nodes");
                    false
                }
            };
            if news {
                hub.poke_all();
            }
        }
    }
}

fn is_cordoned(node: &Node) -> bool {
    let Some(spec) = &node.spec else { return false };
    spec.unschedulable == Some(true) || spec.taints.iter().flatten().any(|taint| taint.key == TAINT)
}

fn is_forbidden(error: &watcher::Error) -> bool {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
        _ => return false,
    };
    code == 403
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_news() {
        let nodes = Nodes::default();
        assert!(nodes.set("a", true) && !nodes.set("a", true) && !nodes.set("b", false));
        assert_eq!(nodes.cordoned(), BTreeSet::from(["a".to_owned()]));
        nodes.keep(&BTreeSet::from(["b".to_owned()]));
        assert!(nodes.cordoned().is_empty() && nodes.set("a", true) && nodes.set("a", false));
    }
}
