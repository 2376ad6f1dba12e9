//! Whole passes against a small API server: what is written, and what is told, when it does not do as asked.
#![allow(clippy::unwrap_used)]

#[path = "passes/api.rs"]
mod api;
mod common;
#[allow(dead_code)]
#[path = "faulty/daemon.rs"]
mod daemon;
#[path = "passes/drained.rs"]
mod drained;
#[path = "passes/gone.rs"]
mod gone;

use std::sync::Arc;
use std::time::Duration;

use ais_operator::controller::{Context, Error, pass};
use ais_operator::events::Teller;
use ais_operator::hub::Hub;
use ais_operator::metrics::Metrics;
use ais_operator::perform::Caller;
use ais_operator::tenure::Tenure;
use api::Api;
use common::World;
use daemon::Daemon;
use kube::runtime::controller::Action;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

/// An operator that has just started.
fn operator(api: &Api) -> Arc<Context> {
    operator_with(api, Hub::new().0, &mut Registry::default())
}

fn operator_with(api: &Api, hub: Arc<Hub>, registry: &mut Registry) -> Arc<Context> {
    Arc::new(Context::new(
        api.client(),
        World::new(json!({})).observed.defaults,
        Caller::http().unwrap(),
        hub,
        Metrics::new(registry),
        Teller::new(api.client(), "test".into()),
        Tenure::unbounded(),
    ))
}

async fn look(ctx: &Arc<Context>) -> Result<(), Error> {
    pass(ctx, &("ns".into(), "demo".into()), None).await.map(|_| ())
}

/// Status and reason.
fn condition(api: &Api, kind: &str) -> (String, String) {
    let resource = api.get("aisclusters", "demo");
    let found = resource["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
    let text = |name: &str| found.map_or("none", |c| c[name].as_str().unwrap()).to_owned();
    (text("status"), text("reason"))
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

/// A user's Secret that has the name of the cluster's is not taken over: it would go with the cluster.
#[tokio::test]
async fn a_strangers_secret_stays_a_strangers() {
    let api = Api::of(&World::new(json!({})));
    let strangers = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "demo-secret", "namespace": "ns", "uid": "u", "labels": {"app": "shop"}},
        "data": {"secret": "YSBzZWNyZXQgb2Ygc29tZWJvZHkgZWxzZSB0aGF0IGlzIGxvbmc="},
    });
    api.put("secrets", "demo-secret", strangers);
    let before = api.get("secrets", "demo-secret");
    let ctx = operator(&api);
    for _ in 0..2 {
        look(&ctx).await.unwrap();
        assert_eq!(api.get("secrets", "demo-secret"), before);
        assert_eq!(condition(&api, "Degraded"), is("True", "NameConflict"));
    }
    assert_eq!(api.get("statefulsets", "demo-gateway"), Value::Null, "nothing may be started with it");
    assert_eq!(api.written(), ["PATCH aisclusters/demo", "PATCH aisclusters/demo/status"]);
    assert_eq!(api.events(), ["NameConflict"]);
    // Nor did the operator sign anything with it, now or later.
    let known = ctx.secrets.lock().unwrap().values().map(|secret| secret.content.clone()).collect::<Vec<_>>();
    assert!(known.iter().all(|secret| !secret.contains("somebody else")), "{known:?}");
}

/// The cluster's own is known by its owner or by its labels, as after a restore from a backup.
#[tokio::test]
async fn its_own_secret_is_used_again() {
    let owner =
        json!({"ownerReferences": [{"apiVersion": "x", "kind": "AISCluster", "name": "demo", "uid": common::UID}]});
    let labels = json!({"labels": World::new(json!({})).names().selector_all()});
    for metadata in [owner, labels] {
        let api = Api::of(&World::new(json!({})));
        let kept = "YSBzZWNyZXQgdGhhdCB3YXMga2VwdCBmb3IgdGhlIGNsdXN0ZXI=";
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"secret": kept}});
        api.put("secrets", "demo-secret", secret);
        let ctx = operator(&api);
        look(&ctx).await.unwrap();
        let known = ctx.secrets.lock().unwrap().values().map(|secret| secret.content.clone()).collect::<Vec<_>>();
        assert_eq!(known, ["a secret that was kept for the cluster"]);
        assert!(api.get("statefulsets", "demo-gateway").is_object());
    }
}

const G0: &str = "demo-gateway-0";
const G1: &str = "demo-gateway-1";

