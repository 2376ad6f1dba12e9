//! Streams of the nodes' views, one task a pod, and a reconcile whenever one says something new.
//!
//! # Flow
//! `observe` brings the set of pods up to date; each task keeps the newest report of its node: by the
//! stream, and where that is refused, by asking once a second.
//! # Guarantees
//! A report is `Live` only while its connection is; a task ends with its pod.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use ais_crds::AISCluster;

use crate::perform::{Caller, Node};
use crate::view::{Report, Reports};

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Namespace and name of a cluster.
pub type ClusterKey = (String, String);

/// A pod whose node is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod: another pod of the same name is watched anew.
    pub uid: String,
    /// Where its node listens.
    pub node: Node,
}

struct Task {
    watched: Watched,
    reports: watch::Receiver<Option<Report>>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Cluster {
    secret: String,
    tasks: BTreeMap<String, Task>,
}

/// All streams of this operator.
pub struct Hub {
    clusters: Mutex<BTreeMap<ClusterKey, Cluster>>,
    trigger: mpsc::Sender<ObjectRef<AISCluster>>,
}

impl Hub {
    /// The hub, and the stream of clusters to reconcile.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::Receiver<ObjectRef<AISCluster>>) {
        // A full channel loses nothing: the clusters in it are reconciled, and the others polled.
        let (trigger, triggers) = mpsc::channel(1024);
        (Arc::new(Self { clusters: Mutex::default(), trigger }), triggers)
    }

    /// Asks for a reconcile.
    pub fn poke(&self, key: &ClusterKey) {
        let _ = self.trigger.clone().try_send(ObjectRef::new(&key.1).within(&key.0));
    }

    /// Asks for a reconcile of every cluster that is known.
    pub fn poke_all(&self) {
        let keys: Vec<ClusterKey> =
            self.clusters.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        keys.iter().for_each(|key| self.poke(key));
    }

    /// Brings the tasks of a cluster up to date.
    pub fn sync(self: &Arc<Self>, key: &ClusterKey, secret: &str, caller: &Caller, pods: Vec<Watched>) {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = clusters.entry(key.clone()).or_default();
        if cluster.secret != secret {
            cluster.tasks.clear();
            secret.clone_into(&mut cluster.secret);
        }
        cluster.tasks.retain(|_, task| pods.contains(&task.watched));
        for watched in pods {
            if !cluster.tasks.contains_key(&watched.pod) {
                let task = self.start(key.clone(), caller.clone(), watched.clone());
                cluster.tasks.insert(watched.pod.clone(), task);
            }
        }
    }

    /// Ends the tasks of a cluster.
    pub fn forget(&self, key: &ClusterKey) {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// The newest reports; waits up to `settle` for nodes of which nothing is known yet, because a
    /// fresh operator must not call a healthy cluster dead.
    pub async fn reports(&self, key: &ClusterKey, settle: Duration) -> Reports {
        let receivers: Vec<_> = {
            let clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
            let tasks = clusters.get(key).map(|c| c.tasks.iter()).into_iter().flatten();
            tasks.map(|(pod, task)| (pod.clone(), task.reports.clone())).collect()
        };
        let first = futures::future::join_all(receivers.into_iter().map(|(pod, mut receiver)| async move {
            let report = tokio::time::timeout(settle, receiver.wait_for(Option::is_some)).await;
            let report = report.ok().and_then(Result::ok).and_then(|r| r.clone());
            (pod, report.unwrap_or_else(|| Report::Lost("nothing heard yet".into())))
        }));
        first.await.into_iter().collect()
    }

    fn start(self: &Arc<Self>, key: ClusterKey, caller: Caller, watched: Watched) -> Task {
        let (sender, reports) = watch::channel(None);
        let stop = CancellationToken::new();
        let (hub, pod, node, token) = (Arc::clone(self), watched.pod.clone(), watched.node.clone(), stop.clone());
        tokio::spawn(async move {
            let tell = |report: Report| {
                if publish(&sender, report) {
                    hub.poke(&key);
                }
            };
            token.run_until_cancelled(follow(&caller, &pod, &node, tell)).await;
        });
        Task { watched, reports, _stop: stop.drop_guard() }
    }
}

/// Stores a report; true if it says something new beyond progress.
fn publish(sender: &watch::Sender<Option<Report>>, report: Report) -> bool {
    let calm = |r: &Option<Report>| match r {
        Some(Report::Live(view)) => Some(Some(view.without_progress())),
        Some(Report::Lost(_)) => Some(None),
        None => None,
    };
    let report = Some(report);
    let news = calm(&sender.borrow()) != calm(&report);
    sender.send_replace(report);
    news
}

async fn follow(caller: &Caller, pod: &str, node: &Node, tell: impl Fn(Report)) {
    let mut wait = RETRY_FIRST;
    loop {
        let error = match caller.watch(node).await {
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some(view)) => {
                        wait = RETRY_FIRST;
                        tell(Report::of(pod, view));
                    }
                    Ok(None) => break "the stream ended".to_owned(),
                    Err(error) => break error.to_string(),
                }
            },
            Err(error) => error.to_string(),
        };
        match caller.view(node).await {
            Ok(view) => tell(Report::of(pod, view)),
            Err(_) => tell(Report::Lost(error)),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}
