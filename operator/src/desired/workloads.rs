//! StatefulSets.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{Wanted, digest, meta, pod, wanted};
use crate::facts::{ClaimKind, Kind, Observed};
use crate::names::{ANNOTATION_REPLICAS, ANNOTATION_TEMPLATE, LABEL_CLUSTER_ID, Names, Role};
use crate::plan::Plan;
use crate::plan::storage::size_of;
use crate::validate::Valid;

pub(super) fn all(valid: &Valid, observed: &Observed, plan: &Plan) -> Vec<Wanted> {
    Role::ALL.into_iter().map(|role| set(valid, observed, plan, role)).collect()
}

/// Digest of the template that a role's pods shall have by the spec of this very pass: of what is sent, since the server
/// adds to it and writes some things its own way.
pub(super) fn template_digest(valid: &Valid, observed: &Observed, role: Role) -> String {
    digest(&serde_json::to_value(pod::template(valid, observed, role)).unwrap_or_default())
}

fn set(valid: &Valid, observed: &Observed, plan: &Plan, role: Role) -> Wanted {
    let names = &valid.names;
    let name = names.set(role);
    let replicas = plan.replicas.of(role);
    let mut metadata = meta(observed, name.clone(), names.role_labels(role));
    let members = plan.replicas.members(role);
    metadata.annotations = Some(BTreeMap::from([
        (ANNOTATION_REPLICAS.into(), members.to_string()),
        (ANNOTATION_TEMPLATE.into(), template_digest(valid, observed, role)),
    ]));
    let set = StatefulSet {
        metadata,
        spec: StatefulSetSpec {
            replicas: Some(replicas),
            service_name: Some(names.set(role)),
            pod_management_policy: Some("Parallel".into()),
            // Which pod goes when is decided by who leads and who votes, which the set does not know.
            update_strategy: Some(StatefulSetUpdateStrategy { type_: Some("OnDelete".into()), rolling_update: None }),
            selector: LabelSelector { match_labels: Some(names.selector(role)), ..LabelSelector::default() },
            template: pod::template(valid, observed, role),
            volume_claim_templates: Some(claims(valid, observed, plan, role)),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".into()),
                when_scaled: Some("Retain".into()),
            }),
            revision_history_limit: Some(5),
            ..StatefulSetSpec::default()
        },
        ..StatefulSet::default()
    };
    wanted(Kind::StatefulSet, name, &set)
}

fn claims(valid: &Valid, observed: &Observed, plan: &Plan, role: Role) -> Vec<PersistentVolumeClaim> {
    let spec = &observed.cluster.spec;
    let state = match role {
        Role::Gateway => &spec.gateways.state_storage,
        Role::Target => &spec.targets.state_storage,
    };
    // The uuid is on the claim from its first moment, or a volume could outlive all knowledge of its owner.
    let mut labels = valid.names.role_labels(role);
    labels.insert(LABEL_CLUSTER_ID.into(), valid.uuid.clone());
    let size = |kind| size_of(&plan.storage, role, kind);
    let (name, class) = (ClaimKind::State.as_str(), state.storage_class_name.as_ref());
    let mut claims = vec![claim(name, size(ClaimKind::State), class, labels.clone())];
    if role == Role::Target {
        let data = &spec.targets.storage;
        for number in 0..data.volumes_per_target {
            let name = Names::data_volume(number);
            let mut claim = claim(&name, size(ClaimKind::Data), data.storage_class_name.as_ref(), labels.clone());
            if let Some(spec) = &mut claim.spec {
                spec.access_modes = Some(data.access_modes.iter().map(|mode| mode.as_str().to_owned()).collect());
            }
            claims.push(claim);
        }
    }
    claims
}

fn claim(name: &str, size: String, class: Option<&String>, labels: BTreeMap<String, String>) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(name.into()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: class.cloned(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".into(), Quantity(size))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