/// A founded cluster at rest whose nodes answer, each at an address of its own.
struct Scene {
    world: World,
    api: Api,
    nodes: Vec<(String, Daemon)>,
}

impl Scene {
    async fn settled() -> Self {
        // The first node takes any free port, and the others have to get the same.
        let first = Daemon::start_at("127.0.0.2", 0, G0).await;
        let port: u16 = first.node.address.rsplit(':').next().unwrap().parse().unwrap();
        let mut world = World::settled(json!({"networking": {"ports": {"control": port}}}));
        let mut nodes = vec![(G0.to_owned(), first)];
        for (n, pod) in world.observed.pods.iter_mut().enumerate() {
            let ip = format!("127.0.0.{}", n + 2);
            if pod.name != G0 {
                nodes.push((pod.name.clone(), Daemon::start_at(&ip, port, &pod.name).await));
            }
            pod.ip = Some(ip);
        }
        let api = Api::of(&world);
        let mut scene = Self { world, api, nodes };
        scene.tell();
        scene
    }

    /// The nodes say what the world's do.
    fn tell(&mut self) {
        for (pod, daemon) in &self.nodes {
            let view = self.world.observed.reports[pod].view().unwrap();
            daemon.behave(|m| m.view = serde_json::to_value(view).unwrap());
        }
    }

    /// Whom the Service of the primary selects.
    fn labelled(&self) -> Vec<&str> {
        let leads = |pod: &&str| self.api.get("pods", pod)["metadata"]["labels"]["aiscluster.dev/role"] == "primary";
        self.nodes.iter().map(|(pod, _)| pod.as_str()).filter(leads).collect()
    }
}

const REFUSED: &str = "spec.template.spec.containers[0].resources.requests: Invalid value: \"2Gi\": must be less than or \
                       equal to memory limit of 1Gi";

/// Found by a review: one object that the API server refuses froze status and the primary's label for ever.
#[tokio::test]
async fn a_refused_object_is_told_and_a_failover_is_followed() {
    let mut scene = Scene::settled().await;
    let api = scene.api.clone();
    look(&operator(&api)).await.unwrap();
    assert_eq!((condition(&api, "Ready"), scene.labelled()), (is("True", "Ready"), vec![G0]));

    api.refuse("statefulsets", "demo-gateway", 422, REFUSED);
    let resources = json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}});
    let template = json!({"resources": resources, "annotations": {"version": "2"}});
    api.edit(
        "aisclusters",
        "demo",
        &json!({"metadata": {"generation": 2}, "spec": {"gateways": {"template": template}}}),
    );
    api.edit("aisclusters", "demo", &json!({"spec": {"targets": {"template": {"annotations": {"version": "2"}}}}}));
    scene.world.lead(G1, 2);
    scene.tell();
    // Another operator: streams of the old one may still tell what was.
    let ctx = operator(&api);
    let error = look(&ctx).await.unwrap_err();
    assert!(matches!(&error, Error::Apply(why) if why.is_refusal()), "{error}");
    assert_eq!(condition(&api, "Degraded"), is("True", "ApplyFailed"));
    assert_eq!(condition(&api, "Ready"), is("False", "ApplyFailed"));
    assert_eq!(condition(&api, "Available"), is("True", "Available"));
    let status = api.get("aisclusters", "demo")["status"].clone();
    assert_eq!((&status["observedGeneration"], &status["primary"]["current"]), (&json!(2), &json!(G1)));
    let degraded = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Degraded").unwrap();
    assert_eq!(degraded["message"], format!("StatefulSet demo-gateway: {REFUSED}"));
    assert_eq!(scene.labelled(), [G1]);
    assert_eq!(
        api.events(),
        ["ApplyFailed", "PrimaryElected"].map(str::to_owned).into_iter().rev().collect::<Vec<_>>()
    );
    let written = api.written();
    assert!(written.contains(&"PATCH statefulsets/demo-target".into()), "what is not refused is written: {written:?}");
    assert!(written.iter().all(|write| !write.starts_with("DELETE")), "{written:?}");

    // That the other set has its template now is told; then again and again the same: no write but the one that is tried
    // again.
    let _ = look(&ctx).await.unwrap_err();
    assert_eq!(api.written(), ["PATCH aisclusters/demo/status"]);
    let _ = look(&ctx).await.unwrap_err();
    assert_eq!(api.written(), Vec::<String>::new());
    assert_eq!(api.events().len(), 2);

    api.allow();
    let _ = look(&ctx).await;
    assert_eq!(condition(&api, "Degraded"), is("False", "AsExpected"));
}

