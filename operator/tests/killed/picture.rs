//! What came of a procedure, to compare with what comes of it when nobody dies.

use std::collections::BTreeMap;

use ais_operator::facts::Kind;
use serde_json::{Value, json};

use super::Model;
use crate::common::{UID, merge};

impl Model {
    /// Everything there is, without what tells only how long it took.
    pub(crate) fn picture(&self) -> Value {
        let o = &self.world.observed;
        let mut status = serde_json::to_value(&o.cluster.status).unwrap();
        timeless(&mut status);
        let live = o.live.iter().filter(|((kind, _), _)| *kind != Kind::Secret);
        let live: BTreeMap<String, &Value> = live.map(|((k, n), v)| (format!("{k:?}/{n}"), v)).collect();
        let sets = o.sets.iter().map(|(r, s)| json!([r.as_str(), s.replicas, s.replicas_asked, s.revision]));
        let pods = o.pods.iter().map(|p| json!([p.name, p.ready, p.revision, p.labelled_primary, p.discovery]));
        let claims = o.claims.iter();
        let claims = claims.map(|c| json!([c.name, c.cluster_id, c.requested, c.capacity, c.removed, c.retained]));
        let volumes = o.volumes.iter().map(|v| json!([v.name, v.cluster_id, v.formed]));
        let mut picture = json!({
            "exists": self.exists, "finalizers": o.cluster.metadata.finalizers, "live": live, "uid": UID,
            "sets": sets.collect::<Vec<_>>(), "pods": pods.collect::<Vec<_>>(), "status": status,
            "claims": claims.collect::<Vec<_>>(), "volumes": volumes.collect::<Vec<_>>(),
        });
        merge(&mut picture, &json!({"founded": self.founded, "electorate": self.electorate, "primary": self.primary}));
        merge(&mut picture, &json!({"secret": self.secret()}));
        picture
    }
}

/// Times are those of the run, not of what came of it; and who led while no operator looked is in no history.
fn timeless(value: &mut Value) {
    const OF_THE_RUN: [&str; 6] =
        ["lastTransitionTime", "since", "startedAt", "finishedAt", "history", "lastTransition"];
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !OF_THE_RUN.contains(&key.as_str()));
            map.values_mut().for_each(timeless);
        }
        Value::Array(list) => list.iter_mut().for_each(timeless),
        _ => {}
    }
}
