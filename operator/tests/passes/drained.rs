//! From a cordon of a node to the primary's leaving it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ais_crds::AISCluster;
use ais_operator::hub::Hub;
use ais_operator::nodes::Nodes;
use futures::StreamExt as _;
use futures::channel::mpsc::Receiver;
use kube::runtime::reflector::ObjectRef;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::api::Api;
use super::{G0, G1, Scene, daemon, look, operator_with};

/// For what happens at once.
const BOUND: Duration = Duration::from_secs(60);

fn node(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
}

/// Waits until these take no pods, and are known to: a cluster is to be looked at whenever that changes.
async fn cordoned(nodes: &Nodes, pokes: &mut Receiver<ObjectRef<AISCluster>>, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    loop {
        let poked = tokio::time::timeout(BOUND, pokes.next()).await;
        let poked = poked.unwrap_or_else(|_| panic!("{wanted:?} is no news: {:?}", nodes.cordoned())).unwrap();
        assert_eq!((poked.namespace.as_deref(), poked.name.as_str()), (Some("ns"), "demo"));
        if nodes.cordoned() == wanted {
            return;
        }
    }
}

fn follow(nodes: &Nodes, api: &Api, hub: &Arc<Hub>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(nodes.clone().follow(api.client(), Arc::clone(hub))))
}

#[tokio::test]
async fn nodes_are_followed_and_every_change_is_looked_at() {
    let api = Api::default();
    let taint = json!({"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]});
    api.put("nodes", "a", node("a", &json!({})));
    api.put("nodes", "b", node("b", &taint));
    let (hub, mut pokes) = Hub::new();
    hub.sync(&("ns".into(), "demo".into()), "a secret", &daemon::caller(), Vec::new());
    let nodes = Nodes::default();
    let _follow = follow(&nodes, &api, &hub);
    cordoned(&nodes, &mut pokes, &["b"]).await;
    api.edit("nodes", "a", &json!({"spec": {"unschedulable": true}}));
    cordoned(&nodes, &mut pokes, &["a", "b"]).await;
    api.edit("nodes", "b", &json!({"spec": {"taints": null}}));
    cordoned(&nodes, &mut pokes, &["a"]).await;
    api.remove("nodes", "a");
    cordoned(&nodes, &mut pokes, &[]).await;
    // A sign of life is no news: what comes next is the answer to the next change.
    api.edit("nodes", "b", &json!({"metadata": {"labels": {"beat": "1"}}}));
    api.edit("nodes", "b", &json!({"spec": {"unschedulable": true}}));
    cordoned(&nodes, &mut pokes, &["b"]).await;
    assert!(pokes.try_recv().is_err(), "looked at without a reason");
}

#[tokio::test]
async fn a_cordon_moves_the_primary() {
    let scene = Scene::settled().await;
    let api = &scene.api;
    for (pod, _) in &scene.nodes {
        api.edit("pods", pod, &json!({"spec": {"nodeName": format!("node-of-{pod}")}}));
        api.put("nodes", &format!("node-of-{pod}"), node(&format!("node-of-{pod}"), &json!({})));
    }
    let (hub, mut pokes) = Hub::new();
    let ctx = operator_with(api, Arc::clone(&hub), &mut Registry::default());
    let _follow = follow(&ctx.nodes, api, &hub);
    let primary = |api: &Api| api.get("aisclusters", "demo")["status"]["primary"].clone();
    look(&ctx).await.unwrap();
    assert_eq!((&primary(api)["current"], &primary(api)["attempt"]), (&json!(G0), &Value::Null));

    api.edit("nodes", &format!("node-of-{G0}"), &json!({"spec": {"unschedulable": true}}));
    cordoned(&ctx.nodes, &mut pokes, &[&format!("node-of-{G0}")]).await;
    // What is decided is decided by fresh answers: the first pass may have to ask for them.
    for _ in 0..2 {
        look(&ctx).await.unwrap();
    }
    let moving = primary(api);
    assert_eq!((&moving["target"], &moving["attempt"]["reason"]), (&json!(G1), &json!("Drain")), "{moving}");
}