/// Found by a review: a spec that cannot be built kept the primary that it had seen last, and its label, for ever.
#[tokio::test]
async fn a_failover_under_a_refused_spec_is_followed() {
    let mut scene = Scene::settled().await;
    let api = scene.api.clone();
    look(&operator(&api)).await.unwrap();
    api.written();
    let affinity = json!({"template": {"affinity": {"podAntiAfinity": {}}}});
    api.edit("aisclusters", "demo", &json!({"metadata": {"generation": 2}, "spec": {"targets": affinity}}));
    scene.world.lead(G1, 2);
    scene.tell();
    let ctx = operator(&api);
    look(&ctx).await.unwrap();
    assert_eq!(scene.labelled(), [G1]);
    assert_eq!(
        api.written(),
        [&format!("PATCH pods/{G0}"), &format!("PATCH pods/{G1}"), "PATCH aisclusters/demo/status"]
    );
    assert_eq!(api.get("aisclusters", "demo")["status"]["primary"]["current"], G1);
    assert_eq!(condition(&api, "Ready"), is("False", "SpecInvalid"));
    assert_eq!(condition(&api, "Available"), is("True", "Available"));
    assert_eq!(api.events(), ["PrimaryElected", "SpecInvalid"]);
    look(&ctx).await.unwrap();
    assert_eq!(api.written(), Vec::<String>::new());
}

/// A refused ConfigMap or Secret holds back the pods that would mount it, and nothing else.
#[tokio::test]
async fn pods_wait_for_what_they_mount() {
    let api = Api::of(&World::new(json!({})));
    api.refuse("configmaps", "demo-discovery", 403, "no such right");
    look(&operator(&api)).await.unwrap_err();
    assert!(api.get("services", "demo").is_object() && api.get("statefulsets", "demo-gateway").is_null());
    assert_eq!(condition(&api, "Degraded"), is("True", "ApplyFailed"));
    let api = Api::of(&World::new(json!({})));
    api.refuse("poddisruptionbudgets", "demo", 500, "failed calling webhook");
    look(&operator(&api)).await.unwrap_err();
    assert!(api.get("statefulsets", "demo-gateway").is_object() && api.get("statefulsets", "demo-target").is_object());
    assert_eq!(condition(&api, "Degraded"), is("True", "ApplyFailed"));
}

/// Own writes of status wake nobody, and volume claims are not watched: what goes on with them asks for the next pass.
#[tokio::test]
async fn a_pass_that_wrote_is_followed_at_once_and_one_at_rest_is_not() {
    let scene = Scene::settled().await;
    let (api, ctx) = (&scene.api, operator(&scene.api));
    let again = async || pass(&ctx, &("ns".into(), "demo".into()), None).await.unwrap();
    again().await;
    api.written();
    assert_eq!(again().await, Action::requeue(scene.world.pass().plan.requeue));
    assert_eq!(api.written(), Vec::<String>::new());

    api.edit("aisclusters", "demo", &json!({"spec": {"targets": {"storage": {"size": "2Gi"}}}}));
    assert_eq!(again().await, Action::requeue(Duration::from_secs(1)));
    assert!(api.written().contains(&"PATCH persistentvolumeclaims/data-demo-target-0".into()));

    // An ask is in status before anybody is called, and the call follows from a fresh look.
    api.edit("aisclusters", "demo", &json!({"spec": {"primary": {"preferred": [G1]}}}));
    assert_eq!(again().await, Action::requeue(Duration::from_millis(100)));
}

/// There may be thousands of access gateways: a pass does not read their pods.
#[tokio::test]
async fn pods_of_access_gateways_are_not_read() {
    let scene = Scene::settled().await;
    let labels = scene.world.names().access_labels();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "demo-access-x", "labels": labels}});
    scene.api.put("pods", "demo-access-x", pod);
    look(&operator(&scene.api)).await.unwrap();
    let selectors = scene.api.selectors("pods");
    assert!(!selectors.is_empty());
    for selector in selectors {
        let read = |pod: &str| api::matches(&scene.api.get("pods", pod)["metadata"]["labels"], &selector);
        assert!(read(G0) && read("demo-target-1") && !read("demo-access-x"), "{selector}");
    }
    assert_eq!(condition(&scene.api, "Ready"), is("True", "Ready"));
}
