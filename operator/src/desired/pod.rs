//! The pod template of a role, fit for the `restricted` pod security standard.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapKeySelector, ConfigMapVolumeSource, Container, ContainerPort,
    EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference, ObjectFieldSelector,
    PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretVolumeSource, SecurityContext, Toleration, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use ais_crds::PodTemplate;

use crate::facts::Observed;
use crate::names::{CONTAINER, PORT_CONTROL, PORT_PEER, PORT_PUBLIC, Role};
use crate::validate::Valid;

const USER: i64 = 65532;
const STATE_DIR: &str = "/var/lib/ais/state";
const DATA_DIR: &str = "/var/lib/ais/data";
const DISCOVERY_DIR: &str = "/etc/ais/discovery";
const SECRET_DIR: &str = "/etc/ais/secret";

pub(super) fn template(valid: &Valid, observed: &Observed, role: Role) -> PodTemplateSpec {
    let spec = &observed.cluster.spec;
    let (custom, placement) = match role {
        Role::Gateway => (&spec.gateways.template, &valid.gateways),
        Role::Target => (&spec.targets.template, &valid.targets),
    };
    let mut labels = custom.labels.clone();
    labels.extend(valid.names.role_labels(role));
    let pull_secrets: Vec<_> =
        spec.image_pull_secrets.iter().map(|s| LocalObjectReference { name: s.name.clone() }).collect();
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: some(custom.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(pod_security()),
            termination_grace_period_seconds: Some(custom.termination_grace_period_seconds),
            image_pull_secrets: Some(pull_secrets).filter(|list| !list.is_empty()),
            affinity: Some(placement.affinity.clone().unwrap_or_else(|| spread_by_default(valid, role))),
            topology_spread_constraints: Some(placement.spread.clone()).filter(|list| !list.is_empty()),
            tolerations: Some(tolerations(custom)).filter(|list| !list.is_empty()),
            node_selector: some(custom.node_selector.clone()),
            priority_class_name: custom.priority_class_name.clone(),
            containers: vec![container(valid, observed, role, custom)],
            volumes: Some(volumes(valid)),
            ..PodSpec::default()
        }),
    }
}

fn some(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map).filter(|m| !m.is_empty())
}

fn container(valid: &Valid, observed: &Observed, role: Role, custom: &PodTemplate) -> Container {
    let spec = &observed.cluster.spec;
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.into()),
        container_port: i32::from(number),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![
        mount("state", STATE_DIR, false),
        mount("discovery", DISCOVERY_DIR, true),
        mount("secret", SECRET_DIR, true),
        mount("tmp", "/tmp", false),
    ];
    if role == Role::Target {
        mounts.push(mount("data", DATA_DIR, false));
    }
    Container {
        name: CONTAINER.into(),
        image: Some(spec.image.clone().unwrap_or_else(|| observed.defaults.image.clone())),
        image_pull_policy: Some(spec.image_pull_policy.as_str().into()),
        command: Some(vec!["/ais-node".into(), "run".into()]),
        env: Some(env(valid, observed, role)),
        ports: Some(vec![port("public", PORT_PUBLIC), port("control", PORT_CONTROL), port("peer", PORT_PEER)]),
        volume_mounts: Some(mounts),
        resources: resources(custom),
        security_context: Some(container_security()),
        // Waiting for the others at founding is no reason to be killed: start is liveness, not readiness.
        startup_probe: Some(probe("/v1/health", 1, 60, 2)),
        liveness_probe: Some(probe("/v1/health", 5, 3, 3)),
        readiness_probe: Some(probe("/v1/health?readiness=true", 1, 2, 2)),
        ..Container::default()
    }
}

fn env(valid: &Valid, observed: &Observed, role: Role) -> Vec<EnvVar> {
    let names = &valid.names;
    let ha = &observed.cluster.spec.ha;
    let plain = |name: &str, value: String| EnvVar { name: name.into(), value: Some(value), value_from: None };
    let from_map = |name: &str, key: &str| EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector { name: names.primary(), key: key.into(), optional: None }),
            ..EnvVarSource::default()
        }),
    };
    let node_id = EnvVar {
        name: "AIS_NODE_ID".into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: Some("v1".into()), field_path: "metadata.name".into() }),
            ..EnvVarSource::default()
        }),
    };
    vec![
        node_id,
        plain("AIS_KIND", role.as_str().into()),
        plain("AIS_STATE_DIR", STATE_DIR.into()),
        // After AIS_NODE_ID, because the kubelet expands only what stands before.
        plain("AIS_ADVERTISE_HOST", names.host(role, "$(AIS_NODE_ID)")),
        plain("AIS_DISCOVERY_FILE", format!("{DISCOVERY_DIR}/{}", super::config::DISCOVERY_KEY)),
        plain("AIS_SECRET_FILE", format!("{SECRET_DIR}/{}", super::config::SECRET_KEY)),
        from_map("AIS_CLUSTER_UUID", "cluster-uuid"),
        from_map("AIS_PRIMARY_EP", "endpoint"),
        plain("AIS_LOG_FORMAT", "json".into()),
        plain("AIS_VOTERS", ha.voters.to_string()),
        plain("AIS_SUSPECT_MS", ha.suspect_milliseconds.to_string()),
        plain("AIS_LEASE_MS", ha.lease_milliseconds.to_string()),
        plain("AIS_EVICT_SMAP_MS", (ha.evict_smap_seconds * 1000).to_string()),
        plain("AIS_EVICT_VOTER_MS", (ha.evict_voter_seconds * 1000).to_string()),
    ]
}

fn probe(path: &str, period_s: i32, failures: i32, timeout_s: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("control".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_s),
        failure_threshold: Some(failures),
        timeout_seconds: Some(timeout_s),
        ..Probe::default()
    }
}

fn volumes(valid: &Valid) -> Vec<Volume> {
    let names = &valid.names;
    vec![
        Volume {
            name: "discovery".into(),
            config_map: Some(ConfigMapVolumeSource { name: names.discovery(), ..ConfigMapVolumeSource::default() }),
            ..Volume::default()
        },
        Volume {
            name: "secret".into(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(names.secret()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "tmp".into(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("64Mi".into())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        },
    ]
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

fn resources(custom: &PodTemplate) -> Option<ResourceRequirements> {
    let convert = |map: &BTreeMap<String, IntOrString>| -> Option<BTreeMap<String, Quantity>> {
        let text = |q: &IntOrString| match q {
            IntOrString::Int(number) => Quantity(number.to_string()),
            IntOrString::String(text) => Quantity(text.clone()),
        };
        Some(map.iter().map(|(k, q)| (k.clone(), text(q))).collect::<BTreeMap<_, _>>()).filter(|m| !m.is_empty())
    };
    let (limits, requests) = (convert(&custom.resources.limits), convert(&custom.resources.requests));
    (limits.is_some() || requests.is_some()).then(|| ResourceRequirements {
        limits,
        requests,
        ..ResourceRequirements::default()
    })
}

fn tolerations(custom: &PodTemplate) -> Vec<Toleration> {
    custom
        .tolerations
        .iter()
        .map(|t| Toleration {
            key: t.key.clone(),
            operator: t.operator.clone(),
            value: t.value.clone(),
            effect: t.effect.clone(),
            toleration_seconds: t.toleration_seconds,
        })
        .collect()
}

/// Preferred, not required: a cluster on few nodes must still come up.
fn spread_by_default(valid: &Valid, role: Role) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    topology_key: "kubernetes.io/hostname".into(),
                    label_selector: Some(LabelSelector {
                        match_labels: Some(valid.names.selector(role)),
                        ..LabelSelector::default()
                    }),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}
