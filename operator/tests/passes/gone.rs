//! Deletions that do not go as they should: what is told of them, and that they end.

use std::sync::Arc;

use ais_crds::AISCluster;
use ais_operator::controller::{Error, Meta, reconcile};
use ais_operator::hub::Hub;
use ais_operator::names::FINALIZER;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::api::Api;
use super::common::World;
use super::{condition, is, look, operator, operator_with};

/// Deleted long ago. Its pods have no addresses, so nobody waits for their answers.
fn overdue(spec: Value) -> Api {
    let mut world = World::settled(spec);
    world.observed.pods.iter_mut().for_each(|pod| pod.ip = None);
    let api = Api::of(&world);
    let metadata = json!({"deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": [FINALIZER]});
    api.edit("aisclusters", "demo", &json!({"metadata": metadata}));
    api
}

fn finalizers(api: &Api) -> Value {
    api.get("aisclusters", "demo")["metadata"]["finalizers"].clone()
}

fn delete_with_data() -> Value {
    json!({"deletionPolicy": "Delete", "deletionConfirmation": "demo"})
}

/// Found by an audit: nothing that is measured told of it, so no alert could.
#[tokio::test]
async fn a_stuck_deletion_is_measured() {
    let api = overdue(delete_with_data());
    let mut registry = Registry::default();
    let ctx = operator_with(&api, Hub::new().0, &mut registry);
    let measured = |registry: &Registry, sample: &str| {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let name = sample.split_once('}').map_or(sample, |(name, _)| name);
        text.lines().find(|line| line.starts_with(name)).map(str::to_owned)
    };
    let of = |kind: &str, value: u8| {
        format!("aisop_condition{{namespace=\"ns\",cluster=\"demo\",condition=\"{kind}\"}} {value}")
    };
    let stopped = "aisop_stopped{namespace=\"ns\",cluster=\"demo\"} 1".to_owned();
    for _ in 0..2 {
        look(&ctx).await.unwrap();
        for sample in [of("Degraded", 1), of("Ready", 0), of("Available", 0), stopped.clone()] {
            assert_eq!(measured(&registry, &sample), Some(sample));
        }
        assert_eq!(condition(&api, "Degraded"), is("True", "DeletionStuck"));
        assert_eq!(api.events(), ["DeletionStuck"], "told once");
    }
    // Its pods end after all, then its volumes go, and so does what was measured of it.
    World::settled(json!({})).observed.pods.iter().for_each(|pod| api.remove("pods", &pod.name));
    for _ in 0..3 {
        look(&ctx).await.unwrap();
    }
    assert_eq!(finalizers(&api), json!([]));
    assert_eq!((measured(&registry, &of("Degraded", 1)), measured(&registry, &stopped)), (None, None));
}

async fn reconciled(api: &Api) -> Result<(), Error> {
    let cluster: AISCluster = serde_json::from_value(api.get("aisclusters", "demo")).unwrap();
    let meta = Meta { types: None, metadata: cluster.metadata, _phantom: Default::default() };
    reconcile(Arc::new(meta), operator(api)).await.map(|_| ())
}

/// Whatever cannot be read, a resource whose data is kept goes when its time is up; nothing else is let go unseen.
#[tokio::test]
async fn a_deletion_that_nobody_can_look_at_ends() {
    let api = overdue(json!({}));
    api.hide("pods", 500);
    for writes in [vec!["PATCH aisclusters/demo"], vec![]] {
        let result = reconciled(&api).await;
        assert!(matches!(result, Err(Error::Observe(_))) && finalizers(&api) == json!([]), "{result:?}");
        assert_eq!(api.written(), writes);
        assert_eq!(api.events(), ["DeletionTimedOut"], "told once");
    }

    let in_time = overdue(json!({"deletionTimeoutSeconds": 4_000_000_000_i64}));
    let kept = overdue(delete_with_data());
    let lives = overdue(json!({}));
    lives.edit("aisclusters", "demo", &json!({"metadata": {"deletionTimestamp": null}}));
    for api in [in_time, kept, lives] {
        api.hide("pods", 500);
        reconciled(&api).await.unwrap_err();
        assert_eq!(finalizers(&api), json!([FINALIZER]));
        assert_eq!((api.events(), api.written()), (Vec::new(), Vec::<String>::new()));
    }
}
