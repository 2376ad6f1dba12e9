//! A stored object that this operator cannot decode, as after a downgrade: said on the object, and nothing else is done.
//!
//! Its pods go on as they are; other clusters are not touched by it. Only what every version of the object has is
//! used here: metadata, and conditions as plain values.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, error_boundary::InvalidObject};
use serde_json::{Value, json};

use ais_crds::AISCluster;

use crate::apply::ApplyError;
use crate::controller::{Context, Error};
use crate::events::Note;
use crate::hub::ClusterKey;
use crate::names::{FINALIZER, STATUS_MANAGER};
use crate::observe::ObserveError;

/// Reason of the conditions, and of the event.
pub const REASON: &str = "SpecUnreadable";

/// Says it, once.
///
/// # Errors
/// The API server refused or did not answer.
pub async fn report(ctx: &Context, key: &ClusterKey, invalid: &InvalidObject) -> Result<(), Error> {
    ctx.hub.forget(key);
    ctx.metrics.unreadable(&key.0, &key.1, true);
    let resource = ApiResource::erase::<AISCluster>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &key.0, &resource);
    let read = api.get_opt(&key.1).await.map_err(|e| ObserveError::Api("AISCluster", Box::new(e)))?;
    let Some(object) = read else { return Ok(()) };
    if object.metadata.deletion_timestamp.is_some() {
        return release(ctx, &api, &object).await;
    }
    let message = format!("this operator cannot read the object, and leaves everything as it is: {}", invalid.error);
    let message: String = message.chars().take(1000).collect();
    let now = Timestamp::now();
    let Some(conditions) = conditions(&object.data["status"]["conditions"], &message, now) else { return Ok(()) };
    tracing::warn!(namespace = key.0, cluster = key.1, error = invalid.error, "an AISCluster cannot be read");
    let patch = json!({"status": {"conditions": conditions, "phase": "Degraded"}});
    let params = PatchParams { field_manager: Some(STATUS_MANAGER.to_owned()), ..PatchParams::default() };
    ctx.metrics.write("AISClusterStatus");
    if let Err(source) = api.patch_status(&key.1, &params, &Patch::Merge(&patch)).await {
        // Older API servers refuse any status while the spec is not of the schema: the event has to do.
        tracing::warn!(error = %source, cluster = key.1, "the status of an unreadable AISCluster");
    }
    ctx.teller.tell_about(&named(&object.metadata), &Note::warning(REASON, "Read", message)).await;
    Ok(())
}

/// Nobody can say any more what the finalizer was to wait for; it must not hold the object for ever.
async fn release(ctx: &Context, api: &Api<DynamicObject>, object: &DynamicObject) -> Result<(), Error> {
    let mut finalizers = object.finalizers().to_vec();
    let before = finalizers.len();
    finalizers.retain(|name| name != FINALIZER);
    if finalizers.len() == before {
        return Ok(());
    }
    let patch = json!({"metadata": {
        "finalizers": finalizers, "resourceVersion": object.metadata.resource_version,
    }});
    ctx.metrics.write("AISCluster");
    let name = object.name_any();
    match api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(ApplyError::Api { what: "finalizer".to_owned(), source: Box::new(source) }.into()),
        Ok(_) => Ok(()),
    }
}

fn named(meta: &ObjectMeta) -> ObjectMeta {
    let (name, namespace, uid) = (meta.name.clone(), meta.namespace.clone(), meta.uid.clone());
    ObjectMeta { name, namespace, uid, ..ObjectMeta::default() }
}

/// The conditions with `Ready` and `Degraded` of this reason; `None` if they say so already.
fn conditions(live: &Value, message: &str, now: Timestamp) -> Option<Vec<Value>> {
    let mut all = live.as_array().cloned().unwrap_or_default();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    let mut changed = false;
    for (kind, status) in [("Ready", "False"), ("Degraded", "True")] {
        let before = all.iter().position(|c| c["type"] == kind);
        let old = before.map(|at| all.remove(at)).unwrap_or_default();
        let same = old["status"] == status;
        changed |= !same || old["reason"] != REASON || old["message"] != message;
        let since = if same { old["lastTransitionTime"].clone() } else { json!(now) };
        all.push(json!({
            "type": kind, "status": status, "reason": REASON, "message": message, "lastTransitionTime": since,
        }));
    }
    changed.then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_put_beside_the_others_once() {
        let now = Timestamp::UNIX_EPOCH;
        let live = json!([
            {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Available", "status": "True", "reason": "Available", "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]);
        let first = conditions(&live, "m", now).unwrap_or_default();
        assert_eq!(first.len(), 3);
        let ready = first.iter().find(|c| c["type"] == "Ready").cloned().unwrap_or_default();
        assert_eq!((&ready["status"], &ready["lastTransitionTime"]), (&json!("False"), &json!("1970-01-01T00:00:00Z")));
        assert_eq!(conditions(&json!(first), "m", now), None);
        let other = conditions(&json!(first), "n", Timestamp::MAX).unwrap_or_default();
        assert!(other.iter().all(|c| c["lastTransitionTime"] != json!(Timestamp::MAX.to_string())));
    }
}
