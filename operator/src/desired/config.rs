//! Secret and ConfigMaps.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::{Wanted, meta, wanted};
use crate::facts::{Discovery, Kind, Observed, Peer};
use crate::names::{ANNOTATION_ROTATION, ANNOTATION_ROTATION_STEP, Role};
use crate::plan::Plan;
use crate::validate::Valid;

/// Key of the mounted file.
pub const DISCOVERY_KEY: &str = "discovery.yaml";
/// Key of the secret's bytes.
pub const SECRET_KEY: &str = "secret";

pub(super) fn secret(valid: &Valid, observed: &Observed, plan: &Plan) -> Wanted {
    let name = valid.names.secret();
    let fact = &plan.credentials.secret;
    let mut metadata = meta(observed, name.clone(), valid.names.labels());
    if !fact.request.is_empty() {
        metadata.annotations = Some(BTreeMap::from([
            (ANNOTATION_ROTATION.into(), fact.request.clone()),
            (ANNOTATION_ROTATION_STEP.into(), fact.step.as_str().into()),
        ]));
    }
    let secret = Secret {
        metadata,
        data: Some(BTreeMap::from([(SECRET_KEY.into(), ByteString(fact.content.clone().into_bytes()))])),
        type_: Some("Opaque".into()),
        ..Secret::default()
    };
    wanted(Kind::Secret, name, &secret)
}

/// The file is JSON, which is YAML too.
pub(super) fn discovery(valid: &Valid, observed: &Observed, plan: &Plan) -> Wanted {
    let name = valid.names.discovery();
    let file = Discovery {
        cluster_uuid: valid.uuid.clone(),
        formed: plan.founding.formed,
        initial_voters: plan.founding.initial_voters.clone(),
        peers: peers(valid, plan),
        removed: plan.scale.removed.clone(),
    };
    let text = serde_json::to_string_pretty(&file).unwrap_or_default();
    let map = ConfigMap {
        metadata: meta(observed, name.clone(), valid.names.labels()),
        data: Some(BTreeMap::from([(DISCOVERY_KEY.into(), text)])),
        ..ConfigMap::default()
    };
    wanted(Kind::ConfigMap, name, &map)
}

pub(super) fn primary(valid: &Valid, observed: &Observed, plan: &Plan) -> Wanted {
    let name = valid.names.primary();
    let map = ConfigMap {
        metadata: meta(observed, name.clone(), valid.names.labels()),
        data: Some(BTreeMap::from([
            ("endpoint".into(), plan.endpoint.clone()),
            ("cluster-uuid".into(), valid.uuid.clone()),
            ("founding-attempt".into(), valid.founding_attempt.to_string()),
        ])),
        ..ConfigMap::default()
    };
    wanted(Kind::ConfigMap, name, &map)
}

fn peers(valid: &Valid, plan: &Plan) -> Vec<Peer> {
    let names = &valid.names;
    Role::ALL
        .into_iter()
        .flat_map(|role| (0..plan.replicas.members(role)).map(move |n| (role, n)))
        .map(|(role, n)| {
            let id = names.pod(role, n);
            let host = names.host(role, &id);
            Peer {
                kind: role.as_str().into(),
                public: format!("{host}:{}", names.ports.public),
                control: format!("{host}:{}", names.ports.control),
                peer: format!("{host}:{}", names.ports.peer),
                id,
            }
        })
        .collect()
}
